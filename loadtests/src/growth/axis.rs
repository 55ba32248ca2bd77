//! What grows, and how it is measured at each size.

use crate::lab::Load;

/// How long one call takes when nobody queues.
pub(super) const ALONE: Load = Load::ClosedLoop { in_flight: 1 };
/// How much can be done.
pub(super) const BUSY: Load = Load::ClosedLoop { in_flight: 64 };

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Axis {
    Shards,
    Positions,
    Holds,
    Lines,
}

impl Axis {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Axis::Shards => "shards",
            Axis::Positions => "positions",
            Axis::Holds => "holds",
            Axis::Lines => "lines",
        }
    }
}
