//! Groups that are truncated and begin again, and the space that comes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use stock_storage::{Durability, Log, LogError, LogOptions, WriteBatch};
use tempfile::TempDir;

mod faulty;

use faulty::Faulty;

const FILE_BYTES: u64 = 8 << 10;

fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(dir: &Path) -> Log {
    let options = LogOptions {
        file_bytes: FILE_BYTES,
    };
    Log::open(Arc::new(Faulty::default()), dir, &options).unwrap()
}

fn read_all(log: &Log, group: u64) -> Vec<Bytes> {
    let mut out = Vec::new();
    if let Some((first, last)) = log.bounds(group) {
        log.read(group, first, last + 1, u64::MAX, &mut out)
            .unwrap();
    }
    out
}

/// The files as a killed process would leave them.
fn killed_copy(dir: &Path) -> TempDir {
    let copy = tempdir();
    fs::create_dir(copy.path().join("log")).unwrap();
    for file in fs::read_dir(dir.join("log")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("log").join(file.file_name())).unwrap();
    }
    copy
}

/// What a group should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    first: u64,
    entries: Vec<Bytes>,
    state: Option<Vec<u8>>,
    origin: Option<Vec<u8>>,
    replica: Option<Vec<u8>>,
}

impl Group {
    fn of(log: &Log, group: u64) -> Group {
        Group {
            first: log.bounds(group).map_or(0, |(first, _)| first),
            entries: read_all(log, group),
            state: log.state(group),
            origin: log.origin(group),
            replica: log.replica(group),
        }
    }

    fn is_nothing(&self) -> bool {
        *self == Group::default()
    }

    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    fn append(&mut self, first: u64, entries: &[Bytes]) {
        if self.entries.is_empty() {
            self.first = first;
        }
        self.entries.truncate((first - self.first) as usize);
        self.entries.extend_from_slice(entries);
    }

    fn truncate_before(&mut self, index: u64) {
        if self.entries.is_empty() || index <= self.first {
            return;
        }
        let gone = ((index - self.first) as usize).min(self.entries.len());
        self.entries.drain(..gone);
        self.first = if self.entries.is_empty() { 0 } else { index };
    }

    fn reset(&mut self) {
        self.first = 0;
        self.entries.clear();
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// An entry no two of which are the same.
    fn entry(&mut self) -> Bytes {
        let len = 8 + self.below(400) as usize;
        Bytes::from(self.below(u64::MAX).to_be_bytes().repeat(len / 8))
    }
}

type Model = BTreeMap<u64, Group>;

/// Does something to a group, in the batch and in the model.
fn step(dice: &mut Dice, batch: &mut WriteBatch, model: &mut Model) {
    let group = dice.below(4);
    let held = model.entry(group).or_default();
    let bytes = dice.below(u64::MAX).to_be_bytes();
    match dice.below(24) {
        0 => {
            batch.reset(group);
            held.reset();
        }
        1 => {
            batch.forget(group);
            *held = Group {
                replica: held.replica.take(),
                ..Group::default()
            };
        }
        2..6 => {
            let index = match held.entries.len() as u64 {
                0 => dice.below(100),
                // Now and then all of them, and beyond.
                len => held.first + dice.below(len + 2),
            };
            batch.truncate_before(group, index);
            held.truncate_before(index);
        }
        6 => {
            batch.put_replica(group, &bytes);
            held.replica = Some(bytes.to_vec());
        }
        7 => {
            batch.put_origin(group, &bytes);
            held.origin = Some(bytes.to_vec());
        }
        8..11 => {
            batch.put_state(group, &bytes);
            held.state = Some(bytes.to_vec());
        }
        _ => {
            let entries: Vec<Bytes> = (0..1 + dice.below(12)).map(|_| dice.entry()).collect();
            let first = match held.entries.len() as u64 {
                0 => 1 + dice.below(60),
                // Mostly at the end, sometimes over the tail.
                len => held.last() + 1 - dice.below(len + 1) * u64::from(dice.below(4) == 0),
            };
            batch.append(group, first, &entries);
            held.append(first, &entries);
        }
    }
}

fn check(log: &Log, model: &Model, context: &str) {
    for (&group, wanted) in model {
        assert_eq!(Group::of(log, group), *wanted, "group {group}, {context}");
    }
    let groups: Vec<u64> = model
        .iter()
        .filter(|(_, group)| !group.is_nothing())
        .map(|(&group, _)| group)
        .collect();
    // A group that was emptied and has no record may still be listed until the log is opened again.
    assert!(
        groups.iter().all(|group| log.groups().contains(group)),
        "{context}"
    );
}

#[test]
fn whatever_is_written_truncated_and_purged_is_there_after_a_restart() {
    for seed in 1..=24 {
        let dir = tempdir();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (seed << 7));
        let mut model = Model::new();
        let mut log = open(dir.path());
        let mut batch = WriteBatch::new();
        for round in 0..400 {
            let context = format!("seed {seed}, round {round}");
            for _ in 0..1 + dice.below(4) {
                step(&mut dice, &mut batch, &mut model);
            }
            log.write(&mut batch, Durability::Lazy).unwrap();
            if dice.below(12) == 0 {
                log.purger().purge(0).unwrap();
                check(&log, &model, &context);
            }
            match dice.below(40) {
                0 => {
                    drop(log);
                    log = open(dir.path());
                    check(&log, &model, &context);
                }
                1 => {
                    let copy = killed_copy(dir.path());
                    check(&open(copy.path()), &model, &context);
                }
                _ => {}
            }
        }
        check(&log, &model, "at the end");
    }
}

