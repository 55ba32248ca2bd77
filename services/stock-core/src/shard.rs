//! A shard: all stock of a range of SKUs, and everything that holds units of it.

use std::sync::Arc;

use crate::apply::holds::Holds;
use crate::apply::shelves::Shelves;
use crate::basket::{BasketCommand, Decide};
use crate::codec::{MemoryHead, OrderHead, ShardHead, Writer};
use crate::command::{Action, Command, Operation, Request};
use crate::documents::DocumentMemory;
use crate::frozen::{FrozenState, Slot};
use crate::ids::{
    At, Channel, IdentifierError, Location, Moment, Principal, ReservationId, Secret, Stamp,
};
use crate::ledger::LedgerEntry;
use crate::limits::{
    BUCKETS, DOCUMENT_BYTES_MAX, ENDED_RESERVATION_BYTES_MAX, EXPIRIES_PER_ENTRY_MAX,
    OPEN_RESERVATION_BYTES_MAX, POSITIONS_MAX, REQUEST_MEMORY_BYTES_MAX, SALE_BYTES_MAX,
    TOMBSTONE_BYTES_MAX,
};
use crate::memory::{Recall, RequestKey, RequestMemory};
use crate::names::{Names, Naming};
use crate::outcome::{InTheWay, Outcome, Refusal};
use crate::parts::Parts;
use crate::recoveries::Recoveries;
use crate::reservation::Reservation;
use crate::sku::Sku;
use crate::stock::Stock;
use crate::verdict::Verdict;

/// The state of one shard. See the crate's documentation for how it is driven.
#[derive(Debug, Clone)]
pub struct Shard {
    pub(crate) shelves: Shelves,
    pub(crate) holds: Holds,
    pub(crate) parts: Parts,
    pub(crate) recoveries: Recoveries,
    pub(crate) requests: RequestMemory<Verdict>,
    pub(crate) documents: DocumentMemory,
    pub(crate) names: Names,
    pub(crate) applied: At,
    pub(crate) secret: Secret,
}

/// How much a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub skus: usize,
    pub positions: usize,
    pub open_reservations: usize,
    pub ended_reservations: usize,
    pub requests_remembered: usize,
    pub document_lines_remembered: usize,
    /// Of what is bounded in bytes, about so many are used.
    pub request_bytes: usize,
    pub document_bytes: usize,
    pub open_reservation_bytes: usize,
    /// Parts of reservations that are at home in other shards, and what will never be one.
    pub parts: usize,
    pub tombstones: usize,
    /// Reservations over several shards that are not decided, and what their participants have yet
    /// to be told.
    pub undecided: usize,
    /// Since when the oldest of them is, in cluster time.
    pub undecided_since: Option<Stamp>,
    pub owed: usize,
    /// Shards that have yet to tell again what they have here, after this one has lost something.
    pub awaited: usize,
}

impl Shard {
    /// An empty shard of a cluster with this secret.
    pub fn new(secret: Secret) -> Self {
        Self::of_buckets(secret, BUCKETS)
    }

    /// As [`Self::new`], cut into so few buckets that it is copied and hashed a million times in a
    /// minute: for model checkers. Its bytes are those of no replica.
    #[doc(hidden)]
    pub fn of_buckets(secret: Secret, buckets: usize) -> Self {
        Self {
            shelves: Shelves::new(secret, buckets, POSITIONS_MAX),
            holds: Holds::new(
                secret,
                buckets,
                OPEN_RESERVATION_BYTES_MAX,
                ENDED_RESERVATION_BYTES_MAX,
            ),
            parts: Parts::new(secret, buckets, TOMBSTONE_BYTES_MAX),
            recoveries: Recoveries::default(),
            requests: RequestMemory::new(secret, buckets, REQUEST_MEMORY_BYTES_MAX),
            documents: DocumentMemory::new(secret, buckets, DOCUMENT_BYTES_MAX, SALE_BYTES_MAX),
            names: Names::default(),
            applied: At::default(),
            secret,
        }
    }

