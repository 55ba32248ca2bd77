//! What operators are told: tables for people, messages for programs.

use serde_json::Value;
use stock_proto::stock::admin::v1::node_status::State;
use stock_proto::stock::admin::v1::replica_audit::Verdict;
use stock_proto::stock::admin::v1::replica_move::Step;
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::admin::v1::shard_audit::Group;
use stock_proto::stock::admin::v1::{
    AddNodeResponse, DrainNodeResponse, GetAuditResponse, ListNodesResponse, ListShardsResponse,
    MoveReplicaResponse, NodeStatus, RaiseVersionResponse, RebuildReplicaResponse,
    RemoveNodeResponse, ReplaceNodeResponse, ReplicaMove, ReplicaStatus, SetReplicationResponse,
    ShardStatus, TransferLeadershipResponse, UndrainNodeResponse,
};
use stock_proto::stock::v1::GetTopologyResponse;

use super::args::ShardName;
use super::last_resort;
use super::status::ClusterStatus;
use super::words::{count, groups, state_name, up_words};
use crate::columns::Columns;
use crate::message::message;

/// What an operator's command came to. `done`: somebody waited, and it is.
#[derive(Debug)]
pub(crate) enum Operation {
    Status(ClusterStatus),
    Nodes(ListNodesResponse),
    Added(AddNodeResponse),
    Drained {
        node_id: u64,
        done: bool,
        answer: DrainNodeResponse,
    },
    Replicas {
        count: u32,
        answer: SetReplicationResponse,
    },
    Versions(ListNodesResponse),
    Raised {
        version: u32,
        answer: RaiseVersionResponse,
    },
    Undrained {
        node_id: u64,
        answer: UndrainNodeResponse,
    },
    Replaceable {
        node_id: u64,
        answer: ReplaceNodeResponse,
    },
    Removed {
        node_id: u64,
        answer: RemoveNodeResponse,
    },
    Shards(ListShardsResponse),
    Moved {
        shard: ShardName,
        done: bool,
        answer: MoveReplicaResponse,
    },
    Transferred {
        shard: ShardName,
        to: Option<u64>,
        done: bool,
        answer: TransferLeadershipResponse,
    },
    Rebuilt {
        shard: ShardName,
        node_id: u64,
        done: bool,
        answer: RebuildReplicaResponse,
    },
    Audited(GetAuditResponse),
    LastResort(GetTopologyResponse),
}

impl Operation {
    /// Whether a script should stop here: replicas that must be equal are not, or a group has no
    /// leader.
    pub(crate) fn is_alarming(&self) -> bool {
        let answer = match self {
            Self::Audited(answer) => answer,
            Self::LastResort(topology) => return last_resort::is_needed(topology),
            _ => return false,
        };
        let mut replicas = answer.audits.iter().flat_map(|audit| &audit.replicas);
        replicas.any(|replica| replica.verdict() == Verdict::Differs)
    }

    /// The response message as JSON.
    pub(crate) fn value(&self) -> anyhow::Result<Value> {
        match self {
            Self::Status(status) => status.value(),
            Self::Nodes(answer) => message(answer),
            Self::Added(answer) => message(answer),
            Self::Drained { answer, .. } => message(answer),
            Self::Replicas { answer, .. } => message(answer),
            Self::Versions(answer) => message(answer),
            Self::Raised { answer, .. } => message(answer),
            Self::Undrained { answer, .. } => message(answer),
            Self::Replaceable { answer, .. } => message(answer),
            Self::Removed { answer, .. } => message(answer),
            Self::Shards(answer) => message(answer),
            Self::Moved { answer, .. } => message(answer),
            Self::Transferred { answer, .. } => message(answer),
            Self::Rebuilt { answer, .. } => message(answer),
            Self::Audited(answer) => message(answer),
            Self::LastResort(topology) => message(topology),
        }
    }

