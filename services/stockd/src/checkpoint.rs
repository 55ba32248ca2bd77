//! Checkpoints and snapshots: the state of a group at one index, as a file.
//!
//! Whoever performs the loop's effects calls these, away from the loop: what is written is a frozen
//! state, what is read becomes a state that the loop then takes over.

use stock_core::Stamp;
use stock_replica::{Point, PointError};
use stock_storage::{CheckpointError, CheckpointInfo, CheckpointMeta, CheckpointStore, Incoming};
use thiserror::Error;

use crate::placement::ReplicaId;
use crate::state::{Frozen, Restoring, SectionError, State};
use crate::view::Shown;
use crate::worker::event::GroupId;

/// A state that is about to be written down.
#[derive(Debug)]
pub struct Image {
    /// Of this group.
    pub group: GroupId,
    /// By this replica.
    pub replica: ReplicaId,
    /// As of here.
    pub point: Point,
    /// Cluster time of the last entry applied.
    pub stamp: Stamp,
    /// The state itself.
    pub frozen: Frozen,
}

/// A state that was read.
#[derive(Debug)]
pub struct Restored {
    /// As of here.
    pub point: Point,
    /// Cluster time of the last entry applied.
    pub stamp: Stamp,
    /// The state itself.
    pub state: State,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A state that came in a snapshot, with what reads will see of it: made by whoever took it in, since to make it takes long.
#[derive(Debug)]
pub struct Arrived {
    /// The state.
    pub restored: Restored,
    /// What reads will see; group 0 shows its locations by itself.
    pub shown: Option<Shown>,
}

impl Arrived {
    /// This state has come.
    pub fn of(restored: Restored) -> Self {
        let shown = match &restored.state {
            State::Stock(shard) => Some(Shown::of(shard)),
            State::Meta(_) => None,
        };
        Self { restored, shown }
    }
}

/// Who may take a file for a state of his.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The replica.
    pub replica: ReplicaId,
    /// The data directory that it was begun in.
    pub directory: u128,
    /// The life of the cluster, and those that it goes on from, if any.
    pub lives: &'a [u128],
}

/// What a file is to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belongs {
    /// Its own: it wrote it, so its log has been as long as that.
    Written,
    /// Another replica's, that its log began at.
    Adopted,
    /// Left by somebody who was here before.
    Not,
}

impl Owner<'_> {
    /// What a file is to this replica, whose log begins at `origin`.
    pub fn judge(&self, info: &CheckpointInfo, origin: &Point) -> Result<Belongs, ImageError> {
        let label = label(info)?;
        let is_of_life = self.lives.contains(&info.meta.incarnation);
        let is_own = label.replica == self.replica && label.directory == self.directory;
        let is_origin = (label.point.index, label.point.term) == (origin.index, origin.term);
        Ok(match () {
            () if is_own && is_of_life => Belongs::Written,
            () if is_origin && origin.index > 0 => Belongs::Adopted,
            () => Belongs::Not,
        })
    }
}

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// As of here.
    pub point: Point,
    /// Cluster time of the last entry applied.
    pub stamp: Stamp,
    /// Who wrote it.
    pub replica: ReplicaId,
    /// In which data directory.
    pub directory: u128,
}

/// A file cannot be written or read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The disk failed, or the file is damaged.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// What is in the file is no state of this version.
    #[error("{file}: {error}")]
    State {
        /// The file.
        file: String,
        /// What is wrong.
        error: SectionError,
    },
    /// The file does not say where in the log it belongs.
    #[error("{file}: {error}")]
    Point {
        /// The file.
        file: String,
        /// What is wrong.
        error: PointError,
    },
}

/// Writes a state down in a data directory. When this returns the file is durable and has its name.
pub fn write(
    store: &CheckpointStore,
    incarnation: u128,
    directory: u128,
    image: &mut Image,
) -> Result<CheckpointInfo, ImageError> {
    let label = Label {
        point: image.point.clone(),
        stamp: image.stamp,
        replica: image.replica,
        directory,
    };
    let mut writer = store.create(CheckpointMeta {
        group: u64::from(image.group.0),
        index: image.point.index,
        term: image.point.term,
        incarnation,
        context: label.to_bytes(),
    })?;
    while let Some(section) = image.frozen.next_section() {
        writer.section(&section)?;
    }
    Ok(writer.finish()?)
}

