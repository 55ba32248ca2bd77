//! The rules of the stock state machine once more, as plainly as they can be written: lists, linear
//! scans, and no counter that could be derived. It shares nothing with the crate but the types of
//! its commands and answers.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use stock_core::{
    Action, Amend, At, Command, Discrepancy, Document, EntryKind, Filter, InTheWay, LedgerEntry,
    Line, LineVerdict, Location, Moment, MovementKind, MovementLine, Movements, Operation, Outcome,
    PartialLine, Policy, Principal, Reason, Refusal, Reporter, RequestId, Reservation,
    ReservationId, ReservationLine, Reserve, SetPolicy, ShortLine, Shortage, Sku, Source, Stamp,
    State,
};

use super::naive_baskets::{Losses, Part, Reach, Tombstone};

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
    pub(crate) parts: Vec<Part>,
    pub(crate) tombstones: Vec<Tombstone>,
    pub(crate) losses: Losses,
    pub(crate) requests: Vec<Answered>,
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
    /// When it had ended, and nobody had to be told of it any more.
    pub(crate) ended_at: Option<u64>,
    /// Given if it reaches over shards.
    pub(crate) reach: Option<Reach>,
}

pub(crate) struct Answered {
    pub(crate) principal: Principal,
    pub(crate) id: RequestId,
    pub(crate) asked: Operation,
    at: u64,
    pub(crate) outcome: Outcome,
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

pub(crate) fn reservation_bytes(what: &Reservation) -> usize {
    let labels = what.labels.as_ref().map_or(0, |labels| {
        let reference = labels.order_reference.as_ref();
        144 + reference.map_or(0, |reference| reference.as_str().len())
    });
    184 + labels + 72 * what.lines.len()
}

/// What a client sent: the id that a reserve proposes is the edge's.
fn as_sent(operation: &Operation) -> Operation {
    let mut sent = operation.clone();
    match &mut sent {
        Operation::Reserve(reserve) => {
            reserve.id = ReservationId::compose(Stamp(0), 0, 0);
            reserve.over = None;
        }
        Operation::Amend(amend) => amend.over = None,
        _ => {}
    }
    sent
}

/// So many units of a SKU at a location; the number of the first line that says so.
pub(crate) struct Want {
    pub(crate) sku: Sku,
    pub(crate) location: Location,
    pub(crate) units: i64,
    pub(crate) line: u32,
}

/// Who does something, and when.
pub(crate) struct Who<'a> {
    pub(crate) principal: &'a Principal,
    /// Cluster time.
    pub(crate) now: u64,
    /// Or what the nodes' wall clocks show, if that is later...
    pub(crate) latest: u64,
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
        self.tombstones.retain(|tombstone| tombstone.until >= now);
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
            Action::Basket(command) => return self.basket(&who, command),
            Action::Request(request, operation) => (request, operation),
        };
        let same = |known: &&Answered| known.principal == *who.principal && known.id == request.id;
        if let Some(known) = self.requests.iter().find(same) {
            return match &known.outcome {
                _ if known.asked != as_sent(operation) => Outcome::Refused(Refusal::RequestReused),
                // As it is by now.
                Outcome::Prepared(prepared) => {
                    let prepared = self.prepared(prepared.reservation.id);
                    Outcome::Prepared(prepared.expect("it is prepared"))
                }
                outcome => outcome.clone(),
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
        let outcome = match self.operate(&who, request.id, operation) {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Refused(refusal),
        };
        if is_passing(&outcome, operation) {
            return outcome;
        }
        let mut answer = outcome.clone();
        if let Outcome::Shortage(shortage) = &mut answer {
            Arc::make_mut(shortage).in_the_way = InTheWay::Stock;
        }
        self.requests.push(Answered {
            principal: command.principal.clone(),
            id: request.id,
            asked: as_sent(operation),
            at: now,
            outcome: answer,
        });
        outcome
    }

    /// Units of open reservations, counted anew each time.
    fn reserved(&self, sku: &Sku, location: &Location) -> i64 {
        let known = self
            .reservations
            .iter()
            .map(|known| known.units_here(sku, location));
        let parts = self
            .parts
            .iter()
            .map(|part| units_of(&part.lines, sku, location));
        known.sum::<i64>() + parts.sum::<i64>()
    }

    /// Who holds units of a position, and how many, in no order.
    fn holders(&self, sku: &Sku, location: &Location) -> Vec<((Stamp, ReservationId), i64)> {
        let known = self.reservations.iter().map(|known| {
            let (at, id) = (known.what.created_at, known.what.id);
            ((at, id), known.units_here(sku, location))
        });
        let parts = self.parts.iter().map(|part| {
            let units = units_of(&part.lines, sku, location);
            ((Stamp(part.created_at), part.id), units)
        });
        known.chain(parts).filter(|(_, units)| *units > 0).collect()
    }

    pub(crate) fn on_hand(&self, sku: &Sku, location: &Location) -> i64 {
        self.shelf(sku, location).map_or(0, |shelf| shelf.on_hand)
    }

    fn operate(
        &mut self,
        who: &Who<'_>,
        request: RequestId,
        operation: &Operation,
    ) -> Result<Outcome, Refusal> {
        let changed = match operation {
            Operation::Confirm(confirm) => Some(confirm.id),
            Operation::Extend(extend) => Some(extend.id),
            Operation::Fulfill(fulfill) => Some(fulfill.id),
            Operation::Amend(amend) => Some(amend.id),
            Operation::Release(release) if !release.lines.is_empty() => Some(release.id),
            Operation::Release(_) | Operation::Reserve(_) | Operation::SetPolicy(_) => None,
        };
        if let Some(prepared) = changed.and_then(|id| self.undecided(id, who.now)) {
            return Ok(Outcome::Undecided(prepared));
        }
        match operation {
            Operation::Reserve(reserve) => self.reserve(who, request, reserve),
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
                let (kind, forced) = (EntryKind::Released, release.forced.as_ref());
                self.settle(who, release.id, &release.lines, kind, forced)
            }
            Operation::Fulfill(fulfill) => {
                self.touch(fulfill.id, who.now, &[State::Confirmed])?;
                self.settle(who, fulfill.id, &fulfill.lines, EntryKind::Fulfilled, None)
            }
            Operation::Amend(amend) => self.amend(who, request, amend),
            Operation::SetPolicy(policy) => self.set_policy(who, policy),
        }
    }

    fn reserve(
        &mut self,
        who: &Who<'_>,
        request: RequestId,
        reserve: &Reserve,
    ) -> Result<Outcome, Refusal> {
        if !self.losses.awaited.is_empty() {
            return Err(Refusal::Reconciling);
        }
        if self.find(reserve.id).is_some() {
            return Err(Refusal::ReservationIdTaken);
        }
        let over = reserve.over.as_deref();
        if over.is_some_and(|over| self.is_too_late(who, reserve.id, over.asked_at)) {
            return Err(Refusal::TooLate);
        }
        let wants = sum_up(&reserve.lines);
        let shards = over.map(|over| over.shards);
        let is_own = |sku: &Sku| shards.is_none_or(|all| sku.shard(all) == reserve.id.shard());
        let own: Vec<&Want> = wants.iter().filter(|want| is_own(&want.sku)).collect();
        if let Some(shortage) = self.shortage(&own, &[], over.map(|_| (reserve.id, who.now)))? {
            return Ok(Outcome::Shortage(Arc::new(shortage)));
        }
        for want in &own {
            let (kind, delta) = (EntryKind::Reserved, (0, want.units));
            self.note(who, kind, &want.sku, &want.location, delta, reserve.id);
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
            reach: None,
        });
        match over {
            None => Ok(Outcome::Reservation(Arc::new(reservation))),
            Some(over) => {
                let others = wants.iter().filter(|want| !is_own(&want.sku));
                let asked = others.map(|want| want.sku.shard(over.shards)).collect();
                Ok(self.prepare(who, reserve.id, request, over, asked, None))
            }
        }
    }

    fn amend(
        &mut self,
        who: &Who<'_>,
        request: RequestId,
        amend: &Amend,
    ) -> Result<Outcome, Refusal> {
        let known = self.touch(amend.id, who.now, &[State::Held])?.clone();
        if !self.losses.awaited.is_empty() {
            return Err(Refusal::Reconciling);
        }
        let held = known.what;
        let wants = sum_up(&amend.lines);
        let over = amend.over.as_deref();
        let shards = known.reach.as_ref().map(|reach| reach.shards);
        let shards = shards.or(over.map(|over| over.shards));
        let is_own = |sku: &Sku| shards.is_none_or(|all| sku.shard(all) == amend.id.shard());
        let own: Vec<&Want> = wants.iter().filter(|want| is_own(&want.sku)).collect();
        if let Some(shortage) =
            self.shortage(&own, &held.lines, over.map(|_| (amend.id, who.now)))?
        {
            return Ok(Outcome::Shortage(Arc::new(shortage)));
        }
        let more = |want: &Want| want.units - own_units(&held.lines, want);
        let asked = wants
            .iter()
            .filter(|want| !is_own(&want.sku) && more(want) > 0);
        let asked: BTreeSet<u32> = asked.map(|want| want.sku.shard(shards.unwrap())).collect();
        let in_time = over.filter(|over| !self.is_too_late(who, amend.id, over.asked_at));
        if !asked.is_empty() && in_time.is_none() {
            return Err(Refusal::TooLate);
        }
        if asked.is_empty() {
            for line in held.lines.iter().filter(|line| is_own(&line.sku)) {
                let same = |w: &&Want| w.sku == line.sku && w.location == line.location;
                let units = wants.iter().find(same).map_or(0, |want| want.units);
                if line.open > units {
                    let (kind, delta) = (EntryKind::Released, (0, units - line.open));
                    self.note(who, kind, &line.sku, &line.location, delta, amend.id);
                }
            }
        }
        for want in &own {
            if more(want) > 0 {
                let (kind, delta) = (EntryKind::Reserved, (0, more(want)));
                self.note(who, kind, &want.sku, &want.location, delta, amend.id);
            }
        }
        let lines: Vec<ReservationLine> = wants.iter().map(all_open).collect();
        let expires_at = match amend.ttl_ms {
            Some(ttl_ms) => Some(Stamp(who.now + ttl_ms)),
            None => held.expires_at,
        };
        if let (Some(over), false) = (in_time, asked.is_empty()) {
            let amendment = Some((lines, expires_at));
            return Ok(self.prepare(who, amend.id, request, over, asked, amendment));
        }
        let known = self.find(amend.id).unwrap();
        known.what.lines = lines.into_iter().collect();
        known.what.expires_at = expires_at;
        known.decided_anew();
        Ok(Outcome::Reservation(Arc::new(known.what.clone())))
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
        forced: Option<&Reason>,
    ) -> Result<Outcome, Refusal> {
        let first_entry = self.ledger.len();
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
        let reach = self.find(id).unwrap().reach.clone();
        let is_own = |sku: &Sku| {
            let reach = reach.as_ref();
            reach.is_none_or(|reach| sku.shard(reach.shards) == id.shard())
        };
        if kind == EntryKind::Fulfilled {
            for (number, (line, units)) in (0..).zip(before.lines.iter().zip(&taken)) {
                if !is_own(&line.sku) {
                    continue;
                }
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
            if is_own(&line.sku) {
                self.note(who, kind, &line.sku, &line.location, (on_hand, -units), id);
            }
        }
        let ended = after.lines.iter().all(|line| line.open == 0);
        if ended && kind == EntryKind::Fulfilled {
            after.state = State::Fulfilled;
        } else if ended {
            after.state = State::Released;
        }
        for entry in &mut self.ledger[first_entry..] {
            entry.reason = forced.cloned();
        }
        if ended {
            self.drop_extras(&Who::holder(&before.principal, who.now), id);
        }
        let known = self.find(id).unwrap();
        known.what = after.clone();
        known.decided_anew();
        known.file(who.now);
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
        let mut holders = self.holders(sku, location);
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
    pub(crate) fn shortage(
        &self,
        wants: &[&Want],
        own: &[ReservationLine],
        over_shards: Option<(ReservationId, u64)>,
    ) -> Result<Option<Shortage>, Refusal> {
        let mut lines = Vec::new();
        let mut in_the_way = InTheWay::Later;
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
                let missing = want.units - own - free;
                in_the_way = in_the_way.min(over_shards.map_or(InTheWay::Stock, |basket| {
                    self.who_is_in_the_way(basket, missing, &want.sku, &want.location)
                }));
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
        Ok(short.then_some(Shortage { lines, in_the_way }))
    }

    /// What is in the way where so many units are missing of a position: of the sixty-four
    /// reservations that were held last those that are undecided. Who has a later id, or is half
    /// a second old, is waited for.
    fn who_is_in_the_way(
        &self,
        (than, now): (ReservationId, u64),
        missing: i64,
        sku: &Sku,
        location: &Location,
    ) -> InTheWay {
        let mut holders = self.holders(sku, location);
        holders.sort_by_key(|(holder, _)| Reverse(*holder));
        let (mut waited_for, mut all) = (0, 0);
        for ((_, id), _) in holders.into_iter().take(64) {
            let part = self.parts.iter().find(|part| part.id == id);
            let known = self.reservations.iter().find(|it| it.what.id == id);
            let reach = known.and_then(|it| it.reach.as_ref());
            let (asked_at, lines) = match (part, reach) {
                (Some(part), _) if part.told < part.held => (part.asked_at, &part.lines[..]),
                (None, Some(reach)) if reach.undecided.is_some() => {
                    (reach.asked_at, &known.unwrap().what.lines[..])
                }
                _ => continue,
            };
            let units = units_of(lines, sku, location);
            all += units;
            if id > than || asked_at + 500 <= now {
                waited_for += units;
            }
        }
        match (missing <= waited_for, missing <= all) {
            (true, _) => InTheWay::Later,
            (_, true) => InTheWay::Earlier,
            _ => InTheWay::Stock,
        }
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

    pub(crate) fn expire(&mut self, id: ReservationId, now: u64) {
        let known = self.find(id).unwrap();
        let before = known.clone();
        let who = Who::holder(&before.what.principal, now);
        for line in before.what.lines.iter().filter(|line| line.open > 0) {
            if before.is_own(&line.sku) {
                let kind = EntryKind::Expired;
                self.note(&who, kind, &line.sku, &line.location, (0, -line.open), id);
            }
        }
        self.drop_extras(&who, id);
        let known = self.find(id).unwrap();
        known.what.state = State::Expired;
        for line in &mut known.what.lines {
            line.open = 0;
        }
        known.decided_anew();
        known.file(now);
    }

    pub(crate) fn note(
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
            if self.find(known.id).unwrap().is_own(&line.sku) {
                self.note(who, kind, &line.sku, &line.location, (0, 0), known.id);
            }
        }
    }

    pub(crate) fn find(&mut self, id: ReservationId) -> Option<&mut Known> {
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
        for (sku, location, counters) in &mut positions {
            counters[1] = self.reserved(sku, location);
        }
        positions
    }

    pub(crate) fn requests_remembered(&self) -> usize {
        self.requests.len()
    }

    /// What reservations that are open, or of which somebody has to be told, take of the room there
    /// is for them, together with parts.
    pub(crate) fn open_bytes(&self) -> usize {
        let open = self
            .reservations
            .iter()
            .filter(|known| known.ended_at.is_none());
        let parts = self.parts.iter().map(Part::bytes);
        open.map(Known::bytes).chain(parts).sum()
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
                _ => 0,
            }
        };
        self.requests.iter().map(of_request).sum()
    }

    /// Requests and lines of documents.
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
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let open = self.what.state == State::Held || self.what.state == State::Confirmed;
        open && self.what.expires_at.is_some_and(|at| at.0 <= now)
    }
}

