//! What happens at the bounds, of which a test needs nearer ones. All else is tested from outside.

use super::*;
use crate::basket::Line;
use crate::command::{Confirm, MovementKind, MovementLine, Movements, Release, Reserve, SetPolicy};
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
            over: None,
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
