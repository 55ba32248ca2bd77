//! Groups, replicas, and the directories that they are in.

use std::fmt;

use crate::limits::NODE_ID_MAX;

/// A Raft group: 0 is *meta* and keeps the locations and the registry, `n + 1` is stock shard `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group of the locations and the registry.
    pub const META: Self = Self(0);

    /// The group of a stock shard.
    pub fn of_shard(shard: u32) -> Self {
        Self(shard + 1)
    }

    /// The stock shard, or none for *meta*, which keeps the locations and the registry group.
    pub fn shard(self) -> Option<u32> {
        self.0.checked_sub(1)
    }

    /// For indexing.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What people call it.
impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard() {
            Some(shard) => write!(f, "shard {shard}"),
            None => f.write_str("the meta group"),
        }
    }
}

/// One replica of one group: a node, and which of the replicas that it has had. A replica that has
/// lost its disk forgot whom it voted for, so it may not come back under its id; its successor has
/// another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The replica of this generation on this node. Nodes are at most
    /// [`NODE_ID_MAX`](crate::limits::NODE_ID_MAX).
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
