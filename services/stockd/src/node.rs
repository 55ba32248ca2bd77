//! One node: puts the parts together, runs them, and stops them in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stock_core::Principal;
use stock_storage::{Durability, LogError, WriteBatch};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Edge};
use crate::clocks;
use crate::cluster_state::ClusterState;
use crate::config::{Config, Hosting};
use crate::disk::Disk;
use crate::host::{self, Driver};
use crate::inbox::{Inbox, Waker};
use crate::peers::{Identity, Peers};
use crate::reply::ReplyTo;
use crate::telemetry;
use crate::view::ReadView;
use crate::worker::{Worker, WorkerError, WorkerParts};

/// How often health is brought in line with what the loop knows.
const HEALTH_EVERY: Duration = Duration::from_millis(50);

/// A node that stops waits this long for others to take its leadership over...
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
/// ...and this long for the calls under way to be answered.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Who callers are, until callers say who they are.
const ANONYMOUS: &str = "anonymous";

/// A node cannot run, or cannot go on.
#[derive(Debug, Error)]
pub enum NodeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen {
        /// For whom.
        what: &'static str,
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] LogError),
    /// The data directory belongs to another node or cluster.
    #[error(
        "the data in {dir} is of {found}, but the configuration says {configured}: \
         point data_dir to this node's own directory"
    )]
    Identity {
        /// The data directory.
        dir: String,
        /// Whose data it is.
        found: String,
        /// Who this node is.
        configured: String,
    },
    /// The loop stopped.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// gRPC stopped.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// Metrics cannot be served.
    #[error("cannot serve metrics on {address}: {why}")]
    Metrics {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
}

/// What a data directory remembers of its node.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NodeRecord {
    cluster_id: String,
    node_id: u64,
    shards: u32,
}

/// Runs a node until `stop`, then hands leadership over, finishes the calls under way and returns.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), NodeError> {
    let config = Arc::new(config);
    let grpc = listen("clients", &config.listen.grpc).await?;
    let peer_listener = listen("peers", &config.listen.peers).await?;
    telemetry::serve_metrics(&config.listen.metrics)
        .await
        .map_err(|why| NodeError::Metrics {
            address: config.listen.metrics.clone(),
            why,
        })?;

    let disk = Disk::open(&config.data_dir)?;
    check_identity(&disk, &config)?;
    let groups = config.shards + 1;
    // In one order on every node, whatever the order of its file: it decides who leads what.
    let mut nodes: Vec<u64> = config.nodes.iter().map(|node| node.id).collect();
    nodes.sort_unstable();
    let view = Arc::new(ReadView::new(config.shards));
    let cluster = Arc::new(ClusterState::new(
        groups,
        nodes.iter().copied().filter(|node| *node != config.node_id),
    ));
    let parts = WorkerParts {
        node: config.node_id,
        nodes: nodes.clone(),
        groups,
        boot: rand::random(),
        disk,
        view: Arc::clone(&view),
        cluster: Arc::clone(&cluster),
    };
    let worker: Worker<ReplyTo> = Worker::open(parts, clocks::now())?;

    let waker = match config.hosting {
        Hosting::Runtime => Waker::Task(Notify::new()),
        Hosting::Thread => Waker::Thread(std::sync::OnceLock::new()),
    };
    let inbox = Arc::new(Inbox::new(groups, waker));
    let identity = Identity {
        cluster_id: config.cluster_id.clone(),
        node: config.node_id,
        shards: config.shards,
    };
    let peers = Arc::new(Peers::new(
        identity,
        nodes,
        Arc::clone(&inbox),
        Arc::clone(&cluster),
    ));
    let driver = Driver::new(worker, Arc::clone(&inbox), Arc::clone(&peers));
    let stop_loop = CancellationToken::new();
    let mut running = start_loop(config.hosting, driver, &stop_loop);

    tokio::spawn(Arc::clone(&peers).listen(peer_listener));
    for node in config.nodes.iter().filter(|node| node.id < config.node_id) {
        tokio::spawn(Arc::clone(&peers).dial(node.id, node.peers.clone()));
    }

    let principal = Principal::new(ANONYMOUS).unwrap_or_else(|_| unreachable!("a good name"));
    let edge = Arc::new(Edge::new(
        config.node_id,
        Arc::clone(&inbox),
        peers,
        Arc::clone(&cluster),
        view,
        principal,
    ));
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(
        health.clone(),
        Arc::clone(&cluster),
        stop.clone(),
    ));
    let stop_grpc = CancellationToken::new();
    let serving = api::serve(
        grpc,
        Arc::clone(&config),
        edge,
        health_service,
        stop_grpc.clone(),
    );
    tokio::pin!(serving);
    tracing::info!(
        node = config.node_id,
        cluster = config.cluster_id,
        grpc = config.listen.grpc,
        data_dir = %config.data_dir.display(),
        "serving"
    );

    tokio::select! {
        served = &mut serving => served?,
        ended = &mut running => return joined(ended),
        () = stop.cancelled() => {}
    }
    tracing::info!("stopping: handing leadership over");
    host::hand_over(&inbox);
    tokio::select! {
        () = led_by_others(&cluster, config.node_id) => {}
        () = tokio::time::sleep(HAND_OVER_WITHIN) => {}
        served = &mut serving => served?,
        ended = &mut running => return joined(ended),
    }
    stop_grpc.cancel();
    tokio::select! {
        served = &mut serving => served?,
        () = tokio::time::sleep(FINISH_WITHIN) => {
            tracing::warn!("some clients keep their connections open; leaving all the same");
        }
        ended = &mut running => return joined(ended),
    }
    stop_loop.cancel();
    inbox.wake();
    let ended = running.await;
    tracing::info!("stopped");
    joined(ended)
}

