//! A data directory whose node does not run: looking into it, and going on from what is left where
//! most of the cluster is lost for good.

pub mod account;
pub mod carry_out;
pub mod error;
pub mod inspect;
pub mod lives;
pub mod plan;
pub mod recover;
pub mod replay;

mod inspect_table;
mod ledger_copy;
mod recover_words;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stock_cluster::GroupId;
use stock_cluster::identity::Acquaintances;
use stock_node::worker::SlotRecord;
use stock_replica::{Ballot, OpenError, Point, PointError};
use stock_storage::{
    CheckpointError, CheckpointStore, Ledger, LogError, LogOptions, OnDamage, Volume,
};
use thiserror::Error;

use self::ledger_copy::LedgerCopy;
use crate::directory::disk::Disk;
use crate::directory::forgotten;
use crate::directory::node_record::{NodeRecord, NodeRecordError};

/// A data directory, locked until this is dropped.
pub struct DataDir {
    pub(crate) path: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) checkpoints: CheckpointStore,
    pub(crate) record: NodeRecord,
    /// Its log was damaged once, and is used as far as it is whole, or it is an older copy: what it
    /// held counts for nothing in a vote.
    pub(crate) has_forgotten: bool,
    /// How far history goes, of each group, where that is known.
    pub(crate) history_to: Vec<Option<u64>>,
    pub(crate) volume: Arc<dyn Volume>,
}

/// A data directory cannot be looked into.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// There is none.
    #[error("{} is no data directory: no node has used it", path.display())]
    NotUsed {
        /// Where.
        path: PathBuf,
    },
    /// It was used, and its log is not what it was.
    #[error(
        "{}: its log does not say any more whose it is, and nothing in it can be gone on from: \
         leave it out, and keep it",
        path.display()
    )]
    NoRecord {
        /// Where.
        path: PathBuf,
    },
    /// It is in use, damaged, or cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its checkpoints cannot be listed.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// Its node's record is damaged.
    #[error(transparent)]
    Record(#[from] NodeRecordError),
    /// What it says of a group is damaged.
    #[error("{}, group {}: {source}", path.display(), group.0)]
    Group {
        /// The data directory.
        path: PathBuf,
        /// Which.
        group: GroupId,
        /// What is wrong.
        source: RecordError,
    },
    /// The ledger cannot be copied in order to be looked into.
    #[error("cannot copy the ledger from {} to look into it: {source}: see --scratch and \
        --no-ledger", path.display())]
    LedgerCopy {
        /// From where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A record of a group is damaged.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Which replica is here.
    #[error("the record of its replica is damaged")]
    Slot,
    /// Where the log begins.
    #[error(transparent)]
    Origin(#[from] PointError),
    /// There is a replica, and nothing says where its log begins.
    #[error("nothing says where its log begins")]
    NoOrigin,
    /// Vote and term.
    #[error(transparent)]
    Ballot(#[from] OpenError),
}

/// What the log says of a replica that is, or should be, here.
pub(crate) struct ReplicaRecord {
    pub(crate) origin: Point,
    pub(crate) ballot: Option<Ballot>,
    /// The index of the last entry; that of the origin where there is none.
    pub(crate) last_index: u64,
}

/// Finds directories of which another one remembers more than they do themselves: they were put
/// back to an older copy.
pub(crate) fn find_older_copies(dirs: &mut [DataDir]) {
    let remembered = |dir: &DataDir| dir.disk.acquaintances().unwrap_or_default();
    // A recovery has everybody forget: only those of one life know each other.
    let memories: Vec<(u128, Acquaintances)> = dirs
        .iter()
        .map(|dir| (dir.record.incarnation(), remembered(dir)))
        .collect();
    for (at, dir) in dirs.iter_mut().enumerate() {
        let (life, own) = &memories[at];
        let lacks = |(other, memory): &(u128, Acquaintances)| {
            let known = memory.known(dir.record.node_id).filter(|_| other == life);
            known.is_some_and(|known| {
                known.directory == dir.record.directory() && known.is_lacked_at_rest(own.own())
            })
        };
        dir.has_forgotten |= memories.iter().any(lacks);
    }
}

impl DataDir {
    /// Opens it, if a node ever used it; a log that is damaged as far as it is whole.
    ///
    /// # Errors
    ///
    /// All of [`OfflineError`] but those of one group.
    pub fn open(
        volume: Arc<dyn Volume>,
        path: &Path,
        on_damage: OnDamage,
    ) -> Result<Self, OfflineError> {
        // To open a log makes one where there is none.
        if !path.join("log").is_dir() || !path.join("LOCK").is_file() {
            let path = path.to_owned();
            return Err(OfflineError::NotUsed { path });
        }
        let disk = Disk::open(&volume, path, &LogOptions::default(), on_damage)?;
        let checkpoints = CheckpointStore::open(Arc::clone(&volume), path)?;
        let Some(record) = NodeRecord::read(&disk, path)? else {
            let is_new = checkpoints.groups().is_empty() && !Ledger::is_in(path);
            let path = path.to_owned();
            return Err(match is_new {
                true => OfflineError::NotUsed { path },
                false => OfflineError::NoRecord { path },
            });
        };
        Ok(Self {
            path: path.to_owned(),
            has_forgotten: record.must_join_anew() || forgotten::is_said(&*volume, path)?,
            disk,
            checkpoints,
            record,
            history_to: Vec::new(),
            volume,
        })
    }

    /// Finds out how far history goes, from a copy of the ledger that is made below `scratch` and
    /// deleted again.
    ///
    /// # Errors
    ///
    /// [`OfflineError::LedgerCopy`].
    pub(crate) fn look_into_history(&mut self, scratch: &Path) -> Result<(), OfflineError> {
        if let Some(ledger) = LedgerCopy::of(&self.path, scratch)? {
            let reaches = |group: GroupId| Some(ledger.coverage(u64::from(group.0))?.to);
            self.history_to = self.groups().map(reaches).collect();
        }
        Ok(())
    }

    /// What it remembers of its node.
    pub fn record(&self) -> &NodeRecord {
        &self.record
    }

    /// Its log.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Every group of the cluster.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..=self.record.shards).map(GroupId)
    }

    /// Which replica of a group is here, or was; none if there never was one.
    pub(crate) fn slot(&self, group: GroupId) -> Result<Option<SlotRecord>, OfflineError> {
        let Some(bytes) = self.disk.replica(u64::from(group.0)) else {
            return Ok(None);
        };
        let slot = SlotRecord::from_bytes(&bytes);
        slot.map(Some)
            .ok_or_else(|| self.damaged(group, RecordError::Slot))
    }

    /// What the log says of a replica that is here.
    pub(crate) fn replica(&self, group: GroupId) -> Result<ReplicaRecord, OfflineError> {
        let number = u64::from(group.0);
        let origin = self.disk.origin(number);
        let origin = origin.ok_or_else(|| self.damaged(group, RecordError::NoOrigin))?;
        let origin =
            Point::from_bytes(&origin).map_err(|error| self.damaged(group, error.into()))?;
        let state = self
            .disk
            .state(number)
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| Ballot::from_bytes(&bytes))
            .transpose()
            .map_err(|error| self.damaged(group, error.into()))?;
        let bounds = self.disk.bounds(number);
        Ok(ReplicaRecord {
            last_index: bounds.map_or(origin.index, |(_, last)| last),
            origin,
            ballot: state,
        })
    }

    fn damaged(&self, group: GroupId, source: RecordError) -> OfflineError {
        OfflineError::Group {
            path: self.path.clone(),
            group,
            source,
        }
    }
}