impl<'a> Who<'a> {
    /// Somebody to whom something happens.
    pub(crate) fn holder(principal: &'a Principal, now: u64) -> Self {
        Self {
            principal,
            now,
            latest: now,
            earliest: now,
        }
    }
}

/// Whether another attempt under the same request may end otherwise.
fn is_passing(outcome: &Outcome, operation: &Operation) -> bool {
    let over = match operation {
        Operation::Reserve(reserve) => reserve.over.as_deref(),
        Operation::Amend(amend) => amend.over.as_deref(),
        _ => None,
    };
    match outcome {
        Outcome::Refused(Refusal::ReservationIdTaken | Refusal::TooLate | Refusal::Reconciling) => {
            true
        }
        Outcome::Undecided(_) => true,
        Outcome::Shortage(shortage) => {
            shortage.in_the_way != InTheWay::Stock && over.is_some_and(|over| !over.is_last_try)
        }
        _ => false,
    }
}

fn sum_up(lines: &[Line]) -> Vec<Want> {
    sum_up_numbered((0..).zip(lines))
}

pub(crate) fn sum_up_numbered<'a>(lines: impl Iterator<Item = (u32, &'a Line)>) -> Vec<Want> {
    let mut wants: Vec<Want> = Vec::new();
    for (number, line) in lines {
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

pub(crate) fn own_units(own: &[ReservationLine], want: &Want) -> i64 {
    units_of(own, &want.sku, &want.location)
}

/// What lines have open at a position.
pub(crate) fn units_of(lines: &[ReservationLine], sku: &Sku, location: &Location) -> i64 {
    let here = lines.iter();
    let here = here.filter(|line| line.sku == *sku && line.location == *location);
    here.map(|line| line.open).sum()
}

pub(crate) fn all_open(want: &Want) -> ReservationLine {
    ReservationLine {
        sku: want.sku.clone(),
        location: want.location.clone(),
        quantity: want.units,
        open: want.units,
        fulfilled: 0,
        released: 0,
    }
}
