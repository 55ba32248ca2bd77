//! The durable Raft log of one node.
//!
//! # Choices, with their reasons
//!
//! The engine is `raft-engine`; what follows was read in its source and is held down by tests.
//!
//! - **Recovery tolerates a torn tail, and nothing else.** The strict mode refuses any end of file it
//!   cannot read, and that includes the zeros of space reserved ahead, which every killed process leaves
//!   behind: a node would not come back from a `kill -9`. The mode that tolerates everything leaves holes.
//!   So the middle one is used, which cuts the last file where it stops making sense. On its own it would
//!   also cut damage in the middle of that file, and a voter would forget what it had acknowledged. Hence
//!   the log looks at what is about to be cut: one unfinished write at the end may go, anything with a
//!   whole write behind it is [`LogError::Damaged`]. Two limits remain. Damage to the very last write
//!   looks like a torn one ([`Log::tail_cut`] tells of it). And after a power cut between a lazy write and
//!   the next sync, the disk may hold the later write without the earlier; that is refused too, though
//!   nothing acknowledged was lost, because erring to this side only costs a copy from the other replicas.
//! - **What is read back is synced before it is used.** After a crash of the process the page cache may
//!   hold writes that never reached the disk. A replica would count them as its own, so opening syncs
//!   every file and the directories. (The engine does neither, and its `sync()` does nothing.)
//! - **A hole is refused before it is written.** The engine notices one only after the batch is durable,
//!   panics, and panics again at every start.
//! - **No compression.** With entries half of which repeats, batches of 128 became no faster with lz4, and
//!   it takes time from the loop's thread, which runs short before the disk does.
//! - **Space is reserved 2 MiB at a time** by the engine, so that a sync in between need not change the
//!   file's size. Filling files with zeros beforehand was measured and won nothing over that.
//! - **No recycling of files.** It needs files that were purged, and it would leave old writes behind the
//!   end of new ones and gaps in the files' numbers; without it a gap means a lost file, and is refused.
//! - **Nothing is truncated yet**, so the log only grows.
//! - **The engine caches the last block read in a thread-local that all engines of a thread share**, under
//!   a key that holds no path. A second log on the same thread would be served the first one's entries.
//!   Reads of any but the first log of a thread therefore go through a thread of their own. A process
//!   with one log never pays for it.
//!
//! Opening starts one background thread, `re-metrics`, which wakes every 30 s to publish gauges.

use std::any::Any;
use std::cell::Cell;
use std::fs::{self, File};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use raft_engine::{Config, Engine, ReadableSize, RecoveryMode};

use crate::LogError;
use crate::lock::DirLock;

mod batch;
mod disk;
mod entry;
mod tail;

pub use batch::{Durability, WriteBatch};
pub use disk::TailCut;

use batch::BATCH_BYTES_MAX;
use disk::Disk;
use entry::StoredEntries;

// On disk for ever: these names never change their meaning.
const LOG_DIR: &str = "log";
const NODE_GROUP: u64 = u64::MAX;
const RECORD_STATE: &[u8] = b"s";
const RECORD_ORIGIN: &[u8] = b"o";
const RECORD_NODE: &[u8] = b"n";
/// Never written, only deleted: see [`Log::write`].
const RECORD_NONE: &[u8] = b"-";

/// How a [`Log`] is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A file of the log that has grown to this size, in bytes, is closed and the next one begun, which
    /// costs one write a few milliseconds. Default: 128 MiB.
    pub file_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            file_bytes: 128 << 20,
        }
    }
}

/// The durable log of one node: all its groups, and a few small records beside them.
///
/// One thread owns it. It blocks on the disk.
pub struct Log {
    /// Gone only while dropping.
    engine: Option<Engine<Disk>>,
    disk: Disk,
    dir: PathBuf,
    tail_cut: Option<TailCut>,
    /// A lazy write has not been followed by a synced one.
    lazy_pending: bool,
    /// A write failed; what the disk holds is unknown.
    failed: bool,
    /// Tells the logs of this process apart.
    id: u64,
    /// Dropped last, when the files are closed.
    _lock: DirLock,
}

