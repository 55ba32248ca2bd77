//! Shards, edges and what is on its way between them: everything that a model checker may have
//! happen, in any order. Shards, coordinators and errands are those that run in nodes; of Raft it
//! is assumed that a shard carries out one command after the other and forgets none.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stock_core::{
    Action, Amend, At, Command, Confirm, Document, Line, Location, MovementKind, MovementLine,
    Movements, Operation, Outcome, Over, Principal, Quantity, Release, Reporter, Request,
    RequestId, ReservationId, Reserve, Secret, Shard, Sku, Stamp,
};
use stock_node::answer::Failure;
use stock_node::basket::{Coordinator, Errands, Said, Settling, Then, ToShard, passed_on};
use xxhash_rust::xxh3::xxh3_128;

pub(crate) const SHARDS: u32 = 3;
pub(crate) const START_MS: u64 = 1_790_000_000_000;
const TTL_MS: u64 = 10_000;

/// What a customer does, in the order in which she does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Home is the shard of the first line.
    Reserve(Vec<(u32, i64)>),
    /// Of what the customer's first wish held.
    Amend(Vec<(u32, i64)>),
    Confirm,
    Release,
}

/// Where a wish is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edge {
    /// Nobody has begun yet, or whoever did is dead.
    Idle,
    Coordinates(Box<Coordinator>),
    /// What stands in its way is found out first.
    Settles(Box<Settling>),
    /// It waits for a shard's answer.
    Waits,
}

/// Who is told what a shard answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sender {
    /// The edge that carries out this wish, in this attempt.
    Edge(usize, u32),
    /// The leader of a shard, of this number.
    Leader(u32, u32, u64),
    /// An edge whose customer has her answer: it passes on what home has decided.
    Afterwards,
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) from: Sender,
    pub(crate) to: u32,
    pub(crate) commands: Vec<Command>,
}

/// How much may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// Edges and leaders that end.
    pub(crate) crashes: u8,
    /// Answers that nobody waits for any longer, though the message may still arrive.
    pub(crate) gave_up: u8,
    /// Messages that arrive twice.
    pub(crate) doubles: u8,
    /// Attempts after the first.
    pub(crate) retries: u8,
    /// Steps of time.
    pub(crate) ticks: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    shards: Vec<Arc<Shard>>,
    shard_keys: Vec<u128>,
    leaders: Vec<(u32, Errands)>,
    pub(crate) now_ms: u64,
    pub(crate) edges: Vec<Edge>,
    attempts: Vec<u32>,
    pub(crate) network: BTreeMap<u128, (Message, u8)>,
    /// What each wish was told, each answer once.
    pub(crate) told: Vec<Vec<Told>>,
    pub(crate) budget: Budget,
    key: u128,
}

/// What a customer hears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Held(ReservationId),
    Short,
    /// Of a change: done, or refused because of the state that it is in.
    Changed(bool),
    /// Try again.
    Unknown,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The only SKU of a shard.
pub(crate) fn sku(shard: u32) -> Sku {
    let names = (0..).map(|n| Sku::new(&format!("SKU-{n}")).unwrap());
    let mut of_shard = names.filter(|sku| sku.shard(SHARDS) == shard);
    of_shard.next().unwrap()
}

pub(crate) fn here() -> Location {
    Location::new("A").unwrap()
}

fn lines(of: &[(u32, i64)]) -> Vec<Line> {
    let line = |(shard, units): &(u32, i64)| Line {
        sku: sku(*shard),
        location: here(),
        quantity: Quantity::new(*units).unwrap(),
    };
    of.iter().map(line).collect()
}

fn command(action: Action) -> Command {
    Command {
        principal: Principal::new("web").unwrap(),
        action,
    }
}

