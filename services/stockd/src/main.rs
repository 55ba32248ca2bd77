//! The `stockd` command: runs a node, or a whole cluster on this machine to try things out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use stockd::config::{Config, Overrides};
use stockd::host::sizes::Sizes;
use stockd::offline::{inspect, recover};
use stockd::telemetry::{self, LogFormat};
use stockd::{dev, environment, node};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A call makes and drops some hundred small allocations; the C library's allocator was a fifth of
/// a busy node's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Real-time stock availability: reserve, confirm, release and fulfil stock, durably, in under a
/// millisecond.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  stockd dev                              a three-node cluster with sample stock, on this machine
  stockd dev --data-dir ./data            the same, kept for the next time
  stockd serve --config node-1.toml       one node of a real cluster
  stockd config --check --config node-1.toml
  stockd inspect --data-dir ./data             what a stopped node has

`stockctl --help` shows how to use a cluster."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a three-node cluster on this machine, with sample stock
    Dev(dev::Options),
    /// Run one node of a cluster
    Serve(Serve),
    /// Show the configuration that a node would run with
    Config(Show),
    /// Look into the data directory of a node that does not run, and change nothing
    #[command(after_help = "\
Examples:
  stockd inspect --data-dir /var/lib/stockd
  stockd inspect --data-dir /var/lib/stockd --verify -o json

The exit code is 0 where all is well, and 1 where something is damaged.")]
    Inspect(inspect::Options),
    /// Go on from what is left, where most nodes of a cluster are lost for good
    #[command(after_help = "\
Examples:
  stockd recover --data-dir /var/lib/stockd              what would be done
  stockd recover --data-dir /var/lib/stockd --lose-everything-else
  stockd recover --data-dir /mnt/node-2 --data-dir /mnt/node-5 --lose-everything-else

Only for a cluster that can never have a majority again: what the lost nodes alone had is lost, \
and the cluster
forgets that it ever was. Stop every node that is left and bring all their data directories \
together on one
machine, so that the longest log of each shard can be chosen; afterwards bring them back and \
start the nodes.
`stockctl unsafe recover` tells of a running cluster whether it has come to that.")]
    Recover(recover::Options),
}

#[derive(Debug, Args)]
struct Serve {
    /// The configuration, in TOML; every key can be overridden below or in the environment
    #[arg(long, env = "STOCKD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines are written
    #[arg(long, env = "STOCKD_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What is logged, as in RUST_LOG (which goes before it): info, or stockd=debug
    #[arg(long, env = "STOCKD_LOG", default_value = "info")]
    log: String,
    /// Stop at once when the process that started this one ends
    #[arg(long, hide = true)]
    die_with_parent: bool,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    sizes: Sizes,
}

#[derive(Debug, Args)]
struct Show {
    /// The configuration, in TOML
    #[arg(long, env = "STOCKD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check it: print nothing if it is good
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    overrides: Overrides,
}

fn main() -> ExitCode {
    let matches = environment::without_empty(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(error) = environment::check(&Cli::command()) {
        eprintln!("stockd: {error}");
        return ExitCode::FAILURE;
    }
    let result = match cli.command {
        Command::Dev(options) => dev::run(options).map(|()| ExitCode::SUCCESS),
        Command::Serve(serve) => run_node(serve),
        Command::Config(show) => show_config(show).map(|()| ExitCode::SUCCESS),
        Command::Inspect(options) => inspect::run(&options),
        Command::Recover(options) => recover::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("stockd: {}", in_words(&error));
        ExitCode::FAILURE
    })
}

/// An error and its causes, but none twice: some errors tell their cause themselves.
fn in_words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

fn run_node(serve: Serve) -> anyhow::Result<ExitCode> {
    if serve.die_with_parent {
        dev::die_with_parent()?;
    }
    let config = Config::resolve(serve.config.as_deref(), serve.overrides)?;
    telemetry::log_to_stderr(serve.log_format, &serve.log);
    // One thread: on two cores a multi-threaded runtime was measured to cost a fifth of the rate.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        node::run(config, serve.sizes, stop).await
    });
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // From here on whoever looks, looks at the log.
        Err(error) => {
            tracing::error!(error = in_words(&error.into()), "cannot go on");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// SIGTERM and SIGINT stop the node in order; a second one stops it at once.
async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("cannot take signals; stop the node with SIGKILL");
        return;
    };
    for attempt in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        if attempt == 1 {
            std::process::exit(1);
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn show_config(show: Show) -> anyhow::Result<()> {
    let config = Config::resolve(show.config.as_deref(), show.overrides)?;
    if !show.check {
        print!("{}", toml::to_string(&config)?);
    }
    Ok(())
}
