//! Measures a reserve against a bare echo call: on the same nodes, over the same connections, in
//! windows that alternate, so that what the machine does to one it does to the other.

mod call;
mod closed_loop;
mod open_loop;
mod pacer;
mod report;
mod targets;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use stock_client::Client;

use self::call::CallKind;
use self::report::Report;
use self::targets::Targets;
use self::window::{Shape, Window, WindowTimes};
use crate::stolen::{CpuTime, stolen_percent};
use crate::{Verdict, fsync};

/// The first node of `stockd dev`.
pub(crate) const ENDPOINT: &str = "http://127.0.0.1:7401";

/// A window in which the host took more than this is thrown away.
const STOLEN_PERCENT_MAX: f64 = 3.0;

/// Alternating rounds; the figures are medians over them.
const ROUNDS: u32 = 3;

const SHAPES: [Shape; 5] = [
    Shape::ClosedLoop { in_flight: 1 },
    Shape::ClosedLoop { in_flight: 16 },
    Shape::ClosedLoop { in_flight: 64 },
    Shape::OpenLoop { per_second: 1_000 },
    Shape::OpenLoop { per_second: 5_000 },
];

const ABOUT: &str = "Measures a reserve against a bare echo call on the same nodes";

const ABOUT_LONG: &str = "\
Measures a reserve against a bare echo call on the same nodes.

Each shape of load runs for a while as `Echo` (a payload of a reserve's size, returned as it is) and as \
`Reserve`, over the same connections and to the same nodes in the same proportions, one after the \
other, in three rounds. Closed loop: 1, 16 and 64 calls in flight. Open loop: 1,000 and 5,000 calls a \
second on a schedule, each timed from when it was due, so that a stall counts for every call it \
delayed. Reserves go straight to the leader of their shard; with 1 in flight both kinds use one \
connection to one leader.

Windows in which the host took more than 3 % of the CPU are thrown away and repeated, a bounded number \
of times. The ratios count; times depend on the machine. Exit code 1 if any call failed.";

/// What `loadtests bench` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// Any node of the cluster
    #[arg(long, value_name = "URL", env = "STOCKD_ENDPOINT", default_value = ENDPOINT)]
    endpoint: String,

    /// Shorter windows: done in under 40 seconds
    #[arg(long)]
    quick: bool,

    /// Write the figures and every window here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Where the cost of fdatasync is measured; name a directory on the nodes' disk [default: the current directory]
    #[arg(long, value_name = "DIR")]
    fsync_dir: Option<PathBuf>,
}

/// How long everything takes, so that it can be bounded as a whole.
#[derive(Clone, Copy)]
struct Schedule {
    times: WindowTimes,
    /// Windows that may be repeated in the whole run.
    repeats_max: u32,
}

impl Schedule {
    const QUICK: Schedule = Schedule {
        times: WindowTimes {
            lead_in: Duration::from_millis(100),
            measured: Duration::from_millis(900),
        },
        repeats_max: 5,
    };
    const FULL: Schedule = Schedule {
        times: WindowTimes {
            lead_in: Duration::from_millis(250),
            measured: Duration::from_secs(4),
        },
        repeats_max: 8,
    };

    /// No hold of this run ends before the last window, so that expiry is not measured as part of
    /// an echo.
    fn holds_last(self) -> Duration {
        let windows = ROUNDS * SHAPES.len() as u32 * 2 + self.repeats_max;
        (self.times.lead_in + self.times.measured) * windows + Duration::from_secs(20)
    }
}

/// Runs every window and prints the figures.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let schedule = if arguments.quick {
        Schedule::QUICK
    } else {
        Schedule::FULL
    };
    let client = Client::connect(&arguments.endpoint)
        .await
        .with_context(|| format!("cannot reach the cluster at {}", arguments.endpoint))?;
    let targets = Targets::prepare(&client, schedule.holds_last()).await?;
    println!(
        "{} nodes, {} shards, leaders per node {:?}; {} SKUs; holds end by themselves after {} s",
        client.topology().nodes().len(),
        client.topology().shard_count(),
        targets.leaders(),
        targets.all().len(),
        schedule.holds_last().as_secs()
    );
    if targets.still_held() > 0 {
        println!(
            "note: an earlier run still holds {} units; their expiry will load these windows",
            targets.still_held()
        );
    }

    let fsync_dir = match &arguments.fsync_dir {
        Some(directory) => directory.clone(),
        None => std::env::current_dir()?,
    };
    let fsync = match fsync::measure(&fsync_dir) {
        Ok(cost) => {
            println!(
                "fdatasync of 120 bytes in {}: p50 {:.0} us, p99 {:.0} us",
                fsync_dir.display(),
                cost.p50_us,
                cost.p99_us
            );
            Some(cost)
        }
        Err(error) => {
            println!("fdatasync was not measured: {error:#}");
            None
        }
    };

    let cpu_before = CpuTime::now();
    let windows = run_windows(&targets, schedule).await?;
    let stolen = stolen_percent(cpu_before, CpuTime::now());
    let report = Report::new(&SHAPES, windows, stolen, fsync, arguments.quick);
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(match report.first_error() {
        None => Verdict::Passed,
        Some(error) => {
            println!("calls failed; the first: {error}");
            Verdict::Failed
        }
    })
}

/// Both kinds of each shape, the one that begins changing from round to round: what drifts in one
/// direction then favours neither.
async fn run_windows(targets: &Targets, schedule: Schedule) -> anyhow::Result<Vec<Window>> {
    let mut windows = Vec::new();
    let mut repeats_left = schedule.repeats_max;
    for round in 1..=ROUNDS {
        let kinds = match round % 2 {
            1 => [CallKind::Echo, CallKind::Reserve],
            _ => [CallKind::Reserve, CallKind::Echo],
        };
        for shape in SHAPES {
            for kind in kinds {
                loop {
                    let mut window =
                        Window::run(targets, kind, shape, round, schedule.times).await?;
                    window.kept = window.stolen_percent <= STOLEN_PERCENT_MAX;
                    let kept = window.kept;
                    if !kept {
                        println!(
                            "thrown away: {kind}, {shape}, round {round}: {:.1} % of the CPU was stolen; {}",
                            window.stolen_percent,
                            if repeats_left > 0 {
                                "once more"
                            } else {
                                "no repeats are left"
                            }
                        );
                    }
                    let failed = window.errors > 0;
                    windows.push(window);
                    if failed {
                        // The figures of a cluster that fails calls mean nothing; say it soon.
                        return Ok(windows);
                    }
                    if kept || repeats_left == 0 {
                        break;
                    }
                    repeats_left -= 1;
                }
            }
        }
    }
    Ok(windows)
}

/// Nanoseconds up to a minute, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    const NANOS_MAX: u64 = 60_000_000_000;
    const DIGITS: u8 = 3;
    Histogram::new_with_bounds(1, NANOS_MAX, DIGITS)
        .expect("the bounds are in order and the digits at most five")
}
