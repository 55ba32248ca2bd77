//! `stockd dev`: a three-node cluster on this machine, each node a process of its own.
//!
//! Real processes, so that any of them can be killed: a node that ends is started again. All of
//! them end with this one.

mod guide;
mod sample;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rustix::process::{Pid, Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use stock_client::Client;
use stock_supervisor::{Beginning, Place, Process, Serve, Settings, health};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::config::Hosting;
use crate::environment;

const NODES: u64 = 3;
const SHARDS_DEFAULT: u32 = 8;
const HOST: &str = "127.0.0.1";

/// From the first process to the last leader. A second is usual; a slow disk may replay for long.
const READY_WITHIN: Duration = Duration::from_secs(120);
const READY_CHECK_EVERY: Duration = Duration::from_millis(20);

/// A cluster that was told to stop needs a moment; one that runs does not go away.
const PORTS_FREE_WITHIN: Duration = Duration::from_secs(3);

/// A node that ended is started again after this...
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// ...unless it keeps ending within this time of its start, this many times in a row.
const RESTART_HEALTHY_AFTER: Duration = Duration::from_secs(5);
const RESTARTS_IN_A_ROW_MAX: u32 = 5;

/// A node that is told to stop is killed after this.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Options of `stockd dev`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Node 1 serves gRPC on base port + 1, node 2 on + 2, node 3 on + 3; Prometheus metrics are on + 11 to
+ 13, and the nodes talk to each other on + 21 to + 23. Everything listens on loopback only.

A node that is killed is started again. Stop the cluster with Ctrl-C.")]
pub struct Options {
    /// Keep the data here, and go on with what is there [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port from which all others count
    #[arg(long, default_value_t = 7400)]
    base_port: u16,
    /// How many shards a new cluster is born with [default: 8]
    #[arg(long)]
    shards: Option<u32>,
    /// Begin without the sample assortment
    #[arg(long)]
    no_sample: bool,
    /// Where the nodes' loop lives
    #[arg(long, default_value = "runtime")]
    hosting: Hosting,
    /// What the nodes log, as in RUST_LOG
    #[arg(long, default_value = "info")]
    log: String,
}

/// What a data directory remembers of its cluster.
#[derive(Debug, Serialize, Deserialize)]
struct Birth {
    cluster_id: String,
    shards: u32,
}

/// Runs until interrupted.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(supervise(options))
}

/// Has the kernel kill this process when its parent ends.
pub fn die_with_parent() -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the kernel was asked.
    ensure!(
        rustix::process::getppid() != Some(Pid::INIT),
        "the starting process has ended"
    );
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "dev talks to the person who started it"
)]
async fn supervise(options: Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let temporary = match options.data_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("stockd-dev-").tempdir()?),
    };
    let dir = match (&options.data_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.path().to_owned(),
        (None, None) => bail!("no data directory"),
    };
    let birth = birth(&dir, options.shards)?;
    wait_for_ports(options.base_port).await?;
    println!("starting {NODES} nodes, data in {}", dir.display());

    let mut nodes = JoinSet::new();
    for node in 1..=NODES {
        let start = NodeStart::write(node, &birth, &dir, &options)?;
        nodes.spawn(keep_running(start));
    }
    let ready = async {
        let client = wait_until_ready(options.base_port).await?;
        let stock = match options.no_sample {
            true => None,
            false => sample::load_if_empty(&client)
                .await
                .context("cannot load the sample")?,
        };
        println!(
            "ready: {NODES} nodes, {} shards, in {:.1} s",
            birth.shards,
            began.elapsed().as_secs_f64()
        );
        guide::print(&dir, options.base_port, stock.as_ref());
        Ok::<_, anyhow::Error>(())
    };
    let outcome = tokio::select! {
        ended = nodes.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(Ok(()))) | None => Ok(()),
        },
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        outcome = async { ready.await?; std::future::pending::<()>().await; Ok(()) } => outcome,
    };
    println!("stopping");
    STOPPING.cancel();
    while nodes.join_next().await.is_some() {}
    outcome
}

/// Tells every node's keeper that the whole cluster stops.
static STOPPING: std::sync::LazyLock<tokio_util::sync::CancellationToken> =
    std::sync::LazyLock::new(tokio_util::sync::CancellationToken::new);

