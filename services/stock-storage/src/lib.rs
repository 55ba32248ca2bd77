//! What one node keeps on its disk.
//!
//! The [`Log`] is the durable Raft log of a node: all its groups in one append-only queue of files, so
//! that one turn of the worker's loop costs one write and one `fdatasync`, however many groups moved.
//!
//! Invariants of this crate:
//!
//! - It knows neither Raft's types nor the stock model. Everything goes in and comes out as bytes.
//! - It is the only crate that knows which storage engine is underneath.
//! - A [`Log::write`] is all or nothing, also across a crash.
//! - What [`Durability::Sync`] acknowledged is on the disk. When that can no longer be promised, the
//!   log says so once and then refuses everything: see [`LogError::is_fatal`].
//!
//! # Layout of a data directory
//!
//! ```text
//! LOCK     held while a process has the directory open; names that process
//! log/     the files of the log
//! ```

mod error;
mod lock;
mod log;
mod volume;

pub use error::LogError;
pub use log::{Durability, Log, LogOptions, TailCut, WriteBatch};
pub use volume::{Access, OsVolume, Volume, VolumeFile};
