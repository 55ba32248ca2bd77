//! Requests that the registry remembers, so that a retry is harmless. The rule is that of the stock
//! shards: an id is forgotten in the order of stamps and judged by the time inside it, so that none
//! is carried out twice.

use std::collections::BTreeMap;

use stock_core::limits::{CLOCK_AHEAD_MS_MAX, REQUEST_MEMORY_MS, REQUEST_MEMORY_MS_MIN};
use stock_core::{At, Fingerprint, Moment, Principal, Refusal, Request, RequestId, Stamp};

use crate::registry::RegistryOutcome;

/// Requests that are remembered: operators make a few in a minute. Part of the replicated rules.
pub(super) const REQUESTS_REMEMBERED_MAX: usize = 4_096;

/// Who asked, and by which id.
pub(super) type Key = (Principal, RequestId);

/// When it was carried out: in the order of the log.
pub(super) type Place = (Stamp, u64, u32);

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) place: Place,
    pub(super) fingerprint: Fingerprint,
    pub(super) outcome: RegistryOutcome,
}

/// Outcomes by request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct RequestMemory {
    pub(super) known: BTreeMap<Key, Remembered>,
    pub(super) order: BTreeMap<Place, Key>,
    pub(super) horizon: Stamp,
}

impl RequestMemory {
    /// The outcome, if the request was carried out; `None` if it may be.
    pub(super) fn recall(
        &self,
        principal: &Principal,
        request: Request,
        now: Moment,
    ) -> Result<Option<RegistryOutcome>, Refusal> {
        if let Some(known) = self.known.get(&(principal.clone(), request.id)) {
            return if known.fingerprint == request.fingerprint {
                Ok(Some(known.outcome.clone()))
            } else {
                Err(Refusal::RequestReused)
            };
        }
        let made_at = request.id.made_at();
        if made_at < self.horizon {
            let horizon = self.horizon;
            return Err(Refusal::RequestTooOld { horizon });
        }
        if made_at > now.latest().plus_ms(CLOCK_AHEAD_MS_MAX) {
            return Err(Refusal::RequestFromFuture);
        }
        if self.known.len() >= REQUESTS_REMEMBERED_MAX && !self.may_forget_oldest(now) {
            return Err(Refusal::RequestMemoryFull);
        }
        Ok(None)
    }

    pub(super) fn remember(
        &mut self,
        principal: Principal,
        request: Request,
        at: At,
        outcome: RegistryOutcome,
    ) {
        if self.known.len() >= REQUESTS_REMEMBERED_MAX {
            self.forget_oldest();
        }
        let place = (at.stamp(), at.index, at.ordinal);
        let key = (principal, request.id);
        self.order.insert(place, key.clone());
        let fingerprint = request.fingerprint;
        let remembered = Remembered {
            place,
            fingerprint,
            outcome,
        };
        self.known.insert(key, remembered);
    }

    /// Forgets what is older than it need be remembered. An id whose time has not come yet is kept,
    /// and those behind it for so long.
    pub(super) fn forget(&mut self, now: Moment) {
        let keep_from = now.stamp.minus_ms(REQUEST_MEMORY_MS);
        let ahead = now.latest().plus_ms(CLOCK_AHEAD_MS_MAX);
        while self
            .order
            .first_key_value()
            .is_some_and(|((stamp, ..), (_, id))| *stamp < keep_from && id.made_at() <= ahead)
        {
            self.forget_oldest();
        }
    }

    /// Whether the horizon stays a minute behind when the oldest id is forgotten before its time.
    fn may_forget_oldest(&self, now: Moment) -> bool {
        let oldest = self.order.first_key_value();
        oldest.is_none_or(|((stamp, ..), (_, id))| {
            stamp.plus_ms(REQUEST_MEMORY_MS_MIN) <= now.stamp
                && id.made_at().plus_ms(REQUEST_MEMORY_MS_MIN) <= now.latest()
        })
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.horizon = self.horizon.max(key.1.made_at().plus_ms(1));
            self.known.remove(&key);
        }
    }
}
