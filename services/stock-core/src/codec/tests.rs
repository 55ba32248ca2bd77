//! Every field shows in the bytes, and what is written can be read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::apply::holds::Hold;
use crate::catalog::{CatalogOutcome, Coordinates, LocationType, PutLocation};
use crate::documents::{Amiss, DocumentKey, RecordedLine};
use crate::error::Flaw;
use crate::ids::{
    At, Fingerprint, Location, Moment, Principal, RequestId, ReservationId, Secret, Stamp,
};
use crate::memory::{Remembered, RequestKey};
use crate::names::Names;
use crate::order::Place;
use crate::outcome::{Discrepancy, Policy, Refusal};
use crate::recoveries::Recoveries;
use crate::reservation::{Reservation, ReservationLine, ReservationLines, State};
use crate::sku::Sku;
use crate::stock::Stock;
use crate::verdict::{ShortNeeds, Verdict};

/// Each change must show in the bytes, and no two in the same way: a field that is not written is a
/// difference between replicas that nobody finds, and lost when the state is brought back. What is
/// read again must write the same bytes, unless it is something that cannot be.
pub(super) fn check<T>(
    make: impl Fn() -> T,
    write: impl Fn(&mut Writer, &T),
    read: impl Fn(&mut Reader<'_>, &mut Names) -> Read<T>,
    changes: &[fn(&mut T)],
) {
    let mut seen = Vec::new();
    for number in 0..=changes.len() {
        let mut thing = make();
        if number > 0 {
            changes[number - 1](&mut thing);
        }
        let bytes = written(&write, &thing);
        assert!(!seen.contains(&bytes), "change {number} does not show");
        match whole(&bytes, |reader| read(reader, &mut Names::default())) {
            Ok(again) => assert_eq!(written(&write, &again), bytes, "change {number} is lost"),
            Err(Flaw::Unsound { .. }) if number > 0 => {}
            Err(flaw) => panic!("change {number}: {flaw}"),
        }
        seen.push(bytes);
    }
}

fn written<T>(write: impl Fn(&mut Writer, &T), thing: &T) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer, thing);
    writer.into_bytes()
}

fn whole<T>(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Read<T>) -> Read<T> {
    let mut reader = Reader::of_state(bytes, NOW);
    let thing = read(&mut reader)?;
    reader.end().map(|()| thing)
}

const NOW: Stamp = Stamp(9);

/// The only bucket: everything is in it.
const ONLY: Bucket = Bucket {
    number: 0,
    buckets: 1,
    secret: Secret(5),
};

fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

fn location(name: &str) -> Location {
    Location::new(name).unwrap()
}

pub(super) fn id(random: u64) -> ReservationId {
    ReservationId::compose(Stamp(1), 0, random)
}

pub(super) fn line(name: &str) -> ReservationLine {
    ReservationLine::new(sku(name), location("A"), 3)
}

#[test]
fn every_field_of_a_reservation_counts() {
    let make = || Reservation {
        id: id(1),
        state: State::Held,
        expires_at: Some(Stamp(9)),
        created_at: Stamp(2),
        principal: Principal::new("web").unwrap(),
        lines: [line("MUG"), line("PEN")].into_iter().collect(),
        labels: None,
    };
    check(
        make,
        Writer::reservation,
        |reader, names| reader.reservation(names),
        &[
            |r| r.id = id(2),
            |r| r.state = State::Confirmed,
            |r| r.state = State::Fulfilled,
            |r| r.state = State::Released,
            |r| r.state = State::Expired,
            |r| r.expires_at = Some(Stamp(10)),
            |r| r.expires_at = None,
            |r| r.created_at = Stamp(3),
            |r| r.principal = Principal::new("app").unwrap(),
            |r| r.lines = [line("MUG")].into(),
            |r| r.lines.reverse(),
            |r| r.lines[0].sku = sku("CUP"),
            |r| r.lines[0].location = location("B"),
            |r| r.lines[0].quantity = 4,
            |r| r.lines[0].open = 2,
            |r| r.lines[0].fulfilled = 1,
            |r| r.lines[0].released = 1,
        ],
    );
}

