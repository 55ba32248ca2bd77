//! Carries the errands of shards led here to the leaders of other shards.

use std::sync::Arc;
use std::time::Duration;

use stock_node::answer::{Answer, Failure};
use stock_node::basket::ANSWERED_WITHIN_MS;
use stock_node::entry::Commands;
use stock_node::event::{ErrandId, Event};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::inbox::Inbox;
use crate::inbox::reply::ReplyTo;
use crate::proposer::Proposer;

/// After this the loop goes on without an answer.
const ANSWERED_WITHIN: Duration = Duration::from_millis(ANSWERED_WITHIN_MS);

/// Who goes. The loop has one errand at a time under way for each pair of shards, which bounds how
/// many there are.
pub struct ErrandRunner {
    proposer: Arc<Proposer>,
    inbox: Arc<Inbox<ReplyTo>>,
    runtime: Handle,
}

impl ErrandRunner {
    /// Within the runtime that this is called in.
    pub fn new(proposer: Arc<Proposer>, inbox: Arc<Inbox<ReplyTo>>) -> Self {
        let runtime = Handle::current();
        Self {
            proposer,
            inbox,
            runtime,
        }
    }

    /// Goes, and tells the loop what was said.
    pub(super) fn run(&self, errand: ErrandId, commands: Commands) {
        metrics::counter!("stockd_errands_total").increment(1);
        let (proposer, inbox) = (Arc::clone(&self.proposer), Arc::clone(&self.inbox));
        self.runtime.spawn(async move {
            let answered = timeout(ANSWERED_WITHIN, proposer.propose(errand.to, commands)).await;
            let answer = answered.unwrap_or(Answer::Failed(Failure::OutcomeUnknown));
            inbox.push(Event::ErrandAnswered { errand, answer });
        });
    }
}
