//! How entries are packed into values.
//!
//! ```text
//! checksum   4 bytes, little endian: CRC-32 of the key and of everything behind the checksum
//! kind       1 byte
//! previous   where the group's value before this one ends: index (as the distance), ordinal, part
//! payload    whole entries, each: distance of its index from the last one's, length, bytes;
//!            the same, packed: length before it was packed, LZ4 block;
//!            or a part of one entry: bytes
//! ```
//!
//! Entries name the same SKUs, locations and principals again and again: packed they take less than
//! half, and sled writes everything more than once.
//!
//! Numbers without a size are LEB128. An entry's ordinal is not stored: it counts from 0 within an
//! index, and the key has that of the first.
//!
//! Naming the end of the previous value makes a chain of each group, so that a lost page of the
//! engine shows as soon as somebody reads across it. Its beginning would not do: a replacement can
//! begin at the same place and hold less.

use std::borrow::Cow;
use std::ops::Range;

use lz4_flex::block;
use prost::encoding::{decode_varint, encode_varint};

use super::key::{ENTRIES_KEY_BYTES, Position, entries_key};

/// The most bytes of a value. The engine puts large pages into files of their own, which it handles
/// less carefully; a page of this many bytes times the keys in a page stays far below.
pub(crate) const VALUE_BYTES_MAX: usize = 2048;
const CHECKSUM_BYTES: usize = 4;
/// Checksum, kind, and three numbers of 64, 32 and 16 bits.
const HEADER_BYTES_MAX: usize = CHECKSUM_BYTES + 1 + 10 + 5 + 3;
const PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX - HEADER_BYTES_MAX;
/// What an entry has in front of it: the distance of its index, and its length.
const ENTRY_HEADER_BYTES_MAX: usize = 10 + 2;

// On disk for ever.
const KIND_WHOLE: u8 = 1;
const KIND_PART: u8 = 2;
const KIND_LAST_PART: u8 = 3;
const KIND_WHOLE_PACKED: u8 = 4;

/// What a value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One or more whole entries.
    Whole,
    /// A part of an entry, with more to come.
    Part,
    /// The last part of an entry.
    LastPart,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Whole => KIND_WHOLE,
            Kind::Part => KIND_PART,
            Kind::LastPart => KIND_LAST_PART,
        }
    }
}

/// A value with its key.
pub(super) type PackedValue = ([u8; ENTRIES_KEY_BYTES], Vec<u8>);

/// Packs the entries of one group, given in order, into chained values.
#[derive(Debug)]
pub(super) struct Packer {
    group: u64,
    /// Where the value made last ends.
    last: Position,
    /// Where the value in the making begins.
    first: Position,
    /// The last entry in it.
    index: u64,
    ordinal: u32,
    payload: Vec<u8>,
    values: Vec<PackedValue>,
}

