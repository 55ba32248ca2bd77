//! The ledger on a real disk: what it keeps, what it notices, and what it makes of damage.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use proptest::prelude::*;
use stock_storage::{
    Coverage, Cursor, Ledger, LedgerBatch, LedgerEntry, LedgerError, Opened, Page,
};
use tempfile::TempDir;

/// What a group should have: the entries of each index.
type Model = BTreeMap<u64, Vec<Vec<u8>>>;

/// Not in `/tmp`, which may be memory.
fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Opens a ledger that must be well.
fn open(dir: &Path) -> Ledger {
    let Opened {
        ledger,
        set_aside,
        holes,
    } = Ledger::open(dir).unwrap();
    assert!(set_aside.is_none(), "{set_aside:?}");
    assert!(holes.is_empty(), "{holes:?}");
    ledger
}

/// What index `index` of `group` leaves: between nothing and three entries, now and then a large
/// one.
fn entries_of(group: u64, index: u64) -> Vec<Vec<u8>> {
    let number = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (0..number % 4)
        .map(|ordinal| {
            let len = match (number + ordinal) % 50 {
                0 => 7000,
                1 => 2000,
                len => 20 + len as usize * 3,
            };
            let mut entry = format!("{group}/{index}/{ordinal}/").into_bytes();
            entry.resize(len.max(entry.len()), index as u8);
            entry
        })
        .collect()
}

fn append(ledger: &Ledger, group: u64, from: u64, to: u64) {
    let mut batch = LedgerBatch::new();
    for index in from..=to {
        batch.append(group, index, entries_of(group, index));
    }
    ledger.append(&mut batch).unwrap();
    assert!(batch.is_empty());
}

fn filled(dir: &Path, group: u64, to: u64) -> Ledger {
    let ledger = open(dir);
    ledger.begin(group, 0).unwrap();
    for from in (1..=to).step_by(100) {
        append(&ledger, group, from, to.min(from + 99));
    }
    ledger.sync().unwrap();
    ledger
}

/// Reads to the end in pages; the entries by index.
fn read_all(ledger: &Ledger, group: u64, after: Cursor) -> Result<Model, LedgerError> {
    let mut model = Model::new();
    let mut after = after;
    loop {
        let Page { entries, next } = ledger.read(group, after, 100, 20_000)?;
        assert!(next >= after);
        let done = entries.is_empty();
        for entry in entries {
            assert!(entry.cursor() > after);
            after = entry.cursor();
            let of_index: &mut Vec<Vec<u8>> = model.entry(entry.index).or_default();
            assert_eq!(of_index.len(), entry.ordinal as usize);
            of_index.push(entry.bytes.to_vec());
        }
        assert!(next >= after);
        after = next;
        if done {
            return Ok(model);
        }
    }
}

fn expected(group: u64, from: u64, to: u64) -> Model {
    (from..=to)
        .map(|index| (index, entries_of(group, index)))
        .filter(|(_, entries)| !entries.is_empty())
        .collect()
}

fn check(ledger: &Ledger, group: u64, from: u64, to: u64) {
    assert_eq!(ledger.coverage(group), Some(Coverage { from, to }));
    let read = read_all(ledger, group, Cursor::after_index(from - 1)).unwrap();
    assert!(read == expected(group, from, to), "group {group}");
}

/// The files as a killed process would leave them: copied while the ledger is open. What sled has
/// not handed to the operating system is not in them.
fn killed_copy(dir: &Path) -> TempDir {
    let copy = tempdir();
    fs::create_dir_all(copy.path().join("ledger/blobs")).unwrap();
    for file in fs::read_dir(dir.join("ledger")).unwrap() {
        let file = file.unwrap();
        if file.path().is_file() {
            let to = copy.path().join("ledger").join(file.file_name());
            fs::copy(file.path(), to).unwrap();
        }
    }
    copy
}

