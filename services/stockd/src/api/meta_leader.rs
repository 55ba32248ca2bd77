//! Calls that the leader of group 0 answers, wherever they come in: what operators want, and what
//! nodes that join ask for.

use std::future::Future;
use std::sync::Arc;

use stock_cluster::{Change, GroupId, Overview, RegistryCommand, RegistryOutcome};
use stock_core::{Request as Asked, RequestId};
use stock_node::answer::Failure;
use stock_node::way::{self, Answerer};
use stock_proto::stock::v1::ResponseHeader;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::edge::Edge;
use super::error::ApiError;
use super::front::{Call, Front};
use super::proxy;
use super::seen::Seen;

/// The way to the leader of group 0, and what is done there.
pub(super) struct MetaLeader {
    node: u64,
    /// This node's.
    pub(super) edge: Arc<Edge>,
    front: Arc<Front>,
}

impl MetaLeader {
    /// As `node` sees it.
    pub(super) fn new(node: u64, edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let (edge, front) = (Arc::clone(edge), Arc::clone(front));
        Self { node, edge, front }
    }

    /// Has a call answered: `there`, if another node leads, or else `here`.
    pub(super) async fn answer<C: Call, Answer, There, Here>(
        &self,
        request: Request<C>,
        there: impl FnOnce(Channel, Request<C>) -> There,
        here: impl FnOnce(C) -> Here,
    ) -> Result<Response<Answer>, Status>
    where
        There: Future<Output = Result<Response<Answer>, Status>>,
        Here: Future<Output = Result<Answer, ApiError>>,
    {
        let answer = async |call, caller: Caller| match self.elsewhere(caller) {
            Some(leader) => {
                let answer = there(leader, caller.send_on(call));
                let answer = proxy::answer(caller.deadline, answer).await?;
                Ok(answer.into_inner())
            }
            None => here(call).await,
        };
        self.front.run(request, answer).await
    }

    /// The edge of the leader, if that is another node.
    fn elsewhere(&self, caller: Caller) -> Option<Channel> {
        match way::of_operator(&self.edge.cluster, self.node, caller.is_node) {
            Answerer::Here => None,
            Answerer::Others(leader) => {
                let leader = leader.into_iter().next()?;
                Some(self.edge.proxy.channel(leader))
            }
        }
    }

    /// What this node knows as the leader.
    pub(super) fn overview(&self) -> Result<Overview, ApiError> {
        self.edge.operations.overview().map_err(ApiError::Failed)
    }

    /// The header of an answer from what this node knows.
    pub(super) fn header(&self) -> Option<ResponseHeader> {
        let (index, time) = self.edge.view.catalog_reached_at();
        let seen = Seen::read(GroupId::META, index, time);
        Some(self.edge.header(seen))
    }

    /// Has group 0 carry a change out: what came of it, the index of its entry, and the header of
    /// the answer.
    pub(super) async fn change(
        &self,
        request_id: Option<RequestId>,
        change: Change,
    ) -> Result<Done, ApiError> {
        let command = RegistryCommand {
            principal: self.edge.principal.clone(),
            request: request_id.map(|id| Asked {
                id,
                fingerprint: change.fingerprint(),
            }),
            change,
        };
        let changed = self.edge.operations.change(command).await;
        let changed = changed.map_err(ApiError::Failed)?;
        let seen = Seen::read(GroupId::META, changed.applied_index, changed.stamp);
        match changed.outcome {
            RegistryOutcome::Refused(refusal) => Err(ApiError::Registry(refusal)),
            outcome => Ok(Done {
                outcome,
                index: changed.applied_index,
                header: Some(self.edge.header(seen)),
            }),
        }
    }
}

/// A change of the registry.
pub(super) struct Done {
    /// What came of it.
    pub(super) outcome: RegistryOutcome,
    /// The index of its entry.
    pub(super) index: u64,
    /// For the answer.
    pub(super) header: Option<ResponseHeader>,
}

impl Done {
    /// The node that joined, its generation floor, and the index that let its directory in.
    pub(super) fn joined(&self) -> Result<(u64, u32, u64), ApiError> {
        match &self.outcome {
            RegistryOutcome::Joined {
                node,
                generation_floor,
                since,
            } => Ok((*node, *generation_floor, *since)),
            RegistryOutcome::Done | RegistryOutcome::Begun { .. } | RegistryOutcome::Refused(_) => {
                Err(ApiError::Failed(Failure::OutcomeUnknown))
            }
        }
    }
}
