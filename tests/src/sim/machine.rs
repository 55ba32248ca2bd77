//! A node: boots, turns of the loop, and deaths between any two of its steps.
//!
//! The turn is the one of `stockd/src/host.rs`, step by step. Each step is a moment of its own, so that
//! anything can happen between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use stock_core::{Action, Principal};
use stock_proto::cluster::v1 as cluster;
use stock_storage::{CheckpointStore, LogOptions};
use stockd::cluster_state::ClusterState;
use stockd::disk::Disk as LogDisk;
use stockd::log_codec::{self, Commands};
use stockd::peers::{self, notices};
use stockd::placement::{Directory, Founder, Policy};
use stockd::view::ReadView;
use stockd::worker::clock::Now;
use stockd::worker::event::{Effect, Event, GroupId};
use stockd::worker::{Founding, Persisted, Worker, WorkerError, WorkerParts};

use super::catch;
use super::checks::history::{AnyCommand, Sighting};
use super::checks::{Checked, broken};
use super::clock::MachineClock;
use super::dice::Dice;
use super::disk::{Disk, Ending};
use super::edge::{CallId, ReplyTo};
use super::faults::FaultKind;
use super::helpers::{Helpers, LedgerModel};
use super::network::{ConnectionId, Way};
use super::plan::{Plan, SECOND_US};
use super::world::{Chapter, Happening, World};

/// Shortest and longest election timeout, in ticks, as in production. A run draws one for each boot.
const ELECTION_TICKS: (usize, usize) = (
    stock_replica::ELECTION_TICKS_MIN,
    stock_replica::ELECTION_TICKS_MAX - 1,
);
/// A full disk is asked again so much later, as in production.
const FULL_DISK_AGAIN_US: u64 = 200_000;
/// Between two attempts to connect.
const REDIAL_AFTER_US: u64 = 100_000;

/// A machine with its disk and its clocks, whether it runs or not.
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) clock: MachineClock,
    pub(crate) running: Option<Running>,
    boots: u64,
    root: Option<PathBuf>,
    /// It does not run until then, though it lives.
    pub(crate) paused_until_us: u64,
    /// Its disk takes so much longer until then.
    pub(crate) slow_disk: (u64, u64),
    pub(crate) doom: Option<Doom>,
    /// Bits of its disk have turned over: it may refuse to go on.
    pub(crate) is_damaged: bool,
    /// It has refused, and would have to come back as another replica.
    pub(crate) is_gone: bool,
    /// A boot is scheduled.
    pub(crate) is_expected: bool,
    pub(crate) ledger: LedgerModel,
}

/// A step of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Step,
    Answer,
    Persist,
    Settle,
    CatchUp,
}

/// How a node is going to die: right after a step, with so many of its effects performed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doom {
    pub(crate) after: Stage,
    pub(crate) effects: usize,
    /// Only if more effects than that would be performed.
    pub(crate) in_effects: bool,
    pub(crate) ending: Ending,
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) boot: u64,
    booted_us: u64,
    worker: Worker<ReplyTo>,
    pub(crate) view: Arc<ReadView>,
    pub(crate) cluster: Arc<ClusterState>,
    pub(crate) inbox: Vec<Event<ReplyTo>>,
    effects: Vec<Effect<ReplyTo>>,
    /// The step that is next; a turn begins with `Step`.
    stage: Stage,
    now: Now,
    /// The turn that is due, by its number, and when.
    due: (u64, u64),
    pub(crate) peers: BTreeMap<u64, ConnectionId>,
    pub(crate) next_forward: u64,
    pub(crate) forwards: BTreeMap<u64, (u64, CallId)>,
    /// By group: whether this node knows what time it is there.
    remembers_time: Vec<bool>,
    election_ticks: usize,
    pub(crate) helpers: Helpers,
}

/// How a step of the loop ended, if not well.
pub(crate) enum Stop {
    Panicked(String),
    Stopped(WorkerError),
}

impl Machine {
    pub(crate) fn new(id: u64, plan: &Plan, dice: Dice) -> Self {
        let at = (id - 1) as usize;
        Self {
            disk: Disk::new(dice),
            clock: MachineClock::new(plan.drift_ppm[at], plan.wall_offset_ms[at]),
            running: None,
            boots: 0,
            root: None,
            paused_until_us: 0,
            slow_disk: (0, 0),
            doom: None,
            is_damaged: false,
            is_gone: false,
            is_expected: true,
            ledger: LedgerModel::default(),
        }
    }

