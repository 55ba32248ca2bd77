//! How long a shard cannot be written to when its leader dies, and when it hands over.

mod report;
mod writes;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use stock_client::Client;
use stock_proto::stock::admin::v1::TransferLeadershipRequest;
use stock_proto::stock::admin::v1::transfer_leadership_request::Group;
use tokio::time::sleep;

use self::report::{Gap, Report};
use self::writes::Writes;
use crate::Verdict;
use crate::lab::stolen::{CpuTime, stolen_percent};
use crate::nodes::{NodeOptions, Nodes};

/// The shard whose leader is killed and handed over. Writes go to this one only, so that every
/// moment without a leader is felt.
const SHARD: u32 = 0;

/// Longer than any election, so that no call fails for want of patience.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// From the loss of a leader, or the wish for another one, until the shard is led as it should be.
const LED_WITHIN: Duration = Duration::from_secs(30);

/// Before and after each event: connections are made, followers catch up.
const CALM: Duration = Duration::from_millis(500);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Targets, at p99.
const KILL_TARGET: Duration = Duration::from_millis(1_500);
const HAND_OVER_TARGET: Duration = Duration::from_millis(100);

const ABOUT: &str = "Measures how long writes stop when a leader is killed, and when it hands over";

const ABOUT_LONG: &str = "\
Measures how long writes stop when a leader is killed, and when it hands over.

Starts three nodes of its own and sends reserves to one shard on a schedule, through the Rust \
client. Then it kills the node that leads the shard (SIGKILL), many times, and starts it again: \
counted is the time from the kill to the answer of the first write that was sent after it. And it \
has the leader hand over, many times: counted is the longest time between two answers while it does.

Exit code 1 if a call failed or a target was missed at p99.";

/// What `loadtests failover` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// How many times the leader is killed
    #[arg(long, value_name = "N", default_value_t = 50)]
    kills: u32,

    /// How many times the leader hands over
    #[arg(long, value_name = "N", default_value_t = 50)]
    hand_overs: u32,

    /// Reserves a second, on a schedule that does not wait for answers
    #[arg(
        long,
        value_name = "N",
        default_value_t = 500,
        value_parser = clap::value_parser!(u32).range(50..=5_000)
    )]
    per_second: u32,

    /// Write the figures and every single gap here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    nodes: NodeOptions,
}

/// Kills, hands over, and prints what it cost.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let mut nodes = Nodes::found(&arguments.nodes, 3, 0).await?;
    let client = nodes.client(CALL_TIMEOUT).await?;
    let cpu = CpuTime::now();
    let load_before = load_average();
    say!(
        "three nodes, data in {}; {} reserves a second to shard {SHARD}; load average \
         {load_before}",
        nodes.dir().display(),
        arguments.per_second
    );
    let writes = Writes::begin(&client, SHARD, arguments.per_second).await?;
    sleep(CALM).await;
    let kills = kill_leaders(&mut nodes, &client, &writes, arguments.kills).await?;
    let hand_overs = hand_over(&nodes, &client, &writes, arguments.hand_overs).await?;
    let failures = writes.end().await;
    let report = Report::new(
        vec![
            Gap::new("leader killed: to the next write", KILL_TARGET, kills),
            Gap::new("hand-over: longest gap", HAND_OVER_TARGET, hand_overs),
        ],
        failures,
        [load_before, load_average()],
        stolen_percent(cpu, CpuTime::now()),
    );
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(match report.is_met() {
        true => Verdict::Passed,
        false => Verdict::Failed,
    })
}

async fn kill_leaders(
    nodes: &mut Nodes,
    client: &Client,
    writes: &Writes,
    count: u32,
) -> anyhow::Result<Vec<Duration>> {
    let progress = ProgressBar::new(count.into()).with_message("kills");
    let mut gaps = Vec::new();
    for _ in 0..count {
        let victim = leader(nodes).await?;
        let killed = Instant::now();
        nodes.kill(victim);
        gaps.push(writes.first_answer_after(killed, LED_WITHIN).await?);
        nodes.start(victim)?;
        nodes.wait_until_led().await?;
        nodes.wait_until_settled(client, 3).await?;
        sleep(CALM).await;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(gaps)
}

async fn hand_over(
    nodes: &Nodes,
    client: &Client,
    writes: &Writes,
    count: u32,
) -> anyhow::Result<Vec<Duration>> {
    let progress = ProgressBar::new(count.into()).with_message("hand-overs");
    let mut gaps = Vec::new();
    for _ in 0..count {
        let from = leader(nodes).await?;
        let others = nodes.running().into_iter().filter(|node| *node != from);
        let to = others.min_by_key(|node| (node + 3 - from) % 3);
        let to = to.context("no other node runs")?;
        let began = Instant::now();
        let request = TransferLeadershipRequest {
            group: Some(Group::Shard(SHARD)),
            to_node_id: Some(to),
            ..Default::default()
        };
        client.transfer_leadership(request).await?;
        while leader(nodes).await? != to {
            ensure!(
                began.elapsed() < LED_WITHIN,
                "shard {SHARD} is not led by node {to} after {LED_WITHIN:?}"
            );
            sleep(LOOK_EVERY).await;
        }
        sleep(CALM).await;
        gaps.push(writes.longest_gap_since(began));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(gaps)
}

/// The node that leads the shard, as one that runs sees it.
async fn leader(nodes: &Nodes) -> anyhow::Result<u64> {
    let began = Instant::now();
    loop {
        for node in nodes.running() {
            let topology = nodes.topology(node).await;
            let shards = topology.map(|topology| topology.shards).unwrap_or_default();
            let leader = shards.get(SHARD as usize);
            let leader = leader.and_then(|shard| shard.leader_node_id);
            if let Some(leader) = leader.filter(|leader| nodes.running().contains(leader)) {
                return Ok(leader);
            }
        }
        ensure!(
            began.elapsed() < LED_WITHIN,
            "shard {SHARD} has no leader after {LED_WITHIN:?}"
        );
        sleep(LOOK_EVERY).await;
    }
}

/// Processes that ran or waited to, over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
