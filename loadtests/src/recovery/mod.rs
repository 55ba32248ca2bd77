//! What many positions weigh, and how a node that holds them restarts, writes them down and passes
//! them on.

mod report;
pub(crate) mod reserves;
pub(crate) mod stock;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use stock_client::Client;
use tokio::time::sleep;

use self::report::{Figures, Report};
use self::reserves::{Reserves, Sort};
use crate::Verdict;
use crate::failover::load_average;
use crate::lab::stolen::{CpuTime, stolen_percent};
use crate::nodes::{NodeOptions, Nodes};

/// Longer than a restart.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// The node that founds the cluster alone.
const FOUNDER: u64 = 1;

/// From the kill until it serves again.
const SERVING_WITHIN: Duration = Duration::from_secs(600);

/// Reserves without anything else, before a node joins.
const QUIET: Duration = Duration::from_secs(10);

/// The load has settled on the disk, and freed memory has been given back.
const REST: Duration = Duration::from_secs(5);

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Memory that stays for everybody else.
const FREE_BYTES_MIN: u64 = 2 << 30;

const ABOUT: &str = "Measures the weight of many positions, and how nodes that hold them recover";

const ABOUT_LONG: &str = "\
Measures the weight of many positions, and how nodes that hold them recover.

Starts one node that founds a cluster alone, and fills it with positions. Measured are: the bytes \
in memory and on disk for each; the time from a start after SIGKILL until every shard answers a \
linearizable read; and, with nodes that join (two, unless said otherwise, so that each holds \
everything), the time until they hold what they should, and what reserves at 1,000 a second take \
before that, while a checkpoint is being written, and while snapshots travel.";

/// What `loadtests recovery` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// Positions
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000_000,
        value_parser = clap::value_parser!(u64).range(1_000..=100_000_000)
    )]
    positions: u64,

    /// Locations at which each SKU is
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=100)
    )]
    locations: u64,

    /// Nodes that join: with one, every other shard moves there; with two, each gets a replica of
    /// all
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u64).range(0..=2)
    )]
    joiners: u64,

    /// Reserves a second while nodes join
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(10..=10_000)
    )]
    per_second: u32,

    /// Write the figures here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    nodes: NodeOptions,
}

/// Fills a node, has it recover, and prints the figures.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let cpu = CpuTime::now();
    let load_before = load_average();
    let mut nodes = Nodes::found(&arguments.nodes, 1, arguments.joiners).await?;
    let client = nodes.client(CALL_TIMEOUT).await?;
    let empty_bytes = nodes.resident_bytes(FOUNDER)?;
    let mut figures = Figures::default();

    let began = Instant::now();
    let assortment = stock::Assortment::new(arguments.positions, arguments.locations);
    stock::fill(&client, &assortment).await?;
    figures.positions = assortment.positions();
    figures.fill_seconds = began.elapsed().as_secs_f64();
    sleep(REST).await;
    let positions = assortment.positions() as f64;
    let per_position = |bytes: u64| bytes as f64 / positions;
    let resident = nodes.resident_bytes(FOUNDER)?;
    figures.resident_bytes_each = per_position(resident.saturating_sub(empty_bytes));
    figures.log_bytes = directory_bytes(&nodes.data_dir(FOUNDER).join("log"));
    figures.ledger_bytes = directory_bytes(&nodes.data_dir(FOUNDER).join("ledger"));

    // A process counts from its start.
    let filling = checkpoint_times(&nodes).await?;
    figures.restart_seconds = restart(&mut nodes, &client, &assortment).await?;
    let restarted = nodes.resident_bytes(FOUNDER)?;
    figures.restarted_bytes_each = per_position(restarted.saturating_sub(empty_bytes));

    if arguments.joiners > 0 {
        check_memory(resident, arguments.joiners)?;
        join(arguments, &mut nodes, &client, &assortment, &mut figures).await?;
    }
    let later = checkpoint_times(&nodes).await?;
    let (written, seconds) = (filling.0 + later.0, filling.1 + later.1);
    figures.checkpoints_written = written as u64;
    figures.checkpoint_seconds_each = seconds / written.max(1.0);
    let checkpoint_bytes: u64 = newest_checkpoints(&nodes).values().sum();
    figures.checkpoint_bytes_each = per_position(checkpoint_bytes);

    let report = Report {
        shards: client.topology().shard_count(),
        joiners: arguments.joiners,
        figures,
        load_average: [load_before, load_average()],
        stolen_percent: stolen_percent(cpu, CpuTime::now()),
    };
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(match report.figures.reserves_failed {
        0 => Verdict::Passed,
        _ => Verdict::Failed,
    })
}

