//! A node that answers as it is told and writes down what it was asked.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::Stream;
use futures_util::stream::try_unfold;
use prost::Message;
use prost_types::Timestamp;
use stock_client::admin::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use stock_client::admin::v1::{
    AddNodeRequest, AddNodeResponse, DrainNodeRequest, DrainNodeResponse, GetAuditRequest,
    GetAuditResponse, ListNodesRequest, ListNodesResponse, ListShardsRequest, ListShardsResponse,
    MoveReplicaRequest, MoveReplicaResponse, RaiseVersionRequest, RaiseVersionResponse,
    RebuildReplicaRequest, RebuildReplicaResponse, RemoveNodeRequest, RemoveNodeResponse,
    ReplaceNodeRequest, ReplaceNodeResponse, SetReplicationRequest, SetReplicationResponse,
    TransferLeadershipRequest, TransferLeadershipResponse, UndrainNodeRequest, UndrainNodeResponse,
};
use stock_client::v1::batch_reserve_result::Result as Slot;
use stock_client::v1::reservation_service_server::{ReservationService, ReservationServiceServer};
use stock_client::v1::reserve_response::Outcome;
use stock_client::v1::topology_service_server::{TopologyService, TopologyServiceServer};
use stock_client::v1::{
    AmendRequest, AmendResponse, BatchReserveRequest, BatchReserveResponse, BatchReserveResult,
    ConfirmRequest, ConfirmResponse, ExtendRequest, ExtendResponse, FulfillRequest,
    FulfillResponse, GetReservationRequest, GetReservationResponse, GetTopologyRequest,
    GetTopologyResponse, Line, ListReservationsRequest, ListReservationsResponse, Node,
    ReleaseRequest, ReleaseResponse, Reservation, ReserveRequest, ReserveResponse,
    ReserveStreamRequest, ReserveStreamResponse, ReserveStreamResult, ResponseHeader, Shard,
    ShardIndex, reserve_stream_result,
};
use stock_client::{Client, ClientBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) const SHARD_COUNT: u32 = 8;

/// What a node asks for that has too much to do.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What a node does with its next call; without an act it answers.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Fail(Status),
    /// Takes the call and never answers.
    Hang,
}

#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The request ids in the order of their arrival.
    pub(crate) request_ids: Vec<String>,
    pub(crate) topology_calls: usize,
    pub(crate) script: VecDeque<Act>,
    /// Request ids that a batch or stream refuses once, and with which code.
    pub(crate) refused_once: Vec<(String, Code)>,
    topology: GetTopologyResponse,
    /// Where the topology says that it is.
    published: String,
    /// The life of its cluster.
    life: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct StubNode {
    pub(crate) node_id: u64,
    pub(crate) endpoint: String,
    record: Arc<Mutex<Record>>,
}

impl StubNode {
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.record().script.extend(acts);
    }

    /// Its cluster is founded anew, as far as it knows.
    pub(crate) fn begin_life(&self, life: u8) {
        let mut record = self.record();
        record.life = life;
        record.topology.header = header_of(self.node_id, life);
    }

    /// It says that this is the time.
    pub(crate) fn tell_time(&self, time: Timestamp) {
        self.record().topology.time = Some(time);
    }

    fn refused_once(&self, request_id: &str) -> Option<tonic_types::Status> {
        let refused = &mut self.record().refused_once;
        let position = refused.iter().position(|(id, _)| id == request_id)?;
        let (_, code) = refused.remove(position);
        // Only who has too much to do knows when to come back.
        let retry_after = (code == Code::ResourceExhausted).then_some(RETRY_AFTER);
        let mut details = ErrorDetails::with_retry_info(retry_after);
        details.set_error_info("REFUSED", ERROR_DOMAIN, []);
        let status = Status::with_error_details(code, "refused", details);
        Some(Message::decode(status.details()).expect("details are a status"))
    }

    /// Answers a request of a stream.
    fn answer(&self, number: u64, request_id: String, answers: &mut ReserveStreamResponse) {
        use reserve_stream_result::Result;
        let result = match self.refused_once(&request_id) {
            Some(status) if status.code == i32::from(Code::ResourceExhausted) => {
                let overload = answers.overload.get_or_insert_default();
                overload.numbers.push(number);
                overload.error = Some(status);
                return;
            }
            Some(status) => Result::Error(status),
            None => Result::Response(held(request_id, self.node_id)),
        };
        answers.results.push(ReserveStreamResult {
            number,
            result: Some(result),
        });
    }

    async fn act(&self, request_id: &str) -> Result<(), Status> {
        let act = {
            let mut record = self.record();
            record.request_ids.push(request_id.to_owned());
            record.script.pop_front()
        };
        match act {
            None => Ok(()),
            Some(Act::Fail(status)) => Err(status),
            Some(Act::Hang) => std::future::pending().await,
        }
    }
}

