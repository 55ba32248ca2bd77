//! stockd: SKUs spread evenly over the shards, with stock that does not run out, and the calls that
//! are compared. They use the generated stubs and not the Rust client, so that all of them cost the
//! same on this side of the wire.

mod calls;
mod streams;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use stock_client::Client;
use stock_proto::stock::v1::{Availability, Line, MovementLine, PositionKey};
use stock_tally::{Position, stock};
use tonic::transport::Channel;
use uuid::Uuid;

pub(crate) use self::calls::{BatchCall, EchoCall, ReadCall, ReserveCall};
pub(crate) use self::streams::Asked;
use self::streams::{Pace, Streams};
use super::Work;
use crate::lab::{Caller, Load, Patience, Processes, Recorder, Window, WindowTimes};

const LOCATION: &str = "bench";
/// At least this many SKUs, and the same number in every shard.
const SKUS_MIN: u32 = 64;
/// At least this many in each shard: baskets are of one.
const SKUS_PER_SHARD_MIN: u32 = 5;
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

/// A cluster that is ready to be called.
pub(crate) struct Stockd {
    /// Turn by turn from every shard.
    skus: Vec<Sku>,
    ttl: prost_types::Duration,
    /// Shards by the node that leads them.
    leaders: BTreeMap<u64, u32>,
    still_held: i64,
}

/// A SKU, and the way to the node that leads its shard.
#[derive(Clone)]
struct Sku {
    name: String,
    location: String,
    shard: u32,
    leader: u64,
    channel: Channel,
}

impl Sku {
    fn line(&self) -> Line {
        Line::at(&self.name, &self.location, 1)
    }
}

impl Stockd {
    /// Puts the location, tops the stock up, and opens a connection to each leader. Holds last for
    /// `ttl`.
    pub(crate) async fn prepare(client: &Client, ttl: Duration) -> anyhow::Result<Stockd> {
        Stockd::prepare_skus(client, ttl, SKUS_MIN).await
    }

    /// The same with so many SKUs at least.
    pub(crate) async fn prepare_skus(
        client: &Client,
        ttl: Duration,
        skus_min: u32,
    ) -> anyhow::Result<Stockd> {
        let names = names(client, skus_min)?;
        let still_held = stock_up(client, &names).await?;
        let here = |name| (name, LOCATION.to_owned());
        let positions = names.into_iter().map(here).collect();
        let stockd = Stockd::over(client, ttl, positions).await?;
        Ok(Stockd {
            still_held,
            ..stockd
        })
    }

    /// Over positions (SKU and location) that have stock already, turn by turn from every shard.
    pub(crate) async fn over(
        client: &Client,
        ttl: Duration,
        positions: Vec<(String, String)>,
    ) -> anyhow::Result<Stockd> {
        let leaders = wait_for_leaders(client).await?;
        let ttl = prost_types::Duration::try_from(ttl).context("a time to live out of range")?;
        let mut skus = Vec::with_capacity(positions.len());
        for (name, location) in positions {
            let shard = client.shard_of(&name);
            let channel = client.leader_channel(shard).with_context(|| {
                format!("shard {shard} lost its leader while the bench was set up")
            })?;
            let leader = leaders.get(shard as usize).copied().unwrap_or_default();
            skus.push(Sku {
                name,
                location,
                shard,
                leader,
                channel,
            });
        }
        let mut shards_led = BTreeMap::new();
        for leader in leaders {
            *shards_led.entry(leader).or_insert(0) += 1;
        }
        let stockd = Stockd {
            skus,
            ttl,
            leaders: shards_led,
            still_held: 0,
        };
        warm_up(stockd.echoes(Work::Uniform)).await?;
        warm_up(stockd.reserves(Work::Uniform)).await?;
        warm_up(stockd.reads()).await?;
        Ok(stockd)
    }

