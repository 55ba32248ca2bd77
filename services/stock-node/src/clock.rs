//! Cluster time: what leaders stamp on entries.
//!
//! Every replica keeps an estimate: cluster time as its leader last told it, with every message,
//! plus the time its own boot clock has counted since. A leader stamps by its own, slewed by at
//! most 1 % toward the median wall clock of the nodes, and never backwards. So a wall clock that
//! steps by minutes moves nothing, no hold ends before 99 % of its time to live, and a new leader
//! goes on where the old one stopped.
//!
//! After an outage the replicas that are back may have forgotten the time. Where a quorum has, it
//! goes on from the last entry by as long as the wall clocks say that it is since: each entry
//! carries what they showed beside the stamp, so that a distance between the two that was there
//! before neither ends holds early nor is lost. So does time whose leader is further behind the
//! wall clocks than callers' clocks are followed: its machine stood still through weeks.
//!
//! Estimates lag behind each other, by as long as messages take. So each names the leader whose
//! time it is by his term, and is worth nothing to a replica that has an entry stamped by a later
//! one: to go on from it would end the holds of that entry early, by as much as the later one
//! lagged.

use std::collections::BTreeMap;

use smallvec::SmallVec;
use stock_core::limits::{REQUEST_MEMORY_MS, WALL_AHEAD_MS_MAX};
use stock_core::{Moment, Stamp};

/// Time is slewed by at most one part in this many.
const SLEW: i64 = 100;

/// Cluster time this far from the median wall clock deserves an operator's attention.
pub const DISTANCE_MS_ALERT: i64 = 2_000;

/// By how much the later of two wall clocks is followed when callers' clocks are judged, and nobody
/// knows which of them is right. An id from so far ahead is older than an id of now by the time it
/// is forgotten.
const CLOCKS_APART_MS_MAX: i64 = REQUEST_MEMORY_MS as i64 - 60_000;

/// What was heard of a wall clock is behind it by as long as the message took: time that is gone on
/// with by such clocks is taken for so much less.
const HEARD_LATE_MS: i64 = 1_000;

/// A clock that is heard to be behind what it was is believed after so long: one message may have
/// taken long.
const BEHIND_FOR_MS: u64 = 1_000;

/// A clock of which nothing was believed for so long is not known any more: boot clocks, by which
/// it is remembered, drift apart by some parts in ten thousand, which makes a second of an hour and
/// minutes of an outage of weeks.
const KNOWN_FOR_MS: u64 = 3_600_000;

/// What the driver's clocks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since the machine booted, in milliseconds, sleep included (`CLOCK_BOOTTIME`).
    pub boot_ms: u64,
    /// Since the Unix epoch, in milliseconds, as far as this machine knows.
    pub wall_ms: u64,
}

/// What the wall clocks of the nodes show together, in milliseconds since the Unix epoch: their
/// median, and where their number is even, both that might be it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    /// Time follows this one: holds that end late are better than holds that end early.
    pub lower_ms: i64,
    /// Callers are judged by this one: not to believe a good clock would refuse all of them.
    pub upper_ms: i64,
}

/// The wall clocks of all nodes, as offsets from this node's boot clock.
#[derive(Debug, Default)]
pub struct WallClocks {
    peers: BTreeMap<u64, PeerClock>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
struct PeerClock {
    offset_ms: i64,
    /// When (boot clock) that was believed.
    heard_ms: u64,
    /// Since when (boot clock) all that is heard is behind that, and by how little.
    behind: Option<(u64, i64)>,
}

impl PeerClock {
    fn of(offset_ms: i64, now: Now) -> Self {
        Self {
            offset_ms,
            heard_ms: now.boot_ms,
            behind: None,
        }
    }

    fn is_known(&self, now: Now) -> bool {
        now.boot_ms.saturating_sub(self.heard_ms) <= KNOWN_FOR_MS
    }

