//! One call of one system, and what is said of calls everywhere.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A window in which the host took more than this is thrown away.
pub(crate) const STOLEN_PERCENT_MAX: f64 = 3.0;

/// How far behind its schedule a system may fall before it is over, where nothing else is said: it
/// does not carry the rate.
pub(crate) const BEHIND_MAX: Duration = Duration::from_secs(2);

/// What a call was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// For people; empty where there is one kind only.
    pub(crate) kind: &'static str,
    /// That it reserved, or read, or received.
    pub(crate) lines: u64,
}

impl Call {
    pub(crate) const ONE_LINE: Call = Call::of_lines(1);

    pub(crate) const fn of_lines(lines: u64) -> Call {
        Call { kind: "", lines }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Done,
    /// The system had too much to do and said so.
    Refused,
}

/// Does one piece of work against one system with each call. Clones share connections.
pub(crate) trait Caller: Clone + 'static {
    /// What the last call was. All are alike, unless it says otherwise.
    fn last(&self) -> Call {
        Call::ONE_LINE
    }

    /// Does it. Whatever is not the expected answer is an error.
    async fn call(&mut self) -> Result<Outcome, String>;
}

/// Nanoseconds up to a minute, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    const NANOS_MAX: u64 = 60_000_000_000;
    const DIGITS: u8 = 3;
    Histogram::new_with_bounds(1, NANOS_MAX, DIGITS)
        .expect("the bounds are in order and the digits at most five")
}
