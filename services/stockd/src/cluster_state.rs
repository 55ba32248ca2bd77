//! What this node knows of the cluster right now: who leads what, and who can be reached. The loop
//! writes it, everybody reads it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use stock_replica::Replica;

use crate::replica_id::ReplicaId;
use crate::worker::event::GroupId;

/// Leadership of every group and reachability of every node.
#[derive(Debug)]
pub struct ClusterState {
    groups: Vec<GroupState>,
    /// Nodes there is a connection to.
    reachable: RwLock<BTreeSet<u64>>,
    node: u64,
}

#[derive(Debug, Default)]
struct GroupState {
    leader: AtomicU64,
    term: AtomicU64,
    applied_index: AtomicU64,
    is_settled: AtomicBool,
}

/// One group, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupStatus {
    /// The node that leads, if one does.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// What this node has applied.
    pub applied_index: u64,
}

impl ClusterState {
    /// As `node` sees it: nobody leads, nobody is reachable.
    pub fn new(node: u64, groups: u32) -> Self {
        Self {
            groups: (0..groups).map(|_| GroupState::default()).collect(),
            reachable: RwLock::default(),
            node,
        }
    }

    /// Takes note of what a replica knows after a turn.
    pub fn publish(&self, group: usize, replica: &Replica, applied_index: u64) {
        let state = &self.groups[group];
        let leader = ReplicaId(replica.leader()).node();
        state.leader.store(leader, Ordering::Relaxed);
        state.term.store(replica.term(), Ordering::Relaxed);
        state.applied_index.store(applied_index, Ordering::Relaxed);
        let is_settled = !replica.is_leader() || replica.is_settled_leader();
        state.is_settled.store(is_settled, Ordering::Relaxed);
    }

    /// Takes note that this node has no replica of a group.
    pub fn publish_absent(&self, group: usize) {
        let state = &self.groups[group];
        state.leader.store(0, Ordering::Relaxed);
        state.is_settled.store(true, Ordering::Relaxed);
    }

    /// What this node knows of a group.
    pub fn group(&self, group: GroupId) -> GroupStatus {
        let state = &self.groups[group.index()];
        GroupStatus {
            leader: Some(state.leader.load(Ordering::Relaxed)).filter(|leader| *leader != 0),
            term: state.term.load(Ordering::Relaxed),
            applied_index: state.applied_index.load(Ordering::Relaxed),
        }
    }

    /// How many groups there are.
    pub fn groups(&self) -> u32 {
        self.groups.len() as u32
    }

    /// How many stock shards there are.
    pub fn shards(&self) -> u32 {
        self.groups() - 1
    }

    /// Whether every group has a leader, and this node serves those it leads.
    pub fn is_ready(&self) -> bool {
        self.groups.iter().all(|group| {
            group.leader.load(Ordering::Relaxed) != 0 && group.is_settled.load(Ordering::Relaxed)
        })
    }

    /// Whether a node leads any group.
    pub fn leads_any(&self, node: u64) -> bool {
        self.groups
            .iter()
            .any(|group| group.leader.load(Ordering::Relaxed) == node)
    }

    /// Takes note that a peer can be reached, or no longer.
    pub fn set_reachable(&self, node: u64, is_reachable: bool) {
        let mut reachable = self
            .reachable
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match is_reachable {
            true => reachable.insert(node),
            false => reachable.remove(&node),
        };
    }

    /// Whether a node can be reached. This node itself always can.
    pub fn is_reachable(&self, node: u64) -> bool {
        let reachable = self
            .reachable
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        node == self.node || reachable.contains(&node)
    }
}
