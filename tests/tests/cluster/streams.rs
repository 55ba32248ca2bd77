//! Many reserves over one call: each is decided by itself, exactly once, whatever happens to nodes
//! meanwhile.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use stock_client::Error;
use stock_proto::stock::lab::v1::EchoStreamRequest;
use stock_proto::stock::lab::v1::echo_service_client::EchoServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_stream_result::Result as Slot;
use stock_proto::stock::v1::{
    ReserveRequest, ReserveResponse, ReserveStreamRequest, ReserveStreamResult,
};
use tests::cluster::{Cluster, NODES, Options, STOP_WITHIN, others};
use tests::names::{fresh, request_id, sku_in};
use tests::stock::{fresh_location, held, outcome, position, receive, reserve};
use tests::wait::{finish, until};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::{RpcStatusExt, StatusExt};

/// Thousands of answers over loopback, on a machine that does other things.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// The results by number, and how the call ended.
async fn call(
    node: Channel,
    messages: impl Stream<Item = ReserveStreamRequest> + Send + 'static,
) -> (Vec<ReserveStreamResult>, Result<(), Status>) {
    let mut stub = ReservationServiceClient::new(node);
    let all = async {
        let mut answers = stub.reserve_stream(messages).await.unwrap().into_inner();
        let mut results = Vec::new();
        let end = loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    assert_eq!(answer.overload, None, "too much for this test");
                    results.extend(answer.results);
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        results.sort_by_key(|result| result.number);
        (results, end)
    };
    finish("a stream of reserves", ANSWERED_WITHIN, all).await
}

fn messages(requests: &[ReserveRequest], of: usize) -> Vec<ReserveStreamRequest> {
    let messages = requests.chunks(of).map(ReserveStreamRequest::of);
    messages.collect()
}

fn response(result: ReserveStreamResult) -> ReserveResponse {
    match result.result {
        Some(Slot::Response(response)) => response,
        other => panic!("no answer: {other:?}"),
    }
}

fn reason(result: &ReserveStreamResult) -> (i32, String, Option<String>) {
    let Some(Slot::Error(error)) = &result.result else {
        panic!("no error: {result:?}");
    };
    let details = error.get_error_details();
    let info = details.error_info().expect("every error has a reason");
    let violation = details
        .bad_request()
        .and_then(|bad| bad.field_violations.first());
    let field = violation.map(|violation| violation.field.clone());
    (error.code, info.reason.clone(), field)
}

