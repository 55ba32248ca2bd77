//! What every call needs: the way to a group's leader, a state that is new enough, and the clock.

use std::sync::Arc;

use bytes::Bytes;
use stock_api::Rejection;
use stock_api::basket::Asker;
use stock_cluster::GroupId;
use stock_core::{Command, Location, Principal, Stamp};
use stock_node::answer::{Answer, Applied, Failure, Freshness, Question};
use stock_node::entry::{Commands, CommandsBuilder};
use stock_node::event::Event;
use stock_node::standing::ClusterState;
use stock_node::view::ReadView;
use stock_proto::stock::v1 as api;
use tokio::sync::oneshot;

use super::afterwards::Afterwards;
use super::error::ApiError;
use super::operations::Operations;
use super::proxy::Proxy;
use super::seen::Seen;
use super::wanted::Wanted;
use crate::clocks;
use crate::inbox::Inbox;
use crate::inbox::reply::ReplyTo;
use crate::peers::Peers;
use crate::proposer::Proposer;

/// Commands that travel together at most. Larger calls are cut at the edge, so that no caller fills
/// an entry (1,024 commands) alone.
pub(super) const COMMANDS_PER_PROPOSAL_MAX: u32 = 256;

/// Bytes of commands that travel together at most: a quarter of an entry.
pub(super) const BYTES_PER_PROPOSAL_MAX: usize = 256 * 1024;

/// Shared by all services of a node.
pub struct Edge {
    inbox: Arc<Inbox<ReplyTo>>,
    proposer: Arc<Proposer>,
    /// Who leads what.
    pub cluster: Arc<ClusterState>,
    /// What reads see.
    pub view: Arc<ReadView>,
    /// Whose name goes on what callers do.
    pub principal: Principal,
    /// Membership and placement.
    pub operations: Operations,
    /// The other nodes' edges.
    pub proxy: Proxy,
    incarnation: Bytes,
    /// Room for what shards are told when those who asked have their answers.
    pub(super) afterwards: Afterwards,
}

/// What a proposal brought.
pub(super) type Proposed = Result<Applied, Failure>;

impl Edge {
    /// For this node, in this life of the cluster.
    pub fn new(
        incarnation: u128,
        inbox: Arc<Inbox<ReplyTo>>,
        peers: Arc<Peers>,
        proposer: Arc<Proposer>,
        cluster: Arc<ClusterState>,
        view: Arc<ReadView>,
        principal: Principal,
    ) -> Self {
        let operations = Operations::new(Arc::clone(&cluster), Arc::clone(&inbox));
        Self {
            inbox,
            proxy: Proxy::new(peers),
            proposer,
            cluster,
            view,
            principal,
            operations,
            afterwards: Afterwards::default(),
            incarnation: Bytes::copy_from_slice(&incarnation.to_be_bytes()),
        }
    }

    /// How many stock shards there are.
    pub fn shards(&self) -> u32 {
        self.cluster.shards()
    }

    /// The head of an answer that has seen this.
    pub(super) fn header(&self, seen: Seen) -> api::ResponseHeader {
        seen.into_header(self.incarnation())
    }

    /// The head of the answer to what a shard has carried out.
    pub(super) fn header_of(&self, shard: u32, applied: &Applied) -> api::ResponseHeader {
        self.header(Seen::of(GroupId::of_shard(shard), applied))
    }

    /// Refuses indexes of another life of the cluster.
    pub(super) fn check_incarnation(&self, wanted: &Wanted<'_>) -> Result<(), ApiError> {
        match wanted.incarnation.is_empty() || wanted.incarnation == self.incarnation {
            true => Ok(()),
            false => Err(Rejection::IncarnationOver.into()),
        }
    }

    /// The life of the cluster: the same for as long as the process lives.
    pub(super) fn incarnation(&self) -> Bytes {
        self.incarnation.clone()
    }

    /// Whether this node leads a group and has no room for so many of its commands.
    pub(super) fn is_full(&self, group: GroupId, commands: usize) -> bool {
        self.proposer.is_full(group, commands)
    }

    /// Whoever asks, and what this node knows that is asked.
    pub(super) fn asker(&self) -> Asker<'_> {
        let wall_ms = clocks::wall_ms();
        Asker {
            principal: &self.principal,
            shards: self.shards(),
            // The shards judge it by their own clocks.
            time: Stamp(self.cluster.time_ms(wall_ms).unwrap_or(wall_ms)),
        }
    }

    /// Has a shard carry a command out, wherever its leader is.
    pub(super) async fn propose_one(&self, shard: u32, command: &Command) -> Proposed {
        let mut commands = CommandsBuilder::default();
        commands.push(command);
        let group = GroupId::of_shard(shard);
        self.propose(group, commands.take()).await
    }

    /// Has a group carry commands out, wherever its leader is.
    pub(super) async fn propose(&self, group: GroupId, commands: Commands) -> Proposed {
        match self.proposer.propose(group, commands).await {
            Answer::Outcomes(applied) => Ok(applied),
            Answer::Failed(failure) => Err(failure),
            Answer::Reached { .. } | Answer::Reservation { .. } | Answer::Listed { .. } => {
                Err(Failure::OutcomeUnknown)
            }
        }
    }

    /// Asks the loop something.
    pub async fn ask(&self, group: GroupId, freshness: Freshness, question: Question) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.inbox.push(Event::Read {
            group,
            freshness,
            question,
            reply: ReplyTo::reader(sender),
        });
        receiver
            .await
            .unwrap_or(Answer::Failed(Failure::TooFarBehind))
    }

    /// Waits until this node's state of a group, and so the read view, is new enough.
    pub async fn reach(&self, group: GroupId, freshness: Freshness) -> Result<u64, Failure> {
        match self.ask(group, freshness, Question::Reached).await {
            Answer::Reached { applied_index } => Ok(applied_index),
            Answer::Failed(failure) => Err(failure),
            Answer::Outcomes(_) | Answer::Reservation { .. } | Answer::Listed { .. } => {
                Err(Failure::TooFarBehind)
            }
        }
    }

    /// The first of these locations that does not exist. A location this node has not heard of may
    /// be new: before it is called unknown, this node catches up.
    pub async fn first_unknown_location(
        &self,
        locations: &[&Location],
    ) -> Result<Option<usize>, ApiError> {
        if self.view.first_unknown(locations.iter().copied()).is_none() {
            return Ok(None);
        }
        self.reach(GroupId::META, Freshness::LINEARIZABLE).await?;
        Ok(self.view.first_unknown(locations.iter().copied()))
    }

    /// Refuses a call whose line names a location that does not exist.
    pub async fn check_locations(&self, locations: &[&Location]) -> Result<(), ApiError> {
        match self.first_unknown_location(locations).await? {
            None => Ok(()),
            Some(line) => Err(Rejection::UnknownLocation {
                field: format!("lines[{line}].location"),
                location: locations[line].to_string(),
            }
            .into()),
        }
    }
}
