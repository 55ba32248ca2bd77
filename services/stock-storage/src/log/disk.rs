//! The files of the log, as the engine sees them.
//!
//! The engine brings a file system of its own; this one stands in for it to do three things that the
//! engine's does not. It refuses to cut off what had been acknowledged (see [`tail`](super::tail)). It
//! keeps the error of a failed sync, which the engine turns into a panic without the reason. And its
//! errors name the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::tail::{self, Tail};

/// Where in a file its alignment stands: behind 53 bytes that name the format and 8 for its version.
const ALIGNMENT_OFFSET: u64 = 61;

/// Hands out the files of a log and takes down what happened to them.
#[derive(Clone, Default)]
pub(super) struct Disk {
    notes: Arc<Mutex<Notes>>,
    #[cfg(test)]
    pub(super) syncs_fail: Arc<std::sync::atomic::AtomicBool>,
}

/// What the engine would not pass on.
#[derive(Default)]
pub(super) struct Notes {
    /// The file that must not be used any more, and why.
    pub(super) damage: Option<(PathBuf, String)>,
    /// What was cut off while opening.
    pub(super) cut: Option<TailCut>,
    /// The file that could not be synced, and what the operating system said.
    pub(super) sync_error: Option<(PathBuf, io::Error)>,
}

/// A write that a power cut or a crash of the machine had left half done, and that opening the log has
/// cut off. It had not been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// The file.
    pub file: PathBuf,
    /// Where in the file the write began, in bytes.
    pub offset: u64,
    /// How much of it was there, in bytes.
    pub len: u64,
}

impl Disk {
    pub(super) fn take_notes(&self) -> Notes {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn file(&self, path: &Path, file: File, permission: Permission) -> LogFile {
        LogFile {
            path: path.to_path_buf(),
            file,
            permission,
            disk: self.clone(),
        }
    }

    fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl FileSystem for Disk {
    type Handle = LogFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogFile> {
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        Ok(self.file(path, named("create", path, file)?, Permission::ReadWrite))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<LogFile> {
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(permission == Permission::ReadWrite)
            .open(path);
        let file = self.file(path, named("open", path, file)?, permission);
        file.check_alignment()?;
        Ok(file)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        named("delete", path.as_ref(), fs::remove_file(&path))
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        named("rename", from.as_ref(), fs::rename(&from, to))
    }

    fn new_reader(&self, handle: Arc<LogFile>) -> io::Result<Cursor> {
        Ok(Cursor { handle, offset: 0 })
    }

    fn new_writer(&self, handle: Arc<LogFile>) -> io::Result<Cursor> {
        Ok(Cursor { handle, offset: 0 })
    }
}

/// One open file of the log.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    permission: Permission,
    disk: Disk,
}

impl LogFile {
    /// Everything from `offset` on.
    fn read_from(&self, offset: u64) -> io::Result<Vec<u8>> {
        let len = self.file.metadata()?.len().saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// A file's header says to which multiple of bytes its writes are aligned, and nothing protects that
    /// number. None of ours are aligned. A damaged one would make the engine skip writes, or ask for as
    /// much memory as it says, which ends the process.
    fn check_alignment(&self) -> io::Result<()> {
        let mut alignment = [0; 8];
        match self.file.read_exact_at(&mut alignment, ALIGNMENT_OFFSET) {
            Ok(()) if alignment == [0; 8] => Ok(()),
            Ok(()) => Err(self.refuse("its header is damaged".to_owned())),
            // Shorter than a header: nothing was ever written to it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => named("read", &self.path, Err(error)),
        }
    }

    fn refuse(&self, reason: String) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, reason.clone());
        self.disk
            .note(|notes| notes.damage = Some((self.path.clone(), reason)));
        error
    }
}

impl Handle for LogFile {
    /// The engine calls this for one reason: while opening, to cut off what it cannot read.
    fn truncate(&self, offset: usize) -> io::Result<()> {
        let at = offset as u64;
        if self.permission == Permission::ReadOnly {
            return Err(self.refuse(format!(
                "it cannot be read from byte {at} on, and it is not the last file of the log"
            )));
        }
        let bytes = named("read", &self.path, self.read_from(at))?;
        match tail::judge(&bytes, file_number(&self.path).unwrap_or_default()) {
            Tail::Reserved => {}
            Tail::Torn { len } => {
                let cut = TailCut {
                    file: self.path.clone(),
                    offset: at,
                    len: len as u64,
                };
                tracing::warn!(
                    file = %cut.file.display(), offset = cut.offset, bytes = cut.len,
                    "cut off a write that was interrupted before it was durable"
                );
                self.disk.note(|notes| notes.cut = Some(cut));
            }
            Tail::Damaged { offset } => {
                return Err(self.refuse(format!(
                    "it cannot be read from byte {at} on, but a later write is whole at byte {}",
                    at + offset as u64
                )));
            }
        }
        named("truncate", &self.path, self.file.set_len(at))
    }

    fn file_size(&self) -> io::Result<usize> {
        let len = named("measure", &self.path, self.file.metadata())?.len();
        usize::try_from(len).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.file.sync_data();
        #[cfg(test)]
        let result = match self
            .disk
            .syncs_fail
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            true => Err(io::Error::from(Errno::IO)),
            false => result,
        };
        result.map_err(|error| {
            // The engine panics with what is returned; the error itself is kept for the caller.
            let panics_with =
                io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
            self.disk
                .note(|notes| notes.sync_error = Some((self.path.clone(), error)));
            panics_with
        })
    }
}

/// A place in a file, to read or write from.
pub(super) struct Cursor {
    handle: Arc<LogFile>,
    offset: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = named(
            "read",
            &self.handle.path,
            self.handle.file.read_at(buf, self.offset),
        )?;
        self.offset += len as u64;
        Ok(len)
    }
}

impl Write for Cursor {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = named(
            "write",
            &self.handle.path,
            self.handle.file.write_at(buf, self.offset),
        )?;
        self.offset += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let offset = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => (self.handle.file_size()? as u64).checked_add_signed(by),
        };
        self.offset = offset.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        named(
            "truncate",
            &self.handle.path,
            self.handle.file.set_len(offset as u64),
        )?;
        self.offset = offset as u64;
        Ok(())
    }

    /// Reserves space and extends the file, so that the writes that follow change no file size and an
    /// `fdatasync` of them has less to do.
    fn allocate(&mut self, offset: usize, len: usize) -> io::Result<()> {
        let file = &self.handle.file;
        match rustix::fs::fallocate(file, FallocateFlags::empty(), offset as u64, len as u64) {
            // A file system that cannot reserve grows the file with each write instead.
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => named(
                "reserve space in",
                &self.handle.path,
                result.map_err(io::Error::from),
            ),
        }
    }
}

/// The number in a log file's name, which only the log's own files have.
pub(super) fn file_number(path: &Path) -> Option<u64> {
    match path.extension()?.to_str()? {
        "raftlog" | "rewrite" => path.file_stem()?.to_str()?.parse().ok(),
        _ => None,
    }
}

fn named<T>(action: &str, path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| {
        // Interrupted calls are repeated by the caller, who looks at the kind.
        io::Error::new(
            error.kind(),
            format!("cannot {action} {}: {error}", path.display()),
        )
    })
}
