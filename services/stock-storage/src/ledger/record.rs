//! What the ledger remembers about a group as a whole.

use super::Coverage;
use super::key::{Position, coverage_key};
use super::value::checksum_of;

/// The coverage record of a group. It changes in the same batch as the values it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) coverage: Coverage,
    /// Where the group's last value ends, and its chain.
    pub(super) last: Position,
    pub(super) phase: Phase,
}

/// What is going on with a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is kept.
    Kept,
    /// All its values are being deleted, then it begins with the coverage that its record has.
    Clearing,
    /// All its values are being deleted, then the record.
    Forgetting,
}

// On disk for ever.
const PHASE_KEPT: u8 = 1;
const PHASE_CLEARING: u8 = 2;
const PHASE_FORGETTING: u8 = 3;

impl Record {
    /// A group without values.
    pub(super) fn beginning(after_index: u64, last: Position, phase: Phase) -> Record {
        Record {
            coverage: Coverage {
                from: after_index + 1,
                to: after_index,
            },
            last,
            phase,
        }
    }

    /// As it is stored: a checksum, the phase, and all numbers in big endian.
    pub(super) fn encode(&self, group: u64) -> Vec<u8> {
        let phase = match self.phase {
            Phase::Kept => PHASE_KEPT,
            Phase::Clearing => PHASE_CLEARING,
            Phase::Forgetting => PHASE_FORGETTING,
        };
        let mut rest = vec![phase];
        rest.extend_from_slice(&self.coverage.from.to_be_bytes());
        rest.extend_from_slice(&self.coverage.to.to_be_bytes());
        rest.extend_from_slice(&self.last.index.to_be_bytes());
        rest.extend_from_slice(&self.last.ordinal.to_be_bytes());
        rest.extend_from_slice(&self.last.part.to_be_bytes());
        let checksum = checksum_of(&coverage_key(group), &rest);
        let mut value = checksum.to_le_bytes().to_vec();
        value.append(&mut rest);
        value
    }

    /// Nothing, if it is not what was stored for this group.
    pub(super) fn decode(group: u64, value: &[u8]) -> Option<Record> {
        let (checksum, rest) = value.split_first_chunk()?;
        if u32::from_le_bytes(*checksum) != checksum_of(&coverage_key(group), rest) {
            return None;
        }
        let (&phase, rest) = rest.split_first()?;
        let phase = match phase {
            PHASE_KEPT => Phase::Kept,
            PHASE_CLEARING => Phase::Clearing,
            PHASE_FORGETTING => Phase::Forgetting,
            _ => return None,
        };
        let (from, rest) = rest.split_first_chunk()?;
        let (to, rest) = rest.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (ordinal, part) = rest.split_first_chunk()?;
        Some(Record {
            coverage: Coverage {
                from: u64::from_be_bytes(*from),
                to: u64::from_be_bytes(*to),
            },
            last: Position {
                index: u64::from_be_bytes(*index),
                ordinal: u32::from_be_bytes(*ordinal),
                part: u16::from_be_bytes(part.try_into().ok()?),
            },
            phase,
        })
    }
}
