//! One group on this node: its replica, its state, and who waits for what.

use std::collections::{BTreeSet, VecDeque};

use stock_cluster::{GroupId, ReplicaId};
use stock_core::Stamp;
use stock_replica::{Committed, ENTRY_BYTES_MAX, Point, ProposeError, Proposed, Replica};

use super::audit::Audit;
use super::checkpoints::{Checkpoints, Kept};
use super::coming_back::ComingBack;
use super::leading::Leading;
use super::ledgers::LedgerProgress;
use super::reads::Reads;
use super::sending::{answer, answer_if_asked};
use crate::answer::{Answer, Applied, Failure, LOOKED_AT_MAX, Outcomes, Question};
use crate::applying::{self, Changed};
use crate::checkpoint::{Arrived, Image, Restored};
use crate::chore::{Chore, Unwanted};
use crate::clock::{ClusterClock, ClusterTime, Now, Walls};
use crate::entry::{self, Commands, DecodeError, Finding};
use crate::event::Effect;
use crate::ledger_rows::{LedgerRows, Rows};
use crate::standing::ClusterState;
use crate::state::State;
use crate::view::{ReadView, Shown};

/// Commands in one entry. With [`ENTRY_BYTES_MAX`] it bounds how long one entry holds the loop.
pub(super) const COMMANDS_PER_ENTRY_MAX: usize = 1_024;

/// A group nobody writes to is stamped this often, so that its time goes on.
const IDLE_STAMP_MS: u64 = 10_000;

/// Followers are told of a commit this soon, if no append told them before.
const ANNOUNCE_AFTER_MS: u64 = 5;

/// A leader that does not know cluster time, and whose quorum does not either, waits so long for
/// somebody else to tell it.
const TIME_TOLD_WITHIN_MS: u64 = 250;

/// One group.
pub(super) struct Group<R> {
    id: GroupId,
    pub(super) replica: Replica,
    pub(super) state: State,
    pub(super) applied_index: u64,
    pub(super) applied_term: u64,
    pub(super) checkpoints: Checkpoints,
    pub(super) ledger: LedgerProgress,
    pub(super) audit: Audit,
    pub(super) coming_back: ComingBack,
    /// A snapshot that is here, and that raft has yet to accept.
    arrived: Option<Box<Arrived>>,
    clock: ClusterClock,
    /// In which term this replica first wanted to stamp an entry, and when that was (boot clock).
    led_since: Option<(u64, u64)>,
    /// Nodes that have said that they do not know cluster time either.
    ignorant: BTreeSet<u64>,
    queued: Vec<Queued<R>>,
    proposed: VecDeque<Waiting<R>>,
    pub(super) reads: Reads<R>,
    /// When this leader last put an entry into the log (boot clock).
    last_entry_boot_ms: u64,
    /// An entry that will expire what was due at this stamp is on its way.
    expiring: Option<Stamp>,
    announce_at_boot_ms: Option<u64>,
    /// What the entry under way changes.
    changed: Changed,
    /// What the turn under way has changed.
    rows: Rows,
    /// Replicas that have acknowledged what this one, their leader, has not got, and in which term.
    doubted: (u64, BTreeSet<u64>),
    /// What its shard owes others, and is under way.
    pub(super) leading: Leading,
}

/// What a group is made of.
pub(super) struct GroupParts {
    pub(super) id: GroupId,
    pub(super) replica: Replica,
    /// The state machine, as of a point.
    pub(super) restored: Restored,
    pub(super) checkpoints: Checkpoints,
    pub(super) ledger: LedgerProgress,
}

/// Commands that wait to be proposed, when the turn has seen all of its events.
struct Queued<R> {
    commands: Commands,
    /// Nobody, for what this node itself wants written down.
    reply: Option<R>,
}

/// How much of what waited is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// All that may be by now.
    Whole,
    /// The turn has no room for the rest.
    InPart,
}

/// Commands in the log that wait to be committed.
struct Waiting<R> {
    proposed: Proposed,
    /// Those of one entry wait in the order of their commands.
    count: usize,
    reply: Option<R>,
}

