//! What is made bigger, and how.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use stock_client::Client;
use tokio::time::sleep;

use super::axis::{ALONE, Axis, BUSY, reach};
use crate::lab::{Caller, Processes, Window, WindowTimes};
use crate::nodes::{NodeOptions, Nodes};
use crate::recovery::is_writing;
use crate::recovery::stock::{self, Assortment};
use crate::systems::Work;
use crate::systems::stockd::{ReserveCall, Stockd};

const FOUNDERS: u64 = 3;

/// Longer than any pause of a node that makes ten million positions.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Holds of calls that are measured.
const TTL: Duration = Duration::from_secs(2);
/// After which all of those have ended, so that no call pays for what came before it.
const ENDED_WITHIN: Duration = Duration::from_millis(2_500);
/// Holds that are there to be many.
const TTL_OF_MANY: Duration = Duration::from_secs(24 * 3_600);

/// SKUs that are reserved, however many shards there are: five in each of 64.
const SKUS: u32 = 320;
/// So that the largest basket has no SKU twice, in each of eight shards.
const SKUS_FOR_BASKETS: u32 = 800;

const LOCATIONS: u64 = 5;

/// Spreads numbers over all SKUs: a prime.
const STRIDE: u64 = 1_000_003;
/// Names tried for each SKU that is reserved.
const NAMES_PER_SKU_MAX: u64 = 1_000;

/// Holds that are made with one call, and calls at the same time.
const HOLDS_PER_CALL: usize = 250;
const CALLS_IN_FLIGHT: usize = 12;

/// What was made has been written down, and the holds of what was measured have ended.
const REST: Duration = Duration::from_secs(5);
const QUIET_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Leaders of a node more than of another.
const LEADERS_MORE_MAX: u32 = 1;

/// Measurements along one axis.
pub(super) struct Course {
    pub(super) axis: Axis,
    pub(super) options: NodeOptions,
    pub(super) rounds: u32,
    pub(super) times: WindowTimes,
    pub(super) windows: Vec<Window>,
    /// For each size, how many shards each node led.
    pub(super) leaders: Vec<(u64, Vec<u32>)>,
}

impl Course {
    pub(super) async fn run(&mut self, sizes: &[u64]) -> anyhow::Result<()> {
        match self.axis {
            Axis::Shards => self.shards(sizes).await,
            Axis::Positions => self.positions(sizes).await,
            Axis::Holds => self.holds(sizes).await,
            Axis::Lines => self.lines(sizes).await,
            Axis::Reach => self.reach(sizes).await,
        }
    }

    /// A new cluster for each, and in each round: shards are fixed when it is founded.
    async fn shards(&mut self, sizes: &[u64]) -> anyhow::Result<()> {
        for round in 1..=self.rounds {
            for size in in_turn(sizes, round) {
                self.options.shards = size as u32;
                let (nodes, client) = self.start().await?;
                let stockd = Stockd::prepare_skus(&client, TTL, SKUS).await?;
                self.one_line(size, round, &stockd, &nodes.processes())
                    .await?;
            }
        }
        Ok(())
    }

    /// They only become more: all rounds of a size before the next one.
    async fn positions(&mut self, sizes: &[u64]) -> anyhow::Result<()> {
        let (nodes, client) = self.start().await?;
        for size in sizes {
            let assortment = Assortment::new(*size, LOCATIONS);
            stock::fill(&client, &assortment).await?;
            wait_until_quiet(&nodes).await?;
            let positions = spread(&client, &assortment)?;
            let stockd = Stockd::over(&client, TTL, positions).await?;
            for round in 1..=self.rounds {
                self.one_line(*size, round, &stockd, &nodes.processes())
                    .await?;
            }
        }
        Ok(())
    }

    /// These, too.
    async fn holds(&mut self, sizes: &[u64]) -> anyhow::Result<()> {
        let (nodes, client) = self.start().await?;
        let many = Stockd::prepare_skus(&client, TTL_OF_MANY, SKUS).await?;
        let stockd = Stockd::prepare_skus(&client, TTL, SKUS).await?;
        let mut open = 0;
        for size in sizes {
            hold(&many, size - open).await?;
            open = *size;
            wait_until_quiet(&nodes).await?;
            for round in 1..=self.rounds {
                self.one_line(*size, round, &stockd, &nodes.processes())
                    .await?;
            }
        }
        Ok(())
    }

    async fn lines(&mut self, sizes: &[u64]) -> anyhow::Result<()> {
        let (nodes, client) = self.start().await?;
        let stockd = Stockd::prepare_skus(&client, TTL, SKUS_FOR_BASKETS).await?;
        let servers = nodes.processes();
        for round in 1..=self.rounds {
            for size in in_turn(sizes, round) {
                let baskets = stockd.reserves(Work::Basket(size as usize));
                let first = &baskets[..1];
                self.measure(size, round, first, &baskets, &stockd, &servers)
                    .await?;
            }
        }
        Ok(())
    }

    /// Baskets over more and more shards, all through one node where they are alone.
    async fn reach(&mut self, sizes: &[u64]) -> anyhow::Result<()> {
        let (nodes, client) = self.start().await?;
        let stockd = Stockd::prepare_skus(&client, TTL, SKUS_FOR_BASKETS).await?;
        let servers = nodes.processes();
        for round in 1..=self.rounds {
            for size in in_turn(sizes, round) {
                let (lines, shards) = reach(size);
                let (lines, shards) = (lines as usize, shards as usize);
                let alone = stockd.over_shards(lines, shards, true);
                let busy = stockd.over_shards(lines, shards, false);
                self.measure(size, round, &alone, &busy, &stockd, &servers)
                    .await?;
            }
        }
        Ok(())
    }

