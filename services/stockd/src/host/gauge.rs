//! How the node's disk and memory do: what runs full or slow is noticed before it fails.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stock_node::standing::{ClusterState, Health};
use stock_storage::{CheckpointStore, Volume};

use crate::host::memory::MemoryGauge;

/// Log writes that are looked at: the last ones.
const WRITES_KEPT: usize = 256;

/// What a disk does now is seen in the writes of so long, in milliseconds: a disk that becomes
/// slow, or fast again, is not judged by what it did before.
const RECENT_MS: u64 = 5_000;

/// Fewer writes than these say nothing: one that had to wait is not a slow disk.
const RECENT_WRITES_MIN: usize = 5;

/// Measures the disk that a node's data are on, and the memory that the node uses.
pub struct Gauge {
    volume: Arc<dyn Volume>,
    dir: PathBuf,
    cluster: Arc<ClusterState>,
    checkpoints: CheckpointStore,
    memory: MemoryGauge,
    /// The last writes, the oldest first.
    writes: VecDeque<Write>,
}

/// A log write.
#[derive(Debug, Clone, Copy)]
struct Write {
    at_boot_ms: u64,
    took_us: u64,
}

impl Gauge {
    /// Of this directory, and of this process.
    pub fn new(
        volume: Arc<dyn Volume>,
        dir: PathBuf,
        cluster: Arc<ClusterState>,
        checkpoints: CheckpointStore,
        memory: MemoryGauge,
    ) -> Self {
        Self {
            volume,
            dir,
            cluster,
            checkpoints,
            memory,
            writes: VecDeque::with_capacity(WRITES_KEPT),
        }
    }

    /// A log write of the turn that began at `now_boot_ms`, fsync included, took so long.
    pub fn wrote(&mut self, now_boot_ms: u64, elapsed: Duration) {
        if self.writes.len() == WRITES_KEPT {
            self.writes.pop_front();
        }
        self.writes.push_back(Write {
            at_boot_ms: now_boot_ms,
            took_us: elapsed.as_micros() as u64,
        });
    }

    fn largest_checkpoint(&self) -> u64 {
        let groups = self.checkpoints.groups();
        let newest = groups
            .into_iter()
            .filter_map(|group| Some(self.checkpoints.list(group).first()?.bytes));
        newest.max().unwrap_or(0)
    }

    /// Says how both do now.
    pub fn publish(&mut self, now_boot_ms: u64) {
        let kept = sorted_us(self.writes.iter());
        let since_boot_ms = now_boot_ms.saturating_sub(RECENT_MS);
        let recent = self.writes.iter();
        let recent = sorted_us(recent.filter(|write| write.at_boot_ms >= since_boot_ms));
        let tells = recent.len() >= RECENT_WRITES_MIN;
        // A disk that cannot be asked has no room.
        let free_bytes = self.volume.free_bytes(&self.dir).unwrap_or(0);
        metrics::gauge!("stockd_disk_free_bytes").set(free_bytes as f64);
        self.cluster.publish_health(Health {
            was_measured: true,
            checkpoint_bytes: self.largest_checkpoint(),
            free_bytes,
            write_p50_us: quantile(&kept, 50),
            write_p99_us: quantile(&kept, 99),
            recent_write_us: tells.then(|| quantile(&recent, 50)),
            is_short_of_memory: self.memory.look(),
        });
    }
}

fn sorted_us<'a>(writes: impl Iterator<Item = &'a Write>) -> Vec<u64> {
    let mut took_us: Vec<u64> = writes.map(|write| write.took_us).collect();
    took_us.sort_unstable();
    took_us
}

/// 0 where there is none.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}
