//! The loop that owns every group of this node.
//!
//! It knows no runtime, socket, file, clock or channel, and nor does its crate: events and the time
//! come in, effects go out, and what is to be written down. One turn:
//!
//! ```text
//! worker.step(now, events, &mut effects)     // a leader's appends leave first
//! worker.answer(&mut effects)?          // what others have made durable is applied and answered
//! if let Some(writes) = worker.writes() {    // one write and one fdatasync for all groups
//!     // ... make them durable
//!     worker.written();
//! }
//! worker.settle(&mut effects)                // votes and acknowledgements
//! worker.catch_up(now, &mut effects)?        // nobody waits for what is applied here
//! ```
//!
//! The driver performs the effects after each step that has any. Whoever hosts the loop, a thread
//! of its own or the runtime that also serves the edge, runs the same calls.

mod audit;
mod baskets;
mod checkpoints;
mod coming_back;
mod compare;
mod error;
mod group;
mod hearsay;
mod leaders;
mod leading;
mod ledgers;
mod members;
mod meta_duties;
mod open;
mod parts;
mod pulse;
mod reads;
mod relief;
mod sending;
mod slot;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use stock_cluster::{GroupId, ReplicaId};
use stock_replica::{Committed, Point};

pub use self::checkpoints::Kept;
pub use self::error::WorkerError;
use self::group::{Flushed, Group};
use self::ledgers::ENTRIES_WAITING_MAX;
use self::meta_duties::MetaDuties;
pub use self::open::{Found, FoundReplica};
pub use self::parts::{
    CheckpointPace, EntryReaders, Founding, USUAL_AUDIT_EVERY_MS, USUAL_CHECKPOINT_PACE,
    USUAL_COMMITTED_BYTES, USUAL_ELECTION_TICKS, WorkerParts,
};
use self::pulse::Pulse;
use self::reads::ContextSource;
use self::sending::{answer, send};
use self::slot::Slot;
pub use self::slot::{Fault, FaultKind, SlotRecord, Standing};
use crate::answer::{Answer, Failure, Freshness, Question};
use crate::chore::Chore;
use crate::clock::{DISTANCE_MS_ALERT, Now, WallClocks};
use crate::entry::Commands;
use crate::event::{Effect, Event};
use crate::ledger_rows::Page;
use crate::standing::ClusterState;
use crate::state::State;
use crate::view::ReadView;
use crate::writes::{Record, Write, Writes};

/// How often the loop must see the time, in milliseconds. Raft's timeouts count in these.
pub const TICK_MS: u64 = 50;

/// Bytes of commands that one turn puts into the logs of all groups led here together; what is left
/// waits for the next turn. No less than one group may have on its way. All groups together may
/// have any multiple of it, as after the disk was full, and what a turn writes must fit into one
/// batch of the log, beside what peers have sent (`stockd/src/host`).
pub const PROPOSED_BYTES_PER_TURN_MAX: usize = 32 * 1024 * 1024;

/// Reads that may wait in one group. Past this they are refused.
const READS_WAITING_MAX: usize = 16_384;

/// The loop's state.
pub struct Worker<R> {
    parts: WorkerParts,
    /// One for each group of the cluster.
    slots: Vec<Slot<R>>,
    writes: Writes,
    /// Groups with a turn under way.
    turn: Vec<Turn>,
    /// To be done once the write under way is durable.
    after_write: Vec<Effect<R>>,
    /// Groups that something happened to since they were last looked at.
    touched: BTreeSet<usize>,
    /// The first group of which the turn before left commands out: it comes first in the next.
    left_out: Option<usize>,
    contexts: ContextSource,
    walls: WallClocks,
    view: Arc<ReadView>,
    cluster: Arc<ClusterState>,
    next_tick_boot_ms: u64,
    /// When the turn under way began.
    now: Now,
    /// Nodes there is a connection to.
    up: BTreeSet<u64>,
    is_handing_over: bool,
    is_writing_checkpoint: bool,
    /// Ledger entries of all groups that are not durable yet.
    ledger_entries_waiting: usize,
    meta_duties: MetaDuties,
    pulse: Pulse,
    /// Groups whose replica begins with the write under way.
    beginning: BTreeSet<usize>,
    ticks: u64,
    /// Up to where group 0's state was published.
    registry_index: u64,
    /// When a leader last said that it leads a group that has no replica here, by group.
    leads_heard: BTreeMap<usize, u64>,
    /// The groups that other nodes say they could lead.
    fit: BTreeMap<u64, BTreeSet<GroupId>>,
}

