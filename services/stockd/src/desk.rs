//! The node's side of `ClusterService`.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::cluster_state::ClusterState;
use crate::inbox::Inbox;
use crate::log_codec::CommandsBuilder;
use crate::placement::{Changed, Overview, Registry, RegistryCommand};
use crate::reply::{Destination, ReplyTo};
use crate::worker::event::{Answer, Event, Failure, GroupId, Outcome};

/// Answers what operators ask, and has group 0 carry out what they want, where it is led.
pub struct Desk {
    cluster: Arc<ClusterState>,
    inbox: Arc<Inbox<ReplyTo>>,
}

impl Desk {
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
            Ok(Answer::Outcomes {
                applied_index,
                outcomes,
                ..
            }) => match outcomes.into_iter().next() {
                Some(Outcome::Registry(outcome)) => Ok(Changed {
                    applied_index,
                    outcome,
                }),
                _ => Err(Failure::OutcomeUnknown),
            },
            Ok(Answer::Failed(failure)) => Err(failure),
            Ok(_) | Err(_) => Err(Failure::OutcomeUnknown),
        }
    }

    /// What this node knows as the leader of group 0.
    pub fn overview(&self) -> Result<Overview, Failure> {
        self.cluster.overview().ok_or(Failure::NotLeader {
            leader: self.cluster.group(GroupId::META).leader,
        })
    }
}
