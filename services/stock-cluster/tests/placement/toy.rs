//! A toy cluster: groups, nodes and disks without bytes, which carries the controller's orders out
//! and checks, at each one, that no data and no majority is lost by it.

use std::collections::{BTreeMap, BTreeSet};

use stock_cluster::reports::SILENT_AFTER_MS;
use stock_cluster::{
    Change, Decision, Directory, Founder, GroupId, GroupReport, HostedReplica, NodeReport, Order,
    Policy, Progress, Registry, RegistryCommand, RegistryOutcome, ReplicaId, ReplicaState, Reports,
    Resource, decide, founding_placement,
};
use stock_core::{At, Principal, Stamp};

pub(crate) const TICK_MS: u64 = 500;

/// Replacement after 30 s, so that the tests need not wait for ten minutes of ticks.
pub(crate) const POLICY: Policy = Policy {
    replace_after_ms: 30_000,
    leader_settle_ms: 5_000,
    free_bytes_min: 100,
};

/// What a log write takes on a good disk, in microseconds.
pub(crate) const FAST_US: u64 = 800;

/// Long enough for leaders to settle and be evened out.
pub(crate) const SETTLED_TICKS: u64 = 60;

/// Entries that a replica receives in a tick.
const ENTRIES_PER_TICK: u64 = 200;

/// What a replica lacks at most to count as caught up; the controller has a bound of its own.
const NEARLY: u64 = 300;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) is_up: bool,
    pub(crate) directory: Directory,
    pub(crate) free_bytes: u64,
    /// What a log write takes on its disk; none while it writes too little to tell.
    pub(crate) write_us: Option<u64>,
    /// What it has too little of.
    pub(crate) short_of: Option<Resource>,
    /// Whether its replicas have yet to catch up since it was started.
    pub(crate) is_catching_up: bool,
    /// It reports every so many ticks.
    pub(crate) reports_every: u64,
    /// How much of the log each replica has; `None`: it stopped.
    pub(crate) data: BTreeMap<(GroupId, ReplicaId), Option<u64>>,
    /// Replicas of which nothing is left.
    gone: BTreeSet<(GroupId, ReplicaId)>,
}

impl Node {
    fn hosted(&self) -> impl Iterator<Item = HostedReplica> {
        let here = self.data.iter().map(|(key, has)| match has {
            Some(_) if self.is_catching_up => (key, ReplicaState::CatchingUp),
            Some(_) => (key, ReplicaState::Serving),
            None => (key, ReplicaState::Failed),
        });
        let gone = self.gone.iter().map(|key| (key, ReplicaState::Gone));
        here.chain(gone)
            .map(|((group, replica), state)| HostedReplica {
                group: *group,
                replica: *replica,
                state,
            })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) voters: BTreeSet<ReplicaId>,
    pub(crate) outgoing: BTreeSet<ReplicaId>,
    pub(crate) learners: BTreeSet<ReplicaId>,
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) term: u64,
    pub(crate) last_index: u64,
    /// Acknowledged: on a majority.
    acknowledged: u64,
    /// The leader that began the joint change finishes it by itself.
    joint_since_term: u64,
}

pub(crate) struct Toy {
    pub(crate) now_ms: u64,
    index: u64,
    pub(crate) registry: Registry,
    pub(crate) reports: Reports,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    next_directory: u128,
    /// Orders and reports that get lost, of 256; drawn from `random`.
    pub(crate) loss: u8,
    random: u64,
    /// Reports of leaders since deposed.
    pub(crate) old_reports: Vec<GroupReport>,
    pub(crate) last: Decision,
}

impl Toy {
    /// Six groups on three nodes, two led by each.
    pub(crate) fn settled() -> Self {
        let mut toy = Self::new(3, 6, 3, 1);
        toy.ticks(SETTLED_TICKS);
        assert_eq!(toy.leads(), [2, 2, 2]);
        toy
    }