/// Three nodes; each says that node `shard % 3 + 1` leads a shard.
pub(crate) struct StubCluster {
    id: &'static str,
    /// What it tells of the time.
    pub(crate) time: Option<SystemTime>,
    pub(crate) nodes: Vec<StubNode>,
    servers: Vec<JoinHandle<()>>,
}

impl StubCluster {
    pub(crate) async fn start() -> Self {
        Self::named("stub", 1).await
    }

    pub(crate) async fn named(id: &'static str, life: u8) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..3 {
            let any: SocketAddr = ([127, 0, 0, 1], 0).into();
            listeners.push(TcpListener::bind(any).await.expect("a free port"));
        }
        let nodes: Vec<StubNode> = (1..)
            .zip(&listeners)
            .map(|(node_id, listener)| StubNode {
                node_id,
                endpoint: format!("http://{}", listener.local_addr().expect("bound")),
                record: Arc::default(),
            })
            .collect();
        let servers = listeners.into_iter().zip(&nodes);
        let servers = servers.map(|(l, node)| serve(l, node.clone())).collect();
        let cluster = Self {
            id,
            time: None,
            nodes,
            servers,
        };
        for node in &cluster.nodes {
            let mut record = node.record();
            record.published.clone_from(&node.endpoint);
            record.life = life;
        }
        cluster.set_leaders(1, |shard| u64::from(shard % 3) + 1);
        cluster
    }

    /// The nodes say that they are there.
    pub(crate) fn move_to(&self, endpoints: &[String]) {
        for (node, endpoint) in self.nodes.iter().zip(endpoints) {
            node.record().published.clone_from(endpoint);
        }
        self.set_leaders(1, |shard| u64::from(shard % 3) + 1);
    }

    /// The cluster is founded anew.
    pub(crate) fn begin_life(&self, life: u8) {
        for node in &self.nodes {
            node.begin_life(life);
        }
    }

    /// Nodes that were killed are there again.
    pub(crate) async fn revive(&mut self) {
        for (node, server) in self.nodes.iter().zip(&mut self.servers) {
            let address = node.endpoint.trim_start_matches("http://");
            let listener = loop {
                if let Ok(listener) = TcpListener::bind(address).await {
                    break listener;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            *server = serve(listener, node.clone());
        }
    }

    pub(crate) fn set_leaders(&self, term: u64, leader: impl Fn(u32) -> u64) {
        for node in &self.nodes {
            let shard = |shard| Shard {
                shard,
                leader_node_id: Some(leader(shard)).filter(|node| *node != 0),
                term,
                ..Shard::default()
            };
            let life = node.record().life;
            let topology = GetTopologyResponse {
                header: header_of(node.node_id, life),
                cluster_id: self.id.into(),
                node_id: node.node_id,
                nodes: self
                    .nodes
                    .iter()
                    .map(|node| Node {
                        node_id: node.node_id,
                        endpoint: node.record().published.clone(),
                        reachable: true,
                    })
                    .collect(),
                shards: (0..SHARD_COUNT).map(shard).collect(),
                shard_count: SHARD_COUNT,
                meta: Some(shard(0)),
                time: self.time.map(Into::into),
            };
            node.record().topology = topology;
        }
    }

    /// Closes a node's listener and its connections, as a crash does.
    pub(crate) async fn kill(&mut self, index: usize) {
        self.servers[index].abort();
        let _ = (&mut self.servers[index]).await;
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder().endpoint(&self.nodes[0].endpoint)
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().connect().await.expect("the stubs are up")
    }

    /// The request ids each node was given.
    pub(crate) fn request_ids(&self) -> Vec<Vec<String>> {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| node.record().request_ids.clone())
            .collect()
    }

    pub(crate) fn topology_calls(&self) -> usize {
        let nodes = self.nodes.iter();
        nodes.map(|node| node.record().topology_calls).sum()
    }
}

