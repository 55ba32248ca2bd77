//! Replays a shop's real baskets and checks the stock to the unit.
//!
//! Each run works on positions of its own: its SKUs are the data's product numbers behind a prefix
//! that no other run uses. So a run starts from positions that have never existed, and what an earlier
//! run left behind when it was interrupted (holds that expire in the middle of this one, confirmed
//! orders that nobody fulfilled) cannot be taken for a mistake or hide one. The price is about 73,000
//! new positions for each run of four weeks.

mod dataset;
mod figures;
mod orders;
mod plan;
mod progress;
mod tally;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{HumanCount, HumanDuration};
use stock_client::Client;
use stock_proto::stock::v1::line_verdict::Verdict as LineResult;
use stock_proto::stock::v1::{
    Availability, Consistency, GetAvailabilityRequest, Location, MovementLine, PositionKey,
    PutLocationRequest, RecordReceiptsRequest, location,
};
use uuid::Uuid;

use self::dataset::{Dataset, Weeks};
use self::figures::{CallKind, Figures};
use self::orders::{Counter, request_id};
use self::plan::{Choices, Ending, Plan};
use self::progress::Progress;
use self::tally::{Mismatch, Tally};
use crate::Verdict;

/// How long the client keeps trying one call: longer than it takes to start a killed node again.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of one RecordReceipts call; the API takes 10,000.
const RECEIPT_LINES_PER_CALL: usize = 5_000;
/// Lines of one message inside such a call.
const RECEIPT_LINES_PER_MESSAGE: usize = 500;
const RECEIPT_CALLS_IN_FLIGHT: usize = 4;
const PUT_LOCATIONS_IN_FLIGHT: usize = 16;
/// Keys that one GetAvailability call takes.
const KEYS_PER_READ: usize = 2_000;
const READS_IN_FLIGHT: usize = 4;
/// How long after their time to live the last holds may still be on their way out.
const EXPIRY_WAIT_MAX: Duration = Duration::from_secs(30);
const EXPIRY_POLL_EVERY: Duration = Duration::from_millis(500);
/// Orders that may fail before the rest is left: a cluster that is gone fails each of them only after
/// the client's patience.
const FAILURES_MAX: u64 = 100;
const MISMATCHES_LISTED_MAX: usize = 20;

const ABOUT: &str = "Replays the dunnhumby Complete Journey baskets and checks every position";

const ABOUT_LONG: &str = "\
Replays the dunnhumby Complete Journey baskets and checks every position.

Every store of the data becomes a location, and every product it sells there gets an opening stock
that covers all the chosen weeks. Then the baskets come in the order of time: each is reserved (one
reservation per shard it touches), confirmed and fulfilled. Some are abandoned, half of those released
and half left to expire; some are handed over in two parts, or partly released before they are paid.

When the last hold has ended, every position is read linearizably and compared with a tally that was
kept beside it from the data alone. The SKUs of a run carry a prefix of their own, so a replay can be
repeated on the same cluster. Exit code 1 if a position differs or a call failed.

Fetch the data with: loadtests/fetch-dunnhumby.sh DIR";

