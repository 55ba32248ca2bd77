//! Replays a shop's real baskets and checks the stock to the unit.
//!
//! Each run works on positions of its own: its SKUs are the data's product numbers behind a prefix
//! that no other run uses. So a run starts from positions that have never existed, and what an
//! earlier run left behind when it was interrupted (holds that expire in the middle of this one,
//! confirmed orders that nobody fulfilled) cannot be taken for a mistake or hide one. The price is
//! about 73,000 new positions for each run of four weeks.

mod comparison;
pub(crate) mod dataset;
mod figures;
mod opening;
mod orders;
pub(crate) mod plan;
mod progress;
mod trouble;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, stream};
use indicatif::HumanCount;
use stock_client::Client;
use stock_tally::Tally;
use uuid::Uuid;

use self::dataset::{Dataset, Weeks};
use self::figures::{CallKind, Figures};
use self::orders::Counter;
use self::plan::{Choices, Plan};
use self::progress::Progress;
use self::trouble::Trouble;
use crate::Verdict;
use crate::nodes::{NodeOptions, Nodes};

/// The first node of `stockd dev`.
const ENDPOINT: &str = "http://127.0.0.1:7401";

/// How long the client keeps trying one call: longer than it takes to start a killed node again.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Orders that may fail before the rest is left: a cluster that is gone fails each of them only
/// after the client's patience.
const FAILURES_MAX: u64 = 100;

const ABOUT: &str = "Replays the dunnhumby Complete Journey baskets and checks every position";

const ABOUT_LONG: &str = "\
Replays the dunnhumby Complete Journey baskets and checks every position.

Every store of the data becomes a location, and every product it sells there gets an opening stock \
that covers all the chosen weeks. Then the baskets come in the order of time: each is reserved \
whole, over however many shards it reaches, confirmed and fulfilled. Some are abandoned, half of \
those released and half left to expire; some are handed over in two parts, or partly released \
before they are paid.

When the last hold has ended, every position is read linearizably and compared with a tally that \
was kept beside it from the data alone. Nodes may die meanwhile, or be replaced: with --kill-every \
and --replace-node the replay starts three of its own. The SKUs of a run carry a prefix of their \
own, so a replay can be repeated on the same cluster. Exit code 1 if a position differs or a call \
failed.

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
    #[arg(
        long,
        value_name = "URL",
        env = "STOCKD_ENDPOINT",
        default_value = ENDPOINT,
        conflicts_with_all = ["kill_every", "replace_node"]
    )]
    endpoint: String,

    /// Start three nodes, and kill a random one every so many seconds; it comes back a second later
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    kill_every: Option<u16>,

    /// Start three nodes, and replace one on the way: another one joins, it is drained and removed
    #[arg(long)]
    replace_node: bool,

    #[command(flatten)]
    nodes: NodeOptions,

    /// Orders that are under way at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=4096)
    )]
    in_flight: u16,

    /// Baskets in 100 that nobody pays for: half are released, half left to expire
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    abandon_percent: u32,

    /// Baskets in 100 that are handed over, or given back, in parts
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(0..=100)
    )]
    partial_percent: u32,

    /// How long the holds last that are left to expire
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..=3600)
    )]
    expire_after: u16,

    /// Decides which baskets are abandoned and how much stock there is
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the whole replay and prints what came of it.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let dataset = dataset::read(&arguments.dataset, arguments.weeks)?;
    let trouble = start_trouble(arguments).await?;
    let endpoint = match &trouble {
        Some((_, endpoint)) => endpoint,
        None => &arguments.endpoint,
    };
    let client = Client::builder()
        .endpoint(endpoint)
        .call_timeout(CALL_TIMEOUT)
        .connect()
        .await
        .with_context(|| format!("cannot reach the cluster at {endpoint}"))?;
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
    opening::put_stores(&counter).await?;
    opening::receive_opening_stock(&counter, &run_name).await?;

    let carried = match &trouble {
        None => carry_orders(&counter, arguments.in_flight.into()).await,
        Some((trouble, _)) => {
            let carry = async {
                let carried = carry_orders(&counter, arguments.in_flight.into()).await;
                trouble.end();
                carried
            };
            let (carried, made) = tokio::join!(carry, trouble.make(&client));
            made?;
            carried
        }
    };
    print_figures(&counter, &carried);
    if let Some((trouble, _)) = &trouble {
        trouble.print();
    }

    let waited = comparison::wait_for_expiry(&counter).await?;
    let mismatches = comparison::compare(&counter).await?;
    let verdict = comparison::print(&counter, waited, &mismatches);
    let Some((trouble, _)) = &trouble else {
        return Ok(verdict);
    };
    let unsettled = trouble.unsettled().await?;
    say!(
        "baskets that are undecided, or not told everywhere: {}",
        HumanCount(unsettled)
    );
    Ok(match unsettled {
        0 => verdict,
        _ => Verdict::Failed,
    })
}

