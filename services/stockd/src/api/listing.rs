//! `ListReservations`: over all shards, by shard and then in the order of each, a page at a time.
//!
//! A page is looked through in steps, since the loop has other things to do, and within a bound:
//! what is looked for may be far behind what is not. Where this node has no replica of the next
//! shard, another one goes on in its place, from the same token.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::join_all;
use prost::Message;
use stock_api::fields::Fields;
use stock_api::page::{self, List};
use stock_api::{convert, filter};
use stock_cluster::GroupId;
use stock_core::{Filter, Listed, ReservationId, Stamp};
use stock_node::answer::{Answer, Failure, Freshness, LOOKED_AT_MAX, Listing, Question};
use stock_node::way::{self, Answerer};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use uuid::Uuid;

use super::caller::Caller;
use super::edge::Edge;
use super::error::ApiError;
use super::proxy;
use super::seen::Seen;
use super::undecided::{self, Known};
use super::wanted::Wanted;

/// Reservations that are looked at for one page.
const LOOKED_AT_FOR_PAGE: usize = 100_000;

/// Steps of one page: each looks at as many reservations as the loop does at once, unless it comes
/// to the end of a shard.
const STEPS_MAX: usize = LOOKED_AT_FOR_PAGE / LOOKED_AT_MAX;

/// Shards that are made to be as new as they must be at the same time.
const REACHED_AT_ONCE: u32 = 64;

/// Bytes of a page's reservations, but for the last.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// A place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    shard: u32,
    /// Behind this one; none: at the shard's beginning.
    after: Option<ReservationId>,
}

impl Place {
    fn to_text(self) -> String {
        match self.after {
            None => self.shard.to_string(),
            Some(after) => format!("{}-{after}", self.shard),
        }
    }

    fn from_text(text: &str, shards: u32) -> Option<Self> {
        let (shard, after) = match text.split_once('-') {
            None => (text, None),
            Some((shard, after)) => (shard, Some(after)),
        };
        let id = |text| ReservationId::new(*Uuid::parse_str(text).ok()?.as_bytes()).ok();
        let after = match after {
            None => None,
            Some(text) => Some(id(text)?),
        };
        let shard = shard.parse().ok().filter(|shard| *shard < shards)?;
        Some(Self { shard, after })
    }
}

/// A page as it fills.
#[derive(Default)]
struct Filling {
    reservations: Vec<api::Reservation>,
    bytes: usize,
    seen: Seen,
    steps: usize,
}

/// Answers a call.
pub(super) async fn list(
    edge: &Edge,
    call: api::ListReservationsRequest,
    caller: Caller,
) -> Result<api::ListReservationsResponse, ApiError> {
    let shards = edge.shards();
    let mut fields = Fields::default();
    let list = List::of(
        "ListReservations",
        &filter::filters(&call),
        &edge.incarnation(),
    );
    let filter = filter::check_filter(&mut fields, &call);
    let (size, token) = (call.page_size, &call.page_token);
    let asked = page::asked(list, &mut fields, size, token, |text| {
        Place::from_text(text, shards)
    });
    let wanted = Wanted::check(&mut fields, call.read.as_ref(), shards);
    let (filter, (asked, wanted)) = fields.finish(filter.zip(asked.zip(wanted)))?;
    edge.check_incarnation(&wanted)?;

    // Only one shard has anything of a SKU.
    let only = filter.sku.as_ref().map(|sku| sku.shard(shards));
    let first = Place {
        shard: only.unwrap_or(0),
        after: None,
    };
    let mut place = asked.after.unwrap_or(first);
    let mut page = Filling::default();
    let mut more = true;
    let mut reached = BTreeMap::new();
    let mut reached_to = place.shard;
    while more && page.has_room(asked.size) {
        let group = GroupId::of_shard(place.shard);
        let elsewhere = match way::of_read(&edge.cluster, group, caller.is_node) {
            Answerer::Here => None,
            Answerer::Others(nodes) => Some(nodes),
        };
        if let Some(nodes) = elsewhere {
            // What is found so far is a page by itself; what follows is the next one.
            if page.steps > 0 {
                break;
            }
            let token = page::token(list, &place.to_text());
            return go_on_elsewhere(edge, nodes, &call, token, caller).await;
        }
        if place.shard >= reached_to {
            let end = only.map_or(shards, |only| only + 1);
            reached_to = end.min(place.shard + REACHED_AT_ONCE);
            reached = reach(edge, &wanted, place.shard..reached_to).await;
        }
        let listing = Arc::new(Listing {
            filter: filter.clone(),
            after: place.after,
            found_max: asked.size - page.reservations.len(),
        });
        let freshness = match reached.get(&place.shard) {
            Some(index) => Freshness::AtLeast(*index),
            None => wanted.of_shard(place.shard),
        };
        match edge.ask(group, freshness, Question::List(listing)).await {
            Answer::Listed {
                mut listed,
                applied_index,
                now,
            } => {
                let pending = decided(edge, &filter, &mut listed).await;
                page.seen.read_at(place.shard, applied_index, now);
                place.after = page.take(&listed, &pending, now);
                if place.after.is_none() {
                    more = only.is_none() && place.shard + 1 < shards;
                    place.shard += 1;
                }
            }
            Answer::Failed(Failure::NotLeader { .. }) if page.steps > 0 => break,
            Answer::Failed(failure) => return Err(failure.into()),
            Answer::Outcomes(_) | Answer::Reached { .. } | Answer::Reservation { .. } => {
                return Err(Failure::TooFarBehind.into());
            }
        }
    }
    let next = more.then(|| page::token(list, &place.to_text()));
    Ok(api::ListReservationsResponse {
        header: Some(edge.header(page.seen)),
        reservations: page.reservations,
        next_page_token: next.unwrap_or_default(),
    })
}