#[tokio::test]
async fn every_request_is_decided_once_and_no_unit_is_sold_twice() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..20).map(|_| fresh("stream")).collect();
    for sku in &skus {
        receive(&client, sku, &location, 100).await;
    }
    // One in one message, a few, many; at each node.
    for (of, node) in [1, 7, 1_000].into_iter().zip(NODES) {
        let before = position(&client, &skus[0], &location)
            .await
            .unwrap()
            .reserved;
        let requests: Vec<ReserveRequest> = (0..3_000)
            .map(|number| reserve(&skus[number % skus.len()], &location, 1))
            .collect();
        let (results, end) =
            call(cluster.channel(node), stream::iter(messages(&requests, of))).await;
        end.unwrap();
        assert!(results.iter().map(|result| result.number).eq(0..3_000));
        let outcomes = results.into_iter().map(|result| outcome(response(result)));
        let held = outcomes.filter(Result::is_ok).count() as i64;
        assert_eq!(held, (100 - before) * skus.len() as i64);
        for sku in &skus {
            let left = position(&client, sku, &location).await.unwrap();
            assert_eq!((left.reserved, left.available), (100, 0));
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_its_answer_and_the_others_go_on() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("stream"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let good = reserve(&sku, &location, 1);
    let requests = [
        good.clone(),
        ReserveRequest {
            request_id: "7".into(),
            ..good.clone()
        },
        reserve(&sku, &location, 0),
        reserve(&sku, &fresh("nowhere"), 1),
        reserve(&fresh("unknown"), &location, 1),
        // The same again, and the id with another payload.
        good.clone(),
        ReserveRequest {
            request_id: good.request_id.clone(),
            ..reserve(&sku, &location, 2)
        },
        reserve(&sku, &location, 1),
    ];
    for of in [1, requests.len()] {
        let (mut results, end) =
            call(cluster.channel(1), stream::iter(messages(&requests, of))).await;
        end.unwrap();
        assert!(results.iter().map(|result| result.number).eq(0..8));
        let last = held(response(results.remove(7)));
        let repeated = held(response(results.remove(5)));
        let first = held(response(results.remove(0)));
        assert_eq!(first.reservation_id, repeated.reservation_id);
        assert_ne!(first.reservation_id, last.reservation_id);
        let invalid = Code::InvalidArgument as i32;
        let said: Vec<_> = results.iter().map(reason).collect();
        let said: Vec<_> = said
            .iter()
            .map(|(code, reason, field)| (*code, reason.as_str(), field.as_deref()))
            .collect();
        assert_eq!(
            said,
            [
                (invalid, "FIELD_INVALID", Some("request_id")),
                (invalid, "FIELD_INVALID", Some("lines[0].quantity")),
                (
                    Code::NotFound as i32,
                    "UNKNOWN_LOCATION",
                    Some("lines[0].location")
                ),
                (Code::NotFound as i32, "UNKNOWN_SKU", Some("lines[0].sku")),
                (
                    Code::AlreadyExists as i32,
                    "REQUEST_REUSED",
                    Some("request_id")
                ),
            ]
        );
    }
}

#[tokio::test]
async fn a_request_that_is_malformed_is_refused_and_those_beside_it_are_carried_out() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("stream"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let good = || reserve(&sku, &location, 1);
    let mut message = ReserveStreamRequest::of(&[good(), good(), good(), good()]);
    let half = message.requests[1].len() / 2;
    message.requests[1].truncate(half);
    message.requests[2] = Bytes::from_static(&[0xff; 20]);
    let (results, end) = call(cluster.channel(1), stream::iter([message])).await;
    end.unwrap();
    assert!(results.iter().map(|result| result.number).eq(0..4));
    for malformed in &results[1..3] {
        let (code, reason, _) = reason(malformed);
        let expected = (Code::InvalidArgument as i32, "MESSAGE_MALFORMED");
        assert_eq!((code, reason.as_str()), expected);
    }
    held(response(results[0].clone()));
    held(response(results[3].clone()));
    let left = position(&client, &sku, &location).await.unwrap();
    assert_eq!(left.reserved, 2);
}

#[tokio::test]
async fn requests_that_fail_inside_a_stream_are_counted_each_by_itself() {
    // More than all other tests together that use the cluster at the same time.
    const FAILING: u64 = 300;
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let count = async || {
        let labels = ["call=\"ReserveStream\"", "code=\"NotFound\""];
        let counted = cluster.counted(1, "stockd_call_errors_total", &labels);
        counted.await
    };
    let before = count().await;
    let unknown: Vec<_> = (0..FAILING)
        .map(|_| reserve(&fresh("unknown"), &location, 1))
        .collect();
    let (results, end) = call(cluster.channel(1), stream::iter(messages(&unknown, 50))).await;
    end.unwrap();
    assert_eq!(results.len() as u64, FAILING);
    until("each is counted", ANSWERED_WITHIN, async || {
        match count().await - before {
            more if more >= FAILING => Ok(()),
            more => Err(format!("{more} more")),
        }
    })
    .await;
    let more = count().await - before;
    assert!(more < 2 * FAILING, "{more}: some were counted twice");
}

#[tokio::test]
async fn a_message_of_nothing_or_of_too_much_ends_the_call_after_the_answers() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("stream"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    for size in [0, 1_001] {
        let one = reserve(&sku, &location, 1);
        let bad = ReserveStreamRequest::of(&vec![one.clone(); size]);
        let never_read = messages(&[reserve(&sku, &location, 1)], 1);
        let all = messages(&[one], 1)
            .into_iter()
            .chain([bad])
            .chain(never_read);
        let (results, end) = call(cluster.channel(1), stream::iter(all)).await;
        assert_eq!(results.len(), 1);
        let status = end.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(&size.to_string()), "{status}");
    }
    let left = position(&client, &sku, &location).await.unwrap();
    assert_eq!(left.reserved, 2);
}

#[tokio::test]
async fn an_echo_of_a_stream_is_what_was_sent() {
    let cluster = Cluster::shared().await;
    let mut stub = EchoServiceClient::new(cluster.channel(NODES[0]));
    let messages: Vec<EchoStreamRequest> = [0, 1, 300]
        .map(|count| EchoStreamRequest {
            payloads: (0..count).map(|n| vec![n as u8; n].into()).collect(),
        })
        .into();
    let answers = stub.echo_stream(stream::iter(messages.clone())).await;
    let answers = finish(
        "an echo",
        ANSWERED_WITHIN,
        answers.unwrap().into_inner().collect(),
    );
    let answers: Vec<_> = answers.await;
    let payloads = |sent: EchoStreamRequest| sent.payloads;
    let sent = messages.into_iter().map(payloads);
    assert!(sent.eq(answers.into_iter().map(|answer| answer.unwrap().payloads)));
}

#[tokio::test]
async fn a_location_that_nobody_can_be_asked_about_is_not_called_unknown() {
    let cluster = Cluster::start(Options::default()).await;
    let node = NODES[0];
    others(node).iter().for_each(|other| cluster.pause(*other));
    let asked = [reserve(&fresh("stream"), &fresh("new"), 1)];
    let (results, end) = call(cluster.channel(node), stream::iter(messages(&asked, 1))).await;
    end.unwrap();
    others(node).iter().for_each(|other| cluster.resume(*other));
    let codes: Vec<i32> = results.iter().map(|result| reason(result).0).collect();
    assert_eq!(codes, [Code::Unavailable as i32]);
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_has_read_and_ends_the_call() {
    let cluster = Cluster::start(Options::default()).await;
    let client = cluster.client().await;
    let (sku, location) = (
        sku_in(0, cluster.shards(), "stream"),
        fresh_location(&client).await,
    );
    receive(&client, &sku, &location, 1_000_000).await;
    let node = cluster.leader_of(0).await;
    let (sender, receiver) = mpsc::unbounded_channel();
    let messages = stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    });
    let call = tokio::spawn(call(cluster.channel(node), messages));
    let mut sent = 0;
    while !sender.is_closed() {
        if sent == 100 {
            cluster.terminate(node);
        }
        let requests = [reserve(&sku, &location, 1)];
        let _ = sender.send(ReserveStreamRequest::of(&requests));
        sent += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (results, end) = call.await.unwrap();
    let status = end.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has a reason");
    assert_eq!(info.reason, "STOPPING");
    assert!(results.len() >= 90, "{} of {sent}", results.len());
    let stopped = until("the end of a node", STOP_WITHIN, async || {
        cluster.ended(node).ok_or("it runs".to_owned())
    });
    assert!(stopped.await.success());
    // What was answered with a reservation is held, and nothing else is.
    let answered = results.into_iter().filter(|result| {
        matches!(&result.result, Some(Slot::Response(answer)) if outcome(answer.clone()).is_ok())
    });
    let left = position(&client, &sku, &location).await.unwrap();
    assert_eq!(left.reserved, answered.count() as i64);
}

#[tokio::test]
async fn with_the_client_no_request_fails_though_nodes_are_killed() {
    const REQUESTS: usize = 30_000;
    let cluster = Cluster::start(Options::default()).await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..cluster.shards())
        .map(|shard| sku_in(shard, cluster.shards(), "stream"))
        .collect();
    for sku in &skus {
        receive(&client, sku, &location, 1_000_000).await;
    }
    let requests = (0..REQUESTS).map({
        let (skus, location) = (skus.clone(), location.clone());
        move |number| ReserveRequest {
            request_id: request_id(),
            ..reserve(&skus[number % skus.len()], &location, 1)
        }
    });
    let mut answers = client.reserve_stream(stream::iter(requests));
    let all = async {
        let mut seen = vec![false; REQUESTS];
        let mut answered = 0;
        while let Some((number, answer)) = answers.next().await {
            let answer: Result<ReserveResponse, Error> = answer;
            held(answer.unwrap_or_else(|error| panic!("request {number}: {error}")));
            assert!(
                !std::mem::replace(&mut seen[number as usize], true),
                "{number} twice"
            );
            answered += 1;
            for (node, at) in NODES.into_iter().zip([5_000, 15_000, 25_000]) {
                if answered == at {
                    cluster.kill(node);
                    cluster.restart(node);
                }
            }
        }
        assert_eq!(answered, REQUESTS);
    };
    finish("a stream over three kills", 2 * ANSWERED_WITHIN, all).await;
    for sku in &skus {
        let position = position(&client, sku, &location).await.unwrap();
        assert_eq!(position.reserved, (REQUESTS / skus.len()) as i64, "{sku}");
    }
}
