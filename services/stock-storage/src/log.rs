//! The durable Raft log of one node.
//!
//! # Choices, with their reasons
//!
//! The engine is `raft-engine`; what follows was read in its source and is held down by tests.
//!
//! - **Recovery tolerates a torn tail, and nothing else.** The strict mode refuses any end of file
//!   it cannot read, and that includes the zeros of space reserved ahead, which every killed
//!   process leaves behind: a node would not come back from a `kill -9`. The mode that tolerates
//!   everything leaves holes. So the middle one is used, which cuts the last file where it stops
//!   making sense. On its own it would also cut damage in the middle of that file, and a voter
//!   would forget what it had acknowledged. Hence the log looks at what is about to be cut: one
//!   unfinished write at the end may go, anything with a whole write behind it is
//!   [`LogError::Damaged`]. Two limits remain. Damage to the very last write looks like a torn one
//!   ([`Log::tail_cut`] tells of it). And after a power cut between a lazy write and the next sync,
//!   the disk may hold the later write without the earlier; that is refused too, though nothing
//!   acknowledged was lost, because erring to this side only costs a copy from the other replicas.
//!   What a purge has copied is all there is of it: how far that goes is written down, see
//!   [`mark`].
//! - **What is read back is synced before it is used.** After a crash of the process the page cache
//!   may hold writes that never reached the disk. A replica would count them as its own, so opening
//!   syncs every file and the directories. (The engine does neither, and its `sync()` does
//!   nothing.)
//! - **A hole is refused before it is written.** The engine notices one only after the batch is
//!   durable, panics, and panics again at every start.
//! - **No compression.** With entries half of which repeats, batches of 128 became no faster with
//!   lz4, and it takes time from the loop's thread, which runs short before the disk does.
//! - **Space is reserved 2 MiB at a time** by the engine, so that a sync in between need not change
//!   the file's size. Filling files with zeros beforehand was measured and won nothing over that.
//! - **No recycling of files.** It would leave old writes behind the end of new ones and gaps in
//!   the files' numbers; without it a gap means a lost file, and is refused.
//! - **Truncating frees nothing until a purge**, and a purge has rules of its own: see [`purge`].
//! - **A write that finds the volume full is taken back** and can be repeated: see
//!   [`core::Failure`].
//! - **The engine caches the last block read in a thread-local that all engines of a thread
//!   share**, under a key that holds no path. A second log on the same thread would be served the
//!   first one's entries. Reads of any but the first log of a thread therefore go through a thread
//!   of their own. A process with one log never pays for it.
//!
//! Opening starts one background thread, `re-metrics`, which wakes every 30 s to publish gauges.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft_engine::{Config, Engine, ReadableSize, RecoveryMode};

use crate::{Access, LogError, Volume};

mod batch;
mod core;
mod disk;
mod entry;
mod mark;
mod purge;
mod salvage;
mod stage;
mod tail;

pub use batch::{BATCH_BYTES_MAX, Durability, WriteBatch};
pub use disk::TailCut;
use disk::{Damage, Disk, Notes, Queue};
use entry::StoredEntries;
pub use purge::{PURGE_ROOM_BYTES, Purger};
pub use salvage::Salvage;
use stage::Stage;

use self::core::{Core, Failure, message};

// On disk for ever: these names never change their meaning.
const LOG_DIR: &str = "log";
const ASIDE_DIR: &str = "log.damaged-";
const NODE_GROUP: u64 = u64::MAX;
const RECORD_STATE: &[u8] = b"s";
const RECORD_ORIGIN: &[u8] = b"o";
const RECORD_REPLICA: &[u8] = b"r";
/// Below this index, big-endian, entries were truncated.
const RECORD_FLOOR: &[u8] = b"f";
const RECORD_NODE: &[u8] = b"n";
/// What the node remembers of others.
const RECORD_ACQUAINTANCES: &[u8] = b"a";
/// Never written, only deleted: see [`Log::write`].
const RECORD_NONE: &[u8] = b"-";

