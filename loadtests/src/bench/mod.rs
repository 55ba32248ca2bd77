//! Measures reserves and reads against a bare echo call: on the same nodes, over the same
//! connections, in windows that alternate, so that what the machine does to one it does to the
//! other.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use stock_client::Client;

use self::report::Report;
use crate::Verdict;
use crate::lab::stolen::{CpuTime, stolen_percent};
use crate::lab::{self, Load, Patience, Processes, Series, Window, WindowTimes, fsync};
use crate::nodes::{NodeOptions, Nodes};
use crate::systems::Work;
use crate::systems::stockd::{Asked, Stockd};

/// Alternating rounds; the figures are medians over them.
const ROUNDS: u32 = 3;

const ALONE: Load = Load::ClosedLoop { in_flight: 1 };

/// Under these, reserves are compared with echoes, and reads under the first.
const LOADS: [Load; 7] = [
    ALONE,
    Load::ClosedLoop { in_flight: 16 },
    Load::ClosedLoop { in_flight: 64 },
    Load::ClosedLoop { in_flight: 256 },
    Load::ClosedLoop { in_flight: 1_024 },
    Load::OpenLoop { per_second: 1_000 },
    Load::OpenLoop { per_second: 5_000 },
];

/// For what only stockd does.
const BATCH: usize = 256;
const BATCHES: Load = Load::ClosedLoop { in_flight: 12 };
const STREAMS: Load = Load::Stream { unanswered: 4_096 };

const WINDOWS: u32 = ROUNDS * (LOADS.len() as u32 * 2 + 4);

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

const ABOUT: &str = "Measures reserves and reads against a bare echo call on the same nodes";

const ABOUT_LONG: &str = "\
Measures reserves and reads against a bare echo call on the same nodes.

Each load runs for a while as `echo` (a payload of a reserve's size, returned as it is) and as \
`reserve`, over the same connections and to the same nodes in the same proportions, one after the \
other, in three rounds. Closed loop: 1, 16, 64, 256 and 1,024 calls in flight. Open loop: 1,000 \
and 5,000 calls a second on a schedule, each timed from when it was due, so that a stall counts \
for every call it delayed. Reserves go straight to the leader of their shard; with 1 in flight \
both kinds use one connection to one leader, as do near reads of one position there (smaller to \
ask for than a reserve, and larger to answer). Then come batches of 256 reserves, an EchoStream \
and a ReserveStream to each leader.

The three nodes are started for it, and their processor time, context switches and bytes written \
are counted for every reserve; or name a cluster that runs with --endpoint.

Windows in which the host took more than 3 % of the CPU are thrown away and repeated when it takes \
no more, as long as --patience lasts. The ratios count; times depend on the machine. Exit code 1 \
if any call failed.";

/// What `loadtests bench` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// Any node of a cluster that runs [default: three nodes of its own]
    #[arg(long, value_name = "URL", env = "STOCKD_ENDPOINT")]
    endpoint: Option<String>,

    /// Shorter windows: done in under a minute
    #[arg(long)]
    quick: bool,

    /// How much longer it may take, because the host takes the processor, in all [default: 60, or
    /// 10 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3_600))]
    patience: Option<u64>,

    /// Write the figures and every window here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Where the cost of fdatasync is measured; name a directory on the nodes' disk [default: the
    /// current directory]
    #[arg(long, value_name = "DIR")]
    fsync_dir: Option<PathBuf>,

    #[command(flatten)]
    nodes: NodeOptions,
}

/// How long everything takes, so that it can be bounded as a whole.
#[derive(Clone, Copy)]
struct Schedule {
    times: WindowTimes,
    /// For windows that are repeated, in the whole run.
    patience_seconds: u64,
}

impl Schedule {
    const QUICK: Schedule = Schedule {
        times: WindowTimes {
            lead_in: Duration::from_millis(100),
            measured: Duration::from_millis(900),
            point_every: None,
            behind_max: lab::BEHIND_MAX,
        },
        patience_seconds: 10,
    };
    const FULL: Schedule = Schedule {
        times: WindowTimes {
            lead_in: Duration::from_millis(250),
            measured: Duration::from_secs(4),
            point_every: None,
            behind_max: lab::BEHIND_MAX,
        },
        patience_seconds: 60,
    };

