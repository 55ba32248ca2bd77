//! The way of one call over its attempts: how long each may take, and what follows from a failure.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use stock_proto::stock::v1::ErrorReason;

use super::retry::{Backoff, Next, next};
use crate::error::StatusError;

/// An attempt gets this part of its call's time, so that there is time for others; at most what the
/// client's limits say.
const ATTEMPTS_PER_CALL: u32 = 4;

/// No attempt is given less than this of a call's time: an answer that is written down first may
/// take some milliseconds.
const ATTEMPT_MIN: Duration = Duration::from_millis(50);

/// Nodes that may say that they know nothing of such a call before that is believed: one of them
/// may be no node of the cluster.
const STRANGERS_MAX: u32 = 3;

/// One call.
#[derive(Debug)]
pub struct Attempts {
    /// How long one node may take.
    attempt: Duration,
    made_max: u32,
    backoff: Backoff,
    made: u32,
    strangers: u32,
    /// Where attempts have failed, and how often.
    failures: Vec<(Arc<str>, u32)>,
    /// The failure that tells most of those so far.
    telling: Option<StatusError>,
    /// One of them may have been carried out.
    may_be_done: bool,
}

/// What follows from an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consequence {
    /// What it says about the node.
    pub lesson: Lesson,
    /// Others may lead by now: the topology is learnt anew.
    pub look_again: bool,
    /// The repeat is one of those that could keep a cluster down: it takes a token of the budget.
    /// Where a connection broke, none comes before a probe is answered; a busy leader has said
    /// itself when it wants to be asked.
    pub takes_token: bool,
    /// How the call goes on.
    pub then: Then,
}

/// What a failed attempt says about the node it went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// Nothing: it has answered.
    Answers,
    /// It was silent, or said what no node would: a probe shall tell.
    Silent,
    /// Its connection broke, or there is none.
    Lost,
    /// What answers there is no node of the cluster.
    NoNode,
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
    /// None yet, of a call that may take so long. Each may take a quarter of it, and no longer than
    /// `attempt_max`; there are at most `made_max`.
    pub fn new(call: Duration, attempt_max: Duration, made_max: u32) -> Self {
        Self {
            attempt: (call / ATTEMPTS_PER_CALL).max(ATTEMPT_MIN).min(attempt_max),
            made_max,
            backoff: Backoff::new(),
            made: 0,
            strangers: 0,
            failures: Vec::new(),
            telling: None,
            may_be_done: false,
        }
    }

    /// How many were made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// How often an attempt has failed there.
    pub fn failures(&self, endpoint: &str) -> u32 {
        let failures = self.failures.iter().find(|(at, _)| **at == *endpoint);
        failures.map_or(0, |(_, times)| *times)
    }

    /// The failure that tells most of what has been in the way: a node's own words rather than
    /// silence, and silence rather than the last moment's hurry.
    pub fn into_telling(self) -> Option<StatusError> {
        self.telling
    }

    /// Whether one of those that have failed may have been carried out.
    pub fn may_be_done(&self) -> bool {
        self.may_be_done
    }

    /// The last failure as the caller is told it: what it says of its own attempt only is no word
    /// on the others.
    pub fn told(&self, failure: StatusError) -> StatusError {
        StatusError {
            may_be_done: self.may_be_done && !failure.settles(),
            ..failure
        }
    }

    /// Begins another one while so much of the call's time is left: how long it may take.
    pub fn begin(&mut self, left: Duration) -> Duration {
        self.made += 1;
        self.attempt.min(left)
    }

    /// What follows from the failure of the one that was begun, at this endpoint, while so much of
    /// the call's time is left.
    pub fn failed(
        &mut self,
        endpoint: &Arc<str>,
        failure: &StatusError,
        left: Duration,
        chance: &mut impl Rng,
    ) -> Consequence {
        self.may_be_done |= failure.outcome_unknown();
        let next = next(failure);
        let consequence = |lesson, look_again, then| Consequence {
            lesson,
            look_again,
            takes_token: !matches!(next, Next::Lost | Next::Overloaded(_)),
            then,
        };
        let (lesson, pause) = match next {
            Next::GiveUp => return consequence(Lesson::Answers, false, Then::GiveUp),
            Next::NoNode => {
                // What says that it is of another cluster is believed; else a probe shall tell.
                let lesson = match failure.reason() {
                    ErrorReason::WrongCluster => Lesson::NoNode,
                    _ => Lesson::Silent,
                };
                self.strangers += 1;
                if self.strangers >= STRANGERS_MAX {
                    return consequence(lesson, true, Then::GiveUp);
                }
                (lesson, self.pause_elsewhere(endpoint, chance))
            }
            Next::Lost => (Lesson::Lost, self.pause_elsewhere(endpoint, chance)),
            Next::Silent => (Lesson::Silent, self.pause_elsewhere(endpoint, chance)),
            Next::Unavailable => {
                let asked = failure.retry_delay.filter(|_| self.has_failed(endpoint));
                self.note(endpoint);
                (Lesson::Answers, self.backoff.pause(asked, chance))
            }
            Next::Overloaded(asked) => (Lesson::Answers, self.backoff.pause(Some(asked), chance)),
        };
        if self
            .telling
            .as_ref()
            .is_none_or(|it| tells(failure) >= tells(it))
        {
            self.telling = Some(failure.clone());
        }
        let then = match pause < left {
            _ if self.made >= self.made_max => Then::GiveUp,
            true => Then::Again(pause),
            false => Then::TimedOut,
        };
        consequence(lesson, !matches!(next, Next::Overloaded(_)), then)
    }

    /// A node that has failed for the first time costs no pause: others are there.
    fn pause_elsewhere(&mut self, endpoint: &Arc<str>, chance: &mut impl Rng) -> Duration {
        let is_first = !self.has_failed(endpoint);
        self.note(endpoint);
        match is_first {
            true => Duration::ZERO,
            false => self.backoff.pause(None, chance),
        }
    }

    fn has_failed(&self, endpoint: &str) -> bool {
        self.failures(endpoint) > 0
    }

    fn note(&mut self, endpoint: &Arc<str>) {
        match self.failures.iter_mut().find(|(at, _)| at == endpoint) {
            Some((_, times)) => *times += 1,
            None => self.failures.push((Arc::clone(endpoint), 1)),
        }
    }
}