/// What `loadtests replay` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// Where fetch-dunnhumby.sh wrote the baskets
    #[arg(long, value_name = "DIR")]
    dataset: PathBuf,

    /// Weeks of the data, 1 to 53; the first has one day
    #[arg(long, value_name = "A-B", default_value = "1-4")]
    weeks: Weeks,

    /// Any node of the cluster
    #[arg(long, value_name = "URL", default_value = crate::bench::ENDPOINT)]
    endpoint: String,

    /// Orders that are under way at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: u16,

    /// Baskets in 100 that nobody pays for: half are released, half left to expire
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    abandon_percent: u32,

    /// Orders in 100 that are handed over, or given back, in parts
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    partial_percent: u32,

    /// How long the holds last that are left to expire
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    expire_after: u16,

    /// Decides which baskets are abandoned and how much stock there is
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the whole replay and prints what came of it.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let dataset = dataset::read(&arguments.dataset, arguments.weeks)?;
    let client = Client::builder()
        .endpoint(&arguments.endpoint)
        .call_timeout(CALL_TIMEOUT)
        .connect()
        .await
        .with_context(|| format!("cannot reach the cluster at {}", arguments.endpoint))?;
    let run_name = run_name();
    let choices = Choices {
        seed: arguments.seed,
        abandon_percent: arguments.abandon_percent,
        partial_percent: arguments.partial_percent,
    };
    let plan = Plan::new(&dataset, &run_name, choices, |sku| client.shard_of(sku));
    print_plan(arguments, &dataset, &plan, &run_name);

    let counter = Counter {
        client: &client,
        plan: &plan,
        ttl_of_abandoned: Duration::from_secs(arguments.expire_after.into()),
        tally: RefCell::new(Tally::new(plan.positions.len())),
        figures: RefCell::new(Figures::new()),
    };
    put_stores(&counter).await?;
    receive_opening_stock(&counter, &run_name).await?;

    let carried = carry_orders(&counter, arguments.in_flight.into()).await;
    print_figures(&counter, &carried);

    let waited = wait_for_expiry(&counter).await?;
    let mismatches = compare(&counter).await?;
    Ok(print_comparison(&counter, waited, &mismatches))
}

/// Short, and another one each time.
fn run_name() -> String {
    // The first digits of such an id are the time; the last are drawn at random.
    let id = Uuid::now_v7().simple().to_string();
    format!("r{}", &id[id.len() - 8..])
}

fn lines(plan: &Plan) -> u64 {
    plan.orders
        .iter()
        .map(|order| order.lines.len() as u64)
        .sum()
}

fn print_plan(arguments: &Arguments, dataset: &Dataset, plan: &Plan, run_name: &str) {
    println!(
        "weeks {}: {} baskets, {} lines; {} lines with a quantity of 0 or less are skipped",
        arguments.weeks,
        HumanCount(dataset.baskets.len() as u64),
        HumanCount(lines(plan)),
        HumanCount(dataset.lines_skipped)
    );
    println!(
        "{} orders (one for each shard of a basket), {} stores, {} positions, SKUs are named {run_name}.PRODUCT",
        HumanCount(plan.orders.len() as u64),
        HumanCount(plan.stores.len() as u64),
        HumanCount(plan.positions.len() as u64)
    );
    println!(
        "{} baskets are abandoned ({} %), half of them left to expire after {} s; seed {}",
        HumanCount(plan.baskets_abandoned),
        arguments.abandon_percent,
        arguments.expire_after,
        arguments.seed
    );
}

async fn put_stores(counter: &Counter<'_>) -> anyhow::Result<()> {
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

/// One document for each call, so that a retried call finds its lines recorded.
async fn receive_opening_stock(counter: &Counter<'_>, run_name: &str) -> anyhow::Result<()> {
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
            occurred_at: None,
        }
    };
    let messages: Vec<RecordReceiptsRequest> = indexes
        .chunks(RECEIPT_LINES_PER_MESSAGE)
        .map(|chunk| RecordReceiptsRequest {
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
            // The document is this run's own, so that a line recorded before is one of a retried call.
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

/// How much of the plan was done, and how long it took.
struct Carried {
    orders: usize,
    lines: u64,
    took: Duration,
}

/// Starts the orders one after the other, so many at a time.
async fn carry_orders(counter: &Counter<'_>, in_flight: usize) -> Carried {
    let failures = || counter.figures.borrow().failures();
    let started = Instant::now();
    let progress = Progress::new("replay", lines(counter.plan));
    let mut carried = Carried {
        orders: 0,
        lines: 0,
        took: Duration::ZERO,
    };
    let mut orders = stream::iter(&counter.plan.orders)
        .take_while(|_| std::future::ready(failures() < FAILURES_MAX))
        .map(|order| async {
            counter.carry(order).await;
            order.lines.len()
        })
        .buffer_unordered(in_flight);
    while let Some(lines) = orders.next().await {
        progress.add(lines);
        carried.orders += 1;
        carried.lines += lines as u64;
    }
    carried.took = started.elapsed();
    progress.finish();
    carried
}

/// Waits until no position holds more than the tally says, which is when the abandoned holds have
/// ended. Gives up in time to say which have not. Returns how long it took.
async fn wait_for_expiry(counter: &Counter<'_>) -> anyhow::Result<Duration> {
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
            println!(
                "some holds have not ended {} after the last order",
                HumanDuration(patience)
            );
            break;
        }
        tokio::time::sleep(EXPIRY_POLL_EVERY).await;
    }
    Ok(started.elapsed())
}

