//! The log on a real disk: what it keeps, what it refuses, and what it makes of damage.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use stock_storage::{Durability, Log, LogError, LogOptions, OsVolume, WriteBatch};
use tempfile::TempDir;

/// Not in `/tmp`, which may be memory.
fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(dir: &Path) -> Log {
    Log::open(Arc::new(OsVolume), dir, &LogOptions::default()).unwrap()
}

fn append(log: &mut Log, group: u64, first: u64, entries: &[&str]) {
    let mut batch = WriteBatch::new();
    batch.append(group, first, entries);
    log.write(&mut batch, Durability::Sync).unwrap();
}

fn read(log: &Log, group: u64, low: u64, high: u64) -> Vec<Bytes> {
    let mut out = Vec::new();
    log.read(group, low, high, u64::MAX, &mut out).unwrap();
    out
}

fn read_all(log: &Log, group: u64) -> Vec<Bytes> {
    log.bounds(group)
        .map_or_else(Vec::new, |(first, last)| read(log, group, first, last + 1))
}

fn log_file(dir: &Path, number: u64) -> PathBuf {
    dir.join("log").join(format!("{number:016}.raftlog"))
}

/// The files as a killed process would leave them: copied while the log is open.
fn killed_copy(dir: &Path) -> TempDir {
    let copy = tempdir();
    fs::create_dir(copy.path().join("log")).unwrap();
    for file in fs::read_dir(dir.join("log")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("log").join(file.file_name())).unwrap();
    }
    copy
}

/// Where the last write in a file ends; behind it are only zeros, since no checksum here ends in
/// one.
fn end_of_writes(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last as u64 + 1)
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
fn a_new_log_is_empty() {
    let dir = tempdir();
    let log = open(&dir.path().join("not/yet/there"));
    assert!(log.groups().is_empty());
    assert_eq!(
        (
            log.bounds(1),
            log.state(1),
            log.origin(1),
            log.node_record()
        ),
        (None, None, None, None)
    );
    assert!(log.tail_cut().is_none());
    let mut out = Vec::new();
    log.read(1, 5, 5, 0, &mut out).unwrap();
    assert!(matches!(
        log.read(1, 1, 2, 0, &mut out),
        Err(LogError::Missing {
            group: 1,
            index: 1,
            last: 0
        })
    ));
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    batch.put_node_record(b"node");
    batch.put_state(3, b"state 3");
    batch.put_origin(7, b"origin 7");
    batch.append(7, 100, [&b"a"[..], b"", b"c"]);
    batch.append(0, 1, [vec![9; 100_000]]);
    assert!(!batch.is_empty());
    log.write(&mut batch, Durability::Sync).unwrap();
    assert!(batch.is_empty());
    batch.put_state(3, b"state 3, later");
    batch.append(7, 103, vec![Bytes::from_static(b"d")]);
    log.write(&mut batch, Durability::Sync).unwrap();

    let check = |log: &Log| {
        // A group that has only a record counts; the node's own record is no group.
        assert_eq!(log.groups(), [0, 3, 7]);
        assert_eq!(log.node_record().unwrap(), b"node");
        assert_eq!(
            (log.state(3).unwrap(), log.state(7)),
            (b"state 3, later".to_vec(), None)
        );
        assert_eq!(
            (log.origin(3), log.origin(7).unwrap()),
            (None, b"origin 7".to_vec())
        );
        assert_eq!(
            (log.bounds(0), log.bounds(3), log.bounds(7)),
            (Some((1, 1)), None, Some((100, 103)))
        );
        assert_eq!(read(log, 7, 100, 104), ["a", "", "c", "d"]);
        assert_eq!(read(log, 7, 101, 103), ["", "c"]);
        assert_eq!(read(log, 0, 1, 2), [vec![9; 100_000]]);
    };
    check(&log);
    drop(log);
    check(&open(dir.path()));
    check(&open(dir.path()));
}

