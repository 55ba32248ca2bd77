//! What can go wrong with the log, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why the log could not be opened, read or written.
///
/// Each message names the file or the group and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process, or another [`Log`](crate::Log) of this process, has the directory open.
    #[error(
        "the data directory {} is in use by process {holder}: stop that process, or give this node \
         a directory of its own",
        dir.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process id found in the lock file, or "unknown".
        holder: String,
    },

    /// A file or directory could not be created, locked, listed or synced while opening.
    #[error("cannot {action} {}: {source}: check the volume and its permissions", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// What it was being done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The log's files are there, but could not be opened.
    #[error("cannot open the log in {}: {source}: check the volume and its \
        permissions", dir.display())]
    Open {
        /// The directory of the log's files.
        dir: PathBuf,
        /// What the engine said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Entries that the log has, as far as it knows, are not what was written: whose they are has
    /// to be built again. The rest of the log is as it was.
    #[error("entries of the log in {} cannot be read: {reason}", dir.display())]
    Unreadable {
        /// The log's directory.
        dir: PathBuf,
        /// Which, where that is known, and why.
        reason: String,
    },

    /// The log has lost something that it once promised to keep, so this node may have forgotten a
    /// vote or an entry that it acknowledged. Nothing has been changed on the disk.
    #[error(
        "the log is damaged: {}: {reason}. Where the rest of the cluster serves (stockctl cluster \
         status), put the data directory aside and start this node with an empty one: it joins \
         anew and copies everything from the others. Where it does not, nothing must be emptied or \
         deleted: see docs/recovery.md",
        file.display()
    )]
    Damaged {
        /// The damaged file, or the directory where the file is not known.
        file: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },

    /// The log is damaged, and was so often before that its disk cannot be trusted. Nothing has
    /// been changed on it.
    #[error(
        "the log in {} is damaged once more, after it was so {times} times: replace the disk; or, \
         if it is known to be well, delete what was put aside (log.damaged-1 and so on) and start \
         again",
        dir.display()
    )]
    DamagedAgain {
        /// The data directory.
        dir: PathBuf,
        /// How often it was.
        times: u32,
    },

    /// An entry was asked for that lies below the first one kept.
    #[error(
        "group {group}: entry {index} is gone, the log begins at {first}: send a snapshot instead"
    )]
    Compacted {
        /// The group.
        group: u64,
        /// The entry asked for.
        index: u64,
        /// The first entry of the group that is kept.
        first: u64,
    },

    /// An entry was asked for that has not been written.
    #[error("group {group}: entry {index} was never written, the log ends at {last}")]
    Missing {
        /// The group.
        group: u64,
        /// The first entry that is missing.
        index: u64,
        /// The last entry of the group, 0 if it has none.
        last: u64,
    },

    /// A batch would leave a hole in a group's log or rewrite what lies before its beginning.
    /// Nothing was written: the engine would find out only after the batch is durable, and then
    /// never open again.
    #[error(
        "group {group}: cannot append at {index}, the log holds {first} to {last}: append between \
         {first} and the end + 1"
    )]
    OutOfOrder {
        /// The group.
        group: u64,
        /// Index of the first entry of the refused append.
        index: u64,
        /// The first entry of the group.
        first: u64,
        /// The last entry of the group.
        last: u64,
    },

    /// A batch is larger than the log takes at once. Nothing was written.
    #[error("a batch of {bytes} bytes is too large, the most is {bytes_max}: write it in parts")]
    TooLarge {
        /// Bytes of all entries in the batch.
        bytes: u64,
        /// The most that is taken.
        bytes_max: u64,
    },

    /// The volume is full. Certainly nothing was written, and the log can be used: the same batch
    /// can be written when there is space again.
    #[error(
        "the volume of {} is full: nothing was written; free space on it or make it larger",
        dir.display()
    )]
    Full {
        /// The directory of the log's files.
        dir: PathBuf,
    },

    /// Space could not be given back. The log can be written, but grows until it is opened again.
    #[error(
        "cannot give back space of the log in {}: {source}: start the node again when there is \
         space on the volume",
        dir.display()
    )]
    Purge {
        /// The directory of the log's files.
        dir: PathBuf,
        /// What the engine or the operating system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A write failed; how much of it reached the disk is unknown. Fatal.
    #[error(
        "cannot write to the log in {}: {source}: the node must stop; check the volume before it \
         starts again",
        dir.display()
    )]
    Write {
        /// The directory of the log's files.
        dir: PathBuf,
        /// What the engine or the operating system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The disk refused to make a write durable. Fatal, and a second try would lie: after a failed
    /// `fdatasync` the kernel may drop the page and report the next one as a success.
    #[error(
        "cannot sync the log file {}: {source}: the node must stop; check the volume before it \
         starts again",
        file.display()
    )]
    Sync {
        /// The file that could not be synced.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// An earlier write failed fatally; nothing is written any more. Fatal.
    #[error("the log in {} has failed before and takes no more writes: the node must \
        stop", dir.display())]
    Failed {
        /// The directory of the log's files.
        dir: PathBuf,
    },
}

impl LogError {
    /// Whether the process must abort at once, without answering anybody and without another write.
    ///
    /// After such an error memory, page cache and disk may all hold different logs. Only a restart,
    /// which reads the log from the disk, brings them together.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            LogError::Write { .. }
                | LogError::Sync { .. }
                | LogError::Failed { .. }
                | LogError::Damaged { .. }
                | LogError::DamagedAgain { .. }
        )
    }
}
