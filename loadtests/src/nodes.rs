//! A cluster of real `stockd serve` processes that a command starts for itself, so that it can
//! kill, replace and add nodes. They end with this program, and their data go.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use stock_client::Client;
use stock_proto::stock::v1::replica_status::Role;
use stock_proto::stock::v1::{
    DrainNodeRequest, GetTopologyResponse, ListNodesRequest, ListShardsRequest, RemoveNodeRequest,
    ShardStatus, node_status,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::lab::Processes;
use crate::systems::server::free_ports;

const HOST: &str = "127.0.0.1";

const PORTS_PER_NODE: usize = 3;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// From any change until every group is led, as every node sees it.
const LED_WITHIN: Duration = Duration::from_secs(300);

/// From any change until every replica is where it belongs and has caught up.
const SETTLED_WITHIN: Duration = Duration::from_secs(1_800);

/// A replica that is this many entries behind has caught up, as far as load lets anybody.
const LAG_MAX: u64 = 64;

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
    running: BTreeMap<u64, Child>,
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
            ports: free_ports((founders + spares) as usize * PORTS_PER_NODE)?,
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
        let log_path = self.dir.path().join(format!("node-{node}.log"));
        let log = File::options().create(true).append(true).open(log_path)?;
        let port = |node: u64, which| self.port(node, which);
        let mut command = Command::new(&self.stockd);
        // What is set for other nodes, or for whoever runs this, is not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STOCKD_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--die-with-parent", "--log", "info"])
            .args(["--cluster-id", &format!("loadtests-{}", self.ports[0])])
            .args(["--node-id", &node.to_string()])
            .arg("--data-dir")
            .arg(self.data_dir(node))
            .args(["--listen-grpc", &format!("{HOST}:{}", port(node, 0))])
            .args(["--listen-peers", &format!("{HOST}:{}", port(node, 1))])
            .args(["--listen-metrics", &format!("{HOST}:{}", port(node, 2))]);
        command.args(&self.options.serve_arguments);
        if node <= self.founders {
            command.args(["--shards", &self.options.shards.to_string()]);
            for founder in 1..=self.founders {
                let (grpc, peers) = (port(founder, 0), port(founder, 1));
                command.args([
                    "--node",
                    &format!("{founder}=http://{HOST}:{grpc},{HOST}:{peers}"),
                ]);
            }
        } else {
            for other in self.running.keys() {
                command.args(["--join", &self.endpoint(*other)]);
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.stockd.display()))?;
        self.running.insert(node, child);
        Ok(())
    }

    /// Ends a node as a power cut would: SIGKILL. Returns once it is gone.
    pub(crate) async fn kill(&mut self, node: u64) -> anyhow::Result<()> {
        if let Some(mut child) = self.running.remove(&node) {
            child.kill().await?;
        }
        Ok(())
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    /// For what they use.
    pub(crate) fn processes(&self) -> Processes {
        Processes::of(self.running.values().filter_map(Child::id))
    }

    /// Where clients reach a node: a URL.
    pub(crate) fn endpoint(&self, node: u64) -> String {
        format!("http://{HOST}:{}", self.port(node, 0))
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
        let child = self.running.get(&node).context("the node does not run")?;
        let id = child.id().context("the node has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmRSS")?.parse::<u64>()? * 1_024)
    }

    /// The value of a metric of a node, summed over its labels; 0 if it was never set.
    pub(crate) async fn metric(&self, node: u64, name: &str) -> anyhow::Result<f64> {
        let text = http_get(HOST, self.port(node, 2), "/metrics").await?;
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
                let child = self.running.get_mut(&node).context("a node went away")?;
                if let Some(status) = child.try_wait()? {
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
        let groups = topology.meta.iter().chain(&topology.shards);
        groups
            .map(|group| group.leader_node_id)
            .all(|leader| self.running.contains_key(&leader))
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
        let began = Instant::now();
        loop {
            let instead = match self.unsettled(client, voters).await {
                Ok(None) => return Ok(()),
                Ok(Some(group)) => format!("{group:?}"),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                began.elapsed() < SETTLED_WITHIN,
                "not settled after {SETTLED_WITHIN:?}: {instead}"
            );
            sleep(LOOK_EVERY * 5).await;
        }
    }

    async fn unsettled(
        &self,
        client: &Client,
        voters: usize,
    ) -> anyhow::Result<Option<ShardStatus>> {
        let nodes = client.list_nodes(ListNodesRequest::default()).await?.nodes;
        let replicas = || nodes.iter().map(|node| node.replicas);
        let (most, fewest) = (replicas().max().unwrap_or(0), replicas().min().unwrap_or(0));
        ensure!(
            most <= fewest + 1,
            "between {fewest} and {most} replicas are on a node"
        );
        let answer = client.list_shards(ListShardsRequest::default()).await?;
        let groups = answer.meta.into_iter().chain(answer.shards);
        let is_settled = |group: &ShardStatus| {
            let voting = || group.replicas.iter().filter(|r| r.role() == Role::Voter);
            let is_sound = voting().all(|replica| {
                replica.active
                    && replica.lag <= LAG_MAX
                    && self.running.contains_key(&replica.node_id)
            });
            group.r#move.is_none()
                && group.waiting.is_empty()
                && group.leader_node_id != 0
                && voting().count() == voters
                && is_sound
        };
        Ok(groups.into_iter().find(|group| !is_settled(group)))
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
        let began = Instant::now();
        while !self.is_empty(client, leaves).await? {
            ensure!(
                began.elapsed() < SETTLED_WITHIN,
                "node {leaves} is not empty after {SETTLED_WITHIN:?}"
            );
            sleep(LOOK_EVERY * 5).await;
        }
        let remove = RemoveNodeRequest {
            node_id: leaves,
            ..Default::default()
        };
        client.remove_node(remove).await?;
        self.kill(leaves).await
    }

    /// Waits until so many nodes are members and up.
    pub(crate) async fn wait_for_members(&self, client: &Client, count: u64) -> anyhow::Result<()> {
        for node in 1..=count {
            self.wait_for_node(client, node).await?;
        }
        Ok(())
    }

    async fn wait_for_node(&self, client: &Client, node: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let nodes = client.list_nodes(ListNodesRequest::default()).await?.nodes;
            let active = node_status::State::Active;
            let mut joined = nodes.iter().filter(|status| status.state() == active);
            if joined.any(|status| status.node_id == node && status.up) {
                return Ok(());
            }
            ensure!(began.elapsed() < LED_WITHIN, "node {node} does not join");
            sleep(LOOK_EVERY * 5).await;
        }
    }

    async fn is_empty(&self, client: &Client, node: u64) -> anyhow::Result<bool> {
        let nodes = client.list_nodes(ListNodesRequest::default()).await?.nodes;
        let status = nodes.iter().find(|status| status.node_id == node);
        Ok(status.is_some_and(|status| status.replicas == 0 && status.leads == 0))
    }

    fn port(&self, node: u64, which: usize) -> u16 {
        self.ports[(node - 1) as usize * PORTS_PER_NODE + which]
    }
}

/// The body of an answer, as an exporter of metrics gives it: short, and then the connection is
/// closed.
async fn http_get(host: &str, port: u16, path: &str) -> anyhow::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect((host, port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
