//! Replicas put into their places: those that were found when the node starts, and those that begin
//! while it runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use stock_cluster::{GroupId, ReplicaId};
use stock_core::{Secret, Stamp};
use stock_replica::{OpenError, Point, Replica, Restored as RestoredReplica, Settings};

use super::checkpoints::{Checkpoints, Kept};
use super::group::{Group, GroupParts};
use super::ledgers::LedgerProgress;
use super::parts::{WINDOW_BYTES, WorkerParts};
use super::slot::{Fault, FaultKind, Slot, SlotRecord, Standing};
use crate::checkpoint::Restored;
use crate::state::State;
use crate::writes::{Record, Write, Writes};

/// What a node's directory has of one group when the node starts.
pub enum Found {
    /// No replica. This one was the newest, or the last that cannot be in this directory.
    Vacant {
        /// Which.
        newest: ReplicaId,
    },
    /// One that does not work.
    Failed {
        /// Which.
        newest: ReplicaId,
        /// Why.
        fault: Fault,
    },
    /// One that goes on, or that the group is founded with.
    Replica(Box<FoundReplica>),
}

/// A replica as its directory has it.
pub struct FoundReplica {
    /// Which.
    pub own: ReplicaId,
    /// Where its log begins.
    pub origin: Point,
    /// Its state, as of a point that the log reaches.
    pub restored: Restored,
    /// Its checkpoints that are whole on disk, newest first.
    pub kept: Vec<Kept>,
    /// The end of its log.
    pub last_index: u64,
    /// Its term, vote and commit index, if it has any.
    pub hard_state: Option<Vec<u8>>,
    /// Up to where its history is durable; none where nothing is known.
    pub ledger_index: Option<u64>,
}

/// The slot of a group as its directory has it. A replica that cannot go on fails alone: the others
/// go on, and it is built again from its peers.
pub(super) fn slot<R>(id: GroupId, found: Found, parts: &WorkerParts) -> Slot<R> {
    let found = match found {
        Found::Vacant { newest } => return Slot::vacant(newest),
        Found::Failed { newest, fault } => return Slot::failed(newest, fault),
        Found::Replica(found) => found,
    };
    let own = found.own;
    let opened = catch_unwind(AssertUnwindSafe(|| open(id, *found, parts)));
    let why = match opened {
        Ok(Ok(group)) => return Slot::with(group, own),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "what is on the disk made it panic".to_owned(),
    };
    let kind = FaultKind::Passing;
    tracing::error!(group = id.0, replica = %own, %why, outlook = kind.outlook(), "a replica is \
        not brought back");
    Slot::failed(own, Fault { kind, why })
}

/// A replica that knows nothing yet and waits for a leader to send it a snapshot.
pub(super) fn newcomer<R>(
    id: GroupId,
    own: ReplicaId,
    parts: &WorkerParts,
    writes: &mut Writes,
) -> Result<Group<R>, OpenError> {
    let unknown = Point::unknown();
    let record = SlotRecord {
        newest: own,
        standing: Standing::Begun,
    };
    writes.push(Write::Reset(id));
    writes.put(Record::Origin(id), unknown.to_bytes());
    writes.put(Record::State(id), Bytes::new());
    writes.put(Record::Replica(id), record.to_bytes());
    let restored = Restored {
        point: unknown.clone(),
        stamp: Stamp(0),
        // The snapshot brings the cluster's.
        state: State::new(id, Secret::default()),
        bytes: 0,
    };
    // Until this is written, the disk still has the log and the votes of whoever was here before.
    let found = FoundReplica {
        own,
        last_index: unknown.index,
        origin: unknown,
        restored,
        kept: Vec::new(),
        hard_state: None,
        ledger_index: None,
    };
    open(id, found, parts)
}

fn open<R>(id: GroupId, found: FoundReplica, parts: &WorkerParts) -> Result<Group<R>, OpenError> {
    let settings = Settings {
        election_ticks: parts.election_ticks.clone(),
        committed_bytes_per_turn: parts.committed_bytes_per_turn,
        ..Settings::new(found.own.0, WINDOW_BYTES / u64::from(parts.groups))
    };
    let hard_state = found.hard_state.filter(|state| !state.is_empty());
    let opened = RestoredReplica {
        applied: found.restored.point.clone(),
        origin: found.origin,
        state: hard_state.map(Into::into),
        last_index: found.last_index,
        reader: (parts.entries)(id),
    };
    let mut replica = Replica::open(&settings, opened)?;
    let checkpoints = Checkpoints::new(found.kept, parts.checkpoint_pace);
    if let Some(newest) = checkpoints.newest() {
        replica.offer_snapshot(newest.clone());
    }
    let ledger = LedgerProgress::new(match id.shard() {
        Some(_) => found.restored.point.index,
        None => u64::MAX,
    });
    Ok(Group::new(GroupParts {
        id,
        replica,
        restored: found.restored,
        checkpoints,
        ledger,
    }))
}