impl Log {
    /// Opens the log in the data directory `dir`, creating both if need be, and takes the directory's
    /// lock until dropped.
    ///
    /// Whatever it holds then is durable, also what was only written lazily before a crash of the process.
    ///
    /// # Errors
    ///
    /// [`LogError::Locked`] if the directory is in use; [`LogError::Damaged`] if something acknowledged is
    /// lost, in which case nothing has been changed; otherwise [`LogError::Io`] or [`LogError::Open`].
    pub fn open(dir: &Path, options: &LogOptions) -> Result<Log, LogError> {
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| LogError::Io {
                action,
                path,
                source,
            }
        };
        let log_dir = dir.join(LOG_DIR);
        fs::create_dir_all(dir).map_err(io("create the data directory", dir))?;
        let lock = DirLock::take(dir)?;
        fs::create_dir_all(&log_dir).map_err(io("create the log directory", &log_dir))?;
        check_no_file_is_missing(&log_dir)?;

        let disk = Disk::default();
        let open =
            || Engine::open_with_file_system(config(&log_dir, options)?, Arc::new(disk.clone()));
        let opened = panic::catch_unwind(AssertUnwindSafe(open));
        let notes = disk.take_notes();
        let engine = match (opened, notes.damage) {
            (_, Some((file, reason))) => return Err(LogError::Damaged { file, reason }),
            (Ok(Ok(engine)), None) => engine,
            (Ok(Err(raft_engine::Error::Corruption(reason))), None) => {
                return Err(LogError::Damaged {
                    file: log_dir,
                    reason,
                });
            }
            (Ok(Err(source)), None) => {
                return Err(LogError::Open {
                    dir: log_dir,
                    source: source.into(),
                });
            }
            // The engine panics when the writes it reads back do not fit together.
            (Err(panic), None) => {
                return Err(LogError::Damaged {
                    file: log_dir,
                    reason: message(panic),
                });
            }
        };

