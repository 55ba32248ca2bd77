//! Expiry: a hold whose time has come gives its units back.

use std::sync::Arc;

use crate::home::own_lines;
use crate::ids::{ReservationId, Stamp};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::reservation::State;
use crate::shard::Shard;

impl Shard {
    /// Ends an open reservation. What of it is still set aside goes back on the shelf.
    pub(crate) fn expire(&mut self, id: &ReservationId, now: Stamp, ledger: &mut Vec<LedgerEntry>) {
        let shards = self.holds.shards_of(id);
        let is_own = own_lines(id, shards);
        let Some(reservation) = self.holds.get_mut(id) else {
            return;
        };
        let expired = Arc::make_mut(reservation);
        expired.state = State::Expired;
        let held_at = expired.created_at;
        for line in expired.lines.iter_mut().filter(|line| line.open > 0) {
            let units = std::mem::take(&mut line.open);
            if !is_own(&line.sku) {
                continue;
            }
            let entry = line.entry(EntryKind::Expired, 0, -units, *id, &expired.principal, now);
            self.shelves.post(entry, ledger);
            self.shelves
                .remove_holder((&line.sku, &line.location), held_at, *id);
        }
        let expires_at = expired.expires_at;
        if shards.is_some() {
            self.settled_over_shards(now, id, true, ledger);
        }
        self.holds.close(*id, expires_at, now);
    }
}
