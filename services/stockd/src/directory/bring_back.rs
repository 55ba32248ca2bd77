//! Replicas brought back from their directory, or founded.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use stock_cluster::{GroupId, ReplicaId};
use stock_core::{Secret, Stamp};
use stock_node::checkpoint::{Belongs, Owner, Restored};
use stock_node::clock::Now;
use stock_node::state::State;
use stock_node::worker::{
    Fault, FaultKind, Found, FoundReplica, Founding, Kept, SlotRecord, Standing, Worker,
    WorkerParts,
};
use stock_replica::Point;
use stock_storage::{CheckpointInfo, CheckpointStore, Durability, LogError, WriteBatch};
use thiserror::Error;

use super::checkpoint_files::{self, ImageError};
use crate::directory::disk::{Disk, LogWriter};

/// A loop with the replicas that its directory has, and who writes for it. `ledger_indexes` say up
/// to where the ledger of each group is durable, by group; none where it knows nothing. New groups
/// begin durably, all at once: a crash before that founds them again.
pub fn open<R>(
    parts: WorkerParts,
    disk: &Disk,
    checkpoints: &CheckpointStore,
    ledger_indexes: &[Option<u64>],
    now: Now,
) -> Result<(Worker<R>, LogWriter), BringBackError> {
    let directory = Directory {
        parts: &parts,
        disk,
        checkpoints,
        ledger_indexes,
    };
    let mut batch = WriteBatch::new();
    let groups = (0..parts.groups).map(GroupId);
    let found = groups.map(|id| find(id, &directory, &mut batch));
    let found = found.collect::<Result<_, _>>()?;
    if !batch.is_empty() {
        disk.write(&mut batch, Durability::Sync)?;
    }
    let worker = Worker::open(parts, found, now);
    Ok((worker, LogWriter::new(disk.clone())))
}

/// A directory, and what its node is.
struct Directory<'a> {
    parts: &'a WorkerParts,
    disk: &'a Disk,
    checkpoints: &'a CheckpointStore,
    ledger_indexes: &'a [Option<u64>],
}

/// A replica, or all of them, cannot be brought back.
#[derive(Debug, Error)]
pub enum BringBackError {
    /// The disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file or record of a replica cannot be used.
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
        "group {group}: its log ends at {last_index}, and it once reached to {known}: it has lost \
         what it acknowledged"
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
        "group {group}: its log begins after {index}, and there is no whole checkpoint from there \
         on"
    )]
    NoCheckpoint {
        /// Which.
        group: u32,
        /// The index.
        index: u64,
    },
}

/// What it has of one group. A replica that cannot be brought back fails alone: the others go on,
/// and it is built again from its peers.
fn find(id: GroupId, of: &Directory<'_>, batch: &mut WriteBatch) -> Result<Found, BringBackError> {
    let parts = of.parts;
    let number = u64::from(id.0);
    let record = match of.disk.replica(number) {
        Some(bytes) => {
            Some(SlotRecord::from_bytes(&bytes).ok_or(BringBackError::Record { group: id.0 })?)
        }
        None => None,
    };
    let founders = parts
        .founding
        .as_ref()
        .map(|founding| founding.groups(parts.groups).swap_remove(id.index()));
    match (record, founders) {
        (Some(record), _) => Ok(remembered(id, record, of, batch)),
        // Its directory says that it had one from the beginning: what says which is lost, and it
        // must not begin once more.
        (None, Some(founders)) if founders.contains(&parts.node) && has_begun(of) => {
            let why = "the record of it is lost".to_owned();
            let kind = FaultKind::Passing;
            Ok(Found::Failed {
                newest: ReplicaId::founding(parts.node),
                fault: Fault { kind, why },
            })
        }
        (None, Some(founders)) if founders.contains(&parts.node) => {
            let own = ReplicaId::founding(parts.node);
            let origin = Point::founding(founders);
            batch.put_origin(number, &origin.to_bytes());
            put_record(batch, id, own);
            Ok(Found::Replica(Box::new(FoundReplica {
                own,
                restored: founded(id, &origin, parts),
                kept: Vec::new(),
                last_index: origin.index,
                hard_state: None,
                ledger_index: of.ledger_index(id),
                origin,
            })))
        }
        (None, _) => {
            // A directory whose log was cut has forgotten the replica that a snapshot came for, and
            // not its file.
            forget_incoming(id, of);
            Ok(Found::Vacant {
                newest: before_floor(parts),
            })
        }
    }
}

impl Directory<'_> {
    fn ledger_index(&self, id: GroupId) -> Option<u64> {
        self.ledger_indexes.get(id.index()).copied().flatten()
    }
}

