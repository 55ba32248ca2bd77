//! The client: one method for each call of `stock.v1`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::catalog_service_client::CatalogServiceClient;
use stock_proto::stock::v1::inventory_service_client::InventoryServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::topology_service_client::TopologyServiceClient;
use stock_proto::stock::v1::{
    AdjustRequest, AdjustResponse, AmendRequest, AmendResponse, BatchReserveRequest,
    BatchReserveResponse, ConfirmRequest, ConfirmResponse, Consistency, ExtendRequest,
    ExtendResponse, FulfillRequest, FulfillResponse, GetAvailabilityRequest,
    GetAvailabilityResponse, GetReservationRequest, GetReservationResponse, GetTopologyRequest,
    GetTopologyResponse, ListLocationsRequest, ListLocationsResponse, ListReservationsRequest,
    ListReservationsResponse, MovementLine, PutLocationRequest, PutLocationResponse, ReadOptions,
    RecordReceiptsRequest, RecordReceiptsResponse, RecordSaleRequest, RecordSaleResponse,
    ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse, SetPositionPolicyRequest,
    SetPositionPolicyResponse,
};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::debug;
use uuid::Uuid;

use crate::attempts::{Attempts, Then};
use crate::error::{Error, StatusError};
use crate::node::{Link, Pool};
use crate::route::{self, Target};
use crate::topology::Topology;

/// How long a call may take, retries and pauses included, unless the builder says otherwise.
/// Several elections fit in; a checkout that waits longer has lost its shopper.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one node may take over one attempt before another is asked. Answers take a millisecond;
/// this is longer than an election, so that a call that waits for one is not sent twice.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The same for calls of many lines, which may queue behind each other on a busy disk.
pub const BULK_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Locations that [`Client::list_locations`] asks for at once: as many as a node gives.
const LOCATIONS_PER_PAGE: i32 = 5_000;

/// A client of one cluster. Clones share its connections and are cheap.
///
/// Every method fails with [`Error::Status`] where a node refuses the call, and with
/// [`Error::Timeout`] where none has answered it in time: [`Error::request_ids`] then tells the ids
/// to repeat it with. It must be used inside a tokio runtime.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    call: Duration,
    attempt: Duration,
    bulk_attempt: Duration,
}

/// Opens a [`Client`] with other limits than the usual ones.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    limits: Limits,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            limits: Limits {
                call: CALL_TIMEOUT,
                attempt: ATTEMPT_TIMEOUT,
                bulk_attempt: BULK_ATTEMPT_TIMEOUT,
            },
        }
    }
}

impl ClientBuilder {
    /// Adds a node, or an address in front of some, to learn the topology from: `http://HOST:PORT`.
    /// One that answers is enough.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// How long a call may take, retries included; [`CALL_TIMEOUT`] unless set.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.limits.call = timeout;
        self
    }

    /// How long one node may take over one attempt; [`ATTEMPT_TIMEOUT`] unless set.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.limits.attempt = timeout;
        self
    }

    /// How long one node may take over one attempt at a call of many lines;
    /// [`BULK_ATTEMPT_TIMEOUT`] unless set.
    #[must_use]
    pub fn bulk_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.limits.bulk_attempt = timeout;
        self
    }

    /// Learns the topology and opens the client.
    ///
    /// Fails with [`Error::InvalidEndpoint`], or with [`Error::Unreachable`] where no endpoint
    /// answers within [`START_TIMEOUT`](crate::START_TIMEOUT).
    pub async fn connect(self) -> Result<Client, Error> {
        Ok(Client {
            pool: Pool::open(&self.endpoints).await?,
            limits: self.limits,
        })
    }
}

