//! The checkpoint files of one node.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::{CONTEXT_BYTES_MAX, Manifest};
use super::incoming::{self, Incoming};
use super::{CheckpointError, CheckpointInfo, CheckpointMeta, CheckpointReader, CheckpointWriter};
use crate::volume::{Access, Volume, VolumeFile};

// On disk for ever.
const CHECKPOINTS_DIR: &str = "checkpoints";
const INCOMING_DIR: &str = "incoming";

/// The checkpoint files in a data directory. Clones are the same store, to be used on any thread.
///
/// The data directory's lock is taken by [`Log::open`](crate::Log::open), which comes first.
#[derive(Clone)]
pub struct CheckpointStore {
    shared: Arc<Shared>,
}

struct Shared {
    volume: Arc<dyn Volume>,
    checkpoints_dir: PathBuf,
    incoming_dir: PathBuf,
    damaged: Vec<DamagedCheckpoint>,
    /// Never held while the disk works.
    files: Mutex<Files>,
}

/// What is known of the files, by group and newest first.
#[derive(Default)]
struct Files {
    own: BTreeMap<u64, Vec<CheckpointInfo>>,
    incoming: BTreeMap<u64, Vec<CheckpointInfo>>,
    /// The groups of which one is being written, and of which one is being received.
    writing: Vec<u64>,
    receiving: Vec<u64>,
}

