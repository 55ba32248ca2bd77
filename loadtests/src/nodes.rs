//! A cluster of real `stockd serve` processes that a command starts for itself, so that it can
//! kill, replace and add nodes. They end with this program, and their data go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use stock_client::Client;
use stock_proto::stock::admin::v1::{
    DrainNodeRequest, ListNodesRequest, ListShardsRequest, NodeStatus, RemoveNodeRequest,
};
use stock_proto::stock::v1::GetTopologyResponse;
use stock_supervisor::{
    Beginning, Place, Process, Serve, Settings, health, memory_bytes, page, ports,
};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::lab::Processes;

const HOST: &str = "127.0.0.1";

const PORTS_PER_NODE: usize = 3;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// From any change until every group is led, as every node sees it.
const LED_WITHIN: Duration = Duration::from_secs(300);

/// From any change until every replica is where it belongs and has caught up.
const SETTLED_WITHIN: Duration = Duration::from_secs(1_800);

/// What the commands that start nodes have in common.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct NodeOptions {
    /// The server [default: the `stockd` beside this program]
    #[arg(long, value_name = "FILE")]
    stockd: Option<PathBuf>,

    /// Where the nodes keep their data while this runs; on a real disk [default: the current
    /// directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Stock shards
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=256)
    )]
    pub(crate) shards: u32,

    /// What else the nodes are told when they start
    #[clap(skip)]
    pub(crate) serve_arguments: Vec<String>,
}

impl NodeOptions {
    /// Where data are kept while a command runs.
    pub(crate) fn scratch(&self) -> anyhow::Result<PathBuf> {
        match &self.scratch {
            Some(scratch) => Ok(scratch.clone()),
            None => Ok(std::env::current_dir()?),
        }
    }
}

/// Processes, and how to reach them.
pub(crate) struct Nodes {
    options: NodeOptions,
    stockd: PathBuf,
    founders: u64,
    ports: Vec<u16>,
    running: BTreeMap<u64, Process>,
    dir: TempDir,
}

impl Nodes {
    /// Starts so many nodes, which found a cluster, and waits until it is led; `spares` more may
    /// join.
    pub(crate) async fn found(
        options: &NodeOptions,
        founders: u64,
        spares: u64,
    ) -> anyhow::Result<Nodes> {
        let stockd = match &options.stockd {
            Some(stockd) => stockd.clone(),
            None => std::env::current_exe()?.with_file_name("stockd"),
        };
        ensure!(
            stockd.exists(),
            "there is no {}: build it (cargo build --profile dist -p stockd), or name it with \
             --stockd",
            stockd.display()
        );
        let scratch = options.scratch()?;
        let dir = tempfile::Builder::new()
            .prefix("loadtests-nodes-")
            .tempdir_in(&scratch)
            .with_context(|| format!("cannot write in {}", scratch.display()))?;
        let mut nodes = Nodes {
            options: options.clone(),
            stockd,
            founders,
            ports: ports::free((founders + spares) as usize * PORTS_PER_NODE)?,
            running: BTreeMap::new(),
            dir,
        };
        for node in 1..=founders {
            nodes.start(node)?;
        }
        nodes.wait_until_led().await?;
        Ok(nodes)
    }

    /// Starts a node that does not run. One that is no founder joins.
    pub(crate) fn start(&mut self, node: u64) -> anyhow::Result<()> {
        let beginning = match node <= self.founders {
            true => Beginning::Founds {
                founders: (1..=self.founders).map(|node| self.place(node)).collect(),
                shards: self.options.shards,
            },
            false => Beginning::Joins {
                through: self
                    .running
                    .keys()
                    .map(|node| self.place(*node).peers_address())
                    .collect(),
            },
        };
        let settings = Settings {
            cluster_id: format!("loadtests-{}", self.ports[0]),
            data_dir: self.data_dir(node),
            place: self.place(node),
            beginning,
            // Echoes are the floor of what is measured.
            more: toml::Table::from_iter([("serve_lab".to_owned(), true.into())]),
        };
        let config = self.dir.path().join(format!("node-{node}.toml"));
        std::fs::write(&config, settings.to_toml()?)?;
        let serve = Serve {
            config: &config,
            log: &self.dir.path().join(format!("node-{node}.log")),
            log_filter: "info",
            arguments: &self.options.serve_arguments,
            variables: &[],
        };
        let process = serve
            .start(Command::new(&self.stockd))
            .with_context(|| format!("cannot start {}", self.stockd.display()))?;
        self.running.insert(node, process);
        Ok(())
    }

