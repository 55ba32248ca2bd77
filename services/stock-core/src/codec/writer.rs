//! State to bytes. Each function has its counterpart in `reader.rs`.

use std::collections::BTreeMap;

use super::HAS_LABELS;
use crate::apply::holds::Hold;
use crate::buckets::Table;
use crate::catalog::{CatalogOutcome, LocationType, PutLocation};
use crate::codec::bytes::{Writer, folded};
use crate::documents::{Amiss, DocumentKey, RecordedLine};
use crate::ids::{Location, ReservationId};
use crate::memory::{Remembered, RequestKey};
use crate::outcome::{Discrepancy, Policy, Refusal};
use crate::parts::PartRecord;
use crate::reservation::{Reservation, State};
use crate::sku::Sku;
use crate::stock::Stock;
use crate::timeline::Timeline;
use crate::verdict::Verdict;

/// What a bucket is made of.
impl Writer {
    pub(crate) fn stocks(&mut self, stocks: &BTreeMap<Sku, Stock>) {
        self.count(stocks.len());
        for (sku, stock) in stocks {
            self.text(sku.as_str());
            self.stock(stock);
        }
    }

    pub(crate) fn holds(&mut self, holds: &Timeline<ReservationId, Hold>) {
        self.count(holds.len());
        for (_, hold) in holds.iter() {
            self.hold(hold);
        }
    }

    /// Stands at the end, and only if there are any.
    pub(crate) fn parts(&mut self, parts: &Timeline<ReservationId, PartRecord>) {
        if parts.len() == 0 {
            return;
        }
        self.count(parts.len());
        for (id, record) in parts.iter() {
            self.part(id, record);
        }
    }

    pub(crate) fn requests<V: Clone>(
        &mut self,
        requests: &Timeline<RequestKey, Remembered<V>>,
        verdict: impl Fn(&mut Self, &V),
    ) {
        self.count(requests.len());
        for (key, remembered) in requests.iter() {
            self.remembered(key, remembered);
            verdict(self, &remembered.verdict);
        }
    }

    pub(crate) fn documents(&mut self, documents: &BTreeMap<DocumentKey, RecordedLine>) {
        self.count(documents.len());
        for (key, recorded) in documents {
            self.recorded(*key, recorded);
        }
    }

    pub(crate) fn amiss(&mut self, amiss: &BTreeMap<DocumentKey, Amiss>) {
        self.count(amiss.len());
        for (key, amiss) in amiss {
            self.fixed(&key.to_bytes());
            self.signed(amiss.available);
            self.signed(amiss.short_by);
            self.ids(&amiss.endangered);
        }
    }

    pub(crate) fn locations(&mut self, locations: &BTreeMap<Location, PutLocation>) {
        self.count(locations.len());
        for put in locations.values() {
            self.location(put);
        }
    }
}

/// Records.
impl Writer {
    pub(crate) fn stock(&mut self, stock: &Stock) {
        self.count(stock.positions().len());
        for position in stock.positions() {
            self.text(position.location.as_str());
            self.signed(position.on_hand);
            self.signed(position.reserved);
            self.signed(position.safety_stock);
            self.signed(position.backorder_limit);
        }
    }

    pub(crate) fn hold(&mut self, hold: &Hold) {
        let begins_at = self.len();
        self.reservation(&hold.reservation);
        if let Some(spread) = hold.spread() {
            self.mark(begins_at + size_of::<ReservationId>(), super::HAS_SPREAD);
            self.spread(spread);
        }
        if let Some(place) = hold.ended() {
            self.place(place);
        }
    }

    pub(crate) fn reservation(&mut self, reservation: &Reservation) {
        self.fixed(reservation.id.as_bytes());
        let labels = reservation.labels.as_deref();
        let has_labels = if labels.is_some() { HAS_LABELS } else { 0 };
        self.tag(state_number(reservation.state) | has_labels);
        self.optional_stamp(reservation.expires_at);
        self.stamp(reservation.created_at);
        self.text(reservation.principal.as_str());
        if let Some(labels) = labels {
            self.text(labels.reference_text());
            self.text(labels.channel_text());
        }
        self.lines(&reservation.lines);
    }

    pub(crate) fn remembered<V>(&mut self, key: &RequestKey, remembered: &Remembered<V>) {
        self.fixed(key.id.as_bytes());
        self.text(key.principal.as_str());
        self.fixed(&remembered.fingerprint.0);
        self.place(remembered.place);
    }