type Running = tokio::task::JoinHandle<Result<(), WorkerError>>;

fn start_loop(hosting: Hosting, driver: Driver, stop: &CancellationToken) -> Running {
    let stop = stop.clone();
    match hosting {
        Hosting::Runtime => tokio::spawn(host::in_runtime(driver, stop)),
        Hosting::Thread => tokio::task::spawn_blocking(move || host::on_thread(driver, &stop)),
    }
}

/// The loop ends in one of two ways: told to, or unable to go on. A panic in it is the second.
fn joined(ended: Result<Result<(), WorkerError>, tokio::task::JoinError>) -> Result<(), NodeError> {
    match ended {
        Ok(ended) => Ok(ended?),
        Err(panic) => {
            tracing::error!(%panic, "the loop panicked");
            std::process::abort();
        }
    }
}

async fn listen(what: &'static str, address: &str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| NodeError::Listen {
            what,
            address: address.to_owned(),
            source,
        })
}

/// A directory belongs to the node that first used it: another one must not vote with its votes.
fn check_identity(disk: &Disk, config: &Config) -> Result<(), NodeError> {
    let configured = NodeRecord {
        cluster_id: config.cluster_id.clone(),
        node_id: config.node_id,
        shards: config.shards,
    };
    let bytes = toml::to_string(&configured)
        .unwrap_or_default()
        .into_bytes();
    match disk.node_record() {
        None => {
            let mut batch = WriteBatch::new();
            batch.put_node_record(&bytes);
            Ok(disk.write(&mut batch, Durability::Sync)?)
        }
        Some(found) if found == bytes => Ok(()),
        Some(found) => Err(NodeError::Identity {
            dir: config.data_dir.display().to_string(),
            found: one_line(&found),
            configured: one_line(&bytes),
        }),
    }
}

fn one_line(record: &[u8]) -> String {
    String::from_utf8_lossy(record).trim().replace('\n', ", ")
}

/// Healthy means: every group has a leader, so whatever a client asks can be answered.
async fn report_health(
    health: tonic_health::server::HealthReporter,
    cluster: Arc<ClusterState>,
    stop: CancellationToken,
) {
    use tonic_health::ServingStatus;
    let mut reported = None;
    loop {
        let status = match cluster.is_ready() && !stop.is_cancelled() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        if reported != Some(status) {
            reported = Some(status);
            health.set_service_status("", status).await;
            metrics::gauge!("stockd_ready").set(f64::from(status == ServingStatus::Serving));
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

async fn led_by_others(cluster: &ClusterState, node: u64) {
    while cluster.leads_any(node) {
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}
