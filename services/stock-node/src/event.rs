//! Everything that can wake the loop, and everything it can do about it. Both are closed.

use bytes::Bytes;
use stock_cluster::{GroupId, ReplicaId};
use stock_replica::Point;

use crate::answer::{Answer, Freshness, Question};
use crate::checkpoint::Arrived;
use crate::chore::Chore;
use crate::clock::ClusterTime;
use crate::entry::Commands;
use crate::ledger_rows::Page;
use crate::notice::{Notice, StateHash};

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
    /// What came of [`Effect::Errand`].
    ErrandAnswered {
        /// Which errand it was.
        errand: ErrandId,
        /// An answer to each command, or why there is none.
        answer: Answer,
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
    /// The leader of a shard has something carried out by another, wherever that is led:
    /// [`Event::ErrandAnswered`]. There is one at a time for each pair of shards.
    Errand {
        /// Which errand it is.
        errand: ErrandId,
        /// What is to be carried out.
        commands: Commands,
    },
}

/// The leader of a shard has asked something of another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrandId {
    /// Whose errand it is.
    pub from: GroupId,
    /// In which term of it.
    pub term: u64,
    /// Who is told.
    pub to: GroupId,
    /// When, by the clock of the leader's node.
    pub sent_ms: u64,
}
