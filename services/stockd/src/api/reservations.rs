//! `ReservationService`: hold units, and end the hold.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use stock_api::basket::{self, check_size};
use stock_api::changes::{self, Change};
use stock_api::convert::{self, Held};
use stock_api::fields::Fields;
use stock_api::{Rejection, answer_size};
use stock_cluster::GroupId;
use stock_core::{Action, Command, Refusal, ReservationId};
use stock_node::answer::{Failure, Freshness};
use stock_node::basket::Coordinator;
use stock_node::way::{self, Answerer};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::batch_reserve_result::Result as Slot;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reservation_service_server::ReservationService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::edge::Edge;
use super::error::ApiError;
use super::front::Front;
use super::over_shards::{CameOf, OverShards};
use super::reserve_stream::ReserveStream;
use super::seen::Seen;
use super::sorter::{Sorter, embedded};
use super::undecided::Known;
use super::wanted::Wanted;
use super::{listing, over_shards, proxy, reserve, undecided};

/// The service.
pub(super) struct Reservations {
    edge: Arc<Edge>,
    front: Arc<Front>,
    stop: CancellationToken,
}

impl Reservations {
    /// On this edge, until told to stop.
    pub(super) fn new(edge: &Arc<Edge>, front: &Arc<Front>, stop: CancellationToken) -> Self {
        let (edge, front) = (Arc::clone(edge), Arc::clone(front));
        Self { edge, front, stop }
    }

    async fn do_reserve(
        &self,
        call: &api::ReserveRequest,
    ) -> Result<api::ReserveResponse, ApiError> {
        let (shard, command) = reserve::command(call, self.edge.asker())?;
        let locations: Vec<_> = basket::locations(&command).collect();
        self.edge.check_locations(&locations).await?;
        match Coordinator::new(command) {
            Err(command) => {
                let applied = self.edge.propose_one(shard, &command).await?;
                reserve::answer(shard, applied, self.edge.incarnation())
            }
            Ok(begun) => {
                let came_of = Box::pin(over_shards::carry_out(&self.edge, begun)).await;
                let CameOf { said, seen, .. } = came_of;
                Ok(api::ReserveResponse {
                    outcome: basket::response(seen.time(), said?)?.outcome,
                    header: Some(self.edge.header(seen)),
                })
            }
        }
    }

    async fn do_batch(
        &self,
        call: &api::BatchReserveRequest,
    ) -> Result<api::BatchReserveResponse, ApiError> {
        let size = call.requests.len();
        check_size(size)?;
        let asker = self.edge.asker();
        let prefix = |number: usize| format!("requests[{number}].");
        let commands: Vec<_> = call
            .requests
            .iter()
            .enumerate()
            .map(|(number, request)| {
                let fields = Fields::within(prefix(number));
                basket::checked(request, asker, fields)
            })
            .collect();
        // This node catches up at most once; after that, what it does not know does not exist.
        let good = commands.iter().flatten();
        let locations: Vec<_> = good
            .flat_map(|(_, command)| basket::locations(command))
            .collect();
        self.edge.first_unknown_location(&locations).await?;
        let mut seen = Seen::default();
        let mut answers: Vec<Option<Slot>> = Vec::new();
        answers.resize_with(size, || None);
        let mut sorter = Sorter::default();
        let mut over_shards = OverShards::new(&self.edge);
        for (number, command) in commands.into_iter().enumerate() {
            let known = command
                .map_err(ApiError::from)
                .and_then(|(shard, command)| {
                    reserve::check_known(&self.edge, &command, || prefix(number))?;
                    Ok((shard, command))
                });
            match known {
                Ok((shard, command)) => match Coordinator::new(command) {
                    Ok(begun) => over_shards.add(number as u64, begun),
                    Err(command) => sorter.add(number as u64, shard, &command),
                },
                Err(error) => answers[number] = Some(Slot::Error(embedded(error))),
            }
        }
        answer_size::check_batch(&call.requests, &answers, self.edge.shards())?;
        let decided = join_all(sorter.take().map(|batch| batch.decide(&self.edge)));
        let (decided, came_of) = tokio::join!(decided, over_shards.collect::<Vec<_>>());
        let mut answered = Vec::with_capacity(size);
        for decided in decided {
            decided.note(&mut seen);
            answered.extend(decided.answers());
        }
        for (number, came_of) in came_of {
            seen.wrote_all(&came_of.seen);
            answered.push((number, came_of.answer()));
        }
        for (number, answer) in answered {
            let number = number as usize;
            answers[number] = Some(match answer {
                Ok(response) => Slot::Response(response),
                Err(ApiError::Rejected(Rejection::Refused(refusal))) => {
                    let refused = Rejection::RefusedInBatch { number, refusal };
                    Slot::Error(embedded(refused.into()))
                }
                Err(error) => Slot::Error(embedded(error)),
            });
        }
        let results = answers.into_iter().map(|answer| {
            let unknown = || Slot::Error(embedded(ApiError::Failed(Failure::OutcomeUnknown)));
            api::BatchReserveResult {
                result: Some(answer.unwrap_or_else(unknown)),
            }
        });
        Ok(api::BatchReserveResponse {
            header: Some(self.edge.header(seen)),
            results: results.collect(),
        })
    }
}

