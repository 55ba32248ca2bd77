//! Reservations: from the hold to its end, and how they are found.

use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    AmendRequest, AmendResponse, BatchReserveRequest, BatchReserveResponse, ConfirmRequest,
    ConfirmResponse, Consistency, ExtendRequest, ExtendResponse, FulfillRequest, FulfillResponse,
    GetReservationRequest, GetReservationResponse, ListReservationsRequest,
    ListReservationsResponse, ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse,
};

use super::{Client, consistency};
use crate::error::Error;
use crate::way::{self, Target};

/// Reservations.
impl Client {
    /// Holds 1 to 256 lines, all or nothing. Too little stock is an answer, not an error: it names
    /// every line that is short, and what could have been held of it.
    ///
    /// Sent again with its id and content it gives its first answer: a shortage stays one, though
    /// there is stock by now.
    ///
    /// Refused with `UnknownLocation`, `UnknownSku` (no receipt and no policy has ever named it),
    /// `CounterOutOfRange`, `BasketNotHeld` (a shard of the basket could not be asked in time: try
    /// again with a new request id); after repeats with `TooManyReservations`, `TooManyPositions`,
    /// `DiskFull`, `MemoryFull`.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::lasting;
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// use std::time::Duration;
    /// use stock_client::v1::{Line, ReserveRequest, reserve_response::Outcome};
    ///
    /// let request = |units| ReserveRequest {
    ///     request_id: client.new_request_id(),
    ///     order_reference: Some("A-1042".to_owned()),
    ///     channel: Some("web".to_owned()),
    ///     lines: vec![Line::at("milk-1l", "store-7", units)],
    ///     ttl: Some(lasting(Duration::from_secs(600))),
    /// };
    /// let answer = client.reserve(request(2)).await?;
    /// let Some(Outcome::Reservation(held)) = answer.outcome else { panic!("there are three") };
    /// assert_eq!(held.expires_in.unwrap().seconds, 600);
    ///
    /// let answer = client.reserve(request(2)).await?;
    /// let Some(Outcome::Shortage(short)) = answer.outcome else { panic!("one is left") };
    /// assert_eq!(short.lines[0].reservable, 1);
    /// # Ok(())
    /// # }
    /// ```
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

