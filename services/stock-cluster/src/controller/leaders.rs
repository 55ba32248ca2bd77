//! Who leads: off nodes that are being emptied, have a slow disk or too little room, to the nodes
//! that operators prefer, and in equal numbers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::situation::Situation;
use super::{Decision, LEADER_DIFFERENCE_MAX, Order, Reason, TRANSFERS_PER_DECISION_MAX};
use crate::ids::{GroupId, ReplicaId};
use crate::reports::GroupReport;

impl Situation<'_> {
    /// Orders hand-overs, a few at a time.
    pub(super) fn hand_over(&self, decision: &mut Decision) {
        let already = |decision: &Decision, of: GroupId| {
            let mut orders = decision.orders.iter();
            orders.any(|order| matches!(order, Order::Transfer { group, .. } if *group == of))
        };
        let mut left = TRANSFERS_PER_DECISION_MAX;
        // Group 0 last: its next leader begins to listen anew.
        let (meta, stock): (Vec<GroupId>, Vec<GroupId>) = self
            .registry
            .placements()
            .map(|(group, _)| group)
            .partition(|group| *group == GroupId::META);
        for group in stock.into_iter().chain(meta) {
            let Some(report) = self.report(group) else {
                continue;
            };
            if left == 0 || already(decision, group) || !report.outgoing.is_empty() {
                continue;
            }
            let node = report.leader.node();
            let must_leave = !self.is_active(node);
            let to = if must_leave || self.is_unfit(node) {
                let to = self.next_leader(report);
                let is_fitter = |to: &ReplicaId| self.fitness(to.node()) > self.fitness(node);
                let to = to.filter(|to| must_leave || is_fitter(to));
                if to.is_none() {
                    decision.wait(Some(group), Reason::NoOtherLeader);
                }
                to
            } else {
                self.preferred(report)
            };
            if let Some(to) = to {
                left -= 1;
                decision.order(Order::Transfer { group, to });
            }
        }
        // While anything else is being handed over, the numbers are about to change.
        let is_calm = !decision
            .orders
            .iter()
            .any(|order| matches!(order, Order::Transfer { .. }));
        if is_calm && let Some((group, to)) = self.leader_to_balance() {
            decision.order(Order::Transfer { group, to });
        }
    }

    /// The sound voter on the active node that leads least, of those that are the fittest; not the
    /// leader, and not one about to leave.
    pub(super) fn next_leader(&self, report: &GroupReport) -> Option<ReplicaId> {
        let led = self.led();
        let fit = report
            .voters
            .iter()
            .filter(|voter| self.could_lead(report, **voter));
        fit.min_by_key(|voter| {
            let node = voter.node();
            let leads = led.get(&node).map_or(0, Vec::len);
            (Reverse(self.fitness(node)), leads, **voter)
        })
        .copied()
    }

    /// A sound voter on a node that is to be emptied; not the leader, and not the one that its move
    /// takes out.
    pub(super) fn leader_until_emptied(&self, report: &GroupReport) -> Option<ReplicaId> {
        let mut voters = report.voters.iter().copied();
        voters.find(|voter| self.can_lead(report, *voter))
    }

    fn could_lead(&self, report: &GroupReport, voter: ReplicaId) -> bool {
        self.is_active(voter.node()) && self.can_lead(report, voter)
    }

    fn can_lead(&self, report: &GroupReport, voter: ReplicaId) -> bool {
        let leaves = self.registry.move_of(report.group).and_then(|m| m.remove);
        voter != report.leader
            && Some(voter) != leaves
            && self.is_up(voter.node())
            && self.is_sound(report, voter)
    }

    /// Where an operator wants the group to be led, if it is led elsewhere and can be there.
    fn preferred(&self, report: &GroupReport) -> Option<ReplicaId> {
        let node = self.registry.preferred_leader(report.group)?;
        let mut voters = report.voters.iter().copied();
        let there = voters.find(|voter| voter.node() == node)?;
        let can = self.could_lead(report, there) && !self.is_unfit(node);
        can.then_some(there)
    }

    /// The groups that each active node leads.
    fn led(&self) -> BTreeMap<u64, Vec<&GroupReport>> {
        let up = self
            .active()
            .map(|(node, _)| node)
            .filter(|node| self.is_up(*node));
        let mut led: BTreeMap<u64, Vec<&GroupReport>> = up.map(|node| (node, Vec::new())).collect();
        for (group, _) in self.registry.placements() {
            let Some(report) = self.report(group) else {
                continue;
            };
            if let Some(groups) = led.get_mut(&report.leader.node()) {
                groups.push(report);
            }
        }
        led
    }

    /// One hand-over that brings the numbers of groups led nearer to each other. Where the fullest
    /// node shares no group with one that leads fewer, others in between pass leadership on: the
    /// last of them first, so that no node ever leads more than before.
    fn leader_to_balance(&self) -> Option<(GroupId, ReplicaId)> {
        let led = self.led();
        let count = |node: u64| led.get(&node).map_or(0, Vec::len);
        let mut sources: Vec<u64> = led.keys().copied().collect();
        sources.sort_by_key(|node| (usize::MAX - count(*node), *node));
        for source in sources {
            let is_sink = |node: u64| count(node) + LEADER_DIFFERENCE_MAX < count(source);
            let mut seen = BTreeSet::from([source]);
            let mut open = VecDeque::from([source]);
            while let Some(from) = open.pop_front() {
                for report in led.get(&from).into_iter().flatten() {
                    for voter in &report.voters {
                        let to = voter.node();
                        if seen.contains(&to) || !self.may_pass_on(report, *voter) {
                            continue;
                        }
                        if is_sink(to) {
                            return Some((report.group, *voter));
                        }
                        seen.insert(to);
                        open.push_back(to);
                    }
                }
            }
        }
        None
    }

    fn may_pass_on(&self, report: &GroupReport, to: ReplicaId) -> bool {
        let group = report.group;
        let is_settled =
            self.reports.led_for_ms(group, self.now_ms) >= self.policy.leader_settle_ms;
        let is_preferred = self.registry.preferred_leader(group) == Some(report.leader.node());
        is_settled
            && !is_preferred
            && report.outgoing.is_empty()
            && self.registry.move_of(group).is_none()
            && self.could_lead(report, to)
            && !self.is_unfit(to.node())
            // A new leader of group 0 has heard too little to be sure.
            && !self.reports.may_disk_be_slow(to.node())
    }
}
