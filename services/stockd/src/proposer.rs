//! Has groups carry out commands, wherever their leaders are.

use std::sync::Arc;
use std::time::Duration;

use stock_cluster::GroupId;
use stock_node::answer::{Answer, Failure};
use stock_node::entry::Commands;
use stock_node::event::Event;
use stock_node::standing::ClusterState;
use stock_node::way::{Next, ToLeader, WaitingForLeader};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::clocks;
use crate::inbox::Inbox;
use crate::inbox::reply::{Destination, ReplyTo};
use crate::peers::Peers;

/// Of this node.
pub struct Proposer {
    node: u64,
    inbox: Arc<Inbox<ReplyTo>>,
    peers: Arc<Peers>,
    cluster: Arc<ClusterState>,
    waiting_for_leader: WaitingForLeader,
}

impl Proposer {
    /// Of this node.
    pub fn new(
        node: u64,
        inbox: Arc<Inbox<ReplyTo>>,
        peers: Arc<Peers>,
        cluster: Arc<ClusterState>,
    ) -> Self {
        Self {
            node,
            inbox,
            peers,
            cluster,
            waiting_for_leader: WaitingForLeader::default(),
        }
    }

    /// Whether this node leads a group and has no room for so many of its commands.
    pub fn is_full(&self, group: GroupId, commands: usize) -> bool {
        self.cluster.group(group).leader == Some(self.node) && !self.inbox.has_room(group, commands)
    }

    /// Has a group carry commands out, wherever its leader is.
    pub async fn propose(&self, group: GroupId, commands: Commands) -> Answer {
        let mut way = ToLeader::new(self.node, group, &self.waiting_for_leader);
        let mut next = way.next(&self.cluster, now_ms);
        loop {
            let answer = match next {
                Next::Propose => self.propose_here(group, commands.clone()).await,
                Next::Forward { to } => self.peers.forward(to, group, commands.clone()).await,
                Next::Wait { ms } => {
                    sleep(Duration::from_millis(ms)).await;
                    next = way.next(&self.cluster, now_ms);
                    continue;
                }
                Next::Answer(answer) => return answer,
            };
            next = way.answered(answer, now_ms);
        }
    }

    async fn propose_here(&self, group: GroupId, commands: Commands) -> Answer {
        let count = commands.count as usize;
        let Some(permit) = self.inbox.admit(group, count, commands.bytes.len()) else {
            return Answer::Failed(Failure::Overloaded);
        };
        let (sender, receiver) = oneshot::channel();
        let reply = ReplyTo::new(Destination::Local(sender), permit);
        self.inbox.push(Event::Propose {
            group,
            commands,
            reply,
        });
        receiver
            .await
            .unwrap_or(Answer::Failed(Failure::OutcomeUnknown))
    }
}

fn now_ms() -> u64 {
    clocks::now().boot_ms
}
