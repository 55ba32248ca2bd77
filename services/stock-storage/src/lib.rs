//! What one node keeps on its disk.
//!
//! The [`Log`] is the durable Raft log of a node: all its groups in one append-only queue of files,
//! so that one turn of the worker's loop costs one write and one `fdatasync`, however many groups
//! moved. The [`CheckpointStore`] keeps the state of each group at some index, so that the log can
//! be truncated.
//!
//! Invariants of this crate:
//!
//! - It knows neither Raft's types nor the stock model. Everything goes in and comes out as bytes.
//! - It is the only crate that knows which storage engine is underneath.
//! - A [`Log::write`] is all or nothing, also across a crash.
//! - What [`Durability::Sync`] acknowledged is on the disk. When that can no longer be promised,
//!   the log says so once and then refuses everything: see [`LogError::is_fatal`].
//!
//! # Layout of a data directory
//!
//! ```text
//! LOCK            held while a process has the directory open; names that process
//! log/            the files of the log
//! log.damaged-1/  the log as it was when it was found to be damaged
//! checkpoints/    the state of each group at some index
//! incoming/       checkpoints received from other nodes, not yet used
//! ```
//!
//! # A full volume
//!
//! Nothing here holds space back. A write that does not fit is refused whole, and what frees space
//! needs some first: a checkpoint as much as the state, a purge [`PURGE_ROOM_BYTES`]. So whoever
//! takes in new work watches [`Volume::free_bytes`] and stops well before: at the largest
//! checkpoint, two files of the log and [`PURGE_ROOM_BYTES`] together.

mod checkpoint;
mod error;
mod ledger;
mod log;
mod volume;

pub use checkpoint::{
    CONTEXT_BYTES_MAX, CheckpointError, CheckpointInfo, CheckpointMeta, CheckpointReader,
    CheckpointStore, CheckpointWriter, DamagedCheckpoint, Incoming, RawCheckpoint,
    SECTION_BYTES_MAX,
};
pub use error::LogError;
pub use ledger::error::LedgerError;
pub use ledger::{Coverage, Cursor, Ledger, LedgerBatch, LedgerEntry, Opened, Page, SetAside};
pub use log::{
    BATCH_BYTES_MAX, Durability, Log, LogOptions, OnDamage, PURGE_ROOM_BYTES, Purger, Salvage,
    TailCut, WriteBatch,
};
pub use volume::{Access, OsVolume, ReadOnlyVolume, Volume, VolumeFile, read_file, write_file};
