//! What the registry can be told. Each is one command of a log entry of group 0.

use stock_core::{Principal, Request};

use crate::ids::{Directory, GroupId, ReplicaId};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryCommand {
    /// Who asked.
    pub principal: Principal,
    /// What makes it the same request. Nodes and the controller need none: what they say is
    /// harmless when it is said twice.
    pub request: Option<Request>,
    /// What for.
    pub change: Change,
}

/// What shall change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The cluster is born: said once, by the first leader.
    Found {
        /// Which life of the cluster begins.
        incarnation: u128,
        /// How many voters a group should have: odd.
        replication: u32,
        /// The nodes of the founding list.
        nodes: Vec<Founder>,
        /// For each group, from group 0 on, the nodes that hold its founding replicas.
        groups: Vec<Vec<u64>>,
        /// The version that the cluster speaks.
        version: u32,
    },
    /// A node will join under an id that is allotted now.
    Announce {
        /// Its id; 0: the next free one.
        node: u64,
        /// Where clients will reach it: a URL.
        grpc: String,
        /// Where nodes will reach it: `host:port`.
        peers: String,
    },
    /// A node with a fresh or emptied directory comes in. Said again by a directory that is known,
    /// it only brings the addresses up to date. Refused where the node has another directory than
    /// the one that is said to be replaced: then a later join came first, and this one is of a disk
    /// that is gone.
    Join {
        /// Its id; 0: the next free one.
        node: u64,
        /// Its data directory.
        directory: Directory,
        /// The directory that the node had when this was asked for.
        replaces: Option<Directory>,
        /// Where clients reach it: a URL.
        grpc: String,
        /// Where nodes reach it: `host:port`.
        peers: String,
    },
    /// A node runs: it has reported from the directory that it joined with. Until then it counts
    /// for nothing. Said again when it speaks other versions.
    Heard {
        /// Which.
        node: u64,
        /// From this directory.
        directory: Directory,
        /// The highest version of the cluster that it speaks.
        newest_version: u32,
    },
    /// The cluster speaks the next version from now on.
    RaiseVersion {
        /// That one.
        version: u32,
    },
    /// An operator says that the next directory which joins under a node's id takes its place,
    /// though the node may still be heard from.
    AllowReplacement {
        /// Which.
        node: u64,
    },
    /// A node is reached elsewhere now.
    UpdateAddresses {
        /// Which.
        node: u64,
        /// Where clients reach it: a URL.
        grpc: String,
        /// Where nodes reach it: `host:port`.
        peers: String,
    },
    /// A node's replicas shall go elsewhere.
    Drain {
        /// Which.
        node: u64,
    },
    /// They need not, after all.
    Undrain {
        /// Which.
        node: u64,
    },
    /// A node that holds nothing leaves for ever.
    Remove {
        /// Which.
        node: u64,
    },
    /// How many voters a group should have.
    SetReplication {
        /// Odd.
        replicas: u32,
    },
    /// A replica shall be on another node.
    MoveReplica {
        /// Of this group.
        group: GroupId,
        /// From this node.
        from: u64,
        /// To this one.
        to: u64,
    },
    /// A replica shall be made anew where it is.
    RebuildReplica {
        /// Of this group.
        group: GroupId,
        /// On this node.
        node: u64,
    },
    /// A replica cannot serve any more: it stopped in apply, or an audit found it different.
    ReportFailedReplica {
        /// Of this group.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
        /// For people.
        reason: String,
    },
    /// A group shall be led by this node, or by any again.
    PreferLeader {
        /// Which.
        group: GroupId,
        /// `None`: by any.
        node: Option<u64>,
    },
    /// The controller begins a move.
    Begin(BeginMove),
    /// The controller has seen a move come to its end.
    End(EndMove),
    /// The controller lays a move aside, or takes it up again.
    Park {
        /// Of this group.
        group: GroupId,
        /// The move's number.
        number: u64,
        /// Or taken up again.
        parked: bool,
    },
    /// The controller has seen that a group's voters are others than the registry has. That may be
    /// where a move was given up while a change that it had ordered was still on its way.
    Correct {
        /// Whose.
        group: GroupId,
        /// The term of the leader who reported the voters.
        term: u64,
        /// The voters now.
        voters: Vec<ReplicaId>,
    },
    /// Most nodes were lost for good. Only ever written into the log of a node that does not run.
    Recover(Recover),
}

/// What is left of a cluster that has lost most of its nodes for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recover {
    /// Which life of the cluster begins: drawn at random, so that no other one has it.
    pub incarnation: u128,
    /// The nodes that are left; the others are lost with all that they held.
    pub nodes: Vec<u64>,
    /// The groups that one replica was made the only voter of.
    pub groups: Vec<Survivor>,
    /// Replica ids of earlier generations may have been allotted by entries that are lost.
    pub next_generation: u32,
}

/// The only voter of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Of this group.
    pub group: GroupId,
    /// Which.
    pub replica: ReplicaId,
    /// The term in which it became the only one.
    pub term: u64,
}

/// A node of the founding list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Its id.
    pub node: u64,
    /// Its data directory.
    pub directory: Directory,
    /// Where clients reach it: a URL.
    pub grpc: String,
    /// Where nodes reach it: `host:port`.
    pub peers: String,
}

/// A change of one group's voters: one comes, one goes, or one for the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginMove {
    /// Whose.
    pub group: GroupId,
    /// The node that gets a replica.
    pub add: Option<u64>,
    /// The replica that goes.
    pub remove: Option<ReplicaId>,
    /// Why.
    pub why: Why,
}

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndMove {
    /// Whose.
    pub group: GroupId,
    /// The move's number, so that a late word about an earlier one ends nothing.
    pub number: u64,
    /// The term of the leader who reported the voters.
    pub term: u64,
    /// The voters now.
    pub voters: Vec<ReplicaId>,
}

/// Why a replica is moved. The order is the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It stopped, or an audit found it different.
    Failed,
    /// Its node came back with another disk.
    DiskReplaced,
    /// Its node has been away for too long.
    NodeAway,
    /// The group has fewer voters than it should.
    TooFew,
    /// An operator asked for it.
    Asked,
    /// Its node is being emptied.
    Draining,
    /// The group has more voters than it should.
    TooMany,
    /// Its node has more replicas than another.
    Balance,
}

impl Why {
    /// In words, after "because".
    pub fn words(self) -> &'static str {
        match self {
            Self::Failed => "the replica failed",
            Self::DiskReplaced => "the disk was replaced",
            Self::NodeAway => "the node is away",
            Self::TooFew => "there are too few replicas",
            Self::Asked => "an operator asked for it",
            Self::Draining => "the node is draining",
            Self::TooMany => "there are too many replicas",
            Self::Balance => "nodes hold unequal numbers of replicas",
        }
    }
}
