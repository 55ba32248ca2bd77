//! The files of a data directory, behind a seam small enough to be played by something else.
//!
//! Production uses [`OsVolume`]. The simulator has one of its own that forgets what was not synced,
//! tears writes, runs full and fails. Nothing in this crate opens a file in any other way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

mod deletion;
mod os;
mod read_only;

pub use os::OsVolume;
pub use read_only::ReadOnlyVolume;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It must exist, and is only read.
    Read,
    /// It must exist.
    Write,
    /// It is made if it is not there. What it holds stays.
    Create,
}

/// A place that keeps files.
///
/// What was written is only sure to survive a power cut after [`VolumeFile::sync`], and a name that
/// was made, changed or deleted only after [`Volume::sync_dir`] of its directory.
///
/// The log's engine lists, makes, locks and syncs its own directory through the operating system,
/// so in a directory `log/` an implementation must keep a real file (its content does not matter)
/// under each name that it holds there.
pub trait Volume: fmt::Debug + Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>>;
    /// Deletes a file. Whoever has it open for reading can go on; its space may come back a little
    /// later.
    fn delete(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name; a file that has it already is replaced, at one moment.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a directory and those above it. It is no error if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The files in a directory, in the order of their names.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes sure that nobody else uses a data directory, until what is returned is dropped. Of a
    /// kind [`io::ErrorKind::WouldBlock`], with the holder as its text, if somebody does.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Bytes that can still be written.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
#[expect(
    clippy::len_without_is_empty,
    reason = "asking for the length is a system call that can fail"
)]
pub trait VolumeFile: Send + Sync {
    /// Reads into `buf` from `offset`; fewer bytes only at the end of the file or when interrupted.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `buf` at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts it off, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space, and extends the file to hold it. Does nothing where the system cannot.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`). After an error nothing is known of either.
    fn sync(&self) -> io::Result<()>;
}

/// Everything in a file.
///
/// # Errors
///
/// Those of the volume.
pub fn read_file(volume: &dyn Volume, path: &Path) -> io::Result<Vec<u8>> {
    let file = volume.open(path, Access::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Writes a whole file, or nothing of it, durably; whatever has its name is replaced.
///
/// # Errors
///
/// Those of the volume.
pub fn write_file(volume: &dyn Volume, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let file = volume.open(&partial, Access::Create)?;
    file.set_len(0)?;
    write_all_at(&*file, bytes, 0)?;
    file.sync()?;
    volume.rename(&partial, path)?;
    volume.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Fills `buf` from `offset` on.
pub(crate) fn read_exact_at(
    file: &dyn VolumeFile,
    mut buf: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                buf = &mut buf[len..];
                offset += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `buf` at `offset`.
pub(crate) fn write_all_at(
    file: &dyn VolumeFile,
    mut buf: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                buf = &buf[len..];
                offset += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error says that no more space is to be had.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
