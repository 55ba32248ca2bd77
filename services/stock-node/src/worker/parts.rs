//! What a loop is made of, and how a cluster begins.

use std::ops::Range;
use std::sync::Arc;

use stock_cluster::{Change, Founder, GroupId, Policy, Speaks, founding_placement};
use stock_core::{Principal, Secret};
use stock_replica::{
    COMMITTED_BYTES_PER_TURN, ELECTION_TICKS_MAX, ELECTION_TICKS_MIN, EntryReader,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::standing::ClusterState;
use crate::view::ReadView;

/// Bytes of appends that may be on their way to one peer, over all groups: a quarter of what its
/// connection may hold (`stockd/src/peers/link.rs`), since one entry may be four times an append.
pub(super) const WINDOW_BYTES: u64 = 32 * 1024 * 1024;

/// Makes a reader of the entries of a group.
pub type EntryReaders = Box<dyn Fn(GroupId) -> Box<dyn EntryReader> + Send>;

/// What a worker is made of.
pub struct WorkerParts {
    /// This node's id.
    pub node: u64,
    /// The number of its data directory.
    pub directory: u128,
    /// The index of group 0's entry that let the directory in; 0: a founder's.
    pub since: u64,
    /// The life of the cluster, and those that it goes on from, if any: states that were written
    /// down in them count.
    pub lives: Vec<u128>,
    /// With whom this node founds the cluster, if it is a founder.
    pub founding: Option<Founding>,
    /// Whether group 0 was seen to know who founded the cluster.
    pub is_founded: bool,
    /// Replicas of this node of earlier generations than this are lost: they were in another
    /// directory.
    pub generation_floor: u32,
    /// What operators may choose of placement.
    pub policy: Policy,
    /// In whose name this node writes things down.
    pub principal: Principal,
    /// The versions of the cluster that this node speaks.
    pub speaks: Speaks,
    /// How many groups there are.
    pub groups: u32,
    /// Different at each boot.
    pub boot: u64,
    /// Entries of the node's log, to be read back.
    pub entries: EntryReaders,
    /// Where applied state is published.
    pub view: Arc<ReadView>,
    /// Where leadership is published.
    pub cluster: Arc<ClusterState>,
    /// When a checkpoint is due: [`USUAL_CHECKPOINT_PACE`].
    pub checkpoint_pace: CheckpointPace,
    /// How often the replicas of a group are compared, in milliseconds: [`USUAL_AUDIT_EVERY_MS`].
    pub audit_every_ms: u64,
    /// From which election timeouts are drawn: [`USUAL_ELECTION_TICKS`], but where a run must be
    /// repeatable.
    pub election_ticks: Range<usize>,
    /// Bytes of committed entries that a group applies in a turn: [`USUAL_COMMITTED_BYTES`], but
    /// where short logs are to be replayed in many turns.
    pub committed_bytes_per_turn: u64,
}

/// When a checkpoint is due: once the log since the last one has outgrown both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointPace {
    /// So many bytes of entries, on the disk and of memory.
    pub log_bytes_min: u64,
    /// So much of the last file, in percent.
    pub of_file_percent: u64,
}

/// See [`WorkerParts::checkpoint_pace`]. What a restart replays takes as long as what it reads, or
/// a second.
pub const USUAL_CHECKPOINT_PACE: CheckpointPace = CheckpointPace {
    log_bytes_min: 16 * 1024 * 1024,
    of_file_percent: 100,
};

/// See [`WorkerParts::audit_every_ms`]. Hashing ten million positions takes seconds of a processor.
pub const USUAL_AUDIT_EVERY_MS: u64 = 10 * 60 * 1_000;

/// How the cluster begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// Which life of the cluster begins.
    pub incarnation: u128,
    /// How many voters a group should have: odd.
    pub replication: u32,
    /// All nodes, by id.
    pub nodes: Vec<Founder>,
    /// The version that the cluster will speak: one that all of them do.
    pub version: u32,
}

impl Founding {
    /// The nodes that hold the founding replicas, by group.
    pub fn groups(&self, groups: u32) -> Vec<Vec<u64>> {
        let nodes: Vec<u64> = self.nodes.iter().map(|founder| founder.node).collect();
        founding_placement(groups, &nodes, self.replication)
    }

    /// What the buckets of its states are chosen by. The founders' directories are drawn at random,
    /// nobody is told their numbers but nodes and operators, and a recovery, which begins another
    /// life, changes none of them.
    pub fn secret(&self) -> Secret {
        let mut founders: Vec<_> = self
            .nodes
            .iter()
            .map(|it| (it.node, it.directory.0))
            .collect();
        founders.sort_unstable();
        let mut text = "buckets\n".to_owned();
        for (node, directory) in founders {
            text.push_str(&format!("{node} {directory:032x}\n"));
        }
        Secret(xxh3_64(text.as_bytes()))
    }

    /// For the registry.
    pub fn to_change(&self, groups: u32) -> Change {
        Change::Found {
            incarnation: self.incarnation,
            replication: self.replication,
            nodes: self.nodes.clone(),
            groups: self.groups(groups),
            version: self.version,
        }
    }
}

/// See [`WorkerParts::committed_bytes_per_turn`].
pub const USUAL_COMMITTED_BYTES: u64 = COMMITTED_BYTES_PER_TURN;

/// See [`WorkerParts::election_ticks`].
pub const USUAL_ELECTION_TICKS: Range<usize> = ELECTION_TICKS_MIN..ELECTION_TICKS_MAX;
