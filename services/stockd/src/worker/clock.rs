//! Cluster time: what leaders stamp on entries.
//!
//! Every replica keeps an estimate: cluster time as its leader last told it, with every message, plus the
//! time its own boot clock has counted since. A leader stamps by its own, slewed by at most 1 % toward
//! the median wall clock of the nodes, and never backwards. So a wall clock that steps by minutes moves
//! nothing, no hold ends before 99 % of its time to live, and a new leader goes on where the old one
//! stopped.
//!
//! Estimates lag behind each other, by as long as messages take. So each names the leader whose time it is
//! by his term, and is worth nothing to a replica that has an entry stamped by a later one: to go on
//! from it would end the holds of that entry early, by as much as the later one lagged.

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

/// Cluster time as the leader of a term has it, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterTime {
    /// Milliseconds since the Unix epoch, as stamps are.
    pub stamp: Stamp,
    /// The term of the leader.
    pub term: u64,
}

/// One group's cluster time.
#[derive(Debug, Default)]
pub struct ClusterClock {
    /// Of the last entry applied, and the term in which it was stamped: no stamp may be below it.
    floor: Stamp,
    floor_term: u64,
    /// What this replica stamped last, and the term that it led in. No stamp of the same term may be below it;
    /// in a later one it counts for nothing, since what it was put on may have been dropped.
    stamped: (Stamp, u64),
    /// A time, and the boot clock when it was now.
    estimate: Option<(ClusterTime, u64)>,
}

impl ClusterClock {
    /// An entry was applied, with the stamp of the leader of this term.
    pub fn applied(&mut self, stamp: Stamp, term: u64) {
        self.floor = self.floor.max(stamp);
        self.floor_term = self.floor_term.max(term);
    }

    /// The leader that this replica follows has told the time. Its own is the one that counts, whether it
    /// is ahead of this replica's or behind.
    pub fn led_by(&mut self, time: ClusterTime, now: Now) {
        self.estimate = Some((time, now.boot_ms));
    }

    /// Another replica has told this one, which leads in `term`, what it takes cluster time to be. `false` if
    /// that is the time of a leader before the one who stamped the last entry.
    pub fn told(&mut self, time: ClusterTime, term: u64, now: Now) -> bool {
        let is_new_enough = time.term >= self.floor_term;
        if is_new_enough && !self.knows() {
            let stamp = time.stamp.max(self.floor);
            self.estimate = Some((ClusterTime { stamp, term }, now.boot_ms));
        }
        is_new_enough
    }

    /// Nobody has told, and not everybody could be asked: time goes on from the last stamp. Holds last longer
    /// than they should, by as long as nobody led, and none ends early.
    pub fn go_on(&mut self, term: u64, now: Now) {
        if !self.knows() {
            let stamp = self.floor;
            self.estimate = Some((ClusterTime { stamp, term }, now.boot_ms));
        }
    }

    /// Whether this replica knows cluster time, or the group is so new that there is none yet.
    pub fn knows(&self) -> bool {
        self.floor == Stamp(0)
            || self
                .estimate
                .is_some_and(|(time, _)| time.term >= self.floor_term)
    }

    /// What this replica takes cluster time to be, however old that is.
    pub fn estimate(&self, now: Now) -> Option<ClusterTime> {
        let (ClusterTime { stamp, term }, at_boot_ms) = self.estimate?;
        let stamp = stamp.plus_ms(now.boot_ms.saturating_sub(at_boot_ms));
        Some(ClusterTime { stamp, term })
    }

    /// Cluster time, where this replica knows it.
    pub fn now(&self, now: Now) -> Option<Stamp> {
        let known = self.estimate(now).filter(|_| self.knows());
        known.map(|time| time.stamp)
    }

    /// The stamp for an entry that this leader, of `term`, is about to propose. Where it does not know the time,
    /// time jumps: the caller has made sure that nobody does.
    pub fn stamp(&mut self, term: u64, now: Now, median_ms: i64) -> Stamp {
        let known = self.knows();
        let stamp = match self.estimate.as_mut().filter(|_| known) {
            Some((time, at_boot_ms)) => {
                let elapsed = now.boot_ms.saturating_sub(*at_boot_ms) as i64;
                let steady = time.stamp.0 as i64 + elapsed;
                let slew = elapsed / SLEW;
                time.term = term;
                if slew == 0 {
                    // The base stays, so that fractions of a slew add up.
                    return self.never_back(Stamp(steady as u64), term);
                }
                let distance = median_ms - steady;
                Stamp((steady + distance.clamp(-slew, slew)) as u64)
            }
            // Nobody remembers: a full restart. Time jumps, forward only.
            None => Stamp(median_ms.max(0) as u64),
        };
        let stamp = self.never_back(stamp, term);
        self.estimate = Some((ClusterTime { stamp, term }, now.boot_ms));
        stamp
    }

