//! A volume of real files that runs full, fails to sync, and takes down what happened to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use stock_storage::{Access, OsVolume, Volume, VolumeFile};

/// Clones are the same volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Bytes by which files can still grow; nothing means without end.
    pub(crate) free: Option<u64>,
    /// Nothing can be written, though space is said to be free.
    pub(crate) lies: bool,
    /// Making a file needs space too.
    pub(crate) creating_needs: u64,
    /// The files and directories, by the end of their names, that cannot be synced.
    pub(crate) syncs_fail: Option<&'static str>,
    /// No file can be deleted.
    pub(crate) deletes_fail: bool,
    /// What happened, in order: a verb, and the name of the file or directory.
    pub(crate) events: Vec<(&'static str, String)>,
}

impl Faulty {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn note(&self, verb: &'static str, path: &Path) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        self.state().events.push((verb, name));
    }

    /// Takes at most `bytes` of the free space.
    fn take(&self, bytes: u64) -> u64 {
        let mut state = self.state();
        let taken = match state.free {
            _ if state.lies => 0,
            Some(free) => free.min(bytes),
            None => bytes,
        };
        state.free = state.free.map(|free| free - taken);
        taken
    }

    fn give(&self, bytes: u64) {
        let mut state = self.state();
        state.free = state.free.map(|free| free + bytes);
    }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl Volume for Faulty {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>> {
        if access == Access::Create && !path.exists() {
            let needed = self.state().creating_needs;
            let taken = self.take(needed);
            if taken < needed {
                self.give(taken);
                return Err(full());
            }
            self.note("create", path);
        }
        Ok(Arc::new(FaultyFile {
            path: path.to_path_buf(),
            file: OsVolume.open(path, access)?,
            volume: self.clone(),
        }))
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        if self.state().deletes_fail {
            return Err(io::Error::from_raw_os_error(5));
        }
        let len = OsVolume.open(path, Access::Read)?.len()?;
        OsVolume.delete(path)?;
        self.give(len);
        self.note("delete", path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename", to);
        OsVolume.rename(from, to)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsVolume.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        OsVolume.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.note("sync_dir", dir);
        match self.state().syncs_fail {
            Some(end) if dir.ends_with(end) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsVolume.lock(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        match self.state().free {
            Some(free) => Ok(free),
            None => OsVolume.free_bytes(dir),
        }
    }
}

struct FaultyFile {
    path: PathBuf,
    file: Arc<dyn VolumeFile>,
    volume: Faulty,
}

impl VolumeFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    /// Writes what fits, like a real volume: the error comes with the next call.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let len = self.file.len()?;
        let grows = (offset + buf.len() as u64).saturating_sub(len);
        let fits = buf.len() as u64 - grows + self.volume.take(grows);
        if fits == 0 && !buf.is_empty() {
            return Err(full());
        }
        self.volume.note("write", &self.path);
        self.file.write_at(&buf[..fits as usize], offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.volume.give(self.file.len()?.saturating_sub(len));
        self.file.set_len(len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let grows = (offset + len).saturating_sub(self.file.len()?);
        let taken = self.volume.take(grows);
        if taken < grows {
            self.volume.give(taken);
            return Err(full());
        }
        self.file.reserve(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.volume.note("sync", &self.path);
        match self.volume.state().syncs_fail {
            Some(end) if self.path.to_str().unwrap().ends_with(end) => {
                Err(io::Error::from_raw_os_error(5))
            }
            // No test here cuts the power, so nothing need reach the disk.
            _ => Ok(()),
        }
    }
}
