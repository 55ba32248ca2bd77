//! Bringing replicas back from the disk, or founding them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use stock_core::{Secret, Stamp};
use stock_replica::{Point, Replica, Restored as RestoredReplica, Settings};
use stock_storage::{CheckpointInfo, WriteBatch};

use super::checkpoints::{Checkpoints, Kept};
use super::event::GroupId;
use super::group::{Group, GroupParts};
use super::ledgers::LedgerProgress;
use super::parts::Founding;
use super::slot::{Fault, FaultKind, Slot, SlotRecord, Standing};
use super::{WINDOW_BYTES, WorkerError, WorkerParts};
use crate::checkpoint::{self, Belongs, ImageError, Owner, Restored};
use crate::disk::GroupReader;
use crate::placement::ReplicaId;
use crate::state::State;

/// The slot of a group as the disk remembers it. A replica that cannot be brought back fails alone:
/// the others go on, and it is built again from its peers.
pub(super) fn slot<R>(
    id: GroupId,
    parts: &WorkerParts,
    batch: &mut WriteBatch,
) -> Result<Slot<R>, WorkerError> {
    let number = u64::from(id.0);
    let record = match parts.disk.replica(number) {
        Some(bytes) => {
            Some(SlotRecord::from_bytes(&bytes).ok_or(WorkerError::Record { group: id.0 })?)
        }
        None => None,
    };
    let founders = parts
        .founding
        .as_ref()
        .map(|founding| founding.groups(parts.groups).swap_remove(id.index()));
    match (record, founders) {
        (Some(record), _) => Ok(remembered(id, record, parts, batch)),
        // Its directory says that it had one from the beginning: what says which is lost, and it must not begin once more.
        (None, Some(founders)) if founders.contains(&parts.node) && has_begun(parts) => {
            let why = "the record of it is lost".to_owned();
            let kind = FaultKind::Passing;
            Ok(Slot::failed(
                ReplicaId::founding(parts.node),
                Fault { kind, why },
            ))
        }
        (None, Some(founders)) if founders.contains(&parts.node) => {
            let own = ReplicaId::founding(parts.node);
            let origin = Point::founding(founders);
            batch.put_origin(number, &origin.to_bytes());
            put_record(batch, id, own);
            let restored = Restored {
                point: origin.clone(),
                stamp: Stamp(0),
                state: State::new(id, founding_secret(parts)),
                bytes: 0,
            };
            let log = LogOnDisk::empty(&origin);
            Ok(Slot::with(
                open(id, own, origin, restored, Vec::new(), log, parts)?,
                own,
            ))
        }
        (None, _) => {
            // A directory whose log was cut has forgotten the replica that a snapshot came for, and not its file.
            forget_incoming(id, parts);
            Ok(Slot::vacant(before_floor(parts)))
        }
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
fn has_begun(parts: &WorkerParts) -> bool {
    parts.is_founded && parts.disk.node_record().is_some()
}

/// The last replica that cannot be in this directory: those of the floor itself are allotted after it was.
fn before_floor(parts: &WorkerParts) -> ReplicaId {
    ReplicaId::new(parts.generation_floor.saturating_sub(1), parts.node)
}

/// What becomes of the replica that the disk remembers.
fn remembered<R>(
    id: GroupId,
    record: SlotRecord,
    parts: &WorkerParts,
    batch: &mut WriteBatch,
) -> Slot<R> {
    let own = record.newest;
    let failed = |kind: FaultKind, why: String| {
        tracing::error!(group = id.0, replica = %own, %why, outlook = kind.outlook(), "a replica is not brought back");
        forget_incoming(id, parts);
        Slot::failed(own, Fault { kind, why })
    };
    match record.standing {
        _ if own.generation() < parts.generation_floor => {
            // It was begun before this directory was let in: nobody counts on it.
            forget_files(id, parts);
            batch.forget(u64::from(id.0));
            Slot::vacant(before_floor(parts))
        }
        Standing::Gone => {
            // The crash may have come before its files were deleted.
            forget_files(id, parts);
            Slot::vacant(own)
        }
        Standing::Failed(why) => failed(FaultKind::Lasting, why),
        Standing::Disputed(why) => failed(FaultKind::Disputed, why),
        Standing::Begun => {
            let brought_back = catch_unwind(AssertUnwindSafe(|| bring_back(id, own, parts)));
            match brought_back {
                Ok(Ok(group)) => Slot::with(group, own),
                Ok(Err(error)) => failed(FaultKind::Passing, error.to_string()),
                Err(_) => failed(
                    FaultKind::Passing,
                    "what is on the disk made it panic".to_owned(),
                ),
            }
        }
    }
}

fn forget_files(id: GroupId, parts: &WorkerParts) {
    if let Err(error) = parts.checkpoints.retain(u64::from(id.0), |_| false) {
        tracing::warn!(group = id.0, %error, "the files of a replica that was moved away stay for now");
    }
    forget_incoming(id, parts);
}

/// No snapshot is taken in while one is there that nobody waits for.
fn forget_incoming(id: GroupId, parts: &WorkerParts) {
    if let Err(error) = parts.checkpoints.discard_incoming(u64::from(id.0)) {
        tracing::warn!(group = id.0, %error, "a snapshot's file stays for now");
    }
}

/// A replica that knows nothing yet and waits for a leader to send it a snapshot.
pub(super) fn newcomer<R>(
    id: GroupId,
    own: ReplicaId,
    parts: &WorkerParts,
    batch: &mut WriteBatch,
) -> Result<Group<R>, WorkerError> {
    let number = u64::from(id.0);
    let unknown = Point::unknown();
    batch.reset(number);
    batch.put_origin(number, &unknown.to_bytes());
    batch.put_state(number, &[]);
    put_record(batch, id, own);
    let restored = Restored {
        point: unknown.clone(),
        stamp: Stamp(0),
        // The snapshot brings the cluster's.
        state: State::new(id, Secret::default()),
        bytes: 0,
    };
    // Until the batch is written, the disk still has the log and the votes of whoever was here before.
    let log = LogOnDisk::empty(&unknown);
    open(id, own, unknown, restored, Vec::new(), log, parts)
}

/// What the disk has of a replica beside its state.
struct LogOnDisk {
    last_index: u64,
    hard_state: Option<Vec<u8>>,
}

impl LogOnDisk {
    /// Of a replica that is new here.
    fn empty(origin: &Point) -> Self {
        Self {
            last_index: origin.index,
            hard_state: None,
        }
    }

    fn of(id: GroupId, origin: &Point, parts: &WorkerParts) -> Self {
        Self {
            last_index: last_index(id, origin, parts),
            hard_state: parts.disk.state(u64::from(id.0)),
        }
    }
}

fn put_record(batch: &mut WriteBatch, id: GroupId, newest: ReplicaId) {
    let record = SlotRecord {
        newest,
        standing: Standing::Begun,
    };
    batch.put_replica(u64::from(id.0), &record.to_bytes());
}

fn bring_back<R>(
    id: GroupId,
    own: ReplicaId,
    parts: &WorkerParts,
) -> Result<Group<R>, WorkerError> {
    let number = u64::from(id.0);
    let failed =
        |error: Box<dyn std::error::Error + Send + Sync>| WorkerError::Open { group: id.0, error };
    let origin = match parts.disk.origin(number) {
        Some(bytes) => Point::from_bytes(&bytes).map_err(|error| failed(error.into()))?,
        None => return Err(WorkerError::Record { group: id.0 }),
    };
    // A crash came between the log, which begins at a snapshot, and the name of its file.
    for info in parts.checkpoints.incoming(number) {
        if info.meta.index == origin.index {
            let adopted = parts.checkpoints.adopt(&info);
            adopted.map_err(|error| failed(error.into()))?;
        }
    }
    if !parts.checkpoints.incoming(number).is_empty() {
        // It came too late, or the crash came before the log was told.
        let discarded = parts.checkpoints.discard_incoming(number);
        discarded.map_err(|error| failed(error.into()))?;
    }
    let mut files = own_files(id, own, &origin, parts)?;
    let ledger_index = match id.shard() {
        Some(_) => parts.ledger_indexes.get(id.index()).copied().flatten(),
        None => Some(u64::MAX),
    };
    // History is of what was applied, and so of what the log had.
    let last_index = last_index(id, &origin, parts);
    if let Some(known) = ledger_index.filter(|known| id.shard().is_some() && *known > last_index)
        && origin.index > 0
    {
        return Err(WorkerError::LostEntries {
            group: id.0,
            known,
            last_index,
        });
    }
    // What the ledger lacks is made again by replaying; where no file is old enough, it has a gap that
    // is filled from a peer.
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
        let read = checkpoint::read(&parts.checkpoints, info);
        read.map_err(|error| damaged.push((info.clone(), error)))
            .ok()
    });
    let restored = match read {
        Some(restored) => restored,
        None if is_founding || origin.index == 0 => Restored {
            point: origin.clone(),
            stamp: Stamp(0),
            state: State::new(id, founding_secret(parts)),
            bytes: 0,
        },
        None => {
            let error = damaged.into_iter().next();
            return Err(error.map_or(
                WorkerError::NoCheckpoint {
                    group: id.0,
                    index: origin.index,
                },
                |(_, error)| failed(error.into()),
            ));
        }
    };
    for (info, error) in &damaged {
        tracing::error!(group = id.0, file = %info.path.display(), %error, from = restored.point.index, "a state cannot be read; it is deleted, and the replica goes on from an older one");
    }
    if !damaged.is_empty() {
        let is_whole = |info: &CheckpointInfo| damaged.iter().all(|(it, _)| it.path != info.path);
        files.retain(|(_, info)| is_whole(info));
        let retained = parts.checkpoints.retain(number, is_whole);
        retained.map_err(|error| failed(error.into()))?;
    }
    let kept = files
        .into_iter()
        .map(|(point, info)| Kept {
            point,
            bytes: info.bytes,
        })
        .collect();
    let log = LogOnDisk::of(id, &origin, parts);
    open(id, own, origin, restored, kept, log, parts)
}

