//! The log on a volume that runs full.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stock_storage::{Durability, Log, LogError, LogOptions, PURGE_ROOM_BYTES, WriteBatch};
use tempfile::TempDir;

mod faulty;

use faulty::Faulty;

fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(volume: &Faulty, dir: &Path, file_bytes: u64) -> Log {
    Log::open(Arc::new(volume.clone()), dir, &LogOptions { file_bytes }).unwrap()
}

fn read_all(log: &Log, group: u64) -> Vec<Bytes> {
    let mut out = Vec::new();
    if let Some((first, last)) = log.bounds(group) {
        log.read(group, first, last + 1, u64::MAX, &mut out)
            .unwrap();
    }
    out
}

/// Writes `batch`, the second of the log in `dir`, with `free` bytes left on the volume, and holds
/// the log to its word. Whether it fitted.
fn write_with(free: u64, creating_needs: u64, file_bytes: u64) -> bool {
    let dir = tempdir();
    let volume = Faulty::default();
    // No space is reserved ahead, so that every byte counts.
    volume.state().free = Some(600);
    let mut log = open(&volume, dir.path(), file_bytes);
    let mut batch = WriteBatch::new();
    batch.append(1, 1, ["first".repeat(40)]);
    log.write(&mut batch, Durability::Sync).unwrap();

    volume.state().free = Some(free);
    volume.state().creating_needs = creating_needs;
    batch.append(1, 2, ["second", "third"]);
    batch.put_state(2, b"state");
    let result = log.write(&mut batch, Durability::Sync);
    let whole = |log: &Log| {
        assert_eq!(read_all(log, 1)[1..], ["second", "third"], "{free}");
        assert_eq!(log.state(2).unwrap(), b"state", "{free}");
    };
    let nothing = |log: &Log| {
        assert_eq!(
            (log.bounds(1), log.groups()),
            (Some((1, 1)), vec![1]),
            "{free}"
        );
        assert_eq!(read_all(log, 1), ["first".repeat(40)], "{free}");
    };
    let fits = result.is_ok();
    match result {
        Ok(()) => whole(&log),
        Err(error) => {
            assert!(matches!(error, LogError::Full { .. }), "{free}: {error:?}");
            assert!(!error.is_fatal());
            assert!(!batch.is_empty(), "the batch can be written again");
            nothing(&log);
            // Still full, and full again; and then after a kill, a copy knows nothing of it.
            for _ in 0..2 {
                let error = log.write(&mut batch, Durability::Sync).unwrap_err();
                assert!(matches!(error, LogError::Full { .. }), "{free}: {error:?}");
            }
            let copy = tempdir();
            std::fs::create_dir(copy.path().join("log")).unwrap();
            for file in std::fs::read_dir(dir.path().join("log")).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.path().join("log").join(file.file_name())).unwrap();
            }
            nothing(&open(&Faulty::default(), copy.path(), file_bytes));
            // There is space again.
            volume.state().free = None;
            log.write(&mut batch, Durability::Sync).unwrap();
            whole(&log);
        }
    }
    volume.state().free = None;
    drop(log);
    let mut log = open(&volume, dir.path(), file_bytes);
    whole(&log);
    batch.append(1, 4, ["fourth"]);
    log.write(&mut batch, Durability::Sync).unwrap();
    drop(log);
    let log = open(&volume, dir.path(), file_bytes);
    assert_eq!(log.bounds(1), Some((1, 4)), "{free}");
    fits
}

#[test]
fn a_write_that_does_not_fit_was_not_written_wherever_the_volume_ends() {
    let fits: Vec<bool> = (0..150).map(|free| write_with(free, 0, 1 << 20)).collect();
    // It was tried with less than a header, with all but one byte, and with enough.
    let enough = fits.iter().position(|fits| *fits).unwrap();
    assert!(
        enough > 60 && fits[enough..].iter().all(|fits| *fits),
        "{enough}"
    );
}

#[test]
fn the_same_holds_when_the_write_needs_a_new_file() {
    // The first write has filled the first file: there is a file to be made, its header, and the
    // write.
    let fits: Vec<bool> = (0..250).map(|free| write_with(free, 20, 100)).collect();
    let enough = fits.iter().position(|fits| *fits).unwrap();
    assert!(
        enough > 120 && fits[enough..].iter().all(|fits| *fits),
        "{enough}"
    );
}

#[test]
fn a_path_that_reads_like_an_error_of_the_engine_makes_no_difference() {
    // The engine takes an error for a full disk if its text contains this.
    let dir = tempdir();
    let volume = Faulty::default();
    let mut log = open(&volume, &dir.path().join("nospace"), 1 << 20);
    let mut batch = WriteBatch::new();
    batch.append(1, 1, [vec![1; 3 << 20]]);
    volume.state().free = Some(0);
    let error = log.write(&mut batch, Durability::Sync).unwrap_err();
    assert!(matches!(error, LogError::Full { .. }), "{error:?}");
    assert!(
        !dir.path()
            .join("nospace/log/0000000000000002.raftlog")
            .exists()
    );
}

#[test]
fn a_full_volume_is_not_purged_and_one_that_fills_up_meanwhile_is_no_more() {
    let dir = tempdir();
    let volume = Faulty::default();
    let mut log = open(&volume, dir.path(), 8 << 10);
    let mut batch = WriteBatch::new();
    let write = |log: &mut Log, batch: &mut WriteBatch, indexes: std::ops::RangeInclusive<u64>| {
        for index in indexes {
            batch.append(1, index, [vec![0; 300]]);
            log.write(batch, Durability::Lazy).unwrap();
        }
    };
    write(&mut log, &mut batch, 1..=100);
    let purger = log.purger();
    volume.state().free = Some(PURGE_ROOM_BYTES - 1);
    let error = purger.purge(0).unwrap_err();
    assert!(matches!(error, LogError::Full { .. }) && !error.is_fatal());

    // The group began again, which a purge that fails half way forgets.
    batch.put_state(2, b"state");
    batch.append(2, 1, ["an earlier life"]);
    log.write(&mut batch, Durability::Lazy).unwrap();
    batch.truncate_before(1, 101);
    log.write(&mut batch, Durability::Lazy).unwrap();
    volume.state().free = None;
    write(&mut log, &mut batch, 1..=60);
    purger.purge(0).unwrap();
    batch.reset(2);
    log.write(&mut batch, Durability::Lazy).unwrap();
    write(&mut log, &mut batch, 61..=100);
    volume.state().free = Some(PURGE_ROOM_BYTES);
    volume.state().lies = true;
    let error = purger.purge(0).unwrap_err();
    assert!(
        matches!(error, LogError::Purge { .. }) && !error.is_fatal(),
        "{error:?}"
    );
    volume.state().lies = false;
    volume.state().free = None;
    assert!(matches!(
        purger.purge(0).unwrap_err(),
        LogError::Purge { .. }
    ));
    write(&mut log, &mut batch, 101..=200);

    drop((log, purger));
    let log = open(&volume, dir.path(), 8 << 10);
    log.purger().purge(0).unwrap();
    drop(log);
    let log = open(&volume, dir.path(), 8 << 10);
    assert_eq!((log.bounds(1), log.bounds(2)), (Some((1, 200)), None));
    assert_eq!(log.state(2).unwrap(), b"state");
}
