//! Time: what happens next, and when a run is over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::{Path, PathBuf};

use stock_cluster::GroupId;
use stock_core::Position;
use stock_node::basket::ToShard;
use stock_node::chore::Chore;
use stock_wire::cluster::v1::Hello;

use super::beside::SnapshotUnderWay;
use super::calls::{Call, CallId, Told};
use super::checks::baskets::Baskets;
use super::checks::history::History;
use super::checks::leaders::Leaders;
use super::checks::replicas::Replicas;
use super::checks::{Broken, Checked, broken};
use super::client::{Client, Routed};
use super::dice::Dice;
use super::faults::{FaultKind, Occurrences};
use super::identities::founding;
use super::lives::{LIFE, Recovered};
use super::machine::Machine;
use super::network::{Arrival, ConnectionId, Network, Way};
use super::overtaken::{Overtaken, Silenced};
use super::plan::{Plan, SECOND_US};
use super::router::Router;
use super::trace::Trace;
use super::upgrades::Upgrades;
use super::workload::{Wish, Workload};
use super::{Options, Run};

/// Once nothing goes wrong any more, everything must be well within this time...
const WELL_WITHIN_US: u64 = 50 * SECOND_US;
/// ...and so much more for each shard: what is to be moved, is moved a few at a time.
const WELL_WITHIN_US_PER_SHARD: u64 = 10 * SECOND_US;
/// How often states are compared.
const COMPARE_EVERY_US: u64 = 2 * SECOND_US;
/// How often it is asked whether the run is over.
const LOOK_EVERY_US: u64 = 50_000;

/// What the others said in a round, each by id.
pub(crate) type Heard = BTreeMap<u64, Result<Hello, String>>;

/// What happens at a moment.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A node's loop may begin a turn; only the last one scheduled counts.
    Turn {
        node: u64,
        boot: u64,
        token: u64,
    },
    /// A node's loop goes on with the turn under way.
    Stage {
        node: u64,
        boot: u64,
    },
    Arrive(Arrival),
    /// A node notices that a connection stands, or that it is broken.
    Up {
        node: u64,
        peer: u64,
        connection: ConnectionId,
    },
    Down {
        node: u64,
        peer: u64,
        connection: ConnectionId,
    },
    Dial(Way),
    Free(Vec<Way>),
    /// Nothing gets through any more.
    Block(Vec<Way>),
    /// A replica that leads without a vote sleeps on, or wakes.
    KeepSilent,
    Speed(Vec<Way>),
    Break(Way),
    Boot(u64),
    /// A node that has lost its disk gets an empty one.
    NewDisk(u64),
    /// The copy of a node's directory may take its place.
    CopyBack {
        node: u64,
        kind: FaultKind,
        tries: u32,
    },
    /// The same, now that another node is behind.
    CopyAmongFew {
        node: u64,
        behind: u64,
    },
    /// A node may be started on the directory that it had before.
    StartOnOld(u64),
    /// A node that was started on an old directory gets its own back.
    PutBack(u64),
    /// All nodes but this one are lost for good.
    LoseMost(u64),
    /// Nodes that were lost for good may turn out not to be.
    TurnUp,
    /// An operator asks for the later version.
    RaiseVersion,
    /// A node that had hardly any room has enough again.
    RoomAgain,
    /// A node asks with whom it is to found the cluster.
    AskFounders {
        node: u64,
        directory: u128,
    },
    /// It has asked them all.
    HeardFounders {
        node: u64,
        directory: u128,
        heard: Box<Heard>,
    },
    /// A node is started again with the right list of founders.
    PutListRight(u64),
    /// A node sees to it that group 0 knows where it is.
    Announce {
        node: u64,
        boot: u64,
    },
    /// A node that is no member asks to be let in.
    AskToJoin {
        node: u64,
        directory: u128,
    },
    /// A node's next chore is done.
    Chore {
        node: u64,
        boot: u64,
    },
    /// One that could not be done is tried again.
    ChoreAgain {
        node: u64,
        boot: u64,
        chore: Chore,
    },
    /// A node's ledger is made durable.
    LedgerSync {
        node: u64,
        boot: u64,
    },
    /// A snapshot gets to its node, or to its end.
    SnapshotUnderWay(Box<SnapshotUnderWay>),
    Die(u64, super::disk::Ending),
    Fault,
    Heal,
    Compare,
    Look,
    /// A client begins something.
    Think(usize),
    /// A call gets to a node, or tries again there.
    Take(CallId),
    /// A node that was asked for something over several shards tells some of them more.
    TellShards(CallId, Vec<ToShard>),
    /// A client hears of its call.
    Hear(CallId, Told),
    /// A client waits no longer.
    Impatience(CallId),
    /// A client tries again.
    Retry(usize),
    /// Something happens to a client that finds its way itself.
    Routed(usize, Routed),
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chapter {
    /// Things go wrong.
    Trouble,
    /// Nothing goes wrong any more; what was asked is finished.
    Recovery,
    /// Everything is read once more.
    Audit,
    Over,
}

