//! What a message may say.
//!
//! raft takes its peers at their word, and panics where what they say cannot be. So every message
//! is looked at before raft sees it: one that no replica of this group would send is refused, and
//! one that contradicts what is committed here ends this replica, because one of the two logs has
//! forgotten something.

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, Message, MessageType};
use raft::{Raft, StateRole};
use thiserror::Error;

use crate::log_view::LogView;

/// No group gets so far: an election each microsecond for nine years. Beyond it, raft's sums would
/// overflow.
const TERM_MAX: u64 = 1 << 48;

/// No log gets so far: a million entries a second for a thousand years.
const INDEX_MAX: u64 = 1 << 56;

/// What a replica was told that cannot be true together with its own log. It must not go on: it, or
/// those who elected its leader, have forgotten what they acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Contradiction {
    /// Its leader, to whom it acknowledged them, tells that entries are committed that it has not
    /// got.
    #[error(
        "its leader knows that it had the log up to {commit}, and it ends at {last_index}: it has \
         lost what it acknowledged"
    )]
    LostEntries {
        /// Committed, and once acknowledged by this replica.
        commit: u64,
        /// The end of its log.
        last_index: u64,
    },
    /// Its leader has another entry where this replica knows its own to be committed.
    #[error(
        "entry {index} is committed here as one of term {ours}, and its leader has one of term \
         {theirs}: one of them has forgotten what was acknowledged"
    )]
    CommittedDiffers {
        /// The index.
        index: u64,
        /// The term of the entry here.
        ours: u64,
        /// The term of the leader's.
        theirs: u64,
    },
}

/// A message cannot be taken.
#[derive(Debug, Error)]
pub enum StepError {
    /// It is not a raft message.
    #[error("not a raft message: {0}")]
    Malformed(protobuf::ProtobufError),
    /// It is for a replica that was in this one's place before.
    #[error("the message is for replica {to}")]
    NotForThis {
        /// For whom.
        to: u64,
    },
    /// No replica of this group would send it.
    #[error("the message makes no sense: {0}")]
    Senseless(&'static str),
    /// A follower acknowledges what its leader has not got: one of them has forgotten something, or
    /// is of another history. It is not counted.
    #[error(
        "replica {from} says that it has entry {index}, and the log of its leader ends at \
         {last_index}: it is not counted"
    )]
    AheadOfLeader {
        /// The follower.
        from: u64,
        /// What it says.
        index: u64,
        /// The end of the leader's log.
        last_index: u64,
    },
    /// It contradicts what this replica knows, which must not go on: it answers nothing any more.
    #[error(transparent)]
    Contradiction(Contradiction),
    /// raft ignores it.
    #[error("raft ignores the message: {0}")]
    Ignored(raft::Error),
    /// The replica is over: see [`Replica::over`](crate::Replica::over).
    #[error("the replica is over")]
    Over,
}

/// Looks at a message for this replica.
pub(crate) fn check(raft: &Raft<LogView>, message: &Message) -> Result<(), StepError> {
    let kind = message.get_msg_type();
    check_shape(raft.id, kind, message)?;
    // Of an earlier term: raft does not look at the rest.
    if message.term != 0 && message.term < raft.term {
        return Ok(());
    }
    match kind {
        MessageType::MsgAppend => check_append(raft, message),
        MessageType::MsgHeartbeat => check_heartbeat(raft, message),
        MessageType::MsgSnapshot => check_snapshot(raft, message),
        MessageType::MsgAppendResponse => check_acknowledged(raft, message),
        MessageType::MsgRequestVote
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse => check_vote(raft, message),
        _ => Ok(()),
    }
}

