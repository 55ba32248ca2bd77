//! What clients ask for: every command and every read, on few SKUs so that they get in each other's
//! way, with the mistakes that real callers make.

use std::sync::Arc;

use stock_cluster::GroupId;
use stock_core::{
    Action, Amend, CatalogCommand, Channel, Command, Confirm, Coordinates, Document, Extend,
    Filter, Fulfill, Labels, Line, Location, LocationType, MovementKind, MovementLine, Movements,
    Operation, OrderReference, Outcome, Over, PartialLine, Principal, PutLocation, Quantity,
    Reason, Release, Reporter, Request, RequestId, Reservation, ReservationId, Reserve, SetPolicy,
    Sku, Stamp, State,
};
use stock_node::answer::{Freshness, Listing, Outcome as GroupOutcome};
use stock_node::entry::{Commands, CommandsBuilder};

use super::checks::history::AnyCommand;
use super::clock::EPOCH_MS;
use super::dice::Dice;

const SKUS_PER_SHARD: usize = 3;
const LOCATIONS: [&str; 3] = ["A", "B", "C"];
/// Orders that reservations are of.
const ORDERS: u64 = 6;
/// Reservations that clients remember.
const KNOWN_MAX: usize = 60;
/// Requests that clients may send once more.
const SENT_MAX: usize = 200;

/// What a client wants of a group.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) group: GroupId,
    pub(crate) ask: Ask,
}

#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Commands that travel together.
    Commands(Vec<AnyCommand>),
    Read(Freshness, Subject),
}

/// What a read is of.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Positions(Sku),
    Reservation(ReservationId),
    /// Of a shard, those of which something is true.
    List(Arc<Listing>),
    Locations,
}

/// Makes wishes, and learns from what comes of them.
pub(crate) struct Workload {
    dice: Dice,
    skus: Vec<Vec<Sku>>,
    locations: Vec<Location>,
    principals: Vec<Principal>,
    known: Vec<Arc<Reservation>>,
    sent: Vec<Wish>,
    /// The highest index that anybody was told of, by group.
    told: Vec<u64>,
    made: u64,
}

impl Workload {
    pub(crate) fn new(shards: u32, dice: Dice) -> Self {
        let mut skus = vec![Vec::new(); shards as usize];
        let mut number = 0;
        while skus.iter().any(|skus| skus.len() < SKUS_PER_SHARD) {
            number += 1;
            let Ok(sku) = Sku::new(&format!("SKU-{number}")) else {
                continue;
            };
            let of_shard = &mut skus[sku.shard(shards) as usize];
            if of_shard.len() < SKUS_PER_SHARD {
                of_shard.push(sku);
            }
        }
        let locations = LOCATIONS.iter().filter_map(|name| Location::new(name).ok());
        let principals = ["web", "app", "till"];
        Self {
            dice,
            skus,
            locations: locations.collect(),
            principals: principals
                .iter()
                .filter_map(|name| Principal::new(name).ok())
                .collect(),
            known: Vec::new(),
            sent: Vec::new(),
            told: vec![0; shards as usize + 1],
            made: 0,
        }
    }

    /// What a client wants next, and whether it has wanted just this before.
    pub(crate) fn next(&mut self, now_us: u64) -> (Wish, bool) {
        let now = Stamp(EPOCH_MS + now_us / 1_000);
        self.made += 1;
        // First there must be something to sell.
        if self.made <= 2 * self.skus.len() as u64 {
            let shard = (self.made as usize - 1) % self.skus.len();
            return (self.receipt_of_all(now, shard), false);
        }
        if self.dice.chance(60)
            && let Some(wish) = self.dice.pick(&self.sent).cloned()
        {
            return (self.again(&wish, now_us), true);
        }
        let wish = match self.dice.between(0, 99) {
            0..30 => self.read(),
            30..33 => self.put_location(now),
            _ => self.stock(now),
        };
        (wish, false)
    }

