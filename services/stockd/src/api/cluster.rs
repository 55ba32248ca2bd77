//! `ClusterService`: who is in the cluster, who leads what, and where replicas are and go.

use std::future::Future;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use stock_cluster::{
    ADDRESS_BYTES_MAX, Change, Directory, GroupId, NODE_ID_MAX, NodeState, Overview,
    RegistryCommand, RegistryOutcome, RegistryRefusal,
};
use stock_core::{Request as Asked, RequestId};
use stock_node::answer::Failure;
use stock_node::way::{self, Answerer};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::v1::cluster_service_server::ClusterService;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::edge::Edge;
use super::error::ApiError;
use super::fields::Fields;
use super::front::{Call, Front};
use super::topology::topology;
use super::{cluster_view, page, proxy};
use crate::config::Config;

/// Bytes of a data directory's name.
const DIRECTORY_BYTES: usize = 16;

/// The edge of the leader of group 0, on another node.
type Leader = ClusterServiceClient<Channel>;

/// The service.
pub(super) struct ClusterCalls {
    config: Arc<Config>,
    edge: Arc<Edge>,
    front: Arc<Front>,
    stop: CancellationToken,
}

impl ClusterCalls {
    /// Of this node, until told to stop.
    pub(super) fn new(
        config: Arc<Config>,
        edge: Arc<Edge>,
        front: Arc<Front>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            config,
            edge,
            front,
            stop,
        }
    }

    fn topology(&self) -> api::GetTopologyResponse {
        let configured = self.config.nodes.iter();
        let configured: Vec<_> = configured.map(|it| (it.id, it.grpc.as_str())).collect();
        let (cluster, config) = (&self.edge.cluster, &self.config);
        topology(&config.cluster_id, config.node_id, cluster, &configured)
    }

    fn overview(&self) -> Result<Overview, ApiError> {
        self.edge.operations.overview().map_err(ApiError::Failed)
    }

    /// The edge of the leader of group 0, if that is another node: it answers in this one's place.
    fn elsewhere(&self, caller: Caller) -> Option<Leader> {
        match way::of_operator(&self.edge.cluster, self.config.node_id, caller.is_node) {
            Answerer::Here => None,
            Answerer::Others(leader) => {
                let leader = leader.into_iter().next()?;
                Some(Leader::new(self.edge.proxy.channel(leader)))
            }
        }
    }

    /// Has group 0 carry a change out: what came of it, and the index of its entry.
    async fn change(
        &self,
        request_id: Option<RequestId>,
        change: Change,
    ) -> Result<(RegistryOutcome, u64), ApiError> {
        let command = RegistryCommand {
            principal: self.edge.principal.clone(),
            request: request_id.map(|id| Asked {
                id,
                fingerprint: change.fingerprint(),
            }),
            change,
        };
        let changed = self.edge.operations.change(command).await;
        let changed = changed.map_err(ApiError::Failed)?;
        match changed.outcome {
            RegistryOutcome::Refused(refusal) => Err(ApiError::Registry(refusal)),
            outcome => Ok((outcome, changed.applied_index)),
        }
    }

    /// A call that the leader of group 0 answers: `there`, if that is another node, or else `here`.
    async fn by_leader<C: Call, Answer, There, Here>(
        &self,
        request: Request<C>,
        there: impl FnOnce(Leader, Request<C>) -> There,
        here: impl FnOnce(C) -> Here,
    ) -> Result<Response<Answer>, Status>
    where
        There: Future<Output = Result<Response<Answer>, Status>>,
        Here: Future<Output = Result<Answer, ApiError>>,
    {
        let by_leader = async |call, caller: Caller| match self.elsewhere(caller) {
            Some(leader) => {
                let answer = there(leader, caller.send_on(call));
                let answer = proxy::answer(caller.deadline, answer).await?;
                Ok(answer.into_inner())
            }
            None => here(call).await,
        };
        self.front.run(request, by_leader).await
    }

    fn do_list_nodes(
        &self,
        call: &api::ListNodesRequest,
    ) -> Result<api::ListNodesResponse, ApiError> {
        let asked = page::asked_by_number(call.page_size, &call.page_token)?;
        let overview = self.overview()?;
        Ok(cluster_view::nodes(&overview, call.include_removed, asked))
    }

    async fn do_add(&self, call: &api::AddNodeRequest) -> Result<api::AddNodeResponse, ApiError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let node = check_node(&mut fields, "node_id", call.node_id, true);
        let addresses = check_addresses(&mut fields, &call.endpoint, &call.peers);
        let (request_id, (node, (grpc, peers))) =
            fields.finish(request_id.zip(node.zip(addresses)))?;
        let change = Change::Announce { node, grpc, peers };
        let (outcome, applied_index) = self.change(Some(request_id), change).await?;
        let (node_id, ..) = joined(&outcome)?;
        Ok(api::AddNodeResponse {
            node_id,
            applied_index,
        })
    }

    async fn do_join(
        &self,
        call: &api::JoinNodeRequest,
    ) -> Result<api::JoinNodeResponse, ApiError> {
        let mut fields = Fields::default();
        if call.cluster_id != self.config.cluster_id {
            let ours = &self.config.cluster_id;
            fields.refuse("cluster_id", format!("is not that of this cluster, {ours}"));
        }
        let node = check_node(&mut fields, "node_id", call.node_id, true);
        let addresses = check_addresses(&mut fields, &call.endpoint, &call.peers);
        let directory = <[u8; DIRECTORY_BYTES]>::try_from(&call.directory[..])
            .map_err(|_| format!("must be {DIRECTORY_BYTES} bytes"));
        let directory = fields.check("directory", directory);
        let (node, (directory, (grpc, peers))) =
            fields.finish(node.zip(directory.zip(addresses)))?;
        let known = self.edge.operations.registry();
        let directory = Directory(u128::from_be_bytes(directory));
        let is_connected = self.edge.cluster.is_reachable(node);
        let overview = self.overview()?;
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
        let (outcome, applied_index) = self.change(None, change).await?;
        let (node_id, generation_floor, since) = joined(&outcome)?;
        let registry = self.edge.operations.registry();
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
            shard_count: self.edge.shards(),
            members: members.collect(),
            applied_index,
            incarnation: registry.incarnation().to_be_bytes().to_vec(),
            since,
        })
    }

    async fn do_replace(
        &self,
        call: &api::ReplaceNodeRequest,
    ) -> Result<api::ReplaceNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let change = Change::AllowReplacement { node };
        let (_, applied_index) = self.change(Some(request_id), change).await?;
        Ok(api::ReplaceNodeResponse { applied_index })
    }

    async fn do_drain(
        &self,
        call: &api::DrainNodeRequest,
    ) -> Result<api::DrainNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let (_, applied_index) = self
            .change(Some(request_id), Change::Drain { node })
            .await?;
        let replicas = self.edge.operations.registry().replicas_on(node);
        Ok(api::DrainNodeResponse {
            replicas: replicas as u32,
            applied_index,
        })
    }

    async fn do_undrain(
        &self,
        call: &api::UndrainNodeRequest,
    ) -> Result<api::UndrainNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let (_, applied_index) = self
            .change(Some(request_id), Change::Undrain { node })
            .await?;
        Ok(api::UndrainNodeResponse { applied_index })
    }

    async fn do_remove(
        &self,
        call: &api::RemoveNodeRequest,
    ) -> Result<api::RemoveNodeResponse, ApiError> {
        let (request_id, node) = check_named(&call.request_id, call.node_id)?;
        let (_, applied_index) = self
            .change(Some(request_id), Change::Remove { node })
            .await?;
        Ok(api::RemoveNodeResponse { applied_index })
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
        let (_, applied_index) = self.change(Some(request_id), change).await?;
        Ok(api::SetReplicationResponse { applied_index })
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
        let from = check_node(&mut fields, "from_node_id", call.from_node_id, false);
        let to = check_node(&mut fields, "to_node_id", call.to_node_id, false);
        let (request_id, (group, (from, to))) =
            fields.finish(request_id.zip(group.zip(from.zip(to))))?;
        let change = Change::MoveReplica { group, from, to };
        let (_, applied_index) = self.change(Some(request_id), change).await?;
        Ok(api::MoveReplicaResponse { applied_index })
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
        let to = check_node(&mut fields, "to_node_id", call.to_node_id, true);
        let (request_id, (group, to)) = fields.finish(request_id.zip(group.zip(to)))?;
        let node = Some(to).filter(|node| *node != 0);
        let change = Change::PreferLeader { group, node };
        let (_, applied_index) = self.change(Some(request_id), change).await?;
        Ok(api::TransferLeadershipResponse { applied_index })
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
        let node = check_node(&mut fields, "node_id", call.node_id, false);
        let (request_id, (group, node)) = fields.finish(request_id.zip(group.zip(node)))?;
        let change = Change::RebuildReplica { group, node };
        let (_, applied_index) = self.change(Some(request_id), change).await?;
        Ok(api::RebuildReplicaResponse { applied_index })
    }

    /// The group that a call names, by shard or as meta.
    fn check_group(
        &self,
        fields: &mut Fields,
        shard: Option<u32>,
        is_meta: bool,
    ) -> Option<GroupId> {
        let shards = self.edge.shards();
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
    let node = check_node(&mut fields, "node_id", node_id, false);
    fields.finish(request_id.zip(node))
}