/// The cluster as the client sees it.
impl Client {
    /// Opens a client with the usual limits; `endpoint` is any node's, as `http://HOST:PORT`.
    ///
    /// Fails as [`ClientBuilder::connect`] does.
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        Self::builder().endpoint(endpoint).connect().await
    }

    /// Options first, then [`ClientBuilder::connect`].
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The cluster as it was last seen.
    pub fn topology(&self) -> Arc<Topology> {
        self.pool.topology()
    }

    /// The shard a SKU lives in.
    pub fn shard_of(&self, sku: &str) -> u32 {
        self.pool.topology().shard_of(sku)
    }

    /// The connection to the node that leads a stock shard; `None` while that is unknown.
    pub fn leader_channel(&self, shard: u32) -> Option<Channel> {
        let leader = self.pool.topology().leader_of(shard)?;
        self.pool.node_channel(leader)
    }

    /// The connection to each node, by node id.
    pub fn node_channels(&self) -> Vec<(u64, Channel)> {
        self.pool.node_channels()
    }

    /// The cluster as a node sees it now.
    pub async fn get_topology(&self) -> Result<GetTopologyResponse, Error> {
        self.small(
            Target::Any,
            GetTopologyRequest {},
            |channel, request| async {
                TopologyServiceClient::new(channel)
                    .get_topology(request)
                    .await
            },
        )
        .await
    }
}

/// Reservations.
impl Client {
    /// Holds 1 to 256 lines, all or nothing. Too little stock is an answer, not an error.
    pub async fn reserve(&self, request: ReserveRequest) -> Result<ReserveResponse, Error> {
        let target = route::of_basket(&request.lines, self.shard_count());
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ReservationServiceClient::new(channel)
                    .reserve(request)
                    .await
            },
        )
        .await
    }

    /// Up to 1,000 reservations, each held or refused by itself. They go to the leaders of their
    /// shards at the same time; the results are in the order of the requests. Where a node fails
    /// for good, its requests carry the error and the others their answers.
    pub async fn batch_reserve(
        &self,
        mut request: BatchReserveRequest,
    ) -> Result<BatchReserveResponse, Error> {
        for one in &mut request.requests {
            fill_request_id(&mut one.request_id);
        }
        self.batch_reserve_by_leader(request).await
    }

    /// Paid: the hold no longer expires, unless a pickup deadline is given.
    pub async fn confirm(&self, request: ConfirmRequest) -> Result<ConfirmResponse, Error> {
        let target = route::of_reservation(&request.reservation_id);
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ReservationServiceClient::new(channel)
                    .confirm(request)
                    .await
            },
        )
        .await
    }

    /// Gives held or confirmed units back, all of them or the lines named.
    pub async fn release(&self, request: ReleaseRequest) -> Result<ReleaseResponse, Error> {
        let target = route::of_reservation(&request.reservation_id);
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ReservationServiceClient::new(channel)
                    .release(request)
                    .await
            },
        )
        .await
    }

    /// Hands confirmed units over, all of them or the lines named.
    pub async fn fulfill(&self, request: FulfillRequest) -> Result<FulfillResponse, Error> {
        let target = route::of_reservation(&request.reservation_id);
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ReservationServiceClient::new(channel)
                    .fulfill(request)
                    .await
            },
        )
        .await
    }

    /// Lets a hold, or a pickup deadline, end later.
    pub async fn extend(&self, request: ExtendRequest) -> Result<ExtendResponse, Error> {
        let target = route::of_reservation(&request.reservation_id);
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ReservationServiceClient::new(channel).extend(request).await
            },
        )
        .await
    }

    /// Replaces the lines of a hold in one step. On a shortage the hold is left as it was.
    pub async fn amend(&self, request: AmendRequest) -> Result<AmendResponse, Error> {
        let target = route::of_reservation(&request.reservation_id);
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ReservationServiceClient::new(channel).amend(request).await
            },
        )
        .await
    }

    /// One reservation. Near reads take turns over the nodes, linearizable ones go to the leader.
    pub async fn get_reservation(
        &self,
        request: GetReservationRequest,
    ) -> Result<GetReservationResponse, Error> {
        let target = match consistency(request.read.as_ref()) {
            Consistency::Unspecified | Consistency::Near => Target::Any,
            Consistency::Linearizable => route::of_reservation(&request.reservation_id),
        };
        self.small(target, request, |channel, request| async {
            ReservationServiceClient::new(channel)
                .get_reservation(request)
                .await
        })
        .await
    }
}

/// Finding reservations.
impl Client {
    /// Every reservation of which all that is asked for is true, all pages, one after the other.
    /// The header is of all of them together. Where there may be very many, read pages:
    /// [`Client::list_reservations_page`].
    pub async fn list_reservations(
        &self,
        mut request: ListReservationsRequest,
    ) -> Result<ListReservationsResponse, Error> {
        let mut all = self.list_reservations_page(request.clone()).await?;
        while !all.next_page_token.is_empty() {
            request.page_token = std::mem::take(&mut all.next_page_token);
            let page = self.list_reservations_page(request.clone()).await?;
            all.reservations.extend(page.reservations);
            all.next_page_token = page.next_page_token;
            if let (Some(header), Some(of_page)) = (&mut all.header, page.header) {
                header.join(of_page);
            }
        }
        Ok(all)
    }