    /// The same once more, as the edge passes it on: with another id for a reservation to be, and a
    /// fingerprint made anew.
    pub(crate) fn again(&mut self, wish: &Wish, now_us: u64) -> Wish {
        let now = Stamp(EPOCH_MS + now_us / 1_000);
        let mut wish = wish.clone();
        if let Ask::Commands(commands) = &mut wish.ask {
            for command in commands {
                if let AnyCommand::Stock(Command {
                    action: Action::Request(request, operation),
                    ..
                }) = command
                {
                    if let Operation::Reserve(reserve) = operation {
                        reserve.id = self.reservation_id(now, reserve.id.shard());
                    }
                    *request = Request::of(request.id, operation);
                }
            }
        }
        wish
    }

    /// A wish was answered at this index.
    pub(crate) fn answered(&mut self, wish: &Wish, index: u64, outcomes: &[GroupOutcome]) {
        let told = &mut self.told[wish.group.index()];
        *told = (*told).max(index);
        if matches!(wish.ask, Ask::Commands(_)) {
            self.sent.push(wish.clone());
            if self.sent.len() > SENT_MAX {
                self.sent.remove(0);
            }
        }
        for outcome in outcomes {
            if let GroupOutcome::Stock(Outcome::Reservation(reservation)) = outcome {
                self.known.retain(|known| known.id != reservation.id);
                self.known.push(Arc::clone(reservation));
                if self.known.len() > KNOWN_MAX {
                    self.known.remove(0);
                }
            }
        }
    }

    /// Now and then a client looks at once at what it has just changed.
    pub(crate) fn read_back(&mut self, wish: &Wish, outcomes: &[GroupOutcome]) -> Option<Wish> {
        if !self.dice.chance(250) {
            return None;
        }
        let Ask::Commands(commands) = &wish.ask else {
            return None;
        };
        let subject = match (commands.first()?, outcomes.first()?) {
            (AnyCommand::Catalog(_), _) => Subject::Locations,
            (AnyCommand::Stock(_), GroupOutcome::Stock(Outcome::Reservation(reservation))) => {
                match reservation.lines.first().filter(|_| self.dice.chance(500)) {
                    Some(line) => Subject::Positions(line.sku.clone()),
                    None => Subject::Reservation(reservation.id),
                }
            }
            (AnyCommand::Stock(_), _) => Subject::Positions(self.sku(wish.group.index() - 1)),
            (AnyCommand::Registry(_), _) => return None,
        };
        let group = match &subject {
            Subject::Positions(sku) => GroupId::of_shard(sku.shard(self.skus.len() as u32)),
            _ => wish.group,
        };
        Some(Wish {
            group,
            ask: Ask::Read(Freshness::LINEARIZABLE, subject),
        })
    }

