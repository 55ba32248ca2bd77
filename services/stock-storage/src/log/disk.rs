//! The files of the log, as the engine sees them.
//!
//! The engine brings a file system of its own; this one stands in for it, puts the files on a
//! [`Volume`], and does three things that the engine's does not. It refuses to cut off what had
//! been acknowledged (see [`tail`](super::tail)). It keeps the error of a failed sync, which the
//! engine turns into a panic without the reason. And its errors name the file.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use super::mark::Mark;
use super::tail::{self, Tail};
use crate::volume::{self, Access, Volume, VolumeFile};

/// Where in a file the version of its format stands: behind 53 bytes that name the format. The
/// alignment comes next.
const VERSION_OFFSET: u64 = 53;
/// The version, big-endian, that has no alignment in its header.
const VERSION_WITHOUT_ALIGNMENT: [u8; 8] = 1_u64.to_be_bytes();

/// Hands out the files of a log and takes down what happened to them.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) volume: Arc<dyn Volume>,
    /// Of each queue its own, since they are written on two threads.
    notes: Arc<[Mutex<Notes>; 2]>,
    /// From here on the files stay as they are.
    abandoned: Arc<AtomicBool>,
    /// How far the copies go that a purge has made.
    pub(super) mark: Arc<Mark>,
}

/// The two queues of files that the engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// What was written.
    Append = 0,
    /// Copies of what was still needed when an older file was deleted.
    Rewrite = 1,
}

/// What the engine would not pass on.
#[derive(Default)]
pub(super) struct Notes {
    /// What must not be used any more, and why.
    pub(super) damage: Option<Damage>,
    /// What was cut off while opening.
    pub(super) cut: Option<TailCut>,
    /// The file that could not be synced, and what the operating system said.
    pub(super) sync_error: Option<(PathBuf, io::Error)>,
    /// A write did not fit, and what had been written of it could not be cut off.
    pub(super) cut_failed: bool,
}

/// Something that the log once had and cannot read any more.
pub(super) struct Damage {
    pub(super) file: PathBuf,
    /// From where on, in bytes, where that is known.
    pub(super) offset: Option<u64>,
    /// In words.
    pub(super) reason: String,
}

/// A write that a power cut or a crash of the machine had left half done, and that opening the log
/// has cut off. It had not been acknowledged.
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
    pub(super) fn new(volume: Arc<dyn Volume>) -> Disk {
        Disk {
            volume,
            notes: Arc::default(),
            abandoned: Arc::default(),
            mark: Arc::default(),
        }
    }

    pub(super) fn take_notes(&self, queue: Queue) -> Notes {
        std::mem::take(&mut self.notes_of(queue))
    }

    /// Lets the engine close its files without touching them. Closing cuts and syncs the last file
    /// of each queue; after a failure that could only spoil more, and the engine would panic in a
    /// destructor.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    fn sync_dir_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(dir) => named("sync", dir, self.volume.sync_dir(dir)),
            None => Ok(()),
        }
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    fn notes_of(&self, queue: Queue) -> MutexGuard<'_, Notes> {
        self.notes[queue as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, path: &Path, file: Arc<dyn VolumeFile>) -> LogFile {
        LogFile {
            path: path.to_path_buf(),
            queue: queue_of(path),
            file,
            disk: self.clone(),
        }
    }
}

impl FileSystem for Disk {
    type Handle = LogFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogFile> {
        let path = path.as_ref();
        let file = named("create", path, self.volume.open(path, Access::Create))?;
        // The engine syncs its directory too, but past the volume.
        self.sync_dir_of(path)?;
        Ok(self.file(path, file))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<LogFile> {
        let path = path.as_ref();
        let access = match permission {
            Permission::ReadOnly => Access::Read,
            Permission::ReadWrite => Access::Write,
        };
        let file = self.volume.open(path, access);
        let file = self.file(path, named("open", path, file)?);
        file.check_alignment()?;
        Ok(file)
    }

    /// Files are deleted from the oldest on. So that no power cut leaves a gap, each deletion is
    /// durable before the next one.
    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        let dir = path.parent().unwrap_or(Path::new("."));
        self.mark.before_deletion(&*self.volume, dir);
        named("delete", path, self.volume.delete(path))?;
        self.sync_dir_of(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        named(
            "rename",
            from.as_ref(),
            self.volume.rename(from.as_ref(), to.as_ref()),
        )
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
    /// What its name says: every write asks for it.
    queue: Queue,
    file: Arc<dyn VolumeFile>,
    disk: Disk,
}

impl LogFile {
    fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.disk.notes_of(self.queue));
    }

    /// Everything from `offset` on.
    fn read_from(&self, offset: u64) -> io::Result<Vec<u8>> {
        let len = self.file.len()?.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        volume::read_exact_at(&*self.file, &mut bytes, offset)?;
        Ok(bytes)
    }

