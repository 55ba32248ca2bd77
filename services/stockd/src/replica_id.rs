//! Names of replicas.
//!
//! A replica that lost its disk must not come back under its old name: it has forgotten its votes. So
//! each new replica of a group gets a name that none had before, and the name says on which node it is.

use std::fmt;

/// A replica of one group: a generation in the upper half, the node's id in the lower. Founding
/// members are of generation 0, so their id is the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The highest id of a node.
    pub const NODE_MAX: u64 = u32::MAX as u64;

    /// Of a node, below 2^32.
    pub fn new(node: u64, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | (node & Self::NODE_MAX))
    }

    /// The node it is on.
    pub fn node(self) -> u64 {
        self.0 & Self::NODE_MAX
    }

    /// Later replicas of a group on one node have higher generations.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_says_where_it_is() {
        let replica = ReplicaId::new(7, 3);
        assert_eq!((replica.node(), replica.generation()), (7, 3));
        assert_eq!(replica.to_string(), "7.3");
        assert_eq!(ReplicaId(7), ReplicaId::new(7, 0));
        assert_eq!(ReplicaId(7).to_string(), "7");
        assert!(ReplicaId::new(7, 1) > ReplicaId(9));
    }
}
