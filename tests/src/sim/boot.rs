//! A node starts from what its disk remembers: as a founder, as a member that was let in, or, with
//! an empty disk, as one that has to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use stock_cluster::{GroupId, Policy, ReplicaId};
use stock_core::{Principal, Secret, Stamp};
use stock_node::checkpoint::Image;
use stock_node::clock::Now;
use stock_node::standing::{ClusterState, Health};
use stock_node::state::State;
use stock_node::view::ReadView;
use stock_node::worker::WorkerParts;
use stock_replica::Point;
use stock_storage::{CheckpointStore, Durability, LogOptions, OnDamage, WriteBatch};
use stockd::directory::bring_back::{self, BringBackError};
use stockd::directory::disk::Disk as LogDisk;
use stockd::directory::{checkpoint_files, forgotten};
use stockd::host::HostError;
use stockd::peers::introductions::Introductions;

use super::beside::Helpers;
use super::catch;
use super::checks::{Checked, broken};
use super::clock::EPOCH_MS;
use super::disk::Ending;
use super::faults::FaultKind;
use super::identities::{founding, identity};
use super::lives::FOUNDED_BEFORE;
use super::machine::{Machine, Running, Stage, Stop};
use super::plan::{Plan, SECOND_US};
use super::standing::HARDLY_ANY_ROOM_BYTES;
use super::world::{Chapter, Happening, World};

/// Shortest and longest election timeout, in ticks, as in production. A run draws one for each
/// boot.
const ELECTION_TICKS: (usize, usize) = (
    stock_replica::ELECTION_TICKS_MIN,
    stock_replica::ELECTION_TICKS_MAX - 1,
);
/// A disk says that it has so much room at most: enough for everybody.
const ROOM_BYTES: u64 = 1 << 40;

/// What a boot is given by chance.
struct Drawn {
    now: Now,
    known_at_boot: Vec<u64>,
    election_ticks: usize,
    next_forward: u64,
    /// It applies one entry in a turn.
    is_slow: bool,
    /// The power fails before so many writes and syncs of the start are done.
    cut_after: Option<u64>,
}

impl World {
    /// A node starts from what its disk remembers.
    pub(crate) fn boot(&mut self, node: u64) -> Checked {
        let drawn = Drawn {
            now: self.clock_of(node),
            known_at_boot: self.committed_so_far(),
            election_ticks: self.draw_election_ticks(),
            next_forward: self.pace.number() >> 1,
            is_slow: self.is_slow(node),
            cut_after: self.draw_cut_in_salvage(node),
        };
        let Some(machine) = self.machines.get_mut(&node) else {
            return Ok(());
        };
        machine.is_expected = false;
        if machine.running.is_some() || machine.is_gone || machine.is_out {
            return Ok(());
        }
        if machine.lists.is_some() {
            self.seek_founders(node);
            return Ok(());
        }
        machine.boots += 1;
        machine.doom = None;
        machine.paused_until_us = 0;
        let boot = machine.boots;
        let root = self.scratch.join(format!("{node}-{boot}"));
        machine.root = Some(root.clone());
        let plan = &self.plan;
        let opened = catch(|| open(node, machine, &root, plan, &drawn));
        let stop = match opened {
            Ok(Ok(Opened::Running(_))) if machine.disk.was_cut_at_a_damage() => {
                let seen = format!("node {node} goes on with a log that was cut at a damage");
                return broken("forgotten", seen);
            }
            Ok(Ok(Opened::Running(running))) => {
                self.trace.note(self.now_us, "boot", &[node, boot], || {
                    format!("of node {node}")
                });
                machine.running = Some(*running);
                machine.is_member = true;
                if machine.let_in.take().is_some() {
                    machine.is_renounced = false;
                }
                self.tally.add("boots");
                self.note_build(node);
                self.gauge(node);
                self.wake(node);
                self.call_the_roll(node);
                return Ok(());
            }
            Ok(Ok(opened)) => {
                machine.disk.unmount(Ending::Killed);
                machine.remove_root();
                if let Opened::Forgotten = opened {
                    machine.disk.was_cut_at_a_damage();
                    machine.renounce(node);
                    self.tally.add("logs salvaged");
                }
                let directory = machine.directory;
                self.after(1_000, Happening::AskToJoin { node, directory });
                return Ok(());
            }
            Ok(Err(error)) => Stop::Stopped(error),
            Err(panic) => Stop::Panicked(panic),
        };
        machine.let_in = None;
        self.stopped(node, stop)
    }