/// Opens and reads whatever is in a directory. It may refuse or lack something, but it may neither
/// panic nor show an entry that was never written, nor leave one out without saying so.
fn check_honest(dir: &Path, group: u64, to_max: u64) {
    let Opened {
        ledger,
        set_aside,
        holes,
    } = Ledger::open(dir).unwrap();
    let Some(coverage) = ledger.coverage(group) else {
        assert!(ledger.groups().is_empty());
        return;
    };
    assert!(set_aside.is_none() && coverage.to <= to_max, "{coverage:?}");
    match read_all(&ledger, group, Cursor::after_index(coverage.from - 1)) {
        Ok(read) => {
            assert!(read == expected(group, coverage.from, coverage.to));
            assert!(holes.is_empty(), "{holes:?}");
        }
        Err(LedgerError::Hole { from, to, .. }) => {
            assert!(coverage.from <= from && from <= to && to <= coverage.to);
        }
        Err(error) => assert!(error.is_fatal(), "{error:?}"),
    }
    drop(ledger);
    // It can always be opened again, and used.
    let opened = Ledger::open(dir).unwrap();
    if opened.set_aside.is_some() {
        opened.ledger.begin(group, to_max).unwrap();
        append(&opened.ledger, group, to_max + 1, to_max + 9);
        opened.ledger.sync().unwrap();
        check(&opened.ledger, group, to_max + 1, to_max + 9);
    }
}

fn flip(file: &Path, offset: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn a_ledger_is_one_handle_for_all_threads() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Ledger>();
}

#[test]
fn a_new_ledger_is_empty() {
    let dir = tempdir();
    let ledger = open(&dir.path().join("not/yet/there"));
    assert!(ledger.groups().is_empty());
    assert_eq!((ledger.coverage(1), ledger.durable(1)), (None, None));
    let error = ledger.read(1, Cursor::after_index(0), 10, 10).unwrap_err();
    assert!(matches!(error, LedgerError::UnknownGroup { group: 1 }));
    let mut batch = LedgerBatch::new();
    batch.append(1, 1, [b"entry"]);
    let error = ledger.append(&mut batch).unwrap_err();
    assert!(matches!(error, LedgerError::UnknownGroup { group: 1 }));
    assert!(!batch.is_empty());
}

#[test]
fn only_one_process_has_it_open() {
    let dir = tempdir();
    let _ledger = open(dir.path());
    let error = Ledger::open(dir.path()).unwrap_err();
    assert!(matches!(error, LedgerError::InUse { .. }), "{error:?}");
}

#[test]
fn what_was_appended_is_read_in_order_and_is_there_after_reopening() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 7, 1000);
    ledger.begin(3, 41).unwrap();
    append(&ledger, 3, 42, 44);
    check(&ledger, 7, 1, 1000);
    check(&ledger, 3, 42, 44);
    drop(ledger);
    let ledger = open(dir.path());
    assert_eq!(ledger.groups(), [3, 7]);
    check(&ledger, 7, 1, 1000);
    check(&ledger, 3, 42, 44);
    append(&ledger, 7, 1001, 1010);
    check(&ledger, 7, 1, 1010);
}

#[test]
fn a_page_goes_on_behind_any_entry_and_keeps_to_its_bounds() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 300);
    let all: Vec<LedgerEntry> = ledger
        .read(1, Cursor::after_index(0), usize::MAX, usize::MAX)
        .unwrap()
        .entries;
    assert!(all.iter().any(|entry| entry.bytes.len() > 2048));
    for (at, entry) in all.iter().enumerate() {
        let page = ledger.read(1, entry.cursor(), 5, usize::MAX).unwrap();
        let want = &all[at + 1..all.len().min(at + 6)];
        assert_eq!(page.entries, want);
        let page = ledger.read(1, entry.cursor(), usize::MAX, 3000).unwrap();
        let bytes: usize = page.entries.iter().map(|entry| entry.bytes.len()).sum();
        assert!(bytes <= 3000 || page.entries.len() == 1);
        assert_eq!(page.entries, all[at + 1..at + 1 + page.entries.len()]);
        assert!(!page.entries.is_empty() || at + 1 == all.len());
    }
    // An entry too large for the page is read all the same.
    let page = ledger.read(1, Cursor::after_index(0), 1, 1).unwrap();
    assert_eq!(page.entries, all[..1]);
    // Behind the end is silence, not an error.
    for index in [300, 301, 5000] {
        let page = ledger.read(1, Cursor::after_index(index), 10, 10).unwrap();
        assert_eq!((page.entries.len(), page.next.index), (0, index));
    }
}

