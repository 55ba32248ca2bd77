//! What nodes and leaders tell the leader of group 0. None of it is replicated: it is told again
//! twice a second, and a new leader of group 0 begins by listening.

pub mod slow_disks;

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Directory, GroupId, ReplicaId};
use crate::reports::slow_disks::SlowDisks;

/// A node or leader that has not reported for this long is silent: six reports were lost.
pub const SILENT_AFTER_MS: u64 = 3_000;

/// A node that has room again is not led from for so long, in milliseconds: one that has it now and
/// then would have leadership go to and fro.
pub const SHORT_FOR_MS: u64 = 60_000;

/// What a node may have too little of to take more in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Room on its disk.
    Disk = 1,
    /// Memory.
    Memory = 2,
}

/// What a group's leader says. Configurations are those of committed entries only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    /// Its group.
    pub group: GroupId,
    /// Its term.
    pub term: u64,
    /// Itself.
    pub leader: ReplicaId,
    /// Those that vote; while a joint change is under way, the incoming ones.
    pub voters: BTreeSet<ReplicaId>,
    /// While a joint change is under way: those that voted before it. Otherwise empty.
    pub outgoing: BTreeSet<ReplicaId>,
    /// Those that only listen.
    pub learners: BTreeSet<ReplicaId>,
    /// The end of its log.
    pub last_index: u64,
    /// What is committed.
    pub commit: u64,
    /// How far each replica is, its own included.
    pub progress: BTreeMap<ReplicaId, Progress>,
}

/// How far a replica is, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The log up to here is known to be on its disk.
    pub matched: u64,
    /// It answered within the last election timeout.
    pub recently_active: bool,
    /// Bytes of a snapshot that is on its way to it, as far as they were sent.
    pub snapshot_bytes: Option<u64>,
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Itself.
    pub node: u64,
    /// Its data directory.
    pub directory: Directory,
    /// Room left where its data is.
    pub free_bytes: u64,
    /// Half of its log writes, fsync included, took this long or less, in microseconds.
    pub write_p50_us: u64,
    /// And 99 in 100 this long or less.
    pub write_p99_us: u64,
    /// Half of those of the last seconds took this long or less, in microseconds; none where there
    /// were too few to tell.
    pub recent_write_us: Option<u64>,
    /// What it has too little of to take more in.
    pub short_of: Option<Resource>,
    /// The highest version of the cluster that it speaks.
    pub newest_version: u32,
    /// Every replica whose data it has, also those that are no longer members.
    pub replicas: Vec<HostedReplica>,
}

/// The newest replica of a group that a node has, or had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostedReplica {
    /// Of this group.
    pub group: GroupId,
    /// Which.
    pub replica: ReplicaId,
    /// Whether it works.
    pub state: ReplicaState,
}

/// Whether a replica works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicaState {
    /// It takes part.
    Serving,
    /// It stopped, and does not take part any more.
    Failed,
    /// A snapshot is being installed.
    Installing,
    /// Since its node started it has not come as far as its group.
    CatchingUp,
    /// Nothing is left of it, nor of any before it on this node.
    Gone,
    /// It contradicted its leader about what was acknowledged. It does not take part, and its data
    /// are kept until an operator has it rebuilt.
    Disputed,
}

/// What the last comparison of a group's replicas found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Its group.
    pub group: GroupId,
    /// The replicas were compared as they were at this index.
    pub index: u64,
    /// When it was done, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was found, for each.
    pub replicas: BTreeMap<ReplicaId, AuditVerdict>,
}

/// What an audit says of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditVerdict {
    /// It is as the others are.
    Agrees,
    /// These buckets of its state differ from those of the majority.
    Differs {
        /// By number.
        buckets: Vec<u32>,
    },
    /// It gave no answer in time.
    Silent,
}

/// Everything that was reported, and when. Times are milliseconds of one clock that never goes
/// back.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    listening_since_ms: u64,
    groups: BTreeMap<GroupId, HeardGroup>,
    nodes: BTreeMap<u64, (u64, NodeReport)>,
    audits: BTreeMap<GroupId, AuditReport>,
    slow_disks: SlowDisks,
    /// Until when a node that had too little of something is not led from.
    short_until_ms: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone)]
struct HeardGroup {
    at_ms: u64,
    /// Since when this replica has led.
    led_since_ms: u64,
    report: GroupReport,
}

