//! Which resets are a flood.
//!
//! A caller whose deadline has come resets its call, and a channel of a shop carries thousands of
//! calls: after a node stood still for a moment, calls and their resets are read in one go, and it
//! looks as if nobody had waited. A flood of resets looks the same, but goes on. So a connection
//! may reset many calls at once, saved up over time, and few a second for long; calls that were
//! given up after a while count for nothing, since each of them had its place among those that a
//! connection may have under way, like any other call.

use std::time::{Duration, Instant};

/// Calls of one connection that may be reset at once: what a stall of six seconds at 5,000 calls a
/// second leaves.
const AT_ONCE_MAX: u64 = 32_768;

/// And so many a second more, for as long as the connection lives.
const PER_SECOND: u64 = 1_000;

/// Whoever gave up a call after so long had waited for it.
pub(super) const WAITED: Duration = Duration::from_millis(20);

/// How many resets a connection has left.
#[derive(Debug)]
pub(super) struct Resets {
    left: u64,
    refilled_at: Instant,
}

impl Resets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: AT_ONCE_MAX,
            refilled_at: now,
        }
    }

    /// So many calls were reset. `false` if those were more than a connection may.
    pub(super) fn take(&mut self, resets: u64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let earned = elapsed.as_millis() as u64 * PER_SECOND / 1_000;
        if earned > 0 {
            self.refilled_at = now;
            self.left = (self.left + earned).min(AT_ONCE_MAX);
        }
        let is_allowed = resets <= self.left;
        self.left = self.left.saturating_sub(resets);
        is_allowed
    }

    /// One of them was waited for.
    pub(super) fn give_back(&mut self) {
        self.left = (self.left + 1).min(AT_ONCE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_forgiven_and_a_flood_is_not() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut resets = Resets::new(began);
        assert!(resets.take(25_000, at(5_000)), "five seconds at 5,000/s");
        assert!(resets.take(25_000, at(40_000)), "and once more later");

        let mut resets = Resets::new(began);
        let ended = (0..60_000).find(|ms| !resets.take(10, at(*ms)));
        assert!(ended.is_some_and(|ms| ms < 5_000), "10,000/s: {ended:?}");
    }

    #[test]
    fn who_waited_is_never_a_flood() {
        let began = Instant::now();
        let mut resets = Resets::new(began);
        for ms in 0..60_000 {
            assert!(resets.take(10, began + Duration::from_millis(ms)));
            (0..10).for_each(|_| resets.give_back());
        }
    }
}
