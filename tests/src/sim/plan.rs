//! What a seed decides before anything happens: the cluster, its network, and which faults it
//! meets.
//!
//! Each run meets only some kinds of faults, so that rare combinations are not drowned by frequent
//! ones, and a few runs meet none.

use std::collections::BTreeSet;

use stock_cluster::Speaks;
use stock_node::worker::CheckpointPace;

use super::dice::Dice;
use super::faults::FaultKind;

/// Microseconds in a second.
pub(crate) const SECOND_US: u64 = 1_000_000;

/// What the build before speaks.
pub(crate) const BEFORE: Speaks = Speaks {
    oldest: 1,
    newest: 1,
};

/// What the build after it speaks.
pub(crate) const AFTER: Speaks = Speaks {
    oldest: 1,
    newest: 2,
};

/// What a seed decides.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How many nodes found the cluster; their ids begin at 1.
    pub(crate) founders: u64,
    /// How many machines there are; those that do not found may join.
    pub(crate) machines: u64,
    /// How many voters a group should have.
    pub(crate) replication: u32,
    /// A node away for so long is replaced.
    pub(crate) replace_after_ms: u64,
    /// How many stock shards there are.
    pub(crate) shards: u32,
    /// How many clients there are.
    pub(crate) clients: usize,
    /// Most time a client thinks between two operations.
    pub(crate) think_us_max: u64,
    /// Until when clients begin operations and things go wrong.
    pub(crate) trouble_until_us: u64,
    /// The kinds that occur.
    pub(crate) faults: BTreeSet<FaultKind>,
    /// Between two faults, on average.
    pub(crate) fault_every_us: u64,
    /// A frame takes so long at least, and at most.
    pub(crate) delay_us: (u64, u64),
    /// Of a thousand frames, as many are lost, arrive twice, and take a way of their own.
    pub(crate) loss_per_mille: u64,
    pub(crate) duplicate_per_mille: u64,
    pub(crate) reorder_per_mille: u64,
    /// A sync takes so long at least, and at most.
    pub(crate) sync_us: (u64, u64),
    /// A file of the log that has grown to this size is closed.
    pub(crate) log_file_bytes: u64,
    /// When a checkpoint is due.
    pub(crate) checkpoint_pace: CheckpointPace,
    /// Bytes of committed entries that a group applies in a turn.
    pub(crate) committed_bytes_per_turn: u64,
    /// Where in the log states of an earlier life were written down, where there are any.
    pub(crate) leftover_index: u64,
    /// How often replicas are compared.
    pub(crate) audit_every_ms: u64,
    /// The ledger is made durable so much later, at most.
    pub(crate) ledger_us_max: u64,
    /// The machines' quartzes: so many parts in a million too fast.
    pub(crate) drift_ppm: Vec<i64>,
    /// The machines' wall clocks at first.
    pub(crate) wall_offset_ms: Vec<i64>,
}

impl Plan {
    /// What nodes are started with at first, and a new cluster speaks.
    pub(crate) fn first_build(&self) -> Speaks {
        match self.faults.contains(&FaultKind::Upgrade) {
            true => BEFORE,
            false => Speaks::THIS,
        }
    }

