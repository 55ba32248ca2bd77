//! Damages the files of a whole cluster, one kind after the other, in every way and on one, two and
//! all nodes, and prints what comes of it: the table in `docs/damage.md`. Fails if anything was
//! lost of which nobody had been told.
//!
//! ```text
//! cargo run -p tests --bin damage > docs/damage.md
//! cargo run -p tests --bin damage -- --only ledger
//! ```

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use futures_util::future::join_all;
use tests::damage::{Lost, Outcome, Sweep, table, trials};

/// Damages the files of a whole cluster in every way, and prints what comes of it.
#[derive(Debug, Parser)]
struct Args {
    /// Only trials whose words, as in the table's first three columns, contain this.
    #[arg(long)]
    only: Option<String>,
    /// How many clusters at once: most of the time they wait.
    #[arg(long, default_value_t = 3)]
    at_once: usize,
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut trials = trials();
    if let Some(only) = &args.only {
        trials.retain(|trial| trial.to_string().contains(only));
    }
    let began = Instant::now();
    let count = trials.len();
    let queue = RefCell::new(trials.into_iter().enumerate());
    let next = || queue.borrow_mut().next();
    let tried = RefCell::new(Vec::new());
    let work = async || {
        let sweep = Sweep::prepare().await;
        while let Some((at, trial)) = next() {
            let outcome = sweep.run(&trial).await;
            eprintln!(
                "[{}/{count}, {} s] {trial}: {}; lost: {:?}",
                at + 1,
                began.elapsed().as_secs(),
                outcome.deeds.join("; "),
                outcome.lost,
            );
            for words in &outcome.words {
                eprintln!("    {words}");
            }
            tried.borrow_mut().push((at, outcome));
        }
    };
    join_all((0..args.at_once).map(|_| work())).await;
    let mut tried = tried.into_inner();
    tried.sort_by_key(|(at, _)| *at);
    let outcomes: Vec<Outcome> = tried.into_iter().map(|(_, outcome)| outcome).collect();
    println!("{}", table(&outcomes));
    let is_untold = |outcome: &Outcome| matches!(outcome.lost, Lost::Untold(_));
    match outcomes.iter().any(is_untold) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