    /// Time passes: what is due expires, what is old is forgotten. Called once for each entry,
    /// before its commands.
    pub fn advance(&mut self, moment: Moment, ledger: &mut Vec<LedgerEntry>) {
        self.applied.moment = moment.not_before(self.applied.stamp());
        let now = self.applied.stamp();
        for _ in 0..EXPIRIES_PER_ENTRY_MAX {
            match self.holds.next_due(now) {
                Some(id) => self.expire(&id, now, ledger),
                None => break,
            }
        }
        self.requests.forget(self.applied.moment);
        self.documents.forget(now);
        self.holds.forget_ended(now);
        self.parts.forget(now);
    }

    /// Carries out one command, or refuses it. Either way every replica comes to the same state.
    pub fn apply(&mut self, at: At, command: Command, ledger: &mut Vec<LedgerEntry>) -> Outcome {
        // Stamps never go back, here no more than in `advance`: what is remembered is in their
        // order.
        let at = At {
            moment: at.moment.not_before(self.applied.stamp()),
            ..at
        };
        self.applied = at;
        let principal = self.names.principal(command.principal);
        match command.action {
            Action::Request(request, operation) => {
                self.request(at, principal, request, &operation, ledger)
            }
            Action::Movements(movements) => self.record(at, &principal, &movements, ledger),
            Action::Basket(command) => self.basket(at, &principal, &command, ledger),
        }
    }

    fn basket(
        &mut self,
        at: At,
        principal: &Principal,
        command: &BasketCommand,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        match command {
            BasketCommand::HoldPart(hold) => self.hold_part(at, principal, hold, ledger),
            BasketCommand::Probe(probe) => self.probe(at, principal, probe, ledger),
            BasketCommand::Follow(follow) => self.follow(at, principal, follow, ledger),
            BasketCommand::Decide(decide) => self.decide(at, decide, ledger),
            BasketCommand::Acknowledge(acknowledge) => self.acknowledge(at, acknowledge),
            BasketCommand::Ask(ask) => self.ask(at, ask),
            BasketCommand::Recovered(recovered) => self.recovered(at, recovered),
            BasketCommand::TellAnew(tell) => self.tell_anew(at, tell),
            BasketCommand::ToldAnew(told) => self.told_anew(told),
            BasketCommand::AllHeld(all) => self.all_held(all),
        }
    }

    /// Looks at what some commands, which are applied next, will look at first. Requests and
    /// reservations lie where their ids happen to put them, mostly far from the processor; one
    /// after the other each command would wait for that, while a pass over all of them waits for
    /// many at a time. Returns what it saw, which means nothing.
    pub fn look_ahead(&self, commands: &[Command]) -> usize {
        let mut seen = 0;
        for command in commands {
            let (request, operation) = match &command.action {
                Action::Request(request, operation) => (request, operation),
                Action::Basket(command) => {
                    seen += self.look_at_basket(command);
                    continue;
                }
                Action::Movements(_) => continue,
            };
            let requests = &self.requests.buckets;
            let requests = requests.by(|secret, of| request.id.bucket(secret, of));
            seen += requests
                .last()
                .map_or(0, |last| usize::from(last.id.as_bytes()[15]));
            if let Operation::Reserve(reserve) = operation {
                let holds = self.holds.buckets.bucket_of(&reserve.id);
                seen += holds
                    .last()
                    .map_or(0, |last| usize::from(last.as_bytes()[15]));
            }
        }
        seen
    }

    fn look_at_basket(&self, command: &BasketCommand) -> usize {
        let id = match command {
            BasketCommand::HoldPart(it) => &it.id,
            BasketCommand::Probe(it) => &it.id,
            BasketCommand::Follow(it) => &it.id,
            BasketCommand::Decide(Decide { id, .. }) => {
                let holds = self.holds.buckets.bucket_of(id);
                return holds
                    .last()
                    .map_or(0, |last| usize::from(last.as_bytes()[15]));
            }
            BasketCommand::AllHeld(all) => {
                let parts = &self.parts.buckets;
                let last = all.baskets.iter().map(|it| parts.bucket_of(&it.id).last());
                return last
                    .map(|it| it.map_or(0, |it| usize::from(it.as_bytes()[15])))
                    .sum();
            }
            BasketCommand::Acknowledge(_)
            | BasketCommand::Ask(_)
            | BasketCommand::Recovered(_)
            | BasketCommand::TellAnew(_)
            | BasketCommand::ToldAnew(_) => return 0,
        };
        let parts = self.parts.buckets.bucket_of(id);
        parts
            .last()
            .map_or(0, |last| usize::from(last.as_bytes()[15]))
    }