#[test]
fn an_index_without_entries_is_covered() {
    let dir = tempdir();
    let ledger = open(dir.path());
    ledger.begin(1, 10).unwrap();
    assert_eq!(ledger.coverage(1), Some(Coverage { from: 11, to: 10 }));
    let mut batch = LedgerBatch::new();
    batch.append(1, 11, [[]; 0] as [[u8; 0]; 0]);
    batch.append(1, 12, [b"", b""]);
    batch.reached(1, 90);
    batch.append(1, 91, [b"last"]);
    ledger.append(&mut batch).unwrap();
    assert_eq!(ledger.coverage(1), Some(Coverage { from: 11, to: 91 }));
    let page = ledger.read(1, Cursor::after_index(10), 2, 100).unwrap();
    let places: Vec<_> = page.entries.iter().map(LedgerEntry::cursor).collect();
    let at = |index, ordinal| Cursor { index, ordinal };
    assert_eq!(places, [at(12, 0), at(12, 1)]);
    assert_eq!(page.next, Cursor::after_index(90));
    let page = ledger.read(1, page.next, 2, 100).unwrap();
    assert_eq!(page.entries[0].bytes, "last");
}

#[test]
fn an_append_that_does_not_fit_is_refused_whole() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 10);
    ledger.begin(2, 0).unwrap();
    for (index, expected_index) in [(10, 11), (12, 11)] {
        let mut batch = LedgerBatch::new();
        batch.append(2, 1, [b"fits"]);
        batch.append(1, index, [b"does not"]);
        let error = ledger.append(&mut batch).unwrap_err();
        assert!(
            matches!(
                error,
                LedgerError::OutOfOrder { group: 1, index: i, expected }
                    if (i, expected) == (index, expected_index)
            ),
            "{error:?}"
        );
        assert!(!error.is_fatal());
    }
    let mut batch = LedgerBatch::new();
    batch.append(1, 11, [vec![0; (1 << 20) + 1]]);
    let error = ledger.append(&mut batch).unwrap_err();
    assert!(matches!(error, LedgerError::TooLarge { .. }), "{error:?}");
    check(&ledger, 1, 1, 10);
    assert_eq!(ledger.coverage(2), Some(Coverage { from: 1, to: 0 }));
}

#[test]
fn durable_is_what_was_synced() {
    let dir = tempdir();
    let ledger = open(dir.path());
    ledger.begin(1, 5).unwrap();
    append(&ledger, 1, 6, 9);
    assert_eq!(ledger.durable(1), None);
    ledger.sync().unwrap();
    append(&ledger, 1, 10, 20);
    assert_eq!(ledger.durable(1), Some(Coverage { from: 6, to: 9 }));
    assert_eq!(ledger.coverage(1), Some(Coverage { from: 6, to: 20 }));
    ledger.sync().unwrap();
    assert_eq!(ledger.durable(1), Some(Coverage { from: 6, to: 20 }));
}

#[test]
fn what_was_synced_survives_a_killed_process() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 500);
    append(&ledger, 1, 501, 600);
    let copy = killed_copy(dir.path());
    let after = open(copy.path());
    let Coverage { from, to } = after.coverage(1).unwrap();
    assert!(from == 1 && (500..=600).contains(&to), "{to}");
    assert_eq!(after.durable(1), Some(Coverage { from, to }));
    check(&after, 1, from, to);
}

