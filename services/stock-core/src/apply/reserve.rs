//! Reserve: hold every line of a basket, or none.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::apply::holds::Hold;
use crate::apply::need::Need;
use crate::command::Reserve;
use crate::home::own_lines;
use crate::ids::{At, Location, Principal, RequestId, ReservationId, Stamp};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::limits::{LEFT_BEHIND_MS, UNDECIDED_LOOKED_AT_MAX};
use crate::memory::RequestKey;
use crate::outcome::{InTheWay, Outcome, Refusal, ShortLine, Shortage};
use crate::reservation::{Reservation, ReservationLine, State, open_at};
use crate::shard::Shard;
use crate::sku::Sku;

impl Shard {
    pub(crate) fn reserve(
        &mut self,
        at: At,
        principal: &Principal,
        request: RequestId,
        reserve: &Reserve,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        if self.is_reconciling() {
            return Outcome::Refused(Refusal::Reconciling);
        }
        if self.is_full_of_reservations() {
            return Outcome::Refused(Refusal::TooManyReservations);
        }
        if self.holds.get(&reserve.id).is_some() {
            return Outcome::Refused(Refusal::ReservationIdTaken);
        }
        let over = reserve.over.as_deref();
        let in_time = over.map(|over| self.check_in_time(at, &reserve.id, over));
        if let Some(Err(refusal)) = in_time {
            return Outcome::Refused(refusal);
        }
        let is_own = own_lines(&reserve.id, over.map(|over| over.shards));
        let mut needs = Need::of_lines(&reserve.lines);
        let own = needs.iter_mut().filter(|need| is_own(&need.sku));
        if let Err(outcome) = self.check_needs(own, |_, _| 0, over.map(|_| &reserve.id)) {
            return outcome;
        }
        for need in needs.iter().filter(|need| is_own(&need.sku)) {
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
        self.holds.insert(Hold::new(Arc::clone(&reservation), None));
        let Some(over) = over else {
            return Outcome::Reservation(reservation);
        };
        let asked = participants(&reservation, over.shards);
        let request = RequestKey {
            id: request,
            principal: principal.clone(),
        };
        self.prepare(at, &reserve.id, request, over, asked, None)
    }

    /// Whether every need can be met on top of what is held already of each position. If so, the
    /// needs come to share the names that the shard keeps. For a basket over several shards,
    /// of this id, it looks whether undecided ones alone stand in its way.
    pub(crate) fn check_needs<'a>(
        &self,
        needs: impl Iterator<Item = &'a mut Need>,
        held: impl Fn(&Sku, &Location) -> i64,
        over_shards: Option<&ReservationId>,
    ) -> Result<(), Outcome> {
        let mut short = Vec::new();
        let mut in_the_way = InTheWay::Later;
        for need in needs {
            let Some((sku, stock)) = self.shelves.shared_sku(&need.sku) else {
                return Err(Outcome::Refused(Refusal::UnknownSku { line: need.line }));
            };
            let held = held(&need.sku, &need.location);
            let position = stock.position(&need.location);
            let reservable = position.map_or(0, |position| position.reservable());
            if need.quantity > held && need.quantity - held > reservable {
                let missing = need.quantity - held - reservable;
                in_the_way = in_the_way.min(match over_shards {
                    Some(id) if in_the_way > InTheWay::Stock => {
                        self.who_is_in_the_way(id, need, missing)
                    }
                    _ => InTheWay::Stock,
                });
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
            Err(Outcome::Shortage(Arc::new(Shortage {
                lines: short,
                in_the_way,
            })))
        }
    }

    /// What is in the way of a basket of this id that misses so many units of a position, as far
    /// as the reservations show that were held there last.
    fn who_is_in_the_way(&self, than: &ReservationId, need: &Need, missing: i64) -> InTheWay {
        let (sku, location) = (&need.sku, &need.location);
        let Some(stock) = self.shelves.stock(sku) else {
            return InTheWay::Stock;
        };
        let newest = stock.holders.newest_first(location, None);
        let newest = newest.take(UNDECIDED_LOOKED_AT_MAX);
        let left_behind_by = self.stamp().minus_ms(LEFT_BEHIND_MS);
        let (mut earlier, mut later) = (0, 0);
        for (_, id) in newest {
            if let Some((units, asked_at)) = self.undecided_units(&id, sku, location) {
                match id > *than || asked_at <= left_behind_by {
                    true => later += units,
                    false => earlier += units,
                }
            }
        }
        match missing {
            missing if missing <= later => InTheWay::Later,
            missing if missing <= later + earlier => InTheWay::Earlier,
            _ => InTheWay::Stock,
        }
    }

    /// What a basket over several shards holds of a position if it is undecided, and since when.
    fn undecided_units(
        &self,
        id: &ReservationId,
        sku: &Sku,
        location: &Location,
    ) -> Option<(i64, Stamp)> {
        if let Some(part) = self.parts.part(id) {
            let units = open_at(&part.lines, sku, location);
            return part.is_undecided().then_some((units, part.asked_at));
        }
        let hold = self.holds.hold(id)?;
        let spread = hold.spread().filter(|it| it.undecided.is_some())?;
        let units = hold.reservation.open_units_at(sku, location);
        Some((units, spread.asked_at))
    }
}

/// The shards other than its home that a reservation has lines of, by their numbers.
fn participants(reservation: &Reservation, shards: u32) -> SmallVec<[u32; 4]> {
    let of_lines = reservation.lines.iter().map(|line| line.sku.shard(shards));
    let mut others: SmallVec<[u32; 4]> = of_lines
        .filter(|shard| *shard != reservation.id.shard())
        .collect();
    others.sort_unstable();
    others.dedup();
    others
}
