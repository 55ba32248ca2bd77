//! Bad input is refused whole and clearly, with the field and the reason, and changes nothing.
//!
//! Every case is one call over a real socket. Before and after it the whole shop is read
//! linearizably: the two must be equal.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use prost::Message;
use stock_client::Client;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::catalog_service_client::CatalogServiceClient;
use stock_proto::stock::v1::inventory_service_client::InventoryServiceClient;
use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    AdjustRequest, AmendRequest, Availability, BatchReserveRequest, ConfirmRequest, Coordinates,
    ExtendRequest, FulfillRequest, GetAvailabilityRequest, GetReservationRequest, Line,
    LineVerdict, Location, MovementLine, PartialLine, PositionKey, PositionPolicy,
    PutLocationRequest, ReadOptions, RecordReceiptsRequest, RecordSaleRequest, ReleaseRequest,
    Reservation, ReserveRequest, SetPositionPolicyRequest, ShardIndex, batch_reserve_result,
    location,
};
use tests::cluster::{Cluster, NODES, Shared};
use tests::names::{fresh, request_id, request_id_made_at, sku_in};
use tests::raw::{self, Connection};
use tests::stock::{
    fresh_location, held, incarnation, line, movement, receive, reservation, reserve, seconds,
    warehouse,
};
use tests::wait::until;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::documented;

const INVALID: (Code, &str) = (Code::InvalidArgument, "FIELD_INVALID");
const WRONG_STATE: (Code, &str) = (Code::FailedPrecondition, "WRONG_STATE");

/// A call that must be refused.
#[derive(Clone)]
enum Call {
    Reserve(ReserveRequest),
    Batch(BatchReserveRequest),
    Confirm(ConfirmRequest),
    Release(ReleaseRequest),
    Fulfill(FulfillRequest),
    Extend(ExtendRequest),
    Amend(AmendRequest),
    GetReservation(GetReservationRequest),
    GetAvailability(GetAvailabilityRequest),
    Receipts(Vec<RecordReceiptsRequest>),
    Sale(RecordSaleRequest),
    Adjust(AdjustRequest),
    PutLocation(PutLocationRequest),
    SetPolicy(SetPositionPolicyRequest),
}

impl Call {
    /// As the API names it.
    fn name(&self) -> &'static str {
        match self {
            Self::Reserve(_) => "Reserve",
            Self::Batch(_) => "BatchReserve",
            Self::Confirm(_) => "Confirm",
            Self::Release(_) => "Release",
            Self::Fulfill(_) => "Fulfill",
            Self::Extend(_) => "Extend",
            Self::Amend(_) => "Amend",
            Self::GetReservation(_) => "GetReservation",
            Self::GetAvailability(_) => "GetAvailability",
            Self::Receipts(_) => "RecordReceipts",
            Self::Sale(_) => "RecordSale",
            Self::Adjust(_) => "Adjust",
            Self::PutLocation(_) => "PutLocation",
            Self::SetPolicy(_) => "SetPositionPolicy",
        }
    }

    async fn send(self, node: Channel) -> Result<(), Status> {
        let mut reservations = ReservationServiceClient::new(node.clone());
        let mut availability = AvailabilityServiceClient::new(node.clone());
        let mut inventory = InventoryServiceClient::new(node.clone());
        let mut catalog = CatalogServiceClient::new(node);
        match self {
            Self::Reserve(call) => reservations.reserve(call).await.map(drop),
            Self::Batch(call) => reservations.batch_reserve(call).await.map(drop),
            Self::Confirm(call) => reservations.confirm(call).await.map(drop),
            Self::Release(call) => reservations.release(call).await.map(drop),
            Self::Fulfill(call) => reservations.fulfill(call).await.map(drop),
            Self::Extend(call) => reservations.extend(call).await.map(drop),
            Self::Amend(call) => reservations.amend(call).await.map(drop),
            Self::GetReservation(call) => reservations.get_reservation(call).await.map(drop),
            Self::GetAvailability(call) => availability.get_availability(call).await.map(drop),
            Self::Receipts(calls) => {
                let calls = stream::iter(calls);
                inventory.record_receipts(calls).await.map(drop)
            }
            Self::Sale(call) => inventory.record_sale(call).await.map(drop),
            Self::Adjust(call) => inventory.adjust(call).await.map(drop),
            Self::PutLocation(call) => catalog.put_location(call).await.map(drop),
            Self::SetPolicy(call) => catalog.set_position_policy(call).await.map(drop),
        }
    }
}

