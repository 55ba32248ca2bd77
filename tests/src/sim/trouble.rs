//! What goes wrong, when.

use stock_cluster::GroupId;
use stock_node::event::Event;

use super::disk::Ending;
use super::faults::FaultKind;
use super::machine::{Doom, Machine, Stage};
use super::network::Way;
use super::plan::SECOND_US;
use super::world::{Chapter, Happening, World};

const MINUTE_US: u64 = 60 * SECOND_US;
const DAY_US: u64 = 24 * 60 * MINUTE_US;

/// How long outages last: each horizon is crossed, of request ids (ten minutes), of holds (seven
/// days) and of documents and history (thirty days).
const OUTAGES_US: [u64; 6] = [
    20 * SECOND_US,
    2 * MINUTE_US,
    20 * MINUTE_US,
    6 * 60 * MINUTE_US,
    16 * DAY_US,
    62 * DAY_US,
];

impl World {
    /// One of the run's faults happens, and the next is scheduled.
    pub(crate) fn trouble(&mut self) {
        if self.chapter != Chapter::Trouble {
            return;
        }
        let every_us = self.plan.fault_every_us;
        let after_us = self.fate.between(every_us / 4, every_us * 7 / 4);
        self.after(after_us, Happening::Fault);
        // Loss and the like are the network's own; see `Plan`.
        let kinds: Vec<FaultKind> = self
            .plan
            .faults
            .iter()
            .copied()
            .filter(|kind| {
                !matches!(
                    kind,
                    FaultKind::Loss
                        | FaultKind::Duplicate
                        | FaultKind::Reorder
                        | FaultKind::Leftovers
                        | FaultKind::Disagreement
                )
            })
            .collect();
        if self.silenced.is_some() {
            return;
        }
        // It takes a few steps until a version can be raised.
        let is_upgraded = kinds.contains(&FaultKind::Upgrade) && self.fate.chance(150);
        let drawn = match is_upgraded {
            true => Some(FaultKind::Upgrade),
            false => self.fate.pick(&kinds).copied(),
        };
        let Some(kind) = drawn else {
            return;
        };
        let nodes = self.nodes();
        let Some(node) = self.fate.pick(&nodes).copied() else {
            return;
        };
        self.trace
            .note(self.now_us, "fault", &[kind as u64, node], || {
                format!("{} at node {node}", kind.name())
            });
        self.happens_to(kind, node);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&mut self) {
        let arrivals = self.network.heal(self.now_us, &mut self.tally);
        self.deliver(arrivals);
        self.let_clients_through();
        let mut boots = Vec::new();
        for (node, machine) in &mut self.machines {
            machine.doom = None;
            machine.paused_until_us = 0;
            machine.slow_disk = (0, 0);
            machine.slow_turns_until_us = 0;
            machine.disk.relieve();
            if machine.running.is_none() && !machine.is_out {
                boots.push((*node, machine.is_gone));
            }
        }
        for node in self.nodes() {
            self.put_back(node);
            self.put_list_right(node);
        }
        for (node, is_gone) in boots {
            self.after(
                1_000,
                match is_gone {
                    true => Happening::NewDisk(node),
                    false => Happening::Boot(node),
                },
            );
        }
    }

