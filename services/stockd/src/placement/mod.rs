//! Who is in the cluster, and where replicas belong. Pure: no clock, runtime, socket or disk in it.
//!
//! [`Registry`] is what group 0 replicates: the nodes, and which replicas each group has. [`Reports`] are
//! what nodes and leaders tell the leader of group 0 all the time; they are not replicated, and a new
//! leader begins without any. [`decide`] compares the two, and what it wants done are [`Order`]s: commands
//! to group 0, requests to a group's leader, or to a node.
//!
//! One replica is moved at a time, and each move is a record in the registry from its first step to its
//! last, so that a new leader of group 0 goes on where the old one stopped:
//!
//! ```text
//! Begin         the registry writes the move down and allots an id that was never used
//! BeginReplica  the node begins it, in the directory that the registry knows
//! AddLearner    the group's leader sends it the log, or a snapshot
//! Promote       once it has caught up: in as a voter and the old one out, in one joint change
//! End           the registry writes down the voters that the leader reports
//! Destroy       what the registry knows to be gone for ever is deleted from its node
//! ```

pub mod codec;
pub mod command;
pub mod controller;
pub mod desk;
pub mod memory;
pub mod refusal;
pub mod registry;
pub mod report;
pub mod slow_disks;

use std::fmt;

pub use self::codec::{RegistryDecodeError, RestoreError};
pub use self::command::{
    BeginMove, Change, EndMove, Founder, Recover, RegistryCommand, Survivor, Why,
};
pub use self::controller::{Decision, MoveProgress, Order, Policy, Reason, Step, Waiting, decide};
pub use self::desk::{Changed, Overview};
pub use self::refusal::RegistryRefusal;
pub use self::registry::{Move, NodeRecord, NodeState, Placement, Registry, RegistryOutcome, Wish};
pub use self::report::{
    AuditReport, AuditVerdict, GroupReport, HostedReplica, NodeReport, Progress, ReplicaState,
    Reports,
};

use crate::worker::event::GroupId;

/// The largest id of a node: it is half of a replica's id.
pub const NODE_ID_MAX: u64 = u32::MAX as u64;

/// Replica moves under way in the whole cluster. One snapshot at a time leaves disks and network to
/// callers, and one change at a time can be followed by a person.
pub const MOVES_MAX: usize = 1;

/// Nodes that are in the cluster at once.
pub const NODES_MAX: usize = 128;

/// Nodes that a cluster remembers, removed ones included: those are fenced for ever.
pub const NODES_EVER_MAX: usize = 4_096;

/// Longest address of a node, in bytes: a host name has 253 at most.
pub const ADDRESS_BYTES_MAX: usize = 512;

/// Longest reason for which a replica is called failed, in bytes.
pub const FAILURE_BYTES_MAX: usize = 512;

/// How often a group's leader and every node report to the leader of group 0, in milliseconds. The
/// controller decides as often.
pub const REPORT_EVERY_MS: u64 = 500;

/// One replica of one group: a node, and which of the replicas that it has had. A replica that has lost its
/// disk forgot whom it voted for, so it may not come back under its id; its successor has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The replica of this generation on this node. Nodes are at most [`NODE_ID_MAX`].
    pub fn new(generation: u32, node: u64) -> Self {
        Self(u64::from(generation) << 32 | (node & NODE_ID_MAX))
    }

    /// A replica that its group was born with.
    pub fn founding(node: u64) -> Self {
        Self::new(0, node)
    }

    /// Where it is.
    pub fn node(self) -> u64 {
        self.0 & NODE_ID_MAX
    }

    /// When it was allotted, in the order of all that were; 0: when its group was born.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation() {
            0 => write!(f, "{}", self.node()),
            generation => write!(f, "{}.{generation}", self.node()),
        }
    }
}

/// A data directory: drawn at random when it was first used, so that an emptied disk has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Directory(pub u128);

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What people call a group.
pub(crate) fn group_name(group: GroupId) -> String {
    match group.shard() {
        Some(shard) => format!("shard {shard}"),
        None => "the meta group".to_owned(),
    }
}

/// Where the replicas of a new cluster go: each group on `replication` nodes, in turn, so that every node
/// has as many as any other, or one less. The first of each is the one that should lead.
pub fn founding_placement(groups: u32, nodes: &[u64], replication: u32) -> Vec<Vec<u64>> {
    let count = nodes.len();
    let each = (replication as usize).min(count);
    let place = |group: usize| {
        let turn = (0..each).map(|step| nodes[(group + step) % count]);
        turn.collect()
    };
    (0..groups as usize).map(place).collect()
}