/// A file that looks like a checkpoint by its name, but is none. It is left where it is; one that
/// had been received, until the next one of its group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedCheckpoint {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl CheckpointStore {
    /// Opens the store in a data directory and makes its directories if need be. Reads the header
    /// and the manifest of each file, not the rest. Deletes what was left unfinished by a crash,
    /// except for what was being received.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]. A damaged file is no error: see [`CheckpointStore::damaged`].
    pub fn open(
        volume: Arc<dyn Volume>,
        data_dir: &Path,
    ) -> Result<CheckpointStore, CheckpointError> {
        let checkpoints_dir = data_dir.join(CHECKPOINTS_DIR);
        let incoming_dir = data_dir.join(INCOMING_DIR);
        let mut files = Files::default();
        let mut damaged = Vec::new();
        for (dir, found) in [
            (&checkpoints_dir, &mut files.own),
            (&incoming_dir, &mut files.incoming),
        ] {
            volume
                .create_dir(dir)
                .map_err(io("create the directory", dir))?;
            let mut partials: Vec<PathBuf> = Vec::new();
            for path in volume.list(dir).map_err(io("list", dir))? {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("checkpoint") => match info(&*volume, &path) {
                        Ok(info) => insert(found, info),
                        Err(CheckpointError::Damaged { offset, reason, .. }) => {
                            damaged.push(DamagedCheckpoint {
                                path,
                                reason: format!("{reason} (at byte {offset})"),
                            });
                        }
                        Err(error) => return Err(error),
                    },
                    Some("partial") => partials.push(path),
                    _ => {}
                }
            }
            if *dir == incoming_dir {
                incoming::retain_one_of_each_group(&mut partials);
            }
            for path in partials {
                volume.delete(&path).map_err(io("delete", &path))?;
            }
            // A rename just before a crash may not be durable yet, though it is seen.
            volume.sync_dir(dir).map_err(io("sync", dir))?;
        }
        volume.sync_dir(data_dir).map_err(io("sync", data_dir))?;
        Ok(CheckpointStore {
            shared: Arc::new(Shared {
                volume,
                checkpoints_dir,
                incoming_dir,
                damaged,
                files: Mutex::new(files),
            }),
        })
    }

    /// The checkpoints of a group, newest first.
    #[must_use]
    pub fn list(&self, group: u64) -> Vec<CheckpointInfo> {
        self.files().own.get(&group).cloned().unwrap_or_default()
    }

    /// The files received whole for a group but not [adopted](CheckpointStore::adopt), newest
    /// first.
    #[must_use]
    pub fn incoming(&self, group: u64) -> Vec<CheckpointInfo> {
        let files = self.files();
        files.incoming.get(&group).cloned().unwrap_or_default()
    }

    /// The groups that have a checkpoint, or a file received whole.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let files = self.files();
        let mut groups: Vec<u64> = files
            .own
            .keys()
            .chain(files.incoming.keys())
            .copied()
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The files that opening the store found to be damaged.
    #[must_use]
    pub fn damaged(&self) -> &[DamagedCheckpoint] {
        &self.shared.damaged
    }

    /// Begins to write a checkpoint. One of the same index and term is replaced when it is
    /// finished.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Busy`] if one of this group is being written;
    /// [`CheckpointError::TooLarge`] for the context; [`CheckpointError::Io`].
    pub fn create(&self, meta: CheckpointMeta) -> Result<CheckpointWriter, CheckpointError> {
        check_context(&meta)?;
        let turn = self.turn(meta.group, Kind::Writing)?;
        let prefix = format!("g{}-", meta.group);
        self.delete_partials(&self.shared.checkpoints_dir, &prefix)?;
        CheckpointWriter::create(self, meta, turn)
    }

    /// Opens a checkpoint, own or incoming, to read its sections.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`] or [`CheckpointError::Io`].
    pub fn reader(&self, info: &CheckpointInfo) -> Result<CheckpointReader, CheckpointError> {
        CheckpointReader::open(self.open_file(&info.path)?, &info.path)
    }

    /// Opens a checkpoint to send it as it is. It can be read to its end even if it is deleted
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn open_raw(&self, info: &CheckpointInfo) -> Result<RawCheckpoint, CheckpointError> {
        Ok(RawCheckpoint {
            file: self.open_file(&info.path)?,
            path: info.path.clone(),
            bytes: info.bytes,
        })
    }

    /// Begins to receive a checkpoint file of `bytes` bytes, or goes on where an earlier try with
    /// the same identity ended: `meta`, `bytes` and `hash` are those of the sender's
    /// [`CheckpointInfo`]. What was received of another one for the same group is deleted.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Busy`] if one of this group is being received;
    /// [`CheckpointError::TooLarge`] for the context; [`CheckpointError::Io`].
    pub fn receive(
        &self,
        meta: CheckpointMeta,
        bytes: u64,
        hash: u128,
    ) -> Result<Incoming, CheckpointError> {
        check_context(&meta)?;
        let turn = self.turn(meta.group, Kind::Receiving)?;
        Incoming::open(self, meta, bytes, hash, turn)
    }

    /// Makes an incoming checkpoint an own one, durably. The log has been reset to it before.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; it may then be the one or the other, also after a restart, and may
    /// be adopted again. Where the file is gone, it is incoming no more.
    pub fn adopt(&self, info: &CheckpointInfo) -> Result<CheckpointInfo, CheckpointError> {
        let path = self.path(&info.meta);
        let volume = self.volume();
        match volume.rename(&info.path, &path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // An earlier try may have come as far as the name, and failed at making it durable.
                if let Err(error) = self.open_file(&path) {
                    remove(&mut self.files().incoming, info);
                    return Err(error);
                }
            }
            renamed => renamed.map_err(io("rename", &info.path))?,
        }
        for dir in [&self.shared.checkpoints_dir, &self.shared.incoming_dir] {
            volume.sync_dir(dir).map_err(io("sync", dir))?;
        }
        let adopted = CheckpointInfo {
            path,
            ..info.clone()
        };
        let mut files = self.files();
        remove(&mut files.incoming, info);
        insert(&mut files.own, adopted.clone());
        Ok(adopted)
    }

    /// Deletes the checkpoints of a group that are not to be kept.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]; those that could not be deleted are still listed.
    pub fn retain(
        &self,
        group: u64,
        keep: impl Fn(&CheckpointInfo) -> bool,
    ) -> Result<(), CheckpointError> {
        let doomed: Vec<CheckpointInfo> = self
            .list(group)
            .into_iter()
            .filter(|info| !keep(info))
            .collect();
        for info in &doomed {
            self.delete(&info.path)?;
            remove(&mut self.files().own, info);
        }
        if !doomed.is_empty() {
            let dir = &self.shared.checkpoints_dir;
            self.volume().sync_dir(dir).map_err(io("sync", dir))?;
        }
        Ok(())
    }

    /// Deletes what was received for a group, whole or not.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Busy`] if one is being received; [`CheckpointError::Io`]: nothing is
    /// incoming any more, and what could not be deleted is deleted before the next one is received,
    /// or found incoming by the next start.
    pub fn discard_incoming(&self, group: u64) -> Result<(), CheckpointError> {
        let _turn = self.turn(group, Kind::Receiving)?;
        self.files().incoming.remove(&group);
        self.delete_incoming_but(group, None)?;
        let dir = &self.shared.incoming_dir;
        self.volume().sync_dir(dir).map_err(io("sync", dir))
    }

    pub(super) fn volume(&self) -> &dyn Volume {
        &*self.shared.volume
    }

    pub(super) fn incoming_dir(&self) -> &Path {
        &self.shared.incoming_dir
    }

    /// Where the own checkpoint of `meta` lies.
    pub(super) fn path(&self, meta: &CheckpointMeta) -> PathBuf {
        self.shared
            .checkpoints_dir
            .join(format!("{}.checkpoint", stem(meta)))
    }

    /// Gives a whole file, which is durable, its name. It is gone if that fails.
    pub(super) fn publish(&self, from: &Path, to: &Path) -> Result<(), CheckpointError> {
        let volume = self.volume();
        volume.rename(from, to).map_err(io("rename", from))?;
        let Some(dir) = to.parent() else {
            return Ok(());
        };
        volume.sync_dir(dir).map_err(|source| {
            // Whoever asks next must not find what nobody was promised.
            drop(volume.delete(to));
            let mut files = self.files();
            for of_group in files.own.values_mut() {
                of_group.retain(|info| info.path != *to);
            }
            io("sync", dir)(source)
        })
    }

    /// Takes a new own checkpoint into the list.
    pub(super) fn add(&self, info: CheckpointInfo) {
        insert(&mut self.files().own, info);
    }

    /// Takes a file received whole into the list, in the place of what was received for its group
    /// before.
    pub(super) fn add_incoming(&self, info: &CheckpointInfo) {
        let group = info.meta.group;
        self.files().incoming.insert(group, vec![info.clone()]);
        // What cannot be deleted now is deleted before the next one is received.
        drop(self.delete_incoming_but(group, None));
    }

    /// Deletes the files of a group in the directory for incoming ones, but those in the list and
    /// `kept`.
    pub(super) fn delete_incoming_but(
        &self,
        group: u64,
        kept: Option<&Path>,
    ) -> Result<(), CheckpointError> {
        let dir = &self.shared.incoming_dir;
        let listed = self.incoming(group);
        let prefix = format!("g{group}-");
        for path in self.volume().list(dir).map_err(io("list", dir))? {
            let name = path.file_name().and_then(|name| name.to_str());
            let is_of_group = name.is_some_and(|name| name.starts_with(&prefix));
            let is_listed = listed.iter().any(|info| info.path == path);
            if is_of_group && !is_listed && kept != Some(&*path) {
                self.delete(&path)?;
            }
        }
        Ok(())
    }

    pub(super) fn delete_partials(&self, dir: &Path, prefix: &str) -> Result<(), CheckpointError> {
        for path in self.volume().list(dir).map_err(io("list", dir))? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(prefix) && name.ends_with(".partial")) {
                self.delete(&path)?;
            }
        }
        Ok(())
    }

    fn delete(&self, path: &Path) -> Result<(), CheckpointError> {
        match self.volume().delete(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("delete", path)(error)),
            _ => Ok(()),
        }
    }

    fn open_file(&self, path: &Path) -> Result<Arc<dyn VolumeFile>, CheckpointError> {
        let file = self.volume().open(path, Access::Read);
        file.map_err(io("open", path))
    }

    fn turn(&self, group: u64, kind: Kind) -> Result<Turn, CheckpointError> {
        let mut files = self.files();
        let busy = kind.of(&mut files);
        if busy.contains(&group) {
            return Err(CheckpointError::Busy { group });
        }
        busy.push(group);
        Ok(Turn {
            shared: Arc::clone(&self.shared),
            group,
            kind,
        })
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.shared.files()
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for CheckpointStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointStore")
            .field("dir", &self.shared.checkpoints_dir)
            .finish_non_exhaustive()
    }
}