#[test]
fn a_group_begins_again_whole_or_not_at_all() {
    // Below its old entries, above them, and without any.
    for begin in [Some(3), Some(200), None] {
        let dir = tempdir();
        let mut log = open(dir.path());
        let mut model = Model::new();
        let mut batch = WriteBatch::new();
        batch.append(1, 5, ["five", "six"]);
        batch.put_replica(1, b"replica");
        batch.put_origin(1, b"origin");
        batch.put_state(1, b"state");
        batch.append(2, 1, ["other"]);
        log.write(&mut batch, Durability::Sync).unwrap();
        let before = (Group::of(&log, 1), Group::of(&log, 2));
        let file = dir.path().join("log/0000000000000001.raftlog");
        let end = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1
        };
        let start = end(&file);

        batch.put_state(1, b"new state");
        batch.append(2, 2, ["more"]);
        batch.reset(1);
        batch.put_origin(1, b"new origin");
        if let Some(begin) = begin {
            batch.append(1, begin, ["again"]);
        }
        log.write(&mut batch, Durability::Sync).unwrap();
        let wanted = Group {
            first: begin.unwrap_or(0),
            entries: begin.map(|_| Bytes::from("again")).into_iter().collect(),
            state: Some(b"new state".to_vec()),
            origin: Some(b"new origin".to_vec()),
            replica: Some(b"replica".to_vec()),
        };
        model.insert(1, wanted);
        check(&log, &model, "at once");
        assert_eq!(log.bounds(1), begin.map(|begin| (begin, begin)));

        let stop = end(&file);
        for kept in start..=stop {
            let copy = killed_copy(dir.path());
            fs::OpenOptions::new()
                .write(true)
                .open(copy.path().join("log/0000000000000001.raftlog"))
                .unwrap()
                .set_len(kept)
                .unwrap();
            let log = open(copy.path());
            if kept < stop {
                let found = (Group::of(&log, 1), Group::of(&log, 2));
                assert_eq!(found, before, "cut at {kept}");
            } else {
                check(&log, &model, "uncut");
                assert_eq!(read_all(&log, 2), ["other", "more"]);
            }
        }
    }
}