/// What a file says of itself.
pub fn label(info: &CheckpointInfo) -> Result<Label, ImageError> {
    let context = &info.meta.context;
    Label::from_bytes(context).ok_or_else(|| ImageError::Point {
        file: info.path.display().to_string(),
        error: PointError {
            bytes: context.len(),
        },
    })
}

/// Reads a state back, checking every byte.
pub fn read(store: &CheckpointStore, info: &CheckpointInfo) -> Result<Restored, ImageError> {
    let Label { point, stamp, .. } = label(info)?;
    let refuse = |error| ImageError::State {
        file: info.path.display().to_string(),
        error,
    };
    let mut reader = store.reader(info)?;
    let mut section = Vec::new();
    let mut restoring = Restoring::new(GroupId(info.meta.group as u32));
    while reader.next_section(&mut section)? {
        restoring.section(&section).map_err(refuse)?;
    }
    let state = restoring.finish().map_err(refuse)?;
    Ok(Restored {
        point,
        stamp,
        state,
        bytes: info.bytes,
    })
}

/// Ends the receipt of a file and reads it. One that cannot be read is deleted: while it lies there, no
/// other one of its group is taken in.
pub fn take_in(store: &CheckpointStore, incoming: Incoming) -> Result<Restored, ImageError> {
    let info = incoming.finish()?;
    let restored = read(store, &info);
    if restored.is_err() {
        store.discard_incoming(info.meta.group)?;
    }
    restored
}

impl Label {
    /// Little-endian: the stamp, the replica, the directory, the point. Never to change.
    fn to_bytes(&self) -> Vec<u8> {
        let stamp = self.stamp.0.to_le_bytes();
        let (replica, directory) = (self.replica.0.to_le_bytes(), self.directory.to_le_bytes());
        [
            stamp.as_slice(),
            &replica,
            &directory,
            &self.point.to_bytes(),
        ]
        .concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (stamp, rest) = bytes.split_first_chunk::<8>()?;
        let (replica, rest) = rest.split_first_chunk::<8>()?;
        let (directory, point) = rest.split_first_chunk::<16>()?;
        Some(Self {
            point: Point::from_bytes(point).ok()?,
            stamp: Stamp(u64::from_le_bytes(*stamp)),
            replica: ReplicaId(u64::from_le_bytes(*replica)),
            directory: u128::from_le_bytes(*directory),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_file_is_its_writers_or_the_one_that_a_log_begins_at() {
        let origin = Point {
            index: 30,
            term: 4,
            ..Point::default()
        };
        let owner = Owner {
            replica: ReplicaId::new(2, 3),
            directory: 9,
            lives: &[77, 78],
        };
        let check = |replica, directory, life, (index, term), expected| {
            let label = Label {
                point: Point {
                    index,
                    term,
                    ..Point::default()
                },
                stamp: Stamp(5),
                replica,
                directory,
            };
            let info = CheckpointInfo {
                path: PathBuf::new(),
                meta: CheckpointMeta {
                    group: 1,
                    index,
                    term,
                    incarnation: life,
                    context: label.to_bytes(),
                },
                bytes: 0,
                hash: 0,
            };
            assert_eq!(super::label(&info).unwrap(), label);
            assert_eq!(owner.judge(&info, &origin).unwrap(), expected);
        };
        let (own, other) = (owner.replica, ReplicaId::founding(3));
        check(own, 9, 77, (50, 4), Belongs::Written);
        check(own, 9, 78, (20, 1), Belongs::Written);
        check(own, 9, 76, (50, 4), Belongs::Not);
        check(own, 8, 77, (50, 4), Belongs::Not);
        check(other, 9, 77, (50, 4), Belongs::Not);
        check(other, 8, 70, (30, 4), Belongs::Adopted);
        check(other, 8, 77, (30, 3), Belongs::Not);
    }
}
