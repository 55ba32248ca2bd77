//! What makes a repeated document harmless: its lines are remembered.
//!
//! A shop that receives ten million lines in a month remembers them all, so a record is small: 32
//! bytes, and 8 for its place in the order.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::buckets::{Buckets, Key};
use crate::command::{MovementKind, MovementLine, Movements};
use crate::ids::{Fingerprint, Location, Moment, ReservationId, Secret, Stamp};
use crate::limits::{
    DOCUMENT_MEMORY_MS, ENDANGERED_BYTES_MAX, FORGOTTEN_PER_ENTRY_MAX, OCCURRED_AHEAD_MS_MAX,
    WALL_AHEAD_MS_MAX,
};
use crate::order::{Disorder, Queue};
use crate::outcome::{Discrepancy, Refusal};
use crate::sku::Sku;

/// XXH3-128 of what a line is known by: kind, source, document, line, SKU and location; the
/// cluster's secret is the seed, so that nobody can make up a line that is taken for another one.
/// The parts cannot run into each other, since names have no NUL byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DocumentKey {
    high: u64,
    low: u64,
}

impl DocumentKey {
    pub(crate) fn new(secret: Secret, movements: &Movements, line: &MovementLine) -> Self {
        // The kind, and five names of at most 64 bytes with what parts them.
        let mut bytes = [0; 1 + 5 * 65];
        bytes[0] = match movements.kind {
            MovementKind::Receipt => 1,
            MovementKind::Sale => 2,
            MovementKind::Adjustment => 3,
        };
        let mut len = 1;
        for part in [
            movements.source.as_str(),
            movements.document.as_str(),
            line.line.as_str(),
            line.sku.as_str(),
            line.location.as_str(),
        ] {
            bytes[len..len + part.len()].copy_from_slice(part.as_bytes());
            len += part.len() + 1;
        }
        Self::from_bytes(xxh3_128_with_seed(&bytes[..len], secret.0).to_be_bytes())
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
    /// By the half that the order knows, so that it finds the record. The secret is in it already.
    fn bucket(&self, _: Secret, buckets: usize) -> usize {
        self.high as usize % buckets
    }
}

/// What is known of a line that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordedLine {
    /// A quarter of the fingerprint: of four thousand million lines that come again with other
    /// content, by somebody's mistake, one is taken for a repetition.
    pub(crate) fingerprint: u32,
    /// The low half of the sequence number: far fewer are remembered than it tells apart.
    pub(crate) sequence: u32,
    /// The stamp, and in the lowest 16 bits how many [`AHEAD_STEP_MS`] after it the line says it
    /// happened, rounded up.
    time: u64,
}

/// 48 bits: in the year 10889.
const STAMP_MAX: u64 = (1 << 48) - 1;

/// Two minutes.
pub(crate) const AHEAD_STEP_MS: u64 = 2 * 60_000;

const _: () =
    assert!((WALL_AHEAD_MS_MAX + OCCURRED_AHEAD_MS_MAX).div_ceil(AHEAD_STEP_MS) <= u16::MAX as u64);

impl RecordedLine {
    /// Of a line that happened so many [`AHEAD_STEP_MS`] after its stamp.
    pub(crate) fn new(fingerprint: u32, sequence: u32, stamp: Stamp, ahead_steps: u16) -> Self {
        Self {
            fingerprint,
            sequence,
            time: stamp.0.min(STAMP_MAX) << 16 | u64::from(ahead_steps),
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp(self.time >> 16)
    }

    pub(crate) fn ahead_steps(&self) -> u16 {
        self.time as u16
    }

    /// When it was recorded or happened, whichever is later; up to a step later than that.
    fn latest(&self) -> Stamp {
        self.stamp()
            .plus_ms(u64::from(self.ahead_steps()) * AHEAD_STEP_MS)
    }
}

/// What was found amiss when a line was recorded: a [`Discrepancy`] without the names that the line
/// has itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Amiss {
    pub(crate) available: i64,
    pub(crate) short_by: i64,
    pub(crate) endangered: Box<[ReservationId]>,
}

