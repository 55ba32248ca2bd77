//! What this node knows of the cluster right now: who leads what, who can be reached, who is in it,
//! and, where it leads group 0, what it has decided. The loop writes it, everybody reads it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use stock_cluster::identity::Acquaintances;
use stock_cluster::{
    Decision, GroupId, NodeState, Overview, Registry, ReplicaId, Reports, Resource,
};
use stock_replica::Replica;

use crate::answer::Failure;

/// Leadership of every group and reachability of every node.
#[derive(Debug)]
pub struct ClusterState {
    groups: Vec<GroupState>,
    /// Nodes there is a connection to.
    reachable: RwLock<BTreeSet<u64>>,
    node: u64,
    registry: RwLock<Arc<Registry>>,
    /// The index of group 0 that `registry` is of.
    registry_index: AtomicU64,
    overview: RwLock<Option<Overview>>,
    health: RwLock<Health>,
    /// What there is too little of, as a number: see [`Resource`].
    short_of: AtomicU8,
    has_come_back: AtomicBool,
    /// How far ahead of this machine's wall clock the time is by which callers are judged, in
    /// milliseconds; none, as the least number, where it is not known.
    time_ahead_ms: AtomicI64,
    acquaintances: Mutex<Acquaintances>,
}

/// How this node's disk and memory do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether the rest was measured.
    pub was_measured: bool,
    /// Room left where its data is.
    pub free_bytes: u64,
    /// The largest checkpoint of a group: the next one needs as much room beside it.
    pub checkpoint_bytes: u64,
    /// Half of its log writes, fsync included, took this long or less, in microseconds.
    pub write_p50_us: u64,
    /// And 99 in 100 this long or less.
    pub write_p99_us: u64,
    /// Half of those of the last seconds took this long or less; none where there were too few to
    /// tell.
    pub recent_write_us: Option<u64>,
    /// Whether so much memory is used that no more may be.
    pub is_short_of_memory: bool,
}

#[derive(Debug, Default)]
struct GroupState {
    leader: AtomicU64,
    term: AtomicU64,
    applied_index: AtomicU64,
    is_here: AtomicBool,
}

/// One group, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupStatus {
    /// The node that leads, if one does.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// What this node has applied.
    pub applied_index: u64,
}

/// With less room than this a node takes nothing in that adds to what it keeps. What frees room
/// needs some first: a checkpoint, two files of the log, a purge.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

impl Health {
    /// Whether there is too little room to take more in. A disk that was not looked at yet has
    /// enough.
    pub fn is_short_of_space(&self) -> bool {
        self.was_measured && self.free_bytes < FREE_BYTES_MIN + self.checkpoint_bytes
    }

    /// What there is too little of.
    pub fn short_of(&self) -> Option<Resource> {
        match () {
            () if self.is_short_of_space() => Some(Resource::Disk),
            () if self.is_short_of_memory => Some(Resource::Memory),
            () => None,
        }
    }
}

impl ClusterState {
    /// As `node` sees it: nobody leads, nobody is reachable, and these are remembered.
    pub fn new(node: u64, groups: u32, acquaintances: Acquaintances) -> Self {
        Self {
            groups: (0..groups).map(|_| GroupState::default()).collect(),
            reachable: RwLock::default(),
            node,
            registry: RwLock::default(),
            registry_index: AtomicU64::new(0),
            overview: RwLock::default(),
            health: RwLock::default(),
            short_of: AtomicU8::new(0),
            has_come_back: AtomicBool::new(false),
            time_ahead_ms: AtomicI64::new(i64::MIN),
            acquaintances: Mutex::new(acquaintances),
        }
    }

