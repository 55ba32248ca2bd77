//! Setting the shop up: its stores, and the stock they open with.

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use stock_proto::stock::v1::MovementLine;
use stock_tally::stock;

use super::figures::CallKind;
use super::orders::Counter;
use super::progress::Progress;

/// Lines of one RecordReceipts call; the API takes 10,000.
const RECEIPT_LINES_PER_CALL: usize = 5_000;
const RECEIPT_CALLS_IN_FLIGHT: usize = 4;
const PUT_LOCATIONS_IN_FLIGHT: usize = 16;

/// Makes every store a location.
pub(crate) async fn put_stores(counter: &Counter<'_>) -> anyhow::Result<()> {
    stream::iter(&counter.plan.stores)
        .map(|store| {
            let put = counter.client.put_location(stock::store(store));
            counter.timed(CallKind::PutLocation, put)
        })
        .buffer_unordered(PUT_LOCATIONS_IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .map_err(anyhow::Error::msg)
        .context("cannot put the stores")
}

/// Receives every position's opening stock; one document for each call, so that a retried call
/// finds its lines recorded.
pub(crate) async fn receive_opening_stock(
    counter: &Counter<'_>,
    run_name: &str,
) -> anyhow::Result<()> {
    let indexes: Vec<usize> = (0..counter.plan.positions.len())
        .filter(|i| counter.plan.positions[*i].opening > 0)
        .collect();
    let progress = &Progress::new("opening stock", indexes.len() as u64);
    stream::iter(indexes.chunks(RECEIPT_LINES_PER_CALL).enumerate())
        .map(|(number, chunk)| async move {
            receive(counter, format!("{run_name}-opening-{number}"), chunk).await?;
            progress.add(chunk.len());
            Ok::<_, anyhow::Error>(())
        })
        .buffer_unordered(RECEIPT_CALLS_IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
        .context("cannot receive the opening stock")
}

async fn receive(counter: &Counter<'_>, document: String, indexes: &[usize]) -> anyhow::Result<()> {
    let line = |index: &usize| {
        let position = &counter.plan.positions[*index];
        let (sku, location) = (&position.sku, &position.location);
        stock::movement(index.to_string(), sku, location, position.opening)
    };
    let lines: Vec<MovementLine> = indexes.iter().map(line).collect();
    let receipt = stock::receive(counter.client, &document, &lines);
    let received = counter.timed(CallKind::Receive, receipt).await;
    received.map_err(anyhow::Error::msg)?;
    let mut tally = counter.tally.borrow_mut();
    for index in indexes {
        tally.received(*index, counter.plan.positions[*index].opening);
    }
    Ok(())
}