impl Reservations {
    async fn do_amend(&self, call: &api::AmendRequest) -> Result<api::AmendResponse, ApiError> {
        let (shard, command) = basket::amendment(call, self.edge.asker())?;
        let locations: Vec<_> = basket::locations(&command).collect();
        self.edge.check_locations(&locations).await?;
        let (seen, outcome) = undecided::carry_out(&self.edge, shard, command).await?;
        use api::amend_response::Outcome;
        let outcome = match convert::held(outcome, seen.time())? {
            Held::Reservation(reservation) => Outcome::Reservation(reservation),
            Held::Shortage(shortage) => Outcome::Shortage(shortage),
        };
        Ok(api::AmendResponse {
            header: Some(self.edge.header(seen)),
            outcome: Some(outcome),
        })
    }

    async fn do_get(
        &self,
        call: &api::GetReservationRequest,
        caller: Caller,
    ) -> Result<api::GetReservationResponse, ApiError> {
        let mut fields = Fields::default();
        let id = fields.reservation_id(&call.reservation_id, self.edge.shards());
        let wanted = Wanted::check(&mut fields, call.read.as_ref(), self.edge.shards());
        let (id, wanted) = fields.finish(id.zip(wanted))?;
        self.edge.check_incarnation(&wanted)?;
        let freshness = wanted.of_shard(id.shard());
        let group = GroupId::of_shard(id.shard());
        if let Answerer::Others(nodes) = way::of_read(&self.edge.cluster, group, caller.is_node) {
            return Box::pin(self.get_elsewhere(nodes, call, caller)).await;
        }
        match self.get_here(id, freshness).await {
            // The replica has gone since.
            Err(ApiError::Failed(Failure::NotLeader { .. })) if !caller.is_node => {
                let others = self.edge.cluster.others_with(group);
                Box::pin(self.get_elsewhere(others, call, caller)).await
            }
            answer => answer,
        }
    }

    /// What this node's replica knows of a reservation.
    async fn get_here(
        &self,
        id: ReservationId,
        freshness: Freshness,
    ) -> Result<api::GetReservationResponse, ApiError> {
        let group = GroupId::of_shard(id.shard());
        let known = undecided::look_up(&self.edge, id, freshness).await?;
        let Known {
            applied_index, now, ..
        } = known;
        match known.reservation {
            Some(found) => Ok(api::GetReservationResponse {
                header: Some(self.edge.header(Seen::read(group, applied_index, now))),
                reservation: Some(match known.is_pending {
                    true => convert::pending(&found, now),
                    false => convert::reservation(&found, now),
                }),
            }),
            None => Err(Refusal::UnknownReservation.into()),
        }
    }

