//! A replica's events: what can happen to it.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{HardState, Message, MessageType};
use raft::{ProgressState, RawNode, Ready, SnapshotStatus, StateRole};
use thiserror::Error;

use crate::drain::TracingDrain;
use crate::guard::{self, StepError};
use crate::log_view::{EntryReader, LogView, parse_shared};
use crate::point::{Configuration, Point};
use crate::settings::{self, LEADER_LOST_TICKS, LEADER_LOST_TICKS_APART, Settings};

/// One replica of one Raft group.
pub struct Replica {
    pub(crate) configuration: Configuration,
    pub(crate) node: RawNode<LogView>,
    /// Handed out by `prepare`, taken back by `settle`.
    pub(crate) pending: Option<Ready>,
    /// The hard state, where it differs from what was last written.
    pub(crate) unwritten_state: Option<HardState>,
    /// The commit index that the disk has.
    pub(crate) written_commit: u64,
    /// The one that it will have after the write under way.
    pub(crate) writing_commit: u64,
    /// The entry that changed the members last.
    pub(crate) changed_at: u64,
    /// The term in which this replica leads, or led last, and an entry of its own in it.
    pub(crate) led_from: Option<(u64, u64)>,
    /// The highest commit index that any follower was told.
    pub(crate) announced_commit: u64,
    /// Heartbeats that followers have answered and raft has not heard of yet: one of each follower.
    answered: Vec<Message>,
    /// Why raft cannot go on.
    pub(crate) over: Option<String>,
    /// Ticks until this replica stands for election, since the connection to the leader has ended.
    stands_in: Option<usize>,
    /// Whether it heeds a leader that hands over to it.
    may_stand: bool,
}

/// What the disk remembers of a replica.
pub struct Restored {
    /// Where its log begins: the entries after this one are there.
    pub origin: Point,
    /// Where the state machine was brought back; `origin`, or later.
    pub applied: Point,
    /// The last hard state written, if any was.
    pub state: Option<Bytes>,
    /// The index of the last entry written; `origin.index` if none was.
    pub last_index: u64,
    /// For the entries between.
    pub reader: Box<dyn EntryReader>,
}

/// A replica cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Its hard state cannot be read.
    #[error("the stored vote and term are damaged: {0}")]
    State(protobuf::ProtobufError),
    /// Its log ends before what it is known to have had: its end is lost.
    #[error(
        "its log ends at {last_index}, and it is known to have had {known}: it has lost what it \
         acknowledged"
    )]
    LostEntries {
        /// The highest index that is known to have been in the log.
        known: u64,
        /// The end of the log.
        last_index: u64,
    },
    /// raft will not start with this log.
    #[error("raft refuses the stored log: {0}")]
    Raft(raft::Error),
}

/// Where a proposal will be, if it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proposed {
    /// Its log index.
    pub index: u64,
    /// The leader's term. Another term's entry at `index` means that this one was dropped.
    pub term: u64,
}

/// A proposal was not taken; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Another replica leads, or is about to, or none does.
    #[error("not the leader")]
    NotLeader,
    /// Too much is uncommitted.
    #[error("the leader takes no proposals now")]
    Dropped,
}

impl Replica {
    /// Brings a replica back from what the disk remembers. Everything after `applied` that was
    /// committed is handed out again to be applied.
    pub fn open(settings: &Settings, restored: Restored) -> Result<Self, OpenError> {
        let mut hard_state = HardState::default();
        match restored.state {
            Some(bytes) => hard_state
                .merge_from_bytes(&bytes)
                .map_err(OpenError::State)?,
            None => {
                hard_state.term = restored.origin.term;
                hard_state.commit = restored.origin.index;
            }
        }
        let written_commit = hard_state.commit;
        // What was applied was committed, though nobody may have written that down.
        let applied = restored.applied.index;
        hard_state.commit = hard_state.commit.max(applied);
        // And was in the log, which raft takes for granted.
        if hard_state.commit > restored.last_index {
            return Err(OpenError::LostEntries {
                known: hard_state.commit,
                last_index: restored.last_index,
            });
        }
        let configuration = restored.applied.configuration;
        let view = LogView::new(
            restored.origin,
            configuration.clone(),
            hard_state,
            restored.last_index,
            restored.reader,
        );
        let logger = slog::Logger::root(TracingDrain, slog::o!());
        let node = RawNode::new(&settings::config(settings, applied), view, &logger)
            .map_err(OpenError::Raft)?;
        Ok(Self {
            configuration,
            node,
            pending: None,
            unwritten_state: None,
            written_commit,
            writing_commit: 0,
            changed_at: 0,
            led_from: None,
            announced_commit: 0,
            answered: Vec::new(),
            over: None,
            stands_in: None,
            may_stand: true,
        })
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        self.guarded((), Self::pass_a_tick);
    }

