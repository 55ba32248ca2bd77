//! Checkpoints and snapshots: the state of a group at one index, as it goes into a file and comes
//! out of it, and whose a file is.

use stock_cluster::{GroupId, ReplicaId};
use stock_core::Stamp;
use stock_replica::Point;

use crate::state::{Frozen, State};
use crate::view::Shown;

/// A state that is about to be written down.
#[derive(Debug)]
pub struct Image {
    /// Of this group.
    pub group: GroupId,
    /// By this replica.
    pub replica: ReplicaId,
    /// As of here.
    pub point: Point,
    /// Cluster time of the last entry applied.
    pub stamp: Stamp,
    /// The state itself.
    pub frozen: Frozen,
}

/// A state that was read.
#[derive(Debug)]
pub struct Restored {
    /// As of here.
    pub point: Point,
    /// Cluster time of the last entry applied.
    pub stamp: Stamp,
    /// The state itself.
    pub state: State,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A state that came in a snapshot, with what reads will see of it: made by whoever took it in,
/// since to make it takes long.
#[derive(Debug)]
pub struct Arrived {
    /// The state.
    pub restored: Restored,
    /// What reads will see; group 0 shows its locations by itself.
    pub shown: Option<Shown>,
}

impl Arrived {
    /// This state has come.
    pub fn of(restored: Restored) -> Self {
        let shown = match &restored.state {
            State::Stock(shard) => Some(Shown::of(shard)),
            State::Meta(_) => None,
        };
        Self { restored, shown }
    }
}

/// Who may take a file for a state of his.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The replica.
    pub replica: ReplicaId,
    /// The data directory that it was begun in.
    pub directory: u128,
    /// The life of the cluster, and those that it goes on from, if any.
    pub lives: &'a [u128],
}

/// What a file is to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belongs {
    /// Its own: it wrote it, so its log has been as long as that.
    Written,
    /// Another replica's, that its log began at.
    Adopted,
    /// Left by somebody who was here before.
    Not,
}

impl Owner<'_> {
    /// What a file of this label, written in this life of the cluster, is to this replica, whose
    /// log begins at `origin`.
    pub fn judge(&self, label: &Label, life: u128, origin: &Point) -> Belongs {
        let is_of_life = self.lives.contains(&life);
        let is_own = label.replica == self.replica && label.directory == self.directory;
        let is_origin = (label.point.index, label.point.term) == (origin.index, origin.term);
        match () {
            () if is_own && is_of_life => Belongs::Written,
            () if is_origin && origin.index > 0 => Belongs::Adopted,
            () => Belongs::Not,
        }
    }
}

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// As of here.
    pub point: Point,
    /// Cluster time of the last entry applied.
    pub stamp: Stamp,
    /// Who wrote it.
    pub replica: ReplicaId,
    /// In which data directory.
    pub directory: u128,
}

impl Label {
    /// Little-endian: the stamp, the replica, the directory, the point. Never to change.
    pub fn to_bytes(&self) -> Vec<u8> {
        let stamp = self.stamp.0.to_le_bytes();
        let (replica, directory) = (self.replica.0.to_le_bytes(), self.directory.to_le_bytes());
        [
            stamp.as_slice(),
            &replica,
            &directory,
            &self.point.to_bytes(),
        ]
        .concat()
    }

    /// What [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (stamp, rest) = bytes.split_first_chunk::<8>()?;
        let (replica, rest) = rest.split_first_chunk::<8>()?;
        let (directory, point) = rest.split_first_chunk::<16>()?;
        Some(Self {
            point: Point::from_bytes(point).ok()?,
            stamp: Stamp(u64::from_le_bytes(*stamp)),
            replica: ReplicaId(u64::from_le_bytes(*replica)),
            directory: u128::from_le_bytes(*directory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_writers_or_the_one_that_a_log_begins_at() {
        let origin = Point {
            index: 30,
            term: 4,
            ..Point::default()
        };
        let owner = Owner {
            replica: ReplicaId::new(2, 3),
            directory: 9,
            lives: &[77, 78],
        };
        let check = |replica, directory, life, (index, term), expected| {
            let label = Label {
                point: Point {
                    index,
                    term,
                    ..Point::default()
                },
                stamp: Stamp(5),
                replica,
                directory,
            };
            assert_eq!(Label::from_bytes(&label.to_bytes()).as_ref(), Some(&label));
            assert_eq!(owner.judge(&label, life, &origin), expected);
        };
        let (own, other) = (owner.replica, ReplicaId::founding(3));
        check(own, 9, 77, (50, 4), Belongs::Written);
        check(own, 9, 78, (20, 1), Belongs::Written);
        check(own, 9, 76, (50, 4), Belongs::Not);
        check(own, 8, 77, (50, 4), Belongs::Not);
        check(other, 9, 77, (50, 4), Belongs::Not);
        check(other, 8, 70, (30, 4), Belongs::Adopted);
        check(other, 8, 77, (30, 3), Belongs::Not);
    }
}
