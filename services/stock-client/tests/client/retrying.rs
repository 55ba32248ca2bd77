//! What is tried again, with which id, for how long.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use stock_client::admin::v1::DrainNodeRequest;
use stock_client::v1::GetReservationRequest;
use stock_client::{Client, Error};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::stub::{Act, SHORT, StubCluster, answered_by, reserve_in, until};

fn unavailable() -> Act {
    Act::Fail(Status::unavailable("no leader"))
}

#[tokio::test]
async fn every_retry_repeats_the_id_of_the_first_attempt() {
    let cluster = StubCluster::start().await;
    for node in &cluster.nodes {
        node.script([unavailable(), unavailable()]);
    }
    let client = cluster.client().await;

    client
        .reserve(reserve_in(1))
        .await
        .expect("answered in the end");

    let ids: Vec<String> = cluster.request_ids().concat();
    assert!(ids.len() > 3, "{} attempts", ids.len());
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1);
    let id = uuid::Uuid::try_parse(&ids[0]).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
}

#[tokio::test]
async fn a_drain_is_asked_of_the_meta_leader_under_one_id() {
    let cluster = StubCluster::start().await;
    cluster.nodes[0].script([unavailable()]);
    let client = cluster.client().await;
    let request = DrainNodeRequest {
        node_id: 3,
        ..DrainNodeRequest::default()
    };
    client.drain_node(request).await.expect("answered");
    let by_node = cluster.request_ids();
    assert_eq!(
        by_node[0].len(),
        1,
        "the leader is asked first: {by_node:?}"
    );
    let ids = by_node.concat();
    assert_eq!(ids.len(), 2, "{by_node:?}");
    assert_eq!(ids[0], ids[1]);
    assert!(!ids[0].is_empty());
}

#[tokio::test]
async fn the_callers_id_is_kept() {
    let cluster = StubCluster::start().await;
    cluster.nodes[1].script([unavailable()]);
    let client = cluster.client().await;
    let mut request = reserve_in(1);
    request.request_id = "mine".into();
    client.reserve(request).await.expect("answered");
    assert_eq!(cluster.request_ids().concat(), ["mine", "mine"]);
}

#[tokio::test]
async fn overload_waits_as_long_as_the_leader_asks() {
    let cluster = StubCluster::start().await;
    let delay = Duration::from_millis(120);
    let busy = Status::with_error_details(
        Code::ResourceExhausted,
        "busy",
        ErrorDetails::with_retry_info(Some(delay)),
    );
    cluster.nodes[1].script([Act::Fail(busy)]);
    let client = cluster.client().await;

    let began = Instant::now();
    let answer = client.reserve(reserve_in(1)).await.expect("answered");

    assert!(began.elapsed() >= delay);
    assert_eq!(
        answered_by(&answer.header),
        2,
        "the leader itself is asked again"
    );
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_its_details() {
    let cluster = StubCluster::start().await;
    let mut details = ErrorDetails::with_error_info("QUANTITY_INVALID", "stockd", []);
    details.add_bad_request_violation("lines[0].quantity", "must be at least 1");
    let refusal = Status::with_error_details(Code::InvalidArgument, "refused", details);
    let no_hint = Status::with_error_details(
        Code::ResourceExhausted,
        "full, and waiting will not help",
        ErrorDetails::with_error_info("REQUEST_MEMORY_FULL", "stockd", []),
    );
    cluster.nodes[1].script([Act::Fail(refusal), Act::Fail(no_hint)]);
    let client = cluster.client().await;

    let error = client.reserve(reserve_in(1)).await.expect_err("refused");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.reason_text(), "QUANTITY_INVALID");
    let status = error.status().expect("a node said so");
    assert_eq!(status.field_violations[0].field, "lines[0].quantity");
    assert_eq!(error.request_ids(), cluster.request_ids().concat());

    let error = client.reserve(reserve_in(1)).await.expect_err("refused");
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(cluster.request_ids().concat().len(), 2);
}

