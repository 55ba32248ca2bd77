//! A day in the shop: the real baskets of some weeks, laid over each other by their time of day.
//! Most are bought at a till, some ordered online (held, paid a little later, and fetched), and
//! people look before they buy.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::profile::{Day, Lines};
use super::shop::Shop;
use crate::lab::{Call, Departures, Outcome, Recorder};
use crate::replay::dataset::Dataset;
use stock_tally::{OrderLine, Position};

use crate::replay::plan::Positions;

const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// Somebody who buys has looked at most so long before.
const LOOKED_BEFORE: f64 = 900.0;

/// From an order to its payment, and until it is fetched: in seconds of the day.
const PAID_AFTER: std::ops::RangeInclusive<f64> = 60.0..=600.0;
const FETCHED_AFTER: std::ops::RangeInclusive<f64> = 1_800.0..=7_200.0;

/// What happens and when depends on the data and the seed only. A prefix for the SKUs gives them
/// their shards.
pub(crate) struct DayPlan {
    pub(crate) positions: Vec<Position>,
    /// In the order of time.
    pub(crate) errands: Vec<Errand>,
}

pub(crate) struct Errand {
    /// From the beginning, in compressed time.
    at: Duration,
    does: Does,
}

enum Does {
    Look(Vec<usize>),
    Buy(Vec<OrderLine>),
    Order {
        lines: Vec<OrderLine>,
        paid_after: Duration,
        fetched_after: Duration,
    },
}

impl DayPlan {
    pub(crate) fn new(
        dataset: &Dataset,
        day: &Day,
        lines: Lines,
        sku_prefix: &str,
        seed: u64,
    ) -> DayPlan {
        let mut random = StdRng::seed_from_u64(seed);
        let mut positions = Positions::new(sku_prefix);
        let mut errands = Vec::new();
        let compressed =
            |seconds: f64| Duration::from_secs_f64(seconds * day.seconds / SECONDS_OF_A_DAY);
        for basket in &dataset.baskets {
            // Several weeks lie over each other, which all were recorded to the second.
            let second = f64::from(basket.second_of_day) + random.random_range(0.0..1.0);
            let orders = positions.orders(basket);
            let all: Vec<OrderLine> = orders.iter().flatten().copied().collect();
            for _ in 0..day.kiosk_reads_per_basket {
                let looked = (second - random.random_range(0.0..LOOKED_BEFORE)).max(0.0);
                let first = random.random_range(0..all.len());
                let seen = all.iter().cycle().skip(first).take(lines.read as usize);
                errands.push(Errand {
                    at: compressed(looked),
                    does: Does::Look(seen.map(|line| line.position).collect()),
                });
            }
            let at = compressed(second);
            if !random.random_ratio(day.online_percent, 100) {
                let does = Does::Buy(all);
                errands.push(Errand { at, does });
                continue;
            }
            let paid_after = compressed(random.random_range(PAID_AFTER));
            let fetched_after = compressed(random.random_range(FETCHED_AFTER));
            errands.extend(orders.into_iter().map(|lines| Errand {
                at,
                does: Does::Order {
                    lines,
                    paid_after,
                    fetched_after,
                },
            }));
        }
        errands.sort_by_key(|errand| errand.at);
        DayPlan {
            positions: positions.list,
            errands,
        }
    }

    /// Calls that it takes.
    pub(crate) fn calls(&self) -> u32 {
        let calls = |errand: &Errand| match errand.does {
            Does::Look(_) | Does::Buy(_) => 1,
            Does::Order { .. } => 3,
        };
        self.errands.iter().map(calls).sum()
    }
}

/// Sends everybody on their errands when they are due; returns those that are still under way.
pub(crate) async fn run(
    errands: Vec<Errand>,
    shop: &Rc<Shop>,
    recorder: &Rc<Recorder>,
) -> anyhow::Result<JoinSet<()>> {
    let mut departures = Departures::new(recorder)?;
    for errand in errands {
        let due = recorder.from() + errand.at;
        let (shop, recorder) = (Rc::clone(shop), Rc::clone(recorder));
        let visitor = async move {
            if let Err(error) = visit(errand.does, due, &shop, &recorder).await {
                recorder.failed(error);
            }
        };
        if !departures.send(due, visitor).await? {
            break;
        }
    }
    Ok(departures.under_way())
}

async fn visit(does: Does, due: Instant, shop: &Shop, recorder: &Recorder) -> Result<(), String> {
    let sent = Instant::now();
    let done = |due, sent, kind, lines: usize| {
        let lines = lines as u64;
        recorder.answered_due(due, sent, Outcome::Done, Call { kind, lines });
    };
    match does {
        Does::Look(positions) => {
            shop.read_near(&positions).await?;
            done(due, sent, "read", positions.len());
        }
        Does::Buy(lines) => {
            shop.sell(&lines).await?;
            done(due, sent, "sale", lines.len());
        }
        Does::Order {
            lines,
            paid_after,
            fetched_after,
        } => {
            let count = lines.len();
            let Some(hold) = shop.reserve(lines).await? else {
                done(due, sent, "sold out", count);
                return Ok(());
            };
            done(due, sent, "reserve", count);
            let paid = wait_until(due + paid_after).await;
            shop.confirm(&hold).await?;
            done(paid, paid, "confirm", count);
            let fetched = wait_until(due + fetched_after).await;
            shop.fulfill(hold).await?;
            done(fetched, fetched, "fulfill", count);
        }
    }
    Ok(())
}

/// What follows an answer is timed from when it is sent: it could not have been sent before.
async fn wait_until(moment: Instant) -> Instant {
    tokio::time::sleep_until(moment.into()).await;
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::dataset::{Basket, BasketLine};

    #[test]
    fn baskets_come_at_their_time_of_day() {
        let basket = |second_of_day| Basket {
            store: 1,
            second_of_day,
            lines: vec![BasketLine {
                product: 7,
                quantity: 2,
            }],
        };
        let dataset = Dataset {
            // A week's evening before the next one's morning.
            baskets: vec![basket(64_800), basket(21_600)],
            lines_skipped: 0,
        };
        let day = Day {
            weeks: "1-2".parse().expect("weeks"),
            seconds: 100.0,
            online_percent: 0,
            kiosk_reads_per_basket: 1,
        };
        let plan = DayPlan::new(&dataset, &day, Lines::default(), "r1", 1);
        assert_eq!(plan.calls(), 4);
        assert_eq!(plan.positions.len(), 1);
        assert_eq!(plan.positions[0].opening, 4, "covers both baskets");
        let sales = plan.errands.iter();
        let sales = sales.filter(|errand| matches!(errand.does, Does::Buy(_)));
        let at: Vec<u128> = sales.map(|errand| errand.at.as_millis()).collect();
        assert!((25_000..25_010).contains(&at[0]), "{at:?}");
        assert!((75_000..75_010).contains(&at[1]), "{at:?}");

        let online = Day {
            online_percent: 100,
            kiosk_reads_per_basket: 0,
            ..day
        };
        let plan = DayPlan::new(&dataset, &online, Lines::default(), "r1", 1);
        assert_eq!(plan.calls(), 6);
    }
}
