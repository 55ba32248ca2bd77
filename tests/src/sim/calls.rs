//! Calls of clients, and what is said of them.

use std::collections::VecDeque;
use std::sync::Arc;

use stock_core::Outcome;
use stock_node::answer::{Failure, Outcomes};
use stock_node::entry::Commands;
use stock_node::event::ErrandId;
use stock_node::way::{ToLeader, WaitingForLeader};
use xxhash_rust::xxh3::xxh3_64;

use super::checks::answers::Found;
use super::over_shards::OverShards;
use super::workload::Wish;

/// The number of a client's attempt.
pub(crate) type CallId = u64;

/// Who gets an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReplyTo {
    Call(CallId),
    Peer { node: u64, forward_id: u64 },
}

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Client,
    /// The leader of a shard, in a term.
    Errand(ErrandId),
    /// A node that was asked for something over several shards, by this call.
    Basket(CallId),
    /// A node that has answered such a call.
    Nobody,
}

/// A client's attempt, or what a node asks in its turn.
pub(crate) struct Call {
    pub(crate) node: u64,
    /// The boot that took it.
    pub(crate) boot: Option<u64>,
    pub(crate) wish: Wish,
    pub(crate) commands: Option<Commands>,
    /// The way of its commands, once they are on it.
    pub(crate) way: Option<ToLeader<Arc<WaitingForLeader>>>,
    /// Another node could not answer it and has sent it on, which happens once: those that it asks
    /// after this one.
    pub(crate) sent_on: Option<VecDeque<u64>>,
    /// The highest index that anybody had been told of when it began.
    pub(crate) answered_before: u64,
    pub(crate) asker: Asker,
    /// What its node does over several shards.
    pub(crate) over_shards: Option<OverShards>,
}

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Told {
    Outcomes {
        index: u64,
        outcomes: Outcomes,
    },
    /// What has come of something over several shards.
    Basket(Outcome),
    Found {
        index: u64,
        found: Found,
    },
    Failed(Failure),
    /// The node does not run.
    NotConnected,
    /// Nothing, for as long as the client waits.
    Nothing,
}

impl Told {
    /// For the hash of the run.
    pub(crate) fn digest(&self) -> u64 {
        xxh3_64(format!("{self:?}").as_bytes())
    }
}