impl<R> Group<R> {
    /// A group whose replica has just been opened.
    pub(super) fn new(parts: GroupParts) -> Self {
        let mut clock = ClusterClock::default();
        clock.applied(parts.restored.state.moment(), parts.restored.point.term);
        Self {
            id: parts.id,
            replica: parts.replica,
            state: parts.restored.state,
            applied_index: parts.restored.point.index,
            applied_term: parts.restored.point.term,
            checkpoints: parts.checkpoints,
            ledger: parts.ledger,
            audit: Audit::default(),
            coming_back: ComingBack::of(parts.restored.point.index),
            arrived: None,
            clock,
            led_since: None,
            ignorant: BTreeSet::new(),
            queued: Vec::new(),
            proposed: VecDeque::new(),
            reads: Reads::default(),
            last_entry_boot_ms: 0,
            expiring: None,
            announce_at_boot_ms: None,
            changed: Changed::default(),
            rows: Rows::default(),
            doubted: (0, BTreeSet::new()),
            leading: Leading::default(),
        }
    }

    /// A follower has acknowledged what its leader has not got. Whether that is news in this term.
    pub(super) fn doubts(&mut self, follower: u64) -> bool {
        let term = self.replica.term();
        if self.doubted.0 != term {
            self.doubted = (term, BTreeSet::new());
        }
        self.doubted.1.insert(follower)
    }

    /// Takes commands to be proposed when the turn has seen all of its events, or says at once that
    /// it cannot.
    pub(super) fn propose(&mut self, commands: Commands, reply: R, effects: &mut Vec<Effect<R>>) {
        if self.replica.is_leader() {
            self.queued.push(Queued {
                commands,
                reply: Some(reply),
            });
        } else {
            let failure = Failure::NotLeader {
                leader: Some(ReplicaId(self.replica.leader()).node()).filter(|leader| *leader != 0),
            };
            answer(effects, reply, Answer::Failed(failure));
        }
    }

    /// Takes commands that nobody waits for; they are lost where this is not the leader.
    pub(super) fn propose_unasked(&mut self, commands: Commands) {
        if self.replica.is_leader() {
            self.queued.push(Queued {
                commands,
                reply: None,
            });
        }
    }

    /// Puts an entry into the log that has every replica hash its state.
    pub(super) fn propose_audit(&mut self, now: Now, walls: Walls) -> Option<Proposed> {
        if !self.may_stamp(now) {
            return None;
        }
        let moment = self.clock.stamp(self.replica.term(), now, walls);
        let proposed = self.replica.propose(entry::encode_audit(moment)).ok();
        self.last_entry_boot_ms = now.boot_ms;
        proposed
    }

    /// Puts an entry into the log that says which replicas differ from most.
    pub(super) fn propose_finding(&mut self, finding: &Finding, now: Now, walls: Walls) {
        if !self.may_stamp(now) {
            return;
        }
        let moment = self.clock.stamp(self.replica.term(), now, walls);
        let entry = entry::encode_finding(moment, finding);
        if let Err(error) = self.replica.propose(entry) {
            tracing::debug!(%error, "what an audit found could not be written down");
        }
        self.last_entry_boot_ms = now.boot_ms;
    }

