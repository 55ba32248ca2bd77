//! A log that is damaged is used as far as it is whole, if that is asked for, and kept as it was
//! found.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use stock_storage::{
    Durability, Log, LogError, LogOptions, OnDamage, OsVolume, ReadOnlyVolume, Volume, WriteBatch,
};
use tempfile::TempDir;

const GROUP: u64 = 3;
const ENTRIES: u64 = 40;
const OPTIONS: LogOptions = LogOptions { file_bytes: 4_000 };

/// Long enough that the log has several files.
fn entry(index: u64) -> Bytes {
    Bytes::from(format!("{index:-^400}"))
}

/// A log of several files; each entry was a write of its own.
fn written() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(Arc::new(OsVolume), dir.path(), &OPTIONS).unwrap();
    for index in 1..=ENTRIES {
        let mut batch = WriteBatch::new();
        batch.append(GROUP, index, &[entry(index)]);
        batch.put_state(GROUP, &index.to_be_bytes());
        log.write(&mut batch, Durability::Sync).unwrap();
    }
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "raftlog"));
    files.sort();
    files
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let files = files(dir).into_iter();
    files
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .collect()
}

/// Turns a bit over behind an entry: in the footer of its write. Returns in which file.
fn damage(dir: &Path, index: u64) -> PathBuf {
    let wanted = entry(index);
    for file in files(&dir.join("log")) {
        let mut content = fs::read(&file).unwrap();
        let found = content.windows(wanted.len()).position(|it| it == wanted);
        if let Some(at) = found {
            content[at + wanted.len() + 8] ^= 1;
            fs::write(&file, content).unwrap();
            return file;
        }
    }
    panic!("entry {index} is nowhere");
}

fn open_or(
    volume: Arc<dyn Volume>,
    dir: &Path,
    on_damage: OnDamage,
) -> Result<(Log, usize), LogError> {
    let told = RefCell::new(0);
    let log = Log::open_or(volume, dir, &OPTIONS, on_damage, |_| {
        *told.borrow_mut() += 1;
        Ok(())
    })?;
    Ok((log, told.into_inner()))
}

fn check(log: &Log, last: u64) {
    assert_eq!(log.bounds(GROUP), Some((1, last)));
    assert_eq!(log.state(GROUP), Some(last.to_be_bytes().to_vec()));
    let mut read = Vec::new();
    log.read(GROUP, 1, last + 1, u64::MAX, &mut read).unwrap();
    assert_eq!(read, (1..=last).map(entry).collect::<Vec<_>>());
}

#[test]
fn what_was_written_before_the_damage_is_used_wherever_that_is() {
    for index in [2, 11, 25, ENTRIES - 1] {
        let dir = written();
        assert!(files(&dir.path().join("log")).len() > 4);
        let file = damage(dir.path(), index);
        let found = contents(&dir.path().join("log"));
        let refused = Log::open(Arc::new(OsVolume), dir.path(), &OPTIONS);
        assert!(matches!(refused, Err(LogError::Damaged { .. })), "{index}");

        // Whoever looks changes nothing.
        let looking = Arc::new(ReadOnlyVolume::default());
        let (log, told) = open_or(looking, dir.path(), OnDamage::Look).unwrap();
        check(&log, index - 1);
        assert_eq!(told, 1);
        assert_eq!(log.salvage().unwrap().aside, None);
        drop(log);
        assert!(contents(&dir.path().join("log")) == found, "{index}");

        let (log, told) = open_or(Arc::new(OsVolume), dir.path(), OnDamage::Salvage).unwrap();
        check(&log, index - 1);
        let salvage = log.salvage().unwrap().clone();
        let is_named = salvage.file == file || salvage.file == dir.path().join("log");
        assert!(told == 1 && is_named, "{salvage:?}");
        assert!(contents(&salvage.aside.unwrap()) == found, "{index}");
        drop(log);

        // From then on it is a log like any other.
        let mut log = Log::open(Arc::new(OsVolume), dir.path(), &OPTIONS).unwrap();
        assert!(log.salvage().is_none());
        let mut batch = WriteBatch::new();
        batch.append(GROUP, index, &[entry(index)]);
        batch.put_state(GROUP, &index.to_be_bytes());
        log.write(&mut batch, Durability::Sync).unwrap();
        drop(log);
        check(
            &Log::open(Arc::new(OsVolume), dir.path(), &OPTIONS).unwrap(),
            index,
        );
    }
}

