//! Why a loop, or one replica of it, cannot go on.

use stock_storage::LogError;
use thiserror::Error;

use crate::log_codec::DecodeError;

/// The loop cannot go on. The process must stop: to serve after a failed write or an entry that was
/// not understood is to lie.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry is from another version.
    #[error("group {group}: {error}")]
    Decode {
        /// Whose entry.
        group: u32,
        /// What is wrong.
        error: DecodeError,
    },
    /// A replica cannot be opened.
    #[error("group {group}: {error}")]
    Open {
        /// Which.
        group: u32,
        /// What is wrong.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The log has entries of a group, but not who it is or where they begin.
    #[error("group {group}: the record of its replica is missing or damaged")]
    Record {
        /// Which.
        group: u32,
    },
    /// A state was written down, or history, that is newer than all of the log.
    #[error(
        "group {group}: its log ends at {last_index}, and it once reached to {known}: it has lost what it acknowledged"
    )]
    LostEntries {
        /// Which.
        group: u32,
        /// The index of what was written down.
        known: u64,
        /// The end of the log.
        last_index: u64,
    },
    /// The log begins in the middle of history, and the state there is not on the disk.
    #[error(
        "group {group}: its log begins after {index}, and there is no whole checkpoint from there on"
    )]
    NoCheckpoint {
        /// Which.
        group: u32,
        /// The index.
        index: u64,
    },
}