    /// Puts everything that waits into the log: one entry, or a few where one would be too large.
    /// `room` is for how many bytes of commands the turn still has room.
    pub(super) fn flush(
        &mut self,
        now: Now,
        walls: Walls,
        room: &mut usize,
        effects: &mut Vec<Effect<R>>,
    ) -> Flushed {
        if !self.replica.is_leader() {
            // Only who leads may stamp: without an estimate that is a jump of this replica's time.
            for queued in self.queued.drain(..) {
                let failure = Failure::NotLeader { leader: None };
                answer_if_asked(effects, queued.reply, Answer::Failed(failure));
            }
        }
        while !self.queued.is_empty() {
            if !self.may_stamp(now) {
                return Flushed::Whole;
            }
            let (fits, bytes) = entry_fits(&self.queued);
            if bytes > *room {
                return Flushed::InPart;
            }
            *room -= bytes;
            let moment = self.clock.stamp(self.replica.term(), now, walls);
            let batch = self.queued[..fits].iter().map(|queued| &queued.commands);
            let proposed = self.replica.propose(entry::encode_entry(moment, batch));
            for queued in self.queued.drain(..fits) {
                match proposed {
                    Ok(proposed) => {
                        let count = queued.commands.count as usize;
                        let reply = queued.reply;
                        self.proposed.push_back(Waiting {
                            proposed,
                            count,
                            reply,
                        });
                    }
                    Err(error) => {
                        let failure = match error {
                            ProposeError::NotLeader => Failure::NotLeader { leader: None },
                            ProposeError::Dropped => Failure::Overloaded,
                        };
                        answer_if_asked(effects, queued.reply, Answer::Failed(failure));
                    }
                }
            }
            self.last_entry_boot_ms = now.boot_ms;
        }
        Flushed::Whole
    }

    /// Whether this leader may stamp entries: it has applied all that earlier ones stamped, and it
    /// knows cluster time or a quorum has forgotten it. One that does not know waits to be told,
    /// since another replica knows better than any wall clock; but not for one that cannot be
    /// heard.
    fn may_stamp(&mut self, now: Now) -> bool {
        if !self.leads_in_full() {
            return false;
        }
        if self.clock.knows() {
            return true;
        }
        let term = self.replica.term();
        let since = match self.led_since {
            Some((led, since)) if led == term => since,
            _ => {
                self.led_since = Some((term, now.boot_ms));
                self.ignorant.clear();
                now.boot_ms
            }
        };
        let has_forgotten = |replica: u64| {
            replica == self.replica.replica_id()
                || self.ignorant.contains(&ReplicaId(replica).node())
        };
        let configuration = self.replica.configuration();
        // Group 0 is observed by every node, of which some may be gone for long; and nothing is
        // held there.
        let may_know =
            |replica: &u64| self.id != GroupId::META || configuration.voters.contains(replica);
        let mut asked = configuration.members().into_iter().filter(may_know);
        match now.boot_ms.saturating_sub(since) < TIME_TOLD_WITHIN_MS {
            true => asked.all(has_forgotten),
            false => configuration.is_quorum(has_forgotten),
        }
    }

    /// Whether this leader has applied the first entry of its term, and so all of earlier ones.
    pub(super) fn leads_in_full(&self) -> bool {
        self.replica.is_leader() && self.applied_term == self.replica.term()
    }

    /// Whether there is something to propose, and only just it may be.
    pub(super) fn may_flush_since(&self, applied_term: u64) -> bool {
        !self.queued.is_empty() && applied_term != self.applied_term && self.leads_in_full()
    }

    /// What this replica takes cluster time to be.
    pub(super) fn estimated_time(&self, now: Now) -> Option<ClusterTime> {
        self.clock.estimate(now)
    }

    /// Cluster time as a reader is told it: what this replica takes it to be now, since the last
    /// entry of a shard in which nothing happens may be ten seconds old. Where it does not know the
    /// time, and never before the last entry, it is that entry's.
    fn time_for_readers(&self, now: Now) -> Stamp {
        let stamped = self.state.moment().stamp;
        self.clock.now(now).map_or(stamped, |now| now.max(stamped))
    }

    /// Another replica tells what it takes cluster time to be, or that it has no idea.
    pub(super) fn told_time(&mut self, node: u64, time: Option<ClusterTime>, now: Now) {
        let term = self.replica.term();
        if !self.replica.is_leader() {
            let is_led = ReplicaId(self.replica.leader()).node() == node;
            if let Some(time) = time.filter(|time| is_led && time.term == term) {
                self.clock.led_by(time, now);
            }
        } else if self.leads_in_full() && !self.clock.knows() {
            match time {
                Some(time) if self.clock.told(time, term, now) => {}
                // It has no idea, or knows the time of an earlier leader only.
                _ => {
                    self.ignorant.insert(node);
                }
            }
        }
    }

