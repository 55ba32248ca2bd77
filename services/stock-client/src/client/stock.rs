//! Stock: what can be sold, what has moved, where it may be and how much of it is kept back.

use futures_util::stream;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::catalog_service_client::CatalogServiceClient;
use stock_proto::stock::v1::inventory_service_client::InventoryServiceClient;
use stock_proto::stock::v1::{
    AdjustRequest, AdjustResponse, Consistency, GetAvailabilityRequest, GetAvailabilityResponse,
    ListLocationsRequest, ListLocationsResponse, MovementLine, PutLocationRequest,
    PutLocationResponse, RecordReceiptsRequest, RecordReceiptsResponse, RecordSaleRequest,
    RecordSaleResponse, SetPositionPolicyRequest, SetPositionPolicyResponse,
};

use super::{Client, consistency};
use crate::error::Error;
use crate::way::{self, Target};

/// Locations that [`Client::list_locations`] asks for at once: as many as a node gives.
const LOCATIONS_PER_PAGE: i32 = 5_000;

/// Availability.
impl Client {
    /// How much of 1 to 2,000 keys can be sold, each one SKU at one location, or at all that have a
    /// position of it: 20,000 items at most. Near reads take turns over the nodes, linearizable
    /// ones go to the leader of the first key's shard. A SKU or location that nobody has heard of
    /// is no error: its item is not `known`.
    ///
    /// Refused with `TooManyItems`; with `at_least`, also with `IncarnationOver`, and after repeats
    /// with `TooFarBehind`.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// # let lines = vec![stock_client::v1::Line::at("milk-1l", "store-7", 2)];
    /// # let request = stock_client::v1::ReserveRequest { lines, ..Default::default() };
    /// use stock_client::v1::{GetAvailabilityRequest, PositionKey, ReadOptions};
    ///
    /// let header = client.reserve(request).await?.header.expect("every answer has one");
    /// // From a state that has seen that hold, on whichever node.
    /// let request = GetAvailabilityRequest {
    ///     keys: vec![PositionKey::at("milk-1l", "store-7"), PositionKey::everywhere("tea")],
    ///     read: Some(ReadOptions::at_least(&header)),
    /// };
    /// let items = client.get_availability(request).await?.items;
    /// assert_eq!((items[0].on_hand, items[0].reserved, items[0].available), (3, 2, 1));
    /// assert!(!items[1].known);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// Refused as a whole with `FieldInvalid`, and after repeats with `DiskFull` and `MemoryFull`.
    /// A line is refused by itself, in its verdict: with `UnknownLocation`, `DocumentTooOld` (30
    /// days), `DocumentReused`, `DocumentMemoryFull`, `OccurredInFuture` (a day),
    /// `CounterOutOfRange`, `TooManyPositions`. So `Ok` alone does not say that all is recorded.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// use stock_client::v1::line_verdict::Verdict;
    /// use stock_client::v1::{MovementLine, RecordReceiptsRequest};
    ///
    /// let delivery = RecordReceiptsRequest {
    ///     document: "DN-1".to_owned(),
    ///     lines: vec![MovementLine {
    ///         line: "1".to_owned(),
    ///         sku: "milk-1l".to_owned(),
    ///         location: "store-7".to_owned(),
    ///         quantity: 10,
    ///         occurred_at: Some(stock_client::now()),
    ///     }],
    ///     source: Some("warehouse-2".to_owned()),
    /// };
    /// for expected in [Verdict::Recorded, Verdict::AlreadyRecorded] {
    ///     let answer = client.record_receipts([delivery.clone()]).await?;
    ///     assert_eq!(answer.verdicts[0].verdict(), expected);
    /// }
    /// assert_eq!(fake.available("milk-1l", "store-7"), Some(13));
    /// # Ok(())
    /// # }
    /// ```
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

