//! `AvailabilityService`: how much can be sold, and where.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use stock_cluster::GroupId;
use stock_core::{Location, Sku};
use stock_node::answer::{Failure, Freshness};
use stock_node::way::{self, Answerer};
use stock_proto::codec::MESSAGE_BYTES_MAX;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::availability_service_server::AvailabilityService;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::edge::Edge;
use super::error::ApiError;
use super::fields::Fields;
use super::front::Front;
use super::{answer_size, convert, proxy};

/// Keys of one call.
const KEYS_MAX: usize = 2_000;

/// Items of one answer: with the longest names and the largest counts they stay below the largest
/// message.
const ITEMS_MAX: usize = 20_000;
const _: () = assert!(ITEMS_MAX * answer_size::ITEM_BYTES_MAX <= MESSAGE_BYTES_MAX);

/// The service.
pub(super) struct AvailabilityReads {
    edge: Arc<Edge>,
    front: Arc<Front>,
}

impl AvailabilityReads {
    /// On this edge.
    pub(super) fn new(edge: Arc<Edge>, front: Arc<Front>) -> Self {
        Self { edge, front }
    }

    async fn do_get(
        &self,
        call: &api::GetAvailabilityRequest,
        caller: Caller,
    ) -> Result<api::GetAvailabilityResponse, ApiError> {
        let mut fields = Fields::default();
        let keys = check_keys(&mut fields, &call.keys, self.edge.shards());
        let freshness = self.freshness(&mut fields, call, keys.as_deref().unwrap_or_default());
        let (keys, freshness) = fields.finish(keys.zip(freshness))?;
        let elsewhere = self.elsewhere(&keys, caller.is_node);
        let waits = freshness
            .iter()
            .filter(|(shard, _)| !elsewhere.contains_key(shard))
            .map(async |(shard, freshness)| {
                let group = GroupId::of_shard(*shard);
                Ok::<_, ApiError>((*shard, self.edge.reach(group, *freshness).await?))
            });
        let sent_on = SentOn {
            keys: &keys,
            consistency: call.consistency,
            freshness: &freshness,
            caller,
        };
        let (reached, found) =
            tokio::try_join!(try_join_all(waits), self.ask_others(&sent_on, &elsewhere))?;
        let reached: BTreeMap<u32, u64> = reached.into_iter().collect();
        self.read(&keys, &elsewhere, &found, &reached)
    }

    /// The shards that other nodes answer for, and which those are.
    fn elsewhere(&self, keys: &[Key], is_node: bool) -> BTreeMap<u32, Vec<u64>> {
        let mut elsewhere = BTreeMap::new();
        for key in keys {
            let group = GroupId::of_shard(key.shard);
            if let Entry::Vacant(place) = elsewhere.entry(key.shard)
                && let Answerer::Others(nodes) = way::of_read(&self.edge.cluster, group, is_node)
            {
                place.insert(nodes);
            }
        }
        elsewhere
    }

