//! The disk that forgets, by itself: what is synced stays, what is not may go, and nothing else
//! happens.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use tempfile::TempDir;
use tests::forgetful_disk::{ForgetfulDisk, Op};
use tests::programs::data_dir;

use crate::can_mount;

/// So many cuts show everything that chance can do.
const SEEDS: u64 = 64;

struct Mounted {
    disk: ForgetfulDisk,
    _dir: TempDir,
}

impl Mounted {
    fn new() -> Self {
        let dir = data_dir();
        let disk = ForgetfulDisk::mount(&dir.path().join("disk"), 1).unwrap();
        Self { disk, _dir: dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    /// Makes a file, durably, name and all.
    fn keep(&self, name: &str, bytes: &[u8]) -> File {
        let file = self.open(name);
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
        self.sync_names();
        file
    }

    fn open(&self, name: &str) -> File {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        options.open(self.path(name)).unwrap()
    }

    fn sync_names(&self) {
        File::open(self.disk.path()).unwrap().sync_all().unwrap();
    }

    fn cut(&self, seed: u64) {
        self.disk.cut_power(seed);
        self.disk.restore();
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => panic!("{name}: {e}"),
        }
    }
}

#[test]
fn before_any_cut_it_is_a_file_system_like_others() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let file = mounted.open("a");
    file.write_all_at(b"hello", 3).unwrap();
    assert_eq!(mounted.read("a").unwrap(), b"\0\0\0hello");
    file.set_len(5).unwrap();
    file.set_len(7).unwrap();
    assert_eq!(mounted.read("a").unwrap(), b"\0\0\0he\0\0");
    fallocate(&file, FallocateFlags::empty(), 0, 9).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 100).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 9);
    let mut appending = File::options()
        .append(true)
        .open(mounted.path("a"))
        .unwrap();
    appending.write_all(b"!").unwrap();
    assert_eq!(mounted.read("a").unwrap(), b"\0\0\0he\0\0\0\0!");

    fs::create_dir_all(mounted.path("d/e")).unwrap();
    fs::rename(mounted.path("a"), mounted.path("d/e/b")).unwrap();
    assert_eq!(mounted.read("a"), None);
    fs::write(mounted.path("c"), b"replaced").unwrap();
    fs::rename(mounted.path("d/e/b"), mounted.path("c")).unwrap();
    assert_eq!(mounted.read("c").unwrap().len(), 10);
    // What is open stays, whatever its name leads to.
    fs::remove_file(mounted.path("c")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    let full = fs::remove_dir(mounted.path("d")).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::DirectoryNotEmpty);
    fs::remove_dir(mounted.path("d/e")).unwrap();
    let names = fs::read_dir(mounted.disk.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["d"]);

    let (one, other) = (mounted.open("lock"), mounted.open("lock"));
    flock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    let held = flock(&other, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(held.unwrap_err(), Errno::WOULDBLOCK);
}

#[test]
fn what_was_synced_stays_whatever_the_seed() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for seed in 0..SEEDS {
        let name = format!("kept-{seed}");
        let file = mounted.keep(&name, &[1; 3_000]);
        file.write_all_at(&[2; 1_000], 2_500).unwrap();
        file.sync_all().unwrap();
        mounted.cut(seed);
        let mut expected = vec![1; 2_500];
        expected.extend([2; 1_000]);
        assert_eq!(mounted.read(&name), Some(expected), "seed {seed}");
    }
    assert_eq!(fs::read_dir(mounted.disk.path()).unwrap().count(), 64);
}

/// Writes 4,096 bytes over others without a sync and says, for each seed, what was left.
fn torn(seed: u64, mounted: &Mounted) -> Vec<u8> {
    let file = mounted.keep("torn", &[1; 4_096]);
    file.write_all_at(&[2; 2_048], 0).unwrap();
    file.write_all_at(&[3; 4_096], 0).unwrap();
    assert_eq!(mounted.read("torn"), Some(vec![3; 4_096]));
    mounted.cut(seed);
    mounted.read("torn").unwrap()
}

