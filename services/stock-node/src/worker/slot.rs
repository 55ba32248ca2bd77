//! The place of one group on this node: a replica may be there, or not, or no more.

use stock_cluster::ReplicaId;

use super::group::Group;

/// The place of one group on this node.
pub(super) struct Slot<R> {
    /// The replica, where there is one that works.
    pub(super) group: Option<Group<R>>,
    /// The newest replica of this group that this node has had. Older ones are never answered for,
    /// and it is not answered for either where it is gone or failed.
    pub(super) newest: ReplicaId,
    /// Why the newest replica does not work, where it should.
    pub(super) fault: Option<Fault>,
}

/// Why a replica does not work, where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What becomes of it.
    pub kind: FaultKind,
    /// In words.
    pub why: String,
}

/// What becomes of a replica that does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It is built again from its peers, unless a restart comes first and finds nothing wrong.
    Passing,
    /// It is built again from its peers. A restart does not bring it back.
    Lasting,
    /// It contradicts its leader about what was acknowledged, and nobody can say which of them is
    /// right: what it has is kept until an operator has looked at it.
    Disputed,
}

impl FaultKind {
    /// What an operator is told of it.
    pub fn outlook(self) -> &'static str {
        match self {
            Self::Passing | Self::Lasting => "it waits to be built again from its peers",
            Self::Disputed => {
                "it answers nothing any more, and what it has is kept until an operator has it \
                 rebuilt"
            }
        }
    }
}

impl<R> Slot<R> {
    /// With a replica that works.
    pub(super) fn with(group: Group<R>, newest: ReplicaId) -> Self {
        Self {
            group: Some(group),
            newest,
            fault: None,
        }
    }

    /// Without one; `newest` was there once, or 0.
    pub(super) fn vacant(newest: ReplicaId) -> Self {
        Self {
            group: None,
            newest,
            fault: None,
        }
    }

    /// With one that cannot be used.
    pub(super) fn failed(newest: ReplicaId, fault: Fault) -> Self {
        Self {
            group: None,
            newest,
            fault: Some(fault),
        }
    }
}

/// What the disk says of a slot: nothing, if the group never had a replica here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRecord {
    /// The newest replica of the group that this node has had.
    pub newest: ReplicaId,
    /// Whether it may be brought back.
    pub standing: Standing,
}

/// Whether a replica may be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was begun here, and works as far as anybody knows.
    Begun,
    /// It was removed and will not come back.
    Gone,
    /// It failed, for this reason, and is not brought back.
    Failed(String),
    /// It contradicted its leader, as this says: its data stay, and it is not brought back.
    Disputed(String),
}

impl SlotRecord {
    /// For the disk: the id, the standing's number, and the reason in UTF-8. Never to change.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (number, why) = match &self.standing {
            Standing::Begun => (0, ""),
            Standing::Gone => (1, ""),
            Standing::Failed(why) => (2, why.as_str()),
            Standing::Disputed(why) => (3, why.as_str()),
        };
        let mut bytes = self.newest.0.to_le_bytes().to_vec();
        bytes.push(number);
        bytes.extend_from_slice(why.as_bytes());
        bytes
    }

    /// From the disk.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (newest, rest) = bytes.split_first_chunk::<8>()?;
        let standing = match rest {
            [0] => Standing::Begun,
            [1] => Standing::Gone,
            [2, why @ ..] => Standing::Failed(String::from_utf8(why.to_vec()).ok()?),
            [3, why @ ..] => Standing::Disputed(String::from_utf8(why.to_vec()).ok()?),
            _ => return None,
        };
        Some(Self {
            newest: ReplicaId(u64::from_le_bytes(*newest)),
            standing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk() {
        let standings = [
            Standing::Begun,
            Standing::Gone,
            Standing::Failed("it differs".to_owned()),
            Standing::Disputed("it contradicts".to_owned()),
        ];
        for standing in standings {
            let record = SlotRecord {
                newest: ReplicaId::new(9, 3),
                standing,
            };
            let bytes = record.to_bytes();
            assert_eq!(SlotRecord::from_bytes(&bytes).as_ref(), Some(&record));
            assert_eq!(SlotRecord::from_bytes(&bytes[..8]), None);
        }
        assert_eq!(SlotRecord::from_bytes(&[4; 9]), None);
        assert_eq!(SlotRecord::from_bytes(&[1; 10]), None);
    }
}
