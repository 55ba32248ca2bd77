//! Cluster time: what leaders stamp on entries.
//!
//! Every replica keeps an estimate: the last stamp plus the time its own boot clock has counted since.
//! A leader stamps by it, slewed by at most 1 % toward the median wall clock of the nodes, and never
//! backwards. So a wall clock that steps by minutes moves nothing, no hold ends before 99 % of its
//! time to live, and a new leader goes on where the old one stopped.

use std::collections::BTreeMap;

use stock_core::Stamp;

/// Time is slewed by at most one part in this many.
const SLEW: i64 = 100;

/// Cluster time this far from the median wall clock deserves an operator's attention.
pub const DISTANCE_MS_ALERT: i64 = 2_000;

/// What the driver's clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since the machine booted, in milliseconds, sleep included (`CLOCK_BOOTTIME`).
    pub boot_ms: u64,
    /// Since the Unix epoch, in milliseconds, as far as this machine knows.
    pub wall_ms: u64,
}

/// The wall clocks of all nodes, as offsets from this node's boot clock.
#[derive(Debug, Default)]
pub struct WallClocks {
    peers: BTreeMap<u64, i64>,
}

impl WallClocks {
    /// A peer's wall clock, just received.
    pub fn heard(&mut self, node: u64, wall_ms: u64, now: Now) {
        self.peers.insert(node, wall_ms as i64 - now.boot_ms as i64);
    }

    /// The median of all known wall clocks, this node's included, as of now. The lower of two.
    pub fn median_ms(&self, now: Now) -> i64 {
        let own = now.wall_ms as i64 - now.boot_ms as i64;
        let mut offsets: Vec<i64> = self.peers.values().copied().chain([own]).collect();
        offsets.sort_unstable();
        now.boot_ms as i64 + offsets[(offsets.len() - 1) / 2]
    }
}

/// One group's cluster time.
#[derive(Debug, Default)]
pub struct ClusterClock {
    /// No stamp may be below it.
    floor: Stamp,
    /// A stamp, and the boot clock when it was now.
    estimate: Option<(Stamp, u64)>,
}

impl ClusterClock {
    /// An entry was applied that was written some time ago, nobody knows when.
    pub fn replayed(&mut self, stamp: Stamp) {
        self.floor = self.floor.max(stamp);
    }

    /// An entry was applied that the present leader stamped just now. A leader's own stamps teach it
    /// nothing.
    pub fn observed(&mut self, stamp: Stamp, now: Now) {
        if stamp > self.floor || self.estimate.is_none() {
            self.floor = self.floor.max(stamp);
            self.estimate = Some((self.floor, now.boot_ms));
        }
    }

    /// Another replica has told what it takes cluster time to be. Who knows it needs no telling.
    pub fn told(&mut self, stamp: Stamp, now: Now) {
        if !self.knows() {
            self.estimate = Some((stamp.max(self.floor), now.boot_ms));
        }
    }

    /// Nobody has told, and not everybody could be asked: time goes on from the last stamp. Holds last longer
    /// than they should, by as long as nobody led, and none ends early.
    pub fn go_on(&mut self, now: Now) {
        if !self.knows() {
            self.estimate = Some((self.floor, now.boot_ms));
        }
    }

    /// Whether this replica knows cluster time, or the group is so new that there is none yet.
    pub fn knows(&self) -> bool {
        self.estimate.is_some() || self.floor == Stamp(0)
    }

    /// Cluster time, where this replica has an estimate.
    pub fn now(&self, now: Now) -> Option<Stamp> {
        let (stamp, at_boot_ms) = self.estimate?;
        Some(stamp.plus_ms(now.boot_ms.saturating_sub(at_boot_ms)))
    }

    /// The stamp for an entry that this leader is about to propose. Without an estimate, time jumps: the
    /// caller has made sure that nobody has one.
    pub fn stamp(&mut self, now: Now, median_ms: i64) -> Stamp {
        let stamp = match self.estimate {
            Some((last, at_boot_ms)) => {
                let elapsed = now.boot_ms.saturating_sub(at_boot_ms) as i64;
                let steady = last.0 as i64 + elapsed;
                let slew = elapsed / SLEW;
                if slew == 0 {
                    // The base stays, so that fractions of a slew add up.
                    self.floor = self.floor.max(Stamp(steady as u64));
                    return self.floor;
                }
                let distance = median_ms - steady;
                Stamp((steady + distance.clamp(-slew, slew)) as u64)
            }
            // Nobody remembers: a full restart. Time jumps, forward only.
            None => Stamp(median_ms.max(0) as u64),
        };
        let stamp = stamp.max(self.floor);
        self.floor = stamp;
        self.estimate = Some((stamp, now.boot_ms));
        stamp
    }

