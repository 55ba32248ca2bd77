//! `AvailabilityService`: how much can be sold, and where.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use stock_api::fields::Fields;
use stock_api::keys::{Key, check_keys, check_room};
use stock_cluster::GroupId;
use stock_node::answer::{Failure, Freshness};
use stock_node::way::{self, Answerer};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::availability_service_server::AvailabilityService;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::edge::Edge;
use super::error::ApiError;
use super::front::Front;
use super::proxy;
use super::seen::Seen;
use super::wanted::Wanted;

/// The service.
pub(super) struct AvailabilityReads {
    edge: Arc<Edge>,
    front: Arc<Front>,
}

impl AvailabilityReads {
    /// On this edge.
    pub(super) fn new(edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let (edge, front) = (Arc::clone(edge), Arc::clone(front));
        Self { edge, front }
    }

    async fn do_get(
        &self,
        call: &api::GetAvailabilityRequest,
        caller: Caller,
    ) -> Result<api::GetAvailabilityResponse, ApiError> {
        let mut fields = Fields::default();
        let keys = check_keys(&mut fields, &call.keys, self.edge.shards());
        let wanted = Wanted::check(&mut fields, call.read.as_ref(), self.edge.shards());
        let (keys, wanted) = fields.finish(keys.zip(wanted))?;
        self.edge.check_incarnation(&wanted)?;
        let freshness = wanted.of_shards(keys.iter().map(|key| key.shard));
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
            read: call.read.as_ref(),
            freshness: &freshness,
            caller,
        };
        let (reached, found) =
            tokio::try_join!(try_join_all(waits), self.ask_others(&sent_on, &elsewhere))?;
        let reached: BTreeMap<u32, u64> = reached.into_iter().collect();
        self.read(&keys, &elsewhere, found, &reached)
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
        let mut found = Found::default();
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
                    Ok((of_keys, header)) => {
                        found.of_keys.extend(of_keys);
                        found.seen.read_elsewhere(&header);
                    }
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
    ) -> Result<(Vec<OfKey<'a>>, api::ResponseHeader), ApiError> {
        let mut keys: Vec<&Key> = call.keys.iter().filter(|key| is_asked(key.shard)).collect();
        // Each once. Those with a location first: each has one item, and the items of the others
        // are told by their SKUs.
        keys.sort_unstable_by_key(|key| (key.location.is_none(), *key));
        keys.dedup();
        let asked = keys.iter().map(|key| match &key.location {
            Some(location) => api::PositionKey::at(key.sku.as_str(), location.as_str()),
            None => api::PositionKey::everywhere(key.sku.as_str()),
        });
        let at_least = call.freshness.iter().map(|(shard, freshness)| {
            let (shard, index) = (*shard, freshness.at_least());
            api::ShardIndex { shard, index }
        });
        let read = call.read.map(|read| api::ReadOptions {
            consistency: read.consistency,
            at_least: at_least
                .filter(|at_least| is_asked(at_least.shard) && at_least.index > 0)
                .collect(),
            incarnation: read.incarnation.clone(),
        });
        let question = api::GetAvailabilityRequest {
            keys: asked.collect(),
            read,
        };
        let mut client = AvailabilityServiceClient::new(self.edge.proxy.channel(node))
            .max_decoding_message_size(proxy::TRANSPORT_BYTES_MAX);
        let answer = client.get_availability(call.caller.send_on(question));
        let answer = proxy::answer(call.caller.deadline, answer).await?;
        let answer = answer.into_inner();
        let header = answer.header.unwrap_or_default();
        // It has one item for each key at least: another answer is none.
        let items = sorted_out(keys, answer.items).ok_or(Failure::TooFarBehind)?;
        Ok((items, header))
    }

    fn read(
        &self,
        keys: &[Key],
        elsewhere: &BTreeMap<u32, Vec<u64>>,
        found: Found<'_>,
        reached: &BTreeMap<u32, u64>,
    ) -> Result<api::GetAvailabilityResponse, ApiError> {
        let mut seen = found.seen;
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            if elsewhere.contains_key(&key.shard) {
                let of_key = found.of_keys.get(key).map_or(&[][..], Vec::as_slice);
                check_room(items.len() + of_key.len())?;
                items.extend_from_slice(of_key);
            } else {
                let least = reached.get(&key.shard).copied().unwrap_or(0);
                self.read_here(key, least, &mut items, &mut seen)?;
            }
        }
        Ok(api::GetAvailabilityResponse {
            header: Some(self.edge.header(seen)),
            items,
        })
    }

    /// Reads what this node has published. The replica may be gone since the loop said that it is
    /// new enough: then nothing is known here.
    fn read_here(
        &self,
        key: &Key,
        least: u64,
        items: &mut Vec<api::Availability>,
        seen: &mut Seen,
    ) -> Result<(), ApiError> {
        let view = &self.edge.view;
        let shard = key.shard;
        // The index first: what is read after it is at least that new.
        let (index, time) = view.reached_at(shard);
        let before = items.len();
        let read = view.with_positions(&key.sku, |positions| key.read(positions, items));
        read.transpose()?;
        let is_here = self.edge.cluster.is_here(GroupId::of_shard(shard));
        if !is_here || index < least || view.applied_index(shard) < index {
            return Err(ApiError::Failed(Failure::NotLeader { leader: None }));
        }
        if items.len() == before {
            key.read_nothing(items)?;
        }
        seen.read_at(shard, index, time);
        Ok(())
    }
}

/// What other nodes have answered.
#[derive(Default)]
struct Found<'a> {
    of_keys: BTreeMap<&'a Key, Vec<api::Availability>>,
    seen: Seen,
}

/// The items of one key.
type OfKey<'a> = (&'a Key, Vec<api::Availability>);

/// A call, a part of which goes on to other nodes.
struct SentOn<'a> {
    keys: &'a [Key],
    read: Option<&'a api::ReadOptions>,
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
            Some(location) => of_key.extend(items.next_if(|item| {
                is_of_sku(item) && item.location.as_deref() == Some(location.as_str())
            })),
            None => of_key.extend(std::iter::from_fn(|| items.next_if(is_of_sku))),
        }
        if of_key.is_empty() {
            return None;
        }
        found.push((key, of_key));
    }
    items.next().is_none().then_some(found)
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