/// Looks once more, after a moment, at those of which something was not decided: as they are by
/// then, they are listed, if they are still looked for. Says of which it is not known yet.
async fn decided(edge: &Edge, filter: &Filter, listed: &mut Listed) -> BTreeSet<ReservationId> {
    let undecided = std::mem::take(&mut listed.undecided);
    let known = undecided.iter().map(|id| undecided::look_again(edge, *id));
    let known = join_all(known).await.into_iter();
    // Who cannot be looked at any more is listed as he was.
    let known = known.map(|known| known.ok().map(|(known, _)| known));
    let mut known: BTreeMap<_, _> = undecided.into_iter().zip(known).collect();
    let is_pending = |(id, known): (&ReservationId, &Option<Known>)| {
        let is_pending = known.as_ref().is_none_or(|known| known.is_pending);
        is_pending.then_some(*id)
    };
    let pending = known.iter().filter_map(is_pending).collect();
    listed
        .found
        .retain_mut(|found| match known.remove(&found.id) {
            None | Some(None) => true,
            Some(Some(known)) => match known.reservation.filter(|it| filter.takes(it)) {
                Some(now) => {
                    *found = now;
                    true
                }
                None => false,
            },
        });
    pending
}

/// Has the states of some shards become as new as they must be, all at the same time: one after the
/// other each would take a round of messages. Says how far they have come; what fails is told when
/// its shard is asked.
async fn reach(edge: &Edge, wanted: &Wanted<'_>, shards: Range<u32>) -> BTreeMap<u32, u64> {
    let wanted = shards.map(|shard| (shard, wanted.of_shard(shard)));
    let must_wait = |(shard, freshness): &(u32, Freshness)| {
        *freshness != Freshness::Near && edge.cluster.is_here(GroupId::of_shard(*shard))
    };
    let waits = wanted.filter(must_wait).map(async |(shard, freshness)| {
        let reached = edge.reach(GroupId::of_shard(shard), freshness).await;
        Some((shard, reached.ok()?))
    });
    join_all(waits).await.into_iter().flatten().collect()
}

impl Filling {
    fn has_room(&self, size: usize) -> bool {
        self.reservations.len() < size && self.bytes < PAGE_BYTES_MAX && self.steps < STEPS_MAX
    }

    /// Takes in what was found, as long as there is room. Says behind which one to go on in the
    /// same shard.
    fn take(
        &mut self,
        listed: &Listed,
        pending: &BTreeSet<ReservationId>,
        now: Stamp,
    ) -> Option<ReservationId> {
        self.steps += 1;
        let mut found = listed.found.iter().peekable();
        while let Some(reservation) = found.next() {
            let message = match pending.contains(&reservation.id) {
                true => convert::pending(reservation, now),
                false => convert::reservation(reservation, now),
            };
            self.bytes += message.encoded_len();
            self.reservations.push(message);
            if self.bytes >= PAGE_BYTES_MAX && found.peek().is_some() {
                return Some(reservation.id);
            }
        }
        listed.more_after
    }
}

/// Has another node answer, one after the other, until one of them can.
async fn go_on_elsewhere(
    edge: &Edge,
    nodes: Vec<u64>,
    call: &api::ListReservationsRequest,
    page_token: String,
    caller: Caller,
) -> Result<api::ListReservationsResponse, ApiError> {
    let call = api::ListReservationsRequest {
        page_token,
        ..call.clone()
    };
    let mut failed = ApiError::Failed(Failure::NotLeader { leader: None });
    for node in nodes {
        let mut client = ReservationServiceClient::new(edge.proxy.channel(node))
            .max_decoding_message_size(proxy::TRANSPORT_BYTES_MAX);
        let answer = client.list_reservations(caller.send_on(call.clone()));
        match proxy::answer(caller.deadline, answer).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(error) if proxy::another_may_know(&error) => failed = error,
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let id = ReservationId::compose(Stamp(1_790_000_000_000), 7, 99);
        for after in [None, Some(id)] {
            let place = Place { shard: 7, after };
            assert_eq!(Place::from_text(&place.to_text(), 8), Some(place));
            assert_eq!(Place::from_text(&place.to_text(), 7), None);
        }
        for bad in ["", "x", "7-", "-", "7-no-id", "-1"] {
            assert_eq!(Place::from_text(bad, 8), None, "{bad}");
        }
    }
}
