//! The parts of a node, put together.

use std::sync::{Arc, OnceLock};

use stock_cluster::{Policy, Speaks};
use stock_core::Principal;
use stock_node::view::ReadView;
use stock_node::worker::{
    USUAL_AUDIT_EVERY_MS, USUAL_COMMITTED_BYTES, USUAL_ELECTION_TICKS, WorkerParts,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::error::NodeError;
use super::standing::{self, Standing};
use super::stores::Stores;
use crate::api::Edge;
use crate::clocks;
use crate::config::{Config, Hosting};
use crate::directory::bring_back;
use crate::history::{History, HistoryThread};
use crate::host::chores::{ChoreThread, Chores};
use crate::host::errands::ErrandRunner;
use crate::host::gauge::Gauge;
use crate::host::memory::MemoryGauge;
use crate::host::roster::Roster;
use crate::host::sizes::Sizes;
use crate::host::{Driver, Helpers, HostError};
use crate::inbox::reply::ReplyTo;
use crate::inbox::{Inbox, Waker};
use crate::listeners::Accepted;
use crate::listeners::calls::Remote;
use crate::listeners::liveness::Liveness;
use crate::peers::history::{HistoryFetcher, HistoryServer};
use crate::peers::snapshots::{SnapshotReceiver, SnapshotSender};
use crate::peers::{CALLS_WAITING_MAX, Peers};
use crate::proposer::Proposer;

/// Who callers are, until callers say who they are.
const ANONYMOUS: &str = "anonymous";

/// A node that is ready to run.
pub(super) struct Parts {
    pub(super) driver: Driver,
    pub(super) inbox: Arc<Inbox<ReplyTo>>,
    pub(super) peers: Arc<Peers>,
    pub(super) edge: Arc<Edge>,
    /// Calls that other nodes make in clients' names.
    pub(super) from_peers: mpsc::Receiver<(Accepted, Remote)>,
    /// Where other nodes serve clients.
    pub(super) others: Vec<String>,
    /// Cancelled once history is written down to its end.
    pub(super) history_over: CancellationToken,
}

impl Parts {
    /// Brings back what the stores hold, and starts the threads that work beside the loop.
    pub(super) fn put_together(
        config: &Config,
        sizes: &Sizes,
        stores: Stores,
        standing: &Standing,
        liveness: &Arc<Liveness>,
    ) -> Result<Self, NodeError> {
        let Standing {
            introductions,
            cluster,
        } = standing;
        let thread = |source| NodeError::Thread { source };
        let history = History::open(&config.data_dir, config.ledger_keep())?;
        let view = Arc::new(ReadView::new(config.shards));
        let principal = Principal::new(ANONYMOUS).unwrap_or_else(|_| unreachable!("a good name"));
        let parts = WorkerParts {
            node: config.node_id,
            directory: stores.record.directory(),
            since: introductions.identity.since,
            lives: stores.record.lives(),
            founding: stores.record.founding_at(&config.nodes),
            is_founded: stores.record.is_founded,
            generation_floor: stores.record.generation_floor(),
            policy: Policy {
                replace_after_ms: config.replace_after_seconds * 1_000,
                ..Policy::default()
            },
            principal: principal.clone(),
            speaks: Speaks::THIS,
            groups: config.shards + 1,
            boot: introductions.identity.boot,
            entries: stores.disk.entry_readers(),
            view: Arc::clone(&view),
            cluster: Arc::clone(cluster),
            checkpoint_pace: sizes.checkpoint_pace(),
            audit_every_ms: USUAL_AUDIT_EVERY_MS,
            election_ticks: USUAL_ELECTION_TICKS,
            committed_bytes_per_turn: USUAL_COMMITTED_BYTES,
        };
        let kept = history.durable_indexes(parts.groups);
        let waker = match config.hosting {
            Hosting::Runtime => Waker::Task(Notify::new()),
            Hosting::Thread => Waker::Thread(OnceLock::new()),
        };
        let inbox = Arc::new(Inbox::new(parts.groups, waker));
        let (worker, log) = bring_back::open(
            parts,
            &stores.disk,
            &stores.checkpoints,
            &kept,
            clocks::now(),
        )
        .map_err(HostError::from)?;

        let incarnation = stores.record.incarnation();
        let open_ledger = history.open_ledger();
        let (calls, from_peers) = mpsc::channel(CALLS_WAITING_MAX);
        let configured = config.nodes.iter();
        let configured = configured.map(|node| (node.id, node.peers.clone()));
        let peers = Arc::new(Peers::new(
            Arc::clone(introductions),
            Arc::clone(&inbox),
            Arc::clone(cluster),
            Arc::new(SnapshotReceiver::new(
                stores.checkpoints.clone(),
                incarnation,
                Arc::clone(&inbox),
            )),
            Arc::new(HistoryServer::new(open_ledger.clone())),
            calls,
            configured.collect(),
        ));
        let others = standing::others(config, &stores.record);
        let roster = Roster::new(stores.record, stores.disk.clone(), Arc::clone(cluster));
        peers.set_members(&roster.addresses());
        let (history, history_over) =
            HistoryThread::start(history, Arc::clone(&inbox)).map_err(thread)?;
        let handle = history.handle();
        HistoryFetcher::start(Arc::clone(introductions), open_ledger, handle, &peers)
            .map_err(thread)?;
        let chores = Chores {
            store: stores.checkpoints.clone(),
            purger: stores.disk.purger(),
            incarnation,
            directory: introductions.identity.directory,
        };
        let proposer = Arc::new(Proposer::new(
            config.node_id,
            Arc::clone(&inbox),
            Arc::clone(&peers),
            Arc::clone(cluster),
        ));
        let helpers = Helpers {
            errands: ErrandRunner::new(Arc::clone(&proposer), Arc::clone(&inbox)),
            roster,
            gauge: Gauge::new(
                stores.volume,
                config.data_dir.clone(),
                Arc::clone(cluster),
                stores.checkpoints.clone(),
                MemoryGauge::new(config.memory_bytes),
            ),
            history,
            snapshots: SnapshotSender::new(
                Arc::clone(introductions),
                stores.checkpoints,
                Arc::clone(&inbox),
            ),
            chores: ChoreThread::start(chores, Arc::clone(&inbox)).map_err(thread)?,
        };
        let driver = Driver::new(
            worker,
            log,
            Arc::clone(&inbox),
            Arc::clone(&peers),
            helpers,
            Arc::clone(liveness),
        );
        let edge = Arc::new(Edge::new(
            incarnation,
            Arc::clone(&inbox),
            Arc::clone(&peers),
            proposer,
            Arc::clone(cluster),
            view,
            principal,
        ));
        Ok(Self {
            driver,
            inbox,
            peers,
            edge,
            from_peers,
            others,
            history_over,
        })
    }
}
