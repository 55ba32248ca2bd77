//! One batch, several leaders.

use stock_client::v1::batch_reserve_result::Result as Slot;
use stock_client::v1::reserve_response::Outcome;
use stock_client::v1::{BatchReserveRequest, BatchReserveResponse};
use tonic::Code;
use tonic_types::RpcStatusExt;

use crate::stub::{Act, StubCluster, answered_by, refusal, reserve_in};

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
                Outcome::Reservation(held) => {
                    Ok((held.reservation_id, answered_by(&response.header)))
                }
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
    let denied = || [Act::Fail(refusal(Code::PermissionDenied, "not yours"))];
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

#[tokio::test]
async fn each_request_that_failed_in_a_batch_tells_the_id_that_it_had() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    let lost = refusal(Code::Internal, "an answer that cannot be read");
    cluster.nodes[1].script([Act::Fail(lost.clone())]);
    let mut made = batch(8);
    for request in &mut made.requests {
        request.request_id.clear();
    }
    let answer = client.batch_reserve(made.clone()).await.expect("answered");
    let mut failed = 0;
    for result in answer.results {
        if let Some(Slot::Error(status)) = result.result {
            let details = status.get_error_details();
            let told = &details.request_info().expect("an id").request_id;
            let node = cluster.nodes[1].record();
            assert!(uuid::Uuid::parse_str(told).is_ok(), "{told}");
            assert_eq!(status.code, i32::from(Code::Internal));
            assert!(!node.request_ids.contains(told), "it was not carried out");
            failed += 1;
        }
    }
    assert_eq!(failed, 3, "those of one leader");

    // Where all of a batch fails, so does the call, and tells all ids.
    let one = BatchReserveRequest {
        requests: vec![made.requests[1].clone(); 3],
    };
    cluster.nodes[1].script([Act::Fail(lost)]);
    let error = client.batch_reserve(one).await.expect_err("lost");
    assert_eq!(error.request_ids().len(), 3);
    assert!(error.request_ids().iter().all(|id| !id.is_empty()));
}
