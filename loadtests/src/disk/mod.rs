//! Whether the disks of nodes that are written to for long stay bounded.

mod bounds;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::HumanBytes;
use serde::Serialize;
use tokio::time::sleep;

use self::bounds::{Finding, Pace, Sample, judge};
use crate::nodes::{NodeOptions, Nodes};
use crate::recovery::directory_bytes;
use crate::recovery::reserves::Reserves;
use crate::recovery::stock::{self, Assortment};
use crate::{Verdict, lab};

/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Nodes of the cluster.
const FOUNDERS: u64 = 3;

/// Few, so that the states stay small beside what is written.
const POSITIONS: u64 = 2_000;
const LOCATIONS: u64 = 5;

/// Lines of the table.
const LINES_MAX: usize = 30;

const ABOUT: &str = "Writes for long, and shows whether the disks of the nodes stay bounded";

const ABOUT_LONG: &str = "\
Writes for long, and shows whether the disks of the nodes stay bounded.

Starts three nodes of its own that write checkpoints often and keep little history, sends reserves \
on a schedule (each is held, and expires after two minutes), and looks at the size of the log, the \
checkpoints and the ledger of the fullest node. What must hold at every moment: the log is at most \
twice what makes checkpoints due, which is as much as the states have (which grow at first: every \
request is remembered for ten minutes), and four files; of each group there are at most three \
checkpoints; and the ledger has stopped growing once it is three times as old as what it keeps.

Exit code 1 if one of these does not hold, if a call failed, or if too little was written to tell.";

/// What `loadtests disk` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// For how long to write
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1_800,
        value_parser = clap::value_parser!(u64).range(30..)
    )]
    seconds: u64,

    /// Reserves a second, on a schedule that does not wait for answers
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(10..=10_000)
    )]
    per_second: u32,

    /// Bytes of log after which a state is written down
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    checkpoint_after_bytes: u64,

    /// Bytes of one file of the log
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    log_file_bytes: u64,

    /// Seconds of history that are kept; 0: all, and then the ledger is not judged
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    ledger_keep_seconds: u64,

    /// Write the samples and findings here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    #[command(flatten)]
    nodes: NodeOptions,
}

#[derive(Serialize)]
struct Report<'a> {
    samples: &'a [Sample],
    findings: &'a [Finding],
    calls_failed: usize,
}

/// Writes, looks, and prints what it found.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    let mut options = arguments.nodes.clone();
    let mut more = |flag: &str, value: u64| {
        options.serve_arguments.push(flag.to_owned());
        options.serve_arguments.push(value.to_string());
    };
    more("--checkpoint-after-bytes", arguments.checkpoint_after_bytes);
    more("--log-file-bytes", arguments.log_file_bytes);
    if arguments.ledger_keep_seconds > 0 {
        more("--ledger-keep-seconds", arguments.ledger_keep_seconds);
    }
    let nodes = Nodes::found(&options, FOUNDERS, 0).await?;
    let client = nodes.client(CALL_TIMEOUT).await?;
    let assortment = Assortment::new(POSITIONS, LOCATIONS);
    stock::fill(&client, &assortment).await?;
    say!(
        "three nodes, data in {}; {} reserves a second for {} s",
        nodes.dir().display(),
        arguments.per_second,
        arguments.seconds
    );
    let reserves = Reserves::begin(&client, &assortment, arguments.per_second);
    let began = Instant::now();
    let mut samples = Vec::new();
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        sleep(Duration::from_secs(1)).await;
        samples.push(sample(
            &nodes,
            began.elapsed().as_secs(),
            arguments.log_file_bytes,
        )?);
    }
    let (_, failures) = reserves.end().await;
    let pace = Pace {
        checkpoint_after_bytes: arguments.checkpoint_after_bytes,
        log_file_bytes: arguments.log_file_bytes,
        ledger_keep_seconds: arguments.ledger_keep_seconds,
    };
    let findings = judge(&samples, pace);
    print(&samples, &findings);
    say!("failed reserves: {}", failures.len());
    for failure in failures.iter().take(5) {
        say!("  {failure}");
    }
    if let Some(path) = &arguments.json {
        let report = Report {
            samples: &samples,
            findings: &findings,
            calls_failed: failures.len(),
        };
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let holds = findings.iter().all(|finding| finding.holds) && failures.is_empty();
    Ok(match holds {
        true => Verdict::Passed,
        false => Verdict::Failed,
    })
}

