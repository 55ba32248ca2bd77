//! What an operator does to a cluster, and what he waits for.

use std::time::Duration;

use stock_client::{Client, Error};
use stock_proto::stock::v1::node_status::State;
use stock_proto::stock::v1::rebuild_replica_request::Group;
use stock_proto::stock::v1::replica_status::Role;
use stock_proto::stock::v1::{
    DrainNodeRequest, ListNodesRequest, ListShardsRequest, NodeStatus, RebuildReplicaRequest,
    RemoveNodeRequest, ReplicaStatus, SetReplicationRequest, ShardStatus,
};

use crate::names::request_id;
use crate::wait::until;

/// A replica moves in a second or two, one after the other; builds and other tests may run beside.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// A replica that follows is at most these many entries behind while there is load.
const LAG_MAX: u64 = 64;

/// Who looks after a cluster.
pub struct Operator {
    client: Client,
}

impl Operator {
    /// Works through this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Every member.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, String> {
        let answer = self.client.list_nodes(ListNodesRequest::default()).await;
        Ok(answer.map_err(|e| e.to_string())?.nodes)
    }

    /// Every group, the meta group first, and what the whole cluster waits for.
    pub async fn groups(&self) -> Result<(Vec<ShardStatus>, Vec<String>), String> {
        let answer = self.client.list_shards(ListShardsRequest::default()).await;
        let answer = answer.map_err(|e| e.to_string())?;
        let waiting = answer.waiting.into_iter().map(|waiting| waiting.message);
        let groups = answer.meta.into_iter().chain(answer.shards);
        Ok((groups.collect(), waiting.collect()))
    }

    /// Waits until just these nodes are in the cluster, all are up, every group has three sound
    /// voters on them, and no node has more than one replica more than another; returns the groups
    /// as they are then.
    pub async fn wait_until_settled(&self, nodes: &[u64]) -> Vec<ShardStatus> {
        until("a settled cluster", SETTLED_WITHIN, || self.settled(nodes)).await
    }

    /// What is not yet as [`Operator::wait_until_settled`] waits for it, or the groups.
    pub async fn settled(&self, expected: &[u64]) -> Result<Vec<ShardStatus>, String> {
        let nodes = self.nodes().await?;
        let ids: Vec<u64> = nodes.iter().map(|node| node.node_id).collect();
        let is_well = |node: &NodeStatus| node.up && node.state() == State::Active;
        if ids != expected || !nodes.iter().all(is_well) {
            return Err(format!("nodes {nodes:?}"));
        }
        let replicas = || nodes.iter().map(|node| node.replicas);
        let (most, fewest) = (replicas().max(), replicas().min());
        if most.unwrap_or(0) > fewest.unwrap_or(0) + 1 {
            return Err(format!("between {fewest:?} and {most:?} replicas a node"));
        }
        let (groups, waiting) = self.groups().await?;
        if !waiting.is_empty() {
            return Err(format!("waiting: {waiting:?}"));
        }
        for group in &groups {
            check_settled(group, expected)?;
        }
        Ok(groups)
    }

    /// Lets a node's replicas go elsewhere.
    pub async fn drain(&self, node: u64) -> Result<(), Error> {
        let request = DrainNodeRequest {
            request_id: request_id(),
            node_id: node,
        };
        self.client.drain_node(request).await.map(drop)
    }

    /// Says how many voters each group shall have.
    pub async fn set_replication(&self, replicas: u32) -> Result<(), Error> {
        let request = SetReplicationRequest {
            request_id: request_id(),
            replicas,
        };
        self.client.set_replication(request).await.map(drop)
    }

    /// Takes an empty node out.
    pub async fn remove(&self, node: u64) -> Result<(), Error> {
        let request = RemoveNodeRequest {
            request_id: request_id(),
            node_id: node,
        };
        self.client.remove_node(request).await.map(drop)
    }

    /// Drains a node, waits until nothing is left on it, and takes it out.
    pub async fn retire(&self, node: u64) {
        let drained = self.drain(node).await;
        drained.unwrap_or_else(|e| panic!("drain {node}: {e}"));
        until("an empty node", SETTLED_WITHIN, async || {
            let nodes = self.nodes().await?;
            let status = nodes.iter().find(|status| status.node_id == node);
            let status = status.ok_or("it is gone")?;
            let is_empty = status.replicas == 0 && status.leads == 0;
            is_empty.then_some(()).ok_or(format!("{status:?}"))
        })
        .await;
        let removed = self.remove(node).await;
        removed.unwrap_or_else(|e| panic!("remove {node}: {e}"));
    }

    /// Has a shard's replica on a node made anew.
    pub async fn rebuild(&self, shard: u32, node: u64) -> Result<(), Error> {
        let request = RebuildReplicaRequest {
            request_id: request_id(),
            group: Some(Group::Shard(shard)),
            node_id: node,
        };
        self.client.rebuild_replica(request).await.map(drop)
    }
}

fn check_settled(group: &ShardStatus, nodes: &[u64]) -> Result<(), String> {
    let is_busy = group.r#move.is_some() || group.requested.is_some() || !group.waiting.is_empty();
    let is_sound = |replica: &&ReplicaStatus| {
        replica.active && replica.lag <= LAG_MAX && replica.failure.is_empty()
    };
    let voters = || {
        group
            .replicas
            .iter()
            .filter(|replica| replica.role() == Role::Voter)
    };
    let are_there = voters().all(|replica| nodes.contains(&replica.node_id));
    let is_settled = !is_busy
        && group.leader_node_id != 0
        && are_there
        && voters().count() == 3
        && group
            .replicas
            .iter()
            .all(|replica| replica.role() != Role::Leaving)
        && group.replicas.iter().filter(is_sound).count() == group.replicas.len();
    is_settled.then_some(()).ok_or(format!("{group:?}"))
}

/// The replica of a group on a node, if there is one.
pub fn replica_on(group: &ShardStatus, node: u64) -> Option<&ReplicaStatus> {
    group
        .replicas
        .iter()
        .find(|replica| replica.node_id == node)
}