/// A checkpoint file as bytes, to be sent.
pub struct RawCheckpoint {
    file: Arc<dyn VolumeFile>,
    path: PathBuf,
    bytes: u64,
}

impl RawCheckpoint {
    /// Its size, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads into `buf` from `offset`, as much as there is; how many bytes.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`]. What the disk has damaged is not noticed here but where it is
    /// received.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, CheckpointError> {
        let len = (buf.len() as u64).min(self.bytes.saturating_sub(offset)) as usize;
        crate::volume::read_exact_at(&*self.file, &mut buf[..len], offset)
            .map_err(io("read", &self.path))?;
        Ok(len)
    }
}

impl std::fmt::Debug for RawCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawCheckpoint")
            .field("path", &self.path)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The right to write, or to receive, a checkpoint of a group.
pub(super) struct Turn {
    shared: Arc<Shared>,
    group: u64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Writing,
    Receiving,
}

impl Kind {
    fn of(self, files: &mut Files) -> &mut Vec<u64> {
        match self {
            Kind::Writing => &mut files.writing,
            Kind::Receiving => &mut files.receiving,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut files = self.shared.files();
        self.kind
            .of(&mut files)
            .retain(|&group| group != self.group);
    }
}

/// The name of a checkpoint's file, without its end.
pub(super) fn stem(meta: &CheckpointMeta) -> String {
    format!("g{}-i{:020}-t{}", meta.group, meta.index, meta.term)
}

/// Makes an error name what was done to what.
pub(super) fn io(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> CheckpointError + use<> {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io {
        action,
        path,
        source,
    }
}

fn info(volume: &dyn Volume, path: &Path) -> Result<CheckpointInfo, CheckpointError> {
    let file = volume.open(path, Access::Read).map_err(io("open", path))?;
    let bytes = file.len().map_err(io("measure", path))?;
    let manifest = Manifest::read(&*file, path, bytes)?;
    if path.file_stem().and_then(|stem| stem.to_str()) != Some(&stem(&manifest.meta)) {
        return Err(CheckpointError::Damaged {
            file: path.to_path_buf(),
            offset: 0,
            reason: "the manifest is of another checkpoint than the name",
        });
    }
    Ok(CheckpointInfo {
        path: path.to_path_buf(),
        bytes,
        hash: manifest.hash(),
        meta: manifest.meta,
    })
}

fn check_context(meta: &CheckpointMeta) -> Result<(), CheckpointError> {
    let bytes = meta.context.len() as u64;
    if bytes > CONTEXT_BYTES_MAX {
        return Err(CheckpointError::TooLarge {
            what: "context",
            bytes,
            bytes_max: CONTEXT_BYTES_MAX,
        });
    }
    Ok(())
}

fn insert(files: &mut BTreeMap<u64, Vec<CheckpointInfo>>, info: CheckpointInfo) {
    let of_group = files.entry(info.meta.group).or_default();
    of_group.retain(|other| other.path != info.path);
    of_group.push(info);
    of_group.sort_by_key(|info| Reverse((info.meta.index, info.meta.term)));
}

fn remove(files: &mut BTreeMap<u64, Vec<CheckpointInfo>>, info: &CheckpointInfo) {
    if let Some(of_group) = files.get_mut(&info.meta.group) {
        of_group.retain(|other| other.path != info.path);
        if of_group.is_empty() {
            files.remove(&info.meta.group);
        }
    }
}
