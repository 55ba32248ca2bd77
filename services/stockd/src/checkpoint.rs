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

/// Writes a state down. When this returns the file is durable and has its name.
pub fn write(
    store: &CheckpointStore,
    incarnation: u128,
    image: &mut Image,
) -> Result<CheckpointInfo, ImageError> {
    let mut writer = store.create(CheckpointMeta {
        group: u64::from(image.group.0),
        index: image.point.index,
        term: image.point.term,
        incarnation,
        context: context(&image.point, image.stamp),
    })?;
    while let Some(section) = image.frozen.next_section() {
        writer.section(&section)?;
    }
    Ok(writer.finish()?)
}

/// The point and the stamp that a file says it is of.
pub fn place(info: &CheckpointInfo) -> Result<(Point, Stamp), ImageError> {
    let context = &info.meta.context;
    let damaged = || ImageError::Point {
        file: info.path.display().to_string(),
        error: PointError {
            bytes: context.len(),
        },
    };
    let (stamp, point) = context.split_first_chunk::<8>().ok_or_else(damaged)?;
    let point = Point::from_bytes(point).map_err(|_| damaged())?;
    Ok((point, Stamp(u64::from_le_bytes(*stamp))))
}

/// Reads a state back, checking every byte.
pub fn read(store: &CheckpointStore, info: &CheckpointInfo) -> Result<Restored, ImageError> {
    let (point, stamp) = place(info)?;
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

fn context(point: &Point, stamp: Stamp) -> Vec<u8> {
    [stamp.0.to_le_bytes().as_slice(), &point.to_bytes()].concat()
}