/// What is sent, how it must be refused, and the field at fault (empty: none). The message must
/// name the field.
struct Case {
    call: Call,
    refused: (Code, &'static str),
    field: &'static str,
}

fn case(call: Call, refused: (Code, &'static str), field: &'static str) -> Case {
    Case {
        call,
        refused,
        field,
    }
}

/// Shards tell each other within milliseconds.
const BOOKS_WITHIN: Duration = Duration::from_secs(5);

/// A shop with something in every state.
struct Shop {
    cluster: Shared,
    client: Client,
    /// Two SKUs of one shard, and one of another.
    sku: String,
    sibling: String,
    stranger: String,
    location: String,
    other_location: String,
    /// 5 units of `sku` at `location` and 2 at `other_location`.
    held: String,
    confirmed: String,
    released: String,
    /// A request that has been answered.
    answered: ReserveRequest,
}

/// Everything that must not change.
#[derive(Debug, PartialEq)]
struct Books {
    positions: Vec<Availability>,
    reservations: Vec<Reservation>,
    locations: Vec<Location>,
}

impl Shop {
    async fn open() -> Self {
        let cluster = Cluster::shared().await;
        let client = cluster.client().await;
        let shards = cluster.shards();
        let sku = sku_in(3, shards, "good");
        let sibling = sku_in(3, shards, "sibling");
        let stranger = sku_in(4, shards, "stranger");
        let location = fresh_location(&client).await;
        let other_location = fresh_location(&client).await;
        for sku in [&sku, &sibling, &stranger] {
            receive(&client, sku, &location, 100).await;
        }
        receive(&client, &sku, &other_location, 100).await;

        let answered = reserve(&sku, &location, 1);
        let released = held(client.reserve(answered.clone()).await.unwrap()).reservation_id;
        let release = ReleaseRequest {
            reservation_id: released.clone(),
            ..Default::default()
        };
        client.release(release).await.unwrap();

        let confirmed = client.reserve(reserve(&sku, &location, 3)).await.unwrap();
        let confirmed = held(confirmed).reservation_id;
        let confirm = ConfirmRequest {
            reservation_id: confirmed.clone(),
            ..Default::default()
        };
        client.confirm(confirm).await.unwrap();

        let lines = vec![line(&sku, &location, 5), line(&sku, &other_location, 2)];
        let basket = ReserveRequest {
            lines,
            ..Default::default()
        };
        let held = held(client.reserve(basket).await.unwrap()).reservation_id;
        Self {
            cluster,
            client,
            sku,
            sibling,
            stranger,
            location,
            other_location,
            held,
            confirmed,
            released,
            answered,
        }
    }

    async fn books(&self) -> Books {
        let keys = [&self.sku, &self.sibling, &self.stranger]
            .map(|sku| PositionKey::everywhere(sku.clone()));
        let question = GetAvailabilityRequest {
            keys: keys.to_vec(),
            read: Some(ReadOptions::linearizable()),
        };
        let positions = self.client.get_availability(question).await.unwrap().items;
        let mut reservations = Vec::new();
        for id in [&self.held, &self.confirmed, &self.released] {
            let mut found = reservation(&self.client, id).await.unwrap();
            found.expires_in = None;
            reservations.push(found);
        }
        let locations = self.client.list_locations().await.unwrap().locations;
        let ours = |place: &Location| {
            [&self.location, &self.other_location].contains(&&place.location_id)
                || place.location_id.starts_with(NEVER_PUT)
        };
        Books {
            positions,
            reservations,
            locations: locations.into_iter().filter(ours).collect(),
        }
    }

    /// Sends every case, each to another node, and checks what comes back and what stays.
    async fn check(&self, cases: Vec<Case>) {
        let nodes = NODES.map(|node| self.cluster.channel(node));
        let before = self.books().await;
        for (number, case) in cases.into_iter().enumerate() {
            let node = nodes[number % nodes.len()].clone();
            let name = case.call.name();
            let refused = case.call.send(node).await;
            let status = refused.expect_err(&format!("case {number} was accepted"));
            check_status(&format!("case {number}"), &status, case.refused, case.field);
            let told = documented::reasons_of(name);
            let reason = case.refused.1;
            assert!(told.contains(reason), "docs/api.md: {name} has no {reason}");
            // What a basket held in other shards is given back after the answer.
            until("nothing is left of it", BOOKS_WITHIN, async || {
                let now = self.books().await;
                match now == before {
                    true => Ok(()),
                    false => Err(format!(
                        "case {number}: {status}: {now:?}, {before:?} before"
                    )),
                }
            })
            .await;
        }
    }

    fn reserve_with(&self, change: impl FnOnce(&mut ReserveRequest)) -> Call {
        let mut call = reserve(&self.sku, &self.location, 1);
        change(&mut call);
        Call::Reserve(call)
    }

    fn reserve_line(&self, line: Line) -> Call {
        self.reserve_with(|call| call.lines = vec![line])
    }

    fn part(&self, quantity: i64) -> PartialLine {
        PartialLine {
            sku: self.sku.clone(),
            location: Some(self.location.clone()),
            quantity,
        }
    }

    fn release_part(&self, lines: Vec<PartialLine>) -> Call {
        Call::Release(ReleaseRequest {
            request_id: request_id(),
            reservation_id: self.held.clone(),
            lines,
        })
    }

    fn movement_with(&self, change: impl FnOnce(&mut MovementLine)) -> MovementLine {
        let mut line = movement(&self.sku, &self.location, 1);
        change(&mut line);
        line
    }

    fn sale(&self, lines: Vec<MovementLine>) -> Call {
        Call::Sale(RecordSaleRequest {
            source: None,
            document: fresh("till"),
            lines,
        })
    }

    fn sale_with(&self, change: impl FnOnce(&mut MovementLine)) -> Call {
        self.sale(vec![self.movement_with(change)])
    }

    fn adjust_with(&self, change: impl FnOnce(&mut AdjustRequest)) -> Call {
        let mut call = AdjustRequest {
            source: None,
            document: fresh("found"),
            lines: vec![movement(&self.sku, &self.location, 1)],
            reason: "counted".to_owned(),
        };
        change(&mut call);
        Call::Adjust(call)
    }
}

fn check_status(what: &str, status: &Status, refused: (Code, &str), field: &str) {
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| info.reason.as_str());
    assert_eq!((status.code(), reason), refused, "{what}: {status}");
    let fields: Vec<&str> = details.bad_request().map_or_else(Vec::new, |bad| {
        let fields = bad.field_violations.iter();
        fields.map(|violation| violation.field.as_str()).collect()
    });
    if field.is_empty() {
        assert!(fields.is_empty(), "{what}: {fields:?}");
    } else {
        assert!(fields.contains(&field), "{what}: {fields:?}");
        assert!(status.message().contains(field), "{what}: {status}");
    }
    assert!(!status.message().is_empty(), "{what}: says nothing");
}

/// Texts that are no identifiers.
fn not_identifiers() -> [String; 6] {
    [
        String::new(),
        "x".repeat(65),
        "milk 1l".to_owned(),
        "m\u{ef}lk".to_owned(),
        "milk/1l".to_owned(),
        "milk\0".to_owned(),
    ]
}

fn not_skus() -> [String; 7] {
    [
        String::new(),
        "x".repeat(65),
        " milk".to_owned(),
        "milk\u{3000}".to_owned(),
        "mi\nlk".to_owned(),
        "milk\0".to_owned(),
        "mi\u{2028}lk".to_owned(),
    ]
}

const NOT_QUANTITIES: [i64; 5] = [0, -1, 1_000_000_001, i64::MAX, i64::MIN];

#[tokio::test]
async fn lines_of_a_basket() {
    let shop = Shop::open().await;
    let (sku, location) = (&shop.sku, &shop.location);
    let mut cases = Vec::new();
    for bad in not_skus() {
        let call = shop.reserve_line(line(&bad, location, 1));
        cases.push(case(call, INVALID, "lines[0].sku"));
    }
    for bad in not_identifiers() {
        let call = shop.reserve_line(line(sku, &bad, 1));
        cases.push(case(call, INVALID, "lines[0].location"));
    }
    for bad in NOT_QUANTITIES {
        let call = shop.reserve_line(line(sku, location, bad));
        cases.push(case(call, INVALID, "lines[0].quantity"));
        // Behind a good line: the basket is refused whole.
        let call = shop.reserve_with(|call| call.lines.push(line(sku, location, bad)));
        cases.push(case(call, INVALID, "lines[1].quantity"));
    }
    for count in [0, 257] {
        let lines = vec![line(sku, location, 1); count];
        let call = shop.reserve_with(|call| call.lines = lines.clone());
        cases.push(case(call, INVALID, "lines"));
        let call = Call::Amend(AmendRequest {
            request_id: request_id(),
            reservation_id: shop.held.clone(),
            lines,
            ttl: None,
        });
        cases.push(case(call, INVALID, "lines"));
    }
    let unknown = || line(sku, "nowhere", 1);
    // In other shards than the rest of the basket.
    let stranger = sku_in(5, 8, "no-such");
    cases.extend([
        case(
            shop.reserve_with(|call| call.lines.push(unknown())),
            (Code::NotFound, "UNKNOWN_LOCATION"),
            "lines[1].location",
        ),
        case(
            shop.reserve_line(line(&sku_in(3, 8, "no-such"), location, 1)),
            (Code::NotFound, "UNKNOWN_SKU"),
            "lines[0].sku",
        ),
        case(
            shop.reserve_with(|call| call.lines.push(line(&stranger, location, 1))),
            (Code::NotFound, "UNKNOWN_SKU"),
            "lines[1].sku",
        ),
        case(
            Call::Amend(AmendRequest {
                request_id: request_id(),
                reservation_id: shop.held.clone(),
                lines: vec![line(&stranger, location, 1)],
                ttl: None,
            }),
            (Code::NotFound, "UNKNOWN_SKU"),
            "lines[0].sku",
        ),
    ]);
    shop.check(cases).await;
}

#[tokio::test]
async fn request_ids() {
    let shop = Shop::open().await;
    let from_future = request_id_made_at(now_ms() + 120_000);
    let v4 = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let mut cases = Vec::new();
    for bad in ["", "7", "not-a-uuid", &v4.to_string(), &"7".repeat(1_000)] {
        let call = shop.reserve_with(|call| bad.clone_into(&mut call.request_id));
        cases.push(case(call, INVALID, "request_id"));
        let call = Call::Confirm(ConfirmRequest {
            request_id: bad.to_owned(),
            reservation_id: shop.held.clone(),
            pickup_within: None,
        });
        cases.push(case(call, INVALID, "request_id"));
        let call = Call::PutLocation(PutLocationRequest {
            request_id: bad.to_owned(),
            ..warehouse(NEVER_PUT)
        });
        cases.push(case(call, INVALID, "request_id"));
    }
    let reused = (Code::AlreadyExists, "REQUEST_REUSED");
    let mut more_units = shop.answered.clone();
    more_units.lines[0].quantity += 1;
    let mut other_ttl = shop.answered.clone();
    other_ttl.ttl = seconds(60);
    cases.extend([
        case(Call::Reserve(more_units), reused, "request_id"),
        case(Call::Reserve(other_ttl), reused, "request_id"),
        case(
            // The same id for another kind of call.
            Call::Confirm(ConfirmRequest {
                request_id: shop.answered.request_id.clone(),
                reservation_id: shop.held.clone(),
                pickup_within: None,
            }),
            reused,
            "request_id",
        ),
        case(
            shop.reserve_with(|call| call.request_id = from_future),
            (Code::InvalidArgument, "REQUEST_FROM_FUTURE"),
            "request_id",
        ),
    ]);
    shop.check(cases).await;
}

#[tokio::test]
async fn times_to_live() {
    let shop = Shop::open().await;
    let week = 7 * 24 * 3_600;
    let spans = [(0, 0), (-1, 0), (week, 1_000_000), (week + 86_400, 0)];
    let strange = [(0, 999_999_999), (1, -1), (1, 1_000_000_000), (i64::MAX, 0)];
    let mut cases = Vec::new();
    for (seconds, nanos) in spans.into_iter().chain(strange) {
        let ttl = Some(prost_types::Duration { seconds, nanos });
        cases.push(case(
            shop.reserve_with(|call| call.ttl = ttl),
            INVALID,
            "ttl",
        ));
        let call = Call::Extend(ExtendRequest {
            request_id: request_id(),
            reservation_id: shop.held.clone(),
            ttl,
        });
        cases.push(case(call, INVALID, "ttl"));
        let call = Call::Confirm(ConfirmRequest {
            request_id: request_id(),
            reservation_id: shop.held.clone(),
            pickup_within: ttl,
        });
        cases.push(case(call, INVALID, "pickup_within"));
    }
    let call = Call::Extend(ExtendRequest {
        request_id: request_id(),
        reservation_id: shop.held.clone(),
        ttl: None,
    });
    cases.push(case(call, INVALID, "ttl"));
    shop.check(cases).await;
}

#[tokio::test]
async fn reservations_that_are_unknown_or_in_the_wrong_state() {
    let shop = Shop::open().await;
    let confirm = |id: &str| {
        Call::Confirm(ConfirmRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            pickup_within: None,
        })
    };
    let release = |id: &str| {
        Call::Release(ReleaseRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            lines: Vec::new(),
        })
    };
    let fulfill = |id: &str| {
        Call::Fulfill(FulfillRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            lines: Vec::new(),
        })
    };
    let extend = |id: &str| {
        Call::Extend(ExtendRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            ttl: seconds(60),
        })
    };
    let amend = |id: &str| {
        Call::Amend(AmendRequest {
            request_id: request_id(),
            reservation_id: id.to_owned(),
            lines: vec![line(&shop.sku, &shop.location, 1)],
            ttl: None,
        })
    };
    let get = |id: &str| {
        Call::GetReservation(GetReservationRequest {
            reservation_id: id.to_owned(),
            read: Some(ReadOptions::linearizable()),
        })
    };
    let kinds: [&dyn Fn(&str) -> Call; 6] = [&confirm, &release, &fulfill, &extend, &amend, &get];

    // One digit of a random part changed: of the right form, in the right shard, never given out.
    let mut unknown = shop.held.clone();
    let last = unknown.pop().unwrap();
    unknown.push(if last == '0' { '1' } else { '0' });
    let no_such_shard = "01997a3c-5f10-8fff-9a54-2f0c9d6c1b11";
    let mut cases = Vec::new();
    for kind in kinds {
        let not_found = (Code::NotFound, "UNKNOWN_RESERVATION");
        cases.push(case(kind(&unknown), not_found, "reservation_id"));
        for bad in ["", "7", &request_id(), no_such_shard] {
            cases.push(case(kind(bad), INVALID, "reservation_id"));
        }
    }
    cases.extend([
        case(confirm(&shop.confirmed), WRONG_STATE, ""),
        case(confirm(&shop.released), WRONG_STATE, ""),
        case(release(&shop.released), WRONG_STATE, ""),
        case(fulfill(&shop.held), WRONG_STATE, ""),
        case(fulfill(&shop.released), WRONG_STATE, ""),
        case(extend(&shop.released), WRONG_STATE, ""),
        case(amend(&shop.confirmed), WRONG_STATE, ""),
        case(amend(&shop.released), WRONG_STATE, ""),
        case(
            extend(&shop.confirmed),
            (Code::FailedPrecondition, "NOTHING_TO_EXTEND"),
            "",
        ),
    ]);
    shop.check(cases).await;
}

