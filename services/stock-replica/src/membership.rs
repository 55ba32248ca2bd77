//! Changes of a group's members, and how far each of them is.

use bytes::Bytes;
use protobuf::Message as _;
use raft::ProgressState;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType, Message,
};
use thiserror::Error;

use crate::log_view::parse_shared;
use crate::point::Configuration;
use crate::replica::{Proposed, Replica};

/// A change of a group's members. Each goes through the log; one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new replica is sent the log, and does not vote yet.
    AddLearner(u64),
    /// A learner becomes a voter.
    Promote(u64),
    /// A learner becomes a voter and a voter leaves, at one moment: through a joint configuration,
    /// which [`Change::LeaveJoint`] ends.
    Replace {
        /// Becomes a voter.
        add: u64,
        /// Leaves.
        remove: u64,
    },
    /// A learner leaves. One that has been promoted meanwhile does not: whoever wants it gone for
    /// being slow, or lost, has not heard yet that the group now counts on it.
    RemoveLearner(u64),
    /// A voter leaves.
    RemoveVoter(u64),
    /// Ends a joint configuration.
    LeaveJoint,
}

/// A change was not proposed; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// Another replica leads, or is about to, or none does.
    #[error("not the leader")]
    NotLeader,
    /// A change before it is not applied yet.
    #[error("another change is under way")]
    Busy,
    /// A joint configuration must be left first, or there is none to leave.
    #[error("the configuration is, or is not, a joint one")]
    Joint,
    /// The leader does not take its own vote away: it hands over first.
    #[error("a leader does not remove itself")]
    RemovesLeader,
    /// Who is to be promoted is no learner, who is to be removed no member, or who is to be added
    /// one.
    #[error("the change does not fit the members")]
    Members,
    /// It would leave no voter.
    #[error("no voter would be left")]
    LastVoter,
}

/// A member, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// Its replica id.
    pub replica: u64,
    /// It has the log up to here, durably.
    pub matched: u64,
    /// It has been heard of within an election timeout.
    pub is_active: bool,
    /// It is being sent a snapshot.
    pub is_installing: bool,
}

impl Replica {
    /// Who the members are, as of everything handed out to be applied.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Whether the disk says that the last change of the members is committed.
    pub(crate) fn remembers_members(&self) -> bool {
        self.changed_at <= self.written_commit
    }

    /// Whether this replica leads, and a quorum of the present voters has it durably that the last
    /// change of the members is committed. Before that whoever left must stay able to vote: raft
    /// counts votes by the changes that a replica knows to be committed, so that one which lost its
    /// leader, or was started again, would ask him.
    pub fn quorum_knows_members(&self) -> bool {
        let Some((_, led_from)) = self.led_from.filter(|(term, _)| *term == self.term()) else {
            return false;
        };
        // Who knows an entry of this term to be committed knows all changes of earlier leaders.
        let index = self.changed_at.max(led_from);
        let progress = self.node.raft.prs();
        let knows = |id: &u64| match *id == self.replica_id() {
            true => self.remembers_members(),
            // What a follower says it knows, its disk has: see `prepare`.
            false => progress
                .get(*id)
                .is_some_and(|it| it.committed_index >= index),
        };
        self.is_leader() && self.configuration.is_quorum(|id| knows(&id))
    }

    /// Puts a change of the members into the leader's log.
    pub fn propose_change(&mut self, change: Change) -> Result<Proposed, ChangeError> {
        if !self.is_leader() || self.node.raft.lead_transferee.is_some() {
            return Err(ChangeError::NotLeader);
        }
        // raft would put an empty entry into the log instead, and say that all is well.
        if self.node.raft.has_pending_conf() {
            return Err(ChangeError::Busy);
        }
        if self.configuration.is_joint() != (change == Change::LeaveJoint) {
            return Err(ChangeError::Joint);
        }
        self.check_members(change)?;
        let encoded = encode(change);
        let proposed = self.guarded(None, |own| {
            Some(own.node.propose_conf_change(Vec::new(), encoded))
        });
        match proposed {
            Some(Ok(())) => Ok(self.last_proposed()),
            Some(Err(_)) => Err(ChangeError::Busy),
            None => Err(ChangeError::NotLeader),
        }
    }