#[test]
fn a_forgotten_group_keeps_its_replica_record_and_nothing_else() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    for group in [1, 2] {
        batch.append(group, 1, ["entry"]);
        batch.put_origin(group, b"origin");
        batch.put_state(group, b"state");
    }
    batch.put_replica(1, b"replica");
    log.write(&mut batch, Durability::Sync).unwrap();
    // What the batch itself held is forgotten too; what comes after is not.
    batch.put_state(1, b"later state");
    batch.forget(1);
    batch.forget(2);
    batch.append(2, 70, ["seventy"]);
    log.write(&mut batch, Durability::Sync).unwrap();
    for _ in 0..2 {
        assert_eq!(
            (log.bounds(1), log.state(1), log.origin(1)),
            (None, None, None)
        );
        assert_eq!(log.replica(1).unwrap(), b"replica");
        assert_eq!((log.bounds(2), log.state(2)), (Some((70, 70)), None));
        assert_eq!(log.groups(), [1, 2]);
        drop(log);
        log = open(dir.path());
    }
    batch.forget(2);
    log.write(&mut batch, Durability::Sync).unwrap();
    assert_eq!(log.groups(), [1]);
}

#[test]
fn steps_of_one_batch_are_judged_in_their_order() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    batch.append(1, 10, ["10", "11", "12"]);
    log.write(&mut batch, Durability::Sync).unwrap();
    // Below the first entry left by a truncation of the same batch.
    batch.truncate_before(1, 12);
    batch.append(1, 11, ["x"]);
    let error = log.write(&mut batch, Durability::Sync).unwrap_err();
    assert!(
        matches!(
            error,
            LogError::OutOfOrder {
                index: 11,
                first: 12,
                last: 12,
                ..
            }
        ),
        "{error}"
    );
    batch.clear();
    assert_eq!(log.bounds(1), Some((10, 12)), "nothing was written");
    // After a truncation that empties it, it may begin anywhere.
    batch.truncate_before(1, 13);
    batch.append(1, 2, ["2"]);
    batch.append(1, 3, ["3"]);
    log.write(&mut batch, Durability::Sync).unwrap();
    assert_eq!(read_all(&log, 1), ["2", "3"]);
}

/// The numbers of the log's files with this extension, in ascending order.
fn numbers(dir: &Path, extension: &str) -> Vec<u64> {
    let files = fs::read_dir(dir.join("log")).unwrap();
    let mut numbers: Vec<u64> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_will_soon_be_truncated_is_not_written_twice() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    // Too few bytes for a file of copies, too many entries to be copied at once.
    let idle: Vec<Bytes> = (0..40_u8).map(|byte| Bytes::from(vec![byte; 50])).collect();
    batch.append(9, 1, &idle);
    log.write(&mut batch, Durability::Lazy).unwrap();
    let purger = log.purger();
    // Of each group 120 entries at most, of 400 bytes with what is around them.
    let room_bytes = 3 * 120 * 400;
    let mut most = 0;
    for index in 1..=3000_u64 {
        for group in 0..3 {
            batch.append(group, index, [vec![group as u8; 300]]);
        }
        log.write(&mut batch, Durability::Lazy).unwrap();
        if index.is_multiple_of(40) {
            for group in 0..3 {
                batch.truncate_before(group, index.saturating_sub(80));
                log.write(&mut batch, Durability::Lazy).unwrap();
                // More often than files are begun, which must not matter.
                for _ in 0..4 {
                    purger.purge(room_bytes).unwrap();
                }
                most = most.max(numbers(dir.path(), "raftlog").len() as u64);
            }
        }
    }
    assert!(most <= room_bytes.div_ceil(FILE_BYTES) + 1, "{most} files");
    assert_eq!(
        numbers(dir.path(), "rewrite"),
        [1],
        "hardly anything copied"
    );
    assert_eq!(read_all(&log, 9), idle);
}

#[test]
fn what_nothing_is_needed_of_is_deleted_though_there_is_room() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    let purger = log.purger();
    for index in 1..=1000_u64 {
        batch.append(1, index, [vec![1; 300]]);
        batch.truncate_before(1, index.saturating_sub(50));
        log.write(&mut batch, Durability::Lazy).unwrap();
        if index.is_multiple_of(100) {
            purger.purge(u64::MAX).unwrap();
            // Of more than forty in all.
            assert!(numbers(dir.path(), "raftlog").len() <= 5, "{index}");
        }
    }
}

