//! Load on a cluster: a laboratory that measures stockd beside a bare echo and beside other
//! systems, what it costs to lose and to add nodes, and a replay of a real shop's baskets that
//! checks every unit.

/// A line on stdout. Whoever reads them (`head`, a pager) may have seen enough; what is measured
/// goes on.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

mod bench;
mod compare;
mod failover;
mod growth;
mod lab;
mod nodes;
mod overload;
mod plot;
mod profile;
mod recovery;
mod replay;
mod run;
mod systems;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// The generator shares the machine with what it measures: what it saves goes to the cluster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
All but `replay` start nodes of their own, of the stockd beside this program. What is measured is \
built as one program; build both first: cargo build --profile dist -p stockd -p loadtests

Examples:

  Fetch the baskets once, then replay four weeks of them, on what `stockd dev` started, and check \
  every position:
    loadtests/fetch-dunnhumby.sh /tmp/dunnhumby
    cargo run --profile dist -p loadtests -- replay --dataset /tmp/dunnhumby --weeks 1-4

  The same while nodes are killed and one is replaced, on nodes of its own:
    cargo run --profile dist -p loadtests -- replay --dataset /tmp/dunnhumby --weeks 1-8 \
    --kill-every 10 --replace-node

  Put load on it as a shop does; see the profiles, run one, look at its page; write for half an \
  hour, and see that disks do not fill:
    cargo run --profile dist -p loadtests -- run --list
    cargo run --profile dist -p loadtests -- run checkout --html checkout.html
    cargo run --profile dist -p loadtests -- run disk

  Measure, in under a minute or with three longer rounds:
    cargo run --profile dist -p loadtests -- bench --quick
    cargo run --profile dist -p loadtests -- bench --json bench.json

  Measure beside PostgreSQL, Redis and etcd, ask too much, and see where the time goes:
    cargo run --profile dist -p loadtests -- compare
    cargo run --profile dist -p loadtests -- overload
    cargo run --profile dist -p loadtests -- profile --call stream --svg stream.svg

  Measure what it costs to lose a leader, and what ten million positions weigh:
    cargo run --profile dist -p loadtests -- failover --kills 50 --hand-overs 50
    cargo run --profile dist -p loadtests -- recovery --positions 10000000

  See how cost grows with shards, positions, open holds and lines, with a plot of each:
    cargo run --profile dist -p loadtests -- growth --out growth

Exit code 0: all is well; 1: a mismatch, a failed call, or no cluster; 2: usage.";

#[derive(Parser)]
#[command(name = "loadtests", version, about = "Puts load on a stockd cluster and checks what \
    comes of it", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Replay(replay::Arguments),
    Bench(bench::Arguments),
    Compare(compare::Arguments),
    Failover(failover::Arguments),
    Recovery(recovery::Arguments),
    Overload(overload::Arguments),
    Growth(growth::Arguments),
    Profile(profile::Arguments),
}

/// What a command found. That it could not do its work at all is an error instead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: on a small machine the nodes need the other cores, and a second thread of load would
/// measure hand-overs between threads of the load generator.
fn run(command: Command) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::select! {
            verdict = carry_out(command) => verdict,
            signal = interrupted() => bail!("stopped by {}; what was started is stopped, \
                too", signal?),
        }
    })
}

async fn carry_out(command: Command) -> anyhow::Result<Verdict> {
    match command {
        Command::Run(arguments) => run::run(&arguments).await,
        Command::Replay(arguments) => replay::run(&arguments).await,
        Command::Bench(arguments) => bench::run(&arguments).await,
        Command::Compare(arguments) => compare::run(&arguments).await,
        Command::Failover(arguments) => failover::run(&arguments).await,
        Command::Recovery(arguments) => recovery::run(&arguments).await,
        Command::Overload(arguments) => overload::run(&arguments).await,
        Command::Growth(arguments) => growth::run(&arguments).await,
        Command::Profile(arguments) => profile::run(&arguments).await,
    }
}

/// Whoever is told to stop drops what it does, and with that end its nodes, its servers and their
/// files.
async fn interrupted() -> anyhow::Result<&'static str> {
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(tokio::select! {
        _ = int.recv() => "SIGINT",
        _ = term.recv() => "SIGTERM",
    })
}
