//! The rules of the stock state machine once more, as plainly as they can be written: lists, linear
//! scans, and no counter that could be derived. It shares nothing with the crate but the types of
//! its commands and answers.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use stock_core::{
    Action, At, Command, Discrepancy, Document, EntryKind, Filter, LedgerEntry, Line, LineVerdict,
    Location, Moment, MovementKind, MovementLine, Movements, Operation, Outcome, PartialLine,
    Policy, Principal, Reason, Refusal, Reporter, RequestId, Reservation, ReservationId,
    ReservationLine, SetPolicy, ShortLine, Shortage, Sku, Source, Stamp, State,
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;
const COUNTER_MAX: i128 = 1_000_000_000_000_000;
const EXPIRIES_PER_ENTRY: usize = 512;
const FORGOTTEN_PER_ENTRY: usize = 2_048;
const ENDANGERED_MAX: usize = 100;
const ENDANGERED_IN_ALL_MAX: usize = 1_000;

#[derive(Default)]
pub(crate) struct Naive {
    shelves: Vec<OpenLedger>,
    pub(crate) reservations: Vec<Known>,
    requests: Vec<Answered>,
    requests_horizon: u64,
    documents: Vec<Recorded>,
    documents_horizon: u64,
    pub(crate) ledger: Vec<LedgerEntry>,
}

struct OpenLedger {
    sku: Sku,
    location: Location,
    on_hand: i64,
    safety_stock: i64,
    backorder_limit: i64,
}

#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) what: Reservation,
    ended_at: Option<u64>,
}

struct Answered {
    principal: Principal,
    id: RequestId,
    asked: Operation,
    at: u64,
    outcome: Outcome,
}

struct Recorded {
    kind: MovementKind,
    source: Reporter,
    document: Document,
    line: MovementLine,
    reason: Option<Reason>,
    at: u64,
    latest: u64,
    discrepancy: Option<Box<Discrepancy>>,
}

fn reservation_bytes(what: &Reservation) -> usize {
    let labels = what.labels.as_ref().map_or(0, |labels| {
        let reference = labels.order_reference.as_ref();
        144 + reference.map_or(0, |reference| reference.as_str().len())
    });
    184 + labels + 72 * what.lines.len()
}

/// What a client sent: the id that a reserve proposes is the edge's.
fn as_sent(operation: &Operation) -> Operation {
    let mut sent = operation.clone();
    if let Operation::Reserve(reserve) = &mut sent {
        reserve.id = ReservationId::compose(Stamp(0), 0, 0);
    }
    sent
}

/// So many units of a SKU at a location; the number of the first line that says so.
struct Want {
    sku: Sku,
    location: Location,
    units: i64,
    line: u32,
}

/// Who does something, and when.
struct Who<'a> {
    principal: &'a Principal,
    /// Cluster time.
    now: u64,
    /// Or what the nodes' wall clocks show, if that is later...
    latest: u64,
    /// ...or earlier.
    earliest: u64,
}

impl Naive {
    pub(crate) fn advance(&mut self, moment: Moment) {
        let now = moment.stamp.0;
        let latest = now.max(moment.wall.0.min(now + 45 * DAY));
        let mut due: Vec<(Stamp, ReservationId)> = self
            .reservations
            .iter()
            .filter(|known| known.is_due(now))
            .map(|known| (known.what.expires_at.unwrap(), known.what.id))
            .collect();
        due.sort();
        for (_, id) in due.into_iter().take(EXPIRIES_PER_ENTRY) {
            self.expire(id, now);
        }
        // All three lists are in the order of their stamps.
        for _ in 0..FORGOTTEN_PER_ENTRY {
            if self
                .requests
                .first()
                .is_none_or(|first| first.at + 10 * MINUTE >= now)
            {
                break;
            }
            let forgotten = self.requests.remove(0);
            if forgotten.id.made_at().0 > latest + MINUTE {
                // Its time has not come yet.
                self.requests.push(Answered {
                    at: now,
                    ..forgotten
                });
                continue;
            }
            self.requests_horizon = self.requests_horizon.max(forgotten.id.made_at().0 + 1);
        }
        for _ in 0..FORGOTTEN_PER_ENTRY {
            if self
                .documents
                .first()
                .is_none_or(|first| first.at + 30 * DAY >= now)
            {
                break;
            }
            let forgotten = self.documents.remove(0);
            self.documents_horizon = self.documents_horizon.max(forgotten.latest + 1);
        }
        self.reservations
            .retain(|known| known.ended_at.is_none_or(|at| at + DAY >= now));
    }

