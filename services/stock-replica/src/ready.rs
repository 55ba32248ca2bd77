//! The order of Ready's steps, in one place.
//!
//! raft hands out a `Ready` and expects, in this order: a leader's messages may go at once; entries
//! and hard state are made durable; a follower's messages go; `advance_append`; what that commits
//! is applied; `advance_apply`. Between `ready` and `advance_append` nothing may be stepped or
//! proposed.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};

use crate::point::{Configuration, Point};
use crate::replica::Replica;

/// What may be done before the disk, and what the disk must do.
#[derive(Debug, Default)]
pub struct Prepared {
    /// To be sent now.
    pub messages: Vec<Outgoing>,
    /// To be written before [`Replica::settle`].
    pub write: LogWrite,
    /// To be applied, in order, before those of [`Settled`].
    pub committed: Vec<Committed>,
    /// Reads that may be answered once `index` is applied.
    pub reads: Vec<ReadReady>,
}

/// What may be done once the write is durable.
#[derive(Debug, Default)]
pub struct Settled {
    /// To be sent now.
    pub messages: Vec<Outgoing>,
    /// To be applied, in order.
    pub committed: Vec<Committed>,
}

/// A message for another replica of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The replica's id.
    pub to: u64,
    /// Opaque.
    pub payload: Bytes,
    /// Set when the message is only the envelope of a snapshot of this index and term: the state
    /// must arrive before it, and what becomes of it be told with [`Replica::report_snapshot`].
    pub snapshot: Option<(u64, u64)>,
}

/// What goes into the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// A snapshot takes the place of the whole log, which begins anew at this point; the state
    /// machine is to be replaced by the one that was written down there.
    pub install: Option<Point>,
    /// The index of `entries[0]`. What the log holds from there on is replaced.
    pub first_index: u64,
    /// Opaque.
    pub entries: Vec<Bytes>,
    /// The new hard state, if it changed.
    pub state: Option<Bytes>,
}

impl LogWrite {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.install.is_none() && self.entries.is_empty() && self.state.is_none()
    }
}

/// An entry that will never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its log index.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// What was proposed. Empty for the entry a new leader begins its term with, and for a change
    /// of the members.
    pub data: Bytes,
    /// The members from here on, where the entry changed them.
    pub configuration: Option<Configuration>,
}

/// Whoever asked with this context may read, once this index is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReady {
    /// As given to [`Replica::read_index`].
    pub context: Vec<u8>,
    /// The commit index when a quorum still followed the leader.
    pub index: u64,
}

impl Replica {
    /// Whether there is anything to prepare.
    pub fn has_effects(&mut self) -> bool {
        if self.pending.is_some() {
            return false;
        }
        self.guarded(false, |own| {
            own.heed_answered();
            own.node.has_ready() || !own.remembers_members()
        })
    }

    /// Begins a turn. Must be followed by [`Replica::settle`] before the next event.
    pub fn prepare(&mut self) -> Prepared {
        debug_assert!(self.pending.is_none(), "prepare without settle");
        self.guarded(Prepared::default(), Self::take_ready)
    }

