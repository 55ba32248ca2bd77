//! Where the time goes: a flame graph of the nodes under load.

mod budget;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use comfy_table::Table;
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use tokio::process::Command;

use crate::Verdict;
use crate::lab::{self, Load, Patience, Processes, Window, WindowTimes};
use crate::nodes::{NodeOptions, Nodes};
use crate::systems::Work;
use crate::systems::stockd::{Asked, Stockd};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const LEAD_IN: Duration = Duration::from_secs(2);
/// So many samples a second of every thread that runs: not a multiple of what else ticks.
const SAMPLES_PER_SECOND: &str = "499";
const TOP: usize = 40;

const ABOUT: &str = "Makes a flame graph of the nodes under load";

const ABOUT_LONG: &str = "\
Makes a flame graph of the nodes under load.

Starts three nodes of its own, puts load on them, and has `perf` look at them meanwhile (Debian: \
apt-get install linux-perf; without root the kernel must allow it: kernel.perf_event_paranoid). \
The picture goes to --svg; how much of one line's processor time each part of the nodes takes, and \
the functions that take most, to the terminal.";

/// What `loadtests profile` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// What is called
    #[arg(long, value_enum, default_value = "reserve")]
    call: Call,

    /// Calls in flight, or requests without an answer on the streams
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    in_flight: u32,

    /// So many calls a second on a schedule, each timed from when it was due, instead of
    /// --in-flight
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "in_flight",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    rate: Option<u32>,

    /// How long
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=120)
    )]
    seconds: u64,

    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "profile.svg")]
    svg: PathBuf,

    /// Where the stacks go, one a line with how often each was seen [default: nowhere]
    #[arg(long, value_name = "FILE")]
    stacks: Option<PathBuf>,

    #[command(flatten)]
    nodes: NodeOptions,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Call {
    Echo,
    Reserve,
    /// Reserves of five lines over five shards
    Baskets,
    /// Reads of one position, at whichever node leads its shard
    Read,
    /// Reserves, 256 in one call
    Batch,
    /// Reserves over one stream to each leader
    Stream,
}

/// Loads, samples, draws.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let nodes = Nodes::found(&arguments.nodes, 3, 0).await?;
    let client = nodes.client(CALL_TIMEOUT).await?;
    let times = WindowTimes {
        lead_in: LEAD_IN,
        measured: Duration::from_secs(arguments.seconds),
        point_every: None,
        behind_max: lab::BEHIND_MAX,
    };
    let stockd = Stockd::prepare(&client, times.lead_in + times.measured * 2).await?;
    let servers = nodes.processes();
    let samples = nodes.dir().join("perf.data");
    let perf = tokio::task::spawn_local(sample(servers.clone(), samples.clone(), times));
    let before = Turns::of(&nodes).await?;
    let window = load(arguments, &stockd, &servers, times).await?;
    let turns = Turns::of(&nodes).await?;
    perf.await??;
    say!(
        "{}, {}: {:.0} lines a second; of one line: {:.1} us of the nodes' processors, {:.1} us \
         of the load's, {:.2} switches, {:.0} bytes to disk; p50 {:.0} us, p99 {:.0} us; {:.1} % \
         stolen",
        window.what,
        window.load,
        window.rate,
        window.server_cpu_us,
        window.client_cpu_us,
        window.switches,
        window.written_bytes,
        window.p50_us,
        window.p99_us,
        window.stolen_percent,
    );
    say!("{}", turns.since(&before));
    if let Some(error) = &window.first_error {
        say!("calls failed; the first: {error}");
        return Ok(Verdict::Failed);
    }
    let stacks = collapse(&samples, nodes.dir()).await?;
    draw(&stacks, &arguments.svg)?;
    if let Some(path) = &arguments.stacks {
        std::fs::write(path, &stacks)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let stacks = String::from_utf8_lossy(&stacks);
    say!("{}", budget::table(&stacks, window.server_cpu_us));
    say!("{}", top(&stacks));
    say!("drawn in {}", arguments.svg.display());
    Ok(Verdict::Passed)
}

/// What the nodes' loops have done.
struct Turns {
    turns: f64,
    writes: f64,
    write_seconds: f64,
}

impl Turns {
    async fn of(nodes: &Nodes) -> anyhow::Result<Turns> {
        let mut all = Turns {
            turns: 0.0,
            writes: 0.0,
            write_seconds: 0.0,
        };
        for node in nodes.running() {
            all.turns += nodes.metric(node, "stockd_turns_total").await?;
            all.writes += nodes.metric(node, "stockd_log_write_seconds_count").await?;
            all.write_seconds += nodes.metric(node, "stockd_log_write_seconds_sum").await?;
        }
        Ok(all)
    }

    fn since(&self, before: &Turns) -> String {
        let turns = self.turns - before.turns;
        let writes = self.writes - before.writes;
        let seconds = self.write_seconds - before.write_seconds;
        format!(
            "meanwhile and around it: {turns:.0} turns, {writes:.0} log writes of {:.0} us",
            lab::ratio(seconds * 1e6, writes)
        )
    }
}

