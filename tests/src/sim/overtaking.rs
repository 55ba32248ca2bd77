//! A replica that is elected though its vote is being taken away: by an entry that it has, and that
//! nobody knew to be committed. It leads until that entry is committed, and must not go on without
//! its vote: where one voter is left, raft would let it answer reads alone.
//!
//! It takes a leader that dies just after it sent that entry, and the one that is to go elected
//! before the one that stays: so rare by chance that it is brought about.

use super::disk::Ending;
use super::faults::FaultKind;
use super::network::Way;
use super::overtaken::{Overtaken, Silenced};
use super::plan::SECOND_US;
use super::world::{Chapter, Happening, World};

/// Until then it goes on, and may tell the others what it knows to be committed.
const TELLS_WITHIN_US: u64 = 200_000;
/// So long after it sleeps, what was under way to it has arrived.
const STRAGGLERS_US: u64 = 25_000;

/// It is looked so often whether another leads by now, and so many times.
const LOOK_EVERY_US: u64 = 100_000;
const LOOKS_MAX: u32 = 80;

impl World {
    /// A leader that has just taken another's vote away dies, as a rule, before it hears that the
    /// other has that entry.
    pub(crate) fn overtake(&mut self, leader: u64, removal: Overtaken) {
        if !self.fate.chance(600) {
            // Or later, when the one that left may be gone: it must not be asked again.
            let after_us = self.fate.between(SECOND_US / 5, 2 * SECOND_US);
            let ending = self.ending();
            return self.after(after_us, Happening::Die(leader, ending));
        }
        self.overtaken = Some(removal);
        let numbers = [leader, removal.node, removal.index];
        self.trace.note(self.now_us, "takes a vote", &numbers, || {
            format!(
                "of node {} in {:?} by {}: node {leader}",
                removal.node, removal.group, removal.index
            )
        });
        let way = Way {
            from: removal.node,
            to: leader,
        };
        self.network.block(way);
        self.after(STRAGGLERS_US, Happening::Die(leader, Ending::Killed));
        self.after(2 * STRAGGLERS_US, Happening::Free(vec![way]));
    }

    /// The one whose vote was taken away was elected, and has just learned that: it neither runs
    /// nor hears anything while the others go on, and is asked before anybody can tell it.
    pub(crate) fn silence_the_overtaken(&mut self, node: u64) {
        let Some(Overtaken { group, index, .. }) = self.overtaken.filter(|it| it.node == node)
        else {
            return;
        };
        let running = self.machines.get(&node).and_then(|it| it.running.as_ref());
        let Some(status) = running.map(|running| running.cluster.group(group)) else {
            return;
        };
        if status.applied_index < index {
            return;
        }
        self.overtaken = None;
        let term = status.term;
        if self.leaders.of(group, term) != Some(node) {
            return;
        }
        self.tally.add(FaultKind::OvertakenRemoval.name());
        self.trace
            .note(self.now_us, "silenced", &[node, index], || {
                format!("node {node}, which leads {group:?} without a vote")
            });
        self.silenced = Some(Silenced {
            node,
            group,
            term,
            index,
            looks: LOOKS_MAX,
        });
        let until_told_us = self.fate.between(0, TELLS_WITHIN_US);
        self.after(until_told_us, Happening::KeepSilent);
    }

    /// It sleeps until another leads, and has answered somebody; then it is awake for a while
    /// before anybody can tell it. Nothing else goes wrong meanwhile.
    pub(crate) fn keep_silent(&mut self) {
        let Some(silenced) = &mut self.silenced else {
            return;
        };
        let is_first = silenced.looks == LOOKS_MAX;
        silenced.looks -= 1;
        let Silenced {
            node,
            group,
            term,
            index,
            looks,
        } = *silenced;
        if is_first {
            self.after(STRAGGLERS_US, Happening::Block(self.ways_of(node)));
        }
        let is_overtaken =
            self.leaders.is_led_after(group, term) && self.answered[group.index()] > index;
        if is_overtaken || looks == 0 || self.chapter != Chapter::Trouble {
            self.silenced = None;
            self.trace.note(self.now_us, "wakes", &[node], || {
                format!("node {node}; another has led {group:?} and answered: {is_overtaken}")
            });
            let ways = self.ways_of(node);
            let alone_us = self.fate.between(SECOND_US / 10, 2 * SECOND_US);
            return self.after(alone_us, Happening::Free(ways));
        }
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.paused_until_us = self.now_us + 2 * LOOK_EVERY_US;
        }
        self.after(LOOK_EVERY_US, Happening::KeepSilent);
    }
}
