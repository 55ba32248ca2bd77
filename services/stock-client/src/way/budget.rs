//! How often calls may be tried again, all of a client together.

use std::time::Duration;

/// Repeats that may come at once.
const BURST: f64 = 1_000.0;

/// Repeats a second that may go on coming, however little is answered: enough to find a cluster
/// that comes back, too few to keep one down.
const PER_SECOND: f64 = 200.0;

/// What each answer adds: a tenth of the calls may be tried again.
const PER_ANSWER: f64 = 0.1;

/// Tokens, of which each repeat takes one. Whoever finds none waits until its own has come.
#[derive(Debug)]
pub struct Budget {
    /// Below 0 where some wait.
    tokens: f64,
    at: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            tokens: BURST,
            at: Duration::ZERO,
        }
    }
}

impl Budget {
    /// A call was answered.
    pub fn answered(&mut self) {
        self.tokens = (self.tokens + PER_ANSWER).min(BURST);
    }

    /// A token for a repeat: how long to wait until it is there. None where that is longer than
    /// what is left of the call's time, and then none is taken.
    pub fn take(&mut self, now: Duration, left: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * PER_SECOND).min(BURST);
        let missing = (1.0 - self.tokens).max(0.0);
        let wait = Duration::from_secs_f64(missing / PER_SECOND);
        if wait > left {
            return None;
        }
        self.tokens -= 1.0;
        Some(wait)
    }

    /// One that was taken was not needed.
    pub fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(BURST);
    }

    /// A token for what can also be left: an attempt beside one that is under way.
    pub fn take_if_there(&mut self, now: Duration) -> bool {
        self.take(now, Duration::ZERO).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_repeats_is_stretched_and_answers_let_more_through() {
        let mut budget = Budget::default();
        let minute = Duration::from_secs(60);
        for _ in 0..1_000 {
            assert_eq!(budget.take(Duration::ZERO, minute), Some(Duration::ZERO));
        }
        let waits: Vec<_> = (0..400)
            .filter_map(|_| budget.take(Duration::ZERO, minute))
            .collect();
        assert_eq!(waits[0], Duration::from_millis(5));
        assert_eq!(waits[399], Duration::from_secs(2));
        assert!(!budget.take_if_there(Duration::from_secs(1)));
        for _ in 0..5_000 {
            budget.answered();
        }
        assert!(budget.take_if_there(Duration::from_secs(1)));
    }

    #[test]
    fn who_cannot_wait_takes_none() {
        let mut budget = Budget::default();
        while budget.take_if_there(Duration::ZERO) {}
        for _ in 0..100 {
            assert_eq!(budget.take(Duration::ZERO, Duration::from_millis(4)), None);
        }
        let soon = Duration::from_millis(5);
        assert_eq!(budget.take(Duration::ZERO, soon), Some(soon));
        budget.give_back();
        assert_eq!(budget.take(Duration::ZERO, soon), Some(soon));
    }
}
