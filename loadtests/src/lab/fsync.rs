//! What it costs here to make a small write durable: the floor under every acknowledged change.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

/// About what one reservation adds to a log.
const APPEND_BYTES: usize = 120;
const APPENDS_MAX: u32 = 2_000;
const MEASURE_MAX: Duration = Duration::from_secs(1);

/// `f_type` of file systems that live in memory, where fdatasync does nothing.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

#[derive(Debug, Serialize)]
pub(crate) struct FsyncCost {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) appends: u64,
}

/// Appends to a file of its own in `directory`, which is gone afterwards. An error where the
/// directory is in memory: a figure from there would flatter no one but the disk.
pub(crate) fn measure(directory: &Path) -> anyhow::Result<FsyncCost> {
    let filesystem = rustix::fs::statfs(directory)
        .with_context(|| format!("cannot look at {}", directory.display()))?;
    ensure!(
        !is_memory(filesystem.f_type as u64),
        "{} is in memory, where fdatasync does nothing; name a directory on the nodes' disk with \
         --fsync-dir",
        directory.display()
    );
    let mut file = tempfile::tempfile_in(directory)
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    let mut took_ns = super::call::histogram();
    let started = Instant::now();
    for _ in 0..APPENDS_MAX {
        let append_started = Instant::now();
        file.write_all(&[0x5a; APPEND_BYTES])?;
        file.sync_data()?;
        took_ns.saturating_record(append_started.elapsed().as_nanos() as u64);
        if started.elapsed() > MEASURE_MAX {
            break;
        }
    }
    Ok(FsyncCost {
        p50_us: took_ns.value_at_quantile(0.5) as f64 / 1e3,
        p99_us: took_ns.value_at_quantile(0.99) as f64 / 1e3,
        appends: took_ns.len(),
    })
}

fn is_memory(filesystem: u64) -> bool {
    // The type's sign differs between machines, so only its 32 bits count.
    matches!(filesystem & 0xffff_ffff, TMPFS_MAGIC | RAMFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_is_refused() {
        assert!(is_memory(TMPFS_MAGIC) && is_memory(RAMFS_MAGIC));
        assert!(!is_memory(0xef53), "ext4 is a disk");
        let shm = Path::new("/dev/shm");
        if shm.is_dir() {
            let error = measure(shm).expect_err("must be refused");
            assert!(error.to_string().contains("--fsync-dir"), "{error}");
        }
    }
}
