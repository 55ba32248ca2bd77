//! What a cluster does when twice as much is asked of it as it can do.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use comfy_table::Table;
use indicatif::HumanCount;
use serde::Serialize;
use stock_client::Client;

use crate::Verdict;
use crate::lab::{self, Load, Patience, Processes, Window, WindowTimes, ratio};
use crate::nodes::{NodeOptions, Nodes};
use crate::systems::Work;
use crate::systems::stockd::{Asked, Stockd};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Of the best rate that must be kept when twice as much is asked.
const KEPT_MIN: f64 = 0.9;
/// Afterwards, and before: the part of the best rate that is asked.
const CALM: f64 = 0.4;
/// Latency is normal again where p99 is at most so many times what it was before...
const NORMAL_TIMES_MAX: f64 = 2.0;
/// ...or within so many microseconds of it.
const NORMAL_US_MORE: f64 = 20_000.0;
/// After the load fell, before anything is measured again.
const BACK_WITHIN: Duration = Duration::from_secs(1);

/// A state is written after so many bytes of log: in none of the stretches, since it would be in
/// some and not in others.
const CHECKPOINT_AFTER_BYTES: u64 = 4 << 30;

/// For the best rate of streams and of calls.
const UNANSWERED: u32 = 8_192;
const IN_FLIGHT: u32 = 256;

const ABOUT: &str = "Asks twice as much of a cluster as it can do";

const ABOUT_LONG: &str = "\
Asks twice as much of a cluster as it can do.

Starts three nodes of its own. For streams, and then for single calls: finds the best rate, asks \
less than half of it on a schedule, then twice as much, and then less again. While too much is \
asked, streams must keep nine tenths of the best rate, and refuse the rest with a hint when to try \
again; a second after the load has fallen answers must come as quickly as before. Single calls \
must not collapse: every call is answered or refused. No node writes its state down meanwhile; \
`recovery` tells what that costs.

Exit code 1 if a call failed, or if streams did not do what they must.";

/// What `loadtests overload` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// How long each stretch is
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=60)
    )]
    seconds: u64,

    /// Write every stretch here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    nodes: NodeOptions,
}

/// How something took it.
#[derive(Debug, Serialize)]
struct Course {
    what: &'static str,
    best: Window,
    before: Window,
    overload: Window,
    after: Window,
}

/// Finds the best rates and asks twice as much.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let times = WindowTimes {
        lead_in: BACK_WITHIN,
        measured: Duration::from_secs(arguments.seconds),
        point_every: None,
        behind_max: lab::BEHIND_MAX,
    };
    let mut options = arguments.nodes.clone();
    let log = [
        "--checkpoint-after-bytes".to_owned(),
        CHECKPOINT_AFTER_BYTES.to_string(),
    ];
    options.serve_arguments.extend(log);
    let mut courses = Vec::new();
    for what in ["stream", "reserve"] {
        // New nodes, so that what the first left behind does not weigh on the second.
        let nodes = Nodes::found(&options, 3, 0).await?;
        let client = nodes.client(CALL_TIMEOUT).await?;
        let processes = nodes.processes();
        courses.push(course(what, &client, &processes, times).await?);
    }
    say!("{}", table(&courses));
    for course in &courses {
        say!(
            "{}: {:.0} % of the best rate kept; a second after the load fell p99 was {:.1} ms, \
             before {:.1} ms",
            course.what,
            course.kept() * 100.0,
            course.after.p99_us / 1e3,
            course.before.p99_us / 1e3
        );
    }
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&courses)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let windows = courses.iter().flat_map(Course::windows);
    if let Some(error) = windows
        .filter_map(|(_, window)| window.first_error.as_ref())
        .next()
    {
        say!("calls failed; the first: {error}");
        return Ok(Verdict::Failed);
    }
    let is_good = courses.iter().all(|course| {
        let kept = course.what != "stream" || course.kept() >= KEPT_MIN;
        kept && course.is_back()
    });
    Ok(match is_good {
        true => Verdict::Passed,
        false => Verdict::Failed,
    })
}

async fn course(
    what: &'static str,
    client: &Client,
    processes: &Processes,
    times: WindowTimes,
) -> anyhow::Result<Course> {
    let stockd = Stockd::prepare(client, (times.lead_in + times.measured) * 8).await?;
    let calls = stockd.reserves(Work::Uniform);
    let window = async |load| {
        let none = &mut Patience::none();
        let windows = match load {
            Load::Stream { .. } | Load::OpenStream { .. } => {
                stockd
                    .stream_windows(what, Asked::Reserves, processes, load, times, none)
                    .await
            }
            Load::ClosedLoop { .. } | Load::OpenLoop { .. } | Load::Planned { .. } => {
                Window::run(what, &calls, processes, load, times, none).await
            }
        };
        windows?.pop().context("no window")
    };
    let is_stream = what == "stream";
    let best = window(match is_stream {
        true => Load::Stream {
            unanswered: UNANSWERED,
        },
        false => Load::ClosedLoop {
            in_flight: IN_FLIGHT,
        },
    })
    .await?;
    let asked = |part: f64| {
        let per_second = (best.rate * part) as u32;
        match is_stream {
            true => Load::OpenStream { per_second },
            false => Load::OpenLoop { per_second },
        }
    };
    let before = window(asked(CALM)).await?;
    let overload = window(asked(2.0)).await?;
    let after = window(asked(CALM)).await?;
    Ok(Course {
        what,
        best,
        before,
        overload,
        after,
    })
}

impl Course {
    fn windows(&self) -> impl Iterator<Item = (&'static str, &Window)> {
        [
            ("the best rate", &self.best),
            ("before", &self.before),
            ("twice the best", &self.overload),
            ("after", &self.after),
        ]
        .into_iter()
    }

    /// The part of the best rate that was done while twice as much was asked.
    fn kept(&self) -> f64 {
        ratio(self.overload.rate, self.best.rate)
    }

    fn is_back(&self) -> bool {
        let before = self.before.p99_us;
        self.after.p99_us <= (before * NORMAL_TIMES_MAX).max(before + NORMAL_US_MORE)
    }
}

fn table(courses: &[Course]) -> Table {
    let mut table = lab::table(
        3,
        [
            "call",
            "stretch",
            "load",
            "done/s",
            "refused",
            "p50 us",
            "p99 us",
            "refused p99",
            "nodes CPU us",
            "load CPU us",
            "stolen %",
        ],
    );
    for course in courses {
        for (stretch, window) in course.windows() {
            table.add_row([
                course.what.to_owned(),
                stretch.to_owned(),
                window.load.to_string(),
                HumanCount(window.rate as u64).to_string(),
                HumanCount(window.refused).to_string(),
                format!("{:.0}", window.p50_us),
                format!("{:.0}", window.p99_us),
                window
                    .refused_p99_us
                    .map_or_else(String::new, |us| format!("{us:.0}")),
                format!("{:.1}", window.server_cpu_us),
                format!("{:.1}", window.client_cpu_us),
                format!("{:.1}", window.stolen_percent),
            ]);
        }
    }
    table
}
