//! Logs and metrics.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use stock_core::Counts;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::log_limit::LogLimit;

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
    // The log's engine warns of the space that every killed process leaves reserved, as if it were
    // corrupt.
    let filter = format!("raft_engine=error,{filter}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second subscriber in one process (as in tests) is no reason to stop.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(LogLimit::default())
        .with(filter)
        .try_init();
}

/// How often what was measured is summed up: until then it takes memory.
const SUM_UP_EVERY: Duration = Duration::from_secs(5);

/// Begins to collect metrics, and returns who renders them.
pub fn collect_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("seconds".to_owned()), SECONDS)?
        .install_recorder()?;
    let sums = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SUM_UP_EVERY).await;
            sums.run_upkeep();
        }
    });
    Ok(handle)
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
        sum.parts += shard.parts;
        sum.tombstones += shard.tombstones;
        sum.undecided += shard.undecided;
        let since = [sum.undecided_since, shard.undecided_since];
        sum.undecided_since = since.into_iter().flatten().min();
        sum.owed += shard.owed;
        sum.awaited += shard.awaited;
    }
    metrics::gauge!("stockd_skus").set(sum.skus as f64);
    metrics::gauge!("stockd_positions").set(sum.positions as f64);
    metrics::gauge!("stockd_reservations_open").set(sum.open_reservations as f64);
    metrics::gauge!("stockd_reservations_ended").set(sum.ended_reservations as f64);
    metrics::gauge!("stockd_requests_remembered").set(sum.requests_remembered as f64);
    // Of baskets over several shards.
    metrics::gauge!("stockd_basket_parts").set(sum.parts as f64);
    metrics::gauge!("stockd_basket_tombstones").set(sum.tombstones as f64);
    metrics::gauge!("stockd_baskets_undecided").set(sum.undecided as f64);
    // As other moments are: seconds since 1970, and none at all is 0.
    let since_ms = sum.undecided_since.map_or(0, |since| since.0);
    metrics::gauge!("stockd_basket_undecided_oldest_timestamp_seconds").set(since_ms as f64 / 1e3);
    metrics::gauge!("stockd_baskets_owed").set(sum.owed as f64);
    // After recoveries with losses: while there are any, shards hold nothing for anybody.
    metrics::gauge!("stockd_shards_awaited").set(sum.awaited as f64);
}