#[tokio::test]
async fn parts_of_a_reservation() {
    let shop = Shop::open().await;
    let mut cases = Vec::new();
    for bad in NOT_QUANTITIES {
        let call = shop.release_part(vec![shop.part(1), shop.part(bad)]);
        cases.push(case(call, INVALID, "lines[1].quantity"));
    }
    let named = |sku: &str, location: &str| PartialLine {
        sku: sku.to_owned(),
        location: Some(location.to_owned()).filter(|name| !name.is_empty()),
        quantity: 1,
    };
    let exceeds = (Code::FailedPrecondition, "LINE_EXCEEDS_OPEN");
    let not_in = (Code::NotFound, "LINE_NOT_IN_RESERVATION");
    cases.extend([
        case(
            shop.release_part(vec![shop.part(1), shop.part(6)]),
            exceeds,
            "lines[1].quantity",
        ),
        case(
            // Each by itself is open, both together are not.
            shop.release_part(vec![shop.part(3), shop.part(3)]),
            exceeds,
            "lines[1].quantity",
        ),
        case(
            shop.release_part(vec![shop.part(1), named(&shop.sibling, &shop.location)]),
            not_in,
            "lines[1].sku",
        ),
        case(
            shop.release_part(vec![named(&shop.sku, "elsewhere")]),
            not_in,
            "lines[0].sku",
        ),
        case(
            shop.release_part(vec![named(&shop.sku, "")]),
            (Code::InvalidArgument, "LINE_AMBIGUOUS"),
            "lines[0].location",
        ),
        case(
            shop.release_part(vec![named("", &shop.location)]),
            INVALID,
            "lines[0].sku",
        ),
        case(
            shop.release_part(vec![named(&shop.sku, "no/where")]),
            INVALID,
            "lines[0].location",
        ),
        case(shop.release_part(vec![shop.part(1); 257]), INVALID, "lines"),
        case(
            Call::Fulfill(FulfillRequest {
                request_id: request_id(),
                reservation_id: shop.confirmed.clone(),
                lines: vec![shop.part(4)],
            }),
            exceeds,
            "lines[0].quantity",
        ),
    ]);
    shop.check(cases).await;
}

