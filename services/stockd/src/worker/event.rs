//! Everything that can wake the loop, and everything it can do about it. Both are closed.

use super::clock::ClusterTime;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use stock_core::{CatalogOutcome, Reservation, ReservationId, Stamp};
use stock_replica::Point;

use crate::checkpoint::Arrived;
use crate::chores::Chore;
use crate::history::{Page, Rows};
use crate::identity::Known;
use crate::log_codec::Commands;
use crate::placement::{AuditReport, GroupReport, NodeReport, Order, RegistryOutcome, ReplicaId};

/// A Raft group: 0 is the catalog's, `n + 1` is stock shard `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group of the catalog.
    pub const META: Self = Self(0);

    /// The group of a stock shard.
    pub fn of_shard(shard: u32) -> Self {
        Self(shard + 1)
    }

    /// The stock shard, or none for the catalog's group.
    pub fn shard(self) -> Option<u32> {
        self.0.checked_sub(1)
    }

    /// For indexing.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What wakes the loop. `R` says where an answer goes; the loop does not look inside.
#[derive(Debug)]
pub enum Event<R> {
    /// Commands to be replicated and applied.
    Propose {
        /// To this group.
        group: GroupId,
        /// Together: they land in one entry, in this order.
        commands: Commands,
        /// Answered with [`Answer::Outcomes`] or [`Answer::Failed`].
        reply: R,
    },
    /// A question to be answered from a state that is new enough.
    Read {
        /// To this group.
        group: GroupId,
        /// How new.
        freshness: Freshness,
        /// What is asked.
        question: Question,
        /// Answered as the question says.
        reply: R,
    },
    /// A Raft message.
    Message {
        /// For this group.
        group: GroupId,
        /// Opaque.
        payload: Bytes,
        /// From this node.
        from: u64,
        /// What the sender takes cluster time to be.
        cluster_time: Option<ClusterTime>,
    },
    /// A peer told the time.
    PeerClock {
        /// Which.
        node: u64,
        /// Its wall clock, in milliseconds since the Unix epoch.
        wall_ms: u64,
    },
    /// A connection to a peer stands.
    PeerUp {
        /// Which.
        node: u64,
    },
    /// A connection to a peer broke.
    PeerDown {
        /// Which.
        node: u64,
    },
    /// This node is about to stop: leadership goes elsewhere, and none is taken any more.
    HandOver,
    /// What became of [`Chore::WriteCheckpoint`].
    CheckpointWritten {
        /// Of this group.
        group: GroupId,
        /// By this replica.
        replica: ReplicaId,
        /// As of here.
        point: Point,
        /// How long the file is, or none if it could not be written.
        bytes: Option<u64>,
    },
    /// An entry of a group's log cannot be read any more, as this says.
    LogDamaged {
        /// The group.
        group: GroupId,
        /// Which entry, and why.
        why: String,
    },
    /// What came of [`Chore::HashState`].
    StateHashed(Box<StateHash>),
    /// What became of [`Effect::SendSnapshot`].
    SnapshotSent {
        /// Of this group.
        group: GroupId,
        /// To this replica.
        to: ReplicaId,
        /// Whether it has it now.
        arrived: bool,
    },
    /// A snapshot for a replica of this node has arrived and is durable.
    SnapshotArrived {
        /// For this group.
        group: GroupId,
        /// The leader's message that it belongs to.
        envelope: Bytes,
        /// The state in it.
        arrived: Box<Arrived>,
    },
    /// Another node tells something.
    Notice {
        /// Which.
        from: u64,
        /// What.
        notice: Notice,
    },
    /// The ledger of a group is durable.
    LedgerDurable {
        /// Which.
        group: GroupId,
        /// Up to here.
        index: u64,
    },
}

/// How new a state must be for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As it is.
    Near,
    /// This index must be applied.
    AtLeast(u64),
    /// As new as any answer given before the question came.
    Linearizable {
        /// And this index must be applied, too.
        at_least: u64,
    },
}

impl Freshness {
    /// As new as any answer given before the question came, and no more than that.
    pub const LINEARIZABLE: Self = Self::Linearizable { at_least: 0 };

    /// The index that must be applied in any case.
    pub fn at_least(self) -> u64 {
        match self {
            Self::Near => 0,
            Self::AtLeast(index) | Self::Linearizable { at_least: index } => index,
        }
    }

    /// The same, and this index must be applied.
    #[must_use]
    pub fn and_at_least(self, index: u64) -> Self {
        match self {
            Self::Near if index == 0 => Self::Near,
            Self::Near => Self::AtLeast(index),
            Self::AtLeast(least) => Self::AtLeast(least.max(index)),
            Self::Linearizable { at_least } => Self::Linearizable {
                at_least: at_least.max(index),
            },
        }
    }
}

