//! Who gets an answer.

use stock_node::answer::Answer;
use tokio::sync::oneshot;

use crate::inbox::Permit;

/// Who gets an answer. Dropping it gives back the room that its commands took.
pub struct ReplyTo {
    /// Where it goes.
    pub to: Destination,
    _permit: Option<Permit<ReplyTo>>,
}

/// Where an answer goes.
pub enum Destination {
    /// To a call that this node's edge took. It may have hung up by now.
    Local(oneshot::Sender<Answer>),
    /// To a peer that forwarded it.
    Peer {
        /// Which.
        node: u64,
        /// Its number for it.
        forward_id: u64,
    },
}

impl ReplyTo {
    /// For commands.
    pub fn new(to: Destination, permit: Permit<ReplyTo>) -> Self {
        Self {
            to,
            _permit: Some(permit),
        }
    }

    /// For a read.
    pub fn reader(sender: oneshot::Sender<Answer>) -> Self {
        Self {
            to: Destination::Local(sender),
            _permit: None,
        }
    }
}
