//! The positions: made as fast as receipts go, and looked at after a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use stock_client::Client;
use stock_proto::stock::v1::{Consistency, MovementLine};
use stock_tally::stock::{self, LINES_PER_CALL};
use tokio::time::sleep;

/// Lines of one call.
const LINES_EACH: u64 = LINES_PER_CALL as u64;
const CALLS_IN_FLIGHT: usize = 6;

/// Units of each position: more than any run reserves.
const UNITS: i64 = 1_000_000;

/// Between two attempts at a shard that does not answer yet.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// SKUs, each at every location.
pub(crate) struct Assortment {
    skus: u64,
    locations: u64,
}

impl Assortment {
    /// At least so many positions.
    pub(crate) fn new(positions: u64, locations: u64) -> Assortment {
        Assortment {
            skus: positions.div_ceil(locations),
            locations,
        }
    }

    pub(crate) fn positions(&self) -> u64 {
        self.skus * self.locations
    }

    /// A SKU by number; any number will do.
    pub(crate) fn sku(&self, number: u64) -> String {
        format!("SKU-{:08}", number % self.skus)
    }

    /// A location by number; any number will do.
    pub(crate) fn location(&self, number: u64) -> String {
        format!("STORE-{:04}", number % self.locations)
    }
}

/// Makes all positions.
pub(crate) async fn fill(client: &Client, assortment: &Assortment) -> anyhow::Result<()> {
    let locations = (0..assortment.locations).map(|number| assortment.location(number));
    let locations: Vec<String> = locations.collect();
    stock::put_stores(client, &locations).await?;
    let progress = &ProgressBar::new(assortment.positions());
    if let Ok(style) = ProgressStyle::with_template("positions {wide_bar} {human_pos} {per_sec}") {
        progress.set_style(style);
    }
    let calls = assortment.positions().div_ceil(LINES_EACH);
    stream::iter(0..calls)
        .map(|call| async move {
            let from = call * LINES_EACH;
            let to = (from + LINES_EACH).min(assortment.positions());
            receive(client, assortment, from..to).await?;
            progress.inc(to - from);
            Ok::<_, anyhow::Error>(())
        })
        .buffer_unordered(CALLS_IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    progress.finish_and_clear();
    Ok(())
}

async fn receive(
    client: &Client,
    assortment: &Assortment,
    positions: std::ops::Range<u64>,
) -> anyhow::Result<()> {
    let document = format!("opening-{}", positions.start);
    let line = |position: u64| {
        // All locations of a SKU come together: they are in one shard.
        let sku = assortment.sku(position / assortment.locations);
        let location = assortment.location(position);
        stock::movement(position.to_string(), &sku, &location, UNITS)
    };
    let lines: Vec<MovementLine> = positions.map(line).collect();
    stock::receive(client, &document, &lines).await?;
    Ok(())
}

/// Waits until every shard answers a linearizable read, and checks what it answers.
pub(crate) async fn read_each_shard(
    client: &Client,
    assortment: &Assortment,
    within: Duration,
) -> anyhow::Result<()> {
    let began = Instant::now();
    for shard in 0..client.topology().shard_count() {
        let sku = (0..assortment.skus)
            .map(|number| assortment.sku(number))
            .find(|sku| client.shard_of(sku) == shard)
            .with_context(|| format!("no SKU is in shard {shard}"))?;
        let location = assortment.location(0);
        let request = stock::question([(&*sku, &*location)], Consistency::Linearizable);
        let answer = loop {
            match client.get_availability(request.clone()).await {
                Ok(answer) => break answer,
                Err(error) if began.elapsed() > within => return Err(error.into()),
                Err(_) => sleep(LOOK_EVERY).await,
            }
        };
        let on_hand = answer.items.first().map(|item| item.on_hand);
        ensure!(
            on_hand == Some(UNITS),
            "shard {shard} has lost stock: {answer:?}"
        );
    }
    Ok(())
}
