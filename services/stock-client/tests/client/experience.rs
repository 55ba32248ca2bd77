//! What the client has seen itself decides where its calls go. The figures in the names of what is
//! asserted are for a machine that does nothing else; the bounds leave room.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use stock_client::v1::{ErrorReason, GetReservationRequest, ReserveRequest};
use stock_client::{CallOptions, Client, Error, WhenFull, new_request_id};
use tokio::time::timeout;
use tonic::Code;
use uuid::Uuid;

use crate::gate::Gate;
use crate::stub::{Act, SHORT, StubCluster, answered_by, refusal, reserve_in, until};

/// No call of a client that has a node to ask takes as long, but for those that were under way when
/// another one fell silent, and even those are done by then.
const SOON: Duration = Duration::from_millis(1_000);

async fn gates(cluster: &StubCluster) -> Vec<Gate> {
    let mut gates = Vec::new();
    for node in &cluster.nodes {
        gates.push(Gate::before(&node.endpoint).await);
    }
    let endpoints: Vec<String> = gates.iter().map(|gate| gate.endpoint.clone()).collect();
    cluster.move_to(&endpoints);
    gates
}

async fn client_of(gates: &[Gate]) -> Client {
    let builder = Client::builder().endpoint(&gates[0].endpoint);
    builder.connect().await.expect("the stubs are up")
}

fn near() -> GetReservationRequest {
    GetReservationRequest::default()
}

/// Calls of every shard, so that there is a connection to each node.
async fn warm(client: &Client) {
    for shard in 0..8 {
        client.reserve(reserve_in(shard)).await.expect("held");
    }
}

