//! Bringing the state of a group back without running its replica.

use stock_cluster::{GroupId, ReplicaId};
use stock_core::{Secret, Stamp};
use stock_node::applying::{self, Changed};
use stock_node::checkpoint::{self, Belongs, Owner};
use stock_node::entry::{self, DecodeError};
use stock_node::state::State;
use stock_replica::{
    Committed, Ending, EntryReader, Extent, OpenError, Point, ReadError, Replay, Restored,
};
use stock_storage::CheckpointInfo;
use thiserror::Error;

use super::{DataDir, OfflineError, ReplicaRecord};
use crate::directory::checkpoint_files::{self, ImageError};
use crate::directory::disk::GroupReader;

/// Entries that are read at a time to see whether they can be, in bytes.
const READ_BYTES_MAX: u64 = 4 << 20;

/// The state of a group, and where in its log that is.
#[derive(Debug)]
pub struct BroughtBack {
    /// The state.
    pub state: State,
    /// Cluster time of the last entry.
    pub stamp: Stamp,
    /// The last entry, and who the members are.
    pub ending: Ending,
    /// Why the replica does not go on from there by itself, if it does not: it has forgotten what
    /// it once acknowledged, or cannot read it.
    pub lack: Option<String>,
}

/// A replica cannot be brought back.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Its records are damaged.
    #[error(transparent)]
    Record(#[from] OfflineError),
    /// It never got the snapshot that it was to begin with.
    #[error("it never got its first snapshot")]
    Empty,
    /// No file holds the state that its log goes on from.
    #[error("the log begins at index {index}, and no whole checkpoint of it is there")]
    NoCheckpoint {
        /// Where the log begins.
        index: u64,
    },
    /// What it wrote down says that its log went on.
    #[error("its log has lost its end: it ends at index {last}, and once reached to {known}")]
    LostEnd {
        /// How far it certainly went.
        known: u64,
        /// Where it ends.
        last: u64,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] ImageError),
    /// An entry cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// raft does not take what is there.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An entry is not understood.
    #[error("entry {index}: {source}")]
    Entry {
        /// Which.
        index: u64,
        /// What is wrong.
        source: DecodeError,
    },
}

/// The state of a group as far as its log goes, from the newest checkpoint that can be read.
///
/// # Errors
///
/// All of [`ReplayError`].
pub fn bring_back(
    dir: &DataDir,
    group: GroupId,
    own: ReplicaId,
    extent: Extent,
) -> Result<BroughtBack, ReplayError> {
    let number = u64::from(group.0);
    let record = dir.replica(group)?;
    if record.origin.index == 0 {
        return Err(ReplayError::Empty);
    }
    let known = known_to(dir, group, own, &record)?;
    if known > record.last_index {
        let last = record.last_index;
        return Err(ReplayError::LostEnd { known, last });
    }
    let base = base(dir, group, own, &record.origin, record.last_index)?;
    let base = match base {
        Some(base) => base,
        None if record.origin.index == 1 => founded(dir, group, &record.origin),
        None => {
            return Err(ReplayError::NoCheckpoint {
                index: record.origin.index,
            });
        }
    };
    // Raft panics where an entry cannot be read.
    read_entries(dir, group, base.point.index + 1, record.last_index, |_| {})?;
    let restored = Restored {
        origin: record.origin,
        applied: base.point.clone(),
        state: hard_state(dir, number),
        last_index: record.last_index,
        reader: Box::new(GroupReader::new(dir.disk.clone(), number)),
    };
    replay(own, base, restored, extent)
}

/// As [`bring_back`], to the last entry; where that cannot be, as far as the replica can be brought
/// back at all. What comes behind that is lost with it.
///
/// # Errors
///
/// As [`bring_back`], where nothing can be brought back.
pub fn bring_back_what_is_left(
    dir: &DataDir,
    group: GroupId,
    own: ReplicaId,
) -> Result<BroughtBack, ReplayError> {
    let whole = match bring_back(dir, group, own, Extent::Everything) {
        Ok(mut back) => {
            if dir.has_forgotten {
                let lack = "its directory has forgotten something: its log was damaged, or it is \
                    an older copy";
                back.lack = Some(lack.to_owned());
            }
            return Ok(back);
        }
        Err(error) => error,
    };
    let mut back = match bring_back_a_part(dir, group, own) {
        Ok(Some(back)) => back,
        Ok(None) | Err(_) => return Err(whole),
    };
    back.lack = Some(whole.to_string());
    Ok(back)
}

/// From the newest state that can be read to the last entry behind it that can be; the log begins
/// with that state.
fn bring_back_a_part(
    dir: &DataDir,
    group: GroupId,
    own: ReplicaId,
) -> Result<Option<BroughtBack>, ReplayError> {
    let number = u64::from(group.0);
    // Without a word of where its log begins, there are its states.
    let record = dir.replica(group).unwrap_or(ReplicaRecord {
        origin: Point::unknown(),
        ballot: None,
        last_index: 0,
    });
    let files = files(dir, group, own, &record.origin, u64::MAX)?;
    let read = files
        .iter()
        .find_map(|info| checkpoint_files::read(&dir.checkpoints, info).ok());
    let base = match read {
        Some(base) => base,
        None if record.origin.index == 1 => founded(dir, group, &record.origin),
        None => return Ok(None),
    };
    let behind = base.point.index + 1..=record.last_index.max(base.point.index);
    let is_readable = |index: &u64| read_entries(dir, group, *index, *index, |_| {}).is_ok();
    let last_index = behind.take_while(is_readable).last();
    let restored = Restored {
        origin: base.point.clone(),
        applied: base.point.clone(),
        state: hard_state(dir, number),
        last_index: last_index.unwrap_or(base.point.index),
        reader: Box::new(GroupReader::new(dir.disk.clone(), number)),
    };
    replay(own, base, restored, Extent::Everything).map(Some)
}

