//! `ClusterService`: who is in the cluster, and where replicas are and go.

use std::sync::Arc;

use prost::Message;
use stock_cluster::{ADDRESS_BYTES_MAX, Change, GroupId, NODE_ID_MAX};
use stock_core::RequestId;
use stock_proto::stock::admin::v1 as api;
use stock_proto::stock::admin::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::admin::v1::cluster_service_server::ClusterService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::cluster_view;
use super::edge::Edge;
use super::error::ApiError;
use super::front::Front;
use super::meta_leader::{Done, MetaLeader};
use crate::config::Config;
use stock_api::fields::Fields;
use stock_api::page::{self, List};

/// The edge of the leader of group 0, on another node.
type Leader = ClusterServiceClient<Channel>;

/// The service.
pub(super) struct ClusterCalls {
    leader: MetaLeader,
}

impl ClusterCalls {
    /// Of this node.
    pub(super) fn new(config: &Config, edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let leader = MetaLeader::new(config.node_id, edge, front);
        Self { leader }
    }

    fn list(&self, call: &str, filters: &impl Message) -> List {
        List::of(call, filters, &self.leader.edge.incarnation())
    }

    fn do_list_nodes(
        &self,
        call: &api::ListNodesRequest,
    ) -> Result<api::ListNodesResponse, ApiError> {
        let filters = api::ListNodesRequest {
            include_removed: call.include_removed,
            ..api::ListNodesRequest::default()
        };
        let list = self.list("ListNodes", &filters);
        let asked = page::asked_by_number(list, call.page_size, &call.page_token)?;
        let overview = self.leader.overview()?;
        Ok(api::ListNodesResponse {
            header: self.leader.header(),
            ..cluster_view::nodes(&overview, call.include_removed, list, asked)
        })
    }

