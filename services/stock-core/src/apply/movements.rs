//! Movements: facts. They are recorded once, and never refused for want of stock.

use std::collections::BTreeMap;

use crate::command::{MovementKind, MovementLine, Movements};
use crate::documents::{DocumentKey, Known};
use crate::holders::Holder;
use crate::ids::{At, Location, Principal, ReservationId};
use crate::ledger::{EntryKind, LedgerEntry, Source};
use crate::limits::{
    CLOCK_AHEAD_MS_MAX, ENDANGERED_MAX, ENDANGERED_PER_CALL_MAX, OCCURRED_AHEAD_MS_MAX,
};
use crate::outcome::{Discrepancy, LineVerdict, Outcome, Refusal};
use crate::position::Position;
use crate::shard::Shard;
use crate::sku::Sku;

impl Shard {
    pub(crate) fn record(
        &mut self,
        at: At,
        principal: &Principal,
        movements: &Movements,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let mut head = Head {
            at,
            principal: principal.clone(),
            movements,
            named: Named::default(),
        };
        let verdicts = (0..)
            .zip(&movements.lines)
            .map(|(number, line)| self.record_line(&mut head, number, line, ledger))
            .collect();
        Outcome::Movements(verdicts)
    }

    fn record_line(
        &mut self,
        head: &mut Head<'_>,
        number: u32,
        line: &MovementLine,
        ledger: &mut Vec<LedgerEntry>,
    ) -> LineVerdict {
        let movements = head.movements;
        let (kind, moment) = (movements.kind, head.at.moment);
        let stamp = head.at.stamp();
        let occurred_at = line.occurred_at;
        let key = DocumentKey::new(self.secret, movements, line);
        let fingerprint = line.fingerprint(movements.reason.as_ref());
        match self
            .documents
            .recall(key, fingerprint, (kind, occurred_at), moment)
        {
            Known::Recorded(amiss) => {
                let discrepancy = amiss.map(|it| it.to_discrepancy(&line.sku, &line.location));
                return LineVerdict::AlreadyRecorded { discrepancy };
            }
            Known::Refused(refusal) => return LineVerdict::Refused(refusal),
            Known::New => {}
        }
        let ahead_ms = occurred_at.0.saturating_sub(moment.latest().0);
        if ahead_ms > OCCURRED_AHEAD_MS_MAX {
            return LineVerdict::Refused(Refusal::OccurredInFuture);
        }
        if let Err(refusal) = self.make_position(kind, number, line) {
            return LineVerdict::Refused(refusal);
        }

        let short_before = self.short_by(&line.sku, &line.location);
        let mut entry = LedgerEntry {
            kind: match kind {
                MovementKind::Receipt => EntryKind::Receipt,
                MovementKind::Sale => EntryKind::Sale,
                MovementKind::Adjustment => EntryKind::Adjustment,
            },
            sku: line.sku.clone(),
            location: line.location.clone(),
            on_hand_delta: line.on_hand_delta,
            reserved_delta: 0,
            source: Source::Document {
                reporter: movements.source.clone(),
                document: movements.document.clone(),
                line: line.line.clone(),
            },
            principal: head.principal.clone(),
            stamp,
            occurred_at: occurred_at.min(moment.latest()),
            reason: movements.reason.clone(),
            discrepancy: None,
        };
        // Facts fall below what was promised rather than be refused; the entry says so.
        let discrepancy = self.discrepancy(
            (&line.sku, &line.location),
            line.on_hand_delta,
            short_before,
            &mut head.named,
        );
        entry.discrepancy.clone_from(&discrepancy);
        self.shelves.post(entry, ledger);
        self.documents
            .remember(key, fingerprint, stamp, occurred_at, discrepancy.as_deref());
        LineVerdict::Recorded {
            discrepancy,
            ahead_ms: if ahead_ms > CLOCK_AHEAD_MS_MAX {
                ahead_ms
            } else {
                0
            },
        }
    }

    /// Sees that the position exists and can take the movement.
    fn make_position(
        &mut self,
        kind: MovementKind,
        number: u32,
        line: &MovementLine,
    ) -> Result<(), Refusal> {
        let stock = self.shelves.stock(&line.sku);
        // A SKU exists from its first receipt or policy: elsewhere an unknown one is a typing
        // error.
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

    /// What is set aside for a reservation at a position.
    fn units_set_aside(&self, id: &ReservationId, sku: &Sku, location: &Location) -> i64 {
        let all = self.set_aside(id);
        let here = all.filter(|(at_sku, at, _)| *at_sku == sku && *at == location);
        here.map(|(_, _, units)| units).sum()
    }

    /// What would be amiss at the position after a change of on hand, if it is more than it was
    /// before.
    pub(crate) fn discrepancy(
        &self,
        (sku, location): (&Sku, &Location),
        on_hand_delta: i64,
        short_before: i64,
        named: &mut Named,
    ) -> Option<Box<Discrepancy>> {
        let stock = self.shelves.stock(sku)?;
        let mut position = stock.position(location)?.clone();
        position.on_hand += on_hand_delta;
        let short_by = position.short_by();
        if short_by <= short_before {
            return None;
        }
        let mut endangered: Vec<ReservationId> = Vec::new();
        let mut place = named.at(sku, location);
        let mut holders = stock.holders.newest_first(location, place.last);
        // Each is looked at once by a command: holds do not change within it.
        while place.covered < short_by
            && place.here < ENDANGERED_MAX
            && place.in_all < ENDANGERED_PER_CALL_MAX
            && let Some(holder) = holders.next()
        {
            let (_, id) = holder;
            place.covered += self.units_set_aside(&id, sku, location);
            place.here += 1;
            place.in_all += 1;
            place.last = Some(holder);
            endangered.push(id);
        }
        drop(holders);
        named.set(sku, location, place);
        Some(Box::new(Discrepancy {
            sku: sku.clone(),
            location: location.clone(),
            available: position.available(),
            short_by,
            endangered,
        }))
    }
}

/// What the lines of one document have in common.
struct Head<'a> {
    at: At,
    principal: Principal,
    movements: &'a Movements,
    named: Named,
}

/// Whom of the endangered a command has named: nobody is named twice, and there are bounds.
#[derive(Debug, Default)]
pub(crate) struct Named {
    positions: BTreeMap<(Sku, Location), NamedHere>,
    in_all: usize,
}

/// As far as one position is concerned.
#[derive(Debug, Clone, Copy, Default)]
struct NamedHere {
    /// How many...
    here: usize,
    /// ...up to this one, whoever was held last first...
    last: Option<Holder>,
    /// ...and what they have open there together.
    covered: i64,
    /// At all positions.
    in_all: usize,
}

impl Named {
    fn at(&self, sku: &Sku, location: &Location) -> NamedHere {
        let here = match self.positions.is_empty() {
            true => None,
            false => self.positions.get(&(sku.clone(), location.clone())),
        };
        NamedHere {
            in_all: self.in_all,
            ..here.copied().unwrap_or_default()
        }
    }

    fn set(&mut self, sku: &Sku, location: &Location, named: NamedHere) {
        self.in_all = named.in_all;
        if named.here > 0 {
            let position = (sku.clone(), location.clone());
            self.positions.insert(position, named);
        }
    }
}
