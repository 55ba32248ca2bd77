//! From the command line to one call and its answer.

use std::time::{Duration, SystemTime};

use prost_types::{FieldMask, Timestamp};
use stock_client::{Client, ClientBuilder, Error};
use stock_proto::stock::admin::v1::ForceReleaseRequest;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{
    AdjustRequest, AmendRequest, ConfirmRequest, Consistency, Coordinates, ErrorReason,
    ExtendRequest, FulfillRequest, GetAvailabilityRequest, GetReservationRequest,
    ListReservationsRequest, ListReservationsResponse, Location, MovementLine, PositionPolicy,
    PutLocationRequest, ReadOptions, RecordReceiptsRequest, RecordSaleRequest, ReleaseRequest,
    ReserveRequest, ResponseHeader, SetPositionPolicyRequest, amend_response, location,
    reserve_response,
};
use uuid::Uuid;

use crate::answer::{Answer, Movement};
use crate::args::{
    Adjust, Amend, Ask, Availability, Cli, Command, Confirm, Document, Extend, Get, List,
    LocationCommand, LocationPut, LocationType, Part, PolicyCommand, PolicySet, Receive, Release,
    Reserve, Sale, StateName,
};
use crate::context;
use crate::context::file::ContextFile;
use crate::context::settings::Settings;
use crate::failure::{Failure, by_document, by_request};
use crate::lines;
use crate::manual;
use crate::notation::{movement_lines, numbered};
use crate::operate;
use crate::operate::args::ClusterCommand;
use crate::options::Given;
use crate::port;

/// Does what the command line asks.
pub(crate) async fn run(cli: Cli, given: Given, file: ContextFile) -> Result<Answer, Failure> {
    let options = &cli.options;
    let ask = match cli.command {
        Command::Ask(ask) => ask,
        Command::Context(command) => {
            let told = context::run(command, options, given, file)?;
            return Ok(Answer::Context(told));
        }
        Command::Completion { shell } => return Ok(Answer::Text(manual::completion(shell)?)),
        Command::Manual { dir } => return Ok(Answer::Text(manual::write(&dir)?)),
    };
    let settings = Settings::of(options, given, &file)?;
    let client = &connect(&settings, options.timeout).await?;
    match ask {
        Ask::Location(LocationCommand::Put(args)) => put_location(client, args).await,
        Ask::Location(LocationCommand::List) => {
            Ok(Answer::Locations(client.list_locations().await?))
        }
        Ask::Receive(args) => receive(client, args).await,
        Ask::Reserve(args) => reserve(client, args).await,
        Ask::Confirm(args) => confirm(client, args).await,
        Ask::Release(args) => release(client, args).await,
        Ask::Fulfill(args) => fulfill(client, args).await,
        Ask::Extend(args) => extend(client, args).await,
        Ask::Amend(args) => amend(client, args).await,
        Ask::Get(args) => get(client, args).await,
        Ask::List(args) => list(client, args).await,
        Ask::Availability(args) => availability(client, args).await,
        Ask::Sale(args) => sale(client, args).await,
        Ask::Adjust(args) => adjust(client, args).await,
        Ask::Policy(PolicyCommand::Set(args)) => set_policy(client, args).await,
        Ask::Cluster(ClusterCommand::Status) => operate::status(client, options.timeout).await,
        Ask::Cluster(ClusterCommand::Replicas(args)) => {
            operate::replication(client, args.replicas, args.request).await
        }
        Ask::Cluster(ClusterCommand::Version(args)) => operate::version(client, args.command).await,
        Ask::Node(command) => operate::node(client, command).await,
        Ask::Shard(command) => operate::shard(client, command).await,
        Ask::Leader(command) => operate::leader(client, command).await,
        Ask::Replica(command) => operate::replica(client, command).await,
        Ask::Audit => operate::audit(client).await,
        Ask::Unsafe(command) => operate::last_resort(client, command).await,
    }
}