    async fn do_add(&self, call: &api::AddNodeRequest) -> Result<api::AddNodeResponse, ApiError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let node = check_free_node(&mut fields, call.node_id);
        let addresses = check_addresses(&mut fields, &call.endpoint, &call.peers);
        let (request_id, (node, (grpc, peers))) =
            fields.finish(request_id.zip(node.zip(addresses)))?;
        let change = Change::Announce { node, grpc, peers };
        let done = self.leader.change(Some(request_id), change).await?;
        let (node_id, ..) = done.joined()?;
        let header = done.header;
        Ok(api::AddNodeResponse { header, node_id })
    }

    async fn do_replace(
        &self,
        call: &api::ReplaceNodeRequest,
    ) -> Result<api::ReplaceNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let change = Change::AllowReplacement { node };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::ReplaceNodeResponse { header })
    }

    async fn do_drain(
        &self,
        call: &api::DrainNodeRequest,
    ) -> Result<api::DrainNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let change = Change::Drain { node };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        let replicas = self.leader.edge.operations.registry().replicas_on(node);
        Ok(api::DrainNodeResponse {
            header,
            replicas: replicas as u32,
        })
    }

    async fn do_undrain(
        &self,
        call: &api::UndrainNodeRequest,
    ) -> Result<api::UndrainNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let change = Change::Undrain { node };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::UndrainNodeResponse { header })
    }

    async fn do_remove(
        &self,
        call: &api::RemoveNodeRequest,
    ) -> Result<api::RemoveNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let change = Change::Remove { node };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::RemoveNodeResponse { header })
    }

    async fn do_set_replication(
        &self,
        call: &api::SetReplicationRequest,
    ) -> Result<api::SetReplicationResponse, ApiError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let request_id = fields.finish(request_id)?;
        let replicas = call.replicas;
        let change = Change::SetReplication { replicas };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::SetReplicationResponse { header })
    }

    async fn do_raise_version(
        &self,
        call: &api::RaiseVersionRequest,
    ) -> Result<api::RaiseVersionResponse, ApiError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        if call.version == 0 {
            fields.refuse("version", "must be given: the one after the cluster's");
        }
        let request_id = fields.finish(request_id)?;
        let version = call.version;
        let change = Change::RaiseVersion { version };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::RaiseVersionResponse { header })
    }

    async fn do_move(
        &self,
        call: &api::MoveReplicaRequest,
    ) -> Result<api::MoveReplicaResponse, ApiError> {
        use api::move_replica_request::Group;
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let group = match call.group {
            Some(Group::Shard(shard)) => self.check_group(&mut fields, Some(shard), false),
            Some(Group::Meta(is_meta)) => self.check_group(&mut fields, None, is_meta),
            None => self.check_group(&mut fields, None, false),
        };
        let from = check_node(&mut fields, "from_node_id", call.from_node_id);
        let to = check_node(&mut fields, "to_node_id", call.to_node_id);
        let (request_id, (group, (from, to))) =
            fields.finish(request_id.zip(group.zip(from.zip(to))))?;
        let change = Change::MoveReplica { group, from, to };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::MoveReplicaResponse { header })
    }

    async fn do_transfer(
        &self,
        call: &api::TransferLeadershipRequest,
    ) -> Result<api::TransferLeadershipResponse, ApiError> {
        use api::transfer_leadership_request::Group;
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let group = match call.group {
            Some(Group::Shard(shard)) => self.check_group(&mut fields, Some(shard), false),
            Some(Group::Meta(is_meta)) => self.check_group(&mut fields, None, is_meta),
            None => self.check_group(&mut fields, None, false),
        };
        let node = match call.to_node_id {
            Some(to) => check_node(&mut fields, "to_node_id", to).map(Some),
            None => Some(None),
        };
        let (request_id, (group, node)) = fields.finish(request_id.zip(group.zip(node)))?;
        let change = Change::PreferLeader { group, node };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::TransferLeadershipResponse { header })
    }

    async fn do_rebuild(
        &self,
        call: &api::RebuildReplicaRequest,
    ) -> Result<api::RebuildReplicaResponse, ApiError> {
        use api::rebuild_replica_request::Group;
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let group = match call.group {
            Some(Group::Shard(shard)) => self.check_group(&mut fields, Some(shard), false),
            Some(Group::Meta(is_meta)) => self.check_group(&mut fields, None, is_meta),
            None => self.check_group(&mut fields, None, false),
        };
        let node = check_node(&mut fields, "node_id", call.node_id);
        let (request_id, (group, node)) = fields.finish(request_id.zip(group.zip(node)))?;
        let change = Change::RebuildReplica { group, node };
        let Done { header, .. } = self.leader.change(Some(request_id), change).await?;
        Ok(api::RebuildReplicaResponse { header })
    }

    /// The group that a call names, by shard or as meta.
    fn check_group(
        &self,
        fields: &mut Fields,
        shard: Option<u32>,
        is_meta: bool,
    ) -> Option<GroupId> {
        let shards = self.leader.edge.shards();
        match shard {
            Some(shard) if shard < shards => Some(GroupId::of_shard(shard)),
            Some(shard) => {
                let last = shards.saturating_sub(1);
                fields.refuse("shard", format!("is {shard}; shards are 0 to {last}"));
                None
            }
            None if is_meta => Some(GroupId::META),
            None => {
                fields.refuse("shard", "or meta must be given");
                None
            }
        }
    }
}

/// A change of one node: its request and its id.
fn check_named(request_id: &str, node_id: u64) -> Result<(RequestId, u64), ApiError> {
    let mut fields = Fields::default();
    let request_id = fields.request_id(request_id);
    let node = check_node(&mut fields, "node_id", node_id);
    Ok(fields.finish(request_id.zip(node))?)
}

/// The id that a node shall have; 0: the next free one.
fn check_free_node(fields: &mut Fields, node: Option<u64>) -> Option<u64> {
    match node {
        Some(node) => check_node(fields, "node_id", node),
        None => Some(0),
    }
}

pub(super) fn check_node(fields: &mut Fields, field: &str, node: u64) -> Option<u64> {
    if !(1..=NODE_ID_MAX).contains(&node) {
        fields.refuse(field, format!("is {node}; nodes are 1 to {NODE_ID_MAX}"));
        return None;
    }
    Some(node)
}

pub(super) fn check_addresses(
    fields: &mut Fields,
    endpoint: &str,
    peers: &str,
) -> Option<(String, String)> {
    let is_url = endpoint
        .parse::<http::Uri>()
        .is_ok_and(|uri| uri.scheme().is_some() && uri.authority().is_some());
    if !is_url || endpoint.len() > ADDRESS_BYTES_MAX {
        fields.refuse("endpoint", "must be a URL such as http://node-4:7401");
    }
    let is_address = peers
        .parse::<http::uri::Authority>()
        .is_ok_and(|authority| authority.port_u16().is_some() && !authority.host().is_empty());
    if !is_address || peers.len() > ADDRESS_BYTES_MAX {
        fields.refuse("peers", "must be host:port");
    }
    Some((endpoint.to_owned(), peers.to_owned()))
}