    fn is_slow(&self, node: u64) -> bool {
        let machine = self.machines.get(&node);
        machine.is_some_and(|machine| machine.slow_turns_until_us > self.now_us)
    }

    /// Where a log is to be salvaged, the power may fail in the middle of it.
    fn draw_cut_in_salvage(&mut self, node: u64) -> Option<u64> {
        let machine = self.machines.get(&node)?;
        let is_tried = self.chapter == Chapter::Trouble && machine.disk.is_damaged();
        (is_tried && self.fate.chance(500)).then(|| self.fate.between(0, 60))
    }

    /// raft cannot be given a seed, but one value; no two nodes get the same.
    fn draw_election_ticks(&mut self) -> usize {
        let taken: BTreeSet<usize> = self
            .machines
            .values()
            .filter_map(|machine| Some(machine.running.as_ref()?.election_ticks))
            .collect();
        let (low, high) = ELECTION_TICKS;
        let mut election_ticks = self.pace.between(low as u64, high as u64) as usize;
        while taken.contains(&election_ticks) {
            election_ticks = low + (election_ticks + 1 - low) % (high + 1 - low);
        }
        election_ticks
    }

    /// A node looks at how much room its disk has.
    pub(crate) fn gauge(&mut self, node: u64) {
        let now_us = self.now_us;
        let due_us = now_us + SECOND_US;
        let room_bytes = match self.without_room == Some(node) {
            true => HARDLY_ANY_ROOM_BYTES,
            false => ROOM_BYTES,
        };
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        let recent_write_us = machine.is_gauged.then(|| machine.write_us(now_us));
        if let Some(running) = &mut machine.running {
            running.gauge_due_us = due_us;
            running.cluster.publish_health(Health {
                was_measured: true,
                free_bytes: machine.disk.free_bytes().min(room_bytes),
                recent_write_us,
                ..Health::default()
            });
        }
    }
}

/// What a process finds on its disk.
enum Opened {
    /// All that it needs to run.
    Running(Box<Running>),
    /// It is no member yet.
    NoMember,
    /// Its log was damaged, and what it held counts for nothing.
    Forgotten,
}

