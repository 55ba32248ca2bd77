//! Reading a group in order, and noticing what is missing.

use std::ops::Bound;

use bytes::Bytes;

use super::engine::Engine;
use super::key::{ENTRIES_KEY_BYTES, Position, entries_key, entries_place};
use super::record::Record;
use super::value::{Kind, decode, end_of};
use super::{Cursor, LedgerEntry, Page};
use crate::LedgerError;

/// What a scan came upon.
pub(super) enum Scan {
    Page(Page),
    /// The chain of values is broken. Something may be missing in the indices `from` to `to`.
    Broken {
        from: u64,
        to: u64,
    },
}

/// Reads the entries of a group behind `after`.
///
/// Every value names the end of the one before it and the record names that of the last, so a scan
/// that ends well has missed nothing.
pub(super) fn scan(
    engine: &Engine,
    group: u64,
    record: &Record,
    after: Cursor,
    entries_max: usize,
    bytes_max: usize,
) -> Result<Scan, LedgerError> {
    engine.call(|db| {
        let start = Position::last_of(after.index, after.ordinal).min(record.last);
        // The value that begins at or before the cursor may go on behind it.
        let holding = value_before(db, group, start)?;
        let after_key = match &holding {
            Some((at, _)) => Bound::Excluded(entries_key(group, *at)),
            None => Bound::Included(entries_key(group, Position::START)),
        };
        let until_key = Bound::Included(entries_key(group, record.last));
        let behind = db.range::<[u8; ENTRIES_KEY_BYTES], _>((after_key, until_key));

        let mut reader = Reader::new(group, after, entries_max, bytes_max);
        // What lies before the holding value is not asked for.
        let mut expected = match holding {
            Some(_) => None,
            None => Some(Position::START),
        };
        // Indices below this one are known to be whole.
        let mut whole_below = match &holding {
            Some((at, _)) => record.coverage.from.max(at.index),
            None => record.coverage.from,
        };
        let holding =
            holding.map(|(at, value)| Ok((sled::IVec::from(&entries_key(group, at)), value)));
        for pair in holding.into_iter().chain(behind) {
            let (key, value) = pair?;
            let broken = |to: u64| {
                Ok(Scan::Broken {
                    from: whole_below.min(to),
                    to: to.min(record.coverage.to),
                })
            };
            let Some((_, at)) = entries_place(&key) else {
                return broken(record.coverage.to);
            };
            let Some(decoded) = decode(&key, at, &value) else {
                let next = value_after(db, group, at, record)?;
                return broken(next.unwrap_or(record.coverage.to));
            };
            if expected.is_some_and(|expected| decoded.previous != expected) {
                return broken(at.index);
            }
            let Some(entries) = decoded.entries(at) else {
                return broken(at.index);
            };
            let end = end_of(at, &entries);
            let bytes = Bytes::from(decoded.payload.into_owned());
            let is_full = match decoded.kind {
                Kind::Whole => entries.into_iter().any(|(index, ordinal, range)| {
                    !reader.take(index, ordinal, bytes.slice(range))
                }),
                Kind::Part => {
                    reader.take_part(at, &bytes);
                    false
                }
                Kind::LastPart => !reader.take_last_part(at, &bytes),
            };
            if is_full {
                return Ok(Scan::Page(reader.page));
            }
            expected = Some(end);
            whole_below = whole_below.max(end.index);
        }
        if expected != Some(record.last) {
            return Ok(Scan::Broken {
                from: whole_below,
                to: record.coverage.to,
            });
        }
        reader.page.next = after.max(Cursor::after_index(record.coverage.to));
        Ok(Scan::Page(reader.page))
    })
}

/// Collects a page.
struct Reader {
    group: u64,
    after: Cursor,
    entries_max: usize,
    bytes_max: usize,
    bytes: usize,
    /// The parts of a large entry so far.
    parts: Vec<u8>,
    page: Page,
}

impl Reader {
    fn new(group: u64, after: Cursor, entries_max: usize, bytes_max: usize) -> Reader {
        Reader {
            group,
            after,
            entries_max,
            bytes_max,
            bytes: 0,
            parts: Vec::new(),
            page: Page {
                entries: Vec::new(),
                next: after,
            },
        }
    }

    /// Takes an entry, unless the page is full. A page has at least one.
    fn take(&mut self, index: u64, ordinal: u32, bytes: Bytes) -> bool {
        let cursor = Cursor { index, ordinal };
        if cursor <= self.after {
            return true;
        }
        let entries = &mut self.page.entries;
        if let Some(last) = entries.last() {
            let is_full = entries.len() >= self.entries_max
                || self.bytes.saturating_add(bytes.len()) > self.bytes_max;
            if is_full {
                self.page.next = if index > last.index {
                    Cursor::after_index(index - 1)
                } else {
                    last.cursor()
                };
                return false;
            }
        }
        self.bytes += bytes.len();
        entries.push(LedgerEntry {
            group: self.group,
            index,
            ordinal,
            bytes,
        });
        true
    }

    fn take_part(&mut self, at: Position, bytes: &[u8]) {
        if at.part == 0 {
            self.parts.clear();
        }
        self.parts.extend_from_slice(bytes);
    }

    fn take_last_part(&mut self, at: Position, bytes: &[u8]) -> bool {
        self.take_part(at, bytes);
        let whole = Bytes::from(std::mem::take(&mut self.parts));
        self.take(at.index, at.ordinal, whole)
    }
}

/// The last value of a group at or before a position.
pub(super) fn value_before(
    db: &sled::Db,
    group: u64,
    at: Position,
) -> sled::Result<Option<(Position, sled::IVec)>> {
    let keys = entries_key(group, Position::START)..=entries_key(group, at);
    Ok(match db.range(keys).next_back().transpose()? {
        Some((key, value)) => entries_place(&key).map(|(_, at)| (at, value)),
        None => None,
    })
}

/// The index of the first value of a group behind a position, up to the last that is known.
fn value_after(
    db: &sled::Db,
    group: u64,
    at: Position,
    record: &Record,
) -> sled::Result<Option<u64>> {
    let keys = (
        Bound::Excluded(entries_key(group, at)),
        Bound::Included(entries_key(group, record.last)),
    );
    let next = db.range::<[u8; ENTRIES_KEY_BYTES], _>(keys).next();
    let next = next.transpose()?;
    Ok(next.and_then(|(key, _)| Some(entries_place(&key)?.1.index)))
}
