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
