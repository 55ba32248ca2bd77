//! The members of groups: what the leader of group 0 orders is done here, and what it needs to know
//! is reported from here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stock_cluster::{
    AuditReport, Change, Directory, GroupId, GroupReport, HostedReplica, NodeReport, Order,
    Progress, REPORT_EVERY_MS, RegistryCommand, ReplicaId, ReplicaState, Reports, decide,
};
use stock_replica::{
    Change as MemberChange, ChangeError, Configuration, Contradiction, Replica, StepError,
};

use super::slot::{FaultKind, Slot, SlotRecord, Standing};
use super::{Worker, open};
use crate::answer::Failure;
use crate::chore::{Chore, Unwanted};
use crate::clock::Now;
use crate::entry::CommandsBuilder;
use crate::event::Effect;
use crate::ledger_rows::Page;
use crate::notice::Notice;
use crate::state::State;
use crate::worker::TICK_MS;
use crate::writes::{Record, Write};

/// What a leader of a group without a replica here said is true for so long: six times as long as
/// until it says it again.
const LEADS_FOR_MS: u64 = 6 * REPORT_EVERY_MS;

/// Reports go out, and decisions are made, every so many ticks.
const REPORT_TICKS: u64 = REPORT_EVERY_MS / TICK_MS;

impl<R> Worker<R> {
    /// Tells the leader of group 0 how things are here; and if that is this node, decides what is
    /// next.
    pub(super) fn report(&mut self, now: Now, effects: &mut Vec<Effect<R>>) {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(REPORT_TICKS) {
            return;
        }
        let groups: Vec<GroupReport> = self
            .groups()
            // What is committed and not yet applied may change who the members are, and what only
            // this replica knows of them may be forgotten. Who is no member by this report is
            // destroyed.
            .filter(|(_, group)| group.leads_in_full() && group.replica.quorum_knows_members())
            .map(|(number, group)| group_report(GroupId(number as u32), &group.replica))
            .collect();
        let leads = groups
            .iter()
            .map(|report| (report.group, report.term))
            .collect();
        effects.push(Effect::Notify {
            to: None,
            notice: Notice::Leads(leads),
        });
        self.tell_what_it_could_lead(effects);
        self.tell_pulses(effects);
        let node = self.node_report();
        match self.leader_of_meta() {
            Some(leader) if leader == self.parts.node => {
                let reports = self.hearing(now);
                reports.hear_node(now.boot_ms, node);
                for report in groups {
                    reports.hear_group(now.boot_ms, report);
                }
                self.direct(now, effects);
            }
            Some(leader) => {
                self.meta_duties.reports = None;
                effects.push(Effect::Notify {
                    to: Some(leader),
                    notice: Notice::Reports(Box::new((node, groups))),
                });
            }
            None => self.meta_duties.reports = None,
        }
    }

    /// Takes what another node says of itself and of the groups it leads.
    pub(super) fn hear(&mut self, node: NodeReport, groups: Vec<GroupReport>, now: Now) {
        if self.leader_of_meta() != Some(self.parts.node) {
            return;
        }
        let reports = self.hearing(now);
        reports.hear_node(now.boot_ms, node);
        for report in groups {
            reports.hear_group(now.boot_ms, report);
        }
    }

    /// Takes what an audit found, if this node leads group 0.
    pub(super) fn hear_audit(&mut self, report: AuditReport, now: Now) {
        if self.leader_of_meta() == Some(self.parts.node) {
            self.hearing(now).hear_audit(report);
        }
    }

