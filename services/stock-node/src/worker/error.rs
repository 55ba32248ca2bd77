//! Why a loop cannot go on.

use stock_cluster::Speaks;
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
    /// The cluster has gone on to a version that this build does not know, or speaks one that it
    /// does not know any more.
    #[error("the cluster speaks version {version}, and this build {speaks}")]
    Version {
        /// What the cluster speaks.
        version: u32,
        /// What this build does.
        speaks: Speaks,
    },
}