impl Drop for StubCluster {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

fn serve(listener: TcpListener, node: StubNode) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Connections live in this future, so that aborting it breaks them.
        let _ = Server::builder()
            .add_service(ReservationServiceServer::new(node.clone()))
            .add_service(TopologyServiceServer::new(node.clone()))
            .add_service(ClusterServiceServer::new(node))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await;
    })
}

/// Waits for something, and not for ever.
pub(crate) async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let over = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < over, "not within 20 s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What a node refuses a call with.
pub(crate) fn refusal(code: Code, message: &str) -> Status {
    let details = ErrorDetails::with_error_info("REFUSED", ERROR_DOMAIN, []);
    Status::with_error_details(code, message, details)
}

/// The domain of every error of a node.
const ERROR_DOMAIN: &str = "stockd";

/// A request whose home is the given shard.
pub(crate) fn reserve_in(shard: u32) -> ReserveRequest {
    let sku = (0..)
        .map(|number| format!("sku-{number}"))
        .find(|sku| stock_client::shard_of_sku(sku, SHARD_COUNT) == shard)
        .expect("every shard has some");
    ReserveRequest {
        lines: vec![Line::at(sku, "L1", 1)],
        ..ReserveRequest::default()
    }
}

/// Longer than anything on loopback takes, shorter than a test may.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

type Answer<T> = Result<Response<T>, Status>;

/// The index is the node's number.
fn header(node_id: u64) -> Option<ResponseHeader> {
    header_of(node_id, 1)
}

/// Later lives have later times.
fn header_of(node_id: u64, life: u8) -> Option<ResponseHeader> {
    let index = ShardIndex {
        shard: 0,
        index: node_id,
    };
    Some(ResponseHeader {
        indexes: vec![index],
        cluster_time: Some(Timestamp {
            seconds: i64::from(life),
            nanos: 0,
        }),
        incarnation: vec![life; 16].into(),
    })
}

/// Which node has answered.
pub(crate) fn answered_by(header: &Option<ResponseHeader>) -> u64 {
    header.as_ref().map_or(0, |header| header.index_of(0))
}

#[tonic::async_trait]
impl TopologyService for StubNode {
    async fn get_topology(&self, _: Request<GetTopologyRequest>) -> Answer<GetTopologyResponse> {
        let mut record = self.record();
        record.topology_calls += 1;
        Ok(Response::new(record.topology.clone()))
    }
}

#[tonic::async_trait]
impl ClusterService for StubNode {
    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Answer<ListNodesResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn add_node(&self, _: Request<AddNodeRequest>) -> Answer<AddNodeResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn drain_node(&self, request: Request<DrainNodeRequest>) -> Answer<DrainNodeResponse> {
        self.act(&request.into_inner().request_id).await?;
        Ok(Response::new(DrainNodeResponse {
            header: header(self.node_id),
            ..DrainNodeResponse::default()
        }))
    }