    /// Does what the leader of group 0 wants done here.
    pub(super) fn carry_out(&mut self, term: u64, order: Order, effects: &mut Vec<Effect<R>>) {
        if term < self.meta_duties.term {
            return;
        }
        self.meta_duties.term = term;
        match order {
            // Only ever for group 0 itself.
            Order::Record(change) => self.record(change),
            Order::BeginReplica {
                group,
                replica,
                directory,
            } => self.begin_replica(group, replica, directory, effects),
            Order::AddLearner { group, replica } => {
                self.change_members(group, MemberChange::AddLearner(replica.0));
            }
            Order::Promote { group, add, remove } => {
                let change = match remove {
                    Some(remove) => MemberChange::Replace {
                        add: add.0,
                        remove: remove.0,
                    },
                    None => MemberChange::Promote(add.0),
                };
                self.change_members(group, change);
            }
            Order::RemoveLearner { group, replica } => {
                self.change_members(group, MemberChange::RemoveLearner(replica.0));
            }
            Order::RemoveVoter { group, replica } => {
                self.change_members(group, MemberChange::RemoveVoter(replica.0));
            }
            Order::LeaveJoint { group } => self.change_members(group, MemberChange::LeaveJoint),
            Order::Transfer { group, to } => {
                if let Some(slot) = self.slots.get_mut(group.index())
                    && let Some(led) = &mut slot.group
                    && !self.is_handing_over
                {
                    led.replica.transfer_leadership(to.0);
                    self.touched.insert(group.index());
                }
            }
            Order::Destroy { group, replica } => self.destroy(group, replica, effects),
        }
    }

