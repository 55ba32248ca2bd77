//! Where replicas are, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::{NodeState, Placement, Registry};
use crate::ids::{GroupId, ReplicaId};

impl Registry {
    /// Takes note of where a group's voters are, and forgets what makes no sense any more.
    pub(super) fn place(&mut self, group: GroupId, placement: Placement) {
        let holds = |node: u64| placement.voters.iter().any(|voter| voter.node() == node);
        if self
            .wish(group)
            .is_some_and(|wish| !holds(wish.from) || holds(wish.to))
        {
            self.wishes.remove(&group);
        }
        if self
            .preferred_leader(group)
            .is_some_and(|node| !holds(node))
        {
            self.preferred.remove(&group);
        }
        self.failed
            .retain(|(of, replica), _| *of != group || placement.voters.contains(replica));
        self.placements.insert(group, placement);
    }

    /// Every node that has joined and holds no voter of group 0, now or soon, gets an observer.
    pub(super) fn place_observers(&mut self) {
        let Some(meta) = self.placements.get(&GroupId::META) else {
            return;
        };
        let comes = self.moves.get(&GroupId::META).and_then(|m| m.add);
        let voters: BTreeSet<u64> = meta
            .voters
            .iter()
            .chain(comes.as_ref())
            .map(|voter| voter.node())
            .collect();
        let watching: BTreeMap<u64, u32> = self
            .nodes
            .iter()
            .filter(|(node, record)| {
                record.state != NodeState::Removed
                    && record.was_heard
                    && record.directory.is_some()
                    && !voters.contains(node)
            })
            .map(|(node, record)| (*node, record.generation_floor))
            .collect();
        self.observers.retain(|node, observer| {
            watching
                .get(node)
                .is_some_and(|floor| observer.generation() >= *floor)
        });
        for node in watching.into_keys() {
            if self.observers.contains_key(&node) {
                continue;
            }
            // Without a generation left there is none: the node asks others for what it lacks.
            if let Ok(generation) = self.allot_generation() {
                self.observers
                    .insert(node, ReplicaId::new(generation, node));
            }
        }
    }
}
