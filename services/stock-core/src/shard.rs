//! A shard: all stock of a range of SKUs, and everything that holds units of it.

use std::sync::Arc;

use crate::apply::{holds::Holds, shelves::Shelves};
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
};
use crate::memory::{Recall, RequestKey, RequestMemory};
use crate::names::{Names, Naming};
use crate::outcome::{Outcome, Refusal};
use crate::reservation::Reservation;
use crate::sku::Sku;
use crate::stock::Stock;
use crate::verdict::Verdict;

/// The state of one shard. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Shard {
    pub(crate) shelves: Shelves,
    pub(crate) holds: Holds,
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
}

impl Shard {
    /// An empty shard of a cluster with this secret.
    pub fn new(secret: Secret) -> Self {
        Self {
            shelves: Shelves::new(secret, BUCKETS, POSITIONS_MAX),
            holds: Holds::new(
                secret,
                BUCKETS,
                OPEN_RESERVATION_BYTES_MAX,
                ENDED_RESERVATION_BYTES_MAX,
            ),
            requests: RequestMemory::new(secret, BUCKETS, REQUEST_MEMORY_BYTES_MAX),
            documents: DocumentMemory::new(secret, BUCKETS, DOCUMENT_BYTES_MAX, SALE_BYTES_MAX),
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
        }
    }

