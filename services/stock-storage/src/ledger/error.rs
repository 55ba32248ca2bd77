//! What can go wrong with the ledger, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why the ledger could not be opened, written or read.
///
/// None of these endangers stock: the ledger is history, and can be refilled from the log or from
/// another replica.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Another process, or another open [`Ledger`](crate::Ledger) of this one, has it open.
    #[error(
        "the ledger in {} is in use: stop the process that has it open",
        dir.display()
    )]
    InUse {
        /// The directory of the ledger's files.
        dir: PathBuf,
    },

    /// A file or directory could not be made, read, renamed or synced.
    #[error("cannot {action} {}: {source}: check the volume and its permissions", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// What it was being done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The engine cannot make sense of its own files. The ledger takes no further call, and the
    /// next [`Ledger::open`](crate::Ledger::open) sets it aside and begins a new one.
    #[error(
        "the ledger in {} is damaged: {reason}: open it again, which sets it aside and begins a \
         new one",
        dir.display()
    )]
    Damaged {
        /// The directory of the ledger's files.
        dir: PathBuf,
        /// What was noticed.
        reason: String,
    },

    /// Entries that the ledger has had are not there any more.
    #[error(
        "group {group}: the ledger has lost entries of the indices {from} to {to}: replace all of \
         them from the log or from another replica"
    )]
    Hole {
        /// The group.
        group: u64,
        /// The first index of which something may be lost.
        from: u64,
        /// The last such index.
        to: u64,
    },

    /// What comes after the cursor is no longer kept.
    #[error(
        "group {group}: the ledger is complete from index {complete_from} on only: ask another \
         replica, or begin there"
    )]
    TooOld {
        /// The group.
        group: u64,
        /// The first index that is kept whole.
        complete_from: u64,
    },

    /// The group has no ledger.
    #[error("group {group} has no ledger: begin it first")]
    UnknownGroup {
        /// The group.
        group: u64,
    },

    /// The indices do not fit to what is there: a mistake of the caller. Nothing was written.
    #[error("group {group}: index {index} does not fit, expected was {expected}")]
    OutOfOrder {
        /// The group.
        group: u64,
        /// The index that was given.
        index: u64,
        /// The index that would have fitted.
        expected: u64,
    },

    /// Too much at once. Nothing was written.
    #[error("{bytes} bytes are too many, the most is {bytes_max}: write them in parts")]
    TooLarge {
        /// Bytes that were given.
        bytes: u64,
        /// The most that is taken.
        bytes_max: u64,
    },

    /// A write failed. The ledger takes no further call until it is opened again; what was durable
    /// before is still there.
    #[error(
        "cannot write to the ledger in {}: {source}: free space on the volume or replace it, then \
         open the ledger again",
        dir.display()
    )]
    Write {
        /// The directory of the ledger's files.
        dir: PathBuf,
        /// What the engine said.
        source: sled::Error,
    },

    /// The disk refused to make a write durable. Nothing is known of what it holds, so the next
    /// open sets the ledger aside.
    #[error("cannot sync the ledger file {}: {source}: check the volume", file.display())]
    Sync {
        /// The file that could not be synced.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// An earlier call failed for good, see [`Damaged`](LedgerError::Damaged),
    /// [`Write`](LedgerError::Write) and [`Sync`](LedgerError::Sync).
    #[error(
        "the ledger in {} has failed before and takes no more calls: open it again",
        dir.display()
    )]
    Failed {
        /// The directory of the ledger's files.
        dir: PathBuf,
    },
}

impl LedgerError {
    /// Whether this ledger is of no use any more and must be opened again. The node can go on
    /// meanwhile, but its log has to wait.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            LedgerError::Damaged { .. }
                | LedgerError::Write { .. }
                | LedgerError::Sync { .. }
                | LedgerError::Failed { .. }
        )
    }
}