/// The fullest node of each kind; all have a replica of everything, and differ by little.
fn sample(nodes: &Nodes, at_seconds: u64, log_file_bytes: u64) -> anyhow::Result<Sample> {
    let running = nodes.running();
    ensure!(running.len() as u64 == FOUNDERS, "a node has ended");
    let mut fullest = Sample {
        at_seconds,
        ..Sample::default()
    };
    for node in running {
        let dir = nodes.data_dir(node);
        let checkpoints = Checkpoints::of(&dir.join("checkpoints"));
        fullest.log_bytes = fullest.log_bytes.max(directory_bytes(&dir.join("log")));
        fullest.ledger_bytes = fullest
            .ledger_bytes
            .max(directory_bytes(&dir.join("ledger")));
        fullest.checkpoint_bytes = fullest.checkpoint_bytes.max(checkpoints.bytes);
        fullest.checkpoints_each = fullest.checkpoints_each.max(checkpoints.each);
        fullest.states_bytes = fullest.states_bytes.max(checkpoints.newest_bytes);
        fullest.groups = fullest.groups.max(checkpoints.groups);
        let (deleted, begun) = log_files(&dir.join("log"));
        fullest.log_files_deleted = fullest.log_files_deleted.max(deleted);
        fullest.log_written_bytes = fullest
            .log_written_bytes
            .max(begun.saturating_sub(1) * log_file_bytes);
    }
    Ok(fullest)
}

/// Files of the log that were deleted, and that were ever begun: they are numbered from 1, and
/// those that are there are the last.
fn log_files(dir: &Path) -> (u64, u64) {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let numbers = files.filter_map(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".raftlog")?.parse::<u64>().ok()
    });
    let numbers: Vec<u64> = numbers.collect();
    let first = numbers.iter().min().copied().unwrap_or(1);
    let last = numbers.iter().max().copied().unwrap_or(0);
    (first.saturating_sub(1), last)
}

/// What is in a directory of checkpoints.
#[derive(Default)]
struct Checkpoints {
    bytes: u64,
    /// Of the group that has most, the one under way included.
    each: u64,
    /// Of every group's newest.
    newest_bytes: u64,
    groups: u64,
}

impl Checkpoints {
    fn of(dir: &Path) -> Self {
        let mut files: Vec<(String, u64)> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                // Deleted since, otherwise.
                Some((name, file.metadata().ok()?.len()))
            })
            .collect();
        // The index has a fixed number of digits: names sort as indexes do.
        files.sort();
        let mut all = Self::default();
        let group = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
        for of_group in files.chunk_by(|one, other| group(&one.0) == group(&other.0)) {
            all.bytes += of_group.iter().map(|(_, bytes)| bytes).sum::<u64>();
            all.each = all.each.max(of_group.len() as u64);
            let whole = of_group
                .iter()
                .rfind(|(name, _)| name.ends_with(".checkpoint"));
            all.newest_bytes += whole.map_or(0, |(_, bytes)| *bytes);
            all.groups += 1;
        }
        all
    }
}

fn print(samples: &[Sample], findings: &[Finding]) {
    let mut table = lab::table(
        0,
        [
            "at, s",
            "log written",
            "log",
            "checkpoints",
            "states",
            "ledger",
        ],
    );
    let every = samples.len().div_ceil(LINES_MAX).max(1);
    for sample in samples.iter().skip(every - 1).step_by(every) {
        let bytes = |bytes: u64| HumanBytes(bytes).to_string();
        table.add_row([
            sample.at_seconds.to_string(),
            bytes(sample.log_written_bytes),
            bytes(sample.log_bytes),
            bytes(sample.checkpoint_bytes),
            bytes(sample.states_bytes),
            bytes(sample.ledger_bytes),
        ]);
    }
    say!("{table}");
    for finding in findings {
        let verdict = if finding.holds {
            "holds"
        } else {
            "DOES NOT HOLD"
        };
        say!("{verdict}: {}", finding.what);
    }
}
