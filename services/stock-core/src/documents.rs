//! What makes a repeated document harmless: its lines are remembered.
//!
//! A shop that receives ten million lines in a month remembers them all, so a record is small: 32 bytes,
//! and 8 for its place in the order.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::buckets::{Buckets, Key};
use crate::command::MovementKind;
use crate::ids::{Document, Fingerprint, Stamp};
use crate::limits::{
    CLOCK_AHEAD_MS_MAX, DOCUMENT_MEMORY_MS, FORGOTTEN_PER_ENTRY_MAX, WALL_AHEAD_MS_MAX,
};
use crate::memory::Recall;
use crate::order::{Disorder, Queue};
use crate::outcome::Refusal;

/// XXH3-128 of kind, document and line; the parts cannot run into each other, since names have no
/// NUL byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DocumentKey {
    high: u64,
    low: u64,
}

impl DocumentKey {
    pub(crate) fn new(kind: MovementKind, document: &Document, line: &Document) -> Self {
        // Two names of at most 64 bytes, the kind and a separator.
        let mut bytes = [0; 130];
        let mut len = 0;
        let mut put = |part: &[u8]| {
            bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        };
        put(&[match kind {
            MovementKind::Receipt => 1,
            MovementKind::Sale => 2,
            MovementKind::Adjustment => 3,
        }]);
        put(document.as_str().as_bytes());
        put(&[0]);
        put(line.as_str().as_bytes());
        Self::from_bytes(xxh3_128(&bytes[..len]).to_be_bytes())
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(bytes);
        Self {
            high: (number >> 64) as u64,
            low: number as u64,
        }
    }
}

impl Key for DocumentKey {
    /// By the half that the order knows, so that it finds the record.
    fn bucket(&self, buckets: usize) -> usize {
        self.high as usize % buckets
    }
}

/// What is known of a line that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordedLine {
    /// A quarter of the fingerprint: of four thousand million lines that come again with other content,
    /// by somebody's mistake, one is taken for a repetition.
    pub(crate) fingerprint: u32,
    /// The low half of the sequence number: far fewer are remembered than it tells apart.
    pub(crate) sequence: u32,
    /// The stamp, and in the lowest 16 bits how many minutes after it the line says it happened, rounded up.
    time: u64,
}

/// 48 bits: in the year 10889.
const STAMP_MAX: u64 = (1 << 48) - 1;

const MINUTE_MS: u64 = 60_000;

const _: () =
    assert!((WALL_AHEAD_MS_MAX + CLOCK_AHEAD_MS_MAX).div_ceil(MINUTE_MS) <= u16::MAX as u64);