/// A log that was damaged so often is not salvaged again.
const ASIDE_MAX: u32 = 3;

/// What becomes of a log that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It is refused, and stays as it is.
    Refuse,
    /// What comes before the damage is used, and the rest cut off: for a volume that keeps nothing.
    Look,
    /// As [`OnDamage::Look`], after the whole log was copied to a directory beside it.
    Salvage,
}

/// How a [`Log`] is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A file of the log that has grown to this size, in bytes, is closed and the next one begun,
    /// which costs one write a few milliseconds. The log has seldom less than two. Default: 64 MiB.
    pub file_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            file_bytes: 64 << 20,
        }
    }
}

/// The durable log of one node: all its groups, and a few small records beside them.
///
/// One thread owns it. It blocks on the disk.
pub struct Log {
    core: Arc<Core>,
    tail_cut: Option<TailCut>,
    salvage: Option<Salvage>,
    /// Gone only while a write uses it: a new one allocates.
    stage: Option<Stage>,
    /// Where groups begin whose older entries have come back from the disk after they were
    /// truncated. Seldom any.
    floors: HashMap<u64, u64>,
    /// A lazy write has not been followed by a synced one.
    lazy_pending: bool,
}

impl Log {
    /// Opens the log in the data directory `dir` of `volume`, creating both if need be, and takes
    /// the directory's lock until dropped.
    ///
    /// Whatever it holds then is durable, also what was only written lazily before a crash of the
    /// process.
    ///
    /// # Errors
    ///
    /// [`LogError::Locked`] if the directory is in use; [`LogError::Damaged`] if something
    /// acknowledged is lost, in which case nothing has been changed; otherwise [`LogError::Io`] or
    /// [`LogError::Open`].
    pub fn open(
        volume: Arc<dyn Volume>,
        dir: &Path,
        options: &LogOptions,
    ) -> Result<Log, LogError> {
        Self::open_or(volume, dir, options, OnDamage::Refuse, |_| Ok(()))
    }

    /// As [`Self::open`]; a log that is damaged is dealt with as `on_damage` says, if there is a
    /// write before the damage. [`Self::salvage`] then says what was done. Before anything is cut,
    /// `before_cut` is told where the log is kept as it was found: whoever is asked later must know
    /// that something is forgotten.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and [`LogError::DamagedAgain`].
    pub fn open_or(
        volume: Arc<dyn Volume>,
        dir: &Path,
        options: &LogOptions,
        on_damage: OnDamage,
        before_cut: impl FnOnce(&Salvage) -> std::io::Result<()>,
    ) -> Result<Log, LogError> {
        let log_dir = dir.join(LOG_DIR);
        let disk = Disk::new(volume);
        let volume = &disk.volume;
        volume
            .create_dir(dir)
            .map_err(named_io("create the data directory", dir))?;
        let lock = volume.lock(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => LogError::Locked {
                dir: dir.to_path_buf(),
                holder: error.to_string(),
            },
            _ => named_io("lock", dir)(error),
        })?;
        volume
            .create_dir(&log_dir)
            .map_err(named_io("create the log directory", &log_dir))?;
        let list = || volume.list(&log_dir).map_err(named_io("list", &log_dir));
        let files = list()?;
        check_no_file_is_missing(&log_dir, &files)?;

        let mut opened = open_engine(&disk, &log_dir, options, OnDamage::Refuse);
        let mut salvage = None;
        if let (Err(Unopened::Damaged(damage)), true) = (&opened, on_damage != OnDamage::Refuse) {
            let mut begun = Salvage {
                aside: None,
                file: damage.file.clone(),
                reason: damage.reason.clone(),
            };
            if on_damage == OnDamage::Salvage {
                begun.aside = Some(salvage::set_aside(&**volume, dir, &files)?);
            }
            before_cut(&begun).map_err(named_io("write in", dir))?;
            salvage = Some(begun);
        }
        // Each time the log becomes shorter by some of its files, or by the rest of one.
        let rounds_max = 2 * files.len() + 1;
        for _ in 0..rounds_max {
            let (Err(Unopened::Damaged(damage)), true) = (&opened, salvage.is_some()) else {
                break;
            };
            let is_kept = on_damage == OnDamage::Look;
            if !salvage::cut(&**volume, &list()?, damage, is_kept)? {
                break;
            }
            opened = open_engine(&disk, &log_dir, options, on_damage);
        }
        let (engine, notes) = match opened {
            Ok(opened) => opened,
            Err(Unopened::Damaged(Damage { file, reason, .. })) => {
                return Err(LogError::Damaged { file, reason });
            }
            Err(Unopened::Other(source)) => {
                return Err(LogError::Open {
                    dir: log_dir,
                    source: source.into(),
                });
            }
        };