    pub(crate) fn recorded(&mut self, key: DocumentKey, recorded: &RecordedLine) {
        self.fixed(&key.to_bytes());
        self.number(u64::from(recorded.fingerprint));
        self.number(u64::from(recorded.sequence));
        self.stamp(recorded.stamp());
        self.number(u64::from(recorded.ahead_steps()));
    }

    pub(crate) fn location(&mut self, put: &PutLocation) {
        self.text(put.location.as_str());
        self.tag(match put.kind {
            LocationType::Warehouse => 1,
            LocationType::Store => 2,
        });
        self.text(&put.name);
        match put.coordinates {
            None => self.tag(0),
            Some(coordinates) => {
                self.tag(1);
                self.signed(i64::from(coordinates.latitude_e6));
                self.signed(i64::from(coordinates.longitude_e6));
            }
        }
        self.text(&put.gln);
    }
}

/// Answers. The numbers are kept on disk: never change them, never use one again.
impl Writer {
    pub(crate) fn verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Held {
                id,
                created_at,
                expires_at,
            } => {
                self.tag(1);
                self.fixed(id.as_bytes());
                self.stamp(*created_at);
                self.stamp(*expires_at);
            }
            Verdict::Reservation(reservation) => {
                self.tag(2);
                self.reservation(reservation);
            }
            Verdict::Shortage(needs) => {
                self.tag(3);
                self.blob(needs.as_bytes());
            }
            Verdict::Policy(policy) => {
                self.tag(4);
                self.policy(policy);
            }
            Verdict::Refused(refusal) => {
                self.tag(5);
                self.refusal(refusal);
            }
            Verdict::Prepared { id } => {
                self.tag(6);
                self.fixed(id.as_bytes());
            }
        }
    }

    /// What the catalog answers.
    pub fn catalog_outcome(&mut self, outcome: &CatalogOutcome) {
        match outcome {
            CatalogOutcome::Put => self.tag(1),
            CatalogOutcome::Refused(refusal) => {
                self.tag(2);
                self.refusal(refusal);
            }
        }
    }

    pub(crate) fn policy(&mut self, policy: &Policy) {
        self.signed(policy.safety_stock);
        self.signed(policy.backorder_limit);
        self.signed(policy.available);
        self.discrepancy(policy.discrepancy.as_deref());
    }

    pub(super) fn discrepancy(&mut self, found: Option<&Discrepancy>) {
        let Some(found) = found else {
            return self.tag(0);
        };
        self.tag(1);
        self.text(found.sku.as_str());
        self.text(found.location.as_str());
        self.signed(found.available);
        self.signed(found.short_by);
        self.ids(&found.endangered);
    }

    pub(crate) fn refusal(&mut self, refusal: &Refusal) {
        let mut put = |number, details: &[u64]| {
            self.tag(number);
            for detail in details {
                self.number(*detail);
            }
        };
        match *refusal {
            Refusal::RequestTooOld { horizon } => put(1, &[horizon.0]),
            Refusal::RequestFromFuture => put(2, &[]),
            Refusal::RequestReused => put(3, &[]),
            Refusal::RequestMemoryFull => put(4, &[]),
            Refusal::DocumentTooOld { horizon } => put(5, &[horizon.0]),
            Refusal::DocumentReused => put(6, &[]),
            Refusal::OccurredInFuture => put(7, &[]),
            Refusal::UnknownSku { line } => put(8, &[u64::from(line)]),
            Refusal::UnknownReservation => put(9, &[]),
            Refusal::WrongState { state } => put(10, &[u64::from(state_number(state))]),
            Refusal::NothingToExtend => put(11, &[]),
            Refusal::LineNotInReservation { line } => put(12, &[u64::from(line)]),
            Refusal::LineAmbiguous { line } => put(13, &[u64::from(line)]),
            Refusal::LineExceedsOpen { line, open } => {
                put(14, &[u64::from(line), folded(open)]);
            }
            Refusal::CounterOutOfRange { line } => put(15, &[u64::from(line)]),
            Refusal::TooManyReservations => put(16, &[]),
            Refusal::TooManyPositions => put(17, &[]),
            Refusal::TooManyLocations => put(18, &[]),
            Refusal::ReservationIdTaken => put(19, &[]),
            Refusal::DocumentMemoryFull => put(20, &[]),
            Refusal::TooLate => put(21, &[]),
            Refusal::NotHeldInTime => put(22, &[]),
            Refusal::Reconciling => put(23, &[]),
        }
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