impl State {
    pub(crate) fn new(stock: [i64; SHARDS as usize], wishes: usize, budget: Budget) -> Self {
        let mut state = Self {
            shards: (0..SHARDS)
                .map(|_| Arc::new(Shard::of_buckets(Secret(7), 1)))
                .collect(),
            shard_keys: vec![0; SHARDS as usize],
            leaders: (0..SHARDS).map(|_| (0, Errands::default())).collect(),
            now_ms: START_MS,
            edges: vec![Edge::Idle; wishes],
            attempts: vec![0; wishes],
            network: BTreeMap::new(),
            told: vec![Vec::new(); wishes],
            budget,
            key: 0,
        };
        for (shard, units) in (0..).zip(stock) {
            let movements = Movements {
                kind: MovementKind::Receipt,
                source: Reporter::new("dock").unwrap(),
                document: Document::new("D").unwrap(),
                reason: None,
                lines: vec![MovementLine {
                    line: Document::new("1").unwrap(),
                    sku: sku(shard),
                    location: here(),
                    on_hand_delta: units,
                    occurred_at: Stamp(START_MS),
                }],
            };
            state.apply(shard, command(Action::Movements(movements)));
        }
        state.sealed()
    }

    /// As it is compared with others.
    pub(crate) fn sealed(mut self) -> Self {
        let rest = format!(
            "{:?} {:?} {} {:?} {:?} {:?} {:?} {:?}",
            self.shard_keys,
            self.leaders,
            self.now_ms,
            self.edges,
            self.attempts,
            self.network
                .iter()
                .map(|(key, (_, count))| (key, count))
                .collect::<Vec<_>>(),
            self.told,
            self.budget,
        );
        self.key = xxh3_128(rest.as_bytes());
        self
    }

    pub(crate) fn shard(&self, shard: u32) -> &Shard {
        &self.shards[shard as usize]
    }

    fn apply(&mut self, shard: u32, command: Command) -> Outcome {
        let at = At {
            index: 1,
            ordinal: 0,
            moment: Stamp(self.now_ms).into(),
        };
        let state = Arc::make_mut(&mut self.shards[shard as usize]);
        let mut ledger = Vec::new();
        state.advance(at.moment, &mut ledger);
        let outcome = state.apply(at, command, &mut ledger);
        self.shard_keys[shard as usize] = state.freeze().hash();
        outcome
    }

    fn send(&mut self, from: Sender, to: u32, commands: Vec<Command>) {
        let message = Message { from, to, commands };
        let key = xxh3_128(format!("{message:?}").as_bytes());
        // What is said again while it is under way would arrive twice: that is a double.
        self.network.entry(key).or_insert((message, 1));
    }

    fn send_all(&mut self, from: Sender, all: Vec<ToShard>) {
        for tell in all {
            self.send(from, tell.shard, vec![tell.command]);
        }
    }

    fn take(&mut self, key: u128) -> Message {
        let (message, count) = self.network.get_mut(&key).unwrap();
        let message = message.clone();
        *count -= 1;
        if *count == 0 {
            self.network.remove(&key);
        }
        message
    }

    /// What a wish is once it is asked of a shard; none while what it is about is not held.
    fn asked(&self, wishes: &[Wish], number: usize) -> Option<Command> {
        let over = Some(Box::new(Over {
            shards: SHARDS,
            asked_at: Stamp(self.now_ms),
            is_last_try: false,
        }));
        let held = self.told.first()?.iter().find_map(|told| match told {
            Told::Held(id) => Some(*id),
            _ => None,
        });
        let operation = match &wishes[number] {
            Wish::Reserve(basket) => Operation::Reserve(Reserve {
                id: ReservationId::compose(
                    Stamp(START_MS),
                    basket[0].0,
                    (number as u64 + 1) * 100 + u64::from(self.attempts[number]),
                ),
                lines: lines(basket),
                ttl_ms: TTL_MS,
                labels: None,
                over,
            }),
            Wish::Amend(basket) => Operation::Amend(Amend {
                id: held?,
                lines: lines(basket),
                ttl_ms: None,
                over,
            }),
            Wish::Confirm => Operation::Confirm(Confirm {
                id: held?,
                pickup_within_ms: None,
            }),
            Wish::Release => Operation::Release(Release {
                id: held?,
                lines: Vec::new(),
                forced: None,
            }),
        };
        let bits = u128::from(START_MS) << 80 | 0x7 << 76 | (number as u128 + 1);
        let id = RequestId::new(bits.to_be_bytes()).unwrap();
        Some(command(Action::Request(
            Request::of(id, &operation),
            operation,
        )))
    }

