//! What operators are told.

use std::sync::Arc;

use stock_core::Stamp;

use super::Decision;
use crate::ids::Directory;
use crate::registry::{Registry, RegistryOutcome};
use crate::reports::{Reports, SILENT_AFTER_MS};

/// A command of the registry that was carried out or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The index of its entry.
    pub applied_index: u64,
    /// Cluster time then.
    pub stamp: Stamp,
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

impl Overview {
    /// Whether a node is heard from on its own directory while another one asks to be let in under
    /// its id, and no operator has said that it may be. That is a typing error, as a rule, and
    /// would end a node that works.
    ///
    /// Who has listened for less than it takes to know is careful. `is_connected`: whether there is
    /// a connection to the node.
    pub fn is_heard_with_another(
        &self,
        node: u64,
        directory: Directory,
        is_connected: bool,
    ) -> bool {
        let Some(record) = self.registry.node(node) else {
            return false;
        };
        let is_another = record.directory.is_some_and(|known| known != directory);
        let silent_ms = self.reports.node_silent_ms(node, self.now_ms);
        let report = self.reports.node(node);
        let is_heard = silent_ms <= SILENT_AFTER_MS
            && report.is_none_or(|report| Some(report.directory) == record.directory);
        is_another && (is_connected || is_heard) && !record.may_be_replaced
    }
}
