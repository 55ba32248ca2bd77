//! A node: its disk, its clocks, and what runs on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use stock_cluster::identity::Founder;
use stock_cluster::{GroupId, Speaks};
use stock_node::clock::Now;
use stock_node::event::{Effect, Event};
use stock_node::standing::ClusterState;
use stock_node::view::ReadView;
use stock_node::way::WaitingForLeader;
use stock_node::worker::Worker;
use stockd::directory::disk::LogWriter;
use stockd::host::HostError;
use stockd::peers::introductions::Introductions;
use stockd::peers::whereabouts::Whereabouts;

use super::beside::{Helpers, LedgerModel};
use super::calls::{CallId, ReplyTo};
use super::catch;
use super::clock::MachineClock;
use super::dice::Dice;
use super::disk::{Disk, Ending};
use super::faults::FaultKind;
use super::lives::{FOUNDED_BEFORE, LIFE};
use super::network::ConnectionId;
use super::plan::{Plan, SECOND_US};

/// A machine with its disk and its clocks, whether it runs or not.
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) clock: MachineClock,
    pub(crate) running: Option<Running>,
    pub(crate) boots: u64,
    /// The versions of the cluster that the build speaks with which it is started next.
    pub(crate) speaks: Speaks,
    pub(crate) root: Option<PathBuf>,
    /// It does not run until then, though it lives.
    pub(crate) paused_until_us: u64,
    /// Its disk takes so much longer until then.
    pub(crate) slow_disk: (u64, u64),
    /// While there is something to apply, a turn of its loop takes long until then.
    pub(crate) slow_turns_until_us: u64,
    /// It tells the others how long its disk takes.
    pub(crate) is_gauged: bool,
    pub(crate) doom: Option<Doom>,
    /// It has refused, and comes back as another member, with an empty disk.
    pub(crate) is_gone: bool,
    /// A boot is scheduled.
    pub(crate) is_expected: bool,
    /// It has never been part of the cluster, or is no more.
    pub(crate) is_out: bool,
    /// It was taken out for good.
    pub(crate) is_removed: bool,
    /// The number of its data directory, durable before anybody is told.
    pub(crate) directory: u128,
    /// Whether the cluster was founded with just this directory.
    pub(crate) is_founder: bool,
    /// Those that it founded the cluster with, as it knows.
    pub(crate) founders: Vec<Founder>,
    /// The founders that its configuration lists, until it is a member.
    pub(crate) lists: Option<Vec<u64>>,
    /// The directory with which it asks them.
    pub(crate) asks_as: Option<u128>,
    /// Where it is reached by the others.
    pub(crate) address: String,
    /// Where the others are, as its disk remembers from the registry.
    pub(crate) roster: BTreeMap<u64, String>,
    /// Others have let it in, with this generation floor and by the entry of this index, and its
    /// disk has yet to say so.
    pub(crate) let_in: Option<(u32, u64)>,
    /// The directory has forgotten something, and is no member's until it is let in again.
    pub(crate) is_renounced: bool,
    /// Which life of the cluster the directory is of, and those that it went on from.
    pub(crate) lives: Vec<u128>,
    /// The directory is a copy that was made before: it has forgotten something.
    pub(crate) is_copy: bool,
    /// The directory has been the node's.
    pub(crate) is_member: bool,
    pub(crate) ledger: LedgerModel,
    /// A directory that it had, or will have again.
    pub(crate) put_aside: Option<Directory>,
    /// It runs on a directory that another took the place of.
    pub(crate) is_on_old: bool,
    /// Its directory as it was once.
    pub(crate) copy: Option<(Directory, u64)>,
}

/// What a data directory is to its machine.
pub(crate) struct Directory {
    pub(crate) number: u128,
    lives: Vec<u128>,
    disk: Disk,
    ledger: LedgerModel,
    is_founder: bool,
    is_renounced: bool,
    is_member: bool,
    let_in: Option<(u32, u64)>,
}

/// A step of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Step,
    Answer,
    Write,
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
    /// The versions of the cluster that its build speaks.
    pub(crate) speaks: Speaks,
    pub(crate) worker: Worker<ReplyTo>,
    pub(crate) log: LogWriter,
    pub(crate) view: Arc<ReadView>,
    pub(crate) cluster: Arc<ClusterState>,
    pub(crate) introductions: Introductions,
    pub(crate) waiting_for_leader: Arc<WaitingForLeader>,
    pub(crate) inbox: Vec<Event<ReplyTo>>,
    pub(crate) effects: Vec<Effect<ReplyTo>>,
    /// The step that is next; a turn begins with `Step`.
    pub(crate) stage: Stage,
    pub(crate) now: Now,
    /// The turn that is due, by its number, and when.
    pub(crate) due: (u64, u64),
    pub(crate) peers: BTreeMap<u64, ConnectionId>,
    /// Where the others may be.
    pub(crate) whereabouts: BTreeMap<u64, Whereabouts>,
    pub(crate) next_forward: u64,
    pub(crate) forwards: BTreeMap<u64, (u64, CallId)>,
    pub(crate) election_ticks: usize,
    pub(crate) helpers: Helpers,
    /// When the room on its disk is looked at next.
    pub(crate) gauge_due_us: u64,
    /// How far each group's log was known to be committed when it started.
    pub(crate) known_at_boot: Vec<u64>,
    /// Whether it has said that it is ready.
    pub(crate) was_ready: bool,
}

