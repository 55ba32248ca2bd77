//! Moves that are under way: the next step of each.

use super::situation::Situation;
use super::{Decision, GIVE_UP_AFTER_MS, MoveProgress, Order, PARK_AFTER_MS, Reason, Step};
use crate::ids::{GroupId, ReplicaId};
use crate::limits::MOVES_MAX;
use crate::registry::Move;
use crate::registry::command::{Change, EndMove};
use crate::reports::{GroupReport, Progress, ReplicaState};

impl Situation<'_> {
    /// Takes every move a step further; returns how many are not parked.
    pub(super) fn carry_on(&self, decision: &mut Decision) -> usize {
        let mut running = self.registry.moves().filter(|(_, m)| !m.parked).count();
        for (group, under_way) in self.registry.moves() {
            let step = match (under_way.parked, self.report(group)) {
                (false, Some(report)) => self.step(report, under_way, decision),
                (false, None) => self.unheard(group, under_way, decision),
                (true, Some(_)) if running < MOVES_MAX => {
                    running += 1;
                    decision.order(park(group, under_way, false));
                    Step::Parked
                }
                (true, _) => Step::Parked,
            };
            decision.moves.push(MoveProgress {
                group,
                under_way: under_way.clone(),
                step,
            });
        }
        running
    }

    /// A move whose outcome cannot be seen is never ended: what it added may vote by now.
    fn unheard(&self, group: GroupId, under_way: &Move, decision: &mut Decision) -> Step {
        if self.reports.group_silent_ms(group, self.now_ms) >= PARK_AFTER_MS {
            decision.order(park(group, under_way, true));
        }
        Step::Unheard
    }

    fn step(&self, report: &GroupReport, under_way: &Move, decision: &mut Decision) -> Step {
        let group = report.group;
        if !report.outgoing.is_empty() {
            return Step::Changing;
        }
        let leaves = under_way.remove.filter(|gone| report.voters.contains(gone));
        let comes = under_way.add.filter(|add| !report.voters.contains(add));
        let Some(comes) = comes else {
            return match leaves {
                Some(leaves) => self.take_out(report, under_way, leaves, decision),
                None => end(report, under_way, decision),
            };
        };
        let obstacle = self.obstacle(report, Some(comes), leaves);
        let gives_up = self.is_hopeless(group, comes) || self.is_lost(group, obstacle);
        match (report.learners.contains(&comes), gives_up) {
            (true, true) => {
                let replica = comes;
                decision.order(Order::RemoveLearner { group, replica });
                Step::GivingUp
            }
            (false, true) => end(report, under_way, decision),
            (false, false) => {
                if let Some(replica) = obstacle {
                    decision.wait(Some(group), Reason::Unsound { replica });
                } else if leaves.is_some_and(|leaves| self.is_well_again(group, leaves, comes)) {
                    return end(report, under_way, decision);
                } else if self.is_begun(group, comes) {
                    let replica = comes;
                    decision.order(Order::AddLearner { group, replica });
                } else if comes.node() == report.leader.node() {
                    // What is on its node gives way to it, and hands over before it does.
                    return self.lead_elsewhere(report, decision);
                } else {
                    self.begin_replica(group, comes, decision);
                }
                Step::Adding
            }
            (true, false) => self.promote(report, comes, leaves, decision),
        }
    }

    fn promote(
        &self,
        report: &GroupReport,
        comes: ReplicaId,
        leaves: Option<ReplicaId>,
        decision: &mut Decision,
    ) -> Step {
        let group = report.group;
        if !self.is_sound(report, comes) {
            let progress = report.progress.get(&comes).copied();
            let Progress {
                matched,
                snapshot_bytes,
                ..
            } = progress.unwrap_or_default();
            let lag = report.last_index.saturating_sub(matched);
            return Step::CatchingUp {
                lag,
                snapshot_bytes,
            };
        }
        if let Some(replica) = self.obstacle(report, Some(comes), leaves) {
            decision.wait(Some(group), Reason::Unsound { replica });
            return Step::Changing;
        }
        // A leader does not go in the change that it leads: it hands over first. Where nobody else
        // could lead, as where it is the only voter, the new replica comes first and is then handed
        // to.
        let leads = leaves == Some(report.leader);
        if leads && self.next_leader(report).is_some() {
            return self.lead_elsewhere(report, decision);
        }
        decision.order(Order::Promote {
            group,
            add: comes,
            remove: leaves.filter(|_| !leads),
        });
        Step::Changing
    }

    fn take_out(
        &self,
        report: &GroupReport,
        under_way: &Move,
        leaves: ReplicaId,
        decision: &mut Decision,
    ) -> Step {
        let group = report.group;
        let obstacle = self.obstacle(report, None, Some(leaves));
        if self.is_lost(group, obstacle) {
            return end(report, under_way, decision);
        }
        if let Some(replica) = obstacle {
            decision.wait(Some(group), Reason::Unsound { replica });
            return Step::Changing;
        }
        if leaves == report.leader {
            return self.lead_elsewhere(report, decision);
        }
        let replica = leaves;
        decision.order(Order::RemoveVoter { group, replica });
        Step::Changing
    }

    /// Before a leader leaves, it hands over: that takes callers a few milliseconds instead of an
    /// election. Where only nodes are left that are to be emptied themselves, or replicas that are
    /// to be made anew, one of them leads until then.
    fn lead_elsewhere(&self, report: &GroupReport, decision: &mut Decision) -> Step {
        let group = report.group;
        let heir = self.next_leader(report);
        let heir = heir.or_else(|| self.leader_until_emptied(report));
        match heir.or_else(|| self.leader_until_made_anew(report)) {
            Some(to) => decision.order(Order::Transfer { group, to }),
            None => decision.wait(Some(group), Reason::NoOtherLeader),
        }
        Step::HandingOver
    }

    fn leader_until_made_anew(&self, report: &GroupReport) -> Option<ReplicaId> {
        let leaves = self.registry.move_of(report.group).and_then(|m| m.remove);
        let mut voters = report.voters.iter().copied();
        voters.find(|voter| {
            *voter != report.leader
                && Some(*voter) != leaves
                && self.is_up(voter.node())
                && self.works(report, *voter)
        })
    }

    /// Whether what stands in a move's way will stay there. Then the move ends where it is, and
    /// what is lost is seen to first.
    fn is_lost(&self, group: GroupId, obstacle: Option<ReplicaId>) -> bool {
        obstacle.is_some_and(|replica| self.loss(group, replica).is_some())
    }

    /// Whether a replica that failed works again, after a restart, while the one that is to take
    /// its place on the same node has not begun: it would be deleted for it.
    fn is_well_again(&self, group: GroupId, leaves: ReplicaId, comes: ReplicaId) -> bool {
        leaves.node() == comes.node()
            && !self.is_begun(group, comes)
            && self.state(group, leaves) == Some(ReplicaState::Serving)
            && self.loss(group, leaves).is_none()
    }

    /// Whether a replica that is to come never will.
    fn is_hopeless(&self, group: GroupId, comes: ReplicaId) -> bool {
        let node = comes.node();
        !self.is_active(node)
            || self.loss(group, comes).is_some()
            || self.reports.node_silent_ms(node, self.now_ms) >= GIVE_UP_AFTER_MS
    }
}

fn end(report: &GroupReport, under_way: &Move, decision: &mut Decision) -> Step {
    decision.end(EndMove {
        group: report.group,
        number: under_way.number,
        term: report.term,
        voters: report.voters.iter().copied().collect(),
    });
    Step::Ending
}

fn park(group: GroupId, under_way: &Move, parked: bool) -> Order {
    Order::Record(Change::Park {
        group,
        number: under_way.number,
        parked,
    })
}
