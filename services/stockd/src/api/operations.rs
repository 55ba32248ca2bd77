//! The node's side of `ClusterService`.

use std::sync::Arc;
use std::time::Duration;

use stock_cluster::{Changed, GroupId, Overview, Registry, RegistryCommand};
use stock_node::answer::{Answer, Failure, Outcome};
use stock_node::entry::CommandsBuilder;
use stock_node::event::Event;
use stock_node::standing::ClusterState;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::inbox::Inbox;
use crate::inbox::reply::{Destination, ReplyTo};

/// The loop publishes the registry with every tick; a busy one may miss a few.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(1);
const PUBLISHED_CHECK_EVERY: Duration = Duration::from_millis(5);

/// Answers what operators ask, and has group 0 carry out what they want, where it is led.
pub struct Operations {
    cluster: Arc<ClusterState>,
    inbox: Arc<Inbox<ReplyTo>>,
}

impl Operations {
    /// Of this node.
    pub fn new(cluster: Arc<ClusterState>, inbox: Arc<Inbox<ReplyTo>>) -> Self {
        Self { cluster, inbox }
    }

    /// The registry as this node has it: milliseconds old, as a rule.
    pub fn registry(&self) -> Arc<Registry> {
        self.cluster.registry()
    }

    /// Has group 0 carry out a command, if it is led here. Fails as every proposal does.
    pub async fn change(&self, command: RegistryCommand) -> Result<Changed, Failure> {
        let mut commands = CommandsBuilder::default();
        commands.push_registry(&command);
        let commands = commands.take();
        let admitted = self.inbox.admit(GroupId::META, 1, commands.bytes.len());
        let permit = admitted.ok_or(Failure::Overloaded)?;
        let (sender, receiver) = oneshot::channel();
        self.inbox.push(Event::Propose {
            group: GroupId::META,
            commands,
            reply: ReplyTo::new(Destination::Local(sender), permit),
        });
        match receiver.await {
            Ok(Answer::Outcomes(applied)) => {
                let (applied_index, stamp) = (applied.applied_index, applied.stamp);
                let Outcome::Registry(outcome) = applied.only()? else {
                    return Err(Failure::OutcomeUnknown);
                };
                self.published(applied_index).await;
                Ok(Changed {
                    applied_index,
                    stamp,
                    outcome,
                })
            }
            Ok(Answer::Failed(failure)) => Err(failure),
            Ok(_) | Err(_) => Err(Failure::OutcomeUnknown),
        }
    }

    /// Waits until whoever asks next sees what was changed. The loop publishes with every tick.
    async fn published(&self, index: u64) {
        let until = Instant::now() + PUBLISHED_WITHIN;
        while self.cluster.registry_index() < index && Instant::now() < until {
            tokio::time::sleep(PUBLISHED_CHECK_EVERY).await;
        }
    }

    /// What this node knows as the leader of group 0.
    pub fn overview(&self) -> Result<Overview, Failure> {
        self.cluster.overview().ok_or(Failure::NotLeader {
            leader: self.cluster.group(GroupId::META).leader,
        })
    }
}