    pub(crate) fn apply(&mut self, at: At, command: &Command) -> Outcome {
        let now = at.stamp().0;
        let who = Who {
            principal: &command.principal,
            now,
            latest: now.max(at.moment.wall.0.min(now + 45 * DAY)),
            earliest: now.min(at.moment.wall.0),
        };
        let (request, operation) = match &command.action {
            Action::Movements(movements) => return self.movements(&who, movements),
            Action::Request(request, operation) => (request, operation),
        };
        let same = |known: &&Answered| known.principal == *who.principal && known.id == request.id;
        if let Some(known) = self.requests.iter().find(same) {
            return match known.asked == as_sent(operation) {
                true => known.outcome.clone(),
                false => Outcome::Refused(Refusal::RequestReused),
            };
        }
        let made_at = request.id.made_at().0;
        if made_at < self.requests_horizon {
            let horizon = Stamp(self.requests_horizon);
            return Outcome::Refused(Refusal::RequestTooOld { horizon });
        }
        if made_at > who.latest + MINUTE {
            return Outcome::Refused(Refusal::RequestFromFuture);
        }
        let outcome = match self.operate(&who, operation) {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Refused(refusal),
        };
        if outcome != Outcome::Refused(Refusal::ReservationIdTaken) {
            self.requests.push(Answered {
                principal: command.principal.clone(),
                id: request.id,
                asked: as_sent(operation),
                at: now,
                outcome: outcome.clone(),
            });
        }
        outcome
    }

    /// Units of open reservations, counted anew each time.
    fn reserved(&self, sku: &Sku, location: &Location) -> i64 {
        let lines = self.reservations.iter().flat_map(|known| &known.what.lines);
        let open = lines.filter(|line| line.open > 0);
        let here = open.filter(|line| line.sku == *sku && line.location == *location);
        here.map(|line| line.open).sum()
    }

    pub(crate) fn on_hand(&self, sku: &Sku, location: &Location) -> i64 {
        self.shelf(sku, location).map_or(0, |shelf| shelf.on_hand)
    }