/// Everything that a process opens.
fn open(
    node: u64,
    machine: &Machine,
    root: &Path,
    plan: &Plan,
    drawn: &Drawn,
) -> Result<Opened, HostError> {
    let groups = plan.shards + 1;
    let volume = machine
        .disk
        .mount(root)
        .unwrap_or_else(|error| panic!("no scratch directory: {error}"));
    if let Some(operations) = drawn.cut_after {
        machine.disk.cut_power_after(operations);
    }
    let data = root.join("data");
    let options = LogOptions {
        file_bytes: plan.log_file_bytes,
    };
    let disk = LogDisk::open(&volume, &data, &options, OnDamage::Salvage)?;
    if forgotten::is_said(&*volume, &data)? {
        forgotten::settle(&*volume, &data)?;
        return Ok(Opened::Forgotten);
    }
    let store = CheckpointStore::open(volume, &data).map_err(|error| BringBackError::Open {
        group: 0,
        error: error.into(),
    })?;
    if plan.faults.contains(&FaultKind::Leftovers) && machine.is_founder && machine.boots == 1 {
        leave_behind(node, plan, &store);
    }
    let Some((generation_floor, since)) = membership(machine, &disk)? else {
        return Ok(Opened::NoMember);
    };
    let view = Arc::new(ReadView::new(groups - 1));
    let acquaintances = disk.begin_acquaintances(machine.boots)?;
    let cluster = Arc::new(ClusterState::new(node, groups, acquaintances));
    let identity = identity(node, machine, plan, since);
    let introductions = Introductions::new(identity, Arc::clone(&cluster));
    let helpers = Helpers::new(
        store.clone(),
        disk.purger(),
        machine.lives[0],
        machine.directory,
    );
    let parts = WorkerParts {
        node,
        directory: machine.directory,
        since,
        lives: machine.lives.clone(),
        founding: machine.is_founder.then(|| founding(plan, machine)),
        is_founded: !machine.is_founder,
        generation_floor,
        policy: Policy {
            replace_after_ms: plan.replace_after_ms,
            ..Policy::default()
        },
        principal: Principal::new("node").unwrap_or_else(|_| unreachable!("a name")),
        entries: disk.entry_readers(),
        checkpoint_pace: plan.checkpoint_pace,
        audit_every_ms: plan.audit_every_ms,
        speaks: machine.speaks,
        groups,
        boot: machine.boots,
        election_ticks: drawn.election_ticks..drawn.election_ticks + 1,
        committed_bytes_per_turn: match drawn.is_slow {
            true => 1,
            false => plan.committed_bytes_per_turn,
        },
        view: Arc::clone(&view),
        cluster: Arc::clone(&cluster),
    };
    let ledger_indexes = machine.ledger.durable_indexes(groups);
    let (worker, log) = bring_back::open(parts, &disk, &store, &ledger_indexes, drawn.now)?;
    Ok(Opened::Running(Box::new(Running {
        boot: machine.boots,
        speaks: machine.speaks,
        worker,
        log,
        view,
        cluster,
        introductions,
        waiting_for_leader: Arc::default(),
        inbox: Vec::new(),
        effects: Vec::new(),
        stage: Stage::Step,
        now: drawn.now,
        due: (0, u64::MAX),
        peers: BTreeMap::new(),
        whereabouts: machine.whereabouts(plan),
        next_forward: drawn.next_forward,
        forwards: BTreeMap::new(),
        election_ticks: drawn.election_ticks,
        helpers,
        gauge_due_us: 0,
        known_at_boot: drawn.known_at_boot.clone(),
        was_ready: false,
    })))
}

/// What an earlier life of the cluster left in a directory whose log was deleted: states of the
/// same groups and replicas, at places that this life will come to.
fn leave_behind(node: u64, plan: &Plan, store: &CheckpointStore) {
    for group in (0..=plan.shards).map(GroupId) {
        let mut image = Image {
            group,
            replica: ReplicaId::founding(node),
            point: Point {
                index: plan.leftover_index,
                ..Point::founding((1..=plan.founders).collect())
            },
            stamp: Stamp(EPOCH_MS),
            frozen: State::new(group, Secret(1)).freeze(),
        };
        let written = checkpoint_files::write(store, FOUNDED_BEFORE, u128::MAX, &mut image);
        written.unwrap_or_else(|error| panic!("nothing is left behind: {error}"));
    }
}

/// The generation floor of a member and the index that let its directory in, as
/// `stockd/src/node_record.rs` keeps them; none of who is no member.
fn membership(machine: &Machine, disk: &LogDisk) -> Result<Option<(u32, u64)>, HostError> {
    if machine.is_founder {
        return Ok(Some((0, 0)));
    }
    if let Some(record) = disk.node_record().filter(|_| !machine.is_renounced) {
        let numbers = record.split_first_chunk::<4>();
        return Ok(numbers.and_then(|(floor, since)| {
            let since = u64::from_le_bytes(since.try_into().ok()?);
            Some((u32::from_le_bytes(*floor), since))
        }));
    }
    let Some((floor, since)) = machine.let_in else {
        return Ok(None);
    };
    let mut batch = WriteBatch::new();
    let record = [floor.to_le_bytes().as_slice(), &since.to_le_bytes()].concat();
    batch.put_node_record(&record);
    // As in production: what is remembered of others would be of another directory, and maybe of
    // another life.
    batch.put_acquaintances(&[]);
    disk.write(&mut batch, Durability::Sync)?;
    Ok(Some((floor, since)))
}
