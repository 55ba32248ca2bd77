//! What a log and its purgers share.

use std::any::Any;
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use raft_engine::Engine;

use super::disk::{Disk, Notes};
use super::purge::Purging;
use crate::LogError;
use crate::volume::is_full;

/// The engine, and what must be known of it on every thread.
pub(super) struct Core {
    engine: Engine<Disk>,
    pub(super) disk: Disk,
    /// The directory of the log's files.
    pub(super) dir: PathBuf,
    /// See [`LogOptions::file_bytes`](super::LogOptions::file_bytes).
    pub(super) file_bytes: u64,
    /// Held while purging, and by writes that no purge may see half done. See [`Purging`].
    purging: Mutex<Purging>,
    /// Something failed; what the disk holds is unknown.
    failed: AtomicBool,
    /// Tells the logs of this process apart.
    id: u64,
    /// Dropped last, when the files are closed.
    _lock: Box<dyn Send + Sync>,
}

impl Core {
    pub(super) fn new(
        engine: Engine<Disk>,
        disk: Disk,
        dir: PathBuf,
        file_bytes: u64,
        lock: Box<dyn Send + Sync>,
    ) -> Core {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Core {
            engine,
            disk,
            dir,
            file_bytes,
            purging: Mutex::default(),
            failed: AtomicBool::new(false),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            _lock: lock,
        }
    }

    pub(super) fn engine(&self) -> &Engine<Disk> {
        &self.engine
    }

    pub(super) fn purging(&self) -> MutexGuard<'_, Purging> {
        self.purging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if something has failed before.
    pub(super) fn check_not_failed(&self) -> Result<(), LogError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(LogError::Failed {
                dir: self.dir.clone(),
            });
        }
        Ok(())
    }

    /// From here on nothing is written any more.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Runs `read`, which makes the engine read entries, on a thread whose block cache is for this
    /// log alone: on this one if no other log has read here before, otherwise on one of its own.
    pub(super) fn with_block_cache<T: Send>(&self, read: impl FnOnce() -> T + Send) -> T {
        if self.owns_block_cache() {
            return read();
        }
        thread::scope(|scope| {
            let reader = scope.spawn(read);
            reader
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

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
}

impl Drop for Core {
    fn drop(&mut self) {
        if *self.failed.get_mut() {
            self.disk.abandon();
        }
    }
}

/// What the engine made of a call: its value, its error, or the panic it turned a failed sync into.
pub(super) type Outcome<T> = Result<raft_engine::Result<T>, Box<dyn Any + Send>>;

/// How a call that writes went wrong.
pub(super) enum Failure {
    /// The volume was full, and nothing was written.
    Full,
    /// A file could not be synced.
    Sync(PathBuf, std::io::Error),
    /// The engine gave up in the middle.
    Panic(String),
    /// Anything else.
    Other(raft_engine::Error),
}

impl Failure {
    /// What went wrong, if anything did.
    ///
    /// The engine takes a write that does not fit back: it cuts the file to where the write began,
    /// and goes on from there. (It looks for a full disk in the text of the error, for a word that
    /// no system uses, so its own way of dealing with one is never taken.) Only when the cut fails
    /// too does something remain.
    pub(super) fn of<T>(outcome: Outcome<T>, notes: impl FnOnce() -> Notes) -> Result<T, Failure> {
        let (error, notes) = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (error, notes()),
            Err(panic) => {
                return Err(match notes().sync_error {
                    Some((file, source)) => Failure::Sync(file, source),
                    None => Failure::Panic(message(panic)),
                });
            }
        };
        if let Some((file, source)) = notes.sync_error {
            return Err(Failure::Sync(file, source));
        }
        Err(match &error {
            raft_engine::Error::Io(source) if is_full(source) && !notes.cut_failed => Failure::Full,
            _ => Failure::Other(error),
        })
    }
}

/// What a panic said.
pub(super) fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => match panic.downcast::<&str>() {
            Ok(message) => (*message).to_owned(),
            Err(_) => "the storage engine panicked".to_owned(),
        },
    }
}