#[test]
fn every_field_of_stock_counts() {
    let make = || {
        let mut stock = Stock::default();
        stock.position_or_new(&location("A"));
        stock
    };
    check(
        make,
        Writer::stock,
        |reader, names| reader.stock(names),
        &[
            |s| s.position_or_new(&location("A")).0.on_hand = 1,
            |s| s.position_or_new(&location("A")).0.reserved = 1,
            |s| s.position_or_new(&location("A")).0.safety_stock = 1,
            |s| s.position_or_new(&location("A")).0.backorder_limit = 1,
            |s| s.position_or_new(&location("B")).0.on_hand = 0,
            |s| s.position_or_new(&location("C")).0.on_hand = 0,
        ],
    );
}

#[test]
fn every_field_of_what_was_amiss_counts() {
    let key = |number| DocumentKey::from_bytes([number; 16]);
    let make = || {
        let amiss = Amiss {
            available: 3,
            short_by: 2,
            endangered: [id(1), id(2)].into(),
        };
        BTreeMap::from([(key(1), amiss)])
    };
    check(
        make,
        |writer, amiss| writer.amiss(amiss),
        |reader, _| reader.amiss(ONLY),
        &[
            |all| assert!(all.pop_first().is_some()),
            |all| {
                let (_, amiss) = all.pop_first().unwrap();
                all.insert(DocumentKey::from_bytes([2; 16]), amiss);
            },
            |all| all.values_mut().for_each(|amiss| amiss.available = 4),
            |all| all.values_mut().for_each(|amiss| amiss.short_by = 4),
            |all| {
                all.values_mut()
                    .for_each(|amiss| amiss.endangered.reverse());
            },
            |all| {
                all.values_mut()
                    .for_each(|amiss| amiss.endangered = [].into());
            },
        ],
    );
}

#[test]
fn every_field_of_a_policy_counts() {
    let make = || Policy {
        safety_stock: 1,
        backorder_limit: 2,
        available: 3,
        discrepancy: Some(Box::new(Discrepancy {
            sku: sku("MUG"),
            location: location("A"),
            available: 4,
            short_by: 5,
            endangered: vec![id(1)],
        })),
    };
    check(
        make,
        Writer::policy,
        |reader, names| reader.policy(names),
        &[
            |p| p.safety_stock = 0,
            |p| p.backorder_limit = 0,
            |p| p.available = -1,
            |p| p.discrepancy = None,
            |p| p.discrepancy.as_mut().unwrap().sku = sku("PEN"),
            |p| p.discrepancy.as_mut().unwrap().location = location("B"),
            |p| p.discrepancy.as_mut().unwrap().available = -1,
            |p| p.discrepancy.as_mut().unwrap().short_by = -1,
            |p| p.discrepancy.as_mut().unwrap().endangered.clear(),
        ],
    );
}

#[test]
fn every_refusal_counts() {
    check(
        || Refusal::RequestFromFuture,
        Writer::refusal,
        |reader, _| reader.refusal(),
        &[
            |r| *r = Refusal::RequestTooOld { horizon: Stamp(1) },
            |r| *r = Refusal::RequestTooOld { horizon: Stamp(2) },
            |r| *r = Refusal::RequestReused,
            |r| *r = Refusal::RequestMemoryFull,
            |r| *r = Refusal::DocumentTooOld { horizon: Stamp(1) },
            |r| *r = Refusal::DocumentTooOld { horizon: Stamp(2) },
            |r| *r = Refusal::DocumentReused,
            |r| *r = Refusal::OccurredInFuture,
            |r| *r = Refusal::UnknownSku { line: 0 },
            |r| *r = Refusal::UnknownSku { line: 1 },
            |r| *r = Refusal::UnknownReservation,
            |r| *r = Refusal::WrongState { state: State::Held },
            |r| {
                *r = Refusal::WrongState {
                    state: State::Expired,
                }
            },
            |r| *r = Refusal::NothingToExtend,
            |r| *r = Refusal::LineNotInReservation { line: 0 },
            |r| *r = Refusal::LineNotInReservation { line: 1 },
            |r| *r = Refusal::LineAmbiguous { line: 0 },
            |r| *r = Refusal::LineAmbiguous { line: 1 },
            |r| *r = Refusal::LineExceedsOpen { line: 0, open: 0 },
            |r| *r = Refusal::LineExceedsOpen { line: 1, open: 0 },
            |r| *r = Refusal::LineExceedsOpen { line: 0, open: 1 },
            |r| *r = Refusal::CounterOutOfRange { line: 0 },
            |r| *r = Refusal::CounterOutOfRange { line: 1 },
            |r| *r = Refusal::TooManyReservations,
            |r| *r = Refusal::TooManyPositions,
            |r| *r = Refusal::TooManyLocations,
            |r| *r = Refusal::ReservationIdTaken,
            |r| *r = Refusal::DocumentMemoryFull,
        ],
    );
}