async fn connect(settings: &Settings, timeout: Duration) -> Result<Client, Failure> {
    let builder = Client::builder()
        .call_timeout(timeout)
        .start_timeout(timeout);
    let endpoints = settings.endpoints.value.iter();
    let mut builder = endpoints.fold(builder, ClientBuilder::endpoint);
    if let Some(cluster) = &settings.cluster.value {
        builder = builder.cluster(cluster);
    }
    match builder.connect().await {
        Ok(client) => Ok(client),
        Err(error) => Err(unanswered(error, &settings.endpoints.value).await),
    }
}

/// Why there is no client, with a look at what is there instead of a node.
async fn unanswered(error: Error, endpoints: &[String]) -> Failure {
    let is_silence = matches!(error, Error::Unreachable { .. });
    match is_silence && error.reason() != ErrorReason::WrongCluster {
        true => Failure::Unanswered {
            found: port::look(endpoints).await,
            error,
        },
        false => error.into(),
    }
}

/// The calls that answer with a reservation alone do so in the same two fields.
macro_rules! reservation_of {
    ($answer:expr) => {{
        let answer = $answer;
        let reservation = answer.reservation;
        Answer::Reservation {
            header: answer.header,
            reservation: reservation.ok_or_else(|| Error::malformed(NO_OUTCOME))?,
        }
    }};
}

async fn reserve(client: &Client, args: Reserve) -> Result<Answer, Failure> {
    let request_id = args.request.or_new(client);
    let request = ReserveRequest {
        request_id: request_id.clone(),
        lines: args.lines.into_iter().map(Into::into).collect(),
        ttl: args.ttl.map(duration).transpose()?,
        order_reference: args.order,
        channel: args.channel,
    };
    let answer = client.reserve(request).await;
    let answer = answer.map_err(by_request(request_id))?;
    match answer.outcome {
        Some(reserve_response::Outcome::Reservation(reservation)) => Ok(Answer::Reservation {
            header: answer.header,
            reservation,
        }),
        Some(reserve_response::Outcome::Shortage(shortage)) => Ok(Answer::Shortage {
            header: answer.header,
            shortage,
        }),
        None => Err(Error::malformed(NO_OUTCOME).into()),
    }
}

async fn amend(client: &Client, args: Amend) -> Result<Answer, Failure> {
    let request_id = args.request.or_new(client);
    let request = AmendRequest {
        request_id: request_id.clone(),
        reservation_id: args.reservation_id,
        lines: args.lines.into_iter().map(Into::into).collect(),
        ttl: args.ttl.map(duration).transpose()?,
    };
    let answer = client.amend(request).await;
    let answer = answer.map_err(by_request(request_id))?;
    match answer.outcome {
        Some(amend_response::Outcome::Reservation(reservation)) => Ok(Answer::Reservation {
            header: answer.header,
            reservation,
        }),
        Some(amend_response::Outcome::Shortage(shortage)) => Ok(Answer::Shortage {
            header: answer.header,
            shortage,
        }),
        None => Err(Error::malformed(NO_OUTCOME).into()),
    }
}

async fn confirm(client: &Client, args: Confirm) -> Result<Answer, Failure> {
    let request_id = args.request.or_new(client);
    let request = ConfirmRequest {
        request_id: request_id.clone(),
        reservation_id: args.reservation_id,
        pickup_within: args.pickup_within.map(duration).transpose()?,
    };
    let answer = client.confirm(request).await;
    Ok(reservation_of!(answer.map_err(by_request(request_id))?))
}

async fn release(client: &Client, args: Release) -> Result<Answer, Failure> {
    let Release { part: args, force } = args;
    let request_id = args.request.or_new(client);
    if let Some(reason) = force {
        let request = ForceReleaseRequest {
            request_id: request_id.clone(),
            reservation_id: args.reservation_id,
            lines: args.lines.into_iter().map(Into::into).collect(),
            reason,
        };
        let answer = client.force_release(request).await;
        return Ok(reservation_of!(answer.map_err(by_request(request_id))?));
    }
    let request = ReleaseRequest {
        request_id: request_id.clone(),
        reservation_id: args.reservation_id,
        lines: args.lines.into_iter().map(Into::into).collect(),
    };
    let answer = client.release(request).await;
    Ok(reservation_of!(answer.map_err(by_request(request_id))?))
}