#[tokio::test]
async fn a_silent_leader_holds_up_no_call_but_those_under_way() {
    let cluster = StubCluster::start().await;
    let gates = gates(&cluster).await;
    let client = client_of(&gates).await;
    warm(&client).await;
    gates[1].set_silent(true);
    // Node 3 leads by now, and says so.
    cluster.set_leaders(2, |_| 3);
    for _ in 0..200 {
        let began = Instant::now();
        client.reserve(reserve_in(1)).await.expect("held");
        client.get_reservation(near()).await.expect("found");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    let before = gates[1].connections();
    for _ in 0..200 {
        client.get_reservation(near()).await.expect("found");
    }
    assert!(gates[1].connections() <= before + 2, "probes, not calls");

    gates[1].set_silent(false);
    until(|| async {
        let answer = client.get_reservation(near()).await.expect("found");
        answered_by(&answer.header) == 2
    })
    .await;
}

#[tokio::test]
async fn connections_that_a_firewall_forgot_are_left_within_a_call() {
    let cluster = StubCluster::start().await;
    let gates = gates(&cluster).await;
    let client = client_of(&gates).await;
    warm(&client).await;
    for gate in &gates {
        gate.forget();
    }
    let began = Instant::now();
    let calls = (0..20).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { client.reserve(reserve_in(number % 8)).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic").expect("held");
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_hurried_caller_learns_from_the_calls_that_it_gave_up() {
    let cluster = StubCluster::start().await;
    let gates = gates(&cluster).await;
    let client = client_of(&gates).await;
    warm(&client).await;
    gates[1].set_silent(true);
    let mut given_up = 0;
    for _ in 0..50 {
        let call = client.reserve(reserve_in(1));
        given_up += usize::from(
            tokio::time::timeout(Duration::from_millis(25), call)
                .await
                .is_err(),
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(given_up < 12, "{given_up} of 50");
}

#[tokio::test]
async fn a_call_of_half_a_second_has_time_for_other_nodes() {
    let cluster = StubCluster::start().await;
    let gates = gates(&cluster).await;
    let client = client_of(&gates).await;
    warm(&client).await;
    let client = client.with(CallOptions::new().timeout(Duration::from_millis(500)));
    gates[1].set_silent(true);
    for _ in 0..60 {
        client
            .get_reservation(near())
            .await
            .expect("found by another node");
        client
            .reserve(reserve_in(1))
            .await
            .expect("sent on by another node");
    }
}

#[tokio::test]
async fn who_finds_only_another_cluster_is_told_so() {
    let other = StubCluster::named("other", 2).await;
    let builder = Client::builder()
        .endpoint(&other.nodes[0].endpoint)
        .cluster("shop")
        .start_timeout(SHORT);
    let error = builder.connect().await.map(drop).expect_err("another's");
    assert_eq!(error.reason(), ErrorReason::WrongCluster);
    let whose = "the node is of cluster other, and not of shop";
    assert!(error.to_string().ends_with(whose), "{error}");
}

#[tokio::test]
async fn a_client_of_one_cluster_never_asks_another() {
    let shop = StubCluster::start().await;
    let gates = gates(&shop).await;
    let other = StubCluster::named("other", 2).await;
    let builder = Client::builder()
        .endpoint(&gates[0].endpoint)
        .endpoint(&other.nodes[0].endpoint)
        .cluster("stub")
        .call_timeout(SHORT);
    let client = builder.connect().await.expect("one is up");
    client.reserve(reserve_in(0)).await.expect("held");
    for gate in &gates {
        gate.set_silent(true);
    }
    for _ in 0..5 {
        let error = client
            .reserve(reserve_in(0))
            .await
            .expect_err("all are dead");
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert!(error.is_retryable());
        let error = client
            .get_reservation(near())
            .await
            .expect_err("all are dead");
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
    assert!(
        other.request_ids().concat().is_empty(),
        "{:?}",
        other.request_ids()
    );
    for gate in &gates {
        gate.set_silent(false);
    }
    until(|| async { client.reserve(reserve_in(0)).await.is_ok() }).await;
}

#[tokio::test]
async fn a_cluster_founded_anew_is_believed_and_its_terms_are() {
    let cluster = StubCluster::start().await;
    cluster.set_leaders(900, |_| 1);
    let client = cluster.client().await;
    assert_eq!(client.topology().leader_of(0), Some(1));
    // The same name, another life, terms from the beginning.
    cluster.begin_life(2);
    cluster.set_leaders(1, |_| 3);
    until(|| async {
        client.reserve(reserve_in(0)).await.expect("held");
        client.topology().leader_of(0) == Some(3)
    })
    .await;
    // Whoever was left behind is not.
    cluster.nodes[0].begin_life(1);
    for _ in 0..20 {
        client.reserve(reserve_in(0)).await.expect("held");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.topology().leader_of(0), Some(3));
}

#[tokio::test]
async fn a_thousand_tasks_do_not_storm_a_cluster_that_is_down() {
    let cluster = StubCluster::start().await;
    let gates = gates(&cluster).await;
    let client = client_of(&gates).await;
    warm(&client).await;
    let before: usize = gates.iter().map(Gate::connections).sum();
    for gate in &gates {
        gate.set_silent(true);
    }
    let calls: Vec<_> = (0..1_000)
        .map(|number| {
            let client = client.with(CallOptions::new().timeout(Duration::from_secs(20)));
            tokio::spawn(async move { client.reserve(reserve_in(number % 8)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let connections = gates.iter().map(Gate::connections).sum::<usize>() - before;
    assert!(connections < 60, "{connections} connections in 3 s");
    for gate in &gates {
        gate.set_silent(false);
    }
    for call in calls {
        call.await.expect("no panic").expect("held in the end");
    }
}

#[tokio::test]
async fn thousands_of_calls_outlast_their_leader() {
    let mut cluster = StubCluster::start().await;
    let client = cluster.client().await;
    warm(&client).await;
    // More than there are repeats in the dark within their time.
    const CALLS: usize = 8_500;
    let client = client.with(CallOptions::new().timeout(Duration::from_secs(30)));
    cluster.nodes[1].script(std::iter::repeat_n(Act::Hang, CALLS));
    let calls = (0..CALLS).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.reserve(reserve_in(1)).await })
    });
    let calls: Vec<_> = calls.collect();
    until(|| async { cluster.nodes[1].record().script.len() < CALLS - 100 }).await;
    // For as long as an election takes nobody leads, and whoever is asked says so.
    let nobody_leads = refusal(Code::Unavailable, "nobody leads");
    for node in [0, 2] {
        let refusals = std::iter::repeat_n(Act::Fail(nobody_leads.clone()), 10 * CALLS);
        cluster.nodes[node].script(refusals);
    }
    cluster.kill(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for node in [0, 2] {
        cluster.nodes[node].record().script.clear();
    }
    let refused: usize = cluster.request_ids().iter().map(Vec::len).sum();
    assert!(refused < 3 * CALLS, "{refused} calls sent");
    cluster.set_leaders(2, |_| 3);
    for call in calls {
        call.await.expect("no panic").expect("held");
    }
}

#[tokio::test]
async fn ids_are_made_by_the_clusters_time() {
    const WRONG_BY: Duration = Duration::from_secs(3_600);
    let mut cluster = StubCluster::start().await;
    for time in [SystemTime::now() + WRONG_BY, SystemTime::now() - WRONG_BY] {
        cluster.time = Some(time);
        cluster.set_leaders(1, |_| 1);
        let client = cluster.client().await;
        let reserve = client.reserve(reserve_in(0)).await;
        reserve.expect("held");
        let made = cluster.request_ids().remove(0).pop().expect("one");
        for id in [client.new_request_id(), made] {
            let id = Uuid::parse_str(&id).expect("an id");
            let (seconds, nanos) = id.get_timestamp().expect("of version 7").to_unix();
            let made_at = UNIX_EPOCH + Duration::new(seconds, nanos);
            let distance = made_at
                .duration_since(time)
                .unwrap_or_else(|it| it.duration());
            assert!(distance < Duration::from_secs(60), "{distance:?}");
        }
    }
    // What is no time is not believed.
    for seconds in [i64::MAX, -1, 1 << 40] {
        let time = prost_types::Timestamp { seconds, nanos: 0 };
        cluster.nodes[0].tell_time(time);
        let client = cluster.client().await;
        let id = Uuid::parse_str(&client.new_request_id()).expect("an id");
        let (seconds, _) = id.get_timestamp().expect("of version 7").to_unix();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
        assert!(seconds.abs_diff(now.as_secs()) < 60);
    }
}

#[tokio::test]
async fn a_full_stream_outlasts_its_leader() {
    let mut cluster = StubCluster::start().await;
    let client = cluster.client().await;
    warm(&client).await;
    const REQUESTS: usize = 12_000;
    let ids: Vec<String> = (0..REQUESTS).map(|_| new_request_id()).collect();
    // Until somebody leads, whoever is asked says that nobody does.
    for node in [0, 2] {
        let refused = ids.iter().map(|id| (id.clone(), Code::Unavailable));
        cluster.nodes[node].record().refused_once.extend(refused);
    }
    let requests = ids.into_iter().map(|request_id| ReserveRequest {
        request_id,
        ..reserve_in(1)
    });
    let mut answers = client.reserve_stream(stream::iter(requests));
    let mut seen = vec![false; REQUESTS];
    let mut answered = 0;
    while answered < REQUESTS {
        if answered == REQUESTS / 4 {
            cluster.kill(1).await;
        }
        let Ok(answer) = timeout(2 * SHORT, answers.next()).await else {
            for node in &cluster.nodes {
                node.record().refused_once.clear();
            }
            cluster.set_leaders(2, |_| 3);
            continue;
        };
        let (number, answer) = answer.expect("one for each");
        answer.expect("held");
        assert!(!std::mem::replace(&mut seen[number as usize], true));
        answered += 1;
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_client_may_be_opened_before_its_cluster() {
    let mut cluster = StubCluster::start().await;
    for index in 0..3 {
        cluster.kill(index).await;
    }
    let builder = cluster.builder();
    let client = builder.connect_lazy().expect("nothing is asked yet");
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.reserve(reserve_in(5)).await }
    });
    tokio::time::sleep(SHORT).await;
    cluster.revive().await;
    let answer = waiting.await.expect("no panic").expect("held");
    assert_eq!(answered_by(&answer.header), 3, "by the leader");

    let began = Instant::now();
    let nobody = Client::builder().endpoint("http://127.0.0.1:1");
    let nobody = nobody.start_timeout(SHORT).connect().await;
    let error = nobody.expect_err("nobody is there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(began.elapsed() >= SHORT && began.elapsed() < SHORT + SOON);
}

#[test]
fn a_client_outlives_the_runtime_it_was_made_on() {
    let stubs = runtime();
    let cluster = stubs.block_on(StubCluster::start());
    let first = runtime();
    let client = first.block_on(async {
        let client = cluster.client().await;
        warm(&client).await;
        client
    });
    drop(first);
    let second = runtime();
    second.block_on(async {
        for shard in 0..8 {
            client.reserve(reserve_in(shard)).await.expect("held");
        }
    });
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
}

#[test]
fn calls_may_be_dropped_without_a_runtime_and_with_one_that_shuts_down() {
    let stubs = runtime();
    let (cluster, gates) = stubs.block_on(async {
        let cluster = StubCluster::start().await;
        let gates = gates(&cluster).await;
        (cluster, gates)
    });
    let first = runtime();
    let client = first.block_on(async {
        let client = client_of(&gates).await;
        warm(&client).await;
        client
    });
    for gate in &gates {
        gate.set_silent(true);
    }
    // One is dropped on a thread that knows no runtime, before anybody doubts the node; others are
    // under way when theirs shuts down.
    let patience = Duration::from_millis(30);
    let mut dropped = Box::pin(client.reserve(reserve_in(1)));
    first.block_on(async {
        let _ = tokio::time::timeout(patience, dropped.as_mut()).await;
    });
    drop(dropped);
    for number in 0..64 {
        let client = client.clone();
        first.spawn(async move { client.reserve(reserve_in(number % 8)).await });
    }
    std::thread::sleep(patience);
    drop(first);
    for gate in &gates {
        gate.set_silent(false);
    }
    let second = runtime();
    second.block_on(async {
        for shard in 0..8 {
            client.reserve(reserve_in(shard)).await.expect("held");
        }
    });
    drop(cluster);
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_or_fail() {
    let cluster = StubCluster::start().await;
    let builder = cluster.builder().calls_at_once(2, WhenFull::Fail);
    let client = builder.connect().await.expect("the stubs are up");
    for node in &cluster.nodes {
        node.script([crate::stub::Act::Hang, crate::stub::Act::Hang]);
    }
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.reserve(reserve_in(0)).await })
        })
        .collect();
    until(|| async { cluster.request_ids().concat().len() >= 2 }).await;
    let error = client
        .reserve(reserve_in(0))
        .await
        .expect_err("two are under way");
    assert!(matches!(error, Error::TooManyCalls { max: 2 }), "{error:?}");
    assert!(error.is_retryable() && !error.outcome_unknown());
    for call in waiting {
        call.abort();
    }
}

#[tokio::test]
async fn an_attempt_is_given_up_when_another_node_leads() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    warm(&client).await;
    cluster.nodes[1].script([crate::stub::Act::Hang]);
    let began = Instant::now();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.reserve(reserve_in(1)).await }
    });
    until(|| async { cluster.request_ids()[1].len() >= 4 }).await;
    cluster.set_leaders(2, |_| 3);
    // Another call has it look again.
    tokio::time::sleep(SHORT).await;
    client.reserve(reserve_in(0)).await.expect("held");
    let answer = waiting.await.expect("no panic").expect("held");
    assert_eq!(answered_by(&answer.header), 3);
    assert!(
        began.elapsed() < Duration::from_millis(1_900),
        "{:?}",
        began.elapsed()
    );
}
