//! What the calls of one window came to.

use std::cell::RefCell;
use std::time::Instant;

use hdrhistogram::Histogram;

use super::detail::Detail;
use super::{Call, WindowTimes};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Done,
    /// The system had too much to do and said so.
    Refused,
}

/// Shared by the tasks of a window, which all run on one thread.
pub(crate) struct Recorder {
    from: Instant,
    until: Instant,
    results: RefCell<Results>,
}

pub(crate) struct Results {
    pub(crate) took_ns: Histogram<u64>,
    /// Of the calls that count.
    pub(crate) lines: u64,
    /// Open loop: how late calls were sent, which the times include.
    pub(crate) late_ns: Histogram<u64>,
    /// How long it took to be refused.
    pub(crate) refused_ns: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Open loop: it was given up, because calls were sent so late.
    pub(crate) is_behind: bool,
    /// Where it is asked for.
    pub(super) detail: Option<Detail>,
}

impl Recorder {
    pub(crate) fn new(times: WindowTimes) -> Recorder {
        let from = Instant::now() + times.lead_in;
        let until = from + times.measured;
        let results = Results {
            took_ns: super::histogram(),
            lines: 0,
            late_ns: super::histogram(),
            refused_ns: super::histogram(),
            errors: 0,
            first_error: None,
            is_behind: false,
            detail: times
                .point_every
                .map(|every| Detail::new(from, until, every)),
        };
        Recorder {
            from,
            until,
            results: RefCell::new(results),
        }
    }

    pub(crate) fn from(&self) -> Instant {
        self.from
    }

    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// A closed loop's call counts when it is answered inside the window.
    pub(crate) fn answered(&self, started: Instant, now: Instant, call: Call) {
        if (self.from..self.until).contains(&now) {
            self.with(|results| results.done(now, nanos(started, now), call));
        }
    }

    /// An open loop's call counts when it is due inside the window, however late the answer: a stall
    /// that outlasts the window must not hide the calls it delayed.
    pub(crate) fn answered_due(&self, due: Instant, sent: Instant, outcome: Outcome, call: Call) {
        let now = Instant::now();
        if (self.from..self.until).contains(&due) {
            self.with(|results| {
                let took_ns = nanos(due, now);
                match outcome {
                    Outcome::Done => results.done(now, took_ns, call),
                    Outcome::Refused => results.refused_ns.saturating_record(took_ns),
                }
                results.late_ns.saturating_record(nanos(due, sent));
            });
        }
    }

    pub(crate) fn failed(&self, error: String) {
        self.with(|results| {
            results.errors += 1;
            results.first_error.get_or_insert(error);
            if let Some(detail) = &mut results.detail {
                detail.failed(Instant::now());
            }
        });
    }

    /// An open loop was given up.
    pub(crate) fn fell_behind(&self) {
        self.with(|results| results.is_behind = true);
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Results) -> T) -> T {
        change(&mut self.results.borrow_mut())
    }
}

impl Results {
    fn done(&mut self, now: Instant, took_ns: u64, call: Call) {
        self.took_ns.saturating_record(took_ns);
        self.lines += call.lines;
        if let Some(detail) = &mut self.detail {
            detail.answered(now, took_ns, call);
        }
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_nanos() as u64
}
