//! What is on a node's disk.

use std::path::Path;

use serde::Serialize;

use crate::recovery::directory_bytes;

/// The parts of a node's data directory.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Disk {
    pub(crate) log_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
    /// Checkpoints of the group that has most.
    pub(crate) checkpoints_each: u64,
    /// Every group's newest checkpoint.
    pub(crate) states_bytes: u64,
    pub(crate) groups: u64,
    pub(crate) ledger_bytes: u64,
    pub(crate) log_files_deleted: u64,
}

impl Disk {
    /// As it is now.
    pub(super) fn of(dir: &Path) -> Self {
        let checkpoints = Checkpoints::of(&dir.join("checkpoints"));
        Self {
            log_bytes: directory_bytes(&dir.join("log")),
            checkpoint_bytes: checkpoints.bytes,
            checkpoints_each: checkpoints.each,
            states_bytes: checkpoints.newest_bytes,
            groups: checkpoints.groups,
            ledger_bytes: directory_bytes(&dir.join("ledger")),
            log_files_deleted: log_files_deleted(&dir.join("log")),
        }
    }

    /// Of each part the larger one: every node has a replica of everything, and they differ by
    /// little.
    pub(super) fn fuller(self, other: Self) -> Self {
        Self {
            log_bytes: self.log_bytes.max(other.log_bytes),
            checkpoint_bytes: self.checkpoint_bytes.max(other.checkpoint_bytes),
            checkpoints_each: self.checkpoints_each.max(other.checkpoints_each),
            states_bytes: self.states_bytes.max(other.states_bytes),
            groups: self.groups.max(other.groups),
            ledger_bytes: self.ledger_bytes.max(other.ledger_bytes),
            log_files_deleted: self.log_files_deleted.max(other.log_files_deleted),
        }
    }
}

/// Files of the log are numbered from 1, and those that are there are the last.
fn log_files_deleted(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let numbers = files.filter_map(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".raftlog")?.parse::<u64>().ok()
    });
    numbers.min().unwrap_or(1).saturating_sub(1)
}

/// What is in a directory of checkpoints.
#[derive(Default)]
struct Checkpoints {
    bytes: u64,
    /// Of the group that has most, the one under way included.
    each: u64,
    /// Of every group's newest.
    newest_bytes: u64,
    groups: u64,
}

impl Checkpoints {
    fn of(dir: &Path) -> Self {
        let mut files: Vec<(String, u64)> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                // Deleted since, otherwise.
                Some((name, file.metadata().ok()?.len()))
            })
            .collect();
        // The index has a fixed number of digits: names sort as indexes do.
        files.sort();
        let mut all = Self::default();
        let group = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
        for of_group in files.chunk_by(|one, other| group(&one.0) == group(&other.0)) {
            all.bytes += of_group.iter().map(|(_, bytes)| bytes).sum::<u64>();
            all.each = all.each.max(of_group.len() as u64);
            let whole = of_group
                .iter()
                .rfind(|(name, _)| name.ends_with(".checkpoint"));
            all.newest_bytes += whole.map_or(0, |(_, bytes)| *bytes);
            all.groups += 1;
        }
        all
    }
}
