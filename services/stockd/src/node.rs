//! One node: puts the parts together, runs them, and stops them in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use stock_cluster::Policy;
use stock_cluster::identity::refusal::{Told, ToldKind};
use stock_core::Principal;
use stock_node::standing::ClusterState;
use stock_node::view::ReadView;
use stock_node::worker::{
    USUAL_AUDIT_EVERY_MS, USUAL_COMMITTED_BYTES, USUAL_ELECTION_TICKS, WorkerParts,
};
use stock_storage::{
    CheckpointError, CheckpointStore, Ledger, LedgerError, LogError, OnDamage, OsVolume, Volume,
};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Edge, Proxy, announce};
use crate::config::{Config, Hosting};
use crate::directory::disk::Disk;
use crate::directory::node_record::{Membership, NodeRecord, NodeRecordError};
use crate::directory::{bring_back, forgotten};
use crate::history::{History, HistoryThread};
use crate::host::chores::{ChoreThread, Chores};
use crate::host::gauge::Gauge;
use crate::host::memory::MemoryGauge;
use crate::host::roster::Roster;
use crate::host::sizes::Sizes;
use crate::host::{self, Driver, Helpers, HostError};
use crate::inbox::{Inbox, Waker};
use crate::listeners::liveness::Liveness;
use crate::listeners::pages::Pages;
use crate::listeners::{self, Listener};
use crate::membership::first_boot::{self, FirstBootError, Verdict};
use crate::membership::join::{self, JoinError};
use crate::peers::history::{HistoryFetcher, HistoryServer};
use crate::peers::introductions::Introductions;
use crate::peers::snapshots::{SnapshotReceiver, SnapshotSender};
use crate::peers::{CALLS_WAITING_MAX, Peers, roll_call};
use crate::{clocks, telemetry};

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
    /// The checkpoints cannot be used.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The data directory belongs to another node or cluster, or its record is damaged.
    #[error(transparent)]
    Record(#[from] NodeRecordError),
    /// The cluster cannot be founded with this directory.
    #[error(transparent)]
    FirstBoot(#[from] FirstBootError),
    /// The cluster does not let this node in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Others do not take it for the node that it says to be, and it must not go on.
    #[error("{told}{}", advice(told.kind))]
    Refused {
        /// What they say.
        #[from]
        told: Told,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// The loop stopped.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Metrics cannot be collected.
    #[error("cannot collect metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

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

    let volume: Arc<dyn Volume> = Arc::new(OsVolume);
    let options = sizes.log_options();
    let disk = Disk::open(&volume, &config.data_dir, &options, OnDamage::Salvage)?;
    let checkpoints = CheckpointStore::open(Arc::clone(&volume), &config.data_dir)?;
    for damaged in checkpoints.damaged() {
        tracing::error!(file = %damaged.path.display(), reason = damaged.reason, "a checkpoint is \
            damaged; an older one, or a peer, takes its place");
    }
    let mut record = NodeRecord::open(&disk, &config)?;
    if forgotten::is_said(&*volume, &config.data_dir)? {
        tracing::error!(
            "what this data directory held is not used: it joins anew, as an empty one does, once \
             the others let it in"
        );
        record.renounce();
        record.write(&disk)?;
        forgotten::settle(&*volume, &config.data_dir)?;
    }
    let is_new = is_new(&config, &record, &checkpoints);
    let standing = tokio::select! {
        standing = stand(&mut config, &disk, &mut record, &peer_listener, is_new) => standing?,
        () = stop.cancelled() => return Ok(()),
    };
    let Standing {
        introductions,
        cluster,
    } = standing;
    let config = Arc::new(config);
    let groups = config.shards + 1;
    let principal = Principal::new(ANONYMOUS).unwrap_or_else(|_| unreachable!("a good name"));
    let history = History::open(&config.data_dir, config.ledger_keep())?;
    let view = Arc::new(ReadView::new(config.shards));
    let parts = WorkerParts {
        node: config.node_id,
        directory: record.directory(),
        since: introductions.identity.since,
        lives: record.lives(),
        founding: record.founding_at(&config.nodes),
        is_founded: record.is_founded,
        generation_floor: record.generation_floor(),
        policy: Policy {
            replace_after_ms: config.replace_after_seconds * 1_000,
            ..Policy::default()
        },
        principal: principal.clone(),
        groups,
        boot: introductions.identity.boot,
        entries: disk.entry_readers(),
        view: Arc::clone(&view),
        cluster: Arc::clone(&cluster),
        checkpoint_pace: sizes.checkpoint_pace(),
        audit_every_ms: USUAL_AUDIT_EVERY_MS,
        election_ticks: USUAL_ELECTION_TICKS,
        committed_bytes_per_turn: USUAL_COMMITTED_BYTES,
    };
    let ledger_indexes = history.durable_indexes(groups);
    let (worker, log) =
        bring_back::open(parts, &disk, &checkpoints, &ledger_indexes, clocks::now())
            .map_err(HostError::from)?;

    let waker = match config.hosting {
        Hosting::Runtime => Waker::Task(Notify::new()),
        Hosting::Thread => Waker::Thread(std::sync::OnceLock::new()),
    };
    let inbox = Arc::new(Inbox::new(groups, waker));
    let incarnation = record.incarnation();
    let receiver = Arc::new(SnapshotReceiver::new(
        checkpoints.clone(),
        incarnation,
        Arc::clone(&inbox),
    ));
    let open_ledger = history.open_ledger();
    let (calls, from_peers) = mpsc::channel(CALLS_WAITING_MAX);
    let configured = config.nodes.iter();
    let configured = configured.map(|node| (node.id, node.peers.clone()));
    let peers = Arc::new(Peers::new(
        Arc::clone(&introductions),
        Arc::clone(&inbox),
        Arc::clone(&cluster),
        receiver,
        Arc::new(HistoryServer::new(open_ledger.clone())),
        calls,
        configured.collect(),
    ));
    let thread = |source| NodeError::Thread { source };
    let others = others(&config, &record);
    let roster = Roster::new(record, disk.clone(), Arc::clone(&cluster));
    peers.set_members(&roster.addresses());
    let (history, history_over) =
        HistoryThread::start(history, Arc::clone(&inbox)).map_err(thread)?;
    HistoryFetcher::start(
        Arc::clone(&introductions),
        open_ledger,
        history.handle(),
        &peers,
    )
    .map_err(thread)?;
    let helpers = Helpers {
        roster,
        gauge: Gauge::new(
            volume,
            config.data_dir.clone(),
            Arc::clone(&cluster),
            checkpoints.clone(),
            MemoryGauge::new(config.memory_bytes),
        ),
        history,
        snapshots: SnapshotSender::new(
            Arc::clone(&introductions),
            checkpoints.clone(),
            Arc::clone(&inbox),
        ),
        chores: ChoreThread::start(
            Chores {
                store: checkpoints,
                purger: disk.purger(),
                incarnation,
                directory: introductions.identity.directory,
            },
            Arc::clone(&inbox),
        )
        .map_err(thread)?,
    };
    let driver = Driver::new(
        worker,
        log,
        Arc::clone(&inbox),
        Arc::clone(&peers),
        helpers,
        Arc::clone(&liveness),
    );
    let stop_loop = CancellationToken::new();
    let mut running = start_loop(config.hosting, driver, &stop_loop);

    tokio::spawn(Arc::clone(&peers).listen(peer_listener));
    tokio::spawn(Arc::clone(&peers).give_up_unanswered());

    let edge = Arc::new(Edge::new(
        config.node_id,
        Arc::clone(&inbox),
        Arc::clone(&peers),
        Arc::clone(&cluster),
        view,
        principal,
        Proxy::new(peers),
    ));
    tokio::spawn(announce::keep_announced(
        Arc::clone(&edge),
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
        edge,
        health_service,
        from_peers,
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
        removed = join::removed(&config, &others, &cluster) => return Err(removed.into()),
        told = refused(&introductions) => return Err(told.into()),
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
    let history_kept = tokio::time::timeout(FINISH_WITHIN, history_over.cancelled());
    if history_kept.await.is_err() {
        tracing::warn!("history is not written yet; the next start finds the rest in the log");
    }
    tracing::info!("stopped");
    joined(ended)
}

/// What an operator can do about it.
fn advice(kind: ToldKind) -> &'static str {
    match kind {
        ToldKind::Forgotten => "; started again, it joins anew, as with an empty directory",
        ToldKind::Over => {
            "; its data are as they were: to come back, start it with an empty directory"
        }
        ToldKind::Twin => "; end one of them: two must not speak for one directory",
        ToldKind::NotNow => "",
    }
}

/// Whether nothing was ever kept in a directory: whoever had something is not one to found a
/// cluster with.
fn is_new(config: &Config, record: &NodeRecord, checkpoints: &CheckpointStore) -> bool {
    let has_states = !checkpoints.groups().is_empty() || !checkpoints.damaged().is_empty();
    !record.must_join_anew() && !has_states && !Ledger::is_in(&config.data_dir)
}

/// Who a node is, once it may take part.
struct Standing {
    introductions: Arc<Introductions>,
    cluster: Arc<ClusterState>,
}

/// Another process that uses the directory, or was heard from lately, is given so long to end.
const TWIN_FOR: Duration = Duration::from_secs(10);
/// Between two roll calls meanwhile.
const TWIN_ASK_EVERY: Duration = Duration::from_millis(500);

/// Becomes a member, if this directory is none yet, and asks everybody who answers at once what
/// they know of it. A directory that has forgotten something becomes another one, and joins anew.
async fn stand(
    config: &mut Config,
    disk: &Disk,
    record: &mut NodeRecord,
    listener: &Listener,
    is_new: bool,
) -> Result<Standing, NodeError> {
    let began = Instant::now();
    loop {
        // What a node was told when it was let in once, it asks for again.
        if record.node_id != 0 {
            config.node_id = record.node_id;
        }
        if record.shards != 0 {
            config.shards = record.shards;
        }
        if record.must_join() {
            become_member(config, disk, record, listener, is_new).await?;
        }
        config.node_id = record.node_id;
        config.shards = record.shards;
        let boot = rand::random();
        let acquaintances = disk.begin_acquaintances(boot)?;
        let cluster = ClusterState::new(config.node_id, config.shards + 1, acquaintances);
        let cluster = Arc::new(cluster);
        let identity = record.identity(config, boot);
        let introductions = Arc::new(Introductions::new(identity, Arc::clone(&cluster)));
        let known = record.nodes.iter().chain(&config.nodes);
        let others = known.filter(|node| node.id != config.node_id);
        let others = others.map(|node| (node.id, node.peers.clone())).collect();
        let Some(told) = roll_call(&introductions, others).await else {
            return Ok(Standing {
                introductions,
                cluster,
            });
        };
        match told.kind {
            ToldKind::Forgotten => {
                tracing::error!(%told, "this data directory has forgotten something: joining \
                    anew, as an empty one does");
                record.renounce();
                record.write(disk)?;
            }
            ToldKind::Twin if began.elapsed() < TWIN_FOR => {
                tracing::warn!(%told, "waiting for it to end");
                tokio::time::sleep(TWIN_ASK_EVERY).await;
            }
            ToldKind::Over | ToldKind::Twin | ToldKind::NotNow => return Err(told.into()),
        }
    }
}

/// Returns what others say of this node, if it must not go on for it. That somebody else is heard
/// in its place may pass: a connection that broke without a word is not missed at once.
async fn refused(introductions: &Introductions) -> Told {
    // Since when it was told without a pause, and when last.
    let mut twin: Option<(Instant, Instant)> = None;
    loop {
        let told = introductions.refused().await;
        let now = Instant::now();
        let before = twin.filter(|(_, last)| now - *last < TWIN_FOR);
        let since = before.map_or(now, |(since, _)| since);
        if told.kind != ToldKind::Twin || now - since >= TWIN_FOR {
            return told;
        }
        twin = Some((since, now));
    }
}

/// An empty directory founds a cluster together with others, or joins one.
async fn become_member(
    config: &Config,
    disk: &Disk,
    record: &mut NodeRecord,
    listener: &Listener,
    is_new: bool,
) -> Result<(), NodeError> {
    let seeds = if record.membership != Membership::None {
        // It was a member, and knows more nodes than its configuration does.
        others(config, record)
    } else if config.join.is_empty() {
        let verdict = first_boot::decide(config, disk, record, listener, is_new).await?;
        if verdict != Verdict::Join {
            return Ok(());
        }
        tracing::warn!(
            node = config.node_id,
            "the cluster is there already, and this data directory is new to it: joining it anew"
        );
        let others = config.nodes.iter().filter(|node| node.id != config.node_id);
        others.map(|node| node.grpc.clone()).collect()
    } else {
        config.join.clone()
    };
    let held = record.held(disk);
    Ok(join::join(config, &seeds, disk, record, &held).await?)
}

/// Where other nodes serve clients, as far as configuration and disk know.
fn others(config: &Config, record: &NodeRecord) -> Vec<String> {
    let known = record.nodes.iter().chain(&config.nodes);
    let known = known.filter(|node| node.id != config.node_id && !node.grpc.is_empty());
    let urls = known.map(|node| node.grpc.clone());
    let mut urls: Vec<String> = urls.chain(config.join.iter().cloned()).collect();
    urls.sort_unstable();
    urls.dedup();
    urls
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
