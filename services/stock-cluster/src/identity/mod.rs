//! Who a node is to the others, and what it may have forgotten. `docs/identity.md` has the rules
//! and their reasons.

pub mod acquaintances;
pub mod refusal;
pub mod wire;

use stock_wire::cluster::v1 as cluster;
use xxhash_rust::xxh3::xxh3_128;

pub use self::acquaintances::{Acquaintances, Beat, Beats, Known};
pub use self::refusal::Refusal;
use crate::registry::{NodeState, Registry};
use crate::version::Speaks;

/// The version of how two nodes meet. What they say from then on goes by [`Speaks`].
pub const PROTOCOL: u32 = 6;

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
    /// The index of group 0's entry that let the directory in; 0: a founder's.
    pub since: u64,
    /// Drawn when the process began.
    pub boot: u64,
    /// The members that founded the cluster, once this node is one of them.
    pub founders: Vec<Founder>,
    /// With whom this node would found a cluster, before it is a member.
    pub listed: Listed,
    /// Whether this node has joined a cluster that others founded.
    pub has_joined: bool,
    /// Which life of the cluster it is of, once it is a member.
    pub incarnation: Option<u128>,
    /// The lives that this one goes on from, by recoveries.
    pub earlier_lives: Vec<u128>,
    /// Where others reach it, as its configuration says.
    pub addresses: Addresses,
    /// The versions of the cluster that it speaks.
    pub speaks: Speaks,
}

/// A node that founded the cluster, and the data directory that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Founder {
    /// Its id.
    pub node: u64,
    /// Its directory.
    pub directory: u128,
}

/// What all founders of a cluster must have been told alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The ids of the founders, in ascending order; empty where a node is not one.
    pub nodes: Vec<u64>,
    /// Voters of each group.
    pub replicas: u32,
}

/// Where a node is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// By clients: a URL.
    pub grpc: String,
    /// By other nodes: `host:port`.
    pub peers: String,
}

/// The life of a cluster that these found. Directories are drawn at random, so no two foundings
/// begin the same life, and founders who differ in anything begin different ones.
pub fn founded_life(cluster_id: &str, shards: u32, replicas: u32, founders: &[Founder]) -> u128 {
    let mut text = format!("{cluster_id}\n{shards} {replicas}\n");
    let mut founders = founders.to_vec();
    founders.sort_unstable();
    for Founder { node, directory } in founders {
        text.push_str(&format!("{node} {directory:032x}\n"));
    }
    xxh3_128(text.as_bytes())
}

