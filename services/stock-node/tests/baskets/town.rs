//! Some shards, with nothing between them: commands are carried out where and when a test says.

use std::collections::VecDeque;

use stock_core::{
    Action, Amend, At, BasketCommand, Command, Confirm, Document, Fulfill, LedgerEntry, Line,
    Location, Moment, MovementKind, MovementLine, Movements, Operation, Outcome, Over, PartialLine,
    Position, Principal, Quantity, Recovered, Release, Reporter, Request, RequestId, Reservation,
    ReservationId, Reserve, Secret, Shard, Sku, Stamp,
};
use stock_node::answer::Failure;
pub(crate) use stock_node::basket::ToShard;
use stock_node::basket::{Coordinator, Ended, Errand, Errands, Settling, Then, passed_on};

pub(crate) const SHARDS: u32 = 8;

const START: Stamp = Stamp(1_790_000_000_000);

/// All shards of a cluster, and their leaders.
pub(crate) struct Town {
    shards: Vec<Shard>,
    leaders: Vec<Errands>,
    pub(crate) now: Stamp,
    /// So far the wall clocks are ahead of cluster time.
    pub(crate) wall_ahead_ms: u64,
    commands: u64,
    requests: u64,
    /// Shards that nobody can reach.
    pub(crate) away: Vec<u32>,
    /// Leaders whose errands are lost: they hear nothing of them.
    pub(crate) deaf: Vec<u32>,
    /// What was said, but has not arrived.
    pub(crate) late: VecDeque<ToShard>,
    pub(crate) ledger: Vec<(u32, LedgerEntry)>,
}

/// What becomes of a command on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Arrives,
    /// It never arrives.
    Lost,
    /// It arrives when the test says, and the answer reaches nobody.
    Late,
    /// It is carried out, and the answer is lost.
    AnswerLost,
}

/// The first SKU of a shard, or another one.
pub(crate) fn sku(shard: u32, number: usize) -> Sku {
    let names = (0..).map(|n| Sku::new(&format!("SKU-{n}")).unwrap());
    names
        .filter(|sku| sku.shard(SHARDS) == shard)
        .nth(number)
        .unwrap()
}

pub(crate) fn here() -> Location {
    Location::new("A").unwrap()
}

pub(crate) fn line(shard: u32, units: i64) -> Line {
    Line {
        sku: sku(shard, 0),
        location: here(),
        quantity: Quantity::new(units).unwrap(),
    }
}

/// A line of each of these shards.
pub(crate) fn lines(of: &[(u32, i64)]) -> Vec<Line> {
    of.iter()
        .map(|(shard, units)| line(*shard, *units))
        .collect()
}

impl Town {
    /// With so many units of the first SKU of each shard.
    pub(crate) fn with_stock(units: i64) -> Self {
        let shards = || (0..SHARDS).map(|_| Shard::new(Secret(7)));
        let mut town = Self {
            shards: shards().collect(),
            leaders: (0..SHARDS).map(|_| Errands::default()).collect(),
            now: START,
            wall_ahead_ms: 0,
            commands: 0,
            requests: 0,
            away: Vec::new(),
            deaf: Vec::new(),
            late: VecDeque::new(),
            ledger: Vec::new(),
        };
        for shard in 0..SHARDS {
            town.receive(shard, units);
        }
        town
    }

    pub(crate) fn receive(&mut self, shard: u32, units: i64) {
        self.requests += 1;
        let movements = Movements {
            kind: MovementKind::Receipt,
            source: Reporter::new("dock").unwrap(),
            document: Document::new(&self.requests.to_string()).unwrap(),
            reason: None,
            lines: vec![MovementLine {
                line: Document::new("1").unwrap(),
                sku: sku(shard, 0),
                location: here(),
                on_hand_delta: units,
                occurred_at: self.now,
            }],
        };
        self.apply(shard, command(Action::Movements(movements)));
    }

    /// A shard carries out a command.
    pub(crate) fn apply(&mut self, shard: u32, command: Command) -> Outcome {
        self.commands += 1;
        let at = At {
            index: self.commands,
            ordinal: 0,
            moment: Moment {
                stamp: self.now,
                wall: self.now.plus_ms(self.wall_ahead_ms),
            },
        };
        let mut ledger = Vec::new();
        let state = &mut self.shards[shard as usize];
        state.advance(self.now.into(), &mut ledger);
        let outcome = state.apply(at, command, &mut ledger);
        self.ledger
            .extend(ledger.into_iter().map(|entry| (shard, entry)));
        outcome
    }

    pub(crate) fn tell(&mut self, tell: ToShard) -> Result<Outcome, Failure> {
        match self.away.contains(&tell.shard) {
            true => Err(Failure::NotLeader { leader: None }),
            false => Ok(self.apply(tell.shard, tell.command)),
        }
    }

    /// A request of its own.
    pub(crate) fn request(&mut self) -> RequestId {
        self.requests += 1;
        let bits = u128::from(self.now.0) << 80 | 0x7 << 76 | u128::from(self.requests);
        RequestId::new(bits.to_be_bytes()).unwrap()
    }

