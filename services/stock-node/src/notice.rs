//! What nodes tell each other that is not of one group's log.

use stock_cluster::identity::Known;
use stock_cluster::{AuditReport, GroupId, GroupReport, NodeReport, Order, ReplicaId};

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
    /// In how many seconds its directory has been written in, durably, and what it has heard of
    /// others'.
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
