//! No hold ends before 0.99 of its time to live, in true time.

use std::collections::BTreeMap;

use stock_core::{ReservationId, Stamp};

use super::{Checked, broken};

/// Clocks show whole milliseconds: one is lost where a hold begins, one where it ends.
const ROUNDING_US: u64 = 2_000;

/// When each hold was given its present end.
#[derive(Default)]
pub(crate) struct Holds {
    given: BTreeMap<ReservationId, Given>,
    /// Expiries that were timed.
    timed: u64,
}

#[derive(Clone, Copy)]
struct Given {
    expires_at: Stamp,
    ttl_ms: u64,
    /// When the command that gave it this end got to the leader, if that is known.
    since_us: Option<u64>,
}

impl Holds {
    /// A reservation is as it is after a command, or none is there any more.
    pub(crate) fn changed(
        &mut self,
        id: ReservationId,
        expires_at: Option<Stamp>,
        stamp: Stamp,
        since_us: Option<u64>,
    ) {
        let Some(expires_at) = expires_at else {
            self.given.remove(&id);
            return;
        };
        let is_as_before = self
            .given
            .get(&id)
            .is_some_and(|given| given.expires_at == expires_at);
        if !is_as_before {
            let ttl_ms = expires_at.0.saturating_sub(stamp.0);
            self.given.insert(
                id,
                Given {
                    expires_at,
                    ttl_ms,
                    since_us,
                },
            );
        }
    }

    /// A hold has expired.
    pub(crate) fn expired(&mut self, id: ReservationId, now_us: u64) -> Checked {
        let Some(given) = self.given.remove(&id) else {
            return Ok(());
        };
        let Some(since_us) = given.since_us else {
            return Ok(());
        };
        self.timed += 1;
        let lasted_us = now_us - since_us;
        let least_us = (given.ttl_ms * 990).saturating_sub(ROUNDING_US);
        if lasted_us >= least_us {
            return Ok(());
        }
        broken(
            "no early end",
            format!(
                "{id} was to last {} ms and ended after {} ms of true time",
                given.ttl_ms,
                lasted_us / 1_000
            ),
        )
    }

    /// The time may have jumped as far as somebody set the clock.
    pub(crate) fn forgive(&mut self) {
        for given in self.given.values_mut() {
            given.since_us = None;
        }
    }

    /// How many expiries were timed.
    pub(crate) fn timed(&self) -> u64 {
        self.timed
    }
}
