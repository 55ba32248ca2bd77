//! Commands of a stock shard, as they stand in the log.
//!
//! ```text
//! 1 reserve      request, id, ttl in ms, lines
//! 2 confirm      request, id, pickup within ms; 0: no deadline
//! 3 release      request, id, lines; none: all that is open; an empty location: the only one
//! 4 fulfil       as release
//! 5 extend       request, id, ttl in ms
//! 6 amend        request, id, ttl in ms, 0: the expiry stays, lines
//! 7 policy       request, sku, location, safety stock + 1, backorder limit + 1; 0: as it is
//! 10 labelled    a reserve: request, id, ttl in ms, order reference, channel; empty: none, lines
//! 11 forced      a release: as release, then why
//! 12 over        a reserve over several shards: as labelled, what it reaches over before the lines
//! 13 over        an amendment over several shards: as amend, and likewise
//! 14 to 22       what shards tell each other: `basket.rs`
//! 9 movements    kind, source; empty: the principal, document, reason; empty: none, lines of
//!                line, sku, location, change of on hand, occurred at
//!
//! request        16 bytes of id, 8 of fingerprint
//! id             its lower 8 bytes; the upper ones, less what the request's time would make them
//! lines          how many, then sku, location, quantity
//! ```

use std::sync::Arc;

use crate::basket::Line;
use crate::codec::basket::{ALL_HELD, HOLD_PART};
use crate::codec::bytes::{Read, Reader, Writer};
use crate::command::{
    Action, Amend, Command, Confirm, Extend, Fulfill, MovementKind, MovementLine, Movements,
    Operation, PartialLine, Release, Request, Reserve, SetPolicy,
};
use crate::error::Flaw;
use crate::ids::{
    Document, Fingerprint, Principal, Quantity, Reporter, RequestId, ReservationId, Stamp,
};
use crate::labels::Labels;
use crate::names::Naming;
use crate::text::{OrderReference, Reason};

const RESERVE: u8 = 1;
const CONFIRM: u8 = 2;
const RELEASE: u8 = 3;
const FULFILL: u8 = 4;
const EXTEND: u8 = 5;
const AMEND: u8 = 6;
const POLICY: u8 = 7;
const RESERVE_LABELLED: u8 = 10;
const RELEASE_FORCED: u8 = 11;
const RESERVE_OVER: u8 = 12;
const AMEND_OVER: u8 = 13;
/// 8 was movements that did not say who reports them.
const MOVEMENTS: u8 = 9;

/// A line takes three bytes at least.
const LINE_BYTES_MIN: usize = 3;

impl Writer {
    /// A command. Its principal stands before it, where it is another than that of the command
    /// before.
    pub fn command(&mut self, command: &Command) {
        match &command.action {
            Action::Request(request, operation) => write_request(self, request, operation),
            Action::Movements(movements) => write_movements(self, &command.principal, movements),
            Action::Basket(command) => self.basket(command),
        }
    }
}

impl Reader<'_> {
    /// The command of this principal that began with the tag `kind`. `names` makes names of texts.
    ///
    /// # Errors
    ///
    /// It holds what [`Writer::command`] would not have written.
    pub fn command(
        &mut self,
        kind: u8,
        principal: &Principal,
        names: &impl Naming,
    ) -> Result<Action, Flaw> {
        match kind {
            RESERVE | CONFIRM | RELEASE | FULFILL | EXTEND | AMEND | POLICY | RESERVE_LABELLED
            | RELEASE_FORCED | RESERVE_OVER | AMEND_OVER => {
                let request = Request {
                    id: RequestId::new(self.fixed()?)?,
                    fingerprint: Fingerprint(self.fixed()?),
                };
                let operation = read_operation(kind, self, names, request.id)?;
                Ok(Action::Request(request, operation))
            }
            MOVEMENTS => Ok(Action::Movements(read_movements(principal, self, names)?)),
            HOLD_PART..=ALL_HELD => Ok(Action::Basket(self.basket(kind, names)?)),
            tag => {
                let what = "command of a stock shard";
                Err(Flaw::UnknownTag { what, tag })
            }
        }
    }
}

