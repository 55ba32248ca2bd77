//! Many reserves over one call to each leader: every one ends with its answer, whatever becomes of
//! the calls.

use std::time::Instant;

use futures_util::{StreamExt, stream};
use stock_client::v1::ReserveRequest;
use stock_client::v1::reserve_response::Outcome;
use stock_client::{Client, Error};
use tonic::{Code, Status};

use crate::stub::{Act, RETRY_AFTER, SHORT, StubCluster, answered_by, reserve_in};

fn requests(count: u32) -> impl Iterator<Item = ReserveRequest> {
    (0..count).map(|number| ReserveRequest {
        request_id: format!("id-{number}"),
        ..reserve_in(number % 8)
    })
}

/// For each request: the id it was answered for and the node, or the error.
async fn answers(client: &Client, count: u32) -> Vec<Result<(String, u64), Error>> {
    let answers = client.reserve_stream(stream::iter(requests(count)));
    let mut answers: Vec<_> = answers.collect().await;
    answers.sort_by_key(|(number, _)| *number);
    let numbers: Vec<u64> = answers.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..u64::from(count)).collect::<Vec<_>>());
    let answers = answers.into_iter().map(|(_, answer)| {
        let answer = answer?;
        match answer.outcome {
            Some(Outcome::Reservation(held)) => {
                Ok((held.reservation_id, answered_by(&answer.header)))
            }
            other => panic!("the stubs hold everything: {other:?}"),
        }
    });
    answers.collect()
}

fn times_sent(cluster: &StubCluster, id: &str) -> usize {
    let ids = cluster.request_ids().concat();
    ids.iter().filter(|sent| *sent == id).count()
}

#[tokio::test]
async fn each_leader_gets_its_own_and_every_request_is_answered_once() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    for (number, answer) in (0..).zip(answers(&client, 10_000).await) {
        let expected = (format!("id-{number}"), number % 8 % 3 + 1);
        assert_eq!(answer.expect("answered"), expected);
    }
}

#[tokio::test]
async fn what_a_node_cannot_decide_now_is_tried_again_alone() {
    let cluster = StubCluster::start().await;
    // Of shards that the same node leads: one of them has more to do than it can.
    let refused = [
        ("id-1".into(), Code::Unavailable),
        ("id-4".into(), Code::ResourceExhausted),
    ];
    cluster.nodes[1].record().refused_once = refused.into();
    let client = cluster.client().await;
    let began = Instant::now();
    assert!(answers(&client, 8).await.iter().all(Result::is_ok));
    assert!(began.elapsed() >= RETRY_AFTER, "it came back too early");
    for number in 0..8 {
        let times = if [1, 4].contains(&number) { 2 } else { 1 };
        assert_eq!(times_sent(&cluster, &format!("id-{number}")), times);
    }
}

#[tokio::test]
async fn what_a_broken_call_left_open_is_tried_again_under_the_same_id() {
    let cluster = StubCluster::start().await;
    cluster.nodes[0].script([Act::Fail(Status::unavailable("stops"))]);
    let client = cluster.client().await;
    assert!(answers(&client, 100).await.iter().all(Result::is_ok));
    assert_eq!(times_sent(&cluster, "id-0"), 2);
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_given_up() {
    let cluster = StubCluster::start().await;
    cluster.nodes[0].script([Act::Hang]);
    let client = cluster.builder().attempt_timeout(SHORT);
    let client = client.connect().await.expect("the stubs are up");
    assert!(answers(&client, 100).await.iter().all(Result::is_ok));
    assert_eq!(times_sent(&cluster, "id-0"), 2);
}

#[tokio::test]
async fn a_refusal_is_the_answer_of_its_request_alone() {
    let cluster = StubCluster::start().await;
    cluster.nodes[1].record().refused_once = vec![("id-1".into(), Code::PermissionDenied)];
    let client = cluster.client().await;
    let answers = answers(&client, 8).await;
    let codes = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(Error::code));
    let denied = |number| (number == 1).then_some(Code::PermissionDenied);
    assert!(codes.eq((0..8).map(denied)));
    assert_eq!(times_sent(&cluster, "id-1"), 1);
}
