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
//! - A group with 32 entries or more in the oldest fifth of the files is named nine times before its entries are
//!   copied, so that whoever keeps it can truncate it first. A group that was copied once is named until it has
//!   been truncated beyond that, and at every tenth time what it has got since is copied too.
//!
//! So asking often is dear: the entries of groups that are written all the time, which would soon have been
//! truncated, are written a second time, and synced. Asking seldom is not enough: a group that nobody writes
//! any more keeps the oldest file, and with it all that follow. Hence whoever asks says how much of the log
//! is needed, at most, and **nothing is done until the first queue has one file more than that**. Then the
//! engine is asked until it has not, ten times at most.
//!
//! So the first queue has what is needed and two files, and the second twice what is needed of it, and a file.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::core::{Core, Failure};
use super::disk::{self, Queue};
use crate::LogError;

/// Purging only begins with so much free space on the volume, in bytes, since it copies what is still
/// needed before it deletes. It seldom needs a tenth of that.
pub const PURGE_ROOM_BYTES: u64 = 16 << 20;

/// Files of the first queue beside what is needed, which are left alone: one is being written.
const FILES_SPARE: u64 = 1;

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

    /// Makes the log smaller if it has more files than `needed_bytes` and two more: deletes those that hold
    /// nothing needed any more, and copies the rest of others first. Called from time to time, every few
    /// seconds or after truncating.
    ///
    /// `needed_bytes` is the most that can be needed, of all groups together and with what entries take beside
    /// their own bytes. Less than is really needed costs time: entries are copied that will soon be truncated.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`] if there are less than [`PURGE_ROOM_BYTES`] free; nothing was done.
    /// [`LogError::Purge`] if it failed half way, then and at each further call: the log can be written,
    /// but grows until it is opened again. Those that are [fatal](LogError::is_fatal) are as at a write,
    /// and the log then takes no further write.
    pub fn purge(&self, needed_bytes: u64) -> Result<(), LogError> {
        let core = &*self.core;
        core.check_not_failed()?;
        let mut purging = core.purging();
        if purging.stopped {
            return Err(LogError::Purge {
                dir: core.dir.clone(),
                source: "an earlier one failed half way".into(),
            });
        }
        let files_max = needed_bytes / core.file_bytes + FILES_SPARE;
        if self.files()? <= files_max {
            return Ok(());
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

        for _ in 0..ROUNDS_MAX {
            if self.files()? <= files_max {
                break;
            }
            let purge = || core.engine().purge_expired_files();
            let outcome = core.with_block_cache(|| panic::catch_unwind(AssertUnwindSafe(purge)));
            match Failure::of(outcome, || core.disk.take_notes(Queue::Rewrite)) {
                Ok(untruncated) if untruncated.is_empty() => break,
                Ok(_) => {}
                Err(failure) => return Err(self.stop(&mut purging, failure)),
            }
        }
        Ok(())
    }

    /// How many files the first queue has.
    fn files(&self) -> Result<u64, LogError> {
        let core = &*self.core;
        let files = core.disk.volume.list(&core.dir);
        let files = files.map_err(|source| LogError::Io {
            action: "list",
            path: core.dir.clone(),
            source,
        })?;
        let of_queue = files
            .iter()
            .filter(|file| disk::queue_of(file) == Queue::Append);
        Ok(of_queue.count() as u64)
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
