//! Who reads which file, so that nobody shortens it meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::volume::{Access, Volume, VolumeFile};

/// The files that are open for reading. Clones are the same list.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<Mutex<Vec<PathBuf>>>);

impl Readers {
    /// Opens a file. It is in the list before it is open, and until it is closed.
    pub(super) fn open(&self, volume: &dyn Volume, path: &Path) -> io::Result<Arc<dyn VolumeFile>> {
        let listed = Listed {
            path: path.to_path_buf(),
            readers: self.clone(),
        };
        self.paths().push(path.to_path_buf());
        let file = volume.open(path, Access::Read)?;
        Ok(Arc::new(Reading {
            file,
            _listed: listed,
        }))
    }

    /// Whether somebody reads a file, by the name that it had when it was opened.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.paths().iter().any(|read| read == path)
    }

    fn paths(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Listed {
    path: PathBuf,
    readers: Readers,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut paths = self.readers.paths();
        if let Some(at) = paths.iter().position(|path| *path == self.path) {
            paths.swap_remove(at);
        }
    }
}

struct Reading {
    file: Arc<dyn VolumeFile>,
    _listed: Listed,
}

impl VolumeFile for Reading {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.reserve(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