#[test]
fn a_log_that_is_damaged_again_and_again_is_refused_in_the_end() {
    let dir = written();
    for index in [30, 20, 10] {
        damage(dir.path(), index);
        drop(open_or(Arc::new(OsVolume), dir.path(), OnDamage::Salvage).unwrap());
    }
    damage(dir.path(), 5);
    let found = contents(&dir.path().join("log"));
    let refused = open_or(Arc::new(OsVolume), dir.path(), OnDamage::Salvage);
    let refused = refused.err().unwrap();
    assert!(
        matches!(refused, LogError::DamagedAgain { .. }),
        "{refused}"
    );
    assert!(contents(&dir.path().join("log")) == found);
    // Once the disk is known to be well.
    for number in 1..=3 {
        fs::remove_dir_all(dir.path().join(format!("log.damaged-{number}"))).unwrap();
    }
    let (log, _) = open_or(Arc::new(OsVolume), dir.path(), OnDamage::Salvage).unwrap();
    check(&log, 4);
}

#[test]
fn a_log_of_which_a_file_is_missing_stays_as_it_is() {
    let dir = written();
    let missing = files(&dir.path().join("log")).remove(2);
    fs::remove_file(&missing).unwrap();
    let refused = open_or(Arc::new(OsVolume), dir.path(), OnDamage::Salvage);
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("it is missing"), "{refused}");
    assert!(!dir.path().join("log.damaged-1").exists());
}

#[test]
fn a_log_is_not_cut_before_it_was_said_that_it_will_be() {
    let dir = written();
    damage(dir.path(), 20);
    let found = contents(&dir.path().join("log"));
    let full = |_: &_| Err(std::io::ErrorKind::StorageFull.into());
    let refused = Log::open_or(
        Arc::new(OsVolume),
        dir.path(),
        &OPTIONS,
        OnDamage::Salvage,
        full,
    );
    assert!(refused.is_err());
    assert!(contents(&dir.path().join("log")) == found);
}

#[test]
fn of_a_log_that_was_emptied_nothing_is_left_and_nothing_is_in_the_way() {
    let dir = written();
    for file in files(&dir.path().join("log")) {
        fs::write(file, b"").unwrap();
    }
    let (log, told) = open_or(Arc::new(OsVolume), dir.path(), OnDamage::Salvage).unwrap();
    assert_eq!((log.bounds(GROUP), told), (None, 1));
    drop(log);
    drop(Log::open(Arc::new(OsVolume), dir.path(), &OPTIONS).unwrap());
}

/// A log whose oldest files were purged: what was still needed of them is in the copies alone.
fn purged() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(Arc::new(OsVolume), dir.path(), &OPTIONS).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_replica(GROUP + 1, b"who is here");
    log.write(&mut batch, Durability::Sync).unwrap();
    for index in 1..=ENTRIES {
        batch.append(GROUP, index, [entry(index)]);
        batch.truncate_before(GROUP, index);
        log.write(&mut batch, Durability::Sync).unwrap();
    }
    log.purger().purge(u64::MAX).unwrap();
    assert!(dir.path().join("log/REWRITTEN").exists());
    dir
}

#[test]
fn damage_to_what_was_copied_is_no_interrupted_write() {
    let copies = |dir: &TempDir| {
        let files = fs::read_dir(dir.path().join("log")).unwrap().flatten();
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "rewrite"));
        files.sort();
        files.pop().unwrap()
    };
    let open = |dir: &TempDir| Log::open(Arc::new(OsVolume), dir.path(), &OPTIONS);
    let whole = purged();
    let replica = open(&whole).unwrap().replica(GROUP + 1);
    assert_eq!(replica.as_deref(), Some(b"who is here".as_slice()));

    let content = fs::read(copies(&whole)).unwrap();
    let written = content.iter().rposition(|byte| *byte != 0).unwrap();
    let flipped = {
        let mut content = content.clone();
        content[written - 8] ^= 1;
        content
    };
    let harms: [(&str, Option<Vec<u8>>); 4] = [
        ("flipped", Some(flipped)),
        ("cut", Some(content[..written - 8].to_vec())),
        ("emptied", Some(Vec::new())),
        ("deleted", None),
    ];
    for (harm, content) in harms {
        let dir = purged();
        match content {
            Some(content) => fs::write(copies(&dir), content).unwrap(),
            None => fs::remove_file(copies(&dir)).unwrap(),
        }
        let refused = open(&dir);
        assert!(matches!(refused, Err(LogError::Damaged { .. })), "{harm}");
    }
}
