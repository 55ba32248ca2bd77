//! Three real `stockd serve` processes that a test can kill, pause and start again, each by itself,
//! and more that join them.

mod config;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use stock_client::{Client, ClientBuilder};
use stock_proto::stock::v1::topology_service_client::TopologyServiceClient;
use stock_proto::stock::v1::{GetTopologyRequest, GetTopologyResponse};
use stock_supervisor::{Place, Process, Serve, health, page};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};

use crate::forgetful_disk::ForgetfulDisk;
use crate::network::Network;
use crate::programs;
use crate::wait::until;

/// Ids of the nodes that found a cluster. Those that may join it count on from here.
pub const NODES: [u64; 3] = [1, 2, 3];

/// The nodes but one.
pub fn others(node: u64) -> [u64; 2] {
    match NODES.iter().position(|other| *other == node) {
        Some(0) => [NODES[1], NODES[2]],
        Some(1) => [NODES[0], NODES[2]],
        Some(2) => [NODES[0], NODES[1]],
        _ => panic!("there is no node {node}"),
    }
}

/// From the first process to the last leader. A second is usual; builds and other tests may run
/// beside.
pub const START_WITHIN: Duration = Duration::from_secs(30);

/// From any change of who runs until every group is led again, as all who run see it.
pub const LED_WITHIN: Duration = Duration::from_secs(30);

/// From the moment that every node runs until each leads its share: a leader hands over after 3 s.
pub const SPREAD_WITHIN: Duration = Duration::from_secs(30);

/// A node that is asked to stop hands over and finishes its calls, for 7 s at most.
pub const STOP_WITHIN: Duration = Duration::from_secs(15);

/// One node's answer to a question it answers from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A port that was free may be taken a moment later.
const START_ATTEMPTS_MAX: u32 = 5;

/// Lines of each node's log that a failing test shows.
const LOG_LINES_SHOWN: usize = 60;

/// What kind of cluster a test needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stock shards; there is one group more, the catalog's.
    pub shards: u32,
    /// What the nodes log, as in `RUST_LOG`.
    pub log: String,
    /// What becomes of writes that were not synced.
    pub disks: Disks,
    /// Where the nodes meet.
    pub links: Links,
    /// Nodes beside the founders, with ids from 4. None runs until it is started, and then it
    /// joins.
    pub spares: u64,
    /// After how many seconds a node that is away is replaced; none: as `stockd` has it.
    pub replace_after_seconds: Option<u64>,
    /// After how many bytes of log a state is written down; none: as `stockd` has it.
    pub checkpoint_after_bytes: Option<u64>,
    /// Bytes of one file of the log; none: as `stockd` has it.
    pub log_file_bytes: Option<u64>,
    /// Bytes of memory that a node may use; none: as its control group has it.
    pub memory_bytes: Option<u64>,
    /// Whether nodes answer echoes.
    pub serve_lab: bool,
    /// File descriptors that each node may have open, as `ulimit` is told; none: as this process.
    pub descriptors: Option<&'static str>,
}

/// Where nodes keep their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// On the disk of this machine.
    Real,
    /// Each on a [`ForgetfulDisk`] of its own, made from this seed.
    Forgetful {
        /// Decides what a failed sync loses.
        seed: u64,
    },
}

/// How nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Over the loopback interface.
    Loopback,
    /// Over a [`Network`] that can be broken.
    Breakable,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 8,
            log: "info".to_owned(),
            disks: Disks::Real,
            links: Links::Loopback,
            spares: 0,
            replace_after_seconds: None,
            checkpoint_after_bytes: None,
            log_file_bytes: None,
            memory_bytes: None,
            serve_lab: false,
            descriptors: None,
        }
    }
}

/// Three nodes, and those that join them. They end, and their data goes, when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    nodes: Vec<Node>,
    // Before the directory that the disks are mounted in.
    disks: Vec<ForgetfulDisk>,
    network: Option<Network>,
    dir: TempDir,
}

#[derive(Debug)]
struct Node {
    place: Place,
    /// The build that it is started with; none: this one.
    build: Mutex<Option<PathBuf>>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    is_paused: bool,
}

