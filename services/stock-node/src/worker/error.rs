//! Why a loop cannot go on.

use thiserror::Error;

use crate::entry::DecodeError;

/// The loop cannot go on. The process must stop: to serve after an entry that was not understood is
/// to lie.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// An entry is from another version.
    #[error("group {group}: {error}")]
    Decode {
        /// Whose entry.
        group: u32,
        /// What is wrong.
        error: DecodeError,
    },
}
