//! Reserve: hold every line of a basket, or none.

use std::sync::Arc;

use crate::apply::need::Need;
use crate::command::Reserve;
use crate::ids::{At, Principal};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::outcome::{Outcome, Refusal, ShortLine, Shortage};
use crate::reservation::{Reservation, ReservationLine, State};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn reserve(
        &mut self,
        at: At,
        principal: &Principal,
        reserve: &Reserve,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        if self.holds.is_full() {
            return Outcome::Refused(Refusal::TooManyReservations);
        }
        if self.holds.get(&reserve.id).is_some() {
            return Outcome::Refused(Refusal::ReservationIdTaken);
        }
        let mut needs = Need::merge(&reserve.lines);
        if let Err(outcome) = self.check_needs(&mut needs, None) {
            return outcome;
        }
        for need in &needs {
            let kind = EntryKind::Reserved;
            let entry = need.entry(kind, need.quantity, reserve.id, principal, at);
            self.shelves.post_held(entry, reserve.id, ledger);
        }
        let reservation = Arc::new(Reservation {
            id: reserve.id,
            state: State::Held,
            expires_at: Some(at.stamp().plus_ms(reserve.ttl_ms)),
            created_at: at.stamp(),
            principal: principal.clone(),
            labels: reserve.labels.clone(),
            lines: needs
                .into_iter()
                .map(|need| ReservationLine::new(need.sku, need.location, need.quantity))
                .collect(),
        });
        if let Some(labels) = &reservation.labels {
            self.names.keep(labels);
        }
        self.holds.insert(Arc::clone(&reservation));
        Outcome::Reservation(reservation)
    }

    /// Whether every need can be met on top of what `own` already holds. If so, the needs come to
    /// share the names that the shard keeps.
    pub(crate) fn check_needs(
        &self,
        needs: &mut [Need],
        own: Option<&Reservation>,
    ) -> Result<(), Outcome> {
        let mut short = Vec::new();
        for need in needs {
            let Some((sku, stock)) = self.shelves.shared_sku(&need.sku) else {
                return Err(Outcome::Refused(Refusal::UnknownSku { line: need.line }));
            };
            let held = own.map_or(0, |own| own.open_units_at(&need.sku, &need.location));
            let position = stock.position(&need.location);
            let reservable = position.map_or(0, |position| position.reservable());
            if need.quantity > held && need.quantity - held > reservable {
                short.push(ShortLine {
                    sku: sku.clone(),
                    location: need.location.clone(),
                    requested: need.quantity,
                    available: position.map_or(0, |position| position.available()),
                    reservable: held + reservable,
                });
            } else if let Some(position) = position {
                need.sku = sku.clone();
                need.location = position.location.clone();
            }
        }
        if short.is_empty() {
            Ok(())
        } else {
            Err(Outcome::Shortage(Arc::new(Shortage { lines: short })))
        }
    }
}