    /// Every member but this one, as this leader sees it, in the order of their ids; nothing on a
    /// follower.
    pub fn followers(&self) -> Vec<Follower> {
        if !self.is_leader() {
            return Vec::new();
        }
        let own = self.replica_id();
        let mut followers: Vec<Follower> = self
            .node
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != own)
            .map(|(id, progress)| Follower {
                replica: *id,
                matched: progress.matched,
                is_active: progress.recent_active,
                is_installing: progress.state == ProgressState::Snapshot,
            })
            .collect();
        followers.sort_unstable_by_key(|follower| follower.replica);
        followers
    }

    /// Steps down where this replica leads though it has no vote any more: a leader before it has
    /// taken its vote away, in an entry that was committed only now. raft lets it lead for ever,
    /// takes no proposal from it, and where one voter is left lets it answer linearizable reads
    /// without asking that one.
    pub(crate) fn give_way_without_a_vote(&mut self) {
        let (own, members) = (self.replica_id(), &self.configuration);
        let has_vote = members.voters.contains(&own) || members.outgoing.contains(&own);
        if self.is_leader() && !has_vote {
            tracing::info!(replica = own, "a leader without a vote steps down");
            let (term, nobody) = (self.term(), 0);
            self.node.raft.become_follower(term, nobody);
        }
    }

    fn check_members(&self, change: Change) -> Result<(), ChangeError> {
        let is_voter = |id| self.configuration.voters.contains(&id);
        let is_learner = |id| self.configuration.learners.contains(&id);
        let removed = match change {
            Change::RemoveVoter(id)
            | Change::RemoveLearner(id)
            | Change::Replace { remove: id, .. } => Some(id),
            Change::AddLearner(_) | Change::Promote(_) | Change::LeaveJoint => None,
        };
        let loses_its_vote = change == Change::LeaveJoint && !is_voter(self.replica_id());
        if removed == Some(self.replica_id()) || loses_its_vote {
            return Err(ChangeError::RemovesLeader);
        }
        let fits = match change {
            Change::AddLearner(id) => id != 0 && !self.configuration.contains(id),
            Change::Promote(id) => is_learner(id),
            Change::Replace { add, remove } => is_learner(add) && is_voter(remove),
            Change::RemoveLearner(id) => is_learner(id),
            Change::RemoveVoter(id) => is_voter(id),
            Change::LeaveJoint => true,
        };
        if !fits {
            return Err(ChangeError::Members);
        }
        if let Change::RemoveVoter(id) = change
            && self.configuration.voters == [id]
        {
            return Err(ChangeError::LastVoter);
        }
        Ok(())
    }
}

/// The index of an entry by which a message takes its recipient out of the group, if it brings one
/// that it does not say to be committed. For whoever watches messages.
pub fn removal_of_recipient(message: &Bytes) -> Option<u64> {
    let message: Message = parse_shared(message).ok()?;
    let takes_out = |entry: &&Entry| {
        let mut change = ConfChangeV2::default();
        let is_change = entry.get_entry_type() == EntryType::EntryConfChangeV2
            && change.merge_from_bytes(&entry.data).is_ok();
        let mut singles = change.get_changes().iter();
        is_change
            && singles.any(|single| {
                single.get_change_type() == ConfChangeType::RemoveNode
                    && single.node_id == message.to
            })
    };
    let entry = message.get_entries().iter().find(takes_out)?;
    (entry.index > message.commit).then_some(entry.index)
}

/// As raft wants it. A change of one member needs no joint configuration.
pub(crate) fn encode(change: Change) -> ConfChangeV2 {
    let singles: &[(ConfChangeType, u64)] = match change {
        Change::AddLearner(id) => &[(ConfChangeType::AddLearnerNode, id)],
        Change::Promote(id) => &[(ConfChangeType::AddNode, id)],
        Change::Replace { add, remove } => &[
            (ConfChangeType::AddNode, add),
            (ConfChangeType::RemoveNode, remove),
        ],
        Change::RemoveLearner(id) | Change::RemoveVoter(id) => &[(ConfChangeType::RemoveNode, id)],
        Change::LeaveJoint => &[],
    };
    let mut encoded = ConfChangeV2::default();
    for (kind, id) in singles {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(*kind);
        single.node_id = *id;
        encoded.mut_changes().push(single);
    }
    if singles.len() > 1 {
        // Left by an entry of its own that whoever leads then proposes: raft's own automatism stays
        // away after a change of leaders in between.
        encoded.set_transition(ConfChangeTransition::Explicit);
    }
    encoded
}
