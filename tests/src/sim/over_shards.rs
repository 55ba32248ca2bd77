//! What a node does for a call that is for several shards.

use std::collections::BTreeMap;

use stock_cluster::GroupId;
use stock_node::basket::{Coordinator, Settling};

/// What a node does for a caller over several shards.
pub(crate) struct OverShards {
    pub(crate) doing: Doing,
    /// The highest index that each shard has answered at.
    pub(crate) seen: BTreeMap<GroupId, u64>,
    /// How often something that was not decided has been settled for it.
    pub(crate) settled: u32,
}

pub(crate) enum Doing {
    Coordinating(Box<Coordinator>),
    Settling(Box<Settling>),
    /// Home is told what was found out.
    Deciding,
}
