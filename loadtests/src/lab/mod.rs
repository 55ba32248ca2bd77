//! The laboratory: load on whatever can be called, in windows that are all measured alike.
//!
//! ```text
//! Caller        one piece of work against one system
//! closed_loop   so many callers, each waiting for its answer      -> how much, and how long alone
//! open_loop     calls on a schedule that waits for nobody         -> how long under a given load
//! Window        one of them for some seconds: times, processor, bytes written, stolen time
//! Detail        a window by kind of call, and a point for every second or so
//! Figures       medians over the windows of a kind
//! ```

mod closed_loop;
mod detail;
mod figures;
pub(crate) mod fsync;
pub(crate) mod machine;
mod open_loop;
mod pacer;
mod patience;
mod recorder;
mod series;
pub(crate) mod stolen;
mod table;
mod usage;
mod window;

use std::time::Duration;

use hdrhistogram::Histogram;

pub(crate) use self::detail::{Point, Summary};
pub(crate) use self::figures::{Figures, ratio};
pub(crate) use self::open_loop::Departures;
pub(crate) use self::pacer::Pacer;
pub(crate) use self::patience::Patience;
pub(crate) use self::recorder::{Outcome, Recorder};
pub(crate) use self::series::Series;
pub(crate) use self::table::table;
pub(crate) use self::usage::Processes;
pub(crate) use self::window::{Load, Window, WindowTimes};

/// A window in which the host took more than this is thrown away.
pub(crate) const STOLEN_PERCENT_MAX: f64 = 3.0;

/// How far behind its schedule a system may fall before it is over, where nothing else is said: it does not carry the
/// rate.
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