        // Contents first, then the directories, from the inside out.
        for path in list()? {
            volume
                .open(&path, Access::Read)
                .and_then(|file| file.sync())
                .map_err(named_io("sync", &path))?;
        }
        let parent = dir
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        for dir in [&log_dir, dir, parent] {
            volume.sync_dir(dir).map_err(named_io("sync", dir))?;
        }

        Ok(Log {
            salvage,
            floors: floors(&engine),
            core: Arc::new(Core::new(engine, disk, log_dir, options.file_bytes, lock)),
            tail_cut: notes.cut,
            stage: None,
            lazy_pending: false,
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
        let (first, last) = (engine.first_index(group)?, engine.last_index(group)?);
        let floor = match self.floors.is_empty() {
            true => 0,
            false => self.floors.get(&group).copied().unwrap_or(0),
        };
        (floor <= last).then_some((first.max(floor), last))
    }

    /// Adds the entries `low` to `high`, without `high`, of a group to `out`, as they were
    /// appended: as many as have no more than `bytes_max` bytes together, but at least one.
    ///
    /// Comes from the page cache or the disk; each entry is copied once, into a buffer of its own.
    /// Writes of many small entries are read back fast in order, since the block last read is kept.
    ///
    /// # Errors
    ///
    /// [`LogError::Compacted`] or [`LogError::Missing`] if the log has not all of them;
    /// [`LogError::Unreadable`] if what is on the disk is not what was written. `out` is then as
    /// before.
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
        let result = self
            .core
            .with_block_cache(|| self.read_here(group, low, high, bytes_max, out));
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

    /// The replica record of a group, as last put.
    #[must_use]
    pub fn replica(&self, group: u64) -> Option<Vec<u8>> {
        self.engine().get(group, RECORD_REPLICA)
    }

    /// The identity of this node, as last put.
    #[must_use]
    pub fn node_record(&self) -> Option<Vec<u8>> {
        self.engine().get(NODE_GROUP, RECORD_NODE)
    }

    /// What this node remembers of others, as last put.
    #[must_use]
    pub fn acquaintances(&self) -> Option<Vec<u8>> {
        self.engine().get(NODE_GROUP, RECORD_ACQUAINTANCES)
    }

    /// The interrupted write that opening has cut off, if there was one. It had not been
    /// acknowledged, unless the disk has damaged exactly the last write; who knows how far the log
    /// must reach (a checkpoint, the other replicas) should look.
    #[must_use]
    pub fn tail_cut(&self) -> Option<&TailCut> {
        self.tail_cut.as_ref()
    }

    /// What was done when it was opened, if it was damaged.
    #[must_use]
    pub fn salvage(&self) -> Option<&Salvage> {
        self.salvage.as_ref()
    }

    /// Writes everything in `batch`, or nothing of it, and empties it.
    ///
    /// With [`Durability::Sync`] this is one `pwrite` and one `fdatasync`; now and then the
    /// reservation of space or the turn to the next file comes on top. Once it has returned,
    /// everything written before is durable too, so an empty batch is worth a sync if the write
    /// before it was lazy; otherwise an empty batch costs nothing.
    ///
    /// A batch in which entries are overwritten, or a group begins again ([`WriteBatch::reset`],
    /// [`WriteBatch::forget`], or a truncation that empties it), waits until no purge is running.
    ///
    /// # Errors
    ///
    /// [`LogError::OutOfOrder`] and [`LogError::TooLarge`] say that nothing was written and the
    /// batch is as it was: a mistake of the caller. [`LogError::Full`] says the same of a full
    /// volume: the batch can be written when there is space again. Every other error is
    /// [fatal](LogError::is_fatal): **abort the process at once, never try again**. After a failed
    /// sync the kernel may mark the pages clean and let the next sync succeed, so a second try
    /// would acknowledge what is not on the disk. (The engine panics then; that is caught here, and
    /// the log takes no further write.)
    pub fn write(
        &mut self,
        batch: &mut WriteBatch,
        durability: Durability,
    ) -> Result<(), LogError> {
        self.core.check_not_failed()?;
        let mut stage = self.stage.take().unwrap_or_default();
        let result = self.write_staged(&mut stage, batch, durability);
        match &result {
            Ok(()) => {
                for begun in &stage.begun {
                    self.floors.remove(&begun.group);
                }
                stage.written();
                batch.clear();
            }
            Err(error) => {
                stage.clear();
                if error.is_fatal() {
                    self.core.fail();
                    batch.clear();
                }
            }
        }
        self.stage = Some(stage);
        result
    }

    /// Gives back space, on this thread or another one. See [`Purger::purge`].
    #[must_use]
    pub fn purger(&self) -> Purger {
        Purger::new(Arc::clone(&self.core))
    }

    /// Bytes of the log's files, with what is reserved for the next writes.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`].
    pub fn disk_bytes(&self) -> Result<u64, LogError> {
        let Core { disk, dir, .. } = &*self.core;
        let io = |source| LogError::Io {
            action: "measure",
            path: dir.clone(),
            source,
        };
        let mut bytes = 0;
        for path in disk.volume.list(dir).map_err(io)? {
            let len = disk.volume.open(&path, Access::Read);
            match len.and_then(|file| file.len()) {
                Ok(len) => bytes += len,
                // Purged since.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(error)),
            }
        }
        Ok(bytes)
    }

    fn write_staged(
        &mut self,
        stage: &mut Stage,
        batch: &WriteBatch,
        durability: Durability,
    ) -> Result<(), LogError> {
        stage.fill(self, batch)?;
        let sync = durability == Durability::Sync;
        if stage.engine.is_empty() {
            if !(sync && self.lazy_pending) {
                return Ok(());
            }
            // The engine does nothing for an empty batch, not even sync.
            stage.engine.delete(NODE_GROUP, RECORD_NONE.to_vec());
        }
        // See `purge` for why.
        let _not_purging = stage.is_rewriting.then(|| self.core.purging());
        let write = || self.engine().write(&mut stage.engine, sync);
        let outcome = panic::catch_unwind(AssertUnwindSafe(write));
        let notes = || self.core.disk.take_notes(Queue::Append);
        let failure = match Failure::of(outcome, notes) {
            Ok(_len) => {
                self.lazy_pending = !sync;
                return Ok(());
            }
            Err(failure) => failure,
        };
        let dir = self.core.dir.clone();
        Err(match failure {
            Failure::Full => LogError::Full { dir },
            Failure::Sync(file, source) => LogError::Sync { file, source },
            Failure::Panic(reason) => LogError::Write {
                dir,
                source: reason.into(),
            },
            Failure::Other(error) => LogError::Write {
                dir,
                source: error.into(),
            },
        })
    }

    fn read_here(
        &self,
        group: u64,
        low: u64,
        high: u64,
        bytes_max: u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), LogError> {
        let damaged = |index: u64, reason: &dyn std::fmt::Display| LogError::Unreadable {
            dir: self.core.dir.clone(),
            reason: format!("entry {index} of group {group}: {reason}"),
        };
        let mut bytes = 0_u64;
        for index in low..high {
            // One at a time: the engine's call for a range reserves memory for all of it beforehand
            // and adds up sizes in 32 bits.
            let entry = match self.engine().get_entry::<StoredEntries>(group, index) {
                Ok(Some(entry)) => entry,
                Ok(None) => return Err(damaged(index, &"it is not there")),
                Err(raft_engine::Error::Io(source)) => {
                    return Err(LogError::Io {
                        action: "read an entry from the log in",
                        path: self.core.dir.clone(),
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

    fn engine(&self) -> &Engine<Disk> {
        self.core.engine()
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.core.dir)
            .finish_non_exhaustive()
    }
}

/// Why there is no engine.
enum Unopened {
    Damaged(Damage),
    Other(raft_engine::Error),
}

fn open_engine(
    disk: &Disk,
    log_dir: &Path,
    options: &LogOptions,
    on_damage: OnDamage,
) -> Result<(Engine<Disk>, Notes), Unopened> {
    let open = || {
        let config = config(log_dir, options, on_damage)?;
        Engine::open_with_file_system(config, Arc::new(disk.clone()))
    };
    disk.mark.read(&*disk.volume, log_dir);
    if let Some(damage) = disk.mark.missing(&*disk.volume, log_dir) {
        return Err(Unopened::Damaged(damage));
    }
    let opened = panic::catch_unwind(AssertUnwindSafe(open));
    let mut notes = disk.take_notes(Queue::Append);
    let of_rewrite = disk.take_notes(Queue::Rewrite).damage;
    if let Some(damage) = notes.damage.take().or(of_rewrite) {
        return Err(Unopened::Damaged(damage));
    }
    let somewhere = |reason| {
        Err(Unopened::Damaged(Damage {
            file: log_dir.to_owned(),
            offset: None,
            reason,
        }))
    };
    match opened {
        Ok(Ok(engine)) => Ok((engine, notes)),
        Ok(Err(raft_engine::Error::Corruption(reason))) => somewhere(reason),
        Ok(Err(error)) => Err(Unopened::Other(error)),
        // The engine panics when the writes it reads back do not fit together.
        Err(panic) => somewhere(message(panic)),
    }
}

fn named_io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    let path = path.to_path_buf();
    move |source| LogError::Io {
        action,
        path,
        source,
    }
}

fn aside_dir(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{ASIDE_DIR}{number}"))
}

/// The reasons are in the module's description.
fn config(
    log_dir: &Path,
    options: &LogOptions,
    on_damage: OnDamage,
) -> raft_engine::Result<Config> {
    let Some(dir) = log_dir.to_str() else {
        return Err(raft_engine::Error::InvalidArgument(
            "the path is not valid UTF-8".to_owned(),
        ));
    };
    Ok(Config {
        dir: dir.to_owned(),
        recovery_mode: match on_damage {
            // What was cut is empty, and there.
            OnDamage::Look => RecoveryMode::TolerateAnyCorruption,
            OnDamage::Refuse | OnDamage::Salvage => RecoveryMode::TolerateTailCorruption,
        },
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(options.file_bytes),
        // A purge has something to do as soon as a queue has two files. See `purge`.
        purge_threshold: ReadableSize(options.file_bytes),
        purge_rewrite_threshold: Some(ReadableSize(options.file_bytes)),
        purge_rewrite_garbage_ratio: 0.5,
        enable_log_recycle: false,
        prefill_for_recycle: false,
        ..Config::default()
    })
}

/// The engine ignores, without a word, all files before a gap in the numbers. Files are only ever
/// deleted from the oldest on, so a gap means that one was lost.
fn check_no_file_is_missing(log_dir: &Path, files: &[PathBuf]) -> Result<(), LogError> {
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

/// The groups that have entries below the index they were last truncated at, and that index: a
/// purge may have deleted the file that said so, but not the older copies of the entries.
fn floors(engine: &Engine<Disk>) -> HashMap<u64, u64> {
    let floor = |group: u64| {
        let bytes = engine.get(group, RECORD_FLOOR)?;
        let floor = u64::from_be_bytes(bytes.try_into().ok()?);
        (engine.first_index(group)? < floor).then_some((group, floor))
    };
    engine.raft_groups().into_iter().filter_map(floor).collect()
}

#[cfg(test)]
mod tests;