fn write_request(items: &mut Writer, request: &Request, operation: &Operation) {
    let mut begin = |kind| {
        items.tag(kind);
        items.raw(request.id.as_bytes());
        items.raw(&request.fingerprint.0);
    };
    match operation {
        Operation::Reserve(reserve) => {
            begin(match (&reserve.labels, &reserve.over) {
                (None, None) => RESERVE,
                (Some(_), None) => RESERVE_LABELLED,
                (_, Some(_)) => RESERVE_OVER,
            });
            write_id(items, &reserve.id, request.id);
            items.number(reserve.ttl_ms);
            match (&reserve.labels, &reserve.over) {
                (Some(labels), _) => {
                    items.text(labels.reference_text());
                    items.text(labels.channel_text());
                }
                (None, Some(_)) => {
                    items.text("");
                    items.text("");
                }
                (None, None) => {}
            }
            if let Some(over) = &reserve.over {
                items.over(over);
            }
            write_lines(items, &reserve.lines);
        }
        Operation::Confirm(confirm) => {
            begin(CONFIRM);
            write_id(items, &confirm.id, request.id);
            items.number(confirm.pickup_within_ms.unwrap_or(0));
        }
        Operation::Release(release) => {
            begin(match release.forced {
                None => RELEASE,
                Some(_) => RELEASE_FORCED,
            });
            write_id(items, &release.id, request.id);
            write_partials(items, &release.lines);
            if let Some(reason) = &release.forced {
                items.text(reason.as_str());
            }
        }
        Operation::Fulfill(fulfill) => {
            begin(FULFILL);
            write_id(items, &fulfill.id, request.id);
            write_partials(items, &fulfill.lines);
        }
        Operation::Extend(extend) => {
            begin(EXTEND);
            write_id(items, &extend.id, request.id);
            items.number(extend.ttl_ms);
        }
        Operation::Amend(amend) => {
            begin(match amend.over {
                None => AMEND,
                Some(_) => AMEND_OVER,
            });
            write_id(items, &amend.id, request.id);
            items.number(amend.ttl_ms.unwrap_or(0));
            if let Some(over) = &amend.over {
                items.over(over);
            }
            write_lines(items, &amend.lines);
        }
        Operation::SetPolicy(policy) => {
            begin(POLICY);
            items.text(policy.sku.as_str());
            items.text(policy.location.as_str());
            // Never below 0, and far below the largest number.
            let plus_one = |units: Option<i64>| units.map_or(0, |units| units as u64 + 1);
            items.number(plus_one(policy.safety_stock));
            items.number(plus_one(policy.backorder_limit));
        }
    }
}

fn read_operation(
    kind: u8,
    items: &mut Reader<'_>,
    names: &impl Naming,
    request: RequestId,
) -> Read<Operation> {
    Ok(match kind {
        RESERVE | RESERVE_LABELLED | RESERVE_OVER => Operation::Reserve(Reserve {
            id: read_id(items, request)?,
            ttl_ms: items.number()?,
            labels: match kind {
                RESERVE => None,
                _ => read_labels(items, names)?,
            },
            over: match kind {
                RESERVE_OVER => Some(Box::new(items.over()?)),
                _ => None,
            },
            lines: read_lines(items, names)?,
        }),
        CONFIRM => Operation::Confirm(Confirm {
            id: read_id(items, request)?,
            pickup_within_ms: nonzero(items.number()?),
        }),
        RELEASE | RELEASE_FORCED => Operation::Release(Release {
            id: read_id(items, request)?,
            lines: read_partials(items, names)?,
            forced: match kind {
                RELEASE => None,
                _ => Some(Reason::new(items.text()?)?),
            },
        }),
        FULFILL => Operation::Fulfill(Fulfill {
            id: read_id(items, request)?,
            lines: read_partials(items, names)?,
        }),
        EXTEND => Operation::Extend(Extend {
            id: read_id(items, request)?,
            ttl_ms: items.number()?,
        }),
        AMEND | AMEND_OVER => Operation::Amend(Amend {
            id: read_id(items, request)?,
            ttl_ms: nonzero(items.number()?),
            over: match kind {
                AMEND => None,
                _ => Some(Box::new(items.over()?)),
            },
            lines: read_lines(items, names)?,
        }),
        POLICY => Operation::SetPolicy(SetPolicy {
            sku: names.sku(items.text()?)?,
            location: names.location(items.text()?)?,
            safety_stock: read_units(items)?,
            backorder_limit: read_units(items)?,
        }),
        tag => {
            let what = "request of a stock shard";
            return Err(Flaw::UnknownTag { what, tag });
        }
    })
}