/// How far a replica's log certainly went: as far as it knew to be committed, as a state that it
/// wrote down itself, and as its history.
///
/// # Errors
///
/// [`ReplayError::File`].
pub(super) fn known_to(
    dir: &DataDir,
    group: GroupId,
    own: ReplicaId,
    record: &ReplicaRecord,
) -> Result<u64, ReplayError> {
    let lives = dir.record.lives();
    let owner = owner(dir, own, &lives);
    let mut known = record.ballot.map_or(0, |ballot| ballot.commit);
    if let Some(history) = dir.history_to.get(group.index()).copied().flatten() {
        known = known.max(history);
    }
    for info in dir.checkpoints.list(u64::from(group.0)) {
        if checkpoint_files::judge(&owner, &info, &record.origin)? == Belongs::Written {
            known = known.max(info.meta.index);
        }
    }
    Ok(known)
}

/// The state that a group was founded with.
fn founded(dir: &DataDir, group: GroupId, origin: &Point) -> checkpoint::Restored {
    let founding = dir.record.founding();
    let secret = founding.map_or(Secret::default(), |founding| founding.secret());
    checkpoint::Restored {
        point: origin.clone(),
        stamp: Stamp(0),
        state: State::new(group, secret),
        bytes: 0,
    }
}

fn hard_state(dir: &DataDir, number: u64) -> Option<bytes::Bytes> {
    let state = dir.disk.state(number);
    state.filter(|state| !state.is_empty()).map(Into::into)
}

fn replay(
    own: ReplicaId,
    base: checkpoint::Restored,
    restored: Restored,
    extent: Extent,
) -> Result<BroughtBack, ReplayError> {
    let mut replay = Replay::open(own.0, restored, extent)?;
    let mut state = base.state;
    while let Some(entries) = replay.next_entries() {
        for entry in &entries {
            let applied = apply(&mut state, entry);
            applied.map_err(|source| ReplayError::Entry {
                index: entry.index,
                source,
            })?;
        }
    }
    Ok(BroughtBack {
        stamp: state.moment().stamp,
        state,
        ending: replay.ending(),
        lack: None,
    })
}

/// Reads the entries from `first` to `last`, whether or not they mean anything.
pub(super) fn read_entries(
    dir: &DataDir,
    group: GroupId,
    first: u64,
    last: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<(), ReadError> {
    let reader = GroupReader::new(dir.disk.clone(), u64::from(group.0));
    let mut next = first;
    let mut entries = Vec::new();
    while next <= last {
        entries.clear();
        reader.read(next, last + 1, READ_BYTES_MAX, &mut entries)?;
        entries.iter().for_each(|entry| each(entry));
        next += entries.len() as u64;
    }
    Ok(())
}

/// The newest checkpoint that is whole and of this log.
fn base(
    dir: &DataDir,
    group: GroupId,
    own: ReplicaId,
    origin: &Point,
    last: u64,
) -> Result<Option<checkpoint::Restored>, ImageError> {
    let mut failed = None;
    for info in files(dir, group, own, origin, last)? {
        match checkpoint_files::read(&dir.checkpoints, &info) {
            Ok(restored) => return Ok(Some(restored)),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// The checkpoints that belong to this log, newest first.
fn files(
    dir: &DataDir,
    group: GroupId,
    own: ReplicaId,
    origin: &Point,
    last: u64,
) -> Result<Vec<CheckpointInfo>, ImageError> {
    let number = u64::from(group.0);
    let mut files = dir.checkpoints.list(number);
    // A crash came between the log, which begins at a snapshot, and the name of its file.
    let incoming = dir.checkpoints.incoming(number);
    files.extend(
        incoming
            .into_iter()
            .filter(|info| info.meta.index == origin.index),
    );
    let lives = dir.record.lives();
    let owner = owner(dir, own, &lives);
    let mut own_files = Vec::new();
    for info in files {
        let belongs = checkpoint_files::judge(&owner, &info, origin)? != Belongs::Not;
        if belongs && (origin.index..=last).contains(&info.meta.index) {
            own_files.push(info);
        }
    }
    own_files.sort_by_key(|info| std::cmp::Reverse(info.meta.index));
    Ok(own_files)
}

fn owner<'a>(dir: &DataDir, replica: ReplicaId, lives: &'a [u128]) -> Owner<'a> {
    Owner {
        replica,
        directory: dir.record.directory(),
        lives,
    }
}

fn apply(state: &mut State, entry: &Committed) -> Result<(), DecodeError> {
    // A new leader begins its term with an entry of nothing; a change of members is raft's.
    if entry.data.is_empty() {
        return Ok(());
    }
    let decoded = entry::decode_entry(&entry.data)?;
    let mut changed = Changed::default();
    applying::apply(state, entry.index, &decoded, &mut changed)?;
    Ok(())
}