    fn heard(&mut self, offset_ms: i64, now: Now) {
        if offset_ms >= self.offset_ms {
            *self = Self::of(offset_ms, now);
            return;
        }
        let (since, best) = self.behind.unwrap_or((now.boot_ms, offset_ms));
        let best = best.max(offset_ms);
        *self = match now.boot_ms.saturating_sub(since) >= BEHIND_FOR_MS {
            true => Self::of(best, now),
            false => Self {
                behind: Some((since, best)),
                ..*self
            },
        };
    }
}

impl WallClocks {
    /// A peer's wall clock, just received. Messages come late and never early, so the one that
    /// shows most is right.
    pub fn heard(&mut self, node: u64, wall_ms: u64, now: Now) {
        let offset_ms = wall_ms as i64 - now.boot_ms as i64;
        let first = PeerClock::of(offset_ms, now);
        let clock = self.peers.entry(node).or_insert(first);
        clock.heard(offset_ms, now);
    }

    /// The median of the wall clocks, this node's included, as of now. Clocks that are not known
    /// any more count for whichever of both ends is the safer: this node's own may be the one that
    /// is wrong.
    pub fn median(&self, now: Now) -> Walls {
        let own = now.wall_ms as i64 - now.boot_ms as i64;
        let all = self.peers.values();
        let known = all.clone().filter(|clock| clock.is_known(now));
        let known = median(known.map(|clock| clock.offset_ms).chain([own]));
        let all = median(all.map(|clock| clock.offset_ms).chain([own]));
        Walls {
            lower_ms: now.boot_ms as i64 + known.0.min(all.0),
            upper_ms: now.boot_ms as i64 + known.1.max(all.1),
        }
    }
}

/// The lower and the upper of the two in the middle.
fn median(offsets: impl Iterator<Item = i64>) -> (i64, i64) {
    let mut offsets: SmallVec<[i64; 8]> = offsets.collect();
    offsets.sort_unstable();
    (offsets[(offsets.len() - 1) / 2], offsets[offsets.len() / 2])
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
    floor: Moment,
    floor_term: u64,
    /// What this replica stamped last, and the term that it led in. No stamp of the same term may
    /// be below it; in a later one it counts for nothing, since what it was put on may have been
    /// dropped.
    stamped: (Stamp, u64),
    /// A time, and the boot clock when it was now.
    estimate: Option<(ClusterTime, u64)>,
}

impl ClusterClock {
    /// An entry was applied, stamped by the leader of this term.
    pub fn applied(&mut self, moment: Moment, term: u64) {
        self.floor = moment.after(self.floor);
        self.floor_term = self.floor_term.max(term);
    }

    /// The leader that this replica follows has told the time. Its own is the one that counts,
    /// whether it is ahead of this replica's or behind.
    pub fn led_by(&mut self, time: ClusterTime, now: Now) {
        self.estimate = Some((time, now.boot_ms));
    }

    /// Another replica has told this one, which leads in `term`, what it takes cluster time to be.
    /// `false` if that is the time of a leader before the one who stamped the last entry.
    pub fn told(&mut self, time: ClusterTime, term: u64, now: Now) -> bool {
        let is_new_enough = time.term >= self.floor_term;
        if is_new_enough && !self.knows() {
            let stamp = time.stamp.max(self.floor.stamp);
            self.estimate = Some((ClusterTime { stamp, term }, now.boot_ms));
        }
        is_new_enough
    }