    /// Proposes an entry without commands where one is due: a hold expires, or time must go on.
    pub(super) fn let_time_pass(&mut self, now: Now, walls: Walls) {
        if !self.replica.is_settled_leader() {
            // Whatever was on its way may have been dropped with the leadership.
            self.expiring = None;
            return;
        }
        let due = match &self.state {
            State::Stock(shard) => shard.next_expiry(),
            State::Meta(_) => None,
        };
        let cluster_now = self.clock.now(now);
        let expires = due.filter(|due| {
            cluster_now.is_some_and(|now| *due <= now) && self.expiring.is_none_or(|at| at < *due)
        });
        let is_idle = now.boot_ms.saturating_sub(self.last_entry_boot_ms) >= IDLE_STAMP_MS;
        if (expires.is_none() && !is_idle && cluster_now.is_some()) || !self.may_stamp(now) {
            return;
        }
        let moment = self.clock.stamp(self.replica.term(), now, walls);
        if self
            .replica
            .propose(entry::encode_entry(moment, [].iter()))
            .is_ok()
        {
            self.expiring = expires.map(|_| moment.stamp);
            self.last_entry_boot_ms = now.boot_ms;
        }
    }

    /// Applies committed entries, publishes what they changed, and answers who waited.
    pub(super) fn apply(
        &mut self,
        committed: Vec<Committed>,
        view: &ReadView,
        effects: &mut Vec<Effect<R>>,
    ) -> Result<(), DecodeError> {
        for entry in committed {
            let outcomes = self.apply_entry(&entry, view)?;
            self.applied_index = entry.index;
            self.applied_term = entry.term;
            self.checkpoints.applied(entry.data.len());
            match self.id.shard() {
                Some(shard) => view.reached(shard, entry.index, self.state.moment().stamp),
                None => view.catalog_reached(entry.index, self.state.moment().stamp),
            }
            self.answer_proposals(&entry, outcomes, effects);
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Committed, view: &ReadView) -> Result<Outcomes, DecodeError> {
        // A new leader begins its term with an entry of nothing; a change of members is raft's.
        if entry.data.is_empty() {
            return Ok(Outcomes::new());
        }
        let decoded = entry::decode_entry(&entry.data)?;
        let (state, changed) = (&mut self.state, &mut self.changed);
        let outcomes = applying::apply(state, entry.index, &decoded, changed)?;
        let moment = state.moment();
        self.clock.applied(moment, entry.term);
        if let State::Stock(shard) = &self.state {
            view.publish(shard, &self.changed.ledger);
            if self
                .expiring
                .is_some_and(|expiring| expiring <= moment.stamp)
            {
                self.expiring = None;
            }
        }
        for change in self.changed.ledger.drain(..) {
            self.rows.push(entry.index, &change);
        }
        for location in self.changed.locations.drain(..) {
            if let State::Meta(meta) = &self.state
                && let Some(put) = meta.catalog.location(&location)
            {
                view.put_location(put.clone());
            }
        }
        if decoded.audit {
            self.audit.mark(entry.index, &self.state);
        }
        if let Some(finding) = &decoded.finding {
            self.audit
                .found(ReplicaId(self.replica.replica_id()), finding);
        }
        Ok(outcomes)
    }

    fn answer_proposals(
        &mut self,
        entry: &Committed,
        outcomes: Outcomes,
        effects: &mut Vec<Effect<R>>,
    ) {
        let mut outcomes = outcomes.into_iter();
        while self
            .proposed
            .front()
            .is_some_and(|front| front.proposed.index <= entry.index)
        {
            let Some(waiting) = self.proposed.pop_front() else {
                break;
            };
            let place = Proposed {
                index: entry.index,
                term: entry.term,
            };
            if waiting.proposed == place {
                let outcomes: Outcomes = outcomes.by_ref().take(waiting.count).collect();
                let applied = Applied {
                    applied_index: entry.index,
                    stamp: self.state.moment().stamp,
                    outcomes,
                };
                answer_if_asked(effects, waiting.reply, Answer::Outcomes(applied));
            } else {
                // Another leader's entry stands where this one's should: it was dropped.
                let failure = Failure::NotLeader { leader: None };
                answer_if_asked(effects, waiting.reply, Answer::Failed(failure));
            }
        }
    }

    /// A node that no longer leads cannot say what becomes of what it proposed.
    pub(super) fn fail_if_deposed(&mut self, effects: &mut Vec<Effect<R>>) {
        if self.proposed.is_empty() || self.replica.is_leader() {
            return;
        }
        for waiting in self.proposed.drain(..) {
            answer_if_asked(
                effects,
                waiting.reply,
                Answer::Failed(Failure::OutcomeUnknown),
            );
        }
    }

    /// Tells followers of a commit that no append has told them of; `true` if it did. `next_wake`
    /// comes no later than when this is due.
    pub(super) fn announce(&mut self, now: Now) -> bool {
        if !self.replica.has_unannounced_commit() {
            self.announce_at_boot_ms = None;
            return false;
        }
        match self.announce_at_boot_ms {
            Some(at) if at <= now.boot_ms => {
                self.announce_at_boot_ms = None;
                self.replica.ping();
                true
            }
            Some(_) => false,
            None => {
                self.announce_at_boot_ms = Some(now.boot_ms + ANNOUNCE_AFTER_MS);
                false
            }
        }
    }

    /// When [`Self::announce`] is due, on the boot clock.
    pub(super) fn announce_at_boot_ms(&self) -> Option<u64> {
        self.announce_at_boot_ms
    }

    /// Whether everything known to be committed is applied; not so while a log is replayed.
    pub(super) fn has_caught_up(&self) -> bool {
        self.replica.is_leader() || self.applied_index >= self.replica.commit()
    }

    /// Whether applying has left holds that are due already.
    pub(super) fn has_overdue_holds(&self) -> bool {
        match &self.state {
            State::Stock(shard) => shard.next_expiry().is_some_and(|due| due <= shard.stamp()),
            State::Meta(_) => false,
        }
    }

    /// Whether the state is worth a near read. Who leads has all that is committed, applied or
    /// about to be.
    pub(super) fn is_near(&self) -> bool {
        self.coming_back.is_near() || self.replica.is_leader()
    }

    /// Says what others may know of it.
    pub(super) fn publish_standing(&mut self, cluster: &ClusterState) {
        self.coming_back.applied(&self.replica, self.applied_index);
        let number = self.id.index();
        let is_near = self.is_near();
        cluster.publish(number, &self.replica, self.applied_index, is_near);
    }

    /// The state as it is now, to be written down. Between two turns all is applied that was handed
    /// out, so the configuration is the one of this index.
    pub(super) fn image(&self) -> Image {
        Image {
            group: self.id,
            replica: ReplicaId(self.replica.replica_id()),
            point: Point {
                index: self.applied_index,
                term: self.applied_term,
                configuration: self.replica.configuration().clone(),
            },
            stamp: self.state.moment().stamp,
            frozen: self.state.freeze(),
        }
    }

    /// What the turn changed, to be kept. Group 0 has no ledger.
    pub(super) fn take_rows(&mut self) -> Option<LedgerRows> {
        let is_stock = self.id.shard().is_some();
        (is_stock && self.ledger.sent_index() < self.applied_index).then(|| LedgerRows {
            group: self.id,
            after: self.ledger.sent(self.applied_index, self.rows.len()),
            to: self.applied_index,
            rows: self.rows.take(),
        })
    }

    /// Takes a snapshot that raft will be asked about next.
    pub(super) fn arrive(&mut self, arrived: Box<Arrived>) {
        self.arrived = Some(arrived);
    }

    /// Forgets the snapshot that nobody wants any more, if there is one, and says what is to be
    /// deleted.
    pub(super) fn drop_arrived(&mut self) -> Option<Effect<R>> {
        let index = self.arrived.take()?.restored.point.index;
        let group = self.id;
        Some(Effect::Chore(Chore::DropSnapshot { group, index }))
    }

    /// The log has been replaced by a snapshot, durably: so is the state. Returns what was there
    /// before; none if the snapshot is not here, which cannot be: raft was only told of one that
    /// was.
    pub(super) fn install(&mut self, point: &Point, view: &ReadView) -> Option<Unwanted> {
        let is_it = |arrived: &mut Box<Arrived>| arrived.restored.point == *point;
        let Arrived { restored, shown } = *self.arrived.take_if(is_it)?;
        self.checkpoints.restart(Kept {
            point: restored.point,
            bytes: restored.bytes,
        });
        let state = std::mem::replace(&mut self.state, restored.state);
        self.applied_index = point.index;
        self.applied_term = point.term;
        self.clock.applied(self.state.moment(), point.term);
        self.expiring = None;
        self.audit = Audit::default();
        self.rows.clear();
        self.ledger = LedgerProgress::new(point.index);
        let shown = self.show(view, shown);
        Some(Unwanted::new((state, shown)))
    }

    /// Everybody who waits for something of this group.
    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = R> {
        let queued = std::mem::take(&mut self.queued).into_iter();
        let proposed = std::mem::take(&mut self.proposed).into_iter();
        queued
            .filter_map(|queued| queued.reply)
            .chain(proposed.filter_map(|waiting| waiting.reply))
            .chain(self.reads.take_all())
    }

    /// Publishes everything, as after a start.
    pub(super) fn publish(&self, view: &ReadView) {
        let shown = match &self.state {
            State::Stock(stock) => Some(Shown::of(stock)),
            State::Meta(_) => None,
        };
        self.show(view, shown);
    }

    /// Publishes everything, and returns what was shown before of a shard.
    fn show(&self, view: &ReadView, shown: Option<Shown>) -> Option<Shown> {
        match (self.id.shard(), &self.state, shown) {
            (Some(shard), State::Stock(_), Some(shown)) => {
                let before = view.replace(shard, shown);
                view.reached(shard, self.applied_index, self.state.moment().stamp);
                Some(before)
            }
            (_, State::Meta(meta), _) => {
                let stamp = self.state.moment().stamp;
                view.replace_locations(meta.catalog.locations(), self.applied_index, stamp);
                None
            }
            (_, State::Stock(_), _) => None,
        }
    }

    /// What is known of a question's subject, now.
    pub(super) fn answer_question(&self, question: Question, now: Now) -> Answer {
        let applied_index = self.applied_index;
        match (question, &self.state) {
            (Question::Reservation(id), State::Stock(shard)) => {
                let reservation = shard.reservation(&id).cloned();
                let open = reservation.as_ref().filter(|it| it.state.is_open());
                Answer::Reservation {
                    undecided: open.and_then(|open| shard.prepared(&open.id)),
                    reservation,
                    applied_index,
                    now: self.time_for_readers(now),
                }
            }
            (Question::List(asked), State::Stock(shard)) => Answer::Listed {
                listed: shard.list(&asked.filter, asked.after, asked.found_max, LOOKED_AT_MAX),
                applied_index,
                now: self.time_for_readers(now),
            },
            (Question::Reached | Question::Reservation(_) | Question::List(_), _) => {
                Answer::Reached { applied_index }
            }
        }
    }

    /// How far cluster time is from the median wall clock.
    pub(super) fn clock_distance_ms(&self, now: Now, walls: Walls) -> Option<i64> {
        self.clock.distance_ms(now, walls)
    }

    /// How much the group holds, if it is a stock shard.
    pub(super) fn counts(&self) -> Option<stock_core::Counts> {
        match &self.state {
            State::Stock(shard) => Some(shard.counts()),
            State::Meta(_) => None,
        }
    }
}

/// How many of those that wait fit into one entry, at least one, and their bytes.
fn entry_fits<R>(queued: &[Queued<R>]) -> (usize, usize) {
    let (mut fits, mut commands, mut bytes) = (0, 0, 0);
    for queued in queued {
        commands += queued.commands.count as usize;
        let with = bytes + queued.commands.bytes.len();
        if fits > 0 && (commands > COMMANDS_PER_ENTRY_MAX || with > ENTRY_BYTES_MAX) {
            break;
        }
        (fits, bytes) = (fits + 1, with);
    }
    (fits, bytes)
}
