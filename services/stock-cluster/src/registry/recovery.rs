//! What becomes of the registry when most nodes are lost for good.

use std::collections::BTreeSet;

use super::{NodeState, Placement, Refusal, Registry};
use crate::registry::command::Recover;

impl Registry {
    /// The groups have the voters that they were left with. The other nodes are as if they had been
    /// announced and had never joined: each may come in again with an empty disk, under its id and
    /// at its address, and whatever an old disk of it holds is lost.
    pub(super) fn recover(&mut self, recover: &Recover) -> Result<(), Refusal> {
        for survivor in &recover.groups {
            self.placement_of(survivor.group)?;
            self.member(survivor.replica.node())?;
        }
        for node in &recover.nodes {
            self.member(*node)?;
        }
        self.incarnation = recover.incarnation;
        self.next_generation = self.next_generation.max(recover.next_generation);
        for survivor in &recover.groups {
            let group = survivor.group;
            let placement = Placement {
                term: survivor.term,
                voters: BTreeSet::from([survivor.replica]),
            };
            self.placements.insert(group, placement);
            self.moves.remove(&group);
            self.failed.retain(|(of, _), _| *of != group);
        }
        // What operators wished for was wished for another cluster.
        self.wishes.clear();
        self.preferred.clear();
        // Their nodes were told that these are gone, too: others are allotted at once.
        self.observers.clear();
        let floor = self.next_generation;
        for (node, record) in &mut self.nodes {
            let is_lost = !recover.nodes.contains(node) && record.state != NodeState::Removed;
            if is_lost && record.directory.take().is_some() {
                record.generation_floor = floor;
                // One that comes back empty is not the one that was being emptied.
                record.state = NodeState::Active;
                record.was_heard = false;
                record.may_be_replaced = false;
            }
        }
        Ok(())
    }
}
