//! The way of one call over its attempts: how long each may take, and what follows from a failure.
//! Nothing here knows a connection or a clock.

use std::time::Duration;

use rand::Rng;
use tonic::Code;

use crate::error::StatusError;
use crate::retry::{Backoff, Next, next};

/// One call.
#[derive(Debug)]
pub struct Attempts {
    /// How long one node may take.
    attempt: Duration,
    backoff: Backoff,
    made: u32,
    /// Of the call's time when the last one began.
    left: Duration,
}

/// What follows from an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consequence {
    /// The node did not answer: for a while it is tried last.
    pub suspect: bool,
    /// Others may lead by now: the topology is learnt anew.
    pub look_again: bool,
    /// The next attempt goes to another node, if there is one.
    pub avoid: bool,
    /// How the call goes on.
    pub then: Then,
}

/// How a call goes on after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It does not: the failure is for the caller, and trying again would give the same.
    GiveUp,
    /// It does not: its time is over.
    TimedOut,
    /// With another attempt, after a pause.
    Again(Duration),
}

impl Attempts {
    /// None yet. Each may take so long.
    pub fn new(attempt: Duration) -> Self {
        Self {
            attempt,
            backoff: Backoff::new(),
            made: 0,
            left: Duration::ZERO,
        }
    }

    /// How many were made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Begins another one while so much of the call's time is left: how long it may take.
    pub fn begin(&mut self, left: Duration) -> Duration {
        self.made += 1;
        self.left = left;
        self.attempt.min(left)
    }

    /// What follows from the failure of the one that was begun, while so much of the call's time is
    /// left.
    pub fn failed(
        &mut self,
        failure: &StatusError,
        left: Duration,
        chance: &mut impl Rng,
    ) -> Consequence {
        let mut consequence = Consequence {
            suspect: false,
            look_again: false,
            avoid: false,
            then: Then::GiveUp,
        };
        let pause = match next(failure) {
            Next::GiveUp => return consequence,
            Next::NodeLost => {
                // Silence for as long as the caller happened to wait says nothing about the node.
                let is_silence = matches!(failure.code, Code::DeadlineExceeded | Code::Cancelled);
                let was_cut_short = self.left < self.attempt && is_silence;
                consequence.suspect = !was_cut_short;
                consequence.look_again = true;
                consequence.avoid = true;
                self.backoff.pause(None, chance)
            }
            Next::NodeUnavailable => {
                consequence.look_again = true;
                consequence.avoid = true;
                self.backoff.pause(failure.retry_delay, chance)
            }
            Next::Overloaded(asked) => self.backoff.pause(Some(asked), chance),
        };
        consequence.then = match pause < left {
            true => Then::Again(pause),
            false => Then::TimedOut,
        };
        consequence
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const ATTEMPT: Duration = Duration::from_secs(2);
    const CALL: Duration = Duration::from_secs(10);

    fn failed(attempts: &mut Attempts, failure: &StatusError, left: Duration) -> Consequence {
        attempts.failed(failure, left, &mut StdRng::seed_from_u64(1))
    }

    fn unavailable() -> StatusError {
        StatusError::from(tonic::Status::unavailable("no leader"))
    }

    #[test]
    fn a_node_that_is_silent_for_an_attempt_is_suspect_and_another_is_asked() {
        let mut attempts = Attempts::new(ATTEMPT);
        assert_eq!(attempts.begin(CALL), ATTEMPT);
        let silent = StatusError::silent(ATTEMPT);
        let after = failed(&mut attempts, &silent, CALL - ATTEMPT);
        assert!(
            after.suspect && after.look_again && after.avoid,
            "{after:?}"
        );
        assert!(matches!(after.then, Then::Again(_)), "{after:?}");
    }

    #[test]
    fn a_node_that_had_less_time_than_an_attempt_is_not_suspect() {
        let mut attempts = Attempts::new(ATTEMPT);
        let left = ATTEMPT / 2;
        assert_eq!(attempts.begin(left), left);
        let after = failed(&mut attempts, &StatusError::silent(left), Duration::ZERO);
        assert!(!after.suspect, "{after:?}");
        assert_eq!(after.then, Then::TimedOut);
    }

    #[test]
    fn a_node_without_a_leader_is_left_alone_and_not_suspect() {
        let mut attempts = Attempts::new(ATTEMPT);
        attempts.begin(CALL);
        let after = failed(&mut attempts, &unavailable(), CALL);
        assert!(
            !after.suspect && after.look_again && after.avoid,
            "{after:?}"
        );
    }

    #[test]
    fn a_busy_leader_is_asked_again_when_it_says() {
        let mut attempts = Attempts::new(ATTEMPT);
        attempts.begin(CALL);
        let asked = Duration::from_millis(300);
        let busy = StatusError {
            code: Code::ResourceExhausted,
            retry_delay: Some(asked),
            ..unavailable()
        };
        let after = failed(&mut attempts, &busy, CALL);
        assert!(
            !after.suspect && !after.look_again && !after.avoid,
            "{after:?}"
        );
        let Then::Again(pause) = after.then else {
            panic!("{after:?}");
        };
        assert!(pause >= asked, "{pause:?}");
    }

    #[test]
    fn no_call_outlasts_its_time_by_a_pause() {
        let mut attempts = Attempts::new(ATTEMPT);
        let mut left = CALL;
        loop {
            assert!(attempts.begin(left) <= left);
            match failed(&mut attempts, &unavailable(), left).then {
                Then::Again(pause) => left -= pause,
                Then::TimedOut => break,
                Then::GiveUp => panic!("{left:?} is left"),
            }
        }
        assert!(attempts.made() > 10, "{}", attempts.made());
    }
}