    /// Looks at what some commands, which are applied next, will look at first. Requests and
    /// reservations lie where their ids happen to put them, mostly far from the processor; one
    /// after the other each command would wait for that, while a pass over all of them waits for
    /// many at a time. Returns what it saw, which means nothing.
    pub fn look_ahead(&self, commands: &[Command]) -> usize {
        let mut seen = 0;
        for command in commands {
            let Action::Request(request, operation) = &command.action else {
                continue;
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
            open_reservation_bytes: self.holds.open_bytes,
        }
    }

    /// The whole state as it is now, to be written down while the shard goes on. Takes a fraction
    /// of a millisecond, however large the shard is; afterwards a bucket is copied when it first
    /// changes, as long as the frozen state has it, too.
    pub fn freeze(&self) -> FrozenState {
        let mut head = Writer::default();
        self.head().write(&mut head, BUCKETS);
        let slots = (self.shelves.buckets.share())
            .zip(self.holds.buckets.share())
            .zip(self.requests.buckets.share())
            .zip(self.documents.buckets.share())
            .zip(self.documents.amiss.share())
            .map(
                |((((stocks, holds), requests), documents), amiss)| Slot::Shard {
                    stocks,
                    holds,
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
            Recall::Answered(verdict) => return verdict.outcome(&key.principal, operation),
            Recall::Refused(refusal) => return Outcome::Refused(refusal),
            Recall::New => {}
        }
        let who = &key.principal;
        let outcome = match operation {
            Operation::Reserve(reserve) => self.reserve(at, who, reserve, ledger),
            Operation::Confirm(confirm) => self.confirm(at, who, confirm, ledger),
            Operation::Release(release) => self.release(at, who, release, ledger),
            Operation::Fulfill(fulfill) => self.fulfill(at, who, fulfill, ledger),
            Operation::Extend(extend) => self.extend(at, who, extend, ledger),
            Operation::Amend(amend) => self.amend(at, who, amend, ledger),
            Operation::SetPolicy(policy) => self.set_policy(at, who, policy, ledger),
        };
        // A retry may find what this one did not: room, or a reservation id that is free. Nothing
        // changed, so forgetting such an answer repeats nothing.
        let is_passing = matches!(
            outcome,
            Outcome::Refused(
                Refusal::ReservationIdTaken
                    | Refusal::TooManyReservations
                    | Refusal::TooManyPositions
            )
        );
        if !is_passing {
            let verdict = Verdict::of(&outcome, operation);
            self.requests.remember(key, request, at.moment, verdict);
        }
        outcome
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

/// What happens at the bounds, of which a test needs nearer ones. All else is tested from outside.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{
        Confirm, Line, MovementKind, MovementLine, Movements, Release, Reserve, SetPolicy,
    };
    use crate::error::RestoreError;
    use crate::ids::{Document, Fingerprint, Quantity, Reporter, RequestId};
    use crate::outcome::LineVerdict;
    use crate::reservation::State;
    use crate::restore::{ShardRestorer, StateRestorer};

    const NOW: u64 = 1_790_000_000_000;

    const RECORDED: LineVerdict = LineVerdict::Recorded {
        discrepancy: None,
        ahead_ms: 0,
    };

    /// A shard and how many commands it has had.
    struct Till {
        shard: Shard,
        commands: u64,
        now: Stamp,
    }

    impl Till {
        fn new(shard: Shard) -> Self {
            Self {
                shard,
                commands: 0,
                now: Stamp(NOW),
            }
        }

        fn apply(&mut self, action: Action) -> Outcome {
            self.commands += 1;
            let at = At {
                index: self.commands,
                ordinal: 0,
                moment: self.now.into(),
            };
            let command = Command {
                principal: Principal::new("web").unwrap(),
                action,
            };
            let mut ledger = Vec::new();
            self.shard.advance(self.now.into(), &mut ledger);
            self.shard.apply(at, command, &mut ledger)
        }

        fn request(&mut self, number: u64, operation: Operation) -> Outcome {
            let bits = u128::from(self.now.0) << 80 | 0x7 << 76 | u128::from(number);
            let request = Request {
                id: RequestId::new(bits.to_be_bytes()).unwrap(),
                fingerprint: Fingerprint([1; 8]),
            };
            self.apply(Action::Request(request, operation))
        }

        fn receive(&mut self, sku: &str) -> LineVerdict {
            let name = (self.commands + 1).to_string();
            let outcome = self.apply(Action::Movements(Movements {
                kind: MovementKind::Receipt,
                source: Reporter::new("dock").unwrap(),
                document: Document::new(&name).unwrap(),
                reason: None,
                lines: vec![MovementLine {
                    line: Document::new("1").unwrap(),
                    sku: Sku::new(sku).unwrap(),
                    location: Location::new("A").unwrap(),
                    on_hand_delta: 9,
                    occurred_at: self.now,
                }],
            }));
            match outcome {
                Outcome::Movements(verdicts) => verdicts[0].clone(),
                other => panic!("{other:?}"),
            }
        }

        fn reserve(&mut self, number: u64) -> Outcome {
            let line = Line {
                sku: Sku::new("MUG").unwrap(),
                location: Location::new("A").unwrap(),
                quantity: Quantity::new(1).unwrap(),
            };
            let reserve = Reserve {
                id: id(number),
                lines: vec![line],
                ttl_ms: 60_000,
                labels: None,
            };
            self.request(number, Operation::Reserve(reserve))
        }

        fn release(&mut self, number: u64) -> Outcome {
            let release = Release {
                id: id(number),
                lines: Vec::new(),
                forced: None,
            };
            self.request(1_000 + number, Operation::Release(release))
        }

        fn confirm(&mut self, number: u64) -> Outcome {
            let confirm = Confirm {
                id: id(number),
                pickup_within_ms: None,
            };
            self.request(2_000 + number, Operation::Confirm(confirm))
        }
    }

    fn id(number: u64) -> ReservationId {
        ReservationId::compose(Stamp(NOW), 0, number)
    }

    #[test]
    fn past_its_bound_a_shard_takes_no_more_reservations() {
        let mut till = Till::new(Shard {
            holds: Holds::new(Secret(1), BUCKETS, 2 * 256, 9 * 256),
            ..Shard::new(Secret(1))
        });
        till.receive("MUG");
        assert!(matches!(till.reserve(1), Outcome::Reservation(_)));
        assert!(matches!(till.reserve(2), Outcome::Reservation(_)));
        let refused = Outcome::Refused(Refusal::TooManyReservations);
        assert_eq!(till.reserve(3), refused);
        assert!(matches!(till.release(1), Outcome::Reservation(_)));
        assert!(matches!(till.reserve(4), Outcome::Reservation(_)));
    }

    #[test]
    fn past_their_bound_the_reservations_that_ended_first_are_forgotten() {
        let mut till = Till::new(Shard {
            holds: Holds::new(Secret(1), BUCKETS, 9 * 256, 2 * 256),
            ..Shard::new(Secret(1))
        });
        till.receive("MUG");
        for number in 1..=4 {
            till.reserve(number);
            till.release(number);
        }
        till.receive("MUG");
        let known = |number| till.shard.reservation(&id(number)).is_some();
        assert_eq!([1, 2, 3, 4].map(known), [false, false, true, true]);
        assert_eq!(till.shard.counts().ended_reservations, 2);
    }

    #[test]
    fn past_its_bound_a_shard_takes_no_more_positions() {
        let mut till = Till::new(Shard {
            shelves: Shelves::new(Secret(1), BUCKETS, 1),
            ..Shard::new(Secret(1))
        });
        assert_eq!(till.receive("MUG"), RECORDED);
        let refusal = Refusal::TooManyPositions;
        assert_eq!(till.receive("PEN"), LineVerdict::Refused(refusal));
        let policy = SetPolicy {
            sku: Sku::new("PEN").unwrap(),
            location: Location::new("A").unwrap(),
            safety_stock: Some(1),
            backorder_limit: None,
        };
        let outcome = till.request(1, Operation::SetPolicy(policy));
        assert_eq!(outcome, Outcome::Refused(refusal));
        assert_eq!(till.receive("MUG"), RECORDED);
        assert!(till.shard.stock(&Sku::new("PEN").unwrap()).is_none());
    }

    #[test]
    fn with_a_memory_full_of_young_requests_new_ones_are_refused_and_change_nothing() {
        let mut till = Till::new(Shard {
            requests: RequestMemory::new(Secret(1), BUCKETS, 2 * 128),
            ..Shard::new(Secret(1))
        });
        till.receive("MUG");
        let first = till.reserve(1);
        till.reserve(2);
        let full = Outcome::Refused(Refusal::RequestMemoryFull);
        assert_eq!(till.reserve(3), full);
        assert_eq!(till.release(2), full);
        assert_eq!(till.shard.counts().open_reservations, 2);
        // What is remembered is answered all the same, and facts need no memory of requests.
        assert_eq!(till.reserve(1), first);
        assert_eq!(till.receive("MUG"), RECORDED);
        till.now = till.now.plus_ms(60_000);
        assert!(matches!(till.reserve(3), Outcome::Reservation(_)));
        assert_eq!(till.shard.counts().requests_remembered, 2);
    }

    /// The shard as it comes back from its bytes.
    fn restored(shard: &Shard) -> Shard {
        restore(shard).unwrap()
    }

    fn restore(shard: &Shard) -> Result<Shard, RestoreError> {
        let mut frozen = shard.freeze();
        let mut restorer = ShardRestorer::new(frozen.head_bytes())?;
        for bucket in 0..frozen.buckets() {
            let bytes = frozen.take_bucket(bucket).unwrap();
            restorer.bucket(bucket, &bytes)?;
        }
        restorer.finish()
    }

    #[test]
    fn a_reserved_counter_that_is_not_what_is_held_is_not_restored() {
        let sku = Sku::new("MUG").unwrap();
        let error_at = |reserved| {
            let mut till = Till::new(Shard::new(Secret(1)));
            till.receive("MUG");
            till.reserve(1);
            till.reserve(2);
            let location = Location::new("A").unwrap();
            let stock = till.shard.shelves.stock_mut(&sku).unwrap();
            stock.position_mut(&location).unwrap().reserved = reserved;
            restore(&till.shard).err()
        };
        let differs = |by| {
            Some(RestoreError::ReservedDiffers {
                sku: sku.clone(),
                location: Location::new("A").unwrap(),
                by,
            })
        };
        assert_eq!(error_at(2), None);
        assert_eq!(error_at(0), differs(1));
        assert_eq!(error_at(1), differs(1));
        assert_eq!(error_at(3), differs(1));
    }

    #[test]
    fn what_came_first_is_forgotten_first_after_a_restore_too() {
        let mut till = Till::new(Shard::new(Secret(1)));
        till.receive("MUG");
        for number in 1..=9 {
            till.reserve(number);
        }
        // All within one millisecond, and in no order of ids.
        for number in [5, 2, 7, 1, 9] {
            till.release(number);
        }
        for _ in 0..9 {
            till.receive("PEN");
        }
        let mut again = Till {
            shard: restored(&till.shard),
            ..Till::new(Shard::new(Secret(1)))
        };
        again.commands = till.commands;
        for shard in [&mut till.shard, &mut again.shard] {
            // Five were released, and four more end by themselves.
            shard.holds.ended_bytes_max = 7 * 256;
            shard.requests.bytes_max = 4 * 128;
        }
        for till in [&mut till, &mut again] {
            till.now = till.now.plus_ms(60_000);
            till.receive("MUG");
            till.reserve(20);
            till.release(3);
        }
        let known = |number| again.shard.reservation(&id(number)).is_some();
        assert_eq!([5, 2, 7, 1, 9].map(known), [false, false, true, true, true]);
        let (one, two) = (till.shard.freeze(), again.shard.freeze());
        for bucket in 0..one.buckets() {
            assert_eq!(one.bucket_bytes(bucket), two.bucket_bytes(bucket));
        }
        assert_eq!(one.hash(), two.hash());
    }

    #[test]
    fn names_are_shared_after_a_restore_as_before() {
        let mut till = Till::new(Shard::new(Secret(1)));
        till.receive("MUG");
        till.receive("PEN");
        till.reserve(1);
        till.reserve(2);
        // Its request remembers the reservation as it is, that of the other as it was.
        till.confirm(1);
        till.confirm(2);
        till.release(2);
        let mut shard = restored(&till.shard);
        let sku = Sku::new("MUG").unwrap();
        let (shared, stock) = shard.shelves.shared_sku(&sku).unwrap();
        let location = &stock.positions()[0].location;
        let pen = shard.stock(&Sku::new("PEN").unwrap()).unwrap();
        let same = |one: &str, other: &str| std::ptr::eq(one, other);
        assert!(same(
            location.as_str(),
            pen.positions()[0].location.as_str()
        ));
        let principal = shard.reservation(&id(1)).unwrap().principal.clone();
        let mut confirmed = 0;
        for (key, remembered) in shard.requests.buckets.iter() {
            assert!(same(key.principal.as_str(), principal.as_str()));
            let Verdict::Reservation(reservation) = &remembered.verdict else {
                continue;
            };
            let held = shard.reservation(&reservation.id).unwrap();
            assert_eq!(Arc::ptr_eq(reservation, held), reservation == held);
            confirmed += usize::from(reservation.state == State::Confirmed);
            for reservation in [reservation, held] {
                assert!(same(reservation.principal.as_str(), principal.as_str()));
                let line = &reservation.lines[0];
                assert!(same(line.sku.as_str(), shared.as_str()));
                assert!(same(line.location.as_str(), location.as_str()));
            }
        }
        assert_eq!(confirmed, 2);
        let web = shard.names.principal(Principal::new("web").unwrap());
        assert!(same(web.as_str(), principal.as_str()));
    }

    #[test]
    fn time_never_goes_back() {
        let mut till = Till::new(Shard::new(Secret(1)));
        till.receive("MUG");
        till.now = Stamp(NOW - 5_000);
        let Outcome::Reservation(held) = till.reserve(1) else {
            panic!("not held");
        };
        assert_eq!(till.shard.stamp(), Stamp(NOW));
        assert_eq!(held.created_at, Stamp(NOW));
        assert_eq!(held.expires_at, Some(Stamp(NOW + 60_000)));
    }
}
