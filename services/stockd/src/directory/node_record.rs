//! What a data directory remembers of its node.
//!
//! A directory belongs to the node that first used it: another one must not vote with its votes.
//! And a node belongs to its directory: with another one it has forgotten what it voted, so it is
//! another member. Hence a directory has a number of its own, drawn when it is first used.

use std::path::Path;

use serde::{Deserialize, Serialize};
use stock_cluster::identity::{Addresses, Founder, Identity, Listed, founded_life};
use stock_cluster::{Directory, Speaks};
use stock_node::worker::{Founding, SlotRecord, Standing};
use stock_storage::{Durability, LogError, WriteBatch};
use thiserror::Error;

use crate::config::{Config, Node};
use crate::directory::disk::Disk;

/// What a data directory remembers of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The cluster's name.
    pub cluster_id: String,
    /// The node's id.
    pub node_id: u64,
    /// How many stock shards the cluster was born with.
    pub shards: u32,
    /// Drawn when the directory was first used: 32 hexadecimal digits.
    directory: String,
    /// Group 0 has been seen to know who founded the cluster: before it does, nobody is answered.
    #[serde(default)]
    pub is_founded: bool,
    /// A recovery of this directory, together with others, has begun and not ended: nothing in it
    /// is used before it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryRecord>,
    /// The directory has forgotten something, and asks to be let in anew under this number. Until
    /// it is, it is what it was, and nothing in it is used: 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    candidate: Option<String>,
    /// Which life of the cluster the data are of, once the node is a member: hexadecimal digits.
    #[serde(default)]
    incarnation: String,
    /// The lives that it went on from, if any: each was recovered after most nodes had been lost
    /// for good.
    #[serde(default)]
    earlier_incarnations: Vec<String>,
    /// How this node became a member, once it is one.
    #[serde(default)]
    pub membership: Membership,
    /// The version that the cluster spoke when it was last heard of; 0: not known yet.
    #[serde(default)]
    pub version: u32,
    /// The nodes as last heard of.
    #[serde(default)]
    pub nodes: Vec<Node>,
}

/// How a node became a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Membership {
    /// Not yet.
    #[default]
    None,
    /// It founded the cluster, with these.
    Founder {
        /// All founders, this one included.
        founders: Vec<FounderRecord>,
        /// Voters of each group.
        replicas: u32,
    },
    /// Others let it in.
    Joined {
        /// Replicas on this node of earlier generations are lost.
        generation_floor: u32,
        /// The index of group 0's entry that let this directory in.
        since: u64,
    },
}

/// See [`Founder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FounderRecord {
    node: u64,
    directory: String,
}

/// A recovery that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// The life of the cluster that begins with it: 32 hexadecimal digits.
    life: String,
    /// The nodes whose directories belong to it, in ascending order.
    pub nodes: Vec<u64>,
    /// Those of them whose directories are of a life that is not kept.
    pub left_out: Vec<u64>,
    /// The groups that do not go on by themselves, each by its number.
    #[serde(default)]
    pub groups: Vec<u32>,
}

impl RecoveryRecord {
    /// Of nothing yet, into this life.
    pub fn into_life(life: u128) -> Self {
        Self {
            life: format!("{life:032x}"),
            nodes: Vec::new(),
            left_out: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// The life of the cluster that begins with it.
    pub fn life(&self) -> u128 {
        parse(&self.life)
    }
}

/// A directory cannot be used by this node.
#[derive(Debug, Error)]
pub enum NodeRecordError {
    /// Its log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It is another node's.
    #[error(
        "the data in {dir} is of {found}, but the configuration says {configured}: \
         point data_dir to this node's own directory"
    )]
    Another {
        /// The data directory.
        dir: String,
        /// Whose data it is.
        found: String,
        /// Who this node is.
        configured: String,
    },
    /// A recovery has not ended.
    #[error(
        "a recovery of {dir} was interrupted, and parts of it may be of the life before: run \
         `stockd recover` once more with the data directories of the nodes {nodes:?}, as before"
    )]
    Recovering {
        /// The data directory.
        dir: String,
        /// Whose directories belong to it.
        nodes: Vec<u64>,
    },
    /// The cluster speaks a version that this build does not.
    #[error(
        "the data in {dir} are of a cluster that speaks version {version}, and this build speaks \
         {speaks}: use a build that speaks version {version}"
    )]
    Version {
        /// The data directory.
        dir: String,
        /// What the cluster speaks.
        version: u32,
        /// What this build does.
        speaks: Speaks,
    },
    /// The record cannot be read.
    #[error(
        "the record of the node in {dir} is damaged ({error}): move the directory away and start \
         with an empty one; the node then joins anew"
    )]
    Damaged {
        /// The data directory.
        dir: String,
        /// What is wrong.
        error: String,
    },
}

