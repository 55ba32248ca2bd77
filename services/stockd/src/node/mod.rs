//! One node: puts the parts together, runs them, and stops them in order.

mod error;
mod parts;
mod standing;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use stock_node::standing::ClusterState;
use tokio_util::sync::CancellationToken;

pub use self::error::NodeError;
use self::parts::Parts;
use self::standing::Standing;
use self::stores::Stores;
use crate::api::{self, announce};
use crate::config::{Config, Hosting};
use crate::host::sizes::Sizes;
use crate::host::{self, Driver, HostError};
use crate::listeners::liveness::Liveness;
use crate::listeners::pages::Pages;
use crate::listeners::{self, Listener};
use crate::membership::join;
use crate::telemetry;

/// How often health is brought in line with what the loop knows.
const HEALTH_EVERY: Duration = Duration::from_millis(50);

/// A node that stops waits this long for others to take its leadership over...
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
/// ...and this long for the calls under way to be answered.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Runs a node until `stop`, then hands leadership over, finishes the calls under way and returns.
pub async fn run(config: Config, sizes: Sizes, stop: CancellationToken) -> Result<(), NodeError> {
    let mut config = config;
    let places = listeners::raise();
    let grpc = listen("clients", &config.listen.grpc, places.clients).await?;
    let peer_listener = listen("peers", &config.listen.peers, places.peers).await?;
    let page_listener = listen("metrics", &config.listen.metrics, places.pages).await?;
    let liveness = Arc::new(Liveness::default());
    let pages = Arc::new(Pages {
        metrics: telemetry::collect_metrics()?,
        liveness: Arc::clone(&liveness),
    });
    tokio::spawn(pages.serve(page_listener));

    let mut stores = Stores::open(&config, &sizes)?;
    let standing = tokio::select! {
        standing = standing::stand(&mut config, &mut stores, &peer_listener) => standing?,
        () = stop.cancelled() => return Ok(()),
    };
    let config = Arc::new(config);
    let parts = Parts::put_together(&config, &sizes, stores, &standing, &liveness)?;
    let Standing {
        introductions,
        cluster,
    } = standing;
    let inbox = parts.inbox;
    let stop_loop = CancellationToken::new();
    let mut running = start_loop(config.hosting, parts.driver, &stop_loop);

    tokio::spawn(Arc::clone(&parts.peers).listen(peer_listener));
    tokio::spawn(parts.peers.give_up_unanswered());
    tokio::spawn(announce::keep_announced(
        Arc::clone(&parts.edge),
        introductions.identity.clone(),
    ));
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(
        health.clone(),
        Arc::clone(&cluster),
        Arc::clone(&liveness),
        stop.clone(),
    ));
    let stop_grpc = CancellationToken::new();
    let serving = api::serve(
        grpc,
        Arc::clone(&config),
        parts.edge,
        health_service,
        parts.from_peers,
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
        () = &mut serving => {}
        ended = &mut running => return joined(ended),
        removed = join::removed(&config, &parts.others, &cluster) => return Err(removed.into()),
        told = standing::refused(&introductions) => return Err(told.into()),
        () = stop.cancelled() => {}
    }
    tracing::info!("stopping: handing leadership over");
    host::hand_over(&inbox);
    tokio::select! {
        () = led_by_others(&cluster, config.node_id) => {}
        () = tokio::time::sleep(HAND_OVER_WITHIN) => {}
        () = &mut serving => {}
        ended = &mut running => return joined(ended),
    }
    stop_grpc.cancel();
    tokio::select! {
        () = &mut serving => {}
        () = tokio::time::sleep(FINISH_WITHIN) => {
            tracing::warn!("some clients keep their connections open; leaving all the same");
        }
        ended = &mut running => return joined(ended),
    }
    stop_loop.cancel();
    inbox.wake();
    let ended = running.await;
    let history_kept = tokio::time::timeout(FINISH_WITHIN, parts.history_over.cancelled());
    if history_kept.await.is_err() {
        tracing::warn!("history is not written yet; the next start finds the rest in the log");
    }
    tracing::info!("stopped");
    joined(ended)
}

type Running = tokio::task::JoinHandle<Result<(), HostError>>;

fn start_loop(hosting: Hosting, driver: Driver, stop: &CancellationToken) -> Running {
    let stop = stop.clone();
    match hosting {
        Hosting::Runtime => tokio::spawn(host::in_runtime(driver, stop)),
        Hosting::Thread => tokio::task::spawn_blocking(move || host::on_thread(driver, &stop)),
    }
}

/// The loop ends in one of two ways: told to, or unable to go on. A panic in it is the second.
fn joined(ended: Result<Result<(), HostError>, tokio::task::JoinError>) -> Result<(), NodeError> {
    match ended {
        Ok(ended) => Ok(ended?),
        Err(panic) => {
            tracing::error!(%panic, "the loop panicked");
            std::process::abort();
        }
    }
}

async fn listen(what: &'static str, address: &str, places: usize) -> Result<Listener, NodeError> {
    Listener::bind(what, address, places)
        .await
        .map_err(|source| NodeError::Listen {
            what,
            address: address.to_owned(),
            source,
        })
}

/// Ready means: since the node started all its replicas have caught up, and it does not stop.
async fn report_health(
    health: tonic_health::server::HealthReporter,
    cluster: Arc<ClusterState>,
    liveness: Arc<Liveness>,
    stop: CancellationToken,
) {
    use tonic_health::ServingStatus;
    let mut reported = None;
    loop {
        let status = match cluster.has_come_back() && !stop.is_cancelled() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        if reported != Some(status) {
            reported = Some(status);
            health.set_service_status("", status).await;
            liveness.set_ready(status == ServingStatus::Serving);
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