#[test]
fn what_was_not_synced_is_lost_or_torn_between_sectors_or_there() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let bytes = torn(seed, &mounted);
        assert_eq!(bytes.len(), 4_096);
        for sector in bytes.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}");
            assert!((1..=3).contains(&sector[0]), "seed {seed}");
        }
        assert_eq!(bytes, torn(seed, &mounted), "one seed, one outcome: {seed}");
        found.insert(bytes);
    }
    assert!(found.contains(&vec![1; 4_096]), "lost");
    assert!(found.contains(&vec![3; 4_096]), "there");
    let is_beginning = |bytes: &Vec<u8>| bytes[0] == 3 && bytes[4_095] == 1;
    assert!(found.iter().any(is_beginning), "a beginning");
    let is_out_of_order = |bytes: &Vec<u8>| bytes[0] == 1 && bytes[4_095] == 3;
    assert!(
        found.iter().any(is_out_of_order),
        "the end without the beginning"
    );
}

#[test]
fn a_length_that_was_not_synced_may_be_any_it_ever_was() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let file = mounted.keep("length", &[]);
        for part in 0..4 {
            file.write_all_at(&[7; 100], part * 100).unwrap();
        }
        mounted.cut(seed);
        let bytes = mounted.read("length").unwrap();
        assert!(bytes.iter().all(|byte| [0, 7].contains(byte)));
        found.insert(bytes.len());
    }
    assert!(found.contains(&0) && found.contains(&400), "{found:?}");
    assert!(found.len() > 2, "{found:?}");
    assert!(found.iter().all(|len| len % 100 == 0), "{found:?}");
}

#[test]
fn a_new_name_is_lost_unless_its_directory_was_synced() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let name = format!("new-{seed}");
        let file = mounted.open(&name);
        file.write_all_at(b"synced", 0).unwrap();
        file.sync_all().unwrap();
        mounted.cut(seed);
        let left = mounted.read(&name);
        assert!(left.as_ref().is_none_or(|bytes| bytes == b"synced"));
        found.insert(left.is_some());
        // In a directory that is itself lost, everything is.
        fs::create_dir(mounted.path("dir")).unwrap();
        fs::write(mounted.path("dir/file"), b"").unwrap();
        File::open(mounted.path("dir")).unwrap().sync_all().unwrap();
        mounted.cut(seed);
        if mounted.path("dir").exists() {
            assert_eq!(mounted.read("dir/file"), Some(Vec::new()));
            fs::remove_dir_all(mounted.path("dir")).unwrap();
            mounted.sync_names();
        }
    }
    assert_eq!(found.len(), 2, "always the same");
}

#[test]
fn a_rename_without_a_sync_of_its_directory_is_done_whole_or_not_at_all() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        drop(mounted.keep("old", b"old"));
        drop(mounted.keep("new", b"new"));
        fs::rename(mounted.path("new"), mounted.path("old")).unwrap();
        assert_eq!(
            (mounted.read("old"), mounted.read("new")),
            (Some(b"new".into()), None)
        );
        mounted.cut(seed);
        let left = (mounted.read("old"), mounted.read("new"));
        if left.0.as_deref() == Some(b"new") {
            assert_eq!(left.1, None, "seed {seed}");
        } else {
            assert_eq!(
                left,
                (Some(b"old".into()), Some(b"new".into())),
                "seed {seed}"
            );
        }
        found.insert(left);
        // And after a sync it is done.
        drop(mounted.keep("new", b"newer"));
        fs::rename(mounted.path("new"), mounted.path("old")).unwrap();
        mounted.sync_names();
        mounted.cut(seed);
        let left = (mounted.read("old"), mounted.read("new"));
        assert_eq!(left, (Some(b"newer".into()), None), "seed {seed}");
    }
    assert_eq!(found.len(), 2, "always the same");
}

#[test]
fn a_deleted_file_comes_back_unless_its_directory_was_synced() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        drop(mounted.keep("deleted", b"there"));
        fs::remove_file(mounted.path("deleted")).unwrap();
        mounted.cut(seed);
        let left = mounted.read("deleted");
        assert!(left.as_ref().is_none_or(|bytes| bytes == b"there"));
        found.insert(left.is_some());
        if left.is_some() {
            fs::remove_file(mounted.path("deleted")).unwrap();
        }
        mounted.sync_names();
        mounted.cut(seed);
        assert_eq!(mounted.read("deleted"), None);
    }
    assert_eq!(found.len(), 2, "always the same");
}