impl NodeRecord {
    /// Reads the record of a directory, or makes one for a directory that was never used.
    pub fn open(disk: &Disk, config: &Config) -> Result<Self, NodeRecordError> {
        let dir = || config.data_dir.display().to_string();
        let Some(record) = Self::read(disk, &config.data_dir)? else {
            let record = Self {
                cluster_id: config.cluster_id.clone(),
                node_id: config.node_id,
                shards: config.shards,
                directory: draw(),
                is_founded: false,
                recovery: None,
                candidate: None,
                incarnation: String::new(),
                earlier_incarnations: Vec::new(),
                membership: Membership::None,
                version: 0,
                nodes: config.nodes.clone(),
            };
            record.write(disk)?;
            return Ok(record);
        };
        if let Some(RecoveryRecord { nodes, .. }) = record.recovery {
            return Err(NodeRecordError::Recovering { dir: dir(), nodes });
        }
        let identity = |cluster: &str, node: u64, shards: u32| {
            format!("cluster {cluster}, node {node}, {shards} shards")
        };
        let found = identity(&record.cluster_id, record.node_id, record.shards);
        // What a node that joins leaves out is what it was told when it did, and one that has not
        // joined yet was not told.
        let told = |configured: u64, known: u64| match (configured, known) {
            (0, known) => known,
            (_, 0) => 0,
            (configured, _) => configured,
        };
        let node = told(config.node_id, record.node_id);
        let shards = told(config.shards.into(), record.shards.into()) as u32;
        let configured = identity(&config.cluster_id, node, shards);
        if found != configured {
            return Err(NodeRecordError::Another {
                dir: dir(),
                found,
                configured,
            });
        }
        Ok(record)
    }

    /// What a directory remembers, if it was ever used. What belongs to a version that this build
    /// does not speak is not looked at, nor mended: it would look damaged.
    pub fn read(disk: &Disk, dir: &Path) -> Result<Option<Self>, NodeRecordError> {
        let Some(bytes) = disk.node_record() else {
            return Ok(None);
        };
        let damaged = |error: String| NodeRecordError::Damaged {
            dir: dir.display().to_string(),
            error,
        };
        let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
        let record: Self = toml::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        check_version(record.version, || dir.display().to_string())?;
        Ok(Some(record))
    }

    /// Writes it, durably, and that nothing is remembered of others: it would be of another
    /// directory.
    pub fn write_anew(&self, disk: &Disk) -> Result<(), LogError> {
        let mut batch = WriteBatch::new();
        batch.put_node_record(self.to_text().as_bytes());
        batch.put_acquaintances(&[]);
        disk.write(&mut batch, Durability::Sync)
    }

    /// Writes it, durably.
    pub fn write(&self, disk: &Disk) -> Result<(), LogError> {
        let mut batch = WriteBatch::new();
        batch.put_node_record(self.to_text().as_bytes());
        disk.write(&mut batch, Durability::Sync)
    }

    /// For the disk.
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The number of the directory.
    pub fn directory(&self) -> u128 {
        parse(&self.directory)
    }

    /// Which life of the cluster the data are of.
    pub fn incarnation(&self) -> u128 {
        parse(&self.incarnation)
    }

    /// The life of the cluster that the data are of, and those that it went on from.
    pub fn lives(&self) -> Vec<u128> {
        let lives = std::iter::once(&self.incarnation).chain(&self.earlier_incarnations);
        lives.map(|life| parse(life)).collect()
    }

    /// The cluster is recovered: another life begins, which goes on from this one. To say so twice
    /// is no harm.
    pub fn go_on_as(&mut self, incarnation: u128) {
        if self.incarnation() == incarnation {
            return;
        }
        let before = std::mem::take(&mut self.incarnation);
        self.earlier_incarnations.push(before);
        self.set_incarnation(incarnation);
    }

