//! What callers are told where a shard cannot answer.

use std::collections::HashMap;
use std::time::Duration;

use stock_proto::codec::ERROR_DOMAIN;
use stock_proto::stock::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// In the metadata of `NO_LEADER`: the node that leads as far as the one that answers knows, which
/// it does not reach.
const LEADER: &str = "leader_node_id";

/// About the time an election takes at best.
pub const RETRY_LEADERLESS_AFTER: Duration = Duration::from_millis(100);
/// An overloaded group has worked off what waits well within this.
const RETRY_OVERLOADED_AFTER: Duration = Duration::from_millis(50);
/// Room is made by people, or by what ends.
const RETRY_FULL_AFTER: Duration = Duration::from_secs(5);

/// No node leads the shard, or none that is reached. Nothing was done.
pub fn no_leader(leader: Option<u64>) -> Status {
    let leader = leader.map(|leader| (LEADER.to_owned(), leader.to_string()));
    status(
        Code::Unavailable,
        Reason::NoLeader,
        leader.into_iter().collect(),
        "the shard has no leader at the moment; nothing was done: try again",
        RETRY_LEADERLESS_AFTER,
    )
}

/// Too much waits already. Nothing was done.
pub fn overloaded() -> Status {
    exhausted(
        Reason::Overloaded,
        "too much is waiting for this shard; nothing was done: try again later",
        RETRY_OVERLOADED_AFTER,
    )
}

/// The leader's disk is nearly full. Nothing was done.
pub fn disk_full() -> Status {
    exhausted(
        Reason::DiskFull,
        "the disk of the shard's leader is nearly full: new holds and receipts are refused until \
         there is room; what keeps or ends holds, sales, adjustments and policies are still taken; \
         nothing was done",
        RETRY_FULL_AFTER,
    )
}

/// The leader's memory is nearly used up. Nothing was done.
pub fn memory_full() -> Status {
    exhausted(
        Reason::MemoryFull,
        "the memory of the shard's leader is nearly used up: new holds and receipts are refused \
         until there is room; what keeps or ends holds, sales, adjustments and policies are still \
         taken; nothing was done",
        RETRY_FULL_AFTER,
    )
}

/// Leadership changed on the way: it may or may not be done.
pub fn outcome_unknown() -> Status {
    status(
        Code::Unavailable,
        Reason::OutcomeUnknown,
        HashMap::new(),
        "leadership changed, or the leader did not answer in time, while the call was on its way; \
         it may or may not have been done: repeat it with the same request id or document",
        RETRY_LEADERLESS_AFTER,
    )
}

/// The state did not become new enough in time.
pub fn too_far_behind() -> Status {
    status(
        Code::Unavailable,
        Reason::TooFarBehind,
        HashMap::new(),
        "this node did not reach a state new enough in time: try again, or another node",
        RETRY_LEADERLESS_AFTER,
    )
}

fn exhausted(reason: Reason, message: &str, retry_after: Duration) -> Status {
    let code = Code::ResourceExhausted;
    status(code, reason, HashMap::new(), message, retry_after)
}

fn status(
    code: Code,
    reason: Reason,
    metadata: HashMap<String, String>,
    message: &str,
    retry_after: Duration,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, metadata);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(code, message, details)
}