impl Amiss {
    pub(crate) fn to_discrepancy(&self, sku: &Sku, location: &Location) -> Box<Discrepancy> {
        Box::new(Discrepancy {
            sku: sku.clone(),
            location: location.clone(),
            available: self.available,
            short_by: self.short_by,
            endangered: self.endangered.to_vec(),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        AMISS_BYTES + size_of::<ReservationId>() * self.endangered.len()
    }
}

/// What one line takes: in its bucket and in the order.
pub(crate) const LINE_BYTES: usize = 48;
/// With its place in a bucket.
const AMISS_BYTES: usize = 96;

/// What is known of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// It was recorded; that was amiss.
    Recorded(Option<&'a Amiss>),
    /// It is new and may be recorded.
    New,
    /// It may not.
    Refused(Refusal),
}

/// Document lines that were recorded, for [`DOCUMENT_MEMORY_MS`]. None is forgotten before that:
/// where there is no room for a line, it is not recorded.
#[derive(Debug, Clone)]
pub(crate) struct DocumentMemory {
    pub(crate) buckets: Buckets<DocumentKey, RecordedLine>,
    /// Of the few lines where something was.
    pub(crate) amiss: Buckets<DocumentKey, Amiss>,
    /// Of each key the high half, in the order in which they came. A record leaves only as the
    /// oldest, so their sequence numbers have no gaps.
    order: Queue<u64>,
    pub(crate) next_sequence: u64,
    /// What happened before this may have been recorded and forgotten.
    pub(crate) horizon: Stamp,
    pub(crate) bytes: usize,
    /// Of these, what was amiss.
    pub(crate) amiss_bytes: usize,
    pub(crate) bytes_max: usize,
    pub(crate) sale_bytes_max: usize,
    endangered_bytes_max: usize,
}

impl DocumentMemory {
    pub(crate) fn new(
        secret: Secret,
        buckets: usize,
        bytes_max: usize,
        sale_bytes_max: usize,
    ) -> Self {
        Self {
            buckets: Buckets::new(secret, buckets),
            amiss: Buckets::new(secret, buckets),
            order: Queue::new(),
            next_sequence: 0,
            horizon: Stamp(0),
            bytes: 0,
            amiss_bytes: 0,
            bytes_max,
            sale_bytes_max,
            endangered_bytes_max: ENDANGERED_BYTES_MAX,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn recall(
        &self,
        key: DocumentKey,
        fingerprint: Fingerprint,
        (kind, occurred_at): (MovementKind, Stamp),
        now: Moment,
    ) -> Known<'_> {
        match self.buckets.get(&key) {
            Some(recorded) if recorded.fingerprint == short(fingerprint) => {
                return Known::Recorded(self.amiss.get(&key));
            }
            Some(_) => return Known::Refused(Refusal::DocumentReused),
            None => {}
        }
        // By the earlier clock: one that is wrong must not refuse what has happened, and what was
        // forgotten is known by its own horizon.
        let horizon = self
            .horizon
            .max(now.earliest().minus_ms(DOCUMENT_MEMORY_MS));
        if occurred_at < horizon {
            return Known::Refused(Refusal::DocumentTooOld { horizon });
        }
        let bytes_max = match kind {
            MovementKind::Sale => self.sale_bytes_max,
            MovementKind::Receipt | MovementKind::Adjustment => self.bytes_max,
        };
        if self.bytes >= bytes_max {
            return Known::Refused(Refusal::DocumentMemoryFull);
        }
        Known::New
    }

    pub(crate) fn remember(
        &mut self,
        key: DocumentKey,
        fingerprint: Fingerprint,
        now: Stamp,
        occurred_at: Stamp,
        discrepancy: Option<&Discrepancy>,
    ) {
        let ahead_steps = occurred_at.0.saturating_sub(now.0).div_ceil(AHEAD_STEP_MS);
        let recorded = RecordedLine::new(
            short(fingerprint),
            self.next_sequence as u32,
            now,
            u16::try_from(ahead_steps).unwrap_or(u16::MAX),
        );
        self.next_sequence += 1;
        self.order.push(key.high);
        self.bytes += LINE_BYTES;
        if let Some(found) = discrepancy {
            // Where there is no room for them it is remembered how much is missing, and not who is
            // endangered.
            let has_room = self.amiss_bytes < self.endangered_bytes_max;
            let endangered = if has_room { &found.endangered[..] } else { &[] };
            let amiss = Amiss {
                available: found.available,
                short_by: found.short_by,
                endangered: endangered.into(),
            };
            self.bytes += amiss.bytes();
            self.amiss_bytes += amiss.bytes();
            self.amiss.insert(key, amiss);
        }
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

    /// Makes the order again: the lines' places, in any order, when the next one shall be number
    /// `next`.
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
        // Judged by when it happened, so that is what the horizon must lie behind.
        if let Some((key, recorded)) = oldest {
            self.buckets.remove(&key);
            self.bytes -= LINE_BYTES;
            if let Some(amiss) = self.amiss.get(&key) {
                self.bytes -= amiss.bytes();
                self.amiss_bytes -= amiss.bytes();
                self.amiss.remove(&key);
            }
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

    const SAME: Fingerprint = Fingerprint([1; 8]);

    fn memory(bytes_max: usize) -> DocumentMemory {
        DocumentMemory::new(Secret(1), 4, bytes_max, bytes_max + LINE_BYTES)
    }

    fn recall(
        memory: &DocumentMemory,
        key: DocumentKey,
        kind: MovementKind,
        now: u64,
    ) -> Known<'_> {
        memory.recall(key, SAME, (kind, Stamp(now)), Stamp(now).into())
    }

    #[test]
    fn a_forgotten_document_line_is_refused_by_when_it_happened() {
        let mut memory = memory(9_999);
        let key = key(1, 1);
        let (receipt, now) = (MovementKind::Receipt, Stamp(NOW));
        memory.remember(key, SAME, now, now, None);
        assert_eq!(recall(&memory, key, receipt, NOW), Known::Recorded(None));
        assert_eq!(
            memory.recall(key, Fingerprint([2; 8]), (receipt, now), now.into()),
            Known::Refused(Refusal::DocumentReused)
        );
        let later = Stamp(NOW + DOCUMENT_MEMORY_MS + 1);
        memory.forget(later);
        assert_eq!(
            memory.recall(key, SAME, (receipt, now), later.into()),
            Known::Refused(Refusal::DocumentTooOld {
                horizon: Stamp(NOW + 1)
            })
        );
        assert_eq!(memory.bytes, 0);
    }

    #[test]
    fn what_happened_before_all_that_is_remembered_is_refused_though_nothing_was_forgotten() {
        let memory = memory(9_999);
        let horizon = Stamp(NOW - DOCUMENT_MEMORY_MS);
        let recall =
            |at| memory.recall(key(1, 1), SAME, (MovementKind::Sale, at), Stamp(NOW).into());
        assert_eq!(recall(horizon), Known::New);
        assert_eq!(
            recall(horizon.minus_ms(1)),
            Known::Refused(Refusal::DocumentTooOld { horizon })
        );
    }

    #[test]
    fn nothing_is_forgotten_for_want_of_room_and_sales_have_some_of_their_own() {
        let mut memory = memory(2 * LINE_BYTES);
        let full = Known::Refused(Refusal::DocumentMemoryFull);
        for number in 1..=2 {
            assert_eq!(
                recall(&memory, key(number, 1), MovementKind::Receipt, NOW),
                Known::New
            );
            memory.remember(key(number, 1), SAME, Stamp(NOW), Stamp(NOW), None);
        }
        let next = key(3, 1);
        assert_eq!(recall(&memory, next, MovementKind::Receipt, NOW), full);
        assert_eq!(recall(&memory, next, MovementKind::Adjustment, NOW), full);
        assert_eq!(recall(&memory, next, MovementKind::Sale, NOW), Known::New);
        memory.remember(next, SAME, Stamp(NOW), Stamp(NOW), None);
        assert_eq!(recall(&memory, key(4, 1), MovementKind::Sale, NOW), full);
        for number in 1..=3 {
            let known = recall(&memory, key(number, 1), MovementKind::Sale, NOW);
            assert_eq!(known, Known::Recorded(None));
        }
    }

    #[test]
    fn what_was_amiss_is_remembered_as_long_as_its_line() {
        let mut memory = memory(9_999);
        let found = Discrepancy {
            sku: Sku::new("MUG").unwrap(),
            location: Location::new("A").unwrap(),
            available: -3,
            short_by: 3,
            endangered: vec![ReservationId::compose(Stamp(1), 0, 1)],
        };
        memory.remember(key(1, 1), SAME, Stamp(NOW), Stamp(NOW), Some(&found));
        let Known::Recorded(Some(amiss)) = recall(&memory, key(1, 1), MovementKind::Sale, NOW)
        else {
            panic!("nothing was amiss");
        };
        assert_eq!(*amiss.to_discrepancy(&found.sku, &found.location), found);
        memory.forget(Stamp(NOW + DOCUMENT_MEMORY_MS + 1));
        assert_eq!((memory.bytes, memory.amiss.iter().count()), (0, 0));
    }

    #[test]
    fn who_was_endangered_has_room_of_its_own_and_takes_none_from_lines() {
        let mut memory = DocumentMemory {
            endangered_bytes_max: 2 * AMISS_BYTES,
            ..memory(9_999)
        };
        let found = Discrepancy {
            sku: Sku::new("MUG").unwrap(),
            location: Location::new("A").unwrap(),
            available: -3,
            short_by: 3,
            endangered: vec![ReservationId::compose(Stamp(1), 0, 1); 9],
        };
        for number in 1..=3 {
            memory.remember(key(number, 1), SAME, Stamp(NOW), Stamp(NOW), Some(&found));
        }
        let named = |number| match recall(&memory, key(number, 1), MovementKind::Sale, NOW) {
            Known::Recorded(Some(amiss)) => (amiss.short_by, amiss.endangered.len()),
            other => panic!("{other:?}"),
        };
        assert_eq!([1, 2, 3].map(named), [(3, 9), (3, 0), (3, 0)]);
        memory.forget(Stamp(NOW + DOCUMENT_MEMORY_MS + 1));
        assert_eq!((memory.bytes, memory.amiss_bytes), (0, 0));
    }

    #[test]
    fn a_clock_that_is_wrong_refuses_nothing_that_has_happened() {
        let memory = memory(9_999);
        let ahead = Stamp(NOW + 31 * 24 * 3_600_000);
        let (now, sale) = (Stamp(NOW), (MovementKind::Sale, Stamp(NOW)));
        for moment in [
            Moment {
                stamp: ahead,
                wall: now,
            },
            Moment {
                stamp: now,
                wall: ahead,
            },
        ] {
            assert_eq!(memory.recall(key(1, 1), SAME, sale, moment), Known::New);
        }
    }

    #[test]
    fn lines_whose_hashes_are_alike_leave_in_the_order_they_came() {
        let mut memory = memory(9_999);
        for (low, ms) in [(2, 0), (1, 1), (3, 2)] {
            let at = Stamp(NOW + ms);
            memory.remember(key(7, low), SAME, at, at, None);
        }
        memory.forget(Stamp(NOW + 1 + DOCUMENT_MEMORY_MS));
        let is_known = |low| {
            recall(&memory, key(7, low), MovementKind::Sale, NOW + 9) == Known::Recorded(None)
        };
        assert_eq!([1, 2, 3].map(is_known), [true, false, true]);
        assert_eq!(memory.horizon, Stamp(NOW + 1));
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
            let mut memory = memory(9_999);
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
