//! What the log relies on the engine for, or works around in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use raft_engine::LogBatch;

use super::*;
use crate::{OsVolume, VolumeFile};

/// A volume on which syncs fail when told to.
#[derive(Debug, Default)]
struct Unsyncable {
    syncs_fail: Arc<AtomicBool>,
}

impl Volume for Unsyncable {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>> {
        Ok(Arc::new(UnsyncableFile {
            file: OsVolume.open(path, access)?,
            syncs_fail: Arc::clone(&self.syncs_fail),
        }))
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

struct UnsyncableFile {
    file: Arc<dyn VolumeFile>,
    syncs_fail: Arc<AtomicBool>,
}

impl VolumeFile for UnsyncableFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.reserve(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.syncs_fail.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.file.sync()
    }
}

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
    let volume = Unsyncable::default();
    let syncs_fail = Arc::clone(&volume.syncs_fail);
    let mut log = Log::open(Arc::new(volume), dir.path(), &LogOptions::default()).unwrap();
    log.write(&mut batch(1, 1), Durability::Sync).unwrap();

    syncs_fail.store(true, Ordering::Relaxed);
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
    syncs_fail.store(false, Ordering::Relaxed);
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
        let mut log = Log::open(Arc::new(OsVolume), dir.path(), &LogOptions::default()).unwrap();
        log.write(&mut batch(1, index), Durability::Sync).unwrap();
        drop(log);
        ends.push(fs::metadata(&file).unwrap().len() as usize);
    }
    let mut bytes = fs::read(&file).unwrap();
    bytes[ends[1] - 1] ^= 1;
    fs::write(&file, &bytes).unwrap();

    let error = Log::open(Arc::new(OsVolume), dir.path(), &LogOptions::default()).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "nothing may be changed");

    let engine =
        Engine::open(config(&log_dir, &LogOptions::default(), OnDamage::Refuse).unwrap()).unwrap();
    assert!(
        engine.last_index(1).unwrap() < 3,
        "the engine forgets without a word"
    );
}

#[test]
fn an_engine_in_the_strict_mode_would_not_survive_a_killed_process() {
    // Why the recovery mode is what it is.
    let dir = tempdir();
    let mut log = Log::open(Arc::new(OsVolume), dir.path(), &LogOptions::default()).unwrap();
    log.write(&mut batch(1, 1), Durability::Sync).unwrap();
    // What a killed process leaves: the file is not closed, so it still has its reserved space.
    let copy = tempdir();
    let name = "0000000000000001.raftlog";
    fs::copy(dir.path().join(LOG_DIR).join(name), copy.path().join(name)).unwrap();

    let strict = |recovery_mode| {
        let config = config(copy.path(), &LogOptions::default(), OnDamage::Refuse).unwrap();
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
    let volume = Unsyncable::default();
    let syncs_fail = Arc::clone(&volume.syncs_fail);
    let disk = Disk::new(Arc::new(volume));
    let engine = config(dir.path(), &LogOptions::default(), OnDamage::Refuse)
        .and_then(|config| Engine::open_with_file_system(config, Arc::new(disk)))
        .unwrap();
    syncs_fail.store(true, Ordering::Relaxed);
    assert!(engine.sync().is_ok());
    assert_eq!(engine.write(&mut LogBatch::default(), true).unwrap(), 0);
    syncs_fail.store(false, Ordering::Relaxed);
}