    /// Text without a last line break.
    pub(crate) fn table(&self) -> String {
        match self {
            Self::Status(status) => status.table(),
            Self::Nodes(answer) => node_table(answer),
            Self::Added(answer) => format!(
                "Node {0} may join: start stockd there with node_id = {0} and an empty data \
                 directory.",
                answer.node_id
            ),
            Self::Drained { node_id, done, .. } if *done => {
                format!("Node {node_id} is empty. Take it out: stockctl node remove {node_id}")
            }
            Self::Drained {
                node_id, answer, ..
            } => format!(
                "Node {node_id} is draining: {} to go. Watch it: stockctl shard list",
                count(u64::from(answer.replicas), "replica")
            ),
            Self::Replicas { count, .. } => format!(
                "Each shard shall have {count} replicas, as far as there are nodes for them; \
                 `stockctl shard list` shows them."
            ),
            Self::Versions(answer) => version_table(answer),
            Self::Raised { version, .. } => format!("The cluster speaks version {version}."),
            Self::Undrained { node_id, .. } => {
                format!("Node {node_id} is active again and takes replicas.")
            }
            Self::Replaceable { node_id, .. } => format!(
                "The next data directory that joins as node {node_id} takes its place, and what \
                 runs now ends."
            ),
            Self::Removed { node_id, .. } => {
                format!("Node {node_id} left for ever; its id is never used again.")
            }
            Self::Shards(answer) => shard_table(answer),
            Self::Moved { shard, done, .. } => match done {
                true => format!("The replica of {shard} has moved."),
                false => under_way(&format!("The move of {shard}")),
            },
            Self::Transferred {
                shard, to, done, ..
            } => match (to, done) {
                (None, _) => format!("Any node may lead {shard}."),
                (Some(node), true) => format!("Node {node} leads {shard}."),
                (Some(_), false) => under_way(&format!("The hand-over of {shard}")),
            },
            Self::Rebuilt {
                shard,
                node_id,
                done,
                ..
            } => match done {
                true => format!("The replica of {shard} on node {node_id} is made anew."),
                false => under_way(&format!("The rebuild of {shard} on node {node_id}")),
            },
            Self::Audited(answer) => audit_table(answer),
            Self::LastResort(topology) => last_resort::advice(topology),
        }
    }
}

/// A move in words, for one line.
pub(super) fn move_words(what: &str, under_way: &ReplicaMove) -> String {
    let mut text = what.to_owned();
    if let Some(from) = under_way.from_node_id {
        text.push_str(&format!(" from node {from}"));
    }
    if let Some(to) = under_way.to_node_id {
        text.push_str(&format!(" to node {to}"));
    }
    let step = match under_way.step() {
        Step::Parked => "laid aside until the shard has a leader".to_owned(),
        Step::Unheard => "no leader has reported".to_owned(),
        Step::Adding => "adding".to_owned(),
        Step::CatchingUp => {
            let entries = match under_way.lag {
                1 => "1 entry".to_owned(),
                lag => format!("{lag} entries"),
            };
            format!("catching up, {entries} to go")
        }
        Step::HandingOver => "handing leadership over".to_owned(),
        Step::Changing => "changing voters".to_owned(),
        Step::GivingUp => "giving up".to_owned(),
        Step::Ending => "ending".to_owned(),
        Step::Unspecified => "under way".to_owned(),
    };
    format!("{text}: {step}")
}

fn under_way(what: &str) -> String {
    format!("{what} is written down and begins when it can. Watch it: stockctl shard list")
}

fn node_table(answer: &ListNodesResponse) -> String {
    let mut table = Columns::new(&[
        ">NODE",
        "STATE",
        "UP",
        ">REPLICAS",
        ">LEADS",
        ">FREE",
        ">P50",
        ">P99",
        "NEEDED BY",
        "URL",
        "PEERS",
    ]);
    for node in &answer.nodes {
        let reported = |value: Option<u64>, text: fn(u64) -> String| value.map_or("-".into(), text);
        table.row([
            node.node_id.to_string(),
            state_name(node.state()).to_owned(),
            up_words(node),
            node.replicas.to_string(),
            node.leads.to_string(),
            reported(node.free_bytes, gibibytes),
            reported(node.write_p50_us, |us| format!("{us} us")),
            reported(node.write_p99_us, |us| format!("{us} us")),
            needed_words(node),
            node.endpoint.clone(),
            node.peers.clone(),
        ]);
    }
    let each = count(u64::from(answer.replication), "replica");
    format!(
        "{}\n\nEvery shard should have {each}. A node that nobody needs may be stopped: the \
         others are a quorum.\nP50 and P99: half, and 99 in 100, of a node's latest log writes \
         took as long at most, fsync included.",
        table.finish()
    )
}

