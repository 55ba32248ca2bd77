//! Checkpoints and snapshots as files.
//!
//! Whoever performs the loop's effects calls these, away from the loop: what is written is a frozen
//! state, what is read becomes a state that the loop then takes over.

use stock_cluster::GroupId;
use stock_node::checkpoint::{Belongs, Image, Label, Owner, Restored};
use stock_node::state::{Restoring, SectionError};
use stock_replica::{Point, PointError};
use stock_storage::{CheckpointError, CheckpointInfo, CheckpointMeta, CheckpointStore, Incoming};
use thiserror::Error;

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

/// What a file is to a replica whose log begins at `origin`.
pub fn judge(
    owner: &Owner<'_>,
    info: &CheckpointInfo,
    origin: &Point,
) -> Result<Belongs, ImageError> {
    let label = label(info)?;
    Ok(owner.judge(&label, info.meta.incarnation, origin))
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

/// Ends the receipt of a file and reads it. One that cannot be read is deleted: while it lies
/// there, no other one of its group is taken in.
pub fn take_in(store: &CheckpointStore, incoming: Incoming) -> Result<Restored, ImageError> {
    let info = incoming.finish()?;
    let restored = read(store, &info);
    if restored.is_err() {
        store.discard_incoming(info.meta.group)?;
    }
    restored
}
