//! Amend: replace a hold's basket in one step, so that a shopper's own units never stand in her
//! way.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::apply::confirm::wrong_state;
use crate::apply::need::Need;
use crate::command::Amend;
use crate::home::Amendment;
use crate::home::own_lines;
use crate::ids::{At, Principal, RequestId};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::memory::RequestKey;
use crate::outcome::{Outcome, Refusal};
use crate::reservation::{Reservation, ReservationLine, ReservationLines, State};
use crate::shard::Shard;
use crate::sku::Sku;

impl Shard {
    pub(crate) fn amend(
        &mut self,
        at: At,
        principal: &Principal,
        request: RequestId,
        amend: &Amend,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        match self.touch(&amend.id, at, ledger) {
            Ok(reservation) if reservation.state == State::Held => {}
            Ok(reservation) => return wrong_state(reservation),
            Err(outcome) => return outcome,
        }
        let Some(hold) = self.holds.hold(&amend.id).cloned() else {
            return Outcome::Refused(Refusal::UnknownReservation);
        };
        let (held, spread) = (&hold.reservation, hold.spread());
        let over = amend.over.as_deref();
        let shards = spread.map(|spread| spread.shards);
        let shards = shards.or(over.map(|over| over.shards));
        let is_own = own_lines(&amend.id, shards);
        let mut needs = Need::of_lines(&amend.lines);
        if self.is_reconciling() {
            return Outcome::Refused(Refusal::Reconciling);
        }
        if needs.len() > held.lines.len() && self.is_full_of_reservations() {
            return Outcome::Refused(Refusal::TooManyReservations);
        }
        let own = needs.iter_mut().filter(|need| is_own(&need.sku));
        let open = |sku: &_, location: &_| held.open_units_at(sku, location);
        if let Err(outcome) = self.check_needs(own, open, over.map(|_| &amend.id)) {
            return outcome;
        }
        let asked = asked(&needs, held, shards);
        let expires_at = match amend.ttl_ms {
            Some(ttl_ms) => Some(at.stamp().plus_ms(ttl_ms)),
            None => held.expires_at,
        };
        if !asked.is_empty() {
            let over = over.ok_or(Refusal::TooLate);
            let in_time = over.and_then(|over| self.check_in_time(at, &amend.id, over));
            let over = match in_time {
                Ok(over) => over,
                Err(refusal) => return Outcome::Refused(refusal),
            };
            let extras = self.hold_more(at, principal, held, &needs, &is_own, ledger);
            let amendment = Amendment {
                lines: needs.into_iter().map(Need::into_line).collect(),
                expires_at,
                extras,
            };
            let request = RequestKey {
                id: request,
                principal: principal.clone(),
            };
            return self.prepare(at, &amend.id, request, over, asked, Some(amendment));
        }

        for line in held.lines.iter().filter(|line| line.open > 0) {
            if !is_own(&line.sku) {
                continue;
            }
            let wanted = needs.iter().find(|need| need.is_of(line));
            let wanted = wanted.map_or(0, |need| need.quantity);
            if line.open > wanted {
                let kind = EntryKind::Released;
                let surplus = line.open - wanted;
                let entry = line.entry(kind, 0, -surplus, amend.id, principal, at.stamp());
                self.shelves.post(entry, ledger);
            }
            if wanted == 0 {
                let position = (&line.sku, &line.location);
                self.shelves
                    .remove_holder(position, held.created_at, amend.id);
            }
        }
        self.hold_more(at, principal, held, &needs, &is_own, ledger);
        self.holds.reschedule(amend.id, held.expires_at, expires_at);
        let bytes_before = hold.bytes();
        drop(hold);
        let Some(hold) = self.holds.buckets.get_mut(&amend.id) else {
            return Outcome::Refused(Refusal::UnknownReservation);
        };
        let amended = Arc::make_mut(&mut hold.reservation);
        amended.expires_at = expires_at;
        amended.lines = needs.into_iter().map(Need::into_line).collect();
        let bytes = hold.bytes();
        let outcome = Outcome::Reservation(Arc::clone(&hold.reservation));
        self.holds.resized(bytes_before, bytes);
        self.holds.decided_anew(&amend.id);
        outcome
    }

    /// Holds at home what a reservation is to have beyond what it has. Returns that.
    fn hold_more(
        &mut self,
        at: At,
        principal: &Principal,
        held: &Reservation,
        needs: &[Need],
        is_own: &impl Fn(&Sku) -> bool,
        ledger: &mut Vec<LedgerEntry>,
    ) -> ReservationLines {
        let mut extras = ReservationLines::new();
        for need in needs.iter().filter(|need| is_own(&need.sku)) {
            let open = held.open_units_at(&need.sku, &need.location);
            let extra = need.quantity - open;
            if extra > 0 {
                let entry = need.entry(EntryKind::Reserved, extra, held.id, principal, at);
                self.shelves.post(entry, ledger);
                let (sku, location) = (need.sku.clone(), need.location.clone());
                extras.push(ReservationLine::new(sku, location, extra));
            }
            if open == 0 {
                let position = (&need.sku, &need.location);
                self.shelves.add_holder(position, held.created_at, held.id);
            }
        }
        extras
    }
}

/// The participants that would have to hold more than they do.
fn asked(needs: &[Need], held: &Reservation, shards: Option<u32>) -> SmallVec<[u32; 4]> {
    let Some(shards) = shards else {
        return SmallVec::new();
    };
    let more = needs
        .iter()
        .filter(|need| need.quantity > held.open_units_at(&need.sku, &need.location));
    let mut asked: SmallVec<[u32; 4]> = more
        .map(|need| need.sku.shard(shards))
        .filter(|shard| *shard != held.id.shard())
        .collect();
    asked.sort_unstable();
    asked.dedup();
    asked
}
