//! The clocks of one machine, as functions of true time.

use stock_node::clock::Now;

/// True time zero, in milliseconds since the Unix epoch.
pub(crate) const EPOCH_MS: u64 = 1_790_000_000_000;

/// A machine's quartz and what it was set to.
#[derive(Debug, Clone)]
pub(crate) struct MachineClock {
    /// The quartz runs too fast by so many parts in a million.
    drift_ppm: i64,
    /// When the machine was switched on, in microseconds of true time.
    switched_on_us: u64,
    /// How far the wall clock is from the truth at time zero, and since it was last disciplined.
    wall_offset_ms: i64,
    /// What the quartz had counted too much by then.
    disciplined_ms: i64,
}

impl MachineClock {
    /// Of a machine that was switched on some time before true time zero.
    pub(crate) fn new(drift_ppm: i64, wall_offset_ms: i64) -> Self {
        Self {
            drift_ppm,
            switched_on_us: 0,
            wall_offset_ms,
            disciplined_ms: 0,
        }
    }

    /// What the clocks show.
    pub(crate) fn now(&self, true_us: u64) -> Now {
        let since_boot_us = self.counted(true_us - self.switched_on_us);
        let counted_ms = self.counted(true_us) as i64 / 1_000 - self.disciplined_ms;
        let wall_ms = EPOCH_MS as i64 + counted_ms + self.wall_offset_ms;
        Now {
            boot_ms: since_boot_us / 1_000,
            wall_ms: wall_ms as u64,
        }
    }

    /// The first moment at which the boot clock shows this.
    pub(crate) fn true_us_at_boot_ms(&self, boot_ms: u64) -> u64 {
        let mut at = self.switched_on_us
            + (boot_ms as i128 * 1_000 * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm)))
                as u64;
        while self.now(at).boot_ms < boot_ms {
            at += 1;
        }
        at
    }

    /// The machine was switched off and on: its boot clock begins at zero again.
    pub(crate) fn switch_on(&mut self, true_us: u64) {
        self.switched_on_us = true_us;
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set_wall_offset_ms(&mut self, wall_offset_ms: i64) {
        self.wall_offset_ms = wall_offset_ms;
    }

    /// What the quartz has gone wrong so far is taken out of the wall clock, as NTP does all the
    /// time.
    pub(crate) fn discipline(&mut self, true_us: u64) {
        self.disciplined_ms = (self.counted(true_us) as i64 - true_us as i64) / 1_000;
    }

    fn counted(&self, true_us: u64) -> u64 {
        (i128::from(true_us) * (1_000_000 + i128::from(self.drift_ppm)) / 1_000_000) as u64
    }
}