#[test]
fn a_process_killed_at_any_moment_leaves_an_honest_ledger() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 1000);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut to = 1000;
            while !stop.load(Ordering::Relaxed) {
                append(&ledger, 1, to + 1, to + 20);
                to += 20;
                if to % 100 == 0 {
                    ledger.sync().unwrap();
                    ledger.retain(1, to - 900).unwrap();
                }
            }
        });
        for _ in 0..12 {
            let durable = ledger.durable(1).unwrap();
            // The copy is not of one moment, so segments that sled uses again meanwhile look like
            // the damage that a power cut does. What was durable may then be lost, but not in
            // silence.
            let copy = killed_copy(dir.path());
            let opened = Ledger::open(copy.path()).unwrap();
            match opened.ledger.coverage(1) {
                None => assert!(opened.set_aside.is_some()),
                Some(coverage) => {
                    assert!(coverage.to >= durable.to);
                    let begin = Cursor::after_index(coverage.from - 1);
                    match read_all(&opened.ledger, 1, begin) {
                        Ok(read) => assert!(read == expected(1, coverage.from, coverage.to)),
                        Err(error) => assert!(
                            error.is_fatal() || matches!(error, LedgerError::Hole { .. }),
                            "{error:?}"
                        ),
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
}

#[test]
fn readers_miss_nothing_while_entries_are_written_deleted_and_replaced() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 2000);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..3 {
            let (ledger, stop) = (ledger.clone(), &stop);
            scope.spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) || rounds == 0 {
                    let Coverage { from, to } = ledger.coverage(1).unwrap();
                    let begin = Cursor::after_index(from + (to - from) / 4 * reader);
                    match read_all(&ledger, 1, begin) {
                        Ok(read) => {
                            let to = read.keys().next_back().map_or(to, |&last| last.max(to));
                            assert!(read == expected(1, begin.index + 1, to));
                            rounds += 1;
                        }
                        Err(LedgerError::TooOld { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for step in 1..60 {
            let to = 2000 + step * 50;
            append(&ledger, 1, to - 49, to);
            ledger.retain(1, to - 1900).unwrap();
            for from in (to - 1700..to - 200).step_by(97) {
                replace(&ledger, 1, from, from + step % 60).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn replace(ledger: &Ledger, group: u64, from: u64, to: u64) -> Result<(), LedgerError> {
    let model = expected(group, from, to);
    let slices: Vec<(u64, Vec<&[u8]>)> = model
        .iter()
        .map(|(&index, entries)| (index, entries.iter().map(Vec::as_slice).collect()))
        .collect();
    let entries: Vec<(u64, &[&[u8]])> = slices
        .iter()
        .map(|(index, entries)| (*index, entries.as_slice()))
        .collect();
    ledger.replace(group, from, to, &entries)
}

#[test]
fn retention_deletes_what_is_old_and_nothing_else() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 30_000);
    ledger.begin(2, 0).unwrap();
    append(&ledger, 2, 1, 100);
    let mut steps = 1;
    while ledger.retain(1, 29_500).unwrap() {
        steps += 1;
        assert_eq!(
            ledger.coverage(1),
            Some(Coverage {
                from: 29_500,
                to: 30_000
            })
        );
    }
    assert!(steps > 1, "a single step may not delete everything");
    check(&ledger, 1, 29_500, 30_000);
    check(&ledger, 2, 1, 100);
    for after in [
        Cursor::after_index(29_498),
        Cursor {
            index: 29_499,
            ordinal: 0,
        },
    ] {
        let error = ledger.read(1, after, 10, 10).unwrap_err();
        assert!(
            matches!(
                error,
                LedgerError::TooOld {
                    complete_from: 29_500,
                    ..
                }
            ),
            "{error:?}"
        );
    }
    // It never goes back, and never beyond what is there.
    ledger.retain(1, 5).unwrap();
    check(&ledger, 1, 29_500, 30_000);
    ledger.sync().unwrap();
    drop(ledger);
    let ledger = open(dir.path());
    check(&ledger, 1, 29_500, 30_000);
    while ledger.retain(1, u64::MAX).unwrap() {}
    assert_eq!(
        ledger.coverage(1),
        Some(Coverage {
            from: 30_001,
            to: 30_000
        })
    );
    append(&ledger, 1, 30_001, 30_100);
    check(&ledger, 1, 30_001, 30_100);
}

#[test]
fn beginning_again_keeps_nothing_older() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 1000);
    // After a snapshot further on.
    ledger.begin(1, 5000).unwrap();
    append(&ledger, 1, 5001, 5100);
    check(&ledger, 1, 5001, 5100);
    let error = ledger
        .read(1, Cursor::after_index(900), 10, 10)
        .unwrap_err();
    assert!(matches!(error, LedgerError::TooOld { .. }), "{error:?}");
    drop(ledger);
    let ledger = open(dir.path());
    check(&ledger, 1, 5001, 5100);
    while ledger.retain(1, 5050).unwrap() {}
    check(&ledger, 1, 5050, 5100);
    // Further back than what is there.
    ledger.begin(1, 100).unwrap();
    append(&ledger, 1, 101, 200);
    check(&ledger, 1, 101, 200);
    drop(ledger);
    check(&open(dir.path()), 1, 101, 200);
}

#[test]
fn a_forgotten_group_leaves_nothing_behind() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 30_000);
    ledger.begin(2, 0).unwrap();
    append(&ledger, 2, 1, 100);
    assert!(ledger.forget(1).unwrap(), "it takes more than one step");
    assert_eq!(ledger.groups(), [2]);
    ledger.sync().unwrap();
    // Opening goes on with it.
    let copy = killed_copy(dir.path());
    assert_eq!(open(copy.path()).groups(), [2]);
    tamper(copy.path(), |db| {
        let mut groups: Vec<_> = value_keys(db).iter().map(|key| key[8]).collect();
        groups.dedup();
        assert_eq!(groups, [2]);
    });
    let after = open(copy.path());
    assert!(!after.forget(1).unwrap());
    while ledger.forget(1).unwrap() {}
    for ledger in [after, ledger] {
        ledger.begin(1, 0).unwrap();
        append(&ledger, 1, 1, 50);
        check(&ledger, 1, 1, 50);
        check(&ledger, 2, 1, 100);
    }
}

#[test]
fn replacing_what_is_there_changes_nothing_else() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 400);
    for (from, to) in [
        (1, 1),
        (1, 30),
        (100, 101),
        (150, 250),
        (390, 400),
        (1, 400),
    ] {
        replace(&ledger, 1, from, to).unwrap();
        check(&ledger, 1, 1, 400);
    }
    append(&ledger, 1, 401, 410);
    check(&ledger, 1, 1, 410);
    for (from, to) in [(0, 5), (6, 5), (400, 411)] {
        let error = replace(&ledger, 1, from, to).unwrap_err();
        assert!(matches!(error, LedgerError::OutOfOrder { .. }), "{error:?}");
    }
    drop(ledger);
    check(&open(dir.path()), 1, 1, 410);
}

