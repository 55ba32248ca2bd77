//! `ReservationService`: hold units, and end the hold.

use std::sync::Arc;

use futures_util::future::join_all;
use rand::Rng;
use stock_core::limits::TTL_MS_DEFAULT;
use stock_core::{
    Action, Amend, Command, Line, Location, Operation, Request as Asked, ReservationId, Reserve,
    Stamp,
};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::reservation_service_server::ReservationService;
use tonic::{Request, Response, Status};

use super::changes::{self, Change};
use super::convert::{self, Held};
use super::deadline::Deadline;
use super::edge::{BYTES_PER_PROPOSAL_MAX, COMMANDS_PER_PROPOSAL_MAX, Edge};
use super::error::ApiError;
use super::fields::Fields;
use super::meter::Meter;
use super::{Applied, read_freshness};
use crate::log_codec::CommandsBuilder;
use crate::worker::event::{Answer, Failure, GroupId, Outcome, Question};

/// Requests of one `BatchReserve`.
const BATCH_MAX: usize = 1_000;

/// The service.
pub(super) struct Reservations {
    edge: Arc<Edge>,
    meters: Meters,
}

struct Meters {
    reserve: Meter,
    batch_reserve: Meter,
    confirm: Meter,
    release: Meter,
    fulfill: Meter,
    extend: Meter,
    amend: Meter,
    get: Meter,
}