    async fn undrain_node(&self, _: Request<UndrainNodeRequest>) -> Answer<UndrainNodeResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn set_replication(
        &self,
        _: Request<SetReplicationRequest>,
    ) -> Answer<SetReplicationResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn raise_version(&self, _: Request<RaiseVersionRequest>) -> Answer<RaiseVersionResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn replace_node(&self, _: Request<ReplaceNodeRequest>) -> Answer<ReplaceNodeResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn remove_node(&self, _: Request<RemoveNodeRequest>) -> Answer<RemoveNodeResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_shards(&self, _: Request<ListShardsRequest>) -> Answer<ListShardsResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn move_replica(&self, _: Request<MoveReplicaRequest>) -> Answer<MoveReplicaResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn transfer_leadership(
        &self,
        _: Request<TransferLeadershipRequest>,
    ) -> Answer<TransferLeadershipResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn rebuild_replica(
        &self,
        _: Request<RebuildReplicaRequest>,
    ) -> Answer<RebuildReplicaResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_audit(&self, _: Request<GetAuditRequest>) -> Answer<GetAuditResponse> {
        Err(Status::unimplemented("not scripted"))
    }
}

/// The reservation's id is the request's, the index the node's number.
fn held(request_id: String, node_id: u64) -> ReserveResponse {
    ReserveResponse {
        outcome: Some(Outcome::Reservation(Reservation {
            reservation_id: request_id,
            ..Reservation::default()
        })),
        header: header(node_id),
    }
}

#[tonic::async_trait]
impl ReservationService for StubNode {
    async fn reserve(&self, request: Request<ReserveRequest>) -> Answer<ReserveResponse> {
        let request = request.into_inner();
        self.act(&request.request_id).await?;
        Ok(Response::new(held(request.request_id, self.node_id)))
    }

    async fn batch_reserve(
        &self,
        request: Request<BatchReserveRequest>,
    ) -> Answer<BatchReserveResponse> {
        let requests = request.into_inner().requests;
        self.act("batch").await?;
        let mut results = Vec::new();
        for request in requests {
            let id = request.request_id;
            self.record().request_ids.push(id.clone());
            let result = match self.refused_once(&id) {
                Some(status) => Slot::Error(status),
                None => Slot::Response(held(id, self.node_id)),
            };
            results.push(BatchReserveResult {
                result: Some(result),
            });
        }
        let header = None;
        Ok(Response::new(BatchReserveResponse { header, results }))
    }

    type ReserveStreamStream =
        Pin<Box<dyn Stream<Item = Result<ReserveStreamResponse, Status>> + Send>>;

    async fn reserve_stream(
        &self,
        request: Request<Streaming<ReserveStreamRequest>>,
    ) -> Answer<Self::ReserveStreamStream> {
        let call = (self.clone(), request.into_inner(), 0);
        let answers = try_unfold(call, |(node, mut messages, mut next)| async move {
            let Some(message) = messages.message().await? else {
                return Ok(None);
            };
            let mut answers = ReserveStreamResponse::default();
            for request in message.read() {
                let request = request.map_err(|error| Status::internal(error.to_string()))?;
                node.act(&request.request_id).await?;
                node.answer(next, request.request_id, &mut answers);
                next += 1;
            }
            // The order of answers means nothing.
            answers.results.reverse();
            Ok(Some((answers, (node, messages, next))))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Answer<ConfirmResponse> {
        self.act(&request.into_inner().request_id).await?;
        Ok(Response::new(ConfirmResponse {
            header: header(self.node_id),
            ..ConfirmResponse::default()
        }))
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Answer<ReleaseResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn fulfill(&self, _: Request<FulfillRequest>) -> Answer<FulfillResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn extend(&self, _: Request<ExtendRequest>) -> Answer<ExtendResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn amend(&self, _: Request<AmendRequest>) -> Answer<AmendResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_reservations(
        &self,
        _: Request<ListReservationsRequest>,
    ) -> Answer<ListReservationsResponse> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_reservation(
        &self,
        _: Request<GetReservationRequest>,
    ) -> Answer<GetReservationResponse> {
        self.act("get").await?;
        Ok(Response::new(GetReservationResponse {
            header: header(self.node_id),
            ..GetReservationResponse::default()
        }))
    }
}