impl Identity {
    /// How the node introduces itself, with its pulses and what it remembers of others as of now.
    pub fn hello(
        &self,
        purpose: cluster::Purpose,
        acquaintances: &Acquaintances,
    ) -> cluster::Hello {
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
            since: self.since,
            beats: wire::encode_beats(acquaintances.own()),
            memory: wire::encode_memory(acquaintances),
            listed_nodes: self.listed.nodes.clone(),
            listed_replicas: self.listed.replicas,
            grpc: self.addresses.grpc.clone(),
            peers: self.addresses.peers.clone(),
            was_believed: false,
            earlier_lives: self
                .earlier_lives
                .iter()
                .map(|life| life.to_be_bytes().to_vec().into())
                .collect(),
            oldest_version: self.speaks.oldest,
            newest_version: self.speaks.newest,
        }
    }

    /// Refuses whoever is of another cluster, or of another life of it: what such a node votes and
    /// acknowledges is of a history that is not this one's. Who is no member yet may still ask.
    pub fn check(&self, hello: &cluster::Hello) -> Result<(), Refusal> {
        self.check_newcomer(hello)?;
        same(
            "the number of shards",
            &hello.shard_count.to_string(),
            &self.shards.to_string(),
        )?;
        match (number(&hello.incarnation), self.incarnation) {
            (Some(theirs), Some(ours)) if self.earlier_lives.contains(&theirs) => {
                Err(Refusal::EarlierLife { theirs, ours })
            }
            (Some(theirs), Some(ours)) if earlier_lives(hello).any(|it| it == ours) => {
                Err(Refusal::LaterLife { theirs, ours })
            }
            (Some(theirs), Some(ours)) => same(
                "the life of the cluster, which begins anew when it is founded or recovered,",
                &format!("{theirs:032x}"),
                &format!("{ours:032x}"),
            ),
            _ => Ok(()),
        }
    }

    /// Refuses whoever speaks no version that this node does, or means another cluster. Who joins
    /// need know nothing else.
    pub fn check_newcomer(&self, hello: &cluster::Hello) -> Result<(), Refusal> {
        same("the way in which nodes meet", &hello.protocol, &PROTOCOL)?;
        same("the cluster's id", &hello.cluster_id, &self.cluster_id)?;
        let theirs = wire::speaks(hello);
        match theirs.meets(self.speaks) {
            true => Ok(()),
            false => same("what is spoken", &theirs, &self.speaks),
        }
    }

    /// Refuses whoever does not speak the version that the cluster does.
    pub fn check_version(
        &self,
        hello: &cluster::Hello,
        registry: &Registry,
    ) -> Result<(), Refusal> {
        let (speaks, version) = (wire::speaks(hello), registry.version());
        match speaks.can_follow(version) {
            true => Ok(()),
            false => Err(Refusal::AnotherVersion { speaks, version }),
        }
    }

    /// Who a member is that introduces itself, if it is the node that it says to be and has
    /// forgotten nothing that anybody knows of. `known` is what is remembered of it, `heard` the
    /// boot of it that is connected and heard.
    pub fn judge(
        &self,
        hello: &cluster::Hello,
        registry: &Registry,
        known: Option<&Known>,
        heard: Option<u64>,
    ) -> Result<Known, Refusal> {
        self.check(hello)?;
        self.check_version(hello, registry)?;
        let node = hello.node_id;
        let Some(directory) = number(&hello.directory).filter(|_| !hello.incarnation.is_empty())
        else {
            return Err(Refusal::Unknown { node });
        };
        let theirs = Known {
            directory,
            since: hello.since,
            beats: wire::decode_beats(&hello.beats),
        };
        let boot = wire::boot(hello);
        if node == self.node {
            return match directory == self.directory {
                true => Err(Refusal::Twin { node }),
                false => Err(Refusal::Unknown { node }),
            };
        }
        let registered = self.registered(node, registry)?;
        let remembered = known.map(|known| (known.since, known.directory));
        // The later admission is the node: it may have come before this node's registry, or after
        // it.
        if let Some((since, latest)) = registered.max(remembered) {
            if theirs.since < since {
                return Err(Refusal::Replaced { node, since });
            }
            if theirs.since == since {
                same(
                    "the node's data directory",
                    &format!("{directory:032x}"),
                    &format!("{latest:032x}"),
                )?;
            }
        }
        let Some(known) = known.filter(|known| known.directory == directory) else {
            return Ok(theirs);
        };
        if let Some(lacked) = known.lacked_by(&theirs.beats) {
            return Err(Refusal::Forgotten {
                node,
                told: theirs.beats.latest().map_or(0, |beat| beat.pulse),
                known: lacked.pulse,
            });
        }
        if heard.is_some_and(|heard| heard != boot) {
            return Err(Refusal::Twin { node });
        }
        Ok(theirs)
    }

    /// The directory that a node was let in with, as far as the registry and the founders know.
    fn registered(&self, node: u64, registry: &Registry) -> Result<Option<(u64, u128)>, Refusal> {
        let Some(record) = registry.node(node) else {
            let mut founders = self.founders.iter();
            let founder = founders.find(|founder| founder.node == node);
            return Ok(founder.map(|founder| (0, founder.directory)));
        };
        match record.state {
            NodeState::Removed => Err(Refusal::Removed { node }),
            NodeState::Active | NodeState::Draining => {
                let directory = record.directory;
                Ok(directory.map(|directory| (record.since, directory.0)))
            }
        }
    }
}

fn earlier_lives(hello: &cluster::Hello) -> impl Iterator<Item = u128> {
    hello.earlier_lives.iter().filter_map(|life| number(life))
}

/// A number of 16 bytes; none if there are not so many.
pub fn number(bytes: &[u8]) -> Option<u128> {
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}

/// Refuses what differs.
pub fn same<T: PartialEq + ToString + ?Sized>(
    what: &'static str,
    theirs: &T,
    ours: &T,
) -> Result<(), Refusal> {
    if theirs == ours {
        return Ok(());
    }
    Err(Refusal::Stranger {
        what,
        theirs: theirs.to_string(),
        ours: ours.to_string(),
    })
}