    /// Leaves a joint configuration that nobody is about to leave: whoever proposed it may be gone.
    pub(super) fn finish_joint_changes(&mut self) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(group) = &mut slot.group else {
                continue;
            };
            let replica = &mut group.replica;
            if !replica.configuration().is_joint() || !replica.is_settled_leader() {
                continue;
            }
            let has_begun = match replica.propose_change(MemberChange::LeaveJoint) {
                Ok(_) => true,
                // It is on its way out itself, and somebody who stays must go on.
                Err(ChangeError::RemovesLeader) => {
                    let mut stay = replica.configuration().voters.clone().into_iter();
                    stay.any(|voter| replica.transfer_leadership(voter))
                }
                Err(_) => false,
            };
            if has_begun {
                self.touched.insert(number);
            }
        }
    }

    /// Takes a message of raft.
    ///
    /// One for a replica that is not here is dropped, whoever sends it: it was never begun, or it
    /// is gone, or it has been forgotten, and only group 0 can tell which.
    pub(super) fn message(
        &mut self,
        id: GroupId,
        from: u64,
        payload: &Bytes,
        effects: &mut Vec<Effect<R>>,
    ) {
        let Some(slot) = self.slots.get_mut(id.index()) else {
            return;
        };
        if slot.group.is_none() {
            return;
        }
        let may_send = |sender: u64| ReplicaId(sender).node() == from;
        self.step_replica(id, payload, may_send, effects);
    }

    /// Tells a replica that is here of a message.
    pub(super) fn step_replica(
        &mut self,
        id: GroupId,
        payload: &Bytes,
        may_send: impl FnOnce(u64) -> bool,
        effects: &mut Vec<Effect<R>>,
    ) {
        let Some(group) = &mut self.slots[id.index()].group else {
            return;
        };
        self.touched.insert(id.index());
        let may_stand = group.has_caught_up() && !self.is_handing_over;
        group.replica.set_may_stand(may_stand);
        // What a peer sends may end this replica, but never the node.
        match group.replica.step_from(payload, may_send) {
            Ok(()) => {}
            Err(StepError::Contradiction(contradiction)) => {
                let kind = match contradiction {
                    Contradiction::LostEntries { .. } => FaultKind::Lasting,
                    Contradiction::CommittedDiffers { .. } => FaultKind::Disputed,
                };
                self.fail(id, kind, contradiction.to_string(), effects);
            }
            Err(StepError::AheadOfLeader { from, .. }) if !group.doubts(from) => {}
            Err(error @ StepError::AheadOfLeader { .. }) => {
                tracing::error!(group = id.0, %error, "a follower contradicts its leader: one of \
                    them has forgotten something");
            }
            Err(error) => tracing::debug!(%error, "a peer's message was not taken"),
        }
    }

    /// Takes what another node tells.
    pub(super) fn notice(
        &mut self,
        from: u64,
        notice: Notice,
        now: Now,
        effects: &mut Vec<Effect<R>>,
    ) {
        match notice {
            Notice::Leads(leads) => {
                for (group, term) in leads {
                    let heard_term = self.meta_duties.heard.map_or(0, |(_, term)| term);
                    if group == GroupId::META && term >= heard_term {
                        self.meta_duties.heard = Some((from, term));
                    }
                    let is_here = self
                        .slots
                        .get(group.index())
                        .is_none_or(|slot| slot.group.is_some());
                    if !is_here {
                        self.cluster.publish_hint(group.index(), from, term);
                        self.leads_heard.insert(group.index(), now.boot_ms);
                    }
                }
            }
            Notice::Fit(groups) => {
                self.fit.insert(from, groups.into_iter().collect());
            }
            Notice::Reports(reports) => self.hear(reports.0, reports.1, now),
            Notice::Hash(hash) => self.hear_hash(*hash, now),
            Notice::Audited(report) => self.hear_audit(*report, now),
            Notice::Pulse(told) => self.hear_pulses(from, *told, effects),
            Notice::Order { term, order } => self.carry_out(term, *order, effects),
        }
    }

    /// A leader says twice a second that it leads. Of a group that has no replica here, nothing is
    /// known of its leader once it has said nothing for long.
    pub(super) fn forget_leaders(&mut self, now: Now) {
        let cluster = &self.cluster;
        let slots = &self.slots;
        self.leads_heard.retain(|number, heard_boot_ms| {
            let is_over = now.boot_ms >= *heard_boot_ms + LEADS_FOR_MS;
            let is_absent = slots.get(*number).is_some_and(|slot| slot.group.is_none());
            if is_over && is_absent {
                cluster.publish_absent(*number);
            }
            !is_over && is_absent
        });
    }

    /// Begins a replica that group 0 has allotted to this directory. Ids are allotted once, in
    /// ascending order: it takes the place of whatever was here.
    fn begin_replica(
        &mut self,
        id: GroupId,
        own: ReplicaId,
        directory: Directory,
        effects: &mut Vec<Effect<R>>,
    ) {
        let is_new = self
            .slots
            .get(id.index())
            .is_some_and(|slot| own > slot.newest);
        let is_own = own.node() == self.parts.node
            && directory.0 == self.parts.directory
            && own.generation() >= self.parts.generation_floor.max(1);
        if !is_new || !is_own {
            return;
        }
        // Whatever was here gives way, and has not failed.
        let gives_way = self.slots[id.index()].group.is_some();
        self.stop(id, Failure::OutcomeUnknown, effects);
        tracing::info!(group = id.0, replica = %own, "a new replica begins");
        let group = match open::newcomer(id, own, &self.parts, &mut self.writes) {
            Ok(group) => group,
            Err(error) => {
                tracing::error!(group = id.0, %error, "a new replica cannot begin");
                if gives_way {
                    let why = format!("replica {own} cannot begin");
                    self.fail(id, FaultKind::Passing, why, effects);
                }
                return;
            }
        };
        self.after_write.push(Effect::Chore(Chore::DropCheckpoints {
            group: id,
            before: u64::MAX,
        }));
        self.slots[id.index()] = Slot::with(group, own);
        self.touched.insert(id.index());
        self.beginning.insert(id.index());
    }

    /// A replica is a member no more, and never will be: what it left is deleted.
    fn destroy(&mut self, id: GroupId, replica: ReplicaId, effects: &mut Vec<Effect<R>>) {
        let is_here = self.slots.get(id.index()).is_some_and(|slot| {
            let fault = slot.fault.as_ref().map(|fault| fault.kind);
            // What is disputed is kept for whoever has to decide.
            let may_go = fault.is_some_and(|kind| kind != FaultKind::Disputed);
            slot.newest == replica && (slot.group.is_some() || may_go)
        });
        if !is_here {
            return;
        }
        // The order may rest on what a deposed leader said last. Who votes by his own log, and
        // hears his leader, is no replica that is gone; one that was taken out hears nobody for
        // longer than an election timeout.
        let is_led_as_voter = self.slots[id.index()].group.as_ref().is_some_and(|group| {
            let members = group.replica.configuration();
            let votes =
                members.voters.contains(&replica.0) || members.outgoing.contains(&replica.0);
            votes && group.replica.leader() != 0
        });
        if is_led_as_voter {
            tracing::info!(group = id.0, %replica, "a replica that votes is not destroyed");
            return;
        }
        tracing::info!(group = id.0, %replica, "a replica was moved away; its data are deleted");
        self.stop(id, Failure::NotLeader { leader: None }, effects);
        self.slots[id.index()] = Slot::vacant(replica);
        self.writes.push(Write::Forget(id));
        let record = SlotRecord {
            newest: replica,
            standing: Standing::Gone,
        };
        self.writes.put(Record::Replica(id), record.to_bytes());
        self.after_write.push(Effect::Chore(Chore::DropCheckpoints {
            group: id,
            before: u64::MAX,
        }));
        self.after_write.push(self.free_log());
        if let Some(shard) = id.shard() {
            self.after_write.push(Effect::Record(Page::Forget(id)));
            let shown = Unwanted::new(self.view.forget(shard));
            self.after_write.push(Effect::Chore(Chore::GiveBack(shown)));
        }
    }

    fn change_members(&mut self, id: GroupId, change: MemberChange) {
        let Some(group) = self
            .slots
            .get_mut(id.index())
            .and_then(|slot| slot.group.as_mut())
        else {
            return;
        };
        match group.replica.propose_change(change) {
            Ok(_) => {
                tracing::info!(group = id.0, ?change, "changing the members");
                self.touched.insert(id.index());
            }
            // It is ordered again as long as it is wanted.
            Err(error) => tracing::debug!(group = id.0, ?change, %error, "not now"),
        }
    }

    /// Founds the registry, or compares what is with what should be.
    fn direct(&mut self, now: Now, effects: &mut Vec<Effect<R>>) {
        let Some(group) = &self.slots[0].group else {
            return;
        };
        let State::Meta(meta) = &group.state else {
            return;
        };
        let Some((term, reports)) = &self.meta_duties.reports else {
            return;
        };
        let term = *term;
        if !meta.registry.is_founded() {
            if let Some(founding) = self.parts.founding.clone() {
                self.record(founding.to_change(self.parts.groups));
            }
            return;
        }
        let decision = decide(&meta.registry, reports, now.boot_ms, &self.parts.policy);
        let orders: Vec<(Option<u64>, Order)> = decision
            .orders
            .iter()
            .map(|order| (recipient(order, reports), order.clone()))
            .collect();
        self.cluster
            .publish_decision(&meta.registry, reports, decision, now.boot_ms);
        for (recipient, order) in orders {
            match recipient {
                Some(node) if node != self.parts.node => effects.push(Effect::Notify {
                    to: Some(node),
                    notice: Notice::Order {
                        term,
                        order: Box::new(order),
                    },
                }),
                _ => self.carry_out(term, order, effects),
            }
        }
    }

    /// Publishes the registry where it has changed.
    pub(super) fn publish_registry(&mut self, effects: &mut Vec<Effect<R>>) {
        let Some(group) = &self.slots[0].group else {
            return;
        };
        let State::Meta(meta) = &group.state else {
            return;
        };
        if group.applied_index == self.registry_index {
            return;
        }
        self.registry_index = group.applied_index;
        if self
            .cluster
            .publish_registry(&meta.registry, group.applied_index)
        {
            effects.push(Effect::NodesChanged);
        }
    }

    /// Has group 0 write something down. Nobody waits for it: it is said again if it is lost.
    fn record(&mut self, change: Change) {
        let mut commands = CommandsBuilder::default();
        commands.push_registry(&RegistryCommand {
            principal: self.parts.principal.clone(),
            request: None,
            change,
        });
        if let Some(group) = &mut self.slots[0].group {
            group.propose_unasked(commands.take());
            self.touched.insert(0);
        }
    }

    fn hearing(&mut self, now: Now) -> &mut Reports {
        let term = self.slots[0]
            .group
            .as_ref()
            .map_or(0, |group| group.replica.term());
        let reports = &mut self.meta_duties.reports;
        if reports.as_ref().is_none_or(|(of, _)| *of != term) {
            *reports = None;
        }
        let (_, reports) = reports.get_or_insert_with(|| (term, Reports::new(now.boot_ms)));
        reports
    }

    /// The node that leads group 0; this one only once it may speak for it.
    pub(super) fn leader_of_meta(&self) -> Option<u64> {
        let Some(meta) = &self.slots[0].group else {
            // Leaders tell everybody.
            return self.cluster.group(GroupId::META).leader;
        };
        // Nobody talks to a replica that was replaced: it would wait for ever, or follow for ever
        // the leader that took it out, and the node would never be heard of again.
        let own_term = meta.replica.term();
        let is_led = meta.replica.leader() != 0;
        let heard = self.meta_duties.heard.filter(|(node, term)| {
            let is_later = *term > own_term || (*term == own_term && !is_led);
            is_later && *node != self.parts.node
        });
        if heard.is_some() || !is_led {
            return heard.map(|(node, _)| node);
        }
        let leader = ReplicaId(meta.replica.leader()).node();
        // By a registry that lacks what leaders before this one have done, a voter may look like
        // one that is gone.
        let may_speak = leader != self.parts.node || meta.leads_in_full();
        (leader != 0 && may_speak).then_some(leader)
    }

    fn node_report(&self) -> NodeReport {
        let slots = self.slots.iter().enumerate();
        // One that begins is told once that is durable.
        let begun = slots.filter(|(number, _)| !self.beginning.contains(number));
        let replicas = begun.map(|(number, slot)| {
            let fault = slot.fault.as_ref().map(|fault| fault.kind);
            let state = match (&slot.group, fault) {
                (Some(group), _) if group.replica.origin().index == 0 => ReplicaState::Installing,
                (Some(group), _) if !group.coming_back.is_back() => ReplicaState::CatchingUp,
                (Some(_), _) => ReplicaState::Serving,
                (None, Some(FaultKind::Disputed)) => ReplicaState::Disputed,
                (None, Some(FaultKind::Passing | FaultKind::Lasting)) => ReplicaState::Failed,
                (None, None) => ReplicaState::Gone,
            };
            HostedReplica {
                group: GroupId(number as u32),
                replica: slot.newest,
                state,
            }
        });
        let health = self.cluster.health();
        NodeReport {
            node: self.parts.node,
            directory: Directory(self.parts.directory),
            free_bytes: health.free_bytes,
            write_p50_us: health.write_p50_us,
            write_p99_us: health.write_p99_us,
            recent_write_us: health.recent_write_us,
            short_of: health.short_of(),
            newest_version: self.parts.speaks.newest,
            replicas: replicas.collect(),
        }
    }
}

