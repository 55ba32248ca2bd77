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
    /// Which life of the cluster it is of, once it is a member.
    pub incarnation: Option<u128>,
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
            incarnation: self
                .incarnation
                .map_or_else(Default::default, |incarnation| {
                    incarnation.to_be_bytes().to_vec().into()
                }),
        }
    }

    /// Refuses whoever is of another cluster, or of another life of it: what such a node votes and
    /// acknowledges is of a history that is not this one's. Who is no member yet may still ask.
    pub fn check(&self, hello: &cluster::Hello) -> Result<(), PeerError> {
        check("the protocol's version", &hello.protocol, &PROTOCOL)?;
        check("the cluster's id", &hello.cluster_id, &self.cluster_id)?;
        check("the number of shards", &hello.shard_count, &self.shards)?;
        let theirs = <[u8; 16]>::try_from(&hello.incarnation[..]).map(u128::from_be_bytes);
        match (theirs, self.incarnation) {
            (Ok(theirs), Some(ours)) => check(
                "the cluster's incarnation",
                &format!("{theirs:x}"),
                &format!("{ours:x}"),
            ),
            _ => Ok(()),
        }
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
