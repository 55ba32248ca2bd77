//! What a shop's own tests may rely on: [`Fake`] answers as a cluster does, and fails as told.

use std::time::Duration;

use futures_util::StreamExt;
use stock_client::fake::{Fake, Fault};
use stock_client::v1::batch_reserve_result::Result as Slot;
use stock_client::v1::reservation::State;
use stock_client::v1::reserve_response::Outcome;
use stock_client::v1::{
    BatchReserveRequest, BatchReserveResult, ConfirmRequest, ErrorReason, GetReservationRequest,
    Line, ListReservationsRequest, MovementLine, RecordSaleRequest, Reservation, ReserveRequest,
    ReserveStreamRequest,
};
use stock_client::{CallOptions, Client};

const MINUTE: Duration = Duration::from_secs(60);

fn basket(client: &Client, units: i64) -> ReserveRequest {
    ReserveRequest {
        request_id: client.new_request_id(),
        order_reference: Some("A-1".to_owned()),
        lines: vec![Line::at("milk", "store-7", units)],
        ..ReserveRequest::default()
    }
}

fn stocked(units: i64) -> (Fake, Client) {
    let fake = Fake::new();
    fake.receive("milk", "store-7", units);
    let client = fake.client().unwrap();
    (fake, client)
}

async fn held(client: &Client, request: ReserveRequest) -> Reservation {
    match client.reserve(request).await.unwrap().outcome {
        Some(Outcome::Reservation(held)) => held,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whatever_becomes_of_an_attempt_units_are_held_once() {
    let faults = [
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::NoLeader,
        Fault::Overloaded,
        Fault::Silent,
        Fault::Late(Duration::from_millis(30)),
    ];
    for fault in faults {
        let (fake, client) = stocked(10);
        fake.fail_next::<ReserveRequest>(fault.clone());
        let request = basket(&client, 3);
        let first = held(&client, request.clone()).await;
        let again = held(&client, request).await;
        assert_eq!(first.reservation_id, again.reservation_id, "{fault:?}");
        assert_eq!(fake.available("milk", "store-7"), Some(7), "{fault:?}");
        assert_eq!(fake.reservations().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_call_whose_answers_are_all_lost_has_an_unknown_outcome_and_is_found_by_its_order() {
    let (fake, client) = stocked(10);
    fake.fail_all::<ReserveRequest>(Fault::LostAfter);
    let hurried = client.with(CallOptions::new().timeout(Duration::from_millis(200)));
    let error = hurried.reserve(basket(&client, 3)).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    let of_order = ListReservationsRequest {
        order_reference: Some("A-1".to_owned()),
        ..ListReservationsRequest::default()
    };
    let found = client.list_reservations(of_order).await.unwrap();
    assert_eq!(found.reservations.len(), 1);
    let there = fake.reservations();
    assert_eq!(
        found.reservations[0].reservation_id,
        there[0].reservation_id
    );
}

#[tokio::test]
async fn what_no_repeat_can_mend_is_an_error_with_its_reason() {
    let (fake, client) = stocked(10);
    fake.fail_next::<ReserveRequest>(Fault::DiskFull);
    let once = client.with(CallOptions::new().timeout(Duration::from_millis(300)));
    let error = once.reserve(basket(&client, 1)).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::DiskFull, "{error}");
    assert!(!error.outcome_unknown() && error.is_retryable(), "{error}");
    assert_eq!(fake.available("milk", "store-7"), Some(10));
    // Checked as by a node, and named as by one.
    let mut wrong = basket(&client, 1);
    wrong.lines.push(Line::at("milk", "nowhere", 1));
    let error = client.reserve(wrong).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::UnknownLocation);
    assert!(error.to_string().contains("lines[1].location"), "{error}");
}

#[tokio::test]
async fn what_one_attempt_may_have_done_no_later_refusal_denies() {
    let (fake, client) = stocked(10);
    fake.fail_next::<ReserveRequest>(Fault::LostAfter);
    fake.fail_all::<ReserveRequest>(Fault::NoLeader);
    let twice = client.with(CallOptions::new().attempts(2));
    let request = basket(&client, 3);
    let error = twice.reserve(request.clone()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::NoLeader, "{error}");
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(fake.available("milk", "store-7"), Some(7));
    fake.mend();
    // A shard that had done it would say so.
    fake.fail_next::<ReserveRequest>(Fault::LostBefore);
    let unknown = ReserveRequest {
        lines: vec![Line::at("tea", "store-7", 1)],
        ..basket(&client, 1)
    };
    let error = client.reserve(unknown).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::UnknownSku, "{error}");
    assert!(!error.outcome_unknown(), "{error}");
    held(&client, request).await;
    assert_eq!(fake.available("milk", "store-7"), Some(7));
}

#[tokio::test]
async fn a_batchs_request_that_may_be_done_says_so() {
    let (fake, client) = stocked(10);
    fake.fail_next::<BatchReserveRequest>(Fault::LostAfter);
    fake.fail_all::<BatchReserveRequest>(Fault::NoLeader);
    let hurried = client.with(CallOptions::new().timeout(Duration::from_millis(300)));
    let requests = vec![basket(&client, 1)];
    let error = hurried.batch_reserve(BatchReserveRequest { requests });
    let error = error.await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(fake.available("milk", "store-7"), Some(9));
}

#[tokio::test]
async fn holds_end_and_ids_become_old_as_the_test_lets_time_pass() {
    let (fake, client) = stocked(10);
    let request = basket(&client, 3);
    let reservation = held(&client, request.clone()).await;
    fake.pass(11 * MINUTE);
    // Still held, but its id is older than ids are remembered.
    assert_eq!(fake.available("milk", "store-7"), Some(7));
    let error = client.reserve(request).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::RequestTooOld, "{error}");
    // One that is made now is new.
    held(&client, basket(&client, 1)).await;
    fake.pass(4 * MINUTE);
    let asked = GetReservationRequest {
        reservation_id: reservation.reservation_id.clone(),
        read: None,
    };
    let answer = client.get_reservation(asked).await.unwrap();
    assert_eq!(answer.reservation.unwrap().state(), State::Expired);
    assert_eq!(fake.available("milk", "store-7"), Some(9));
    let late = ConfirmRequest {
        reservation_id: reservation.reservation_id,
        ..ConfirmRequest::default()
    };
    let error = client.confirm(late).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::WrongState, "{error}");
    // A sale that has just happened has just happened there, too.
    fake.pass(40 * 24 * 60 * MINUTE);
    let sale = RecordSaleRequest {
        document: "till-1-77".to_owned(),
        lines: vec![MovementLine {
            line: "1".to_owned(),
            sku: "milk".to_owned(),
            location: "store-7".to_owned(),
            quantity: 2,
            occurred_at: Some(stock_client::now()),
        }],
        ..RecordSaleRequest::default()
    };
    let answer = client.record_sale(sale).await.unwrap();
    assert_eq!(answer.verdicts[0].error, None);
    assert_eq!(fake.available("milk", "store-7"), Some(8));
}

