//! Before anything is measured: the locations, and what is on the shelves.

use std::collections::BTreeSet;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use stock_tally::OrderLine;
use stock_tally::stock::{self, LINES_PER_CALL};

use super::shop::Shop;

const RECEIPTS_IN_FLIGHT: usize = 4;

/// Puts every location, and receives what each position opens with.
pub(crate) async fn open(shop: &Shop) -> anyhow::Result<()> {
    let locations: BTreeSet<&String> = shop.positions.iter().map(|p| &p.location).collect();
    let put = stock::put_stores(&shop.client, locations).await;
    put.context("cannot put the locations")?;

    let line = |(position, opens): (usize, i64)| OrderLine {
        position,
        quantity: opens,
    };
    let opening = shop.positions.iter().map(|position| position.opening);
    let lines: Vec<OrderLine> = opening
        .enumerate()
        .filter(|(_, opens)| *opens > 0)
        .map(line)
        .collect();
    let progress = &ProgressBar::new(lines.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("opening stock {wide_bar} {human_pos}") {
        progress.set_style(style);
    }
    stream::iter(lines.chunks(LINES_PER_CALL))
        .map(|chunk| async move {
            shop.receive(chunk).await?;
            progress.inc(chunk.len() as u64);
            Ok::<_, String>(())
        })
        .buffer_unordered(RECEIPTS_IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
        .map_err(anyhow::Error::msg)
        .context("cannot receive the opening stock")?;
    progress.finish_and_clear();
    Ok(())
}
