//! A reserve: from its message to a command of its shard, and from the outcome to a message.

use rand::Rng;
use stock_core::limits::TTL_MS_DEFAULT;
use stock_core::{
    Action, Amend, Command, Line, Location, Operation, Outcome, Over, Principal, Request,
    ReservationId, Reserve, Stamp,
};
use stock_proto::stock::v1 as api;

use crate::Rejection;
use crate::convert::{self, Held};
use crate::fields::Fields;

/// Requests of one `BatchReserve`, and of one message of `ReserveStream`.
const BATCH_MAX: usize = 1_000;

/// Who asks, and what the edge knows that is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Stock shards of the cluster.
    pub shards: u32,
    /// Cluster time, as far as the edge knows it.
    pub time: Stamp,
}

/// The shard that a basket's command is for, and the command, if everything in the message is good.
/// Where the basket lives in several shards it is for its home, and the others have to be asked,
/// too.
///
/// # Errors
///
/// [`Rejection::Invalid`] with every field that is not.
pub fn command(call: &api::ReserveRequest, asker: Asker<'_>) -> Result<(u32, Command), Rejection> {
    checked(call, asker, Fields::default())
}

/// As [`command`], for a message inside another.
pub fn checked(
    call: &api::ReserveRequest,
    asker: Asker<'_>,
    mut fields: Fields,
) -> Result<(u32, Command), Rejection> {
    let request_id = fields.request_id(&call.request_id);
    let lines = fields.basket(&call.lines);
    let ttl_ms = fields.ttl_ms("ttl", call.ttl.as_ref());
    let labels = fields.labels(call.order_reference.as_deref(), call.channel.as_deref());
    let checked = request_id.zip(lines).zip(ttl_ms.zip(labels));
    let ((request_id, lines), (ttl_ms, labels)) = fields.finish(checked)?;
    let home = home(&lines, asker.shards);
    // An id made when the request was, as far as its maker knows: ids of one shop sort by time.
    let id = ReservationId::compose(request_id.made_at(), home, rand::rng().next_u64());
    let operation = Operation::Reserve(Reserve {
        id,
        over: over(home, &lines, asker),
        lines,
        ttl_ms: ttl_ms.unwrap_or(TTL_MS_DEFAULT),
        labels,
    });
    let command = Command {
        principal: asker.principal.clone(),
        action: Action::Request(Request::of(request_id, &operation), operation),
    };
    Ok((home, command))
}

/// The shard that decides about a basket: that of the SKU which is first by its name, so that every
/// attempt finds the same one.
fn home(lines: &[Line], shards: u32) -> u32 {
    let names = lines.iter().map(|line| &line.sku);
    let first = names.min_by_key(|sku| sku.as_str());
    first.map_or(0, |sku| sku.shard(shards))
}

/// What it takes to hold lines that are not all in a reservation's home.
fn over(home: u32, lines: &[Line], asker: Asker<'_>) -> Option<Box<Over>> {
    let is_at_home = |line: &Line| line.sku.shard(asker.shards) == home;
    let over = || Over {
        shards: asker.shards,
        asked_at: asker.time,
        is_last_try: false,
    };
    (!lines.iter().all(is_at_home)).then(|| Box::new(over()))
}

/// The command that amends a reservation, for its home.
///
/// # Errors
///
/// [`Rejection::Invalid`] with every field that is not good.
pub fn amendment(call: &api::AmendRequest, asker: Asker<'_>) -> Result<(u32, Command), Rejection> {
    let mut fields = Fields::default();
    let request_id = fields.request_id(&call.request_id);
    let id = fields.reservation_id(&call.reservation_id, asker.shards);
    let lines = fields.basket(&call.lines);
    let ttl_ms = fields.ttl_ms("ttl", call.ttl.as_ref());
    let checked = fields.finish(request_id.zip(id).zip(lines.zip(ttl_ms)));
    let ((request_id, id), (lines, ttl_ms)) = checked?;
    let home = id.shard();
    let operation = Operation::Amend(Amend {
        id,
        over: over(home, &lines, asker),
        lines,
        ttl_ms,
    });
    let command = Command {
        principal: asker.principal.clone(),
        action: Action::Request(Request::of(request_id, &operation), operation),
    };
    Ok((home, command))
}

/// The location of each line of a reserve, or of an amendment.
pub fn locations(command: &Command) -> impl Iterator<Item = &Location> {
    let lines: &[Line] = match &command.action {
        Action::Request(_, Operation::Reserve(reserve)) => &reserve.lines,
        Action::Request(_, Operation::Amend(amend)) => &amend.lines,
        _ => &[],
    };
    lines.iter().map(|line| &line.location)
}

/// Refuses a reserve or an amendment that names a location which is not there: `first_unknown` is
/// the number of the first such line. `prefix` comes before the field's name.
pub fn check_known(
    command: &Command,
    first_unknown: Option<usize>,
    prefix: impl Fn() -> String,
) -> Result<(), Rejection> {
    match first_unknown.and_then(|line| Some((line, locations(command).nth(line)?))) {
        None => Ok(()),
        Some((line, location)) => Err(Rejection::UnknownLocation {
            field: format!("{}lines[{line}].location", prefix()),
            location: location.to_string(),
        }),
    }
}

/// What the caller is told of a reserve that was applied at this cluster time, but for the header.
///
/// # Errors
///
/// [`Rejection::Refused`].
pub fn response(stamp: Stamp, outcome: Outcome) -> Result<api::ReserveResponse, Rejection> {
    use api::reserve_response::Outcome;
    let outcome = match convert::held(outcome, stamp)? {
        Held::Reservation(reservation) => Outcome::Reservation(reservation),
        Held::Shortage(shortage) => Outcome::Shortage(shortage),
    };
    Ok(api::ReserveResponse {
        header: None,
        outcome: Some(outcome),
    })
}

/// Refuses a message with too many requests, or none.
pub fn check_size(requests: usize) -> Result<(), Rejection> {
    if (1..=BATCH_MAX).contains(&requests) {
        return Ok(());
    }
    let mut fields = Fields::default();
    fields.refuse(
        "requests",
        format!("has {requests} requests; a message has 1 to {BATCH_MAX}"),
    );
    fields.finish(None)
}
