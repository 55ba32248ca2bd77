//! Places in a group's log, and who its members are there.
//!
//! A log begins at a point, a state machine was written down at one, a snapshot is one. Every
//! founding member writes the same first point, so the configuration is part of the replicated
//! history from its first moment, as if all had been installed from one empty snapshot.

use raft::eraftpb::ConfState;
use thiserror::Error;

/// A place in a group's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Point {
    /// The index of an entry.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// The configuration once it is applied.
    pub configuration: Configuration,
}

/// The members of a group: replica ids, each list in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// They vote.
    pub voters: Vec<u64>,
    /// While a joint change is under way: those who voted before it. A majority of them is needed,
    /// too.
    pub outgoing: Vec<u64>,
    /// They are sent the log and do not vote.
    pub learners: Vec<u64>,
    /// While a joint change is under way: voters on their way to be learners.
    pub learners_next: Vec<u64>,
}

/// Why bytes are no point.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("the record of a point in the log, {bytes} bytes long, is not one")]
pub struct PointError {
    /// How long it is.
    pub bytes: usize,
}

impl Configuration {
    /// Members who all vote, in any order.
    pub fn of_voters(mut voters: Vec<u64>) -> Self {
        voters.sort_unstable();
        Self {
            voters,
            ..Self::default()
        }
    }

    /// Whether a change is half done: majorities of two sets of voters are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether those of whom something holds are a quorum: a majority of the voters, and while a
    /// change is half done of those before it, too.
    pub fn is_quorum(&self, holds: impl Fn(u64) -> bool) -> bool {
        let has_majority =
            |voters: &[u64]| 2 * voters.iter().filter(|id| holds(**id)).count() > voters.len();
        has_majority(&self.voters) && (self.outgoing.is_empty() || has_majority(&self.outgoing))
    }

    /// Whether a replica is a member of any kind.
    pub fn contains(&self, replica: u64) -> bool {
        self.lists().iter().any(|list| list.contains(&replica))
    }

    /// Every member, once, in ascending order.
    pub fn members(&self) -> Vec<u64> {
        let mut members = self.lists().concat();
        members.sort_unstable();
        members.dedup();
        members
    }

    fn lists(&self) -> [&[u64]; 4] {
        [
            &self.voters,
            &self.outgoing,
            &self.learners,
            &self.learners_next,
        ]
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        Self {
            voters: sorted(state.get_voters()),
            outgoing: sorted(state.get_voters_outgoing()),
            learners: sorted(state.get_learners()),
            learners_next: sorted(state.get_learners_next()),
        }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let mut state = ConfState::from((self.voters.clone(), self.learners.clone()));
        state.set_voters_outgoing(self.outgoing.clone());
        state.set_learners_next(self.learners_next.clone());
        state
    }
}

impl Point {
    /// Where the log of a new group with these voters begins. Index and term 1 and not 0, because
    /// raft takes a log that begins at 0 for one that was never initialised.
    pub fn founding(voters: Vec<u64>) -> Self {
        Self {
            index: 1,
            term: 1,
            configuration: Configuration::of_voters(voters),
        }
    }

    /// Of a replica that knows nothing yet: a member will send it a snapshot.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// For the disk, little-endian: index, term, and each list of the configuration with its length
    /// before it. Never to change.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut numbers = vec![self.index, self.term];
        for list in self.configuration.lists() {
            numbers.push(list.len() as u64);
            numbers.extend_from_slice(list);
        }
        numbers.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// From the disk.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PointError> {
        let error = PointError { bytes: bytes.len() };
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return Err(error);
        };
        let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        let mut next = || numbers.next().ok_or(error);
        let (index, term) = (next()?, next()?);
        let mut list = || {
            let len = next()?;
            (0..len).map(|_| next()).collect::<Result<Vec<u64>, _>>()
        };
        let configuration = Configuration {
            voters: list()?,
            outgoing: list()?,
            learners: list()?,
            learners_next: list()?,
        };
        match numbers.next() {
            None => Ok(Self {
                index,
                term,
                configuration,
            }),
            Some(_) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_survives_the_disk_and_no_part_of_one_is_taken_for_one() {
        let point = Point {
            index: 70,
            term: 3,
            configuration: Configuration {
                voters: vec![1, 2, 5],
                outgoing: vec![1, 2, 3],
                learners: vec![9],
                learners_next: vec![3],
            },
        };
        let bytes = point.to_bytes();
        assert_eq!(Point::from_bytes(&bytes), Ok(point));
        for len in 0..bytes.len() {
            assert_eq!(
                Point::from_bytes(&bytes[..len]),
                Err(PointError { bytes: len })
            );
        }
        let longer = [bytes.as_slice(), &[0; 8]].concat();
        assert!(Point::from_bytes(&longer).is_err());
        let huge = [u64::MAX; 3].map(u64::to_le_bytes).concat();
        assert!(Point::from_bytes(&huge).is_err());
    }

    #[test]
    fn members_are_named_once() {
        let configuration = Configuration {
            voters: vec![1, 2, 5],
            outgoing: vec![1, 2, 3],
            learners: vec![],
            learners_next: vec![3],
        };
        assert_eq!(configuration.members(), [1, 2, 3, 5]);
        assert!(configuration.is_joint() && configuration.contains(3));
        assert!(!configuration.contains(4));
    }
}
