//! Under which keys the ledger keeps what.

use std::ops::RangeInclusive;

// On disk for ever: the first byte of a key.
const COVERAGE: u8 = 0;
const ENTRIES: u8 = 1;

const COVERAGE_KEY_BYTES: usize = 1 + 8;
pub(super) const ENTRIES_KEY_BYTES: usize = 1 + 8 + 8 + 4 + 2;

/// The place of a value within its group, which is the place of the first entry in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) index: u64,
    pub(super) ordinal: u32,
    /// Counts the parts of an entry that is too large for one value.
    pub(super) part: u16,
}

impl Position {
    /// Before the first value of a group. Indices begin at 1, so no value is here.
    pub(super) const START: Position = Position {
        index: 0,
        ordinal: 0,
        part: 0,
    };

    /// Not after any value of this index.
    pub(super) fn first_of(index: u64) -> Position {
        Position {
            index,
            ordinal: 0,
            part: 0,
        }
    }

    /// Not before any value that begins with this entry or an earlier one.
    pub(super) fn last_of(index: u64, ordinal: u32) -> Position {
        Position {
            index,
            ordinal,
            part: u16::MAX,
        }
    }

    /// The greatest one below this; there is none below [`Position::START`].
    pub(super) fn before(self) -> Position {
        if let Some(part) = self.part.checked_sub(1) {
            return Position { part, ..self };
        }
        match self.ordinal.checked_sub(1) {
            Some(ordinal) => Position::last_of(self.index, ordinal),
            None if self.index == 0 => Position::START,
            None => Position::last_of(self.index - 1, u32::MAX),
        }
    }
}

/// The key of a group's coverage record.
pub(super) fn coverage_key(group: u64) -> [u8; COVERAGE_KEY_BYTES] {
    let mut key = [COVERAGE; COVERAGE_KEY_BYTES];
    key[1..].copy_from_slice(&group.to_be_bytes());
    key
}

/// All keys of coverage records.
pub(super) fn coverage_keys() -> RangeInclusive<[u8; COVERAGE_KEY_BYTES]> {
    coverage_key(0)..=coverage_key(u64::MAX)
}

/// The group that a coverage record is about.
pub(super) fn coverage_group(key: &[u8]) -> Option<u64> {
    let group = key.strip_prefix(&[COVERAGE])?;
    Some(u64::from_be_bytes(group.try_into().ok()?))
}

/// The key of a value with entries. Keys sort like (group, position).
pub(super) fn entries_key(group: u64, at: Position) -> [u8; ENTRIES_KEY_BYTES] {
    let mut key = [ENTRIES; ENTRIES_KEY_BYTES];
    key[1..9].copy_from_slice(&group.to_be_bytes());
    key[9..17].copy_from_slice(&at.index.to_be_bytes());
    key[17..21].copy_from_slice(&at.ordinal.to_be_bytes());
    key[21..].copy_from_slice(&at.part.to_be_bytes());
    key
}

/// The group and the position of a key made by [`entries_key`].
pub(super) fn entries_place(key: &[u8]) -> Option<(u64, Position)> {
    let rest = key.strip_prefix(&[ENTRIES])?;
    let (group, rest) = rest.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let (ordinal, part) = rest.split_first_chunk()?;
    let at = Position {
        index: u64::from_be_bytes(*index),
        ordinal: u32::from_be_bytes(*ordinal),
        part: u16::from_be_bytes(part.try_into().ok()?),
    };
    Some((u64::from_be_bytes(*group), at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_what_they_stand_for() {
        let numbers = [0, 1, 255, 256, u64::MAX];
        let places = numbers.iter().flat_map(|&group| {
            numbers.iter().flat_map(move |&index| {
                [0, 1, 256, u32::MAX].into_iter().flat_map(move |ordinal| {
                    [0, 1, 256, u16::MAX].map(|part| {
                        let at = Position {
                            index,
                            ordinal,
                            part,
                        };
                        (group, at)
                    })
                })
            })
        });
        let places: Vec<_> = places.collect();
        assert!(places.is_sorted());
        let keys: Vec<_> = places.iter().map(|&(g, at)| entries_key(g, at)).collect();
        assert!(keys.is_sorted());
        for (key, place) in keys.iter().zip(places) {
            assert_eq!(entries_place(key), Some(place));
            assert_eq!(coverage_group(key), None);
        }
        for group in numbers {
            assert_eq!(coverage_group(&coverage_key(group)), Some(group));
            assert_eq!(entries_place(&coverage_key(group)), None);
            assert!(coverage_keys().contains(&coverage_key(group)));
        }
    }
}