    /// Whether a wish can be begun, or repeated.
    pub(crate) fn may_begin(&self, wishes: &[Wish], number: usize) -> bool {
        let is_first = self.attempts[number] == 0;
        (is_first || self.budget.retries > 0) && self.asked(wishes, number).is_some()
    }

    pub(crate) fn begin(&mut self, wishes: &[Wish], number: usize) {
        let Some(command) = self.asked(wishes, number) else {
            return;
        };
        if self.attempts[number] > 0 {
            self.budget.retries -= 1;
        }
        self.attempts[number] += 1;
        let from = Sender::Edge(number, self.attempts[number]);
        if let Ok((coordinator, first)) = Coordinator::new(command.clone()) {
            self.edges[number] = Edge::Coordinates(Box::new(coordinator));
            self.send_all(from, first);
            return;
        }
        let Action::Request(_, operation) = &command.action else {
            return;
        };
        let home = match operation {
            Operation::Confirm(confirm) => confirm.id.shard(),
            Operation::Release(release) => release.id.shard(),
            _ => return,
        };
        self.edges[number] = Edge::Waits;
        self.send(from, home, vec![command]);
    }

    /// A message arrives, and whoever still waits hears the answer.
    pub(crate) fn deliver(&mut self, wishes: &[Wish], key: u128) {
        let message = self.take(key);
        let to = message.to;
        let outcomes = message.commands.into_iter();
        let outcomes = outcomes.map(|command| self.apply(to, command));
        let outcomes: Vec<Outcome> = outcomes.collect();
        self.heard(wishes, message.from, to, Ok(outcomes));
    }

    /// Whoever sent a message waits no longer; it may arrive all the same.
    pub(crate) fn give_up(&mut self, wishes: &[Wish], key: u128) {
        let message = self.take(key);
        self.budget.gave_up -= 1;
        self.send(Sender::Nobody, message.to, message.commands);
        let failed = Err(Failure::OutcomeUnknown);
        self.heard(wishes, message.from, message.to, failed);
    }

    fn heard(
        &mut self,
        wishes: &[Wish],
        by: Sender,
        shard: u32,
        said: Result<Vec<Outcome>, Failure>,
    ) {
        match by {
            Sender::Nobody => {}
            Sender::Afterwards => {
                let outcomes = said.unwrap_or_default();
                self.send_all(Sender::Nobody, passed_on(outcomes.iter()).collect());
            }
            Sender::Leader(leader, life, sent_ms) => {
                let now_ms = self.now_ms;
                let (alive, errands) = &mut self.leaders[leader as usize];
                if *alive == life {
                    let duties = errands.answered(leader, (shard, sent_ms), said, now_ms);
                    self.send_all(Sender::Nobody, duties);
                }
            }
            Sender::Edge(number, attempt) if self.attempts[number] == attempt => {
                let said = said.map(|outcomes| outcomes.into_iter().next().unwrap());
                self.edge_heard(wishes, number, shard, said);
            }
            Sender::Edge(..) => {}
        }
    }

    fn edge_heard(&mut self, wishes: &[Wish], number: usize, shard: u32, said: Said) {
        let from = Sender::Edge(number, self.attempts[number]);
        match &mut self.edges[number] {
            Edge::Idle => {}
            Edge::Waits => self.ended(wishes, number, said),
            Edge::Settles(settling) => {
                settling.answered(shard, said);
                let (decision, failure) = (settling.decision(), settling.failure());
                if let Some(decide) = decision {
                    // Whoever settles repeats what it wanted; here its customer does.
                    self.send_all(Sender::Afterwards, vec![decide]);
                    self.ended(wishes, number, Err(Failure::OutcomeUnknown));
                } else if failure.is_some() {
                    self.ended(wishes, number, Err(Failure::OutcomeUnknown));
                }
            }
            Edge::Coordinates(coordinator) => match coordinator.answered(shard, said) {
                Then::Wait => {}
                // Whatever is later may come about at any time.
                Then::Tell(more) | Then::TellLater(_, more) => self.send_all(from, more),
                Then::End(ended) => {
                    self.send_all(Sender::Afterwards, ended.afterwards);
                    self.ended(wishes, number, ended.said);
                }
            },
        }
    }

