//! Setting the shop up: its stores, and the stock they open with.

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use stock_proto::stock::v1::line_verdict::Verdict as LineResult;
use stock_proto::stock::v1::{
    Location, MovementLine, PutLocationRequest, RecordReceiptsRequest, location,
};

use super::figures::CallKind;
use super::orders::{Counter, request_id};
use super::progress::Progress;

/// Lines of one RecordReceipts call; the API takes 10,000.
const RECEIPT_LINES_PER_CALL: usize = 5_000;
/// Lines of one message inside such a call.
const RECEIPT_LINES_PER_MESSAGE: usize = 500;
const RECEIPT_CALLS_IN_FLIGHT: usize = 4;
const PUT_LOCATIONS_IN_FLIGHT: usize = 16;

/// Makes every store a location.
pub(crate) async fn put_stores(counter: &Counter<'_>) -> anyhow::Result<()> {
    stream::iter(&counter.plan.stores)
        .map(|store| async move {
            let request = PutLocationRequest {
                request_id: request_id(),
                location: Some(Location {
                    location_id: store.clone(),
                    r#type: location::Type::Store.into(),
                    name: store.clone(),
                    ..Location::default()
                }),
            };
            counter
                .timed(CallKind::PutLocation, counter.client.put_location(request))
                .await
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
        MovementLine {
            line: index.to_string(),
            sku: position.sku.clone(),
            location: position.location.clone(),
            quantity: position.opening,
            occurred_at: Some(stock_client::now()),
        }
    };
    let messages: Vec<RecordReceiptsRequest> = indexes
        .chunks(RECEIPT_LINES_PER_MESSAGE)
        .map(|chunk| RecordReceiptsRequest {
            source: String::new(),
            document: document.clone(),
            lines: chunk.iter().map(line).collect(),
        })
        .collect();
    let answer = counter
        .timed(CallKind::Receive, counter.client.record_receipts(messages))
        .await
        .map_err(anyhow::Error::msg)?;
    if answer.verdicts.len() != indexes.len() {
        bail!(
            "{} lines were sent, {} verdicts came",
            indexes.len(),
            answer.verdicts.len()
        );
    }
    for (index, verdict) in indexes.iter().zip(&answer.verdicts) {
        match verdict.verdict() {
            // The document is this run's own, so that a line recorded before is one of a retried
            // call.
            LineResult::Recorded | LineResult::AlreadyRecorded => {
                let opening = counter.plan.positions[*index].opening;
                counter.tally.borrow_mut().received(*index, opening);
            }
            LineResult::Refused | LineResult::Unspecified => {
                bail!(
                    "line {index} of {document} was not recorded: {:?}",
                    verdict.error
                );
            }
        }
    }
    Ok(())
}