    /// 1 to 1,000 reservations, each held or refused by itself. They go to the leaders of their
    /// shards at the same time; the results are in the order of the requests. Where a node fails
    /// for good, its requests carry the error and the others their answers: a batch that is `Ok`
    /// may have results that are errors. Those of requests that may yet be done, and those that had
    /// no answer in time, are among them: each has its request's id in its details.
    ///
    /// All of it has the time of one call. It is refused as a whole, before anything is held, with
    /// `FieldInvalid` where it has no requests or too many, and with `MessageTooLarge`.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// use stock_client::v1::batch_reserve_result::Result as Slot;
    /// use stock_client::v1::{BatchReserveRequest, Line, ReserveRequest};
    /// use tonic_types::RpcStatusExt;
    ///
    /// let request = |location| ReserveRequest {
    ///     request_id: client.new_request_id(),
    ///     lines: vec![Line::at("milk-1l", location, 1)],
    ///     ..ReserveRequest::default()
    /// };
    /// let requests = vec![request("store-7"), request("nowhere")];
    /// let answer = client.batch_reserve(BatchReserveRequest { requests }).await?;
    /// for (number, result) in answer.results.iter().enumerate() {
    ///     match &result.result {
    ///         Some(Slot::Response(_)) => assert_eq!(number, 0),
    ///         // The crate `tonic-types` reads the details of a `google.rpc.Status`.
    ///         Some(Slot::Error(status)) => {
    ///             let details = status.get_error_details();
    ///             assert_eq!(details.error_info().unwrap().reason, "UNKNOWN_LOCATION");
    ///         }
    ///         None => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn batch_reserve(
        &self,
        mut request: BatchReserveRequest,
    ) -> Result<BatchReserveResponse, Error> {
        for one in &mut request.requests {
            self.fill_request_id(&mut one.request_id);
        }
        self.batch_reserve_by_leader(request).await
    }

    /// Paid: the hold no longer expires, unless a pickup deadline is given (`pickup_within`, 1 s to
    /// 7 days).
    ///
    /// Refused with `UnknownReservation`, and with `WrongState` where it is not held: `EXPIRED`
    /// when it was paid too late, `CONFIRMED` when another request has confirmed it.
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
    /// use std::time::Duration;
    /// use stock_client::v1::{ConfirmRequest, ErrorReason};
    ///
    /// let confirm = || ConfirmRequest {
    ///     request_id: client.new_request_id(),
    ///     reservation_id: reservation_id.clone(),
    ///     pickup_within: None,
    /// };
    /// client.confirm(confirm()).await?;
    /// fake.pass(Duration::from_secs(24 * 3_600));
    /// assert_eq!(fake.available("milk-1l", "store-7"), Some(1), "it does not expire");
    ///
    /// // By another id, as of a program that has lost the first one:
    /// let error = client.confirm(confirm()).await.unwrap_err();
    /// assert_eq!(error.reason(), ErrorReason::WrongState);
    /// assert_eq!(error.status().unwrap().metadata["state"], "CONFIRMED");
    /// # Ok(())
    /// # }
    /// ```
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

    /// Gives held or confirmed units back, all that are open or so many of the lines named. A line
    /// may leave its location out where the reservation has its SKU at one only.
    ///
    /// Refused with `UnknownReservation`, with `WrongState` where nothing is open any more, and
    /// with `LineNotInReservation`, `LineAmbiguous`, `LineExceedsOpen`.
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
    /// use stock_client::v1::{PartialLine, ReleaseRequest};
    ///
    /// let one = PartialLine { sku: "milk-1l".to_owned(), location: None, quantity: 1 };
    /// let request = ReleaseRequest {
    ///     request_id: client.new_request_id(),
    ///     reservation_id,
    ///     lines: vec![one],
    /// };
    /// let answer = client.release(request).await?;
    /// let line = &answer.reservation.unwrap().lines[0];
    /// assert_eq!((line.quantity, line.open, line.released), (2, 1, 1));
    /// # Ok(())
    /// # }
    /// ```
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

    /// Hands confirmed units over, all that are open or so many of the lines named: they leave the
    /// stock. A hold is confirmed first.
    ///
    /// Refused with `UnknownReservation`, with `WrongState` where it is not confirmed, and with
    /// `LineNotInReservation`, `LineAmbiguous`, `LineExceedsOpen`, `CounterOutOfRange`.
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
    /// # use stock_client::v1::ConfirmRequest;
    /// # let id = reservation_id.clone();
    /// # client.confirm(ConfirmRequest { reservation_id: id, ..ConfirmRequest::default() }).await?;
    /// use stock_client::v1::{FulfillRequest, reservation::State};
    ///
    /// let request = FulfillRequest {
    ///     request_id: client.new_request_id(),
    ///     reservation_id,
    ///     lines: vec![], // all that are open
    /// };
    /// let answer = client.fulfill(request).await?;
    /// assert_eq!(answer.reservation.unwrap().state(), State::Fulfilled);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Lets a hold, or a pickup deadline, end `ttl` from now, 1 s to 7 days; never earlier than it
    /// would have.
    ///
    /// Refused with `UnknownReservation`, with `WrongState` where nothing is open any more, and
    /// with `NothingToExtend` where it is confirmed and does not expire.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::lasting;
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// # use stock_client::v1::{Line, ReserveRequest};
    /// # let lines = vec![Line::at("milk-1l", "store-7", 2)];
    /// # client.reserve(ReserveRequest { lines, ..ReserveRequest::default() }).await?;
    /// # let reservation_id = fake.reservations().remove(0).reservation_id;
    /// use std::time::Duration;
    /// use stock_client::v1::ExtendRequest;
    ///
    /// fake.pass(Duration::from_secs(14 * 60));
    /// let request = ExtendRequest {
    ///     request_id: client.new_request_id(),
    ///     reservation_id,
    ///     ttl: Some(lasting(Duration::from_secs(30 * 60))),
    /// };
    /// let answer = client.extend(request).await?;
    /// assert_eq!(answer.reservation.unwrap().expires_in.unwrap().seconds, 30 * 60);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Replaces the lines of a hold, 1 to 256, in one step, so that its own units never stand in
    /// its way; with a `ttl`, it ends that long from now. On a shortage, which is an answer and no
    /// error, the hold is left as it was.
    ///
    /// Refused with `UnknownReservation`, with `WrongState` where it is not held, and as
    /// [`Client::reserve`]. The lines may live in other shards than before.
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
    /// use stock_client::v1::{AmendRequest, amend_response::Outcome};
    ///
    /// let request = |units| AmendRequest {
    ///     request_id: client.new_request_id(),
    ///     reservation_id: reservation_id.clone(),
    ///     lines: vec![Line::at("milk-1l", "store-7", units)],
    ///     ttl: None,
    /// };
    /// // Two are held, and one more is there.
    /// let answer = client.amend(request(3)).await?;
    /// assert!(matches!(answer.outcome, Some(Outcome::Reservation(_))));
    /// let answer = client.amend(request(4)).await?;
    /// assert!(matches!(answer.outcome, Some(Outcome::Shortage(_))));
    /// assert_eq!(fake.reservations()[0].lines[0].open, 3);
    /// # Ok(())
    /// # }
    /// ```
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

    /// One reservation, as it is now. Near reads take turns over the nodes, linearizable ones go to
    /// the leader. One that was made a moment ago may not be on the node that is asked: give its
    /// header.
    ///
    /// Refused with `UnknownReservation`, also where it ended more than a day ago.
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
    /// use stock_client::v1::{GetReservationRequest, ReadOptions, reservation::State};
    ///
    /// let answer = client.reserve(request).await?;
    /// # let reservation_id = fake.reservations().remove(0).reservation_id;
    /// let request = GetReservationRequest {
    ///     reservation_id,
    ///     read: answer.header.as_ref().map(ReadOptions::at_least),
    /// };
    /// let answer = client.get_reservation(request).await?;
    /// assert_eq!(answer.reservation.unwrap().state(), State::Held);
    /// # Ok(())
    /// # }
    /// ```
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
    /// [`Client::list_reservations_page`]. Each page has the time of a call.
    ///
    /// Who looks for a hold whose answer was lost asks linearizably: a near read may not see it
    /// yet. None that is found is no proof while the reserve may be under way; sending that one
    /// again is.
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
    /// # let order_reference = Some("A-1042".to_owned());
    /// # client.reserve(ReserveRequest { lines, order_reference, ..Default::default() }).await?;
    /// use stock_client::v1::{ListReservationsRequest, ReadOptions};
    ///
    /// let request = ListReservationsRequest {
    ///     order_reference: Some("A-1042".to_owned()),
    ///     read: Some(ReadOptions::linearizable()),
    ///     ..ListReservationsRequest::default()
    /// };
    /// let found = client.list_reservations(request).await?.reservations;
    /// assert_eq!(found.len(), 1);
    /// assert_eq!(found[0].order_reference.as_deref(), Some("A-1042"));
    /// # Ok(())
    /// # }
    /// ```
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

    /// One page of them, which may be empty though others follow: the last one has no token. 1,000
    /// at most where the request says no `page_size`, and never more than 5,000.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// # use stock_client::v1::{Line, ReserveRequest};
    /// # for _ in 0..3 {
    /// #     let lines = vec![Line::at("milk-1l", "store-7", 1)];
    /// #     client.reserve(ReserveRequest { lines, ..ReserveRequest::default() }).await?;
    /// # }
    /// use stock_client::v1::{ListReservationsRequest, reservation::State};
    ///
    /// let mut request = ListReservationsRequest {
    ///     states: vec![State::Held.into()],
    ///     page_size: 2,
    ///     ..ListReservationsRequest::default()
    /// };
    /// let mut sizes = Vec::new();
    /// loop {
    ///     let page = client.list_reservations_page(request.clone()).await?;
    ///     sizes.push(page.reservations.len());
    ///     if page.next_page_token.is_empty() {
    ///         break;
    ///     }
    ///     request.page_token = page.next_page_token;
    /// }
    /// assert_eq!(sizes, [2, 1]);
    /// # Ok(())
    /// # }
    /// ```
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