impl Reservations {
    /// On this edge.
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        let meters = Meters {
            reserve: Meter::new("Reserve"),
            batch_reserve: Meter::new("BatchReserve"),
            confirm: Meter::new("Confirm"),
            release: Meter::new("Release"),
            fulfill: Meter::new("Fulfill"),
            extend: Meter::new("Extend"),
            amend: Meter::new("Amend"),
            get: Meter::new("GetReservation"),
        };
        Self { edge, meters }
    }

    async fn do_reserve(
        &self,
        call: &api::ReserveRequest,
    ) -> Result<api::ReserveResponse, ApiError> {
        let (shard, command) = self.reserve_command(call, Fields::default())?;
        let locations: Vec<_> = locations(&command).collect();
        self.edge.check_locations(&locations).await?;
        let applied = self.propose(shard, &command).await?;
        reserve_response(shard, applied)
    }

    fn reserve_command(
        &self,
        call: &api::ReserveRequest,
        mut fields: Fields,
    ) -> Result<(u32, Command), ApiError> {
        let request = fields.request(&call.request_id, call);
        let lines = fields.basket(&call.lines);
        let ttl_ms = fields.ttl_ms("ttl", call.ttl.as_ref());
        let checked = request.zip(lines).zip(ttl_ms);
        let ((request, lines), ttl_ms) = fields.finish(checked)?;
        let shard = self.one_shard(&lines)?;
        let operation = Operation::Reserve(Reserve {
            id: new_id(request, shard),
            lines,
            ttl_ms: ttl_ms.unwrap_or(TTL_MS_DEFAULT),
        });
        Ok((shard, self.command(request, operation)))
    }

    /// The shard that has all of a basket's SKUs.
    fn one_shard(&self, lines: &[Line]) -> Result<u32, ApiError> {
        let mut shards = lines.iter().map(|line| line.sku.shard(self.edge.shards()));
        let first = shards.next().unwrap_or(0);
        if shards.all(|shard| shard == first) {
            Ok(first)
        } else {
            Err(ApiError::SeveralShards)
        }
    }

    fn command(&self, request: Asked, operation: Operation) -> Command {
        Command {
            principal: self.edge.principal.clone(),
            action: Action::Request(request, operation),
        }
    }

    async fn propose(&self, shard: u32, command: &Command) -> Result<One, ApiError> {
        let mut commands = CommandsBuilder::default();
        commands.push(command);
        let applied = self
            .edge
            .propose(GroupId::of_shard(shard), commands.take())
            .await?;
        one(applied)
    }

    /// A change of a reservation that exists: goes to the shard its id carries.
    async fn change(&self, call: &impl Change) -> Result<Changed, ApiError> {
        let (request, id, operation) = changes::check(call, self.edge.shards())?;
        let shard = id.shard();
        let applied = self
            .propose(shard, &self.command(request, operation))
            .await?;
        Ok(Changed {
            reservation: convert::settled(applied.outcome, applied.stamp)?,
            shard,
            index: applied.index,
        })
    }

    async fn do_batch(
        &self,
        call: &api::BatchReserveRequest,
    ) -> Result<api::BatchReserveResponse, ApiError> {
        let size = call.requests.len();
        if size == 0 || size > BATCH_MAX {
            let mut fields = Fields::default();
            fields.refuse(
                "requests",
                format!("has {size} requests; a batch has 1 to {BATCH_MAX}"),
            );
            return fields.finish(None);
        }
        let mut results: Vec<Option<Result<api::ReserveResponse, ApiError>>> = Vec::new();
        let mut by_shard: Vec<ShardBatch> = Vec::new();
        by_shard.resize_with(self.edge.shards() as usize, ShardBatch::default);
        let mut proposals = Vec::new();
        let commands: Vec<_> = call
            .requests
            .iter()
            .enumerate()
            .map(|(number, request)| {
                self.reserve_command(request, Fields::within(format!("requests[{number}].")))
            })
            .collect();
        // This node catches up at most once; after that, what it does not know does not exist.
        let good = commands.iter().flatten();
        let locations: Vec<_> = good.flat_map(|(_, command)| locations(command)).collect();
        self.edge.first_unknown_location(&locations).await?;
        for (number, command) in commands.into_iter().enumerate() {
            let known = command.and_then(|(shard, command)| {
                self.check_known(number, &command)?;
                Ok((shard, command))
            });
            match known {
                Ok((shard, command)) => {
                    let batch = &mut by_shard[shard as usize];
                    batch.commands.push(&command);
                    batch.numbers.push(number);
                    if batch.is_full() {
                        proposals.push((shard, std::mem::take(batch)));
                    }
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        let rest = by_shard
            .into_iter()
            .enumerate()
            .filter(|(_, batch)| !batch.numbers.is_empty());
        proposals.extend(rest.map(|(shard, batch)| (shard as u32, batch)));

        let answers = proposals.into_iter().map(|(shard, mut batch)| async move {
            let applied = self
                .edge
                .propose(GroupId::of_shard(shard), batch.commands.take())
                .await;
            (shard, batch.numbers, applied)
        });
        for (shard, numbers, applied) in join_all(answers).await {
            match applied {
                Ok(applied) => {
                    let (index, stamp) = (applied.applied_index, applied.stamp);
                    for (number, outcome) in numbers.into_iter().zip(applied.outcomes) {
                        let applied = One {
                            index,
                            stamp,
                            outcome,
                        };
                        let response = reserve_response(shard, applied);
                        results[number] = Some(response.map_err(|error| match error {
                            ApiError::Refused(refusal) => {
                                ApiError::RefusedInBatch { number, refusal }
                            }
                            error => error,
                        }));
                    }
                }
                Err(ApiError::Failed(failure)) => {
                    for number in numbers {
                        results[number] = Some(Err(ApiError::Failed(failure)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let results = results.into_iter().map(|result| {
            let result = result.unwrap_or(Err(ApiError::Failed(Failure::OutcomeUnknown)));
            batch_result(result)
        });
        Ok(api::BatchReserveResponse {
            results: results.collect(),
        })
    }

    /// Refuses a request of a batch that names a location this node does not know.
    fn check_known(&self, number: usize, command: &Command) -> Result<(), ApiError> {
        let unknown = self.edge.view.first_unknown(locations(command));
        match unknown.and_then(|line| Some((line, locations(command).nth(line)?))) {
            None => Ok(()),
            Some((line, location)) => Err(ApiError::UnknownLocation {
                field: format!("requests[{number}].lines[{line}].location"),
                location: location.to_string(),
            }),
        }
    }
}

/// Part of a batch, all for one shard.
#[derive(Default)]
struct ShardBatch {
    commands: CommandsBuilder,
    /// Which requests of the batch they are.
    numbers: Vec<usize>,
}

impl ShardBatch {
    fn is_full(&self) -> bool {
        self.commands.count() >= COMMANDS_PER_PROPOSAL_MAX
            || self.commands.bytes() >= BYTES_PER_PROPOSAL_MAX
    }
}

/// A reservation after a change.
struct Changed {
    reservation: api::Reservation,
    shard: u32,
    index: u64,
}

/// The outcome of a single command.
struct One {
    index: u64,
    stamp: Stamp,
    outcome: Outcome,
}

fn one(applied: Applied) -> Result<One, ApiError> {
    let outcome = applied.outcomes.into_iter().next();
    Ok(One {
        index: applied.applied_index,
        stamp: applied.stamp,
        outcome: outcome.ok_or(ApiError::Failed(Failure::OutcomeUnknown))?,
    })
}

/// The location of each line of a reserve.
fn locations(command: &Command) -> impl Iterator<Item = &Location> {
    let lines: &[Line] = match &command.action {
        Action::Request(_, Operation::Reserve(reserve)) => &reserve.lines,
        _ => &[],
    };
    lines.iter().map(|line| &line.location)
}

/// An id made when the request was, as far as its maker knows: ids of one shop sort by time.
fn new_id(request: Asked, shard: u32) -> ReservationId {
    ReservationId::compose(request.id.made_at(), shard, rand::rng().next_u64())
}

fn reserve_response(shard: u32, applied: One) -> Result<api::ReserveResponse, ApiError> {
    use api::reserve_response::Outcome;
    let outcome = match convert::held(applied.outcome, applied.stamp)? {
        Held::Reservation(reservation) => Outcome::Reservation(reservation),
        Held::Shortage(shortage) => Outcome::Shortage(shortage),
    };
    Ok(api::ReserveResponse {
        outcome: Some(outcome),
        shard,
        applied_index: applied.index,
    })
}

fn batch_result(result: Result<api::ReserveResponse, ApiError>) -> api::BatchReserveResult {
    use api::batch_reserve_result::Result as Out;
    let result = match result {
        Ok(response) => Out::Response(response),
        Err(error) => {
            let status = Status::from(error);
            // The details of a status are a google.rpc.Status with all three fields.
            let details: Option<tonic_types::Status> =
                prost::Message::decode(status.details()).ok();
            Out::Error(tonic_types::Status {
                code: status.code().into(),
                message: status.message().to_owned(),
                details: details.map(|status| status.details).unwrap_or_default(),
            })
        }
    };
    api::BatchReserveResult {
        result: Some(result),
    }
}

#[tonic::async_trait]
impl ReservationService for Reservations {
    async fn reserve(
        &self,
        request: Request<api::ReserveRequest>,
    ) -> Result<Response<api::ReserveResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        self.meters
            .reserve
            .run(deadline, &call.request_id, self.do_reserve(&call))
            .await
    }

    async fn batch_reserve(
        &self,
        request: Request<api::BatchReserveRequest>,
    ) -> Result<Response<api::BatchReserveResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let id = call
            .requests
            .first()
            .map_or("", |request| &request.request_id);
        self.meters
            .batch_reserve
            .run(deadline, id, self.do_batch(&call))
            .await
    }

    async fn confirm(
        &self,
        request: Request<api::ConfirmRequest>,
    ) -> Result<Response<api::ConfirmResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let done = async {
            let changed = self.change(&call).await?;
            Ok(api::ConfirmResponse {
                reservation: Some(changed.reservation),
                shard: changed.shard,
                applied_index: changed.index,
            })
        };
        self.meters
            .confirm
            .run(deadline, &call.request_id, done)
            .await
    }

    async fn release(
        &self,
        request: Request<api::ReleaseRequest>,
    ) -> Result<Response<api::ReleaseResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let done = async {
            let changed = self.change(&call).await?;
            Ok(api::ReleaseResponse {
                reservation: Some(changed.reservation),
                shard: changed.shard,
                applied_index: changed.index,
            })
        };
        self.meters
            .release
            .run(deadline, &call.request_id, done)
            .await
    }

    async fn fulfill(
        &self,
        request: Request<api::FulfillRequest>,
    ) -> Result<Response<api::FulfillResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let done = async {
            let changed = self.change(&call).await?;
            Ok(api::FulfillResponse {
                reservation: Some(changed.reservation),
                shard: changed.shard,
                applied_index: changed.index,
            })
        };
        self.meters
            .fulfill
            .run(deadline, &call.request_id, done)
            .await
    }

    async fn extend(
        &self,
        request: Request<api::ExtendRequest>,
    ) -> Result<Response<api::ExtendResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let done = async {
            let changed = self.change(&call).await?;
            Ok(api::ExtendResponse {
                reservation: Some(changed.reservation),
                shard: changed.shard,
                applied_index: changed.index,
            })
        };
        self.meters
            .extend
            .run(deadline, &call.request_id, done)
            .await
    }

    async fn amend(
        &self,
        request: Request<api::AmendRequest>,
    ) -> Result<Response<api::AmendResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let done = async {
            let mut fields = Fields::default();
            let request = fields.request(&call.request_id, &call);
            let id = fields.reservation_id(&call.reservation_id, self.edge.shards());
            let lines = fields.basket(&call.lines);
            let ttl_ms = fields.ttl_ms("ttl", call.ttl.as_ref());
            let checked = fields.finish(request.zip(id).zip(lines.zip(ttl_ms)));
            let ((request, id), (lines, ttl_ms)) = checked?;
            if self.one_shard(&lines)? != id.shard() {
                return Err(ApiError::SeveralShards);
            }
            let locations: Vec<_> = lines.iter().map(|line| line.location.clone()).collect();
            self.edge
                .check_locations(&locations.iter().collect::<Vec<_>>())
                .await?;
            let operation = Operation::Amend(Amend { id, lines, ttl_ms });
            let shard = id.shard();
            let applied = self
                .propose(shard, &self.command(request, operation))
                .await?;
            use api::amend_response::Outcome;
            let outcome = match convert::held(applied.outcome, applied.stamp)? {
                Held::Reservation(reservation) => Outcome::Reservation(reservation),
                Held::Shortage(shortage) => Outcome::Shortage(shortage),
            };
            Ok(api::AmendResponse {
                outcome: Some(outcome),
                shard,
                applied_index: applied.index,
            })
        };
        self.meters
            .amend
            .run(deadline, &call.request_id, done)
            .await
    }

    async fn get_reservation(
        &self,
        request: Request<api::GetReservationRequest>,
    ) -> Result<Response<api::GetReservationResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        let call = request.into_inner();
        let done = async {
            let mut fields = Fields::default();
            let id = fields.reservation_id(&call.reservation_id, self.edge.shards());
            let freshness = read_freshness(&mut fields, call.consistency, call.at_least_index);
            let (id, freshness) = fields.finish(id.zip(freshness))?;
            let group = GroupId::of_shard(id.shard());
            match self
                .edge
                .ask(group, freshness, Question::Reservation(id))
                .await
            {
                Answer::Reservation {
                    reservation: Some(reservation),
                    applied_index,
                    stamp,
                } => Ok(api::GetReservationResponse {
                    reservation: Some(convert::reservation(&reservation, stamp)),
                    shard: id.shard(),
                    applied_index,
                }),
                Answer::Reservation { .. } => {
                    Err(ApiError::Refused(stock_core::Refusal::UnknownReservation))
                }
                Answer::Failed(failure) => Err(ApiError::Failed(failure)),
                Answer::Outcomes { .. } | Answer::Reached { .. } | Answer::Locations { .. } => {
                    Err(ApiError::Failed(Failure::TooFarBehind))
                }
            }
        };
        self.meters
            .get
            .run(deadline, &call.reservation_id, done)
            .await
    }
}