    fn never_back(&mut self, stamp: Stamp, term: u64) -> Stamp {
        let (before, of_term) = self.stamped;
        let mut stamp = stamp.max(self.floor);
        if of_term == term {
            stamp = stamp.max(before);
        }
        self.stamped = (stamp, term);
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

    fn time(ms: u64, term: u64) -> ClusterTime {
        ClusterTime {
            stamp: Stamp(EPOCH + ms),
            term,
        }
    }

    /// Just started, with a log that ends with an entry of this term.
    fn started(term: u64) -> ClusterClock {
        let mut clock = ClusterClock::default();
        assert!(clock.knows(), "there is nothing to know yet");
        clock.applied(Stamp(EPOCH), term);
        assert!(!clock.knows());
        clock
    }

    #[test]
    fn a_full_restart_jumps_forward_to_the_median_and_never_back() {
        let stamped = started(3).stamp(4, at(5, 0), EPOCH as i64 + 60_000);
        assert_eq!(stamped, Stamp(EPOCH + 60_000));
        let stamped = started(3).stamp(4, at(5, 0), EPOCH as i64 - 60_000);
        assert_eq!(stamped, Stamp(EPOCH));
    }

    #[test]
    fn a_leader_that_does_not_know_the_time_is_told_once() {
        let mut clock = started(3);
        assert!(clock.told(time(700, 3), 4, at(30, 0)));
        assert!(clock.told(time(900, 3), 4, at(40, 0)));
        assert_eq!(clock.now(at(40, 0)), Some(Stamp(EPOCH + 710)));
        let stamped = clock.stamp(4, at(40, 0), EPOCH as i64 + 60_000);
        assert_eq!(stamped, Stamp(EPOCH + 710));
    }

    #[test]
    fn who_was_away_while_a_later_leader_stamped_does_not_tell_the_time() {
        let mut clock = started(3);
        assert!(!clock.told(time(700, 2), 4, at(30, 0)));
        assert!(!clock.knows());

        let mut back = ClusterClock::default();
        back.led_by(time(700, 2), at(0, 0));
        back.applied(Stamp(EPOCH), 2);
        assert_eq!(back.now(at(5, 0)), Some(Stamp(EPOCH + 705)));
        back.applied(Stamp(EPOCH + 10), 3);
        assert_eq!(back.now(at(5, 0)), None, "its leader was of term 2");
        assert_eq!(back.estimate(at(5, 0)), Some(time(705, 2)));
    }

    #[test]
    fn in_doubt_time_goes_on_from_the_last_stamp() {
        let mut clock = started(3);
        clock.go_on(4, at(5, 0));
        let stamped = clock.stamp(4, at(25, 0), EPOCH as i64 + 60_000);
        assert_eq!(stamped, Stamp(EPOCH + 20));
    }

    #[test]
    fn a_wall_clock_that_steps_moves_time_by_one_percent_at_most() {
        for step in [-300_000, 300_000] {
            let mut clock = ClusterClock::default();
            let start = clock.stamp(1, at(0, EPOCH), EPOCH as i64).0;
            let mut last = start;
            for boot_ms in (0..=60_000).step_by(50) {
                let median_ms = EPOCH as i64 + boot_ms as i64 + step;
                let stamp = clock.stamp(1, at(boot_ms, EPOCH), median_ms).0;
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
    fn a_follower_goes_on_from_what_its_leader_told_last() {
        let mut clock = started(3);
        clock.led_by(time(50, 3), at(100, 0));
        clock.led_by(time(0, 4), at(200, 0));
        assert_eq!(clock.now(at(400, 0)), Some(Stamp(EPOCH + 200)));
        let stamped = clock.stamp(5, at(400, 0), EPOCH as i64 + 200);
        assert_eq!(stamped, Stamp(EPOCH + 200));
    }

    #[test]
    fn what_was_stamped_and_dropped_does_not_count_for_a_later_term() {
        let mut clock = started(1);
        clock.led_by(time(0, 1), at(1_000, 0));
        // It leads, ahead of what others will go on from; none of its entries is ever committed.
        assert_eq!(
            clock.stamp(2, at(3_000, 0), EPOCH as i64 + 2_000),
            Stamp(EPOCH + 2_000)
        );
        clock.applied(Stamp(EPOCH + 500), 3);
        clock.led_by(time(500, 3), at(3_000, 0));
        let stamped = clock.stamp(4, at(3_005, 0), EPOCH as i64 + 505);
        assert_eq!(stamped, Stamp(EPOCH + 505));
        // In one term it never goes back.
        clock.led_by(time(100, 3), at(3_006, 0));
        assert_eq!(
            clock.stamp(4, at(3_006, 0), EPOCH as i64),
            Stamp(EPOCH + 505)
        );
    }
}