impl Reports {
    /// Nothing heard yet. Who is silent now is counted from `now_ms` on: a new leader of group 0
    /// cannot know for how long a node has been away, and must not replace it early.
    pub fn new(now_ms: u64) -> Self {
        Self {
            listening_since_ms: now_ms,
            ..Self::default()
        }
    }

    /// Takes note of what a leader says. A deposed leader that has not noticed is not believed.
    pub fn hear_group(&mut self, now_ms: u64, report: GroupReport) {
        let known = self.groups.get(&report.group);
        if known.is_some_and(|known| known.report.term > report.term) {
            return;
        }
        let same = known.filter(|known| known.report.leader == report.leader);
        let heard = HeardGroup {
            at_ms: now_ms,
            led_since_ms: same.map_or(now_ms, |known| known.led_since_ms),
            report,
        };
        self.groups.insert(heard.report.group, heard);
    }

    /// Takes note of what a node says.
    pub fn hear_node(&mut self, now_ms: u64, report: NodeReport) {
        let (node, directory) = (report.node, report.directory);
        let others_us = self.recent_writes_us(now_ms, node);
        self.slow_disks
            .hear(node, directory, report.recent_write_us, others_us);
        if report.short_of.is_some() {
            self.short_until_ms.insert(node, now_ms + SHORT_FOR_MS);
        }
        self.nodes.insert(report.node, (now_ms, report));
    }

    /// Takes note of an audit.
    pub fn hear_audit(&mut self, report: AuditReport) {
        let newer = |known: &AuditReport| known.index > report.index;
        if !self.audits.get(&report.group).is_some_and(newer) {
            self.audits.insert(report.group, report);
        }
    }

    /// What a group's leader said last, however long ago.
    pub fn group(&self, group: GroupId) -> Option<&GroupReport> {
        self.groups.get(&group).map(|heard| &heard.report)
    }

    /// For how long a group's leader has said nothing, in milliseconds.
    pub fn group_silent_ms(&self, group: GroupId, now_ms: u64) -> u64 {
        let heard = self.groups.get(&group).map(|heard| heard.at_ms);
        now_ms.saturating_sub(heard.unwrap_or(self.listening_since_ms))
    }

    /// For how long a group has had the leader it has, in milliseconds.
    pub fn led_for_ms(&self, group: GroupId, now_ms: u64) -> u64 {
        let since = self.groups.get(&group).map(|heard| heard.led_since_ms);
        now_ms.saturating_sub(since.unwrap_or(now_ms))
    }

    /// What a node said last, however long ago.
    pub fn node(&self, node: u64) -> Option<&NodeReport> {
        self.nodes.get(&node).map(|(_, report)| report)
    }

    /// For how long a node has said nothing, in milliseconds.
    pub fn node_silent_ms(&self, node: u64, now_ms: u64) -> u64 {
        let heard = self.nodes.get(&node).map(|(at_ms, _)| *at_ms);
        now_ms.saturating_sub(heard.unwrap_or(self.listening_since_ms))
    }

    /// Whether a node's disk is so slow, beside the others, that it should lead nothing.
    pub fn is_disk_slow(&self, node: u64) -> bool {
        self.slow_disks.is_slow(node)
    }

    /// Whether a node's disk is slow or, as its last report says, may be: nothing more should be
    /// led there.
    pub fn may_disk_be_slow(&self, node: u64) -> bool {
        self.slow_disks.may_be_slow(node)
    }

    /// What a node has too little of, as it last said.
    pub fn short_of(&self, node: u64) -> Option<Resource> {
        self.node(node)?.short_of
    }

    /// Whether a node has too little of something to take more in, or had a minute ago.
    pub fn is_short(&self, node: u64, now_ms: u64) -> bool {
        let until_ms = self.short_until_ms.get(&node);
        until_ms.is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// How long the latest writes of the other nodes took that report and have written enough to
    /// tell.
    pub fn recent_writes_us(&self, now_ms: u64, without: u64) -> Vec<u64> {
        let nodes = self.nodes.iter();
        let heard = nodes.filter(|(node, (at_ms, _))| {
            **node != without && now_ms.saturating_sub(*at_ms) <= SILENT_AFTER_MS
        });
        heard
            .filter_map(|(_, (_, report))| report.recent_write_us)
            .collect()
    }

    /// The last audit of each group that was audited.
    pub fn audits(&self) -> impl Iterator<Item = &AuditReport> {
        self.audits.values()
    }
}
