//! Why a node does not talk to another, and what the other makes of it.

use stock_wire::cluster::v1 as cluster;
use thiserror::Error;

use crate::version::Speaks;

/// Why a node does not talk to another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It belongs elsewhere.
    #[error("{what} is {theirs} there, but {ours} here")]
    Stranger {
        /// What differs.
        what: &'static str,
        /// There.
        theirs: String,
        /// Here.
        ours: String,
    },
    /// Its build is too old for the cluster, or too new.
    #[error(
        "the cluster speaks version {version}, and that build {speaks}: {}",
        match speaks.newest < *version {
            true => "it is too old",
            false => "it is too new; the cluster must speak a later version first",
        }
    )]
    AnotherVersion {
        /// What it speaks.
        speaks: Speaks,
        /// What the cluster does.
        version: u32,
    },
    /// It is of a life of the cluster that has ended.
    #[error(
        "the cluster was recovered: its life {ours:032x} goes on from {theirs:032x}, which has \
         ended, and what is acknowledged in that one counts for nothing any more"
    )]
    EarlierLife {
        /// There.
        theirs: u128,
        /// Here.
        ours: u128,
    },
    /// It is of a life of the cluster that goes on from this node's, which has ended.
    #[error(
        "the cluster was recovered: the life {theirs:032x} there goes on from {ours:032x} here, \
         which has ended"
    )]
    LaterLife {
        /// There.
        theirs: u128,
        /// Here.
        ours: u128,
    },
    /// No such node is known here; that may change.
    #[error("node {node} is no member of this cluster, as far as this node knows")]
    Unknown {
        /// Which.
        node: u64,
    },
    /// Another directory was let in under its id since.
    #[error(
        "node {node} has another data directory since entry {since} of group 0: what this one \
         acknowledges counts for nothing any more"
    )]
    Replaced {
        /// Which.
        node: u64,
        /// The index of the entry that let the other one in.
        since: u64,
    },
    /// It was taken out of the cluster.
    #[error("node {node} was removed from the cluster, and its id and data are never used again")]
    Removed {
        /// Which.
        node: u64,
    },
    /// Its directory is older than it was when it was last heard of.
    #[error(
        "the data directory of node {node} has forgotten what it acknowledged: it was heard in its \
         second {known} of work, and is back in its second {told}, as a copy made before would be"
    )]
    Forgotten {
        /// Which.
        node: u64,
        /// The pulse that it tells.
        told: u64,
        /// The highest that was heard of it.
        known: u64,
    },
    /// Another process that uses its directory, or a copy of it, is heard from.
    #[error(
        "another process runs as node {node}, with this data directory or a copy of it, and is \
         heard from"
    )]
    Twin {
        /// Which.
        node: u64,
    },
}

/// What a node was told of itself by another that does not talk to it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{from} says: {reason}")]
pub struct Told {
    /// Who said so.
    pub from: String,
    /// What follows from it.
    pub kind: ToldKind,
    /// In words.
    pub reason: String,
}

/// What follows from a refusal for the one that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldKind {
    /// Nothing: it may be let in later.
    NotNow,
    /// Its directory is not the node's any more, or the node none of the cluster's. It must end.
    Over,
    /// Its directory has forgotten something. It must not go on with it.
    Forgotten,
    /// Its directory is in use. It must end, unless that ends soon.
    Twin,
}

impl Refusal {
    /// For the one that is refused.
    pub fn verdict(&self) -> cluster::Verdict {
        use cluster::verdict::Kind;
        let kind = match self {
            Self::Stranger { .. }
            | Self::AnotherVersion { .. }
            | Self::Unknown { .. }
            | Self::LaterLife { .. } => Kind::NotNow,
            Self::Replaced { .. } | Self::Removed { .. } | Self::EarlierLife { .. } => Kind::Over,
            Self::Forgotten { .. } => Kind::Forgotten,
            Self::Twin { .. } => Kind::Twin,
        };
        cluster::Verdict {
            kind: kind.into(),
            reason: self.to_string(),
        }
    }
}

/// What another node says to an introduction: nothing, if it is accepted.
pub fn told(from: &str, verdict: &cluster::Verdict) -> Option<Told> {
    use cluster::verdict::Kind;
    let kind = match verdict.kind() {
        Kind::Accepted => return None,
        Kind::NotNow => ToldKind::NotNow,
        Kind::Over => ToldKind::Over,
        Kind::Forgotten => ToldKind::Forgotten,
        Kind::Twin => ToldKind::Twin,
    };
    Some(Told {
        from: from.to_owned(),
        kind,
        reason: verdict.reason.clone(),
    })
}
