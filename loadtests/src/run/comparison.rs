//! The stock as the cluster has it, beside what was acknowledged.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use stock_tally::{Position, stock};

use super::shop::Shop;

/// How long after their time holds may still be on their way out.
const EXPIRY_WAIT_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(500);

const MISMATCHES_LISTED_MAX: usize = 20;

#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) positions: usize,
    pub(crate) mismatches: usize,
    pub(crate) listed: Vec<String>,
    /// As the cluster says.
    pub(crate) on_hand: i64,
    pub(crate) reserved: i64,
}

/// Reads every position linearizably. Holds that were left to expire are waited for, the last of
/// which ends in `last_ends_in`.
pub(crate) async fn compare(
    shop: &Shop,
    last_ends_in: Option<Duration>,
) -> anyhow::Result<Comparison> {
    let began = Instant::now();
    let patience = last_ends_in.map_or(Duration::ZERO, |ends| ends + EXPIRY_WAIT_MAX);
    loop {
        let comparison = look(shop).await?;
        if comparison.mismatches == 0 || began.elapsed() >= patience {
            return Ok(comparison);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(shop: &Shop) -> anyhow::Result<Comparison> {
    let positions: Vec<&Position> = shop.positions.iter().collect();
    let answers = stock::read_all(&shop.client, &positions).await;
    let answers = answers.context("cannot read the stock")?;
    let tally = shop.tally.borrow();
    let answers = || answers.iter();
    let mismatches = (shop.positions.iter().enumerate())
        .zip(answers())
        .filter_map(|((index, position), answer)| tally.check(index, position, answer));
    let mismatches: Vec<String> = mismatches.map(|mismatch| mismatch.to_string()).collect();
    Ok(Comparison {
        positions: shop.positions.len(),
        mismatches: mismatches.len(),
        listed: mismatches.into_iter().take(MISMATCHES_LISTED_MAX).collect(),
        on_hand: answers().map(|answer| answer.on_hand).sum(),
        reserved: answers().map(|answer| answer.reserved).sum(),
    })
}
