//! What grows, and how it is measured at each size.

use indicatif::HumanCount;

use crate::lab::Load;

/// How long one call takes when nobody queues.
pub(super) const ALONE: Load = Load::ClosedLoop { in_flight: 1 };
/// How much can be done.
pub(super) const BUSY: Load = Load::ClosedLoop { in_flight: 64 };

/// So many lines over so many shards, as one number: one grows where the other does not.
pub(super) const fn over(lines: u64, shards: u64) -> u64 {
    lines * 1_000 + shards
}

/// The lines and the shards of [`over`].
pub(super) fn reach(size: u64) -> (u64, u64) {
    (size / 1_000, size % 1_000)
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Axis {
    Shards,
    Positions,
    Holds,
    Lines,
    Reach,
}

impl Axis {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Axis::Shards => "shards",
            Axis::Positions => "positions",
            Axis::Holds => "holds",
            Axis::Lines => "lines",
            Axis::Reach => "lines over shards",
        }
    }

    /// How many lines a call of this size has.
    pub(crate) fn lines(self, size: u64) -> u64 {
        match self {
            Axis::Shards | Axis::Positions | Axis::Holds => 1,
            Axis::Lines => size,
            Axis::Reach => reach(size).0,
        }
    }

    /// As people read it.
    pub(crate) fn size(self, size: u64) -> String {
        match self {
            Axis::Reach => {
                let (lines, shards) = reach(size);
                format!("{lines} over {shards}")
            }
            Axis::Shards | Axis::Positions | Axis::Holds | Axis::Lines => {
                HumanCount(size).to_string()
            }
        }
    }
}
