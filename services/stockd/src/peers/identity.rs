//! Who a node is to its peers, and whom it talks to.

use stock_proto::cluster::v1 as cluster;

use super::PeerError;

/// The version of the protocol between nodes.
const PROTOCOL: u32 = 2;

/// What a node is to its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name.
    pub cluster_id: String,
    /// This node's id.
    pub node: u64,
    /// How many stock shards the cluster was born with.
    pub shards: u32,
    /// Drawn when the data directory was first used.
    pub directory: u128,
    /// The members that founded the cluster, once this node is one of them.
    pub founders: Vec<Founder>,
    /// Whether this node has joined a cluster that others founded.
    pub has_joined: bool,
}

/// A node that founded the cluster, and the data directory that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Founder {
    /// Its id.
    pub node: u64,
    /// Its directory.
    pub directory: u128,
}

impl Identity {
    /// How the node introduces itself.
    pub fn hello(&self, purpose: cluster::Purpose) -> cluster::Hello {
        let founders = self.founders.iter().map(|founder| cluster::Founder {
            node_id: founder.node,
            directory: founder.directory.to_be_bytes().to_vec().into(),
        });
        cluster::Hello {
            protocol: PROTOCOL,
            cluster_id: self.cluster_id.clone(),
            node_id: self.node,
            shard_count: self.shards,
            purpose: purpose.into(),
            directory: self.directory.to_be_bytes().to_vec().into(),
            founders: founders.collect(),
            has_joined: self.has_joined,
        }
    }

    /// Refuses whoever is of another cluster.
    pub fn check(&self, hello: &cluster::Hello) -> Result<(), PeerError> {
        check("the protocol's version", &hello.protocol, &PROTOCOL)?;
        check("the cluster's id", &hello.cluster_id, &self.cluster_id)?;
        check("the number of shards", &hello.shard_count, &self.shards)
    }
}

pub(super) fn check<T: PartialEq + ToString + ?Sized>(
    what: &'static str,
    theirs: &T,
    ours: &T,
) -> Result<(), PeerError> {
    if theirs == ours {
        return Ok(());
    }
    Err(PeerError::Stranger {
        what,
        theirs: theirs.to_string(),
        ours: ours.to_string(),
    })
}
