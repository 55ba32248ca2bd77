//! What is tried again, and when. Nothing here knows a connection or a clock.

use std::time::Duration;

use rand::{Rng, RngExt};
use stock_proto::stock::v1::ErrorReason;
use tonic::Code;

use crate::error::StatusError;

/// The pause after a first failure. An election lasts a few hundred milliseconds and a forwarded
/// call one, so that shorter pauses would mostly find things as they were.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(10);

/// The longest pause the client chooses itself: what a call that waits for a new leader loses at
/// most after there is one.
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What a failed attempt says about what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The caller's to decide: trying again would give the same.
    GiveUp,
    /// The connection is gone, or there was none: ask another, and learn who leads now.
    Lost,
    /// It was silent for as long as an attempt may take, or for as long as it took another to lead.
    Silent,
    /// These are no words of stockd: another cluster's node, or another program, is at the address.
    NoNode,
    /// The node is well but cannot answer now, as when no leader is known.
    Unavailable,
    /// The leader is busy and says when to come back; anyone else would only forward to it.
    Overloaded(Duration),
}

/// Reads the consequence out of a failure.
pub(crate) fn next(failure: &StatusError) -> Next {
    match failure.code {
        _ if failure.is_silence => Next::Silent,
        // Whatever a broken connection was translated into, its request may be repeated.
        _ if failure.transport => Next::Lost,
        // The attempt's own time, as seen by the server. The call's time is the client's to keep.
        Code::DeadlineExceeded | Code::Cancelled => Next::Silent,
        Code::Unavailable => Next::Unavailable,
        Code::ResourceExhausted if failure.retry_delay.is_some() => {
            Next::Overloaded(failure.retry_delay.unwrap_or_default())
        }
        _ if !failure.is_of_stockd || failure.reason() == ErrorReason::WrongCluster => Next::NoNode,
        _ => Next::GiveUp,
    }
}

/// Pauses that double, up to [`PAUSE_MAX`].
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: PAUSE_FIRST }
    }

    /// The next pause: between half and all of the step, and never shorter than the node asked for,
    /// so that callers that failed together do not come back together.
    pub(crate) fn pause(&mut self, at_least: Option<Duration>, chance: &mut impl Rng) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(PAUSE_MAX);
        let jittered = chance.random_range(step / 2..=step);
        at_least.map_or(jittered, |asked| {
            asked.saturating_add(jittered - step / 2).max(jittered)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code, retry_delay: Option<Duration>, transport: bool) -> StatusError {
        StatusError {
            code,
            retry_delay,
            transport,
            is_of_stockd: true,
            ..StatusError::not_connected()
        }
    }

    #[test]
    fn what_is_tried_again() {
        let ms = Duration::from_millis(5);
        for (code, delay, transport, expected) in [
            (Code::Unavailable, None, false, Next::Unavailable),
            (Code::Unavailable, None, true, Next::Lost),
            (Code::Unknown, None, true, Next::Lost),
            (Code::Unknown, None, false, Next::GiveUp),
            (Code::DeadlineExceeded, None, false, Next::Silent),
            (Code::Cancelled, None, true, Next::Lost),
            (Code::ResourceExhausted, None, false, Next::GiveUp),
            (
                Code::ResourceExhausted,
                Some(ms),
                false,
                Next::Overloaded(ms),
            ),
            (Code::InvalidArgument, None, false, Next::GiveUp),
            (Code::NotFound, None, false, Next::GiveUp),
            (Code::FailedPrecondition, None, false, Next::GiveUp),
            (Code::AlreadyExists, None, false, Next::GiveUp),
            (Code::Internal, None, false, Next::GiveUp),
            (Code::Unimplemented, None, false, Next::GiveUp),
        ] {
            let mut failure = failure(code, delay, transport);
            assert_eq!(
                next(&failure),
                expected,
                "{code:?}, delay {delay:?}, transport {transport}"
            );
            failure.is_of_stockd = false;
            let of_anybody = match expected {
                Next::GiveUp => Next::NoNode,
                expected => expected,
            };
            assert_eq!(next(&failure), of_anybody, "{code:?} of another program");
        }
        assert_eq!(next(&StatusError::silent(ms)), Next::Silent);
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut backoff = Backoff::new();
        let mut step = PAUSE_FIRST;
        for _ in 0..12 {
            let pause = backoff.pause(None, &mut rand::rng());
            assert!(pause >= step / 2 && pause <= step, "{pause:?} for {step:?}");
            step = (step * 2).min(PAUSE_MAX);
        }
        assert_eq!(step, PAUSE_MAX);
    }

    #[test]
    fn a_node_is_given_the_time_it_asks_for() {
        let asked = Duration::from_millis(200);
        let pause = Backoff::new().pause(Some(asked), &mut rand::rng());
        assert!(pause >= asked && pause <= asked + PAUSE_FIRST);
    }
}