    /// Has other nodes answer for some shards: one for all that it leads, and where it cannot, the
    /// next that may.
    async fn ask_others<'a>(
        &self,
        call: &SentOn<'a>,
        shards: &BTreeMap<u32, Vec<u64>>,
    ) -> Result<Found<'a>, ApiError> {
        let mut found = Found::new();
        let mut left: BTreeMap<u32, std::vec::IntoIter<u64>> = shards
            .iter()
            .map(|(shard, others)| (*shard, others.clone().into_iter()))
            .collect();
        let mut failed = ApiError::Failed(Failure::NotLeader { leader: None });
        while !left.is_empty() {
            let mut of_nodes: BTreeMap<u64, BTreeMap<u32, _>> = BTreeMap::new();
            for (shard, mut others) in std::mem::take(&mut left) {
                let Some(node) = others.next() else {
                    return Err(failed);
                };
                of_nodes.entry(node).or_default().insert(shard, others);
            }
            let answers = of_nodes.into_iter().map(async |(node, shards)| {
                let answer = self.ask_node(node, call, |shard| shards.contains_key(&shard));
                (answer.await, shards)
            });
            for (answer, shards) in join_all(answers).await {
                match answer {
                    Ok(of_node) => found.extend(of_node),
                    Err(error) if proxy::another_may_know(&error) => {
                        failed = error;
                        left.extend(shards);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    }

    /// Has a node answer for some shards. It is asked for what this node was asked for, and for
    /// nothing else: a SKU may be at more locations than an answer has room for.
    async fn ask_node<'a>(
        &self,
        node: u64,
        call: &SentOn<'a>,
        is_asked: impl Fn(u32) -> bool,
    ) -> Result<Vec<(&'a Key, Vec<api::Availability>)>, ApiError> {
        let mut keys: Vec<&Key> = call.keys.iter().filter(|key| is_asked(key.shard)).collect();
        // Each once. Those with a location first: each has one item, and the items of the others
        // are told by their SKUs.
        keys.sort_unstable_by_key(|key| (key.location.is_none(), *key));
        keys.dedup();
        let asked = keys.iter().map(|key| api::PositionKey {
            sku: key.sku.as_str().to_owned(),
            location: name_of(key.location.as_ref()),
        });
        let at_least = call.freshness.iter().map(|(shard, freshness)| {
            let (shard, index) = (*shard, freshness.at_least());
            api::ShardIndex { shard, index }
        });
        let question = api::GetAvailabilityRequest {
            keys: asked.collect(),
            consistency: call.consistency,
            at_least: at_least
                .filter(|at_least| is_asked(at_least.shard) && at_least.index > 0)
                .collect(),
        };
        let mut client = AvailabilityServiceClient::new(self.edge.proxy.channel(node))
            .max_decoding_message_size(proxy::TRANSPORT_BYTES_MAX);
        let answer = client.get_availability(call.caller.send_on(question));
        let answer = proxy::answer(call.caller.deadline, answer).await?;
        // It has one item for each key at least: another answer is none.
        sorted_out(keys, answer.into_inner().items).ok_or(Failure::TooFarBehind.into())
    }

    /// How new the state of each shard must be that the keys are in; those that may be as they are,
    /// are left out.
    fn freshness(
        &self,
        fields: &mut Fields,
        call: &api::GetAvailabilityRequest,
        keys: &[Key],
    ) -> Option<BTreeMap<u32, Freshness>> {
        let mut of_shards = BTreeMap::new();
        let everywhere = fields.freshness(call.consistency)?;
        if everywhere == Freshness::Near && call.at_least.is_empty() {
            return Some(of_shards);
        }
        of_shards.extend(keys.iter().map(|key| (key.shard, everywhere)));
        for (number, at_least) in call.at_least.iter().enumerate() {
            if at_least.shard >= self.edge.shards() {
                fields.refuse(
                    &format!("at_least[{number}].shard"),
                    format!(
                        "is {}; this cluster has {} shards",
                        at_least.shard,
                        self.edge.shards()
                    ),
                );
                return None;
            }
            // What nobody asks for need not be waited for.
            if let Some(freshness) = of_shards.get_mut(&at_least.shard) {
                *freshness = freshness.and_at_least(at_least.index);
            }
        }
        of_shards.retain(|_, freshness| *freshness != Freshness::Near);
        Some(of_shards)
    }

    fn read(
        &self,
        keys: &[Key],
        elsewhere: &BTreeMap<u32, Vec<u64>>,
        found: &Found<'_>,
        reached: &BTreeMap<u32, u64>,
    ) -> Result<api::GetAvailabilityResponse, ApiError> {
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            if elsewhere.contains_key(&key.shard) {
                let of_key = found.get(key).map_or(&[][..], Vec::as_slice);
                check_room(items.len() + of_key.len())?;
                items.extend_from_slice(of_key);
            } else {
                let least = reached.get(&key.shard).copied().unwrap_or(0);
                self.read_here(key, least, &mut items)?;
            }
        }
        Ok(api::GetAvailabilityResponse { items })
    }

    /// Reads what this node has published. The replica may be gone since the loop said that it is
    /// new enough: then nothing is known here.
    fn read_here(
        &self,
        key: &Key,
        least: u64,
        items: &mut Vec<api::Availability>,
    ) -> Result<(), ApiError> {
        let view = &self.edge.view;
        let shard = key.shard;
        // The index first: what is read after it is at least that new.
        let index = view.applied_index(shard);
        let sku = key.sku.as_str();
        let before = items.len();
        let read = view.with_positions(&key.sku, |positions| {
            let of_key = match &key.location {
                Some(location) => {
                    let at = positions.binary_search_by(|p| p.location.cmp(location));
                    at.map_or(&[][..], |at| &positions[at..=at])
                }
                None => positions,
            };
            check_room(before + of_key.len())?;
            let of_key = of_key.iter();
            items.extend(of_key.map(|position| convert::availability(sku, position, shard, index)));
            Ok::<_, ApiError>(())
        });
        read.transpose()?;
        let is_here = self.edge.cluster.is_here(GroupId::of_shard(shard));
        if !is_here || index < least || view.applied_index(shard) < index {
            return Err(ApiError::Failed(Failure::NotLeader { leader: None }));
        }
        if items.len() == before {
            check_room(before + 1)?;
            items.push(api::Availability {
                sku: sku.to_owned(),
                location: name_of(key.location.as_ref()),
                shard,
                applied_index: index,
                ..Default::default()
            });
        }
        Ok(())
    }
}