    /// How far cluster time is from the median wall clock, in milliseconds, where it is known.
    pub fn distance_ms(&self, now: Now, median_ms: i64) -> Option<i64> {
        self.now(now).map(|stamp| stamp.0 as i64 - median_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_790_000_000_000;

    fn at(boot_ms: u64, wall_ms: u64) -> Now {
        Now { boot_ms, wall_ms }
    }

    #[test]
    fn a_full_restart_jumps_forward_to_the_median_and_never_back() {
        let mut clock = ClusterClock::default();
        clock.replayed(Stamp(EPOCH));
        let stamped = clock.stamp(at(5, 0), EPOCH as i64 + 60_000);
        assert_eq!(stamped, Stamp(EPOCH + 60_000));

        let mut behind = ClusterClock::default();
        behind.replayed(Stamp(EPOCH));
        let stamped = behind.stamp(at(5, 0), EPOCH as i64 - 60_000);
        assert_eq!(stamped, Stamp(EPOCH));
    }

    #[test]
    fn who_does_not_know_the_time_is_told_once() {
        let mut clock = ClusterClock::default();
        assert!(clock.knows(), "there is nothing to know yet");
        clock.replayed(Stamp(EPOCH));
        assert!(!clock.knows());
        clock.told(Stamp(EPOCH + 700), at(30, 0));
        clock.told(Stamp(EPOCH + 900), at(40, 0));
        assert_eq!(clock.now(at(40, 0)), Some(Stamp(EPOCH + 710)));
        let stamped = clock.stamp(at(40, 0), EPOCH as i64 + 60_000);
        assert_eq!(stamped, Stamp(EPOCH + 710));
    }

    #[test]
    fn in_doubt_time_goes_on_from_the_last_stamp() {
        let mut clock = ClusterClock::default();
        clock.replayed(Stamp(EPOCH));
        clock.go_on(at(5, 0));
        let stamped = clock.stamp(at(25, 0), EPOCH as i64 + 60_000);
        assert_eq!(stamped, Stamp(EPOCH + 20));
    }

    #[test]
    fn a_wall_clock_that_steps_moves_time_by_one_percent_at_most() {
        for step in [-300_000, 300_000] {
            let mut clock = ClusterClock::default();
            let start = clock.stamp(at(0, EPOCH), EPOCH as i64).0;
            let mut last = start;
            for boot_ms in (0..=60_000).step_by(50) {
                let median_ms = EPOCH as i64 + boot_ms as i64 + step;
                let stamp = clock.stamp(at(boot_ms, EPOCH), median_ms).0;
                assert!(stamp >= last);
                last = stamp;
            }
            let elapsed = last - start;
            assert!((59_400..=60_600).contains(&elapsed), "{step}: {elapsed}");
            assert_ne!(elapsed, 60_000, "slewed, if slowly");
        }
    }

    #[test]
    fn the_median_ignores_one_wrong_clock() {
        let mut clocks = WallClocks::default();
        let now = at(1_000, EPOCH);
        clocks.heard(2, EPOCH + 3, now);
        clocks.heard(3, EPOCH + 300_000, now);
        assert_eq!(clocks.median_ms(now), EPOCH as i64 + 3);
        assert_eq!(
            clocks.median_ms(at(2_000, EPOCH + 1_000)),
            EPOCH as i64 + 1_003
        );
    }

    #[test]
    fn a_follower_goes_on_from_the_last_stamp() {
        let mut clock = ClusterClock::default();
        clock.observed(Stamp(EPOCH), at(100, 0));
        clock.observed(Stamp(EPOCH - 50), at(200, 0));
        assert_eq!(clock.now(at(400, 0)), Some(Stamp(EPOCH + 300)));
        let stamped = clock.stamp(at(400, 0), EPOCH as i64 + 300);
        assert_eq!(stamped, Stamp(EPOCH + 300));
    }
}
