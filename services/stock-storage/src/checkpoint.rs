//! Checkpoint files: the state of a group at one index.
//!
//! A checkpoint on the own disk, a snapshot for another replica and a backup are one format: an
//! immutable file, written front to back, with a checksum over every byte. What its sections mean
//! is not known here.
//!
//! # Layout
//!
//! ```text
//! checkpoints/g3-i00000000000000001200-t7.checkpoint    of group 3, at index 1200 of term 7
//! checkpoints/....partial                               being written; deleted when found
//! incoming/....checkpoint                               received whole, not yet used
//! incoming/....partial                                  being received; can be resumed
//! ```
//!
//! A received file lies apart, so that after a crash nobody takes it for a state that the log has
//! been brought to.

use std::path::PathBuf;

mod error;
mod format;
mod incoming;
mod reader;
mod store;
mod writer;

pub use error::CheckpointError;
pub use format::{CONTEXT_BYTES_MAX, SECTION_BYTES_MAX};
pub use incoming::Incoming;
pub use reader::CheckpointReader;
pub use store::{CheckpointStore, DamagedCheckpoint, RawCheckpoint};
pub use writer::CheckpointWriter;

/// What a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The group.
    pub group: u64,
    /// The last log index that is applied in it.
    pub index: u64,
    /// The term of the entry at that index.
    pub term: u64,
    /// The incarnation of the cluster.
    pub incarnation: u128,
    /// What the caller needs to go on from it, at most [`CONTEXT_BYTES_MAX`] bytes. Not looked
    /// into.
    pub context: Vec<u8>,
}

/// A whole checkpoint file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// What it is of.
    pub meta: CheckpointMeta,
    /// The file.
    pub path: PathBuf,
    /// The file's size, in bytes.
    pub bytes: u64,
    /// Tells its content from any other. Of the manifest, which has the hash of all sections in it.
    pub hash: u128,
}
