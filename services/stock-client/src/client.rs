//! The client: one method for each call of `stock.v1`.

use std::sync::Arc;

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
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::builder::ClientBuilder;
use crate::error::Error;
use crate::options::{CallOptions, Options};
use crate::pool::Pool;
use crate::request_id::{made_at, new_request_id};
use crate::way::{self, Target, Topology};

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
    options: Arc<Options>,
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

    /// The same client with other options for the calls that are made through it: cheap, so that
    /// each call may have its own.
    ///
    /// ```no_run
    /// # async fn example(client: stock_client::Client) -> Result<(), stock_client::Error> {
    /// use std::time::Duration;
    /// use stock_client::CallOptions;
    ///
    /// let hurried = client.with(CallOptions::new().timeout(Duration::from_millis(500)));
    /// hurried.get_topology().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Self {
        Self::of(Arc::clone(&self.pool), options.over(&self.options))
    }

    /// The cluster as it was last seen; without shards and nodes until one has answered.
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

/// Ids.
impl Client {
    /// A new request id, made by the cluster's time as soon as a node has told it: a clock of this
    /// machine that is wrong does no harm. Otherwise as [`new_request_id`].
    ///
    /// ```no_run
    /// # async fn example(client: stock_client::Client) {
    /// // Stored with the order, before the call.
    /// let request_id = client.new_request_id();
    /// # }
    /// ```
    pub fn new_request_id(&self) -> String {
        let time = self.pool.cluster_time();
        time.map_or_else(new_request_id, made_at)
    }

    /// A retry is only safe under an id, so every mutation gets one before it is sent for the first
    /// time.
    pub(crate) fn fill_request_id(&self, request_id: &mut String) {
        if request_id.is_empty() {
            *request_id = self.new_request_id();
        }
    }
}

/// Reservations.
impl Client {
    /// Holds 1 to 256 lines, all or nothing. Too little stock is an answer, not an error.
    pub async fn reserve(&self, request: ReserveRequest) -> Result<ReserveResponse, Error> {
        let target = way::of_basket(&request.lines);
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
            self.fill_request_id(&mut one.request_id);
        }
        self.batch_reserve_by_leader(request).await
    }

    /// Paid: the hold no longer expires, unless a pickup deadline is given.
    pub async fn confirm(&self, request: ConfirmRequest) -> Result<ConfirmResponse, Error> {
        let target = way::of_reservation(&request.reservation_id);
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
        let target = way::of_reservation(&request.reservation_id);
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
        let target = way::of_reservation(&request.reservation_id);
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
        let target = way::of_reservation(&request.reservation_id);
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
        let target = way::of_reservation(&request.reservation_id);
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
            Consistency::Linearizable => way::of_reservation(&request.reservation_id),
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
            (Consistency::Linearizable, Some(key)) => way::of_sku(&key.sku),
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
            .map_or(Target::Any, |line| way::of_sku(&line.sku));
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
        let target = of_movement(&request.lines);
        self.bulk(target, request, |channel, request| async {
            InventoryServiceClient::new(channel)
                .record_sale(request)
                .await
        })
        .await
    }

    /// Units that were found or lost, with the reason.
    pub async fn adjust(&self, request: AdjustRequest) -> Result<AdjustResponse, Error> {
        let target = of_movement(&request.lines);
        self.bulk(target, request, |channel, request| async {
            InventoryServiceClient::new(channel).adjust(request).await
        })
        .await
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
        let target = way::of_sku(&request.sku);
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

impl Client {
    pub(crate) fn of(pool: Arc<Pool>, options: Options) -> Self {
        let options = Arc::new(options);
        Self { pool, options }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// When a call that begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.call
    }
}

fn consistency(read: Option<&ReadOptions>) -> Consistency {
    read.map_or(Consistency::Unspecified, ReadOptions::consistency)
}

fn of_movement(lines: &[MovementLine]) -> Target {
    let first = lines.first();
    first.map_or(Target::Any, |line| way::of_sku(&line.sku))
}