/// How often it is looked whether a pause has ended.
const PAUSE_LOOKED_AT_US: u64 = SECOND_US / 20;

/// A founder with its first directory.
fn first_founder(node: u64) -> Founder {
    Founder {
        node,
        directory: u128::from(node),
    }
}

/// Where a machine is at first.
pub(crate) fn first_address(node: u64) -> String {
    format!("{node}:1")
}

/// How a step of the loop ended, if not well.
pub(crate) enum Stop {
    Panicked(String),
    Stopped(HostError),
}

impl Machine {
    pub(crate) fn new(id: u64, plan: &Plan, dice: Dice) -> Self {
        let at = (id - 1) as usize;
        let is_founder = id <= plan.founders;
        Self {
            disk: Disk::new(dice),
            clock: MachineClock::new(plan.drift_ppm[at], plan.wall_offset_ms[at]),
            running: None,
            boots: 0,
            speaks: plan.first_build(),
            root: None,
            paused_until_us: 0,
            slow_disk: (0, 0),
            slow_turns_until_us: 0,
            is_gauged: plan.faults.contains(&FaultKind::AilingDisk),
            doom: None,
            is_gone: false,
            is_expected: is_founder,
            is_out: !is_founder,
            is_removed: false,
            directory: u128::from(id),
            is_founder,
            founders: (1..=plan.founders).map(first_founder).collect(),
            lists: None,
            asks_as: None,
            address: first_address(id),
            roster: (1..=plan.founders)
                .map(|node| (node, first_address(node)))
                .collect(),
            let_in: None,
            ledger: LedgerModel::default(),
            is_renounced: false,
            lives: vec![LIFE],
            is_copy: false,
            is_member: false,
            put_aside: None,
            is_on_old: false,
            copy: None,
        }
    }

    /// Whether it runs on the directory that it last had, as it left it.
    pub(crate) fn has_its_own_directory(&self) -> bool {
        !self.is_on_old && !self.is_copy && !self.disk.is_damaged()
    }

    /// Where it is paused, after how long to look again: a pause ends early where nothing goes
    /// wrong any more.
    pub(crate) fn paused(&self, now_us: u64) -> Option<u64> {
        let left_us = self.paused_until_us.checked_sub(now_us)?;
        (left_us > 0).then_some(left_us.min(PAUSE_LOOKED_AT_US))
    }

    /// How long its disk takes for a write, apart from what all disks take.
    pub(crate) fn write_us(&self, now_us: u64) -> u64 {
        match self.slow_disk {
            (by_us, until_us) if now_us < until_us => by_us,
            _ => 0,
        }
    }

    /// The versions of the cluster that the build speaks that runs, or is started next.
    pub(crate) fn build(&self) -> Speaks {
        let running = self.running.as_ref();
        running.map_or(self.speaks, |running| running.speaks)
    }

    /// What a replica has applied; nothing where there is none.
    pub(crate) fn applied_index(&self, group: GroupId) -> Option<u64> {
        let cluster = &self.running.as_ref()?.cluster;
        let status = cluster.group(group);
        cluster.is_here(group).then_some(status.applied_index)
    }

    /// The index and hash of a group's state.
    pub(crate) fn state_hash(&self, group: GroupId) -> Option<(u64, u128)> {
        let running = self.running.as_ref()?;
        // One that waits for its first snapshot knows nothing.
        let is_here = running.cluster.is_here(group);
        running.worker.state_hash(group).filter(|_| is_here)
    }

    /// Ends a run.
    pub(crate) fn switch_off(&mut self) {
        self.disk.unmount(Ending::Killed);
        // A destructor that panics has nothing left to spoil.
        let _ = catch(|| self.running = None);
        self.remove_root();
    }

    /// The process ends, or the machine.
    pub(crate) fn switch_off_as(&mut self, ending: Ending) {
        self.disk.unmount(ending);
        self.ledger.lose_what_was_not_synced();
        // What its destructors try to write goes nowhere.
        let _ = catch(|| self.running = None);
        self.remove_root();
    }