#[test]
fn every_field_of_what_is_remembered_counts() {
    let make = || {
        let key = RequestKey {
            id: request_id(1),
            principal: Principal::new("web").unwrap(),
        };
        let remembered = Remembered {
            fingerprint: Fingerprint([1; 8]),
            place: place(1, 1),
            verdict: (),
        };
        (key, remembered)
    };
    check(
        make,
        |writer, (key, what)| writer.remembered(key, what),
        |reader, names| reader.remembered(names, |_, _| Ok(())),
        &[
            |(key, _)| key.principal = Principal::new("app").unwrap(),
            |(key, _)| key.id = request_id(2),
            |(_, what)| what.fingerprint = Fingerprint([2; 8]),
            |(_, what)| what.place.stamp = Stamp(2),
            |(_, what)| what.place.sequence = 2,
        ],
    );
    let make = || {
        let recorded = RecordedLine::new(1, 1, Stamp(1), 1);
        (DocumentKey::from_bytes([1; 16]), recorded)
    };
    check(
        make,
        |writer, (key, what)| writer.recorded(*key, what),
        |reader, _| reader.recorded(),
        &[
            |(key, _)| *key = DocumentKey::from_bytes([2; 16]),
            |(_, what)| what.fingerprint = 2,
            |(_, what)| what.sequence = 2,
            |(_, what)| *what = RecordedLine::new(1, 1, Stamp(2), 1),
            |(_, what)| *what = RecordedLine::new(1, 1, Stamp(1), 2),
        ],
    );
}

#[test]
fn every_field_of_an_end_counts() {
    fn ended(hold: &mut Hold, ended: Option<Place>) {
        hold.more.get_or_insert_default().ended = ended;
    }
    let make = || {
        let reservation = Reservation {
            state: State::Released,
            lines: ReservationLines::new(),
            ..reservation()
        };
        let mut hold = Hold::new(Arc::new(reservation), None);
        ended(&mut hold, Some(place(1, 1)));
        hold
    };
    check(
        make,
        Writer::hold,
        |reader, names| reader.hold(names),
        &[
            |hold| ended(hold, Some(place(2, 1))),
            |hold| ended(hold, Some(place(1, 2))),
            |hold| Arc::make_mut(&mut hold.reservation).state = State::Expired,
            |hold| {
                ended(hold, None);
                Arc::make_mut(&mut hold.reservation).state = State::Confirmed;
            },
        ],
    );
}