    /// No hold of this run ends before the last window, so that expiry is not measured as part of
    /// an echo.
    fn holds_last(self) -> Duration {
        (self.times.lead_in + self.times.measured) * WINDOWS
            + Duration::from_secs(self.patience_seconds + 20)
    }
}

/// Runs every window and prints the figures.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let usual = match arguments.quick {
        true => Schedule::QUICK,
        false => Schedule::FULL,
    };
    let schedule = Schedule {
        patience_seconds: arguments.patience.unwrap_or(usual.patience_seconds),
        ..usual
    };
    let (nodes, client) = match &arguments.endpoint {
        Some(endpoint) => {
            let client = Client::connect(endpoint).await;
            let client =
                client.with_context(|| format!("cannot reach the cluster at {endpoint}"))?;
            (None, client)
        }
        None => {
            let nodes = Nodes::found(&arguments.nodes, 3, 0).await?;
            let client = nodes.client(CALL_TIMEOUT).await?;
            (Some(nodes), client)
        }
    };
    let servers = nodes.as_ref().map(Nodes::processes).unwrap_or_default();
    let stockd = Stockd::prepare(&client, schedule.holds_last()).await?;
    say!(
        "{} nodes, {} shards, leaders per node {:?}; {} SKUs; holds end by themselves after {} s",
        client.topology().nodes().len(),
        client.topology().shard_count(),
        stockd.leaders(),
        stockd.skus(),
        schedule.holds_last().as_secs()
    );
    if stockd.still_held() > 0 {
        say!(
            "note: an earlier run still holds {} units; their expiry will load these windows",
            stockd.still_held()
        );
    }

    let fsync_dir = match &arguments.fsync_dir {
        Some(directory) => directory.clone(),
        None => std::env::current_dir()?,
    };
    let fsync = match fsync::measure(&fsync_dir) {
        Ok(cost) => {
            say!(
                "fdatasync of 120 bytes in {}: p50 {:.0} us, p99 {:.0} us",
                fsync_dir.display(),
                cost.p50_us,
                cost.p99_us
            );
            Some(cost)
        }
        Err(error) => {
            say!("fdatasync was not measured: {error:#}");
            None
        }
    };

    let cpu_before = CpuTime::now();
    let windows = run_windows(&stockd, &servers, schedule).await?;
    let stolen = stolen_percent(cpu_before, CpuTime::now());
    let report = Report::new(windows, stolen, fsync, arguments.quick);
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(match report.first_error() {
        None => Verdict::Passed,
        Some(error) => {
            say!("calls failed; the first: {error}");
            Verdict::Failed
        }
    })
}

/// Echoes and reserves under each load, the one that begins changing from round to round: what
/// drifts in one direction then favours neither.
async fn run_windows(
    stockd: &Stockd,
    servers: &Processes,
    schedule: Schedule,
) -> anyhow::Result<Vec<Window>> {
    let patience = Patience::of_seconds(schedule.patience_seconds);
    let mut series = Series::new(schedule.times, patience);
    let echoes = stockd.echoes(Work::Uniform);
    let reserves = stockd.reserves(Work::Uniform);
    let reads = stockd.of_one_leader(&stockd.reads());
    for round in 1..=ROUNDS {
        series.round = round;
        for load in LOADS {
            let (echoes, reserves) = match load {
                ALONE => (
                    stockd.of_one_leader(&echoes),
                    stockd.of_one_leader(&reserves),
                ),
                _ => (echoes.clone(), reserves.clone()),
            };
            let reserves_first = round % 2 == 0;
            if reserves_first {
                series.calls("reserve", &reserves, servers, load).await?;
            }
            series.calls("echo", &echoes, servers, load).await?;
            if load == ALONE {
                series.calls("read", &reads, servers, load).await?;
            }
            if !reserves_first {
                series.calls("reserve", &reserves, servers, load).await?;
            }
        }
        series
            .calls("batch", &stockd.batches(BATCH), servers, BATCHES)
            .await?;
        for (what, asked) in [("echo stream", Asked::Echoes), ("stream", Asked::Reserves)] {
            let (times, patience) = (series.times, &mut series.patience);
            let windows = stockd
                .stream_windows(what, asked, servers, STREAMS, times, patience)
                .await?;
            series.add(windows);
        }
        if series.has_failed() {
            // The figures of a cluster that fails calls mean nothing; say it soon.
            break;
        }
    }
    Ok(series.windows)
}
