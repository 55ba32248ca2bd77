//! Lives through whole clusters, one seed each, and says which promises they broke.
//!
//! ```text
//! cargo run --release -p tests --bin simulate -- --seeds 1000
//! cargo run --release -p tests --bin simulate -- --seed 17 --trace
//! ```

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use stockd::telemetry::{self, LogFormat};
use tests::sim::{self, FaultKind, Occurrences, Options, Run, Verbosity};

/// Small allocations by the million, all of one thread: a fifth of a run with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates whole clusters and checks what they promise.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds, from the first one on.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long)]
    first: Option<u64>,
    /// This seed only.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Prints every event as it happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Runs each seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// How many seeds at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Ends faults and new operations after so many seconds of virtual time at the latest.
    #[arg(long)]
    seconds: Option<u64>,
    /// Leaves a kind of fault out; may be given several times.
    #[arg(long)]
    without: Vec<String>,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Does not look for a smaller failure.
    #[arg(long)]
    no_shrink: bool,
}

/// What all threads have found so far.
#[derive(Default)]
struct Found {
    runs: u64,
    simulated_us: u64,
    tally: Occurrences,
    failures: Vec<Run>,
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]
fn main() -> ExitCode {
    let args = Args::parse();
    let without: BTreeSet<FaultKind> = FaultKind::ALL
        .iter()
        .copied()
        .filter(|kind| args.without.iter().any(|name| name == kind.name()))
        .collect();
    if without.len() != args.without.len() {
        let names: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
        eprintln!(
            "a kind of fault is not known; there are: {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let options = Options {
        verbosity: Verbosity::Silent,
        without,
        seconds_max: args.seconds,
    };
    let seeds = match args.seed {
        Some(seed) => seed..seed + 1,
        None => {
            let first = args.first.unwrap_or(0);
            first..first + args.seeds
        }
    };
    if args.trace {
        // What the nodes themselves say, all of them in one stream.
        telemetry::log_to_stderr(LogFormat::Text, "info");
        let loud = Options {
            verbosity: Verbosity::Everything,
            ..options
        };
        let run = sim::run(seeds.start, &loud);
        println!("seed {}: {:016x}, {:?}", run.seed, run.hash, run.broken);
        return exit_code(run.broken.is_none());
    }
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let found = Mutex::new(Found::default());
    let shown = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let run = on_a_thread_of_its_own(seed, &options);
                    let differs =
                        args.twice && on_a_thread_of_its_own(seed, &options).hash != run.hash;
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.runs += 1;
                    found.simulated_us += run.simulated_us;
                    found.tally.merge(&run.tally);
                    if differs {
                        eprintln!("seed {seed}: twice the same seed, and two different runs");
                    }
                    if let Some(broken) = &run.broken {
                        eprintln!("seed {seed} breaks `{}`: {}", broken.check, broken.seen);
                    }
                    if run.broken.is_some() || differs {
                        stop.store(!args.keep_going, Ordering::Relaxed);
                        found.failures.push(run);
                    }
                    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                    if shown.elapsed() > Duration::from_secs(5) {
                        *shown = Instant::now();
                        eprintln!(
                            "{} seeds, {} failed, {:.0} s",
                            found.runs,
                            found.failures.len(),
                            began.elapsed().as_secs_f64()
                        );
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    for failure in &found.failures {
        tell_of(failure, &options, args.no_shrink);
    }
    println!(
        "{} seeds in {:.1} s; {:.0} s of virtual time",
        found.runs,
        began.elapsed().as_secs_f64(),
        found.simulated_us as f64 / 1e6
    );
    for (what, times) in found.tally.iter() {
        println!("{times:>10}  {what}");
    }
    let never: Vec<_> = FaultKind::ALL
        .iter()
        .map(|kind| kind.name())
        .filter(|name| found.tally.get(name) == 0)
        .collect();
    if !never.is_empty() {
        println!("never: {}", never.join(", "));
    }
    println!("{} failed", found.failures.len());
    exit_code(found.failures.is_empty())
}

/// The log's engine keeps a cache for each thread: a run must not see what another left in it.
fn on_a_thread_of_its_own(seed: u64, options: &Options) -> Run {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| sim::run(seed, options));
        run.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[expect(clippy::print_stdout, reason = "a command-line program")]
fn tell_of(failure: &Run, options: &Options, no_shrink: bool) {
    let Some(broken) = &failure.broken else {
        println!("seed {}: not the same twice", failure.seed);
        return;
    };
    println!(
        "seed {} breaks `{}`: {}",
        failure.seed, broken.check, broken.seen
    );
    if no_shrink {
        return;
    }
    let least = sim::shrink(failure, options);
    let with_text = Options {
        verbosity: Verbosity::Last,
        ..least
    };
    let again = on_a_thread_of_its_own(failure.seed, &with_text);
    println!("the last events, with less around it:");
    for line in &again.lines {
        println!("  {line}");
    }
    let mut command = format!("simulate --seed {} --trace", failure.seed);
    for kind in &with_text.without {
        command += &format!(" --without {}", kind.name());
    }
    if let Some(seconds) = with_text.seconds_max {
        command += &format!(" --seconds {seconds}");
    }
    if let Some(broken) = again.broken {
        println!("{}: {}\n{command}", broken.check, broken.seen);
    }
}

fn exit_code(is_well: bool) -> ExitCode {
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
