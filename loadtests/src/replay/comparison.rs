//! The stock as the cluster has it, beside the tally.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{HumanCount, HumanDuration};
use stock_proto::stock::v1::Availability;
use stock_tally::stock::{self, KEYS_PER_READ};
use stock_tally::{Mismatch, Position};

use super::figures::CallKind;
use super::orders::Counter;
use super::plan::Ending;
use crate::Verdict;

const READS_IN_FLIGHT: usize = 4;
/// How long after their time to live the last holds may still be on their way out.
const EXPIRY_WAIT_MAX: Duration = Duration::from_secs(30);
const EXPIRY_POLL_EVERY: Duration = Duration::from_millis(500);
const MISMATCHES_LISTED_MAX: usize = 20;

/// Waits until no position holds more than the tally says, which is when the abandoned holds have
/// ended. Gives up in time to say which have not. Returns how long it took.
pub(crate) async fn wait_for_expiry(counter: &Counter<'_>) -> anyhow::Result<Duration> {
    let mut expiring: Vec<usize> = (counter.plan.orders.iter())
        .filter(|order| matches!(order.ending, Ending::LeftToExpire))
        .flat_map(|order| order.lines.iter().map(|line| line.position))
        .collect();
    expiring.sort_unstable();
    expiring.dedup();

    let started = Instant::now();
    let patience = counter.ttl_of_abandoned + EXPIRY_WAIT_MAX;
    while !expiring.is_empty() && !differing(counter, &expiring).await?.is_empty() {
        if started.elapsed() > patience {
            say!(
                "some holds have not ended {} after the last order",
                HumanDuration(patience)
            );
            break;
        }
        tokio::time::sleep(EXPIRY_POLL_EVERY).await;
    }
    Ok(started.elapsed())
}

/// Every position, whether it was ordered from or not.
pub(crate) async fn compare(counter: &Counter<'_>) -> anyhow::Result<Vec<Mismatch>> {
    let all: Vec<usize> = (0..counter.plan.positions.len()).collect();
    differing(counter, &all).await
}

/// Reads these positions linearizably and returns those that differ from the tally.
async fn differing(counter: &Counter<'_>, indexes: &[usize]) -> anyhow::Result<Vec<Mismatch>> {
    let answers: Vec<Vec<Availability>> = stream::iter(indexes.chunks(KEYS_PER_READ))
        .map(|chunk| read(counter, chunk))
        .buffered(READS_IN_FLIGHT)
        .try_collect()
        .await
        .context("cannot read the stock")?;
    let tally = counter.tally.borrow();
    Ok(indexes
        .iter()
        .zip(answers.iter().flatten())
        .filter_map(|(index, answer)| tally.check(*index, &counter.plan.positions[*index], answer))
        .collect())
}

async fn read(counter: &Counter<'_>, indexes: &[usize]) -> anyhow::Result<Vec<Availability>> {
    let positions = indexes.iter().map(|index| &counter.plan.positions[*index]);
    let positions: Vec<&Position> = positions.collect();
    let read = stock::read(counter.client, &positions);
    let answer = counter.timed(CallKind::Read, read).await;
    answer.map_err(anyhow::Error::msg)
}

/// Prints the sums and what differs.
pub(crate) fn print(counter: &Counter<'_>, waited: Duration, mismatches: &[Mismatch]) -> Verdict {
    let total = counter.tally.borrow().total();
    let opening: i64 = (counter.plan.positions.iter())
        .map(|position| position.opening)
        .sum();
    say!(
        "units: {} received, {} handed over, {} on hand, {} still reserved; the last holds ended \
         after {:.1} s",
        HumanCount(opening as u64),
        HumanCount((opening - total.on_hand) as u64),
        HumanCount(total.on_hand as u64),
        HumanCount(total.reserved as u64),
        waited.as_secs_f64()
    );
    say!(
        "positions compared: {}",
        HumanCount(counter.plan.positions.len() as u64)
    );
    say!("mismatches: {}", mismatches.len());
    for mismatch in mismatches.iter().take(MISMATCHES_LISTED_MAX) {
        say!("  {mismatch}");
    }
    match counter.figures.borrow().failures() == 0 && mismatches.is_empty() {
        true => Verdict::Passed,
        false => Verdict::Failed,
    }
}