    /// Units that were sold at a till, 1 to 10,000 lines; never refused for want of stock. Where a
    /// sale takes what others hold, its verdict has a discrepancy, which names the holds that are
    /// endangered.
    ///
    /// Refused as a whole with `FieldInvalid` and `UnknownLocation`. A line is refused by itself,
    /// in its verdict, as in [`Client::record_receipts`].
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// # use stock_client::v1::{Line, ReserveRequest};
    /// # let lines = vec![Line::at("milk-1l", "store-7", 2)];
    /// # client.reserve(ReserveRequest { lines, ..ReserveRequest::default() }).await?;
    /// # let reservation_id = fake.reservations().remove(0).reservation_id;
    /// # let line = |quantity| stock_client::v1::MovementLine {
    /// #     line: "1".to_owned(),
    /// #     sku: "milk-1l".to_owned(),
    /// #     location: "store-7".to_owned(),
    /// #     quantity,
    /// #     occurred_at: Some(stock_client::now()),
    /// # };
    /// use stock_client::v1::RecordSaleRequest;
    ///
    /// // Three are there, and two of them are held.
    /// let receipt = RecordSaleRequest {
    ///     document: "R-4711".to_owned(),
    ///     lines: vec![line(2)],
    ///     source: Some("till-3".to_owned()),
    /// };
    /// let answer = client.record_sale(receipt).await?;
    /// let discrepancy = answer.verdicts[0].discrepancy.as_ref().expect("one is missing");
    /// assert_eq!(discrepancy.short_by, 1);
    /// assert_eq!(discrepancy.endangered_reservation_ids, [reservation_id]);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Units that were found (more than 0) or lost (less), with the reason, 1 to 10,000 lines.
    ///
    /// Refused as [`Client::record_sale`].
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// # let line = |quantity| stock_client::v1::MovementLine {
    /// #     line: "1".to_owned(),
    /// #     sku: "milk-1l".to_owned(),
    /// #     location: "store-7".to_owned(),
    /// #     quantity,
    /// #     occurred_at: Some(stock_client::now()),
    /// # };
    /// use stock_client::v1::AdjustRequest;
    ///
    /// let broken = AdjustRequest {
    ///     document: "C-1".to_owned(),
    ///     reason: "broken on the shelf".to_owned(),
    ///     lines: vec![line(-1)],
    ///     source: None,
    /// };
    /// client.adjust(broken).await?;
    /// assert_eq!(fake.available("milk-1l", "store-7"), Some(2));
    /// # Ok(())
    /// # }
    /// ```
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
    /// Creates a location or replaces what is known of it. Stock is received, and held, at
    /// locations that were put before.
    ///
    /// Refused after repeats with `TooManyLocations`, `DiskFull`, `MemoryFull`.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # let client = fake.client()?;
    /// use stock_client::v1::{Location, PutLocationRequest, location::Type};
    ///
    /// let request = PutLocationRequest {
    ///     request_id: client.new_request_id(),
    ///     location: Some(Location {
    ///         location_id: "store-7".to_owned(),
    ///         r#type: Type::Store.into(),
    ///         name: "High Street".to_owned(),
    ///         ..Location::default()
    ///     }),
    /// };
    /// client.put_location(request).await?;
    /// # assert_eq!(client.list_locations().await?.locations.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Every location, in the order of their ids: all pages, one after the other, each of them
    /// linearizable. The header is that of the first page.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-8", 1);
    /// # fake.receive("milk-1l", "store-7", 1);
    /// # let client = fake.client()?;
    /// let locations = client.list_locations().await?.locations;
    /// let ids: Vec<&str> = locations.iter().map(|it| it.location_id.as_str()).collect();
    /// assert_eq!(ids, ["store-7", "store-8"]);
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-8", 1);
    /// # fake.receive("milk-1l", "store-7", 1);
    /// # let client = fake.client()?;
    /// use stock_client::v1::ListLocationsRequest;
    ///
    /// let first = ListLocationsRequest { page_size: 1, page_token: String::new() };
    /// let page = client.list_locations_page(first).await?;
    /// assert_eq!(page.locations[0].location_id, "store-7");
    /// assert!(!page.next_page_token.is_empty(), "there is another one");
    /// # Ok(())
    /// # }
    /// ```
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

    /// Sets what may be sold of one SKU at one location: `safety_stock` is kept from every channel,
    /// and available may go as far below zero as `backorder_limit`, each 0 to 1,000,000,000.
    /// Without an `update_mask` it sets both, and what is left out of the policy is 0. Where open
    /// holds count on more than is left, the answer has a discrepancy.
    ///
    /// Refused with `UnknownLocation`, and after repeats with `TooManyPositions`.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// use stock_client::prost_types::FieldMask;
    /// use stock_client::v1::{PositionPolicy, SetPositionPolicyRequest};
    ///
    /// let request = SetPositionPolicyRequest {
    ///     request_id: client.new_request_id(),
    ///     sku: "milk-1l".to_owned(),
    ///     location: "store-7".to_owned(),
    ///     policy: Some(PositionPolicy { safety_stock: 1, ..PositionPolicy::default() }),
    ///     update_mask: Some(FieldMask { paths: vec!["safety_stock".to_owned()] }),
    /// };
    /// assert_eq!(client.set_position_policy(request).await?.available, 2);
    /// # Ok(())
    /// # }
    /// ```
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

fn of_movement(lines: &[MovementLine]) -> Target {
    let first = lines.first();
    first.map_or(Target::Any, |line| way::of_sku(&line.sku))
}
