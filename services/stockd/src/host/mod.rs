//! Where the loop lives, and how its effects are performed.
//!
//! The loop can be hosted by a task of the runtime that also serves the edge, or by a thread of its
//! own. Inside the runtime there is no hand-over between threads: a call is decoded, proposed and
//! answered by one of them. The price is that a slow disk stalls reads, too.

pub mod chores;
pub mod errands;
pub mod gauge;
pub mod memory;
pub mod roster;
pub mod sizes;

use std::sync::Arc;
use std::time::Duration;

use stock_node::clock::Now;
use stock_node::event::{Effect, Event};
use stock_node::worker::{PROPOSED_BYTES_PER_TURN_MAX, Worker, WorkerError};
use stock_storage::{BATCH_BYTES_MAX, LogError};
use thiserror::Error;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::directory::bring_back::BringBackError;
use crate::directory::disk::{LogWriter, Written};
use crate::history::HistoryThread;
use crate::host::chores::ChoreThread;
use crate::host::errands::ErrandRunner;
use crate::host::gauge::Gauge;
use crate::host::roster::Roster;
use crate::inbox::reply::{Destination, ReplyTo};
use crate::inbox::{COMMAND_BYTES_IN_FLIGHT_MAX, Inbox, PEER_BYTES_WAITING_MAX, Waker};
use crate::listeners::liveness::Liveness;
use crate::peers::frames::Frames;
use crate::peers::snapshots::{OutgoingSnapshot, SnapshotSender};
use crate::peers::{OUTGOING_BYTES_MAX, Peers};
use crate::{clocks, telemetry};

/// The loop cannot begin or go on, and the process must stop.
#[derive(Debug, Error)]
pub enum HostError {
    /// An entry is not understood.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The disk failed: to serve after a write that did is to lie.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is on the disk cannot be used.
    #[error(transparent)]
    BringBack(BringBackError),
}

impl From<BringBackError> for HostError {
    fn from(error: BringBackError) -> Self {
        match error {
            BringBackError::Log(error) => Self::Log(error),
            error => Self::BringBack(error),
        }
    }
}

/// Runs the loop's turns and performs what comes out.
pub struct Driver {
    worker: Worker<ReplyTo>,
    log: LogWriter,
    inbox: Arc<Inbox<ReplyTo>>,
    peers: Arc<Peers>,
    helpers: Helpers,
    liveness: Arc<Liveness>,
    events: Vec<Event<ReplyTo>>,
    effects: Vec<Effect<ReplyTo>>,
    /// One frame for each peer, filled during a phase and sent at its end.
    frames: Frames,
    /// When the turn under way began.
    now: Now,
    counts_due_boot_ms: u64,
    is_disk_full: bool,
    turns: metrics::Counter,
    log_write_seconds: metrics::Histogram,
}

/// Whoever does what must not stop the loop.
pub struct Helpers {
    /// Works on files.
    pub chores: ChoreThread,
    /// Sends snapshots.
    pub snapshots: SnapshotSender,
    /// Tells other shards what the shards led here owe them.
    pub errands: ErrandRunner,
    /// Keeps history.
    pub history: HistoryThread,
    /// Knows the other nodes.
    pub roster: Roster,
    /// Watches the disk.
    pub gauge: Gauge,
}

/// What a turn writes beside commands and what peers have sent, at most: votes, origins and records
/// of all groups, and what frames the entries.
const BESIDE_ENTRIES_BYTES_MAX: usize = 16 * 1024 * 1024;

// A turn must fit into one batch of the log. What peers send waits until it is so much, and then
// the connection that was last may bring what the other side can have waiting for it.
const _: () = assert!(
    (PROPOSED_BYTES_PER_TURN_MAX
        + PEER_BYTES_WAITING_MAX
        + OUTGOING_BYTES_MAX
        + BESIDE_ENTRIES_BYTES_MAX) as u64
        <= BATCH_BYTES_MAX
);

// Whatever was let in fits into a turn that has room for nothing else.
const _: () = assert!(COMMAND_BYTES_IN_FLIGHT_MAX <= PROPOSED_BYTES_PER_TURN_MAX);

/// How often a full disk is asked again.
const FULL_DISK_AGAIN: Duration = Duration::from_millis(200);

/// How often the sizes of the shards are reported.
const COUNTS_EVERY_MS: u64 = 1_000;

impl Driver {
    /// A driver for this loop.
    pub fn new(
        worker: Worker<ReplyTo>,
        log: LogWriter,
        inbox: Arc<Inbox<ReplyTo>>,
        peers: Arc<Peers>,
        helpers: Helpers,
        liveness: Arc<Liveness>,
    ) -> Self {
        Self {
            worker,
            log,
            inbox,
            peers,
            helpers,
            liveness,
            events: Vec::new(),
            effects: Vec::new(),
            frames: Frames::default(),
            now: clocks::now(),
            counts_due_boot_ms: 0,
            is_disk_full: false,
            turns: metrics::counter!("stockd_turns_total"),
            log_write_seconds: metrics::histogram!("stockd_log_write_seconds"),
        }
    }

    /// The first half of a turn: everything that need not wait for the disk. `true` if somebody was
    /// answered.
    fn begin(&mut self) -> Result<bool, WorkerError> {
        self.now = clocks::now();
        self.liveness.turned(self.now.boot_ms);
        self.inbox.drain(&mut self.events);
        self.worker
            .step(self.now, self.events.drain(..), &mut self.effects);
        let refused = self.perform();
        self.worker.answer(&mut self.effects)?;
        Ok(self.perform() || refused)
    }