    fn over(&self, is_last_try: bool) -> Option<Box<Over>> {
        Some(Box::new(Over {
            shards: SHARDS,
            asked_at: self.now,
            is_last_try,
        }))
    }

    /// As an edge has a basket held; home is the shard of its first line.
    pub(crate) fn reserve_command(
        &mut self,
        request: RequestId,
        lines: &[Line],
        is_last_try: bool,
    ) -> Command {
        self.requests += 1;
        let home = lines[0].sku.shard(SHARDS);
        let reserve = Operation::Reserve(Reserve {
            id: ReservationId::compose(self.now, home, self.requests),
            lines: lines.to_vec(),
            ttl_ms: 900_000,
            labels: None,
            over: self.over(is_last_try),
        });
        command(Action::Request(Request::of(request, &reserve), reserve))
    }

    /// Has a basket held; what edges say afterwards is said at once.
    pub(crate) fn reserve(&mut self, lines: &[Line]) -> Outcome {
        let request = self.request();
        let command = self.reserve_command(request, lines, true);
        let ended = self.coordinate(command, |_| Way::Arrives).unwrap();
        self.say(ended.afterwards);
        ended.said.unwrap()
    }

    pub(crate) fn amend(&mut self, id: ReservationId, lines: &[Line]) -> Outcome {
        let command = self.amend_command(id, lines);
        let ended = self.coordinate(command, |_| Way::Arrives).unwrap();
        self.say(ended.afterwards);
        ended.said.unwrap()
    }

    pub(crate) fn amend_command(&mut self, id: ReservationId, lines: &[Line]) -> Command {
        let request = self.request();
        let amend = Operation::Amend(Amend {
            id,
            lines: lines.to_vec(),
            ttl_ms: None,
            over: self.over(true),
        });
        command(Action::Request(Request::of(request, &amend), amend))
    }

    /// Plays an edge until it has its answer; none if it never gets it.
    pub(crate) fn coordinate(
        &mut self,
        command: Command,
        way: impl Fn(&ToShard) -> Way,
    ) -> Option<Ended> {
        let (mut coordinator, first) = Coordinator::new(command).unwrap();
        let mut tell = VecDeque::from(first);
        while let Some(next) = tell.pop_front() {
            let shard = next.shard;
            let said = match way(&next) {
                Way::Arrives => self.tell(next),
                Way::Lost => continue,
                Way::Late => {
                    self.late.push_back(next);
                    continue;
                }
                Way::AnswerLost => {
                    self.tell(next).ok();
                    continue;
                }
            };
            match coordinator.answered(shard, said) {
                Then::Wait => {}
                Then::Tell(more) => tell.extend(more),
                Then::TellLater(ms, more) => {
                    self.wait_ms(ms);
                    tell.extend(more);
                }
                Then::End(ended) => return Some(ended),
            }
        }
        None
    }

    /// Says it, and passes on what homes have decided.
    pub(crate) fn say(&mut self, all: Vec<ToShard>) {
        for tell in self.say_first(all) {
            self.tell(tell).ok();
        }
    }

    /// Says it, and tells what is to be passed on.
    pub(crate) fn say_first(&mut self, all: Vec<ToShard>) -> Vec<ToShard> {
        let said = all.into_iter().filter_map(|tell| self.tell(tell).ok());
        let said: Vec<Outcome> = said.collect();
        passed_on(said.iter()).collect()
    }

    /// What was late arrives.
    pub(crate) fn arrive_late(&mut self) -> Vec<Outcome> {
        let late: Vec<ToShard> = self.late.drain(..).collect();
        late.into_iter()
            .filter_map(|tell| self.tell(tell).ok())
            .collect()
    }