/// A group's part of the turn under way.
struct Turn {
    number: usize,
    /// What is committed and not yet applied.
    committed: Vec<Committed>,
    /// The snapshot that replaces the log.
    install: Option<Point>,
}

impl<R> Worker<R> {
    /// A loop with what was found of each group, in the order of the groups. What founds new groups
    /// is durable by then.
    pub fn open(parts: WorkerParts, found: Vec<Found>, now: Now) -> Self {
        // A crash came between a snapshot and the word to the ledger that history begins behind it.
        let unrecorded = (0..).map(GroupId).zip(&found).filter_map(|(group, found)| {
            let Found::Replica(found) = found else {
                return None;
            };
            let after = found.restored.point.index;
            let is_behind = group.shard().is_some() && found.ledger_index? < after;
            is_behind.then_some(Effect::Record(Page::Begin { group, after }))
        });
        let after_write = unrecorded.collect();
        let found = (0..).map(GroupId).zip(found);
        let mut slots: Vec<Slot<R>> = found
            .map(|(id, found)| open::slot(id, found, &parts))
            .collect();
        for group in slots.iter().filter_map(|slot| slot.group.as_ref()) {
            group.publish(&parts.view);
        }
        for (number, slot) in slots.iter_mut().enumerate() {
            match &mut slot.group {
                Some(group) => group.publish_standing(&parts.cluster),
                None => parts.cluster.publish_absent(number),
            }
        }
        Self {
            turn: Vec::with_capacity(slots.len()),
            slots,
            writes: Writes::default(),
            after_write,
            touched: BTreeSet::new(),
            left_out: None,
            contexts: ContextSource::new(parts.node, parts.boot),
            walls: WallClocks::default(),
            view: Arc::clone(&parts.view),
            cluster: Arc::clone(&parts.cluster),
            next_tick_boot_ms: now.boot_ms + TICK_MS,
            now,
            up: BTreeSet::new(),
            is_handing_over: false,
            is_writing_checkpoint: false,
            ledger_entries_waiting: 0,
            meta_duties: MetaDuties::default(),
            pulse: Pulse::new(now),
            beginning: BTreeSet::new(),
            ticks: 0,
            registry_index: 0,
            leads_heard: BTreeMap::new(),
            fit: BTreeMap::new(),
            parts,
        }
    }