fn group_report(group: GroupId, replica: &Replica) -> GroupReport {
    let ids = |ids: &[u64]| -> BTreeSet<ReplicaId> { ids.iter().copied().map(ReplicaId).collect() };
    let Configuration {
        voters,
        outgoing,
        learners,
        learners_next,
    } = replica.configuration();
    let own = ReplicaId(replica.replica_id());
    let mut progress: BTreeMap<ReplicaId, Progress> = replica
        .followers()
        .into_iter()
        .map(|follower| {
            let progress = Progress {
                matched: follower.matched,
                recently_active: follower.is_active,
                snapshot_bytes: follower.is_installing.then_some(0),
            };
            (ReplicaId(follower.replica), progress)
        })
        .collect();
    progress.insert(
        own,
        Progress {
            matched: replica.last_index(),
            recently_active: true,
            snapshot_bytes: None,
        },
    );
    let mut learning = ids(learners);
    learning.extend(ids(learners_next));
    GroupReport {
        group,
        term: replica.term(),
        leader: own,
        voters: ids(voters),
        outgoing: ids(outgoing),
        learners: learning,
        last_index: replica.last_index(),
        commit: replica.commit(),
        progress,
    }
}

/// The node that carries an order out; none where that is the leader of group 0 itself.
fn recipient(order: &Order, reports: &Reports) -> Option<u64> {
    let group = match order {
        Order::Record(_) => return None,
        Order::Destroy { replica, .. } | Order::BeginReplica { replica, .. } => {
            return Some(replica.node());
        }
        Order::AddLearner { group, .. }
        | Order::Promote { group, .. }
        | Order::RemoveLearner { group, .. }
        | Order::RemoveVoter { group, .. }
        | Order::LeaveJoint { group }
        | Order::Transfer { group, .. } => *group,
    };
    Some(reports.group(group)?.leader.node())
}
