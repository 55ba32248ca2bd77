//! Damages the files of a whole cluster, one kind after the other, in every way and on one, two and all nodes, and prints
//! what comes of it: the table in `docs/damage.md`.
//!
//! ```text
//! cargo run -p tests --bin damage > docs/damage-table.md
//! cargo run -p tests --bin damage -- --only ledger
//! ```

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tests::damage::{Sweep, table, trials};

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
        let lost = outcome.lost.as_deref().unwrap_or("nothing");
        eprintln!(
            "[{}/{}, {} s] {trial}: {}; lost: {lost}",
            at + 1,
            trials.len(),
            began.elapsed().as_secs(),
            outcome.deeds.join("; "),
        );
        for words in &outcome.words {
            eprintln!("    {words}");
        }
        outcomes.push(outcome);
    }
    println!("{}", table(&outcomes));
    ExitCode::SUCCESS
}
