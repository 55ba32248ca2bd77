//! What makes two requests the same: the kind of call, and everything in it that its caller
//! decided.
//!
//! A fingerprint is of parsed values, not of how they were written: an id in capitals, or a default
//! that is written out, is the same request. Each value stands behind the number of its field, and
//! one that was left out does not stand there at all, so that a field which a later version adds
//! changes nothing for whoever does not use it.

use smallvec::SmallVec;

use crate::basket::Line;
use crate::catalog::{LocationType, PutLocation};
use crate::command::{MovementLine, Operation, PartialLine};
use crate::ids::{Fingerprint, ReservationId};
use crate::text::Reason;

impl Operation {
    /// The fingerprint of a request for it. The id that a reserve proposes is none of its caller's.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut content = Content::of(self.kind());
        match self {
            Self::Reserve(reserve) => {
                content.number(TTL, reserve.ttl_ms);
                if let Some(labels) = &reserve.labels {
                    content.optional_text(ORDER_REFERENCE, labels.reference_text());
                    content.optional_text(CHANNEL, labels.channel_text());
                }
                content.lines(&reserve.lines);
            }
            Self::Confirm(confirm) => {
                content.id(confirm.id);
                content.optional(TTL, confirm.pickup_within_ms);
            }
            Self::Release(release) => {
                content.id(release.id);
                if let Some(reason) = &release.forced {
                    content.text(REASON, reason.as_str());
                }
                content.partial_lines(&release.lines);
            }
            Self::Fulfill(fulfill) => {
                content.id(fulfill.id);
                content.partial_lines(&fulfill.lines);
            }
            Self::Extend(extend) => {
                content.id(extend.id);
                content.number(TTL, extend.ttl_ms);
            }
            Self::Amend(amend) => {
                content.id(amend.id);
                content.optional(TTL, amend.ttl_ms);
                content.lines(&amend.lines);
            }
            Self::SetPolicy(policy) => {
                content.text(SKU, policy.sku.as_str());
                content.text(LOCATION, policy.location.as_str());
                content.optional(SAFETY_STOCK, policy.safety_stock.map(|units| units as u64));
                content.optional(
                    BACKORDER_LIMIT,
                    policy.backorder_limit.map(|units| units as u64),
                );
            }
        }
        content.fingerprint()
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Reserve(_) => RESERVE,
            Self::Confirm(_) => CONFIRM,
            Self::Release(_) => RELEASE,
            Self::Fulfill(_) => FULFILL,
            Self::Extend(_) => EXTEND,
            Self::Amend(_) => AMEND,
            Self::SetPolicy(_) => SET_POLICY,
        }
    }
}

impl PutLocation {
    /// The fingerprint of a request for it.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut content = Content::of(PUT_LOCATION);
        content.text(LOCATION, self.location.as_str());
        let kind = match self.kind {
            LocationType::Warehouse => 1,
            LocationType::Store => 2,
        };
        content.number(LOCATION_TYPE, kind);
        content.text(NAME, &self.name);
        if let Some(at) = self.coordinates {
            content.number(LATITUDE, at.latitude_e6 as u64);
            content.number(LONGITUDE, at.longitude_e6 as u64);
        }
        if !self.gln.is_empty() {
            content.text(GLN, &self.gln);
        }
        content.fingerprint()
    }
}

impl MovementLine {
    /// The fingerprint of what the line says beyond what it is known by, for this reason.
    pub(crate) fn fingerprint(&self, reason: Option<&Reason>) -> Fingerprint {
        let mut content = Content::of(MOVEMENT);
        content.number(QUANTITY, self.on_hand_delta as u64);
        content.number(OCCURRED_AT, self.occurred_at.0);
        if let Some(reason) = reason {
            content.text(REASON, reason.as_str());
        }
        content.fingerprint()
    }
}

/// Kinds of call. Remembered fingerprints are of them: never change one, never use one again.
const RESERVE: u8 = 1;
const CONFIRM: u8 = 2;
const RELEASE: u8 = 3;
const FULFILL: u8 = 4;
const EXTEND: u8 = 5;
const AMEND: u8 = 6;
const SET_POLICY: u8 = 7;
const PUT_LOCATION: u8 = 8;
const MOVEMENT: u8 = 9;

/// Fields, likewise. None is 0, so that no field can be taken for the end of one before it.
const RESERVATION: u8 = 1;
const TTL: u8 = 2;
const SKU: u8 = 3;
const LOCATION: u8 = 4;
const QUANTITY: u8 = 5;
const SAFETY_STOCK: u8 = 6;
const BACKORDER_LIMIT: u8 = 7;
const LOCATION_TYPE: u8 = 8;
const NAME: u8 = 9;
const LATITUDE: u8 = 10;
const LONGITUDE: u8 = 11;
const GLN: u8 = 12;
const OCCURRED_AT: u8 = 13;
const REASON: u8 = 14;
const ORDER_REFERENCE: u8 = 15;
const CHANNEL: u8 = 16;