fn read_labels(items: &mut Reader<'_>, names: &impl Naming) -> Read<Option<Arc<Labels>>> {
    let order_reference = match items.text()? {
        "" => None,
        text => Some(OrderReference::new(text)?),
    };
    let channel = match items.text()? {
        "" => None,
        text => Some(names.channel(text)?),
    };
    Ok(Labels::new(order_reference, channel))
}

/// The edge makes an id of the request's time, the shard and chance: only these need be told.
fn write_id(items: &mut Writer, id: &ReservationId, request: RequestId) {
    let (high, low) = halves(*id.as_bytes());
    items.number(high.wrapping_sub(expected(request)));
    items.raw(&low.to_be_bytes());
}

fn read_id(items: &mut Reader<'_>, request: RequestId) -> Read<ReservationId> {
    let high = items.number()?.wrapping_add(expected(request));
    let low = u64::from_be_bytes(items.fixed()?);
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    Ok(ReservationId::new(bytes)?)
}

/// The upper half of a reservation's id that was made with the request, for shard 0.
fn expected(request: RequestId) -> u64 {
    halves(*ReservationId::compose(request.made_at(), 0, 0).as_bytes()).0
}

fn halves(id: [u8; 16]) -> (u64, u64) {
    let id = u128::from_be_bytes(id);
    ((id >> 64) as u64, id as u64)
}

fn write_lines(items: &mut Writer, lines: &[Line]) {
    items.number(lines.len() as u64);
    for line in lines {
        write_line(items, line);
    }
}

pub(super) fn write_line(items: &mut Writer, line: &Line) {
    items.text(line.sku.as_str());
    items.text(line.location.as_str());
    items.number(line.quantity.get() as u64);
}

fn read_lines(items: &mut Reader<'_>, names: &impl Naming) -> Read<Vec<Line>> {
    list(items, |items| read_line(items, names))
}

pub(super) fn read_line(items: &mut Reader<'_>, names: &impl Naming) -> Read<Line> {
    Ok(Line {
        sku: names.sku(items.text()?)?,
        location: names.location(items.text()?)?,
        quantity: read_quantity(items)?,
    })
}

fn write_partials(items: &mut Writer, lines: &[PartialLine]) {
    items.number(lines.len() as u64);
    for line in lines {
        items.text(line.sku.as_str());
        items.text(line.location.as_ref().map_or("", |at| at.as_str()));
        items.number(line.quantity.get() as u64);
    }
}

fn read_partials(items: &mut Reader<'_>, names: &impl Naming) -> Read<Vec<PartialLine>> {
    list(items, |items| {
        Ok(PartialLine {
            sku: names.sku(items.text()?)?,
            location: match items.text()? {
                "" => None,
                name => Some(names.location(name)?),
            },
            quantity: read_quantity(items)?,
        })
    })
}

fn write_movements(items: &mut Writer, principal: &Principal, movements: &Movements) {
    items.tag(MOVEMENTS);
    items.tag(match movements.kind {
        MovementKind::Receipt => 1,
        MovementKind::Sale => 2,
        MovementKind::Adjustment => 3,
    });
    items.text(match movements.source.as_str() {
        source if source == principal.as_str() => "",
        source => source,
    });
    items.text(movements.document.as_str());
    items.text(movements.reason.as_ref().map_or("", Reason::as_str));
    items.number(movements.lines.len() as u64);
    for line in &movements.lines {
        items.text(line.line.as_str());
        items.text(line.sku.as_str());
        items.text(line.location.as_str());
        items.signed(line.on_hand_delta);
        items.number(line.occurred_at.0);
    }
}

