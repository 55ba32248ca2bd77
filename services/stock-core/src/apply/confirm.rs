//! Confirm and extend: how long a reservation lasts.

use std::sync::Arc;

use crate::command::{Confirm, Extend};
use crate::home::own_lines;
use crate::ids::{At, Principal, ReservationId, Stamp};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::outcome::{Outcome, Refusal};
use crate::reservation::{Reservation, ReservationLine, State};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn confirm(
        &mut self,
        at: At,
        principal: &Principal,
        confirm: &Confirm,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let held = match self.touch(&confirm.id, at, ledger) {
            Ok(reservation) if reservation.state == State::Held => reservation,
            Ok(reservation) => return wrong_state(reservation),
            Err(outcome) => return outcome,
        };
        let before = held.expires_at;
        let expires_at = confirm.pickup_within_ms.map(|ms| at.stamp().plus_ms(ms));
        self.set_life(&confirm.id, State::Confirmed, before, expires_at);
        self.note(&confirm.id, EntryKind::Confirmed, principal, at, ledger)
    }

    pub(crate) fn extend(
        &mut self,
        at: At,
        principal: &Principal,
        extend: &Extend,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let open = match self.touch(&extend.id, at, ledger) {
            Ok(reservation) if reservation.state.is_open() => reservation,
            Ok(reservation) => return wrong_state(reservation),
            Err(outcome) => return outcome,
        };
        let Some(before) = open.expires_at else {
            return Outcome::Refused(Refusal::NothingToExtend);
        };
        let state = open.state;
        // A shorter time to live does not end a hold sooner than was promised.
        let after = before.max(at.stamp().plus_ms(extend.ttl_ms));
        self.set_life(&extend.id, state, Some(before), Some(after));
        self.note(&extend.id, EntryKind::Extended, principal, at, ledger)
    }

    /// The reservation as a command finds it: one that is due has expired, whether or not the
    /// sweep has come to it yet. What is not decided yet cannot be changed.
    pub(crate) fn touch(
        &mut self,
        id: &ReservationId,
        at: At,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Result<&Reservation, Outcome> {
        let is_open = self.touch_undecided(id, at, ledger)?.state.is_open();
        match self.prepared(id) {
            Some(prepared) if is_open => Err(Outcome::Undecided(prepared)),
            _ => match self.holds.get(id) {
                Some(reservation) => Ok(reservation),
                None => Err(Outcome::Refused(Refusal::UnknownReservation)),
            },
        }
    }

    /// As [`Self::touch`], though it may not be decided yet.
    pub(crate) fn touch_undecided(
        &mut self,
        id: &ReservationId,
        at: At,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Result<&Reservation, Outcome> {
        if self
            .holds
            .get(id)
            .is_some_and(|reservation| reservation.is_due(at.stamp()))
        {
            self.expire(id, at.stamp(), ledger);
        }
        match self.holds.get(id) {
            Some(reservation) => Ok(reservation),
            None => Err(Outcome::Refused(Refusal::UnknownReservation)),
        }
    }

    fn set_life(
        &mut self,
        id: &ReservationId,
        state: State,
        before: Option<Stamp>,
        expires_at: Option<Stamp>,
    ) {
        self.holds.reschedule(*id, before, expires_at);
        if let Some(reservation) = self.holds.get_mut(id) {
            let reservation = Arc::make_mut(reservation);
            reservation.state = state;
            reservation.expires_at = expires_at;
        }
    }

    /// Writes down a change that moved no units, once for each line, and answers.
    fn note(
        &mut self,
        id: &ReservationId,
        kind: EntryKind,
        principal: &Principal,
        at: At,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let Some(reservation) = self.holds.get(id) else {
            return Outcome::Refused(Refusal::UnknownReservation);
        };
        let is_own = own_lines(id, self.holds.shards_of(id));
        let is_noted = |line: &&ReservationLine| line.open > 0 && is_own(&line.sku);
        for line in reservation.lines.iter().filter(is_noted) {
            self.shelves
                .post(line.entry(kind, 0, 0, *id, principal, at.stamp()), ledger);
        }
        Outcome::Reservation(Arc::clone(reservation))
    }
}

pub(crate) fn wrong_state(reservation: &Reservation) -> Outcome {
    Outcome::Refused(Refusal::WrongState {
        state: reservation.state,
    })
}
