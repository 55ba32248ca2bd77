//! Why a node cannot run, or cannot go on.

use std::io;

use stock_cluster::identity::refusal::{Told, ToldKind};
use stock_storage::{CheckpointError, LedgerError, LogError};
use thiserror::Error;

use crate::directory::node_record::NodeRecordError;
use crate::host::HostError;
use crate::membership::first_boot::FirstBootError;
use crate::membership::join::JoinError;

/// A node cannot run, or cannot go on.
#[derive(Debug, Error)]
pub enum NodeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen {
        /// For whom.
        what: &'static str,
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] LogError),
    /// The checkpoints cannot be used.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The data directory belongs to another node or cluster, or its record is damaged.
    #[error(transparent)]
    Record(#[from] NodeRecordError),
    /// The cluster cannot be founded with this directory.
    #[error(transparent)]
    FirstBoot(#[from] FirstBootError),
    /// The cluster does not let this node in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Others do not take it for the node that it says to be, and it must not go on.
    #[error("{told}{}", advice(told.kind))]
    Refused {
        /// What they say.
        #[from]
        told: Told,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// The loop stopped.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Metrics cannot be collected.
    #[error("cannot collect metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// What an operator can do about it.
fn advice(kind: ToldKind) -> &'static str {
    match kind {
        ToldKind::Forgotten => "; started again, it joins anew, as with an empty directory",
        ToldKind::Over => {
            "; its data are as they were: to come back, start it with an empty directory"
        }
        ToldKind::Twin => "; end one of them: two must not speak for one directory",
        ToldKind::NotNow => "",
    }
}
