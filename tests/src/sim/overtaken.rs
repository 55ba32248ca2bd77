//! A replica that is elected though its vote is being taken away: by an entry that it has, and that nobody knew to be
//! committed. It leads until that entry is committed, and must not go on without its vote: where one voter is left,
//! raft would let it answer reads alone.
//!
//! It takes a leader that dies just after it sent that entry, and the one that is to go elected before the one that
//! stays: so rare by chance that it is brought about.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, EntryType, Message, MessageType};
use stockd::placement::ReplicaId;
use stockd::worker::event::GroupId;

use super::disk::Ending;
use super::faults::FaultKind;
use super::plan::SECOND_US;
use super::world::{Happening, World};

/// So long after it knows, what was under way to it has arrived.
const STRAGGLERS_US: u64 = 25_000;

/// A vote that was taken away by a leader that died of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overtaken {
    group: GroupId,
    /// The node whose replica loses its vote.
    node: u64,
    /// The entry that takes it.
    index: u64,
}

impl Overtaken {
    /// The removal that a message tells a replica of, where it is that replica's own.
    pub(crate) fn by(to: u64, group: GroupId, payload: &Bytes) -> Option<Self> {
        let mut message = Message::default();
        message.merge_from_bytes(payload).ok()?;
        if message.get_msg_type() != MessageType::MsgAppend {
            return None;
        }
        let takes_its_vote = |entry: &&raft::eraftpb::Entry| {
            let mut change = ConfChangeV2::default();
            entry.get_entry_type() == EntryType::EntryConfChangeV2
                && change.merge_from_bytes(&entry.data).is_ok()
                && change.get_changes().iter().any(|single| {
                    single.get_change_type() == ConfChangeType::RemoveNode
                        && ReplicaId(single.node_id).node() == to
                })
        };
        let index = message.get_entries().iter().find(takes_its_vote)?.index;
        let is_new = index > message.commit;
        is_new.then_some(Self {
            group,
            node: to,
            index,
        })
    }
}

impl World {
    /// A leader that has just taken another's vote away dies, as a rule; `true` if it has.
    pub(crate) fn overtake(&mut self, leader: u64, removal: Overtaken) -> bool {
        if !self.fate.chance(700) {
            return false;
        }
        self.overtaken = Some(removal);
        self.die(leader, Ending::Killed);
        true
    }

    /// The one whose vote was taken away was elected, and has just learned that: it neither runs nor hears anything
    /// while the others go on, and is asked before anybody can tell it.
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
        if self.leaders.of(group, status.term) != Some(node) {
            return;
        }
        self.tally.add(FaultKind::OvertakenRemoval.name());
        let ways = self.ways_of(node);
        let asleep_us = self.fate.between(3 * SECOND_US, 6 * SECOND_US);
        let alone_us = self.fate.between(SECOND_US / 10, SECOND_US);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.paused_until_us = self.now_us + asleep_us;
        }
        self.after(STRAGGLERS_US, Happening::Block(ways.clone()));
        self.after(asleep_us + alone_us, Happening::Free(ways));
    }
}
