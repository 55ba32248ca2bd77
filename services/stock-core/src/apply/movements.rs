//! Movements: facts. They are recorded once, and never refused for want of stock.

use crate::command::{MovementKind, MovementLine, Movements};
use crate::documents::DocumentKey;
use crate::ids::{At, Location, Principal, ReservationId, Sku};
use crate::ledger::{EntryKind, LedgerEntry, Source};
use crate::limits::{CLOCK_AHEAD_MS_MAX, ENDANGERED_MAX};
use crate::memory::Recall;
use crate::outcome::{Discrepancy, LineVerdict, Outcome, Refusal};
use crate::position::Position;
use crate::shard::Shard;

/// Holders looked at in search of the endangered ones: a SKU may be held in a thousand other places.
const HOLDERS_EXAMINED_MAX: usize = 10 * ENDANGERED_MAX;

impl Shard {
    pub(crate) fn record(
        &mut self,
        at: At,
        principal: &Principal,
        movements: &Movements,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let head = Head {
            at,
            principal: principal.clone(),
            kind: movements.kind,
        };
        let verdicts = (0..)
            .zip(&movements.lines)
            .map(|(number, line)| self.record_line(&head, movements, number, line, ledger))
            .collect();
        Outcome::Movements(verdicts)
    }

    fn record_line(
        &mut self,
        head: &Head,
        movements: &Movements,
        number: u32,
        line: &MovementLine,
        ledger: &mut Vec<LedgerEntry>,
    ) -> LineVerdict {
        let stamp = head.at.stamp();
        let occurred_at = line.occurred_at.unwrap_or(stamp);
        let key = DocumentKey::new(head.kind, &movements.document, &line.line);
        match self.documents.recall(key, line.fingerprint, occurred_at) {
            Recall::Answered(()) => return LineVerdict::AlreadyRecorded,
            Recall::Refused(refusal) => return LineVerdict::Refused(refusal),
            Recall::New => {}
        }
        if occurred_at > head.at.moment.latest().plus_ms(CLOCK_AHEAD_MS_MAX) {
            return LineVerdict::Refused(Refusal::OccurredInFuture);
        }
        if let Err(refusal) = self.make_position(head.kind, number, line) {
            return LineVerdict::Refused(refusal);
        }

        let short_before = self.short_by(&line.sku, &line.location);
        let mut entry = LedgerEntry {
            kind: match head.kind {
                MovementKind::Receipt => EntryKind::Receipt,
                MovementKind::Sale => EntryKind::Sale,
                MovementKind::Adjustment => EntryKind::Adjustment,
            },
            sku: line.sku.clone(),
            location: line.location.clone(),
            on_hand_delta: line.on_hand_delta,
            reserved_delta: 0,
            source: Source::Document {
                document: movements.document.clone(),
                line: line.line.clone(),
            },
            principal: head.principal.clone(),
            stamp,
            occurred_at: occurred_at.min(head.at.moment.latest()),
            reason: movements.reason.clone(),
            discrepancy: None,
        };
        // Facts fall below what was promised rather than be refused; the entry says so.
        let discrepancy = self
            .discrepancy(&line.sku, &line.location, line.on_hand_delta)
            .filter(|discrepancy| discrepancy.short_by > short_before)
            .map(Box::new);
        entry.discrepancy.clone_from(&discrepancy);
        self.shelves.post(entry, ledger);
        self.documents
            .remember(key, line.fingerprint, stamp, occurred_at);
        LineVerdict::Recorded(discrepancy)
    }

    /// Sees that the position exists and can take the movement.
    fn make_position(
        &mut self,
        kind: MovementKind,
        number: u32,
        line: &MovementLine,
    ) -> Result<(), Refusal> {
        let stock = self.shelves.stock(&line.sku);
        // A SKU exists from its first receipt or policy: elsewhere an unknown one is a typing error.
        if stock.is_none() && kind != MovementKind::Receipt {
            return Err(Refusal::UnknownSku { line: number });
        }
        let position = stock.and_then(|stock| stock.position(&line.location));
        let fits = match position {
            Some(position) => position.on_hand_fits(line.on_hand_delta),
            None => Position::new(line.location.clone()).on_hand_fits(line.on_hand_delta),
        };
        if !fits {
            return Err(Refusal::CounterOutOfRange { line: number });
        }
        match position {
            Some(_) => Ok(()),
            None => self.new_position(&line.sku, &line.location),
        }
    }

    /// Makes a position, if the shard has room for one more.
    pub(crate) fn new_position(&mut self, sku: &Sku, location: &Location) -> Result<(), Refusal> {
        if self.shelves.is_full() {
            return Err(Refusal::TooManyPositions);
        }
        let location = self.shared_location(location);
        self.shelves.open_position(sku, &location);
        Ok(())
    }

    pub(crate) fn short_by(&self, sku: &Sku, location: &Location) -> i64 {
        let position = self
            .shelves
            .stock(sku)
            .and_then(|stock| stock.position(location));
        position.map_or(0, |position| position.short_by())
    }

    /// What would be amiss at the position after a change of on hand, if anything.
    pub(crate) fn discrepancy(
        &self,
        sku: &Sku,
        location: &Location,
        on_hand_delta: i64,
    ) -> Option<Discrepancy> {
        let stock = self.shelves.stock(sku)?;
        let mut position = stock.position(location)?.clone();
        position.on_hand += on_hand_delta;
        let short_by = position.short_by();
        if short_by == 0 {
            return None;
        }
        let mut covered = 0;
        let mut endangered: Vec<ReservationId> = Vec::new();
        // Ids begin with the time they were made: backwards is newest first.
        for id in stock.holders.iter().rev().take(HOLDERS_EXAMINED_MAX) {
            if covered >= short_by || endangered.len() >= ENDANGERED_MAX {
                break;
            }
            let open = self
                .holds
                .get(id)
                .map_or(0, |held| held.open_units_at(sku, location));
            if open > 0 {
                covered += open;
                endangered.push(*id);
            }
        }
        Some(Discrepancy {
            sku: sku.clone(),
            location: location.clone(),
            available: position.available(),
            short_by,
            endangered,
        })
    }
}

/// What the lines of one document have in common.
struct Head {
    at: At,
    principal: Principal,
    kind: MovementKind,
}