#[tokio::test]
async fn batches_of_reservations() {
    let shop = Shop::open().await;
    let batch = |count: usize| {
        let requests = (0..count).map(|_| reserve(&shop.sku, &shop.location, 1));
        Call::Batch(BatchReserveRequest {
            requests: requests.collect(),
        })
    };
    shop.check(vec![
        case(batch(0), INVALID, "requests"),
        case(batch(1_001), INVALID, "requests"),
    ])
    .await;
}

#[tokio::test]
async fn a_bad_request_in_a_batch_is_refused_by_itself() {
    let shop = Shop::open().await;
    let (sku, location) = (&shop.sku, &shop.location);
    let before = shop.books().await;
    let requests = vec![
        reserve(sku, location, 1),
        reserve(sku, location, 0),
        reserve(sku, "nowhere", 1),
        reserve(sku, location, 1),
        reserve(&sku_in(3, 8, "no-such"), location, 1),
    ];
    let answer = ReservationServiceClient::new(shop.cluster.channel(2))
        .batch_reserve(BatchReserveRequest { requests })
        .await;

    let results = answer.unwrap().into_inner().results;
    let results: Vec<_> = results.into_iter().map(|r| r.result.unwrap()).collect();
    assert_eq!(results.len(), 5);
    let mut refused = 0;
    for (at, expected, field) in [
        (1, INVALID, "requests[1].lines[0].quantity"),
        (
            2,
            (Code::NotFound, "UNKNOWN_LOCATION"),
            "requests[2].lines[0].location",
        ),
        (
            4,
            (Code::NotFound, "UNKNOWN_SKU"),
            "requests[4].lines[0].sku",
        ),
    ] {
        let batch_reserve_result::Result::Error(error) = &results[at] else {
            panic!("request {at} was accepted: {:?}", results[at]);
        };
        let status = Status::with_details(
            Code::from_i32(error.code),
            error.message.clone(),
            error.encode_to_vec().into(),
        );
        check_status(&format!("request {at}"), &status, expected, field);
        refused += 1;
    }
    let mut good = Vec::new();
    for result in results {
        if let batch_reserve_result::Result::Response(answer) = result {
            good.push(held(answer).reservation_id);
        }
    }
    assert_eq!((good.len(), refused), (2, 3));
    for id in good {
        let release = ReleaseRequest {
            reservation_id: id,
            ..Default::default()
        };
        shop.client.release(release).await.unwrap();
    }
    assert_eq!(shop.books().await, before);
}

