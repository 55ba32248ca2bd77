//! What can go wrong with checkpoint files.

use std::io;
use std::path::PathBuf;

use crate::volume::is_full;

/// Why a checkpoint file could not be written, read or received.
///
/// None of these is fatal to the node: a file that fails while it is written is deleted and written
/// again later, and what is damaged is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// What it was being done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file is not what was once written.
    #[error(
        "the checkpoint {} is damaged at byte {offset}: {reason}: delete it; an older one, or \
         another replica, has the same state",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },

    /// A part of a checkpoint is larger than the format takes.
    #[error("a {what} of {bytes} bytes is too large for a checkpoint, the most is {bytes_max}")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// Its size, in bytes.
        bytes: u64,
        /// The most that is taken.
        bytes_max: u64,
    },

    /// Something could not be written before; the file is not finished.
    #[error("the checkpoint {} is given up, because a part of it could not be \
        written", file.display())]
    Unfinished {
        /// The file.
        file: PathBuf,
    },

    /// Another checkpoint of the same group is just being written or received.
    #[error("a checkpoint of group {group} is already being written or received: wait for it")]
    Busy {
        /// The group.
        group: u64,
    },

    /// A chunk of a received file does not follow what is there.
    #[error("a chunk at byte {offset} does not follow the {have} bytes received: send from there")]
    Gap {
        /// Where the chunk would begin, in bytes.
        offset: u64,
        /// Bytes that are there.
        have: u64,
    },

    /// A received file has another length than was announced.
    #[error("received {have} bytes of a checkpoint that was announced with {bytes}")]
    Length {
        /// Bytes that came.
        have: u64,
        /// Bytes that were announced.
        bytes: u64,
    },

    /// A received file is a valid checkpoint, but not the one that was announced.
    #[error("the checkpoint received as {} is not the one that was announced", file.display())]
    Other {
        /// The file.
        file: PathBuf,
    },
}

impl CheckpointError {
    /// Whether there was no space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, CheckpointError::Io { source, .. } if is_full(source))
    }
}
