//! More connections than a node has descriptors or room for: whoever has work to do is served all
//! the same.

use std::error::Error;
use std::time::Duration;

use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use tests::cluster::{Cluster, NODES, Options};
use tests::crowd::{Crowd, addresses, raise_descriptors, ticks};
use tests::operator::SETTLED_WITHIN;
use tests::programs;
use tests::stock::{fresh_location, held, receive, reserve};
use tests::wait::{finish, until};

/// More than all listeners of a node with 256 descriptors have room for, on each of its ports.
const CROWD: usize = 360;

/// A call beside a crowd.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// From the last of a crowd until the node has nothing to do.
const QUIET_WITHIN: Duration = Duration::from_secs(20);

/// A node is watched for so long...
const WATCHED_FOR: Duration = Duration::from_millis(1_000);
/// ...and is quiet with so many ticks of a hundred: raft's own clock is a few.
const QUIET_TICKS_MAX: u64 = 40;

/// A node may say so much about a crowd, however long that stays.
const LOG_BYTES_MAX: usize = 512 * 1024;

/// Reserves on connections of their own, beside the crowd.
const CALLS: usize = 20;

#[tokio::test]
async fn a_node_without_descriptors_for_all_serves_those_who_call_and_rests_beside_the_others() {
    let cluster = Cluster::start(Options {
        shards: 1,
        descriptors: Some("-n 256"),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    receive(&client, "beside-a-crowd", &location, 1_000).await;
    let node = cluster.leader_of(0).await;

    let from = addresses(1);
    let ports = [
        cluster.address(node),
        cluster.peers_address(node),
        cluster.metrics_address(node),
    ];
    let mut crowds = Vec::new();
    for port in &ports {
        let before = cluster.log(node).len();
        crowds.push(Crowd::gather(port, &from, CROWD).await);
        for _ in 0..CALLS {
            // A new connection each: it has to be let in.
            let mut stub = ReservationServiceClient::new(cluster.channel(node));
            let call = stub.reserve(reserve("beside-a-crowd", &location, 1));
            let answer = finish("a call beside a crowd", ANSWERED_WITHIN, call).await;
            held(answer.unwrap().into_inner());
        }
        let page = cluster.page(node, "/metrics");
        let page = finish("metrics beside a crowd", ANSWERED_WITHIN, page).await;
        assert!(page.contains("stockd_ready"), "{page}");
        until("a node that rests", QUIET_WITHIN, async || {
            let began = ticks(cluster.process_id(node));
            tokio::time::sleep(WATCHED_FOR).await;
            let used = ticks(cluster.process_id(node)) - began;
            (used <= QUIET_TICKS_MAX)
                .then_some(())
                .ok_or(format!("{used} ticks"))
        })
        .await;
        let logged = cluster.log(node).len() - before;
        assert!(logged < LOG_BYTES_MAX, "{logged} bytes of log");
    }
    assert!(crowds.iter().all(|crowd| !crowd.is_empty()));
    assert_eq!(cluster.running(), NODES, "all nodes run");
}

/// What a client says first, a byte at a time.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Idle connections to each port of one node, and slow ones to the one for clients.
const IDLE: [usize; 3] = [8_000, 1_500, 500];
const SLOW: usize = 1_000;

/// And what this process has open besides.
const DESCRIPTORS_MIN: u64 = 12_000;

/// Of some thousand connections, so many may have looked slow while this process did not run.
const ANEW_MAX: usize = 3;

#[tokio::test]
async fn ten_thousand_idle_and_a_thousand_slow_connections_cost_the_checkout_no_call() {
    let descriptors = raise_descriptors();
    if descriptors < DESCRIPTORS_MIN {
        eprintln!("SKIPPED: {descriptors} descriptors are too few for ten thousand connections");
        return;
    }
    let _no_compilers = programs::MUCH_WORK.lock().await;
    let cluster = Cluster::start(Options {
        shards: 1,
        // As many systems have it: the hard limit stays as it is.
        descriptors: Some("-S -n 1024"),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    receive(&client, "beside-a-mob", &location, 1_000_000).await;
    let node = cluster.leader_of(0).await;
    let from = addresses(12);

    let (over, mut is_over) = tokio::sync::oneshot::channel::<()>();
    let mob = async {
        let ports = [
            cluster.address(node),
            cluster.peers_address(node),
            cluster.metrics_address(node),
        ];
        let mut idle = Vec::new();
        for (port, count) in ports.iter().zip(IDLE) {
            idle.push(Crowd::gather(port, &from, count).await);
        }
        let mut slow = Crowd::gather(&ports[0], &from, SLOW).await;
        for number in 0..PREFACE.len() - 1 {
            slow.dribble(PREFACE, number);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        over.send(()).unwrap();
        idle
    };
    let checkout = async {
        let (mut calls, mut anew) = (0, 0);
        while is_over.try_recv().is_err() {
            let request = reserve("beside-a-mob", &location, 1);
            let channel = cluster.channel(node);
            let known = client.reserve(request.clone());
            let known = finish("a call of a known client", ANSWERED_WITHIN, known).await;
            held(known.unwrap());
            let asked = reserve("beside-a-mob", &location, 1);
            let new = async || {
                let mut stub = ReservationServiceClient::new(channel.clone());
                let new = stub.reserve(asked.clone());
                finish("a call of a new client", ANSWERED_WITHIN, new).await
            };
            // Where this process has no processor for a while, its connection looks as slow as
            // those of the mob and may give way to a newer one. It is made anew, as by every
            // library of gRPC.
            let answer = match new().await {
                Err(status) if Error::source(&status).is_some() => {
                    anew += 1;
                    new().await
                }
                answer => answer,
            };
            held(answer.unwrap().into_inner());
            calls += 2;
        }
        (calls, anew)
    };
    let (idle, (calls, anew)) = tokio::join!(mob, checkout);
    assert!(
        anew <= ANEW_MAX,
        "{anew} connections of {calls} calls gave way"
    );
    eprintln!(
        "{calls} calls, {anew} connected anew, beside {idle:?}",
        idle = idle.iter().map(Crowd::len).collect::<Vec<_>>()
    );
    assert_eq!(cluster.running(), NODES, "all nodes run");
}

#[tokio::test]
async fn the_port_for_metrics_has_its_pages_and_no_others() {
    let cluster = Cluster::shared().await;
    until("a node that is ready", SETTLED_WITHIN, async || {
        let page = cluster.page(NODES[0], "/ready").await;
        page.contains("200 OK").then_some(()).ok_or(page)
    })
    .await;
    for (path, status) in [
        ("/metrics", "200"),
        ("/live", "200"),
        ("/health", "404"),
        ("/", "404"),
        ("/metrics/more", "404"),
        ("/ready-or-not", "404"),
    ] {
        let page = cluster.page(NODES[0], path).await;
        let head = page.lines().next().unwrap_or_default();
        assert!(head.contains(status), "{path}: {head}");
    }
}
