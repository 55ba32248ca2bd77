//! Cluster time as messages have it.

use prost_types::Timestamp;
use stock_core::Stamp;

/// A time as messages have it.
pub fn timestamp(stamp: Stamp) -> Timestamp {
    Timestamp {
        seconds: (stamp.0 / 1_000) as i64,
        nanos: (stamp.0 % 1_000) as i32 * 1_000_000,
    }
}

/// What a message says, to the millisecond; a time before 1970 is 1970.
pub fn stamp(time: &Timestamp) -> Stamp {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let ms = u64::from(time.nanos.unsigned_abs()) / 1_000_000;
    Stamp(seconds.saturating_mul(1_000).saturating_add(ms))
}