#[test]
fn without_power_everything_fails_and_what_was_open_stays_dead() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let file = mounted.keep("open", b"there");
    mounted.disk.cut_power(1);
    let is_eio = |e: io::Error| e.raw_os_error() == Some(Errno::IO.raw_os_error());
    assert!(is_eio(file.write_at(b"x", 0).unwrap_err()));
    assert!(is_eio(file.read_at(&mut [0; 5], 0).unwrap_err()));
    assert!(is_eio(file.sync_data().unwrap_err()));
    assert!(is_eio(fs::read(mounted.path("open")).unwrap_err()));
    assert!(is_eio(fs::create_dir(mounted.path("dir")).unwrap_err()));
    mounted.disk.restore();
    assert!(is_eio(file.write_at(b"x", 0).unwrap_err()));
    assert!(is_eio(file.sync_data().unwrap_err()));
    assert_eq!(mounted.read("open"), Some(b"there".into()));
}

#[test]
fn a_sync_that_fails_loses_what_it_was_to_keep_though_a_later_one_succeeds() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut lost = 0;
    for seed in 0..SEEDS {
        let file = mounted.keep("log", &[1; 2_048]);
        file.write_all_at(&[2; 2_048], 0).unwrap();
        mounted.disk.fail_next(Op::Sync, Errno::IO, "log");
        let failed = file.sync_data().unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(Errno::IO.raw_os_error()));
        assert_eq!(
            mounted.read("log"),
            Some(vec![2; 2_048]),
            "as if it were there"
        );
        file.sync_data().unwrap();
        mounted.cut(seed);
        lost += u64::from(mounted.read("log") != Some(vec![2; 2_048]));
    }
    assert_eq!(mounted.disk.faults_met(), SEEDS);
    assert!(lost > SEEDS / 2, "{lost}");
}

#[test]
fn faults_come_when_and_where_they_are_asked_for() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (log, other) = (mounted.keep("log", b"1"), mounted.keep("other", b"1"));
    let errno = |done: io::Result<()>| done.err().and_then(|e| e.raw_os_error());
    let code = |errno: Errno| Some(errno.raw_os_error());

    mounted.disk.fail_next(Op::Write, Errno::NOSPC, "log");
    assert_eq!(errno(other.write_all_at(b"2", 0)), None);
    assert_eq!(errno(log.write_all_at(b"2", 0)), code(Errno::NOSPC));
    assert_eq!(errno(log.write_all_at(b"2", 0)), None, "once");

    mounted.disk.fail_next(Op::Rename, Errno::IO, "");
    let (from, to) = (mounted.path("log"), mounted.path("log.old"));
    assert_eq!(errno(fs::rename(&from, &to)), code(Errno::IO));
    assert_eq!(mounted.read("log.old"), None);

    mounted.disk.fail_syncs(Errno::IO);
    for _ in 0..2 {
        assert_eq!(errno(other.sync_data()), code(Errno::IO));
        let dir = File::open(mounted.disk.path()).unwrap();
        assert_eq!(errno(dir.sync_all()), code(Errno::IO));
    }
    mounted.disk.heal();
    assert_eq!(errno(other.sync_data()), None);

    mounted.disk.full(100);
    assert_eq!(log.write_at(&[3; 300], 0).unwrap(), 101, "what fits");
    assert_eq!(errno(log.write_all_at(b"3", 101)), code(Errno::NOSPC));
    assert_eq!(errno(log.write_all_at(b"4", 0)), None, "needs no room");
    let reserve = fallocate(&other, FallocateFlags::empty(), 0, 50);
    assert_eq!(reserve.unwrap_err(), Errno::NOSPC);
    fs::remove_file(mounted.path("log")).unwrap();
    drop(log);
    mounted.disk.heal();
    fallocate(&other, FallocateFlags::empty(), 0, 50).unwrap();

    let delay = Duration::from_millis(50);
    mounted.disk.delay_syncs(delay);
    let began = Instant::now();
    other.sync_data().unwrap();
    assert!(began.elapsed() >= delay);
}
