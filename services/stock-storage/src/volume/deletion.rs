//! Deleting large files a little at a time.
//!
//! A file system gives back what a file had in one go, and where it passes that on to the disk
//! (`discard`), every `fdatasync` waits for it: on ext4 three files of 100 MB kept another file's
//! for 400 ms. Cut off two mebibytes at a time, with rests between, it was 2 to 30 ms.
//!
//! A deleted file loses its name at once. What is cut is only what still holds its space, and only
//! when it is durable that the name is gone: no power cut brings back a part of a file under the
//! name of the whole. Nor does a crash leave anything behind, since the file system frees whatever
//! nobody has open. Whoever opens a file to read it holds a shared lock on it, and then it is left
//! whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use std::{io, thread};

/// So much goes at a time, in bytes. Smaller files go whole.
const STEP_BYTES: u64 = 2 << 20;

/// A disk has done what it was asked before by then.
const REST: Duration = Duration::from_millis(20);

/// Whoever deletes a file may have it open still. Those who have it open for more rests than this
/// are reading it.
const CLOSED_WITHIN_RESTS: u32 = 50;

/// Where less is free, space is wanted more than calm.
const FREE_BYTES_MIN: u64 = 2 << 30;

/// Files that wait to be cut. Any more go whole.
const WAITING_MAX: usize = 64;

/// A file without a name.
struct Nameless {
    file: File,
    /// Where it was.
    dir: PathBuf,
}

/// One thread for the process; none where none can be started.
static CUTTER: LazyLock<Option<SyncSender<Nameless>>> = LazyLock::new(|| {
    let (sender, files) = sync_channel::<Nameless>(WAITING_MAX);
    let cut_all = move || {
        for nameless in files {
            // Closed after an error, it goes whole.
            let _ = nameless.cut(has_room, || thread::sleep(REST));
        }
    };
    let thread = thread::Builder::new().name("deletions".to_owned());
    thread.spawn(cut_all).ok().map(|_| sender)
});

/// Deletes a file. The space of a large one comes back little by little.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    if let Some(nameless) = unlink(path)?
        && let Some(cutter) = &*CUTTER
    {
        // Where too many wait, this closes it.
        let _ = cutter.try_send(nameless);
    }
    Ok(())
}

/// Keeps a file that was opened from being cut, until it is closed. It is not found, if that has
/// begun.
pub(super) fn keep_whole(file: &File) -> io::Result<()> {
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) if file.metadata()?.nlink() == 0 => {
            Err(io::ErrorKind::NotFound.into())
        }
        // A file system without locks has none for the cutter either.
        _ => Ok(()),
    }
}

/// Takes a file its name. Returned is one that is to be cut.
fn unlink(path: &Path) -> io::Result<Option<Nameless>> {
    let file = OpenOptions::new().write(true).open(path);
    fs::remove_file(path)?;
    // It may have another name still.
    let is_to_be_cut = |file: &File| {
        file.metadata()
            .is_ok_and(|file| file.nlink() == 0 && file.len() > STEP_BYTES)
    };
    let (Some(file), Some(dir)) = (file.ok().filter(is_to_be_cut), path.parent()) else {
        return Ok(None);
    };
    let dir = dir.to_path_buf();
    Ok(Some(Nameless { file, dir }))
}

impl Nameless {
    /// Cuts it down to a step, unless somebody reads it, or space is short.
    fn cut(
        &self,
        has_room: impl Fn(&File) -> io::Result<bool>,
        mut rest: impl FnMut(),
    ) -> io::Result<()> {
        if !has_room(&self.file)? {
            return Ok(());
        }
        File::open(&self.dir)?.sync_all()?;
        self.lock(&mut rest)?;
        let mut len = self.file.metadata()?.len();
        while len > STEP_BYTES && has_room(&self.file)? {
            len = (len - 1) / STEP_BYTES * STEP_BYTES;
            self.file.set_len(len)?;
            rest();
        }
        Ok(())
    }

    fn lock(&self, mut rest: impl FnMut()) -> io::Result<()> {
        for _ in 0..CLOSED_WITHIN_RESTS {
            match self.file.try_lock() {
                Err(TryLockError::WouldBlock) => rest(),
                result => return Ok(result?),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn has_room(file: &File) -> io::Result<bool> {
    let volume = rustix::fs::fstatvfs(file)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize) >= FREE_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{Access, OsVolume, Volume};

    fn file_of(bytes: u64) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![7; bytes as usize]).unwrap();
        (dir, path)
    }

    fn len(nameless: &Nameless) -> u64 {
        nameless.file.metadata().unwrap().len()
    }

    #[test]
    fn a_large_file_goes_step_by_step() {
        let whole = 3 * STEP_BYTES + 5;
        let (_dir, path) = file_of(whole);
        let nameless = unlink(&path).unwrap().expect("it is large");
        assert!(!path.exists());
        assert_eq!(len(&nameless), whole);
        let mut lengths = Vec::new();
        let rest = || lengths.push(len(&nameless));
        nameless.cut(|_| Ok(true), rest).unwrap();
        assert_eq!(lengths, [3 * STEP_BYTES, 2 * STEP_BYTES, STEP_BYTES]);
    }

    #[test]
    fn a_small_file_goes_at_once() {
        let (_dir, path) = file_of(STEP_BYTES);
        assert!(unlink(&path).unwrap().is_none());
        assert!(!path.exists());
    }

    #[test]
    fn nobody_rests_while_space_is_short() {
        let (_dir, path) = file_of(3 * STEP_BYTES);
        let nameless = unlink(&path).unwrap().expect("it is large");
        let rest = || panic!("somebody waits for the space");
        nameless.cut(|_| Ok(false), rest).unwrap();
    }

    #[test]
    fn what_somebody_reads_stays_whole() {
        let (_dir, path) = file_of(3 * STEP_BYTES);
        let read = OsVolume.open(&path, Access::Read).unwrap();
        let nameless = unlink(&path).unwrap().expect("it is large");
        nameless.cut(|_| Ok(true), || {}).unwrap_err();
        assert_eq!(read.len().unwrap(), 3 * STEP_BYTES);
        // Whoever deletes a file may close it a moment later.
        let mut read = Some(read);
        nameless.cut(|_| Ok(true), || drop(read.take())).unwrap();
        assert_eq!(len(&nameless), STEP_BYTES);
    }

    #[test]
    fn what_is_being_cut_cannot_be_opened_any_more() {
        let (_dir, path) = file_of(3 * STEP_BYTES);
        let late = File::open(&path).unwrap();
        let nameless = unlink(&path).unwrap().expect("it is large");
        nameless.cut(|_| Ok(true), || {}).unwrap();
        let error = keep_whole(&late).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
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
