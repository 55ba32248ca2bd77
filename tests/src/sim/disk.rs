//! A machine's disk. It survives what its machine does not, apart from what was never synced.
//!
//! The log's engine lists and locks its directory through the operating system, so a real file of
//! no content stands for each name. Every boot gets a directory of its own for those: an engine
//! that has failed never lets go of its lock.

mod damage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use stock_cluster::GroupId;
use stock_storage::{Access, Volume, VolumeFile};

use super::dice::Dice;

/// The unit in which a disk loses parts of a write.
const SECTOR: usize = 512;

/// A disk, whatever happens to the machine around it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    /// Whoever opened a file in an earlier boot is dead and changes nothing any more.
    boot: u64,
    files: BTreeMap<u64, File>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of a directory, in their order.
    name_changes: Vec<(PathBuf, Option<u64>)>,
    next_file: u64,
    /// Files in which a bit has turned over, and where.
    damaged: BTreeMap<u64, usize>,
    /// Files that were received, and are states now.
    adopted: BTreeSet<u64>,
    /// Groups whose newest state was damaged once.
    newest_was_damaged: BTreeSet<GroupId>,
    free_bytes: u64,
    dice: Dice,
    trouble: Trouble,
    /// What has happened, for the report.
    torn_writes: u64,
    lost_writes: u64,
    happened: Happened,
}

#[derive(Default)]
struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Where each durable write began.
    durable_writes: Vec<usize>,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What is going to go wrong.
#[derive(Default)]
struct Trouble {
    /// The power fails before so many further writes and syncs are done.
    cut_after: Option<u64>,
    /// One of the next syncs fails.
    sync_fails_after: Option<u64>,
}

/// What has gone wrong since it was last asked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Happened {
    /// The power failed in the middle of a write.
    pub(crate) cut: bool,
    /// A sync failed.
    pub(crate) sync_failed: bool,
    /// There was no room.
    pub(crate) was_full: bool,
}