impl RecordedLine {
    /// Of a line that happened so many minutes after its stamp.
    pub(crate) fn new(fingerprint: u32, sequence: u32, stamp: Stamp, ahead_minutes: u16) -> Self {
        Self {
            fingerprint,
            sequence,
            time: stamp.0.min(STAMP_MAX) << 16 | u64::from(ahead_minutes),
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp(self.time >> 16)
    }

    pub(crate) fn ahead_minutes(&self) -> u16 {
        self.time as u16
    }

    /// When it was recorded or happened, whichever is later; up to a minute later than that.
    fn latest(&self) -> Stamp {
        self.stamp()
            .plus_ms(u64::from(self.ahead_minutes()) * MINUTE_MS)
    }
}

/// Document lines that were recorded, for [`DOCUMENT_MEMORY_MS`].
#[derive(Debug)]
pub(crate) struct DocumentMemory {
    pub(crate) buckets: Buckets<DocumentKey, RecordedLine>,
    /// Of each key the high half, in the order in which they came. A record leaves only as the oldest, so
    /// their sequence numbers have no gaps.
    order: Queue<u64>,
    pub(crate) next_sequence: u64,
    /// What happened before this may have been recorded and forgotten.
    pub(crate) horizon: Stamp,
    pub(crate) remembered_max: usize,
}

impl DocumentMemory {
    pub(crate) fn new(buckets: usize, remembered_max: usize) -> Self {
        Self {
            buckets: Buckets::new(buckets),
            order: Queue::new(),
            next_sequence: 0,
            horizon: Stamp(0),
            remembered_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn recall(
        &self,
        key: DocumentKey,
        fingerprint: Fingerprint,
        occurred_at: Stamp,
    ) -> Recall<'_, ()> {
        match self.buckets.get(&key) {
            Some(recorded) if recorded.fingerprint == short(fingerprint) => Recall::Answered(&()),
            Some(_) => Recall::Refused(Refusal::DocumentReused),
            None if occurred_at < self.horizon => Recall::Refused(Refusal::DocumentTooOld {
                horizon: self.horizon,
            }),
            None => Recall::New,
        }
    }

    pub(crate) fn remember(
        &mut self,
        key: DocumentKey,
        fingerprint: Fingerprint,
        now: Stamp,
        occurred_at: Stamp,
    ) {
        if self.len() >= self.remembered_max {
            self.forget_oldest();
        }
        let ahead_minutes = occurred_at.0.saturating_sub(now.0).div_ceil(MINUTE_MS);
        let recorded = RecordedLine::new(
            short(fingerprint),
            self.next_sequence as u32,
            now,
            u16::try_from(ahead_minutes).unwrap_or(u16::MAX),
        );
        self.next_sequence += 1;
        self.order.push(key.high);
        self.buckets.insert(key, recorded);
    }

    pub(crate) fn forget(&mut self, now: Stamp) {
        let keep_from = now.minus_ms(DOCUMENT_MEMORY_MS);
        for _ in 0..FORGOTTEN_PER_ENTRY_MAX {
            match self.oldest() {
                Some((_, recorded)) if recorded.stamp() < keep_from => self.forget_oldest(),
                _ => break,
            }
        }
    }

    /// Makes the order again: the lines' places, in any order, when the next one shall be number `next`.
    pub(crate) fn restore_order(
        &mut self,
        places: Vec<DocumentPlace>,
        next: u64,
    ) -> Result<(), Disorder> {
        let len = places.len();
        let mut in_order: Vec<Option<DocumentPlace>> = vec![None; len];
        for place in places {
            // The youngest is one before the next.
            let age = (next as u32).wrapping_sub(place.sequence) as usize;
            let slot = len.checked_sub(age).filter(|at| *at < len);
            let slot = slot.and_then(|at| in_order.get_mut(at));
            match slot {
                Some(slot @ None) => *slot = Some(place),
                _ => {
                    return Err(Disorder {
                        sequence: u64::from(place.sequence),
                    });
                }
            }
        }
        let mut latest = Stamp(0);
        for place in in_order.into_iter().flatten() {
            if place.stamp < latest {
                return Err(Disorder {
                    sequence: u64::from(place.sequence),
                });
            }
            latest = place.stamp;
            self.order.push(place.high);
        }
        self.next_sequence = next;
        Ok(())
    }

    fn oldest(&self) -> Option<(DocumentKey, RecordedLine)> {
        let high = *self.order.front()?;
        let sequence = (self.next_sequence - self.len() as u64) as u32;
        let from = DocumentKey { high, low: 0 };
        let to = DocumentKey {
            high,
            low: u64::MAX,
        };
        let (key, recorded) = self
            .buckets
            .bucket_of(&from)
            .range(from..=to)
            .find(|(_, recorded)| recorded.sequence == sequence)?;
        Some((*key, *recorded))
    }

    fn forget_oldest(&mut self) {
        let oldest = self.oldest();
        self.order.pop();
        // Judged by when it happened, so that is what the horizon must lie behind. A line that gave no
        // time happened when it was stamped.
        if let Some((key, recorded)) = oldest {
            self.buckets.remove(&key);
            self.horizon = self.horizon.max(recorded.latest().plus_ms(1));
        }
    }
}

/// A line's place in the order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DocumentPlace {
    high: u64,
    sequence: u32,
    stamp: Stamp,
}

/// The places of a bucket's lines.
pub(crate) fn places(
    lines: &BTreeMap<DocumentKey, RecordedLine>,
) -> impl Iterator<Item = DocumentPlace> {
    lines.iter().map(|(key, recorded)| DocumentPlace {
        high: key.high,
        sequence: recorded.sequence,
        stamp: recorded.stamp(),
    })
}

fn short(fingerprint: Fingerprint) -> u32 {
    let [a, b, c, d, ..] = fingerprint.0;
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn key(high: u64, low: u64) -> DocumentKey {
        DocumentKey { high, low }
    }

    #[test]
    fn a_forgotten_document_line_is_refused_by_when_it_happened() {
        let mut memory = DocumentMemory::new(4, 100);
        let name = |text| Document::new(text).unwrap();
        let key = DocumentKey::new(MovementKind::Receipt, &name("D1"), &name("1"));
        let same = Fingerprint([1; 8]);
        memory.remember(key, same, Stamp(NOW), Stamp(NOW));
        assert_eq!(memory.recall(key, same, Stamp(NOW)), Recall::Answered(&()));
        assert_eq!(
            memory.recall(key, Fingerprint([2; 8]), Stamp(NOW)),
            Recall::Refused(Refusal::DocumentReused)
        );
        memory.forget(Stamp(NOW + DOCUMENT_MEMORY_MS + 1));
        assert_eq!(
            memory.recall(key, same, Stamp(NOW)),
            Recall::Refused(Refusal::DocumentTooOld {
                horizon: Stamp(NOW + 1)
            })
        );
    }

    #[test]
    fn lines_whose_hashes_are_alike_leave_in_the_order_they_came() {
        let mut memory = DocumentMemory::new(4, 2);
        let same = Fingerprint([1; 8]);
        let at = |ms| Stamp(NOW + ms);
        memory.remember(key(7, 2), same, at(0), at(0));
        memory.remember(key(7, 1), same, at(1), at(1));
        memory.remember(key(7, 3), same, at(2), at(2));
        let is_known = |low| memory.recall(key(7, low), same, at(9)) == Recall::Answered(&());
        assert_eq!([1, 2, 3].map(is_known), [true, false, true]);
        assert_eq!(memory.horizon, at(1));
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn an_order_with_a_gap_or_going_back_is_refused() {
        let place = |sequence, stamp| DocumentPlace {
            high: 0,
            sequence,
            stamp: Stamp(stamp),
        };
        let restore = |places: &[DocumentPlace], next| {
            let mut memory = DocumentMemory::new(4, 100);
            memory.restore_order(places.to_vec(), next).is_ok()
        };
        assert!(restore(&[place(6, 2), place(5, 1)], 7));
        assert!(restore(&[place(0, 2), place(u32::MAX, 2)], (1 << 32) + 1));
        assert!(!restore(&[place(6, 2), place(4, 1)], 7));
        assert!(!restore(&[place(6, 2), place(6, 2)], 7));
        assert!(!restore(&[place(6, 1), place(5, 2)], 7));
        assert!(!restore(&[place(6, 2), place(5, 1)], 8));
    }
}