    /// How many groups each of the nodes leads.
    pub(crate) fn leads(&self) -> Vec<usize> {
        let leaders = self
            .groups
            .values()
            .map(|group| group.leader.unwrap().node());
        let leaders: Vec<u64> = leaders.collect();
        let count = |node: &u64| leaders.iter().filter(|leader| *leader == node).count();
        self.nodes.keys().map(count).collect()
    }

    pub(crate) fn new(nodes: u64, groups: u32, replication: u32, seed: u64) -> Self {
        let ids: Vec<u64> = (1..=nodes).collect();
        let mut toy = Self {
            now_ms: 1_000_000,
            index: 0,
            registry: Registry::new(),
            reports: Reports::new(1_000_000),
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_directory: 1,
            loss: 0,
            random: seed | 1,
            old_reports: Vec::new(),
            last: Decision::default(),
        };
        for id in &ids {
            toy.add_machine(*id);
        }
        let placement = founding_placement(groups, &ids, replication);
        for (number, nodes) in (0..).zip(&placement) {
            let group = GroupId(number);
            let voters: BTreeSet<_> = nodes.iter().map(|n| ReplicaId::founding(*n)).collect();
            for voter in &voters {
                let node = toy.nodes.get_mut(&voter.node()).unwrap();
                node.data.insert((group, *voter), Some(1_000));
            }
            let born = Group {
                leader: Some(ReplicaId::founding(nodes[0])),
                voters,
                outgoing: BTreeSet::new(),
                learners: BTreeSet::new(),
                term: 1,
                last_index: 1_000,
                acknowledged: 1_000,
                joint_since_term: 0,
            };
            toy.groups.insert(group, born);
        }
        let founders = toy.nodes.iter().map(|(node, machine)| Founder {
            node: *node,
            directory: machine.directory,
            grpc: format!("http://n{node}:1"),
            peers: format!("n{node}:2"),
        });
        let found = Change::Found {
            incarnation: 1,
            replication,
            nodes: founders.collect(),
            groups: placement,
            version: 1,
        };
        assert_eq!(toy.apply(found), RegistryOutcome::Done);
        toy
    }

    /// Has the registry carry out a change, and looks whether it survives a checkpoint.
    pub(crate) fn apply(&mut self, change: Change) -> RegistryOutcome {
        self.index += 1;
        let at = At {
            index: self.index,
            ordinal: 0,
            moment: Stamp(self.now_ms).into(),
        };
        let command = RegistryCommand {
            principal: Principal::new("toy").unwrap(),
            request: None,
            change,
        };
        let outcome = self.registry.apply(at, command);
        let frozen = self.registry.freeze();
        assert_eq!(Registry::restore(&frozen).unwrap(), self.registry);
        outcome
    }

    pub(crate) fn add_machine(&mut self, node: u64) {
        let machine = Node {
            is_up: true,
            directory: Directory(self.next_directory),
            free_bytes: 1_000,
            write_us: Some(FAST_US),
            short_of: None,
            is_catching_up: false,
            reports_every: 1,
            data: BTreeMap::new(),
            gone: BTreeSet::new(),
        };
        self.next_directory += 1;
        self.nodes.insert(node, machine);
    }

    /// A machine comes in: a new one, or one with an emptied disk.
    pub(crate) fn join(&mut self, node: u64) -> RegistryOutcome {
        let directory = self.nodes[&node].directory;
        let replaces = self.registry.node(node).and_then(|known| known.directory);
        self.apply(Change::Join {
            node,
            directory,
            replaces,
            grpc: format!("http://n{node}:1"),
            peers: format!("n{node}:2"),
        })
    }

    pub(crate) fn replace_disk(&mut self, node: u64) {
        let free_bytes = self.nodes[&node].free_bytes;
        self.add_machine(node);
        self.nodes.get_mut(&node).unwrap().free_bytes = free_bytes;
        self.join(node);
    }

