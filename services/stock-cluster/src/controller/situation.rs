//! What the registry and the reports say together, at one moment.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::{
    CATCH_UP_ENTRIES_MAX, DESTROYS_PER_DECISION_MAX, Decision, Order, Policy,
    REPLICA_DIFFERENCE_MAX, Reason,
};
use crate::ids::{GroupId, ReplicaId};
use crate::registry::command::{Change, Why};
use crate::registry::{NodeRecord, NodeState, Placement, Registry};
use crate::reports::{GroupReport, ReplicaState, Reports, SILENT_AFTER_MS};

/// How fit a node is to lead. From one that is less so leadership goes to one that is more so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// It has too little room to take more in.
    HasNoRoom,
    /// Its disk is slow, or it had too little room a minute ago.
    InDoubt,
    Fit,
}

/// Registry and reports at one moment.
pub(super) struct Situation<'a> {
    pub(super) registry: &'a Registry,
    pub(super) reports: &'a Reports,
    pub(super) now_ms: u64,
    pub(super) policy: &'a Policy,
    /// Replicas by member node, with moves under way counted as done.
    pub(super) loads: BTreeMap<u64, usize>,
}

impl<'a> Situation<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        reports: &'a Reports,
        now_ms: u64,
        policy: &'a Policy,
    ) -> Self {
        let members = registry
            .nodes()
            .filter(|(_, record)| record.state != NodeState::Removed);
        let mut loads: BTreeMap<u64, usize> = members.map(|(node, _)| (node, 0)).collect();
        for (group, placement) in registry.placements() {
            for voter in after_move(registry, group, placement) {
                *loads.entry(voter.node()).or_default() += 1;
            }
        }
        Self {
            registry,
            reports,
            now_ms,
            policy,
            loads,
        }
    }

    /// What a group's leader says, if that is new enough to act upon.
    pub(super) fn report(&self, group: GroupId) -> Option<&'a GroupReport> {
        let report = self.reports.group(group)?;
        let term = self.registry.placement(group)?.term;
        let is_fresh = self.reports.group_silent_ms(group, self.now_ms) <= SILENT_AFTER_MS;
        (is_fresh && report.term >= term).then_some(report)
    }

    /// Whether a node reports, from the data directory that it joined with.
    pub(super) fn is_up(&self, node: u64) -> bool {
        self.reports.node_silent_ms(node, self.now_ms) <= SILENT_AFTER_MS
            && self.has_its_directory(node)
    }

    /// Whether a node has been gone for so long that it is replaced.
    pub(super) fn is_away(&self, node: u64) -> bool {
        self.reports.node_silent_ms(node, self.now_ms) >= self.policy.replace_after_ms
    }

    fn has_its_directory(&self, node: u64) -> bool {
        let joined = self.registry.node(node).and_then(|n| n.directory);
        let reported = self.reports.node(node).map(|report| report.directory);
        joined.is_some() && joined == reported
    }

    /// Whether a node should lead nothing.
    pub(super) fn is_unfit(&self, node: u64) -> bool {
        self.fitness(node) < Fitness::Fit
    }

    /// How fit a node is to lead.
    pub(super) fn fitness(&self, node: u64) -> Fitness {
        match (self.reports.short_of(node), self.reports.is_disk_slow(node)) {
            (Some(_), _) => Fitness::HasNoRoom,
            (None, true) => Fitness::InDoubt,
            (None, false) => match self.reports.is_short(node, self.now_ms) {
                true => Fitness::InDoubt,
                false => Fitness::Fit,
            },
        }
    }

    /// Active nodes that have joined and have been heard.
    pub(super) fn active(&self) -> impl Iterator<Item = (u64, &'a NodeRecord)> {
        self.registry.nodes().filter(|(_, record)| record.counts())
    }

    pub(super) fn is_active(&self, node: u64) -> bool {
        self.active().any(|(active, _)| active == node)
    }

    /// Whether a node can be given a replica now.
    pub(super) fn is_usable(&self, node: u64) -> bool {
        let room = self
            .reports
            .node(node)
            .map_or(0, |report| report.free_bytes);
        self.is_active(node) && self.is_up(node) && room >= self.policy.free_bytes_min
    }

    /// Why a replica is lost, if it is: it will not come back by itself, or an operator wants it
    /// made anew.
    pub(super) fn loss(&self, group: GroupId, replica: ReplicaId) -> Option<Why> {
        match self.loss_as_seen(group, replica) {
            Some(Why::DiskReplaced) => Some(Why::DiskReplaced),
            _ if self.registry.failure(group, replica).is_some() => Some(Why::Failed),
            seen => seen,
        }
    }

    /// Why a replica will not come back by itself, if so, whatever an operator says.
    fn loss_as_seen(&self, group: GroupId, replica: ReplicaId) -> Option<Why> {
        let node = replica.node();
        let Some(record) = self.registry.node(node) else {
            return Some(Why::NodeAway);
        };
        if replica.generation() < record.generation_floor {
            return Some(Why::DiskReplaced);
        }
        if self.is_up(node) && self.is_said_to_be_lost(group, replica) {
            return Some(Why::Failed);
        }
        match record.state {
            NodeState::Removed => Some(Why::NodeAway),
            // An operator who drains a node that is down says that it will not come back.
            NodeState::Draining if !self.is_up(node) => Some(Why::Draining),
            NodeState::Draining | NodeState::Active => self.is_away(node).then_some(Why::NodeAway),
        }
    }

    /// Whether its node says that it failed, or had a newer one since, which took its place.
    fn is_said_to_be_lost(&self, group: GroupId, replica: ReplicaId) -> bool {
        let report = self.reports.node(replica.node());
        let hosted = report.into_iter().flat_map(|report| &report.replicas);
        let newest = hosted
            .filter(|hosted| hosted.group == group)
            .max_by_key(|hosted| hosted.replica);
        newest.is_some_and(|newest| {
            let is_over = matches!(newest.state, ReplicaState::Failed | ReplicaState::Gone);
            match newest.replica.cmp(&replica) {
                Ordering::Equal => is_over,
                Ordering::Greater => true,
                // A directory that does not know a voter, or a learner, which was begun in it has
                // forgotten it.
                Ordering::Less => self.is_placed(group, replica) || self.learns(group, replica),
            }
        })
    }

    /// Whether a group's leader has made a replica a learner. It was begun before that.
    fn learns(&self, group: GroupId, replica: ReplicaId) -> bool {
        let report = self.report(group);
        report.is_some_and(|report| report.learners.contains(&replica))
    }

    fn is_placed(&self, group: GroupId, replica: ReplicaId) -> bool {
        let placement = self.registry.placement(group);
        placement.is_some_and(|placement| placement.voters.contains(&replica))
    }

    /// Whether a replica has been begun in its node's directory.
    pub(super) fn is_begun(&self, group: GroupId, replica: ReplicaId) -> bool {
        self.is_up(replica.node()) && self.state(group, replica).is_some()
    }

    /// Has a replica begun where it belongs. Nothing begins by itself: who hears of a replica that
    /// it has not got cannot know whether it never had it, or has forgotten it.
    pub(super) fn begin_replica(
        &self,
        group: GroupId,
        replica: ReplicaId,
        decision: &mut Decision,
    ) {
        let record = self.registry.node(replica.node());
        if let Some(directory) = record.and_then(|record| record.directory) {
            decision.order(Order::BeginReplica {
                group,
                replica,
                directory,
            });
        }
    }

    /// Nodes that run for the first time count from now on, and what they speak is written down.
    /// Whether there are any.
    pub(super) fn take_note_of_the_heard(&self, decision: &mut Decision) -> bool {
        let mut are_any = false;
        for (node, record) in self.registry.nodes() {
            let report = self.reports.node(node).filter(|_| self.is_up(node));
            let (Some(report), Some(directory)) = (report, record.directory) else {
                continue;
            };
            let newest_version = report.newest_version;
            let is_news = !record.was_heard || record.newest_version != newest_version;
            if is_news && record.state != NodeState::Removed {
                decision.order(Order::Record(Change::Heard {
                    node,
                    directory,
                    newest_version,
                }));
                are_any = true;
            }
        }
        are_any
    }

    pub(super) fn state(&self, group: GroupId, replica: ReplicaId) -> Option<ReplicaState> {
        let hosted = &self.reports.node(replica.node())?.replicas;
        let found = hosted
            .iter()
            .find(|hosted| hosted.group == group && hosted.replica == replica)?;
        Some(found.state)
    }

    /// Whether a replica is active and caught up, as its leader sees it.
    pub(super) fn is_sound(&self, report: &GroupReport, replica: ReplicaId) -> bool {
        self.loss(report.group, replica).is_none() && self.keeps_up(report, replica)
    }

    /// Whether a replica votes and acknowledges. One that an operator wants made anew does so, and
    /// counts until its turn comes: of two such replicas in a group of three, else neither could
    /// ever be replaced.
    pub(super) fn works(&self, report: &GroupReport, replica: ReplicaId) -> bool {
        self.loss_as_seen(report.group, replica).is_none() && self.keeps_up(report, replica)
    }

    fn keeps_up(&self, report: &GroupReport, replica: ReplicaId) -> bool {
        let is_serving = !self.is_up(replica.node())
            || self
                .state(report.group, replica)
                .is_none_or(|state| state == ReplicaState::Serving);
        let progress = report.progress.get(&replica);
        let follows = progress.is_some_and(|progress| {
            progress.recently_active
                && progress.snapshot_bytes.is_none()
                && progress.matched + CATCH_UP_ENTRIES_MAX >= report.last_index
        });
        is_serving && (replica == report.leader || follows)
    }

    /// The first voter that stands in the way of a change: it is neither sound nor lost, or there
    /// is no majority of those that work before or after. `add` counts as sound: it is not added
    /// before it is.
    pub(super) fn obstacle(
        &self,
        report: &GroupReport,
        add: Option<ReplicaId>,
        remove: Option<ReplicaId>,
    ) -> Option<ReplicaId> {
        let is_sound = |voter: &ReplicaId| Some(*voter) == add || self.is_sound(report, *voter);
        let others = report.voters.iter().copied();
        let others = others.filter(|voter| Some(*voter) != remove);
        let waits = others
            .clone()
            .find(|voter| !is_sound(voter) && self.loss(report.group, *voter).is_none());
        if waits.is_some() {
            return waits;
        }
        let new: BTreeSet<ReplicaId> = others.chain(add).collect();
        // What is replaced on its own node stops when the new one begins.
        let stops = remove.filter(|gone| add.is_some_and(|add| add.node() == gone.node()));
        let counts = |voter: &ReplicaId| {
            Some(*voter) == add || (Some(*voter) != stops && self.works(report, *voter))
        };
        let has_majority = |voters: &BTreeSet<ReplicaId>| {
            2 * voters.iter().filter(|voter| counts(voter)).count() > voters.len()
        };
        if has_majority(&report.voters) && has_majority(&new) {
            return None;
        }
        let mut all = report.voters.union(&new);
        all.find(|voter| !counts(voter)).copied()
    }

    /// The active node with the fewest replicas that holds none of this group and has room.
    pub(super) fn target(&self, voters: &BTreeSet<ReplicaId>) -> Option<u64> {
        let free = self.active().map(|(node, _)| node).filter(|node| {
            self.is_usable(*node) && voters.iter().all(|voter| voter.node() != *node)
        });
        free.min_by_key(|node| (self.load(*node), *node))
    }

    pub(super) fn load(&self, node: u64) -> usize {
        self.loads.get(&node).copied().unwrap_or(0)
    }

    /// The voters a group should have: the registry's number or, with too few nodes, the largest
    /// odd one.
    pub(super) fn goal(&self, group: GroupId, voters: &BTreeSet<ReplicaId>) -> usize {
        let good = voters
            .iter()
            .filter(|voter| self.loss(group, **voter).is_none());
        let holders: BTreeSet<u64> = good.map(|voter| voter.node()).collect();
        let others = self.active().map(|(node, _)| node);
        let others = others.filter(|node| !holders.contains(node) && !self.is_away(*node));
        let nodes = holders.len() + others.count();
        let most = nodes.min(self.registry.replication() as usize);
        most - usize::from(most.is_multiple_of(2) && most > 0)
    }

    /// What may be finished or taken back at any time: joint changes that an earlier leader left,
    /// and learners that belong to no move.
    pub(super) fn tidy(&self, decision: &mut Decision) {
        for (group, _) in self.registry.placements() {
            let Some(report) = self.report(group) else {
                decision.wait(Some(group), Reason::GroupSilent);
                continue;
            };
            if !report.outgoing.is_empty() {
                decision.order(Order::LeaveJoint { group });
                continue;
            }
            let expected = self.registry.move_of(group).and_then(|m| m.add);
            let strays = report.learners.iter();
            let strays = strays.filter(|learner| {
                Some(**learner) != expected && !self.is_observer(group, **learner)
            });
            for replica in strays {
                let replica = *replica;
                decision.order(Order::RemoveLearner { group, replica });
            }
        }
    }

    /// Group 0 has a replica on every node that takes part: a node without a voter observes.
    pub(super) fn add_observers(&self, decision: &mut Decision) {
        let group = GroupId::META;
        let Some(report) = self.report(group) else {
            return;
        };
        if !report.outgoing.is_empty() {
            return;
        }
        let failed = self.registry.observers().find(|observer| {
            // What an observer has, its leader has: nothing is lost with it.
            let is_disputed = self.state(group, *observer) == Some(ReplicaState::Disputed);
            let is_over = self.is_said_to_be_lost(group, *observer) || is_disputed;
            self.is_up(observer.node()) && is_over
        });
        if let Some(replica) = failed {
            // The registry allots another one.
            decision.order(Order::Record(Change::ReportFailedReplica {
                group,
                replica,
                reason: "the node says that it failed".to_owned(),
            }));
            return;
        }
        let missing = self.registry.observers().find(|observer| {
            !report.learners.contains(observer)
                && !report.voters.contains(observer)
                && self.is_up(observer.node())
        });
        match missing {
            Some(replica) if self.is_begun(group, replica) => {
                decision.order(Order::AddLearner { group, replica });
            }
            Some(replica) => self.begin_replica(group, replica, decision),
            None => {}
        }
    }

    fn is_observer(&self, group: GroupId, replica: ReplicaId) -> bool {
        group == GroupId::META
            && self
                .registry
                .observers()
                .any(|observer| observer == replica)
    }

    /// What the registry knows to be gone for ever, and a node still has. The group must agree, as
    /// far as it is heard.
    pub(super) fn destroy_retired(&self, decision: &mut Decision) {
        let members = self.registry.nodes().map(|(node, _)| node);
        let reports = members.filter(|node| self.is_up(*node));
        let hosted = reports.filter_map(|node| self.reports.node(node));
        let hosted = hosted.flat_map(|report| &report.replicas);
        let hosted = hosted.filter(|hosted| {
            // What is disputed is kept for whoever has to decide.
            !matches!(hosted.state, ReplicaState::Gone | ReplicaState::Disputed)
        });
        let retired = hosted.filter(|hosted| {
            let is_member = self.report(hosted.group).is_some_and(|report| {
                report.voters.contains(&hosted.replica)
                    || report.outgoing.contains(&hosted.replica)
                    || report.learners.contains(&hosted.replica)
            });
            self.registry.is_retired(hosted.group, hosted.replica) && !is_member
        });
        for hosted in retired.take(DESTROYS_PER_DECISION_MAX) {
            decision.order(Order::Destroy {
                group: hosted.group,
                replica: hosted.replica,
            });
        }
    }

    /// Replicas that an operator should look at.
    pub(super) fn explain_disputes(&self, decision: &mut Decision) {
        for (group, placement) in self.registry.placements() {
            for replica in &placement.voters {
                let is_disputed = self.is_up(replica.node())
                    && self.state(group, *replica) == Some(ReplicaState::Disputed);
                if is_disputed {
                    let replica = *replica;
                    decision.wait(Some(group), Reason::Disputed { replica });
                }
            }
        }
    }

    /// Nodes that an operator should look at.
    pub(super) fn explain_nodes(&self, decision: &mut Decision) {
        for (node, _) in self.active() {
            let for_ms = self.reports.node_silent_ms(node, self.now_ms);
            if for_ms > SILENT_AFTER_MS {
                decision.wait(None, Reason::NodeSilent { node, for_ms });
            } else if self.reports.node(node).is_some() && !self.has_its_directory(node) {
                decision.wait(None, Reason::WrongDirectory { node });
            } else if let Some(resource) = self.reports.short_of(node) {
                decision.wait(None, Reason::Short { node, resource });
            } else if self.reports.is_disk_slow(node) {
                let report = self.reports.node(node);
                let write_us = report.and_then(|report| report.recent_write_us);
                decision.wait(None, Reason::SlowDisk { node, write_us });
            }
        }
    }

    /// Where a replica should go for balance, and from where: the fullest and the emptiest node, if
    /// they differ by more than they may.
    pub(super) fn imbalance(&self) -> Option<(u64, u64)> {
        let up = || {
            self.active()
                .map(|(node, _)| node)
                .filter(|node| self.is_up(*node))
        };
        let fullest = up().max_by_key(|node| (self.load(*node), u64::MAX - node))?;
        let emptiest = up()
            .filter(|node| self.is_usable(*node))
            .min_by_key(|node| (self.load(*node), *node))?;
        let difference = self.load(fullest).saturating_sub(self.load(emptiest));
        (difference > REPLICA_DIFFERENCE_MAX).then_some((fullest, emptiest))
    }
}

/// The voters of a group once its move is done.
fn after_move(registry: &Registry, group: GroupId, placement: &Placement) -> BTreeSet<ReplicaId> {
    let mut voters = placement.voters.clone();
    if let Some(under_way) = registry.move_of(group) {
        if let Some(gone) = under_way.remove {
            voters.remove(&gone);
        }
        voters.extend(under_way.add);
    }
    voters
}
