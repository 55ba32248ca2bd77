//! What every call needs: the way to a group's leader, a state that is new enough, and the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stock_core::{Location, Principal};
use tokio::sync::oneshot;

use super::error::ApiError;
use super::proxy::Proxy;
use crate::cluster_state::ClusterState;
use crate::desk::Desk;
use crate::inbox::Inbox;
use crate::log_codec::Commands;
use crate::peers::Peers;
use crate::reply::{Destination, ReplyTo};
use crate::view::ReadView;
use crate::worker::event::{Answer, Event, Failure, Freshness, GroupId, Question};

/// Commands that travel together at most. Larger calls are cut at the edge, so that no caller fills
/// an entry (1,024 commands) alone.
pub(super) const COMMANDS_PER_PROPOSAL_MAX: u32 = 256;

/// Bytes of commands that travel together at most: a quarter of an entry.
pub(super) const BYTES_PER_PROPOSAL_MAX: usize = 256 * 1024;

/// A call waits this long for a leader before it is refused: an election takes about a second.
const LEADER_WITHIN: Duration = Duration::from_millis(1_500);
const LEADER_CHECK_EVERY: Duration = Duration::from_millis(20);
/// Calls that may wait for a leader; more are refused at once.
const WAITING_FOR_LEADER_MAX: usize = 1_024;

/// Shared by all services of a node.
pub struct Edge {
    node: u64,
    inbox: Arc<Inbox<ReplyTo>>,
    peers: Arc<Peers>,
    /// Who leads what.
    pub cluster: Arc<ClusterState>,
    /// What reads see.
    pub view: Arc<ReadView>,
    /// Whose name goes on what callers do.
    pub principal: Principal,
    /// Membership and placement.
    pub desk: Desk,
    /// The other nodes' edges.
    pub proxy: Proxy,
    waiting_for_leader: AtomicUsize,
}

/// What a proposal brought.
pub(super) type Proposed = Result<crate::api::Applied, Failure>;

impl Edge {
    /// For this node.
    pub fn new(
        node: u64,
        inbox: Arc<Inbox<ReplyTo>>,
        peers: Arc<Peers>,
        cluster: Arc<ClusterState>,
        view: Arc<ReadView>,
        principal: Principal,
        proxy: Proxy,
    ) -> Self {
        let desk = Desk::new(Arc::clone(&cluster), Arc::clone(&inbox));
        Self {
            node,
            inbox,
            peers,
            cluster,
            view,
            principal,
            desk,
            proxy,
            waiting_for_leader: AtomicUsize::new(0),
        }
    }

    /// How many stock shards there are.
    pub fn shards(&self) -> u32 {
        self.cluster.shards()
    }

    /// Whether this node leads a group and has no room for so many of its commands.
    pub(super) fn is_full(&self, group: GroupId, commands: usize) -> bool {
        self.cluster.group(group).leader == Some(self.node) && !self.inbox.has_room(group, commands)
    }

    /// Has a group carry commands out, wherever its leader is.
    pub async fn propose(&self, group: GroupId, commands: Commands) -> Proposed {
        let answer = match self.try_propose(group, commands.clone()).await {
            Answer::Failed(Failure::NotLeader { .. }) => {
                self.propose_to_next(group, commands).await
            }
            answer => answer,
        };
        match answer {
            Answer::Outcomes {
                applied_index,
                stamp,
                outcomes,
            } => Ok(crate::api::Applied {
                applied_index,
                stamp,
                outcomes,
            }),
            Answer::Failed(failure) => Err(failure),
            Answer::Reached { .. } | Answer::Reservation { .. } => Err(Failure::OutcomeUnknown),
        }
    }

    async fn try_propose(&self, group: GroupId, commands: Commands) -> Answer {
        match self.cluster.group(group).leader {
            Some(leader) if leader == self.node => {
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
            Some(leader) => self.peers.forward(leader, group, commands).await,
            None => Answer::Failed(Failure::NotLeader { leader: None }),
        }
    }

    /// Nothing was done, since nobody led or somebody else does by now: waits for a leader, within
    /// bounds.
    async fn propose_to_next(&self, group: GroupId, commands: Commands) -> Answer {
        let no_leader = Answer::Failed(Failure::NotLeader { leader: None });
        let _place = match Place::take(&self.waiting_for_leader) {
            Some(place) => place,
            None => return no_leader,
        };
        let until = Instant::now() + LEADER_WITHIN;
        while Instant::now() < until {
            tokio::time::sleep(LEADER_CHECK_EVERY).await;
            match self.try_propose(group, commands.clone()).await {
                Answer::Failed(Failure::NotLeader { .. }) => {}
                answer => return answer,
            }
        }
        no_leader
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
            Answer::Outcomes { .. } | Answer::Reservation { .. } => Err(Failure::TooFarBehind),
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
            Some(line) => Err(ApiError::UnknownLocation {
                field: format!("lines[{line}].location"),
                location: locations[line].to_string(),
            }),
        }
    }
}

/// A place among those who may wait, given back when it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        let place = Self(taken);
        let before = taken.fetch_add(1, Ordering::Relaxed);
        (before < WAITING_FOR_LEADER_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