    /// Takes events and the time. Afterwards the effects may be performed: they are true whatever
    /// becomes of the disk.
    pub fn step(
        &mut self,
        now: Now,
        events: impl IntoIterator<Item = Event<R>>,
        effects: &mut Vec<Effect<R>>,
    ) {
        self.now = now;
        for event in events {
            self.take(event, now, effects);
        }
        if now.boot_ms >= self.next_tick_boot_ms {
            self.next_tick_boot_ms = now.boot_ms + TICK_MS;
            self.tick(now, effects);
        }
        let walls = self.walls.median(now);
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.group.as_mut().is_some_and(|group| group.announce(now)) {
                self.touched.insert(number);
            }
        }
        let touched = std::mem::take(&mut self.touched);
        let first = self.left_out.take().unwrap_or(0);
        let mut room = PROPOSED_BYTES_PER_TURN_MAX;
        for &number in touched.range(first..).chain(touched.range(..first)) {
            let Some(group) = &mut self.slots[number].group else {
                continue;
            };
            if group.flush(now, walls, &mut room, effects) == Flushed::InPart {
                self.left_out.get_or_insert(number);
                self.touched.insert(number);
            }
            group.reads.ask(&mut group.replica, &mut self.contexts);
            let prepared = group.replica.has_effects().then(|| group.replica.prepare());
            if let Some(why) = group.replica.over().map(str::to_owned) {
                self.fail(GroupId(number as u32), FaultKind::Passing, why, effects);
                continue;
            }
            let Some(prepared) = prepared else {
                effects.extend(group.drop_arrived());
                continue;
            };
            if prepared.write.install.is_none() {
                // Raft has something newer.
                effects.extend(group.drop_arrived());
            }
            let cluster_time = group.estimated_time(now);
            send(number, prepared.messages, cluster_time, effects);
            for ready in &prepared.reads {
                group.reads.ready(ready);
                group.coming_back.ready(ready);
            }
            let write = prepared.write;
            let id = GroupId(number as u32);
            if let Some(point) = &write.install {
                self.writes.push(Write::Reset(id));
                self.writes.put(Record::Origin(id), point.to_bytes());
            }
            if !write.entries.is_empty() {
                self.writes.push(Write::Append {
                    group: id,
                    first_index: write.first_index,
                    entries: write.entries,
                });
            }
            if let Some(state) = write.state {
                self.writes.put(Record::State(id), state);
            }
            self.turn.push(Turn {
                number,
                committed: prepared.committed,
                install: write.install,
            });
        }
    }

    /// Applies what the groups led here have committed, and answers. Raft hands out what is durable
    /// on a majority and on this disk: who waits for it need not wait for what this turn writes.
    pub fn answer(&mut self, effects: &mut Vec<Effect<R>>) -> Result<(), WorkerError> {
        let mut turn = std::mem::take(&mut self.turn);
        for part in &mut turn {
            let group = self.slots[part.number].group.as_ref();
            if group.is_some_and(|group| group.replica.is_leader()) {
                self.apply(part.number, std::mem::take(&mut part.committed), effects)?;
            }
        }
        self.turn = turn;
        Ok(())
    }

    /// What [`Self::step`] wants to be durable, if anything, before [`Self::written`] and
    /// [`Self::settle`]. After an error nothing may be sent or answered any more. While the disk is
    /// full the turn stands still here, and this is asked again.
    pub fn writes(&mut self) -> Option<&Writes> {
        if self.writes.is_empty() {
            return None;
        }
        self.pulse.beat(self.now, &self.cluster, &mut self.writes);
        Some(&self.writes)
    }

    /// All of [`Self::writes`] is durable.
    pub fn written(&mut self) {
        self.writes.clear();
        self.pulse.beaten(&self.cluster);
        self.beginning.clear();
    }

    /// Says what may be sent and dropped now that the disk has it.
    pub fn settle(&mut self, effects: &mut Vec<Effect<R>>) {
        effects.append(&mut self.after_write);
        let mut turn = std::mem::take(&mut self.turn);
        for part in &mut turn {
            if let Some(point) = part.install.take() {
                self.installed(part.number, &point, effects);
            }
            let Some(group) = &mut self.slots[part.number].group else {
                continue;
            };
            let settled = group.replica.settle();
            let cluster_time = group.estimated_time(self.now);
            send(part.number, settled.messages, cluster_time, effects);
            part.committed.extend(settled.committed);
        }
        self.turn = turn;
    }

    /// Applies the rest: what followers were told is committed, and what this node's own write
    /// completed.
    pub fn catch_up(&mut self, now: Now, effects: &mut Vec<Effect<R>>) -> Result<(), WorkerError> {
        // The write may have taken long.
        self.now = now;
        self.check_version()?;
        let mut turn = std::mem::take(&mut self.turn);
        for Turn {
            number, committed, ..
        } in turn.drain(..)
        {
            self.apply(number, committed, effects)?;
            let walls = self.walls.median(now);
            let Some(group) = &mut self.slots[number].group else {
                continue;
            };
            group.fail_if_deposed(effects);
            if group.has_overdue_holds() {
                group.let_time_pass(now, walls);
            }
            group.announce(now);
            if let Some((index, frozen)) = group.audit.take_marked() {
                effects.push(Effect::Chore(Chore::HashState {
                    group: GroupId(number as u32),
                    replica: ReplicaId(group.replica.replica_id()),
                    index,
                    frozen,
                }));
            }
            if let Some(rows) = group.take_rows() {
                self.ledger_entries_waiting += rows.rows.len();
                effects.push(Effect::Record(Page::Rows(rows)));
            }
            group.publish_standing(&self.cluster);
            if group.replica.has_effects() || group.replica.over().is_some() {
                self.touched.insert(number);
            }
        }
        self.turn = turn;
        Ok(())
    }

    /// Whether anything is to be written.
    pub fn must_write(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Whether another turn is due at once.
    pub fn has_work(&self) -> bool {
        !self.touched.is_empty()
    }

    /// When the next turn is due though nothing happens, on the boot clock in milliseconds.
    pub fn next_wake_boot_ms(&self) -> u64 {
        let announce = self
            .groups()
            .filter_map(|(_, group)| group.announce_at_boot_ms())
            .min();
        announce.map_or(self.next_tick_boot_ms, |at| at.min(self.next_tick_boot_ms))
    }

    /// What is committed and not yet applied in the turn under way: after [`Self::step`], and once
    /// more with what this node's own write completed after [`Self::settle`]. For whoever follows
    /// the log.
    pub fn unapplied(&self) -> impl Iterator<Item = (GroupId, &[Committed])> {
        self.turn
            .iter()
            .map(|part| (GroupId(part.number as u32), part.committed.as_slice()))
    }

    /// Whether a replica has yet to apply what it knew to be committed when it was brought back.
    pub fn replays(&self, group: GroupId) -> bool {
        let slot = self.slots.get(group.index());
        let replica = slot.and_then(|slot| slot.group.as_ref());
        replica.is_some_and(|replica| replica.coming_back.is_replaying())
    }

    /// The applied index of a group, and the hash of its state there. Replicas of equal index must
    /// have equal hashes.
    pub fn state_hash(&self, group: GroupId) -> Option<(u64, u128)> {
        let group = self.slots.get(group.index())?.group.as_ref()?;
        Some((group.applied_index, group.state.freeze().hash().0))
    }

    /// The replicas of this node that have failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (GroupId, &str)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| {
            Some((GroupId(number as u32), slot.fault.as_ref()?.why.as_str()))
        })
    }

    /// The groups led here of which somebody waits for a snapshot that is not there yet.
    pub fn snapshots_wanted(&self) -> impl Iterator<Item = GroupId> {
        let groups = self.groups();
        groups.filter_map(|(number, group)| {
            let is_wanted = group.replica.wants_snapshot();
            is_wanted.then_some(GroupId(number as u32))
        })
    }

    /// How much each stock shard holds.
    pub fn counts(&self) -> impl Iterator<Item = (u32, stock_core::Counts)> {
        self.groups().filter_map(|(number, group)| {
            let shard = GroupId(number as u32).shard()?;
            Some((shard, group.counts()?))
        })
    }

    /// Whether it is in group 0's log who founded the cluster. What was acknowledged before could
    /// not be recovered: nobody would know whose it is.
    fn is_founded(&mut self) -> bool {
        if !self.parts.is_founded
            && let Some(group) = &self.slots[0].group
            && let State::Meta(meta) = &group.state
        {
            self.parts.is_founded = meta.registry.is_founded();
        }
        self.parts.is_founded
    }

    /// Refuses to go on in a cluster whose version this build does not speak: what is written from
    /// there on it would misread.
    fn check_version(&self) -> Result<(), WorkerError> {
        let group = self.slots[0].group.as_ref();
        let Some(State::Meta(meta)) = group.map(|group| &group.state) else {
            return Ok(());
        };
        let (version, speaks) = (meta.registry.version(), self.parts.speaks);
        match speaks.can_follow(version) {
            true => Ok(()),
            false => Err(WorkerError::Version { version, speaks }),
        }
    }

    fn groups(&self) -> impl Iterator<Item = (usize, &Group<R>)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| Some((number, slot.group.as_ref()?)))
    }

    fn take(&mut self, event: Event<R>, now: Now, effects: &mut Vec<Effect<R>>) {
        match event {
            Event::Propose {
                group,
                commands,
                reply,
            } => self.propose(group, commands, reply, effects),
            Event::Read {
                group,
                freshness,
                question,
                reply,
            } => self.read(group, freshness, question, reply, now, effects),
            Event::Message {
                group,
                payload,
                from,
                cluster_time,
            } => {
                self.message(group, from, &payload, effects);
                // Afterwards, since the message may say who leads.
                if let Some(slot) = self.slots.get_mut(group.index())
                    && let Some(group) = &mut slot.group
                {
                    group.told_time(from, cluster_time, now);
                }
            }
            Event::Notice { from, notice } => self.notice(from, notice, now, effects),
            Event::CheckpointWritten {
                group,
                replica,
                point,
                bytes,
            } => self.checkpoint_written(group, replica, point, bytes, now),
            Event::LogDamaged { group, why } => {
                if self
                    .slots
                    .get(group.index())
                    .is_some_and(|slot| slot.group.is_some())
                {
                    self.fail(group, FaultKind::Passing, why, effects);
                }
            }
            Event::StateHashed(hash) => self.state_hashed(*hash, now, effects),
            Event::SnapshotSent { group, to, arrived } => {
                if let Some(slot) = &mut self.slots[group.index()].group {
                    slot.replica.report_snapshot(to.0, arrived);
                    slot.checkpoints.sent(arrived);
                    self.touched.insert(group.index());
                }
            }
            Event::SnapshotArrived {
                group,
                envelope,
                arrived,
            } => self.snapshot_arrived(group, &envelope, arrived, effects),
            Event::LedgerDurable { group, index } => {
                if let Some(slot) = &mut self.slots[group.index()].group {
                    self.ledger_entries_waiting -= slot.ledger.durable(index);
                    self.trim(group);
                }
            }
            Event::PeerClock { node, wall_ms } => self.walls.heard(node, wall_ms, now),
            Event::PeerUp { node } => {
                self.up.insert(node);
                self.campaign_where_preferred();
            }
            Event::PeerDown { node } => self.peer_down(node),
            Event::ErrandAnswered { errand, answer } => self.errand_answered(errand, answer),
            Event::HandOver => {
                self.is_handing_over = true;
                // Before another one that stops hands over to this node.
                self.tell_what_it_could_lead(effects);
                self.hand_over();
            }
        }
    }

    fn propose(&mut self, id: GroupId, commands: Commands, reply: R, effects: &mut Vec<Effect<R>>) {
        let is_founded = self.is_founded();
        let group = self.slots[id.index()].group.as_mut();
        let Some(group) = group.filter(|_| is_founded) else {
            let failure = Failure::NotLeader { leader: None };
            return answer(effects, reply, Answer::Failed(failure));
        };
        if self.ledger_entries_waiting > ENTRIES_WAITING_MAX {
            return answer(effects, reply, Answer::Failed(Failure::Overloaded));
        }
        if let Some(failure) = self.cluster.refuses()
            && !relief::is_relief(&group.state, &commands)
        {
            return answer(effects, reply, Answer::Failed(failure));
        }
        group.propose(commands, reply, effects);
        self.touched.insert(id.index());
    }

    fn read(
        &mut self,
        id: GroupId,
        freshness: Freshness,
        question: Question,
        reply: R,
        now: Now,
        effects: &mut Vec<Effect<R>>,
    ) {
        let group = self.slots[id.index()].group.as_mut();
        // One that waits for its first snapshot knows nothing, and must not say that there is
        // nothing. One that replays its log, or has only just been sent a state, knows what was
        // once.
        let knows = |group: &&mut Group<R>| {
            let is_old = freshness == Freshness::Near && !group.is_near();
            group.replica.origin().index > 0 && !is_old
        };
        let Some(group) = group.filter(knows) else {
            let failure = Failure::NotLeader { leader: None };
            return answer(effects, reply, Answer::Failed(failure));
        };
        let is_new_enough = match freshness {
            Freshness::Near => true,
            Freshness::AtLeast(index) => index <= group.applied_index,
            Freshness::Linearizable { .. } => false,
        };
        if is_new_enough {
            answer(effects, reply, group.answer_question(question, now));
        } else if group.reads.len() >= READS_WAITING_MAX {
            answer(effects, reply, Answer::Failed(Failure::Overloaded));
        } else {
            group.reads.wait(freshness, question, reply);
            self.touched.insert(id.index());
        }
    }

    /// Nothing gets to a node any more, nor from it.
    fn peer_down(&mut self, node: u64) {
        self.up.remove(&node);
        self.fit.remove(&node);
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(group) = &mut slot.group else {
                continue;
            };
            for member in group.replica.configuration().members() {
                if ReplicaId(member).node() == node {
                    group.replica.lost(member);
                }
            }
            self.touched.insert(number);
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect<R>>) {
        let walls = self.walls.median(now);
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let Some(group) = &mut slot.group else {
                continue;
            };
            group.publish_standing(&self.cluster);
            group
                .coming_back
                .tick(&mut group.replica, &mut self.contexts);
            // While it replays its log a replica does not stand for election: to do so, raft would
            // read all of what is left at once.
            if group.has_caught_up() {
                group.replica.tick();
            }
            group.let_time_pass(now, walls);
            for late in group.reads.tick() {
                answer(effects, late.reply, Answer::Failed(Failure::TooFarBehind));
            }
            // A leader whose quorum is gone steps down in a tick.
            group.fail_if_deposed(effects);
            self.touched.insert(number);
        }
        let distance_ms = self
            .groups()
            .find_map(|(_, group)| group.clock_distance_ms(now, walls));
        if let Some(distance_ms) = distance_ms {
            let latest_ms = walls.upper_ms.max(walls.lower_ms + distance_ms);
            self.cluster.publish_time(latest_ms - now.wall_ms as i64);
            metrics::gauge!("stockd_cluster_time_distance_seconds").set(distance_ms as f64 / 1e3);
            if distance_ms.abs() > DISTANCE_MS_ALERT && self.next_tick_boot_ms % 10_000 < TICK_MS {
                tracing::warn!(
                    distance_ms,
                    "cluster time is away from the nodes' wall clocks"
                );
            }
        }
        self.pulse.keep_news(now, &self.cluster, &mut self.writes);
        self.hand_over();
        self.begin_checkpoint(now, effects);
        self.finish_joint_changes();
        self.audit(now, effects);
        self.fail_those_that_differ(effects);
        self.forget_leaders(now);
        self.look_whether_ready();
        self.see_to_baskets(effects);
        self.report(now, effects);
        self.publish_registry(effects);
    }

    /// Applies entries, answers who waited for them, and the reads that waited for the state to be
    /// so new. A panic on the way is the end of this replica, not of the node.
    fn apply(
        &mut self,
        number: usize,
        committed: Vec<Committed>,
        effects: &mut Vec<Effect<R>>,
    ) -> Result<(), WorkerError> {
        self.check_version()?;
        let Some(group) = &mut self.slots[number].group else {
            return Ok(());
        };
        let view = &self.view;
        let applied_term = group.applied_term;
        let applied = catch_unwind(AssertUnwindSafe(|| group.apply(committed, view, effects)));
        match applied {
            Ok(applied) => applied.map_err(|error| WorkerError::Decode {
                group: number as u32,
                error,
            })?,
            Err(_) => {
                let why = "its state machine panicked".to_owned();
                self.fail(GroupId(number as u32), FaultKind::Passing, why, effects);
                return Ok(());
            }
        }
        if group.may_flush_since(applied_term) {
            self.touched.insert(number);
        }
        for read in group.reads.take_applied(group.applied_index) {
            let answered = group.answer_question(read.question, self.now);
            answer(effects, read.reply, answered);
        }
        Ok(())
    }
}
