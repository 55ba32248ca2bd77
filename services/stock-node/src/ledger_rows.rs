//! Changes of positions, as the ledger keeps them.

use prost::encoding::{WireType, encode_key, encode_varint};
use stock_cluster::GroupId;
use stock_core::{Discrepancy, LedgerEntry, Source, Stamp};

/// Something for the ledger.
#[derive(Debug)]
pub enum Page {
    /// To be kept.
    Rows(LedgerRows),
    /// The history of a group is known from here on only.
    Begin {
        /// Which.
        group: GroupId,
        /// After this index.
        after: u64,
    },
    /// A group is here no more.
    Forget(GroupId),
}

/// What the entries of a stretch of a group's log changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRows {
    /// Of this group.
    pub group: GroupId,
    /// The stretch begins after this index...
    pub after: u64,
    /// ...and ends with this one.
    pub to: u64,
    /// In order, each with its index.
    pub rows: Rows,
}

/// What some entries of a group's log changed, in order: each encoded as a `log.v1.LedgerEntry`,
/// written by hand into one piece of memory. The loop does it, for each change on every node;
/// another thread then need not touch names that the loop goes on to share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    bytes: Vec<u8>,
    /// The log index of each, and where it ends.
    ends: Vec<(u64, usize)>,
    newest: Stamp,
}

impl Rows {
    /// Adds a change that this log index made, no earlier one than the last.
    pub fn push(&mut self, index: u64, entry: &LedgerEntry) {
        encode(entry, &mut self.bytes);
        self.ends.push((index, self.bytes.len()));
        self.newest = entry.stamp;
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Takes them all, and makes room for as many again.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let next = Self {
            bytes: Vec::with_capacity(self.bytes.len()),
            ends: Vec::with_capacity(self.ends.len()),
            newest: Stamp::default(),
        };
        std::mem::replace(self, next)
    }

    /// Each with its log index.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut begin = 0;
        self.ends.iter().map(move |(index, end)| {
            let row = &self.bytes[begin..*end];
            begin = *end;
            (*index, row)
        })
    }

    /// Cluster time of the last one.
    pub fn newest(&self) -> Option<Stamp> {
        (!self.is_empty()).then_some(self.newest)
    }
}

/// As prost would encode the message, without making it first.
fn encode(entry: &LedgerEntry, out: &mut Vec<u8>) {
    number(1, entry.kind as u64, out);
    bytes(2, entry.sku.as_str().as_bytes(), out);
    bytes(3, entry.location.as_str().as_bytes(), out);
    number(4, folded(entry.on_hand_delta), out);
    number(5, folded(entry.reserved_delta), out);
    bytes(6, entry.principal.as_str().as_bytes(), out);
    number(7, entry.stamp.0, out);
    if entry.occurred_at != entry.stamp {
        number(8, entry.occurred_at.0, out);
    }
    if let Some(reason) = &entry.reason {
        bytes(9, reason.as_str().as_bytes(), out);
    }
    match &entry.source {
        Source::Reservation(id) => bytes(10, id.as_bytes(), out),
        Source::Document { document, line, .. } => {
            bytes(11, document.as_str().as_bytes(), out);
            bytes(12, line.as_str().as_bytes(), out);
        }
        Source::Policy => {}
    }
    if let Some(discrepancy) = &entry.discrepancy {
        let mut message = Vec::new();
        encode_discrepancy(discrepancy, &mut message);
        encode_key(13, WireType::LengthDelimited, out);
        encode_varint(message.len() as u64, out);
        out.extend_from_slice(&message);
    }
    if let Source::Document { reporter, .. } = &entry.source
        && reporter.as_str() != entry.principal.as_str()
    {
        bytes(14, reporter.as_str().as_bytes(), out);
    }
}

fn encode_discrepancy(discrepancy: &Discrepancy, out: &mut Vec<u8>) {
    number(1, discrepancy.available as u64, out);
    number(2, discrepancy.short_by as u64, out);
    for id in &discrepancy.endangered {
        bytes(3, id.as_bytes(), out);
    }
}

/// A field that is left out where it is 0.
fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// A field that is left out where it is empty.
fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}

/// As `sint64`.
fn folded(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use stock_core::{
        Document, EntryKind, Location, Principal, Reason, Reporter, ReservationId, Sku,
    };
    use stock_wire::log::v1 as log;

    use super::*;

    fn entry() -> LedgerEntry {
        LedgerEntry {
            kind: EntryKind::Reserved,
            sku: Sku::new("MUG").unwrap(),
            location: Location::new("WH").unwrap(),
            on_hand_delta: 0,
            reserved_delta: -3,
            source: Source::Reservation(ReservationId::compose(Stamp(5), 1, 9)),
            principal: Principal::new("web").unwrap(),
            stamp: Stamp(1_790_000_000_000),
            occurred_at: Stamp(1_790_000_000_000),
            reason: None,
            discrepancy: None,
        }
    }

    #[test]
    fn every_field_is_where_the_schema_has_it() {
        let id = ReservationId::compose(Stamp(5), 1, 9);
        let fact = LedgerEntry {
            kind: EntryKind::Adjustment,
            on_hand_delta: i64::MIN / 4,
            reserved_delta: 0,
            source: Source::Document {
                reporter: Reporter::new("till-1").unwrap(),
                document: Document::new("D-1").unwrap(),
                line: Document::new("2").unwrap(),
            },
            occurred_at: Stamp(7),
            reason: Some(Reason::new("found it").unwrap()),
            discrepancy: Some(Box::new(Discrepancy {
                sku: Sku::new("MUG").unwrap(),
                location: Location::new("WH").unwrap(),
                available: -4,
                short_by: 4,
                endangered: vec![id, id],
            })),
            ..entry()
        };
        let mut rows = Rows::default();
        rows.push(3, &entry());
        rows.push(3, &fact);
        assert_eq!(rows.newest(), Some(entry().stamp));
        let read: Vec<(u64, log::LedgerEntry)> = rows
            .iter()
            .map(|(index, row)| (index, log::LedgerEntry::decode(row).unwrap()))
            .collect();
        let held = log::LedgerEntry {
            kind: 1,
            sku: "MUG".into(),
            location: "WH".into(),
            reserved_delta: -3,
            principal: "web".into(),
            stamp_ms: 1_790_000_000_000,
            reservation_id: id.as_bytes().to_vec().into(),
            ..Default::default()
        };
        let adjusted = log::LedgerEntry {
            kind: 9,
            on_hand_delta: i64::MIN / 4,
            reserved_delta: 0,
            occurred_at_ms: 7,
            reason: "found it".into(),
            reservation_id: Default::default(),
            document: "D-1".into(),
            line: "2".into(),
            discrepancy: Some(log::LedgerDiscrepancy {
                available: -4,
                short_by: 4,
                endangered: vec![id.as_bytes().to_vec().into(); 2],
            }),
            source: "till-1".into(),
            ..held.clone()
        };
        assert_eq!(read, [(3, held), (3, adjusted)]);
    }
}