    fn happens_to(&mut self, kind: FaultKind, node: u64) {
        let runs = self
            .machines
            .get(&node)
            .is_some_and(|machine| machine.running.is_some());
        match kind {
            FaultKind::Kill if runs => {
                self.tally.add(kind.name());
                self.die(node, Ending::Killed);
            }
            FaultKind::PowerCut if runs => {
                self.tally.add(kind.name());
                self.die(node, Ending::PowerCut);
            }
            FaultKind::DeathInTurn | FaultKind::DeathInEffects if runs => self.doom(kind, node),
            FaultKind::DeathInWrite if runs => {
                let operations = self.fate.between(0, 6);
                self.disk_of(node, |disk| disk.cut_power_after(operations));
            }
            FaultKind::DeathOfAll => {
                self.tally.add(kind.name());
                let ending = self.ending();
                for node in self.nodes() {
                    self.die(node, ending);
                }
            }
            FaultKind::Restart if runs => {
                self.tally.add(kind.name());
                if let Some(machine) = self.machines.get_mut(&node)
                    && let Some(running) = &mut machine.running
                {
                    running.inbox.push(Event::HandOver);
                }
                self.wake(node);
                let after_us = self.fate.between(50_000, 2 * SECOND_US);
                self.after(after_us, Happening::Die(node, Ending::Killed));
            }
            FaultKind::SyncFailure if runs => {
                let syncs = self.fate.between(0, 3);
                self.disk_of(node, |disk| disk.fail_sync_after(syncs));
            }
            FaultKind::DiskFull if runs => {
                let bytes = self.fate.between(0, 20_000);
                self.disk_of(node, |disk| disk.fill_up(bytes));
            }
            FaultKind::BitFlip => self.flip_a_bit(node),
            FaultKind::DamagedCheckpoint => self.damage_a_checkpoint(node),
            FaultKind::DamagedStates => self.damage_newest_states(),
            FaultKind::Recovery => self.after(0, Happening::LoseMost(node)),
            FaultKind::ReplacedDisk => self.lose_disk(node),
            FaultKind::OldDirectory => self.start_on_old(node),
            FaultKind::EarlierLife => self.start_in_an_earlier_life(node),
            FaultKind::OlderCopy | FaultKind::HalfCopy | FaultKind::CopyWithLaggard if runs => {
                self.copy_directory(kind, node);
            }
            FaultKind::Upgrade if runs => self.upgrade(node),
            FaultKind::SlowReplay if runs => self.have_a_slow_node_lead(node),
            FaultKind::Phantom => self.invent_a_node(),
            FaultKind::Intruder if runs => self.intrude(node),
            FaultKind::Join
            | FaultKind::Drain
            | FaultKind::Undrain
            | FaultKind::Move
            | FaultKind::Transfer
            | FaultKind::Remove => self.operate(kind),
            FaultKind::LeaderCutOff => self.cut_off_a_leader(),
            FaultKind::MovedMachine if runs => self.move_machine(node),
            FaultKind::OvertakenRemoval => self.operate(FaultKind::Move),
            FaultKind::SlowDisk => {
                let by_us = self.fate.between(5_000, 400_000);
                let for_us = self.fate.between(SECOND_US / 5, 4 * SECOND_US);
                self.slow_down(kind, node, by_us, for_us);
            }
            FaultKind::AilingDisk => {
                let by_us = self.fate.between(50_000, 400_000);
                let for_us = self.fate.between(4 * SECOND_US, 15 * SECOND_US);
                self.slow_down(kind, node, by_us, for_us);
            }
            FaultKind::DamagedLedger => self.damage_a_ledger(node),
            FaultKind::Isolation => {
                let ways = self.ways_of(node);
                self.cut_off(kind, ways);
            }
            FaultKind::Partition if self.nodes().len() > 1 => {
                let nodes = self.nodes();
                let split = self.fate.between(1, nodes.len() as u64 - 1) as usize;
                let ways = nodes[..split]
                    .iter()
                    .flat_map(|one| nodes[split..].iter().map(move |other| (*one, *other)))
                    .flat_map(|(one, other)| both(one, other))
                    .collect();
                self.cut_off(kind, ways);
            }
            FaultKind::OneWay => {
                let way = self.way_from(node);
                self.cut_off(kind, vec![way]);
            }
            FaultKind::Disconnect => {
                self.tally.add(kind.name());
                let way = self.way_from(node);
                self.break_connection(way, 300_000);
            }
            FaultKind::SlowLink => {
                self.tally.add(kind.name());
                let way = self.way_from(node);
                let by_us = self.fate.between(5_000, 300_000);
                self.network.slow_down(way, by_us);
                let after_us = self.fate.between(SECOND_US / 2, 5 * SECOND_US);
                self.after(after_us, Happening::Speed(vec![way]));
            }
            FaultKind::Pause if runs => {
                self.tally.add(kind.name());
                let until_us = self.now_us + self.fate.between(20_000, 6 * SECOND_US);
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.paused_until_us = until_us;
                }
            }
            FaultKind::Sleep => {
                self.tally.add(kind.name());
                self.slept_us += self.fate.between(MINUTE_US / 2, 15 * MINUTE_US);
            }
            FaultKind::Outage => self.go_out(node),
            FaultKind::NearlyFull => self.run_out_of_room(node),
            FaultKind::ClockStep => self.step_clock(node),
            FaultKind::ClientCutOff => self.cut_a_client_off(node),
            _ => {}
        }
    }

    fn slow_down(&mut self, kind: FaultKind, node: u64, by_us: u64, for_us: u64) {
        self.tally.add(kind.name());
        let until_us = self.now_us + for_us;
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.slow_disk = (by_us, until_us);
        }
    }

    fn doom(&mut self, kind: FaultKind, node: u64) {
        let stages = [
            Stage::Step,
            Stage::Answer,
            Stage::Write,
            Stage::Settle,
            Stage::CatchUp,
        ];
        let after = *self.fate.pick(&stages).unwrap_or(&Stage::Step);
        let in_effects = kind == FaultKind::DeathInEffects;
        let effects = match in_effects {
            true => self.fate.between(0, 2) as usize,
            false => 0,
        };
        let ending = self.ending();
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.doom = Some(Doom {
                after,
                effects,
                in_effects,
                ending,
            });
        }
    }

    /// Never on so many nodes that a quorum could be lost for good.
    fn flip_a_bit(&mut self, node: u64) {
        // A founder that lost its record while others have yet to found takes an operator: see
        // `docs/recovery.md`.
        let room = self.may_lose(node) && self.is_founding_over();
        // A directory that is not the node's would join under its name.
        let is_hit = |machine: &&mut Machine| room && !machine.is_on_old;
        let Some(machine) = self.machines.get_mut(&node).filter(is_hit) else {
            return;
        };
        if machine.disk.flip_a_bit_of_the_log() {
            self.untrusted.insert(node);
            self.tally.add(FaultKind::BitFlip.name());
            // Most damage is found when the log is read.
            if self.fate.chance(700) {
                self.die(node, Ending::Killed);
            }
        }
    }

    /// As above; and the node goes on without the replica.
    fn damage_a_checkpoint(&mut self, node: u64) {
        let room = self.may_lose(node);
        let Some(machine) = self.machines.get_mut(&node).filter(|_| room) else {
            return;
        };
        if machine.disk.flip_a_bit_of_a_checkpoint() {
            self.untrusted.insert(node);
            self.tally.add(FaultKind::DamagedCheckpoint.name());
            if self.fate.chance(600) {
                self.die(node, Ending::Killed);
            }
        }
    }

    /// The newest state of a group is damaged on as many nodes as may be, where an older one is
    /// whole: nothing is lost by that, so no node counts as lost.
    fn damage_newest_states(&mut self) {
        let group = GroupId(self.fate.below(self.histories.len()) as u32);
        for node in self.nodes() {
            if !self.is_trusted(node) || self.fate.chance(200) {
                continue;
            }
            let machine = self.machines.get(&node);
            if machine.is_some_and(|it| it.disk.flip_a_bit_of_the_newest_state(group)) {
                self.tally.add(FaultKind::DamagedStates.name());
                self.die(node, Ending::Killed);
            }
        }
    }

    /// A node dies, and its ledger is found damaged: the history of some groups is given up. It
    /// holds no truth, so that any number of nodes may lose it.
    fn damage_a_ledger(&mut self, node: u64) {
        self.die(node, Ending::Killed);
        let groups = self.histories.len() as u32;
        for group in (0..groups).map(GroupId) {
            if self.fate.chance(500)
                && let Some(machine) = self.machines.get_mut(&node)
                && machine.ledger.lose(group)
            {
                self.tally.add(FaultKind::DamagedLedger.name());
            }
        }
    }

    /// A node dies and its disk with it.
    pub(crate) fn lose_disk(&mut self, node: u64) {
        if !self.may_lose(node) || !self.is_founding_over() {
            return;
        }
        self.tally.add(FaultKind::ReplacedDisk.name());
        self.untrusted.insert(node);
        self.die(node, Ending::PowerCut);
        self.put_empty_disk_in(node);
        self.expect_boot(node);
    }

    /// The leader of a group neither runs nor hears anything, and wakes before anybody can tell it
    /// that another leads by now.
    fn cut_off_a_leader(&mut self) {
        let group = GroupId(self.fate.below(self.histories.len()) as u32);
        let leads = |machine: &Machine, node: u64| {
            let running = machine.running.as_ref();
            running.is_some_and(|running| running.cluster.group(group).leader == Some(node))
        };
        let leaders = self.machines.iter();
        let mut leaders = leaders.filter(|(node, machine)| leads(machine, **node));
        let Some(node) = leaders.next().map(|(node, _)| *node) else {
            return;
        };
        self.tally.add(FaultKind::LeaderCutOff.name());
        let ways = self.ways_of(node);
        for way in &ways {
            self.network.block(*way);
        }
        let asleep_us = self.fate.between(SECOND_US, 4 * SECOND_US);
        let alone_us = self.fate.between(SECOND_US / 10, 2 * SECOND_US);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.paused_until_us = self.now_us + asleep_us;
        }
        self.after(asleep_us + alone_us, Happening::Free(ways));
    }

    fn cut_off(&mut self, kind: FaultKind, ways: Vec<Way>) {
        self.tally.add(kind.name());
        for way in &ways {
            self.network.block(*way);
            // Sooner or later somebody notices that nothing comes any more.
            if self.fate.chance(500) {
                let after_us = self.fate.between(SECOND_US / 2, 4 * SECOND_US);
                self.after(after_us, Happening::Break(*way));
            }
        }
        let after_us = self.fate.between(100_000, 6 * SECOND_US);
        self.after(after_us, Happening::Free(ways));
    }

    /// All nodes end, and for a while nobody starts them. One may run on, and hear nobody.
    fn go_out(&mut self, alone: u64) {
        let runs_on = self.fate.chance(250);
        let Some(away_us) = self.fate.pick(&OUTAGES_US).copied() else {
            return;
        };
        self.tally.add(FaultKind::Outage.name());
        let ending = self.ending();
        for node in self.nodes() {
            if node != alone || !runs_on {
                self.die(node, ending);
            }
        }
        self.slept_us += self.fate.between(away_us / 2, away_us);
        let true_us = self.true_us();
        for machine in self.machines.values_mut() {
            machine.clock.discipline(true_us);
        }
        if runs_on {
            let ways = self.ways_of(alone);
            self.cut_off(FaultKind::Isolation, ways);
        }
    }

    /// One clock may be wrong: a median of three bears no more. It is the same one all the time,
    /// since others may not hear for long that it has been put right.
    fn step_clock(&mut self, node: u64) {
        self.tally.add(FaultKind::ClockStep.name());
        let node = *self.wrong_clock.get_or_insert(node);
        let offset_ms = self.fate.between(0, 600_000) as i64 - 300_000;
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.clock.set_wall_offset_ms(offset_ms);
        }
    }

    fn way_from(&mut self, node: u64) -> Way {
        let mut others = self.nodes();
        others.retain(|other| *other != node);
        let to = self.fate.pick(&others).copied().unwrap_or(node);
        Way { from: node, to }
    }

    pub(crate) fn ways_of(&self, node: u64) -> Vec<Way> {
        let others = self.nodes().into_iter().filter(|other| *other != node);
        others.flat_map(|other| both(node, other)).collect()
    }

    pub(crate) fn ending(&mut self) -> Ending {
        match self.fate.chance(500) {
            true => Ending::Killed,
            false => Ending::PowerCut,
        }
    }

    fn disk_of(&mut self, node: u64, change: impl FnOnce(&super::disk::Disk)) {
        if let Some(machine) = self.machines.get(&node) {
            change(&machine.disk);
        }
    }
}

fn both(one: u64, other: u64) -> [Way; 2] {
    let way = Way {
        from: one,
        to: other,
    };
    [way, way.back()]
}
