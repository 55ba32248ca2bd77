//! What the calls of one window came to.

use std::cell::RefCell;
use std::time::Instant;

use hdrhistogram::Histogram;

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
    /// Open loop: how late calls were sent, which the times include.
    pub(crate) late_ns: Histogram<u64>,
    /// How long it took to be refused.
    pub(crate) refused_ns: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Recorder {
    pub(crate) fn new(from: Instant, until: Instant) -> Recorder {
        let results = Results {
            took_ns: super::histogram(),
            late_ns: super::histogram(),
            refused_ns: super::histogram(),
            errors: 0,
            first_error: None,
        };
        Recorder {
            from,
            until,
            results: RefCell::new(results),
        }
    }

    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// A closed loop's call counts when it is answered inside the window.
    pub(crate) fn answered(&self, started: Instant, now: Instant) {
        if (self.from..self.until).contains(&now) {
            self.with(|results| results.took_ns.saturating_record(nanos(started, now)));
        }
    }

    /// An open loop's call counts when it is due inside the window, however late the answer: a stall
    /// that outlasts the window must not hide the calls it delayed.
    pub(crate) fn answered_due(&self, due: Instant, sent: Instant, outcome: Outcome) {
        let now = Instant::now();
        if (self.from..self.until).contains(&due) {
            self.with(|results| {
                let took = match outcome {
                    Outcome::Done => &mut results.took_ns,
                    Outcome::Refused => &mut results.refused_ns,
                };
                took.saturating_record(nanos(due, now));
                results.late_ns.saturating_record(nanos(due, sent));
            });
        }
    }

    pub(crate) fn failed(&self, error: String) {
        self.with(|results| {
            results.errors += 1;
            results.first_error.get_or_insert(error);
        });
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Results) -> T) -> T {
        change(&mut self.results.borrow_mut())
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_nanos() as u64
}