#[tokio::test]
async fn a_confirm_by_another_id_is_told_that_it_was_confirmed() {
    let (fake, client) = stocked(10);
    let reservation_id = held(&client, basket(&client, 3)).await.reservation_id;
    let confirm = || ConfirmRequest {
        request_id: client.new_request_id(),
        reservation_id: reservation_id.clone(),
        pickup_within: None,
    };
    let first = confirm();
    client.confirm(first.clone()).await.unwrap();
    client.confirm(first).await.unwrap();
    let error = client.confirm(confirm()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::WrongState);
    let state = error
        .status()
        .and_then(|status| status.metadata.get("state"));
    assert_eq!(state.map(String::as_str), Some("CONFIRMED"));
    assert!(!error.outcome_unknown() && !error.is_retryable());
    assert_eq!(fake.reservations()[0].state(), State::Confirmed);
}

/// 77,000 lines: a message of 2.7 MB, whose answers would not fit into one that clients take.
#[tokio::test]
async fn a_batch_is_sent_in_halves_where_its_answers_would_not_fit_into_one() {
    let fake = Fake::new();
    let client = fake.client().unwrap();
    let skus: Vec<_> = (0..256).map(|sku| format!("article-{sku:06}")).collect();
    for sku in &skus {
        fake.receive(sku, "store-7", 1_000);
    }
    let request = || ReserveRequest {
        request_id: client.new_request_id(),
        lines: skus.iter().map(|it| Line::at(it, "store-7", 1)).collect(),
        ..ReserveRequest::default()
    };
    let requests = (0..300).map(|_| request()).collect();
    let answer = client.batch_reserve(BatchReserveRequest { requests });
    let answer = answer.await.unwrap();
    assert_eq!(answer.results.len(), 300);
    let is_held = |it: &BatchReserveResult| match &it.result {
        Some(Slot::Response(it)) => matches!(it.outcome, Some(Outcome::Reservation(_))),
        _ => false,
    };
    assert!(answer.results.iter().all(is_held));
    assert_eq!(fake.available(&skus[255], "store-7"), Some(700));
    // Refused whole, and then in two halves.
    assert_eq!(fake.calls_of::<BatchReserveRequest>(), 3);
}

#[tokio::test]
async fn a_stream_goes_on_behind_a_broken_connection() {
    let (fake, client) = stocked(100);
    fake.fail_next::<ReserveStreamRequest>(Fault::LostAfter);
    let requests: Vec<_> = (0..20).map(|_| basket(&client, 1)).collect();
    let answers = client.reserve_stream(futures_util::stream::iter(requests));
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers.len(), 20);
    assert!(
        answers.iter().all(|(_, answer)| answer.is_ok()),
        "{answers:?}"
    );
    assert_eq!(fake.available("milk", "store-7"), Some(80));
}

#[tokio::test]
async fn a_fake_and_its_clients_may_be_many_and_outlive_each_other() {
    let (fake, client) = stocked(10);
    let other = Fake::new();
    assert_eq!(other.available("milk", "store-7"), None);
    drop(fake);
    held(&client, basket(&client, 1)).await;
}
