//! What the calls of one window came to.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::call::{Call, Outcome, histogram};
use super::detail::Detail;
use super::load::WindowTimes;

/// Shared by the tasks of a window, which all run on one thread.
pub(crate) struct Recorder {
    from: Instant,
    /// It comes earlier where an open loop is given up.
    until: Cell<Instant>,
    given_up: Notify,
    behind_max: Duration,
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
            took_ns: histogram(),
            lines: 0,
            late_ns: histogram(),
            refused_ns: histogram(),
            errors: 0,
            first_error: None,
            is_behind: false,
            detail: times
                .point_every
                .map(|every| Detail::new(from, until, every)),
        };
        Recorder {
            from,
            until: Cell::new(until),
            given_up: Notify::new(),
            behind_max: times.behind_max,
            results: RefCell::new(results),
        }
    }

    pub(crate) fn from(&self) -> Instant {
        self.from
    }

    pub(crate) fn until(&self) -> Instant {
        self.until.get()
    }

    /// Waits until the window is over.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.until().into()) => {}
            () = self.given_up.notified() => {}
        }
    }

    /// A closed loop's call counts when it is answered inside the window.
    pub(crate) fn answered(&self, started: Instant, now: Instant, call: Call) {
        if (self.from..self.until()).contains(&now) {
            self.with(|results| results.done(now, nanos(started, now), call));
        }
    }

    /// An open loop's call counts when it is due inside the window, however late the answer: a
    /// stall that outlasts the window must not hide the calls it delayed.
    pub(crate) fn answered_due(&self, due: Instant, sent: Instant, outcome: Outcome, call: Call) {
        let now = Instant::now();
        if (self.from..self.until()).contains(&due) {
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

    /// Ends an open loop's window, where a call is due that should have been sent too long ago.
    pub(super) fn is_too_late(&self, due: Instant) -> bool {
        let now = Instant::now();
        let is_behind = due + self.behind_max < now;
        if is_behind {
            self.with(|results| {
                results.is_behind = true;
                if let Some(detail) = &mut results.detail {
                    detail.given_up(now);
                }
            });
            self.until.set(now.min(self.until()));
            self.given_up.notify_one();
        }
        is_behind
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::BEHIND_MAX;

    #[tokio::test]
    async fn a_window_is_over_when_its_schedule_is_given_up() {
        let recorder = Recorder::new(WindowTimes {
            lead_in: Duration::ZERO,
            measured: Duration::from_secs(3_600),
            point_every: None,
            behind_max: BEHIND_MAX,
        });
        let now = Instant::now();
        assert!(!recorder.is_too_late(now));
        assert!(recorder.until() > now);
        let due = now.checked_sub(BEHIND_MAX * 2).expect("a time before");
        assert!(recorder.is_too_late(due));
        assert!(recorder.until() <= Instant::now());
        let over = tokio::time::timeout(Duration::from_secs(60), recorder.over());
        over.await.expect("nobody waits for an hour");
        assert!(recorder.with(|results| results.is_behind));
    }
}