    fn operate(&mut self, who: &Who<'_>, operation: &Operation) -> Result<Outcome, Refusal> {
        match operation {
            Operation::Reserve(reserve) => {
                if self.find(reserve.id).is_some() {
                    return Err(Refusal::ReservationIdTaken);
                }
                let wants = sum_up(&reserve.lines);
                if let Some(shortage) = self.shortage(&wants, None)? {
                    return Ok(shortage);
                }
                for want in &wants {
                    let kind = EntryKind::Reserved;
                    self.note(
                        who,
                        kind,
                        &want.sku,
                        &want.location,
                        (0, want.units),
                        reserve.id,
                    );
                }
                let reservation = Reservation {
                    id: reserve.id,
                    state: State::Held,
                    expires_at: Some(Stamp(who.now + reserve.ttl_ms)),
                    created_at: Stamp(who.now),
                    principal: who.principal.clone(),
                    lines: wants.iter().map(all_open).collect(),
                    labels: reserve.labels.clone(),
                };
                self.reservations.push(Known {
                    what: reservation.clone(),
                    ended_at: None,
                });
                Ok(Outcome::Reservation(Arc::new(reservation)))
            }
            Operation::Confirm(confirm) => {
                let known = self.touch(confirm.id, who.now, &[State::Held])?;
                known.what.state = State::Confirmed;
                known.what.expires_at = confirm.pickup_within_ms.map(|ms| Stamp(who.now + ms));
                let known = known.what.clone();
                self.note_lines(who, EntryKind::Confirmed, &known);
                Ok(Outcome::Reservation(Arc::new(known)))
            }
            Operation::Extend(extend) => {
                let open = [State::Held, State::Confirmed];
                let known = self.touch(extend.id, who.now, &open)?;
                let before = known.what.expires_at.ok_or(Refusal::NothingToExtend)?;
                let asked = Stamp(who.now + extend.ttl_ms);
                known.what.expires_at = Some(if asked > before { asked } else { before });
                let known = known.what.clone();
                self.note_lines(who, EntryKind::Extended, &known);
                Ok(Outcome::Reservation(Arc::new(known)))
            }
            Operation::Release(release) => {
                let open = [State::Held, State::Confirmed];
                self.touch(release.id, who.now, &open)?;
                let before = self.ledger.len();
                let settled = self.settle(who, release.id, &release.lines, EntryKind::Released);
                for entry in &mut self.ledger[before..] {
                    entry.reason.clone_from(&release.forced);
                }
                settled
            }
            Operation::Fulfill(fulfill) => {
                self.touch(fulfill.id, who.now, &[State::Confirmed])?;
                self.settle(who, fulfill.id, &fulfill.lines, EntryKind::Fulfilled)
            }
            Operation::Amend(amend) => {
                let held = self.touch(amend.id, who.now, &[State::Held])?.what.clone();
                let wants = sum_up(&amend.lines);
                if let Some(shortage) = self.shortage(&wants, Some(&held))? {
                    return Ok(shortage);
                }
                for line in &held.lines {
                    let same = |w: &&Want| w.sku == line.sku && w.location == line.location;
                    let units = wants.iter().find(same).map_or(0, |want| want.units);
                    if line.open > units {
                        let delta = (0, units - line.open);
                        let kind = EntryKind::Released;
                        self.note(who, kind, &line.sku, &line.location, delta, amend.id);
                    }
                }
                for want in &wants {
                    let more = want.units - own_units(Some(&held), want);
                    if more > 0 {
                        let kind = EntryKind::Reserved;
                        self.note(who, kind, &want.sku, &want.location, (0, more), amend.id);
                    }
                }
                let known = self.find(amend.id).unwrap();
                known.what.lines = wants.iter().map(all_open).collect();
                if let Some(ttl_ms) = amend.ttl_ms {
                    known.what.expires_at = Some(Stamp(who.now + ttl_ms));
                }
                Ok(Outcome::Reservation(Arc::new(known.what.clone())))
            }
            Operation::SetPolicy(policy) => self.set_policy(who, policy),
        }
    }

    /// What somebody looks for, in no order.
    pub(crate) fn list(&self, filter: &Filter) -> BTreeSet<ReservationId> {
        let fits = |known: &&Known| {
            let what = &known.what;
            let labels = what.labels.as_deref();
            let reference = labels.and_then(|it| it.order_reference.clone());
            let channel = labels.and_then(|it| it.channel.clone());
            let lines = what.lines.iter();
            let mut lines = lines
                .filter(|line| filter.sku.is_none() || filter.sku.as_ref() == Some(&line.sku))
                .filter(|line| match &filter.location {
                    Some(location) => *location == line.location,
                    None => true,
                });
            let is_open = [State::Held, State::Confirmed].contains(&what.state);
            lines.next().is_some()
                && (filter.order_reference.is_none() || filter.order_reference == reference)
                && (filter.channel.is_none() || filter.channel == channel)
                && (filter.states.is_empty() || filter.states.contains(&what.state))
                && match (filter.due_before, what.expires_at) {
                    (None, _) => true,
                    (Some(before), Some(due)) => is_open && due < before,
                    (Some(_), None) => false,
                }
                && match filter.created_after {
                    None => true,
                    Some(after) => what.created_at > after,
                }
        };
        let fitting = self.reservations.iter().filter(fits);
        fitting.map(|known| known.what.id).collect()
    }