/// How many checkpoints the founder has written since it was started, and in how many seconds.
async fn checkpoint_times(nodes: &Nodes) -> anyhow::Result<(f64, f64)> {
    let name = |part: &str| format!("stockd_checkpoint_write_seconds_{part}");
    Ok((
        nodes.metric(FOUNDER, &name("count")).await?,
        nodes.metric(FOUNDER, &name("sum")).await?,
    ))
}

/// Kills the node, starts it, and waits until every shard answers.
async fn restart(
    nodes: &mut Nodes,
    client: &Client,
    assortment: &stock::Assortment,
) -> anyhow::Result<f64> {
    nodes.kill(FOUNDER);
    let began = Instant::now();
    nodes.start(FOUNDER)?;
    nodes.wait_until_led().await?;
    stock::read_each_shard(client, assortment, SERVING_WITHIN).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Reserves alone, and then while nodes join.
async fn join(
    arguments: &Arguments,
    nodes: &mut Nodes,
    client: &Client,
    assortment: &stock::Assortment,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let reserves = Reserves::begin(client, assortment, arguments.per_second);
    sleep(QUIET).await;
    reserves.now_is(Sort::Joining);
    let began = Instant::now();
    for node in 2..=arguments.joiners + 1 {
        nodes.start(node)?;
    }
    nodes.wait_until_led().await?;
    let voters = if arguments.joiners == 2 { 3 } else { 1 };
    let settled = async {
        nodes
            .wait_for_members(client, arguments.joiners + 1)
            .await?;
        nodes.wait_until_settled(client, voters).await
    };
    let checkpoints = nodes.data_dir(FOUNDER).join("checkpoints");
    let watch = async {
        loop {
            let sort = match is_writing(&checkpoints) {
                true => Sort::Checkpoint,
                false => Sort::Joining,
            };
            reserves.now_is(sort);
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        settled = settled => settled?,
        () = watch => {}
    }
    figures.join_seconds = began.elapsed().as_secs_f64();
    let received = nodes
        .metric(2, "stockd_snapshot_received_bytes_total")
        .await?;
    figures.join_bytes_per_node = received as u64;
    let joined = nodes.resident_bytes(2)?;
    figures.joined_resident_bytes = joined;
    let (latencies, failures) = reserves.end().await;
    figures.reserves = latencies;
    figures.reserves_failed = failures.len();
    for failure in failures.iter().take(5) {
        say!("a reserve failed: {failure}");
    }
    Ok(())
}

/// Whether a checkpoint is being written: its file does not have its name yet.
pub(crate) fn is_writing(dir: &std::path::Path) -> bool {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names = files.map(|file| file.file_name());
    names.any(|name| name.to_string_lossy().ends_with(".partial"))
}

/// Bytes of the newest checkpoint of each group on any node; a group that is small may have none.
fn newest_checkpoints(nodes: &Nodes) -> BTreeMap<String, u64> {
    let dirs = nodes.running().into_iter();
    let dirs = dirs.map(|node| nodes.data_dir(node).join("checkpoints"));
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let mut newest: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let Some((group, rest)) = name.split_once('-') else {
            continue;
        };
        // The index has a fixed number of digits: names sort as indexes do.
        let known = newest.entry(group.to_owned()).or_default();
        if rest.ends_with(".checkpoint") && *rest > *known.0 {
            *known = (rest.to_owned(), bytes);
        }
    }
    let bytes = newest.into_iter().map(|(group, (_, bytes))| (group, bytes));
    bytes.collect()
}

/// Bytes of all files below a directory.
pub(crate) fn directory_bytes(dir: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = files.map(|file| match file.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&file.path()),
        Ok(metadata) => metadata.len(),
        // Deleted since.
        Err(_) => 0,
    });
    bytes.sum()
}

/// A node that joins takes about as much memory as the one that is there.
fn check_memory(resident: u64, joiners: u64) -> anyhow::Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let available = kib.context("no MemAvailable")?.parse::<u64>()? * 1_024;
    ensure!(
        available > resident * joiners + FREE_BYTES_MIN,
        "{joiners} more nodes of {resident} bytes each do not fit into {available} bytes of \
         memory: try --joiners 1, or fewer positions"
    );
    Ok(())
}