#[tokio::test]
async fn reads() {
    let shop = Shop::open().await;
    let key = |sku: &str, location: &str| PositionKey::at(sku, location);
    let good = || key(&shop.sku, &shop.location);
    let ask = |keys: Vec<PositionKey>| GetAvailabilityRequest {
        keys,
        ..Default::default()
    };
    let life = incarnation(&shop.client).await;
    let options = |read: ReadOptions| {
        Call::GetAvailability(GetAvailabilityRequest {
            keys: vec![good()],
            read: Some(read),
        })
    };
    let index = |shard: u32, index: u64| ShardIndex { shard, index };
    let since = |at_least: Vec<ShardIndex>, incarnation: &[u8]| ReadOptions {
        at_least,
        incarnation: incarnation.to_vec().into(),
        ..ReadOptions::default()
    };
    let strange = ReadOptions {
        consistency: 7,
        ..ReadOptions::default()
    };
    let beyond = since(vec![index(0, 1), index(8, 1)], &life);
    let many = since(vec![index(0, 1); 8_193], &life);
    let no_life = since(vec![index(0, 1)], &[]);
    let short_life = since(Vec::new(), &life[1..]);
    let other_life = since(vec![index(0, 1)], &[7; 16]);
    let over = (Code::FailedPrecondition, "INCARNATION_OVER");
    let nowhere = PositionKey {
        sku: shop.sku.clone(),
        place: None,
    };
    shop.check(vec![
        case(Call::GetAvailability(ask(Vec::new())), INVALID, "keys"),
        case(
            Call::GetAvailability(ask(vec![good(); 2_001])),
            INVALID,
            "keys",
        ),
        case(
            Call::GetAvailability(ask(vec![good(), key("", "")])),
            INVALID,
            "keys[1].sku",
        ),
        case(
            Call::GetAvailability(ask(vec![key(&shop.sku, "no where")])),
            INVALID,
            "keys[0].location",
        ),
        case(
            Call::GetAvailability(ask(vec![good(), nowhere])),
            INVALID,
            "keys[1].location",
        ),
        case(options(strange), INVALID, "read.consistency"),
        case(options(beyond), INVALID, "read.at_least[1].shard"),
        case(options(many), INVALID, "read.at_least"),
        case(options(no_life), INVALID, "read.incarnation"),
        case(options(short_life), INVALID, "read.incarnation"),
        case(options(other_life), over, ""),
    ])
    .await;
}

