//! The loop that owns every group of this node.
//!
//! It knows no runtime, socket, clock or channel: events and the time come in, effects go out, and the
//! log is the only thing it touches. One turn:
//!
//! ```text
//! worker.step(now, events, &mut effects)     // a leader's appends leave first
//! worker.answer(now, &mut effects)?          // what others have made durable is applied and answered
//! worker.persist()?                          // one write and one fdatasync for all groups
//! worker.settle(&mut effects)                // votes and acknowledgements
//! worker.catch_up(now, &mut effects)?        // nobody waits for what is applied here
//! ```
//!
//! The driver performs the effects after each step that has any. Whoever hosts the loop, a thread of its
//! own or the runtime that also serves the edge, runs the same five calls.

pub mod clock;
pub mod event;
mod group;
mod reads;

use std::collections::BTreeSet;
use std::sync::Arc;

use stock_replica::{Committed, Origin, Outgoing, Replica, Restored};
use stock_storage::{Durability, LogError, WriteBatch};
use thiserror::Error;

use self::clock::{DISTANCE_MS_ALERT, Now, WallClocks};
use self::event::{Answer, Effect, Event, Failure, Freshness, GroupId};
use self::group::{Group, answer};
use self::reads::ContextSource;
use crate::cluster_state::ClusterState;
use crate::disk::{Disk, GroupReader};
use crate::log_codec::DecodeError;
use crate::view::ReadView;

/// How often the loop must see the time, in milliseconds. Raft's timeouts count in these.
pub const TICK_MS: u64 = 50;

/// A leader that another node should be waits this many ticks before it hands over: 3 s. A node that
/// just came back, or is about to stop, gets nothing.
const LED_TICKS_MIN: u64 = 60;

/// Bytes of appends that may be on their way to one peer, over all groups: a quarter of what its
/// connection may hold (`peers/link.rs`), since one entry may be four times an append.
const WINDOW_BYTES: u64 = 32 * 1024 * 1024;

/// Reads that may wait in one group. Past this they are refused.
const READS_WAITING_MAX: usize = 16_384;

/// The loop's state.
pub struct Worker<R> {
    node: u64,
    groups: Vec<Group<R>>,
    disk: Disk,
    batch: WriteBatch,
    /// Groups with a turn under way, and what of it is committed and not yet applied.
    turn: Vec<(usize, Vec<Committed>)>,
    /// Groups that something happened to since they were last looked at.
    touched: BTreeSet<usize>,
    contexts: ContextSource,
    walls: WallClocks,
    view: Arc<ReadView>,
    cluster: Arc<ClusterState>,
    next_tick_boot_ms: u64,
    up: BTreeSet<u64>,
    led_ticks: Vec<u64>,
    is_handing_over: bool,
}