/// What a caller asks for, and where: one SKU at one location or at all of them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    sku: Sku,
    location: Option<Location>,
    shard: u32,
}

/// What other nodes have answered, by key.
type Found<'a> = BTreeMap<&'a Key, Vec<api::Availability>>;

/// A call, a part of which goes on to other nodes.
struct SentOn<'a> {
    keys: &'a [Key],
    consistency: i32,
    freshness: &'a BTreeMap<u32, Freshness>,
    caller: Caller,
}

/// Gives each key its items, where those with a location come first; none if these are no answer to
/// the keys.
fn sorted_out(
    keys: Vec<&Key>,
    items: Vec<api::Availability>,
) -> Option<Vec<(&Key, Vec<api::Availability>)>> {
    let mut items = items.into_iter().peekable();
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let is_of_sku = |item: &api::Availability| item.sku == key.sku.as_str();
        let mut of_key = Vec::new();
        match &key.location {
            Some(location) => of_key.extend(
                items.next_if(|item| is_of_sku(item) && item.location == location.as_str()),
            ),
            None => of_key.extend(std::iter::from_fn(|| items.next_if(is_of_sku))),
        }
        if of_key.is_empty() {
            return None;
        }
        found.push((key, of_key));
    }
    items.next().is_none().then_some(found)
}

/// Refuses an answer of so many items, if that is too many.
fn check_room(items: usize) -> Result<(), ApiError> {
    match items > ITEMS_MAX {
        true => Err(ApiError::TooManyItems {
            items,
            items_max: ITEMS_MAX,
        }),
        false => Ok(()),
    }
}

/// Empty for none.
fn name_of(location: Option<&Location>) -> String {
    location.map_or_else(String::new, |location| location.as_str().to_owned())
}

fn check_keys(fields: &mut Fields, keys: &[api::PositionKey], shards: u32) -> Option<Vec<Key>> {
    if keys.is_empty() || keys.len() > KEYS_MAX {
        let found = keys.len();
        fields.refuse(
            "keys",
            format!("has {found} keys; a call has 1 to {KEYS_MAX}"),
        );
        return None;
    }
    let checked = keys.iter().enumerate().map(|(number, key)| {
        let sku = fields.check_at("keys", number, "sku", Sku::new(&key.sku));
        let location = match key.location.as_str() {
            "" => Some(None),
            name => fields
                .check_at("keys", number, "location", Location::new(name))
                .map(Some),
        };
        let sku = sku?;
        Some(Key {
            shard: sku.shard(shards),
            sku,
            location: location?,
        })
    });
    let checked: Vec<_> = checked.collect();
    checked.into_iter().collect()
}

#[tonic::async_trait]
impl AvailabilityService for AvailabilityReads {
    async fn get_availability(
        &self,
        request: Request<api::GetAvailabilityRequest>,
    ) -> Result<Response<api::GetAvailabilityResponse>, Status> {
        let get = async |call, caller| self.do_get(&call, caller).await;
        self.front.run(request, get).await
    }
}
