//! How entries are packed into values.
//!
//! ```text
//! checksum   4 bytes, little endian: CRC-32 of the key and of everything behind the checksum
//! kind       1 byte
//! previous   where the group's value before this one ends: index (as the distance), ordinal, part
//! payload    whole entries, each: distance of its index from the last one's, length, bytes;
//!            or a part of one entry: bytes
//! ```
//!
//! Numbers without a size are LEB128. An entry's ordinal is not stored: it counts from 0 within an
//! index, and the key has that of the first.
//!
//! Naming the end of the previous value makes a chain of each group, so that a lost page of the engine
//! shows as soon as somebody reads across it. Its beginning would not do: a replacement can begin at the
//! same place and hold less.

use std::ops::Range;

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
        put_number(&mut self.payload, index - self.index);
        put_number(&mut self.payload, bytes.len() as u64);
        self.payload.extend_from_slice(bytes);
        self.index = index;
        self.ordinal = ordinal;
    }

    /// The values, with their keys, and where the last one ends; the one before, if nothing was pushed.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) kind: Kind,
    /// Where the value before it ends.
    pub(super) previous: Position,
    pub(super) payload: &'a [u8],
}

impl Value<'_> {
    /// The whole entries in it: index, ordinal, and where in the payload its bytes are. Nothing for a
    /// part of an entry, and nothing if they cannot be told apart.
    pub(super) fn entries(&self, at: Position) -> Option<Vec<(u64, u32, Range<usize>)>> {
        let mut entries = Vec::new();
        if self.kind != Kind::Whole {
            return Some(entries);
        }
        let (mut index, mut ordinal) = (at.index, at.ordinal);
        let mut rest = self.payload;
        while !rest.is_empty() {
            let distance = take_number(&mut rest)?;
            let len = usize::try_from(take_number(&mut rest)?).ok()?;
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
        encode(key, at, self.kind, previous, self.payload)
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
    let (&kind, mut rest) = rest.split_first()?;
    let kind = match kind {
        KIND_WHOLE => Kind::Whole,
        KIND_PART => Kind::Part,
        KIND_LAST_PART => Kind::LastPart,
        _ => return None,
    };
    let previous = Position {
        index: at.index.checked_sub(take_number(&mut rest)?)?,
        ordinal: take_number(&mut rest)?.try_into().ok()?,
        part: take_number(&mut rest)?.try_into().ok()?,
    };
    Some(Value {
        kind,
        previous,
        payload: rest,
    })
}

fn encode(key: &[u8], at: Position, kind: Kind, previous: Position, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    value.extend_from_slice(&[0; CHECKSUM_BYTES]);
    value.push(kind.code());
    put_number(&mut value, at.index - previous.index);
    put_number(&mut value, previous.ordinal.into());
    put_number(&mut value, previous.part.into());
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

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
