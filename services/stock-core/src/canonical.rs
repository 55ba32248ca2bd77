//! The canonical bytes of state: the same state has the same bytes, on every machine and in every
//! process. Numbers are little-endian, texts carry their length, and everything is written in order.

use crate::ids::{At, Stamp};
use crate::memory::{RecordedLine, Remembered, RequestKey};
use crate::outcome::{Policy, Refusal, Shortage};
use crate::reservation::{Reservation, State};
use crate::stock::Stock;

/// Collects canonical bytes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn tag(&mut self, tag: u8) {
        self.bytes.push(tag);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn signed(&mut self, number: i64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8; 16]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn stamp(&mut self, stamp: Stamp) {
        self.number(stamp.0);
    }

    pub(crate) fn optional_stamp(&mut self, stamp: Option<Stamp>) {
        // Stamps are never 0: cluster time is this side of 1970.
        self.number(stamp.map_or(0, |stamp| stamp.0));
    }

    pub(crate) fn stock(&mut self, stock: &Stock) {
        self.number(stock.positions().len() as u64);
        for position in stock.positions() {
            self.text(position.location.as_str());
            self.signed(position.on_hand);
            self.signed(position.reserved);
            self.signed(position.safety_stock);
            self.signed(position.backorder_limit);
        }
        self.number(stock.holders.len() as u64);
        for holder in &stock.holders {
            self.fixed(holder.as_bytes());
        }
    }

    pub(crate) fn reservation(&mut self, reservation: &Reservation) {
        self.fixed(reservation.id.as_bytes());
        self.tag(state_number(reservation.state));
        self.optional_stamp(reservation.expires_at);
        self.stamp(reservation.created_at);
        self.text(reservation.principal.as_str());
        self.number(reservation.lines.len() as u64);
        for line in &reservation.lines {
            self.text(line.sku.as_str());
            self.text(line.location.as_str());
            self.signed(line.quantity);
            self.signed(line.open);
            self.signed(line.fulfilled);
            self.signed(line.released);
        }
    }

    pub(crate) fn shortage(&mut self, shortage: &Shortage) {
        self.number(shortage.lines.len() as u64);
        for line in &shortage.lines {
            self.text(line.sku.as_str());
            self.text(line.location.as_str());
            self.signed(line.requested);
            self.signed(line.available);
            self.signed(line.reservable);
        }
    }

    pub(crate) fn policy(&mut self, policy: &Policy) {
        self.signed(policy.safety_stock);
        self.signed(policy.backorder_limit);
        self.signed(policy.available);
    }

    pub(crate) fn remembered<V>(&mut self, key: &RequestKey, remembered: &Remembered<V>) {
        self.fixed(key.id.as_bytes());
        self.text(key.principal.as_str());
        self.fixed(&remembered.fingerprint.0);
        self.stamp(remembered.stamp);
    }

    pub(crate) fn recorded(&mut self, key: [u8; 16], recorded: &RecordedLine) {
        self.fixed(&key);
        self.fixed(&recorded.fingerprint.0);
        self.stamp(recorded.stamp);
        self.stamp(recorded.occurred_at);
    }

    /// The numbers are kept on disk: never change them, never use one again.
    pub(crate) fn refusal(&mut self, refusal: &Refusal) {
        let (number, detail) = match *refusal {
            Refusal::RequestTooOld { horizon } => (1, horizon.0),
            Refusal::RequestFromFuture => (2, 0),
            Refusal::RequestReused => (3, 0),
            Refusal::RequestMemoryFull => (4, 0),
            Refusal::DocumentTooOld { horizon } => (5, horizon.0),
            Refusal::DocumentReused => (6, 0),
            Refusal::OccurredInFuture => (7, 0),
            Refusal::UnknownSku { line } => (8, u64::from(line)),
            Refusal::UnknownReservation => (9, 0),
            Refusal::WrongState { state } => (10, u64::from(state_number(state))),
            Refusal::NothingToExtend => (11, 0),
            Refusal::LineNotInReservation { line } => (12, u64::from(line)),
            Refusal::LineAmbiguous { line } => (13, u64::from(line)),
            Refusal::LineExceedsOpen { line, open } => {
                self.signed(open);
                (14, u64::from(line))
            }
            Refusal::CounterOutOfRange { line } => (15, u64::from(line)),
            Refusal::TooManyReservations => (16, 0),
            Refusal::TooManyPositions => (17, 0),
            Refusal::TooManyLocations => (18, 0),
            Refusal::ReservationIdTaken => (19, 0),
        };
        self.tag(number);
        self.number(detail);
    }
}

/// The numbers are kept on disk: never change them, never use one again.
fn state_number(state: State) -> u8 {
    match state {
        State::Held => 1,
        State::Confirmed => 2,
        State::Fulfilled => 3,
        State::Released => 4,
        State::Expired => 5,
    }
}