#[test]
fn every_field_of_a_verdict_counts() {
    let held = |number, created_at, expires_at| Verdict::Held {
        id: id(number),
        created_at: Stamp(created_at),
        expires_at: Stamp(expires_at),
    };
    let policy = |available| Policy {
        safety_stock: 0,
        backorder_limit: 0,
        available,
        discrepancy: None,
    };
    let other = Reservation {
        created_at: Stamp(3),
        ..reservation()
    };
    let verdicts = [
        held(1, 1, 1),
        held(2, 1, 1),
        held(1, 2, 1),
        held(1, 1, 2),
        Verdict::Reservation(Arc::new(reservation())),
        Verdict::Reservation(Arc::new(other)),
        Verdict::Shortage(ShortNeeds::from_bytes(&[0]).unwrap()),
        Verdict::Shortage(ShortNeeds::from_bytes(&[1, 0, 2, 0]).unwrap()),
        Verdict::Policy(Box::new(policy(1))),
        Verdict::Policy(Box::new(policy(2))),
        Verdict::Refused(Box::new(Refusal::NothingToExtend)),
        Verdict::Refused(Box::new(Refusal::UnknownReservation)),
    ];
    let mut seen = Vec::new();
    for verdict in &verdicts {
        let bytes = written(Writer::verdict, verdict);
        assert!(!seen.contains(&bytes), "{verdict:?} does not show");
        let again = whole(&bytes, |reader| reader.verdict(&mut Names::default()));
        assert_eq!(written(Writer::verdict, &again.unwrap()), bytes);
        seen.push(bytes);
    }
}

#[test]
fn every_field_of_a_location_counts() {
    let make = || PutLocation {
        location: location("A"),
        kind: LocationType::Store,
        name: "Aachen \u{1f3ea}".to_owned(),
        coordinates: Some(Coordinates {
            latitude_e6: 50_775_555,
            longitude_e6: -1,
        }),
        gln: String::new(),
    };
    check(
        make,
        Writer::location,
        |reader, _| reader.location(),
        &[
            |put| put.location = location("B"),
            |put| put.kind = LocationType::Warehouse,
            |put| put.name = String::new(),
            |put| put.gln = "4000001000005".to_owned(),
            |put| put.coordinates = None,
            |put| {
                put.coordinates = Some(Coordinates {
                    latitude_e6: i32::MIN,
                    longitude_e6: -1,
                });
            },
            |put| {
                put.coordinates = Some(Coordinates {
                    latitude_e6: 50_775_555,
                    longitude_e6: i32::MAX,
                });
            },
        ],
    );
    check(
        || CatalogOutcome::Put,
        Writer::catalog_outcome,
        |reader, _| reader.catalog_outcome(),
        &[|outcome| *outcome = CatalogOutcome::Refused(Refusal::TooManyLocations)],
    );
}

#[test]
fn every_field_of_a_head_counts() {
    check(
        shard_head,
        |writer, head| head.write(writer, 4),
        |reader, _| ShardHead::read(reader, 4),
        &[
            |head| head.applied.index = 20,
            |head| head.applied.ordinal = 20,
            |head| head.applied.moment.stamp = Stamp(20),
            |head| head.applied.moment.wall = Stamp(20),
            |head| head.requests.horizon = Stamp(20),
            |head| head.requests.bytes = 20,
            |head| head.requests.order.len = 20,
            |head| head.requests.order.next = 20,
            |head| head.secret = Secret(20),
            |head| head.documents.horizon = Stamp(20),
            |head| head.documents.bytes = 20,
            |head| head.ended_bytes = 20,
            |head| head.open_bytes = 20,
            |head| head.parts = 30,
            |head| head.part_bytes = 30,
            |head| head.tombstone_bytes = 30,
            |head| head.documents.order.len = 20,
            |head| head.documents.order.next = 20,
            |head| head.ended.len = 20,
            |head| head.ended.next = 20,
            |head| head.open = 20,
            |head| head.recoveries.own = 20,
            |head| head.recoveries.awaited = [3].into(),
            |head| head.recoveries.others = [(5, 20)].into(),
            |head| head.skus = 20,
            |head| head.positions = 20,
        ],
    );
    let make = || CatalogHead {
        applied: shard_head().applied,
        secret: shard_head().secret,
        requests: shard_head().requests,
        locations: 7,
    };
    check(
        make,
        |writer, head| head.write(writer, 4),
        |reader, _| CatalogHead::read(reader, 4),
        &[
            |head| head.applied.index = 20,
            |head| head.secret = Secret(20),
            |head| head.requests.horizon = Stamp(20),
            |head| head.requests.bytes = 20,
            |head| head.requests.order.len = 20,
            |head| head.requests.order.next = 20,
            |head| head.locations = 20,
        ],
    );
}

