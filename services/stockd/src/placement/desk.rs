//! What the API needs of the node to answer questions about the cluster, and to change it.

use std::sync::Arc;

use super::controller::Decision;
use super::{Registry, RegistryCommand, RegistryOutcome, Reports};
use crate::worker::event::Failure;

/// The node's side of `ClusterService`.
#[tonic::async_trait]
pub trait Desk: Send + Sync + 'static {
    /// The registry as this node has it: milliseconds old, as a rule.
    fn registry(&self) -> Arc<Registry>;

    /// Has group 0 carry out a command, wherever its leader is. Fails as every proposal does.
    async fn change(&self, command: RegistryCommand) -> Result<Changed, Failure>;

    /// What the leader of group 0 knows. Fails with [`Failure::NotLeader`] while there is none.
    async fn overview(&self) -> Result<Overview, Failure>;
}

/// A command of the registry that was carried out or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The index of its entry.
    pub applied_index: u64,
    /// What came of it.
    pub outcome: RegistryOutcome,
}

/// Everything that the leader of group 0 knows, at one moment.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Not older than when it was asked for.
    pub registry: Arc<Registry>,
    /// What it was told.
    pub reports: Reports,
    /// What it decided last.
    pub decision: Decision,
    /// The clock of the reports.
    pub now_ms: u64,
}