        // Contents first, then the directories, from the inside out.
        for entry in fs::read_dir(&log_dir).map_err(io("list", &log_dir))? {
            let path = entry.map_err(io("list", &log_dir))?.path();
            sync_path(&path).map_err(io("sync", &path))?;
        }
        let parent = dir
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        for dir in [&log_dir, dir, parent] {
            sync_path(dir).map_err(io("sync", dir))?;
        }

        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Ok(Log {
            engine: Some(engine),
            disk,
            dir: log_dir,
            tail_cut: notes.cut,
            lazy_pending: false,
            failed: false,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            _lock: lock,
        })
    }

    /// The groups that have an entry or a record, in ascending order.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let mut groups = self.engine().raft_groups();
        groups.retain(|&group| group != NODE_GROUP);
        groups.sort_unstable();
        groups
    }

    /// The first and the last index of a group's entries; nothing if it has none.
    #[must_use]
    pub fn bounds(&self, group: u64) -> Option<(u64, u64)> {
        let engine = self.engine();
        Some((engine.first_index(group)?, engine.last_index(group)?))
    }

    /// Adds the entries `low` to `high`, without `high`, of a group to `out`, as they were appended:
    /// as many as have no more than `bytes_max` bytes together, but at least one.
    ///
    /// Comes from the page cache or the disk; each entry is copied once, into a buffer of its own. Writes
    /// of many small entries are read back fast in order, since the block last read is kept.
    ///
    /// # Errors
    ///
    /// [`LogError::Compacted`] or [`LogError::Missing`] if the log has not all of them; [`LogError::Damaged`]
    /// if what is on the disk is not what was written. `out` is then as before.
    pub fn read(
        &self,
        group: u64,
        low: u64,
        high: u64,
        bytes_max: u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), LogError> {
        if low >= high {
            return Ok(());
        }
        match self.bounds(group) {
            None => {
                return Err(LogError::Missing {
                    group,
                    index: low,
                    last: 0,
                });
            }
            Some((first, _)) if low < first => {
                return Err(LogError::Compacted {
                    group,
                    index: low,
                    first,
                });
            }
            Some((_, last)) if high - 1 > last => {
                return Err(LogError::Missing {
                    group,
                    index: low.max(last + 1),
                    last,
                });
            }
            Some(_) => {}
        }
        let len_before = out.len();
        let result = if self.owns_block_cache() {
            self.read_here(group, low, high, bytes_max, out)
        } else {
            thread::scope(|scope| {
                let reader = scope.spawn(|| self.read_here(group, low, high, bytes_max, out));
                reader
                    .join()
                    .unwrap_or_else(|panic| panic::resume_unwind(panic))
            })
        };
        if result.is_err() {
            out.truncate(len_before);
        }
        result
    }

    /// The hard state of a group, as last put.
    #[must_use]
    pub fn state(&self, group: u64) -> Option<Vec<u8>> {
        self.engine().get(group, RECORD_STATE)
    }

    /// The origin of a group, as last put.
    #[must_use]
    pub fn origin(&self, group: u64) -> Option<Vec<u8>> {
        self.engine().get(group, RECORD_ORIGIN)
    }

    /// The identity of this node, as last put.
    #[must_use]
    pub fn node_record(&self) -> Option<Vec<u8>> {
        self.engine().get(NODE_GROUP, RECORD_NODE)
    }

    /// The interrupted write that opening has cut off, if there was one. It had not been acknowledged,
    /// unless the disk has damaged exactly the last write; who knows how far the log must reach (a
    /// checkpoint, the other replicas) should look.
    #[must_use]
    pub fn tail_cut(&self) -> Option<&TailCut> {
        self.tail_cut.as_ref()
    }

    /// Writes everything in `batch`, or nothing of it, and empties it.
    ///
    /// With [`Durability::Sync`] this is one `pwrite` and one `fdatasync`; now and then the reservation of
    /// space or the turn to the next file comes on top. Once it has returned, everything written before is
    /// durable too, so an empty batch is worth a sync if the write before it was lazy; otherwise an empty
    /// batch costs nothing.
    ///
    /// # Errors
    ///
    /// [`LogError::OutOfOrder`] and [`LogError::TooLarge`] say that nothing was written and the batch is as
    /// it was: a mistake of the caller. Every other error is [fatal](LogError::is_fatal): **abort the process
    /// at once, never try again**. After a failed sync the kernel may mark the pages clean and let the next
    /// sync succeed, so a second try would acknowledge what is not on the disk. (The engine panics then;
    /// that is caught here, and the log takes no further write.)
    pub fn write(
        &mut self,
        batch: &mut WriteBatch,
        durability: Durability,
    ) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::Failed {
                dir: self.dir.clone(),
            });
        }
        self.check(batch)?;
        let sync = durability == Durability::Sync;
        if batch.engine.is_empty() {
            if !(sync && self.lazy_pending) {
                return Ok(());
            }
            // The engine does nothing for an empty batch, not even sync.
            batch.engine.delete(NODE_GROUP, RECORD_NONE.to_vec());
        }
        let engine = self.engine();
        let write = || engine.write(&mut batch.engine, sync);
        let source = match panic::catch_unwind(AssertUnwindSafe(write)) {
            Ok(Ok(_len)) => {
                batch.written();
                self.lazy_pending = !sync;
                return Ok(());
            }
            Ok(Err(error)) => error.into(),
            Err(panic) => message(panic).into(),
        };
        self.failed = true;
        batch.clear();
        Err(match self.disk.take_notes().sync_error {
            Some((file, source)) => LogError::Sync { file, source },
            None => LogError::Write {
                dir: self.dir.clone(),
                source,
            },
        })
    }

    fn check(&self, batch: &WriteBatch) -> Result<(), LogError> {
        if batch.bytes > BATCH_BYTES_MAX {
            return Err(LogError::TooLarge {
                bytes: batch.bytes,
                bytes_max: BATCH_BYTES_MAX,
            });
        }
        for (at, append) in batch.appends.iter().enumerate() {
            let held = self.bounds(append.group);
            // A group seldom appears twice in a batch, and a batch has few appends.
            let earlier = batch.appends[..at]
                .iter()
                .rfind(|earlier| earlier.group == append.group);
            let (first, last) = match (held, earlier) {
                (None, None) => continue,
                (Some(held), None) => held,
                (Some((first, _)), Some(earlier)) => (first, earlier.last),
                (None, Some(earlier)) => {
                    let begins = batch
                        .appends
                        .iter()
                        .find(|other| other.group == append.group);
                    (begins.unwrap_or(earlier).first, earlier.last)
                }
            };
            if append.first < first || append.first > last + 1 {
                return Err(LogError::OutOfOrder {
                    group: append.group,
                    index: append.first,
                    first,
                    last,
                });
            }
        }
        Ok(())
    }

    fn read_here(
        &self,
        group: u64,
        low: u64,
        high: u64,
        bytes_max: u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), LogError> {
        let damaged = |index: u64, reason: &dyn std::fmt::Display| LogError::Damaged {
            file: self.dir.clone(),
            reason: format!("entry {index} of group {group}: {reason}"),
        };
        let mut bytes = 0_u64;
        for index in low..high {
            // One at a time: the engine's call for a range reserves memory for all of it beforehand and
            // adds up sizes in 32 bits.
            let entry = match self.engine().get_entry::<StoredEntries>(group, index) {
                Ok(Some(entry)) => entry,
                Ok(None) => return Err(damaged(index, &"it is not there")),
                Err(raft_engine::Error::Io(source)) => {
                    return Err(LogError::Io {
                        action: "read an entry from the log in",
                        path: self.dir.clone(),
                        source,
                    });
                }
                Err(error) => return Err(damaged(index, &error)),
            };
            bytes = bytes.saturating_add(entry.payload.len() as u64);
            if bytes > bytes_max && index > low {
                break;
            }
            out.push(Bytes::from(entry.payload));
        }
        Ok(())
    }

    /// Whether the engine's thread-local block cache is for this log alone: the first log that reads on
    /// a thread has it for good.
    fn owns_block_cache(&self) -> bool {
        thread_local! {
            static OWNER: Cell<u64> = const { Cell::new(0) };
        }
        OWNER.with(|owner| {
            if owner.get() == 0 {
                owner.set(self.id);
            }
            owner.get() == self.id
        })
    }

    fn engine(&self) -> &Engine<Disk> {
        self.engine
            .as_ref()
            .expect("the engine is taken only while dropping")
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.failed {
            // Closing cuts and syncs the last file. After a failure that could only spoil more, and the
            // engine would panic in a destructor.
            std::mem::forget(self.engine.take());
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// The reasons are in the module's description.
fn config(log_dir: &Path, options: &LogOptions) -> raft_engine::Result<Config> {
    let Some(dir) = log_dir.to_str() else {
        return Err(raft_engine::Error::InvalidArgument(
            "the path is not valid UTF-8".to_owned(),
        ));
    };
    Ok(Config {
        dir: dir.to_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(options.file_bytes),
        // Only says when a purge would begin, which nobody asks for yet. Must not be below the file size.
        purge_threshold: ReadableSize(options.file_bytes.max(10 << 30)),
        enable_log_recycle: false,
        prefill_for_recycle: false,
        ..Config::default()
    })
}

/// The engine ignores, without a word, all files before a gap in the numbers. Files are only ever
/// deleted from the oldest on, so a gap means that one was lost.
fn check_no_file_is_missing(log_dir: &Path) -> Result<(), LogError> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(log_dir)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    let files = list().map_err(|source| LogError::Io {
        action: "list",
        path: log_dir.to_path_buf(),
        source,
    })?;
    for extension in ["raftlog", "rewrite"] {
        let mut numbers: Vec<u64> = files
            .iter()
            .filter(|path| path.extension().is_some_and(|it| it == extension))
            .filter_map(|path| disk::file_number(path))
            .collect();
        numbers.sort_unstable();
        if let Some(gap) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            let missing = gap[0] + 1;
            return Err(LogError::Damaged {
                file: log_dir.join(format!("{missing:016}.{extension}")),
                reason: "it is missing, though older and newer files of the log are there"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

fn sync_path(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// What a panic said.
fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => match panic.downcast::<&str>() {
            Ok(message) => (*message).to_owned(),
            Err(_) => "the storage engine panicked".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use raft_engine::LogBatch;

    use super::*;

    fn tempdir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn batch(group: u64, index: u64) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.append(group, index, [b"entry"]);
        batch
    }

    #[test]
    fn a_log_and_its_batch_can_move_to_another_thread() {
        fn check<T: Send>() {}
        check::<Log>();
        check::<WriteBatch>();
    }

    #[test]
    fn a_failed_sync_is_fatal_and_nothing_is_written_after_it() {
        let dir = tempdir();
        let mut log = Log::open(dir.path(), &LogOptions::default()).unwrap();
        log.write(&mut batch(1, 1), Durability::Sync).unwrap();

        log.disk.syncs_fail.store(true, Ordering::Relaxed);
        let error = log.write(&mut batch(1, 2), Durability::Sync).unwrap_err();
        assert!(
            matches!(&error, LogError::Sync { source, .. } if source.raw_os_error().is_some()),
            "{error:?}"
        );
        assert!(error.is_fatal());
        assert!(
            error.to_string().contains("0000000000000001.raftlog"),
            "{error}"
        );

        // The disk is well again, but the log does not believe it.
        log.disk.syncs_fail.store(false, Ordering::Relaxed);
        for durability in [Durability::Sync, Durability::Lazy] {
            let error = log.write(&mut batch(1, 2), durability).unwrap_err();
            assert!(matches!(error, LogError::Failed { .. }) && error.is_fatal());
        }
        // Closing neither panics nor lets a write through.
        drop(log);
    }

    #[test]
    fn the_engine_cuts_with_its_own_file_system_what_this_one_refuses() {
        // Why `Disk` exists: damage in the middle of the last file, with acknowledged writes behind it.
        let dir = tempdir();
        let log_dir = dir.path().join(LOG_DIR);
        let file = log_dir.join("0000000000000001.raftlog");
        let mut ends = Vec::new();
        for index in 1..=3 {
            let mut log = Log::open(dir.path(), &LogOptions::default()).unwrap();
            log.write(&mut batch(1, index), Durability::Sync).unwrap();
            drop(log);
            ends.push(fs::metadata(&file).unwrap().len() as usize);
        }
        let mut bytes = fs::read(&file).unwrap();
        bytes[ends[1] - 1] ^= 1;
        fs::write(&file, &bytes).unwrap();

        let error = Log::open(dir.path(), &LogOptions::default()).unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "nothing may be changed");

        let engine = Engine::open(config(&log_dir, &LogOptions::default()).unwrap()).unwrap();
        assert!(
            engine.last_index(1).unwrap() < 3,
            "the engine forgets without a word"
        );
    }

    #[test]
    fn an_engine_in_the_strict_mode_would_not_survive_a_killed_process() {
        // Why the recovery mode is what it is.
        let dir = tempdir();
        let mut log = Log::open(dir.path(), &LogOptions::default()).unwrap();
        log.write(&mut batch(1, 1), Durability::Sync).unwrap();
        // What a killed process leaves: the file is not closed, so it still has its reserved space.
        let copy = tempdir();
        let name = "0000000000000001.raftlog";
        fs::copy(dir.path().join(LOG_DIR).join(name), copy.path().join(name)).unwrap();

        let strict = |recovery_mode| {
            let config = config(copy.path(), &LogOptions::default()).unwrap();
            Engine::open(Config {
                recovery_mode,
                ..config
            })
        };
        assert!(strict(RecoveryMode::AbsoluteConsistency).is_err());
        assert!(strict(RecoveryMode::TolerateTailCorruption).is_ok());
    }

    #[test]
    fn the_engines_own_sync_does_nothing() {
        // Why an empty synced batch after a lazy write becomes a write of its own.
        let dir = tempdir();
        let disk = Disk::default();
        let engine = config(dir.path(), &LogOptions::default())
            .and_then(|config| Engine::open_with_file_system(config, Arc::new(disk.clone())))
            .unwrap();
        disk.syncs_fail.store(true, Ordering::Relaxed);
        assert!(engine.sync().is_ok());
        assert_eq!(engine.write(&mut LogBatch::default(), true).unwrap(), 0);
        disk.syncs_fail.store(false, Ordering::Relaxed);
    }
}