    /// Whether this replica knows cluster time, or the group is so new that there is none yet.
    pub fn knows(&self) -> bool {
        self.floor.stamp == Stamp(0)
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

    /// What an entry says of time that this leader, of `term`, is about to propose. Where it does
    /// not know the time, it jumps: the caller has made sure that a quorum has forgotten it.
    pub fn stamp(&mut self, term: u64, now: Now, walls: Walls) -> Moment {
        let stamp = self.next_stamp(term, now, walls);
        // While there are two clocks that might be right, and one of them is mad, an id from its
        // future would, once it is forgotten, make all others look old.
        let believable_ms = walls.lower_ms.max(stamp.0 as i64) + CLOCKS_APART_MS_MAX;
        let wall = Stamp(walls.upper_ms.clamp(0, believable_ms.max(0)) as u64);
        Moment { stamp, wall }
    }

    fn next_stamp(&mut self, term: u64, now: Now, walls: Walls) -> Stamp {
        let known = self.knows();
        let stood_still = self.stood_still(now, walls);
        let gone_on = self.gone_on(walls);
        let stamp = match self.estimate.as_mut().filter(|_| known) {
            Some((time, at_boot_ms)) => {
                let elapsed = now.boot_ms.saturating_sub(*at_boot_ms) as i64;
                let steady = time.stamp.0 as i64 + elapsed;
                let slew = elapsed / SLEW;
                time.term = term;
                if stood_still && gone_on.0 as i64 > steady {
                    gone_on
                } else if slew == 0 {
                    // The base stays, so that fractions of a slew add up.
                    return self.never_back(Stamp(steady as u64), term);
                } else {
                    let distance = walls.lower_ms - steady;
                    Stamp((steady + distance.clamp(-slew, slew)) as u64)
                }
            }
            None => gone_on,
        };
        let stamp = self.never_back(stamp, term);
        self.estimate = Some((ClusterTime { stamp, term }, now.boot_ms));
        stamp
    }

    /// Whether this machine must have been stopped, its boot clock and all, while the others'
    /// clocks went on: its time is so far behind them that callers whose clocks are right would
    /// be refused, and at one percent they would be for years.
    fn stood_still(&self, now: Now, walls: Walls) -> bool {
        let behind = |time: ClusterTime| walls.lower_ms.saturating_sub(time.stamp.0 as i64);
        self.estimate(now)
            .is_some_and(|time| behind(time) > WALL_AHEAD_MS_MAX as i64)
    }

    /// The last stamp, and as much as the wall clocks have gone on since; not past what they show,
    /// since the clocks that were seen then may not be those that are seen now. Forward only.
    fn gone_on(&self, walls: Walls) -> Stamp {
        let Moment { stamp, wall } = self.floor;
        let since_ms = walls.lower_ms.saturating_sub(wall.0 as i64) - HEARD_LATE_MS;
        let gone_on_ms = (stamp.0 as i64).saturating_add(since_ms);
        stamp.max(Stamp(gone_on_ms.min(walls.lower_ms).max(0) as u64))
    }

    fn never_back(&mut self, stamp: Stamp, term: u64) -> Stamp {
        let (before, of_term) = self.stamped;
        let mut stamp = stamp.max(self.floor.stamp);
        if of_term == term {
            stamp = stamp.max(before);
        }
        self.stamped = (stamp, term);
        stamp
    }

    /// How far cluster time is from the median wall clock, in milliseconds, where it is known.
    pub fn distance_ms(&self, now: Now, walls: Walls) -> Option<i64> {
        self.now(now).map(|stamp| stamp.0 as i64 - walls.lower_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_790_000_000_000;

    fn at(boot_ms: u64, wall_ms: u64) -> Now {
        Now { boot_ms, wall_ms }
    }

    /// All clocks on the walls show this long after the epoch.
    fn walls(ms: i64) -> Walls {
        two_walls(ms, ms)
    }

    fn two_walls(lower_ms: i64, upper_ms: i64) -> Walls {
        Walls {
            lower_ms: EPOCH as i64 + lower_ms,
            upper_ms: EPOCH as i64 + upper_ms,
        }
    }

    fn stamp(ms: u64) -> Stamp {
        Stamp(EPOCH + ms)
    }

    fn time(ms: u64, term: u64) -> ClusterTime {
        let stamp = stamp(ms);
        ClusterTime { stamp, term }
    }

    /// An entry is stamped now, and the wall clocks show this long after the epoch.
    fn moment(ms: u64, wall_ms: u64) -> Moment {
        Moment {
            stamp: stamp(ms),
            wall: stamp(wall_ms),
        }
    }

    /// Just started, with a log that ends with an entry of this term.
    fn started(term: u64) -> ClusterClock {
        started_after(moment(0, 0), term)
    }

    fn started_after(last: Moment, term: u64) -> ClusterClock {
        let mut clock = ClusterClock::default();
        assert!(clock.knows(), "there is nothing to know yet");
        clock.applied(last, term);
        assert!(!clock.knows());
        clock
    }

    #[test]
    fn clocks_that_were_heard_before_an_outage_are_not_known_after_it() {
        let at = |boot_ms, wall_ms| Now {
            boot_ms,
            wall_ms: EPOCH + wall_ms,
        };
        let mut clocks = WallClocks::default();
        for node in [2, 3] {
            clocks.heard(node, EPOCH, at(0, 0));
        }
        // The peers are down, and this node's boot clock has lost two minutes in a month.
        let month = 30 * 24 * 3_600_000;
        let later = at(month - 120_000, month);
        assert_eq!(clocks.median(later).upper_ms, (EPOCH + month) as i64);
        // Time does not follow them where that could end holds early, and if it is this node's
        // clock that is two minutes late they are as good as they were.
        assert_eq!(
            clocks.median(later).lower_ms,
            (EPOCH + month - 120_000) as i64
        );
        let late = at(month, month - 120_000);
        assert_eq!(clocks.median(late).upper_ms, (EPOCH + month) as i64);
        // Whoever is heard again is believed at once.
        for node in [2, 3] {
            clocks.heard(node, EPOCH + month - 5, later);
        }
        assert_eq!(clocks.median(later).lower_ms, (EPOCH + month - 5) as i64);
    }

    #[test]
    fn who_has_forgotten_goes_on_by_the_wall_clocks_and_never_back() {
        for (wall_ms, expected) in [(70_000, 69_000), (10_800_000, 10_799_000), (-60_000, 0)] {
            let stamped = started(3).stamp(4, at(5, 0), walls(wall_ms));
            assert_eq!(stamped.stamp, stamp(expected));
        }
    }

    #[test]
    fn a_distance_that_was_there_before_the_outage_ends_no_hold_early() {
        // A minute behind the wall clocks, as they had been set: so it is after an hour.
        let stamped = started_after(moment(0, 60_000), 3).stamp(4, at(5, 0), walls(3_660_000));
        assert_eq!(stamped, moment(3_599_000, 3_660_000));
        // Ahead of them: holds may last longer, by no more than the outage.
        let stamped = started_after(moment(60_000, 0), 3).stamp(4, at(5, 0), walls(30_000));
        assert_eq!(stamped, moment(60_000, 30_000));
    }

    #[test]
    fn other_clocks_than_before_are_no_reason_to_jump_too_far() {
        // Before, one that was five minutes slow was in the middle; now it is not there.
        let last = Moment {
            stamp: stamp(0),
            wall: Stamp(EPOCH - 300_000),
        };
        let stamped = started_after(last, 3).stamp(4, at(5, 0), walls(10_000));
        assert_eq!(stamped, moment(10_000, 10_000));
    }

    #[test]
    fn of_two_clocks_time_follows_the_slower_and_callers_are_judged_by_the_faster() {
        let stamped = started(3).stamp(4, at(5, 0), two_walls(-290_000, 10_000));
        assert_eq!(stamped, moment(0, 10_000));
        // Not by one that is mad.
        let stamped = started(3).stamp(4, at(5, 0), two_walls(10_000, 86_400_000));
        assert_eq!(stamped, moment(9_000, 10_000 + CLOCKS_APART_MS_MAX as u64));
    }

    #[test]
    fn a_leader_whose_machine_stood_still_through_weeks_goes_on_by_the_wall_clocks() {
        const DAY_MS: u64 = 24 * 3_600_000;
        for (days, expected) in [(44, 5), (58, 58 * DAY_MS - 1_000)] {
            let mut clock = ClusterClock::default();
            clock.applied(moment(0, 0), 1);
            clock.led_by(time(0, 1), at(0, EPOCH));
            // Its boot clock has seen nothing of it, and the others' wall clocks have.
            let stamped = clock.stamp(1, at(5, EPOCH), walls((days * DAY_MS) as i64));
            assert_eq!(stamped.stamp, stamp(expected), "{days} days");
            let stamped = clock.stamp(1, at(9, EPOCH), walls((days * DAY_MS) as i64 + 4));
            assert_eq!(stamped.stamp, stamp(expected + 4), "{days} days");
        }
    }

    #[test]
    fn a_time_that_was_behind_by_weeks_before_does_not_stand_still() {
        const FAR: u64 = 60 * 24 * 3_600_000;
        let mut clock = ClusterClock::default();
        clock.applied(moment(0, FAR), 1);
        clock.led_by(time(0, 1), at(0, EPOCH));
        for boot_ms in (5..100).step_by(5) {
            let stamped = clock.stamp(2, at(boot_ms, EPOCH), walls((FAR + boot_ms) as i64));
            assert_eq!(stamped.stamp, stamp(boot_ms));
            clock.applied(stamped, 2);
        }
    }

    #[test]
    fn a_leader_that_does_not_know_the_time_is_told_once() {
        let mut clock = started(3);
        assert!(clock.told(time(700, 3), 4, at(30, 0)));
        assert!(clock.told(time(900, 3), 4, at(40, 0)));
        assert_eq!(clock.now(at(40, 0)), Some(stamp(710)));
        let stamped = clock.stamp(4, at(40, 0), walls(60_000));
        assert_eq!(stamped, moment(710, 60_000));
    }

    #[test]
    fn who_was_away_while_a_later_leader_stamped_does_not_tell_the_time() {
        let mut clock = started(3);
        assert!(!clock.told(time(700, 2), 4, at(30, 0)));
        assert!(!clock.knows());

        let mut back = ClusterClock::default();
        back.led_by(time(700, 2), at(0, 0));
        back.applied(moment(0, 0), 2);
        assert_eq!(back.now(at(5, 0)), Some(stamp(705)));
        back.applied(moment(10, 10), 3);
        assert_eq!(back.now(at(5, 0)), None, "its leader was of term 2");
        assert_eq!(back.estimate(at(5, 0)), Some(time(705, 2)));
    }

    #[test]
    fn a_wall_clock_that_steps_moves_time_by_one_percent_at_most() {
        for step in [-300_000, 300_000] {
            let mut clock = ClusterClock::default();
            let start = clock.stamp(1, at(0, EPOCH), walls(0)).stamp.0;
            let mut last = start;
            for boot_ms in (0..=60_000).step_by(50) {
                let walls = walls(boot_ms as i64 + step);
                let stamp = clock.stamp(1, at(boot_ms, EPOCH), walls).stamp.0;
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
        assert_eq!(clocks.median(now), walls(0));
        clocks.heard(3, EPOCH + 300_000, now);
        assert_eq!(clocks.median(now), two_walls(0, 300_000));
        clocks.heard(2, EPOCH + 3, now);
        assert_eq!(clocks.median(now), walls(3));
        assert_eq!(clocks.median(at(2_000, EPOCH + 1_000)), walls(1_003));
    }

    #[test]
    fn a_message_that_took_long_moves_no_clock() {
        let mut clocks = WallClocks::default();
        let heard = |clocks: &mut WallClocks, ms: u64, boot_ms: u64| {
            let now = at(boot_ms, EPOCH + boot_ms);
            clocks.heard(2, EPOCH + ms, now);
            clocks.heard(3, EPOCH + ms, now);
            clocks.median(now).lower_ms - EPOCH as i64 - boot_ms as i64
        };
        assert_eq!(heard(&mut clocks, 0, 0), 0);
        // All machines slept for hours, and what was under way arrives first.
        assert_eq!(heard(&mut clocks, 5, 7_200_000), 0);
        assert_eq!(heard(&mut clocks, 7_200_002, 7_200_002), 0);
        // A clock that was put back is believed in the end.
        assert_eq!(heard(&mut clocks, 7_140_000, 7_200_100), 0);
        assert_eq!(heard(&mut clocks, 7_140_950, 7_201_050), 0);
        assert_eq!(heard(&mut clocks, 7_141_000, 7_201_101), -60_100);
    }

    #[test]
    fn a_follower_goes_on_from_what_its_leader_told_last() {
        let mut clock = started(3);
        clock.led_by(time(50, 3), at(100, 0));
        clock.led_by(time(0, 4), at(200, 0));
        assert_eq!(clock.now(at(400, 0)), Some(stamp(200)));
        let stamped = clock.stamp(5, at(400, 0), walls(200));
        assert_eq!(stamped, moment(200, 200));
    }

    #[test]
    fn what_was_stamped_and_dropped_does_not_count_for_a_later_term() {
        let mut clock = started(1);
        clock.led_by(time(0, 1), at(1_000, 0));
        // It leads, ahead of what others will go on from; none of its entries is ever committed.
        let stamped = clock.stamp(2, at(3_000, 0), walls(2_000));
        assert_eq!(stamped, moment(2_000, 2_000));
        clock.applied(moment(500, 500), 3);
        clock.led_by(time(500, 3), at(3_000, 0));
        let stamped = clock.stamp(4, at(3_005, 0), walls(505));
        assert_eq!(stamped, moment(505, 505));
        // In one term it never goes back.
        clock.led_by(time(100, 3), at(3_006, 0));
        let stamped = clock.stamp(4, at(3_006, 0), walls(0));
        assert_eq!(stamped.stamp, stamp(505));
    }
}
