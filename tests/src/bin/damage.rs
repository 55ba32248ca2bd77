//! Damages the files of a whole cluster, one kind after the other, in every way and on one, two and all nodes, and prints
//! what comes of it: the table in `docs/damage.md`. Fails if anything was lost of which nobody had been told.
//!
//! ```text
//! cargo run -p tests --bin damage > docs/damage.md
//! cargo run -p tests --bin damage -- --only ledger
//! ```

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tests::damage::{Lost, Outcome, Sweep, table, trials};

/// Damages the files of a whole cluster in every way, and prints what comes of it.
#[derive(Debug, Parser)]
struct Args {
    /// Only trials whose words, as in the table's first three columns, contain this.
    #[arg(long)]
    only: Option<String>,
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]
#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut trials = trials();
    if let Some(only) = &args.only {
        trials.retain(|trial| trial.to_string().contains(only));
    }
    let began = Instant::now();
    let sweep = Sweep::prepare().await;
    let mut outcomes = Vec::new();
    for (at, trial) in trials.iter().enumerate() {
        let outcome = sweep.run(trial).await;
        eprintln!(
            "[{}/{}, {} s] {trial}: {}; lost: {:?}",
            at + 1,
            trials.len(),
            began.elapsed().as_secs(),
            outcome.deeds.join("; "),
            outcome.lost,
        );
        for words in &outcome.words {
            eprintln!("    {words}");
        }
        outcomes.push(outcome);
    }
    println!("{}", table(&outcomes));
    let is_untold = |outcome: &Outcome| matches!(outcome.lost, Lost::Untold(_));
    match outcomes.iter().any(is_untold) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