/// Where in history a state is.
impl Writer {
    pub(crate) fn at(&mut self, at: At) {
        self.number(at.index);
        self.number(u64::from(at.ordinal));
        self.stamp(at.stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Fingerprint, Location, Principal, RequestId, ReservationId, Sku};
    use crate::outcome::ShortLine;
    use crate::reservation::ReservationLine;

    /// Each change must show in the bytes, and no two in the same way: a field that is not written is
    /// a difference between replicas that nobody finds.
    fn check<T>(make: impl Fn() -> T, write: impl Fn(&mut Writer, &T), changes: &[fn(&mut T)]) {
        let bytes = |thing: &T| {
            let mut writer = Writer::default();
            write(&mut writer, thing);
            writer.into_bytes()
        };
        let mut seen = vec![bytes(&make())];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = make();
            change(&mut changed);
            let bytes = bytes(&changed);
            assert!(!seen.contains(&bytes), "change {number} does not show");
            seen.push(bytes);
        }
    }

    fn sku(name: &str) -> Sku {
        Sku::new(name).unwrap()
    }

    fn location(name: &str) -> Location {
        Location::new(name).unwrap()
    }

    fn id(random: u64) -> ReservationId {
        ReservationId::compose(Stamp(1), 0, random)
    }

    fn line(name: &str) -> ReservationLine {
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
            lines: Box::new([line("MUG"), line("PEN")]),
        };
        check(
            make,
            Writer::reservation,
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
                |r| r.lines = Box::new([line("MUG")]),
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
            stock.holders.insert(id(1));
            stock
        };
        check(
            make,
            Writer::stock,
            &[
                |s| s.position_or_new(&location("A")).0.on_hand = 1,
                |s| s.position_or_new(&location("A")).0.reserved = 1,
                |s| s.position_or_new(&location("A")).0.safety_stock = 1,
                |s| s.position_or_new(&location("A")).0.backorder_limit = 1,
                |s| s.position_or_new(&location("B")).0.on_hand = 0,
                |s| s.position_or_new(&location("C")).0.on_hand = 0,
                |s| assert!(s.holders.insert(id(2))),
                |s| assert!(s.holders.remove(&id(1))),
            ],
        );
    }

    #[test]
    fn every_field_of_a_shortage_counts() {
        let line = |name| ShortLine {
            sku: sku(name),
            location: location("A"),
            requested: 3,
            available: 2,
            reservable: 1,
        };
        let make = || Shortage {
            lines: vec![line("MUG"), line("PEN")],
        };
        check(
            make,
            Writer::shortage,
            &[
                |s| s.lines.reverse(),
                |s| assert!(s.lines.pop().is_some()),
                |s| s.lines[1].sku = sku("CUP"),
                |s| s.lines[1].location = location("B"),
                |s| s.lines[1].requested = 4,
                |s| s.lines[1].available = -2,
                |s| s.lines[1].reservable = 0,
            ],
        );
    }

    #[test]
    fn every_field_of_a_policy_counts() {
        let make = || Policy {
            safety_stock: 1,
            backorder_limit: 2,
            available: 3,
        };
        check(
            make,
            Writer::policy,
            &[
                |p| p.safety_stock = 0,
                |p| p.backorder_limit = 0,
                |p| p.available = -1,
            ],
        );
    }

    #[test]
    fn every_refusal_counts() {
        check(
            || Refusal::RequestFromFuture,
            Writer::refusal,
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
            ],
        );
    }

    #[test]
    fn every_field_of_what_is_remembered_counts() {
        let request_id = |last| {
            let mut bytes = [last; 16];
            bytes[6] = 0x70;
            RequestId::new(bytes).unwrap()
        };
        let key = || RequestKey {
            id: request_id(1),
            principal: Principal::new("web").unwrap(),
        };
        let make = || {
            let remembered = Remembered {
                fingerprint: Fingerprint([1; 16]),
                stamp: Stamp(1),
                verdict: (),
            };
            (key(), remembered)
        };
        check(
            make,
            |writer, (key, what)| writer.remembered(key, what),
            &[
                |(key, _)| key.principal = Principal::new("app").unwrap(),
                |(key, _)| key.id = RequestId::new([0x77; 16]).unwrap(),
                |(_, what)| what.fingerprint = Fingerprint([2; 16]),
                |(_, what)| what.stamp = Stamp(2),
            ],
        );
        let make = || {
            let recorded = RecordedLine {
                fingerprint: Fingerprint([1; 16]),
                stamp: Stamp(1),
                occurred_at: Stamp(1),
            };
            ([1; 16], recorded)
        };
        check(
            make,
            |writer, (key, what)| writer.recorded(*key, what),
            &[
                |(key, _)| *key = [2; 16],
                |(_, what)| what.fingerprint = Fingerprint([2; 16]),
                |(_, what)| what.stamp = Stamp(2),
                |(_, what)| what.occurred_at = Stamp(2),
            ],
        );
    }

    #[test]
    fn every_part_of_a_place_in_history_counts() {
        let make = || At {
            index: 1,
            ordinal: 1,
            stamp: Stamp(1),
        };
        check(
            make,
            |writer, at| writer.at(*at),
            &[
                |at| at.index = 2,
                |at| at.ordinal = 2,
                |at| at.stamp = Stamp(2),
            ],
        );
    }
}