    /// What another node knows of it: they are asked one after the other, until one of them has an
    /// answer. Its future is large and seldom needed: it is boxed.
    async fn get_elsewhere(
        &self,
        nodes: Vec<u64>,
        call: &api::GetReservationRequest,
        caller: Caller,
    ) -> Result<api::GetReservationResponse, ApiError> {
        let mut failed = ApiError::Failed(Failure::NotLeader { leader: None });
        for node in nodes {
            let mut client = ReservationServiceClient::new(self.edge.proxy.channel(node));
            let answer = client.get_reservation(caller.send_on(call.clone()));
            match proxy::answer(caller.deadline, answer).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(error) if proxy::another_may_know(&error) => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }
}

/// A change of a reservation that exists: goes to the shard its id carries.
pub(super) async fn change(edge: &Arc<Edge>, call: &impl Change) -> Result<Changed, ApiError> {
    let (request, id, operation) = changes::check(call, edge.shards())?;
    let command = Command {
        principal: edge.principal.clone(),
        action: Action::Request(request, operation),
    };
    let (seen, outcome) = undecided::carry_out(edge, id.shard(), command).await?;
    Ok(Changed {
        reservation: Some(convert::settled(outcome, seen.time())?),
        header: Some(edge.header(seen)),
    })
}

/// A reservation after a change.
pub(super) struct Changed {
    pub(super) header: Option<api::ResponseHeader>,
    pub(super) reservation: Option<api::Reservation>,
}

#[tonic::async_trait]
impl ReservationService for Reservations {
    async fn reserve(
        &self,
        request: Request<api::ReserveRequest>,
    ) -> Result<Response<api::ReserveResponse>, Status> {
        let reserve = async |call, _| self.do_reserve(&call).await;
        self.front.run(request, reserve).await
    }

    async fn batch_reserve(
        &self,
        request: Request<api::BatchReserveRequest>,
    ) -> Result<Response<api::BatchReserveResponse>, Status> {
        let reserve = async |call, _| self.do_batch(&call).await;
        self.front.run(request, reserve).await
    }

    type ReserveStreamStream = ReserveStream;

    async fn reserve_stream(
        &self,
        request: Request<Streaming<api::ReserveStreamRequest>>,
    ) -> Result<Response<ReserveStream>, Status> {
        self.front.check_cluster(request.metadata())?;
        Ok(Response::new(ReserveStream::new(
            Arc::clone(&self.edge),
            request,
            Arc::clone(&self.front),
            self.stop.clone(),
        )))
    }

    async fn confirm(
        &self,
        request: Request<api::ConfirmRequest>,
    ) -> Result<Response<api::ConfirmResponse>, Status> {
        let change = async |call, _| {
            let changed = change(&self.edge, &call).await?;
            Ok(api::ConfirmResponse {
                header: changed.header,
                reservation: changed.reservation,
            })
        };
        self.front.run(request, change).await
    }

    async fn release(
        &self,
        request: Request<api::ReleaseRequest>,
    ) -> Result<Response<api::ReleaseResponse>, Status> {
        let change = async |call, _| {
            let changed = change(&self.edge, &call).await?;
            Ok(api::ReleaseResponse {
                header: changed.header,
                reservation: changed.reservation,
            })
        };
        self.front.run(request, change).await
    }

    async fn fulfill(
        &self,
        request: Request<api::FulfillRequest>,
    ) -> Result<Response<api::FulfillResponse>, Status> {
        let change = async |call, _| {
            let changed = change(&self.edge, &call).await?;
            Ok(api::FulfillResponse {
                header: changed.header,
                reservation: changed.reservation,
            })
        };
        self.front.run(request, change).await
    }

    async fn extend(
        &self,
        request: Request<api::ExtendRequest>,
    ) -> Result<Response<api::ExtendResponse>, Status> {
        let change = async |call, _| {
            let changed = change(&self.edge, &call).await?;
            Ok(api::ExtendResponse {
                header: changed.header,
                reservation: changed.reservation,
            })
        };
        self.front.run(request, change).await
    }

    async fn amend(
        &self,
        request: Request<api::AmendRequest>,
    ) -> Result<Response<api::AmendResponse>, Status> {
        let amend = async |call, _| self.do_amend(&call).await;
        self.front.run(request, amend).await
    }

    async fn list_reservations(
        &self,
        request: Request<api::ListReservationsRequest>,
    ) -> Result<Response<api::ListReservationsResponse>, Status> {
        let list = async |call, caller| listing::list(&self.edge, call, caller).await;
        self.front.run(request, list).await
    }

    async fn get_reservation(
        &self,
        request: Request<api::GetReservationRequest>,
    ) -> Result<Response<api::GetReservationResponse>, Status> {
        let get = async |call, caller| self.do_get(&call, caller).await;
        self.front.run(request, get).await
    }
}