/// The state that a group begins with.
fn founded(id: GroupId, origin: &Point, parts: &WorkerParts) -> Restored {
    Restored {
        point: origin.clone(),
        stamp: Stamp(0),
        state: State::new(id, founding_secret(parts)),
        bytes: 0,
    }
}

/// What the states of a founder's replicas begin with. Who joined gets it with a snapshot.
fn founding_secret(parts: &WorkerParts) -> Secret {
    parts
        .founding
        .as_ref()
        .map_or(Secret::default(), Founding::secret)
}

/// Whether this very directory has been seen to know who founded the cluster.
fn has_begun(of: &Directory<'_>) -> bool {
    of.parts.is_founded && of.disk.node_record().is_some()
}

/// The last replica that cannot be in this directory: those of the floor itself are allotted after
/// it was.
fn before_floor(parts: &WorkerParts) -> ReplicaId {
    ReplicaId::new(parts.generation_floor.saturating_sub(1), parts.node)
}

/// What becomes of the replica that the disk remembers.
fn remembered(
    id: GroupId,
    record: SlotRecord,
    of: &Directory<'_>,
    batch: &mut WriteBatch,
) -> Found {
    let own = record.newest;
    let failed = |kind: FaultKind, why: String| {
        tracing::error!(group = id.0, replica = %own, %why, outlook = kind.outlook(), "a replica \
            is not brought back");
        forget_incoming(id, of);
        Found::Failed {
            newest: own,
            fault: Fault { kind, why },
        }
    };
    match record.standing {
        _ if own.generation() < of.parts.generation_floor => {
            // It was begun before this directory was let in: nobody counts on it.
            forget_files(id, of);
            batch.forget(u64::from(id.0));
            Found::Vacant {
                newest: before_floor(of.parts),
            }
        }
        Standing::Gone => {
            // The crash may have come before its files were deleted.
            forget_files(id, of);
            Found::Vacant { newest: own }
        }
        Standing::Failed(why) => failed(FaultKind::Lasting, why),
        Standing::Disputed(why) => failed(FaultKind::Disputed, why),
        Standing::Begun => {
            let brought_back = catch_unwind(AssertUnwindSafe(|| bring_back(id, own, of)));
            match brought_back {
                Ok(Ok(found)) => Found::Replica(Box::new(found)),
                Ok(Err(error)) => failed(FaultKind::Passing, error.to_string()),
                Err(_) => failed(
                    FaultKind::Passing,
                    "what is on the disk made it panic".to_owned(),
                ),
            }
        }
    }
}

fn forget_files(id: GroupId, of: &Directory<'_>) {
    if let Err(error) = of.checkpoints.retain(u64::from(id.0), |_| false) {
        tracing::warn!(group = id.0, %error, "the files of a replica that was moved away stay for \
            now");
    }
    forget_incoming(id, of);
}

/// No snapshot is taken in while one is there that nobody waits for.
fn forget_incoming(id: GroupId, of: &Directory<'_>) {
    if let Err(error) = of.checkpoints.discard_incoming(u64::from(id.0)) {
        tracing::warn!(group = id.0, %error, "a snapshot's file stays for now");
    }
}

fn put_record(batch: &mut WriteBatch, id: GroupId, newest: ReplicaId) {
    let record = SlotRecord {
        newest,
        standing: Standing::Begun,
    };
    batch.put_replica(u64::from(id.0), &record.to_bytes());
}