/// What a read asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Nothing but that the state is new enough: [`Answer::Reached`]. The read view then is, too.
    Reached,
    /// A reservation: [`Answer::Reservation`].
    Reservation(ReservationId),
}

/// What the loop wants done.
#[derive(Debug)]
pub enum Effect<R> {
    /// A Raft message goes to a peer.
    Send {
        /// The node.
        to: u64,
        /// Its group.
        group: GroupId,
        /// Opaque.
        payload: Bytes,
        /// What this replica takes cluster time to be.
        cluster_time: Option<ClusterTime>,
    },
    /// Other nodes are told something.
    Notify {
        /// Which; all of them if none is named.
        to: Option<u64>,
        /// What.
        notice: Notice,
    },
    /// The connection to a node is to be ended: it is not the one, or has forgotten something.
    Disconnect {
        /// Which.
        node: u64,
    },
    /// The nodes of the cluster, or their addresses, have changed.
    NodesChanged,
    /// Somebody gets an answer.
    Answer {
        /// Who.
        reply: R,
        /// What.
        answer: Answer,
    },
    /// Something is to be done with files, away from the loop.
    Chore(Chore),
    /// A checkpoint is to be sent, and after it the message: [`Event::SnapshotSent`].
    SendSnapshot {
        /// To this replica.
        to: ReplicaId,
        /// Of this group.
        group: GroupId,
        /// As of this index.
        index: u64,
        /// The message.
        envelope: Bytes,
    },
    /// History to be kept: [`Event::LedgerDurable`].
    Record(Page),
}

/// The state of a replica, hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateHash {
    /// Of this group.
    pub group: GroupId,
    /// By this replica.
    pub replica: ReplicaId,
    /// As it was after the entry of this index.
    pub index: u64,
    /// Of all of it.
    pub hash: u128,
    /// The low halves of the hashes of its buckets: they tell where two replicas differ.
    pub buckets: Vec<u64>,
}

/// What a node tells others that is not of one group's log. It may be lost: it is said again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The groups it leads, and in which terms.
    Leads(Vec<(GroupId, u64)>),
    /// The groups that it could lead now: its replica is back, it does not stop, and there is room.
    Fit(Vec<GroupId>),
    /// For the leader of group 0: how the node is, and the groups it leads.
    Reports(Box<(NodeReport, Vec<GroupReport>)>),
    /// For a group's leader: a replica's state after an entry that asked for it.
    Hash(Box<StateHash>),
    /// For the leader of group 0: what an audit found.
    Audited(Box<AuditReport>),
    /// In how many seconds its directory has been written in, durably, and what it has heard of others'.
    Pulse(Box<PulseNotice>),
    /// From the leader of group 0.
    Order {
        /// The term of group 0 that it was decided in.
        term: u64,
        /// What to do.
        order: Box<Order>,
    },
}

/// What a node tells of pulses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulseNotice {
    /// Its own directory's.
    pub own: Known,
    /// Those of others, by node.
    pub memory: Vec<(u64, Known)>,
}

/// What the entries of a stretch of a group's log changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRows {
    /// Of this group.
    pub group: GroupId,
    /// The stretch begins after this index...
    pub after: u64,
    /// ...and ends with this one.
    pub to: u64,
    /// In order, each with its index.
    pub rows: Rows,
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// One outcome for each command, in order.
    Outcomes {
        /// The index they were applied at.
        applied_index: u64,
        /// Cluster time then.
        stamp: Stamp,
        /// In the order of the commands.
        outcomes: Outcomes,
    },
    /// The state is new enough.
    Reached {
        /// What is applied.
        applied_index: u64,
    },
    /// The reservation, if it is known.
    Reservation {
        /// It.
        reservation: Option<Arc<Reservation>>,
        /// What is applied.
        applied_index: u64,
        /// Cluster time now, as the replica that answers takes it to be.
        now: Stamp,
    },
    /// No answer.
    Failed(Failure),
}

/// Most proposals are one command.
pub type Outcomes = SmallVec<[Outcome; 1]>;

/// How a command ended, in either kind of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In a stock shard.
    Stock(stock_core::Outcome),
    /// In group 0: of the catalog.
    Catalog(CatalogOutcome),
    /// In group 0: of the registry.
    Registry(RegistryOutcome),
}

/// Why there is no answer. Except for `OutcomeUnknown` nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Another node leads the group, or none does yet.
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<u64>,
    },
    /// Too much waits already.
    Overloaded,
    /// The leader's disk is nearly full: what adds to it is refused, what only ends or keeps is not.
    DiskFull,
    /// The leader's memory is nearly used up, likewise.
    MemoryFull,
    /// Leadership changed on the way: the commands may or may not be carried out.
    OutcomeUnknown,
    /// The state did not become new enough in time.
    TooFarBehind,
}