    /// What a replica has applied.
    pub(crate) fn applied_index(&self, group: GroupId) -> u64 {
        self.running
            .as_ref()
            .map_or(0, |running| running.cluster.group(group).applied_index)
    }

    /// The index and hash of a stock shard's state.
    pub(crate) fn state_hash(&self, group: GroupId) -> Option<(u64, u128)> {
        self.running.as_ref()?.worker.state_hash(group)
    }

    /// Ends a run.
    pub(crate) fn switch_off(&mut self) {
        self.disk.unmount(Ending::Killed);
        // A destructor that panics has nothing left to spoil.
        let _ = catch(|| self.running = None);
        self.remove_root();
    }

    fn remove_root(&mut self) {
        if let Some(root) = self.root.take() {
            // The whole scratch directory goes when the run ends.
            let _ = std::fs::remove_dir_all(root);
        }
    }
}

impl World {
    /// What a machine's clocks show.
    pub(crate) fn clock_of(&self, node: u64) -> Now {
        let true_us = self.true_us();
        self.machines.get(&node).map_or(
            Now {
                boot_ms: 0,
                wall_ms: 0,
            },
            |machine| machine.clock.now(true_us),
        )
    }

    /// A node starts from what its disk remembers.
    pub(crate) fn boot(&mut self, node: u64) -> Checked {
        let now = self.clock_of(node);
        let booted_us = self.true_us();
        let taken: BTreeSet<usize> = self
            .machines
            .values()
            .filter_map(|machine| Some(machine.running.as_ref()?.election_ticks))
            .collect();
        let (low, high) = ELECTION_TICKS;
        // raft cannot be given a seed, but one value; no two nodes get the same.
        let mut election_ticks = self.pace.between(low as u64, high as u64) as usize;
        while taken.contains(&election_ticks) {
            election_ticks = low + (election_ticks + 1 - low) % (high + 1 - low);
        }
        let next_forward = self.pace.number() >> 1;
        let groups = self.plan.shards + 1;
        let nodes: Vec<u64> = (1..=self.plan.nodes).collect();
        let checkpoint_pace = self.plan.checkpoint_pace;
        let audit_every_ms = self.plan.audit_every_ms;
        let scratch = self.scratch.clone();
        let options = LogOptions {
            file_bytes: self.plan.log_file_bytes,
        };
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        machine.is_expected = false;
        if machine.running.is_some() || machine.is_gone {
            return Ok(());
        }
        machine.boots += 1;
        machine.doom = None;
        machine.paused_until_us = 0;
        let boot = machine.boots;
        let root = scratch.join(format!("{node}-{boot}"));
        machine.root = Some(root.clone());
        let disk = machine.disk.clone();
        let ledger_indexes = machine.ledger.durable_indexes(groups);
        let opened = catch(|| {
            let volume = disk
                .mount(&root)
                .unwrap_or_else(|error| panic!("no scratch directory: {error}"));
            let data = root.join("data");
            let disk = LogDisk::open(Arc::clone(&volume), &data, &options)?;
            let store =
                CheckpointStore::open(volume, &data).map_err(|error| WorkerError::Open {
                    group: 0,
                    error: error.into(),
                })?;
            let view = Arc::new(ReadView::new(groups - 1));
            let cluster = Arc::new(ClusterState::new(node, groups));
            let helpers = Helpers::new(store.clone(), disk.purger());
            let parts = WorkerParts {
                node,
                directory: u128::from(node),
                founding: Some(founding(&nodes)),
                generation_floor: 0,
                policy: Policy {
                    replace_after_ms: u64::MAX / 4,
                    ..Policy::default()
                },
                principal: Principal::new("node").unwrap_or_else(|_| unreachable!("a name")),
                checkpoints: store,
                ledger_indexes,
                checkpoint_pace,
                audit_every_ms,
                groups,
                boot,
                election_ticks: election_ticks..election_ticks + 1,
                disk,
                view: Arc::clone(&view),
                cluster: Arc::clone(&cluster),
            };
            let worker = Worker::open(parts, now)?;
            Ok::<_, WorkerError>(Running {
                boot,
                booted_us,
                worker,
                view,
                cluster,
                inbox: Vec::new(),
                effects: Vec::new(),
                stage: Stage::Step,
                now,
                due: (0, u64::MAX),
                peers: BTreeMap::new(),
                next_forward,
                forwards: BTreeMap::new(),
                remembers_time: vec![false; groups as usize],
                election_ticks,
                helpers,
            })
        });
        let stop = match opened {
            Ok(Ok(running)) => {
                self.trace.note(self.now_us, "boot", &[node, boot], || {
                    format!("of node {node}")
                });
                machine.running = Some(running);
                self.tally.add("boots");
                self.wake(node);
                return Ok(());
            }
            Ok(Err(error)) => Stop::Stopped(error),
            Err(panic) => Stop::Panicked(panic),
        };
        self.stopped(node, stop)
    }