/// Nodes of this program's own, if they are to be killed or replaced, and where the first one is.
async fn start_trouble(arguments: &Arguments) -> anyhow::Result<Option<(Trouble, String)>> {
    if arguments.kill_every.is_none() && !arguments.replace_node {
        return Ok(None);
    }
    let nodes = Nodes::found(&arguments.nodes, 3, 1).await?;
    say!("three nodes of our own, data in {}", nodes.dir().display());
    let endpoint = nodes.endpoint(1);
    let kill_every = arguments
        .kill_every
        .map(|seconds| Duration::from_secs(seconds.into()));
    let trouble = Trouble::new(nodes, kill_every, arguments.replace_node, arguments.seed);
    Ok(Some((trouble, endpoint)))
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
    say!(
        "weeks {}: {} baskets, {} lines; {} lines with a quantity of 0 or less are skipped",
        arguments.weeks,
        HumanCount(dataset.baskets.len() as u64),
        HumanCount(lines(plan)),
        HumanCount(dataset.lines_skipped)
    );
    say!(
        "{} orders (one for 256 lines of a basket), {} stores, {} positions, SKUs are named \
         {run_name}.PRODUCT",
        HumanCount(plan.orders.len() as u64),
        HumanCount(plan.stores.len() as u64),
        HumanCount(plan.positions.len() as u64)
    );
    say!("baskets by shards: {}", by_shards(plan));
    say!(
        "{} baskets are abandoned ({} %), half of them left to expire after {} s; seed {}",
        HumanCount(plan.baskets_abandoned),
        arguments.abandon_percent,
        arguments.expire_after,
        arguments.seed
    );
}

/// The share of baskets that reach over one shard, two, and so on.
fn by_shards(plan: &Plan) -> String {
    let all: u64 = plan.baskets_by_shards.values().sum();
    let share = |(shards, baskets): (&usize, &u64)| {
        let percent = *baskets as f64 * 100.0 / all.max(1) as f64;
        format!("{shards}: {percent:.1} %")
    };
    let shares: Vec<String> = plan.baskets_by_shards.iter().map(share).collect();
    shares.join(", ")
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

    say!("{}", figures.table());
    say!(
        "replayed: {} orders, {} lines, {} calls in {seconds:.1} s: {} lines/s, {} calls/s",
        HumanCount(carried.orders as u64),
        HumanCount(carried.lines),
        HumanCount(calls),
        per_second(carried.lines),
        per_second(calls)
    );
    say!(
        "calls that took 100 ms or more, as when a node is lost: {}",
        HumanCount(figures.slow_calls())
    );
    say!(
        "reserves of which a shard could not be asked in time, made anew: {}",
        HumanCount(figures.not_held())
    );
    say!("failed orders: {}", HumanCount(figures.failures()));
    for failure in figures.failures_listed() {
        say!("  {failure}");
    }
    let left = counter.plan.orders.len() - carried.orders;
    if left > 0 {
        say!(
            "stopped after {FAILURES_MAX} failures; {} orders were not tried",
            HumanCount(left as u64)
        );
    }
}