#[test]
fn older_entries_can_be_had_from_another_replica() {
    let dir = tempdir();
    let ledger = open(dir.path());
    ledger.begin(1, 1000).unwrap();
    append(&ledger, 1, 1001, 1100);
    assert!(
        replace(&ledger, 1, 800, 900).is_err(),
        "that would be a gap"
    );
    replace(&ledger, 1, 900, 1000).unwrap();
    check(&ledger, 1, 900, 1100);
    replace(&ledger, 1, 1, 899).unwrap();
    check(&ledger, 1, 1, 1100);
    drop(ledger);
    check(&open(dir.path()), 1, 1, 1100);
}

/// Changes the engine's content behind the ledger's back, as a lost page would.
fn tamper(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let config = sled::Config::new().path(dir.join("ledger"));
    let db = (0..100)
        .find_map(|_| {
            // A ledger that was just closed may hold its lock for a moment.
            thread::sleep(std::time::Duration::from_millis(5));
            config.open().ok()
        })
        .unwrap();
    change(&db);
    db.flush().unwrap();
}

fn value_keys(db: &sled::Db) -> Vec<sled::IVec> {
    db.range([1]..[2]).keys().map(Result::unwrap).collect()
}

/// Refills holes until there is none, as the error says.
fn refill(ledger: &Ledger, group: u64) -> usize {
    let Coverage { from: begin, .. } = ledger.coverage(group).unwrap();
    for holes in 0..50 {
        match read_all(ledger, group, Cursor::after_index(begin - 1)) {
            Ok(_) => return holes,
            Err(LedgerError::Hole { from, to, .. }) => replace(ledger, group, from, to).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!(
        "the holes never end: {:?}",
        read_all(ledger, group, Cursor::after_index(begin - 1))
    );
}

#[test]
fn lost_and_spoilt_values_are_noticed_and_can_be_refilled() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 300);
    ledger.begin(2, 0).unwrap();
    append(&ledger, 2, 1, 20);
    ledger.retain(1, 20).unwrap();
    ledger.sync().unwrap();
    drop(ledger);
    let mut count = 0;
    tamper(dir.path(), |db| count = value_keys(db).len());
    assert!(count > 25, "{count}");
    for at in 0..count {
        for (lost, spoils) in [(1, false), (1, true), (7, false)] {
            let copy = killed_copy(dir.path());
            let mut groups = Vec::new();
            tamper(copy.path(), |db| {
                for key in value_keys(db).iter().skip(at).take(lost) {
                    groups.push(u64::from_be_bytes(key[1..9].try_into().unwrap()));
                    let mut value = db.remove(key).unwrap().unwrap().to_vec();
                    if spoils {
                        *value.last_mut().unwrap() ^= 1;
                        db.insert(key, value).unwrap();
                    }
                }
            });
            groups.dedup();
            let opened = Ledger::open(copy.path()).unwrap();
            assert!(opened.set_aside.is_none());
            let ledger = opened.ledger;
            for &group in &groups {
                assert!(
                    refill(&ledger, group) > 0,
                    "value {at}: nothing was noticed"
                );
            }
            check(&ledger, 1, 20, 300);
            check(&ledger, 2, 1, 20);
            append(&ledger, 1, 301, 330);
            drop(ledger);
            check(&open(copy.path()), 1, 20, 330);
        }
    }
}