    fn take_ready(&mut self) -> Prepared {
        let term = self.term();
        if self.is_leader() && self.led_from.is_none_or(|(of, _)| of != term) {
            self.led_from = Some((term, self.last_index()));
        }
        let mut ready = self.node.ready();
        let mut prepared = Prepared::default();
        self.outgoing(ready.take_messages(), &mut prepared.messages);

        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let point = Point {
                index: metadata.index,
                term: metadata.term,
                configuration: Configuration::from_raft(metadata.get_conf_state()),
            };
            self.node.mut_store().install(point.clone());
            self.configuration = point.configuration.clone();
            prepared.write.install = Some(point);
        }
        let entries = ready.entries();
        if let Some(first) = entries.first() {
            prepared.write.first_index = first.index;
            prepared.write.entries = entries.iter().map(to_bytes).collect();
            self.node.mut_store().append(entries);
        }
        if let Some(state) = ready.hs() {
            self.unwritten_state = Some(state.clone());
        }
        prepared.committed = self.committed(ready.take_committed_entries());
        // A leader is told of changes of the members that followers know to be committed: where
        // there is more to be applied than one turn takes, one may be among the rest.
        let applied = prepared.committed.last().map(|entry| entry.index);
        let has_more = applied.is_some_and(|applied| applied < self.commit());
        let must_remember = has_more || !self.remembers_members();
        if must_remember {
            self.unwritten_state = Some(self.node.raft.hard_state());
        }
        // A commit index that moved on is no reason to write: it is found again after a restart, by
        // asking the others. It goes to the disk with whatever goes there next. But those who left
        // are not there to be asked.
        if ready.must_sync() || must_remember {
            prepared.write.state = self.unwritten_state.take().as_ref().map(|state| {
                self.writing_commit = state.commit;
                to_bytes(state)
            });
        }
        prepared.reads = ready
            .take_read_states()
            .into_iter()
            .map(|read| ReadReady {
                context: read.request_ctx,
                index: read.index,
            })
            .collect();
        self.pending = Some(ready);
        prepared
    }

    /// Ends a turn, after the write of [`Replica::prepare`] is durable.
    pub fn settle(&mut self) -> Settled {
        self.guarded(Settled::default(), Self::advance)
    }

    fn advance(&mut self) -> Settled {
        let mut settled = Settled::default();
        let Some(mut ready) = self.pending.take() else {
            return settled;
        };
        self.written_commit = self.written_commit.max(self.writing_commit);
        self.outgoing(ready.take_persisted_messages(), &mut settled.messages);
        let mut light = self.node.advance_append(ready);
        self.outgoing(light.take_messages(), &mut settled.messages);
        settled.committed = self.committed(light.take_committed_entries());
        // Applying is part of the same turn, so raft may count it as done.
        self.node.advance_apply();
        self.give_way_without_a_vote();
        settled
    }

    fn outgoing(&mut self, messages: Vec<Message>, out: &mut Vec<Outgoing>) {
        for message in messages {
            let tells_commit = matches!(
                message.get_msg_type(),
                MessageType::MsgAppend | MessageType::MsgHeartbeat
            );
            if tells_commit {
                self.announced_commit = self.announced_commit.max(message.commit);
            }
            let snapshot = (message.get_msg_type() == MessageType::MsgSnapshot).then(|| {
                let metadata = message.get_snapshot().get_metadata();
                (metadata.index, metadata.term)
            });
            out.push(Outgoing {
                to: message.to,
                payload: to_bytes(&message),
                snapshot,
            });
        }
    }

    /// A change of the members takes effect for raft as its entry is handed out: it is applied in
    /// the same turn.
    fn committed(&mut self, entries: Vec<Entry>) -> Vec<Committed> {
        let mut committed = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let is_change = entry.get_entry_type() != EntryType::EntryNormal;
            committed.push(Committed {
                index: entry.index,
                term: entry.term,
                configuration: is_change.then(|| self.change(&entry)),
                data: match is_change {
                    true => Bytes::new(),
                    false => std::mem::take(&mut entry.data),
                },
            });
        }
        committed
    }

    fn change(&mut self, entry: &Entry) -> Configuration {
        let mut change = ConfChangeV2::default();
        let changed = match change.merge_from_bytes(&entry.data) {
            Ok(()) => self.node.apply_conf_change(&change),
            Err(error) => Err(error.into()),
        };
        match changed {
            Ok(state) => {
                self.configuration = Configuration::from_raft(&state);
                self.changed_at = entry.index;
            }
            // The same on every replica: raft decides by the configuration, which is the same.
            Err(error) => {
                tracing::error!(index = entry.index, %error, "a change of members was void");
            }
        }
        self.configuration.clone()
    }
}

pub(crate) fn to_bytes<M: protobuf::Message>(message: &M) -> Bytes {
    // Fails only for messages over 2 GiB or with required fields unset; ours have neither.
    message
        .write_to_bytes()
        .map(Bytes::from)
        .unwrap_or_default()
}