/// What holds for every message of its kind, whoever gets it.
fn check_shape(own: u64, kind: MessageType, message: &Message) -> Result<(), StepError> {
    let has_term = match kind {
        MessageType::MsgAppend
        | MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgSnapshot
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndexResp => true,
        MessageType::MsgReadIndex => false,
        // Within a replica only, or never sent here.
        _ => return senseless("replicas do not send such messages"),
    };
    if message.from == 0 || message.from == own {
        return senseless("it comes from nobody else");
    }
    // raft takes a message without a term for one from within.
    if has_term != (message.term != 0) {
        return senseless("its term is missing, or should be");
    }
    if [message.term, message.log_term, message.commit_term]
        .iter()
        .any(|term| *term > TERM_MAX)
    {
        return senseless("its term is one that no group reaches");
    }
    let indexes = [message.index, message.commit, message.reject_hint];
    if indexes.iter().any(|index| *index > INDEX_MAX) {
        return senseless("its index is one that no log reaches");
    }
    if message.request_snapshot != 0 {
        return senseless("replicas do not ask for snapshots");
    }
    let entries = message.entries.len();
    match kind {
        MessageType::MsgAppend => check_entries(message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp if entries != 1 => {
            senseless("a question about reads has one context")
        }
        _ => Ok(()),
    }
}

/// Entries follow each other, and no term is later than the next or than the leader's.
fn check_entries(message: &Message) -> Result<(), StepError> {
    // raft takes the term of an entry that it has not got for 0, and would find that the two agree.
    if (message.index == 0) != (message.log_term == 0) {
        return senseless("it follows an entry without a term");
    }
    let mut term = message.log_term;
    for (index, entry) in (message.index + 1..).zip(&message.entries) {
        if entry.index != index || entry.term < term || entry.term == 0 {
            return senseless("its entries do not follow each other");
        }
        term = entry.term;
    }
    if term > message.term {
        return senseless("its entries are of a later term than their leader");
    }
    Ok(())
}

/// A leader's log contains everything that is committed (the Leader Completeness Property, section
/// 5.4 of the Raft paper): where it does not, somebody forgot.
fn check_append(raft: &Raft<LogView>, message: &Message) -> Result<(), StepError> {
    check_is_no_rival(raft, message)?;
    let committed = raft.raft_log.committed;
    if message.index > committed {
        return Ok(());
    }
    agrees(raft, message.index, message.log_term)?;
    let known = |entry: &&Entry| entry.index <= committed;
    for entry in message.entries.iter().take_while(known) {
        agrees(raft, entry.index, entry.term)?;
    }
    Ok(())
}

/// A heartbeat tells of commits only as far as the leader knows this replica's log to reach, which
/// it knows from this replica's own acknowledgements in the leader's term.
fn check_heartbeat(raft: &Raft<LogView>, message: &Message) -> Result<(), StepError> {
    check_is_no_rival(raft, message)?;
    let last_index = raft.raft_log.last_index();
    if message.commit > last_index {
        let commit = message.commit;
        let lost = Contradiction::LostEntries { commit, last_index };
        return Err(StepError::Contradiction(lost));
    }
    Ok(())
}

fn check_snapshot(raft: &Raft<LogView>, message: &Message) -> Result<(), StepError> {
    check_is_no_rival(raft, message)?;
    let metadata = message.get_snapshot().get_metadata();
    if metadata.index == 0 || metadata.index > INDEX_MAX {
        return senseless("its snapshot is of no place in the log");
    }
    if metadata.term == 0 || metadata.term > message.term {
        return senseless("its snapshot is of a later term than its leader");
    }
    if !is_configuration(metadata.get_conf_state()) {
        return senseless("its snapshot has members that cannot be");
    }
    let committed = raft.raft_log.committed;
    if metadata.index <= committed {
        return agrees(raft, metadata.index, metadata.term);
    }
    // Terms never fall along a log: one that is behind what is committed here is of another.
    match raft.raft_log.term(committed) {
        Ok(ours) if committed > 0 && metadata.term < ours => {
            let differs = Contradiction::CommittedDiffers {
                index: committed,
                ours,
                theirs: metadata.term,
            };
            Err(StepError::Contradiction(differs))
        }
        _ => Ok(()),
    }
}

/// What a follower acknowledges, where this replica leads: nobody has more than his leader has
/// sent.
///
/// raft answers an append below its own commit with that commit, and takes such an answer for an
/// acknowledgement of so much of the leader's log, be it longer than that.
fn check_acknowledged(raft: &Raft<LogView>, message: &Message) -> Result<(), StepError> {
    match message.reject {
        true => Ok(()),
        false => check_not_ahead(raft, message, message.index),
    }
}

/// What a follower says to have, where this replica leads.
pub(crate) fn check_not_ahead(
    raft: &Raft<LogView>,
    message: &Message,
    index: u64,
) -> Result<(), StepError> {
    let last_index = raft.raft_log.last_index();
    let is_told = raft.state == StateRole::Leader && message.term == raft.term;
    if !is_told || index <= last_index {
        return Ok(());
    }
    Err(StepError::AheadOfLeader {
        from: message.from,
        index,
        last_index,
    })
}

/// Votes carry what their sender knows to be committed, and raft believes it.
fn check_vote(raft: &Raft<LogView>, message: &Message) -> Result<(), StepError> {
    let is_known = message.commit_term != 0 && message.commit <= raft.raft_log.committed;
    if is_known && agrees(raft, message.commit, message.commit_term).is_err() {
        return senseless("what its sender knows to be committed is not what is committed here");
    }
    Ok(())
}

/// A term has one leader.
fn check_is_no_rival(raft: &Raft<LogView>, message: &Message) -> Result<(), StepError> {
    if message.term == raft.term && raft.state == StateRole::Leader {
        return senseless("this replica leads in its term");
    }
    Ok(())
}

/// Whether the entry of this index, which is committed here, is of this term. What was dropped from
/// the log cannot be compared any more: raft says 0 for its term, which no entry has.
fn agrees(raft: &Raft<LogView>, index: u64, theirs: u64) -> Result<(), StepError> {
    match raft.raft_log.term(index) {
        Ok(ours) if ours != 0 && ours != theirs => {
            let differs = Contradiction::CommittedDiffers {
                index,
                ours,
                theirs,
            };
            Err(StepError::Contradiction(differs))
        }
        _ => Ok(()),
    }
}

/// raft panics at members that contradict each other.
fn is_configuration(members: &ConfState) -> bool {
    let voters = [members.get_voters(), members.get_voters_outgoing()].concat();
    let learners = members.get_learners();
    let is_voter = |id: &u64| voters.contains(id);
    let is_distinct = |ids: &[u64]| {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == ids.len() && !ids.contains(&0)
    };
    let lists = [
        members.get_voters(),
        members.get_voters_outgoing(),
        learners,
        members.get_learners_next(),
    ];
    !members.get_voters().is_empty()
        && lists.iter().all(|ids| is_distinct(ids))
        && !learners.iter().any(is_voter)
        && members.get_learners_next().iter().all(|id| {
            members.get_voters_outgoing().contains(id)
                && !members.get_voters().contains(id)
                && !learners.contains(id)
        })
        && members.get_unknown_fields().fields.is_none()
}

fn senseless<T>(why: &'static str) -> Result<T, StepError> {
    Err(StepError::Senseless(why))
}