async fn fulfill(client: &Client, args: Part) -> Result<Answer, Failure> {
    let request_id = args.request.or_new(client);
    let request = FulfillRequest {
        request_id: request_id.clone(),
        reservation_id: args.reservation_id,
        lines: args.lines.into_iter().map(Into::into).collect(),
    };
    let answer = client.fulfill(request).await;
    Ok(reservation_of!(answer.map_err(by_request(request_id))?))
}

async fn extend(client: &Client, args: Extend) -> Result<Answer, Failure> {
    let request_id = args.request.or_new(client);
    let request = ExtendRequest {
        request_id: request_id.clone(),
        reservation_id: args.reservation_id,
        ttl: Some(duration(args.ttl)?),
    };
    let answer = client.extend(request).await;
    Ok(reservation_of!(answer.map_err(by_request(request_id))?))
}

async fn get(client: &Client, args: Get) -> Result<Answer, Failure> {
    let request = GetReservationRequest {
        reservation_id: args.reservation_id,
        // Who looks after a reserve expects to find it, whichever node answers.
        read: Some(ReadOptions::linearizable()),
    };
    Ok(reservation_of!(client.get_reservation(request).await?))
}

/// Pages until there are as many as shall be shown.
async fn list(client: &Client, args: List) -> Result<Answer, Failure> {
    let states = args.state.iter().map(|state| match state {
        StateName::Held => State::Held,
        StateName::Confirmed => State::Confirmed,
        StateName::Fulfilled => State::Fulfilled,
        StateName::Released => State::Released,
        StateName::Expired => State::Expired,
    });
    let due_before = args.due_within.map(|within| SystemTime::now() + within);
    let mut request = ListReservationsRequest {
        order_reference: args.order,
        channel: args.channel,
        sku: args.sku,
        location: args.location,
        states: states.map(i32::from).collect(),
        due_before: due_before.map(Into::into),
        created_after: args.created_after.map(Into::into),
        // Who looks after a reserve expects to find it, whichever node answers.
        read: Some(ReadOptions::linearizable()),
        ..ListReservationsRequest::default()
    };
    let limit = args.limit.get();
    let mut all = ListReservationsResponse::default();
    loop {
        let left = limit.saturating_sub(all.reservations.len());
        request.page_size = i32::try_from(left).unwrap_or(i32::MAX).max(1);
        let page = client.list_reservations_page(request.clone()).await?;
        all.reservations.extend(page.reservations);
        match &mut all.header {
            Some(header) => header.join(page.header.unwrap_or_default()),
            None => all.header = page.header,
        }
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.reservations.len() >= limit {
            all.reservations.truncate(limit);
            return Ok(Answer::Listed(all));
        }
        request.page_token.clone_from(&all.next_page_token);
    }
}

async fn availability(client: &Client, args: Availability) -> Result<Answer, Failure> {
    let mut seen = args.at_least.into_iter();
    let mut read = seen.next().map(|mut first| {
        seen.for_each(|next| first.join(next));
        ReadOptions::at_least(&first)
    });
    if args.linearizable {
        read.get_or_insert_default()
            .set_consistency(Consistency::Linearizable);
    }
    let request = GetAvailabilityRequest {
        keys: args.keys.into_iter().map(Into::into).collect(),
        read,
    };
    Ok(Answer::Availability(
        client.get_availability(request).await?,
    ))
}

async fn receive(client: &Client, args: Receive) -> Result<Answer, Failure> {
    let (document, source, at) = args.document.or_new("receipt");
    let units = match &args.file {
        Some(path) => lines::read(path)?,
        None => numbered(args.lines),
    };
    let lines = movement_lines(units, at);
    let messages = lines.chunks(LINES_PER_MESSAGE);
    let messages = messages.map(|lines| RecordReceiptsRequest {
        source: source.clone(),
        document: document.clone(),
        lines: lines.to_vec(),
    });
    let answer = client.record_receipts(messages).await;
    let answer = answer.map_err(by_document(&document, at))?;
    movements(
        Movement::Receipt,
        document,
        lines,
        answer.header,
        answer.verdicts,
    )
}

