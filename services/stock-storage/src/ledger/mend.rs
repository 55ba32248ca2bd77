//! Filling what is missing.

use std::ops::Bound;

use super::batch::check_size;
use super::key::{ENTRIES_KEY_BYTES, Position, entries_key, entries_place};
use super::page::value_before;
use super::value::{Packer, decode, end_of};
use super::{BATCH_BYTES_MAX, Coverage, ENTRY_BYTES_MAX, Ledger, Step};
use crate::LedgerError;

/// An entry that shares a value with what is replaced.
type Bystander = (u64, u32, Vec<u8>);

/// What a replacement touches.
struct Affected {
    keys: Vec<sled::IVec>,
    /// Where those of them end that could be read.
    ends: Vec<Position>,
    /// Entries of lower indices.
    before: Vec<Bystander>,
    /// Entries of higher indices.
    after: Vec<Bystander>,
    /// Where the value before the first one touched ends.
    predecessor: Position,
}

impl Ledger {
    /// Puts `entries` in the place of all that the indices `from` to `to` have left, from the log
    /// or from another replica: the indices in ascending order, each with all its entries; those
    /// that are not named left none.
    ///
    /// Fills a [`LedgerError::Hole`], whose indices must all be replaced: from its beginning on, if
    /// it is done in several calls. The hole is there until the last of them is. Also goes back
    /// further than the ledger did, if `to` is the index before its first; then it is complete from
    /// `from` on.
    ///
    /// # Errors
    ///
    /// [`LedgerError::UnknownGroup`], [`LedgerError::OutOfOrder`] and [`LedgerError::TooLarge`] say
    /// that nothing was written; every other error is [fatal](LedgerError::is_fatal).
    pub fn replace(
        &self,
        group: u64,
        from: u64,
        to: u64,
        entries: &[(u64, &[&[u8]])],
    ) -> Result<(), LedgerError> {
        let _writer = self.writer();
        let mut record = self.kept(group)?;
        check(group, record.coverage, from, to, entries)?;
        let mut step = Step::default();
        let last = self.shared.engine.call(|db| {
            let affected = affected(db, group, from, to, record.coverage.from)?;
            let predecessor = affected.predecessor;
            let mut packer = Packer::new(group, predecessor);
            for (index, ordinal, bytes) in &affected.before {
                packer.push(*index, *ordinal, bytes);
            }
            for (index, entries) in entries {
                for (ordinal, bytes) in (0..).zip(*entries) {
                    packer.push(*index, ordinal, bytes);
                }
            }
            for (index, ordinal, bytes) in &affected.after {
                packer.push(*index, *ordinal, bytes);
            }
            let (values, last) = packer.finish();
            for key in &affected.keys {
                step.batch.remove(key);
            }
            for (key, value) in values {
                step.batch.insert(&key, value);
            }
            // The value behind is linked to the new ones only if it was to the old ones, so that a
            // hole which goes on behind `to` stays a hole.
            let continues = |at: Position| at == predecessor || affected.ends.contains(&at);
            let behind: (Bound<[u8; ENTRIES_KEY_BYTES]>, _) = (
                Bound::Excluded(entries_key(group, Position::last_of(to, u32::MAX))),
                Bound::Included(entries_key(group, record.last)),
            );
            if let Some((key, value)) = db.range(behind).next().transpose()?
                && let Some((_, at)) = entries_place(&key)
                && let Some(value) = decode(&key, at, &value)
                && continues(value.previous)
            {
                step.batch.insert(&key, value.behind(&key, at, last));
            }
            let is_end = continues(record.last) || to == record.coverage.to;
            Ok(if is_end { last } else { record.last })
        })?;
        record.last = last;
        record.coverage.from = record.coverage.from.min(from);
        step.records.insert(group, record);
        self.apply(step)
    }
}

fn check(
    group: u64,
    coverage: Coverage,
    from: u64,
    to: u64,
    entries: &[(u64, &[&[u8]])],
) -> Result<(), LedgerError> {
    let out_of_order = |index, expected| LedgerError::OutOfOrder {
        group,
        index,
        expected,
    };
    if from == 0 || from > to {
        return Err(out_of_order(from, to.max(1)));
    }
    if to > coverage.to {
        return Err(out_of_order(to, coverage.to));
    }
    if to + 1 < coverage.from {
        return Err(out_of_order(to, coverage.from - 1));
    }
    let mut next = from;
    let mut bytes = 0;
    for (index, entries) in entries {
        if *index < next || *index > to {
            return Err(out_of_order(*index, next));
        }
        next = index + 1;
        for entry in *entries {
            check_size(entry.len() as u64, ENTRY_BYTES_MAX)?;
            bytes += entry.len() as u64;
        }
    }
    check_size(bytes, BATCH_BYTES_MAX)
}

/// The values that hold entries of the indices `from` to `to`.
fn affected(
    db: &sled::Db,
    group: u64,
    from: u64,
    to: u64,
    complete_from: u64,
) -> sled::Result<Affected> {
    let mut affected = Affected {
        keys: Vec::new(),
        ends: Vec::new(),
        before: Vec::new(),
        after: Vec::new(),
        predecessor: Position::START,
    };
    let touch = |affected: &mut Affected, key: sled::IVec, at: Position, value: &[u8]| {
        // Entries of a value that is damaged are lost; the hole that was reported spans all of
        // them.
        if let Some(value) = decode(&key, at, value)
            && let Some(entries) = value.entries(at)
        {
            affected.ends.push(end_of(at, &entries));
            for (index, ordinal, range) in entries {
                let bystander = (index, ordinal, value.payload[range].to_vec());
                if index < from {
                    affected.before.push(bystander);
                } else if index > to {
                    affected.after.push(bystander);
                }
            }
        }
        affected.keys.push(key);
    };

    // The value before may go on into the range. Those that cannot be read are in the way only
    // where they are not kept any more; elsewhere they are a hole of their own, or the beginning of
    // this one.
    let mut before = Position::last_of(from - 1, u32::MAX);
    while let Some((at, value)) = value_before(db, group, before)? {
        let key = sled::IVec::from(&entries_key(group, at));
        let decoded = decode(&key, at, &value);
        let end = decoded
            .as_ref()
            .and_then(|value| value.entries(at))
            .map(|entries| end_of(at, &entries));
        match (decoded, end) {
            (Some(decoded), Some(end)) if end.index >= from => {
                affected.predecessor = decoded.previous;
                touch(&mut affected, key, at, &value);
                break;
            }
            (_, Some(end)) => {
                affected.predecessor = end;
                break;
            }
            (_, None) if from > complete_from || at.index == 0 => {
                affected.predecessor = at;
                break;
            }
            (_, None) => {
                affected.keys.push(key);
                before = at.before();
            }
        }
    }
    let keys = entries_key(group, Position::first_of(from))
        ..=entries_key(group, Position::last_of(to, u32::MAX));
    for pair in db.range(keys) {
        let (key, value) = pair?;
        if let Some((_, at)) = entries_place(&key) {
            touch(&mut affected, key, at, &value);
        }
    }
    Ok(affected)
}
