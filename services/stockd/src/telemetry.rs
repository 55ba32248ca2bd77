//! Logs and metrics.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use stock_core::Counts;
use tracing_subscriber::EnvFilter;

/// From 50 microseconds, where an echo is, to 5 seconds, where a client has given up.
const SECONDS: &[f64] = &[
    50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 750e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3,
    1.0, 5.0,
];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs, one object a line.
    Json,
}

/// Begins to log to standard error. `filter` is as in `RUST_LOG`, which goes before it.
pub fn log_to_stderr(format: LogFormat, filter: &str) {
    // The log's engine warns of the space that every killed process leaves reserved, as if it were corrupt.
    let filter = format!("raft_engine=error,{filter}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second subscriber in one process (as in tests) is no reason to stop.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Begins to serve Prometheus over HTTP.
pub async fn serve_metrics(address: &str) -> Result<(), String> {
    let address = tokio::net::lookup_host(address)
        .await
        .map_err(|error| error.to_string())?
        .next()
        .ok_or("the name has no address")?;
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(Matcher::Suffix("seconds".to_owned()), SECONDS)
        .map_err(|error| error.to_string())?
        .install()
        .map_err(|error| error.to_string())
}

/// Reports how much the shards hold.
pub fn report_counts(counts: impl Iterator<Item = (u32, Counts)>) {
    let mut sum = Counts::default();
    for (_, shard) in counts {
        sum.skus += shard.skus;
        sum.positions += shard.positions;
        sum.open_reservations += shard.open_reservations;
        sum.ended_reservations += shard.ended_reservations;
        sum.requests_remembered += shard.requests_remembered;
    }
    metrics::gauge!("stockd_skus").set(sum.skus as f64);
    metrics::gauge!("stockd_positions").set(sum.positions as f64);
    metrics::gauge!("stockd_reservations_open").set(sum.open_reservations as f64);
    metrics::gauge!("stockd_reservations_ended").set(sum.ended_reservations as f64);
    metrics::gauge!("stockd_requests_remembered").set(sum.requests_remembered as f64);
}
