//! Sled, with its weaknesses held in check.
//!
//! What was read in the source of 0.34.7:
//!
//! - **`flush()` is no fsync.** On Linux it is `sync_file_range`, which neither asks the disk to
//!   empty its cache nor writes the file's size. So [`Engine::sync`] does an `fdatasync` of its
//!   own, on a descriptor that was opened before the first write: only such a one is sure to be
//!   told of a writeback that failed in between.
//! - **Only the file `db` changes while it runs.** `conf` is written once, without a sync, and
//!   `snap.*` at each open, so both are synced then, with the directory. Opening syncs `db` first:
//!   after a crash of the process the page cache may be ahead of the disk, and the new `snap` file,
//!   which sled does sync, must not be ahead of `db`.
//! - **A batch is recovered whole or not at all**: its first message names its last, and recovery
//!   stops before a batch that does not end. It holds for one tree, so there is only one.
//! - **A `snap.*.generating` left by a crash is later taken for a snapshot**, and refused as
//!   damage. They are deleted before sled sees them.
//! - **It panics on damage** as often as it returns an error. Every call goes through
//!   [`Engine::call`], which catches that. An engine that panicked is not closed but leaked, since
//!   its destructors flush and would panic again. Its lock stays with it, on a file that is set
//!   aside. One that only failed is closed, and a panic of that is caught, too: the last thing it
//!   does is a sync whose failure it does not expect.
//! - **A flush may wait for ever on a write that failed**: a write that the last of several
//!   writers hands to sled's own threads notes its failure and wakes nobody. So somebody looks for
//!   a failure while a flush lasts.
//! - **It cleans up old segments with each write** (one page a write), so it needs no thread for
//!   that, and `flush_every_ms` is off.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use crate::LedgerError;
use crate::volume::{Access, Volume, VolumeFile};

/// Pages of sled that stay in memory, in bytes.
const CACHE_BYTES: u64 = 32 << 20;

/// How long an open waits for a ledger of this process that was just dropped: sled lets go of its
/// lock only when its threads have let go of the file.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
const LOCK_WAIT_STEP: Duration = Duration::from_millis(5);

/// While sled flushes, a failure that it tells nobody of is looked for this often.
const FAILURE_LOOK_EVERY: Duration = Duration::from_millis(100);

const DATA_FILE: &str = "db";
/// In a directory whose content is not to be believed at the next open; its text says why.
const DISTRUST_FILE: &str = "DISTRUSTED";

/// An open sled database, and the means to make it durable.
pub(super) struct Engine {
    /// Gone only while dropping.
    db: Option<sled::Db>,
    data: Arc<dyn VolumeFile>,
    dir: PathBuf,
    /// A call failed for good.
    failed: AtomicBool,
    /// A call panicked, so the destructors must not run.
    panicked: AtomicBool,
}

