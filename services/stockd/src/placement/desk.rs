//! What operators are told.

use std::sync::Arc;

use super::controller::Decision;
use super::{Registry, RegistryOutcome, Reports};

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