#[test]
fn a_read_outside_the_log_says_where_it_is() {
    let dir = tempdir();
    let mut log = open(dir.path());
    append(&mut log, 1, 10, &["a", "b"]);
    let mut out = vec![Bytes::from_static(b"kept")];
    for (low, high, wanted) in [
        (9, 11, "group 1: entry 9 is gone, the log begins at 10"),
        (
            10,
            13,
            "group 1: entry 12 was never written, the log ends at 11",
        ),
        (
            20,
            21,
            "group 1: entry 20 was never written, the log ends at 11",
        ),
    ] {
        let error = log.read(1, low, high, u64::MAX, &mut out).unwrap_err();
        assert!(error.to_string().starts_with(wanted), "{error}");
        assert!(!error.is_fatal());
    }
    assert_eq!(out, ["kept"]);
}

#[test]
fn a_read_stops_at_its_limit_but_gives_at_least_one() {
    let dir = tempdir();
    let mut log = open(dir.path());
    append(&mut log, 1, 1, &["12345", "12345", "12345"]);
    for (bytes_max, count) in [
        (0, 1),
        (4, 1),
        (5, 1),
        (9, 1),
        (10, 2),
        (14, 2),
        (15, 3),
        (u64::MAX, 3),
    ] {
        let mut out = Vec::new();
        log.read(1, 1, 4, bytes_max, &mut out).unwrap();
        assert_eq!(out.len(), count, "{bytes_max}");
    }
}

#[test]
fn an_overlapping_append_replaces_the_tail() {
    let dir = tempdir();
    let mut log = open(dir.path());
    append(&mut log, 1, 1, &["1", "2", "3", "4", "5"]);
    append(&mut log, 2, 1, &["other"]);
    append(&mut log, 1, 3, &["3'"]);
    let check = |log: &Log, wanted: &[&str]| {
        assert_eq!(read_all(log, 1), wanted);
        assert_eq!(read_all(log, 2), ["other"]);
    };
    check(&log, &["1", "2", "3'"]);
    drop(log);
    let mut log = open(dir.path());
    check(&log, &["1", "2", "3'"]);
    // Twice in one batch, the second on top of the first; then from the very beginning.
    let mut batch = WriteBatch::new();
    batch.append(1, 4, ["4'", "5'"]);
    batch.append(1, 5, ["5''", "6''"]);
    log.write(&mut batch, Durability::Sync).unwrap();
    check(&log, &["1", "2", "3'", "4'", "5''", "6''"]);
    append(&mut log, 1, 1, &["new"]);
    check(&log, &["new"]);
    drop(log);
    check(&open(dir.path()), &["new"]);
}

#[test]
fn what_would_leave_a_hole_is_refused_and_nothing_of_its_batch_is_written() {
    let dir = tempdir();
    let mut log = open(dir.path());
    append(&mut log, 1, 10, &["10", "11"]);
    for (appends, wanted) in [
        (
            vec![(1, 13)],
            "group 1: cannot append at 13, the log holds 10 to 11",
        ),
        (
            vec![(1, 9)],
            "group 1: cannot append at 9, the log holds 10 to 11",
        ),
        (
            vec![(1, 12), (1, 14)],
            "group 1: cannot append at 14, the log holds 10 to 12",
        ),
        (
            vec![(1, 10), (1, 12)],
            "group 1: cannot append at 12, the log holds 10 to 10",
        ),
        (
            vec![(2, 50), (2, 49)],
            "group 2: cannot append at 49, the log holds 50 to 50",
        ),
        (
            vec![(2, 50), (1, 12), (2, 52)],
            "group 2: cannot append at 52, the log holds 50 to 50",
        ),
    ] {
        let mut batch = WriteBatch::new();
        batch.put_state(3, b"must not be seen");
        for (group, first) in appends {
            batch.append(group, first, ["x"]);
        }
        let error = log.write(&mut batch, Durability::Sync).unwrap_err();
        assert!(error.to_string().starts_with(wanted), "{error}");
        assert!(!error.is_fatal());
        assert_eq!((log.groups(), log.bounds(1)), (vec![1], Some((10, 11))));
        batch.clear();
        assert!(batch.is_empty());
        log.write(&mut batch, Durability::Sync).unwrap();
    }
    append(&mut log, 1, 12, &["12"]);
    drop(log);
    assert_eq!(read_all(&open(dir.path()), 1), ["10", "11", "12"]);
}