    /// A node dies, and comes back after a while.
    pub(crate) fn die(&mut self, node: u64, ending: Ending) {
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        if machine.running.is_none() {
            return;
        }
        self.trace
            .note(self.now_us, "death", &[node, ending as u64], || {
                format!("of node {node}: {ending:?}")
            });
        machine.switch_off_as(ending);
        machine.doom = None;
        if ending == Ending::PowerCut {
            let true_us = self.now_us + self.slept_us;
            machine.clock.switch_on(true_us);
        }
        self.lose_peers(node, ending);
        self.expect_boot(node);
    }

    /// A node will be started again.
    fn expect_boot(&mut self, node: u64) {
        let after_us = match (self.chapter, self.fate.between(0, 9)) {
            (Chapter::Trouble, 0..3) => self.fate.between(1_000, 50_000),
            (Chapter::Trouble, 3..8) => self.fate.between(50_000, 2 * SECOND_US),
            (Chapter::Trouble, _) => self.fate.between(2 * SECOND_US, 8 * SECOND_US),
            _ => 1_000,
        };
        if let Some(machine) = self.machines.get_mut(&node)
            && !machine.is_expected
            && !machine.is_gone
        {
            machine.is_expected = true;
            self.after(after_us, Happening::Boot(node));
        }
    }

    fn lose_peers(&mut self, node: u64, ending: Ending) {
        for peer in (1..=self.plan.nodes).filter(|peer| *peer != node) {
            // Who is killed hangs up; who has no power says nothing.
            let noticed_after_us = match ending {
                Ending::Killed => self.pace.between(100, 5_000),
                Ending::PowerCut => self.pace.between(200_000, 3 * SECOND_US),
            };
            self.break_connection(
                Way {
                    from: node,
                    to: peer,
                },
                noticed_after_us,
            );
        }
    }

    /// A connection breaks, which both ends notice by themselves; then they connect again.
    pub(crate) fn break_connection(&mut self, way: Way, noticed_within_us: u64) {
        let Some(connection) = self.network.disconnect(way) else {
            return;
        };
        for (node, peer) in [(way.from, way.to), (way.to, way.from)] {
            let after_us = self.pace.between(100, noticed_within_us.max(200));
            let down = Happening::Down {
                node,
                peer,
                connection,
            };
            self.after(after_us, down);
        }
        let dialling = Way {
            from: way.from.max(way.to),
            to: way.from.min(way.to),
        };
        self.after(REDIAL_AFTER_US, Happening::Dial(dialling));
    }

    /// Two nodes connect, or will try again.
    pub(crate) fn dial(&mut self, way: Way) {
        if self.network.is_connected(way) {
            return;
        }
        let runs = |node: u64| {
            self.machines.get(&node).is_some_and(|machine| {
                machine.running.is_some() && machine.paused_until_us <= self.now_us
            })
        };
        let delays = [self.pace.between(100, 5_000), self.pace.between(100, 5_000)];
        let from_us = self.now_us + delays[0].max(delays[1]);
        let connection = match runs(way.from) && runs(way.to) {
            true => self.network.connect(way, from_us),
            false => None,
        };
        let Some(connection) = connection else {
            let after_us = REDIAL_AFTER_US + self.pace.between(0, 10_000);
            self.after(after_us, Happening::Dial(way));
            return;
        };
        let ends = [(way.from, way.to), (way.to, way.from)];
        for ((node, peer), after_us) in ends.into_iter().zip(delays) {
            let up = Happening::Up {
                node,
                peer,
                connection,
            };
            self.after(after_us, up);
        }
    }

    /// Something waits in a node's inbox.
    pub(crate) fn wake(&mut self, node: u64) {
        let after_us = self.pace.between(5, 60);
        self.turn_after(node, after_us);
    }

    /// A node's next turn begins then, unless an earlier one is due.
    fn turn_after(&mut self, node: u64, after_us: u64) {
        let at_us = self.now_us + after_us;
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        else {
            return;
        };
        // One under way looks into the inbox when it ends.
        if running.stage != Stage::Step || running.due.1 <= at_us {
            return;
        }
        running.due = (running.due.0 + 1, at_us);
        let (token, boot) = (running.due.0, running.boot);
        self.after(after_us, Happening::Turn { node, boot, token });
    }