/// What a fingerprint is of. Most baskets fit into the room on the stack.
struct Content {
    bytes: SmallVec<[u8; 256]>,
}

impl Content {
    fn of(kind: u8) -> Self {
        let mut bytes = SmallVec::new();
        bytes.push(kind);
        Self { bytes }
    }

    fn number(&mut self, field: u8, number: u64) {
        self.bytes.push(field);
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    fn optional(&mut self, field: u8, number: Option<u64>) {
        if let Some(number) = number {
            self.number(field, number);
        }
    }

    fn optional_text(&mut self, field: u8, text: &str) {
        if !text.is_empty() {
            self.text(field, text);
        }
    }

    /// Names have no NUL byte, so a text ends where one stands.
    fn text(&mut self, field: u8, text: &str) {
        self.bytes.push(field);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    fn id(&mut self, id: ReservationId) {
        self.bytes.push(RESERVATION);
        self.bytes.extend_from_slice(id.as_bytes());
    }

    fn lines(&mut self, lines: &[Line]) {
        for line in lines {
            self.text(SKU, line.sku.as_str());
            self.text(LOCATION, line.location.as_str());
            self.number(QUANTITY, line.quantity.get() as u64);
        }
    }

    fn partial_lines(&mut self, lines: &[PartialLine]) {
        for line in lines {
            self.text(SKU, line.sku.as_str());
            if let Some(location) = &line.location {
                self.text(LOCATION, location.as_str());
            }
            self.number(QUANTITY, line.quantity.get() as u64);
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Amend, Confirm, Extend, Fulfill, Release, Reserve, SetPolicy};
    use crate::ids::{Location, Quantity, Stamp};
    use crate::sku::Sku;

    fn reservation(random: u64) -> ReservationId {
        ReservationId::compose(Stamp(1), 0, random)
    }

    fn line(sku: &str, location: &str, quantity: i64) -> Line {
        Line {
            sku: Sku::new(sku).unwrap(),
            location: Location::new(location).unwrap(),
            quantity: Quantity::new(quantity).unwrap(),
        }
    }

    fn partial(sku: &str, location: Option<&str>) -> PartialLine {
        PartialLine {
            sku: Sku::new(sku).unwrap(),
            location: location.map(|name| Location::new(name).unwrap()),
            quantity: Quantity::new(1).unwrap(),
        }
    }

    #[test]
    fn every_kind_of_call_and_every_field_counts() {
        let id = reservation(1);
        let reserve = |lines: &[Line], ttl_ms| {
            let lines = lines.to_vec();
            Operation::Reserve(Reserve {
                id,
                lines,
                ttl_ms,
                labels: None,
                over: None,
            })
        };
        let confirm = |id, pickup_within_ms| {
            Operation::Confirm(Confirm {
                id,
                pickup_within_ms,
            })
        };
        let amend = |ttl_ms| {
            let lines = vec![line("MUG", "A", 1)];
            Operation::Amend(Amend {
                id,
                lines,
                ttl_ms,
                over: None,
            })
        };
        let release = |lines| {
            Operation::Release(Release {
                id,
                lines,
                forced: None,
            })
        };
        let fulfill = |lines| Operation::Fulfill(Fulfill { id, lines });
        let extend = |ttl_ms| Operation::Extend(Extend { id, ttl_ms });
        let policy = |safety_stock, backorder_limit| {
            Operation::SetPolicy(SetPolicy {
                sku: Sku::new("MUG").unwrap(),
                location: Location::new("A").unwrap(),
                safety_stock,
                backorder_limit,
            })
        };
        let all = [
            reserve(&[line("MUG", "A", 1)], 5),
            reserve(&[line("MUG", "A", 1)], 6),
            reserve(&[line("MUG", "A", 2)], 5),
            reserve(&[line("MUG", "B", 1)], 5),
            reserve(&[line("PEN", "A", 1)], 5),
            reserve(&[line("MUG", "A", 1), line("PEN", "A", 1)], 5),
            confirm(id, None),
            confirm(id, Some(5)),
            confirm(reservation(2), None),
            extend(5),
            release(Vec::new()),
            release(vec![partial("MUG", None)]),
            release(vec![partial("MUG", Some("A"))]),
            fulfill(Vec::new()),
            fulfill(vec![partial("MUG", None)]),
            amend(None),
            amend(Some(5)),
            policy(Some(5), None),
            policy(None, Some(5)),
            policy(Some(5), Some(0)),
        ];
        for (number, one) in all.iter().enumerate() {
            assert_eq!(one.fingerprint(), one.clone().fingerprint());
            for other in &all[..number] {
                assert_ne!(one.fingerprint(), other.fingerprint(), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_id_that_the_edge_drew_does_not_count() {
        let reserve = |random| {
            Operation::Reserve(Reserve {
                id: reservation(random),
                lines: vec![line("MUG", "A", 1)],
                ttl_ms: 5,
                labels: None,
                over: None,
            })
        };
        assert_eq!(reserve(1).fingerprint(), reserve(2).fingerprint());
    }
}