#[test]
fn a_head_of_another_kind_version_or_size_is_refused() {
    let bytes = written(
        |writer, head| ShardHead::write(head, writer, 4),
        &shard_head(),
    );
    let read = |bytes: &[u8]| whole(bytes, |reader| ShardHead::read(reader, 4));
    assert_eq!(read(&bytes), Ok(shard_head()));
    let mut later = bytes.clone();
    later[0] = VERSION + 1;
    assert_eq!(
        read(&later),
        Err(Flaw::UnknownVersion {
            version: VERSION + 1
        })
    );
    let as_catalog = whole(&bytes, |reader| CatalogHead::read(reader, 4));
    let what = "kind of state";
    assert_eq!(as_catalog, Err(Flaw::UnknownTag { what, tag: 1 }));
    let of_another_size = whole(&bytes, |reader| ShardHead::read(reader, 5));
    let (found, buckets) = (4, 5);
    assert_eq!(of_another_size, Err(Flaw::OtherBuckets { found, buckets }));
}

#[test]
fn a_number_has_one_way_to_be_written() {
    for number in [0, 1, 127, 128, 300, u64::MAX >> 1, u64::MAX] {
        let bytes = written(|writer, n| writer.number(*n), &number);
        assert_eq!(whole(&bytes, |reader| reader.number()), Ok(number));
        let mut longer = bytes;
        *longer.last_mut().unwrap() |= 0x80;
        longer.push(0);
        assert_eq!(
            whole(&longer, |reader| reader.number()),
            Err(Flaw::BadNumber)
        );
    }
    for number in [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN] {
        let bytes = written(|writer, n| writer.signed(*n), &number);
        assert_eq!(whole(&bytes, |reader| reader.signed()), Ok(number));
    }
    assert_eq!(written(|writer, n| writer.signed(*n), &-64), [127]);
    assert_eq!(
        whole(&[0xff; 10], |reader| reader.number()),
        Err(Flaw::BadNumber)
    );
}

#[test]
fn a_list_longer_than_its_bytes_is_refused_before_there_is_room_for_it() {
    let count = u64::MAX >> 8;
    let bytes = written(|writer, n| writer.number(*n), &count);
    let documents = whole(&bytes, |reader| reader.documents(ONLY));
    assert_eq!(documents.err(), Some(Flaw::CountTooLarge { count }));
}

#[test]
fn what_is_out_of_order_or_comes_twice_is_refused() {
    let bytes = |numbers: &[u8]| {
        let mut writer = Writer::default();
        writer.number(numbers.len() as u64);
        for number in numbers {
            let recorded = RecordedLine::new(1, 1, Stamp(1), 0);
            writer.recorded(DocumentKey::from_bytes([*number; 16]), &recorded);
        }
        writer.into_bytes()
    };
    let read = |numbers: &[u8]| {
        let documents = whole(&bytes(numbers), |reader| reader.documents(ONLY));
        documents.map(|documents| documents.len())
    };
    let what = "documents";
    assert_eq!(read(&[1, 2]), Ok(2));
    assert_eq!(read(&[2, 1]), Err(Flaw::OutOfOrder { what }));
    assert_eq!(read(&[2, 2]), Err(Flaw::OutOfOrder { what }));

    let at = |name| [1, name, 0, 0, 0, 0];
    let stock = |one, other| {
        let bytes = [&[2][..], &at(one), &at(other)].concat();
        whole(&bytes, |reader| reader.stock(&mut Names::default())).map(|_| ())
    };
    let what = "positions";
    assert_eq!(stock(b'A', b'B'), Ok(()));
    assert_eq!(stock(b'B', b'A'), Err(Flaw::OutOfOrder { what }));
    assert_eq!(stock(b'B', b'B'), Err(Flaw::OutOfOrder { what }));
}

