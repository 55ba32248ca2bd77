//! What a cluster looks like that is well, by what its nodes say of it. Nothing here asks them.
//! What is not well is said in words, for whoever waits for it in vain.

use stock_proto::stock::admin::v1::node_status::State;
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::admin::v1::{NodeStatus, ReplicaStatus, ShardStatus};
use stock_proto::stock::v1::GetTopologyResponse;

/// A replica that follows is at most these many entries behind while there is load.
const LAG_MAX: u64 = 64;

/// The leader of each group, the catalog's first, if each is a node that runs.
pub fn leaders(seen: &GetTopologyResponse, running: &[u64]) -> Result<Vec<u64>, String> {
    let groups = seen.meta.iter().chain(&seen.shards);
    let leaders = groups.map(|group| group.leader_node_id.unwrap_or(0));
    let leaders: Vec<u64> = leaders.collect();
    match leaders.iter().all(|leader| running.contains(leader)) {
        true => Ok(leaders),
        false => Err(format!("node {} sees leaders {leaders:?}", seen.node_id)),
    }
}

/// Whether just these nodes are in the cluster, all are up, and none has more than one replica more
/// than another.
pub fn members(nodes: &[NodeStatus], expected: &[u64]) -> Result<(), String> {
    let ids = nodes.iter().map(|node| node.node_id);
    let is_well = |node: &NodeStatus| node.up && node.state() == State::Active;
    if !ids.eq(expected.iter().copied()) || !nodes.iter().all(is_well) {
        return Err(format!("nodes {nodes:?}"));
    }
    let replicas = || nodes.iter().map(|node| node.replicas);
    let (most, fewest) = (replicas().max(), replicas().min());
    if most.unwrap_or(0) > fewest.unwrap_or(0) + 1 {
        return Err(format!("between {fewest:?} and {most:?} replicas a node"));
    }
    Ok(())
}

/// Whether a group has so many voters, on these nodes, all sound, and nothing is being done to it.
pub fn settled(group: &ShardStatus, nodes: &[u64], voters: usize) -> Result<(), String> {
    let is_busy = group.r#move.is_some() || group.requested.is_some() || !group.waiting.is_empty();
    let is_sound = |replica: &ReplicaStatus| {
        replica.active
            && replica.lag <= LAG_MAX
            && replica.failure.is_empty()
            && replica.role() != Role::Leaving
    };
    let all = &group.replicas;
    let voting = || all.iter().filter(|replica| replica.role() == Role::Voter);
    let is_settled = !is_busy
        && group.leader_node_id.is_some()
        && voting().all(|replica| nodes.contains(&replica.node_id))
        && voting().count() == voters
        && all.iter().all(is_sound);
    is_settled.then_some(()).ok_or(format!("{group:?}"))
}

/// Whether a node has nothing left, so that it can be taken out.
pub fn empty(nodes: &[NodeStatus], node: u64) -> Result<(), String> {
    let status = nodes.iter().find(|status| status.node_id == node);
    let status = status.ok_or_else(|| format!("node {node} is gone"))?;
    let is_empty = status.replicas == 0 && status.leads == 0;
    is_empty.then_some(()).ok_or(format!("{status:?}"))
}

/// Whether a node is a member and up.
pub fn up(nodes: &[NodeStatus], node: u64) -> Result<(), String> {
    let status = nodes.iter().find(|status| status.node_id == node);
    let is_up = |status: &&NodeStatus| status.up && status.state() == State::Active;
    let why = || format!("node {node} is not up: {status:?}");
    status.filter(is_up).map(drop).ok_or_else(why)
}