#[test]
fn a_batch_may_be_large_but_not_endless() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    let large = Bytes::from(vec![1; 1 << 20]);
    let small: Vec<Bytes> = (0..20_000_u64)
        .map(|index| Bytes::from(index.to_le_bytes().to_vec()))
        .collect();
    batch.append(1, 1, std::iter::repeat_n(&large, 40));
    batch.append(2, 1, &small);
    log.write(&mut batch, Durability::Sync).unwrap();

    batch.append(1, 41, std::iter::repeat_n(&large, 257));
    batch.append(2, 20_001, &small);
    let error = log.write(&mut batch, Durability::Sync).unwrap_err();
    assert!(
        matches!(error, LogError::TooLarge { bytes, bytes_max } if bytes > bytes_max),
        "{error}"
    );
    batch.clear();
    append(&mut log, 3, 1, &["as if nothing had happened"]);

    drop(log);
    let log = open(dir.path());
    assert!(read_all(&log, 1).iter().all(|entry| entry == &large));
    assert_eq!(log.bounds(1), Some((1, 40)));
    assert_eq!(read_all(&log, 2), small);
    assert_eq!(log.groups(), [1, 2, 3]);
}

#[test]
fn the_log_goes_on_over_many_files() {
    let dir = tempdir();
    let options = LogOptions {
        file_bytes: 64 << 10,
    };
    let mut log = Log::open(Arc::new(OsVolume), dir.path(), &options).unwrap();
    let mut batch = WriteBatch::new();
    let entry = |index: u64| Bytes::from(vec![index as u8; 10_000]);
    for index in 1..=100 {
        batch.append(index % 3, index.div_ceil(3), [entry(index)]);
        log.write(&mut batch, Durability::Sync).unwrap();
    }
    assert!(log_file(dir.path(), 10).exists());
    let check = |log: &Log| {
        for index in 1..=100 {
            assert_eq!(
                read(log, index % 3, index.div_ceil(3), index.div_ceil(3) + 1),
                [entry(index)]
            );
        }
    };
    check(&log);
    let copy = killed_copy(dir.path());
    check(&Log::open(Arc::new(OsVolume), copy.path(), &options).unwrap());
    drop(log);
    check(&Log::open(Arc::new(OsVolume), dir.path(), &options).unwrap());

    // A file lost in between is noticed; the engine would forget all before it.
    fs::remove_file(log_file(dir.path(), 5)).unwrap();
    let error = Log::open(Arc::new(OsVolume), dir.path(), &options).unwrap_err();
    assert!(
        matches!(&error, LogError::Damaged { file, .. } if *file == log_file(dir.path(), 5)),
        "{error}"
    );
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempdir();
    let log = open(dir.path());
    let error = Log::open(Arc::new(OsVolume), dir.path(), &LogOptions::default()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, LogError::Locked { .. }));
    assert!(
        message.contains(&dir.path().display().to_string()),
        "{message}"
    );
    assert!(
        message.contains(&std::process::id().to_string()),
        "{message}"
    );
    drop(log);
    drop(open(dir.path()));
}