    /// Time passes, and leaders see to what is due, until nobody has anything to say.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        while self.now < until {
            self.now = self.now.plus_ms(50).min(until);
            self.tick();
        }
    }

    fn tick(&mut self) {
        for own in 0..SHARDS {
            if self.away.contains(&own) {
                continue;
            }
            let due = self.errands_of(own);
            for errand in due {
                if self.deaf.contains(&own) {
                    continue;
                }
                let which = (errand.to, errand.sent_ms);
                let said = match self.away.contains(&errand.to) {
                    true => Err(Failure::NotLeader { leader: None }),
                    false => Ok(self.carry_out(errand)),
                };
                self.errand_answered(own, which, said);
            }
        }
    }

    /// A shard as it is now, to be gone back to.
    pub(crate) fn copy_of(&self, shard: u32) -> Shard {
        self.shards[shard as usize].clone()
    }

    /// A shard's group goes on with losses, as of this copy.
    pub(crate) fn go_on_from(&mut self, shard: u32, copy: Shard) {
        self.shards[shard as usize] = copy;
        self.leaders[shard as usize] = Errands::default();
        let recovered = BasketCommand::Recovered(Recovered {
            shard,
            shards: SHARDS,
        });
        self.apply(shard, command(Action::Basket(recovered)));
    }

    /// Whether a shard has yet to hear of what others have there.
    pub(crate) fn is_reconciling(&self, shard: u32) -> bool {
        self.shards[shard as usize].counts().awaited > 0
    }

    /// What a shard's leader would say now.
    pub(crate) fn errands_of(&mut self, own: u32) -> Vec<Errand> {
        let state = &mut self.shards[own as usize];
        let mut ledger = Vec::new();
        state.advance(self.now.into(), &mut ledger);
        self.ledger
            .extend(ledger.into_iter().map(|entry| (own, entry)));
        self.leaders[own as usize].due(own, state, self.now.0)
    }

    /// An errand is carried out, and its answer is not back yet.
    pub(crate) fn carry_out(&mut self, errand: Errand) -> Vec<Outcome> {
        let commands = errand.commands.into_iter();
        commands
            .map(|command| self.apply(errand.to, command))
            .collect()
    }

    /// It is: what the leader tells its own shard by it is said.
    pub(crate) fn errand_answered(
        &mut self,
        own: u32,
        errand: (u32, u64),
        said: Result<Vec<Outcome>, Failure>,
    ) {
        let leader = &mut self.leaders[own as usize];
        // Nobody hears what the own shard says to these.
        for duty in leader.answered(own, errand, said, self.now.0) {
            self.tell(duty).ok();
        }
    }

    /// Every leader is another one.
    pub(crate) fn change_leaders(&mut self) {
        self.leaders = (0..SHARDS).map(|_| Errands::default()).collect();
    }

    pub(crate) fn position(&self, shard: u32) -> Position {
        let stock = self.shards[shard as usize].stock(&sku(shard, 0)).unwrap();
        stock.position(&here()).unwrap().clone()
    }

    /// What is reserved in each shard, of its first SKU.
    pub(crate) fn reserved(&self) -> Vec<i64> {
        (0..SHARDS)
            .map(|shard| self.position(shard).reserved)
            .collect()
    }

    pub(crate) fn reservation(&self, id: ReservationId) -> Option<Reservation> {
        let home = &self.shards[id.shard() as usize];
        home.reservation(&id).map(|it| Reservation::clone(it))
    }

    /// Nothing is on its way any more: decided, told, acknowledged.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut counts = self.shards.iter().map(Shard::counts);
        counts.all(|counts| counts.undecided == 0 && counts.owed == 0)
    }

    pub(crate) fn is_undecided(&self, id: ReservationId) -> bool {
        self.shards[id.shard() as usize].prepared(&id).is_some()
    }

    pub(crate) fn parts(&self) -> usize {
        let counts = self.shards.iter().map(Shard::counts);
        counts.map(|counts| counts.parts).sum()
    }

    pub(crate) fn tombstones(&self) -> usize {
        let counts = self.shards.iter().map(Shard::counts);
        counts.map(|counts| counts.tombstones).sum()
    }

    pub(crate) fn confirm(&mut self, id: ReservationId) -> Outcome {
        let confirm = Confirm {
            id,
            pickup_within_ms: None,
        };
        self.change(id, Operation::Confirm(confirm))
    }

    /// Of all lines, what is given.
    pub(crate) fn fulfill(&mut self, id: ReservationId, lines: &[Line]) -> Outcome {
        let lines = lines.iter().map(|line| PartialLine {
            sku: line.sku.clone(),
            location: Some(line.location.clone()),
            quantity: line.quantity,
        });
        let fulfill = Fulfill {
            id,
            lines: lines.collect(),
        };
        self.change(id, Operation::Fulfill(fulfill))
    }

    pub(crate) fn release(&mut self, id: ReservationId) -> Outcome {
        let release = Release {
            id,
            lines: Vec::new(),
            forced: None,
        };
        self.change(id, Operation::Release(release))
    }

    /// As an edge changes a reservation: what is not decided is found out first.
    pub(crate) fn change(&mut self, id: ReservationId, operation: Operation) -> Outcome {
        let request = self.request();
        let change = command(Action::Request(Request::of(request, &operation), operation));
        let Outcome::Undecided(prepared) = self.apply(id.shard(), change.clone()) else {
            return self.apply(id.shard(), change);
        };
        let mut settling = Settling::new(prepared);
        let probes: Vec<ToShard> = settling.unanswered().collect();
        for probe in probes {
            let shard = probe.shard;
            let said = self.tell(probe);
            settling.answered(shard, said);
        }
        self.say(settling.decision().into_iter().collect());
        self.apply(id.shard(), change)
    }
}

pub(crate) fn command(action: Action) -> Command {
    Command {
        principal: Principal::new("web").unwrap(),
        action,
    }
}

/// Whether it is for a participant to hold a part.
pub(crate) fn holds_part(tell: &ToShard) -> bool {
    matches!(
        tell.command.action,
        Action::Basket(BasketCommand::HoldPart(_))
    )
}
