//! How many file descriptors this process may have open, and who gets them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that no listener gets: for the log, checkpoints, the ledger, connections that this
/// node makes to its peers, and the program itself. Where there are fewer than twice as many, it is
/// half of them.
const KEPT_BACK_MAX: usize = 1_024;

/// With fewer descriptors than this a node says so when it starts.
const FEW: usize = 1_024;

/// Connections of clients at a time, where there are descriptors enough.
const CLIENTS_MAX: usize = 16_384;
/// Connections from other nodes at a time: for each of them frames, calls, a snapshot, history.
const PEERS_MAX: usize = 2_048;
/// Connections to the port for metrics at a time: one for each question.
const PAGES_MAX: usize = 64;

/// How many connections each listener takes in at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// From clients.
    pub clients: usize,
    /// From other nodes.
    pub peers: usize,
    /// From whoever collects metrics.
    pub pages: usize,
}

impl Shares {
    /// What is left of so many descriptors once the node has its own.
    pub fn of(descriptors: usize) -> Self {
        let own = KEPT_BACK_MAX.min(descriptors / 2);
        let left = descriptors - own;
        Self {
            clients: (left * 5 / 8).clamp(1, CLIENTS_MAX),
            peers: (left / 4).clamp(1, PEERS_MAX),
            pages: (left / 8).clamp(1, PAGES_MAX),
        }
    }
}

/// Raises the soft limit to the hard one, and shares out what there is.
pub fn raise() -> Shares {
    let limit = getrlimit(Resource::Nofile);
    let hard = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, hard) {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
    }
    // None: there is no limit.
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let descriptors = usize::try_from(current).unwrap_or(usize::MAX / 8);
    let descriptors = descriptors.min(usize::MAX / 8);
    let shares = Shares::of(descriptors);
    if descriptors < FEW {
        tracing::warn!(
            descriptors,
            ?shares,
            "few file descriptors: raise the hard limit (ulimit -Hn) to serve more connections"
        );
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_never_get_what_the_node_needs() {
        for descriptors in [8, 64, 256, 1_024, 20_000, 1_000_000] {
            let shares = Shares::of(descriptors);
            let all = shares.clients + shares.peers + shares.pages;
            let kept = descriptors - all;
            assert!(
                kept >= KEPT_BACK_MAX.min(descriptors / 2),
                "{descriptors}: {shares:?}"
            );
        }
    }
}