    pub(crate) fn new(seed: u64, without: &BTreeSet<FaultKind>, seconds_max: Option<u64>) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let founders = match dice.between(0, 9) {
            0..8 => 3,
            _ => 5,
        };
        let calm = dice.chance(30);
        let share = dice.between(100, 700);
        let mut faults: BTreeSet<FaultKind> = FaultKind::ALL
            .iter()
            .copied()
            .filter(|kind| !FaultKind::LATER.contains(kind) && !FaultKind::APART.contains(kind))
            .filter(|_| dice.chance(share) && !calm)
            .collect();
        let mut later = Dice::new(seed, "later kinds");
        let later_kinds = FaultKind::LATER.iter().copied();
        faults.extend(later_kinds.filter(|_| later.chance(share) && !calm));
        let apart = FaultKind::APART.iter().copied();
        faults.extend(apart.filter(|kind| {
            // Where one voter is enough, nothing can be lost, and most faults cannot be played.
            let chance = match kind {
                FaultKind::OvertakenRemoval => share / 4,
                // What it brings along, such clients, is worth more than itself.
                FaultKind::ClientCutOff => 600,
                // They need much to be as it must, and come to nothing as a rule.
                FaultKind::SlowReplay | FaultKind::CopyWithLaggard | FaultKind::Upgrade => share,
                _ => share / 2,
            };
            Dice::new(seed, kind.name()).chance(chance) && !calm
        }));
        faults.retain(|kind| !(FaultKind::APART.contains(kind) && without.contains(kind)));
        // Where one voter is enough, a node of an earlier life is a cluster of its own.
        if faults.contains(&FaultKind::OvertakenRemoval) {
            faults.remove(&FaultKind::EarlierLife);
        }
        // A network that keeps no order is for one run in four: production's does.
        if dice.chance(750) {
            for kind in [FaultKind::Loss, FaultKind::Duplicate, FaultKind::Reorder] {
                faults.remove(&kind);
            }
        }
        let rate = |kind, dice: &mut Dice, most| {
            let drawn = dice.between(1, most);
            if faults.contains(&kind) && !without.contains(&kind) {
                drawn
            } else {
                0
            }
        };
        let loss_per_mille = rate(FaultKind::Loss, &mut dice, 60);
        let duplicate_per_mille = rate(FaultKind::Duplicate, &mut dice, 60);
        let reorder_per_mille = rate(FaultKind::Reorder, &mut dice, 200);
        let seconds = dice.between(12, 30);
        let slowest_us = *dice.pick(&[300, 1_000, 5_000, 20_000]).unwrap_or(&300);
        let spares = match faults.contains(&FaultKind::Join) {
            true => dice.between(1, 2),
            false => 0,
        };
        let machines = founders + spares;
        let mut wall_offset_ms: Vec<i64> = (0..machines)
            .map(|_| dice.between(0, 40) as i64 - 20)
            .collect();
        let step_ms = dice.between(0, 600_000) as i64 - 300_000;
        let wrong = dice.below(founders as usize);
        if faults.contains(&FaultKind::ClockStep) && !without.contains(&FaultKind::ClockStep) {
            wall_offset_ms[wrong] = step_ms;
        }
        let drawn = *dice.pick(&[3, founders as u32]).unwrap_or(&3);
        let replication = match faults.contains(&FaultKind::OvertakenRemoval) {
            // Its moves have a moment with two voters.
            true => 1,
            false => drawn,
        };
        let plan = Self {
            founders,
            machines,
            replication,
            replace_after_ms: *dice.pick(&[4_000, 20_000, u64::MAX / 4]).unwrap_or(&20_000),
            shards: dice.pick(&[1, 2, 2, 3, 3, 4, 5, 8]).copied().unwrap_or(1),
            clients: dice.between(2, 6) as usize,
            think_us_max: *dice.pick(&[20_000, 100_000, 400_000]).unwrap_or(&100_000),
            trouble_until_us: seconds.min(seconds_max.unwrap_or(u64::MAX)) * SECOND_US,
            fault_every_us: dice.between(300_000, 3_000_000),
            delay_us: (50, 50 + slowest_us),
            loss_per_mille,
            duplicate_per_mille,
            reorder_per_mille,
            sync_us: (80, *dice.pick(&[300, 2_000, 10_000]).unwrap_or(&300)),
            log_file_bytes: *dice.pick(&[16, 64, 256]).unwrap_or(&64) * 1024,
            checkpoint_pace: CheckpointPace {
                log_bytes_min: *dice.pick(&[1_000, 10_000, 100_000]).unwrap_or(&10_000),
                of_file_percent: *dice.pick(&[10, 30, 100]).unwrap_or(&30),
            },
            audit_every_ms: *dice.pick(&[2_000, 10_000, 1_000_000]).unwrap_or(&10_000),
            ledger_us_max: *dice.pick(&[1_000, 100_000, 3_000_000]).unwrap_or(&100_000),
            drift_ppm: (0..machines)
                .map(|_| dice.between(0, 100) as i64 - 50)
                .collect(),
            wall_offset_ms,
            committed_bytes_per_turn: *later.pick(&[200, 1_000, 1 << 20]).unwrap_or(&1_000),
            leftover_index: later.between(10, 400),
            faults: BTreeSet::new(),
        };
        Self {
            faults: faults.difference(without).copied().collect(),
            ..plan
        }
    }
}
