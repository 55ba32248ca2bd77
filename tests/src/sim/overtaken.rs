//! Replicas whose vote was taken away, and leaders that lead without one.

use bytes::Bytes;
use stock_cluster::GroupId;
use stock_replica::removal_of_recipient;

/// One that leads without a vote, and does not run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silenced {
    pub(crate) node: u64,
    pub(crate) group: GroupId,
    /// In which it leads.
    pub(crate) term: u64,
    /// The entry that took its vote.
    pub(crate) index: u64,
    pub(crate) looks: u32,
}

/// A vote that was taken away by a leader that died of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overtaken {
    pub(crate) group: GroupId,
    /// The node whose replica loses its vote.
    pub(crate) node: u64,
    /// The entry that takes it.
    pub(crate) index: u64,
}

impl Overtaken {
    /// The removal that a message tells a replica of, where it is that replica's own.
    pub(crate) fn by(to: u64, group: GroupId, payload: &Bytes) -> Option<Self> {
        let index = removal_of_recipient(payload)?;
        Some(Self {
            group,
            node: to,
            index,
        })
    }
}