#[test]
fn what_was_truncated_is_deleted_before_the_next_file_is_begun() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    let purger = log.purger();
    for index in 1..=60_u64 {
        batch.append(1, index, [vec![1; 300]]);
        log.write(&mut batch, Durability::Lazy).unwrap();
    }
    purger.purge(u64::MAX).unwrap();
    assert!(numbers(dir.path(), "raftlog").len() > 1);
    batch.truncate_before(1, 60);
    log.write(&mut batch, Durability::Lazy).unwrap();
    purger.purge(u64::MAX).unwrap();
    assert_eq!(numbers(dir.path(), "raftlog").len(), 1);
}

#[test]
fn a_log_that_is_truncated_and_purged_stays_small() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    // One group is written once and then never again: it must not keep old files for ever.
    let idle: Vec<Bytes> = (0..60_u8).map(|byte| Bytes::from(vec![byte; 50])).collect();
    batch.append(9, 1, &idle);
    batch.put_origin(9, b"idle");
    log.write(&mut batch, Durability::Lazy).unwrap();
    let purger = log.purger();
    let mut most = 0;
    for index in 1..=3000_u64 {
        for group in 0..3 {
            batch.append(group, index, [vec![group as u8; 300]]);
            if index.is_multiple_of(4) {
                batch.truncate_before(group, index.saturating_sub(8));
            }
        }
        log.write(&mut batch, Durability::Lazy).unwrap();
        if index.is_multiple_of(10) {
            purger.purge(0).unwrap();
            // The space reserved in the file being written is the engine's to choose.
            most = most.max(log.disk_bytes().unwrap());
        }
    }
    drop(purger);
    // Some 2.7 MB were written, in some 340 files.
    let written = numbers(dir.path(), "raftlog");
    let copied = numbers(dir.path(), "rewrite");
    assert!(written.len() <= 5, "{written:?}");
    assert!(copied.len() <= 5, "{copied:?}");
    assert!(most < 12 * FILE_BYTES, "{most}");
    for _ in 0..2 {
        assert_eq!(read_all(&log, 9), idle);
        assert_eq!(log.origin(9).unwrap(), b"idle");
        assert_eq!(log.bounds(1), Some((2992, 3000)));
        drop(log);
        log = open(dir.path());
    }
}

/// Ends the other thread, also when this one fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_log_may_be_purged_while_it_is_written() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut model = Model::new();
    let mut dice = Dice(77);
    let done = AtomicBool::new(false);
    let purger = log.purger();
    std::thread::scope(|scope| {
        let ending = Ending(&done);
        let purges = scope.spawn(|| {
            let mut purges = 0;
            while !done.load(Ordering::Relaxed) {
                purger.purge(0).unwrap();
                purges += 1;
            }
            purges
        });
        let mut batch = WriteBatch::new();
        for round in 0..4000 {
            for _ in 0..1 + dice.below(4) {
                step(&mut dice, &mut batch, &mut model);
            }
            log.write(&mut batch, Durability::Lazy).unwrap();
            if round % 100 == 0 {
                check(&log, &model, &format!("round {round}"));
            }
        }
        drop(ending);
        assert!(purges.join().unwrap() > 10);
    });
    check(&log, &model, "at the end");
    drop((log, purger));
    check(&open(dir.path()), &model, "after a restart");
}

#[test]
fn a_purge_reads_no_other_log_of_its_thread() {
    // Two logs whose files look alike: the engine's block cache would mix them up.
    let dirs = [tempdir(), tempdir()];
    let mut logs = Vec::new();
    for (dir, name) in dirs.iter().zip(["a", "b"]) {
        let mut log = open(dir.path());
        let mut batch = WriteBatch::new();
        batch.append(1, 1, [name]);
        log.write(&mut batch, Durability::Lazy).unwrap();
        for index in 1..=100_u64 {
            batch.append(2, index, [vec![0; 300]]);
            batch.truncate_before(2, index);
            log.write(&mut batch, Durability::Lazy).unwrap();
        }
        logs.push(log);
    }
    for log in &logs {
        read_all(log, 1);
        log.purger().purge(0).unwrap();
    }
    drop(logs);
    for (dir, name) in dirs.iter().zip(["a", "b"]) {
        assert!(!dir.path().join("log/0000000000000001.raftlog").exists());
        assert_eq!(read_all(&open(dir.path()), 1), [name]);
    }
}