async fn compare(counter: &Counter<'_>) -> anyhow::Result<Vec<Mismatch>> {
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
    let key = |index: &usize| PositionKey {
        sku: counter.plan.positions[*index].sku.clone(),
        location: counter.plan.positions[*index].location.clone(),
    };
    let request = GetAvailabilityRequest {
        keys: indexes.iter().map(key).collect(),
        consistency: Consistency::Linearizable.into(),
        at_least: Vec::new(),
    };
    let answer = counter
        .timed(CallKind::Read, counter.client.get_availability(request))
        .await
        .map_err(anyhow::Error::msg)?;
    if answer.items.len() != indexes.len() {
        bail!(
            "{} positions were asked for, {} answered",
            indexes.len(),
            answer.items.len()
        );
    }
    Ok(answer.items)
}

fn print_figures(counter: &Counter<'_>, carried: &Carried) {
    let figures = counter.figures.borrow();
    let calls = figures.calls(&[
        CallKind::Reserve,
        CallKind::Confirm,
        CallKind::Release,
        CallKind::Fulfill,
    ]);
    let seconds = carried.took.as_secs_f64().max(1e-9);
    let per_second = |count: u64| HumanCount((count as f64 / seconds) as u64);

    println!("{}", figures.table());
    println!(
        "replayed: {} orders, {} lines, {} calls in {seconds:.1} s: {} lines/s, {} calls/s",
        HumanCount(carried.orders as u64),
        HumanCount(carried.lines),
        HumanCount(calls),
        per_second(carried.lines),
        per_second(calls)
    );
    println!(
        "calls that took 100 ms or more, as when a node is lost: {}",
        HumanCount(figures.slow_calls())
    );
    println!("failed orders: {}", HumanCount(figures.failures()));
    for failure in figures.failures_listed() {
        println!("  {failure}");
    }
    let left = counter.plan.orders.len() - carried.orders;
    if left > 0 {
        println!(
            "stopped after {FAILURES_MAX} failures; {} orders were not tried",
            HumanCount(left as u64)
        );
    }
}

fn print_comparison(counter: &Counter<'_>, waited: Duration, mismatches: &[Mismatch]) -> Verdict {
    let total = counter.tally.borrow().total();
    let opening: i64 = (counter.plan.positions.iter())
        .map(|position| position.opening)
        .sum();
    println!(
        "units: {} received, {} handed over, {} on hand, {} still reserved; the last holds ended after {:.1} s",
        HumanCount(opening as u64),
        HumanCount((opening - total.on_hand) as u64),
        HumanCount(total.on_hand as u64),
        HumanCount(total.reserved as u64),
        waited.as_secs_f64()
    );
    println!(
        "positions compared: {}",
        HumanCount(counter.plan.positions.len() as u64)
    );
    println!("mismatches: {}", mismatches.len());
    for mismatch in mismatches.iter().take(MISMATCHES_LISTED_MAX) {
        println!("  {mismatch}");
    }
    match counter.figures.borrow().failures() == 0 && mismatches.is_empty() {
        true => Verdict::Passed,
        false => Verdict::Failed,
    }
}
