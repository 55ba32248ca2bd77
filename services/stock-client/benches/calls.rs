//! What a call through the client costs beside one through the generated stub, and what its metrics
//! and spans add. The node is one that answers at once, in this process: all that differs is the
//! client. And what memory two thousand tasks take that wait for their calls, the node being
//! another process. `cargo bench -p stock-client`
#![expect(clippy::print_stdout, reason = "a benchmark says what it measured")]

#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/client/stub/mod.rs"]
mod stub;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use stock_client::Client;
use stock_client::v1::reservation_service_client::ReservationServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::stub::{Act, StubCluster, reserve_in};

/// The ways are taken in turns, so that whatever else the machine does meets all of them.
const ROUNDS: usize = 40;
const CALLS_PER_ROUND: u32 = 500;

/// Tasks that wait at the same time.
const TASKS: usize = 2_000;
/// Long enough that all calls are on their way, and short enough that none is given up.
const WAITED: Duration = Duration::from_millis(700);
/// In the environment of the process that is the node.
const SERVES: &str = "STOCKD_BENCH_SERVES";
/// And in that of one whose calls wait.
const WAITS: &str = "STOCKD_BENCH_WAITS";
const PLAIN: &str = "plain";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if std::env::var_os(SERVES).is_some() {
        runtime.block_on(hang());
        return;
    }
    if let Ok(way) = std::env::var(WAITS) {
        println!("{}", waiting_bytes(way == PLAIN) / TASKS);
        return;
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let cluster = runtime.block_on(StubCluster::start());
    let client = runtime.block_on(cluster.client());
    let endpoint = cluster.nodes[0].endpoint.clone();
    let plain = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(endpoint).expect("an endpoint");
        endpoint.tcp_nodelay(true).connect_lazy()
    });
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(runtime.block_on(stub_calls(&plain)));
        times[1].push(runtime.block_on(client_calls(&client)));
        times[2].push(metrics::with_local_recorder(&recorder, || {
            runtime.block_on(client_calls(&client))
        }));
        for node in &cluster.nodes {
            node.record().request_ids.clear();
        }
    }
    let names = [
        "the generated stub",
        "the client",
        "the client, with metrics",
    ];
    let mut first = None;
    for (name, times) in names.into_iter().zip(&mut times) {
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64() * 1e6 / f64::from(CALLS_PER_ROUND);
        let more = median - *first.get_or_insert(median);
        println!("{name:<26} {median:6.1} us a call  {more:+5.1} us");
    }
    // Each in a process of its own: what one has freed, another would use again.
    let this = std::env::current_exe().expect("the benchmark");
    for (name, way) in [("the generated stub", PLAIN), ("the client", "client")] {
        let told = Command::new(&this).env(WAITS, way).output();
        let told = told.expect("a process that waits").stdout;
        let bytes = String::from_utf8_lossy(&told).trim().to_owned();
        println!("{name:<26} {bytes:>6} bytes for each of {TASKS} calls that wait");
    }
}

/// A node that never answers a reserve, until its input ends.
async fn hang() {
    let cluster = StubCluster::start().await;
    cluster.set_leaders(2, |_| 1);
    cluster.nodes[0].script(std::iter::repeat_n(Act::Hang, 2 * TASKS));
    println!("{}", cluster.nodes[0].endpoint);
    std::future::pending::<()>().await;
}

/// How much this process grows by calls that wait.
fn waiting_bytes(is_plain: bool) -> usize {
    let this = std::env::current_exe().expect("the benchmark");
    let mut node = Command::new(this)
        .env(SERVES, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a node");
    let mut endpoint = String::new();
    let told = node.stdout.take().expect("its output");
    BufReader::new(told)
        .read_line(&mut endpoint)
        .expect("its endpoint");
    let endpoint = endpoint.trim().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let bytes = runtime.block_on(async {
        let client = Client::connect(&endpoint).await.expect("a client");
        let endpoint = Endpoint::from_shared(endpoint).expect("an endpoint");
        let channel = endpoint.connect().await.expect("a channel");
        let before = resident_bytes();
        let tasks = (0..TASKS).map(|_| {
            let (client, channel) = (client.clone(), channel.clone());
            tokio::spawn(async move {
                let request = reserve_in(0);
                match is_plain {
                    true => {
                        let mut stub = ReservationServiceClient::new(channel);
                        let _ = stub.reserve(request).await;
                    }
                    false => {
                        let _ = client.reserve(request).await;
                    }
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        tokio::time::sleep(WAITED).await;
        let bytes = resident_bytes() - before;
        for task in &tasks {
            assert!(!task.is_finished(), "a call did not wait");
            task.abort();
        }
        join_all(tasks).await;
        bytes
    });
    node.kill().expect("it is killed");
    node.wait().expect("it is gone");
    bytes
}

/// Memory of this process.
fn resident_bytes() -> usize {
    const PAGE: usize = 4_096;
    let told = std::fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    let pages = told
        .split_whitespace()
        .nth(1)
        .and_then(|it| it.parse::<usize>().ok());
    pages.expect("a number of pages") * PAGE
}

async fn stub_calls(channel: &Channel) -> Duration {
    let mut stub = ReservationServiceClient::new(channel.clone());
    let began = Instant::now();
    for _ in 0..CALLS_PER_ROUND {
        let mut request = reserve_in(0);
        request.request_id = stock_client::new_request_id();
        stub.reserve(request).await.expect("held");
    }
    began.elapsed()
}

async fn client_calls(client: &Client) -> Duration {
    let began = Instant::now();
    for _ in 0..CALLS_PER_ROUND {
        client.reserve(reserve_in(0)).await.expect("held");
    }
    began.elapsed()
}