    /// A life of the cluster begins, or this node joins one.
    pub fn set_incarnation(&mut self, incarnation: u128) {
        self.incarnation = format!("{incarnation:032x}");
    }

    /// The directory has forgotten something: it is to become another one, which has to be let in
    /// first. What is in it counts for nothing from then on.
    pub fn renounce(&mut self) {
        self.candidate.get_or_insert_with(draw);
    }

    /// Whether the directory has to be let in, for the first time or anew.
    pub fn must_join(&self) -> bool {
        self.membership == Membership::None || self.must_join_anew()
    }

    /// Whether the directory has forgotten something.
    pub fn must_join_anew(&self) -> bool {
        self.candidate.is_some()
    }

    /// The groups of which a directory that has to be let in anew has a replica, by their numbers:
    /// who is let in gives them up.
    pub fn held(&self, disk: &Disk) -> Vec<u32> {
        let is_held = |group: &u32| {
            let slot = disk.replica(u64::from(*group));
            let slot = slot.and_then(|bytes| SlotRecord::from_bytes(&bytes));
            slot.is_some_and(|slot| slot.standing != Standing::Gone)
        };
        (0..=self.shards).filter(is_held).collect()
    }

    /// What the directory has is gone on from, whatever it has forgotten: nobody has more.
    pub fn reinstate(&mut self) {
        self.candidate = None;
    }

    /// The number under which the directory asks to be let in.
    pub fn asks_as(&self) -> u128 {
        self.candidate.as_deref().map_or(self.directory(), parse)
    }

    /// Others have let the directory in, into this life of the cluster: what was in it before is
    /// nobody's.
    pub fn let_in(&mut self, incarnation: u128, generation_floor: u32, since: u64) {
        if let Some(candidate) = self.candidate.take() {
            self.directory = candidate;
        }
        self.earlier_incarnations = Vec::new();
        self.is_founded = true;
        self.version = 0;
        self.set_incarnation(incarnation);
        self.membership = Membership::Joined {
            generation_floor,
            since,
        };
    }

    /// Makes the node a founder, together with these; each group has so many voters, and the
    /// cluster will speak this version.
    pub fn found(&mut self, founders: &[Founder], replicas: u32, version: u32) {
        self.version = version;
        let life = founded_life(&self.cluster_id, self.shards, replicas, founders);
        self.set_incarnation(life);
        let founders = founders.iter().map(|founder| FounderRecord {
            node: founder.node,
            directory: format!("{:032x}", founder.directory),
        });
        self.membership = Membership::Founder {
            founders: founders.collect(),
            replicas,
        };
    }

    /// Replicas on this node of earlier generations are lost.
    pub fn generation_floor(&self) -> u32 {
        match self.membership {
            Membership::Joined {
                generation_floor, ..
            } => generation_floor,
            Membership::None | Membership::Founder { .. } => 0,
        }
    }

    /// The index of group 0's entry that let this directory in; 0 for a founder's.
    fn since(&self) -> u64 {
        match self.membership {
            Membership::Joined { since, .. } => since,
            Membership::None | Membership::Founder { .. } => 0,
        }
    }

    /// Those who founded the cluster, if this node is one of them, and with how many voters for
    /// each group.
    pub fn founders(&self) -> Option<(Vec<Founder>, u32)> {
        let Membership::Founder { founders, replicas } = &self.membership else {
            return None;
        };
        let founders = founders.iter().map(|founder| Founder {
            node: founder.node,
            directory: parse(&founder.directory),
        });
        Some((founders.collect(), *replicas))
    }

    /// How this node founds the cluster, or has founded it, if it is one of its founders; they are
    /// at the addresses that it remembers.
    pub fn founding(&self) -> Option<Founding> {
        self.founding_at(&self.nodes)
    }

    /// As [`Self::founding`], with the founders at these addresses.
    pub fn founding_at(&self, nodes: &[Node]) -> Option<Founding> {
        let (founders, replication) = self.founders()?;
        let founders = founders.iter().map(|founder| {
            let node = nodes.iter().find(|node| node.id == founder.node);
            stock_cluster::Founder {
                node: founder.node,
                directory: Directory(founder.directory),
                grpc: node.map_or_else(String::new, |node| node.grpc.clone()),
                peers: node.map_or_else(String::new, |node| node.peers.clone()),
            }
        });
        Some(Founding {
            incarnation: self.incarnation(),
            replication,
            nodes: founders.collect(),
            version: self.version.max(Speaks::THIS.oldest),
        })
    }