/// The loop cannot go on. The process must stop: to serve after a failed write or an entry that was
/// not understood is to lie.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry is from another version.
    #[error("group {group}: {error}")]
    Decode {
        /// Whose entry.
        group: u32,
        /// What is wrong.
        error: DecodeError,
    },
    /// A replica cannot be opened.
    #[error("group {group}: {error}")]
    Open {
        /// Which.
        group: u32,
        /// What is wrong.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a worker is made of.
pub struct WorkerParts {
    /// This node's id.
    pub node: u64,
    /// Ids of all nodes, this one included.
    pub nodes: Vec<u64>,
    /// How many groups there are.
    pub groups: u32,
    /// Different at each boot.
    pub boot: u64,
    /// The node's disk.
    pub disk: Disk,
    /// Where applied state is published.
    pub view: Arc<ReadView>,
    /// Where leadership is published.
    pub cluster: Arc<ClusterState>,
}

impl<R> Worker<R> {
    /// Opens every group from the log, or founds it.
    pub fn open(parts: WorkerParts, now: Now) -> Result<Self, WorkerError> {
        let mut batch = WriteBatch::default();
        let mut groups = Vec::new();
        for number in 0..parts.groups {
            groups.push(open_group(number, &parts, &mut batch)?);
        }
        // The origins of new groups, all at once: a crash before this founds them again.
        if !batch.is_empty() {
            parts.disk.write(&mut batch, Durability::Sync)?;
        }
        Ok(Self {
            node: parts.node,
            led_ticks: vec![0; groups.len()],
            turn: Vec::with_capacity(groups.len()),
            groups,
            disk: parts.disk,
            batch,
            touched: BTreeSet::new(),
            contexts: ContextSource::new(parts.node, parts.boot),
            walls: WallClocks::default(),
            view: parts.view,
            cluster: parts.cluster,
            next_tick_boot_ms: now.boot_ms + TICK_MS,
            up: BTreeSet::new(),
            is_handing_over: false,
        })
    }

    /// Takes events and the time. Afterwards the effects may be performed: they are true whatever
    /// becomes of the disk.
    pub fn step(
        &mut self,
        now: Now,
        events: impl IntoIterator<Item = Event<R>>,
        effects: &mut Vec<Effect<R>>,
    ) {
        for event in events {
            self.take(event, now, effects);
        }
        if now.boot_ms >= self.next_tick_boot_ms {
            self.next_tick_boot_ms = now.boot_ms + TICK_MS;
            self.tick(now, effects);
        }
        let median_ms = self.walls.median_ms(now);
        for (number, group) in self.groups.iter_mut().enumerate() {
            if group.announce(now) {
                self.touched.insert(number);
            }
        }
        for number in std::mem::take(&mut self.touched) {
            let group = &mut self.groups[number];
            group.flush(now, median_ms, effects);
            group.reads.ask(&mut group.replica, &mut self.contexts);
            if !group.replica.has_effects() {
                continue;
            }
            let prepared = group.replica.prepare();
            send(number, prepared.messages, effects);
            for ready in &prepared.reads {
                group.reads.ready(ready);
            }
            let write = prepared.write;
            if !write.entries.is_empty() {
                self.batch
                    .append(number as u64, write.first_index, &write.entries);
            }
            if let Some(state) = &write.state {
                self.batch.put_state(number as u64, state);
            }
            self.turn.push((number, prepared.committed));
        }
    }

    /// Applies what the groups led here have committed, and answers. Committed means durable on a
    /// majority: who waits for it need not wait for this disk.
    pub fn answer(&mut self, now: Now, effects: &mut Vec<Effect<R>>) -> Result<(), WorkerError> {
        for (number, committed) in &mut self.turn {
            let group = &mut self.groups[*number];
            if group.replica.is_leader() {
                apply(
                    group,
                    *number,
                    std::mem::take(committed),
                    now,
                    &self.view,
                    effects,
                )?;
            }
        }
        Ok(())
    }

    /// Makes everything durable that [`Self::step`] wants to be. After an error nothing may be sent
    /// or answered any more.
    pub fn persist(&mut self) -> Result<(), WorkerError> {
        if !self.batch.is_empty() {
            self.disk.write(&mut self.batch, Durability::Sync)?;
        }
        Ok(())
    }

    /// Says what may be sent now that the disk has it.
    pub fn settle(&mut self, effects: &mut Vec<Effect<R>>) {
        for (number, committed) in &mut self.turn {
            let settled = self.groups[*number].replica.settle();
            send(*number, settled.messages, effects);
            committed.extend(settled.committed);
        }
    }

    /// Applies the rest: what followers were told is committed, and what this node's own write
    /// completed.
    pub fn catch_up(&mut self, now: Now, effects: &mut Vec<Effect<R>>) -> Result<(), WorkerError> {
        for (number, committed) in self.turn.drain(..) {
            let group = &mut self.groups[number];
            apply(group, number, committed, now, &self.view, effects)?;
            group.fail_if_deposed(effects);
            if group.has_overdue_holds() {
                group.let_time_pass(now, self.walls.median_ms(now));
            }
            group.announce(now);
            self.cluster
                .publish(number, &group.replica, group.applied_index);
            if group.replica.has_effects() {
                self.touched.insert(number);
            }
        }
        Ok(())
    }

    /// Whether [`Self::persist`] has anything to write.
    pub fn must_persist(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Whether another turn is due at once.
    pub fn has_work(&self) -> bool {
        !self.touched.is_empty()
    }

    /// When the next turn is due though nothing happens, on the boot clock in milliseconds.
    pub fn next_wake_boot_ms(&self) -> u64 {
        let announce = self
            .groups
            .iter()
            .filter_map(Group::announce_at_boot_ms)
            .min();
        announce.map_or(self.next_tick_boot_ms, |at| at.min(self.next_tick_boot_ms))
    }

    /// How much each stock shard holds.
    pub fn counts(&self) -> impl Iterator<Item = (u32, stock_core::Counts)> {
        self.groups
            .iter()
            .enumerate()
            .filter_map(|(number, group)| {
                let shard = GroupId(number as u32).shard()?;
                Some((shard, group.counts()?))
            })
    }

    fn take(&mut self, event: Event<R>, now: Now, effects: &mut Vec<Effect<R>>) {
        match event {
            Event::Propose {
                group,
                commands,
                reply,
            } => {
                self.groups[group.index()].propose(commands, reply, effects);
                self.touched.insert(group.index());
            }
            Event::Read {
                group,
                freshness,
                question,
                reply,
            } => {
                let number = group.index();
                let group = &mut self.groups[number];
                let is_new_enough = match freshness {
                    Freshness::Near => true,
                    Freshness::AtLeast(index) => index <= group.applied_index,
                    Freshness::Linearizable => false,
                };
                if is_new_enough {
                    answer(effects, reply, group.answer_question(question));
                } else if group.reads.len() >= READS_WAITING_MAX {
                    answer(effects, reply, Answer::Failed(Failure::Overloaded));
                } else {
                    group.reads.wait(freshness, question, reply);
                    self.touched.insert(number);
                }
            }
            Event::Message { group, payload } => {
                if let Some(group) = self.groups.get_mut(group.index())
                    && let Err(error) = group.replica.step(&payload)
                {
                    tracing::debug!(%error, "a peer's message was not taken");
                }
                self.touched.insert(group.index());
            }
            Event::PeerClock { node, wall_ms } => self.walls.heard(node, wall_ms, now),
            Event::PeerUp { node } => {
                self.up.insert(node);
                self.campaign_where_preferred();
            }
            Event::PeerDown { node } => {
                self.up.remove(&node);
                for (number, group) in self.groups.iter_mut().enumerate() {
                    group.replica.report_unreachable(node);
                    self.touched.insert(number);
                }
            }
            Event::HandOver => {
                self.is_handing_over = true;
                self.place_leaders();
            }
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect<R>>) {
        let median_ms = self.walls.median_ms(now);
        for (number, group) in self.groups.iter_mut().enumerate() {
            // While it replays its log a replica does not stand for election: to do so, raft would
            // read all of what is left at once.
            if group.has_caught_up() {
                group.replica.tick();
            }
            group.let_time_pass(now, median_ms);
            for late in group.reads.tick() {
                answer(effects, late.reply, Answer::Failed(Failure::TooFarBehind));
            }
            self.led_ticks[number] = match group.replica.is_leader() {
                true => self.led_ticks[number] + 1,
                false => 0,
            };
            // A leader whose quorum is gone steps down in a tick.
            group.fail_if_deposed(effects);
            self.touched.insert(number);
        }
        if let Some(distance_ms) = self.groups[0].clock_distance_ms(now, median_ms) {
            metrics::gauge!("stockd_cluster_time_distance_seconds").set(distance_ms as f64 / 1e3);
            if distance_ms.abs() > DISTANCE_MS_ALERT && self.next_tick_boot_ms % 10_000 < TICK_MS {
                tracing::warn!(
                    distance_ms,
                    "cluster time is away from the nodes' wall clocks"
                );
            }
        }
        self.place_leaders();
    }

    /// On a fresh start nobody leads yet: the node that should stands for election as soon as it can
    /// win one, instead of waiting for a timeout.
    fn campaign_where_preferred(&mut self) {
        if self.is_handing_over {
            return;
        }
        for (number, group) in self.groups.iter_mut().enumerate() {
            let voters = group.replica.voters();
            let has_majority = (self.up.len() + 1) * 2 > voters.len();
            let is_preferred = preferred(number, voters) == self.node;
            if is_preferred && has_majority && group.replica.leader() == 0 && group.has_caught_up()
            {
                group.replica.campaign();
                self.touched.insert(number);
            }
        }
    }

    /// Leaders are spread over the nodes, in turn. One that leads what another should hands it over;
    /// a node that is about to stop hands over everything, to whoever can take it.
    fn place_leaders(&mut self) {
        for (number, group) in self.groups.iter_mut().enumerate() {
            if !group.replica.is_settled_leader() {
                continue;
            }
            let voters = group.replica.voters().to_vec();
            let heirs: Vec<u64> = if self.is_handing_over {
                // Not all to the same one.
                let others = voters.iter().filter(|voter| **voter != self.node);
                others
                    .cycle()
                    .skip(number % 2)
                    .take(voters.len())
                    .copied()
                    .collect()
            } else if self.led_ticks[number] >= LED_TICKS_MIN {
                vec![preferred(number, &voters)]
            } else {
                Vec::new()
            };
            let mut heirs = heirs
                .into_iter()
                .filter(|to| *to != self.node && self.up.contains(to));
            if let Some(to) = heirs.find(|to| group.replica.transfer_leadership(*to)) {
                tracing::debug!(group = number, to, "handing over leadership");
                self.touched.insert(number);
            }
        }
    }
}

fn open_group<R>(
    number: u32,
    parts: &WorkerParts,
    batch: &mut WriteBatch,
) -> Result<Group<R>, WorkerError> {
    let group = u64::from(number);
    let open = |error: Box<dyn std::error::Error + Send + Sync>| WorkerError::Open {
        group: number,
        error,
    };
    let origin = match parts.disk.origin(group) {
        Some(bytes) => Origin::from_bytes(&bytes).map_err(|error| open(error.into()))?,
        None => {
            let origin = Origin::founding(parts.nodes.clone());
            batch.put_origin(group, &origin.to_bytes());
            origin
        }
    };
    let window_bytes = WINDOW_BYTES / u64::from(parts.groups);
    let applied_index = origin.index;
    let last_index = parts
        .disk
        .bounds(group)
        .map_or(origin.index, |(_, last)| last);
    let restored = Restored {
        origin,
        state: parts.disk.state(group).map(Into::into),
        last_index,
        reader: Box::new(GroupReader::new(parts.disk.clone(), group)),
    };
    let replica =
        Replica::open(parts.node, window_bytes, restored).map_err(|error| open(error.into()))?;
    Ok(Group::new(
        GroupId(number),
        replica,
        applied_index,
        last_index,
    ))
}

/// The node that should lead a group.
fn preferred(number: usize, voters: &[u64]) -> u64 {
    voters[number % voters.len()]
}

fn send<R>(group: usize, messages: Vec<Outgoing>, effects: &mut Vec<Effect<R>>) {
    effects.extend(messages.into_iter().map(|message| Effect::Send {
        to: message.to,
        group: GroupId(group as u32),
        payload: message.payload,
    }));
}

/// Applies entries, answers who waited for them, and the reads that waited for the state to be so new.
fn apply<R>(
    group: &mut Group<R>,
    number: usize,
    committed: Vec<Committed>,
    now: Now,
    view: &ReadView,
    effects: &mut Vec<Effect<R>>,
) -> Result<(), WorkerError> {
    group
        .apply(committed, now, view, effects)
        .map_err(|error| WorkerError::Decode {
            group: number as u32,
            error,
        })?;
    for read in group.reads.take_applied(group.applied_index) {
        answer(effects, read.reply, group.answer_question(read.question));
    }
    Ok(())
}