    /// Half a second: elections, replication, reports, decision, orders.
    pub(crate) fn tick(&mut self) -> Decision {
        self.now_ms += TICK_MS;
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in &ids {
            self.elect(*group);
            self.replicate(*group);
            self.finish_joint(*group);
        }
        self.tell();
        let decision = decide(&self.registry, &self.reports, self.now_ms, &POLICY);
        for order in decision.orders.clone() {
            self.check_leader_stays(&order);
            if !self.is_lost() {
                self.carry_out(&order);
            }
        }
        let running = self.registry.moves().filter(|(_, m)| !m.parked).count();
        assert!(running <= 1, "{running} moves at once");
        self.last = decision.clone();
        decision
    }

    pub(crate) fn ticks(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick();
        }
    }

    /// How much of the log a replica has, if it is running.
    pub(crate) fn has(&self, group: GroupId, replica: ReplicaId) -> Option<u64> {
        let node = self.nodes.get(&replica.node()).filter(|node| node.is_up)?;
        *node.data.get(&(group, replica))?
    }

    fn majority(&self, group: GroupId, voters: &BTreeSet<ReplicaId>, index: u64) -> bool {
        let have = voters
            .iter()
            .filter(|v| self.has(group, **v) >= Some(index));
        voters.is_empty() || 2 * have.count() > voters.len()
    }

    /// Whether majorities of sound voters would be left without a node.
    pub(crate) fn can_lose(&self, node: u64) -> bool {
        self.groups.iter().all(|(id, group)| {
            let without = |voters: &BTreeSet<ReplicaId>| {
                let left = voters.iter().filter(|voter| {
                    voter.node() != node && self.has(*id, **voter) >= Some(group.acknowledged)
                });
                voters.is_empty()
                    || voters.iter().all(|voter| voter.node() != node)
                    || 2 * left.count() > voters.len()
            };
            without(&group.voters) && without(&group.outgoing)
        })
    }

    pub(crate) fn has_quorum(&self, id: GroupId) -> bool {
        let group = &self.groups[&id];
        self.majority(id, &group.voters, 0) && self.majority(id, &group.outgoing, 0)
    }

    fn is_lost(&mut self) -> bool {
        // Xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 24) as u8 % 255 < self.loss
    }

    /// A node begins a replica that is newer than all that it has had, in the directory that it was
    /// allotted to.
    fn begin(&mut self, group: GroupId, replica: ReplicaId, directory: Directory) {
        let Some(node) = self.nodes.get_mut(&replica.node()) else {
            return;
        };
        let had = node.data.keys().chain(&node.gone);
        let newest = had
            .filter(|(of, _)| *of == group)
            .map(|(_, had)| *had)
            .max();
        if node.is_up && node.directory == directory && Some(replica) > newest {
            node.data.retain(|(of, _), _| *of != group);
            node.data.insert((group, replica), Some(0));
        }
    }

    fn elect(&mut self, id: GroupId) {
        let group = &self.groups[&id];
        let has_quorum = self.has_quorum(id);
        let stays = group.leader.filter(|leader| {
            has_quorum
                && self.has(id, *leader).is_some()
                && (group.voters.contains(leader) || group.outgoing.contains(leader))
        });
        let mut leader = stays;
        if stays.is_none() && has_quorum {
            let all = group.voters.union(&group.outgoing);
            let best = all.max_by_key(|voter| self.has(id, **voter)).copied();
            let best = best.filter(|best| self.has(id, *best).is_some());
            if let Some(best) = best {
                let acknowledged = group.acknowledged;
                let has = self.has(id, best).unwrap();
                assert!(has >= acknowledged, "{id:?}: {best} lacks {acknowledged}");
            }
            leader = best;
        }
        let old = group.leader;
        if leader != old {
            if let Some(report) = self.report(id) {
                self.old_reports.push(report);
            }
            let last_index = leader.and_then(|leader| self.has(id, leader));
            let group = self.groups.get_mut(&id).unwrap();
            group.leader = leader;
            group.term += 1;
            group.last_index = last_index.unwrap_or(group.last_index);
        }
    }

    fn replicate(&mut self, id: GroupId) {
        let group = self.groups[&id].clone();
        if group.leader.is_none() {
            return;
        }
        let members = group.voters.union(&group.outgoing).chain(&group.learners);
        for member in members {
            if let Some(node) = self.nodes.get_mut(&member.node())
                && node.is_up
                && let Some(Some(has)) = node.data.get_mut(&(id, *member))
            {
                let is_leader = group.leader == Some(*member);
                let sent = if is_leader {
                    u64::MAX
                } else {
                    ENTRIES_PER_TICK
                };
                *has = has.saturating_add(sent).min(group.last_index);
            }
        }
        let mut acknowledged = group.acknowledged;
        for voter in &group.voters {
            let has = self.has(id, *voter).unwrap_or(0);
            if self.majority(id, &group.voters, has) && self.majority(id, &group.outgoing, has) {
                acknowledged = acknowledged.max(has);
            }
        }
        self.groups.get_mut(&id).unwrap().acknowledged = acknowledged;
    }

    fn finish_joint(&mut self, id: GroupId) {
        let lost = self.is_lost();
        let group = self.groups.get_mut(&id).unwrap();
        if group.leader.is_some() && group.term == group.joint_since_term && !lost {
            group.outgoing.clear();
        }
    }

    fn report(&self, id: GroupId) -> Option<GroupReport> {
        let group = &self.groups[&id];
        let leader = group.leader?;
        let members = group.voters.union(&group.outgoing).chain(&group.learners);
        let progress = members.map(|member| {
            let has = self.has(id, *member);
            let progress = Progress {
                matched: has.unwrap_or(0),
                recently_active: has.is_some(),
                snapshot_bytes: None,
            };
            (*member, progress)
        });
        Some(GroupReport {
            group: id,
            term: group.term,
            leader,
            voters: group.voters.clone(),
            outgoing: group.outgoing.clone(),
            learners: group.learners.clone(),
            last_index: group.last_index,
            commit: group.acknowledged,
            progress: progress.collect(),
        })
    }

    fn tell(&mut self) {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            if let Some(report) = self.report(id)
                && !self.is_lost()
            {
                self.reports.hear_group(self.now_ms, report);
            }
        }
        let nodes: Vec<NodeReport> = self
            .nodes
            .iter()
            .filter(|(_, node)| {
                node.is_up && (self.now_ms / TICK_MS).is_multiple_of(node.reports_every)
            })
            .map(|(id, node)| NodeReport {
                node: *id,
                directory: node.directory,
                free_bytes: node.free_bytes,
                write_p50_us: node.write_us.unwrap_or(0),
                write_p99_us: node.write_us.unwrap_or(0),
                recent_write_us: node.write_us,
                short_of: node.short_of,
                newest_version: 1,
                replicas: node.hosted().collect(),
            })
            .collect();
        for report in nodes {
            if !self.is_lost() {
                self.reports.hear_node(self.now_ms, report);
            }
        }
    }

    pub(crate) fn carry_out(&mut self, order: &Order) {
        match *order {
            Order::Record(ref change) => {
                self.apply(change.clone());
            }
            Order::BeginReplica {
                group,
                replica,
                directory,
            } => self.begin(group, replica, directory),
            Order::AddLearner { group, replica } => {
                let is_retired = self.registry.is_retired(group, replica);
                assert!(!is_retired, "{group:?}: {replica} is retired and added");
                let of = self.groups.get_mut(&group).unwrap();
                if of.leader.is_some() && !of.voters.contains(&replica) {
                    of.learners.insert(replica);
                }
            }
            Order::Promote { group, add, remove } => self.promote(group, add, remove),
            Order::RemoveLearner { group, replica } => {
                if self.groups[&group].learners.contains(&replica) {
                    self.take_out(group, replica);
                }
            }
            Order::RemoveVoter { group, replica } => {
                if self.groups[&group].voters.contains(&replica) {
                    self.take_out(group, replica);
                }
            }
            Order::LeaveJoint { group } => {
                let of = self.groups.get_mut(&group).unwrap();
                if of.leader.is_some() {
                    of.outgoing.clear();
                }
            }
            Order::Transfer { group, to } => {
                let has = self.has(group, to);
                let of = self.groups.get_mut(&group).unwrap();
                if of.leader.is_some() && of.leader != Some(to) && has == Some(of.last_index) {
                    assert!(of.voters.contains(&to), "{group:?}: {to} cannot lead");
                    of.leader = Some(to);
                    of.term += 1;
                }
            }
            Order::Destroy { group, replica } => {
                let of = &self.groups[&group];
                // A replica that observed and is retired may still be a learner where the group's
                // leader has not been heard since: nobody counts on what it has.
                let is_needed = of.voters.contains(&replica)
                    || of.outgoing.contains(&replica)
                    || !self.registry.is_retired(group, replica);
                assert!(!is_needed, "{group:?}: {replica} is needed and destroyed");
                if let Some(node) = self.nodes.get_mut(&replica.node())
                    && node.is_up
                {
                    node.data.remove(&(group, replica));
                    node.gone.insert((group, replica));
                }
            }
        }
    }

    fn promote(&mut self, id: GroupId, add: ReplicaId, remove: Option<ReplicaId>) {
        let group = &self.groups[&id];
        if group.leader.is_none() || !group.outgoing.is_empty() || !group.learners.contains(&add) {
            return;
        }
        // As in `take_out`.
        if remove.is_some() && group.leader == remove {
            return;
        }
        let mut voters = group.voters.clone();
        voters.insert(add);
        if let Some(remove) = remove {
            voters.remove(&remove);
        }
        self.check_quorum_after(id, &voters);
        let group = self.groups.get_mut(&id).unwrap();
        group.learners.remove(&add);
        let old = std::mem::replace(&mut group.voters, voters);
        if remove.is_some() {
            group.outgoing = old;
            group.joint_since_term = group.term;
        }
    }

    fn take_out(&mut self, id: GroupId, replica: ReplicaId) {
        let observes = id == GroupId::META && self.registry.observers().any(|o| o == replica);
        assert!(!observes, "{replica} observes and is taken out");
        let group = &self.groups[&id];
        // The order rests on a report: who was to go may lead by now, and a leader does not remove
        // itself.
        if group.leader.is_none() || group.leader == Some(replica) || !group.outgoing.is_empty() {
            return;
        }
        let mut voters = group.voters.clone();
        if voters.remove(&replica) {
            let goes = self.registry.move_of(id).and_then(|m| m.remove);
            assert_eq!(goes, Some(replica), "{id:?}: a voter that was to stay");
            self.check_quorum_after(id, &voters);
        }
        let group = self.groups.get_mut(&id).unwrap();
        group.voters = voters;
        group.learners.remove(&replica);
    }

    /// No order takes out whom the controller knows to lead: that one hands over first.
    fn check_leader_stays(&self, order: &Order) {
        let (group, goes) = match *order {
            Order::RemoveVoter { group, replica } | Order::RemoveLearner { group, replica } => {
                (group, Some(replica))
            }
            Order::Promote { group, remove, .. } => (group, remove),
            _ => return,
        };
        let leader = self.reports.group(group).map(|report| report.leader);
        assert!(
            goes.is_none() || goes != leader,
            "{group:?}: the leader is taken out"
        );
    }

    /// A change must leave a majority of the new voters that has nearly everything, as far as
    /// anybody could know: what happened since the report that the order rests on might as well
    /// happen after the order.
    fn check_quorum_after(&self, id: GroupId, voters: &BTreeSet<ReplicaId>) {
        let silent_ms = self.reports.group_silent_ms(id, self.now_ms);
        assert!(silent_ms <= SILENT_AFTER_MS, "{id:?} was not heard");
        let report = self.reports.group(id).unwrap();
        let nearly = report.last_index.saturating_sub(NEARLY);
        let progress = |voter: &ReplicaId| report.progress.get(voter).copied().unwrap_or_default();
        let sound = voters.iter().filter(|voter| {
            let progress = progress(voter);
            progress.recently_active && progress.matched >= nearly
        });
        assert!(
            2 * sound.count() > voters.len(),
            "{id:?} loses its majority to an order: {voters:?} after {report:?}"
        );
    }
}