    fn settle(
        &mut self,
        who: &Who<'_>,
        id: ReservationId,
        asked: &[PartialLine],
        kind: EntryKind,
    ) -> Result<Outcome, Refusal> {
        let before = self.find(id).unwrap().what.clone();
        let mut after = before.clone();
        for (number, ask) in (0..).zip(asked) {
            let mut fitting: Vec<&mut ReservationLine> = after
                .lines
                .iter_mut()
                .filter(|line| line.sku == ask.sku)
                .filter(|line| {
                    ask.location.is_none() || ask.location.as_ref() == Some(&line.location)
                })
                .collect();
            let line = match fitting.len() {
                0 => return Err(Refusal::LineNotInReservation { line: number }),
                1 => &mut fitting[0],
                _ => return Err(Refusal::LineAmbiguous { line: number }),
            };
            if ask.quantity.get() > line.open {
                let at = |l: &&ReservationLine| l.sku == line.sku && l.location == line.location;
                let open = before.lines.iter().find(at).unwrap().open;
                return Err(Refusal::LineExceedsOpen { line: number, open });
            }
            line.open -= ask.quantity.get();
        }
        if asked.is_empty() {
            for line in &mut after.lines {
                line.open = 0;
            }
        }
        let units =
            |(before, after): (&ReservationLine, &ReservationLine)| before.open - after.open;
        let taken: Vec<i64> = before.lines.iter().zip(&after.lines).map(units).collect();
        if kind == EntryKind::Fulfilled {
            for (number, (line, units)) in (0..).zip(before.lines.iter().zip(&taken)) {
                let shelf = self.shelf(&line.sku, &line.location).unwrap();
                if i128::from(shelf.on_hand) - i128::from(*units) < -COUNTER_MAX {
                    return Err(Refusal::CounterOutOfRange { line: number });
                }
            }
        }
        for (line, units) in after.lines.iter_mut().zip(taken) {
            if units == 0 {
                continue;
            }
            let on_hand = if kind == EntryKind::Fulfilled {
                line.fulfilled += units;
                -units
            } else {
                line.released += units;
                0
            };
            self.note(who, kind, &line.sku, &line.location, (on_hand, -units), id);
        }
        let ended = after.lines.iter().all(|line| line.open == 0);
        if ended && kind == EntryKind::Fulfilled {
            after.state = State::Fulfilled;
        } else if ended {
            after.state = State::Released;
        }
        let known = self.find(id).unwrap();
        known.what = after.clone();
        known.ended_at = ended.then_some(who.now);
        Ok(Outcome::Reservation(Arc::new(after)))
    }

    fn set_policy(&mut self, who: &Who<'_>, policy: &SetPolicy) -> Result<Outcome, Refusal> {
        for units in [policy.safety_stock, policy.backorder_limit]
            .into_iter()
            .flatten()
        {
            if !(0..=COUNTER_MAX).contains(&i128::from(units)) {
                return Err(Refusal::CounterOutOfRange { line: 0 });
            }
        }
        let before = self.short_by(&policy.sku, &policy.location);
        let shelf = self.shelf_or_new(&policy.sku, &policy.location);
        if let Some(units) = policy.safety_stock {
            shelf.safety_stock = units;
        }
        if let Some(units) = policy.backorder_limit {
            shelf.backorder_limit = units;
        }
        let (safety_stock, backorder_limit) = (shelf.safety_stock, shelf.backorder_limit);
        let nobody = &mut Vec::new();
        let discrepancy = self.discrepancy(&policy.sku, &policy.location, before, nobody);
        self.ledger.push(LedgerEntry {
            kind: EntryKind::Policy,
            sku: policy.sku.clone(),
            location: policy.location.clone(),
            on_hand_delta: 0,
            reserved_delta: 0,
            source: Source::Policy,
            principal: who.principal.clone(),
            stamp: Stamp(who.now),
            occurred_at: Stamp(who.now),
            reason: None,
            discrepancy: discrepancy.clone(),
        });
        Ok(Outcome::Policy(Policy {
            safety_stock,
            backorder_limit,
            available: self.available(&policy.sku, &policy.location),
            discrepancy,
        }))
    }

    fn movements(&mut self, who: &Who<'_>, movements: &Movements) -> Outcome {
        let mut verdicts = Vec::new();
        let mut named = Vec::new();
        for (number, line) in (0..).zip(&movements.lines) {
            verdicts.push(
                match self.movement(who, movements, number, line, &mut named) {
                    Ok(verdict) => verdict,
                    Err(refusal) => LineVerdict::Refused(refusal),
                },
            );
        }
        Outcome::Movements(verdicts.into())
    }