    /// Ends a node as a power cut would: SIGKILL. Returns once it is gone.
    pub(crate) fn kill(&mut self, node: u64) {
        drop(self.running.remove(&node));
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    /// For what they use.
    pub(crate) fn processes(&self) -> Processes {
        Processes::of(self.running.values().map(Process::id))
    }

    /// Where clients reach a node: a URL.
    pub(crate) fn endpoint(&self, node: u64) -> String {
        self.place(node).endpoint()
    }

    /// Where a node keeps its data.
    pub(crate) fn data_dir(&self, node: u64) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    /// Where all nodes keep their data and logs.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves data and logs where they are, for whoever wants to look at them.
    pub(crate) fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Bytes that a node's process has in memory.
    pub(crate) fn resident_bytes(&self, node: u64) -> anyhow::Result<u64> {
        let process = self.running.get(&node).context("the node does not run")?;
        Ok(memory_bytes(process.id(), "VmRSS")?)
    }

    /// The value of a metric of a node, summed over its labels; 0 if it was never set.
    pub(crate) async fn metric(&self, node: u64, name: &str) -> anyhow::Result<f64> {
        let text = page::get(&self.place(node).metrics_address(), "/metrics").await?;
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let is_it = key == name || key.strip_prefix(name)?.starts_with('{');
            is_it.then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    /// A client that knows every node that runs.
    pub(crate) async fn client(&self, call_timeout: Duration) -> anyhow::Result<Client> {
        let builder = self
            .running
            .keys()
            .fold(Client::builder(), |builder, node| {
                builder.endpoint(self.endpoint(*node))
            });
        Ok(builder.call_timeout(call_timeout).connect().await?)
    }

    /// Waits until every node that runs sees a leader that runs for every group.
    pub(crate) async fn wait_until_led(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        for node in self.running() {
            while !self.is_led(node).await {
                let process = self.running.get_mut(&node).context("a node went away")?;
                if let Some(status) = process.ended()? {
                    self.keep();
                    bail!(
                        "node {node} ended ({status}); see {}",
                        self.dir.path().display()
                    );
                }
                if began.elapsed() > LED_WITHIN {
                    self.keep();
                    bail!(
                        "node {node} sees no leader for every group after {LED_WITHIN:?}; see {}",
                        self.dir.path().display()
                    );
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn is_led(&self, node: u64) -> bool {
        let Some(topology) = self.topology(node).await else {
            return false;
        };
        health::leaders(&topology, &self.running()).is_ok()
    }

    /// The cluster as a node sees it; none if it does not answer.
    pub(crate) async fn topology(&self, node: u64) -> Option<GetTopologyResponse> {
        let client = Client::connect(&self.endpoint(node)).await.ok()?;
        client.get_topology().await.ok()
    }

    /// Waits until every group has so many voters, all sound, on nodes that run, nothing moves, and
    /// no node has more than one replica more than another.
    pub(crate) async fn wait_until_settled(
        &self,
        client: &Client,
        voters: usize,
    ) -> anyhow::Result<()> {
        wait_until(SETTLED_WITHIN, async || {
            health::members(&nodes(client).await?, &self.running())?;
            let answer = client.list_shards(ListShardsRequest::default()).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let mut groups = answer.meta.iter().chain(&answer.shards);
            groups.try_for_each(|group| health::settled(group, &self.running(), voters))
        })
        .await
    }

    /// Has a node join, and another one drained, removed and ended.
    pub(crate) async fn replace(
        &mut self,
        client: &Client,
        leaves: u64,
        comes: u64,
    ) -> anyhow::Result<()> {
        self.start(comes)?;
        self.wait_for_node(client, comes).await?;
        let drain = DrainNodeRequest {
            node_id: leaves,
            ..Default::default()
        };
        client.drain_node(drain).await?;
        let is_empty = async || health::empty(&nodes(client).await?, leaves);
        wait_until(SETTLED_WITHIN, is_empty).await?;
        let remove = RemoveNodeRequest {
            node_id: leaves,
            ..Default::default()
        };
        client.remove_node(remove).await?;
        self.kill(leaves);
        Ok(())
    }

    /// Waits until so many nodes are members and up.
    pub(crate) async fn wait_for_members(&self, client: &Client, count: u64) -> anyhow::Result<()> {
        for node in 1..=count {
            self.wait_for_node(client, node).await?;
        }
        Ok(())
    }

    async fn wait_for_node(&self, client: &Client, node: u64) -> anyhow::Result<()> {
        let is_up = async || health::up(&nodes(client).await?, node);
        wait_until(LED_WITHIN, is_up).await
    }

    fn place(&self, node: u64) -> Place {
        let ports = &self.ports[(node - 1) as usize * PORTS_PER_NODE..];
        Place {
            node,
            host: HOST.to_owned(),
            grpc: ports[0],
            peers: ports[1],
            metrics: ports[2],
        }
    }
}

/// Those that have not been taken out.
async fn nodes(client: &Client) -> Result<Vec<NodeStatus>, String> {
    let answer = client.list_nodes(ListNodesRequest::default()).await;
    Ok(answer.map_err(|error| error.to_string())?.nodes)
}

async fn wait_until(
    within: Duration,
    mut is_so: impl AsyncFnMut() -> Result<(), String>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while let Err(why) = is_so().await {
        ensure!(began.elapsed() < within, "not within {within:?}: {why}");
        sleep(LOOK_EVERY * 5).await;
    }
    Ok(())
}