#[tokio::test]
async fn the_calls_timeout_bounds_the_retries() {
    let cluster = StubCluster::start().await;
    for node in &cluster.nodes {
        node.script(std::iter::repeat_n(unavailable(), 100));
    }
    let limit = Duration::from_millis(400);
    let client = cluster.builder().call_timeout(limit);
    let client = client.connect().await.expect("the stubs are up");

    let began = Instant::now();
    let error = client
        .reserve(reserve_in(0))
        .await
        .expect_err("nobody answers");

    assert!(began.elapsed() <= limit + SHORT);
    let id = error.request_ids().to_vec();
    let Error::Timeout { attempts, last, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(id.len(), 1, "the id that the client has made");
    let sent = cluster.request_ids().concat();
    assert!(sent.iter().all(|sent| *sent == id[0]), "{sent:?}, {id:?}");
    assert!((4..=12).contains(&attempts), "{attempts} attempts");
    assert_eq!(last.expect("there were some").code, Code::Unavailable);
}

#[tokio::test]
async fn a_silent_leader_costs_one_attempt_and_is_then_tried_last() {
    let cluster = StubCluster::start().await;
    cluster.nodes[1].script(std::iter::repeat_n(Act::Hang, 10));
    let client = cluster.builder().attempt_timeout(SHORT);
    let client = client.connect().await.expect("the stubs are up");

    let began = Instant::now();
    let answer = client.reserve(reserve_in(1)).await.expect("answered");
    assert!(began.elapsed() >= SHORT);
    assert_ne!(answered_by(&answer.header), 2);

    let began = Instant::now();
    let answer = client.reserve(reserve_in(1)).await.expect("answered");
    assert!(
        began.elapsed() < SHORT,
        "the silent node is not asked again"
    );
    assert_ne!(answered_by(&answer.header), 2);
}

#[tokio::test]
async fn a_caller_in_a_hurry_does_not_discredit_the_node() {
    let cluster = StubCluster::start().await;
    cluster.nodes[1].script([Act::Hang]);
    let hurried = cluster.builder().call_timeout(Duration::from_millis(30));
    let hurried = hurried.connect().await.expect("the stubs are up");
    let error = hurried.reserve(reserve_in(1)).await.expect_err("too slow");
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    // It is probed, and answers.
    until(|| async {
        let answer = hurried.reserve(reserve_in(1)).await.expect("answered");
        answered_by(&answer.header) == 2
    })
    .await;
}

#[tokio::test]
async fn a_killed_leader_fails_no_call() {
    let mut cluster = StubCluster::start().await;
    let client = cluster.client().await;
    client.reserve(reserve_in(1)).await.expect("connected");
    // One call is under way when the connection breaks.
    cluster.nodes[1].script([Act::Hang]);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.reserve(reserve_in(1)).await }
    });
    while cluster.nodes[1].record().request_ids.len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = cluster.topology_calls();
    cluster.kill(1).await;
    cluster.set_leaders(2, |_| 3);

    let answer = waiting
        .await
        .expect("no panic")
        .expect("answered by another");
    assert_ne!(answered_by(&answer.header), 2);
    for _ in 0..20 {
        let answer = client.reserve(reserve_in(1)).await.expect("answered");
        assert_ne!(answered_by(&answer.header), 2);
    }
    assert!(cluster.topology_calls() > before, "the client looked again");
    assert_eq!(client.topology().leader_of(1), Some(3));
    let answer = client.reserve(reserve_in(1)).await.expect("answered");
    assert_eq!(answered_by(&answer.header), 3, "straight to the new leader");
}

#[tokio::test]
async fn many_failures_look_at_the_topology_together() {
    let cluster = StubCluster::start().await;
    for node in &cluster.nodes {
        node.script(std::iter::repeat_n(unavailable(), 100));
    }
    let client = cluster.client().await;
    let before = cluster.topology_calls();
    let calls: Vec<_> = (0..200)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.reserve(reserve_in(number % 8)).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("answered in the end");
    }
    let looks = cluster.topology_calls() - before;
    assert!((1..=60).contains(&looks), "{looks} looks for 300 failures");
}

#[tokio::test]
async fn an_endpoint_is_checked_before_use() {
    for endpoint in [
        "",
        "https://127.0.0.1:1",
        "ftp://x",
        "http://",
        "http://a b",
    ] {
        let error = Client::connect(endpoint).await.expect_err(endpoint);
        assert!(matches!(error, Error::InvalidEndpoint { .. }), "{error:?}");
    }
    let none = Client::builder().connect().await.expect_err("no endpoint");
    assert!(matches!(none, Error::InvalidEndpoint { .. }), "{none:?}");
}

#[tokio::test]
async fn an_absent_cluster_is_said_to_be_absent() {
    let mut cluster = StubCluster::start().await;
    cluster.kill(0).await;
    let error = cluster.builder().connect().await.expect_err("nobody there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");

    let survivor = cluster.builder().endpoint(&cluster.nodes[2].endpoint);
    let client = survivor.connect().await.expect("one answers");
    for _ in 0..6 {
        let get = GetReservationRequest::default();
        client
            .get_reservation(get)
            .await
            .expect("the living answer");
    }
}