async fn load(
    arguments: &Arguments,
    stockd: &Stockd,
    servers: &Processes,
    times: WindowTimes,
) -> anyhow::Result<Window> {
    let in_flight = arguments.in_flight;
    let calls_made = match arguments.rate {
        Some(rate) => Load::OpenLoop { per_second: rate },
        None => Load::ClosedLoop { in_flight },
    };
    let none = &mut Patience::none();
    let windows = match arguments.call {
        Call::Echo => {
            let calls = stockd.echoes(Work::Uniform);
            Window::run("echo", &calls, servers, calls_made, times, none).await
        }
        Call::Reserve => {
            let calls = stockd.reserves(Work::Uniform);
            Window::run("reserve", &calls, servers, calls_made, times, none).await
        }
        Call::Baskets => {
            let calls = stockd.over_shards(5, 5, false);
            Window::run(
                "baskets over shards",
                &calls,
                servers,
                calls_made,
                times,
                none,
            )
            .await
        }
        Call::Read => {
            let calls = stockd.reads();
            Window::run("read", &calls, servers, calls_made, times, none).await
        }
        Call::Batch => {
            let calls = stockd.batches(256);
            Window::run("batch", &calls, servers, calls_made, times, none).await
        }
        Call::Stream => {
            let load = match arguments.rate {
                Some(per_second) => Load::OpenStream { per_second },
                None => Load::Stream {
                    unanswered: in_flight,
                },
            };
            stockd
                .stream_windows("stream", Asked::Reserves, servers, load, times, none)
                .await
        }
    };
    windows?.pop().context("no window")
}

async fn sample(servers: Processes, to: PathBuf, times: WindowTimes) -> anyhow::Result<()> {
    tokio::time::sleep(times.lead_in).await;
    let ids: Vec<String> = servers.roots().map(|id| id.to_string()).collect();
    let output = Command::new("perf")
        .args(["record", "--quiet", "-F", SAMPLES_PER_SECOND])
        .args(["--call-graph", "dwarf,16384", "-p", &ids.join(",")])
        .arg("-o")
        .arg(&to)
        .args(["--", "sleep", &times.measured.as_secs().to_string()])
        .output()
        .await
        .context("cannot run perf: Debian has it in linux-perf")?;
    ensure!(
        output.status.success(),
        "perf failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// One line for each stack that was seen: `a;b;c 12`.
async fn collapse(samples: &Path, scratch: &Path) -> anyhow::Result<Vec<u8>> {
    let script = scratch.join("perf.txt");
    let status = Command::new("perf")
        .args(["script", "--no-inline", "-i"])
        .arg(samples)
        .stdout(File::create(&script)?)
        .stderr(Stdio::null())
        .status()
        .await?;
    ensure!(status.success(), "perf script failed");
    let mut folded = Vec::new();
    Folder::from(Options::default()).collapse(BufReader::new(File::open(script)?), &mut folded)?;
    Ok(folded)
}

fn draw(stacks: &[u8], svg: &Path) -> anyhow::Result<()> {
    let mut options = inferno::flamegraph::Options::default();
    options.title = "stockd under load".to_owned();
    let file = File::create(svg).with_context(|| format!("cannot write {}", svg.display()))?;
    inferno::flamegraph::from_reader(&mut options, stacks, BufWriter::new(file))?;
    Ok(())
}

/// Of collapsed stacks, `a;b;c 12` a line: the functions on top, and with all they call.
fn top(folded: &str) -> Table {
    let mut own: BTreeMap<&str, u64> = BTreeMap::new();
    let mut with_callees: BTreeMap<&str, u64> = BTreeMap::new();
    let mut total = 0;
    for line in folded.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else {
            continue;
        };
        let count: u64 = count.parse().unwrap_or(0);
        total += count;
        let mut frames: Vec<&str> = stack.split(';').collect();
        if let Some(last) = frames.last() {
            *own.entry(last).or_default() += count;
        }
        // One that calls itself counts once.
        frames.sort_unstable();
        frames.dedup();
        for frame in frames {
            *with_callees.entry(frame).or_default() += count;
        }
    }
    let mut by_own: Vec<(&str, u64)> = own.into_iter().collect();
    by_own.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
    let percent = |count: u64| format!("{:.1}", lab::ratio(count as f64 * 100.0, total as f64));
    let mut table = lab::table(1, ["function", "%", "% with what it calls"]);
    for (function, count) in by_own.into_iter().take(TOP) {
        let all = with_callees.get(function).copied().unwrap_or(0);
        table.add_row([function.to_owned(), percent(count), percent(all)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_is_by_what_a_function_did_itself() {
        let table = top("stockd;a;b 6\nstockd;a 3\nstockd;c;c 1\n").to_string();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert!(
            rows[0].contains("60.0") && rows[0].contains("b "),
            "{table}"
        );
        assert!(
            rows[1].contains("30.0") && rows[1].contains("90.0"),
            "{table}"
        );
        assert!(rows[2].contains("10.0"), "{table}");
    }
}