/// How a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process is killed; the operating system keeps what it was given.
    Killed,
    /// The power fails; what was not synced may be lost, in part or whole.
    PowerCut,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            boot: 0,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            next_file: 0,
            damaged: BTreeMap::new(),
            adopted: BTreeSet::new(),
            newest_was_damaged: BTreeSet::new(),
            free_bytes: u64::MAX,
            dice,
            trouble: Trouble::default(),
            torn_writes: 0,
            lost_writes: 0,
            happened: Happened::default(),
        })))
    }

    /// Begins another boot, with `root` for the names.
    pub(crate) fn mount(&self, root: &Path) -> io::Result<Arc<dyn Volume>> {
        let mut platter = self.platter();
        platter.boot += 1;
        platter.trouble = Trouble::default();
        platter.happened = Happened::default();
        platter.free_bytes = u64::MAX;
        fs::create_dir_all(root)?;
        for name in platter.names.keys() {
            stand_in(&root.join(name))?;
        }
        Ok(Arc::new(Mounted {
            disk: self.clone(),
            boot: platter.boot,
            root: root.to_path_buf(),
        }))
    }

    /// The machine is gone. What it had open changes nothing any more.
    pub(crate) fn unmount(&self, ending: Ending) {
        let mut platter = self.platter();
        platter.boot += 1;
        if ending == Ending::PowerCut {
            platter.lose_power();
        }
    }

    /// The power will fail in the middle of a write or sync soon.
    pub(crate) fn cut_power_after(&self, operations: u64) {
        self.platter().trouble.cut_after = Some(operations);
    }

    /// A sync will fail soon.
    pub(crate) fn fail_sync_after(&self, syncs: u64) {
        self.platter().trouble.sync_fails_after = Some(syncs);
    }

    /// Only so much can still be written.
    pub(crate) fn fill_up(&self, free_bytes: u64) {
        self.platter().free_bytes = free_bytes;
    }

    /// How much can still be written.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.platter().free_bytes
    }

    /// Nothing more is going to go wrong.
    pub(crate) fn relieve(&self) {
        let mut platter = self.platter();
        platter.trouble = Trouble::default();
        platter.free_bytes = u64::MAX;
    }

    /// What has gone wrong in this boot.
    pub(crate) fn happened(&self) -> Happened {
        self.platter().happened
    }

    /// Writes that were torn, and that were lost whole, by failing power.
    pub(crate) fn losses(&self) -> (u64, u64) {
        let platter = self.platter();
        (platter.torn_writes, platter.lost_writes)
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    fn lose_power(&mut self) {
        // A directory's changes reach the disk in their order.
        let kept = self.dice.below(self.name_changes.len() + 1);
        for (name, file) in self.name_changes.drain(..).take(kept) {
            change_name(&mut self.durable_names, name, file);
        }
        self.names.clone_from(&self.durable_names);
        for file in self.files.values_mut() {
            for change in std::mem::take(&mut file.pending) {
                match change {
                    Change::Length(len) => {
                        if self.dice.chance(500) {
                            file.durable.resize(len, 0);
                        }
                    }
                    Change::Write(at, bytes) => match self.dice.between(0, 3) {
                        0 => self.lost_writes += 1,
                        1 => put(&mut file.durable, at, &bytes),
                        2 => {
                            let kept = self.dice.below(bytes.len() + 1);
                            put(&mut file.durable, at, &bytes[..kept]);
                            self.torn_writes += 1;
                        }
                        _ => {
                            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                                if self.dice.chance(600) {
                                    put(&mut file.durable, at + number * SECTOR, sector);
                                }
                            }
                            self.torn_writes += 1;
                        }
                    },
                }
            }
            file.content.clone_from(&file.durable);
        }
    }

    /// Whether something is done at all: not if the power fails first.
    fn goes_on(&mut self, boot: u64) -> bool {
        if self.boot != boot || self.happened.cut {
            return false;
        }
        if let Some(left) = &mut self.trouble.cut_after {
            if *left == 0 {
                self.happened.cut = true;
                return false;
            }
            *left -= 1;
        }
        true
    }

    fn take_room(&mut self, bytes: usize) -> usize {
        let room = self.free_bytes.min(bytes as u64) as usize;
        if self.free_bytes != u64::MAX {
            self.free_bytes -= room as u64;
        }
        if room < bytes {
            self.happened.was_full = true;
        }
        room
    }

    fn sync_names(&mut self) {
        for (name, file) in self.name_changes.drain(..) {
            change_name(&mut self.durable_names, name, file);
        }
    }

    fn rename(&mut self, name: PathBuf, file: Option<u64>) {
        change_name(&mut self.names, name.clone(), file);
        self.name_changes.push((name, file));
    }
}

