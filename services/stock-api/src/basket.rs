//! A reserve: from its message to a command of its shard, and from the outcome to a message.

use rand::Rng;
use stock_core::limits::TTL_MS_DEFAULT;
use stock_core::{
    Action, Amend, Command, Line, Location, Operation, Outcome, Principal, Request, ReservationId,
    Reserve, Stamp,
};
use stock_proto::stock::v1 as api;

use crate::Rejection;
use crate::convert::{self, Held};
use crate::fields::Fields;

/// Requests of one `BatchReserve`, and of one message of `ReserveStream`.
const BATCH_MAX: usize = 1_000;

/// The shard of a basket, of so many, and the command that holds it in a principal's name, if
/// everything in the message is good.
///
/// # Errors
///
/// [`Rejection::Invalid`] with every field that is not, and [`Rejection::SeveralShards`].
pub fn command(
    call: &api::ReserveRequest,
    shards: u32,
    principal: &Principal,
) -> Result<(u32, Command), Rejection> {
    checked(call, shards, principal, Fields::default())
}

/// As [`command`], for a message inside another.
pub fn checked(
    call: &api::ReserveRequest,
    shards: u32,
    principal: &Principal,
    mut fields: Fields,
) -> Result<(u32, Command), Rejection> {
    let request_id = fields.request_id(&call.request_id);
    let lines = fields.basket(&call.lines);
    let ttl_ms = fields.ttl_ms("ttl", call.ttl.as_ref());
    let labels = fields.labels(call.order_reference.as_deref(), call.channel.as_deref());
    let checked = request_id.zip(lines).zip(ttl_ms.zip(labels));
    let ((request_id, lines), (ttl_ms, labels)) = fields.finish(checked)?;
    let shard = one_shard(&lines, shards)?;
    // An id made when the request was, as far as its maker knows: ids of one shop sort by time.
    let id = ReservationId::compose(request_id.made_at(), shard, rand::rng().next_u64());
    let operation = Operation::Reserve(Reserve {
        id,
        lines,
        ttl_ms: ttl_ms.unwrap_or(TTL_MS_DEFAULT),
        labels,
        over: None,
    });
    let command = Command {
        principal: principal.clone(),
        action: Action::Request(Request::of(request_id, &operation), operation),
    };
    Ok((shard, command))
}

/// The shard that has all of a basket's SKUs.
pub fn one_shard(lines: &[Line], shards: u32) -> Result<u32, Rejection> {
    let mut of_lines = lines.iter().map(|line| line.sku.shard(shards));
    let first = of_lines.next().unwrap_or(0);
    if of_lines.all(|shard| shard == first) {
        Ok(first)
    } else {
        Err(Rejection::SeveralShards)
    }
}

/// The request, the reservation and the operation of an amendment.
///
/// # Errors
///
/// [`Rejection::Invalid`] with every field that is not good, and [`Rejection::SeveralShards`].
pub fn amendment(
    call: &api::AmendRequest,
    shards: u32,
) -> Result<(Request, ReservationId, Operation), Rejection> {
    let mut fields = Fields::default();
    let request_id = fields.request_id(&call.request_id);
    let id = fields.reservation_id(&call.reservation_id, shards);
    let lines = fields.basket(&call.lines);
    let ttl_ms = fields.ttl_ms("ttl", call.ttl.as_ref());
    let checked = fields.finish(request_id.zip(id).zip(lines.zip(ttl_ms)));
    let ((request_id, id), (lines, ttl_ms)) = checked?;
    if one_shard(&lines, shards)? != id.shard() {
        return Err(Rejection::SeveralShards);
    }
    let operation = Operation::Amend(Amend {
        id,
        lines,
        ttl_ms,
        over: None,
    });
    Ok((Request::of(request_id, &operation), id, operation))
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
