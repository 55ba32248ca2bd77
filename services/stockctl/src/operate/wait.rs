//! Waiting until the cluster has done what was asked for, and telling how far it is.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stock_client::Client;
use stock_proto::stock::admin::v1::node_status::State;
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::admin::v1::{
    ListNodesRequest, ListNodesResponse, ListShardsRequest, ListShardsResponse, ShardStatus,
};

use super::answer::move_words;
use super::args::{ShardName, Wait};
use crate::failure::Failure;

/// The cluster decides twice a second: to ask more often would show nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    Drained {
        node_id: u64,
    },
    Moved {
        shard: ShardName,
        from: u64,
        to: u64,
    },
    Led {
        shard: ShardName,
        node_id: u64,
    },
    Rebuilt {
        shard: ShardName,
        node_id: u64,
    },
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// What is left of a number of things, where they can be counted, and what happens now.
    Left {
        count: Option<u64>,
        now: String,
    },
    /// It will never be done: somebody wants otherwise by now.
    Dropped(String),
}

impl Wait {
    /// Whether it is done: `false` if nobody waits for it.
    pub(super) async fn until(&self, client: &Client, goal: Goal) -> Result<bool, Failure> {
        if !self.wait {
            return Ok(false);
        }
        let bar = ProgressBar::new_spinner();
        let began = Instant::now();
        let mut most = 0;
        let mut told = String::new();
        loop {
            let nodes = client.list_nodes(ListNodesRequest::default()).await?;
            let shards = client.list_shards(ListShardsRequest::default()).await?;
            match progress(goal, &nodes, &shards) {
                Progress::Done => {
                    bar.finish_and_clear();
                    return Ok(true);
                }
                Progress::Dropped(why) => {
                    bar.abandon();
                    return Err(Failure::Unfinished(why));
                }
                Progress::Left { count, now } => {
                    if began.elapsed() >= self.give_up_after {
                        bar.abandon();
                        let text = format!("not done yet, and the cluster goes on: {now}");
                        return Err(Failure::Unfinished(text));
                    }
                    if let Some(left) = count {
                        most = most.max(left);
                        bar.set_style(counted());
                        bar.set_length(most);
                        bar.set_position(most - left);
                    }
                    // No bar is drawn where nobody looks: in a log each step is a line.
                    if bar.is_hidden() && now != told {
                        let _ = writeln!(std::io::stderr(), "{now}");
                        told.clone_from(&now);
                    }
                    bar.set_message(now);
                    bar.tick();
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn counted() -> ProgressStyle {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn progress(goal: Goal, nodes: &ListNodesResponse, shards: &ListShardsResponse) -> Progress {
    match goal {
        Goal::Drained { node_id } => drained(node_id, nodes, shards),
        Goal::Moved { shard, from, to } => of_shard(shards, shard, |status| {
            let is_there = has_voter(status, to) && !has_voter(status, from);
            let is_asked = status.requested.is_some() || status.r#move.is_some();
            match (is_there, is_asked) {
                (true, false) => Progress::Done,
                (_, true) => left(status),
                (false, false) => Progress::Dropped(format!(
                    "{shard} is not being moved to node {to} any more: the node may be draining, \
                     or the replica was replaced meanwhile"
                )),
            }
        }),
        Goal::Led { shard, node_id } => of_shard(shards, shard, |status| {
            match (status.leader_node_id, status.preferred_leader_node_id) {
                (Some(leader), _) if leader == node_id => Progress::Done,
                (_, Some(preferred)) if preferred == node_id => left(status),
                _ => Progress::Dropped(format!(
                    "{shard} is not to be led by node {node_id} any more"
                )),
            }
        }),
        Goal::Rebuilt { shard, node_id } => of_shard(shards, shard, |status| {
            let failed = status.replicas.iter();
            let is_failed = failed
                .filter(|replica| replica.node_id == node_id)
                .any(|replica| !replica.failure.is_empty());
            match is_failed || status.r#move.is_some() {
                true => left(status),
                false => Progress::Done,
            }
        }),
    }
}

fn drained(node_id: u64, nodes: &ListNodesResponse, shards: &ListShardsResponse) -> Progress {
    let node = nodes.nodes.iter().find(|node| node.node_id == node_id);
    let Some(node) = node else {
        // Removed meanwhile, which only an empty node can be.
        return Progress::Done;
    };
    match node.state() {
        State::Draining if node.replicas == 0 && node.leads == 0 => Progress::Done,
        State::Draining => {
            let all = shards.meta.iter().chain(&shards.shards);
            let mut moves = all.clone().filter_map(|shard| {
                let under_way = shard.r#move.as_ref()?;
                Some(move_words(&shard_name(shards, shard), under_way))
            });
            let of_node = |shard: &&ShardStatus| has_voter(shard, node_id);
            let mut waits = all.filter(of_node).flat_map(|shard| &shard.waiting);
            let now = moves.next();
            let now = now.or_else(|| waits.next().map(|waiting| waiting.message.clone()));
            Progress::Left {
                count: Some(u64::from(node.replicas)),
                now: now.unwrap_or_else(|| "replicas are about to move".into()),
            }
        }
        State::Removed => Progress::Done,
        State::Unspecified | State::Expected | State::Active => {
            Progress::Dropped(format!("node {node_id} is not draining any more"))
        }
    }
}

fn of_shard(
    shards: &ListShardsResponse,
    name: ShardName,
    judge: impl Fn(&ShardStatus) -> Progress,
) -> Progress {
    let found = match name {
        ShardName::Meta => shards.meta.as_ref(),
        ShardName::Stock(shard) => shards.shards.iter().find(|status| status.shard == shard),
    };
    found.map_or_else(|| Progress::Dropped(format!("there is no {name}")), judge)
}

fn shard_name(shards: &ListShardsResponse, shard: &ShardStatus) -> String {
    match shards
        .meta
        .as_ref()
        .is_some_and(|meta| std::ptr::eq(meta, shard))
    {
        true => "meta".into(),
        false => format!("shard {}", shard.shard),
    }
}

fn has_voter(status: &ShardStatus, node_id: u64) -> bool {
    let mut replicas = status.replicas.iter();
    replicas.any(|replica| replica.node_id == node_id && replica.role() != Role::Learner)
}

fn left(status: &ShardStatus) -> Progress {
    let under_way = status.r#move.as_ref();
    let now = under_way.map(|under_way| move_words("the replica", under_way));
    let waits = status
        .waiting
        .first()
        .map(|waiting| waiting.message.clone());
    Progress::Left {
        count: None,
        now: now.or(waits).unwrap_or_else(|| "about to begin".into()),
    }
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::admin::v1::waiting::Reason;
    use stock_proto::stock::admin::v1::{
        NodeStatus, ReplicaMove, ReplicaStatus, RequestedMove, Waiting, replica_move,
    };

    use super::*;

    fn nodes(state: State, replicas: u32, leads: u32) -> ListNodesResponse {
        let mut node = NodeStatus {
            node_id: 4,
            replicas,
            leads,
            ..NodeStatus::default()
        };
        node.set_state(state);
        ListNodesResponse {
            nodes: vec![node],
            replication: 3,
            ..ListNodesResponse::default()
        }
    }

    fn shard(voters: &[u64]) -> ShardStatus {
        let voter = |node_id| {
            let mut replica = ReplicaStatus {
                node_id,
                ..ReplicaStatus::default()
            };
            replica.set_role(Role::Voter);
            replica
        };
        ShardStatus {
            replicas: voters.iter().map(|node| voter(*node)).collect(),
            leader_node_id: Some(voters[0]),
            ..ShardStatus::default()
        }
    }

    fn shards(shard: ShardStatus) -> ListShardsResponse {
        ListShardsResponse {
            shards: vec![shard],
            ..ListShardsResponse::default()
        }
    }

    fn moving() -> ReplicaMove {
        let mut under_way = ReplicaMove {
            from_node_id: Some(4),
            to_node_id: Some(1),
            because: "the node is draining".into(),
            lag: 70,
            ..ReplicaMove::default()
        };
        under_way.set_step(replica_move::Step::CatchingUp);
        under_way
    }

    #[test]
    fn a_drain_is_done_when_the_node_is_empty_and_leads_nothing() {
        let goal = Goal::Drained { node_id: 4 };
        let none = shards(shard(&[1, 2, 3]));
        assert_eq!(
            progress(goal, &nodes(State::Draining, 0, 0), &none),
            Progress::Done
        );
        for (replicas, leads) in [(0, 1), (2, 0)] {
            let now = progress(goal, &nodes(State::Draining, replicas, leads), &none);
            assert!(matches!(now, Progress::Left { .. }), "{now:?}");
        }
        let undrained = progress(goal, &nodes(State::Active, 0, 0), &none);
        assert!(matches!(undrained, Progress::Dropped(_)), "{undrained:?}");
    }

    #[test]
    fn a_drain_says_what_moves_or_what_it_waits_for() {
        let goal = Goal::Drained { node_id: 4 };
        let mut busy = shard(&[4, 2, 3]);
        busy.waiting.push(Waiting {
            reason: Reason::NoRoom.into(),
            message: "no other active node has room for a replica".into(),
        });
        let left = |now: &str| Progress::Left {
            count: Some(1),
            now: now.into(),
        };
        let draining = nodes(State::Draining, 1, 0);
        let waits = left("no other active node has room for a replica");
        assert_eq!(progress(goal, &draining, &shards(busy.clone())), waits);
        busy.r#move = Some(moving());
        assert_eq!(
            progress(goal, &draining, &shards(busy)),
            left("shard 0 from node 4 to node 1: catching up, 70 entries to go")
        );
    }

    #[test]
    fn a_move_is_done_when_the_replica_is_there_and_nothing_is_asked_any_more() {
        let goal = Goal::Moved {
            shard: ShardName::Stock(0),
            from: 4,
            to: 1,
        };
        let of = |status| progress(goal, &nodes(State::Active, 1, 1), &shards(status));
        assert_eq!(of(shard(&[1, 2, 3])), Progress::Done);
        let mut asked = shard(&[4, 2, 3]);
        assert!(matches!(of(asked.clone()), Progress::Dropped(_)));
        asked.requested = Some(RequestedMove {
            from_node_id: 4,
            to_node_id: 1,
        });
        assert!(matches!(of(asked), Progress::Left { .. }));
        let mut ending = shard(&[1, 2, 3]);
        ending.r#move = Some(moving());
        assert!(matches!(of(ending), Progress::Left { .. }));
    }

    #[test]
    fn a_rebuild_is_done_when_the_replica_is_no_longer_called_failed() {
        let goal = Goal::Rebuilt {
            shard: ShardName::Stock(0),
            node_id: 2,
        };
        let of = |status| progress(goal, &nodes(State::Active, 1, 1), &shards(status));
        assert_eq!(of(shard(&[1, 2, 3])), Progress::Done);
        let mut failed = shard(&[1, 2, 3]);
        failed.replicas[1].failure = "it differs".into();
        assert!(matches!(of(failed), Progress::Left { .. }));
    }
}
