//! What is left to do between shards after a group went on without what it had lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::VERSIONS_PER_RECOVERY;

/// How often the groups of shards went on with losses, as far as a shard has heard. Empty in nearly
/// every cluster there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recoveries {
    /// Of the shard's own group; 0: never.
    pub(crate) own: u32,
    /// The shards that have yet to tell again of the parts that are here.
    pub(crate) awaited: BTreeSet<u32>,
    /// Of other shards.
    pub(crate) others: BTreeMap<u32, u32>,
}

impl Recoveries {
    /// No version that home decides from now on is lower: participants may have heard of versions
    /// that home has lost.
    pub(crate) fn version_floor(&self) -> u32 {
        self.own.saturating_mul(VERSIONS_PER_RECOVERY)
    }

    /// The last version before another recovery: nothing that home decides until then comes after.
    pub(crate) fn last_version(&self) -> u32 {
        self.version_floor()
            .saturating_add(VERSIONS_PER_RECOVERY - 1)
    }
}
