//! How the node's disk does: a disk that runs full or slow is noticed before it fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stock_storage::{CheckpointStore, Volume};

use crate::cluster_state::{ClusterState, Health};

/// Log writes that are looked at: the last ones.
const WRITES_KEPT: usize = 256;

/// Measures the disk that a node's data are on.
pub struct DiskGauge {
    volume: Arc<dyn Volume>,
    dir: PathBuf,
    cluster: Arc<ClusterState>,
    checkpoints: CheckpointStore,
    /// How long the last writes took, in microseconds; the oldest is replaced next.
    writes_us: Vec<u64>,
    next: usize,
}

impl DiskGauge {
    /// Of this directory.
    pub fn new(
        volume: Arc<dyn Volume>,
        dir: PathBuf,
        cluster: Arc<ClusterState>,
        checkpoints: CheckpointStore,
    ) -> Self {
        Self {
            volume,
            dir,
            cluster,
            checkpoints,
            writes_us: Vec::with_capacity(WRITES_KEPT),
            next: 0,
        }
    }

    /// A log write, fsync included, took so long.
    pub fn wrote(&mut self, elapsed: Duration) {
        let elapsed_us = elapsed.as_micros() as u64;
        if self.writes_us.len() < WRITES_KEPT {
            self.writes_us.push(elapsed_us);
        } else {
            self.writes_us[self.next] = elapsed_us;
            self.next = (self.next + 1) % WRITES_KEPT;
        }
    }

    fn largest_checkpoint(&self) -> u64 {
        let groups = self.checkpoints.groups();
        let newest = groups
            .into_iter()
            .filter_map(|group| Some(self.checkpoints.list(group).first()?.bytes));
        newest.max().unwrap_or(0)
    }

    /// Says how the disk does now.
    pub fn publish(&self) {
        let mut sorted = self.writes_us.clone();
        sorted.sort_unstable();
        let quantile = |percent: usize| {
            let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(at).copied().unwrap_or(0)
        };
        // A disk that cannot be asked has no room.
        let free_bytes = self.volume.free_bytes(&self.dir).unwrap_or(0);
        metrics::gauge!("stockd_disk_free_bytes").set(free_bytes as f64);
        self.cluster.publish_health(Health {
            was_measured: true,
            checkpoint_bytes: self.largest_checkpoint(),
            free_bytes,
            write_p50_us: quantile(50),
            write_p99_us: quantile(99),
        });
    }
}