impl Packer {
    /// Begins behind the value that ends at `previous`.
    pub(super) fn new(group: u64, previous: Position) -> Packer {
        Packer {
            group,
            last: previous,
            first: Position::START,
            index: 0,
            ordinal: 0,
            payload: Vec::with_capacity(PAYLOAD_BYTES_MAX),
            values: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, index: u64, ordinal: u32, bytes: &[u8]) {
        if bytes.len() + ENTRY_HEADER_BYTES_MAX > PAYLOAD_BYTES_MAX {
            self.close();
            self.push_parts(index, ordinal, bytes);
            return;
        }
        let continues = if index == self.index {
            ordinal == self.ordinal + 1
        } else {
            index > self.index && ordinal == 0
        };
        let fits = self.payload.len() + ENTRY_HEADER_BYTES_MAX + bytes.len() <= PAYLOAD_BYTES_MAX;
        if !(continues && fits) {
            self.close();
        }
        if self.payload.is_empty() {
            self.first = Position {
                index,
                ordinal,
                part: 0,
            };
            self.index = index;
        }
        encode_varint(index - self.index, &mut self.payload);
        encode_varint(bytes.len() as u64, &mut self.payload);
        self.payload.extend_from_slice(bytes);
        self.index = index;
        self.ordinal = ordinal;
    }

    /// The values, with their keys, and where the last one ends; the one before, if nothing was
    /// pushed.
    pub(super) fn finish(mut self) -> (Vec<PackedValue>, Position) {
        self.close();
        (self.values, self.last)
    }

    fn push_parts(&mut self, index: u64, ordinal: u32, bytes: &[u8]) {
        let mut chunks = bytes.chunks(PAYLOAD_BYTES_MAX).peekable();
        let mut part = 0;
        while let Some(chunk) = chunks.next() {
            let kind = match chunks.peek() {
                Some(_) => Kind::Part,
                None => Kind::LastPart,
            };
            let at = Position {
                index,
                ordinal,
                part,
            };
            self.put(at, at, kind, chunk);
            part += 1;
        }
    }

    fn close(&mut self) {
        if !self.payload.is_empty() {
            let mut payload = std::mem::take(&mut self.payload);
            let end = Position {
                index: self.index,
                ordinal: self.ordinal,
                part: 0,
            };
            self.put(self.first, end, Kind::Whole, &payload);
            payload.clear();
            self.payload = payload;
        }
    }

    fn put(&mut self, at: Position, end: Position, kind: Kind, payload: &[u8]) {
        let key = entries_key(self.group, at);
        let value = encode(&key, at, kind, self.last, payload);
        self.values.push((key, value));
        self.last = end;
    }
}

/// A value read back whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) kind: Kind,
    /// Where the value before it ends.
    pub(super) previous: Position,
    /// As it was before it was packed.
    pub(super) payload: Cow<'a, [u8]>,
}

impl Value<'_> {
    /// The whole entries in it: index, ordinal, and where in the payload its bytes are. Nothing for
    /// a part of an entry, and nothing if they cannot be told apart.
    pub(super) fn entries(&self, at: Position) -> Option<Vec<(u64, u32, Range<usize>)>> {
        let mut entries = Vec::new();
        if self.kind != Kind::Whole {
            return Some(entries);
        }
        let (mut index, mut ordinal) = (at.index, at.ordinal);
        let mut rest = &*self.payload;
        while !rest.is_empty() {
            let distance = decode_varint(&mut rest).ok()?;
            let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            if !entries.is_empty() {
                ordinal = if distance == 0 {
                    ordinal.checked_add(1)?
                } else {
                    0
                };
            }
            index = index.checked_add(distance)?;
            let begin = self.payload.len() - rest.len();
            rest = rest.get(len..)?;
            entries.push((index, ordinal, begin..begin + len));
        }
        Some(entries)
    }

    /// The same with another value before it.
    pub(super) fn behind(&self, key: &[u8], at: Position, previous: Position) -> Vec<u8> {
        encode(key, at, self.kind, previous, &self.payload)
    }
}

/// Where a value ends that begins `at` and has these whole entries.
pub(super) fn end_of(at: Position, entries: &[(u64, u32, Range<usize>)]) -> Position {
    entries.last().map_or(at, |&(index, ordinal, _)| Position {
        index,
        ordinal,
        part: 0,
    })
}

/// Reads a value. Nothing, if it is not what was written under this key.
pub(super) fn decode<'a>(key: &[u8], at: Position, value: &'a [u8]) -> Option<Value<'a>> {
    let (checksum, rest) = value.split_first_chunk::<CHECKSUM_BYTES>()?;
    if u32::from_le_bytes(*checksum) != checksum_of(key, rest) {
        return None;
    }
    let (&code, mut rest) = rest.split_first()?;
    let kind = match code {
        KIND_WHOLE | KIND_WHOLE_PACKED => Kind::Whole,
        KIND_PART => Kind::Part,
        KIND_LAST_PART => Kind::LastPart,
        _ => return None,
    };
    let previous = Position {
        index: at.index.checked_sub(decode_varint(&mut rest).ok()?)?,
        ordinal: decode_varint(&mut rest).ok()?.try_into().ok()?,
        part: decode_varint(&mut rest).ok()?.try_into().ok()?,
    };
    let payload = match code {
        KIND_WHOLE_PACKED => Cow::Owned(unpack(rest)?),
        _ => Cow::Borrowed(rest),
    };
    Some(Value {
        kind,
        previous,
        payload,
    })
}

