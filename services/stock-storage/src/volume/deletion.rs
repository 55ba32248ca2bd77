//! Deleting large files a little at a time.
//!
//! A file system gives back what a file had in one go, and where it passes that on to the disk (`discard`), every
//! `fdatasync` waits for it: on ext4 three files of 100 MB kept another file's for 400 ms. Cut off two mebibytes at
//! a time, with rests between, it was 2 to 30 ms.
//!
//! A deleted file has lost its name at once, durably with the next sync of its directory; what is cut is only what
//! still holds its space. So a crash leaves nothing behind: the file system frees whatever nobody has open. Whoever
//! opened the file to read it holds a shared lock on it, and then it is left whole until it is closed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// So much goes at a time, in bytes. Smaller files go whole.
const STEP_BYTES: u64 = 2 << 20;

/// A disk has done what it was asked before by then.
const REST: Duration = Duration::from_millis(20);

/// Where less is free, space is wanted more than calm.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Files that wait to be cut. Any more go whole.
const WAITING_MAX: usize = 64;

/// One thread for the process; none where none can be started.
static CUTTER: LazyLock<Option<SyncSender<File>>> = LazyLock::new(|| {
    let (sender, files) = sync_channel(WAITING_MAX);
    let cut_all = move || {
        for file in files {
            // Closed after an error, it goes whole.
            let _ = cut(&file, || thread::sleep(REST));
        }
    };
    let thread = thread::Builder::new().name("deletions".to_owned());
    thread.spawn(cut_all).ok().map(|_| sender)
});

/// Deletes a file. The space of a large one comes back little by little.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    if let Some(file) = unlink(path)?
        && let Some(cutter) = &*CUTTER
    {
        // Where too many wait, this closes it.
        let _ = cutter.try_send(file);
    }
    Ok(())
}

/// Takes a file its name. Returned is one that is to be cut.
fn unlink(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).open(path);
    fs::remove_file(path)?;
    Ok(file.ok().filter(|file| {
        // It may have another name still.
        let is_large = |file: fs::Metadata| file.nlink() == 0 && file.len() > STEP_BYTES;
        file.metadata().is_ok_and(is_large)
    }))
}

/// Cuts a file down to a step, unless somebody reads it.
fn cut(file: &File, mut rest: impl FnMut()) -> io::Result<()> {
    // Whoever deletes a file may be about to close it.
    rest();
    file.try_lock()?;
    let mut len = file.metadata()?.len();
    while len > STEP_BYTES && has_room(file)? {
        len = (len - 1) / STEP_BYTES * STEP_BYTES;
        file.set_len(len)?;
        rest();
    }
    Ok(())
}

fn has_room(file: &File) -> io::Result<bool> {
    let volume = rustix::fs::fstatvfs(file)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize) >= FREE_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::{Access, OsVolume, Volume};

    fn file_of(bytes: u64) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![7; bytes as usize]).unwrap();
        (dir, path)
    }

    #[test]
    fn a_large_file_goes_step_by_step() {
        let (_dir, path) = file_of(2 * STEP_BYTES + 5);
        let file = unlink(&path).unwrap().expect("it is large");
        assert!(!path.exists());
        let mut lengths = Vec::new();
        cut(&file, || lengths.push(file.metadata().unwrap().len())).unwrap();
        let whole = 2 * STEP_BYTES + 5;
        assert_eq!(lengths, [whole, 2 * STEP_BYTES, STEP_BYTES]);
    }

    #[test]
    fn a_small_file_goes_at_once() {
        let (_dir, path) = file_of(STEP_BYTES);
        assert!(unlink(&path).unwrap().is_none());
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_reads_stays_whole() {
        let (_dir, path) = file_of(3 * STEP_BYTES);
        let read = OsVolume.open(&path, Access::Read).unwrap();
        let file = unlink(&path).unwrap().expect("it is large");
        cut(&file, || {}).unwrap_err();
        assert_eq!(read.len().unwrap(), 3 * STEP_BYTES);
        drop(read);
        cut(&file, || {}).unwrap();
        assert_eq!(file.metadata().unwrap().len(), STEP_BYTES);
    }

    #[test]
    fn what_has_another_name_stays_whole() {
        let (dir, path) = file_of(3 * STEP_BYTES);
        let other = dir.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        assert!(unlink(&path).unwrap().is_none());
        assert!(unlink(&other).unwrap().is_some());
    }

    #[test]
    fn what_is_not_there_cannot_be_deleted() {
        let (dir, _) = file_of(1);
        let error = delete(&dir.path().join("no-such-file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