#[test]
fn logs_that_share_a_thread_do_not_share_what_they_read() {
    // The files are alike to the byte but for the payload, as those of two nodes of a test cluster.
    let dirs = [tempdir(), tempdir(), tempdir()];
    let mut logs: Vec<Log> = dirs.iter().map(|dir| open(dir.path())).collect();
    for (log, entry) in logs.iter_mut().zip(["a", "b", "c"]) {
        append(log, 1, 1, &[entry]);
    }
    for _ in 0..3 {
        for (log, entry) in logs.iter().zip(["a", "b", "c"]) {
            assert_eq!(read_all(log, 1), [entry]);
        }
    }
    // Nor does a log see what another had in the same place before it.
    drop(logs);
    let dir = dirs[0].path();
    fs::remove_dir_all(dir).unwrap();
    let mut log = open(dir);
    append(&mut log, 1, 1, &["d"]);
    assert_eq!(read_all(&log, 1), ["d"]);
}

#[test]
fn a_lazy_write_survives_the_process() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let mut batch = WriteBatch::new();
    batch.append(1, 1, ["lazy"]);
    log.write(&mut batch, Durability::Lazy).unwrap();
    assert_eq!(read_all(&log, 1), ["lazy"]);
    // An empty synced batch makes it durable and leaves no trace.
    log.write(&mut batch, Durability::Sync).unwrap();
    let copy = killed_copy(dir.path());
    let copied = open(copy.path());
    assert_eq!(
        (read_all(&copied, 1), copied.groups()),
        (vec![Bytes::from("lazy")], vec![1])
    );
}

#[test]
fn a_write_cut_anywhere_is_gone_as_a_whole_and_takes_nothing_with_it() {
    let dir = tempdir();
    let mut log = open(dir.path());
    append(&mut log, 1, 1, &["first"]);
    let begin = end_of_writes(&log_file(dir.path(), 1));
    let mut batch = WriteBatch::new();
    batch.append(1, 2, ["second"]);
    batch.append(2, 1, ["second"]);
    batch.put_state(1, b"second");
    log.write(&mut batch, Durability::Sync).unwrap();
    let end = end_of_writes(&log_file(dir.path(), 1));

    for kept in 0..end - begin {
        // Once as a file that ends there, once with the reserved zeros behind it.
        for reserved in [0, 5000] {
            let copy = killed_copy(dir.path());
            let file = fs::OpenOptions::new()
                .write(true)
                .open(log_file(copy.path(), 1))
                .unwrap();
            file.set_len(begin + kept).unwrap();
            file.set_len(begin + kept + reserved).unwrap();
            let log = open(copy.path());
            assert_eq!(read_all(&log, 1), ["first"], "{kept}");
            assert_eq!((log.groups(), log.state(1)), (vec![1], None), "{kept}");
            // The first bytes of a header are zeros, which look like space never used.
            if kept > 8 {
                let cut = log.tail_cut().unwrap();
                assert_eq!((&cut.file, cut.offset), (&log_file(copy.path(), 1), begin));
                assert!(cut.len <= kept);
            }
        }
    }
    // Uncut, it is there, and so is what is written after a cut.
    let copy = killed_copy(dir.path());
    let log = open(copy.path());
    assert_eq!(
        (read_all(&log, 1).len(), log.groups(), log.tail_cut()),
        (2, vec![1, 2], None)
    );
    drop(log);
    fs::OpenOptions::new()
        .write(true)
        .open(log_file(copy.path(), 1))
        .unwrap()
        .set_len(end - 1)
        .unwrap();
    let mut log = open(copy.path());
    append(&mut log, 1, 2, &["another"]);
    drop(log);
    assert_eq!(read_all(&open(copy.path()), 1), ["first", "another"]);
}

