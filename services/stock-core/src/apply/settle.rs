//! Release and fulfil: how units leave a reservation, all of them or some.

use std::sync::Arc;

use crate::apply::confirm::wrong_state;
use crate::command::{Fulfill, PartialLine, Release};
use crate::home::own_lines;
use crate::ids::{At, Principal, ReservationId, Stamp};
use crate::ledger::{EntryKind, LedgerEntry, Source};
use crate::outcome::{Outcome, Refusal};
use crate::reservation::{Reservation, ReservationLine, State};
use crate::shard::Shard;
use crate::text::Reason;

/// How units leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit<'a> {
    /// And why, where an operator does it in the holder's place.
    Released(Option<&'a Reason>),
    Fulfilled,
}

impl Shard {
    pub(crate) fn release(
        &mut self,
        at: At,
        principal: &Principal,
        release: &Release,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        // All of it may be given back whatever becomes of what is not decided yet.
        let touched = match release.lines.is_empty() {
            true => self.touch_undecided(&release.id, at, ledger),
            false => self.touch(&release.id, at, ledger),
        };
        match touched {
            Ok(reservation) if reservation.state.is_open() => {}
            Ok(reservation) => return wrong_state(reservation),
            Err(outcome) => return outcome,
        }
        self.settle(
            at,
            principal,
            &release.id,
            &release.lines,
            Exit::Released(release.forced.as_ref()),
            ledger,
        )
    }

    pub(crate) fn fulfill(
        &mut self,
        at: At,
        principal: &Principal,
        fulfill: &Fulfill,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        match self.touch(&fulfill.id, at, ledger) {
            Ok(reservation) if reservation.state == State::Confirmed => {}
            Ok(reservation) => return wrong_state(reservation),
            Err(outcome) => return outcome,
        }
        self.settle(
            at,
            principal,
            &fulfill.id,
            &fulfill.lines,
            Exit::Fulfilled,
            ledger,
        )
    }

    fn settle(
        &mut self,
        at: At,
        principal: &Principal,
        id: &ReservationId,
        asked: &[PartialLine],
        exit: Exit<'_>,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let shards = self.holds.shards_of(id);
        let is_own = own_lines(id, shards);
        let Some(reservation) = self.holds.get_mut(id) else {
            return Outcome::Refused(Refusal::UnknownReservation);
        };
        let taken = match units_taken(reservation, asked) {
            Ok(taken) => taken,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        if exit == Exit::Fulfilled {
            for (number, (line, units)) in (0..).zip(reservation.lines.iter().zip(&taken)) {
                let position = self
                    .shelves
                    .stock(&line.sku)
                    .and_then(|s| s.position(&line.location));
                let leaves_range = position.is_some_and(|position| !position.on_hand_fits(-units));
                if is_own(&line.sku) && leaves_range {
                    return Outcome::Refused(Refusal::CounterOutOfRange { line: number });
                }
            }
        }
        let settled = Arc::make_mut(reservation);
        let held_at = settled.created_at;
        for (line, units) in settled.lines.iter_mut().zip(taken) {
            if units == 0 {
                continue;
            }
            line.open -= units;
            let is_own = is_own(&line.sku);
            if line.open == 0 && is_own {
                let position = (&line.sku, &line.location);
                self.shelves.remove_holder(position, held_at, *id);
            }
            let (kind, on_hand_delta, reason) = match exit {
                Exit::Released(reason) => {
                    line.released += units;
                    (EntryKind::Released, 0, reason.cloned())
                }
                Exit::Fulfilled => {
                    line.fulfilled += units;
                    (EntryKind::Fulfilled, -units, None)
                }
            };
            // Those of other shards are posted there, once they have been told.
            if is_own {
                let entry = line.entry(kind, on_hand_delta, -units, *id, principal, at.stamp());
                self.shelves.post(LedgerEntry { reason, ..entry }, ledger);
            }
        }
        let ended = !settled.has_open_units();
        if ended {
            settled.state = match exit {
                Exit::Released(_) => State::Released,
                Exit::Fulfilled => State::Fulfilled,
            };
        }
        let expires_at = settled.expires_at;
        let outcome = Outcome::Reservation(Arc::clone(reservation));
        if shards.is_some() {
            self.settled_over_shards(at.stamp(), id, ended, ledger);
        }
        if ended {
            self.holds.close(*id, expires_at, at.stamp());
        }
        outcome
    }
}

/// How many units each line of the reservation gives up: what was asked for, or all that is open.
fn units_taken(reservation: &Reservation, asked: &[PartialLine]) -> Result<Vec<i64>, Refusal> {
    if asked.is_empty() {
        return Ok(reservation.lines.iter().map(|line| line.open).collect());
    }
    let mut taken = vec![0; reservation.lines.len()];
    for (number, ask) in (0..).zip(asked) {
        let matches = |line: &ReservationLine| {
            line.sku == ask.sku && ask.location.as_ref().is_none_or(|at| *at == line.location)
        };
        let mut places = (0..taken.len()).filter(|&place| matches(&reservation.lines[place]));
        let place = places
            .next()
            .ok_or(Refusal::LineNotInReservation { line: number })?;
        if places.next().is_some() {
            return Err(Refusal::LineAmbiguous { line: number });
        }
        taken[place] += ask.quantity.get();
        let open = reservation.lines[place].open;
        if taken[place] > open {
            return Err(Refusal::LineExceedsOpen { line: number, open });
        }
    }
    Ok(taken)
}

impl ReservationLine {
    pub(crate) fn entry(
        &self,
        kind: EntryKind,
        on_hand_delta: i64,
        reserved_delta: i64,
        id: ReservationId,
        principal: &Principal,
        stamp: Stamp,
    ) -> LedgerEntry {
        LedgerEntry {
            kind,
            sku: self.sku.clone(),
            location: self.location.clone(),
            on_hand_delta,
            reserved_delta,
            source: Source::Reservation(id),
            principal: principal.clone(),
            stamp,
            occurred_at: stamp,
            reason: None,
            discrepancy: None,
        }
    }
}
