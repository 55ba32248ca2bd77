//! Who should lead what.

use stock_cluster::{GroupId, ReplicaId};

use super::Worker;
use crate::event::Effect;
use crate::notice::Notice;
use crate::state::State;

impl<R> Worker<R> {
    /// On a fresh start nobody leads yet: the node that should stands for election as soon as it
    /// can win one, instead of waiting for a timeout.
    pub(super) fn campaign_where_preferred(&mut self) {
        if self.is_handing_over {
            return;
        }
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(group) = &mut slot.group else {
                continue;
            };
            let voters = &group.replica.configuration().voters;
            let up = voters
                .iter()
                .filter(|voter| self.up.contains(&ReplicaId(**voter).node()));
            let has_majority = (up.count() + 1) * 2 > voters.len();
            let is_preferred = preferred(number, voters) == Some(group.replica.replica_id());
            if is_preferred && has_majority && group.replica.leader() == 0 && group.has_caught_up()
            {
                group.replica.campaign();
                self.touched.insert(number);
            }
        }
    }

    /// Says which groups this node could lead.
    pub(super) fn tell_what_it_could_lead(&self, effects: &mut Vec<Effect<R>>) {
        let has_room = self.cluster.health().short_of().is_none();
        let may_lead = has_room && !self.is_handing_over;
        let back = self
            .groups()
            .filter(|(_, it)| may_lead && it.coming_back.is_back());
        effects.push(Effect::Notify {
            to: None,
            notice: Notice::Fit(back.map(|(number, _)| GroupId(number as u32)).collect()),
        });
    }

    /// Whether all replicas that this node should have are here and back. Once that was so the node
    /// is ready, whatever becomes of the others.
    pub(super) fn look_whether_ready(&self) {
        if self.cluster.has_come_back() {
            return;
        }
        let Some(meta) = &self.slots[0].group else {
            return;
        };
        // What group 0's replica says may be old before it is back.
        let State::Meta(state) = &meta.state else {
            return;
        };
        if !meta.coming_back.is_back() || !state.registry.is_founded() {
            return;
        }
        let is_back = |group: GroupId, voter: ReplicaId| {
            let slot = &self.slots[group.index()];
            let here = slot.group.as_ref().filter(|_| slot.newest == voter);
            here.is_some_and(|group| group.coming_back.is_back())
        };
        let are_back = state.registry.placements().all(|(group, placement)| {
            let mut own = placement.voters.iter();
            own.all(|voter| voter.node() != self.parts.node || is_back(group, *voter))
        });
        if are_back {
            tracing::info!("every replica of this node has caught up since it started");
            self.cluster.come_back();
        }
    }

    /// A node that is about to stop hands over everything, to whoever can take it. Otherwise the
    /// leader of group 0 sees to it that leaders are spread.
    pub(super) fn hand_over(&mut self) {
        if !self.is_handing_over {
            return;
        }
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(group) = &mut slot.group else {
                continue;
            };
            if !group.replica.is_settled_leader() {
                continue;
            }
            let voters = group.replica.configuration().voters.clone();
            let own = group.replica.replica_id();
            // Not all to the same one.
            let others = voters.iter().filter(|voter| **voter != own);
            let mut heirs = others
                .cycle()
                .skip(number % 2)
                .take(voters.len())
                .copied()
                .filter(|to| {
                    let fit = self.fit.get(&ReplicaId(*to).node());
                    fit.is_some_and(|fit| fit.contains(&GroupId(number as u32)))
                });
            if let Some(to) = heirs.find(|to| group.replica.transfer_leadership(*to)) {
                tracing::debug!(group = number, to, "handing over leadership");
                self.touched.insert(number);
            }
        }
    }
}

/// The replica that should lead a group: in the order of the nodes, whatever the generations.
fn preferred(number: usize, voters: &[u64]) -> Option<u64> {
    let mut voters = voters.to_vec();
    voters.sort_unstable_by_key(|voter| ReplicaId(*voter).node());
    match voters.len() {
        0 => None,
        len => Some(voters[number % len]),
    }
}