async fn sale(client: &Client, args: Sale) -> Result<Answer, Failure> {
    let (document, source, at) = args.document.or_new("sale");
    let lines = movement_lines(numbered(args.lines), at);
    let request = RecordSaleRequest {
        source,
        document: document.clone(),
        lines: lines.clone(),
    };
    let answer = client.record_sale(request).await;
    let answer = answer.map_err(by_document(&document, at))?;
    movements(
        Movement::Sale,
        document,
        lines,
        answer.header,
        answer.verdicts,
    )
}

async fn adjust(client: &Client, args: Adjust) -> Result<Answer, Failure> {
    let (document, source, at) = args.document.or_new("adjust");
    let lines = movement_lines(numbered(args.lines), at);
    let request = AdjustRequest {
        source,
        document: document.clone(),
        lines: lines.clone(),
        reason: args.reason,
    };
    let answer = client.adjust(request).await;
    let answer = answer.map_err(by_document(&document, at))?;
    movements(
        Movement::Adjustment,
        document,
        lines,
        answer.header,
        answer.verdicts,
    )
}

fn movements(
    movement: Movement,
    document: String,
    lines: Vec<MovementLine>,
    header: Option<ResponseHeader>,
    verdicts: Vec<stock_proto::stock::v1::LineVerdict>,
) -> Result<Answer, Failure> {
    if verdicts.len() != lines.len() {
        return Err(Error::malformed("a document has one verdict for each line").into());
    }
    Ok(Answer::Movements {
        header,
        movement,
        document,
        lines,
        verdicts,
    })
}

async fn put_location(client: &Client, args: LocationPut) -> Result<Answer, Failure> {
    let request_id = args.request.or_new(client);
    let mut location = Location {
        location_id: args.location_id,
        name: args.name,
        gln: args.gln,
        coordinates: args
            .lat
            .zip(args.lon)
            .map(|(latitude, longitude)| Coordinates {
                latitude,
                longitude,
            }),
        ..Location::default()
    };
    location.set_type(match args.location_type {
        LocationType::Warehouse => location::Type::Warehouse,
        LocationType::Store => location::Type::Store,
    });
    let request = PutLocationRequest {
        request_id: request_id.clone(),
        location: Some(location),
    };
    let answer = client.put_location(request).await;
    Ok(Answer::Location(answer.map_err(by_request(request_id))?))
}

async fn set_policy(client: &Client, args: PolicySet) -> Result<Answer, Failure> {
    let request_id = args.request.or_new(client);
    // What is not named stays as it is.
    let named = [
        args.safety_stock.map(|_| "safety_stock"),
        args.backorder_limit.map(|_| "backorder_limit"),
    ];
    let request = SetPositionPolicyRequest {
        request_id: request_id.clone(),
        sku: args.position.sku,
        location: args.position.location,
        policy: Some(PositionPolicy {
            safety_stock: args.safety_stock.unwrap_or_default(),
            backorder_limit: args.backorder_limit.unwrap_or_default(),
        }),
        update_mask: Some(FieldMask {
            paths: named.into_iter().flatten().map(str::to_owned).collect(),
        }),
    };
    let answer = client.set_position_policy(request).await;
    Ok(Answer::Policy(answer.map_err(by_request(request_id))?))
}

/// Lines that travel in one message: well within what a message may have.
const LINES_PER_MESSAGE: usize = 1_000;

const NO_OUTCOME: &str = "an answer holds a reservation or a shortage";

impl Document {
    /// Its name, who reports it, and when it happened.
    fn or_new(self, kind: &str) -> (String, Option<String>, Timestamp) {
        let document = self
            .document
            .unwrap_or_else(|| format!("{kind}-{}", Uuid::now_v7()));
        let at = self.occurred_at.map_or_else(stock_client::now, Into::into);
        (document, self.source, at)
    }
}

/// A time that no protobuf duration can hold is a mistake of the command line; any other is the
/// cluster's to judge.
fn duration(duration: Duration) -> Result<prost_types::Duration, Failure> {
    prost_types::Duration::try_from(duration)
        .map_err(|_| Failure::Usage("that time is far too long; the longest is 7d".into()))
}