    fn pass_a_tick(&mut self) {
        // Before those are heard who ask anew.
        self.node.mut_store().tick();
        self.heed_answered();
        self.node.tick();
        if self.leader() != 0 {
            self.stands_in = None;
        }
        if let Some(ticks) = &mut self.stands_in {
            *ticks -= 1;
            if *ticks == 0 {
                self.stands_in = None;
                self.campaign();
            }
        }
    }

    /// Whether this replica stands for election when its leader hands over to it. One that has yet
    /// to apply what is committed would lead, and answer nobody for as long as that takes.
    pub fn set_may_stand(&mut self, may_stand: bool) {
        self.may_stand = may_stand;
    }

    /// A message from another replica of the group.
    pub fn step(&mut self, message: &Bytes) -> Result<(), StepError> {
        self.step_from(message, |_| true)
    }

    /// A message from another replica of the group: one for which `may_send` holds, as the driver
    /// knows from where it came.
    pub fn step_from(
        &mut self,
        message: &Bytes,
        may_send: impl FnOnce(u64) -> bool,
    ) -> Result<(), StepError> {
        let message: Message = parse_shared(message).map_err(StepError::Malformed)?;
        if !may_send(message.from) {
            return Err(StepError::Senseless("its sender is not where it came from"));
        }
        // Raft itself does not look: a vote asked of a replica that is gone is not this one's to
        // give.
        if message.to != self.replica_id() {
            return Err(StepError::NotForThis { to: message.to });
        }
        self.guarded(Ok(()), |own| guard::check(&own.node.raft, &message))?;
        if message.get_msg_type() == MessageType::MsgTimeoutNow && !self.may_stand {
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgHeartbeatResponse {
            return self.answered(message);
        }
        let stepped = self.guarded(None, |own| Some(own.node.step(message)));
        stepped.ok_or(StepError::Over)?.map_err(StepError::Ignored)
    }

    /// Takes note of an answered heartbeat, and forgets an earlier one of the same follower.
    ///
    /// For each that raft hears of, it sends a follower that lags another append, and in a probe
    /// even the same one again. A loop that was held up for seconds finds dozens of them in its
    /// inbox; what it would read and send for all of them holds it up the more.
    fn answered(&mut self, mut message: Message) -> Result<(), StepError> {
        // Who knows more to be committed than this leader has must be sent what it contradicts, so
        // that it finds out; but no read may be answered on its word.
        let is_ahead = guard::check_not_ahead(&self.node.raft, &message, message.commit);
        if is_ahead.is_err() {
            message.context.clear();
        }
        let mut answered = self.answered.iter_mut();
        match answered.find(|earlier| earlier.from == message.from) {
            Some(earlier) if earlier.term > message.term => {}
            Some(earlier) => {
                // The context of a read answers all reads before it. An answer without one must not
                // hide it.
                let context = std::mem::take(&mut earlier.context);
                let is_of_this_term = earlier.term == message.term;
                *earlier = message;
                if earlier.context.is_empty() && is_of_this_term {
                    earlier.context = context;
                }
            }
            None => self.answered.push(message),
        }
        is_ahead
    }

    /// Tells raft which heartbeats were answered.
    pub(crate) fn heed_answered(&mut self) {
        for message in self.answered.drain(..) {
            if let Err(error) = self.node.step(message) {
                tracing::debug!(%error, "raft ignores an answered heartbeat");
            }
        }
    }

    /// Puts an entry into the leader's log.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<Proposed, ProposeError> {
        // One that hands over takes nothing more: in a moment it will not be the leader.
        if !self.is_leader() || self.node.raft.lead_transferee.is_some() {
            return Err(ProposeError::NotLeader);
        }
        let proposed = self.guarded(None, |own| Some(own.node.propose(Vec::new(), data)));
        match proposed {
            Some(Ok(())) => Ok(self.last_proposed()),
            Some(Err(_)) => Err(ProposeError::Dropped),
            None => Err(ProposeError::NotLeader),
        }
    }

    pub(crate) fn last_proposed(&self) -> Proposed {
        Proposed {
            index: self.node.raft.raft_log.last_index(),
            term: self.term(),
        }
    }

