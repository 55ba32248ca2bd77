//! Why a cluster cannot be recovered from what is left of it.

use std::path::PathBuf;

use stock_cluster::{GroupId, RegistryRefusal};
use stock_storage::{CheckpointError, LedgerError, LogError};
use thiserror::Error;

use super::OfflineError;
use super::lives::{Life, of_lives};
use super::replay::ReplayError;

/// A cluster cannot be recovered from what was given.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// A directory cannot be looked into.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// Two directories do not belong together.
    #[error("{} and {}: {what}", one.display(), other.display())]
    Mixed {
        /// A directory.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// The directories went on from each other, or apart.
    #[error("{}", of_lives(lives))]
    Lives {
        /// The lives.
        lives: Vec<Life>,
    },
    /// No directory is of the life that is to be kept, or more than one life's number begins so.
    #[error("--keep-life {said}: {}", of_lives(lives))]
    UnknownLife {
        /// What was said.
        said: String,
        /// The lives there are.
        lives: Vec<Life>,
    },
    /// A recovery was interrupted, and other directories belong to it.
    #[error(
        "{}: a recovery of it together with others was interrupted: give the data directories of \
         the nodes {nodes:?}, and no other", path.display()
    )]
    Interrupted {
        /// A directory.
        path: PathBuf,
        /// Whose directories belong to it.
        nodes: Vec<u64>,
    },
    /// A node never became a member.
    #[error("{}: its node never became a member of a cluster; leave it out", path.display())]
    NoMember {
        /// The directory.
        path: PathBuf,
    },
    /// Without group 0 nobody knows what belongs where.
    #[error(
        "no replica of the meta group is left that can be used{}; restore the cluster from a \
         backup",
        reasons(unusable)
    )]
    NoMeta {
        /// Those that cannot: the node, and why.
        unusable: Vec<(u64, String)>,
    },
    /// The nodes stopped between the decision to found a cluster and its beginning.
    #[error(
        "the cluster that these nodes were to found had not begun, and nothing was ever \
         acknowledged: give every node an \
         empty directory, and found it anew"
    )]
    NeverBegun,
    /// The surviving registry does not know a node that is left.
    #[error(
        "node {node} joined so late that what is left of the registry does not know it: leave its \
         directory out, empty it, and let the node join anew"
    )]
    UnknownNode {
        /// Which.
        node: u64,
    },
    /// The surviving log of group 0 ends before the cluster was founded, and none of the nodes was
    /// a founder.
    #[error(
        "what is left of the meta group ends before the cluster was founded: bring the directory \
         of a node that founded it"
    )]
    NotFounded,
    /// Some shards have no replica left.
    #[error(
        "{} lost, with every replica: bring another node's directory, or go on without with \
         --leave-lost-shards, and have them restored from a backup",
        names(groups)
    )]
    LostShards {
        /// Which.
        groups: Vec<GroupId>,
    },
    /// The registry would not take what it is to be told.
    #[error("the registry refuses it: {0}")]
    Refused(RegistryRefusal),
    /// The operator does not say the cluster's id.
    #[error("not confirmed: expected the cluster's id, {expected}; nothing was changed")]
    NotConfirmed {
        /// The cluster's id.
        expected: String,
    },
    /// What is to be done is not what was confirmed.
    #[error(
        "nothing was recovered: what is there is not what was shown any more. It \
         is:\n\n{found}\n\nRun this again to confirm that"
    )]
    Changed {
        /// What would be done now.
        found: String,
    },
    /// What was there a moment ago cannot be brought back any more.
    #[error("{}, {}: {source}", path.display(), group)]
    Gone {
        /// The data directory.
        path: PathBuf,
        /// Which group.
        group: GroupId,
        /// Why.
        source: ReplayError,
    },
    /// History cannot be brought in line with what is gone on from.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A disk failed.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
}

fn names(groups: &[GroupId]) -> String {
    let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
    match names.len() {
        1 => format!("{} is", names.concat()),
        _ => format!("{} are", names.join(", ")),
    }
}

fn reasons(unusable: &[(u64, String)]) -> String {
    let reasons = unusable
        .iter()
        .map(|(node, why)| format!(" (node {node}: {why})"));
    reasons.collect()
}
