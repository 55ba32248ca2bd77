//! Why a connection to another node cannot be used.

use std::time::Duration;

use stock_cluster::identity::Refusal;
use stock_cluster::identity::refusal::Told;
use thiserror::Error;

/// A peer must connect and introduce itself within this time.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(3);

/// A connection that cannot be used.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The network failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The peer sent no introduction in time.
    #[error("no introduction within {} s", HELLO_WITHIN.as_secs())]
    Silent,
    /// What was sent is no message of this protocol.
    #[error("not understood: {0}")]
    Malformed(String),
    /// This node does not talk to the peer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The peer does not talk to this node.
    #[error(transparent)]
    Told(#[from] Told),
    /// The peer takes or sends next to nothing.
    #[error("stalled: {bytes} bytes in 10 s")]
    Stalled {
        /// So much in that time.
        bytes: usize,
    },
    /// Its place was needed.
    #[error("ended for another connection")]
    Crowded,
    /// A snapshot cannot be sent or taken in.
    #[error("{0}")]
    Snapshot(String),
}
