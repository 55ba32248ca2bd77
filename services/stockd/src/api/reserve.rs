//! One reserve: from its message to a command of its shard, and from the shard's answer to a
//! message.

use bytes::Bytes;
use rand::Rng;
use stock_cluster::GroupId;
use stock_core::limits::TTL_MS_DEFAULT;
use stock_core::{
    Action, Command, Line, Location, Operation, Principal, Request, ReservationId, Reserve, Stamp,
};
use stock_node::answer::{Applied, Outcome};
use stock_proto::stock::v1 as api;

use super::convert::{self, Held};
use super::edge::Edge;
use super::error::ApiError;
use super::fields::Fields;
use super::seen::Seen;

/// The shard of a basket, of so many, and the command that holds it in a principal's name, if
/// everything in the message is good.
///
/// # Errors
///
/// [`ApiError::Invalid`] with every field that is not, and [`ApiError::SeveralShards`].
pub fn command(
    call: &api::ReserveRequest,
    shards: u32,
    principal: &Principal,
) -> Result<(u32, Command), ApiError> {
    checked(call, shards, principal, Fields::default())
}

/// As [`command`], for a message inside another.
pub(super) fn checked(
    call: &api::ReserveRequest,
    shards: u32,
    principal: &Principal,
    mut fields: Fields,
) -> Result<(u32, Command), ApiError> {
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
    });
    let command = Command {
        principal: principal.clone(),
        action: Action::Request(Request::of(request_id, &operation), operation),
    };
    Ok((shard, command))
}

/// The shard that has all of a basket's SKUs.
pub(super) fn one_shard(lines: &[Line], shards: u32) -> Result<u32, ApiError> {
    let mut of_lines = lines.iter().map(|line| line.sku.shard(shards));
    let first = of_lines.next().unwrap_or(0);
    if of_lines.all(|shard| shard == first) {
        Ok(first)
    } else {
        Err(ApiError::SeveralShards)
    }
}

/// The location of each line of a reserve.
pub(super) fn locations(command: &Command) -> impl Iterator<Item = &Location> {
    let lines: &[Line] = match &command.action {
        Action::Request(_, Operation::Reserve(reserve)) => &reserve.lines,
        _ => &[],
    };
    lines.iter().map(|line| &line.location)
}

/// Refuses a reserve that names a location this node does not know. `prefix` comes before the
/// field's name.
pub(super) fn check_known(
    edge: &Edge,
    command: &Command,
    prefix: impl Fn() -> String,
) -> Result<(), ApiError> {
    let unknown = edge.view.first_unknown(locations(command));
    match unknown.and_then(|line| Some((line, locations(command).nth(line)?))) {
        None => Ok(()),
        Some((line, location)) => Err(ApiError::UnknownLocation {
            field: format!("{}lines[{line}].location", prefix()),
            location: location.to_string(),
        }),
    }
}

/// What the caller is told of a reserve that travelled alone.
///
/// # Errors
///
/// [`ApiError::Refused`], and [`ApiError::Failed`] where it has no outcome.
pub fn answer(
    shard: u32,
    applied: Applied,
    incarnation: Bytes,
) -> Result<api::ReserveResponse, ApiError> {
    let seen = Seen::of(GroupId::of_shard(shard), &applied);
    let stamp = applied.stamp;
    Ok(api::ReserveResponse {
        header: Some(seen.into_header(incarnation)),
        ..response(stamp, applied.only()?)?
    })
}

/// What the caller is told of a reserve that was applied at this cluster time, but for the header.
///
/// # Errors
///
/// [`ApiError::Refused`].
pub(super) fn response(stamp: Stamp, outcome: Outcome) -> Result<api::ReserveResponse, ApiError> {
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