fn bring_back(
    id: GroupId,
    own: ReplicaId,
    of: &Directory<'_>,
) -> Result<FoundReplica, BringBackError> {
    let number = u64::from(id.0);
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| BringBackError::Open {
        group: id.0,
        error,
    };
    let origin = match of.disk.origin(number) {
        Some(bytes) => Point::from_bytes(&bytes).map_err(|error| failed(error.into()))?,
        None => return Err(BringBackError::Record { group: id.0 }),
    };
    // A crash came between the log, which begins at a snapshot, and the name of its file.
    for info in of.checkpoints.incoming(number) {
        if info.meta.index == origin.index {
            let adopted = of.checkpoints.adopt(&info);
            adopted.map_err(|error| failed(error.into()))?;
        }
    }
    if !of.checkpoints.incoming(number).is_empty() {
        // It came too late, or the crash came before the log was told.
        let discarded = of.checkpoints.discard_incoming(number);
        discarded.map_err(|error| failed(error.into()))?;
    }
    let mut files = own_files(id, own, &origin, of)?;
    let ledger_index = match id.shard() {
        Some(_) => of.ledger_index(id),
        None => Some(u64::MAX),
    };
    // History is of what was applied, and so of what the log had.
    let last_index = last_index(id, &origin, of);
    if let Some(known) = ledger_index.filter(|known| id.shard().is_some() && *known > last_index)
        && origin.index > 0
    {
        return Err(BringBackError::LostEntries {
            group: id.0,
            known,
            last_index,
        });
    }
    // What the ledger lacks is made again by replaying; where no file is old enough, it has a gap
    // that is filled from a peer.
    let covered = files
        .iter()
        .position(|(point, _)| ledger_index.is_none_or(|durable| point.index <= durable));
    let is_founding = origin.index == 1;
    let from = match covered {
        Some(at) => at,
        None if is_founding => files.len(),
        None => files.len().saturating_sub(1),
    };
    // The log goes on from each of them: where the newest cannot be read, an older one will do.
    let mut damaged: Vec<(CheckpointInfo, ImageError)> = Vec::new();
    let read = files[from..].iter().find_map(|(_, info)| {
        let read = checkpoint_files::read(of.checkpoints, info);
        read.map_err(|error| damaged.push((info.clone(), error)))
            .ok()
    });
    let restored = match read {
        Some(restored) => restored,
        None if is_founding || origin.index == 0 => founded(id, &origin, of.parts),
        None => {
            let error = damaged.into_iter().next();
            return Err(error.map_or(
                BringBackError::NoCheckpoint {
                    group: id.0,
                    index: origin.index,
                },
                |(_, error)| failed(error.into()),
            ));
        }
    };
    for (info, error) in &damaged {
        tracing::error!(
            group = id.0,
            file = %info.path.display(),
            %error,
            from = restored.point.index,
            "a state cannot be read; it is deleted, and the replica goes on from an older one"
        );
    }
    if !damaged.is_empty() {
        let is_whole = |info: &CheckpointInfo| damaged.iter().all(|(it, _)| it.path != info.path);
        files.retain(|(_, info)| is_whole(info));
        let retained = of.checkpoints.retain(number, is_whole);
        retained.map_err(|error| failed(error.into()))?;
    }
    let kept = files
        .into_iter()
        .map(|(point, info)| Kept {
            point,
            bytes: info.bytes,
        })
        .collect();
    Ok(FoundReplica {
        own,
        restored,
        kept,
        last_index,
        hard_state: of.disk.state(number),
        ledger_index: of.ledger_index(id),
        origin,
    })
}

/// The states of a replica, newest first, as far as its log can go on from them. What others left
/// is deleted: files of an earlier life of the cluster, or of a replica that was here before, have
/// the same names.
fn own_files(
    id: GroupId,
    own: ReplicaId,
    origin: &Point,
    of: &Directory<'_>,
) -> Result<Vec<(Point, CheckpointInfo)>, BringBackError> {
    let failed = |error: ImageError| BringBackError::Open {
        group: id.0,
        error: error.into(),
    };
    let last_index = last_index(id, origin, of);
    let owner = Owner {
        replica: own,
        directory: of.parts.directory,
        lives: &of.parts.lives,
    };
    let (mut files, mut foreign) = (Vec::new(), BTreeSet::new());
    for info in of.checkpoints.list(u64::from(id.0)) {
        let belongs = checkpoint_files::judge(&owner, &info, origin).map_err(failed)?;
        let point = checkpoint_files::label(&info).map_err(failed)?.point;
        match belongs {
            Belongs::Not => {
                foreign.insert(info.path.clone());
            }
            // It wrote down only what it had in its log, durably.
            Belongs::Written if point.index > last_index => {
                return Err(BringBackError::LostEntries {
                    group: id.0,
                    known: point.index,
                    last_index,
                });
            }
            Belongs::Written | Belongs::Adopted if point.index >= origin.index => {
                files.push((point, info));
            }
            Belongs::Written | Belongs::Adopted => {}
        }
    }
    if !foreign.is_empty() {
        tracing::warn!(group = id.0, files = ?foreign, "states of another replica, directory or \
            life of the cluster are deleted");
        let kept = |info: &CheckpointInfo| !foreign.contains(&info.path);
        let retained = of.checkpoints.retain(u64::from(id.0), kept);
        retained.map_err(|error| failed(error.into()))?;
    }
    Ok(files)
}

fn last_index(id: GroupId, origin: &Point, of: &Directory<'_>) -> u64 {
    let bounds = of.disk.bounds(u64::from(id.0));
    bounds.map_or(origin.index, |(_, last)| last)
}