    /// When the next hold ends by itself. The leader proposes an entry then, so that it does.
    pub fn next_expiry(&self) -> Option<Stamp> {
        self.holds.next_expiry()
    }

    /// What is known of a SKU.
    pub fn stock(&self, sku: &Sku) -> Option<&Stock> {
        self.shelves.stock(sku)
    }

    /// As [`Self::stock`], with a copy of the SKU whose name is shared with the shard's own.
    pub fn shared_sku(&self, sku: &Sku) -> Option<(&Sku, &Stock)> {
        self.shelves.shared_sku(sku)
    }

    /// Every SKU, and what is known of it, bucket by bucket.
    pub fn skus(&self) -> impl Iterator<Item = (&Sku, &Stock)> {
        self.shelves.all()
    }

    /// A reservation that is open, or ended not too long ago.
    pub fn reservation(&self, id: &ReservationId) -> Option<&Arc<Reservation>> {
        self.holds.get(id)
    }

    /// The stamp of the last entry applied.
    pub fn stamp(&self) -> Stamp {
        self.applied.stamp()
    }

    /// What the last entry applied says of time.
    pub fn moment(&self) -> Moment {
        self.applied.moment
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            skus: self.shelves.skus(),
            positions: self.shelves.positions(),
            open_reservations: self.holds.open(),
            ended_reservations: self.holds.ended(),
            requests_remembered: self.requests.len(),
            document_lines_remembered: self.documents.len(),
            request_bytes: self.requests.bytes,
            document_bytes: self.documents.bytes,
            open_reservation_bytes: self.holds.open_bytes + self.parts.held_bytes,
            parts: self.parts.held,
            tombstones: self.parts.ends.len(),
            undecided: self.holds.undecided.len(),
            undecided_since: self.holds.undecided.first().map(|(since, _)| *since),
            owed: self.holds.owed.len(),
            awaited: self.recoveries.awaited.len(),
        }
    }

    /// The whole state as it is now, to be written down while the shard goes on. Takes a fraction
    /// of a millisecond, however large the shard is; afterwards a bucket is copied when it first
    /// changes, as long as the frozen state has it, too.
    pub fn freeze(&self) -> FrozenState {
        let mut head = Writer::default();
        self.head().write(&mut head, self.shelves.buckets.len());
        let slots = (self.shelves.buckets.share())
            .zip(self.holds.buckets.share())
            .zip(self.parts.buckets.share())
            .zip(self.requests.buckets.share())
            .zip(self.documents.buckets.share())
            .zip(self.documents.amiss.share())
            .map(
                |(((((stocks, holds), parts), requests), documents), amiss)| Slot::Shard {
                    stocks,
                    holds,
                    parts,
                    requests,
                    documents,
                    amiss,
                },
            );
        FrozenState::new(head, slots)
    }

    fn head(&self) -> ShardHead {
        ShardHead {
            applied: self.applied,
            secret: self.secret,
            requests: MemoryHead {
                horizon: self.requests.horizon,
                bytes: self.requests.bytes as u64,
                order: OrderHead::of(&self.requests.order),
            },
            documents: MemoryHead {
                horizon: self.documents.horizon,
                bytes: self.documents.bytes as u64,
                order: OrderHead {
                    len: self.documents.len() as u64,
                    next: self.documents.next_sequence,
                },
            },
            ended: OrderHead::of(&self.holds.ended),
            ended_bytes: self.holds.ended_bytes as u64,
            open: self.holds.open() as u64,
            open_bytes: self.holds.open_bytes as u64,
            parts: self.parts.held as u64,
            part_bytes: self.parts.held_bytes as u64,
            tombstone_bytes: self.parts.tombstone_bytes as u64,
            recoveries: self.recoveries.clone(),
            skus: self.shelves.skus() as u64,
            positions: self.shelves.positions() as u64,
        }
    }

    fn request(
        &mut self,
        at: At,
        principal: Principal,
        request: Request,
        operation: &Operation,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let key = RequestKey {
            id: request.id,
            principal,
        };
        match self.requests.recall(&key, request.fingerprint, at.moment) {
            Recall::Answered(Verdict::Prepared { id }) => return self.still_prepared(id),
            Recall::Answered(verdict) => return verdict.outcome(&key.principal, operation),
            Recall::Refused(refusal) => return Outcome::Refused(refusal),
            Recall::New => {}
        }
        let who = &key.principal;
        let outcome = match operation {
            Operation::Reserve(reserve) => self.reserve(at, who, request.id, reserve, ledger),
            Operation::Confirm(confirm) => self.confirm(at, who, confirm, ledger),
            Operation::Release(release) => self.release(at, who, release, ledger),
            Operation::Fulfill(fulfill) => self.fulfill(at, who, fulfill, ledger),
            Operation::Extend(extend) => self.extend(at, who, extend, ledger),
            Operation::Amend(amend) => self.amend(at, who, request.id, amend, ledger),
            Operation::SetPolicy(policy) => self.set_policy(at, who, policy, ledger),
        };
        // A retry may find what this one did not: room, or a reservation id that is free. Nothing
        // changed, so forgetting such an answer repeats nothing.
        let is_passing = match &outcome {
            Outcome::Refused(refusal) => matches!(
                refusal,
                Refusal::ReservationIdTaken
                    | Refusal::TooManyReservations
                    | Refusal::TooManyPositions
                    | Refusal::TooLate
                    | Refusal::Reconciling
            ),
            Outcome::Shortage(shortage) => {
                shortage.in_the_way > InTheWay::Stock && !is_last_try(operation)
            }
            Outcome::Undecided(_) => true,
            _ => false,
        };
        if !is_passing {
            let verdict = Verdict::of(&outcome, operation);
            self.requests.remember(key, request, at.moment, verdict);
        }
        outcome
    }

    /// What is answered to the retry of a request that is not decided yet.
    fn still_prepared(&self, id: &ReservationId) -> Outcome {
        match self.prepared(id) {
            Some(prepared) => Outcome::Prepared(prepared),
            // It is remembered as prepared for as long as it is.
            None => Outcome::Refused(Refusal::UnknownReservation),
        }
    }

    /// Whether open reservations, and parts of them, take as much room as they may.
    pub(crate) fn is_full_of_reservations(&self) -> bool {
        self.holds.is_full(self.parts.held_bytes)
    }

    /// The one copy of a location's name that all its positions share.
    pub(crate) fn shared_location(&mut self, location: &Location) -> Location {
        self.names.location(location)
    }
}

/// Copies of the names that the shard keeps.
impl Naming for Shard {
    fn sku(&self, text: &str) -> Result<Sku, IdentifierError> {
        match self.shelves.sku_named(text) {
            Some(sku) => Ok(sku.clone()),
            None => Sku::new(text),
        }
    }

    fn location(&self, text: &str) -> Result<Location, IdentifierError> {
        match self.names.known_location(text) {
            Some(location) => Ok(location),
            None => Location::new(text),
        }
    }

    fn principal(&self, text: &str) -> Result<Principal, IdentifierError> {
        match self.names.known_principal(text) {
            Some(principal) => Ok(principal),
            None => Principal::new(text),
        }
    }

    fn channel(&self, text: &str) -> Result<Channel, IdentifierError> {
        match self.names.known_channel(text) {
            Some(channel) => Ok(channel),
            None => Channel::new(text),
        }
    }
}

/// Whether a shortage stands whatever causes it.
fn is_last_try(operation: &Operation) -> bool {
    let over = match operation {
        Operation::Reserve(reserve) => &reserve.over,
        Operation::Amend(amend) => &amend.over,
        _ => return true,
    };
    over.as_ref().is_none_or(|over| over.is_last_try)
}

#[cfg(test)]
mod tests;