    /// A turn begins.
    pub(crate) fn turn(&mut self, node: u64, boot: u64, token: u64) -> Checked {
        let is_due = self.machines.get(&node).is_some_and(|machine| {
            let running = machine.running.as_ref();
            running.is_some_and(|running| running.boot == boot && running.due.0 == token)
        });
        match is_due {
            true => self.stage(node, boot),
            false => Ok(()),
        }
    }

    /// A turn goes on: one step, its effects, and when the next is due.
    pub(crate) fn stage(&mut self, node: u64, boot: u64) -> Checked {
        let true_us = self.true_us();
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let paused_for_us = machine.paused_until_us.saturating_sub(self.now_us);
        let Some(running) = machine.running.as_mut().filter(|run| run.boot == boot) else {
            return Ok(());
        };
        let stage = running.stage;
        if paused_for_us > 0 {
            let token = running.due.0;
            let happening = match stage {
                Stage::Step => Happening::Turn { node, boot, token },
                _ => Happening::Stage { node, boot },
            };
            self.after(paused_for_us, happening);
            return Ok(());
        }
        let mut handed_in = Vec::new();
        let mut stands_still = false;
        let worker = &mut running.worker;
        let done = match stage {
            Stage::Step => {
                running.due.1 = u64::MAX;
                running.now = machine.clock.now(true_us);
                let events = std::mem::take(&mut running.inbox);
                for event in &events {
                    if let Event::Propose {
                        group, commands, ..
                    } = event
                    {
                        handed_in.push((*group, commands.clone()));
                    }
                }
                let (now, effects) = (running.now, &mut running.effects);
                catch(|| worker.step(now, events, effects)).map(Ok)
            }
            Stage::Answer => catch(|| worker.answer(&mut running.effects)),
            Stage::Persist => catch(|| worker.persist()).map(|persisted| {
                stands_still = matches!(persisted, Ok(Persisted::DiskFull));
                persisted.map(drop)
            }),
            Stage::Settle => catch(|| worker.settle(&mut running.effects)).map(Ok),
            Stage::CatchUp => catch(|| worker.catch_up(running.now, &mut running.effects)),
        };
        for (group, commands) in handed_in {
            self.note_handed_in(node, group, &commands);
        }
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return self.stopped(node, Stop::Stopped(error)),
            Err(panic) => return self.stopped(node, Stop::Panicked(panic)),
        }
        if self
            .machines
            .get(&node)
            .is_some_and(|machine| machine.disk.happened().cut)
        {
            self.tally.add(FaultKind::DeathInWrite.name());
            self.die(node, Ending::PowerCut);
            return Ok(());
        }
        if stands_still {
            self.tally.add(FaultKind::DiskFull.name());
            self.after(FULL_DISK_AGAIN_US, Happening::Stage { node, boot });
            return Ok(());
        }
        if matches!(stage, Stage::Step | Stage::Settle) {
            self.see_committed(node)?;
        }
        if !self.perform(node, stage)? {
            return Ok(());
        }
        self.go_on(node, stage)
    }

    /// What comes after a step.
    fn go_on(&mut self, node: u64, stage: Stage) -> Checked {
        let sync_us = self.plan.sync_us;
        let true_us = self.true_us();
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let slow_us = match machine.slow_disk {
            (by_us, until_us) if until_us > self.now_us => by_us,
            _ => 0,
        };
        let Some(running) = machine.running.as_mut() else {
            return Ok(());
        };
        let boot = running.boot;
        let (next, after_us) = match stage {
            Stage::Step => (Stage::Answer, self.pace.between(1, 20)),
            Stage::Answer if running.worker.must_persist() => {
                (Stage::Persist, self.pace.between(1, 20))
            }
            Stage::Answer => (Stage::Settle, 1),
            Stage::Persist => (
                Stage::Settle,
                self.pace.skewed(sync_us.0, sync_us.1) + slow_us,
            ),
            Stage::Settle => (Stage::CatchUp, self.pace.between(1, 20)),
            Stage::CatchUp => {
                running.stage = Stage::Step;
                let wake_us = machine
                    .clock
                    .true_us_at_boot_ms(running.worker.next_wake_boot_ms());
                let idle_us = wake_us.saturating_sub(true_us).max(1);
                let busy = running.worker.has_work() || !running.inbox.is_empty();
                self.turn_after(node, if busy { 1 } else { idle_us });
                return self.see_leaders(node);
            }
        };
        running.stage = next;
        self.after(after_us, Happening::Stage { node, boot });
        Ok(())
    }

    /// Performs the effects of a step, or some of them if the node is doomed. `false` if it has died.
    fn perform(&mut self, node: u64, stage: Stage) -> Result<bool, super::Broken> {
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(false);
        };
        let Some(running) = machine.running.as_mut() else {
            return Ok(false);
        };
        let wall_clock_ms = running.now.wall_ms;
        let mut answers = Vec::new();
        let mut frames: Vec<(u64, cluster::Frame)> = Vec::new();
        let mut frame_for = |to: u64, change: &mut dyn FnMut(&mut cluster::Frame)| {
            let at = frames.iter().position(|(peer, _)| *peer == to);
            let at = at.unwrap_or_else(|| {
                let frame = cluster::Frame {
                    wall_clock_ms,
                    ..Default::default()
                };
                frames.push((to, frame));
                frames.len() - 1
            });
            change(&mut frames[at].1);
        };
        let peers: Vec<u64> = running.peers.keys().copied().collect();
        let mut beside = Vec::new();
        for effect in running.effects.drain(..) {
            match effect {
                Effect::Notify { to, notice } => {
                    for to in to.map_or_else(|| peers.clone(), |to| vec![to]) {
                        frame_for(to, &mut |frame| {
                            notices::add(frame.notices.get_or_insert_default(), &notice);
                        });
                    }
                }
                // The addresses never change.
                Effect::NodesChanged => {}
                effect @ (Effect::Chore(_) | Effect::SendSnapshot { .. } | Effect::Record(_)) => {
                    beside.push(effect);
                }
                Effect::Send {
                    to,
                    group,
                    payload,
                    cluster_time,
                } => frame_for(to, &mut |frame| {
                    let message = peers::group_message(group, payload.clone(), cluster_time);
                    frame.messages.push(message);
                }),
                Effect::Answer { reply, answer } => match reply {
                    ReplyTo::Call(call) => answers.push((call, answer)),
                    ReplyTo::Peer { node, forward_id } => {
                        let reply = peers::reply(forward_id, answer);
                        frame_for(node, &mut |frame| frame.replies.push(reply.clone()));
                    }
                },
            }
        }
        let count = answers.len() + frames.len();
        let wrote = running.worker.must_persist() || stage != Stage::Step;
        let doom = machine.doom.filter(|doom| {
            doom.after == stage && wrote && (!doom.in_effects || doom.effects < count)
        });
        let performed = doom.map_or(usize::MAX, |doom| doom.effects);
        for (at, (call, answer)) in answers.into_iter().enumerate() {
            if at < performed {
                self.call_answered(call, answer)?;
            }
        }
        let answered = count - frames.len();
        for (at, (to, frame)) in frames.into_iter().enumerate() {
            if answered + at < performed {
                self.send(node, to, &frame);
            }
        }
        let Some(doom) = doom else {
            for effect in beside {
                self.help(node, effect)?;
            }
            return Ok(true);
        };
        self.tally.add(match doom.in_effects {
            true => FaultKind::DeathInEffects.name(),
            false => FaultKind::DeathInTurn.name(),
        });
        self.die(node, doom.ending);
        Ok(false)
    }

    /// Follows the log through what a node knows to be committed.
    fn see_committed(&mut self, node: u64) -> Checked {
        let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
            return Ok(());
        };
        let seen: Vec<(GroupId, u64, u64, Bytes)> = running
            .worker
            .unapplied()
            .flat_map(|(group, entries)| {
                entries
                    .iter()
                    .map(move |entry| (group, entry.index, entry.term, entry.data.clone()))
            })
            .collect();
        let now_us = self.true_us();
        for (group, index, term, data) in seen {
            let time_is_forgotten = !self.machines.values().any(|machine| {
                let running = machine.running.as_ref();
                running.is_some_and(|running| running.remembers_time[group.index()])
            });
            let leader = self.leaders.of(group, term);
            let handed_in = |command: &AnyCommand| {
                let id = request_id(command)?;
                self.handed_in.get(&(leader?, group, id)).copied()
            };
            let sighting = Sighting {
                node,
                now_us,
                handed_in: &handed_in,
                time_is_forgotten,
            };
            let history = &mut self.histories[group.index()];
            if history.committed(index, term, &data, &sighting)? {
                let at_us = self.now_us;
                let numbers = [node, u64::from(group.0), index, term];
                self.trace.note(at_us, "committed", &numbers, || {
                    format!("{group:?} {index} of term {term}, seen by node {node}")
                });
            }
            // An entry from before its boot, or from an earlier leader, tells a node nothing of what time it is.
            let known_since_us = self.histories[group.index()]
                .entry(index)
                .map_or(0, |entry| entry.known_since_us);
            let running = self
                .machines
                .get_mut(&node)
                .and_then(|m| m.running.as_mut());
            if let Some(running) = running
                && known_since_us >= running.booted_us
                && term == running.cluster.group(group).term
                && !data.is_empty()
            {
                running.remembers_time[group.index()] = true;
            }
        }
        Ok(())
    }

    fn see_leaders(&mut self, node: u64) -> Checked {
        let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
            return Ok(());
        };
        for number in 0..running.cluster.groups() {
            let status = running.cluster.group(GroupId(number));
            if let Some(leader) = status.leader {
                self.leaders.saw(GroupId(number), status.term, leader)?;
            }
        }
        Ok(())
    }

    fn note_handed_in(&mut self, node: u64, group: GroupId, commands: &Commands) {
        if group == GroupId::META {
            return;
        }
        let entry = log_codec::encode_entry(stock_core::Stamp(0), [commands].into_iter());
        let Ok(log_codec::Entry { commands, .. }) = log_codec::decode_entry(entry.into()) else {
            return;
        };
        let true_us = self.true_us();
        for (ordinal, command) in commands.iter().enumerate() {
            if let Ok(command) = log_codec::decode_stock(ordinal, command)
                && let Some(id) = request_id(&AnyCommand::Stock(command))
            {
                self.handed_in.entry((node, group, id)).or_insert(true_us);
            }
        }
    }

    /// A node gave up or panicked. That is as it should be if its disk gave it reason.
    pub(crate) fn stopped(&mut self, node: u64, stop: Stop) -> Checked {
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        let happened = machine.disk.happened();
        self.trace.note(self.now_us, "stop", &[node], || {
            let why = match &stop {
                Stop::Panicked(panic) => panic.clone(),
                Stop::Stopped(error) => error.to_string(),
            };
            format!("of node {node}: {why}")
        });
        if happened.cut {
            self.tally.add(FaultKind::DeathInWrite.name());
            self.die_or_reboot(node, Ending::PowerCut);
        } else if happened.sync_failed {
            self.tally.add(FaultKind::SyncFailure.name());
            self.die_or_reboot(node, Ending::Killed);
        } else if happened.was_full {
            self.tally.add(FaultKind::DiskFull.name());
            self.die_or_reboot(node, Ending::Killed);
        } else if machine.is_damaged {
            machine.is_gone = true;
            self.tally.add("nodes lost to damage");
            self.die_or_reboot(node, Ending::Killed);
        } else {
            return match stop {
                Stop::Panicked(panic) => broken("no panic", format!("node {node}: {panic}")),
                Stop::Stopped(error) => broken("no stop", format!("node {node}: {error}")),
            };
        }
        Ok(())
    }

    fn die_or_reboot(&mut self, node: u64, ending: Ending) {
        let is_running = self
            .machines
            .get(&node)
            .is_some_and(|machine| machine.running.is_some());
        if is_running {
            self.die(node, ending);
        } else {
            if let Some(machine) = self.machines.get_mut(&node) {
                machine.switch_off_as(ending);
            }
            self.expect_boot(node);
        }
    }
}

impl Machine {
    fn switch_off_as(&mut self, ending: Ending) {
        self.disk.unmount(ending);
        self.ledger.lose_what_was_not_synced();
        // What its destructors try to write goes nowhere.
        let _ = catch(|| self.running = None);
        self.remove_root();
    }
}

/// Every node holds a replica of every group.
fn founding(nodes: &[u64]) -> Founding {
    let founder = |node: &u64| Founder {
        node: *node,
        directory: Directory(u128::from(*node)),
        grpc: format!("http://{node}:1"),
        peers: format!("{node}:1"),
    };
    Founding {
        replication: nodes.len() as u32,
        nodes: nodes.iter().map(founder).collect(),
    }
}

fn request_id(command: &AnyCommand) -> Option<[u8; 16]> {
    match command {
        AnyCommand::Stock(command) => match &command.action {
            Action::Request(request, _) => Some(*request.id.as_bytes()),
            Action::Movements(_) => None,
        },
        AnyCommand::Catalog(_) | AnyCommand::Registry => None,
    }
}