    /// This directory's pulse, and what it remembers of others, for as long as that takes.
    pub fn acquaintances<T>(&self, act: impl FnOnce(&mut Acquaintances) -> T) -> T {
        let locked = self.acquaintances.lock();
        act(&mut locked.unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes note of what a replica knows after a turn.
    pub fn publish(&self, group: usize, replica: &Replica, applied_index: u64, is_near: bool) {
        let state = &self.groups[group];
        let leader = ReplicaId(replica.leader()).node();
        state.leader.store(leader, Ordering::Relaxed);
        state.term.store(replica.term(), Ordering::Relaxed);
        state.applied_index.store(applied_index, Ordering::Relaxed);
        // One that waits for its first snapshot knows nothing, and one that is not near its group
        // knows what was once.
        let is_here = replica.origin().index > 0 && is_near;
        state.is_here.store(is_here, Ordering::Relaxed);
    }

    /// Takes note that this node has no replica of a group.
    pub fn publish_absent(&self, group: usize) {
        let state = &self.groups[group];
        state.leader.store(0, Ordering::Relaxed);
        state.is_here.store(false, Ordering::Relaxed);
    }

    /// Whether this node has a replica of a group that knows anything.
    pub fn is_here(&self, group: GroupId) -> bool {
        let state = self.groups.get(group.index());
        state.is_some_and(|state| state.is_here.load(Ordering::Relaxed))
    }

    /// The other nodes that can say something of a group, the likeliest first: its leader, and
    /// those that have a voter of it; whoever can be reached, while this node has not been told who
    /// that is. Of those that cannot be reached only a leader is named, and only where there is
    /// nobody else.
    pub fn others_with(&self, group: GroupId) -> Vec<u64> {
        let leader = self.group(group).leader;
        let registry = self.registry();
        let candidates: Vec<u64> = match registry.placement(group) {
            Some(placement) => placement.voters.iter().map(|it| it.node()).collect(),
            None => read(&self.reachable).iter().copied().collect(),
        };
        let candidates = candidates.into_iter();
        let all = leader
            .into_iter()
            .chain(candidates.filter(|node| Some(*node) != leader));
        let mut others: Vec<u64> = all
            .filter(|node| *node != self.node && self.is_reachable(*node))
            .collect();
        if others.is_empty() {
            others.extend(leader.filter(|leader| *leader != self.node));
        }
        others
    }

    /// Takes note of who says to lead a group that this node has no replica of.
    pub fn publish_hint(&self, group: usize, leader: u64, term: u64) {
        let state = &self.groups[group];
        if term >= state.term.load(Ordering::Relaxed) {
            state.leader.store(leader, Ordering::Relaxed);
            state.term.store(term, Ordering::Relaxed);
        }
    }

    /// Takes note of the registry. `true` if nodes have come, gone or moved, or the cluster speaks
    /// another version.
    pub fn publish_registry(&self, registry: &Registry, index: u64) -> bool {
        let mut known = write(&self.registry);
        let has_changed =
            members(&known).ne(members(registry)) || known.version() != registry.version();
        *known = Arc::new(registry.clone());
        self.registry_index.store(index, Ordering::Release);
        has_changed
    }

    /// Who is in the cluster and what belongs where, as this node has it.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&read(&self.registry))
    }

    /// The index of group 0 that [`Self::registry`] is of, at least.
    pub fn registry_index(&self) -> u64 {
        self.registry_index.load(Ordering::Acquire)
    }

    /// Takes note of what this node, leading group 0, has been told and has decided.
    pub fn publish_decision(
        &self,
        registry: &Registry,
        reports: &Reports,
        decision: Decision,
        now_ms: u64,
    ) {
        *write(&self.overview) = Some(Overview {
            registry: Arc::new(registry.clone()),
            reports: reports.clone(),
            decision,
            now_ms,
        });
    }

    /// What this node has decided, if it leads group 0.
    pub fn overview(&self) -> Option<Overview> {
        let leads = self.group(GroupId::META).leader == Some(self.node);
        let overview = read(&self.overview).clone().filter(|_| leads)?;
        Some(Overview {
            registry: self.registry(),
            ..overview
        })
    }

    /// Takes note of the time by which callers are judged: so far ahead of this machine's wall
    /// clock it is.
    pub fn publish_time(&self, ahead_ms: i64) {
        self.time_ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    /// The time by which callers are judged, where this machine's wall clock shows `wall_ms`: both
    /// in milliseconds since the Unix epoch. None before a replica here knows cluster time.
    pub fn time_ms(&self, wall_ms: u64) -> Option<u64> {
        match self.time_ahead_ms.load(Ordering::Relaxed) {
            i64::MIN => None,
            ahead_ms => Some(wall_ms.saturating_add_signed(ahead_ms)),
        }
    }

    /// Takes note of how the disk does.
    pub fn publish_health(&self, health: Health) {
        let short_of = health.short_of().map_or(0, |resource| resource as u8);
        self.short_of.store(short_of, Ordering::Relaxed);
        *write(&self.health) = health;
    }

    /// How the disk does.
    pub fn health(&self) -> Health {
        *read(&self.health)
    }

    /// Why what adds to what this node keeps is refused, if it is. The loop asks for each call.
    pub fn refuses(&self) -> Option<Failure> {
        match self.short_of.load(Ordering::Relaxed) {
            0 => None,
            short_of if short_of == Resource::Disk as u8 => Some(Failure::DiskFull),
            _ => Some(Failure::MemoryFull),
        }
    }

    /// What this node knows of a group.
    pub fn group(&self, group: GroupId) -> GroupStatus {
        let state = &self.groups[group.index()];
        GroupStatus {
            leader: Some(state.leader.load(Ordering::Relaxed)).filter(|leader| *leader != 0),
            term: state.term.load(Ordering::Relaxed),
            applied_index: state.applied_index.load(Ordering::Relaxed),
        }
    }

    /// How many groups there are.
    pub fn groups(&self) -> u32 {
        self.groups.len() as u32
    }

    /// How many stock shards there are.
    pub fn shards(&self) -> u32 {
        self.groups() - 1
    }

    /// Takes note that every replica of this node has caught up since it started.
    pub fn come_back(&self) {
        self.has_come_back.store(true, Ordering::Release);
    }

    /// Whether they have: whatever a client asks this node can answer or pass on. That stays so,
    /// whatever becomes of the others: to start a node that lacks a quorum once more, or to send
    /// callers away from it, helps nobody.
    pub fn has_come_back(&self) -> bool {
        self.has_come_back.load(Ordering::Acquire)
    }

    /// Whether a node leads any group.
    pub fn leads_any(&self, node: u64) -> bool {
        self.groups
            .iter()
            .any(|group| group.leader.load(Ordering::Relaxed) == node)
    }

    /// Takes note that a peer can be reached, or no longer.
    pub fn set_reachable(&self, node: u64, is_reachable: bool) {
        let mut reachable = write(&self.reachable);
        match is_reachable {
            true => reachable.insert(node),
            false => reachable.remove(&node),
        };
    }

    /// Whether any other node can be reached.
    pub fn reaches_anybody(&self) -> bool {
        !read(&self.reachable).is_empty()
    }

    /// Whether a node can be reached. This node itself always can.
    pub fn is_reachable(&self, node: u64) -> bool {
        node == self.node || read(&self.reachable).contains(&node)
    }
}

/// The nodes that take part, and where the others reach them.
pub fn members(registry: &Registry) -> impl Iterator<Item = (u64, &str)> {
    let nodes = registry.nodes();
    nodes
        .filter(|(_, node)| node.state != NodeState::Removed)
        .map(|(id, node)| (id, node.peers.as_str()))
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
