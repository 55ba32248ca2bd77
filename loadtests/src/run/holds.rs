//! Holds that are open: the oldest is the next that somebody pays for or gives back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::shop::Hold;
use stock_tally::Tally;

/// A hold of which so much of its time has passed is touched no more: what was sent for it might
/// come too late. It is left to expire.
const AGE_MAX: f64 = 0.5;

pub(crate) struct Holds {
    held: VecDeque<Hold>,
    confirmed: VecDeque<Hold>,
    ttl: Duration,
    /// When the last of those ends that were left to.
    expired_at: Option<Instant>,
    pub(crate) left_to_expire: u64,
}

impl Holds {
    pub(crate) fn new(ttl: Duration) -> Holds {
        Holds {
            held: VecDeque::new(),
            confirmed: VecDeque::new(),
            ttl,
            expired_at: None,
            left_to_expire: 0,
        }
    }

    pub(crate) fn add_held(&mut self, hold: Hold, tally: &mut Tally) {
        self.held.push_back(hold);
        self.let_go(tally);
    }

    pub(crate) fn add_confirmed(&mut self, hold: Hold) {
        self.confirmed.push_back(hold);
    }

    pub(crate) fn take_held(&mut self, tally: &mut Tally) -> Option<Hold> {
        self.let_go(tally);
        self.held.pop_front()
    }

    pub(crate) fn take_confirmed(&mut self) -> Option<Hold> {
        self.confirmed.pop_front()
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn confirmed(&self) -> usize {
        self.confirmed.len()
    }

    /// How long until the last of those has ended that were left to.
    pub(crate) fn last_ends_in(&self) -> Option<Duration> {
        let at = self.expired_at?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    fn let_go(&mut self, tally: &mut Tally) {
        let age_max = self.ttl.mul_f64(AGE_MAX);
        let is_old = |hold: &Hold| hold.since.elapsed() > age_max;
        while self.held.front().is_some_and(is_old) {
            let Some(hold) = self.held.pop_front() else {
                return;
            };
            tally.given_back(&hold.lines);
            self.left_to_expire += 1;
            // Its answer may have come late; it was asked for before that.
            self.expired_at = Some(Instant::now() + self.ttl);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stock_tally::OrderLine;

    fn hold(id: &str) -> Hold {
        Hold {
            id: id.to_owned(),
            lines: vec![OrderLine {
                position: 0,
                quantity: 2,
            }],
            since: Instant::now(),
        }
    }

    fn reserved(tally: &Tally) -> i64 {
        tally.total().reserved
    }

    #[test]
    fn the_oldest_hold_is_taken_first() {
        let (mut holds, mut tally) = (Holds::new(Duration::from_secs(3_600)), Tally::new(1));
        for id in ["first", "second"] {
            holds.add_held(hold(id), &mut tally);
        }
        let taken = holds.take_held(&mut tally).map(|hold| hold.id);
        assert_eq!(taken.as_deref(), Some("first"));
        assert_eq!((holds.held(), holds.left_to_expire), (1, 0));
        assert_eq!(holds.last_ends_in(), None);
    }

    #[test]
    fn what_is_too_old_to_be_touched_is_left_to_expire_and_waited_for() {
        let ttl = Duration::from_millis(100);
        let (mut holds, mut tally) = (Holds::new(ttl), Tally::new(1));
        let old = Hold {
            since: Instant::now() - ttl,
            ..hold("old")
        };
        tally.held(&old.lines);
        assert_eq!(reserved(&tally), 2);
        holds.add_held(old, &mut tally);
        assert!(holds.take_held(&mut tally).is_none());
        assert_eq!(holds.left_to_expire, 1);
        assert_eq!(reserved(&tally), 0, "as it will be");
        assert!(holds.last_ends_in().is_some());
    }
}
