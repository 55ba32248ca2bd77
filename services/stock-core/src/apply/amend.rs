//! Amend: replace a hold's basket in one step, so that a shopper's own units never stand in her
//! way.

use std::sync::Arc;

use crate::apply::confirm::wrong_state;
use crate::apply::need::Need;
use crate::command::Amend;
use crate::ids::{At, Principal};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::outcome::{Outcome, Refusal};
use crate::reservation::{ReservationLine, State};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn amend(
        &mut self,
        at: At,
        principal: &Principal,
        amend: &Amend,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        match self.touch(&amend.id, at, ledger) {
            Ok(reservation) if reservation.state == State::Held => {}
            Ok(reservation) => return wrong_state(reservation),
            Err(refusal) => return Outcome::Refused(refusal),
        }
        let Some(held) = self.holds.get(&amend.id).map(Arc::clone) else {
            return Outcome::Refused(Refusal::UnknownReservation);
        };
        let mut needs = Need::merge(&amend.lines);
        if needs.len() > held.lines.len() && self.holds.is_full() {
            return Outcome::Refused(Refusal::TooManyReservations);
        }
        if let Err(outcome) = self.check_needs(&mut needs, Some(&held)) {
            return outcome;
        }

        let wanted = |line: &ReservationLine| {
            needs
                .iter()
                .find(|need| need.sku == line.sku && need.location == line.location)
        };
        for line in held.lines.iter().filter(|line| line.open > 0) {
            let surplus = line.open - wanted(line).map_or(0, |need| need.quantity);
            if surplus > 0 {
                let kind = EntryKind::Released;
                let entry = line.entry(kind, 0, -surplus, amend.id, principal, at.stamp());
                self.shelves.post(entry, ledger);
            }
            let position = (&line.sku, &line.location);
            self.shelves
                .remove_holder(position, held.created_at, amend.id);
        }
        for need in &needs {
            let extra = need.quantity - held.open_units_at(&need.sku, &need.location);
            if extra > 0 {
                let entry = need.entry(EntryKind::Reserved, extra, amend.id, principal, at);
                self.shelves.post(entry, ledger);
            }
            let position = (&need.sku, &need.location);
            self.shelves.add_holder(position, held.created_at, amend.id);
        }

        let expires_at = match amend.ttl_ms {
            Some(ttl_ms) => Some(at.stamp().plus_ms(ttl_ms)),
            None => held.expires_at,
        };
        self.holds.reschedule(amend.id, held.expires_at, expires_at);
        let bytes_before = held.bytes();
        drop(held);
        let Some(reservation) = self.holds.get_mut(&amend.id) else {
            return Outcome::Refused(Refusal::UnknownReservation);
        };
        let amended = Arc::make_mut(reservation);
        amended.expires_at = expires_at;
        amended.lines = needs
            .into_iter()
            .map(|need| ReservationLine::new(need.sku, need.location, need.quantity))
            .collect();
        let bytes = amended.bytes();
        let outcome = Outcome::Reservation(Arc::clone(reservation));
        self.holds.resized(bytes_before, bytes);
        outcome
    }
}
