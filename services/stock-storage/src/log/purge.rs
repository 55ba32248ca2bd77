//! Giving space back.
//!
//! A file of the log can be deleted when nothing in it is needed any more. The engine copies the little
//! that still is into a second queue of files, and deletes from the oldest on.
//!
//! # What was read in the engine's source, and what follows from it
//!
//! - It may purge on one thread while another one writes. But it panics when an entry that it has just
//!   copied has neighbours by then that it has not, because a group began again at a lower index or its
//!   tail was overwritten from there. So a batch that does either waits for a running purge. Both are rare.
//! - **Dropping a group is the only deletion that it carries over** when it deletes the file that the
//!   deletion stands in. A deleted record, or entries that were compacted, may come back from the copies
//!   after a restart. Hence no record is ever deleted alone; a truncation leaves a record of its own
//!   behind (the floor), below which nothing is shown; and a truncation that empties a group drops it.
//! - It forgets which groups were dropped before it has written that down. So after a purge that failed
//!   half way there is none until the log has been opened again, which reads it back.
//! - A group with 32 old entries or more, which nobody truncates, is named nine times before its entries
//!   are copied, and only once the queue has five files. A purge asks until then, so that an idle group
//!   holds no file for ever.
//!
//! With groups that are truncated now and then, a log has two files of its first queue, and as much of the
//! second as twice what is still needed, plus one file. A group that is not truncated can make that five
//! files of the first queue, until its entries have been copied.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::core::{Core, Failure};
use super::disk::Queue;
use crate::LogError;

/// Purging only begins with so much free space on the volume, in bytes, since it copies what is still
/// needed before it deletes. It seldom needs a tenth of that.
pub const PURGE_ROOM_BYTES: u64 = 16 << 20;

/// The engine copies the entries of a group that is not truncated when asked for the tenth time.
const ROUNDS_MAX: usize = 10;

/// What a log must know of its purges.
#[derive(Default)]
pub(super) struct Purging {
    /// One failed half way.
    stopped: bool,
}

/// Gives back the space of entries that are no longer needed. See [`Log::purger`](super::Log::purger).
///
/// While one exists, the data directory stays locked.
#[derive(Clone)]
pub struct Purger {
    core: Arc<Core>,
}

impl Purger {
    pub(super) fn new(core: Arc<Core>) -> Purger {
        Purger { core }
    }

    /// Deletes files of the log that hold nothing needed any more, if there is more than one. Copies the
    /// rest of such a file first. Called from time to time, every few seconds or after truncating.
    ///
    /// Gives the groups whose entries lie in old files and had to be copied, or will be: truncating them
    /// saves that.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`] if there are less than [`PURGE_ROOM_BYTES`] free; nothing was done.
    /// [`LogError::Purge`] if it failed half way, then and at each further call: the log can be written,
    /// but grows until it is opened again. Those that are [fatal](LogError::is_fatal) are as at a write,
    /// and the log then takes no further write.
    pub fn purge(&self) -> Result<Vec<u64>, LogError> {
        let core = &*self.core;
        core.check_not_failed()?;
        let mut purging = core.purging();
        if purging.stopped {
            return Err(LogError::Purge {
                dir: core.dir.clone(),
                source: "an earlier one failed half way".into(),
            });
        }
        let free = core.disk.volume.free_bytes(&core.dir);
        let free = free.map_err(|source| LogError::Io {
            action: "measure the free space of",
            path: core.dir.clone(),
            source,
        })?;
        if free < PURGE_ROOM_BYTES {
            return Err(LogError::Full {
                dir: core.dir.clone(),
            });
        }

        let mut untruncated = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let purge = || core.engine().purge_expired_files();
            let outcome = core.with_block_cache(|| panic::catch_unwind(AssertUnwindSafe(purge)));
            let groups = match Failure::of(outcome, || core.disk.take_notes(Queue::Rewrite)) {
                Ok(groups) => groups,
                Err(failure) => return Err(self.stop(&mut purging, failure)),
            };
            if groups.is_empty() {
                break;
            }
            untruncated.extend(groups);
        }
        untruncated.sort_unstable();
        untruncated.dedup();
        Ok(untruncated)
    }

    fn stop(&self, purging: &mut Purging, failure: Failure) -> LogError {
        let core = &*self.core;
        let dir = core.dir.clone();
        purging.stopped = true;
        match failure {
            Failure::Full => LogError::Purge {
                dir,
                source: "the volume is full".into(),
            },
            Failure::Other(raft_engine::Error::Corruption(reason)) => {
                LogError::Damaged { file: dir, reason }
            }
            Failure::Other(error) => LogError::Purge {
                dir,
                source: error.into(),
            },
            Failure::Sync(file, source) => {
                core.fail();
                LogError::Sync { file, source }
            }
            Failure::Panic(reason) => {
                core.fail();
                LogError::Write {
                    dir,
                    source: reason.into(),
                }
            }
        }
    }
}