    /// One page of them, which may be empty though others follow.
    pub async fn list_reservations_page(
        &self,
        request: ListReservationsRequest,
    ) -> Result<ListReservationsResponse, Error> {
        self.bulk(Target::Any, request, |channel, request| async {
            ReservationServiceClient::new(channel)
                .list_reservations(request)
                .await
        })
        .await
    }
}

/// Availability.
impl Client {
    /// How much of 1 to 2,000 keys can be sold. Near reads take turns over the nodes, linearizable
    /// ones go to the leader of the first key's shard.
    pub async fn get_availability(
        &self,
        request: GetAvailabilityRequest,
    ) -> Result<GetAvailabilityResponse, Error> {
        let consistency = consistency(request.read.as_ref());
        let target = match (consistency, request.keys.first()) {
            (Consistency::Linearizable, Some(key)) => route::of_sku(&key.sku, self.shard_count()),
            _ => Target::Any,
        };
        self.small(target, request, |channel, request| async {
            AvailabilityServiceClient::new(channel)
                .get_availability(request)
                .await
        })
        .await
    }
}

/// Movements. Each line is known by its kind, source, document, line, SKU and location, so that
/// sending it again changes nothing; there is no request id.
impl Client {
    /// Units that arrived: any number of messages, up to 10,000 lines in all; a verdict per line. A
    /// line that an earlier attempt recorded comes back as VERDICT_ALREADY_RECORDED.
    pub async fn record_receipts(
        &self,
        messages: impl IntoIterator<Item = RecordReceiptsRequest>,
    ) -> Result<RecordReceiptsResponse, Error> {
        let messages: Vec<RecordReceiptsRequest> = messages.into_iter().collect();
        let target = messages
            .iter()
            .find_map(|message| message.lines.first())
            .map_or(Target::Any, |line| {
                route::of_sku(&line.sku, self.shard_count())
            });
        self.bulk(target, messages, |channel, request| async {
            InventoryServiceClient::new(channel)
                .record_receipts(request.map(stream::iter))
                .await
        })
        .await
    }

    /// Units that were sold at a till; never refused for want of stock.
    pub async fn record_sale(
        &self,
        request: RecordSaleRequest,
    ) -> Result<RecordSaleResponse, Error> {
        let target = self.of_movement(&request.lines);
        self.bulk(target, request, |channel, request| async {
            InventoryServiceClient::new(channel)
                .record_sale(request)
                .await
        })
        .await
    }

    /// Units that were found or lost, with the reason.
    pub async fn adjust(&self, request: AdjustRequest) -> Result<AdjustResponse, Error> {
        let target = self.of_movement(&request.lines);
        self.bulk(target, request, |channel, request| async {
            InventoryServiceClient::new(channel).adjust(request).await
        })
        .await
    }

    fn of_movement(&self, lines: &[MovementLine]) -> Target {
        lines.first().map_or(Target::Any, |line| {
            route::of_sku(&line.sku, self.shard_count())
        })
    }
}

/// Locations and policies.
impl Client {
    /// Creates a location or replaces what is known of it.
    pub async fn put_location(
        &self,
        request: PutLocationRequest,
    ) -> Result<PutLocationResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                CatalogServiceClient::new(channel)
                    .put_location(request)
                    .await
            },
        )
        .await
    }

    /// Every location, in the order of their ids: all pages, one after the other. The header is
    /// that of the first page.
    pub async fn list_locations(&self) -> Result<ListLocationsResponse, Error> {
        let mut question = ListLocationsRequest {
            page_size: LOCATIONS_PER_PAGE,
            page_token: String::new(),
        };
        let mut all = self.list_locations_page(question.clone()).await?;
        while !all.next_page_token.is_empty() {
            question.page_token = std::mem::take(&mut all.next_page_token);
            let page = self.list_locations_page(question.clone()).await?;
            all.locations.extend(page.locations);
            all.next_page_token = page.next_page_token;
        }
        Ok(all)
    }

    /// One page of them. [`Client::list_locations`] reads all.
    pub async fn list_locations_page(
        &self,
        request: ListLocationsRequest,
    ) -> Result<ListLocationsResponse, Error> {
        self.small(Target::Meta, request, |channel, request| async {
            CatalogServiceClient::new(channel)
                .list_locations(request)
                .await
        })
        .await
    }

    /// Sets what may be sold of one SKU at one location.
    pub async fn set_position_policy(
        &self,
        request: SetPositionPolicyRequest,
    ) -> Result<SetPositionPolicyResponse, Error> {
        let target = route::of_sku(&request.sku, self.shard_count());
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                CatalogServiceClient::new(channel)
                    .set_position_policy(request)
                    .await
            },
        )
        .await
    }
}

