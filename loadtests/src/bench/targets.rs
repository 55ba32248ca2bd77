//! What the bench reserves: SKUs spread evenly over the shards, with stock that does not run out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use stock_client::Client;
use stock_proto::stock::v1::line_verdict::Verdict as LineResult;
use stock_proto::stock::v1::{
    Consistency, GetAvailabilityRequest, Line, Location, MovementLine, PositionKey,
    PutLocationRequest, RecordReceiptsRequest, location,
};
use uuid::Uuid;

use super::call::{CallKind, Target};

const LOCATION: &str = "bench";
/// At least this many SKUs, and the same number in every shard.
const SKUS_MIN: u32 = 64;
/// Names tried for each SKU that is needed; a shard that gets none of them does not exist.
const NAMES_PER_SKU_MAX: u32 = 1_000;
/// The most units one line may receive.
const RECEIPT_UNITS: i64 = 1_000_000_000;
/// More than any run reserves.
const AVAILABLE_MIN: i64 = 100_000_000;
const LEADERS_WAIT_MAX: Duration = Duration::from_secs(10);
const LEADERS_POLL_EVERY: Duration = Duration::from_millis(50);
/// Calls that open the connections and fill the caches before anything is measured.
const WARM_UP_CALLS_PER_TARGET: u32 = 4;

pub(crate) struct Targets {
    all: Vec<Target>,
    /// Those of the first target's leader, for the shape with one call in flight.
    of_one_leader: Vec<Target>,
    /// Shards by the node that leads them.
    leaders: BTreeMap<u64, u32>,
    still_held: i64,
}

impl Targets {
    /// Puts the location, tops the stock up, and opens a connection to each leader.
    pub(crate) async fn prepare(client: &Client, ttl: Duration) -> anyhow::Result<Targets> {
        let leaders = wait_for_leaders(client).await?;
        let skus = skus(client)?;
        let still_held = stock_up(client, &skus).await?;

        let ttl = prost_types::Duration::try_from(ttl).context("a time to live out of range")?;
        let mut all = Vec::with_capacity(skus.len());
        let mut of_one_leader = Vec::new();
        let first_leader = leaders.first().copied();
        for sku in skus {
            let shard = client.shard_of(&sku);
            let channel = client.leader_channel(shard).with_context(|| {
                format!("shard {shard} lost its leader while the bench was set up")
            })?;
            let line = Line {
                sku,
                location: LOCATION.into(),
                quantity: 1,
            };
            let target = Target::new(&channel, line, ttl);
            if leaders.get(shard as usize).copied() == first_leader {
                of_one_leader.push(target.clone());
            }
            all.push(target);
        }
        let mut shards_led = BTreeMap::new();
        for leader in leaders {
            *shards_led.entry(leader).or_insert(0) += 1;
        }
        let mut targets = Targets {
            all,
            of_one_leader,
            leaders: shards_led,
            still_held,
        };
        targets.warm_up().await?;
        Ok(targets)
    }

    pub(crate) fn all(&self) -> &[Target] {
        &self.all
    }

    pub(crate) fn of_one_leader(&self) -> &[Target] {
        &self.of_one_leader
    }

    pub(crate) fn leaders(&self) -> &BTreeMap<u64, u32> {
        &self.leaders
    }

    /// Units that holds of an earlier run had when this one began.
    pub(crate) fn still_held(&self) -> i64 {
        self.still_held
    }

    async fn warm_up(&mut self) -> anyhow::Result<()> {
        for _ in 0..WARM_UP_CALLS_PER_TARGET {
            for target in &mut self.all {
                for kind in [CallKind::Echo, CallKind::Reserve] {
                    target.call(kind).await.map_err(anyhow::Error::msg)?;
                }
            }
        }
        Ok(())
    }
}

/// The leader of every shard, by shard number.
async fn wait_for_leaders(client: &Client) -> anyhow::Result<Vec<u64>> {
    let started = Instant::now();
    loop {
        // A call and not only a look at what is known, so that the client learns the newest, too.
        let topology = client.get_topology().await?;
        let known: Vec<u64> = (topology.shards.iter())
            .map(|shard| shard.leader_node_id)
            .filter(|leader| *leader != 0)
            .collect();
        let usable = (0..topology.shard_count).all(|shard| client.leader_channel(shard).is_some());
        if known.len() == topology.shard_count as usize && usable {
            ensure!(!known.is_empty(), "the cluster has no shards");
            return Ok(known);
        }
        if started.elapsed() > LEADERS_WAIT_MAX {
            bail!(
                "{} of {} shards have a leader",
                known.len(),
                topology.shard_count
            );
        }
        tokio::time::sleep(LEADERS_POLL_EVERY).await;
    }
}

/// Names that fall into the shards in turn, so that a round over all of them asks each shard equally.
fn skus(client: &Client) -> anyhow::Result<Vec<String>> {
    let shards = client.topology().shard_count();
    let per_shard = SKUS_MIN.div_ceil(shards).max(1);
    let wanted = (per_shard * shards) as usize;
    let mut by_shard: Vec<Vec<String>> = vec![Vec::new(); shards as usize];
    for number in 0..wanted as u32 * NAMES_PER_SKU_MAX {
        let sku = format!("bench-{number}");
        let names = &mut by_shard[client.shard_of(&sku) as usize];
        if names.len() < per_shard as usize {
            names.push(sku);
        }
        if by_shard
            .iter()
            .all(|names| names.len() == per_shard as usize)
        {
            let turn = |n: usize| by_shard.iter().map(move |names| names[n].clone());
            return Ok((0..per_shard as usize).flat_map(turn).collect());
        }
    }
    bail!("no SKU falls into some of the {shards} shards")
}

/// Makes sure that nothing runs short. Returns the units that are held already.
async fn stock_up(client: &Client, skus: &[String]) -> anyhow::Result<i64> {
    let location = Location {
        location_id: LOCATION.into(),
        r#type: location::Type::Warehouse.into(),
        name: "Bench".into(),
        ..Location::default()
    };
    client
        .put_location(PutLocationRequest {
            request_id: String::new(),
            location: Some(location),
        })
        .await
        .context("cannot put the bench's location")?;

    let key = |sku: &String| PositionKey {
        sku: sku.clone(),
        location: LOCATION.into(),
    };
    let stock = client
        .get_availability(GetAvailabilityRequest {
            keys: skus.iter().map(key).collect(),
            consistency: Consistency::Linearizable.into(),
            at_least: Vec::new(),
        })
        .await
        .context("cannot read the bench's stock")?;

    let lines: Vec<MovementLine> = (stock.items.iter())
        .filter(|item| item.available < AVAILABLE_MIN)
        .map(|item| MovementLine {
            line: item.sku.clone(),
            sku: item.sku.clone(),
            location: LOCATION.into(),
            quantity: RECEIPT_UNITS,
            occurred_at: None,
        })
        .collect();
    if !lines.is_empty() {
        let document = format!("bench-{}", Uuid::now_v7());
        let answer = client
            .record_receipts(vec![RecordReceiptsRequest { document, lines }])
            .await
            .context("cannot receive the bench's stock")?;
        let refused = answer
            .verdicts
            .iter()
            .find(|v| v.verdict() == LineResult::Refused);
        if let Some(refused) = refused {
            bail!("the bench's stock was refused: {:?}", refused.error);
        }
    }
    Ok(stock.items.iter().map(|item| item.reserved).sum())
}
