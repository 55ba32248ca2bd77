//! Giving space back.
//!
//! A file of the log can be deleted when nothing in it is needed any more. The engine copies the
//! little that still is into a second queue of files, and deletes from the oldest on.
//!
//! # What was read in the engine's source, and what follows from it
//!
//! - It may purge on one thread while another one writes. But it panics when an entry that it has
//!   just copied has neighbours by then that it has not, because a group began again at a lower
//!   index or its tail was overwritten from there. So a batch that does either waits for a running
//!   purge. Both are rare.
//! - **Dropping a group is the only deletion that it carries over** when it deletes the file that
//!   the deletion stands in. A deleted record, or entries that were compacted, may come back from
//!   the copies after a restart. Hence no record is ever deleted alone; a truncation leaves a
//!   record of its own behind (the floor), below which nothing is shown; and a truncation that
//!   empties a group drops it.
//! - It forgets which groups were dropped before it has written that down. So after a purge that
//!   failed half way there is none until the log has been opened again, which reads it back.
//! - It looks at the oldest seven tenths of the files of the first queue, and one more. Groups that
//!   have less than 32 entries there, with what was copied of them before, are copied each time it
//!   is asked. Of larger ones those are *named* that reach back into the oldest fifth, rounded down
//!   (so it takes five files), or that were copied before: so that whoever keeps them can truncate
//!   them. When one is named for the tenth time in a row, all that it has in those files is copied.
//! - The second queue is written anew when more than half of its entries are not needed any more,
//!   and it has two files.
//!
//! So asking often is dear: the entries of groups that are written all the time, which would soon
//! have been truncated, are written a second time, and synced. Asking seldom is not enough: a group
//! that nobody writes any more keeps the oldest file, and with it all that follow. Hence **while a
//! group is named the engine is asked at most once for each new file**, and only when the first
//! queue is longer than its room, up to ten times in a row. Whoever asks says how much room there
//! should be.
//!
//! So the first queue has what room it was given and two files, or five; and what is written until
//! the next purge. The second has twice as many entries as are still needed of those that were
//! copied, and a file.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::core::{Core, Failure};
use super::disk::{self, Queue};
use super::entry::StoredEntries;
use crate::LogError;

/// Purging only begins with so much free space on the volume, in bytes, since it copies what is
/// still needed before it deletes. That is seldom a tenth of it; where it is more, and the volume
/// runs full, the purge fails half way.
pub const PURGE_ROOM_BYTES: u64 = 16 << 20;

/// Files of the first queue beside its room: one is being written.
const FILES_SPARE: u64 = 1;

/// The engine copies the entries of a group that is not truncated when asked for the tenth time.
const ROUNDS_MAX: usize = 10;

/// What a log must know of its purges.
#[derive(Default)]
pub(super) struct Purging {
    /// One failed half way.
    stopped: bool,
    /// The last time that the engine was asked it named groups: see the module.
    has_named: bool,
    /// The newest file of the first queue then.
    newest: u64,
}

/// The files of the first queue.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Files {
    count: u64,
    newest: u64,
}

/// Gives back the space of entries that are no longer needed. See
/// [`Log::purger`](super::Log::purger).
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

    /// Deletes files of the log that hold nothing needed any more, if there is more than one.
    /// Called from time to time, every few seconds or after truncating. While a group keeps the
    /// oldest file it does something only when a new file was begun.
    ///
    /// A log that is larger than `room_bytes` is made smaller at any price: what is still needed of
    /// old files is copied. With room for less than what is needed and lies between it, entries are
    /// copied again and again that will soon be truncated.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`] if there are less than [`PURGE_ROOM_BYTES`] free; nothing was done.
    /// [`LogError::Purge`] if it failed half way, then and at each further call: the log can be
    /// written, but grows until it is opened again. [`LogError::Unreadable`] if it did because an
    /// entry cannot be read, of a group that [`Purger::damaged_groups`] names: as before. Those
    /// that are [fatal](LogError::is_fatal) are as at a write, and the log then takes no further
    /// write.
    pub fn purge(&self, room_bytes: u64) -> Result<(), LogError> {
        let core = &*self.core;
        core.check_not_failed()?;
        let mut purging = core.purging();
        if purging.stopped {
            return Err(LogError::Purge {
                dir: core.dir.clone(),
                source: "an earlier one failed half way".into(),
            });
        }
        let files_max = room_bytes
            .div_ceil(core.file_bytes.max(1))
            .saturating_add(FILES_SPARE);
        let mut files = self.files()?;
        let is_new = files.newest != purging.newest;
        if purging.has_named && !is_new && files.count <= files_max {
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
            let purge = || core.engine().purge_expired_files();
            let outcome = core.with_block_cache(|| panic::catch_unwind(AssertUnwindSafe(purge)));
            let named = match Failure::of(outcome, || core.disk.take_notes(Queue::Rewrite)) {
                Ok(named) => named,
                Err(failure) => return Err(self.stop(&mut purging, failure)),
            };
            let before = std::mem::replace(&mut files, self.files()?);
            purging.has_named = !named.is_empty();
            purging.newest = files.newest;
            let is_done = named.is_empty() && files == before;
            if is_done || files.count <= files_max {
                break;
            }
        }
        Ok(())
    }

    /// The groups of which an entry cannot be read, each with the first such entry and the reason,
    /// in the order of their numbers. Reads the whole log.
    #[must_use]
    pub fn damaged_groups(&self) -> Vec<(u64, u64, String)> {
        let core = &*self.core;
        let mut groups = core.engine().raft_groups();
        groups.sort_unstable();
        let of_group = |group: u64| {
            let bounds = core
                .engine()
                .first_index(group)
                .zip(core.engine().last_index(group));
            let (first, last) = bounds?;
            (first..=last).find_map(|index| {
                let read = core.engine().get_entry::<StoredEntries>(group, index);
                match read {
                    Ok(Some(_)) => None,
                    // Truncated meanwhile.
                    Ok(None) => None,
                    Err(error) => Some((group, index, error.to_string())),
                }
            })
        };
        core.with_block_cache(|| groups.into_iter().filter_map(of_group).collect())
    }

    fn files(&self) -> Result<Files, LogError> {
        let core = &*self.core;
        let paths = core.disk.volume.list(&core.dir);
        let paths = paths.map_err(|source| LogError::Io {
            action: "list",
            path: core.dir.clone(),
            source,
        })?;
        let of_queue = paths
            .iter()
            .filter(|path| disk::queue_of(path) == Queue::Append);
        let numbers = of_queue.filter_map(|path| disk::file_number(path));
        Ok(numbers.fold(
            Files {
                count: 0,
                newest: 0,
            },
            |files, number| Files {
                count: files.count + 1,
                newest: files.newest.max(number),
            },
        ))
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
                LogError::Unreadable { dir, reason }
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
