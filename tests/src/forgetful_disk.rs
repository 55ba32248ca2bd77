//! A disk that forgets: a file system in which whatever was not synced is lost when the power is
//! cut, and which fails, fills up and dawdles when it is told to.
//!
//! A real disk keeps what was written and not synced, as long as only processes die. So a missing
//! fsync is found by no SIGKILL. Here, what a process wrote is durable after fsync or fdatasync of
//! the file, and a name that was made, changed or deleted after fsync of its directory, and not
//! before: neither time nor `sync_file_range` nor another file's fsync helps. That is as hard as
//! POSIX allows and harder than any one file system is; code that lives here lives on all of them.
//!
//! [`ForgetfulDisk::cut_power`] draws from its seed what becomes of the rest: nothing of it is
//! left, or all, or a beginning, or any sectors (of 512 bytes) at any moment of theirs; and of the
//! names none, all, the first few, or any that can be without the others.
//!
//! It speaks FUSE to the kernel and needs to be root, and `/dev/fuse`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use fuser::{BackgroundSession, Config, MountOption};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

mod contents;
mod faults;
mod kernel;
mod tree;

pub use self::faults::Op;
use self::kernel::{Kernel, State};
use self::tree::Tree;

/// What its mounts are called in `/proc/mounts`, before the id of the process that serves them.
const NAME: &str = "forgetful-disk-";

/// Calls that are answered at the same time: a slow sync does not hold up the rest.
const CALLS_AT_ONCE: usize = 4;

/// A mounted disk. It is unmounted, and what it kept is deleted, when this is dropped.
#[derive(Debug)]
pub struct ForgetfulDisk {
    path: PathBuf,
    kept: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

impl ForgetfulDisk {
    /// Why there can be no such disk here; none if there can.
    pub fn unavailable() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("a disk that forgets is mounted by root only".to_owned());
        }
        let device = fs::File::options().read(true).write(true).open("/dev/fuse");
        device.err().map(|e| format!("/dev/fuse: {e}"))
    }

    /// Mounts an empty disk at `path`, which is made; the bytes are kept beside it. The seed
    /// decides what is left after a sync that failed.
    pub fn mount(path: &Path, seed: u64) -> io::Result<Self> {
        let kept = path.with_extension("kept");
        fs::create_dir_all(path)?;
        fs::create_dir_all(&kept)?;
        let state = Arc::new(Mutex::new(State::new(Tree::new(&kept), seed)));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("{NAME}{}", std::process::id())),
            MountOption::DefaultPermissions,
        ];
        config.n_threads = Some(CALLS_AT_ONCE);
        let session = fuser::spawn_mount(Kernel(Arc::clone(&state)), path, &config)?;
        Ok(Self {
            path: path.to_owned(),
            kept,
            state,
            session: Some(session),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Power.
impl ForgetfulDisk {
    /// From now on every call fails with EIO, for good for whoever has a file open. What was not
    /// durable is lost, but for what the seed spares.
    pub fn cut_power(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut state = self.state();
        state.has_power = false;
        state.boot += 1;
        let cut = state.tree.cut_power(&mut random);
        cut.unwrap_or_else(|e| panic!("{}: {e}", self.kept.display()));
    }

    /// The power is back: what was durable can be read again. Faults are gone, too.
    pub fn restore(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.bytes_max = None;
        state.has_power = true;
    }
}

/// Faults. They last until [`ForgetfulDisk::heal`] or [`ForgetfulDisk::restore`].
impl ForgetfulDisk {
    /// The next such call on a path (from the root of the disk) that contains this fails. A sync
    /// that fails loses some of what it was to make durable, and a later one will not bring it
    /// back.
    pub fn fail_next(&self, op: Op, errno: Errno, path_contains: &str) {
        self.state().faults.add(op, errno, path_contains);
    }

    /// Every sync of a file or directory fails.
    pub fn fail_syncs(&self, errno: Errno) {
        self.state().faults.syncs = Some(errno);
    }

    /// After so many bytes more the disk is full: ENOSPC. The write that does not fit is cut short.
    pub fn full(&self, bytes_left: u64) {
        let mut state = self.state();
        state.bytes_max = Some(state.tree.reserved_bytes() + bytes_left);
    }

    /// Space cannot be reserved, for good: `fallocate` fails with EOPNOTSUPP, as it does on several
    /// real file systems. A disk that is filling up is then felt by the next write.
    pub fn refuse_allocation(&self) {
        self.state().can_allocate = false;
    }

    /// Every sync takes this long.
    pub fn delay_syncs(&self, delay: Duration) {
        self.state().faults.sync_delay = delay;
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.bytes_max = None;
    }

    /// How many calls have been answered with an error that was asked for.
    pub fn faults_met(&self) -> u64 {
        self.state().faults.met
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ForgetfulDisk {
    fn drop(&mut self) {
        // Detached, so that a process that is not quite dead yet does not keep it mounted. The
        // errors say that it is gone already.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
        drop(self.session.take());
        let _ = fs::remove_dir_all(&self.kept);
    }
}

/// A run that was killed leaves mounts that nobody serves.
pub(crate) fn unmount_left_behind() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount in mounts.lines() {
        let mut words = mount.split(' ');
        let (Some(name), Some(path)) = (words.next(), words.next()) else {
            continue;
        };
        let owner = name.strip_prefix(NAME);
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another run may be cleaning up, too.
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
}