#[test]
fn a_hole_at_either_end_is_told_when_opening() {
    let dir = tempdir();
    drop(filled(dir.path(), 1, 300));
    for from_the_end in [false, true] {
        let copy = killed_copy(dir.path());
        tamper(copy.path(), |db| {
            let keys = value_keys(db);
            let at = if from_the_end { keys.len() - 1 } else { 0 };
            db.remove(&keys[at]).unwrap();
        });
        let opened = Ledger::open(copy.path()).unwrap();
        assert!(
            matches!(opened.holes[..], [LedgerError::Hole { group: 1, from, to }]
                if from_the_end == (to == 300) && from_the_end != (from == 1)),
            "{:?}",
            opened.holes
        );
    }
}

#[test]
fn a_hole_that_is_refilled_in_parts_stays_one_until_the_last() {
    let dir = tempdir();
    drop(filled(dir.path(), 1, 600));
    for end in [false, true] {
        let copy = killed_copy(dir.path());
        tamper(copy.path(), |db| {
            let keys = value_keys(db);
            let end = if end { keys.len() } else { keys.len() / 2 };
            for key in &keys[end - 8..end] {
                db.remove(key).unwrap();
            }
        });
        let ledger = Ledger::open(copy.path()).unwrap().ledger;
        let begin = Cursor::after_index(0);
        let Err(LedgerError::Hole { from, to, .. }) = read_all(&ledger, 1, begin) else {
            panic!("nothing was noticed");
        };
        assert!(to - from > 20, "{from} to {to}");
        for part in (from..=to).step_by(10) {
            let read = read_all(&ledger, 1, begin);
            assert!(matches!(read, Err(LedgerError::Hole { .. })), "{part}");
            replace(&ledger, 1, part, to.min(part + 9)).unwrap();
        }
        check(&ledger, 1, 1, 600);
    }
}

#[test]
fn a_lost_spoilt_or_old_record_has_the_ledger_set_aside() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 300);
    drop(ledger);
    let record_key = [0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut old = None;
    tamper(dir.path(), |db| old = db.get(record_key).unwrap());
    append(&open(dir.path()), 1, 301, 400);
    let old = old.unwrap();
    let mut spoilt = old.to_vec();
    spoilt[12] ^= 1;
    for record in [None, Some(&spoilt[..]), Some(&old[..])] {
        let copy = killed_copy(dir.path());
        tamper(copy.path(), |db| {
            match record {
                Some(record) => db.insert(record_key, record).unwrap(),
                None => db.remove(record_key).unwrap(),
            };
        });
        let opened = Ledger::open(copy.path()).unwrap();
        assert!(opened.set_aside.is_some());
        assert!(opened.ledger.groups().is_empty());
    }
    check(&open(dir.path()), 1, 1, 400);
}

