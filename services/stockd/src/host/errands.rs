//! Carries the errands of shards led here to the leaders of other shards.

use std::sync::Arc;

use stock_cluster::GroupId;
use stock_node::entry::Commands;
use stock_node::event::Event;
use tokio::runtime::Handle;

use crate::inbox::Inbox;
use crate::inbox::reply::ReplyTo;
use crate::proposer::Proposer;

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
    pub(super) fn run(&self, from: GroupId, term: u64, to: GroupId, commands: Commands) {
        metrics::counter!("stockd_errands_total").increment(1);
        let (proposer, inbox) = (Arc::clone(&self.proposer), Arc::clone(&self.inbox));
        self.runtime.spawn(async move {
            let answer = proposer.propose(to, commands).await;
            inbox.push(Event::ErrandAnswered {
                from,
                term,
                to,
                answer,
            });
        });
    }
}