    /// Somebody puts an empty disk in, and the old one aside.
    pub(crate) fn replace_disk(&mut self, id: u64) {
        let empty = Directory {
            number: self.draw_directory(id),
            lives: vec![LIFE],
            disk: self.disk.another(),
            ledger: LedgerModel::default(),
            is_founder: false,
            is_renounced: false,
            is_member: false,
            let_in: None,
        };
        let old = self.exchange(empty);
        // What is on a damaged one nobody would start again, and one that never was the node's is
        // as good as empty.
        let is_whole = !self.disk.is_damaged() && !self.is_copy && old.is_member;
        self.put_aside = is_whole.then_some(old);
        self.is_copy = false;
        self.copy = None;
        self.is_on_old = false;
        self.is_gone = false;
    }

    /// Where another node may be, as its disk and its configuration have it.
    pub(crate) fn whereabouts(&self, plan: &Plan) -> BTreeMap<u64, Whereabouts> {
        let configured = (1..=plan.founders).map(|node| (node, first_address(node)));
        let configured: BTreeMap<u64, String> = configured.collect();
        let nodes = self.roster.keys().chain(configured.keys()).copied();
        nodes
            .map(|node| {
                let known = |of: &BTreeMap<u64, String>| of.get(&node).cloned().unwrap_or_default();
                let whereabouts = Whereabouts {
                    heard: String::new(),
                    listed: known(&self.roster),
                    configured: known(&configured),
                };
                (node, whereabouts)
            })
            .collect()
    }

    /// No two directories have the same number.
    fn draw_directory(&self, id: u64) -> u128 {
        u128::from(id) << 64 | u128::from(self.boots + 1)
    }

    /// Another directory takes the place of this one.
    fn exchange(&mut self, other: Directory) -> Directory {
        Directory {
            number: std::mem::replace(&mut self.directory, other.number),
            lives: std::mem::replace(&mut self.lives, other.lives),
            disk: std::mem::replace(&mut self.disk, other.disk),
            ledger: std::mem::replace(&mut self.ledger, other.ledger),
            is_founder: std::mem::replace(&mut self.is_founder, other.is_founder),
            is_renounced: std::mem::replace(&mut self.is_renounced, other.is_renounced),
            is_member: std::mem::replace(&mut self.is_member, other.is_member),
            let_in: std::mem::replace(&mut self.let_in, other.let_in),
        }
    }

    /// A directory with which this machine founded the cluster before it was founded again takes
    /// the place of the present one, which is put aside.
    pub(crate) fn go_back_to_an_earlier_life(&mut self, id: u64) {
        let earlier = Directory {
            number: self.draw_directory(id),
            lives: vec![FOUNDED_BEFORE],
            disk: self.disk.another(),
            ledger: LedgerModel::default(),
            is_founder: true,
            is_renounced: false,
            is_member: true,
            let_in: None,
        };
        self.put_aside = Some(self.exchange(earlier));
        self.is_on_old = true;
    }

    /// The directory that was put aside takes the place of the present one, which is put aside.
    /// `false` if there is none.
    pub(crate) fn swap_directories(&mut self) -> bool {
        let Some(other) = self.put_aside.take() else {
            return false;
        };
        let present = self.exchange(other);
        self.is_on_old = !self.is_on_old;
        // One of an earlier life has served its purpose.
        self.put_aside = (present.lives != [FOUNDED_BEFORE]).then_some(present);
        true
    }

    /// Keeps a copy of the directory, as it is durably now.
    pub(crate) fn make_a_copy(&mut self, pulse: u64) {
        let mut ledger = self.ledger.clone();
        ledger.lose_what_was_not_synced();
        let copy = Directory {
            number: self.directory,
            lives: self.lives.clone(),
            disk: self.disk.copy(),
            ledger,
            is_founder: self.is_founder,
            is_renounced: self.is_renounced,
            is_member: self.is_member,
            let_in: self.let_in,
        };
        self.copy = Some((copy, pulse));
    }

    /// The copy takes the place of the directory, whole, or only its log.
    pub(crate) fn put_copy_back(&mut self, whole: bool) {
        let Some((copy, _)) = self.copy.take() else {
            return;
        };
        self.is_copy = true;
        match whole {
            true => drop(self.exchange(copy)),
            false => copy.disk.put_log_back(&self.disk),
        }
    }

    /// The directory has forgotten something: it becomes another one, that is no member yet.
    pub(crate) fn renounce(&mut self, id: u64) {
        self.directory = self.draw_directory(id);
        self.is_founder = false;
        self.is_renounced = true;
        self.is_copy = false;
        self.is_member = false;
        self.let_in = None;
        self.copy = None;
    }

    pub(crate) fn remove_root(&mut self) {
        if let Some(root) = self.root.take() {
            // The whole scratch directory goes when the run ends.
            let _ = std::fs::remove_dir_all(root);
        }
    }
}