#[test]
fn the_format_never_changes() {
    let mut writer = Writer::default();
    shard_head().write(&mut writer, 4);
    let head = [
        4, 1, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 15, 4, 16, 5, 6, 7, 17, 8, 9, 10, 11, 18, 12, 19,
        13, 14, 20, 21, 22, 2, 2, 0, 3, 1, 5, 1,
    ];
    assert_eq!(writer.into_bytes(), head);

    let mut writer = Writer::default();
    writer.reservation(&reservation());
    let mut expected = vec![0, 0, 0, 0, 0, 1, 0x80, 0, 0x80, 0, 0, 0, 0, 0, 0, 1];
    expected.extend([1, 1, 9, 2, 3, b'w', b'e', b'b', 1]);
    expected.extend([3, b'M', b'U', b'G', 1, b'A', 6, 6, 0, 0]);
    assert_eq!(writer.into_bytes(), expected);

    // Every state and every refusal by its number.
    let states = [1, 2, 3, 4, 5].map(|tag| whole(&[10, tag], |reader| reader.refusal()).unwrap());
    use State::{Confirmed, Expired, Fulfilled, Held, Released};
    let expected = [Held, Confirmed, Fulfilled, Released, Expired];
    assert_eq!(states, expected.map(|state| Refusal::WrongState { state }));
    let mut refusals = Vec::new();
    for tag in 1..=23_u8 {
        let tails: [&[u8]; 3] = [&[], &[1], &[1, 1]];
        let read = |tail: &&[u8]| whole(&[&[tag], *tail].concat(), |reader| reader.refusal()).ok();
        refusals.push(tails.iter().find_map(read).unwrap());
    }
    let (line, horizon) = (1, Stamp(1));
    let expected = [
        Refusal::RequestTooOld { horizon },
        Refusal::RequestFromFuture,
        Refusal::RequestReused,
        Refusal::RequestMemoryFull,
        Refusal::DocumentTooOld { horizon },
        Refusal::DocumentReused,
        Refusal::OccurredInFuture,
        Refusal::UnknownSku { line },
        Refusal::UnknownReservation,
        Refusal::WrongState { state: Held },
        Refusal::NothingToExtend,
        Refusal::LineNotInReservation { line },
        Refusal::LineAmbiguous { line },
        Refusal::LineExceedsOpen { line, open: -1 },
        Refusal::CounterOutOfRange { line },
        Refusal::TooManyReservations,
        Refusal::TooManyPositions,
        Refusal::TooManyLocations,
        Refusal::ReservationIdTaken,
        Refusal::DocumentMemoryFull,
        Refusal::TooLate,
        Refusal::NotHeldInTime,
        Refusal::Reconciling,
    ];
    assert_eq!(refusals, expected);
}

fn reservation() -> Reservation {
    Reservation {
        id: id(1),
        state: State::Held,
        expires_at: Some(Stamp(9)),
        created_at: Stamp(2),
        principal: Principal::new("web").unwrap(),
        labels: None,
        lines: [line("MUG")].into(),
    }
}

fn shard_head() -> ShardHead {
    ShardHead {
        applied: At {
            index: 1,
            ordinal: 2,
            moment: Moment {
                stamp: Stamp(3),
                wall: Stamp(4),
            },
        },
        secret: Secret(15),
        requests: MemoryHead {
            horizon: Stamp(4),
            bytes: 16,
            order: OrderHead { len: 5, next: 6 },
        },
        documents: MemoryHead {
            horizon: Stamp(7),
            bytes: 17,
            order: OrderHead { len: 8, next: 9 },
        },
        ended: OrderHead { len: 10, next: 11 },
        ended_bytes: 18,
        open: 12,
        open_bytes: 19,
        parts: 20,
        part_bytes: 21,
        tombstone_bytes: 22,
        skus: 13,
        positions: 14,
        recoveries: Recoveries {
            own: 2,
            awaited: [0, 3].into(),
            others: [(5, 1)].into(),
        },
    }
}

fn place(sequence: u64, stamp: u64) -> Place {
    Place {
        sequence,
        stamp: Stamp(stamp),
    }
}

pub(super) fn request_id(last: u8) -> RequestId {
    let mut bytes = [last; 16];
    bytes[6] = 0x70;
    RequestId::new(bytes).unwrap()
}