    /// Who the node is to its peers, in this boot.
    pub fn identity(&self, config: &Config, boot: u64) -> Identity {
        let mut listed: Vec<u64> = config.nodes.iter().map(|node| node.id).collect();
        listed.sort_unstable();
        let Node { grpc, peers, .. } = config.addresses();
        Identity {
            cluster_id: self.cluster_id.clone(),
            node: self.node_id,
            shards: self.shards,
            directory: self.directory(),
            since: self.since(),
            boot,
            founders: self.founders().unwrap_or_default().0,
            listed: Listed {
                nodes: listed,
                replicas: config.replicas,
            },
            addresses: Addresses { grpc, peers },
            has_joined: matches!(self.membership, Membership::Joined { .. }),
            incarnation: (self.membership != Membership::None).then(|| self.incarnation()),
            earlier_lives: self.lives().split_off(1),
            speaks: Speaks::THIS,
        }
    }
}

/// Refuses what is of a cluster whose version this build does not speak. 0: it is not known yet.
fn check_version(version: u32, dir: impl FnOnce() -> String) -> Result<(), NodeRecordError> {
    let speaks = Speaks::THIS;
    match speaks.can_follow(version) {
        true => Ok(()),
        false => Err(NodeRecordError::Version {
            dir: dir(),
            version,
            speaks,
        }),
    }
}

fn draw() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A number that is none is none that any directory has.
fn parse(directory: &str) -> u128 {
    u128::from_str_radix(directory, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_later_version_is_refused_and_one_that_knows_of_none_is_not() {
        let speaks = Speaks::THIS;
        let later = speaks.newest + 1;
        for (version, is_good) in [(0, true), (speaks.newest, true), (later, false)] {
            assert_eq!(
                check_version(version, || "data".to_owned()).is_ok(),
                is_good
            );
        }
        let refused = check_version(later, || "data".to_owned()).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&format!("speaks version {later}")), "{text}");
        // A record of before versions were told.
        let record = "cluster_id = 'shop'\nnode_id = 1\nshards = 8\ndirectory = '1'\n";
        assert_eq!(toml::from_str::<NodeRecord>(record).unwrap().version, 0);
    }

    #[test]
    fn a_record_survives_the_disk() {
        let mut record = NodeRecord {
            cluster_id: "shop".to_owned(),
            node_id: 2,
            shards: 8,
            directory: format!("{:032x}", u128::MAX - 7),
            is_founded: false,
            recovery: None,
            candidate: None,
            incarnation: String::new(),
            earlier_incarnations: Vec::new(),
            membership: Membership::None,
            version: 0,
            nodes: vec![Node {
                id: 2,
                grpc: "http://b:7401".to_owned(),
                peers: "b:7421".to_owned(),
            }],
        };
        assert_eq!(toml::from_str(&record.to_text()), Ok(record.clone()));
        let founders = [2, 3].map(|node| Founder {
            node,
            directory: u128::from(node) << 100,
        });
        record.found(&founders, 3, 1);
        let life = founded_life("shop", 8, 3, &founders);
        let read: NodeRecord = toml::from_str(&record.to_text()).unwrap();
        assert_eq!(read.founders(), Some((founders.to_vec(), 3)));
        assert_eq!(read.directory(), u128::MAX - 7);
        assert_eq!(read.incarnation(), life);
        record.renounce();
        let candidate = record.asks_as();
        record.renounce();
        assert_eq!(record.asks_as(), candidate, "asked again, it is the same");
        assert!(record.must_join() && candidate != read.directory());
        assert_eq!(record.directory(), read.directory(), "until it is let in");
        let renounced: NodeRecord = toml::from_str(&record.to_text()).unwrap();
        assert_eq!(renounced, record);
        record.let_in(99, 7, 50);
        assert_eq!((record.directory(), record.lives()), (candidate, vec![99]));
        assert_eq!((record.generation_floor(), record.must_join()), (7, false));
    }
}
