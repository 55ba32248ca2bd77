//! The node's log, shared between the loop, which writes it, and the replicas, which read it back.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use stock_cluster::GroupId;
use stock_cluster::identity::Acquaintances;
use stock_node::worker::{EntryReaders, Worker};
use stock_node::writes::{Record, Write, Writes};
use stock_replica::{EntryReader, ReadError};
use stock_storage::{
    Durability, Log, LogError, LogOptions, OnDamage, Purger, Salvage, TailCut, Volume, WriteBatch,
};

use super::forgotten;

/// A handle to the log. Only the worker's thread uses it while the node runs, so the lock is free.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Log>>);

impl Disk {
    /// Opens the log in a node's data directory. One that is damaged is dealt with as `on_damage`
    /// says, and [`forgotten::is_said`] from then on.
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

    /// Reads the entries of any group back.
    pub fn entry_readers(&self) -> EntryReaders {
        let disk = self.clone();
        Box::new(move |group| Box::new(GroupReader::new(disk.clone(), u64::from(group.0))))
    }

    /// Writes a batch. See [`Log::write`].
    pub fn write(&self, batch: &mut WriteBatch, durability: Durability) -> Result<(), LogError> {
        self.log().write(batch, durability)
    }

    /// Who this node is, if it was ever said.
    pub fn node_record(&self) -> Option<Vec<u8>> {
        self.log().node_record()
    }

    /// What this node remembers of itself and others, and a pulse of this boot, which is durable
    /// before anybody is told.
    pub fn begin_acquaintances(&self, boot: u64) -> Result<Acquaintances, LogError> {
        let remembered = self.log().acquaintances();
        let begun = Acquaintances::begin(remembered.as_deref(), boot);
        let begun = begun.map_err(|error| LogError::Damaged {
            file: "the log".into(),
            reason: error.to_string(),
        })?;
        let mut batch = WriteBatch::new();
        batch.put_acquaintances(&begun.to_bytes());
        self.write(&mut batch, Durability::Sync)?;
        Ok(begun)
    }

    /// What a node that does not run remembers of itself and others; nothing where that cannot be
    /// read.
    pub fn acquaintances(&self) -> Option<Acquaintances> {
        let remembered = self.log().acquaintances()?;
        Acquaintances::from_bytes(&remembered)
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
        // A poisoned log has failed in the middle of something; it says so itself at the next
        // write.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what the loop wants written, turn by turn.
pub struct LogWriter {
    disk: Disk,
    /// With the memory of earlier turns.
    batch: WriteBatch,
}

/// What became of a turn's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// They are durable.
    All,
    /// Nothing of them was written, and nothing may be sent: they are written again when there may
    /// be room.
    DiskFull,
}

impl LogWriter {
    /// Of this log.
    pub fn new(disk: Disk) -> Self {
        Self {
            disk,
            batch: WriteBatch::new(),
        }
    }

    /// Makes durable what a turn of the loop wants to be, with one write and one fdatasync for all
    /// groups.
    pub fn write_turn<R>(&mut self, worker: &mut Worker<R>) -> Result<Written, LogError> {
        let written = match worker.writes() {
            Some(writes) => self.write(writes)?,
            None => return Ok(Written::All),
        };
        if written == Written::All {
            worker.written();
        }
        Ok(written)
    }

    fn write(&mut self, writes: &Writes) -> Result<Written, LogError> {
        for write in writes.iter() {
            add(&mut self.batch, write);
        }
        match self.disk.write(&mut self.batch, Durability::Sync) {
            Ok(()) => Ok(Written::All),
            Err(LogError::Full { .. }) => {
                self.batch.clear();
                Ok(Written::DiskFull)
            }
            Err(error) => Err(error),
        }
    }
}

fn add(batch: &mut WriteBatch, write: &Write) {
    let number = |group: &GroupId| u64::from(group.0);
    match write {
        Write::Append {
            group,
            first_index,
            entries,
        } => batch.append(number(group), *first_index, entries),
        Write::TruncateBefore { group, index } => batch.truncate_before(number(group), *index),
        Write::Reset(group) => batch.reset(number(group)),
        Write::Forget(group) => batch.forget(number(group)),
        Write::Put(Record::State(group), bytes) => batch.put_state(number(group), bytes),
        Write::Put(Record::Origin(group), bytes) => batch.put_origin(number(group), bytes),
        Write::Put(Record::Replica(group), bytes) => batch.put_replica(number(group), bytes),
        Write::Put(Record::Acquaintances, bytes) => batch.put_acquaintances(bytes),
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