fn version_table(answer: &ListNodesResponse) -> String {
    let mut table = Columns::new(&[">NODE", "STATE", "UP", "SPEAKS UP TO"]);
    for node in &answer.nodes {
        let newest = node.newest_version;
        table.row([
            node.node_id.to_string(),
            state_name(node.state()).to_owned(),
            up_words(node),
            newest.map_or("-".to_owned(), |newest| format!("version {newest}")),
        ]);
    }
    let next = answer.version + 1;
    let nodes = answer.nodes.iter();
    let joined = nodes.filter(|node| node.state() != State::Expected);
    let behind = joined.filter(|node| node.newest_version.is_none_or(|newest| newest < next));
    let behind: Vec<String> = behind.map(|node| node.node_id.to_string()).collect();
    let advice = match behind.is_empty() {
        true => format!("Every node speaks version {next}: stockctl cluster version raise"),
        false => format!("Version {next} is not spoken by: {}", behind.join(", ")),
    };
    format!(
        "The cluster speaks version {}.\n\n{}\n\n{advice}",
        answer.version,
        table.finish()
    )
}

/// Who would have no quorum without a node: nobody, where it may be stopped.
fn needed_words(node: &NodeStatus) -> String {
    if !matches!(node.state(), State::Active | State::Draining) {
        return "-".into();
    }
    let needed = groups(node.needed_by_meta, &node.needed_by_shards);
    needed.unwrap_or_else(|| "nobody".into())
}

fn gibibytes(bytes: u64) -> String {
    format!("{}.{} GiB", bytes >> 30, ((bytes & 0x3fff_ffff) * 10) >> 30)
}

fn shard_table(answer: &ListShardsResponse) -> String {
    let mut table = Columns::new(&[
        ">SHARD", ">LEADER", ">TERM", ">COMMIT", ">LAG", "REPLICAS", "NOW",
    ]);
    if let Some(meta) = &answer.meta {
        table.row(shard_row("meta".into(), meta));
    }
    for shard in &answer.shards {
        table.row(shard_row(shard.shard.to_string(), shard));
    }
    let mut text = table.finish();
    for waiting in &answer.waiting {
        text.push_str(&format!("\n\n{}.", waiting.message));
    }
    text
}

fn shard_row(name: String, shard: &ShardStatus) -> [String; 7] {
    let replicas = shard.replicas.iter();
    let marked = replicas.clone().map(|replica| marked(shard, replica));
    let lag = replicas.map(|replica| replica.lag).max().unwrap_or(0);
    [
        name,
        shard
            .leader_node_id
            .map_or("none".into(), |leader| leader.to_string()),
        shard.term.unwrap_or(0).to_string(),
        shard.commit_index.unwrap_or(0).to_string(),
        lag.to_string(),
        marked.collect::<Vec<_>>().join(" "),
        now(shard),
    ]
}

fn marked(shard: &ShardStatus, replica: &ReplicaStatus) -> String {
    let role = match replica.role() {
        Role::Learner => "+",
        Role::Leaving => "-",
        Role::Voter if Some(replica.node_id) == shard.leader_node_id => "*",
        Role::Voter | Role::Unspecified => "",
    };
    let heard = if replica.active { "" } else { "!" };
    format!("{}{role}{heard}", replica.node_id)
}

/// What happens, or else what is asked for, and what that waits for.
fn now(shard: &ShardStatus) -> String {
    let mut parts = Vec::new();
    match (&shard.r#move, &shard.requested) {
        (Some(under_way), _) => {
            let because = &under_way.because;
            parts.push(format!(
                "{} (because {because})",
                move_words("replica", under_way)
            ));
        }
        (None, Some(asked)) => parts.push(format!(
            "asked to move from node {} to node {}",
            asked.from_node_id, asked.to_node_id
        )),
        (None, None) => {}
    }
    parts.extend(shard.waiting.iter().map(|waiting| waiting.message.clone()));
    parts.join("; ")
}

