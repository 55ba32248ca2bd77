//! As `codec/tests.rs`, of baskets over several shards.

use std::sync::Arc;

use super::super::tests::{check, id, line, request_id};
use super::*;
use crate::home::{Amendment, Participant, Spread, Undecided};
use crate::ids::Principal;
use crate::memory::RequestKey;
use crate::names::Names;
use crate::outcome::{InTheWay, Refusal};
use crate::parts::{Part, PartRecord, Tombstone};

#[test]
fn every_field_of_how_a_basket_reaches_over_shards_counts() {
    let amendment = || Amendment {
        lines: [line("MUG")].into(),
        expires_at: Some(Stamp(9)),
        extras: [line("PEN")].into(),
    };
    let make = || Spread {
        shards: 8,
        version: 3,
        asked_at: Stamp(7),
        participants: [(1, 2), (4, 3)]
            .map(|(shard, followed)| Participant { shard, followed })
            .into_iter()
            .collect(),
        undecided: Some(Box::new(Undecided {
            since: Stamp(2),
            request: RequestKey {
                id: request_id(1),
                principal: Principal::new("web").unwrap(),
            },
            asked: [4].into_iter().collect(),
            is_to_be_told: false,
            amendment: Some(amendment()),
        })),
    };
    fn undecided(spread: &mut Spread) -> &mut Undecided {
        spread.undecided.as_mut().unwrap()
    }
    fn amended(spread: &mut Spread) -> &mut Amendment {
        undecided(spread).amendment.as_mut().unwrap()
    }
    check(
        make,
        Writer::spread,
        |reader, names| reader.spread(names),
        &[
            |spread| spread.shards = 9,
            |spread| spread.version = 4,
            |spread| spread.asked_at = Stamp(8),
            |spread| spread.participants[0].shard = 2,
            |spread| spread.participants[0].followed = 1,
            |spread| spread.participants.truncate(1),
            |spread| undecided(spread).since = Stamp(1),
            |spread| undecided(spread).request.id = request_id(2),
            |spread| undecided(spread).request.principal = Principal::new("app").unwrap(),
            |spread| undecided(spread).asked[0] = 1,
            |spread| undecided(spread).is_to_be_told = true,
            |spread| amended(spread).lines[0].open = 1,
            |spread| amended(spread).expires_at = None,
            |spread| amended(spread).extras[0].open = 1,
            |spread| undecided(spread).amendment = None,
            |spread| spread.undecided = None,
        ],
    );
}

#[test]
fn every_field_of_a_part_and_of_a_tombstone_counts() {
    let make = || {
        let part = Part {
            id: id(1),
            principal: Principal::new("web").unwrap(),
            created_at: Stamp(2),
            asked_at: Stamp(3),
            told: 4,
            held: 5,
            ask_at: Stamp(6),
            refused: Some(Box::new((7, NotHeld::Gone))),
            lines: [line("MUG")].into(),
        };
        (id(1), PartRecord::Held(Arc::new(part)))
    };
    type Record = (ReservationId, PartRecord);
    fn part(record: &mut Record) -> &mut Part {
        match &mut record.1 {
            PartRecord::Held(part) => Arc::make_mut(part),
            PartRecord::Tombstone(_) => panic!("nothing is held"),
        }
    }
    fn bury(record: &mut Record, version: u32, until: u64, why: Option<NotHeld>) {
        let until = Stamp(until);
        record.1 = PartRecord::Tombstone(Box::new(Tombstone {
            version,
            until,
            why,
        }));
    }
    fn short(in_the_way: InTheWay) -> NotHeld {
        let lines = Vec::new();
        NotHeld::Short(Arc::new(Shortage { lines, in_the_way }))
    }
    check(
        make,
        |writer, (id, record)| writer.part(id, record),
        |reader, names| reader.part(names),
        &[
            |record| part(record).principal = Principal::new("app").unwrap(),
            |record| part(record).created_at = Stamp(1),
            |record| part(record).asked_at = Stamp(4),
            |record| part(record).told = 3,
            |record| part(record).held = 6,
            |record| part(record).ask_at = Stamp(7),
            |record| part(record).refused.as_mut().unwrap().0 = 8,
            |record| part(record).refused = None,
            |record| part(record).lines[0].released = 1,
            |record| bury(record, 1, 2, None),
            |record| bury(record, 2, 2, None),
            |record| bury(record, 1, 3, None),
            |record| bury(record, 1, 2, Some(NotHeld::Gone)),
            |record| bury(record, 1, 2, Some(NotHeld::Refused(Refusal::TooLate))),
            |record| bury(record, 1, 2, Some(short(InTheWay::Later))),
            |record| bury(record, 1, 2, Some(short(InTheWay::Earlier))),
        ],
    );
}

#[test]
fn a_part_that_contradicts_itself_is_no_state() {
    let sound = Part {
        id: id(1),
        principal: Principal::new("web").unwrap(),
        created_at: Stamp(2),
        asked_at: Stamp(3),
        told: 4,
        held: 4,
        ask_at: Stamp(6),
        refused: None,
        lines: [line("MUG")].into(),
    };
    let read = |change: &dyn Fn(&mut Part)| {
        let mut part = sound.clone();
        change(&mut part);
        let mut writer = Writer::default();
        writer.part(&id(1), &PartRecord::Held(Arc::new(part)));
        let bytes = writer.into_bytes();
        Reader::new(&bytes).part(&mut Names::default()).is_ok()
    };
    assert!(read(&|_| {}));
    assert!(!read(&|part| part.told = 5));
    assert!(!read(&|part| part.lines[0].open = 0));
    assert!(!read(&|part| part.lines[0].released += 100));
    assert!(!read(
        &|part| part.refused = Some(Box::new((4, NotHeld::Gone)))
    ));
}