    fn ended(&mut self, wishes: &[Wish], number: usize, said: Said) {
        self.edges[number] = Edge::Idle;
        let is_reserve = matches!(wishes[number], Wish::Reserve(_));
        let told = match said {
            Ok(Outcome::Reservation(held)) if is_reserve => Told::Held(held.id),
            Ok(Outcome::Reservation(_)) => Told::Changed(true),
            Ok(Outcome::Shortage(_)) => Told::Short,
            Ok(Outcome::Refused(stock_core::Refusal::TooLate)) | Err(_) => Told::Unknown,
            Ok(Outcome::Undecided(prepared)) => {
                let settling = Settling::new(prepared);
                let probes = settling.unanswered().collect();
                self.edges[number] = Edge::Settles(Box::new(settling));
                let from = Sender::Edge(number, self.attempts[number]);
                return self.send_all(from, probes);
            }
            Ok(_) => Told::Changed(false),
        };
        if !self.told[number].contains(&told) {
            self.told[number].push(told);
            self.told[number].sort();
        }
    }

    pub(crate) fn edge_dies(&mut self, number: usize) {
        self.budget.crashes -= 1;
        self.edges[number] = Edge::Idle;
    }

    pub(crate) fn leader_dies(&mut self, shard: u32) {
        self.budget.crashes -= 1;
        let (life, errands) = &mut self.leaders[shard as usize];
        *life += 1;
        *errands = Errands::default();
    }

    pub(crate) fn has_leader_work(&self, shard: u32) -> bool {
        self.leaders[shard as usize].1 != Errands::default()
    }

    pub(crate) fn doubles(&mut self, key: u128) {
        self.budget.doubles -= 1;
        if let Some((_, count)) = self.network.get_mut(&key) {
            *count += 1;
        }
    }

    /// Time passes, in every shard and for every leader.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for shard in 0..SHARDS as usize {
            let state = Arc::make_mut(&mut self.shards[shard]);
            state.advance(Stamp(self.now_ms).into(), &mut Vec::new());
            self.shard_keys[shard] = state.freeze().hash();
        }
    }

    /// A leader sees to what is due. Tells whether there was anything.
    pub(crate) fn see_to(&mut self, shard: u32) -> bool {
        let (life, errands) = &mut self.leaders[shard as usize];
        let life = *life;
        let due = errands.due(shard, &self.shards[shard as usize], self.now_ms);
        let any = !due.is_empty();
        for errand in due {
            let from = Sender::Leader(shard, life, errand.sent_ms);
            self.send(from, errand.to, errand.commands);
        }
        any
    }

    /// Nothing more goes wrong: what is on its way is lost, edges are dead, and leaders see to
    /// everything for a quarter of a minute.
    pub(crate) fn settled(&self) -> Self {
        let mut state = self.clone();
        state.network.clear();
        state.edges.iter_mut().for_each(|edge| *edge = Edge::Idle);
        for shard in 0..SHARDS {
            state.leaders[shard as usize].1 = Errands::default();
        }
        for ms in [1_100, 2_100, 0, 3_000, 3_000] {
            state.pass(ms);
            // Whoever is told decides, tells others, and is acknowledged.
            for _ in 0..6 {
                for shard in 0..SHARDS {
                    state.see_to(shard);
                }
                while let Some(key) = state.network.keys().next().copied() {
                    state.deliver(&[], key);
                }
            }
        }
        state
    }
}
