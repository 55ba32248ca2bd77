//! One reserve, as its shard answers it.

use bytes::Bytes;
pub use stock_api::basket::{Asker, command};
use stock_api::basket::{locations, response};
use stock_cluster::GroupId;
use stock_core::Command;
use stock_node::answer::Applied;
use stock_proto::stock::v1 as api;

use super::edge::Edge;
use super::error::ApiError;
use super::seen::Seen;

/// Refuses a reserve that names a location this node does not know. `prefix` comes before the
/// field's name.
pub(super) fn check_known(
    edge: &Edge,
    command: &Command,
    prefix: impl Fn() -> String,
) -> Result<(), ApiError> {
    let unknown = edge.view.first_unknown(locations(command));
    Ok(stock_api::basket::check_known(command, unknown, prefix)?)
}

/// What the caller is told of a reserve that travelled alone.
///
/// # Errors
///
/// [`ApiError::Rejected`], and [`ApiError::Failed`] where it has no outcome.
pub fn answer(
    shard: u32,
    applied: Applied,
    incarnation: Bytes,
) -> Result<api::ReserveResponse, ApiError> {
    let seen = Seen::of(GroupId::of_shard(shard), &applied);
    let stamp = applied.stamp;
    Ok(api::ReserveResponse {
        header: Some(seen.into_header(incarnation)),
        ..response(stamp, applied.only()?.of_stock()?)?
    })
}
