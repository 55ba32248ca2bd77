//! What is to be appended to the ledger at once.

use std::collections::BTreeMap;

use super::{BATCH_BYTES_MAX, Coverage, ENTRY_BYTES_MAX};
use crate::LedgerError;

/// Entries to append, of any number of groups. [`Ledger::append`](crate::Ledger::append) leaves it
/// empty.
#[derive(Debug, Default)]
pub struct LedgerBatch {
    pub(super) groups: BTreeMap<u64, GroupBatch>,
    bytes: u64,
    entry_bytes_most: u64,
}

/// The part of one group.
#[derive(Debug, Default)]
pub(super) struct GroupBatch {
    /// In ascending order of their indices.
    pub(super) indices: Vec<BatchIndex>,
    /// Where the bytes of each entry end in `bytes`.
    pub(super) ends: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

/// A log index, or a run of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchIndex {
    /// The log index; the last one of a run without entries.
    pub(super) index: u64,
    /// Whether it stands for all indices up to it.
    pub(super) is_run: bool,
    /// Its entries, as the end of a range in `ends`.
    pub(super) ends_to: usize,
}

impl LedgerBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> LedgerBatch {
        LedgerBatch::default()
    }

    /// Adds what the log index `index` left in the ledger, which may be nothing. It must be the
    /// index after the last one of its group.
    pub fn append<E: AsRef<[u8]>>(
        &mut self,
        group: u64,
        index: u64,
        entries: impl IntoIterator<Item = E>,
    ) {
        let part = self.groups.entry(group).or_default();
        for entry in entries {
            let entry = entry.as_ref();
            part.bytes.extend_from_slice(entry);
            part.ends.push(part.bytes.len());
            self.bytes += entry.len() as u64;
            self.entry_bytes_most = self.entry_bytes_most.max(entry.len() as u64);
        }
        part.indices.push(BatchIndex {
            index,
            is_run: false,
            ends_to: part.ends.len(),
        });
    }

    /// Says that no index up to and with `index` has left anything that was not appended.
    pub fn reached(&mut self, group: u64, index: u64) {
        let part = self.groups.entry(group).or_default();
        part.indices.push(BatchIndex {
            index,
            is_run: true,
            ends_to: part.ends.len(),
        });
    }

    /// Bytes of all entries in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Forgets everything in it.
    pub fn clear(&mut self) {
        *self = LedgerBatch::default();
    }

    /// Checks everything that can be told before anything is written.
    pub(super) fn check(
        &self,
        coverage: impl Fn(u64) -> Option<Coverage>,
    ) -> Result<(), LedgerError> {
        check_size(self.entry_bytes_most, ENTRY_BYTES_MAX)?;
        check_size(self.bytes, BATCH_BYTES_MAX)?;
        for (&group, part) in &self.groups {
            let Some(Coverage { mut to, .. }) = coverage(group) else {
                return Err(LedgerError::UnknownGroup { group });
            };
            for item in &part.indices {
                let fits = if item.is_run {
                    item.index >= to
                } else {
                    item.index == to + 1
                };
                if !fits {
                    return Err(LedgerError::OutOfOrder {
                        group,
                        index: item.index,
                        expected: to + u64::from(!item.is_run),
                    });
                }
                to = item.index;
            }
        }
        Ok(())
    }
}

impl GroupBatch {
    /// The bytes of the entry with this number.
    pub(super) fn entry(&self, number: usize) -> &[u8] {
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[number]]
    }
}

pub(super) fn check_size(bytes: u64, bytes_max: u64) -> Result<(), LedgerError> {
    if bytes > bytes_max {
        return Err(LedgerError::TooLarge { bytes, bytes_max });
    }
    Ok(())
}
