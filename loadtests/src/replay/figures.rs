//! How long each kind of call took, and what went wrong.

use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::HumanCount;

use crate::lab::{self, histogram};

/// Failures that are kept word for word; the rest is only counted.
const FAILURES_LISTED_MAX: usize = 20;

/// An answer takes a millisecond, an election several hundred.
const SLOW_CALL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    PutLocation,
    Receive,
    Reserve,
    Confirm,
    Release,
    Fulfill,
    Read,
}

impl CallKind {
    const ALL: [CallKind; 7] = [
        CallKind::PutLocation,
        CallKind::Receive,
        CallKind::Reserve,
        CallKind::Confirm,
        CallKind::Release,
        CallKind::Fulfill,
        CallKind::Read,
    ];

    fn name(self) -> &'static str {
        match self {
            CallKind::PutLocation => "put location",
            CallKind::Receive => "receive",
            CallKind::Reserve => "reserve",
            CallKind::Confirm => "confirm",
            CallKind::Release => "release",
            CallKind::Fulfill => "fulfill",
            CallKind::Read => "read",
        }
    }
}

/// Times include every retry inside the client, so a lost node shows in the last percentiles.
pub(crate) struct Figures {
    took_ns: [Histogram<u64>; CallKind::ALL.len()],
    failures_listed: Vec<String>,
    failures: u64,
    slow_calls: u64,
    not_held: u64,
}

impl Figures {
    pub(crate) fn new() -> Figures {
        Figures {
            took_ns: std::array::from_fn(|_| histogram()),
            failures_listed: Vec::new(),
            failures: 0,
            slow_calls: 0,
            not_held: 0,
        }
    }

    pub(crate) fn took(&mut self, kind: CallKind, time: Duration) {
        self.slow_calls += u64::from(time >= SLOW_CALL);
        self.took_ns[kind as usize].saturating_record(time.as_nanos() as u64);
    }

    pub(crate) fn failed(&mut self, failure: String) {
        self.failures += 1;
        if self.failures_listed.len() < FAILURES_LISTED_MAX {
            self.failures_listed.push(failure);
        }
    }

    pub(crate) fn was_not_held(&mut self) {
        self.not_held += 1;
    }

    pub(crate) fn not_held(&self) -> u64 {
        self.not_held
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    pub(crate) fn failures_listed(&self) -> &[String] {
        &self.failures_listed
    }

    pub(crate) fn calls(&self, kinds: &[CallKind]) -> u64 {
        kinds
            .iter()
            .map(|kind| self.took_ns[*kind as usize].len())
            .sum()
    }

    /// Calls that waited for an election, a retry or a stalled disk.
    pub(crate) fn slow_calls(&self) -> u64 {
        self.slow_calls
    }

    /// Calls per kind with their percentiles, in microseconds.
    pub(crate) fn table(&self) -> comfy_table::Table {
        let mut table = lab::table(
            1,
            ["call", "count", "p50 us", "p99 us", "p99.9 us", "max us"],
        );
        for kind in CallKind::ALL {
            let took_ns = &self.took_ns[kind as usize];
            if took_ns.is_empty() {
                continue;
            }
            let micros = |ns: u64| HumanCount(ns / 1_000).to_string();
            table.add_row([
                kind.name().to_owned(),
                HumanCount(took_ns.len()).to_string(),
                micros(took_ns.value_at_quantile(0.5)),
                micros(took_ns.value_at_quantile(0.99)),
                micros(took_ns.value_at_quantile(0.999)),
                micros(took_ns.max()),
            ]);
        }
        table
    }
}
