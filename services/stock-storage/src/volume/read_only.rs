//! A data directory that is looked at and stays as it is.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, OsVolume, Volume, VolumeFile, read_exact_at};

/// The operating system's files, of which none is changed. Opening a log or a store tidies up: what
/// would be cut, written, renamed or deleted then is so in memory only, and forgotten with this
/// volume.
///
/// The log's engine takes a lock of its own in `log/`, whose file it makes where it is not there.
#[derive(Debug, Default)]
pub struct ReadOnlyVolume {
    /// Files that differ from what is on the disk; none: deleted.
    changed: Mutex<BTreeMap<PathBuf, Option<Arc<ChangedFile>>>>,
}

impl ReadOnlyVolume {
    fn changed(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Option<Arc<ChangedFile>>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume for ReadOnlyVolume {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>> {
        let mut changed = self.changed();
        let on_disk = match changed.get(path) {
            Some(Some(file)) => return Ok(Arc::clone(file) as Arc<dyn VolumeFile>),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => OsVolume.open(path, Access::Read),
        };
        let file = match (access, on_disk) {
            (Access::Read, on_disk) => return on_disk,
            (Access::Create, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                ChangedFile(Mutex::new(Content::Memory(Vec::new())))
            }
            (Access::Write | Access::Create, on_disk) => ChangedFile::of(on_disk?)?,
        };
        let file = Arc::new(file);
        changed.insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        // Whoever deletes what is not there should hear of it.
        self.open(path, Access::Read)?;
        self.changed().insert(path.to_owned(), None);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.open(from, Access::Write)?;
        let mut changed = self.changed();
        let file = changed.insert(from.to_owned(), None).flatten();
        changed.insert(to.to_owned(), file);
        Ok(())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = match OsVolume.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        for (path, file) in &*self.changed() {
            paths.retain(|listed| listed != path);
            if file.is_some() && path.parent() == Some(dir) {
                paths.push(path.clone());
            }
        }
        paths.sort_unstable();
        Ok(paths)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        // The name of the last holder stays in it. Where there is no such file, nobody ever held
        // it.
        let mut file = File::open(dir.join("LOCK"))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let is_known = file.read_to_string(&mut holder).is_ok();
                let holder = Some(holder.trim()).filter(|name| is_known && !name.is_empty());
                let holder = holder.unwrap_or("unknown").to_owned();
                Err(io::Error::new(io::ErrorKind::WouldBlock, holder))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsVolume.free_bytes(dir)
    }
}

struct ChangedFile(Mutex<Content>);

enum Content {
    /// The first bytes of a file on the disk.
    Disk(Arc<dyn VolumeFile>, u64),
    /// A copy, which was written to.
    Memory(Vec<u8>),
}

impl std::fmt::Debug for ChangedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangedFile").finish_non_exhaustive()
    }
}

impl ChangedFile {
    fn of(file: Arc<dyn VolumeFile>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self(Mutex::new(Content::Disk(file, len))))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut content = self.content();
        if let Content::Disk(file, len) = &*content {
            let mut copy = vec![0; usize::try_from(*len).map_err(io::Error::other)?];
            read_exact_at(&**file, &mut copy, 0)?;
            *content = Content::Memory(copy);
        }
        match &mut *content {
            Content::Memory(bytes) => Ok(change(bytes)),
            Content::Disk(..) => unreachable!("it was copied just now"),
        }
    }
}

impl VolumeFile for ChangedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match &*self.content() {
            Content::Disk(file, len) => {
                let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
                let wanted = buf.len().min(left);
                file.read_at(&mut buf[..wanted], offset)
            }
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
                let wanted = buf.len().min(bytes.len() - start);
                buf[..wanted].copy_from_slice(&bytes[start..start + wanted]);
                Ok(wanted)
            }
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.change(|bytes| {
            let end = start + buf.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(buf);
            buf.len()
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(match &*self.content() {
            Content::Disk(_, len) => *len,
            Content::Memory(bytes) => bytes.len() as u64,
        })
    }

    fn set_len(&self, to: u64) -> io::Result<()> {
        if let Content::Disk(_, len) = &mut *self.content()
            && to <= *len
        {
            *len = to;
            return Ok(());
        }
        let to = usize::try_from(to).map_err(io::Error::other)?;
        self.change(|bytes| bytes.resize(to, 0))
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
