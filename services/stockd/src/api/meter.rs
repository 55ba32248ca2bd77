//! Counts and times calls.

use std::time::Instant;

use metrics::{Histogram, histogram};
use tonic::{Code, Status};

/// One kind of call. The handle is made once: looking it up by name costs as much as some calls.
pub(super) struct Meter {
    call: &'static str,
    seconds: Histogram,
}

/// How many requests inside a call failed, by code.
#[derive(Debug, Default)]
pub(super) struct Failures([u64; CODES]);

/// gRPC has codes from 0 to 16.
const CODES: usize = 17;

impl Failures {
    /// One more.
    pub(super) fn add(&mut self, code: i32) {
        let number = usize::try_from(code).ok();
        if let Some(count) = number.and_then(|number| self.0.get_mut(number)) {
            *count += 1;
        }
    }
}

impl Meter {
    /// For calls of this name.
    pub(super) fn new(call: &'static str) -> Self {
        Self {
            call,
            seconds: histogram!("stockd_call_seconds", "call" => call),
        }
    }

    /// Takes note of so many requests that were answered together.
    pub(super) fn answered(&self, requests: usize, began: Instant) {
        self.seconds.record_many(began.elapsed(), requests);
    }

    /// Takes note of requests that failed, each by itself, inside a call.
    pub(super) fn failed(&self, failures: &Failures) {
        for (code, count) in (0..).zip(failures.0) {
            if count > 0 {
                self.count_errors(Code::from_i32(code), count);
            }
        }
    }

    /// What it is called.
    pub(super) fn call(&self) -> &'static str {
        self.call
    }

    /// Takes note of a call that began then and is over.
    pub(super) fn took(&self, began: Instant) {
        self.seconds.record(began.elapsed());
    }

    /// Takes note of a call that failed.
    pub(super) fn refused(&self, status: &Status) {
        self.count_errors(status.code(), 1);
    }

    fn count_errors(&self, code: Code, count: u64) {
        let code = format!("{code:?}");
        metrics::counter!("stockd_call_errors_total", "call" => self.call, "code" => code)
            .increment(count);
    }
}