fn read_movements(
    principal: &Principal,
    items: &mut Reader<'_>,
    names: &impl Naming,
) -> Read<Movements> {
    Ok(Movements {
        kind: match items.tag()? {
            1 => MovementKind::Receipt,
            2 => MovementKind::Sale,
            3 => MovementKind::Adjustment,
            tag => {
                let what = "kind of movement";
                return Err(Flaw::UnknownTag { what, tag });
            }
        },
        source: match items.text()? {
            "" => Reporter::new(principal.as_str()),
            source => Reporter::new(source),
        }?,
        document: Document::new(items.text()?)?,
        reason: match items.text()? {
            "" => None,
            text => Some(Reason::new(text)?),
        },
        lines: list(items, |items| {
            Ok(MovementLine {
                line: Document::new(items.text()?)?,
                sku: names.sku(items.text()?)?,
                location: names.location(items.text()?)?,
                on_hand_delta: read_change(items)?,
                occurred_at: Stamp(items.number()?),
            })
        })?,
    })
}

fn list<'a, T>(
    items: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Read<T>,
) -> Read<Vec<T>> {
    let count = items.count(LINE_BYTES_MIN)?;
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push(read(items)?);
    }
    Ok(list)
}

fn read_quantity(items: &mut Reader<'_>) -> Read<Quantity> {
    let value = items.number()?;
    let units = i64::try_from(value).ok();
    let quantity = units.and_then(|units| Quantity::new(units).ok());
    let what = "quantity";
    quantity.ok_or(Flaw::NumberOutOfRange { what, value })
}

/// By at least one unit, up or down.
fn read_change(items: &mut Reader<'_>) -> Read<i64> {
    let value = items.signed()?;
    let units = i64::try_from(value.unsigned_abs()).ok();
    match units.map(Quantity::new) {
        Some(Ok(_)) => Ok(value),
        _ => {
            let what = "change of on hand";
            Err(Flaw::QuantityOutOfRange { what, value })
        }
    }
}

fn read_units(items: &mut Reader<'_>) -> Read<Option<i64>> {
    match items.number()? {
        0 => Ok(None),
        value => match i64::try_from(value - 1) {
            Ok(units) => Ok(Some(units)),
            Err(_) => {
                let what = "number of units";
                Err(Flaw::NumberOutOfRange { what, value })
            }
        },
    }
}

