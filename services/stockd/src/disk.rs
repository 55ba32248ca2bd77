//! The node's log, shared between the loop, which writes it, and the replicas, which read it back.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use stock_replica::{EntryReader, ReadError};
use stock_storage::{
    Durability, Log, LogError, LogOptions, OnDamage, Purger, Salvage, TailCut, Volume, WriteBatch,
};

use crate::forgotten;

/// A handle to the log. Only the worker's thread uses it while the node runs, so the lock is free.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Log>>);

impl Disk {
    /// Opens the log in a node's data directory. One that is damaged is dealt with as `on_damage` says, and
    /// [`forgotten::is_said`] from then on.
    pub fn open(
        volume: &Arc<dyn Volume>,
        dir: &Path,
        options: &LogOptions,
        on_damage: OnDamage,
    ) -> Result<Self, LogError> {
        let log = forgotten::open(volume, dir, options, on_damage)?;
        if let Some(cut) = log.tail_cut() {
            tracing::warn!(
                ?cut,
                "the log goes on before a write at its end that is not whole"
            );
        }
        Ok(Self(Arc::new(Mutex::new(log))))
    }

    /// Writes a batch. See [`Log::write`].
    pub fn write(&self, batch: &mut WriteBatch, durability: Durability) -> Result<(), LogError> {
        self.log().write(batch, durability)
    }

    /// Who this node is, if it was ever said.
    pub fn node_record(&self) -> Option<Vec<u8>> {
        self.log().node_record()
    }

    /// What this node remembers of others.
    pub fn acquaintances(&self) -> Option<Vec<u8>> {
        self.log().acquaintances()
    }

    /// Which replica of a group is, or was, on this node.
    pub fn replica(&self, group: u64) -> Option<Vec<u8>> {
        self.log().replica(group)
    }

    /// The interrupted write that opening cut off the end, if there was one.
    pub fn tail_cut(&self) -> Option<TailCut> {
        self.log().tail_cut().cloned()
    }

    /// What was done when the log was opened, if it was damaged.
    pub fn salvage(&self) -> Option<Salvage> {
        self.log().salvage().cloned()
    }

    /// Frees space, from any thread.
    pub fn purger(&self) -> Purger {
        self.log().purger()
    }

    /// Where a group's log begins.
    pub fn origin(&self, group: u64) -> Option<Vec<u8>> {
        self.log().origin(group)
    }

    /// A group's vote, term and commit index.
    pub fn state(&self, group: u64) -> Option<Vec<u8>> {
        self.log().state(group)
    }

    /// A group's first and last log index.
    pub fn bounds(&self, group: u64) -> Option<(u64, u64)> {
        self.log().bounds(group)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // A poisoned log has failed in the middle of something; it says so itself at the next write.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One group's part of the log, for its replica.
pub struct GroupReader {
    disk: Disk,
    group: u64,
}

impl GroupReader {
    /// Of this group.
    pub fn new(disk: Disk, group: u64) -> Self {
        Self { disk, group }
    }
}

impl EntryReader for GroupReader {
    fn read(
        &self,
        low: u64,
        high: u64,
        bytes_max: u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        let read = self.disk.log().read(self.group, low, high, bytes_max, out);
        read.map_err(|error| ReadError {
            message: error.to_string(),
        })
    }
}