#[test]
fn damage_before_the_last_write_never_passes_unnoticed() {
    let dir = tempdir();
    let mut log = open(dir.path());
    let entries = ["first", "second", "third"];
    let mut ends = Vec::new();
    for (entry, index) in entries.iter().zip(1..) {
        append(&mut log, 1, index, &[entry]);
        ends.push(end_of_writes(&log_file(dir.path(), 1)));
    }
    let (mut refused, mut found_by_reading) = (0, 0);
    for offset in 0..ends[1] {
        let copy = killed_copy(dir.path());
        flip(&log_file(copy.path(), 1), offset);
        let before = fs::read(log_file(copy.path(), 1)).unwrap();
        match Log::open(Arc::new(OsVolume), copy.path(), &LogOptions::default()) {
            Err(error) => {
                assert!(
                    matches!(error, LogError::Damaged { .. }),
                    "{offset}: {error}"
                );
                assert!(error.to_string().contains("it joins anew"), "{error}");
                assert_eq!(
                    fs::read(log_file(copy.path(), 1)).unwrap(),
                    before,
                    "{offset}: changed"
                );
                refused += 1;
            }
            Ok(log) => {
                // Opening checks the entries' own bytes only in the last write of a file. The rest
                // are checked when they are read, each block by its checksum.
                assert_eq!(
                    log.bounds(1),
                    Some((1, 3)),
                    "{offset}: something was forgotten"
                );
                let mut out = Vec::new();
                match log.read(1, 1, 4, u64::MAX, &mut out) {
                    Err(LogError::Unreadable { .. }) => found_by_reading += 1,
                    Err(error) => panic!("{offset}: {error}"),
                    // The file's header has bytes that nobody reads.
                    Ok(()) => assert_eq!(out, entries, "{offset}"),
                }
            }
        }
    }
    assert!(
        refused > 50 && found_by_reading > 10,
        "{refused} {found_by_reading}"
    );
}

#[test]
fn damage_to_the_very_last_write_looks_like_an_interrupted_one() {
    // The limit of what the log can know by itself. It is told, not silent.
    let dir = tempdir();
    let mut log = open(dir.path());
    append(&mut log, 1, 1, &["first"]);
    append(&mut log, 1, 2, &["second"]);
    drop(log);
    flip(
        &log_file(dir.path(), 1),
        end_of_writes(&log_file(dir.path(), 1)) - 1,
    );
    let log = open(dir.path());
    assert_eq!(read_all(&log, 1), ["first"]);
    assert!(log.tail_cut().is_some());
}

#[test]
fn damage_in_a_closed_file_is_refused() {
    let dir = tempdir();
    let options = LogOptions {
        file_bytes: 16 << 10,
    };
    let mut log = Log::open(Arc::new(OsVolume), dir.path(), &options).unwrap();
    for index in 1..=10 {
        append(&mut log, 1, index, &["x".repeat(6000).as_str()]);
    }
    drop(log);
    let len = fs::metadata(log_file(dir.path(), 1)).unwrap().len();
    // The last write's footer, its entries, and the file's header.
    for offset in [len - 1, len - 1000, 3] {
        flip(&log_file(dir.path(), 1), offset);
        let error = Log::open(Arc::new(OsVolume), dir.path(), &options).unwrap_err();
        assert!(
            matches!(error, LogError::Damaged { .. }),
            "{offset}: {error}"
        );
        flip(&log_file(dir.path(), 1), offset);
    }
    assert_eq!(
        Log::open(Arc::new(OsVolume), dir.path(), &options)
            .unwrap()
            .bounds(1),
        Some((1, 10))
    );
}

const CHILD_DIR: &str = "STOCK_STORAGE_TEST_DIR";
const CHILD_GROUPS: u64 = 3;

fn child_entry(group: u64, index: u64) -> Bytes {
    Bytes::from(format!("{group}/{index} ").repeat((index % 50) as usize + 1))
}

