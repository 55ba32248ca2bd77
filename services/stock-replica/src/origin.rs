//! Where a group's log begins: the entry before the first one, and who votes from there on.
//!
//! Every founding member writes the same origin, so the configuration is part of the replicated
//! history from its first moment, as if all had been installed from one empty snapshot.

use thiserror::Error;

/// The beginning of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The log holds the entries after this index.
    pub index: u64,
    /// The term of the entry at `index`.
    pub term: u64,
    /// Replica ids of the voters at `index`.
    pub voters: Vec<u64>,
}

/// Why bytes are no origin.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the record of where a log begins has {bytes} bytes, which is no whole number of fields")]
pub struct OriginError {
    /// How many there are.
    pub bytes: usize,
}

impl Origin {
    /// Of a new group with these voters. Index and term 1 and not 0, because raft takes a log that
    /// begins at 0 for one that was never initialised.
    pub fn founding(voters: Vec<u64>) -> Self {
        Self {
            index: 1,
            term: 1,
            voters,
        }
    }

    /// For the disk: the numbers, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.index, self.term]
            .into_iter()
            .chain(self.voters.iter().copied());
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    /// From the disk.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, OriginError> {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return Err(OriginError { bytes: bytes.len() });
        };
        match numbers {
            [index, term, voters @ ..] => Ok(Self {
                index: u64::from_le_bytes(*index),
                term: u64::from_le_bytes(*term),
                voters: voters
                    .iter()
                    .map(|voter| u64::from_le_bytes(*voter))
                    .collect(),
            }),
            _ => Err(OriginError { bytes: bytes.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_survives_the_disk() {
        let origin = Origin::founding(vec![1, 2, 3]);
        let bytes = origin.to_bytes();
        assert_eq!(Origin::from_bytes(&bytes), Ok(origin));
        assert_eq!(
            Origin::from_bytes(&bytes[1..]),
            Err(OriginError { bytes: 39 })
        );
        assert_eq!(Origin::from_bytes(&[]), Err(OriginError { bytes: 0 }));
    }
}