    /// A read of everything, for the end.
    pub(crate) fn audit(&mut self, now_us: u64) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let read = |group, subject| Wish {
            group,
            ask: Ask::Read(Freshness::LINEARIZABLE, subject),
        };
        for (shard, skus) in (0..).zip(&self.skus) {
            let group = GroupId::of_shard(shard);
            wishes.extend(
                skus.iter()
                    .map(|sku| read(group, Subject::Positions(sku.clone()))),
            );
        }
        for known in &self.known {
            let group = GroupId::of_shard(known.id.shard());
            wishes.push(read(group, Subject::Reservation(known.id)));
        }
        let whole = Listing {
            filter: Filter::default(),
            after: None,
            found_max: usize::MAX,
        };
        let orders = (1..=ORDERS).filter_map(|it| OrderReference::new(&format!("A-{it}")).ok());
        let of_orders = orders.map(|order| Listing {
            filter: Filter {
                order_reference: Some(order),
                ..Filter::default()
            },
            ..whole.clone()
        });
        let listings: Vec<Listing> = [whole.clone()].into_iter().chain(of_orders).collect();
        for shard in 0..self.skus.len() as u32 {
            for listing in &listings {
                let subject = Subject::List(Arc::new(listing.clone()));
                wishes.push(read(GroupId::of_shard(shard), subject));
            }
        }
        wishes.push(read(GroupId::META, Subject::Locations));
        // And whoever asks for a basket once more is told what he was told before.
        let sent: Vec<Wish> = self.sent.clone();
        let again = sent.iter().filter(|wish| is_over_shards(wish));
        wishes.extend(again.map(|wish| self.again(wish, now_us)));
        wishes
    }

    fn receipt_of_all(&mut self, now: Stamp, shard: usize) -> Wish {
        let skus = self.skus[shard].clone();
        let locations = self.locations.clone();
        let lines = skus
            .iter()
            .flat_map(|sku| locations.iter().map(move |location| (sku, location)))
            .enumerate()
            .filter_map(|(number, (sku, location))| {
                let units = self.dice.between(2, 30) as i64;
                movement_line(&number.to_string(), sku, location, units, now)
            })
            .collect();
        self.movements(shard, MovementKind::Receipt, lines)
    }

    fn movements(&mut self, shard: usize, kind: MovementKind, lines: Vec<MovementLine>) -> Wish {
        let number = match self.dice.chance(100) {
            true => self.dice.between(1, 5),
            false => 10 + self.made,
        };
        let reason = match kind {
            MovementKind::Adjustment => Reason::new("counted").ok(),
            MovementKind::Receipt | MovementKind::Sale => None,
        };
        let source = if self.dice.chance(300) {
            "till-2"
        } else {
            "till-1"
        };
        let names = Document::new(&format!("D{number}"))
            .ok()
            .zip(Reporter::new(source).ok());
        let action = names.map(|(document, source)| {
            Action::Movements(Movements {
                kind,
                source,
                document,
                reason,
                lines,
            })
        });
        self.wish(shard, action.into_iter().collect())
    }

    fn wish(&mut self, shard: usize, actions: Vec<Action>) -> Wish {
        let commands = actions
            .into_iter()
            .map(|action| {
                AnyCommand::Stock(Command {
                    principal: self.principal(),
                    action,
                })
            })
            .collect();
        Wish {
            group: GroupId::of_shard(shard as u32),
            ask: Ask::Commands(commands),
        }
    }

    fn stock(&mut self, now: Stamp) -> Wish {
        let shard = self.dice.below(self.skus.len());
        match self.dice.between(0, 99) {
            0..45 => {
                // Mostly one; seldom several that travel together.
                let count = match self.dice.chance(100) {
                    true => self.dice.between(2, 4),
                    false => 1,
                };
                if self.skus.len() > 1 && self.dice.chance(500) {
                    return self.reserve_over_shards(now);
                }
                let reserves = (0..count)
                    .map(|_| {
                        let reserve = Operation::Reserve(Reserve {
                            id: self.reservation_id(now, shard as u32),
                            lines: self.basket(shard),
                            ttl_ms: self.ttl_ms(),
                            labels: self.labels(),
                            over: None,
                        });
                        self.request(now, reserve)
                    })
                    .collect();
                self.wish(shard, reserves)
            }
            45..80 => self.of_a_reservation(now, shard),
            80..84 => {
                let policy = Operation::SetPolicy(SetPolicy {
                    sku: self.sku(shard),
                    location: self.location(),
                    safety_stock: self.dice.chance(600).then(|| self.units() - 1),
                    backorder_limit: self.dice.chance(600).then(|| self.units() - 1),
                });
                let action = self.request(now, policy);
                self.wish(shard, vec![action])
            }
            kind => {
                let kind = match kind {
                    84..92 => MovementKind::Receipt,
                    92..97 => MovementKind::Sale,
                    _ => MovementKind::Adjustment,
                };
                let count = self.dice.between(1, 3);
                let lines = (0..count)
                    .filter_map(|number| {
                        let units = self.units();
                        let on_hand_delta = match kind {
                            MovementKind::Receipt => 2 * units,
                            MovementKind::Sale => -units,
                            MovementKind::Adjustment if units > 2 => 3 - units,
                            MovementKind::Adjustment => units,
                        };
                        let occurred_at = match self.dice.between(0, 9) {
                            0..7 => now,
                            7..9 => now.minus_ms(self.dice.between(0, 300_000)),
                            _ => now.plus_ms(self.dice.between(0, 61_000)),
                        };
                        let on_hand_delta = if on_hand_delta == 0 {
                            -1
                        } else {
                            on_hand_delta
                        };
                        let (sku, location) = (self.sku(shard), self.location());
                        let name = number.to_string();
                        movement_line(&name, &sku, &location, on_hand_delta, occurred_at)
                    })
                    .collect();
                self.movements(shard, kind, lines)
            }
        }
    }

    /// A change of a reservation that was asked for, with the same fields and under the same id, as
    /// another kind of call.
    fn as_another_kind(&mut self) -> Option<Wish> {
        let Wish { group, ask } = self.dice.pick(&self.sent)?;
        let Ask::Commands(commands) = ask else {
            return None;
        };
        let [AnyCommand::Stock(command)] = &commands[..] else {
            return None;
        };
        let Action::Request(request, operation) = &command.action else {
            return None;
        };
        let other = match operation.clone() {
            Operation::Confirm(Confirm {
                id,
                pickup_within_ms: Some(ttl_ms),
            }) => Operation::Extend(Extend { id, ttl_ms }),
            Operation::Confirm(Confirm { id, .. }) => Operation::Release(Release {
                id,
                lines: Vec::new(),
                forced: None,
            }),
            Operation::Extend(Extend { id, ttl_ms }) => Operation::Confirm(Confirm {
                id,
                pickup_within_ms: Some(ttl_ms),
            }),
            Operation::Release(Release { id, lines, .. }) => {
                Operation::Fulfill(Fulfill { id, lines })
            }
            Operation::Fulfill(Fulfill { id, lines }) => Operation::Release(Release {
                id,
                lines,
                forced: None,
            }),
            Operation::Reserve(_) | Operation::Amend(_) | Operation::SetPolicy(_) => return None,
        };
        let action = Action::Request(Request::of(request.id, &other), other);
        let command = Command {
            principal: command.principal.clone(),
            action,
        };
        Some(Wish {
            group: *group,
            ask: Ask::Commands(vec![AnyCommand::Stock(command)]),
        })
    }

    fn of_a_reservation(&mut self, now: Stamp, shard: usize) -> Wish {
        if self.dice.chance(60)
            && let Some(wish) = self.as_another_kind()
        {
            return wish;
        }
        let known = match self.dice.chance(40) {
            true => None,
            false => self.dice.pick(&self.known).cloned(),
        };
        let shard = known
            .as_ref()
            .map_or(shard, |known| known.id.shard() as usize);
        let id = match &known {
            Some(known) => known.id,
            None => self.reservation_id(now, shard as u32),
        };
        let operation = match self.dice.between(0, 99) {
            0..30 => Operation::Confirm(Confirm {
                id,
                pickup_within_ms: self.dice.chance(300).then(|| self.ttl_ms()),
            }),
            30..50 => Operation::Release(Release {
                id,
                lines: self.partial_lines(known.as_deref()),
                forced: None,
            }),
            50..70 => Operation::Fulfill(Fulfill {
                id,
                lines: self.partial_lines(known.as_deref()),
            }),
            70..85 => Operation::Extend(Extend {
                id,
                ttl_ms: self.ttl_ms(),
            }),
            _ => {
                let lines = match self.dice.chance(500) {
                    true => self.basket_over_shards(),
                    false => self.basket(shard),
                };
                Operation::Amend(Amend {
                    id,
                    over: self.over(shard as u32, &lines),
                    lines,
                    ttl_ms: self.dice.chance(400).then(|| self.ttl_ms()),
                })
            }
        };
        let action = self.request(now, operation);
        self.wish(shard, vec![action])
    }

    fn read(&mut self) -> Wish {
        let group = GroupId(self.dice.below(self.told.len()) as u32);
        let told = self.told[group.index()];
        let freshness = match self.dice.between(0, 3) {
            0 => Freshness::Near,
            1 => Freshness::AtLeast(told),
            2 => Freshness::Linearizable { at_least: told },
            _ => Freshness::LINEARIZABLE,
        };
        let of_group = |known: &&Arc<Reservation>| Some(known.id.shard()) == group.shard();
        let known: Vec<ReservationId> = self
            .known
            .iter()
            .filter(of_group)
            .map(|known| known.id)
            .collect();
        let subject = match group.shard() {
            None => Subject::Locations,
            Some(shard) => match self.dice.pick(&known) {
                Some(id) if self.dice.chance(400) => Subject::Reservation(*id),
                _ if self.dice.chance(250) => self.listing(shard as usize, &known),
                _ => Subject::Positions(self.sku(shard as usize)),
            },
        };
        Wish {
            group,
            ask: Ask::Read(freshness, subject),
        }
    }

    fn put_location(&mut self, now: Stamp) -> Wish {
        let put = PutLocation {
            location: self.location(),
            kind: match self.dice.chance(500) {
                true => LocationType::Store,
                false => LocationType::Warehouse,
            },
            name: format!("name {}", self.made),
            coordinates: self.dice.chance(500).then_some(Coordinates {
                latitude_e6: 52_520_000,
                longitude_e6: 13_405_000,
            }),
            gln: String::new(),
        };
        let command = CatalogCommand {
            principal: self.principal(),
            request: Request {
                id: self.request_id(now),
                fingerprint: put.fingerprint(),
            },
            put,
        };
        Wish {
            group: GroupId::META,
            ask: Ask::Commands(vec![AnyCommand::Catalog(command)]),
        }
    }

    fn request(&mut self, now: Stamp, operation: Operation) -> Action {
        Action::Request(Request::of(self.request_id(now), &operation), operation)
    }

    fn request_id(&mut self, now: Stamp) -> RequestId {
        // Now and then an id is used for something else than before.
        if self.dice.chance(30)
            && let Some(Wish {
                ask: Ask::Commands(commands),
                ..
            }) = self.dice.pick(&self.sent)
            && let Some(AnyCommand::Stock(Command {
                action: Action::Request(request, _),
                ..
            })) = commands.first()
        {
            return request.id;
        }
        let made_at = match self.dice.between(0, 99) {
            0..93 => now.minus_ms(self.dice.between(0, 1_000)),
            93..96 => now.plus_ms(self.dice.between(0, 70_000)),
            _ => now.minus_ms(self.dice.between(0, 800_000)),
        };
        let bits = u128::from(made_at.0) << 80 | 0x7 << 76 | u128::from(self.dice.number() >> 2);
        RequestId::new(bits.to_be_bytes()).unwrap_or_else(|_| unreachable!("the version is 7"))
    }

    fn reservation_id(&mut self, now: Stamp, shard: u32) -> ReservationId {
        ReservationId::compose(now, shard, self.dice.number())
    }

    fn basket(&mut self, shard: usize) -> Vec<Line> {
        let lines = self.dice.between(1, 5);
        (0..lines).filter_map(|_| self.line(shard)).collect()
    }

    /// Of some shards, or of all.
    fn basket_over_shards(&mut self) -> Vec<Line> {
        let lines = self.dice.between(2, 2 + self.skus.len() as u64);
        let shards: Vec<usize> = (0..lines)
            .map(|_| self.dice.below(self.skus.len()))
            .collect();
        shards
            .iter()
            .filter_map(|shard| self.line(*shard))
            .collect()
    }

    /// What it takes to hold lines that are not all of this shard; when, its node says.
    fn over(&self, home: u32, lines: &[Line]) -> Option<Box<Over>> {
        let shards = self.skus.len() as u32;
        let is_at_home = |line: &Line| line.sku.shard(shards) == home;
        let over = || Over {
            shards,
            asked_at: Stamp(0),
            is_last_try: false,
        };
        (!lines.iter().all(is_at_home)).then(|| Box::new(over()))
    }

    fn reserve_over_shards(&mut self, now: Stamp) -> Wish {
        let lines = self.basket_over_shards();
        let names = lines.iter().map(|line| &line.sku);
        let first = names.min_by_key(|sku| sku.as_str());
        let home = first.map_or(0, |sku| sku.shard(self.skus.len() as u32));
        let reserve = Operation::Reserve(Reserve {
            id: self.reservation_id(now, home),
            over: self.over(home, &lines),
            lines,
            ttl_ms: self.ttl_ms(),
            labels: self.labels(),
        });
        let action = self.request(now, reserve);
        self.wish(home as usize, vec![action])
    }

    fn line(&mut self, shard: usize) -> Option<Line> {
        Some(Line {
            sku: self.sku(shard),
            location: self.location(),
            quantity: Quantity::new(self.units()).ok()?,
        })
    }

    /// None for all; else some of what is open, with a mistake here and there.
    fn partial_lines(&mut self, known: Option<&Reservation>) -> Vec<PartialLine> {
        let mut lines = Vec::new();
        if self.dice.chance(500) {
            return lines;
        }
        for line in known.iter().flat_map(|known| &known.lines) {
            if self.dice.chance(600) {
                let most = line.open.max(1) as u64 + u64::from(self.dice.chance(50));
                let units = self.dice.between(1, most) as i64;
                lines.extend(Quantity::new(units).map(|quantity| PartialLine {
                    sku: line.sku.clone(),
                    location: self.dice.chance(700).then(|| line.location.clone()),
                    quantity,
                }));
            }
        }
        lines
    }

    fn ttl_ms(&mut self) -> u64 {
        match self.dice.between(0, 9) {
            0..6 => self.dice.between(1_000, 8_000),
            6..9 => self.dice.between(8_000, 40_000),
            _ => 900_000,
        }
    }

    fn units(&mut self) -> i64 {
        self.dice.between(1, 4) as i64
    }

    /// What a caller calls its order: several reservations may have one name, and many have none.
    fn labels(&mut self) -> Option<Arc<Labels>> {
        let reference = self.order_reference().filter(|_| self.dice.chance(600));
        let channel = self.channel().filter(|_| self.dice.chance(500));
        Labels::new(reference, channel)
    }

    fn order_reference(&mut self) -> Option<OrderReference> {
        OrderReference::new(&format!("A-{}", self.dice.between(1, ORDERS))).ok()
    }

    fn channel(&mut self) -> Option<Channel> {
        let name = self.dice.pick(&["web", "app"])?;
        Channel::new(name).ok()
    }

    /// Reservations are looked for by their order, or by something else, or all of them are gone
    /// through, a page at a time.
    fn listing(&mut self, shard: usize, known: &[ReservationId]) -> Subject {
        let mut filter = Filter::default();
        match self.dice.between(0, 9) {
            0..5 => filter.order_reference = self.order_reference(),
            5 => filter.channel = self.channel(),
            6 => filter.states = vec![State::Held],
            7 => filter.sku = Some(self.sku(shard)),
            8 => filter.location = Some(self.location()),
            _ => {}
        }
        let after = self.dice.pick(known).copied();
        Subject::List(Arc::new(Listing {
            filter,
            after: after.filter(|_| self.dice.chance(300)),
            found_max: self.dice.between(1, 8) as usize,
        }))
    }

    fn sku(&mut self, shard: usize) -> Sku {
        let at = self.dice.below(SKUS_PER_SHARD);
        self.skus[shard][at].clone()
    }

    fn location(&mut self) -> Location {
        let at = self.dice.below(LOCATIONS.len());
        self.locations[at].clone()
    }

    fn principal(&mut self) -> Principal {
        let at = self.dice.below(self.principals.len());
        self.principals[at].clone()
    }
}

fn is_over_shards(wish: &Wish) -> bool {
    let Ask::Commands(commands) = &wish.ask else {
        return false;
    };
    let is_over = |command: &AnyCommand| match command {
        AnyCommand::Stock(command) => match &command.action {
            Action::Request(_, Operation::Reserve(reserve)) => reserve.over.is_some(),
            _ => false,
        },
        AnyCommand::Catalog(_) | AnyCommand::Registry(_) => false,
    };
    commands.iter().any(is_over)
}

fn movement_line(
    name: &str,
    sku: &Sku,
    location: &Location,
    on_hand_delta: i64,
    occurred_at: Stamp,
) -> Option<MovementLine> {
    Some(MovementLine {
        line: Document::new(name).ok()?,
        sku: sku.clone(),
        location: location.clone(),
        on_hand_delta,
        occurred_at,
    })
}

/// As they travel.
pub(crate) fn encode(commands: &[AnyCommand]) -> Commands {
    let mut builder = CommandsBuilder::default();
    for command in commands {
        match command {
            AnyCommand::Stock(command) => builder.push(command),
            AnyCommand::Catalog(command) => builder.push_catalog(command),
            AnyCommand::Registry(command) => builder.push_registry(command),
        }
    }
    builder.take()
}