/// Attempts.
impl Client {
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// When a call that begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.call
    }

    /// How long one node may take over one attempt.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.limits.attempt
    }

    pub(crate) fn shard_count(&self) -> u32 {
        self.pool.topology().shard_count()
    }

    pub(crate) async fn small<Q, A, S, F>(
        &self,
        target: Target,
        request: Q,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (deadline, attempt) = (self.deadline(), self.limits.attempt);
        self.attempts(target, deadline, attempt, request, send)
            .await
    }

    /// A change that is done once, however often it is sent: its id is made before the first
    /// attempt, and every error tells it.
    pub(crate) async fn mutate<Q, A, S, F>(
        &self,
        target: Target,
        mut request: Q,
        request_id: fn(&mut Q) -> &mut String,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let id = request_id(&mut request);
        fill_request_id(id);
        let id = id.clone();
        let answer = self.small(target, request, send).await;
        answer.map_err(|error| error.made_under(vec![id]))
    }

    async fn bulk<Q, A, S, F>(&self, target: Target, request: Q, send: S) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.bulk_until(self.deadline(), target, request, send)
            .await
    }

    pub(crate) async fn bulk_until<Q, A, S, F>(
        &self,
        deadline: Instant,
        target: Target,
        request: Q,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let attempt = self.limits.bulk_attempt;
        self.attempts(target, deadline, attempt, request, send)
            .await
    }

    /// Sends `request`, the same every time, until a node answers it, refuses it for good, or the
    /// deadline comes.
    async fn attempts<Q, A, S, F>(
        &self,
        target: Target,
        deadline: Instant,
        attempt_timeout: Duration,
        request: Q,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut attempts = Attempts::new(attempt_timeout);
        let mut avoid: Option<Arc<Link>> = None;
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            let link = self.pool.choose(target, avoid.as_deref());
            let allowed = attempts.begin(left());
            let mut message = Request::new(request.clone());
            // The node is told, so that it does not work for a caller who has gone.
            message.set_timeout(allowed);
            let failure = match timeout(allowed, send(link.channel(), message)).await {
                Ok(Ok(answer)) => {
                    link.answered();
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => StatusError::from(status),
                Err(_) => StatusError::silent(allowed),
            };

            let after = attempts.failed(&failure, left(), &mut rand::rng());
            debug!(
                endpoint = link.endpoint(),
                attempts = attempts.made(),
                ?after,
                error = %failure,
                "an attempt failed"
            );
            if after.suspect {
                self.pool.suspect(&link);
            }
            if after.look_again {
                self.pool.look_again();
            }
            let pause = match after.then {
                Then::Again(pause) => pause,
                Then::GiveUp => {
                    link.answered();
                    return Err(failure.into());
                }
                Then::TimedOut => {
                    return Err(Error::Timeout {
                        after: self.limits.call,
                        attempts: attempts.made(),
                        last: Some(Box::new(failure)),
                        request_ids: Vec::new(),
                    });
                }
            };
            avoid = after.avoid.then_some(link);
            tokio::time::sleep(pause).await;
        }
    }
}

fn consistency(read: Option<&ReadOptions>) -> Consistency {
    read.map_or(Consistency::Unspecified, ReadOptions::consistency)
}

/// A new request id, for callers that want to know it before the call, as to repeat it after a
/// restart of their own.
pub fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

/// A retry is only safe under an id, so every mutation gets one before it is sent for the first
/// time.
pub(crate) fn fill_request_id(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = new_request_id();
    }
}
