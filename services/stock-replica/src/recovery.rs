//! Looking into the log of a replica that does not run, and making it the only voter of its group
//! where the others are lost for good.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType,
    HardState,
};

use crate::membership::{Change, encode};
use crate::point::{Configuration, Point};
use crate::ready::{Committed, to_bytes};
use crate::replica::{OpenError, Replica, Restored};
use crate::settings::Settings;

/// Nothing is sent during a replay, so any window will do.
const WINDOW_BYTES: u64 = 1 << 20;

/// A replica's hard state: what it must never forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ballot {
    /// The latest term it has heard of.
    pub term: u64,
    /// For whom it voted in that term; 0: for nobody.
    pub vote: u64,
    /// The index up to which it knew the log to be committed when it last wrote that down.
    pub commit: u64,
}

/// How far a replay goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// To what is known to be committed, as a start of the replica goes by itself.
    Committed,
    /// To the last entry, whether or not it was ever committed.
    Everything,
}

/// The log of a replica, handed out from where its state was brought back.
pub struct Replay {
    replica: Replica,
    ballot: Ballot,
    index: u64,
    term: u64,
    committed: Configuration,
}

/// Where a replay came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The last entry handed out.
    pub point: Point,
    /// The members as of what is known to be committed: those who can elect a leader.
    pub committed: Configuration,
    /// The hard state on the disk.
    pub ballot: Ballot,
}

/// What makes a replica the only voter: to be written at once, in place of its hard state and
/// behind its last entry. All of it counts as committed, and so does everything before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forced {
    /// The index of `entries[0]`.
    pub first_index: u64,
    /// Opaque.
    pub entries: Vec<Bytes>,
    /// The hard state.
    pub state: Bytes,
    /// The term of the entries: later than any that this replica has heard of.
    pub term: u64,
}

impl Ballot {
    /// From the disk.
    ///
    /// # Errors
    ///
    /// [`OpenError::State`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OpenError> {
        let mut state = HardState::default();
        state.merge_from_bytes(bytes).map_err(OpenError::State)?;
        Ok(Self {
            term: state.term,
            vote: state.vote,
            commit: state.commit,
        })
    }

    fn to_bytes(self) -> Bytes {
        let state = HardState {
            term: self.term,
            vote: self.vote,
            commit: self.commit,
            ..HardState::default()
        };
        to_bytes(&state)
    }
}

impl Replay {
    /// Of this replica. The entries must be readable: raft panics where one is not.
    ///
    /// # Errors
    ///
    /// As [`Replica::open`].
    pub fn open(
        replica_id: u64,
        mut restored: Restored,
        extent: Extent,
    ) -> Result<Self, OpenError> {
        let ballot = match &restored.state {
            Some(bytes) => Ballot::from_bytes(bytes)?,
            None => Ballot {
                term: restored.origin.term,
                vote: 0,
                commit: restored.origin.index,
            },
        };
        let applied = restored.applied.clone();
        if extent == Extent::Everything {
            let everything = Ballot {
                commit: restored.last_index,
                ..ballot
            };
            restored.state = Some(everything.to_bytes());
        }
        Ok(Self {
            replica: Replica::open(&Settings::new(replica_id, WINDOW_BYTES), restored)?,
            ballot,
            index: applied.index,
            term: applied.term,
            committed: applied.configuration,
        })
    }

    /// The next entries, in order; nothing behind the last.
    pub fn next_entries(&mut self) -> Option<Vec<Committed>> {
        while self.replica.has_effects() {
            let mut entries = self.replica.prepare().committed;
            entries.extend(self.replica.settle().committed);
            let Some(last) = entries.last() else {
                continue;
            };
            (self.index, self.term) = (last.index, last.term);
            let known = entries
                .iter()
                .filter(|entry| entry.index <= self.ballot.commit);
            if let Some(members) = known
                .filter_map(|entry| entry.configuration.as_ref())
                .last()
            {
                self.committed = members.clone();
            }
            return Some(entries);
        }
        None
    }

    /// Where it came to its end. To be asked after the last entries.
    pub fn ending(&self) -> Ending {
        Ending {
            point: Point {
                index: self.index,
                term: self.term,
                configuration: self.replica.configuration().clone(),
            },
            committed: self.committed.clone(),
            ballot: self.ballot,
        }
    }
}

impl Ending {
    /// The term of forced entries: later than any that the replica has heard of.
    pub fn forced_term(&self) -> u64 {
        self.ballot.term.max(self.point.term) + 1
    }

    /// Entries that make `replica_id`, whose log this is the end of, the only voter and the only
    /// member, and then `data`, each an entry of its own. Once they are written, the replica elects
    /// itself as soon as it is started.
    ///
    /// Only right where the other voters will never come back: they know nothing of it and would
    /// elect another leader.
    pub fn force_only_voter(&self, replica_id: u64, data: Vec<Vec<u8>>) -> Forced {
        let term = self.forced_term();
        let first_index = self.point.index + 1;
        let changes = only_voter(&self.point.configuration, replica_id);
        let changes = changes
            .iter()
            .map(|change| (EntryType::EntryConfChangeV2, to_bytes(change)));
        let data = data
            .into_iter()
            .map(|data| (EntryType::EntryNormal, Bytes::from(data)));
        let entries: Vec<Bytes> = (first_index..)
            .zip(changes.chain(data))
            .map(|(index, (kind, data))| {
                let mut entry = Entry {
                    index,
                    term,
                    data,
                    ..Entry::default()
                };
                entry.set_entry_type(kind);
                to_bytes(&entry)
            })
            .collect();
        let state = Ballot {
            term,
            vote: replica_id,
            commit: self.point.index + entries.len() as u64,
        };
        Forced {
            first_index,
            entries,
            state: state.to_bytes(),
            term,
        }
    }
}

impl Configuration {
    /// Whether those for which `is_there` holds can elect a leader and commit.
    pub fn has_majority(&self, is_there: impl Fn(u64) -> bool) -> bool {
        [&self.voters, &self.outgoing].into_iter().all(|voters| {
            let there = voters.iter().filter(|voter| is_there(**voter)).count();
            voters.is_empty() || 2 * there > voters.len()
        }) && !self.voters.is_empty()
    }
}

/// Through a joint configuration: only that may lose several voters at once.
fn only_voter(members: &Configuration, replica_id: u64) -> Vec<ConfChangeV2> {
    let mut changes = Vec::new();
    if members.is_joint() {
        changes.push(encode(Change::LeaveJoint));
    }
    if *members == Configuration::of_voters(vec![replica_id]) {
        return changes;
    }
    let mut enter = ConfChangeV2::default();
    let others = members.members();
    let others = others.into_iter().filter(|member| *member != replica_id);
    let removed = others.map(|member| (ConfChangeType::RemoveNode, member));
    for (kind, id) in std::iter::once((ConfChangeType::AddNode, replica_id)).chain(removed) {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = id;
        enter.mut_changes().push(single);
    }
    enter.set_transition(ConfChangeTransition::Explicit);
    changes.push(enter);
    changes.push(encode(Change::LeaveJoint));
    changes
}