    /// Reserves, each at the leader of its shard.
    pub(crate) fn reserves(&self, work: Work) -> Vec<ReserveCall> {
        let call = |channel: &Channel, lines| ReserveCall::new(channel, lines, self.ttl);
        let one = |sku: &Sku| call(&sku.channel, vec![sku.line()]);
        match work {
            Work::Uniform => self.skus.iter().map(one).collect(),
            Work::Hot => self.skus.iter().take(1).map(one).collect(),
            Work::Basket(size) => {
                let mut by_shard: BTreeMap<u32, Vec<&Sku>> = BTreeMap::new();
                for sku in &self.skus {
                    by_shard.entry(sku.shard).or_default().push(sku);
                }
                let basket = |skus: Vec<&Sku>| {
                    let lines = skus.iter().cycle().take(size).map(|sku| sku.line());
                    call(&skus[0].channel, lines.collect())
                };
                by_shard.into_values().map(basket).collect()
            }
        }
    }

    /// Reserves of so many lines over so many shards, beginning with each shard in turn: through
    /// one node, or each at the leader of its home.
    pub(crate) fn over_shards(
        &self,
        lines: usize,
        shards: usize,
        through_one: bool,
    ) -> Vec<ReserveCall> {
        let mut by_shard: BTreeMap<u32, Vec<&Sku>> = BTreeMap::new();
        for sku in &self.skus {
            by_shard.entry(sku.shard).or_default().push(sku);
        }
        let by_shard: Vec<Vec<&Sku>> = by_shard.into_values().collect();
        let basket = |first: usize| {
            let sku = |number: usize| {
                let of_shard = &by_shard[(first + number % shards) % by_shard.len()];
                of_shard[number / shards % of_shard.len()]
            };
            let skus: Vec<&Sku> = (0..lines).map(sku).collect();
            let home = skus.iter().min_by_key(|sku| &sku.name);
            let node = match through_one {
                true => self.skus.first(),
                false => home.copied(),
            };
            let lines = skus.iter().map(|sku| sku.line()).collect();
            Some(ReserveCall::new(&node?.channel, lines, self.ttl))
        };
        (0..by_shard.len()).filter_map(basket).collect()
    }

    /// Bare calls with a payload of a reserve's size, to the same nodes in the same proportions.
    pub(crate) fn echoes(&self, work: Work) -> Vec<EchoCall> {
        self.reserves(work).iter().map(ReserveCall::echo).collect()
    }

    /// Reads of one position each, at the same nodes in the same proportions.
    pub(crate) fn reads(&self) -> Vec<ReadCall> {
        let read = |sku: &Sku| {
            let key = PositionKey::at(sku.name.clone(), sku.location.clone());
            ReadCall::new(&sku.channel, key)
        };
        self.skus.iter().map(read).collect()
    }

    /// Calls of so many requests each, to each leader in turn.
    pub(crate) fn batches(&self, size: usize) -> Vec<BatchCall> {
        let of_leader = |skus: Vec<&Sku>| {
            let lines = skus.iter().cycle().take(size).map(|sku| sku.line());
            BatchCall::new(&skus[0].channel, lines.collect(), self.ttl)
        };
        self.by_leader().into_values().map(of_leader).collect()
    }

    /// Windows of streams: see [`Window::run`].
    pub(crate) async fn stream_windows(
        &self,
        what: &str,
        asked: Asked,
        servers: &Processes,
        load: Load,
        times: WindowTimes,
        patience: &mut Patience,
    ) -> anyhow::Result<Vec<Window>> {
        let pace = match load {
            Load::Stream { unanswered } => Pace::Unanswered(unanswered as usize),
            Load::OpenStream { per_second } => Pace::PerSecond(per_second),
            Load::ClosedLoop { .. } | Load::OpenLoop { .. } | Load::Planned { .. } => {
                bail!("{what}: streams are no calls")
            }
        };
        let streams = self.streams();
        Window::repeat(what, load, patience, async || {
            let run = async |recorder: &Rc<Recorder>| streams.run(asked, pace, recorder).await;
            Window::measure(what, load, servers, times, run).await
        })
        .await
    }