#[test]
fn a_purge_that_cannot_sync_stops_the_log() {
    let dir = tempdir();
    let volume = Faulty::default();
    let options = LogOptions {
        file_bytes: FILE_BYTES,
    };
    let mut log = Log::open(Arc::new(volume.clone()), dir.path(), &options).unwrap();
    let mut batch = WriteBatch::new();
    for index in 1..=100_u64 {
        batch.append(1, index, [vec![0; 300]]);
        log.write(&mut batch, Durability::Lazy).unwrap();
    }
    volume.state().syncs_fail = Some(".rewrite");
    let error = log.purger().purge(0).unwrap_err();
    assert!(matches!(error, LogError::Sync { .. }), "{error:?}");
    volume.state().syncs_fail = None;
    assert!(matches!(
        log.purger().purge(0).unwrap_err(),
        LogError::Failed { .. }
    ));
    batch.append(1, 101, ["x"]);
    let error = log.write(&mut batch, Durability::Sync).unwrap_err();
    assert!(matches!(error, LogError::Failed { .. }), "{error:?}");
    drop(log);
    assert_eq!(open(dir.path()).bounds(1), Some((1, 100)));
}

#[test]
fn the_name_of_a_new_file_is_durable_before_anything_is_written_to_it() {
    let dir = tempdir();
    let volume = Faulty::default();
    let options = LogOptions {
        file_bytes: FILE_BYTES,
    };
    let mut log = Log::open(Arc::new(volume.clone()), dir.path(), &options).unwrap();
    let mut batch = WriteBatch::new();
    for index in 1..=100_u64 {
        batch.append(1, index, [vec![0; 300]]);
        log.write(&mut batch, Durability::Sync).unwrap();
    }
    let events = std::mem::take(&mut volume.state().events);
    let created = events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.0 == "create");
    let mut files = 0;
    for (at, _) in created {
        assert_eq!(events[at + 1], ("sync_dir", "log".to_owned()));
        files += 1;
    }
    assert!(files > 4, "{events:?}");
}

#[test]
fn every_copy_is_durable_before_the_next_one_and_before_its_file_is_deleted() {
    let dir = tempdir();
    let volume = Faulty::default();
    let options = LogOptions {
        // So that no copy begins a file, which would sync the one before.
        file_bytes: 512 << 10,
    };
    let mut log = Log::open(Arc::new(volume.clone()), dir.path(), &options).unwrap();
    let mut batch = WriteBatch::new();
    // Copied in several writes, which hold at most 128 KiB each.
    batch.append(1, 1, vec![vec![1; 60 << 10]; 6]);
    batch.append(2, 1, [vec![2; 100]]);
    log.write(&mut batch, Durability::Lazy).unwrap();
    for index in 1..=100_u64 {
        batch.append(3, index, [vec![0; 25_000]]);
        batch.truncate_before(3, index);
        log.write(&mut batch, Durability::Lazy).unwrap();
    }
    volume.state().events.clear();
    log.purger().purge(0).unwrap();
    let events = std::mem::take(&mut volume.state().events);
    let mut unsynced = 0;
    let (mut copies, mut deletions) = (0, 0);
    let mut deleted_unsynced = false;
    for (verb, name) in &events {
        match (*verb, name.ends_with(".rewrite")) {
            ("write", true) => {
                assert_eq!(unsynced, 0, "{events:?}");
                unsynced += 1;
                copies += 1;
            }
            ("sync", true) => unsynced = 0,
            ("delete", _) => {
                assert!(unsynced == 0 && !deleted_unsynced, "{events:?}");
                deleted_unsynced = true;
                deletions += 1;
            }
            ("sync_dir", _) => deleted_unsynced = false,
            _ => {}
        }
    }
    assert!(copies >= 2 && deletions >= 3, "{events:?}");
}
