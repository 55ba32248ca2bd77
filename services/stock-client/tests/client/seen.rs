//! What a program sees of its client, and what it may do itself: metrics, connections, metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use stock_client::{Client, Error};
use tonic::{Code, Status};

use crate::stub::{Act, SHORT, StubCluster, refusal, reserve_in};

#[test]
fn calls_and_attempts_are_counted_by_what_came_of_them() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let cluster = StubCluster::start().await;
            let client = cluster.client().await;
            for _ in 0..3 {
                client.reserve(reserve_in(0)).await.expect("held");
            }
            cluster.nodes[0].script([Act::Fail(refusal(Code::Unavailable, "nobody leads"))]);
            client.reserve(reserve_in(0)).await.expect("held");
            cluster.nodes[0].script([Act::Fail(refusal(Code::InvalidArgument, "no"))]);
            client.reserve(reserve_in(0)).await.expect_err("refused");
            cluster.nodes[0].script([Act::Hang]);
            let hurried = tokio::time::timeout(SHORT / 4, client.reserve(reserve_in(0)));
            hurried.await.expect_err("given up");
        });
    });
    let seen = recorder.handle().render();
    for line in [
        r#"stockd_client_calls_total{method="Reserve",outcome="ok"} 4"#,
        r#"stockd_client_calls_total{method="Reserve",outcome="invalid_argument"} 1"#,
        r#"stockd_client_calls_total{method="Reserve",outcome="cancelled"} 1"#,
        r#"stockd_client_attempts_total{outcome="ok"} 4"#,
        r#"stockd_client_attempts_total{outcome="unavailable"} 1"#,
        r#"stockd_client_attempts_total{outcome="refused"} 1"#,
        r#"stockd_client_call_duration_seconds_count{method="Reserve"} 4"#,
        "stockd_client_connects_total",
    ] {
        assert!(seen.contains(line), "{line} is not in\n{seen}");
    }
}

#[tokio::test]
async fn the_programs_interceptor_sees_each_attempt_and_may_refuse_it() {
    let cluster = StubCluster::start().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let client = cluster
        .builder()
        .interceptor(move |metadata| {
            assert_eq!(metadata.get("stockd-cluster").expect("named"), "stub");
            match count.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Ok(()),
                _ => Err(Status::unauthenticated("no token")),
            }
        })
        .connect()
        .await
        .expect("the stubs are up");
    cluster.nodes[0].script([Act::Fail(refusal(Code::Unavailable, "nobody leads"))]);
    client.reserve(reserve_in(0)).await.expect("held");
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    // It has the last word: nothing is sent, and nothing is tried again.
    let refused = client.reserve(reserve_in(0)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(seen.load(Ordering::Relaxed), 3);
    assert_eq!(cluster.request_ids().iter().map(Vec::len).sum::<usize>(), 2);
}

#[tokio::test]
async fn the_programs_connector_makes_all_connections() {
    let cluster = StubCluster::start().await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let client = cluster
        .builder()
        .connector(move |endpoint| {
            count.fetch_add(1, Ordering::Relaxed);
            endpoint.connect_lazy()
        })
        .connect()
        .await
        .expect("the stubs are up");
    for shard in 0..8 {
        client.reserve(reserve_in(shard)).await.expect("held");
    }
    assert!(made.load(Ordering::Relaxed) >= 3, "one to each node");
}

#[tokio::test]
async fn https_needs_a_connector_that_speaks_it() {
    let https = || Client::builder().endpoint("https://10.0.0.1:7401");
    let error = https().connect_lazy().expect_err("no TLS");
    assert!(matches!(error, Error::InvalidEndpoint { .. }), "{error}");
    assert!(error.to_string().contains("connector"), "{error}");
    https()
        .start_timeout(Duration::ZERO)
        .connector(|endpoint| endpoint.connect_lazy())
        .connect_lazy()
        .expect("TLS is the connector's");
}
