//! Requests of a shop's day, and looking at what became of them.

use prost_types::Duration as Span;
use stock_client::{Client, Error};
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::{
    AdjustRequest, Availability, BatchReserveResult, Consistency, GetAvailabilityRequest,
    GetReservationRequest, Line, LineVerdict, ListReservationsRequest, Location, MovementLine,
    PositionKey, PutLocationRequest, ReadOptions, RecordReceiptsRequest, RecordSaleRequest,
    Reservation, ReserveRequest, ReserveResponse, ResponseHeader, ShardIndex, Shortage,
    batch_reserve_result, location, reserve_response,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::names::{fresh, request_id};

/// One line of a basket.
pub fn line(sku: &str, location: &str, quantity: i64) -> Line {
    Line::at(sku, location, quantity)
}

/// One line of a document; its name is `1`.
pub fn movement(sku: &str, location: &str, quantity: i64) -> MovementLine {
    MovementLine {
        line: "1".to_owned(),
        sku: sku.to_owned(),
        location: location.to_owned(),
        quantity,
        occurred_at: Some(stock_client::now()),
    }
}

/// A reserve of one line, with a new request id.
pub fn reserve(sku: &str, location: &str, quantity: i64) -> ReserveRequest {
    ReserveRequest {
        request_id: request_id(),
        lines: vec![line(sku, location, quantity)],
        ..ReserveRequest::default()
    }
}

/// So many seconds.
pub fn seconds(seconds: i64) -> Option<Span> {
    Some(Span { seconds, nanos: 0 })
}

/// The reservation in an answer; panics if it is a shortage.
pub fn held(answer: ReserveResponse) -> Reservation {
    match outcome(answer) {
        Ok(reservation) => reservation,
        Err(shortage) => panic!("not held: {shortage:?}"),
    }
}

/// An answer as a result.
pub fn outcome(answer: ReserveResponse) -> Result<Reservation, Shortage> {
    match answer.outcome {
        Some(reserve_response::Outcome::Reservation(reservation)) => Ok(reservation),
        Some(reserve_response::Outcome::Shortage(shortage)) => Err(shortage),
        None => panic!("an answer without outcome: {answer:?}"),
    }
}

/// Whether one request of a batch is held.
pub fn is_held(result: &BatchReserveResult) -> bool {
    let Some(batch_reserve_result::Result::Response(response)) = &result.result else {
        return false;
    };
    matches!(
        response.outcome,
        Some(reserve_response::Outcome::Reservation(_))
    )
}

/// A request to put a warehouse, with a new request id.
pub fn warehouse(location: &str) -> PutLocationRequest {
    PutLocationRequest {
        request_id: request_id(),
        location: Some(Location {
            location_id: location.to_owned(),
            r#type: location::Type::Warehouse.into(),
            name: "A warehouse".to_owned(),
            ..Location::default()
        }),
    }
}

/// Puts a fresh location.
pub async fn fresh_location(client: &Client) -> String {
    let location = fresh("wh");
    let put = client.put_location(warehouse(&location)).await;
    put.unwrap_or_else(|e| panic!("put {location}: {e}"));
    location
}

/// Has units of a SKU arrive, under a fresh document.
pub async fn receive(client: &Client, sku: &str, location: &str, quantity: i64) -> LineVerdict {
    let request = RecordReceiptsRequest {
        source: None,
        document: fresh("note"),
        lines: vec![movement(sku, location, quantity)],
    };
    let answer = client.record_receipts([request]).await;
    let answer = answer.unwrap_or_else(|e| panic!("receive {sku}: {e}"));
    recorded(answer.verdicts)
}

/// Sells units at a till, under a fresh document.
pub async fn sell(client: &Client, sku: &str, location: &str, quantity: i64) -> LineVerdict {
    let request = RecordSaleRequest {
        source: None,
        document: fresh("till"),
        lines: vec![movement(sku, location, quantity)],
    };
    let answer = client.record_sale(request).await;
    recorded(
        answer
            .unwrap_or_else(|e| panic!("sell {sku}: {e}"))
            .verdicts,
    )
}

/// Finds or loses units, under a fresh document.
pub async fn adjust(client: &Client, sku: &str, location: &str, quantity: i64) -> LineVerdict {
    let request = AdjustRequest {
        source: None,
        document: fresh("found"),
        lines: vec![movement(sku, location, quantity)],
        reason: "counted".to_owned(),
    };
    let answer = client.adjust(request).await;
    recorded(
        answer
            .unwrap_or_else(|e| panic!("adjust {sku}: {e}"))
            .verdicts,
    )
}

fn recorded(verdicts: Vec<LineVerdict>) -> LineVerdict {
    let verdict = only(verdicts);
    assert_eq!(verdict.verdict(), Verdict::Recorded, "{verdict:?}");
    verdict
}

/// The verdict on a document of one line.
pub fn only(verdicts: Vec<LineVerdict>) -> LineVerdict {
    let count = verdicts.len();
    match verdicts.into_iter().next() {
        Some(verdict) if count == 1 => verdict,
        _ => panic!("{count} verdicts for one line"),
    }
}

/// One position, linearizably.
pub async fn position(client: &Client, sku: &str, location: &str) -> Result<Availability, Error> {
    Ok(position_seen(client, sku, location).await?.0)
}

/// One position, linearizably, and the header of the answer.
pub async fn position_seen(
    client: &Client,
    sku: &str,
    location: &str,
) -> Result<(Availability, ResponseHeader), Error> {
    let answer = client
        .get_availability(at(sku, location, Consistency::Linearizable))
        .await?;
    Ok((first(answer.items), answer.header.unwrap_or_default()))
}

/// One position as this node answers, linearizably.
pub async fn position_at(
    node: &Channel,
    sku: &str,
    location: &str,
) -> Result<Availability, Status> {
    let answer = AvailabilityServiceClient::new(node.clone())
        .get_availability(at(sku, location, Consistency::Linearizable))
        .await?;
    Ok(first(answer.into_inner().items))
}

/// One position as this node answers from a state that has seen what an answer has.
pub async fn position_since(
    node: &Channel,
    sku: &str,
    location: &str,
    seen: &ResponseHeader,
) -> Result<Availability, Status> {
    let mut request = at(sku, location, Consistency::Near);
    request.read = Some(ReadOptions::at_least(seen));
    let answer = AvailabilityServiceClient::new(node.clone())
        .get_availability(request)
        .await?;
    Ok(first(answer.into_inner().items))
}

/// How new an answer must be: besides the consistency, what an earlier answer has seen, and of
/// which life of the cluster that was.
pub fn reading(
    consistency: Consistency,
    at_least: &[ShardIndex],
    incarnation: &[u8],
) -> Option<ReadOptions> {
    Some(ReadOptions {
        consistency: consistency.into(),
        at_least: at_least.to_vec(),
        incarnation: incarnation.to_vec().into(),
    })
}

/// The life of a cluster, as its answers tell it.
pub async fn incarnation(client: &Client) -> Vec<u8> {
    let topology = client.get_topology().await;
    let topology = topology.unwrap_or_else(|e| panic!("no topology: {e}"));
    topology.header.unwrap_or_default().incarnation.to_vec()
}

/// A question for one position.
pub fn at(sku: &str, location: &str, consistency: Consistency) -> GetAvailabilityRequest {
    GetAvailabilityRequest {
        keys: vec![PositionKey::at(sku, location)],
        read: reading(consistency, &[], &[]),
    }
}

fn first(items: Vec<Availability>) -> Availability {
    let item = items.into_iter().next();
    item.unwrap_or_else(|| panic!("an answer without items"))
}

/// A reservation, linearizably.
pub async fn reservation(client: &Client, id: &str) -> Result<Reservation, Error> {
    let request = GetReservationRequest {
        reservation_id: id.to_owned(),
        read: Some(ReadOptions::linearizable()),
    };
    let answer = client.get_reservation(request).await?;
    Ok(answer
        .reservation
        .unwrap_or_else(|| panic!("an answer without reservation")))
}

/// Asks for the reservations with an order reference, linearizably.
pub fn of_order(order: &str) -> ListReservationsRequest {
    ListReservationsRequest {
        order_reference: Some(order.to_owned()),
        read: Some(ReadOptions::linearizable()),
        ..ListReservationsRequest::default()
    }
}

/// The first page of the reservations with an order reference.
pub async fn listed(client: &Client, order: &str) -> Vec<Reservation> {
    let answer = client.list_reservations(of_order(order)).await;
    answer.unwrap_or_else(|e| panic!("{e}")).reservations
}

/// Receives one unit of each of so many new SKUs, in one call: much for the log, and for the state.
pub async fn receive_many(client: &Client, location: &str, lines: usize) -> Result<(), String> {
    let line = |number: usize| MovementLine {
        line: number.to_string(),
        ..movement(&fresh("kept"), location, 1)
    };
    let receipt = RecordReceiptsRequest {
        source: None,
        document: fresh("note"),
        lines: (0..lines).map(line).collect(),
    };
    let answer = client.record_receipts([receipt]).await;
    answer.map(drop).map_err(|error| error.to_string())
}