#[tonic::async_trait]
impl ClusterService for ClusterCalls {
    async fn list_nodes(
        &self,
        request: Request<api::ListNodesRequest>,
    ) -> Result<Response<api::ListNodesResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).list_nodes(call).await };
        let here = |call| async move { self.do_list_nodes(&call) };
        self.leader.answer(request, there, here).await
    }

    async fn list_shards(
        &self,
        request: Request<api::ListShardsRequest>,
    ) -> Result<Response<api::ListShardsResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).list_shards(call).await };
        let here = |call: api::ListShardsRequest| async move {
            let list = self.list("ListShards", &api::ListShardsRequest::default());
            let asked = page::asked_by_number(list, call.page_size, &call.page_token)?;
            Ok(api::ListShardsResponse {
                header: self.leader.header(),
                ..cluster_view::shards(&self.leader.overview()?, list, asked)
            })
        };
        self.leader.answer(request, there, here).await
    }

    async fn get_audit(
        &self,
        request: Request<api::GetAuditRequest>,
    ) -> Result<Response<api::GetAuditResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).get_audit(call).await };
        let here = |call: api::GetAuditRequest| async move {
            let list = self.list("GetAudit", &api::GetAuditRequest::default());
            let asked = page::asked_by_number(list, call.page_size, &call.page_token)?;
            Ok(api::GetAuditResponse {
                header: self.leader.header(),
                ..cluster_view::audits(&self.leader.overview()?, list, asked)
            })
        };
        self.leader.answer(request, there, here).await
    }

    async fn add_node(
        &self,
        request: Request<api::AddNodeRequest>,
    ) -> Result<Response<api::AddNodeResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).add_node(call).await };
        let here = |call| async move { self.do_add(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn drain_node(
        &self,
        request: Request<api::DrainNodeRequest>,
    ) -> Result<Response<api::DrainNodeResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).drain_node(call).await };
        let here = |call| async move { self.do_drain(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn undrain_node(
        &self,
        request: Request<api::UndrainNodeRequest>,
    ) -> Result<Response<api::UndrainNodeResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).undrain_node(call).await };
        let here = |call| async move { self.do_undrain(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn set_replication(
        &self,
        request: Request<api::SetReplicationRequest>,
    ) -> Result<Response<api::SetReplicationResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).set_replication(call).await };
        let here = |call| async move { self.do_set_replication(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn raise_version(
        &self,
        request: Request<api::RaiseVersionRequest>,
    ) -> Result<Response<api::RaiseVersionResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).raise_version(call).await };
        let here = |call| async move { self.do_raise_version(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn replace_node(
        &self,
        request: Request<api::ReplaceNodeRequest>,
    ) -> Result<Response<api::ReplaceNodeResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).replace_node(call).await };
        let here = |call| async move { self.do_replace(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn remove_node(
        &self,
        request: Request<api::RemoveNodeRequest>,
    ) -> Result<Response<api::RemoveNodeResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).remove_node(call).await };
        let here = |call| async move { self.do_remove(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn move_replica(
        &self,
        request: Request<api::MoveReplicaRequest>,
    ) -> Result<Response<api::MoveReplicaResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).move_replica(call).await };
        let here = |call| async move { self.do_move(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn transfer_leadership(
        &self,
        request: Request<api::TransferLeadershipRequest>,
    ) -> Result<Response<api::TransferLeadershipResponse>, Status> {
        let there =
            |leader, call| async move { Leader::new(leader).transfer_leadership(call).await };
        let here = |call| async move { self.do_transfer(&call).await };
        self.leader.answer(request, there, here).await
    }

    async fn rebuild_replica(
        &self,
        request: Request<api::RebuildReplicaRequest>,
    ) -> Result<Response<api::RebuildReplicaResponse>, Status> {
        let there = |leader, call| async move { Leader::new(leader).rebuild_replica(call).await };
        let here = |call| async move { self.do_rebuild(&call).await };
        self.leader.answer(request, there, here).await
    }
}
