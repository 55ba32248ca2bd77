//! What reserves cost as one thing grows and everything else stays as it is.

mod axes;
mod axis;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use self::axes::Course;
use self::axis::{Axis, over};
use self::report::Report;
use crate::Verdict;
use crate::lab::machine::Machine;
use crate::lab::stolen::{CpuTime, stolen_percent};
use crate::lab::{self, Patience, WindowTimes};
use crate::nodes::NodeOptions;

const LEAD_IN: Duration = Duration::from_millis(500);

/// Windows that may be repeated for each size.
const PATIENCE_SECONDS_PER_SIZE: u64 = 30;

const ABOUT: &str =
    "Measures what reserves cost as shards, positions, holds, lines or shards of a basket grow";

const ABOUT_LONG: &str = "\
Measures what reserves cost as shards, positions, holds, lines or shards of a basket grow, each by \
itself and everything else equal.

  shards     1, 2, 4, ... 64 in the cluster; a new one for each, in every round
  positions  10,000, 100,000, ... in the cluster, and reserves all over them
  holds      1,000, 10,000, ... that are open and do not end
  lines      1, 2, 5, 10, 20, 50 and 100 in a basket, all in one shard
  reach      1 line; 5 lines in 1, 2, 3 and 5 shards; 24 lines in 1, 4 and 8 shards: all through \
one node while a call is alone

Each time: how long a call takes alone, and how many can be done with 64 in flight. Three nodes \
are started for each axis; the leaders of shards are spread evenly over them, and every call goes \
straight to one. Holds of the calls that are measured end after two seconds, and every size begins \
when they have, so that none of them weighs on what comes later.

Windows in which the host took more than 3 % of the CPU are thrown away and repeated, a bounded \
number of times. Exit code 1 if any call failed.";

/// What `loadtests growth` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// These only
    #[arg(
        long,
        value_enum,
        value_name = "AXIS",
        value_delimiter = ',',
        default_values = ["shards", "positions", "holds", "lines", "reach"]
    )]
    axes: Vec<Axis>,

    /// Rounds; the figures are medians over them
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=9)
    )]
    rounds: u32,

    /// How long each window is
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=60)
    )]
    seconds: u64,

    /// The most shards
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u64).range(1..=256)
    )]
    shards_max: u64,

    /// The most positions; ten million take minutes to make, and 6 GB of memory
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000_000,
        value_parser = clap::value_parser!(u64).range(10_000..=100_000_000)
    )]
    positions_max: u64,

    /// The most open holds
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1_000..=10_000_000)
    )]
    holds_max: u64,

    /// Where the table, the figures as JSON and a plot of each axis go
    #[arg(long, value_name = "DIR", default_value = "growth")]
    out: PathBuf,

    #[command(flatten)]
    nodes: NodeOptions,
}

/// Measures along every axis, and writes down what came of it.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let machine = Machine::look(&arguments.nodes.scratch()?);
    let cpu = CpuTime::now();
    let mut report = Report::new(machine);
    for axis in &arguments.axes {
        let mut course = Course {
            axis: *axis,
            options: arguments.nodes.clone(),
            rounds: arguments.rounds,
            times: WindowTimes {
                lead_in: LEAD_IN,
                measured: Duration::from_secs(arguments.seconds),
                point_every: None,
                behind_max: lab::BEHIND_MAX,
            },
            windows: Vec::new(),
            leaders: Vec::new(),
        };
        let sizes = sizes(*axis, arguments);
        let measured = course.run(&sizes).await;
        measured.with_context(|| axis.name())?;
        report.add(course, &sizes);
        // What is there already is worth something, should the rest fail.
        report.stolen_percent = stolen_percent(cpu, CpuTime::now());
        report.write(&arguments.out)?;
    }
    report.print();
    say!("written to {}", arguments.out.display());
    Ok(match report.first_error() {
        None => Verdict::Passed,
        Some(error) => {
            say!("calls failed; the first: {error}");
            Verdict::Failed
        }
    })
}

fn patience() -> Patience {
    Patience::of_seconds(PATIENCE_SECONDS_PER_SIZE)
}

/// What an axis is measured at.
fn sizes(axis: Axis, arguments: &Arguments) -> Vec<u64> {
    const LINES: [u64; 7] = [1, 2, 5, 10, 20, 50, 100];
    const REACH: [u64; 8] = [
        over(1, 1),
        over(5, 1),
        over(5, 2),
        over(5, 3),
        over(5, 5),
        over(24, 1),
        over(24, 4),
        over(24, 8),
    ];
    let up_to = |first: u64, times: u64, max: u64| {
        let next = move |size: &u64| Some(size * times);
        let sizes = std::iter::successors(Some(first), next);
        sizes.take_while(|size| *size <= max).collect()
    };
    match axis {
        Axis::Shards => up_to(1, 2, arguments.shards_max),
        Axis::Positions => up_to(10_000, 10, arguments.positions_max),
        Axis::Holds => up_to(1_000, 10, arguments.holds_max),
        Axis::Lines => LINES.to_vec(),
        Axis::Reach => REACH.to_vec(),
    }
}