fn change_name(names: &mut BTreeMap<PathBuf, u64>, name: PathBuf, file: Option<u64>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes the file that stands for a name.
fn stand_in(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::File::create(path).map(drop)
}

/// A disk as one boot sees it.
struct Mounted {
    disk: Disk,
    boot: u64,
    root: PathBuf,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Mounted {
    fn name(&self, path: &Path) -> io::Result<PathBuf> {
        path.strip_prefix(&self.root)
            .map(Path::to_path_buf)
            .map_err(|_| io::Error::other(format!("{} is on no disk", path.display())))
    }

    fn opened(&self, file: u64) -> Arc<dyn VolumeFile> {
        Arc::new(OpenFile {
            disk: self.disk.clone(),
            boot: self.boot,
            file,
        })
    }
}

impl Volume for Mounted {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>> {
        let name = self.name(path)?;
        let mut platter = self.disk.platter();
        if let Some(file) = platter.names.get(&name) {
            return Ok(self.opened(*file));
        }
        if access != Access::Create {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = platter.next_file;
        platter.next_file += 1;
        platter.files.insert(file, File::default());
        if platter.goes_on(self.boot) {
            platter.rename(name, Some(file));
            stand_in(path)?;
        }
        Ok(self.opened(file))
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        let mut platter = self.disk.platter();
        if !platter.names.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if platter.goes_on(self.boot) {
            platter.rename(name, None);
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_name, to_name) = (self.name(from)?, self.name(to)?);
        let mut platter = self.disk.platter();
        let Some(file) = platter.names.get(&from_name).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if platter.goes_on(self.boot) {
            if from_name
                .parent()
                .is_some_and(|dir| dir.ends_with("incoming"))
            {
                platter.adopted.insert(file);
            }
            platter.rename(to_name, Some(file));
            platter.rename(from_name, None);
            fs::rename(from, to)?;
        }
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let dir_name = self.name(dir)?;
        let platter = self.disk.platter();
        let names = platter.names.keys();
        let inside: BTreeSet<PathBuf> = names
            .filter(|name| name.parent() == Some(dir_name.as_path()))
            .map(|name| self.root.join(name))
            .collect();
        Ok(inside.into_iter().collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut platter = self.disk.platter();
        if platter.goes_on(self.boot) {
            platter.sync_names();
        }
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        // Every boot has a directory of its own, which nobody else knows.
        Ok(Box::new(()))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.disk.platter().free_bytes)
    }
}

struct OpenFile {
    disk: Disk,
    boot: u64,
    file: u64,
}

impl OpenFile {
    fn with<T>(&self, act: impl FnOnce(&mut Platter, &mut File) -> T) -> io::Result<T> {
        let mut platter = self.disk.platter();
        let mut file = platter
            .files
            .remove(&self.file)
            .ok_or(io::ErrorKind::NotFound)?;
        let result = act(&mut platter, &mut file);
        platter.files.insert(self.file, file);
        Ok(result)
    }
}

impl VolumeFile for OpenFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|_, file| {
            let rest = file.content.get(offset as usize..).unwrap_or_default();
            let len = rest.len().min(buf.len());
            buf[..len].copy_from_slice(&rest[..len]);
            len
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.with(|platter, file| {
            if !platter.goes_on(self.boot) {
                return Ok(buf.len());
            }
            let at = offset as usize;
            let grows_by = (at + buf.len()).saturating_sub(file.content.len());
            let room = platter.take_room(grows_by);
            let len = buf.len() - (grows_by - room);
            if len == 0 && !buf.is_empty() {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            put(&mut file.content, at, &buf[..len]);
            file.pending.push(Change::Write(at, buf[..len].to_vec()));
            Ok(len)
        })?
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|_, file| file.content.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|platter, file| {
            if platter.goes_on(self.boot) {
                file.content.resize(len as usize, 0);
                file.pending.push(Change::Length(len as usize));
            }
        })
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|platter, file| {
            if !platter.goes_on(self.boot) {
                return Ok(());
            }
            let end = (offset + len) as usize;
            let grows_by = end.saturating_sub(file.content.len());
            if platter.take_room(grows_by) < grows_by {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            if grows_by > 0 {
                file.content.resize(end, 0);
                file.pending.push(Change::Length(end));
            }
            Ok(())
        })?
    }

    fn sync(&self) -> io::Result<()> {
        let fails = self.with(|platter, file| {
            if !platter.goes_on(self.boot) {
                return false;
            }
            if let Some(left) = &mut platter.trouble.sync_fails_after {
                if *left == 0 {
                    platter.trouble.sync_fails_after = None;
                    platter.happened.sync_failed = true;
                    return true;
                }
                *left -= 1;
            }
            for change in file.pending.drain(..) {
                match change {
                    Change::Length(len) => {
                        file.durable.resize(len, 0);
                        file.durable_writes.retain(|at| *at < len);
                    }
                    Change::Write(at, bytes) => {
                        put(&mut file.durable, at, &bytes);
                        file.durable_writes.push(at);
                    }
                }
            }
            false
        })?;
        if fails {
            // The kernel drops the pages that it could not write: what is there now is what the
            // disk has.
            self.disk.platter().lose_power();
            return Err(io::Error::other("the disk is failing"));
        }
        Ok(())
    }
}
