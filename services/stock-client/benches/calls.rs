//! What a call through the client costs beside one through the generated stub, and what its metrics
//! and spans add. The node is one that answers at once, in this process: all that differs is the
//! client. `cargo bench -p stock-client`
#![expect(clippy::print_stdout, reason = "a benchmark says what it measured")]

#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/client/stub/mod.rs"]
mod stub;

use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use stock_client::Client;
use stock_client::v1::reservation_service_client::ReservationServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::stub::{StubCluster, reserve_in};

/// The ways are taken in turns, so that whatever else the machine does meets all of them.
const ROUNDS: usize = 40;
const CALLS_PER_ROUND: u32 = 500;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
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