/// Nothing, where that takes no less.
fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    let mut packed = Vec::with_capacity(PAYLOAD_BYTES_MAX);
    encode_varint(payload.len() as u64, &mut packed);
    packed.extend(block::compress(payload));
    (packed.len() < payload.len()).then_some(packed)
}

fn unpack(mut packed: &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(decode_varint(&mut packed).ok()?).ok()?;
    if len > PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = block::decompress(packed, len).ok()?;
    (payload.len() == len).then_some(payload)
}

fn encode(key: &[u8], at: Position, kind: Kind, previous: Position, payload: &[u8]) -> Vec<u8> {
    let packed = match kind {
        Kind::Whole => pack(payload),
        Kind::Part | Kind::LastPart => None,
    };
    let (code, payload) = match &packed {
        Some(packed) => (KIND_WHOLE_PACKED, packed.as_slice()),
        None => (kind.code(), payload),
    };
    let mut value = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    value.extend_from_slice(&[0; CHECKSUM_BYTES]);
    value.push(code);
    encode_varint(at.index - previous.index, &mut value);
    encode_varint(previous.ordinal.into(), &mut value);
    encode_varint(previous.part.into(), &mut value);
    value.extend_from_slice(payload);
    let checksum = checksum_of(key, &value[CHECKSUM_BYTES..]);
    value[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    value
}

/// The checksum of what is kept under a key.
pub(super) fn checksum_of(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: u64 = 3;

    fn place(index: u64) -> Position {
        Position {
            index,
            ordinal: 0,
            part: 0,
        }
    }

    /// So many entries, one an index, as one value.
    fn packed(entries: impl Iterator<Item = Vec<u8>>) -> PackedValue {
        let mut packer = Packer::new(GROUP, Position::START);
        for (index, entry) in (1..).zip(entries) {
            packer.push(index, 0, &entry);
        }
        let (mut values, _) = packer.finish();
        assert_eq!(values.len(), 1);
        values.remove(0)
    }

    #[test]
    fn entries_that_are_alike_take_less_and_come_back() {
        let entries =
            || (0..20).map(|n| format!("SKU-{n:04} at BERLIN by till, 1 unit").into_bytes());
        let (key, value) = packed(entries());
        let plain: usize = entries().map(|entry| entry.len()).sum();
        assert!(value.len() < plain / 2, "{} of {plain}", value.len());
        let value = decode(&key, place(1), &value).unwrap();
        let found = value.entries(place(1)).unwrap();
        let found = found
            .into_iter()
            .map(|(_, _, range)| value.payload[range].to_vec());
        assert!(found.eq(entries()));
    }

    #[test]
    fn what_packing_makes_no_shorter_is_kept_as_it_is() {
        let (key, value) = packed([b"sku".to_vec()].into_iter());
        assert_eq!(value[CHECKSUM_BYTES], KIND_WHOLE);
        assert!(decode(&key, place(1), &value).is_some());
    }

    #[test]
    fn what_cannot_be_unpacked_is_no_value() {
        let (key, whole) = packed((0..20).map(|_| b"the same again".to_vec()));
        assert_eq!(whole[CHECKSUM_BYTES], KIND_WHOLE_PACKED);
        let with_sum = |mut value: Vec<u8>| {
            let sum = checksum_of(&key, &value[CHECKSUM_BYTES..]);
            value[..CHECKSUM_BYTES].copy_from_slice(&sum.to_le_bytes());
            value
        };
        assert!(decode(&key, place(1), &with_sum(whole.clone())).is_some());
        for cut in 1..whole.len() - CHECKSUM_BYTES {
            let short = with_sum(whole[..whole.len() - cut].to_vec());
            assert_eq!(decode(&key, place(1), &short), None, "{cut} bytes less");
        }
        // Lengths that nobody writes.
        let mut long = whole[..CHECKSUM_BYTES + 1].to_vec();
        long.extend([1, 0, 0]);
        encode_varint(1 << 40, &mut long);
        assert_eq!(decode(&key, place(1), &with_sum(long)), None);
    }
}