    /// A file's header says to which multiple of bytes its writes are aligned, and nothing protects
    /// that number. None of ours are aligned. A damaged one would make the engine skip writes, or
    /// ask for as much memory as it says, which ends the process.
    fn check_alignment(&self) -> io::Result<()> {
        let mut header = [0; 16];
        let read = volume::read_exact_at(&*self.file, &mut header, VERSION_OFFSET);
        let [version, alignment] = [0, 8].map(|at| &header[at..at + 8]);
        match read {
            // The engine writes the older format into a file whose header a power cut had torn;
            // there the writes begin where the alignment would be.
            Ok(()) if version == VERSION_WITHOUT_ALIGNMENT || alignment == [0; 8] => Ok(()),
            Ok(()) => Err(self.refuse(0, "its header is damaged".to_owned())),
            // Shorter than a header: nothing was ever written to it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => named("read", &self.path, Err(error)),
        }
    }

    /// Whether no later file of its queue is there.
    fn is_last(&self) -> io::Result<bool> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let files = named("list", dir, self.disk.volume.list(dir))?;
        let own = (file_number(&self.path), self.queue);
        let mut later = files.iter().filter(|path| queue_of(path) == own.1);
        Ok(!later.any(|path| file_number(path) > own.0))
    }

    fn refuse(&self, offset: u64, reason: String) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, reason.clone());
        let damage = Damage {
            file: self.path.clone(),
            offset: Some(offset),
            reason,
        };
        self.note(|notes| notes.damage = Some(damage));
        error
    }
}

impl Handle for LogFile {
    /// The engine calls this for one reason: while opening, to cut off what it cannot read.
    fn truncate(&self, offset: usize) -> io::Result<()> {
        let at = offset as u64;
        if !self.is_last()? {
            // A log that is looked at as far as it is whole has empty files behind that.
            if self.file.len()? <= at {
                return Ok(());
            }
            let reason = format!(
                "it cannot be read from byte {at} on, and it is not the last file of the log"
            );
            return Err(self.refuse(at, reason));
        }
        if self.disk.mark.is_beyond(&self.path, at) {
            let reason =
                format!("it cannot be read from byte {at} on, and what was there is nowhere else");
            return Err(self.refuse(at, reason));
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
                    "cut off a write that is not whole: it was interrupted before anybody was \
                     told, or the disk has lost its end"
                );
                self.note(|notes| notes.cut = Some(cut));
            }
            Tail::Damaged { offset } => {
                let later = at + offset as u64;
                return Err(self.refuse(
                    at,
                    format!(
                        "it cannot be read from byte {at} on, but a later write is whole at byte \
                         {later}"
                    ),
                ));
            }
        }
        named("truncate", &self.path, self.file.set_len(at))
    }

    fn file_size(&self) -> io::Result<usize> {
        let len = named("measure", &self.path, self.file.len())?;
        usize::try_from(len).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        if self.disk.is_abandoned() {
            return Ok(());
        }
        self.file.sync().map_err(|error| {
            // The engine panics with what is returned; the error itself is kept for the caller.
            let panics_with =
                io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
            self.note(|notes| notes.sync_error = Some((self.path.clone(), error)));
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
        // The only error without the file's name: the engine looks for "nospace" in its text and
        // does something else then, and a path may hold that.
        let len = self.handle.file.write_at(buf, self.offset)?;
        // The engine copies in several writes before it syncs once. After a power cut the disk
        // could hold a later one without an earlier, which nobody can tell from damage.
        let is_copy = self.handle.queue == Queue::Rewrite;
        if is_copy {
            self.handle.sync()?;
        }
        self.offset += len as u64;
        if is_copy {
            self.handle
                .disk
                .mark
                .written(&self.handle.path, self.offset);
        }
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
    /// The engine calls this to give reserved space back, and to take back a write that did not
    /// fit.
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        if self.handle.disk.is_abandoned() {
            return Ok(());
        }
        let result = self.handle.file.set_len(offset as u64);
        if result.is_err() {
            self.handle.note(|notes| notes.cut_failed = true);
        }
        named("truncate", &self.handle.path, result)?;
        self.offset = offset as u64;
        Ok(())
    }

    /// Reserves space and extends the file, so that the writes that follow change no file size and
    /// an `fdatasync` of them has less to do.
    fn allocate(&mut self, offset: usize, len: usize) -> io::Result<()> {
        named(
            "reserve space in",
            &self.handle.path,
            self.handle.file.reserve(offset as u64, len as u64),
        )
    }
}

/// The queue that a log file belongs to.
pub(super) fn queue_of(path: &Path) -> Queue {
    match path.extension().is_some_and(|it| it == "rewrite") {
        true => Queue::Rewrite,
        false => Queue::Append,
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