#[tokio::test]
async fn sales_and_adjustments() {
    let shop = Shop::open().await;
    let mut cases = Vec::new();
    for bad in not_skus() {
        let call = shop.sale_with(|line| line.sku.clone_from(&bad));
        cases.push(case(call, INVALID, "lines[0].sku"));
    }
    for bad in not_identifiers() {
        cases.extend([
            case(
                shop.sale_with(|line| line.location.clone_from(&bad)),
                INVALID,
                "lines[0].location",
            ),
            case(
                shop.sale_with(|line| line.line.clone_from(&bad)),
                INVALID,
                "lines[0].line",
            ),
            case(
                shop.adjust_with(|call| call.document.clone_from(&bad)),
                INVALID,
                "document",
            ),
        ]);
    }
    for bad in NOT_QUANTITIES {
        let lines = vec![
            shop.movement_with(|_| ()),
            shop.movement_with(|line| line.quantity = bad),
        ];
        cases.push(case(shop.sale(lines), INVALID, "lines[1].quantity"));
    }
    for bad in [0, 1_000_000_001, -1_000_000_001, i64::MAX, i64::MIN] {
        let call = shop.adjust_with(|call| call.lines[0].quantity = bad);
        cases.push(case(call, INVALID, "lines[0].quantity"));
    }
    for reason in [String::new(), "x".repeat(65), "tab\tbed".to_owned()] {
        let call = shop.adjust_with(|call| call.reason = reason);
        cases.push(case(call, INVALID, "reason"));
    }
    for count in [0, 10_001] {
        let lines = (0..count).map(|n| shop.movement_with(|line| line.line = format!("{n}")));
        let lines: Vec<_> = lines.collect();
        cases.push(case(shop.sale(lines.clone()), INVALID, "lines"));
        let call = shop.adjust_with(|call| call.lines = lines);
        cases.push(case(call, INVALID, "lines"));
    }
    for (seconds, nanos) in [(-1, 0), (1, -1), (1, 1_000_000_000), (i64::MAX, 0)] {
        let at = Some(prost_types::Timestamp { seconds, nanos });
        let call = shop.sale_with(|line| line.occurred_at = at);
        cases.push(case(call, INVALID, "lines[0].occurred_at"));
    }
    let lines = vec![
        shop.movement_with(|_| ()),
        shop.movement_with(|line| "nowhere".clone_into(&mut line.location)),
    ];
    let unknown = (Code::NotFound, "UNKNOWN_LOCATION");
    cases.push(case(shop.sale(lines), unknown, "lines[1].location"));
    shop.check(cases).await;
}

#[tokio::test]
async fn a_line_that_a_shard_refuses_changes_nothing() {
    let shop = Shop::open().await;
    let document = fresh("till");
    let sale = |lines: Vec<MovementLine>| RecordSaleRequest {
        source: None,
        document: document.clone(),
        lines,
    };
    let first = shop
        .client
        .record_sale(sale(vec![shop.movement_with(|_| ())]));
    assert_eq!(
        first.await.unwrap().verdicts[0].verdict(),
        Verdict::Recorded
    );
    let before = shop.books().await;

    let future = prost_types::Timestamp {
        seconds: (now_ms() / 1_000 + 25 * 3_600) as i64,
        nanos: 0,
    };
    let an_hour_ago = prost_types::Timestamp {
        seconds: (now_ms() / 1_000 - 3_600) as i64,
        nanos: 0,
    };
    for (line, reason, field) in [
        (
            shop.movement_with(|line| line.quantity = 2),
            "DOCUMENT_REUSED",
            "line",
        ),
        (
            shop.movement_with(|line| line.occurred_at = Some(an_hour_ago)),
            "DOCUMENT_REUSED",
            "line",
        ),
        (
            shop.movement_with(|line| {
                "2".clone_into(&mut line.line);
                line.occurred_at = Some(future);
            }),
            "OCCURRED_IN_FUTURE",
            "occurred_at",
        ),
    ] {
        let answer = shop.client.record_sale(sale(vec![line])).await.unwrap();
        check_verdict(&answer.verdicts[0], reason, field);
        assert_eq!(shop.books().await, before, "{reason}");
    }
}

fn check_verdict(verdict: &LineVerdict, reason: &str, field: &str) {
    assert_eq!(verdict.verdict(), Verdict::Refused, "{verdict:?}");
    let error = verdict.error.as_ref().expect("why it was refused");
    assert_eq!(
        (error.reason().text(), error.field.as_str()),
        (reason, field)
    );
    assert!(!error.message.is_empty());
}

