//! `ClusterService`: who is in the cluster, and who leads what.

use std::sync::Arc;

use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use crate::cluster_state::ClusterState;
use crate::config::Config;
use crate::worker::event::GroupId;

/// The service.
pub(super) struct ClusterCalls {
    config: Arc<Config>,
    cluster: Arc<ClusterState>,
}

impl ClusterCalls {
    /// Of this node.
    pub(super) fn new(config: Arc<Config>, cluster: Arc<ClusterState>) -> Self {
        Self { config, cluster }
    }

    fn shard(&self, group: GroupId) -> api::Shard {
        let status = self.cluster.group(group);
        api::Shard {
            shard: group.shard().unwrap_or(0),
            leader_node_id: status.leader.unwrap_or(0),
            replica_node_ids: self.config.nodes.iter().map(|node| node.id).collect(),
            term: status.term,
            applied_index: status.applied_index,
        }
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterCalls {
    async fn get_topology(
        &self,
        _: Request<api::GetTopologyRequest>,
    ) -> Result<Response<api::GetTopologyResponse>, Status> {
        let nodes = self.config.nodes.iter().map(|node| api::Node {
            node_id: node.id,
            endpoint: node.grpc.clone(),
            reachable: self.cluster.is_reachable(node.id),
        });
        let shards = (0..self.cluster.shards()).map(|shard| self.shard(GroupId::of_shard(shard)));
        Ok(Response::new(api::GetTopologyResponse {
            cluster_id: self.config.cluster_id.clone(),
            node_id: self.config.node_id,
            nodes: nodes.collect(),
            shards: shards.collect(),
            shard_count: self.cluster.shards(),
            meta: Some(self.shard(GroupId::META)),
        }))
    }

    async fn echo(
        &self,
        request: Request<api::EchoRequest>,
    ) -> Result<Response<api::EchoResponse>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(api::EchoResponse { payload }))
    }
}