/// How much a failure tells of what is wrong.
fn tells(failure: &StatusError) -> u8 {
    match next(failure) {
        Next::Silent => 0,
        Next::Lost | Next::NoNode => 1,
        Next::Unavailable | Next::Overloaded(_) | Next::GiveUp => 2,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use stock_proto::codec::ERROR_DOMAIN;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    const ATTEMPT: Duration = Duration::from_secs(2);
    const CALL: Duration = Duration::from_secs(10);

    fn new() -> Attempts {
        Attempts::new(CALL, ATTEMPT, u32::MAX)
    }

    fn failed_at(
        endpoint: &str,
        attempts: &mut Attempts,
        failure: &StatusError,
        left: Duration,
    ) -> Consequence {
        let chance = &mut StdRng::seed_from_u64(1);
        attempts.failed(&endpoint.into(), failure, left, chance)
    }

    fn failed(attempts: &mut Attempts, failure: &StatusError) -> Consequence {
        failed_at("a", attempts, failure, CALL)
    }

    fn unavailable() -> StatusError {
        StatusError::from(Status::unavailable("no leader"))
    }

    fn of_stockd(code: Code, reason: ErrorReason) -> StatusError {
        let details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, []);
        StatusError::from(Status::with_error_details(code, "refused", details))
    }

    #[test]
    fn an_attempt_leaves_time_for_others() {
        let ms = Duration::from_millis;
        assert_eq!(new().begin(CALL), ATTEMPT);
        assert_eq!(new().begin(ms(300)), ms(300));
        let mut hurried = Attempts::new(ms(500), ATTEMPT, u32::MAX);
        assert_eq!(hurried.begin(ms(500)), ms(125));
    }

    #[test]
    fn a_silent_node_is_probed_and_another_is_asked_at_once() {
        let mut attempts = new();
        attempts.begin(CALL);
        let after = failed(&mut attempts, &StatusError::silent(ATTEMPT));
        assert_eq!(after.lesson, Lesson::Silent);
        assert!(after.look_again);
        assert_eq!(after.then, Then::Again(Duration::ZERO));
        assert_eq!((attempts.failures("a"), attempts.failures("b")), (1, 0));
        // Once it is the same one again, there is nobody else.
        let after = failed(&mut attempts, &StatusError::silent(ATTEMPT));
        assert!(matches!(after.then, Then::Again(pause) if !pause.is_zero()));
    }

    #[test]
    fn a_broken_connection_is_a_lost_node() {
        let after = failed(&mut new(), &StatusError::not_connected());
        assert_eq!((after.lesson, after.takes_token), (Lesson::Lost, false));
        assert_eq!(after.then, Then::Again(Duration::ZERO));
    }

    #[test]
    fn a_node_without_a_leader_answers_and_another_may_know_one() {
        let mut attempts = new();
        let after = failed(&mut attempts, &unavailable());
        assert_eq!((after.lesson, after.look_again), (Lesson::Answers, true));
        assert!(after.takes_token);
        assert_eq!(attempts.failures("a"), 1);
    }

    #[test]
    fn a_busy_leader_is_asked_again_when_it_says() {
        let asked = Duration::from_millis(300);
        let busy = StatusError {
            code: Code::ResourceExhausted,
            retry_delay: Some(asked),
            ..unavailable()
        };
        let mut attempts = new();
        let after = failed(&mut attempts, &busy);
        assert_eq!((after.lesson, after.look_again), (Lesson::Answers, false));
        assert!(!after.takes_token);
        assert!(
            matches!(after.then, Then::Again(pause) if pause >= asked),
            "{after:?}"
        );
        assert_eq!(
            attempts.failures("a"),
            0,
            "anyone else would only forward to it"
        );
    }

    #[test]
    fn what_was_lost_once_may_be_done_until_a_shard_refuses_it() {
        let lost = StatusError::silent(ATTEMPT);
        let busy = of_stockd(Code::Unavailable, ErrorReason::NoLeader);
        let refused = of_stockd(Code::FailedPrecondition, ErrorReason::WrongState);
        let forgotten = of_stockd(Code::FailedPrecondition, ErrorReason::RequestTooOld);
        let stranger = StatusError::from(Status::unimplemented("no such service"));
        let mut attempts = new();
        failed(&mut attempts, &busy);
        assert!(!attempts.told(busy.clone()).outcome_unknown());
        failed(&mut attempts, &lost);
        for (failure, is_unknown) in [
            (busy, true),
            (stranger, true),
            (forgotten, true),
            (refused, false),
        ] {
            failed(&mut attempts, &failure);
            let told = attempts.told(failure);
            assert_eq!(told.outcome_unknown(), is_unknown, "{told:?}");
        }
    }

    #[test]
    fn what_no_node_says_is_believed_when_three_say_it() {
        let mut attempts = new();
        let unknown = StatusError::from(Status::unimplemented("no such service"));
        for endpoint in ["a", "b"] {
            let after = failed_at(endpoint, &mut attempts, &unknown, CALL);
            assert_eq!(after.lesson, Lesson::Silent, "a probe shall tell");
            assert!(matches!(after.then, Then::Again(_)));
        }
        let after = failed_at("c", &mut attempts, &unknown, CALL);
        assert_eq!(after.then, Then::GiveUp);
        // A node's own words are believed at once.
        let refusal = of_stockd(Code::Unimplemented, ErrorReason::FieldUnknown);
        assert_eq!(failed(&mut new(), &refusal).then, Then::GiveUp);
        let other = of_stockd(Code::FailedPrecondition, ErrorReason::WrongCluster);
        let after = failed(&mut new(), &other);
        assert_eq!(after.lesson, Lesson::NoNode);
        assert!(matches!(after.then, Then::Again(_)));
    }

    #[test]
    fn the_last_moments_hurry_does_not_hide_the_cause() {
        let mut attempts = new();
        failed(&mut attempts, &unavailable());
        failed_at(
            "b",
            &mut attempts,
            &StatusError::silent(ATTEMPT),
            Duration::ZERO,
        );
        let telling = attempts.into_telling().unwrap();
        assert_eq!(telling.message, "no leader");
    }

    #[test]
    fn no_call_outlasts_its_time_by_a_pause() {
        let mut attempts = new();
        let mut left = CALL;
        loop {
            assert!(attempts.begin(left) <= left);
            match failed_at("a", &mut attempts, &unavailable(), left).then {
                Then::Again(pause) => left -= pause,
                Then::TimedOut => break,
                Then::GiveUp => panic!("{left:?} is left"),
            }
        }
        assert!(attempts.made() > 10, "{}", attempts.made());
    }

    #[test]
    fn a_caller_may_bound_the_attempts() {
        let mut attempts = Attempts::new(CALL, ATTEMPT, 2);
        attempts.begin(CALL);
        assert!(matches!(
            failed(&mut attempts, &unavailable()).then,
            Then::Again(_)
        ));
        attempts.begin(CALL);
        assert_eq!(failed(&mut attempts, &unavailable()).then, Then::GiveUp);
    }
}
