//! What a node knows of group 0's leader, and as its leader of everybody else.

use stock_cluster::Reports;

/// The leader of group 0 sees to it that replicas are where they belong.
#[derive(Debug, Default)]
pub(super) struct MetaDuties {
    /// What it has been told since it leads, and in which term that is.
    pub(super) reports: Option<(u64, Reports)>,
    /// The latest term of group 0 that an order came from.
    pub(super) term: u64,
    /// The node that last said that it leads group 0, and in which term.
    pub(super) heard: Option<(u64, u64)>,
}