#[tokio::test]
async fn a_stream_of_receipts_records_its_good_lines_and_says_what_is_wrong_with_the_bad() {
    let shop = Shop::open().await;
    let named = |name: &str, change: &dyn Fn(&mut MovementLine)| {
        shop.movement_with(|line| {
            name.clone_into(&mut line.line);
            change(line);
        })
    };
    let messages = [
        RecordReceiptsRequest {
            source: None,
            document: fresh("note"),
            lines: vec![
                named("good", &|line| line.quantity = 7),
                named("no units", &|_| ()),
                named("zero", &|line| line.quantity = 0),
                named("nowhere", &|line| "nowhere".clone_into(&mut line.location)),
                named("no-sku", &|line| line.sku.clear()),
                named("good", &|line| line.quantity = 8),
            ],
        },
        RecordReceiptsRequest {
            source: None,
            document: "no document".to_owned(),
            lines: vec![named("1", &|_| ())],
        },
        RecordReceiptsRequest {
            source: None,
            document: fresh("note"),
            lines: vec![named("good", &|line| line.quantity = 5)],
        },
    ];
    let before = shop.books().await.positions;
    let answer = InventoryServiceClient::new(shop.cluster.channel(1))
        .record_receipts(stream::iter(messages))
        .await;

    let verdicts = answer.unwrap().into_inner().verdicts;
    assert_eq!(verdicts.len(), 8);
    assert_eq!(verdicts[0].verdict(), Verdict::Recorded);
    check_verdict(&verdicts[1], "FIELD_INVALID", "line");
    check_verdict(&verdicts[2], "FIELD_INVALID", "quantity");
    check_verdict(&verdicts[3], "UNKNOWN_LOCATION", "location");
    check_verdict(&verdicts[4], "FIELD_INVALID", "sku");
    check_verdict(&verdicts[5], "DOCUMENT_REUSED", "line");
    check_verdict(&verdicts[6], "FIELD_INVALID", "document");
    assert_eq!(verdicts[7].verdict(), Verdict::Recorded);
    let mut expected = before;
    for position in &mut expected {
        if position.sku == shop.sku && position.location.as_ref() == Some(&shop.location) {
            position.on_hand += 12;
            position.available += 12;
        }
    }
    assert_eq!(shop.books().await.positions, expected);
}

#[tokio::test]
async fn a_stream_of_too_many_receipts_records_none() {
    let shop = Shop::open().await;
    let message = |first: usize, count: usize| RecordReceiptsRequest {
        source: None,
        document: fresh("note"),
        lines: (first..first + count)
            .map(|n| shop.movement_with(|line| line.line = format!("{n}")))
            .collect(),
    };
    let messages = vec![message(0, 6_000), message(6_000, 4_000), message(10_000, 1)];
    shop.check(vec![case(Call::Receipts(messages), INVALID, "lines")])
        .await;
}

/// A location that no call may create.
const NEVER_PUT: &str = "never-put";

