//! One batch, several leaders.

use stock_client::v1::batch_reserve_result::Result as Slot;
use stock_client::v1::reserve_response::Outcome;
use stock_client::v1::{BatchReserveRequest, BatchReserveResponse};
use tonic::{Code, Status};

use crate::stub::{Act, StubCluster, reserve_in};

fn batch(count: u32) -> BatchReserveRequest {
    let request = |number: u32| {
        let mut request = reserve_in(number % 8);
        request.request_id = format!("id-{number}");
        request
    };
    BatchReserveRequest {
        requests: (0..count).map(request).collect(),
    }
}

/// Per request: the id it was answered for and the node, or the code it failed with.
fn outcomes(answer: BatchReserveResponse) -> Vec<Result<(String, u64), i32>> {
    let results = answer.results.into_iter();
    results
        .map(|result| match result.result.expect("set") {
            Slot::Error(status) => Err(status.code),
            Slot::Response(response) => match response.outcome.expect("set") {
                Outcome::Reservation(held) => Ok((held.reservation_id, response.applied_index)),
                Outcome::Shortage(_) => panic!("the stubs are never short"),
            },
        })
        .collect()
}

#[tokio::test]
async fn each_leader_gets_its_part_and_the_order_is_kept() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    let answer = client.batch_reserve(batch(50)).await.expect("answered");
    for (number, outcome) in (0_u64..).zip(outcomes(answer)) {
        assert_eq!(outcome, Ok((format!("id-{number}"), number % 8 % 3 + 1)));
    }
    let calls = cluster.request_ids().concat();
    assert_eq!(calls.iter().filter(|id| *id == "batch").count(), 3);
}

#[tokio::test]
async fn a_slot_without_a_leader_is_tried_again_alone() {
    let cluster = StubCluster::start().await;
    cluster.nodes[1].record().refused_once = vec![("id-1".into(), Code::Unavailable)];
    let client = cluster.client().await;
    let answer = client.batch_reserve(batch(8)).await.expect("answered");
    assert!(outcomes(answer).iter().all(Result::is_ok));
    let ids = cluster.request_ids().concat();
    for number in 0..8 {
        let times = ids
            .iter()
            .filter(|id| **id == format!("id-{number}"))
            .count();
        assert_eq!(times, if number == 1 { 2 } else { 1 }, "id-{number}");
    }
}

#[tokio::test]
async fn a_part_that_fails_leaves_the_others_their_answers() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    let denied = || [Act::Fail(Status::permission_denied("not yours"))];
    cluster.nodes[2].script(denied());
    let answer = client.batch_reserve(batch(8)).await.expect("answered");
    for (number, outcome) in outcomes(answer).into_iter().enumerate() {
        let refused = number % 3 == 2;
        assert_eq!(outcome.is_err(), refused, "{number}: {outcome:?}");
    }

    cluster.nodes[0].script(denied());
    let error = client.batch_reserve(batch(1)).await.expect_err("refused");
    assert_eq!(error.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_empty_batch_is_the_nodes_to_refuse() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    client.batch_reserve(batch(0)).await.expect("asked");
    assert_eq!(cluster.request_ids().concat(), ["batch"]);
}