    /// Asks from which index on a read is linearizable. The answer comes as a
    /// [`ReadReady`](crate::ReadReady) with this context, or never: the driver tries again with a
    /// new one. `false` if it is clear already that no answer will come.
    ///
    /// The context must be unique over all nodes and all their boots.
    pub fn read_index(&mut self, context: Vec<u8>) -> bool {
        // A leader that has committed nothing in its term does not yet know the commit index.
        let can_answer = if self.is_leader() {
            self.node.raft.commit_to_current_term()
        } else {
            self.leader() != 0
        };
        can_answer
            && self.guarded(false, |own| {
                own.node.read_index(context);
                true
            })
    }

    /// Stands for election now, if it has a vote: raft itself asks only when a timeout has passed.
    pub fn campaign(&mut self) {
        if !self.node.raft.promotable() {
            return;
        }
        let stood = self.guarded(Ok(()), |own| own.node.campaign());
        if let Err(error) = stood {
            tracing::debug!(%error, "cannot stand for election");
        }
    }

    /// Hands leadership over, if that replica has the whole log; else does nothing and says
    /// `false`.
    pub fn transfer_leadership(&mut self, to: u64) -> bool {
        let last_index = self.node.raft.raft_log.last_index();
        let ready = self.is_leader()
            && self.node.raft.lead_transferee.is_none()
            && self.node.raft.prs().get(to).is_some_and(|progress| {
                progress.recent_active
                    && progress.state == ProgressState::Replicate
                    && progress.matched + TRANSFER_LAG_MAX >= last_index
            });
        ready
            && self.guarded(false, |own| {
                own.node.transfer_leader(to);
                true
            })
    }

    /// Tells the followers the commit index.
    pub fn ping(&mut self) {
        self.guarded((), |own| own.node.ping());
    }

    /// The connection to that replica has ended: what was on its way may be lost.
    ///
    /// A process that dies ends its connections, and to wait for an election timeout would be to
    /// wait for what is known. So a follower forgets a leader that it lost, and stands for election
    /// soon unless it hears from one. Where it alone has lost the leader, the others still have it
    /// and give no vote (section 4.2.3 of the Raft dissertation: a server that hears a leader
    /// grants none).
    pub fn lost(&mut self, replica_id: u64) {
        if self.is_leader() {
            self.node.report_unreachable(replica_id);
        } else if self.leader() == replica_id {
            let (term, nobody) = (self.term(), 0);
            self.node.raft.become_follower(term, nobody);
            let voters = self.configuration.voters.iter();
            let before =
                voters.filter(|voter| **voter < self.replica_id() && **voter != replica_id);
            self.stands_in = Some(LEADER_LOST_TICKS + LEADER_LOST_TICKS_APART * before.count());
        }
    }

    /// Whether followers have yet to be told of something committed. Under load the next append
    /// tells them; otherwise the driver should [`Self::ping`] within milliseconds.
    pub fn has_unannounced_commit(&self) -> bool {
        self.is_leader() && self.commit() > self.announced_commit
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader && self.over.is_none()
    }

    /// Whether this replica leads and has committed something in its term, so that it has applied,
    /// or is about to, everything that any leader before it acknowledged.
    pub fn is_settled_leader(&self) -> bool {
        self.is_leader() && self.node.raft.commit_to_current_term()
    }

    /// The id of the replica that leads, or 0.
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The highest index known to be committed.
    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// This replica's id.
    pub fn replica_id(&self) -> u64 {
        self.node.raft.id
    }

    /// The index of the last entry, durable or not.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Where the log begins.
    pub fn origin(&self) -> &Point {
        self.node.store().origin()
    }

    /// Takes note that the log from here on is enough: what comes before is about to be dropped
    /// from the disk. A follower that lacks it will be sent a snapshot.
    pub fn begin_at(&mut self, origin: Point) {
        self.node.mut_store().begin_at(origin);
    }

    /// The state machine was written down at this point, and can be sent to a follower.
    pub fn offer_snapshot(&mut self, point: Point) {
        self.node.mut_store().offer(point);
    }

    /// Whether a follower needs a snapshot newer than the one offered, and asked for it a moment
    /// ago.
    pub fn wants_snapshot(&self) -> bool {
        self.is_leader() && self.node.store().wants_snapshot()
    }

    /// What became of a snapshot for a member. Without this it would be sent nothing any more.
    pub fn report_snapshot(&mut self, replica: u64, arrived: bool) {
        let status = match arrived {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.guarded((), |own| own.node.report_snapshot(replica, status));
    }
}

/// For which replica a message is; none if it is no message.
pub fn recipient(message: &Bytes) -> Option<u64> {
    let message: Message = parse_shared(message).ok()?;
    Some(message.to)
}

/// Entries a new leader may still lack when the transfer begins; raft sends them first. More, and
/// proposals would be refused for longer than callers like.
const TRANSFER_LAG_MAX: u64 = 64;