#[tokio::test]
async fn locations_and_policies() {
    let shop = Shop::open().await;
    let put = |change: &dyn Fn(&mut Location)| {
        let mut call = warehouse(NEVER_PUT);
        change(call.location.get_or_insert_default());
        Call::PutLocation(call)
    };
    let somewhere = |latitude: f64, longitude: f64| {
        put(&|place| {
            place.coordinates = Some(Coordinates {
                latitude,
                longitude,
            });
        })
    };
    let mut cases = vec![
        case(
            Call::PutLocation(PutLocationRequest {
                request_id: request_id(),
                location: None,
            }),
            INVALID,
            "location",
        ),
        case(
            put(&|place| place.set_type(location::Type::Unspecified)),
            INVALID,
            "location.type",
        ),
        case(put(&|place| place.r#type = 9), INVALID, "location.type"),
        case(
            put(&|place| place.name = "n".repeat(129)),
            INVALID,
            "location.name",
        ),
        case(
            put(&|place| "two\nlines".clone_into(&mut place.name)),
            INVALID,
            "location.name",
        ),
        case(
            put(&|place| place.gln = Some("123456789012".to_owned())),
            INVALID,
            "location.gln",
        ),
        case(
            put(&|place| place.gln = Some("12345678901ab".to_owned())),
            INVALID,
            "location.gln",
        ),
    ];
    for bad in not_identifiers() {
        let call = put(&|place| place.location_id = format!("{NEVER_PUT}{bad} "));
        cases.push(case(call, INVALID, "location.location_id"));
    }
    for bad in [91.0, -90.1, f64::NAN, f64::INFINITY] {
        let call = somewhere(bad, 0.0);
        cases.push(case(call, INVALID, "location.coordinates.latitude"));
    }
    for bad in [181.0, -180.1, f64::NAN, f64::NEG_INFINITY] {
        let call = somewhere(0.0, bad);
        cases.push(case(call, INVALID, "location.coordinates.longitude"));
    }

    let policy = |change: &dyn Fn(&mut SetPositionPolicyRequest)| {
        let mut call = SetPositionPolicyRequest {
            request_id: request_id(),
            sku: shop.sku.clone(),
            location: shop.location.clone(),
            policy: Some(PositionPolicy {
                safety_stock: 1,
                backorder_limit: 0,
            }),
            update_mask: None,
        };
        change(&mut call);
        Call::SetPolicy(call)
    };
    for bad in [-1, 1_000_000_001, i64::MAX] {
        let call = policy(&|call| call.policy.get_or_insert_default().safety_stock = bad);
        cases.push(case(call, INVALID, "policy.safety_stock"));
        let call = policy(&|call| call.policy.get_or_insert_default().backorder_limit = bad);
        cases.push(case(call, INVALID, "policy.backorder_limit"));
    }
    cases.extend([
        case(policy(&|call| call.policy = None), INVALID, "policy"),
        case(policy(&|call| mask(call, &[])), INVALID, "update_mask"),
        case(
            policy(&|call| mask(call, &["safety_stock", "location"])),
            INVALID,
            "update_mask.paths[1]",
        ),
        case(
            policy(&|call| mask(call, &["policy.safety_stock"])),
            INVALID,
            "update_mask.paths[0]",
        ),
        case(policy(&|call| call.sku.clear()), INVALID, "sku"),
        case(policy(&|call| call.location.clear()), INVALID, "location"),
        case(
            policy(&|call| "nowhere".clone_into(&mut call.location)),
            (Code::NotFound, "UNKNOWN_LOCATION"),
            "location",
        ),
    ]);
    shop.check(cases).await;
}

fn mask(call: &mut SetPositionPolicyRequest, paths: &[&str]) {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    call.update_mask = Some(prost_types::FieldMask { paths });
}

const RESERVE: &str = "/stock.v1.ReservationService/Reserve";

#[tokio::test]
async fn a_truncated_protobuf() {
    let shop = Shop::open().await;
    let connection = Connection::open(&shop.cluster.address(2)).await;
    let whole = reserve(&shop.sku, &shop.location, 1).encode_to_vec();
    let before = shop.books().await;
    let mut malformed = 0;
    for cut in 0..whole.len() {
        let body = raw::frame(&whole[..cut]);
        let status = connection.call(RESERVE, &[], body).await;
        let status = status.expect_err("half a message was accepted");
        // Cut between two fields it is a whole message that lacks one.
        let expected = match cut {
            0 | 38 => INVALID,
            _ => (Code::InvalidArgument, "MESSAGE_MALFORMED"),
        };
        malformed += usize::from(expected != INVALID);
        let details = status.get_error_details();
        let reason = details.error_info().map_or("", |info| info.reason.as_str());
        assert_eq!((status.code(), reason), expected, "cut at {cut}: {status}");
        if expected != INVALID {
            assert!(status.message().contains("Protobuf"), "{status}");
        }
    }
    assert_eq!(malformed, whole.len() - 2);
    assert_eq!(shop.books().await, before);
    // The message is good, and so is the connection.
    let answer = connection.call(RESERVE, &[], raw::frame(&whole)).await;
    assert!(!answer.unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_ends_inside_a_frame() {
    let shop = Shop::open().await;
    let connection = Connection::open(&shop.cluster.address(1)).await;
    let whole = raw::frame(&reserve(&shop.sku, &shop.location, 1).encode_to_vec());
    let before = shop.books().await;
    for cut in 0..whole.len() {
        let status = connection.call(RESERVE, &[], whole.slice(..cut)).await;
        let status = status.expect_err("half a frame was accepted");
        assert_ne!(status.code(), Code::Unavailable, "cut at {cut}: {status}");
        assert!(!status.message().is_empty());
    }
    assert_eq!(shop.books().await, before);
}

#[tokio::test]
async fn a_message_of_five_mebibytes() {
    let shop = Shop::open().await;
    let connection = Connection::open(&shop.cluster.address(3)).await;
    let before = shop.books().await;
    // Too large, before anybody looks what is in it.
    let mut message = reserve(&shop.sku, &shop.location, 1).encode_to_vec();
    let padding = ReserveRequest {
        request_id: "x".repeat(5 * 1024 * 1024),
        ..Default::default()
    };
    let padding = padding.encode_to_vec();
    message.extend([0xfa, 0x01]); // Field 31, length-delimited.
    message.extend(&padding[1..]); // The length, and so many bytes.
    let bytes = message.len();

    let status = connection.call(RESERVE, &[], raw::frame(&message)).await;
    let status = status.expect_err("five mebibytes were accepted");
    let too_large = (Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    check_status("5 MiB", &status, too_large, "");
    assert!(status.message().contains(&bytes.to_string()), "{status}");
    assert_eq!(shop.books().await, before);

    // It is the size that was wrong.
    message.truncate(bytes - padding.len() - 1);
    let answer = connection.call(RESERVE, &[], raw::frame(&message)).await;
    assert!(!answer.unwrap().is_empty());
}

/// Times that a deadline of a millisecond is tried.
const SHORT_DEADLINES: usize = 20;

#[tokio::test]
async fn a_deadline_of_a_millisecond() {
    let shop = Shop::open().await;
    let connection = Connection::open(&shop.cluster.address(1)).await;
    let before = shop.books().await;
    let mut named = 0;
    for _ in 0..SHORT_DEADLINES {
        let body = raw::frame(&reserve(&shop.sku, &shop.location, 1).encode_to_vec());
        let status = connection
            .call(RESERVE, &[("grpc-timeout", "1m")], body)
            .await;
        let status = status.expect_err("a deadline of 1 ms was accepted");
        // Where the message comes later than its headers, the server's transport may be faster to
        // say that time is up, in its own words.
        if status.code() == Code::Cancelled {
            continue;
        }
        let too_short = (Code::DeadlineExceeded, "DEADLINE_TOO_SHORT");
        check_status("1 ms", &status, too_short, "");
        assert!(status.message().contains("deadline"), "{status}");
        named += 1;
    }
    assert!(named > 0, "never said that the deadline was too short");
    assert_eq!(shop.books().await, before);
    let body = raw::frame(&reserve(&shop.sku, &shop.location, 1).encode_to_vec());
    let answer = connection
        .call(RESERVE, &[("grpc-timeout", "5S")], body)
        .await;
    assert!(!answer.unwrap().is_empty());
}

#[tokio::test]
async fn a_method_that_does_not_exist() {
    let cluster = Cluster::shared().await;
    let connection = Connection::open(&cluster.address(1)).await;
    let path = "/stock.v1.ReservationService/Steal";
    let status = connection.call(path, &[], raw::frame(&Bytes::new())).await;
    assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_millis() as u64
}
