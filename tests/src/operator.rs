//! What an operator does to a cluster, and what he waits for.

use std::time::Duration;

use stock_client::{Client, Error};
use stock_proto::stock::admin::v1::rebuild_replica_request::Group;
use stock_proto::stock::admin::v1::{
    DrainNodeRequest, ListNodesRequest, ListShardsRequest, NodeStatus, RebuildReplicaRequest,
    RemoveNodeRequest, ReplicaStatus, SetReplicationRequest, ShardStatus,
};
use stock_supervisor::health;

use crate::names::request_id;
use crate::wait::until;

/// A replica moves in a second or two, one after the other; builds and other tests may run beside.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// Of each group.
const VOTERS: usize = 3;

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
        health::members(&self.nodes().await?, expected)?;
        let (groups, waiting) = self.groups().await?;
        if !waiting.is_empty() {
            return Err(format!("waiting: {waiting:?}"));
        }
        for group in &groups {
            health::settled(group, expected, VOTERS)?;
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
            health::empty(&self.nodes().await?, node)
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

/// The replica of a group on a node, if there is one.
pub fn replica_on(group: &ShardStatus, node: u64) -> Option<&ReplicaStatus> {
    group
        .replicas
        .iter()
        .find(|replica| replica.node_id == node)
}
