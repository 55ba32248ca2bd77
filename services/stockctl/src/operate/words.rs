//! The words for how nodes and shards are, the same wherever they are told of.

use stock_proto::stock::admin::v1::NodeStatus;
use stock_proto::stock::admin::v1::node_status::State;

use crate::columns::whole_seconds;

/// So much of a thing.
pub(super) fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Expected => "expected",
        State::Active => "active",
        State::Draining => "draining",
        State::Removed => "removed",
        State::Unspecified => "-",
    }
}

/// Whether it is up, and how well.
pub(super) fn up_words(node: &NodeStatus) -> String {
    match (node.state(), node.up) {
        (State::Removed | State::Expected, _) => "-".into(),
        (_, true) => match trouble(node) {
            Some(trouble) => format!("yes, {trouble}"),
            None => "yes".into(),
        },
        (_, false) => trouble(node).unwrap_or_default(),
    }
}

/// What is wrong with it, if something is.
pub(super) fn trouble(node: &NodeStatus) -> Option<String> {
    match (node.state(), node.up) {
        (State::Removed | State::Expected, _) => None,
        (_, true) if node.disk_full => Some("disk full".into()),
        (_, true) if node.memory_full => Some("memory full".into()),
        (_, true) if node.slow_disk => Some("slow disk".into()),
        (_, true) => None,
        (_, false) => Some(match node.silent_for.and_then(whole_seconds) {
            Some(silent) => format!("silent for {silent}"),
            None => "no".into(),
        }),
    }
}

/// Shards that are named; where there are more they are counted.
const NAMED_MAX: usize = 4;

/// The meta group, if it is among them, and shards; none where there is nothing to name.
pub(super) fn groups(has_meta: bool, shards: &[u32]) -> Option<String> {
    let meta = has_meta.then(|| "meta".to_owned());
    let shards: Vec<String> = match shards.len() > NAMED_MAX {
        true => vec![count(shards.len() as u64, "shard")],
        false => shards.iter().map(u32::to_string).collect(),
    };
    let all: Vec<String> = meta.into_iter().chain(shards).collect();
    (!all.is_empty()).then(|| all.join(", "))
}
