//! What a participant does: it holds its lines of a basket, says whether it does, and follows what
//! home decides.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::apply::need::Need;
use crate::basket::{AllHeld, Follow, HoldPart, Probe};
use crate::ids::{At, Location, Principal, ReservationId, Stamp};
use crate::ledger::{EntryKind, LedgerEntry, Source};
use crate::limits::{ASK_AFTER_MS, COUNTER_MAX};
use crate::outcome::{BasketOutcome, InTheWay, NotHeld, Outcome, Refusal};
use crate::parts::{self, Part, PartRecord, Tombstone};
use crate::reservation::{ReservationLine, ReservationLines, line_at, open_at};
use crate::shard::Shard;
use crate::sku::Sku;

impl Shard {
    pub(crate) fn hold_part(
        &mut self,
        at: At,
        principal: &Principal,
        hold: &HoldPart,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let known = self.parts.get(&hold.id);
        if let Some(outcome) = said_before(known, hold.version) {
            return Outcome::Basket(outcome);
        }
        let is_new = known.is_none();
        let known = known.and_then(PartRecord::part).map(Arc::clone);
        // Nothing is remembered of these: whoever asks may ask again.
        if parts::is_too_soon(hold.asked_at, at.moment) {
            return Outcome::Refused(Refusal::TooLate);
        }
        if self.is_reconciling() {
            return Outcome::Refused(Refusal::Reconciling);
        }
        if self.is_full_of_reservations() || self.parts.is_full() {
            return Outcome::Refused(Refusal::TooManyReservations);
        }
        if parts::is_too_late(hold.asked_at, at.moment) {
            // The wall clocks may say otherwise later.
            self.refuse_part(at, hold, known, NotHeld::Gone);
            return Outcome::Basket(BasketOutcome::NotHeld(NotHeld::Gone));
        }
        let numbered = hold.lines.iter().map(|it| (it.number, &it.line));
        let mut needs = Need::merge(numbered, hold.lines.len());
        let held = known.as_ref().map_or(&[][..], |part| &part.lines);
        if let Err(why) = self.check_part(&hold.id, &mut needs, held) {
            if let NotHeld::Short(shortage) = &why
                && shortage.in_the_way > InTheWay::Stock
                && !hold.is_last_try
            {
                return Outcome::Shortage(Arc::clone(shortage));
            }
            self.refuse_part(at, hold, known, why.clone());
            return Outcome::Basket(BasketOutcome::NotHeld(why));
        }
        let part = self.hold_needs(at, principal, hold, known, needs, ledger);
        match is_new {
            true => self.parts.add(part),
            false => self.parts.put(part),
        }
        Outcome::Basket(BasketOutcome::Held)
    }

    pub(crate) fn probe(
        &mut self,
        at: At,
        principal: &Principal,
        probe: &Probe,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let known = self.parts.get(&probe.id);
        let said = said_before(known, probe.question.version);
        if said.is_none() {
            let known = known.and_then(PartRecord::part).map(Arc::clone);
            let why = NotHeld::Gone;
            let until = parts::over_at(probe.asked_at);
            match known {
                Some(part) => self.mark_refused(&part, probe.question.version, why),
                None => self.bury(at, probe.id, probe.question.version, until, Some(why)),
            }
        }
        if probe.question.has_ended {
            self.free_part(at, principal, &probe.id, ledger);
        }
        let outcome = said.unwrap_or(BasketOutcome::NotHeld(NotHeld::Gone));
        Outcome::Basket(outcome)
    }

    /// Nothing is held for a part any more, unless home has told something of it. It stays known:
    /// what became of it is yet to be told.
    fn free_part(
        &mut self,
        at: At,
        principal: &Principal,
        id: &ReservationId,
        ledger: &mut Vec<LedgerEntry>,
    ) {
        let part = self.parts.get(id).and_then(PartRecord::part);
        let Some(part) = part.map(Arc::clone) else {
            return;
        };
        if part.told > 0 || part.lines.iter().all(|line| line.open == 0) {
            return;
        }
        let mut freed = Part::clone(&part);
        for line in &mut freed.lines {
            let before = line.clone();
            line.open = 0;
            self.follow_line(at, principal, &part, Some(&before), line, ledger);
        }
        self.parts.put(freed);
    }

    pub(crate) fn all_held(&mut self, all: &AllHeld) -> Outcome {
        for basket in &all.baskets {
            self.parts.all_held(basket);
        }
        Outcome::Basket(BasketOutcome::Done)
    }