impl Engine {
    /// Opens the files in `dir`, which is made if need be. Afterwards all of it is durable.
    pub(super) fn open(dir: &Path, volume: &dyn Volume) -> Result<Engine, LedgerError> {
        volume
            .create_dir(dir)
            .map_err(io_error("create the ledger directory", dir))?;
        let data_path = dir.join(DATA_FILE);
        // First of all: an engine of this process that panicked keeps its lock, but not its place.
        check_trusted(dir)?;
        check_not_in_use(dir, &data_path)?;
        for path in list(dir)? {
            if has_name(&path, |name| {
                name.starts_with("snap.") && name.ends_with(".generating")
            }) {
                fs::remove_file(&path).map_err(io_error("delete", &path))?;
            }
        }
        let data = volume
            .open(&data_path, Access::Create)
            .map_err(io_error("open the ledger file", &data_path))?;
        let sync_data = || data.sync().map_err(io_error("sync", &data_path));
        sync_data()?;

        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let db = match panic::catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => db,
            Ok(Err(error)) => return Err(opening_failed(dir, error)),
            Err(panic) => {
                return Err(LedgerError::Damaged {
                    dir: dir.to_path_buf(),
                    reason: message(panic),
                });
            }
        };
        let engine = Engine {
            db: Some(db),
            data: Arc::clone(&data),
            dir: dir.to_path_buf(),
            failed: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        };
        // Contents first, then the directories, from the inside out.
        sync_data()?;
        for path in list(dir)? {
            if path.is_file() && path != data_path {
                sync_path(&path)?;
            }
        }
        sync_path(dir)?;
        if let Some(parent) = dir.parent() {
            sync_path(parent)?;
        }
        Ok(engine)
    }

    /// Asks sled for something.
    ///
    /// # Errors
    ///
    /// Every error is fatal: [`LedgerError::Damaged`], [`LedgerError::Write`] where only the disk
    /// had something against it, or [`LedgerError::Failed`] after either.
    pub(super) fn call<T>(
        &self,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, LedgerError> {
        let db = match &self.db {
            Some(db) if !self.failed.load(Ordering::Acquire) => db,
            _ => {
                return Err(LedgerError::Failed {
                    dir: self.dir.clone(),
                });
            }
        };
        match panic::catch_unwind(AssertUnwindSafe(|| call(db))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if is_of_the_disk(&error) => {
                self.failed.store(true, Ordering::Release);
                Err(LedgerError::Write {
                    dir: self.dir.clone(),
                    source: error,
                })
            }
            Ok(Err(error)) => Err(self.damaged(error.to_string())),
            Err(panic) => {
                self.panicked.store(true, Ordering::Release);
                Err(self.damaged(message(panic)))
            }
        }
    }

    /// Makes everything durable that was written before this call.
    pub(super) fn sync(&self) -> Result<(), LedgerError> {
        self.call(flush)?;
        self.data.sync().map_err(|source| {
            // What the disk holds is unknown, and the page cache would hide it from the next open.
            self.distrust("a sync failed");
            LedgerError::Sync {
                file: self.dir.join(DATA_FILE),
                source,
            }
        })
    }

    /// Takes no further call, and has the files set aside at the next open.
    pub(super) fn damaged(&self, reason: String) -> LedgerError {
        self.distrust(&reason);
        LedgerError::Damaged {
            dir: self.dir.clone(),
            reason,
        }
    }

    fn distrust(&self, reason: &str) {
        self.failed.store(true, Ordering::Release);
        let path = self.dir.join(DISTRUST_FILE);
        let written = fs::write(&path, reason)
            .and_then(|()| File::open(&path)?.sync_all())
            .and_then(|()| File::open(&self.dir)?.sync_all());
        // Without the note the next open, or the next read, has to find the damage again.
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot note that the ledger is \
                damaged");
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("dir", &self.dir)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let db = self.db.take();
        if self.panicked.load(Ordering::Acquire) {
            std::mem::forget(db);
            return;
        }
        let closed = panic::catch_unwind(AssertUnwindSafe(|| {
            if let Some(db) = db {
                // As the last thing it does sled flushes, where nobody looks for a failure; then
                // nothing is left to write. Whoever wanted it durable has synced it before.
                let _ = flush(&db);
            }
        }));
        if let Err(panic) = closed {
            tracing::warn!(dir = %self.dir.display(), reason = message(panic), "sled closed its \
                files badly");
        }
    }
}

/// Has sled write what it holds, or say what failed. It cannot be asked to wait only so long: the
/// one who looks for a failure asks it to flush, too, which fails at once then, and wakes all who
/// wait.
fn flush(db: &sled::Db) -> sled::Result<()> {
    thread::scope(|scope| {
        let (flushing, over) = mpsc::sync_channel::<()>(0);
        scope.spawn(move || {
            while over.recv_timeout(FAILURE_LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if db.context.global_error().is_err() {
                    // Who waits is told the same.
                    let _ = db.flush();
                }
            }
        });
        let flushed = db.flush();
        drop(flushing);
        flushed.map(|_| ())
    })
}

/// Sled reports a lock that is taken in the same way as many other things, so its lock is tried
/// first.
fn check_not_in_use(dir: &Path, data_path: &Path) -> Result<(), LedgerError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(data_path)
        .map_err(io_error("open the ledger file", data_path))?;
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => {
                return file
                    .unlock()
                    .map_err(io_error("unlock the ledger file", data_path));
            }
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(LOCK_WAIT_STEP);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LedgerError::InUse {
                    dir: dir.to_path_buf(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(io_error("lock the ledger file", data_path)(source));
            }
        }
    }
}

fn check_trusted(dir: &Path) -> Result<(), LedgerError> {
    let path = dir.join(DISTRUST_FILE);
    match fs::read_to_string(&path) {
        Ok(reason) => Err(LedgerError::Damaged {
            dir: dir.to_path_buf(),
            reason,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_error("read", &path)(source)),
    }
}

fn opening_failed(dir: &Path, error: sled::Error) -> LedgerError {
    let dir = dir.to_path_buf();
    if is_of_the_disk(&error) {
        LedgerError::Write { dir, source: error }
    } else {
        LedgerError::Damaged {
            dir,
            reason: error.to_string(),
        }
    }
}

/// Whether the operating system refused something, with nothing wrong in what the files hold.
fn is_of_the_disk(error: &sled::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    // These are what sled makes itself of content that it does not understand.
    matches!(error, sled::Error::Io(error)
        if !matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof))
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_path_buf();
    move |source| LedgerError::Io {
        action,
        path,
        source,
    }
}

pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(io_error("list", dir))
}

pub(super) fn has_name(path: &Path, is_it: impl Fn(&str) -> bool) -> bool {
    path.file_name()
        .is_some_and(|name| is_it(&name.to_string_lossy()))
}

pub(super) fn sync_path(path: &Path) -> Result<(), LedgerError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(io_error("sync", path))
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
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::volume::OsVolume;
    use crate::{Ledger, LedgerBatch};

    /// The operating system's files, with syncs that are counted and can fail.
    #[derive(Debug, Default, Clone)]
    struct Disk {
        syncs: Arc<AtomicU64>,
        syncs_fail: Arc<AtomicBool>,
    }

    struct DiskFile(Arc<dyn VolumeFile>, Disk);

    impl Volume for Disk {
        fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>> {
            let file = OsVolume.open(path, access)?;
            Ok(Arc::new(DiskFile(file, self.clone())))
        }
        fn delete(&self, path: &Path) -> io::Result<()> {
            OsVolume.delete(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            OsVolume.rename(from, to)
        }
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            OsVolume.create_dir(dir)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
            OsVolume.list(dir)
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            OsVolume.sync_dir(dir)
        }
        fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
            OsVolume.lock(dir)
        }
        fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
            OsVolume.free_bytes(dir)
        }
    }

    impl VolumeFile for DiskFile {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buf, offset)
        }
        fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
            self.0.write_at(buf, offset)
        }
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.reserve(offset, len)
        }
        fn sync(&self) -> io::Result<()> {
            self.1.syncs.fetch_add(1, Ordering::Relaxed);
            if self.1.syncs_fail.load(Ordering::Relaxed) {
                return Err(io::Error::from_raw_os_error(5));
            }
            self.0.sync()
        }
    }

    fn append(ledger: &Ledger, index: u64) -> Result<(), LedgerError> {
        let mut batch = LedgerBatch::new();
        batch.append(1, index, [b"entry"]);
        ledger.append(&mut batch)
    }

    #[test]
    fn a_sync_is_a_sync_of_the_file_and_durable_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let ledger = super::super::opening::open(dir.path(), &disk)
            .unwrap()
            .ledger;
        ledger.begin(1, 0).unwrap();
        append(&ledger, 1).unwrap();
        let before = disk.syncs.load(Ordering::Relaxed);
        assert!(before >= 2, "before and after sled opens it");
        assert!(ledger.durable(1).is_none());
        ledger.sync().unwrap();
        assert_eq!(disk.syncs.load(Ordering::Relaxed), before + 1);
        assert_eq!(ledger.durable(1).unwrap().to, 1);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_written_and_the_next_open_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let ledger = super::super::opening::open(dir.path(), &disk)
            .unwrap()
            .ledger;
        ledger.begin(1, 0).unwrap();
        append(&ledger, 1).unwrap();
        ledger.sync().unwrap();
        append(&ledger, 2).unwrap();

        disk.syncs_fail.store(true, Ordering::Relaxed);
        let error = ledger.sync().unwrap_err();
        assert!(
            matches!(&error, LedgerError::Sync { source, .. } if source.raw_os_error() == Some(5)),
            "{error:?}"
        );
        // The disk is well again, but nobody knows what it has.
        disk.syncs_fail.store(false, Ordering::Relaxed);
        for error in [ledger.sync(), append(&ledger, 3), ledger.begin(1, 9)] {
            let error = error.unwrap_err();
            assert!(matches!(error, LedgerError::Failed { .. }) && error.is_fatal());
        }
        assert_eq!(ledger.durable(1).unwrap().to, 1);
        drop(ledger);
        let opened = Ledger::open(dir.path()).unwrap();
        assert!(opened.set_aside.is_some() && opened.ledger.groups().is_empty());
    }

    #[test]
    fn a_panic_of_the_engine_is_damage_and_closing_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let ledger_dir = dir.path().join("ledger");
        let engine = Engine::open(&ledger_dir, &OsVolume).unwrap();
        let error = engine
            .call(|_| -> sled::Result<()> { panic!("pid 7 was double-freed") })
            .unwrap_err();
        assert!(
            matches!(&error, LedgerError::Damaged { reason, .. } if reason.contains("pid 7")),
            "{error:?}"
        );
        let error = engine.call(|db| db.get(b"key")).unwrap_err();
        assert!(matches!(error, LedgerError::Failed { .. }));
        drop(engine);
        // The old engine still has the lock of the old file.
        let opened = Ledger::open(dir.path()).unwrap();
        assert!(opened.set_aside.unwrap().reason.contains("pid 7"));
    }
}
