//! This machine's clocks, the only ones that are ever read.

use std::time::{SystemTime, UNIX_EPOCH};

use stock_node::clock::Now;

/// This machine's clocks.
pub fn now() -> Now {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Now {
        boot_ms: boot.tv_sec as u64 * 1_000 + boot.tv_nsec as u64 / 1_000_000,
        wall_ms: wall_ms(),
    }
}

/// This machine's wall clock, in milliseconds since the Unix epoch.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