impl Cluster {
    /// Starts three nodes and waits until each of them sees a leader for every group.
    pub async fn start(options: Options) -> Self {
        let mut why = String::new();
        for _ in 0..START_ATTEMPTS_MAX {
            let cluster = Self::prepared(options.clone());
            NODES.into_iter().for_each(|node| cluster.restart(node));
            match cluster.started().await {
                Ok(()) => return cluster,
                Err(taken) => why = taken,
            }
        }
        panic!("no cluster after {START_ATTEMPTS_MAX} attempts: {why}");
    }

    /// The cluster of all tests that kill and pause nothing: it serves whatever a node can. It ends
    /// with the process.
    pub async fn shared() -> Shared {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        let all = Options {
            serve_lab: true,
            ..Options::default()
        };
        Shared(SHARED.get_or_init(|| Self::start(all)).await)
    }

    /// A cluster of which nothing runs yet: whoever asks for it starts its nodes.
    pub fn prepared(options: Options) -> Self {
        let count = NODES.len() + options.spares as usize;
        let is_breakable = options.links == Links::Breakable;
        assert!(
            options.spares == 0 || !is_breakable,
            "spares on loopback only"
        );
        let network = is_breakable.then(Network::build);
        let free = programs::free_ports(3 * count);
        let ids = NODES.into_iter().chain(4..).take(count);
        let host = |node| match &network {
            Some(network) => network.address(node),
            None => "127.0.0.1".to_owned(),
        };
        let node = |(node, ports): (u64, &[u16])| Node {
            place: Place {
                node,
                host: host(node),
                grpc: ports[0],
                peers: ports[1],
                metrics: ports[2],
            },
            build: Mutex::new(None),
            running: Mutex::new(None),
        };
        let nodes = ids.zip(free.chunks(3)).map(node).collect();
        let dir = programs::data_dir();
        let disks = match options.disks {
            Disks::Real => Vec::new(),
            Disks::Forgetful { seed } => disks(dir.path(), seed),
        };
        let cluster = Self {
            options,
            nodes,
            disks,
            network,
            dir,
        };
        for node in &cluster.nodes {
            let path = cluster.config_path(node.id());
            std::fs::write(&path, cluster.config(node))
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        cluster
    }

    /// `Err` if a node ended because a port of its was taken.
    async fn started(&self) -> Result<(), String> {
        until("the start of a cluster", START_WITHIN, async || {
            for node in &self.nodes {
                if let Some(status) = node.ended() {
                    let log = self.log_tail(node.id(), LOG_LINES_SHOWN);
                    let is_port = log.contains("cannot listen") || log.contains("in use");
                    assert!(is_port, "node {} ended ({status}):\n{log}", node.id());
                    return Ok(Err(log));
                }
            }
            self.check_led().await.map(Ok)
        })
        .await
    }

    /// How many stock shards there are.
    pub fn shards(&self) -> u32 {
        self.options.shards
    }

    /// A node's configuration file.
    pub fn config_path(&self, node: u64) -> PathBuf {
        self.dir.path().join(format!("node-{node}.toml"))
    }

    /// Where a node keeps its data.
    pub fn data_dir(&self, node: u64) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    /// The checkpoints of a group that a node has, whole and by their names, oldest first.
    pub fn checkpoints(&self, node: u64, group: u32) -> Vec<String> {
        let files = std::fs::read_dir(self.data_dir(node).join("checkpoints"));
        let files = files.into_iter().flatten().flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let prefix = format!("g{group}-");
        let mut names: Vec<String> = names
            .filter(|name| name.starts_with(&prefix) && name.ends_with(".checkpoint"))
            .collect();
        names.sort();
        names
    }

    /// Whether a node has a checkpoint under way.
    pub fn writes_checkpoint(&self, node: u64) -> bool {
        let files = std::fs::read_dir(self.data_dir(node).join("checkpoints"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| file.file_name().to_string_lossy().ends_with(".partial"))
    }

    /// A directory for whatever else a test writes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log_path(&self, node: u64) -> PathBuf {
        self.dir.path().join(format!("node-{node}.log"))
    }

    /// What a node has logged so far, over all its lives.
    pub fn log(&self, node: u64) -> String {
        std::fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    fn log_tail(&self, node: u64, lines: usize) -> String {
        let log = self.log(node);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Processes.
impl Cluster {
    /// Starts a node that does not run.
    pub fn restart(&self, node: u64) {
        self.restart_with(node, &[]);
    }

    /// As [`Cluster::restart`], with more on the command line, which goes before the configuration.
    pub fn restart_with(&self, node: u64, arguments: &[&str]) {
        let build = self.node(node).build.lock().unwrap().clone();
        let stockd = build.unwrap_or_else(programs::stockd);
        let program = match &self.network {
            Some(network) => network.command(node, &stockd),
            None => self.command(&stockd),
        };
        let mut all = self.sizes();
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let serve = Serve {
            config: &self.config_path(node),
            log: &self.log_path(node),
            log_filter: &self.options.log,
            arguments: &all,
            variables: &[],
        };
        let mut running = self.node(node).running();
        assert!(running.is_none(), "node {node} runs already");
        let process = serve.start(program);
        let process = process.unwrap_or_else(|e| panic!("node {node}: {e}"));
        *running = Some(Running {
            process,
            is_paused: false,
        });
    }

    /// Sizes that are no keys of the configuration.
    fn sizes(&self) -> Vec<String> {
        let option =
            |name: &str, bytes: Option<u64>| bytes.map(|bytes| format!("--{name}={bytes}"));
        let options = &self.options;
        [
            option("checkpoint-after-bytes", options.checkpoint_after_bytes),
            option("log-file-bytes", options.log_file_bytes),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn command(&self, stockd: &Path) -> Command {
        let Some(descriptors) = self.options.descriptors else {
            return Command::new(stockd);
        };
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit {descriptors} && exec \"$0\" \"$@\""))
            .arg(stockd);
        command
    }

    /// From now on a node is started with this build; with none, with the usual one.
    pub fn set_build(&self, node: u64, build: Option<&Path>) {
        *self.node(node).build.lock().unwrap() = build.map(Path::to_owned);
    }

    /// Ends a node as a power cut would: SIGKILL.
    pub fn kill(&self, node: u64) {
        // It is gone once it is dropped.
        drop(self.node(node).running().take());
    }

    /// Ends all nodes at the same moment.
    pub fn kill_all(&self) {
        let taken = self.nodes.iter().map(|node| node.running().take());
        let mut taken: Vec<Option<Running>> = taken.collect();
        for running in taken.iter_mut().flatten() {
            running.process.begin_kill();
        }
    }

    /// Stops a node in its tracks: SIGSTOP. Its connections stay.
    pub fn pause(&self, node: u64) {
        self.signal(node, Signal::STOP);
        self.set_paused(node, true);
    }

    /// Lets a paused node go on: SIGCONT.
    pub fn resume(&self, node: u64) {
        self.signal(node, Signal::CONT);
        self.set_paused(node, false);
    }

    /// Asks a node to stop in order: SIGTERM.
    pub fn terminate(&self, node: u64) {
        self.signal(node, Signal::TERM);
    }

    /// How a node that was asked to stop ended; none while it runs.
    pub fn ended(&self, node: u64) -> Option<ExitStatus> {
        self.node(node).ended()
    }

    /// Forgets a node's process that has ended by itself, so that it can be restarted.
    pub fn reap(&self, node: u64) {
        assert!(self.ended(node).is_some(), "node {node} runs");
        self.kill(node);
    }

    /// A running node's process id.
    pub fn process_id(&self, node: u64) -> u32 {
        let running = self.node(node).running();
        let running = running.as_ref();
        let running = running.unwrap_or_else(|| panic!("node {node} does not run"));
        running.process.id()
    }

    fn signal(&self, node: u64, signal: Signal) {
        let mut running = self.node(node).running();
        let running = running.as_mut();
        let running = running.unwrap_or_else(|| panic!("node {node} does not run"));
        let sent = running.process.signal(signal);
        sent.unwrap_or_else(|e| panic!("node {node}: {e}"));
    }

    /// Empties the data directory of a node that does not run.
    pub fn empty(&self, node: u64) {
        assert!(self.node(node).running().is_none(), "node {node} runs");
        let dir = self.data_dir(node);
        std::fs::remove_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    }

    fn set_paused(&self, node: u64, is_paused: bool) {
        if let Some(running) = self.node(node).running().as_mut() {
            running.is_paused = is_paused;
        }
    }

    fn node(&self, id: u64) -> &Node {
        &self.nodes[(id - 1) as usize]
    }

    /// Nodes that run and are not paused.
    pub fn running(&self) -> Vec<u64> {
        let runs = |node: &&Node| {
            let running = node.running();
            running.as_ref().is_some_and(|running| !running.is_paused)
        };
        self.nodes.iter().filter(runs).map(Node::id).collect()
    }
}

/// What it stands on.
impl Cluster {
    /// A node's disk. Panics unless the cluster was given such disks.
    pub fn disk(&self, node: u64) -> &ForgetfulDisk {
        let disk = self.disks.get((node - 1) as usize);
        disk.unwrap_or_else(|| panic!("node {node} has an ordinary disk"))
    }

    /// The network. Panics unless the cluster was given one that can be broken.
    pub fn network(&self) -> &Network {
        let network = self.network.as_ref();
        network.unwrap_or_else(|| panic!("the nodes meet on the loopback interface"))
    }

    /// Cuts the power of these nodes at the same moment: their processes die, and their disks
    /// forget what the seed does not spare.
    pub fn cut_power(&self, nodes: &[u64], seed: u64) {
        for node in nodes {
            self.disk(*node).cut_power(seed.wrapping_add(*node));
        }
        for node in nodes {
            self.kill(*node);
        }
    }

    /// Gives these nodes power again and starts them.
    pub fn restore_power(&self, nodes: &[u64]) {
        for node in nodes {
            self.disk(*node).restore();
            self.restart(*node);
        }
    }
}

/// Talking to it.
impl Cluster {
    /// The cluster's name.
    pub fn cluster_id(&self) -> String {
        format!("test-{}", self.nodes[0].place.grpc)
    }

    /// Where the other nodes reach a node: `host:port`.
    pub fn peers_address(&self, node: u64) -> String {
        self.node(node).place.peers_address()
    }

    /// Where clients reach a node: a URL.
    pub fn endpoint(&self, node: u64) -> String {
        self.node(node).place.endpoint()
    }

    /// Where clients reach a node: `host:port`.
    pub fn address(&self, node: u64) -> String {
        let place = &self.node(node).place;
        format!("{}:{}", place.host, place.grpc)
    }

    /// What a node has counted so far, as it tells whoever collects metrics: the sum of all
    /// counters of this name that have all of these labels, `label="value"`.
    pub async fn counted(&self, node: u64, name: &str, labels: &[&str]) -> u64 {
        let text = self.page(node, "/metrics").await;
        let counters = text.lines().filter_map(|line| line.rsplit_once(' '));
        counters
            .filter(|(counter, _)| {
                counter.split('{').next() == Some(name)
                    && labels.iter().all(|label| counter.contains(label))
            })
            .map(|(counter, count)| count.parse::<u64>().expect(counter))
            .sum()
    }

    /// Where a node shows its metrics: `host:port`.
    pub fn metrics_address(&self, node: u64) -> String {
        self.node(node).place.metrics_address()
    }

    /// A page of those that a node shows beside its metrics, with its head.
    pub async fn page(&self, node: u64, path: &str) -> String {
        let address = self.metrics_address(node);
        let page = page::get(&address, path).await;
        page.unwrap_or_else(|e| panic!("{address}{path}: {e}"))
    }

    /// A connection to one node, without retries or routing. It belongs to the runtime it is made
    /// in.
    pub fn channel(&self, node: u64) -> Channel {
        Endpoint::from_shared(self.endpoint(node))
            .unwrap_or_else(|e| panic!("node {node}: {e}"))
            .tcp_nodelay(true)
            .connect_lazy()
    }

    /// A client that knows every node that runs. It belongs to the runtime it is made in.
    pub async fn client(&self) -> Client {
        let connected = self.client_builder().connect().await;
        connected.unwrap_or_else(|e| panic!("no client: {e}"))
    }

    /// A client that knows every node that runs, to be opened with other limits than the usual
    /// ones.
    pub fn client_builder(&self) -> ClientBuilder {
        let add = |builder: ClientBuilder, node| builder.endpoint(self.endpoint(node));
        self.running().into_iter().fold(Client::builder(), add)
    }

    /// The cluster as a node sees it.
    pub async fn topology(&self, node: u64) -> Result<GetTopologyResponse, String> {
        let mut stub = TopologyServiceClient::new(self.channel(node));
        let answer = stub.get_topology(GetTopologyRequest {});
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(format!("node {node}: {status}")),
            Err(_) => Err(format!("node {node} is silent")),
        }
    }

    /// The node that leads a shard, once all running nodes agree on it.
    pub async fn leader_of(&self, shard: u32) -> u64 {
        until("a leader for one shard", LED_WITHIN, async || {
            let groups = self.agreed_leaders().await?;
            Ok(groups[shard as usize + 1])
        })
        .await
    }

    /// Waits until every running node sees the same running leader for every group.
    pub async fn wait_until_led(&self) {
        until("a leader for every group", LED_WITHIN, || self.check_led()).await;
    }

    /// Waits until each node leads its share of the groups, give or take one.
    pub async fn wait_until_spread(&self) {
        until("leaders spread over the nodes", SPREAD_WITHIN, async || {
            let leaders = self.agreed_leaders().await?;
            let share = leaders.len() / NODES.len();
            let is_spread = NODES.iter().all(|node| {
                let led = leaders.iter().filter(|leader| *leader == node).count();
                led.abs_diff(share) <= 1
            });
            is_spread
                .then_some(())
                .ok_or(format!("leaders {leaders:?}"))
        })
        .await;
    }

    async fn check_led(&self) -> Result<(), String> {
        self.agreed_leaders().await.map(|_| ())
    }

    /// The leader of each group, the catalog's first.
    pub async fn agreed_leaders(&self) -> Result<Vec<u64>, String> {
        let running = self.running();
        let mut agreed: Option<Vec<u64>> = None;
        for node in &running {
            if let Some(status) = self.ended(*node) {
                let log = self.log_tail(*node, LOG_LINES_SHOWN);
                return Err(format!("node {node} ended ({status}):\n{log}"));
            }
            let topology = self.topology(*node).await?;
            let leaders = health::leaders(&topology, &running)?;
            if agreed.as_ref().is_some_and(|agreed| *agreed != leaders) {
                return Err(format!("{agreed:?} or, as node {node} says, {leaders:?}"));
            }
            agreed = Some(leaders);
        }
        agreed.ok_or_else(|| "no node runs".to_owned())
    }

    /// Shows what the nodes logged, if the test that holds this is failing.
    fn show_logs_of_failure(&self) {
        if !std::thread::panicking() {
            return;
        }
        for node in &self.nodes {
            let log = self.log_tail(node.id(), LOG_LINES_SHOWN);
            eprintln!("--- node {}, last lines of its log\n{log}", node.id());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.show_logs_of_failure();
        self.kill_all();
    }
}

impl Node {
    fn id(&self) -> u64 {
        self.place.node
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> Option<ExitStatus> {
        let mut running = self.running();
        running.as_mut()?.process.ended().ok().flatten()
    }
}

/// One for each node, mounted where it keeps its data.
fn disks(dir: &Path, seed: u64) -> Vec<ForgetfulDisk> {
    let mount = |node: u64| {
        let path = dir.join(format!("node-{node}"));
        let mounted = ForgetfulDisk::mount(&path, seed.wrapping_add(node));
        mounted.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    NODES.into_iter().map(mount).collect()
}

/// The shared cluster, as one test sees it.
#[derive(Debug)]
pub struct Shared(&'static Cluster);

impl std::ops::Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.show_logs_of_failure();
    }
}