fn check_node(fields: &mut Fields, field: &str, node: u64, may_be_zero: bool) -> Option<u64> {
    if node > NODE_ID_MAX || (node == 0 && !may_be_zero) {
        fields.refuse(field, format!("is {node}; nodes are 1 to {NODE_ID_MAX}"));
        return None;
    }
    Some(node)
}

fn check_addresses(fields: &mut Fields, endpoint: &str, peers: &str) -> Option<(String, String)> {
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

/// The node that joined, its generation floor, and the index that let its directory in.
fn joined(outcome: &RegistryOutcome) -> Result<(u64, u32, u64), ApiError> {
    match outcome {
        RegistryOutcome::Joined {
            node,
            generation_floor,
            since,
        } => Ok((*node, *generation_floor, *since)),
        RegistryOutcome::Done | RegistryOutcome::Begun { .. } | RegistryOutcome::Refused(_) => {
            Err(ApiError::Failed(Failure::OutcomeUnknown))
        }
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterCalls {
    async fn get_topology(
        &self,
        _: Request<api::GetTopologyRequest>,
    ) -> Result<Response<api::GetTopologyResponse>, Status> {
        Ok(Response::new(self.topology()))
    }

    async fn echo(
        &self,
        request: Request<api::EchoRequest>,
    ) -> Result<Response<api::EchoResponse>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(api::EchoResponse { payload }))
    }

    type EchoStreamStream = BoxStream<'static, Result<api::EchoStreamResponse, Status>>;

    async fn echo_stream(
        &self,
        request: Request<Streaming<api::EchoStreamRequest>>,
    ) -> Result<Response<Self::EchoStreamStream>, Status> {
        let answers = request.into_inner().map_ok(|message| {
            let payloads = message.payloads;
            api::EchoStreamResponse { payloads }
        });
        let stopped = self.stop.clone().cancelled_owned();
        Ok(Response::new(answers.take_until(stopped).boxed()))
    }

    async fn list_nodes(
        &self,
        request: Request<api::ListNodesRequest>,
    ) -> Result<Response<api::ListNodesResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.list_nodes(call).await };
        let here = |call| async move { self.do_list_nodes(&call) };
        self.by_leader(request, there, here).await
    }

    async fn list_shards(
        &self,
        request: Request<api::ListShardsRequest>,
    ) -> Result<Response<api::ListShardsResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.list_shards(call).await };
        let here = |call: api::ListShardsRequest| async move {
            let asked = page::asked_by_number(call.page_size, &call.page_token)?;
            Ok(cluster_view::shards(&self.overview()?, asked))
        };
        self.by_leader(request, there, here).await
    }

    async fn get_audit(
        &self,
        request: Request<api::GetAuditRequest>,
    ) -> Result<Response<api::GetAuditResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.get_audit(call).await };
        let here = |call: api::GetAuditRequest| async move {
            let asked = page::asked_by_number(call.page_size, &call.page_token)?;
            Ok(cluster_view::audits(&self.overview()?, asked))
        };
        self.by_leader(request, there, here).await
    }

    async fn add_node(
        &self,
        request: Request<api::AddNodeRequest>,
    ) -> Result<Response<api::AddNodeResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.add_node(call).await };
        let here = |call| async move { self.do_add(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn join_node(
        &self,
        request: Request<api::JoinNodeRequest>,
    ) -> Result<Response<api::JoinNodeResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.join_node(call).await };
        let here = |call| async move { self.do_join(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn drain_node(
        &self,
        request: Request<api::DrainNodeRequest>,
    ) -> Result<Response<api::DrainNodeResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.drain_node(call).await };
        let here = |call| async move { self.do_drain(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn undrain_node(
        &self,
        request: Request<api::UndrainNodeRequest>,
    ) -> Result<Response<api::UndrainNodeResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.undrain_node(call).await };
        let here = |call| async move { self.do_undrain(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn set_replication(
        &self,
        request: Request<api::SetReplicationRequest>,
    ) -> Result<Response<api::SetReplicationResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.set_replication(call).await };
        let here = |call| async move { self.do_set_replication(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn replace_node(
        &self,
        request: Request<api::ReplaceNodeRequest>,
    ) -> Result<Response<api::ReplaceNodeResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.replace_node(call).await };
        let here = |call| async move { self.do_replace(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn remove_node(
        &self,
        request: Request<api::RemoveNodeRequest>,
    ) -> Result<Response<api::RemoveNodeResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.remove_node(call).await };
        let here = |call| async move { self.do_remove(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn move_replica(
        &self,
        request: Request<api::MoveReplicaRequest>,
    ) -> Result<Response<api::MoveReplicaResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.move_replica(call).await };
        let here = |call| async move { self.do_move(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn transfer_leadership(
        &self,
        request: Request<api::TransferLeadershipRequest>,
    ) -> Result<Response<api::TransferLeadershipResponse>, Status> {
        let there =
            |mut leader: Leader, call| async move { leader.transfer_leadership(call).await };
        let here = |call| async move { self.do_transfer(&call).await };
        self.by_leader(request, there, here).await
    }

    async fn rebuild_replica(
        &self,
        request: Request<api::RebuildReplicaRequest>,
    ) -> Result<Response<api::RebuildReplicaResponse>, Status> {
        let there = |mut leader: Leader, call| async move { leader.rebuild_replica(call).await };
        let here = |call| async move { self.do_rebuild(&call).await };
        self.by_leader(request, there, here).await
    }
}