fn nonzero(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basket::Over;
    use crate::ids::{Channel, Location};
    use crate::names::NewNames;
    use crate::sku::Sku;

    fn request(operation: Operation) -> Action {
        let mut id = [9; 16];
        id[6] = 0x71;
        let request = Request {
            id: RequestId::new(id).unwrap(),
            fingerprint: Fingerprint([3; 8]),
        };
        Action::Request(request, operation)
    }

    fn movements(kind: MovementKind, on_hand_delta: i64) -> Action {
        Action::Movements(Movements {
            kind,
            source: Reporter::new(if on_hand_delta < 0 { "till-1" } else { "web" }).unwrap(),
            document: Document::new("D-1").unwrap(),
            reason: (kind == MovementKind::Adjustment).then(|| Reason::new("found it").unwrap()),
            lines: vec![MovementLine {
                line: Document::new("1").unwrap(),
                sku: Sku::new("MUG").unwrap(),
                location: Location::new("A").unwrap(),
                on_hand_delta,
                occurred_at: Stamp(5),
            }],
        })
    }

    fn every_kind() -> Vec<Action> {
        let sku = Sku::new("MUG").unwrap();
        let location = Location::new("A").unwrap();
        let quantity = Quantity::new(5).unwrap();
        let id = ReservationId::compose(Stamp(77), 3, 5);
        let line = Line {
            sku: sku.clone(),
            location: location.clone(),
            quantity,
        };
        let anywhere = PartialLine {
            sku: sku.clone(),
            location: None,
            quantity,
        };
        let there = PartialLine {
            location: Some(location.clone()),
            ..anywhere.clone()
        };
        let over = Over {
            shards: 8,
            asked_at: Stamp(9),
            is_last_try: true,
        };
        vec![
            request(Operation::Reserve(Reserve {
                id,
                lines: vec![line.clone(), line.clone()],
                ttl_ms: 9,
                labels: None,
                over: None,
            })),
            request(Operation::Reserve(Reserve {
                id,
                lines: vec![line.clone()],
                ttl_ms: 9,
                labels: Labels::new(
                    Some(OrderReference::new("A 1/7").unwrap()),
                    Some(Channel::new("web").unwrap()),
                ),
                over: None,
            })),
            request(Operation::Reserve(Reserve {
                id,
                lines: vec![line.clone()],
                ttl_ms: 9,
                labels: None,
                over: Some(Box::new(over)),
            })),
            request(Operation::Release(Release {
                id,
                lines: Vec::new(),
                forced: Some(Reason::new("nobody answers").unwrap()),
            })),
            request(Operation::Confirm(Confirm {
                id,
                pickup_within_ms: None,
            })),
            request(Operation::Confirm(Confirm {
                id,
                pickup_within_ms: Some(4),
            })),
            request(Operation::Release(Release {
                id,
                lines: vec![anywhere],
                forced: None,
            })),
            request(Operation::Fulfill(Fulfill {
                id,
                lines: vec![there],
            })),
            request(Operation::Extend(Extend { id, ttl_ms: 1 })),
            request(Operation::Amend(Amend {
                id,
                lines: vec![line.clone()],
                ttl_ms: Some(2),
                over: None,
            })),
            request(Operation::Amend(Amend {
                id,
                lines: vec![line],
                ttl_ms: None,
                over: Some(Box::new(over)),
            })),
            request(Operation::SetPolicy(SetPolicy {
                sku,
                location,
                safety_stock: Some(0),
                backorder_limit: None,
            })),
            movements(MovementKind::Receipt, 5),
            movements(MovementKind::Sale, -5),
            movements(MovementKind::Adjustment, -1),
        ]
    }

    fn principal() -> Principal {
        Principal::new("web").unwrap()
    }

    fn written(action: &Action) -> Vec<u8> {
        let mut items = Writer::default();
        let command = Command {
            principal: principal(),
            action: action.clone(),
        };
        items.command(&command);
        items.into_bytes()
    }

    fn read_back(bytes: &[u8]) -> Read<Action> {
        let mut items = Reader::new(bytes);
        let kind = items.tag()?;
        let action = items.command(kind, &principal(), &NewNames)?;
        items.end()?;
        Ok(action)
    }

    #[test]
    fn every_command_survives_the_log() {
        for action in every_kind() {
            assert_eq!(read_back(&written(&action)), Ok(action));
        }
    }

    #[test]
    fn a_reserve_as_the_edge_makes_it_is_short() {
        let made_at = Stamp(1_790_000_000_000);
        let id = u128::from(made_at.0) << 80 | 0x7 << 76 | 0x8000 << 48;
        let request = Request {
            id: RequestId::new(id.to_be_bytes()).unwrap(),
            fingerprint: Fingerprint::of(b"as sent"),
        };
        let reserve = Reserve {
            id: ReservationId::compose(made_at, 100, u64::MAX),
            lines: vec![Line {
                sku: Sku::new("MUG-BLUE").unwrap(),
                location: Location::new("WH-1").unwrap(),
                quantity: Quantity::new(1).unwrap(),
            }],
            ttl_ms: 900_000,
            labels: None,
            over: None,
        };
        let action = Action::Request(request, Operation::Reserve(reserve));
        let bytes = written(&action);
        assert_eq!(bytes.len(), 1 + 24 + 9 + 3 + 1 + 9 + 5 + 1);
        assert_eq!(read_back(&bytes), Ok(action));
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_is_cut_off_is_an_error() {
        for action in every_kind() {
            let bytes = written(&action);
            for at in 0..bytes.len() {
                assert!(read_back(&bytes[..at]).is_err(), "{action:?} cut at {at}");
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    let _ = read_back(&flipped);
                }
            }
        }
    }
}