struct Scheduled {
    at_us: u64,
    number: u64,
    happening: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.number) == (other.at_us, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) plan: Plan,
    /// What has passed while anybody was awake, in microseconds.
    pub(crate) now_us: u64,
    /// What has passed while all slept.
    pub(crate) slept_us: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(crate) chapter: Chapter,
    well_by_us: u64,
    pub(crate) machines: BTreeMap<u64, Machine>,
    pub(crate) network: Network,
    pub(crate) workload: Workload,
    pub(crate) clients: Vec<Client>,
    pub(crate) audit: Vec<Wish>,
    pub(crate) calls: BTreeMap<CallId, Call>,
    pub(crate) next_call: CallId,
    pub(crate) histories: Vec<History>,
    /// What callers were told of baskets over several shards.
    pub(crate) baskets: Baskets,
    pub(crate) leaders: Leaders,
    pub(crate) replicas: Replicas,
    views_compared: u64,
    /// By group: the highest index that any client was told of.
    pub(crate) answered: Vec<u64>,
    /// When a request first got to the loop of a node.
    pub(crate) handed_in: BTreeMap<(u64, GroupId, [u8; 16]), u64>,
    /// Joins under way: the call, who asks, and for which directory.
    pub(crate) joins: BTreeMap<CallId, (u64, u128)>,
    /// Nodes that have lost, or may have lost, what they acknowledged.
    pub(crate) untrusted: BTreeSet<u64>,
    /// Nodes that were refused, and by what right.
    pub(crate) wronged: Vec<(u64, String)>,
    /// A vote that was taken away by a leader that died of it.
    pub(crate) overtaken: Option<Overtaken>,
    /// A replica that leads without a vote, and does not run.
    pub(crate) silenced: Option<Silenced>,
    /// The latest life of the cluster.
    pub(crate) life: u128,
    /// What is known of the version that it speaks.
    pub(crate) upgrades: Upgrades,
    /// A recovery that has been.
    pub(crate) recovered: Option<Recovered>,
    /// The node whose wall clock is wrong: never more than one.
    pub(crate) wrong_clock: Option<u64>,
    /// The node whose disk is nearly full, if one is.
    pub(crate) without_room: Option<u64>,
    /// For what goes wrong.
    pub(crate) fate: Dice,
    /// For how long things take.
    pub(crate) pace: Dice,
    pub(crate) tally: Occurrences,
    pub(crate) trace: Trace,
    pub(crate) scratch: PathBuf,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options, scratch: &Path) -> Self {
        let plan = Plan::new(seed, &options.without, options.seconds_max);
        let groups = plan.shards + 1;
        let machines = (1..=plan.machines).map(|node| {
            let dice = Dice::new(seed, &format!("disk {node}"));
            (node, Machine::new(node, &plan, dice))
        });
        let machines: BTreeMap<u64, Machine> = machines.collect();
        let secret = founding(&plan, &machines[&1]).secret();
        let mut world = Self {
            now_us: SECOND_US,
            slept_us: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            chapter: Chapter::Trouble,
            well_by_us: u64::MAX,
            machines,
            network: Network::new(&plan, Dice::new(seed, "network")),
            workload: Workload::new(plan.shards, Dice::new(seed, "workload")),
            clients: (0..plan.clients)
                .map(|client| Client {
                    router: Router::of(&plan, seed, client),
                    ..Client::default()
                })
                .collect(),
            audit: Vec::new(),
            calls: BTreeMap::new(),
            next_call: 1,
            histories: (0..groups)
                .map(|group| History::new(GroupId(group), secret))
                .collect(),
            baskets: Baskets::default(),
            leaders: Leaders::default(),
            replicas: Replicas::default(),
            views_compared: 0,
            answered: vec![0; groups as usize],
            handed_in: BTreeMap::new(),
            joins: BTreeMap::new(),
            untrusted: BTreeSet::new(),
            wronged: Vec::new(),
            overtaken: None,
            silenced: None,
            life: LIFE,
            upgrades: Upgrades::default(),
            recovered: None,
            wrong_clock: None,
            without_room: None,
            fate: Dice::new(seed, "fate"),
            pace: Dice::new(seed, "pace"),
            tally: Occurrences::default(),
            trace: Trace::new(options.verbosity),
            scratch: scratch.to_path_buf(),
            plan,
        };
        world.begin(seed);
        world
    }

    fn begin(&mut self, seed: u64) {
        let plan = format!("{:?}", self.plan);
        self.trace.note(self.now_us, "plan", &[], || plan);
        if self.plan.faults.contains(&FaultKind::Leftovers) {
            self.tally.add(FaultKind::Leftovers.name());
        }
        if self.plan.faults.contains(&FaultKind::Disagreement) {
            self.begin_unfounded(seed);
        }
        let worst = (1..).zip(&self.plan.wall_offset_ms);
        self.wrong_clock = worst
            .max_by_key(|(_, offset)| offset.abs())
            .map(|(node, _)| node);
        for node in self.nodes() {
            let after_us = self.pace.between(0, 20_000);
            self.after(after_us, Happening::Boot(node));
            for peer in node + 1..=self.plan.founders {
                let way = Way {
                    from: peer,
                    to: node,
                };
                let after_us = self.pace.between(0, 100_000);
                self.after(after_us, Happening::Dial(way));
            }
        }
        for client in 0..self.clients.len() {
            let after_us = self.pace.between(0, SECOND_US);
            self.after(after_us, Happening::Think(client));
        }
        self.after(2 * SECOND_US, Happening::Fault);
        self.after(self.plan.trouble_until_us, Happening::Heal);
        self.after(COMPARE_EVERY_US, Happening::Compare);
    }

    /// True time, sleep included, in microseconds.
    pub(crate) fn true_us(&self) -> u64 {
        self.now_us + self.slept_us
    }

    /// Something will happen.
    pub(crate) fn after(&mut self, after_us: u64, happening: Happening) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled {
            at_us: self.now_us + after_us,
            number: self.scheduled,
            happening,
        }));
    }

    /// Frames are under way.
    pub(crate) fn deliver(&mut self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            let after_us = arrival.at_us.saturating_sub(self.now_us);
            self.after(after_us, Happening::Arrive(arrival));
        }
    }

    /// Everything that happens, until the run is over or a promise is broken.
    pub(crate) fn live(&mut self) -> Checked {
        while self.chapter != Chapter::Over {
            let Some(Reverse(next)) = self.queue.pop() else {
                return broken("liveness", "nothing will ever happen again");
            };
            self.now_us = next.at_us;
            if self.now_us > self.well_by_us {
                return broken("liveness", self.what_is_not_well());
            }
            self.happens(next.happening)?;
        }
        Ok(())
    }

    /// What is known at the end.
    pub(crate) fn into_run(mut self, seed: u64, broken: Option<Broken>) -> Run {
        for machine in self.machines.values_mut() {
            let (torn, lost) = machine.disk.losses();
            self.tally.add_many("writes torn", torn);
            self.tally.add_many("writes lost", lost);
            machine.switch_off();
        }
        let commands: u64 = self.histories.iter().map(History::commands).sum();
        let holds: u64 = self.histories.iter().map(History::holds_timed).sum();
        self.tally.add_many("commands applied", commands);
        self.tally.add_many("expiries timed", holds);
        self.tally
            .add_many("terms led", self.leaders.terms() as u64);
        self.tally
            .add_many("states compared", self.replicas.compared());
        self.tally.add_many("views compared", self.views_compared);
        Run {
            seed,
            hash: self.trace.digest(),
            simulated_us: self.true_us(),
            tally: self.tally,
            broken,
            lines: self.trace.into_lines(),
        }
    }

    fn happens(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Turn { node, boot, token } => self.turn(node, boot, token),
            Happening::Stage { node, boot } => self.stage(node, boot),
            Happening::Arrive(arrival) => {
                if self.network.arrives(&arrival) {
                    self.frame_arrived(arrival);
                }
                Ok(())
            }
            Happening::Up {
                node,
                peer,
                connection,
            } => {
                self.connected(node, peer, connection);
                Ok(())
            }
            Happening::Down {
                node,
                peer,
                connection,
            } => {
                self.disconnected(node, peer, connection);
                Ok(())
            }
            Happening::LoseMost(left) => self.lose_most(left),
            Happening::TurnUp => self.turn_up(),
            Happening::RaiseVersion => {
                self.ask_to_raise();
                Ok(())
            }
            Happening::RoomAgain => self.make_room(),
            Happening::Dial(way) => {
                self.dial(way);
                Ok(())
            }
            Happening::Free(ways) => {
                for way in ways {
                    let arrivals = self.network.free(self.now_us, way, &mut self.tally);
                    self.deliver(arrivals);
                }
                Ok(())
            }
            Happening::Block(ways) => {
                if self.chapter == Chapter::Trouble {
                    ways.iter().for_each(|way| self.network.block(*way));
                }
                Ok(())
            }
            Happening::KeepSilent => {
                self.keep_silent();
                Ok(())
            }
            Happening::Speed(ways) => {
                for way in ways {
                    self.network.slow_down(way, 0);
                }
                Ok(())
            }
            Happening::Break(way) => {
                if self.chapter == Chapter::Trouble {
                    self.break_connection(way, 500_000);
                }
                Ok(())
            }
            Happening::Boot(node) => self.boot(node),
            Happening::NewDisk(node) => {
                self.new_disk(node);
                Ok(())
            }
            Happening::CopyBack { node, kind, tries } => {
                self.put_copy_back(kind, node, tries);
                Ok(())
            }
            Happening::CopyAmongFew { node, behind } => {
                self.put_copy_among_few(node, behind);
                Ok(())
            }
            Happening::StartOnOld(node) => {
                let is_put_aside = self
                    .machines
                    .get(&node)
                    .is_some_and(|it| it.put_aside.is_some());
                if is_put_aside && self.chapter == Chapter::Trouble {
                    self.start_on_old(node);
                }
                Ok(())
            }
            Happening::PutBack(node) => {
                self.put_back(node);
                Ok(())
            }
            Happening::AskFounders { node, directory } => {
                self.ask_founders(node, directory);
                Ok(())
            }
            Happening::HeardFounders {
                node,
                directory,
                heard,
            } => self.heard_founders(node, directory, &heard),
            Happening::PutListRight(node) => {
                self.put_list_right(node);
                Ok(())
            }
            Happening::Announce { node, boot } => {
                self.announce(node, boot);
                Ok(())
            }
            Happening::AskToJoin { node, directory } => {
                self.ask_to_join(node, directory);
                Ok(())
            }
            Happening::Chore { node, boot } => self.chore(node, boot),
            Happening::ChoreAgain { node, boot, chore } => {
                self.chore_again(node, boot, chore);
                Ok(())
            }
            Happening::LedgerSync { node, boot } => {
                self.ledger_synced(node, boot);
                Ok(())
            }
            Happening::SnapshotUnderWay(snapshot) => {
                self.snapshot_arrives(&snapshot);
                Ok(())
            }
            Happening::Die(node, ending) => {
                self.die(node, ending);
                Ok(())
            }
            Happening::Fault => {
                self.trouble();
                Ok(())
            }
            Happening::Heal => {
                self.heal();
                self.expect_hand_over();
                self.chapter = Chapter::Recovery;
                self.well_by_us = self.now_us + self.well_within_us();
                self.after(LOOK_EVERY_US, Happening::Look);
                Ok(())
            }
            Happening::Compare => {
                self.after(COMPARE_EVERY_US, Happening::Compare);
                self.compare_states()
            }
            Happening::Look => {
                self.after(LOOK_EVERY_US, Happening::Look);
                self.look()
            }
            Happening::Think(client) => self.think(client),
            Happening::Take(call) => self.take_call(call),
            Happening::TellShards(call, tell) => {
                self.tell_shards(call, tell);
                Ok(())
            }
            Happening::Hear(call, told) => self.hear(call, told),
            Happening::Impatience(call) => self.impatience(call),
            Happening::Retry(client) => self.retry(client),
            Happening::Routed(client, what) => self.routed(client, what),
        }
    }

    /// Whether the next chapter may begin.
    fn look(&mut self) -> Checked {
        if self.clients.iter().any(Client::is_busy) || !self.audit.is_empty() {
            return Ok(());
        }
        match self.chapter {
            Chapter::Recovery => {
                self.chapter = Chapter::Audit;
                self.audit = self.workload.audit(self.true_us());
                for client in 0..self.clients.len() {
                    self.think(client)?;
                }
                Ok(())
            }
            Chapter::Audit if self.not_whole().is_none() => {
                self.compare_states()?;
                self.chapter = Chapter::Over;
                Ok(())
            }
            Chapter::Audit | Chapter::Trouble | Chapter::Over => Ok(()),
        }
    }

    fn compare_states(&mut self) -> Checked {
        self.stop_the_removed();
        self.look_for_failures()?;
        self.look_for_wronged()?;
        self.compare_views()?;
        self.baskets.check(&self.histories)?;
        for number in 0..self.histories.len() {
            let group = GroupId(number as u32);
            let history = &self.histories[number];
            if let Some(hash) = history.state_hash() {
                self.replicas
                    .saw(group, history.last_index(), hash, "the replay")?;
            }
            for (node, machine) in &self.machines {
                if let Some((index, hash)) = machine.state_hash(group) {
                    self.trace
                        .note(self.now_us, "state", &[*node, index, hash as u64], || {
                            format!("of {group:?} on node {node} at {index}: {hash:032x}")
                        });
                    self.replicas
                        .saw(group, index, hash, &format!("node {node}"))?;
                }
            }
        }
        Ok(())
    }

    /// Whatever a node would answer without asking its loop is what the log says at the index it
    /// names.
    fn compare_views(&mut self) -> Checked {
        for (group, history) in self.histories.iter().enumerate().skip(1) {
            let group = GroupId(group as u32);
            for (node, machine) in &self.machines {
                let Some(running) = machine.running.as_ref() else {
                    continue;
                };
                let (true, Some(shard)) = (running.cluster.is_here(group), group.shard()) else {
                    continue;
                };
                let index = running.view.applied_index(shard);
                for sku in history.skus() {
                    let known = history.positions(sku, index);
                    let shown = running.view.with_positions(sku, <[Position]>::to_vec);
                    if shown.as_deref() != known {
                        return broken(
                            "reads",
                            format!(
                                "node {node} shows {shown:?} of {sku:?} at index {index}; the log \
                                 says {known:?}"
                            ),
                        );
                    }
                    self.views_compared += 1;
                }
            }
        }
        Ok(())
    }

    fn well_within_us(&self) -> u64 {
        WELL_WITHIN_US + WELL_WITHIN_US_PER_SHARD * u64::from(self.plan.shards)
    }

    fn what_is_not_well(&self) -> String {
        let busy: Vec<_> = self.clients.iter().filter_map(Client::describe).collect();
        let last: Vec<u64> = self.histories.iter().map(History::last_index).collect();
        format!(
            "{} s after the last fault clients wait for {busy:?}, and of {last:?} this is \
             missing: {:?}; the controller waits for {:?}",
            self.well_within_us() / SECOND_US,
            self.not_whole(),
            self.waits()
        )
    }
}
