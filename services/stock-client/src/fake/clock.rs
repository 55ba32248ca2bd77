//! Cluster time that a test can have go on.
//!
//! Clients make ids and times by the clock of the machine, which does not know of that. So each
//! time of theirs is read as what it would have been had the test waited: a time from before a leap
//! stays old, and one from after it is new.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use stock_core::{Moment, Stamp};
use uuid::Uuid;

/// Where a UUIDv7 has its version.
const VERSION_7: usize = 7;

#[derive(Default)]
pub(super) struct Clock {
    /// In milliseconds: when, by the machine's clock, and by how much.
    leaps: Vec<(u64, u64)>,
}

impl Clock {
    pub(super) fn pass(&mut self, time: Duration) {
        let by_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.leaps.push((machine_ms(), by_ms));
    }

    pub(super) fn now(&self) -> Moment {
        let now = Stamp(self.cluster_ms(machine_ms()));
        Moment {
            stamp: now,
            wall: now,
        }
    }

    fn cluster_ms(&self, machine_ms: u64) -> u64 {
        let leaps = self.leaps.iter().filter(|(at_ms, _)| *at_ms <= machine_ms);
        leaps.fold(machine_ms, |ms, (_, by_ms)| ms.saturating_add(*by_ms))
    }

    /// A request id as a machine would have made it that had waited. What is no UUIDv7 is left to
    /// the checks.
    pub(super) fn read_id(&self, id: &mut String) {
        let Ok(uuid) = Uuid::parse_str(id) else {
            return;
        };
        if uuid.get_version_num() != VERSION_7 {
            return;
        }
        let mut bytes = *uuid.as_bytes();
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&bytes[..6]);
        let ms = self.cluster_ms(u64::from_be_bytes(ms)).to_be_bytes();
        bytes[..6].copy_from_slice(&ms[2..]);
        *id = Uuid::from_bytes(bytes).to_string();
    }

    /// Likewise, when something happened.
    pub(super) fn read_time(&self, time: &mut Option<Timestamp>) {
        let Some(time) = time else { return };
        let Ok(seconds) = u64::try_from(time.seconds) else {
            return;
        };
        let ms = u64::from(time.nanos.unsigned_abs()) / 1_000_000;
        let ms = seconds.saturating_mul(1_000).saturating_add(ms);
        let by_ms = self.cluster_ms(ms) - ms;
        let seconds = i64::try_from(by_ms / 1_000).unwrap_or(i64::MAX);
        time.seconds = time.seconds.saturating_add(seconds);
    }
}

/// The machine's clock, in milliseconds since the Unix epoch.
pub(super) fn machine_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> String {
        let mut bytes = *Uuid::now_v7().as_bytes();
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        Uuid::from_bytes(bytes).to_string()
    }

    fn read(clock: &Clock, ms: u64) -> u64 {
        let mut id = id(ms);
        clock.read_id(&mut id);
        u64::from_str_radix(&id.replace('-', "")[..12], 16).unwrap()
    }

    #[test]
    fn what_was_made_before_a_leap_stays_old_and_what_is_made_after_it_is_new() {
        let clock = Clock {
            leaps: vec![(1_000, 500), (2_000, 70)],
        };
        assert_eq!(read(&clock, 999), 999);
        assert_eq!(read(&clock, 1_000), 1_500);
        assert_eq!(read(&clock, 2_001), 2_571);
        let mut no_id = "order-7".to_owned();
        clock.read_id(&mut no_id);
        assert_eq!(no_id, "order-7");
    }
}
