//! How a node ends, and that it comes back.

use stock_storage::LogError;
use stockd::host::HostError;

use super::checks::{Checked, broken};
use super::disk::Ending;
use super::faults::FaultKind;
use super::machine::Stop;
use super::plan::SECOND_US;
use super::world::{Chapter, Happening, World};

impl World {
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
        // Who has lost its power closes nothing.
        if ending == Ending::Killed {
            self.break_calls(node);
        }
        self.expect_boot(node);
    }

    /// A node will be started again.
    pub(crate) fn expect_boot(&mut self, node: u64) {
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
        } else if machine.disk.is_damaged() && is_of_the_log(&stop) {
            // What cannot be salvaged, or was damaged too often.
            machine.is_gone = true;
            self.tally.add("nodes lost to damage");
            self.die_or_reboot(node, Ending::Killed);
            self.expect_new_disk(node);
        } else if self.was_too_old(node, &stop) {
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

    /// A node that has refused its disk gets an empty one.
    fn expect_new_disk(&mut self, node: u64) {
        let after_us = match self.chapter {
            Chapter::Trouble => self.fate.between(SECOND_US / 2, 6 * SECOND_US),
            _ => 1_000,
        };
        self.after(after_us, Happening::NewDisk(node));
    }

    /// Somebody puts an empty disk into a node that has lost its own.
    pub(crate) fn new_disk(&mut self, node: u64) {
        if !self.machines.get(&node).is_some_and(|it| it.is_gone) {
            return;
        }
        self.put_empty_disk_in(node);
        self.untrusted.insert(node);
        self.tally.add("damaged nodes emptied");
        self.expect_boot(node);
    }
}

/// Whether a node ended because it cannot use its log: damage is no reason to panic, or for any
/// other error.
fn is_of_the_log(stop: &Stop) -> bool {
    let Stop::Stopped(HostError::Log(error)) = stop else {
        return false;
    };
    matches!(
        error,
        LogError::Damaged { .. } | LogError::DamagedAgain { .. }
    )
}
