//! Makes up commands for a small world: few SKUs, places and callers, so that shortages, expiries,
//! retries and mistakes happen all the time.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_core::{
    Action, Amend, Channel, Command, Confirm, Document, Extend, Filter, Fulfill, Labels, Line,
    Location, Moment, MovementKind, MovementLine, Movements, Operation, OrderReference, Over,
    PartialLine, Principal, Quantity, Reason, Release, Reporter, Request, RequestId, Reservation,
    ReservationId, Reserve, SetPolicy, Sku, Stamp, State,
};

use crate::baskets;
use crate::naive::Naive;

const START: Stamp = Stamp(1_790_000_000_000);
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

/// One command and when it comes.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) moment: Moment,
    /// In the entry of the step before.
    pub(crate) same_entry: bool,
    /// Sent before.
    pub(crate) again: bool,
    /// A replica is written down before it, and goes on from what was written.
    pub(crate) restart: bool,
    pub(crate) command: Command,
}

pub(crate) struct World {
    dice: StdRng,
    /// Dice of their own: worlds are the same with restarts and without.
    restarts: StdRng,
    now: Stamp,
    /// How far cluster time lags behind the nodes' wall clocks.
    lag_ms: u64,
    made: u64,
    sent: Vec<Command>,
    ids: Vec<ReservationId>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            restarts: StdRng::seed_from_u64(!seed),
            now: START,
            lag_ms: 0,
            made: 0,
            sent: Vec::new(),
            ids: Vec::new(),
        }
    }

    pub(crate) fn next(&mut self, naive: &Naive, next_expiry: Option<Stamp>) -> Step {
        let before = self.now;
        self.now = self.later(next_expiry);
        let same_entry = self.now == before && !self.sent.is_empty() && self.chance(50);
        if !same_entry && self.restarts.random_range(0..1_000) < 5 {
            self.lag_ms = match self.lag_ms {
                0 => self.restarts.random_range(0..60 * DAY),
                _ => 0,
            };
        }
        let again = !self.sent.is_empty() && self.chance(9);
        let command = match again {
            true => self.sent_again(naive),
            false => self.new_command(naive),
        };
        self.sent.push(command.clone());
        Step {
            moment: Moment {
                stamp: self.now,
                wall: self.now.plus_ms(self.lag_ms),
            },
            same_entry,
            again,
            restart: self.restarts.random_range(0..1_000) < 3,
            command,
        }
    }

    /// What callers' clocks show: some are as late as cluster time.
    fn callers_now(&mut self) -> Stamp {
        match self.lag_ms > 0 && self.restarts.random_range(0..100) < 80 {
            true => self.now.plus_ms(self.lag_ms),
            false => self.now,
        }
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.dice.random_range(0..end)
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.dice.random_range(0..100) < percent
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.dice.random_range(low..=high)
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        match from.len() {
            0 => None,
            len => Some(from[self.below(len)].clone()),
        }
    }

    fn later(&mut self, next_expiry: Option<Stamp>) -> Stamp {
        match (self.between(0, 999), next_expiry) {
            (0..450, _) => self.now,
            (450..800, _) => self.now.plus_ms(self.between(1, 3 * SECOND)),
            (800..900, _) => self.now.plus_ms(self.between(1, 2 * MINUTE)),
            // The moments around an expiry are where it is easy to be wrong.
            (900..930, Some(at)) => self.now.max(at),
            (930..960, Some(at)) => self.now.max(at.minus_ms(1)),
            (960..990, _) => self.now.plus_ms(self.between(1, 12 * MINUTE)),
            (990..996, _) => self.now.plus_ms(self.between(1, 2 * DAY)),
            (996..998, _) => self.now.plus_ms(self.between(1, 40 * DAY)),
            _ => self.now.plus_ms(1),
        }
    }

    /// As a client sends it again. The edge has made another reservation id by then.
    fn sent_again(&mut self, naive: &Naive) -> Command {
        let from = match self.chance(70) {
            true => self.sent.len().saturating_sub(20),
            false => 0,
        };
        let at = from + self.below(self.sent.len() - from);
        let mut command = self.sent[at].clone();
        match &mut command.action {
            Action::Request(_, Operation::Reserve(reserve)) => reserve.id = self.reservation_id(),
            Action::Movements(movements) => {
                // A document may have grown since.
                if self.chance(20) {
                    let line = self.movement_line(movements.kind, naive);
                    movements.lines.push(line);
                }
            }
            Action::Request(..) | Action::Basket(_) => {}
        }
        command
    }

    fn new_command(&mut self, naive: &Naive) -> Command {
        let principal = self.pick(&["web", "app", "till"]).unwrap_or("web");
        let principal = Principal::new(principal).unwrap();
        if self.chance(12) {
            let command = baskets::command(self, naive);
            let action = Action::Basket(command);
            return Command { principal, action };
        }
        if self.chance(16) {
            let action = Action::Movements(self.movements(naive));
            return Command { principal, action };
        }
        let operation = self.operation(naive);
        let fingerprint = operation.fingerprint();
        // Now and then somebody uses an id that he, or somebody else, has used before.
        let used = self.sent.len();
        let used = match used > 0 && self.chance(7) {
            true => used - 1 - self.below(used.min(30)),
            false => used,
        };
        let id = match self.sent.get(used).map(|command| &command.action) {
            Some(Action::Request(request, _)) => request.id,
            _ => self.request_id(),
        };
        let action = Action::Request(Request { id, fingerprint }, operation);
        Command { principal, action }
    }

    fn operation(&mut self, naive: &Naive) -> Operation {
        let share = self.between(0, 99);
        if share < 38 {
            let id = match self.chance(2) {
                true => self.pick(&self.ids.clone()),
                false => None,
            };
            let id = id.unwrap_or_else(|| self.reservation_id());
            let lines = self.basket();
            return Operation::Reserve(Reserve {
                id,
                ttl_ms: self.ttl_ms(),
                labels: self.labels(),
                over: self.over(&lines),
                lines,
            });
        }
        if share < 43 {
            return Operation::SetPolicy(self.policy());
        }
        let known = self.reservation(naive, share >= 78);
        let id = match &known {
            Some(known) => known.id,
            None if self.chance(50) => self.reservation_id(),
            // One that may have been forgotten.
            None => self
                .ids
                .first()
                .copied()
                .unwrap_or_else(|| self.reservation_id()),
        };
        match share {
            43..57 => Operation::Confirm(Confirm {
                id,
                pickup_within_ms: self.chance(40).then(|| self.ttl_ms()),
            }),
            57..66 => Operation::Extend(Extend {
                id,
                ttl_ms: self.ttl_ms(),
            }),
            66..78 => {
                let lines = self.amended_basket(known.as_ref());
                Operation::Amend(Amend {
                    id,
                    ttl_ms: self.chance(40).then(|| self.ttl_ms()),
                    over: self.over(&lines),
                    lines,
                })
            }
            78..88 => Operation::Release(Release {
                id,
                lines: self.partial_lines(known.as_ref()),
                forced: self
                    .chance(20)
                    .then(|| Reason::new("the app is gone").unwrap()),
            }),
            _ => Operation::Fulfill(Fulfill {
                id,
                lines: self.partial_lines(known.as_ref()),
            }),
        }
    }

    /// What lines reach over, if they do, as the edge says; seldom also if they do not.
    fn over(&mut self, lines: &[Line]) -> Option<Box<Over>> {
        let is_own = |line: &Line| line.sku.shard(baskets::SHARDS) == baskets::HOME;
        let is_over = !lines.iter().all(is_own) || self.chance(2);
        is_over.then(|| {
            Box::new(Over {
                shards: baskets::SHARDS,
                asked_at: self.asked_at(),
                is_last_try: self.chance(50),
            })
        })
    }

    pub(crate) fn now(&self) -> Stamp {
        self.now
    }

    /// When an edge asked, by its clock: seldom too early or too late.
    pub(crate) fn asked_at(&mut self) -> Stamp {
        match self.between(0, 99) {
            0..90 => self.callers_now().minus_ms(self.between(0, SECOND)),
            90..94 => self.callers_now().minus_ms(MINUTE + self.between(0, 2)),
            94..97 => self.callers_now().plus_ms(MINUTE + self.between(0, 2)),
            _ => self.now.minus_ms(self.between(0, 3 * MINUTE)),
        }
    }

    /// A few, so that several reservations have the same.
    fn labels(&mut self) -> Option<Arc<Labels>> {
        let reference = self.chance(60).then(|| format!("order {}", self.below(6)));
        let channel = self
            .chance(60)
            .then(|| format!("channel-{}", self.below(3)));
        let reference = reference.map(|text| OrderReference::new(&text).unwrap());
        Labels::new(reference, channel.map(|text| Channel::new(&text).unwrap()))
    }

    /// What somebody may look for.
    pub(crate) fn filter(&mut self) -> Filter {
        let labels = self.labels();
        let labels = labels.as_deref();
        let states = [
            State::Held,
            State::Confirmed,
            State::Fulfilled,
            State::Released,
            State::Expired,
        ];
        let states = states.into_iter().filter(|_| self.chance(40)).collect();
        let line = self.basket().swap_remove(0);
        Filter {
            order_reference: labels.and_then(|it| it.order_reference.clone()),
            channel: labels.and_then(|it| it.channel.clone()),
            sku: self.chance(30).then_some(line.sku),
            location: self.chance(30).then_some(line.location),
            states,
            due_before: self.chance(20).then(|| self.some_time()),
            created_after: self.chance(20).then(|| self.some_time()),
        }
    }

    fn some_time(&mut self) -> Stamp {
        Stamp(self.now.0 - 500_000 + self.below(1_000_000) as u64)
    }

    /// One that exists, mostly an open one; `None` for one that does not.
    fn reservation(&mut self, naive: &Naive, confirmed: bool) -> Option<Reservation> {
        if self.chance(4) {
            return None;
        }
        let any = self.chance(15);
        let confirmed = confirmed && self.chance(70);
        let known = naive.reservations.iter().map(|known| &known.what);
        let all: Vec<&Reservation> = known.collect();
        let mut fitting = all.clone();
        fitting.retain(|known| any || known.state.is_open());
        fitting.retain(|known| !confirmed || known.state == State::Confirmed);
        if fitting.is_empty() {
            fitting = all;
        }
        self.pick(&fitting).cloned()
    }

    fn policy(&mut self) -> SetPolicy {
        let wild = self.chance(10);
        let limits = [
            -1,
            i64::MIN,
            i64::MAX,
            1_000_000_000_000_000,
            1_000_000_000_000_001,
        ];
        let units = |world: &mut Self| match wild {
            true => world.pick(&limits).unwrap_or_default(),
            false => world.between(0, 4) as i64,
        };
        let location = match wild {
            true => far(),
            false => self.location(),
        };
        SetPolicy {
            sku: self.sku(),
            location,
            safety_stock: self.chance(60).then(|| units(self)),
            backorder_limit: self.chance(60).then(|| units(self)),
        }
    }

    fn movements(&mut self, naive: &Naive) -> Movements {
        let kind = match self.between(0, 9) {
            0..5 => MovementKind::Receipt,
            5..8 => MovementKind::Sale,
            _ => MovementKind::Adjustment,
        };
        self.made += 1;
        let document = match self.chance(15) {
            true => self.between(0, 5),
            false => 5 + self.made,
        };
        let lines = self.between(1, 3);
        let reason = (kind == MovementKind::Adjustment).then(|| Reason::new("broken").unwrap());
        let source = self
            .pick(&["till-1", "till-1", "till-2"])
            .unwrap_or("till-1");
        Movements {
            kind,
            source: Reporter::new(source).unwrap(),
            document: Document::new(&format!("D{document}")).unwrap(),
            reason,
            lines: (0..lines)
                .map(|_| self.movement_line(kind, naive))
                .collect(),
        }
    }

    fn movement_line(&mut self, kind: MovementKind, naive: &Naive) -> MovementLine {
        let sku = self.sku();
        let units = self.between(1, 6) as i64;
        let mut location = self.location();
        let mut on_hand_delta = match kind {
            MovementKind::Receipt => units + 3,
            MovementKind::Sale => -(units + 1) / 2,
            MovementKind::Adjustment => units - 3,
        };
        // Far away, counters are driven to their ends.
        if self.chance(28) {
            location = far();
            let end = 1_000_000_000_000_000;
            let on_hand = naive.on_hand(&sku, &location);
            let down = -end - on_hand;
            let up = end - on_hand;
            let wild = [
                down,
                down,
                down - 1,
                up,
                up,
                up + 1,
                5 - on_hand,
                i64::MAX,
                i64::MIN,
            ];
            on_hand_delta = self.pick(&wild).unwrap_or(1);
        }
        let occurred_at = match self.between(0, 99) {
            0..30 => self.now,
            30..70 => self.now.minus_ms(self.between(0, 5 * MINUTE)),
            70..78 => self.callers_now().plus_ms(self.between(0, MINUTE)),
            78..86 => self.callers_now().plus_ms(self.between(MINUTE, DAY)),
            86..90 => self.callers_now().plus_ms(DAY + self.between(1, 5)),
            _ => self.now.minus_ms(self.between(0, 40 * DAY)),
        };
        MovementLine {
            line: Document::new(&self.between(1, 4).to_string()).unwrap(),
            sku,
            location,
            on_hand_delta,
            occurred_at,
        }
    }

    pub(crate) fn basket(&mut self) -> Vec<Line> {
        let lines = self.between(1, 4);
        (0..lines).map(|_| self.line()).collect()
    }

    fn line(&mut self) -> Line {
        let location = match self.chance(20) {
            true => far(),
            false => self.location(),
        };
        Line {
            sku: self.sku(),
            location,
            quantity: self.units(),
        }
    }

    fn amended_basket(&mut self, known: Option<&Reservation>) -> Vec<Line> {
        let mut lines = Vec::new();
        for line in known.iter().flat_map(|known| &known.lines) {
            if self.chance(80) {
                let units = (line.open + self.between(0, 3) as i64 - 1).max(1);
                lines.push(Line {
                    sku: line.sku.clone(),
                    location: line.location.clone(),
                    quantity: Quantity::new(units.min(1_000_000_000)).unwrap(),
                });
            }
        }
        if lines.is_empty() || self.chance(45) {
            lines.push(self.line());
        }
        lines
    }

    /// None for all; else some lines of the reservation, with a mistake here and there.
    fn partial_lines(&mut self, known: Option<&Reservation>) -> Vec<PartialLine> {
        let mut lines = Vec::new();
        if self.chance(40) {
            return lines;
        }
        for line in known.iter().flat_map(|known| &known.lines) {
            if self.chance(60) {
                let most = line.open.clamp(1, 1_000) as u64 + u64::from(self.chance(10));
                let units = self.between(1, most) as i64;
                lines.push(PartialLine {
                    sku: line.sku.clone(),
                    location: self.chance(60).then(|| line.location.clone()),
                    quantity: Quantity::new(units).unwrap(),
                });
            }
        }
        if self.chance(8) {
            let line = self.line();
            lines.push(PartialLine {
                sku: line.sku,
                location: Some(line.location),
                quantity: line.quantity,
            });
        }
        lines
    }

    fn sku(&mut self) -> Sku {
        let name = match self.between(0, 99) {
            0..40 => "MUG",
            40..70 => "PEN",
            70..93 => "INK",
            // Seldom enough to be unknown for a while.
            93..95 => "FAN",
            _ => self
                .pick(&[
                    "VAT", "TUB", "BIN", "BAG", "SAW", "NUT", "JUG", "TIN", "BOX",
                ])
                .unwrap_or("JUG"),
        };
        Sku::new(name).unwrap()
    }

    fn location(&mut self) -> Location {
        let name = self.pick(&["A", "A", "B", "C"]).unwrap_or("A");
        Location::new(name).unwrap()
    }

    fn units(&mut self) -> Quantity {
        let units = match self.chance(1) {
            true => 1_000_000_000,
            false => self.between(1, 4) as i64,
        };
        Quantity::new(units).unwrap()
    }

    fn ttl_ms(&mut self) -> u64 {
        match self.between(0, 9) {
            0..2 => self.between(1, 10) * SECOND,
            2..9 => self.between(1, 20 * 60) * SECOND,
            _ => 7 * DAY,
        }
    }

    pub(crate) fn reservation_id(&mut self) -> ReservationId {
        // Callers' clocks differ: the newest id is not always the last one held.
        let made_at = self.now.minus_ms(self.between(0, 5));
        let id = ReservationId::compose(made_at, baskets::HOME, self.dice.random());
        self.ids.push(id);
        id
    }

    fn request_id(&mut self) -> RequestId {
        let made_at = match self.between(0, 99) {
            0..90 => self.callers_now().minus_ms(self.between(0, 2 * SECOND)),
            90..94 => self.callers_now().plus_ms(self.between(0, MINUTE)),
            94..95 => self.callers_now().plus_ms(MINUTE + self.between(1, 5)),
            95..98 => self.now.minus_ms(self.between(0, 15 * MINUTE)),
            _ => self.now.minus_ms(self.between(9 * MINUTE, 12 * MINUTE)),
        };
        let random: u64 = self.dice.random();
        let bits = u128::from(made_at.0) << 80 | 0x7 << 76 | u128::from(random);
        RequestId::new(bits.to_be_bytes()).unwrap()
    }
}

fn far() -> Location {
    Location::new("FAR").unwrap()
}
