//! The place of one group on this node: a replica may be there, or not, or no more.

use super::group::Group;
use crate::placement::ReplicaId;

/// The place of one group on this node.
pub(super) struct Slot<R> {
    /// The replica, where there is one that works.
    pub(super) group: Option<Group<R>>,
    /// The newest replica of this group that this node has had. Older ones are never answered for, and
    /// it is not answered for either where it is gone or failed.
    pub(super) newest: ReplicaId,
    /// Why the newest replica does not work, where it should.
    pub(super) failure: Option<String>,
}

impl<R> Slot<R> {
    /// With a replica that works.
    pub(super) fn with(group: Group<R>, newest: ReplicaId) -> Self {
        Self {
            group: Some(group),
            newest,
            failure: None,
        }
    }

    /// Without one; `newest` was there once, or 0.
    pub(super) fn vacant(newest: ReplicaId) -> Self {
        Self {
            group: None,
            newest,
            failure: None,
        }
    }

    /// With one that cannot be used.
    pub(super) fn failed(newest: ReplicaId, why: String) -> Self {
        Self {
            group: None,
            newest,
            failure: Some(why),
        }
    }
}

/// What the disk says of a slot: nothing, if the group never had a replica here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotRecord {
    pub(crate) newest: ReplicaId,
    /// It was removed and will not come back.
    pub(crate) is_gone: bool,
}

impl SlotRecord {
    /// For the disk. Never to change.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.newest.0.to_le_bytes().to_vec();
        bytes.push(u8::from(self.is_gone));
        bytes
    }

    /// From the disk.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first_chunk::<8>()? {
            (newest, [is_gone @ (0 | 1)]) => Some(Self {
                newest: ReplicaId(u64::from_le_bytes(*newest)),
                is_gone: *is_gone == 1,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk() {
        for is_gone in [false, true] {
            let record = SlotRecord {
                newest: ReplicaId::new(9, 3),
                is_gone,
            };
            let bytes = record.to_bytes();
            assert_eq!(SlotRecord::from_bytes(&bytes), Some(record));
            assert_eq!(SlotRecord::from_bytes(&bytes[1..]), None);
        }
        assert_eq!(SlotRecord::from_bytes(&[2; 9]), None);
    }
}