    fn movement(
        &mut self,
        who: &Who<'_>,
        movements: &Movements,
        number: u32,
        line: &MovementLine,
        named: &mut Vec<(Sku, Location, ReservationId)>,
    ) -> Result<LineVerdict, Refusal> {
        let occurred_at = line.occurred_at.0;
        let same = |known: &&Recorded| {
            known.kind == movements.kind
                && known.source == movements.source
                && known.document == movements.document
                && known.line.line == line.line
                && known.line.sku == line.sku
                && known.line.location == line.location
        };
        match self.documents.iter().find(same) {
            Some(known) if known.line == *line && known.reason == movements.reason => {
                let discrepancy = known.discrepancy.clone();
                return Ok(LineVerdict::AlreadyRecorded { discrepancy });
            }
            Some(_) => return Err(Refusal::DocumentReused),
            None => {}
        }
        let horizon = self.documents_horizon.max(who.earliest - 30 * DAY);
        if occurred_at < horizon {
            let horizon = Stamp(horizon);
            return Err(Refusal::DocumentTooOld { horizon });
        }
        if occurred_at > who.latest + DAY {
            return Err(Refusal::OccurredInFuture);
        }
        if movements.kind != MovementKind::Receipt && !self.knows(&line.sku) {
            return Err(Refusal::UnknownSku { line: number });
        }
        let on_hand =
            i128::from(self.on_hand(&line.sku, &line.location)) + i128::from(line.on_hand_delta);
        if on_hand.abs() > COUNTER_MAX {
            return Err(Refusal::CounterOutOfRange { line: number });
        }
        let before = self.short_by(&line.sku, &line.location);
        self.shelf_or_new(&line.sku, &line.location).on_hand += line.on_hand_delta;
        let discrepancy = self.discrepancy(&line.sku, &line.location, before, named);
        self.documents.push(Recorded {
            kind: movements.kind,
            source: movements.source.clone(),
            document: movements.document.clone(),
            line: line.clone(),
            reason: movements.reason.clone(),
            at: who.now,
            latest: who.now + occurred_at.saturating_sub(who.now).div_ceil(2 * MINUTE) * 2 * MINUTE,
            discrepancy: discrepancy.clone(),
        });
        let reason: Option<Reason> = movements.reason.clone();
        self.ledger.push(LedgerEntry {
            kind: match movements.kind {
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
            principal: who.principal.clone(),
            stamp: Stamp(who.now),
            occurred_at: Stamp(occurred_at.min(who.latest)),
            reason,
            discrepancy: discrepancy.clone(),
        });
        let ahead_ms = occurred_at.saturating_sub(who.latest);
        Ok(LineVerdict::Recorded {
            discrepancy,
            ahead_ms: if ahead_ms > MINUTE { ahead_ms } else { 0 },
        })
    }

    /// What is amiss at a position, if it is more than it was. Who was named before by the same
    /// command is not named again.
    fn discrepancy(
        &self,
        sku: &Sku,
        location: &Location,
        before: i64,
        named: &mut Vec<(Sku, Location, ReservationId)>,
    ) -> Option<Box<Discrepancy>> {
        let short_by = self.short_by(sku, location);
        if short_by <= before {
            return None;
        }
        let mut holders: Vec<((Stamp, ReservationId), i64)> = Vec::new();
        for known in &self.reservations {
            for line in &known.what.lines {
                if line.open > 0 && line.sku == *sku && line.location == *location {
                    holders.push(((known.what.created_at, known.what.id), line.open));
                }
            }
        }
        holders.sort_by_key(|(id, _)| Reverse(*id));
        let mut endangered = Vec::new();
        let mut left = short_by;
        for ((_, id), open) in holders.into_iter().take(ENDANGERED_MAX) {
            let name = (sku.clone(), location.clone(), id);
            let is_new = !named.contains(&name);
            if left <= 0 || (is_new && named.len() >= ENDANGERED_IN_ALL_MAX) {
                break;
            }
            if is_new {
                named.push(name);
                endangered.push(id);
            }
            left -= open;
        }
        Some(Box::new(Discrepancy {
            sku: sku.clone(),
            location: location.clone(),
            available: self.available(sku, location),
            short_by,
            endangered,
        }))
    }

    /// Which wants cannot be met on top of what a hold has there itself.
    fn shortage(
        &self,
        wants: &[Want],
        own: Option<&Reservation>,
    ) -> Result<Option<Outcome>, Refusal> {
        let mut lines = Vec::new();
        for want in wants {
            if !self.knows(&want.sku) {
                return Err(Refusal::UnknownSku { line: want.line });
            }
            let own = own_units(own, want);
            let available = self.available(&want.sku, &want.location);
            let limit = self
                .shelf(&want.sku, &want.location)
                .map_or(0, |shelf| shelf.backorder_limit);
            let free = (available + limit).max(0);
            if want.units > own + free {
                lines.push(ShortLine {
                    sku: want.sku.clone(),
                    location: want.location.clone(),
                    requested: want.units,
                    available,
                    reservable: own + free,
                });
            }
        }
        let short = !lines.is_empty();
        Ok(short.then(|| Outcome::Shortage(Arc::new(Shortage { lines }))))
    }

    fn touch(
        &mut self,
        id: ReservationId,
        now: u64,
        allowed: &[State],
    ) -> Result<&mut Known, Refusal> {
        if self.find(id).is_some_and(|known| known.is_due(now)) {
            self.expire(id, now);
        }
        let known = self.find(id).ok_or(Refusal::UnknownReservation)?;
        let state = known.what.state;
        match allowed.contains(&state) {
            true => Ok(known),
            false => Err(Refusal::WrongState { state }),
        }
    }

    fn expire(&mut self, id: ReservationId, now: u64) {
        let known = self.find(id).unwrap();
        let before = known.what.clone();
        known.what.state = State::Expired;
        known.ended_at = Some(now);
        for line in &mut known.what.lines {
            line.open = 0;
        }
        let who = Who {
            principal: &before.principal,
            now,
            latest: now,
            earliest: now,
        };
        for line in before.lines.iter().filter(|line| line.open > 0) {
            let kind = EntryKind::Expired;
            self.note(&who, kind, &line.sku, &line.location, (0, -line.open), id);
        }
    }

    fn note(
        &mut self,
        who: &Who<'_>,
        kind: EntryKind,
        sku: &Sku,
        location: &Location,
        (on_hand_delta, reserved_delta): (i64, i64),
        id: ReservationId,
    ) {
        self.shelf_or_new(sku, location).on_hand += on_hand_delta;
        self.ledger.push(LedgerEntry {
            kind,
            sku: sku.clone(),
            location: location.clone(),
            on_hand_delta,
            reserved_delta,
            source: Source::Reservation(id),
            principal: who.principal.clone(),
            stamp: Stamp(who.now),
            occurred_at: Stamp(who.now),
            reason: None,
            discrepancy: None,
        });
    }

    fn note_lines(&mut self, who: &Who<'_>, kind: EntryKind, known: &Reservation) {
        for line in known.lines.iter().filter(|line| line.open > 0) {
            self.note(who, kind, &line.sku, &line.location, (0, 0), known.id);
        }
    }

    fn find(&mut self, id: ReservationId) -> Option<&mut Known> {
        self.reservations
            .iter_mut()
            .find(|known| known.what.id == id)
    }

    fn knows(&self, sku: &Sku) -> bool {
        self.shelves.iter().any(|shelf| shelf.sku == *sku)
    }

    fn shelf(&self, sku: &Sku, location: &Location) -> Option<&OpenLedger> {
        let here = |shelf: &&OpenLedger| shelf.sku == *sku && shelf.location == *location;
        self.shelves.iter().find(here)
    }

    fn shelf_or_new(&mut self, sku: &Sku, location: &Location) -> &mut OpenLedger {
        let here = |shelf: &OpenLedger| shelf.sku == *sku && shelf.location == *location;
        let at = self.shelves.iter().position(here).unwrap_or_else(|| {
            self.shelves.push(OpenLedger {
                sku: sku.clone(),
                location: location.clone(),
                on_hand: 0,
                safety_stock: 0,
                backorder_limit: 0,
            });
            self.shelves.len() - 1
        });
        &mut self.shelves[at]
    }

    fn available(&self, sku: &Sku, location: &Location) -> i64 {
        self.shelf(sku, location).map_or(0, |shelf| {
            shelf.on_hand - shelf.safety_stock - self.reserved(sku, location)
        })
    }

    fn short_by(&self, sku: &Sku, location: &Location) -> i64 {
        let limit = self
            .shelf(sku, location)
            .map_or(0, |shelf| shelf.backorder_limit);
        (-limit - self.available(sku, location)).max(0)
    }

    /// Every position with its counters: on hand, reserved, safety stock, backorder limit.
    pub(crate) fn positions(&self) -> Vec<(Sku, Location, [i64; 4])> {
        let mut positions: Vec<_> = self
            .shelves
            .iter()
            .map(|shelf| {
                let counters = [shelf.on_hand, 0, shelf.safety_stock, shelf.backorder_limit];
                (shelf.sku.clone(), shelf.location.clone(), counters)
            })
            .collect();
        let lines = self.reservations.iter().flat_map(|known| &known.what.lines);
        for line in lines.filter(|line| line.open > 0) {
            for (sku, location, counters) in &mut positions {
                if line.sku == *sku && line.location == *location {
                    counters[1] += line.open;
                }
            }
        }
        positions
    }

    pub(crate) fn requests_remembered(&self) -> usize {
        self.requests.len()
    }

    /// Requests and lines of documents.
    /// What open reservations take of the room there is for them.
    pub(crate) fn open_bytes(&self) -> usize {
        let open = self.reservations.iter().map(|known| &known.what);
        let open = open.filter(|what| what.state == State::Held || what.state == State::Confirmed);
        open.map(reservation_bytes).sum()
    }

    /// What document lines take of the room there is for them.
    pub(crate) fn document_bytes(&self) -> usize {
        let of_line = |known: &Recorded| {
            let found = known.discrepancy.as_ref();
            48 + found.map_or(0, |found| 96 + 16 * found.endangered.len())
        };
        self.documents.iter().map(of_line).sum()
    }

    /// What requests take of the room there is for them, at most: of a refused basket, a few
    /// numbers for each line.
    pub(crate) fn request_bytes_max(&self) -> usize {
        let of_request = |known: &Answered| {
            128 + match &known.outcome {
                Outcome::Reservation(_) if matches!(known.asked, Operation::Reserve(_)) => 0,
                Outcome::Reservation(what) => reservation_bytes(what),
                Outcome::Shortage(shortage) => 1 + 21 * shortage.lines.len(),
                Outcome::Policy(policy) => {
                    let found = policy.discrepancy.as_ref();
                    64 + found.map_or(0, |found| 96 + 16 * found.endangered.len())
                }
                Outcome::Refused(_) => 32,
                Outcome::Movements(_) => 0,
            }
        };
        self.requests.iter().map(of_request).sum()
    }

    pub(crate) fn remembered(&self) -> usize {
        self.requests.len() + self.documents.len()
    }

    pub(crate) fn next_expiry(&self) -> Option<Stamp> {
        let open = self.reservations.iter().map(|known| &known.what);
        let open = open.filter(|what| what.state == State::Held || what.state == State::Confirmed);
        open.filter_map(|what| what.expires_at).min()
    }
}

impl Known {
    fn is_due(&self, now: u64) -> bool {
        let open = self.what.state == State::Held || self.what.state == State::Confirmed;
        open && self.what.expires_at.is_some_and(|at| at.0 <= now)
    }
}

fn sum_up(lines: &[Line]) -> Vec<Want> {
    let mut wants: Vec<Want> = Vec::new();
    for (number, line) in (0..).zip(lines) {
        let same = |want: &&mut Want| want.sku == line.sku && want.location == line.location;
        if let Some(want) = wants.iter_mut().find(same) {
            want.units += line.quantity.get();
        } else {
            wants.push(Want {
                sku: line.sku.clone(),
                location: line.location.clone(),
                units: line.quantity.get(),
                line: number,
            });
        }
    }
    wants
}

fn own_units(own: Option<&Reservation>, want: &Want) -> i64 {
    let lines = own.into_iter().flat_map(|own| &own.lines);
    let here = lines.filter(|line| line.sku == want.sku && line.location == want.location);
    here.map(|line| line.open).sum()
}

fn all_open(want: &Want) -> ReservationLine {
    ReservationLine {
        sku: want.sku.clone(),
        location: want.location.clone(),
        quantity: want.units,
        open: want.units,
        fulfilled: 0,
        released: 0,
    }
}
