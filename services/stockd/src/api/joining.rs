//! `stock.internal.v1`: how a data directory becomes a member.

use std::sync::Arc;

use stock_cluster::{Change, Directory, GroupId, NodeState, RegistryRefusal};
use stock_proto::stock::internal::v1 as api;
use stock_proto::stock::internal::v1::joining_service_client::JoiningServiceClient;
use stock_proto::stock::internal::v1::joining_service_server::JoiningService;
use tonic::{Request, Response, Status};

use super::Edge;
use super::cluster::{check_addresses, check_node};
use super::error::ApiError;
use super::front::Front;
use super::meta_leader::MetaLeader;
use crate::config::Config;
use stock_api::fields::Fields;

/// Bytes of a data directory's name.
const DIRECTORY_BYTES: usize = 16;

/// The service.
pub(super) struct JoiningCalls {
    config: Arc<Config>,
    leader: MetaLeader,
}

impl JoiningCalls {
    /// Of this node.
    pub(super) fn new(config: &Arc<Config>, edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let leader = MetaLeader::new(config.node_id, edge, front);
        let config = Arc::clone(config);
        Self { config, leader }
    }

    /// Refuses nodes that mean another cluster.
    fn check_cluster(&self, fields: &mut Fields, cluster_id: &str) {
        let ours = &self.config.cluster_id;
        if cluster_id != ours {
            fields.refuse("cluster_id", format!("is not that of this cluster, {ours}"));
        }
    }

    fn do_get_standing(
        &self,
        call: &api::GetStandingRequest,
    ) -> Result<api::GetStandingResponse, ApiError> {
        let mut fields = Fields::default();
        self.check_cluster(&mut fields, &call.cluster_id);
        fields.finish(Some(()))?;
        let edge = &self.leader.edge;
        let registry = edge.cluster.registry();
        let node = registry.node(call.node_id);
        let leaderless = (0..edge.shards()).filter(|shard| {
            let group = edge.cluster.group(GroupId::of_shard(*shard));
            group.leader.is_none()
        });
        Ok(api::GetStandingResponse {
            shard_count: edge.shards(),
            leaderless_shards: leaderless.collect(),
            is_removed: node.is_some_and(|node| node.state == NodeState::Removed),
        })
    }

    async fn do_join(
        &self,
        call: &api::JoinNodeRequest,
    ) -> Result<api::JoinNodeResponse, ApiError> {
        let mut fields = Fields::default();
        self.check_cluster(&mut fields, &call.cluster_id);
        let node = match call.node_id {
            0 => Some(0),
            node => check_node(&mut fields, "node_id", node),
        };
        let addresses = check_addresses(&mut fields, &call.endpoint, &call.peers);
        let directory = <[u8; DIRECTORY_BYTES]>::try_from(&call.directory[..])
            .map_err(|_| format!("must be {DIRECTORY_BYTES} bytes"));
        let directory = fields.check("directory", directory);
        let (node, (directory, (grpc, peers))) =
            fields.finish(node.zip(directory.zip(addresses)))?;
        let edge = &self.leader.edge;
        let known = edge.operations.registry();
        let directory = Directory(u128::from_be_bytes(directory));
        let is_connected = edge.cluster.is_reachable(node);
        let overview = self.leader.overview()?;
        if overview.is_heard_with_another(node, directory, is_connected) {
            return Err(ApiError::Registry(RegistryRefusal::NodeHeard { node }));
        }
        let change = Change::Join {
            node,
            directory,
            replaces: known.node(node).and_then(|known| known.directory),
            grpc,
            peers,
        };
        let done = self.leader.change(None, change).await?;
        let (node_id, generation_floor, since) = done.joined()?;
        let registry = edge.operations.registry();
        let members = registry
            .nodes()
            .filter(|(id, node)| *id != node_id && node.state != NodeState::Removed)
            .map(|(node_id, node)| api::Member {
                node_id,
                peers: node.peers.clone(),
            });
        Ok(api::JoinNodeResponse {
            node_id,
            generation_floor,
            shard_count: edge.shards(),
            members: members.collect(),
            applied_index: done.index,
            incarnation: registry.incarnation().to_be_bytes().to_vec(),
            since,
        })
    }
}

#[tonic::async_trait]
impl JoiningService for JoiningCalls {
    async fn get_standing(
        &self,
        request: Request<api::GetStandingRequest>,
    ) -> Result<Response<api::GetStandingResponse>, Status> {
        Ok(Response::new(self.do_get_standing(request.get_ref())?))
    }

    async fn join_node(
        &self,
        request: Request<api::JoinNodeRequest>,
    ) -> Result<Response<api::JoinNodeResponse>, Status> {
        let there =
            |leader, call| async move { JoiningServiceClient::new(leader).join_node(call).await };
        let here = |call| async move { self.do_join(&call).await };
        self.leader.answer(request, there, here).await
    }
}
