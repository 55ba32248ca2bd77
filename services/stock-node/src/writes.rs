//! What a turn wants written: all of it durably, or nothing of it.

use bytes::Bytes;
use stock_cluster::GroupId;

/// Writes, in their order.
#[derive(Debug, Default)]
pub struct Writes(Vec<Write>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Entries stand in a group's log from this index on, and whatever stood there does not.
    Append {
        /// The group.
        group: GroupId,
        /// The index of the first.
        first_index: u64,
        /// Opaque.
        entries: Vec<Bytes>,
    },
    /// A group's log begins after this index.
    TruncateBefore {
        /// The group.
        group: GroupId,
        /// The first index that stays.
        index: u64,
    },
    /// A group's log is empty and may begin anywhere. Its records stay.
    Reset(GroupId),
    /// A group's log is empty, and its vote and origin are gone.
    Forget(GroupId),
    /// A record is replaced.
    Put(Record, Bytes),
}

/// A record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A group's term, vote and commit index.
    State(GroupId),
    /// Where a group's log begins, and who its members were then.
    Origin(GroupId),
    /// Which replica of a group is, or was, here.
    Replica(GroupId),
    /// What this node remembers of itself and others.
    Acquaintances,
}

impl Writes {
    /// Adds one.
    pub fn push(&mut self, write: Write) {
        self.0.push(write);
    }

    /// Replaces a record.
    pub fn put(&mut self, record: Record, bytes: impl Into<Bytes>) {
        self.push(Write::Put(record, bytes.into()));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Write> {
        self.0.iter()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether only what this node remembers of others is written.
    pub fn is_memory_only(&self) -> bool {
        let mut writes = self.iter();
        writes.all(|write| matches!(write, Write::Put(Record::Acquaintances, _)))
    }

    /// They are durable.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