/// The states of a replica, newest first, as far as its log can go on from them. What others left is deleted: files of
/// an earlier life of the cluster, or of a replica that was here before, have the same names.
fn own_files(
    id: GroupId,
    own: ReplicaId,
    origin: &Point,
    parts: &WorkerParts,
) -> Result<Vec<(Point, CheckpointInfo)>, WorkerError> {
    let failed = |error: ImageError| WorkerError::Open {
        group: id.0,
        error: error.into(),
    };
    let last_index = last_index(id, origin, parts);
    let owner = Owner {
        replica: own,
        directory: parts.directory,
        lives: &parts.lives,
    };
    let (mut files, mut foreign) = (Vec::new(), BTreeSet::new());
    for info in parts.checkpoints.list(u64::from(id.0)) {
        let belongs = owner.judge(&info, origin).map_err(failed)?;
        let point = checkpoint::label(&info).map_err(failed)?.point;
        match belongs {
            Belongs::Not => {
                foreign.insert(info.path.clone());
            }
            // It wrote down only what it had in its log, durably.
            Belongs::Written if point.index > last_index => {
                return Err(WorkerError::LostEntries {
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
        tracing::warn!(group = id.0, files = ?foreign, "states of another replica, directory or life of the cluster are deleted");
        let kept = |info: &CheckpointInfo| !foreign.contains(&info.path);
        let retained = parts.checkpoints.retain(u64::from(id.0), kept);
        retained.map_err(|error| failed(error.into()))?;
    }
    Ok(files)
}

fn last_index(id: GroupId, origin: &Point, parts: &WorkerParts) -> u64 {
    let bounds = parts.disk.bounds(u64::from(id.0));
    bounds.map_or(origin.index, |(_, last)| last)
}

fn open<R>(
    id: GroupId,
    own: ReplicaId,
    origin: Point,
    restored: Restored,
    kept: Vec<Kept>,
    log: LogOnDisk,
    parts: &WorkerParts,
) -> Result<Group<R>, WorkerError> {
    let number = u64::from(id.0);
    let settings = Settings {
        election_ticks: parts.election_ticks.clone(),
        committed_bytes_per_turn: parts.committed_bytes_per_turn,
        ..Settings::new(own.0, WINDOW_BYTES / u64::from(parts.groups))
    };
    let opened = RestoredReplica {
        applied: restored.point.clone(),
        origin,
        state: log
            .hard_state
            .filter(|state| !state.is_empty())
            .map(Into::into),
        last_index: log.last_index,
        reader: Box::new(GroupReader::new(parts.disk.clone(), number)),
    };
    let mut replica = Replica::open(&settings, opened).map_err(|error| WorkerError::Open {
        group: id.0,
        error: error.into(),
    })?;
    let checkpoints = Checkpoints::new(kept, parts.checkpoint_pace);
    if let Some(newest) = checkpoints.newest() {
        replica.offer_snapshot(newest.clone());
    }
    let ledger = LedgerProgress::new(match id.shard() {
        Some(_) => restored.point.index,
        None => u64::MAX,
    });
    Ok(Group::new(GroupParts {
        id,
        replica,
        restored,
        checkpoints,
        ledger,
    }))
}
