//! Which nodes may be stopped: a rolling restart takes one after the other, and asks before each.

use super::Decision;
use super::situation::Situation;
use crate::ids::{GroupId, ReplicaId};

impl Situation<'_> {
    /// Says of each node which groups would have no quorum without it.
    pub(super) fn explain_stopping(&self, decision: &mut Decision) {
        let nodes = self.registry.nodes();
        decision.needed = nodes
            .map(|(node, _)| (node, self.needed_by(node)))
            .collect();
    }

    /// Those that have a quorum by a node alone, and those that have none now and a voter there.
    fn needed_by(&self, node: u64) -> Vec<GroupId> {
        let votes_there = |voter: &ReplicaId| voter.node() == node;
        let needed = self.registry.placements().filter(|(group, placement)| {
            let Some(report) = self.report(*group) else {
                return placement.voters.iter().any(votes_there);
            };
            let is_left = |voter: &&ReplicaId| {
                !votes_there(voter) && self.is_up(voter.node()) && self.is_sound(report, **voter)
            };
            let sets = [&report.voters, &report.outgoing];
            let mut sets = sets
                .into_iter()
                .filter(|voters| voters.iter().any(votes_there));
            sets.any(|voters| 2 * voters.iter().filter(is_left).count() <= voters.len())
        });
        needed.map(|(group, _)| group).collect()
    }
}