/// What a new cluster in this directory is, or what the one that is there has always been.
fn birth(dir: &Path, shards: Option<u32>) -> anyhow::Result<Birth> {
    let path = dir.join("cluster.toml");
    if path.exists() {
        let birth: Birth = toml::from_str(&fs::read_to_string(&path)?)
            .with_context(|| format!("{} is damaged", path.display()))?;
        if let Some(shards) = shards.filter(|shards| *shards != birth.shards) {
            bail!(
                "the cluster in {} was born with {} shards and cannot have {shards}: \
                 leave --shards out, or name another directory",
                dir.display(),
                birth.shards
            );
        }
        return Ok(birth);
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let birth = Birth {
        // A name of its own, so that a client of an earlier cluster notices.
        cluster_id: format!("dev-{:08x}", rand::random::<u32>()),
        shards: shards.unwrap_or(SHARDS_DEFAULT),
    };
    fs::write(&path, toml::to_string(&birth)?)?;
    Ok(birth)
}

/// Says which port is in the way before three processes fail on it. A cluster that is just stopping
/// is given the time to.
async fn wait_for_ports(base: u16) -> anyhow::Result<()> {
    let until = Instant::now() + PORTS_FREE_WITHIN;
    for offset in [1, 2, 3, 11, 12, 13, 21, 22, 23] {
        let port = base
            .checked_add(offset)
            .context("--base-port is too high")?;
        while let Err(error) = TcpListener::bind((HOST, port)) {
            if Instant::now() > until {
                return Err(error).with_context(|| {
                    format!(
                        "port {port} is in use; is a cluster running already? Else try --base-port"
                    )
                });
            }
            sleep(READY_CHECK_EVERY).await;
        }
    }
    Ok(())
}

/// Where a node of a cluster with this base port is.
fn place(base_port: u16, node: u64) -> Place {
    let port = |offset: u16| base_port + offset + node as u16;
    Place {
        node,
        host: HOST.to_owned(),
        grpc: port(0),
        peers: port(20),
        metrics: port(10),
    }
}

/// How to start a node.
struct NodeStart {
    node: u64,
    config_path: PathBuf,
    log_path: PathBuf,
    log_filter: String,
}

impl NodeStart {
    /// Writes its configuration.
    fn write(node: u64, birth: &Birth, dir: &Path, options: &Options) -> anyhow::Result<Self> {
        let founders = (1..=NODES).map(|node| place(options.base_port, node));
        let hosting = toml::Value::try_from(options.hosting)?;
        let settings = Settings {
            cluster_id: birth.cluster_id.clone(),
            data_dir: dir.join(format!("node-{node}")),
            place: place(options.base_port, node),
            beginning: Beginning::Founds {
                founders: founders.collect(),
                shards: birth.shards,
            },
            more: [
                ("hosting".to_owned(), hosting),
                // All of the history.
                ("ledger_keep_seconds".to_owned(), 0.into()),
            ]
            .into_iter()
            .collect(),
        };
        fs::create_dir_all(&settings.data_dir)?;
        let config_path = settings.data_dir.join("stockd.toml");
        fs::write(&config_path, settings.to_toml()?)?;
        Ok(Self {
            node,
            config_path,
            log_path: settings.data_dir.join("stockd.log"),
            log_filter: options.log.clone(),
        })
    }

    fn start(&self) -> anyhow::Result<Process> {
        let serve = Serve {
            config: &self.config_path,
            log: &self.log_path,
            log_filter: &self.log_filter,
            arguments: &[],
            variables: &environment::OF_EVERY_NODE,
        };
        Ok(serve.start(Command::new(std::env::current_exe()?))?)
    }
}

/// Starts a node again whenever it ends; gives up when it will not stay.
async fn keep_running(start: NodeStart) -> anyhow::Result<()> {
    let mut ended_early = 0;
    loop {
        let began = Instant::now();
        let mut process = start.start()?;
        let status = tokio::select! {
            status = process.wait() => status?,
            () = STOPPING.cancelled() => return Ok(process.stop(Signal::TERM, STOP_WITHIN).await?),
        };
        ended_early = match began.elapsed() < RESTART_HEALTHY_AFTER {
            true => ended_early + 1,
            false => 0,
        };
        ensure!(
            ended_early < RESTARTS_IN_A_ROW_MAX,
            "node {} does not stay up ({status}); see {}",
            start.node,
            start.log_path.display()
        );
        eprintln!("node {} ended ({status}); starting it again", start.node);
        sleep(RESTART_AFTER).await;
    }
}

/// Waits until every node sees a leader for every shard.
async fn wait_until_ready(base_port: u16) -> anyhow::Result<Client> {
    let until = Instant::now() + READY_WITHIN;
    let mut clients = Vec::new();
    for node in 1..=NODES {
        let endpoint = place(base_port, node).endpoint();
        loop {
            match Client::connect(&endpoint).await {
                Ok(client) => break clients.push(client),
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => sleep(READY_CHECK_EVERY).await,
            }
        }
    }
    while !all_led(&clients).await {
        ensure!(
            Instant::now() < until,
            "no leader for every shard after {} s; see the nodes' logs",
            READY_WITHIN.as_secs()
        );
        sleep(READY_CHECK_EVERY).await;
    }
    clients.pop().context("no node")
}

async fn all_led(clients: &[Client]) -> bool {
    for client in clients {
        let running: Vec<u64> = (1..=NODES).collect();
        match client.get_topology().await {
            Ok(topology) if health::leaders(&topology, &running).is_ok() => {}
            _ => return false,
        }
    }
    true
}
