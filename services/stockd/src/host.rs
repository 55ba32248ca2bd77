//! Where the loop lives, and how its effects are performed.
//!
//! The loop can be hosted by a task of the runtime that also serves the edge, or by a thread of its
//! own. Inside the runtime there is no hand-over between threads: a call is decoded, proposed and
//! answered by one of them. The price is that a slow disk stalls reads, too.

use std::sync::Arc;
use std::time::Duration;

use stock_proto::cluster::v1 as cluster;
use stock_storage::BATCH_BYTES_MAX;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::chores::ChoreThread;
use crate::clocks;
use crate::gauge::Gauge;
use crate::history::HistoryThread;
use crate::inbox::{COMMAND_BYTES_IN_FLIGHT_MAX, Inbox, PEER_BYTES_WAITING_MAX, Waker};
use crate::liveness::Liveness;
use crate::peers::notices;
use crate::peers::snapshots::{Courier, Parcel};
use crate::peers::{self, OUTGOING_BYTES_MAX, Peers};
use crate::reply::{Destination, ReplyTo};
use crate::roster::Roster;
use crate::telemetry;
use crate::worker::clock::Now;
use crate::worker::event::{Effect, Event};
use crate::worker::{PROPOSED_BYTES_PER_TURN_MAX, Persisted, Worker, WorkerError};

/// Runs the loop's turns and performs what comes out.
pub struct Driver {
    worker: Worker<ReplyTo>,
    inbox: Arc<Inbox<ReplyTo>>,
    peers: Arc<Peers>,
    helpers: Helpers,
    liveness: Arc<Liveness>,
    events: Vec<Event<ReplyTo>>,
    effects: Vec<Effect<ReplyTo>>,
    /// One frame for each peer, filled during a phase and sent at its end.
    frames: Vec<(u64, cluster::Frame)>,
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
    pub courier: Courier,
    /// Keeps history.
    pub history: HistoryThread,
    /// Knows the other nodes.
    pub roster: Roster,
    /// Watches the disk.
    pub gauge: Gauge,
}

/// What a turn writes beside commands and what peers have sent, at most: votes, origins and records of all groups, and
/// what frames the entries.
const BESIDE_ENTRIES_BYTES_MAX: usize = 16 * 1024 * 1024;

// A turn must fit into one batch of the log. What peers send waits until it is so much, and then the connection that
// was last may bring what the other side can have waiting for it.
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
        inbox: Arc<Inbox<ReplyTo>>,
        peers: Arc<Peers>,
        helpers: Helpers,
        liveness: Arc<Liveness>,
    ) -> Self {
        Self {
            worker,
            inbox,
            peers,
            helpers,
            liveness,
            events: Vec::new(),
            effects: Vec::new(),
            frames: Vec::new(),
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
    fn persist(&mut self) -> Result<bool, WorkerError> {
        if self.worker.must_persist() {
            let began = std::time::Instant::now();
            if self.worker.persist()? == Persisted::DiskFull {
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
                } => {
                    let message = peers::group_message(group, payload, cluster_time);
                    frame_for(&mut self.frames, to, now).messages.push(message);
                }
                Effect::Answer { reply, answer } => match reply.to {
                    // Whoever hung up loses nothing but the answer.
                    Destination::Local(sender) => {
                        drop(sender.send(answer));
                        answered = true;
                    }
                    Destination::Peer { node, forward_id } => {
                        let reply = peers::reply(forward_id, answer);
                        frame_for(&mut self.frames, node, now).replies.push(reply);
                    }
                },
                Effect::Notify { to, notice } => {
                    let nodes = to.map_or_else(|| self.peers.nodes(), |to| vec![to]);
                    for node in nodes {
                        let frame = frame_for(&mut self.frames, node, now);
                        notices::add(frame.notices.get_or_insert_default(), &notice);
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
                    Some(address) => self.helpers.courier.send(Parcel {
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
            }
        }
        for (node, frame) in self.frames.drain(..) {
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

fn frame_for(frames: &mut Vec<(u64, cluster::Frame)>, node: u64, now: Now) -> &mut cluster::Frame {
    let at = match frames.iter().position(|(to, _)| *to == node) {
        Some(at) => at,
        None => {
            let frame = cluster::Frame {
                wall_clock_ms: now.wall_ms,
                ..Default::default()
            };
            frames.push((node, frame));
            frames.len() - 1
        }
    };
    &mut frames[at].1
}

/// Runs the loop inside this runtime until told to stop.
pub async fn in_runtime(mut driver: Driver, stop: CancellationToken) -> Result<(), WorkerError> {
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
            if answered && driver.worker.must_persist() {
                // The answers leave before the disk stalls this thread.
                tokio::task::yield_now().await;
            }
            while !driver.persist()? {
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
pub fn on_thread(mut driver: Driver, stop: &CancellationToken) -> Result<(), WorkerError> {
    if let Waker::Thread(thread) = driver.inbox.waker() {
        let _ = thread.set(std::thread::current());
    }
    while !stop.is_cancelled() {
        loop {
            driver.begin()?;
            while !driver.persist()? {
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
