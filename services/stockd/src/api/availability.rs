//! `AvailabilityService`: how much can be sold, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::try_join_all;
use stock_core::{Location, Sku};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::availability_service_server::AvailabilityService;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::convert;
use super::deadline::Deadline;
use super::edge::Edge;
use super::error::ApiError;
use super::fields::Fields;
use super::meter::Meter;
use super::{proxy, read_freshness};
use crate::worker::event::{Failure, Freshness, GroupId};

/// Keys of one call.
const KEYS_MAX: usize = 2_000;

/// Items of one answer: with the longest names they stay below the largest message.
const ITEMS_MAX: usize = 20_000;

/// The service.
pub(super) struct AvailabilityReads {
    edge: Arc<Edge>,
    get: Meter,
}

impl AvailabilityReads {
    /// On this edge.
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self {
            edge,
            get: Meter::new("GetAvailability"),
        }
    }

    async fn do_get(
        &self,
        call: &api::GetAvailabilityRequest,
        metadata: &MetadataMap,
    ) -> Result<api::GetAvailabilityResponse, ApiError> {
        let mut fields = Fields::default();
        let keys = check_keys(&mut fields, &call.keys);
        let freshness = self.freshness(&mut fields, call, keys.as_deref().unwrap_or_default());
        let (keys, freshness) = fields.finish(keys.zip(freshness))?;
        let elsewhere = match proxy::was_sent_on(metadata) {
            true => Vec::new(),
            false => self.elsewhere(&keys),
        };
        let of_others = elsewhere.iter().flat_map(|(_, shards)| shards);
        let of_others: BTreeSet<u32> = of_others.copied().collect();
        // Who was asked by a node answers itself, or fails: it may have lost its replica since.
        let waits = freshness
            .into_iter()
            .filter(|(shard, _)| !of_others.contains(shard))
            .map(async |(shard, freshness)| {
                let group = GroupId::of_shard(shard);
                Ok::<_, ApiError>((shard, self.edge.reach(group, freshness).await?))
            });
        let (reached, answers) = tokio::try_join!(
            try_join_all(waits),
            try_join_all(
                elsewhere
                    .into_iter()
                    .map(|(node, shards)| self.ask_node(node, shards, call, metadata))
            )
        )?;
        let mut from_elsewhere: BTreeMap<String, Vec<api::Availability>> = BTreeMap::new();
        for item in answers.into_iter().flat_map(|answer| answer.items) {
            let of_sku = from_elsewhere.entry(item.sku.clone()).or_default();
            of_sku.push(item);
        }
        let reached: BTreeMap<u32, u64> = reached.into_iter().collect();
        self.read(&keys, &of_others, &from_elsewhere, &reached)
    }

    /// The shards that this node has no replica of, by the node to be asked: the leader.
    fn elsewhere(&self, keys: &[Key]) -> Vec<(Option<u64>, BTreeSet<u32>)> {
        let mut of_nodes: BTreeMap<Option<u64>, BTreeSet<u32>> = BTreeMap::new();
        for key in keys {
            let shard = key.sku.shard(self.edge.shards());
            let group = GroupId::of_shard(shard);
            if !self.edge.cluster.is_here(group) {
                let leader = self.edge.cluster.group(group).leader;
                of_nodes.entry(leader).or_default().insert(shard);
            }
        }
        of_nodes.into_iter().collect()
    }

    /// Has another node answer for some shards.
    async fn ask_node(
        &self,
        node: Option<u64>,
        shards: BTreeSet<u32>,
        call: &api::GetAvailabilityRequest,
        metadata: &MetadataMap,
    ) -> Result<api::GetAvailabilityResponse, ApiError> {
        let leaderless = ApiError::Failed(Failure::NotLeader { leader: None });
        let channel = node.map(|node| self.edge.proxy.channel(node));
        let channel = channel.ok_or(leaderless)?;
        let is_theirs = |sku: &str| {
            Sku::new(sku).is_ok_and(|sku| shards.contains(&sku.shard(self.edge.shards())))
        };
        // Each once: the same SKU with and without a location is one question.
        let keys: BTreeSet<&str> = call
            .keys
            .iter()
            .map(|key| key.sku.as_str())
            .filter(|sku| is_theirs(sku))
            .collect();
        let keys = keys.into_iter().map(|sku| api::PositionKey {
            sku: sku.to_owned(),
            location: String::new(),
        });
        let at_least = call.at_least.iter();
        let call = api::GetAvailabilityRequest {
            keys: keys.collect(),
            consistency: call.consistency,
            at_least: at_least
                .filter(|at_least| shards.contains(&at_least.shard))
                .copied()
                .collect(),
        };
        let mut client = AvailabilityServiceClient::new(channel)
            .max_decoding_message_size(super::TRANSPORT_BYTES_MAX);
        let answer = client.get_availability(proxy::sent_on(call, metadata));
        let answer = proxy::answer(Deadline::of(metadata), answer).await?;
        Ok(answer.into_inner())
    }

    /// How new each shard's state must be; shards that may be as they are, are left out.
    fn freshness(
        &self,
        fields: &mut Fields,
        call: &api::GetAvailabilityRequest,
        keys: &[Key],
    ) -> Option<BTreeMap<u32, Freshness>> {
        let mut of_shards = BTreeMap::new();
        let everywhere = read_freshness(fields, call.consistency, 0)?;
        if everywhere != Freshness::Near {
            let shards = keys.iter().map(|key| key.sku.shard(self.edge.shards()));
            of_shards.extend(shards.map(|shard| (shard, everywhere)));
            return Some(of_shards);
        }
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
            of_shards.insert(at_least.shard, Freshness::AtLeast(at_least.index));
        }
        Some(of_shards)
    }

    fn read(
        &self,
        keys: &[Key],
        of_others: &BTreeSet<u32>,
        from_elsewhere: &BTreeMap<String, Vec<api::Availability>>,
        reached: &BTreeMap<u32, u64>,
    ) -> Result<api::GetAvailabilityResponse, ApiError> {
        let shards = self.edge.shards();
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            let shard = key.sku.shard(shards);
            let before = items.len();
            let index = if of_others.contains(&shard) {
                let found = from_elsewhere.get(key.sku.as_str());
                let found = found.map_or(&[] as &[_], Vec::as_slice);
                let is_asked = |item: &&api::Availability| match &key.location {
                    Some(location) => item.location == location.as_str(),
                    None => true,
                };
                items.extend(found.iter().filter(is_asked).cloned());
                found.first().map_or(0, |item| item.applied_index)
            } else {
                let least = reached.get(&shard).copied().unwrap_or(0);
                self.read_here(key, shard, least, &mut items)?
            };
            if items.len() == before {
                items.push(api::Availability {
                    sku: key.sku.as_str().to_owned(),
                    location: key
                        .location
                        .as_ref()
                        .map_or_else(String::new, ToString::to_string),
                    shard,
                    applied_index: index,
                    ..Default::default()
                });
            }
            if items.len() > ITEMS_MAX {
                return Err(ApiError::TooManyItems {
                    items: items.len(),
                    items_max: ITEMS_MAX,
                });
            }
        }
        Ok(api::GetAvailabilityResponse { items })
    }

    /// Reads what this node has published, and as of which index that is. The replica may be gone since the
    /// loop said that it is new enough: then nothing is known here.
    fn read_here(
        &self,
        key: &Key,
        shard: u32,
        least: u64,
        items: &mut Vec<api::Availability>,
    ) -> Result<u64, ApiError> {
        let view = &self.edge.view;
        // The index first: what is read after it is at least that new.
        let index = view.applied_index(shard);
        let sku = key.sku.as_str();
        view.with_positions(&key.sku, |positions| match &key.location {
            Some(location) => {
                if let Ok(at) = positions.binary_search_by(|p| p.location.cmp(location)) {
                    items.push(convert::availability(sku, &positions[at], shard, index));
                }
            }
            None => items.extend(
                positions
                    .iter()
                    .map(|position| convert::availability(sku, position, shard, index)),
            ),
        });
        let is_here = self.edge.cluster.is_here(GroupId::of_shard(shard));
        if !is_here || index < least || view.applied_index(shard) < index {
            return Err(ApiError::Failed(Failure::NotLeader { leader: None }));
        }
        Ok(index)
    }
}

struct Key {
    sku: Sku,
    location: Option<Location>,
}

fn check_keys(fields: &mut Fields, keys: &[api::PositionKey]) -> Option<Vec<Key>> {
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
        Some(Key {
            sku: sku?,
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
        let deadline = Deadline::of(request.metadata());
        let (metadata, _, call) = request.into_parts();
        self.get
            .run(deadline, "", self.do_get(&call, &metadata))
            .await
    }
}
