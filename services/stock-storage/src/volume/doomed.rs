//! Deleting large files a little at a time.
//!
//! A file system gives back what a file had in one go, and where it tells the disk so (`discard`), every
//! `fdatasync` waits for that: on ext4 three files of 100 MB kept a log's for 400 ms. Cut off two mebibytes at a
//! time, with rests between, it was 2 to 45 ms.
//!
//! A file that is cut must not be taken for what it was, after a crash either. So it gets another name first,
//! durably; and what is found under such a name is deleted.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Access, Volume};

/// Behind the name that a file had.
const EXTENSION: &str = "deleted";

/// So much goes at a time, in bytes. Smaller files are deleted as they are.
const STEP_BYTES: u64 = 2 << 20;

/// Takes a file its name. The directory is to be synced next; a large file goes with the next [`sweep`].
pub(crate) fn doom(volume: &dyn Volume, path: &Path) -> io::Result<()> {
    let is_large = volume.open(path, Access::Read)?.len()? > STEP_BYTES;
    // A volume may be too full for another name.
    if is_large && volume.rename(path, &doomed(path)).is_ok() {
        return Ok(());
    }
    volume.delete(path)
}

/// Deletes the doomed files of a directory, gently. Those that somebody `is_reading`, by the names that they had, are
/// deleted as they are, so that they can be read to their ends.
pub(crate) fn sweep(
    volume: &dyn Volume,
    dir: &Path,
    is_reading: impl Fn(&Path) -> bool,
) -> io::Result<()> {
    for path in volume.list(dir)? {
        if !is_doomed(&path) {
            continue;
        }
        if !is_reading(&path.with_extension("")) {
            let file = volume.open(&path, Access::Write)?;
            let mut len = file.len()?;
            while len > STEP_BYTES {
                len -= STEP_BYTES;
                file.set_len(len)?;
                volume.rest();
            }
        }
        volume.delete(&path)?;
    }
    Ok(())
}

/// Deletes what a crash has left of doomed files.
pub(crate) fn delete_left(volume: &dyn Volume, dir: &Path) -> io::Result<()> {
    for path in volume.list(dir)? {
        if is_doomed(&path) {
            volume.delete(&path)?;
        }
    }
    Ok(())
}

fn doomed(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(EXTENSION);
    name.into()
}

fn is_doomed(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == EXTENSION)
}
