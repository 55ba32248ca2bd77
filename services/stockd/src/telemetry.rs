//! Logs and metrics.

use stock_core::Counts;

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
