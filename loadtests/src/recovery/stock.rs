//! The positions: made as fast as receipts go, and looked at after a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use stock_client::Client;
use stock_proto::stock::v1::line_verdict::Verdict as LineResult;
use stock_proto::stock::v1::{
    Consistency, GetAvailabilityRequest, Location, MovementLine, PositionKey, PutLocationRequest,
    RecordReceiptsRequest, location,
};
use tokio::time::sleep;

/// Lines of one call; the API takes 10,000.
const LINES_PER_CALL: u64 = 10_000;
const LINES_PER_MESSAGE: usize = 2_500;
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
    for number in 0..assortment.locations {
        let location_id = assortment.location(number);
        let put = PutLocationRequest {
            location: Some(Location {
                name: location_id.clone(),
                location_id,
                r#type: location::Type::Store.into(),
                ..Location::default()
            }),
            ..Default::default()
        };
        client.put_location(put).await?;
    }
    let progress = &ProgressBar::new(assortment.positions());
    if let Ok(style) = ProgressStyle::with_template("positions {wide_bar} {human_pos} {per_sec}") {
        progress.set_style(style);
    }
    let calls = assortment.positions().div_ceil(LINES_PER_CALL);
    stream::iter(0..calls)
        .map(|call| async move {
            let from = call * LINES_PER_CALL;
            let to = (from + LINES_PER_CALL).min(assortment.positions());
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
    let count = (positions.end - positions.start) as usize;
    let line = |position: u64| MovementLine {
        line: position.to_string(),
        // All locations of a SKU come together: they are in one shard.
        sku: assortment.sku(position / assortment.locations),
        location: assortment.location(position),
        quantity: UNITS,
        occurred_at: Some(stock_client::now()),
    };
    let lines: Vec<MovementLine> = positions.map(line).collect();
    let messages: Vec<RecordReceiptsRequest> = lines
        .chunks(LINES_PER_MESSAGE)
        .map(|lines| RecordReceiptsRequest {
            source: String::new(),
            document: document.clone(),
            lines: lines.to_vec(),
        })
        .collect();
    let verdicts = client.record_receipts(messages).await?.verdicts;
    ensure!(
        verdicts.len() == count,
        "{count} lines were sent, {} verdicts came",
        verdicts.len()
    );
    // A call that was repeated finds its lines recorded.
    let is_good = |result| matches!(result, LineResult::Recorded | LineResult::AlreadyRecorded);
    match verdicts.iter().find(|verdict| !is_good(verdict.verdict())) {
        None => Ok(()),
        Some(verdict) => bail!("a line was not recorded: {verdict:?}"),
    }
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
        let request = GetAvailabilityRequest {
            keys: vec![PositionKey {
                sku,
                location: assortment.location(0),
            }],
            consistency: Consistency::Linearizable.into(),
            at_least: Vec::new(),
        };
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