    pub(crate) fn follow(
        &mut self,
        at: At,
        principal: &Principal,
        follow: &Follow,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let is_over = follow.lines.iter().all(|line| line.open == 0);
        // That it is held, as a rule.
        if let Some(PartRecord::Held(part)) = self.parts.get(&follow.id)
            && part.is_as_told(follow)
            && !is_over
        {
            self.parts.told(&follow.id, follow.version, follow.ask_at);
            return Outcome::Basket(BasketOutcome::Done);
        }
        let part = match self.parts.get(&follow.id) {
            Some(PartRecord::Held(part)) => Arc::clone(part),
            Some(PartRecord::Tombstone(tombstone)) if follow.version <= tombstone.version => {
                return Outcome::Basket(BasketOutcome::Done);
            }
            Some(PartRecord::Tombstone(_)) | None if is_over => {
                let until = parts::over_at(follow.asked_at);
                self.bury(at, follow.id, follow.version, until, None);
                return Outcome::Basket(BasketOutcome::Done);
            }
            Some(PartRecord::Tombstone(_)) | None if !follow.anew => {
                return Outcome::Basket(BasketOutcome::Missing);
            }
            Some(PartRecord::Tombstone(_)) | None => Arc::new(Part {
                id: follow.id,
                principal: principal.clone(),
                created_at: at.stamp(),
                asked_at: follow.asked_at,
                told: 0,
                held: 0,
                ask_at: follow.ask_at,
                refused: None,
                lines: ReservationLines::new(),
            }),
        };
        if follow.version < part.told {
            return Outcome::Basket(BasketOutcome::Done);
        }
        let mut next = Part::clone(&part);
        next.ask_at = follow.ask_at;
        // What is held for a version that is not decided yet stays held: home tells of that version
        // whatever becomes of it.
        if follow.version > part.told && follow.version >= part.held {
            next.held = follow.version;
            next.lines = self.follow_lines(at, principal, &part, &follow.lines, ledger);
        }
        next.told = follow.version;
        if next
            .refused
            .as_ref()
            .is_some_and(|refused| refused.0 <= next.told)
        {
            next.refused = None;
        }
        let is_over = next.lines.iter().all(|line| line.open == 0) && !next.is_undecided();
        match is_over {
            true => {
                let asked_at = follow.asked_at.max(part.asked_at);
                self.bury(at, part.id, follow.version, parts::over_at(asked_at), None);
            }
            false => self.parts.put(next),
        }
        Outcome::Basket(BasketOutcome::Done)
    }

    fn check_part(
        &self,
        id: &ReservationId,
        needs: &mut [Need],
        held: &[ReservationLine],
    ) -> Result<(), NotHeld> {
        let held = |sku: &Sku, location: &Location| open_at(held, sku, location);
        match self.check_needs(needs.iter_mut(), held, Some(id)) {
            Ok(()) => Ok(()),
            Err(Outcome::Shortage(shortage)) => Err(NotHeld::Short(shortage)),
            Err(Outcome::Refused(refusal)) => Err(NotHeld::Refused(refusal)),
            Err(_) => Err(NotHeld::Gone),
        }
    }