#[test]
fn a_stray_snapshot_of_a_crash_is_not_believed() {
    let dir = tempdir();
    drop(filled(dir.path(), 1, 100));
    let stray = dir.path().join("ledger/snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&stray, b"half of a snapshot that was never finished").unwrap();
    check(&open(dir.path()), 1, 1, 100);
    assert!(!stray.exists());
}

#[test]
fn a_damaged_ledger_is_set_aside_and_the_last_one_is_kept() {
    let dir = tempdir();
    for number in 1..=3 {
        drop(filled(dir.path(), 1, 100));
        // Sled makes its snapshot when it opens something that is not empty.
        drop(open(dir.path()));
        let files = fs::read_dir(dir.path().join("ledger")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        let snap = paths.find(|path| path.to_string_lossy().contains("/snap."));
        flip(&snap.unwrap(), 3);
        let opened = Ledger::open(dir.path()).unwrap();
        let aside = opened.set_aside.unwrap();
        assert!(aside.dir.ends_with(format!("ledger.damaged-{number}")));
        assert!(aside.dir.join("db").exists());
        assert!(opened.ledger.groups().is_empty());
        let kept = fs::read_dir(dir.path()).unwrap();
        assert_eq!(kept.count(), 2, "the ledger and one that was set aside");
    }
}

#[test]
fn a_file_cut_short_anywhere_never_lies() {
    let dir = tempdir();
    let ledger = filled(dir.path(), 1, 3000);
    let whole = killed_copy(dir.path());
    drop(ledger);
    let len = fs::metadata(whole.path().join("ledger/db")).unwrap().len();
    for part in 0..12 {
        let copy = killed_copy(whole.path());
        let db = fs::OpenOptions::new()
            .write(true)
            .open(copy.path().join("ledger/db"))
            .unwrap();
        db.set_len(len * part / 12 + part * 7).unwrap();
        check_honest(copy.path(), 1, 3000);
    }
}

#[test]
fn a_byte_flipped_anywhere_never_lies() {
    let dir = tempdir();
    drop(filled(dir.path(), 1, 3000));
    // Once more, so that there is a snapshot, and what is flipped lies below it.
    drop(open(dir.path()));
    let files: Vec<_> = fs::read_dir(dir.path().join("ledger"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let len = fs::metadata(&file).unwrap().len();
        for part in 0..20 {
            let copy = killed_copy(dir.path());
            let target = copy.path().join("ledger").join(file.file_name().unwrap());
            flip(&target, len * part / 20 + part % 3);
            check_honest(copy.path(), 1, 3000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Entries of all sizes, in batches of all sizes, come back as they were, from any cursor.
    #[test]
    fn entries_are_packed_and_cut_without_loss(
        sizes in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![8 => 0_usize..200, 2 => 1900..2200_usize, 1 => 2200..9000_usize], 0..6
            ),
            1..40,
        ),
        batch_indices in 1_usize..12,
        page_entries in 1_usize..9,
    ) {
        let dir = tempdir();
        let ledger = open(dir.path());
        ledger.begin(9, 99).unwrap();
        let mut written = Vec::new();
        for (at, chunk) in sizes.chunks(batch_indices).enumerate() {
            let mut batch = LedgerBatch::new();
            for (index, sizes) in (100 + (at * batch_indices) as u64..).zip(chunk) {
                let entries: Vec<Vec<u8>> =
                    sizes.iter().map(|&size| vec![(size + at) as u8; size]).collect();
                batch.append(9, index, &entries);
                for (ordinal, entry) in entries.into_iter().enumerate() {
                    written.push((index, ordinal as u32, entry));
                }
            }
            ledger.append(&mut batch).unwrap();
        }
        for start in 0..=written.len() {
            let mut after = match start.checked_sub(1) {
                None => Cursor::after_index(99),
                Some(before) => Cursor { index: written[before].0, ordinal: written[before].1 },
            };
            let page = ledger.read(9, after, page_entries, usize::MAX).unwrap();
            let want = &written[start..written.len().min(start + page_entries)];
            prop_assert_eq!(page.entries.len(), want.len());
            for (entry, (index, ordinal, bytes)) in page.entries.iter().zip(want) {
                prop_assert_eq!((entry.index, entry.ordinal), (*index, *ordinal));
                prop_assert_eq!(&entry.bytes[..], &bytes[..]);
                after = entry.cursor();
            }
            prop_assert!(page.next >= after);
        }
    }
}
