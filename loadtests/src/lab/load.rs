//! How a window is loaded, and for how long.

use std::time::Duration;

use serde::Serialize;

/// How a window is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// So many callers, each waiting for its answer.
    ClosedLoop { in_flight: u32 },
    /// So many calls a second, on a schedule.
    OpenLoop { per_second: u32 },
    /// Streams on which so many requests may wait for their answers, over all of them.
    Stream { unanswered: u32 },
    /// Streams that are sent so many requests a second, on a schedule.
    OpenStream { per_second: u32 },
    /// So many calls, each at a time of its own.
    Planned { calls: u32 },
}

/// The lead-in lets queues fill and caches warm; only what follows is counted.
#[derive(Clone, Copy)]
pub(crate) struct WindowTimes {
    pub(crate) lead_in: Duration,
    pub(crate) measured: Duration,
    /// How long a point stands for, where points and kinds are asked for.
    pub(crate) point_every: Option<Duration>,
    /// How far behind its schedule an open loop may fall before the window is over.
    pub(crate) behind_max: Duration,
}