    async fn start(&self) -> anyhow::Result<(Nodes, Client)> {
        let nodes = Nodes::found(&self.options, FOUNDERS, 0).await?;
        let client = nodes.client(CALL_TIMEOUT).await?;
        wait_until_spread(&client).await?;
        Ok((nodes, client))
    }

    async fn one_line(
        &mut self,
        size: u64,
        round: u32,
        stockd: &Stockd,
        servers: &Processes,
    ) -> anyhow::Result<()> {
        let busy = stockd.reserves(Work::Uniform);
        let alone = stockd.of_one_leader(&busy);
        self.measure(size, round, &alone, &busy, stockd, servers)
            .await
    }

    async fn measure(
        &mut self,
        size: u64,
        round: u32,
        alone: &[ReserveCall],
        busy: &[ReserveCall],
        stockd: &Stockd,
        servers: &Processes,
    ) -> anyhow::Result<()> {
        say!(
            "{} {}, round {round} of {}",
            self.axis.size(size),
            self.axis.name(),
            self.rounds
        );
        sleep(ENDED_WITHIN).await;
        let what = what(self.axis, size);
        let mut patience = super::patience();
        for (calls, load) in [(alone, ALONE), (busy, BUSY)] {
            let windows =
                Window::run(&what, calls, servers, load, self.times, &mut patience).await?;
            let windows = windows.into_iter();
            self.windows
                .extend(windows.map(|window| Window { round, ..window }));
        }
        let leaders = stockd.leaders().values().copied().collect();
        self.leaders.push((size, leaders));
        Ok(())
    }
}

/// The name of a size's windows.
pub(super) fn what(axis: Axis, size: u64) -> String {
    format!("{} {}", size, axis.name())
}

/// Up in one round and down in the next: what drifts in one direction favours no size.
fn in_turn(sizes: &[u64], round: u32) -> Vec<u64> {
    let mut sizes = sizes.to_vec();
    if round.is_multiple_of(2) {
        sizes.reverse();
    }
    sizes
}

/// Waits until each node leads as many shards as the others. That it never comes to that is no
/// error: the report says who led what.
async fn wait_until_spread(client: &Client) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let topology = client.get_topology().await?;
        let led = |node| {
            let shards = topology.shards.iter();
            shards
                .filter(|shard| shard.leader_node_id == Some(node))
                .count() as u32
        };
        let (least, most) = (1..=FOUNDERS)
            .map(led)
            .fold((u32::MAX, 0), |(least, most), led| {
                (least.min(led), most.max(led))
            });
        let is_known = topology
            .shards
            .iter()
            .all(|shard| shard.leader_node_id.is_some());
        if (is_known && most <= least + LEADERS_MORE_MAX) || began.elapsed() > REST {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Rests, and waits until no node writes a checkpoint.
async fn wait_until_quiet(nodes: &Nodes) -> anyhow::Result<()> {
    sleep(REST).await;
    let began = Instant::now();
    let is_busy = |node: &u64| is_writing(&nodes.data_dir(*node).join("checkpoints"));
    while nodes.running().iter().any(is_busy) {
        ensure!(
            began.elapsed() < QUIET_WITHIN,
            "a checkpoint is still written after {QUIET_WITHIN:?}"
        );
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Positions from all over the assortment, equally many of every shard and turn by turn.
fn spread(client: &Client, assortment: &Assortment) -> anyhow::Result<Vec<(String, String)>> {
    let shards = client.topology().shard_count();
    let per_shard = SKUS.div_ceil(shards) as usize;
    let mut by_shard = vec![Vec::new(); shards as usize];
    for number in 0..u64::from(SKUS) * NAMES_PER_SKU_MAX {
        let sku = assortment.sku(number * STRIDE);
        let location = assortment.location(number);
        let of_shard = &mut by_shard[client.shard_of(&sku) as usize];
        if of_shard.len() < per_shard {
            of_shard.push((sku, location));
        } else if by_shard.iter().all(|of_shard| of_shard.len() == per_shard) {
            break;
        }
    }
    let turn = |at: usize| {
        by_shard
            .iter()
            .map(move |of_shard| of_shard.get(at).cloned())
    };
    let turns = (0..per_shard).flat_map(turn);
    turns
        .collect::<Option<_>>()
        .context("too few positions in some shard")
}

/// So many more holds.
async fn hold(stockd: &Stockd, count: u64) -> anyhow::Result<()> {
    let progress = &ProgressBar::new(count);
    if let Ok(style) = ProgressStyle::with_template("holds {wide_bar} {human_pos} {per_sec}") {
        progress.set_style(style);
    }
    let calls = stockd.batches(HOLDS_PER_CALL);
    let next = calls.iter().cycle().cloned();
    stream::iter(next.take(count as usize / HOLDS_PER_CALL))
        .map(|mut call| async move {
            call.call().await?;
            progress.inc(HOLDS_PER_CALL as u64);
            Ok::<_, String>(())
        })
        .buffer_unordered(CALLS_IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
        .map_err(anyhow::Error::msg)
        .context("cannot make the holds")?;
    progress.finish_and_clear();
    Ok(())
}