fn audit_table(answer: &GetAuditResponse) -> String {
    if answer.audits.is_empty() {
        return "No shard has been audited yet.".into();
    }
    let mut table = Columns::new(&[">SHARD", ">INDEX", "AT", ">NODE", "VERDICT", "BUCKETS"]);
    for audit in &answer.audits {
        for replica in &audit.replicas {
            let buckets: Vec<String> = replica.buckets.iter().map(u32::to_string).collect();
            table.row([
                match audit.group {
                    Some(Group::Shard(shard)) => shard.to_string(),
                    Some(Group::Meta(_)) | None => "meta".into(),
                },
                audit.index.to_string(),
                audit.at.map_or_else(|| "-".into(), |at| at.to_string()),
                replica.node_id.to_string(),
                verdict_name(replica.verdict()).to_owned(),
                buckets.join(" "),
            ]);
        }
    }
    table.finish()
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "-",
        Verdict::Agrees => "AGREES",
        Verdict::Differs => "DIFFERS",
        Verdict::Silent => "SILENT",
    }
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::admin::v1::waiting::Reason;
    use stock_proto::stock::admin::v1::{ReplicaAudit, ShardAudit, Waiting};

    use super::*;

    #[test]
    fn nodes_are_one_line_each() {
        let node = |node_id, state: State, up| {
            let mut node = NodeStatus {
                node_id,
                up,
                endpoint: format!("http://n{node_id}:7401"),
                peers: format!("n{node_id}:7402"),
                replicas: 9,
                leads: 3,
                silent_for: Some(prost_types::Duration {
                    seconds: 72,
                    nanos: 0,
                }),
                ..NodeStatus::default()
            };
            if up {
                node.free_bytes = Some((5 << 30) + (1 << 29));
                (node.write_p50_us, node.write_p99_us) = (Some(48), Some(310));
            }
            node.set_state(state);
            node
        };
        let answer = ListNodesResponse {
            nodes: vec![
                node(1, State::Active, true),
                NodeStatus {
                    needed_by_shards: vec![0, 1, 2, 3, 4],
                    needed_by_meta: true,
                    ..node(2, State::Draining, false)
                },
                NodeStatus {
                    slow_disk: true,
                    needed_by_shards: vec![1, 4],
                    ..node(3, State::Active, true)
                },
            ],
            replication: 3,
            ..ListNodesResponse::default()
        };
        assert_eq!(
            Operation::Nodes(answer).table(),
            "\
NODE  STATE     UP                 REPLICAS  LEADS     FREE    P50     P99  NEEDED BY       \
URL             PEERS
   1  active    yes                       9      3  5.5 GiB  48 us  310 us  nobody          \
   http://n1:7401  n1:7402
   2  draining  silent for 1m 12s         9      3        -      -       -  meta, 5 shards  \
   http://n2:7401  n2:7402
   3  active    yes, slow disk            9      3  5.5 GiB  48 us  310 us  1, 4            \
   http://n3:7401  n3:7402

Every shard should have 3 replicas. A node that nobody needs may be stopped: the others are a \
quorum.
P50 and P99: half, and 99 in 100, of a node's latest log writes took as long at most, fsync \
included."
        );
    }

    #[test]
    fn versions_say_who_keeps_the_next_one_from_being_spoken() {
        let node = |node_id, newest_version: Option<u32>| {
            let mut node = NodeStatus {
                node_id,
                up: newest_version.is_some(),
                newest_version,
                ..NodeStatus::default()
            };
            node.set_state(State::Active);
            node
        };
        let table = |newest: [Option<u32>; 2]| {
            let nodes = (1..).zip(newest).map(|(id, newest)| node(id, newest));
            let answer = ListNodesResponse {
                nodes: nodes.collect(),
                version: 1,
                ..ListNodesResponse::default()
            };
            Operation::Versions(answer).table()
        };
        assert_eq!(
            table([Some(2), Some(1)]),
            "\
The cluster speaks version 1.

NODE  STATE   UP   SPEAKS UP TO
   1  active  yes  version 2
   2  active  yes  version 1

Version 2 is not spoken by: 2"
        );
        let ready = table([Some(2), Some(3)]);
        assert!(ready.ends_with("Every node speaks version 2: stockctl cluster version raise"));
        assert!(table([Some(2), None]).ends_with("not spoken by: 2"));
    }

    #[test]
    fn shards_say_who_leads_what_moves_and_what_waits() {
        let replica = |node_id, role: Role, active, lag| {
            let mut replica = ReplicaStatus {
                node_id,
                active,
                lag,
                ..ReplicaStatus::default()
            };
            replica.set_role(role);
            replica
        };
        let mut under_way = ReplicaMove {
            from_node_id: Some(3),
            to_node_id: Some(4),
            because: "the node is away".into(),
            lag: 20,
            ..ReplicaMove::default()
        };
        under_way.set_step(Step::CatchingUp);
        let moving = ShardStatus {
            shard: 0,
            leader_node_id: Some(2),
            term: Some(7),
            commit_index: Some(100),
            replicas: vec![
                replica(2, Role::Voter, true, 0),
                replica(3, Role::Voter, false, 90),
                replica(4, Role::Learner, true, 20),
            ],
            r#move: Some(under_way),
            ..ShardStatus::default()
        };
        let waiting = ShardStatus {
            waiting: vec![Waiting {
                reason: Reason::MoveUnderWay.into(),
                message: "another replica is being moved".into(),
            }],
            ..ShardStatus::default()
        };
        let answer = ListShardsResponse {
            header: None,
            shards: vec![moving],
            meta: Some(waiting),
            waiting: vec![Waiting {
                reason: Reason::NodeSilent.into(),
                message: "node 3 has been silent for 700 s".into(),
            }],
            next_page_token: String::new(),
        };
        assert_eq!(
            Operation::Shards(answer).table(),
            "\
SHARD  LEADER  TERM  COMMIT  LAG  REPLICAS  NOW
 meta    none     0       0    0            another replica is being moved
    0       2     7     100   90  2* 3! 4+  replica from node 3 to node 4: catching up, 20 entries \
             to go (because the node is away)

node 3 has been silent for 700 s."
        );
    }

    #[test]
    fn a_replica_that_differs_alarms_scripts() {
        let answer = |verdict: Verdict| {
            let mut replica = ReplicaAudit {
                node_id: 2,
                ..ReplicaAudit::default()
            };
            replica.set_verdict(verdict);
            let audit = ShardAudit {
                replicas: vec![replica],
                ..ShardAudit::default()
            };
            Operation::Audited(GetAuditResponse {
                header: None,
                audits: vec![audit],
                next_page_token: String::new(),
            })
        };
        assert!(answer(Verdict::Differs).is_alarming());
        assert!(!answer(Verdict::Agrees).is_alarming());
        assert!(!answer(Verdict::Silent).is_alarming());
    }

    #[test]
    fn every_operation_has_a_json_form() {
        let shard = ShardName::Meta;
        for operation in [
            Operation::Nodes(ListNodesResponse::default()),
            Operation::Added(AddNodeResponse::default()),
            Operation::Drained {
                node_id: 1,
                done: true,
                answer: DrainNodeResponse::default(),
            },
            Operation::Replicas {
                count: 5,
                answer: SetReplicationResponse::default(),
            },
            Operation::Undrained {
                node_id: 1,
                answer: UndrainNodeResponse::default(),
            },
            Operation::Removed {
                node_id: 1,
                answer: RemoveNodeResponse::default(),
            },
            Operation::Shards(ListShardsResponse::default()),
            Operation::Moved {
                shard,
                done: false,
                answer: MoveReplicaResponse::default(),
            },
            Operation::Transferred {
                shard,
                to: None,
                done: false,
                answer: TransferLeadershipResponse::default(),
            },
            Operation::Rebuilt {
                shard,
                node_id: 1,
                done: false,
                answer: RebuildReplicaResponse::default(),
            },
            Operation::Audited(GetAuditResponse::default()),
        ] {
            if let Err(error) = operation.value() {
                panic!("{operation:?}: {error:#}");
            }
        }
    }
}