    /// Of each position the larger of what is held and what is needed: the part as it is then.
    fn hold_needs(
        &mut self,
        at: At,
        principal: &Principal,
        hold: &HoldPart,
        known: Option<Arc<Part>>,
        needs: SmallVec<[Need; 1]>,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Part {
        let mut part = match known {
            Some(part) => Part::clone(&part),
            None => Part {
                id: hold.id,
                principal: principal.clone(),
                created_at: at.stamp(),
                asked_at: hold.asked_at,
                told: 0,
                held: 0,
                ask_at: at.stamp().plus_ms(ASK_AFTER_MS),
                refused: None,
                lines: ReservationLines::with_capacity(needs.len()),
            },
        };
        for need in needs {
            let line = part.lines.iter_mut();
            let line = line.into_iter().find(|line| need.is_of(line));
            let open = line.as_ref().map_or(0, |line| line.open);
            let more = need.quantity - open;
            if more <= 0 {
                continue;
            }
            let entry = need.entry(EntryKind::Reserved, more, hold.id, principal, at);
            self.shelves.post(entry, ledger);
            if open == 0 {
                let position = (&need.sku, &need.location);
                self.shelves.add_holder(position, part.created_at, hold.id);
            }
            match line {
                Some(line) => {
                    line.open += more;
                    line.quantity += more;
                }
                None => {
                    let (sku, location) = (need.sku, need.location);
                    part.lines
                        .push(ReservationLine::new(sku, location, need.quantity));
                }
            }
        }
        part.held = hold.version;
        part.asked_at = part.asked_at.max(hold.asked_at);
        part.ask_at = part.ask_at.min(at.stamp().plus_ms(ASK_AFTER_MS));
        part
    }

    fn refuse_part(&mut self, at: At, hold: &HoldPart, known: Option<Arc<Part>>, why: NotHeld) {
        match known {
            Some(part) => self.mark_refused(&part, hold.version, why),
            None => {
                let until = parts::over_at(hold.asked_at);
                self.bury(at, hold.id, hold.version, until, Some(why));
            }
        }
    }

    fn mark_refused(&mut self, part: &Part, version: u32, why: NotHeld) {
        let mut part = part.clone();
        part.refused = Some(Box::new((version, why)));
        self.parts.put(part);
    }

    /// Remembers that a version, and all before, will never be held.
    pub(crate) fn bury(
        &mut self,
        at: At,
        id: ReservationId,
        version: u32,
        until: Stamp,
        why: Option<NotHeld>,
    ) {
        let known = self.parts.tombstone(&id);
        let tombstone = Tombstone {
            version: known.map_or(version, |known| known.version.max(version)),
            until: known.map_or(until, |known| known.until.max(until)),
            why,
        };
        self.parts.bury(id, tombstone, at.stamp());
    }

    /// Posts what makes a part's lines those that home tells.
    fn follow_lines(
        &mut self,
        at: At,
        principal: &Principal,
        part: &Part,
        told: &[ReservationLine],
        ledger: &mut Vec<LedgerEntry>,
    ) -> ReservationLines {
        for line in &part.lines {
            if line_at(told, &line.sku, &line.location).is_none() {
                let nothing = ReservationLine {
                    open: 0,
                    released: line.quantity - line.fulfilled,
                    ..line.clone()
                };
                self.follow_line(at, principal, part, Some(line), &nothing, ledger);
            }
        }
        let mut lines = ReservationLines::with_capacity(told.len());
        for line in told {
            let before = line_at(&part.lines, &line.sku, &line.location);
            self.follow_line(at, principal, part, before, line, ledger);
            lines.push(line.clone());
        }
        for line in &mut lines {
            self.shelves.share_names(line);
        }
        lines
    }

    fn follow_line(
        &mut self,
        at: At,
        principal: &Principal,
        part: &Part,
        before: Option<&ReservationLine>,
        now: &ReservationLine,
        ledger: &mut Vec<LedgerEntry>,
    ) {
        let none = ReservationLine {
            quantity: 0,
            ..ReservationLine::new(now.sku.clone(), now.location.clone(), 0)
        };
        // Where something was lost, whatever became of the line was lost with it: it is held anew,
        // and follows from there.
        let is_lost = before.is_none() && self.recoveries.awaited.contains(&part.id.shard());
        let lost = is_lost.then(|| ReservationLine {
            open: now.open + now.fulfilled,
            fulfilled: 0,
            ..now.clone()
        });
        let held_anew = lost.as_ref().map_or(0, |lost| lost.open);
        let before = before.or(lost.as_ref()).unwrap_or(&none);
        let fulfilled = (now.fulfilled - before.fulfilled).clamp(0, before.open.max(0));
        let left = before.open - fulfilled;
        let expired = (now.expired() - before.expired()).clamp(0, left);
        let released = left - expired - now.open;
        // A counter stays in its range, whatever home says.
        let stock = self.shelves.stock(&now.sku);
        let position = stock.and_then(|stock| stock.position(&now.location));
        let room = position.map_or(0, |position| position.on_hand + COUNTER_MAX);
        let kinds = [
            (EntryKind::Reserved, 0, held_anew),
            (EntryKind::Fulfilled, -fulfilled.min(room), -fulfilled),
            (EntryKind::Expired, 0, -expired),
            (EntryKind::Released, 0, -released.max(0)),
            (EntryKind::Reserved, 0, (-released).max(0)),
        ];
        for (kind, on_hand_delta, reserved_delta) in kinds {
            if reserved_delta == 0 {
                continue;
            }
            // It is there, unless what made it was lost.
            let location = self.shared_location(&now.location);
            self.shelves.open_position(&now.sku, &location);
            let entry = LedgerEntry {
                kind,
                sku: now.sku.clone(),
                location: now.location.clone(),
                on_hand_delta,
                reserved_delta,
                source: Source::Reservation(part.id),
                principal: principal.clone(),
                stamp: at.stamp(),
                occurred_at: at.stamp(),
                reason: None,
                discrepancy: None,
            };
            self.shelves.post(entry, ledger);
        }
        let position = (&now.sku, &now.location);
        match (before.open > 0 && !is_lost, now.open > 0) {
            (false, true) => self.shelves.add_holder(position, part.created_at, part.id),
            (true, false) => self
                .shelves
                .remove_holder(position, part.created_at, part.id),
            (true, true) | (false, false) => {}
        }
    }
}

/// What was answered before of a version, or follows from what is known.
fn said_before(known: Option<&PartRecord>, version: u32) -> Option<BasketOutcome> {
    let (over, held, refused) = match known? {
        PartRecord::Held(part) => (part.told, part.held, part.refused()),
        PartRecord::Tombstone(tombstone) => (tombstone.version, 0, tombstone.refused()),
    };
    match refused {
        Some((refused, why)) if refused == version => Some(BasketOutcome::NotHeld(why.clone())),
        _ if version <= over => Some(BasketOutcome::Over),
        _ => (version <= held).then_some(BasketOutcome::Held),
    }
}