/// Not a test: what `a_killed_process_loses_nothing_acknowledged` runs in a process of its own.
#[test]
fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let mut log = Log::open(
        Arc::new(OsVolume),
        Path::new(&dir),
        &LogOptions {
            file_bytes: 64 << 10,
        },
    )
    .unwrap();
    let mut batch = WriteBatch::new();
    let next = log.bounds(0).map_or(1, |(_, last)| last + 1);
    let mut acknowledged = std::io::stdout().lock();
    for index in next.. {
        for group in 0..CHILD_GROUPS {
            batch.append(group, index, [child_entry(group, index)]);
            batch.put_state(group, &index.to_le_bytes());
        }
        log.write(&mut batch, Durability::Sync).unwrap();
        writeln!(acknowledged, "\nack {index}").unwrap();
        acknowledged.flush().unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let dir = tempdir();
    let mut acknowledged = 0;
    for round in 1..=8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut killed = false;
        let before = acknowledged;
        // Everything up to the end of the pipe: what came before the kill was acknowledged.
        for line in BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
        {
            if let Some(index) = line.strip_prefix("ack ") {
                acknowledged = index.parse().unwrap();
            }
            if acknowledged >= before + 40 * round && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed);

        let log = Log::open(
            Arc::new(OsVolume),
            dir.path(),
            &LogOptions {
                file_bytes: 64 << 10,
            },
        )
        .unwrap();
        let last = log.bounds(0).unwrap().1;
        assert!(last >= acknowledged, "{last} < {acknowledged}");
        for group in 0..CHILD_GROUPS {
            // One batch is one batch: every group is equally far, and so is its state.
            assert_eq!(log.bounds(group), Some((1, last)));
            assert_eq!(log.state(group).unwrap(), last.to_le_bytes());
            let wanted: Vec<Bytes> = (1..=last).map(|index| child_entry(group, index)).collect();
            assert_eq!(read_all(&log, group), wanted);
        }
        acknowledged = last;
    }
}

#[test]
fn a_file_whose_header_was_torn_goes_on_in_the_older_format() {
    // A power cut right after the log has begun its next file: the engine puts a header of its
    // older format there, without an alignment. Later starts must not take what follows for damage.
    for len in [0, 1, 52, 53, 60, 61, 68] {
        let dir = tempdir();
        drop(open(dir.path()));
        let file = log_file(dir.path(), 1);
        let header = fs::read(&file).unwrap();
        fs::write(&file, &header[..len.min(header.len())]).unwrap();
        for index in 1..=3 {
            let mut log = open(dir.path());
            append(&mut log, 1, index, &["entry"]);
        }
        assert_eq!(read_all(&open(dir.path()), 1).len(), 3, "cut at {len}");
    }
}

#[test]
fn a_purge_that_meets_damage_says_whose_entry_it_is_and_the_log_can_be_written() {
    let dir = tempdir();
    let options = LogOptions {
        file_bytes: 16 << 10,
    };
    let mut log = Log::open(Arc::new(OsVolume), dir.path(), &options).unwrap();
    // Little of two groups in the oldest file, which a purge copies, and much of a third that is
    // truncated.
    append(&mut log, 1, 1, &["one"]);
    append(&mut log, 2, 1, &["the other"]);
    for index in 1..=20 {
        append(&mut log, 3, index, &["x".repeat(6000).as_str()]);
    }
    let mut batch = WriteBatch::new();
    batch.truncate_before(3, 20);
    log.write(&mut batch, Durability::Sync).unwrap();
    let path = log_file(dir.path(), 1);
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|it| it == b"the other").unwrap();
    flip(&path, at as u64);

    let purger = log.purger();
    assert!(
        purger
            .damaged_groups()
            .iter()
            .any(|(group, index, _)| (*group, *index) == (2, 1))
    );
    let error = purger.purge(0).unwrap_err();
    assert!(
        matches!(error, LogError::Unreadable { .. }) && !error.is_fatal(),
        "{error}"
    );
    append(&mut log, 1, 2, &["two"]);
    assert_eq!(read_all(&log, 1), ["one", "two"]);
    // Once the group begins anew nothing of it is damaged any more.
    let mut batch = WriteBatch::new();
    batch.reset(2);
    log.write(&mut batch, Durability::Sync).unwrap();
    assert_eq!(purger.damaged_groups(), []);
}