    /// The disk. `false` if it is full: then the turn goes on later from here.
    fn write(&mut self) -> Result<bool, LogError> {
        if !self.worker.must_write() {
            return Ok(true);
        }
        // Whoever is asked by this node's callers need not wait for its disk.
        self.peers.flush();
        let began = std::time::Instant::now();
        if self.log.write_turn(&mut self.worker)? == Written::DiskFull {
            if !std::mem::replace(&mut self.is_disk_full, true) {
                tracing::error!("the disk is full: this node stands still until there is room");
            }
            self.helpers.gauge.publish(self.now.boot_ms);
            // It waits for room, which no restart makes.
            self.liveness.turned(clocks::now().boot_ms);
            return Ok(false);
        }
        let elapsed = began.elapsed();
        self.log_write_seconds.record(elapsed);
        self.helpers.gauge.wrote(self.now.boot_ms, elapsed);
        if std::mem::take(&mut self.is_disk_full) {
            tracing::info!("the disk has room again");
        }
        Ok(true)
    }

    /// What waited for the disk. `true` if another turn is due at once.
    fn finish(&mut self) -> Result<bool, WorkerError> {
        self.turns.increment(1);
        self.worker.settle(&mut self.effects);
        self.perform();
        self.worker.catch_up(self.now, &mut self.effects)?;
        self.perform();
        if self.now.boot_ms >= self.counts_due_boot_ms {
            self.counts_due_boot_ms = self.now.boot_ms + COUNTS_EVERY_MS;
            telemetry::report_counts(self.worker.counts());
            self.helpers.gauge.publish(self.now.boot_ms);
        }
        Ok(self.worker.has_work())
    }

    /// `true` if a call of this node's edge was answered.
    fn perform(&mut self) -> bool {
        let now = self.now;
        let mut answered = false;
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Send {
                    to,
                    group,
                    payload,
                    cluster_time,
                } => self.frames.message(to, now, group, payload, cluster_time),
                Effect::Answer { reply, answer } => match reply.to {
                    // Whoever hung up loses nothing but the answer.
                    Destination::Local(sender) => {
                        drop(sender.send(answer));
                        answered = true;
                    }
                    Destination::Peer { node, forward_id } => {
                        self.frames.reply(node, now, forward_id, answer);
                    }
                },
                Effect::Notify { to, notice } => {
                    let nodes = to.map_or_else(|| self.peers.nodes(), |to| vec![to]);
                    for node in nodes {
                        self.frames.notice(node, now, &notice);
                    }
                }
                Effect::Disconnect { node } => self.peers.disconnect(node),
                Effect::NodesChanged => self.helpers.roster.update(&self.peers),
                Effect::Chore(chore) => self.helpers.chores.ask(chore),
                Effect::SendSnapshot {
                    to,
                    group,
                    index,
                    envelope,
                } => match self.peers.address(to.node()) {
                    Some(address) => self.helpers.snapshots.send(OutgoingSnapshot {
                        to,
                        address,
                        group,
                        index,
                        envelope,
                    }),
                    None => self.inbox.push(Event::SnapshotSent {
                        group,
                        to,
                        arrived: false,
                    }),
                },
                Effect::Record(page) => self.helpers.history.record(page),
                Effect::Errand { errand, commands } => self.helpers.errands.run(errand, commands),
            }
        }
        for (node, frame) in self.frames.drain() {
            self.peers.send(node, &frame);
        }
        answered
    }

    /// How long until the next turn is due by itself.
    fn idle_for(&self) -> Duration {
        let due = self.worker.next_wake_boot_ms();
        Duration::from_millis(due.saturating_sub(clocks::now().boot_ms))
    }
}

/// Runs the loop inside this runtime until told to stop.
pub async fn in_runtime(mut driver: Driver, stop: CancellationToken) -> Result<(), HostError> {
    let inbox = Arc::clone(&driver.inbox);
    let Waker::Task(woken) = inbox.waker() else {
        unreachable!("the inbox of a loop inside the runtime wakes a task");
    };
    let timer = sleep_until(Instant::now());
    tokio::pin!(timer);
    loop {
        timer.as_mut().reset(Instant::now() + driver.idle_for());
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = woken.notified() => {}
            () = &mut timer => {}
        }
        // Everything that is ready to call gets to the inbox first: one turn serves them all.
        tokio::task::yield_now().await;
        loop {
            let answered = driver.begin()?;
            if answered && driver.worker.must_write() {
                // The answers leave before the disk stalls this thread.
                tokio::task::yield_now().await;
            }
            while !driver.write()? {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(FULL_DISK_AGAIN) => {}
                }
            }
            if !driver.finish()? {
                break;
            }
            // A long log is replayed in many turns; everybody else gets theirs between two.
            tokio::task::yield_now().await;
        }
    }
}

/// Runs the loop on this thread until told to stop.
pub fn on_thread(mut driver: Driver, stop: &CancellationToken) -> Result<(), HostError> {
    if let Waker::Thread(thread) = driver.inbox.waker() {
        let _ = thread.set(std::thread::current());
    }
    while !stop.is_cancelled() {
        loop {
            driver.begin()?;
            while !driver.write()? {
                if stop.is_cancelled() {
                    return Ok(());
                }
                std::thread::sleep(FULL_DISK_AGAIN);
            }
            if !driver.finish()? {
                break;
            }
        }
        std::thread::park_timeout(driver.idle_for());
    }
    Ok(())
}

/// Asks the loop to hand all leadership over.
pub fn hand_over(inbox: &Inbox<ReplyTo>) {
    inbox.push(Event::HandOver);
}