    fn streams(&self) -> Streams {
        let to_leader = |skus: Vec<&Sku>| {
            let lines = skus.iter().map(|sku| sku.line());
            (skus[0].channel.clone(), lines.collect())
        };
        let leaders = self.by_leader().into_values().map(to_leader);
        Streams::new(leaders.collect(), self.ttl)
    }

    /// Of the calls that [`Self::reserves`], [`Self::echoes`] and [`Self::reads`] give for single
    /// lines, those that go to one node: for one call in flight.
    pub(crate) fn of_one_leader<C: Clone>(&self, calls: &[C]) -> Vec<C> {
        let first = self.skus.first().map(|sku| sku.leader);
        let calls = self.skus.iter().zip(calls);
        let of_first = calls.filter(|(sku, _)| Some(sku.leader) == first);
        of_first.map(|(_, call)| call.clone()).collect()
    }

    pub(crate) fn skus(&self) -> usize {
        self.skus.len()
    }

    pub(crate) fn leaders(&self) -> &BTreeMap<u64, u32> {
        &self.leaders
    }

    /// Units that holds of an earlier run had when this one began.
    pub(crate) fn still_held(&self) -> i64 {
        self.still_held
    }

    fn by_leader(&self) -> BTreeMap<u64, Vec<&Sku>> {
        let mut by_leader: BTreeMap<u64, Vec<&Sku>> = BTreeMap::new();
        for sku in &self.skus {
            by_leader.entry(sku.leader).or_default().push(sku);
        }
        by_leader
    }
}

async fn warm_up(calls: Vec<impl Caller>) -> anyhow::Result<()> {
    for _ in 0..WARM_UP_CALLS_PER_TARGET {
        for mut call in calls.clone() {
            call.call().await.map_err(anyhow::Error::msg)?;
        }
    }
    Ok(())
}

/// The leader of every shard, by shard number.
async fn wait_for_leaders(client: &Client) -> anyhow::Result<Vec<u64>> {
    let started = Instant::now();
    loop {
        // A call and not only a look at what is known, so that the client learns the newest, too.
        let topology = client.get_topology().await?;
        let known: Vec<u64> = (topology.shards.iter())
            .filter_map(|shard| shard.leader_node_id)
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

/// Names that fall into the shards in turn, so that a round over all of them asks each shard
/// equally.
fn names(client: &Client, skus_min: u32) -> anyhow::Result<Vec<String>> {
    let shards = client.topology().shard_count();
    let per_shard = skus_min.div_ceil(shards).max(SKUS_PER_SHARD_MIN);
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

fn position(sku: &str) -> Position {
    Position {
        sku: sku.to_owned(),
        location: LOCATION.to_owned(),
        opening: 0,
    }
}

/// Makes sure that nothing runs short. Returns the units that are held already.
async fn stock_up(client: &Client, skus: &[String]) -> anyhow::Result<i64> {
    let put = stock::put_stores(client, [&LOCATION.to_owned()]).await;
    put.context("cannot put the bench's location")?;

    let positions: Vec<Position> = skus.iter().map(|sku| position(sku)).collect();
    let positions: Vec<&Position> = positions.iter().collect();
    let found = stock::read_all(client, &positions).await;
    let found = found.context("cannot read the bench's stock")?;

    let is_short = |item: &&Availability| item.available < AVAILABLE_MIN;
    let lines = found
        .iter()
        .filter(is_short)
        .map(|item| stock::movement(item.sku.clone(), &item.sku, LOCATION, RECEIPT_UNITS));
    let lines: Vec<MovementLine> = lines.collect();
    if !lines.is_empty() {
        let document = format!("bench-{}", Uuid::now_v7());
        let received = stock::receive(client, &document, &lines).await;
        received.context("cannot receive the bench's stock")?;
    }
    Ok(found.iter().map(|item| item.reserved).sum())
}
