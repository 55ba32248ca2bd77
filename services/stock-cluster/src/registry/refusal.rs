//! Why the registry refuses a command. In every case nothing changed.

use stock_core::Refusal;
use thiserror::Error;

use crate::ids::{Directory, GroupId, ReplicaId};
use crate::limits::{ADDRESS_BYTES_MAX, MOVES_MAX, NODE_ID_MAX, NODES_EVER_MAX, NODES_MAX};

/// Why a command was refused. What a person reads is the message; programs read the variant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryRefusal {
    /// The request id cannot be used.
    #[error("the request id cannot be used")]
    Request(Refusal),
    /// No first leader has written down who founded the cluster.
    #[error("the cluster is not founded yet")]
    NotFounded,
    /// The cluster was founded before.
    #[error("the cluster was founded before")]
    AlreadyFounded,
    /// The founding list contradicts itself.
    #[error("the founding list {what}")]
    BadFounding {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Ids of nodes are 1 to [`NODE_ID_MAX`].
    #[error("{node} is no node id: they go from 1 to {NODE_ID_MAX}")]
    BadNodeId {
        /// As it was given.
        node: u64,
    },
    /// An address is empty or too long.
    #[error("an address is empty or longer than {ADDRESS_BYTES_MAX} bytes")]
    BadAddress,
    /// An address is one to listen on, which leads nowhere.
    #[error(
        "{address} is an address to listen on, and leads nowhere: say where others reach the node"
    )]
    NowhereAddress {
        /// As it was given.
        address: String,
    },
    /// The node runs, and another directory asks to be let in under its id.
    #[error(
        "node {node} is heard from, with another data directory: is its id given twice? To replace \
         it though it runs, say `stockctl node replace {node}` first"
    )]
    NodeHeard {
        /// Which.
        node: u64,
    },
    /// The node runs on another data directory.
    #[error("node {node} does not run on data directory {directory} any more")]
    AnotherDirectory {
        /// Which.
        node: u64,
        /// The one that was named.
        directory: Directory,
    },
    /// There is no such node.
    #[error("there is no node {node}")]
    UnknownNode {
        /// Which.
        node: u64,
    },
    /// The node was removed; its id is never used again.
    #[error(
        "node {node} was removed from the cluster, and its id and data are never used again: \
         empty the data directory and join under another id"
    )]
    NodeRemoved {
        /// Which.
        node: u64,
    },
    /// The id is another node's.
    #[error("node {node} is in the cluster already")]
    NodeKnown {
        /// Which.
        node: u64,
    },
    /// The node got another data directory after this join was asked for.
    #[error("node {node} has joined with another data directory meanwhile: ask again")]
    JoinOvertaken {
        /// Which.
        node: u64,
    },
    /// The data directory is another node's.
    #[error("data directory {directory} belongs to node {owner}")]
    DirectoryTaken {
        /// Which.
        directory: Directory,
        /// Whose.
        owner: u64,
    },
    /// The address is another node's.
    #[error("{address} is the address of node {owner}")]
    AddressTaken {
        /// Which.
        address: String,
        /// Whose.
        owner: u64,
    },
    /// The cluster has as many nodes as it may.
    #[error("the cluster has {NODES_MAX} nodes, or has had {NODES_EVER_MAX}: it takes no more")]
    TooManyNodes,
    /// Every generation of replicas has been used.
    #[error("every replica id has been used")]
    GenerationsUsedUp,
    /// Too few nodes would be left to hold a group.
    #[error(
        "without node {node} there would be {remaining} active nodes, and every group should have \
         {needed} replicas: add a node first"
    )]
    TooFewNodes {
        /// Which.
        node: u64,
        /// How many others are active.
        remaining: usize,
        /// How many there must be.
        needed: usize,
    },
    /// Only a drained node can be removed.
    #[error("node {node} is not draining: drain it first, and wait until it is empty")]
    NotDraining {
        /// Which.
        node: u64,
    },
    /// The node holds replicas.
    #[error("node {node} holds {replicas} replicas still: wait until it is empty")]
    HoldsReplicas {
        /// Which.
        node: u64,
        /// How many.
        replicas: usize,
    },
    /// The node takes no replicas.
    #[error("node {node} is not active: it takes no replicas and leads nothing")]
    NotActive {
        /// Which.
        node: u64,
    },
    /// The number of replicas is not odd, or too large.
    #[error("a group has 1, 3, 5 or 7 replicas, not {replicas}")]
    BadReplication {
        /// As it was given.
        replicas: u32,
    },
    /// Versions are raised one after the other.
    #[error("the cluster speaks version {current}: the next is {}, not {version}", current + 1)]
    NotNextVersion {
        /// As it was given.
        version: u32,
        /// What the cluster speaks.
        current: u32,
    },
    /// A node could not follow.
    #[error(
        "node {node} {}: before the cluster speaks version {version}, every node must: upgrade \
         it, or drain and remove it",
        told_version(*newest)
    )]
    NodeTooOld {
        /// Which.
        node: u64,
        /// The highest that it speaks; 0 if it has not said.
        newest: u32,
        /// What was asked for.
        version: u32,
    },
    /// There is no such group.
    #[error("there is no {}", .group)]
    UnknownGroup {
        /// Which.
        group: GroupId,
    },
    /// The node holds no replica of the group.
    #[error("node {node} holds no replica of {}", .group)]
    NoReplicaThere {
        /// Which group.
        group: GroupId,
        /// Which node.
        node: u64,
    },
    /// The node holds a replica of the group already.
    #[error("node {node} holds a replica of {} already", .group)]
    ReplicaThere {
        /// Which group.
        group: GroupId,
        /// Which node.
        node: u64,
    },
    /// The replica is none of the group's.
    #[error("{} has no replica {replica}", .group)]
    UnknownReplica {
        /// Which group.
        group: GroupId,
        /// Which replica.
        replica: ReplicaId,
    },
    /// A move of the group is under way.
    #[error("a replica of {} is being moved: wait until it is done", .group)]
    MoveUnderWay {
        /// Whose.
        group: GroupId,
    },
    /// As many moves are under way as may be.
    #[error("as many replicas are being moved as may be at once, {MOVES_MAX}")]
    TooManyMoves,
    /// There is no such move, or no longer.
    #[error("there is no move {number} of {}", .group)]
    UnknownMove {
        /// Whose.
        group: GroupId,
        /// Its number.
        number: u64,
    },
    /// A move neither adds nor removes, or leaves no voter.
    #[error("a move of {} would change nothing, or leave no voter", .group)]
    BadMove {
        /// Whose.
        group: GroupId,
    },
    /// The voters cannot have come from the move, or a later leader has reported.
    #[error("the voters of {} cannot be what was said", .group)]
    BadVoters {
        /// Whose.
        group: GroupId,
    },
}

fn told_version(newest: u32) -> String {
    match newest {
        0 => "has not said which versions it speaks".to_owned(),
        newest => format!("speaks version {newest} at most"),
    }
}
