//! What a disk is told to do wrong.

use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

/// What a process asks of a disk, and what can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A new file.
    Create,
    /// A file or directory that is there.
    Open,
    /// `pread` and its kin.
    Read,
    /// `pwrite` and its kin.
    Write,
    /// `ftruncate`.
    Resize,
    /// `fallocate`.
    Allocate,
    /// `fsync` and `fdatasync` of a file.
    Sync,
    /// `fsync` of a directory.
    SyncDir,
    /// `rename`.
    Rename,
    /// `unlink` and `rmdir`.
    Unlink,
    /// `mkdir`.
    MakeDir,
}

impl Op {
    /// Everything that changes the disk or makes changes durable.
    pub const CHANGES: [Self; 9] = [
        Self::Create,
        Self::Write,
        Self::Resize,
        Self::Allocate,
        Self::Sync,
        Self::SyncDir,
        Self::Rename,
        Self::Unlink,
        Self::MakeDir,
    ];
}

/// Failures that wait for their moment, and those that last.
#[derive(Debug, Default)]
pub(super) struct Faults {
    next: Vec<NextFailure>,
    pub(super) syncs: Option<Errno>,
    pub(super) sync_delay: Duration,
    /// How many errors were given out.
    pub(super) met: u64,
}

#[derive(Debug)]
struct NextFailure {
    op: Op,
    errno: Errno,
    path_contains: String,
}

impl Faults {
    /// One failure of `op` on a path that contains this.
    pub(super) fn add(&mut self, op: Op, errno: Errno, path_contains: &str) {
        self.next.push(NextFailure {
            op,
            errno,
            path_contains: path_contains.to_owned(),
        });
    }

    /// What this call fails with, if it shall.
    pub(super) fn take(&mut self, op: Op, path: &Path) -> Option<Errno> {
        let path = path.to_string_lossy();
        let is_meant =
            |failure: &NextFailure| failure.op == op && path.contains(&failure.path_contains);
        let once = self.next.iter().position(is_meant);
        let once = once.map(|at| self.next.remove(at).errno);
        let lasting = self.syncs.filter(|_| matches!(op, Op::Sync | Op::SyncDir));
        let errno = once.or(lasting)?;
        self.met += 1;
        Some(errno)
    }

    /// Nothing fails from now on. What has failed stays failed.
    pub(super) fn clear(&mut self) {
        self.next.clear();
        self.syncs = None;
        self.sync_delay = Duration::ZERO;
    }
}
