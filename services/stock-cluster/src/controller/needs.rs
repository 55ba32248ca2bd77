//! What should be moved next: the most urgent need of all groups that can be met now.

use super::situation::Situation;
use super::{Decision, Order, Reason};
use crate::ids::{GroupId, ReplicaId};
use crate::registry::Placement;
use crate::registry::command::{BeginMove, Change, Why};
use crate::reports::GroupReport;

/// Something a group needs, and whether it can be had now.
enum Need {
    Begin(BeginMove),
    Wait(Reason),
}

impl Situation<'_> {
    /// Begins the most urgent move; says of the others what they wait for.
    pub(super) fn begin_next(&self, decision: &mut Decision) {
        let mut next: Option<BeginMove> = None;
        let mut needs = false;
        for (group, placement) in self.registry.placements() {
            let (Some(report), None) = (self.report(group), self.registry.move_of(group)) else {
                continue;
            };
            if !report.outgoing.is_empty() {
                continue;
            }
            if report.voters != placement.voters {
                // The group itself knows best. While a change is on its way this may happen more
                // than once.
                decision.order(Order::Record(Change::Correct {
                    group,
                    term: report.term,
                    voters: report.voters.iter().copied().collect(),
                }));
                decision.wait(Some(group), Reason::VotersDiffer);
                continue;
            }
            match self.need(report, placement) {
                None => {}
                Some(Need::Wait(reason)) => {
                    // What no node has room for may wait for an operator, and all else is balanced
                    // meanwhile.
                    needs |= reason != Reason::NoRoom;
                    decision.wait(Some(group), reason);
                }
                Some(Need::Begin(begin)) => {
                    needs = true;
                    let is_urgent = next.as_ref().is_none_or(|next| begin.why < next.why);
                    let waits = if is_urgent {
                        next.replace(begin)
                    } else {
                        Some(begin)
                    };
                    if let Some(waits) = waits {
                        decision.wait(Some(waits.group), Reason::MoveUnderWay);
                    }
                }
            }
        }
        if !needs {
            next = self.balance();
        }
        if let Some(next) = next {
            decision.begin(next);
        }
    }

    fn need(&self, report: &GroupReport, placement: &Placement) -> Option<Need> {
        let group = report.group;
        let voters = &placement.voters;
        let goal = self.goal(group, voters);
        let wanted = self.registry.replication() as usize;
        let lost = |replica: &&ReplicaId| self.loss(group, **replica).is_some();
        if let Some(replica) = voters.iter().find(lost) {
            let why = self.loss(group, *replica).unwrap_or(Why::NodeAway);
            if voters.len() > wanted {
                return Some(self.begin(report, None, Some(*replica), Why::TooMany));
            }
            let stays = matches!(why, Why::Failed | Why::DiskReplaced);
            let there = Some(replica.node()).filter(|node| stays && self.is_usable(*node));
            return Some(match there.or_else(|| self.target(voters)) {
                Some(node) => self.begin(report, Some(node), Some(*replica), why),
                None => Need::Wait(Reason::NoRoom),
            });
        }
        if voters.len() < goal {
            return Some(match self.target(voters) {
                Some(node) => self.begin(report, Some(node), None, Why::TooFew),
                None => Need::Wait(Reason::NoRoom),
            });
        }
        if let Some(wish) = self.registry.wish(group) {
            let from = voters.iter().find(|voter| voter.node() == wish.from);
            return Some(match self.is_usable(wish.to) {
                true => self.begin(report, Some(wish.to), from.copied(), Why::Asked),
                false => Need::Wait(Reason::NoRoom),
            });
        }
        let draining = voters.iter().find(|voter| !self.is_active(voter.node()));
        if let Some(replica) = draining {
            if voters.len() > wanted {
                return Some(self.begin(report, None, Some(*replica), Why::TooMany));
            }
            return Some(match self.target(voters) {
                Some(node) => self.begin(report, Some(node), Some(*replica), Why::Draining),
                None => Need::Wait(Reason::NoRoom),
            });
        }
        // Two stay two: a second copy is worth having even where it bears no failure.
        let is_even = voters.len() >= 4 && voters.len().is_multiple_of(2) && voters.len() > goal;
        if voters.len() > wanted || is_even {
            let fullest = voters
                .iter()
                .max_by_key(|voter| (self.load(voter.node()), **voter != report.leader, **voter));
            return fullest.map(|replica| self.begin(report, None, Some(*replica), Why::TooMany));
        }
        None
    }

    /// A move from the fullest to the emptiest node: where every node is up, since one that is away
    /// for a moment would have all its replicas back the next.
    fn balance(&self) -> Option<BeginMove> {
        let mut active = self.active();
        if active.any(|(node, _)| !self.is_up(node) && !self.is_away(node)) {
            return None;
        }
        let (from, to) = self.imbalance()?;
        let movable = self.registry.placements().filter_map(|(group, placement)| {
            let report = self.report(group)?;
            let on = |node: u64| placement.voters.iter().find(|v| v.node() == node).copied();
            let replica = on(from).filter(|_| on(to).is_none())?;
            let is_calm = self.registry.move_of(group).is_none()
                && self.registry.wish(group).is_none()
                && report.outgoing.is_empty()
                && report.voters == placement.voters
                && report
                    .voters
                    .iter()
                    .all(|voter| self.is_sound(report, *voter));
            is_calm.then_some((report.leader == replica, group, replica))
        });
        // Followers first: to move them costs no hand-over.
        let (_, group, replica) = movable.min()?;
        Some(BeginMove {
            group,
            add: Some(to),
            remove: Some(replica),
            why: Why::Balance,
        })
    }

    fn begin(
        &self,
        report: &GroupReport,
        add: Option<u64>,
        remove: Option<ReplicaId>,
        why: Why,
    ) -> Need {
        let group: GroupId = report.group;
        // The new replica has no id yet; any that is no voter's will do.
        let comes = add.map(|node| ReplicaId::new(u32::MAX, node));
        match self.obstacle(report, comes, remove) {
            // It works until it gives way, and the others are too few to go on without it.
            Some(replica) if Some(replica) == remove && self.works(report, replica) => {
                Need::Wait(Reason::TooFewCopies { replica })
            }
            Some(replica) => Need::Wait(Reason::Unsound { replica }),
            None => Need::Begin(BeginMove {
                group,
                add,
                remove,
                why,
            }),
        }
    }
}
