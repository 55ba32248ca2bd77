//! Snapshots between nodes: checkpoint files, each on a connection of its own.
//!
//! The sender opens a connection and says what it has; the receiver says from which byte on it
//! needs it, having kept what came over an earlier connection; then the file's bytes follow, as
//! fast as TCP lets them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use stock_cluster::identity::Identity;
use stock_cluster::{GroupId, ReplicaId};
use stock_node::checkpoint::Arrived;
use stock_node::event::Event;
use stock_storage::{CheckpointMeta, CheckpointStore};
use stock_wire::cluster::v1 as cluster;
use tokio::time::timeout;

use super::blocking::{self, Pace, read_message, write_message};
use super::error::{HELLO_WITHIN, PeerError};
use super::slots::{Slot, Slots};
use super::wire;
use crate::directory::checkpoint_files;
use crate::inbox::Inbox;
use crate::inbox::reply::ReplyTo;
use crate::listeners::Accepted;
use crate::peers::introductions::Introductions;

/// Read from the file and written to the socket at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The receiver checks the whole file and brings the state back before it says that all is well:
/// within this...
const CHECKED_WITHIN: Duration = Duration::from_secs(30);
/// ...and a second more for each so many bytes.
const CHECKED_BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;

/// A receiver says within this whether it wants what it is offered.
const WANTED_WITHIN: Duration = Duration::from_secs(10);

/// Nodes that are sent snapshots at a time; for others the loop is told that none arrived, and
/// offers it again.
const TARGETS_MAX: usize = 16;

/// Snapshots that one node receives at a time; others are refused and offered again.
const RECEIVING_MAX: usize = 2;

/// Longest message around a snapshot: an envelope has no entries in it.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A snapshot on its way to a peer.
#[derive(Debug)]
pub struct OutgoingSnapshot {
    /// To this replica.
    pub to: ReplicaId,
    /// Where its node listens for peers.
    pub address: String,
    /// Of this group.
    pub group: GroupId,
    /// As of this index.
    pub index: u64,
    /// The message it belongs to.
    pub envelope: Bytes,
}

/// Sends snapshots: to each node one after the other, on a thread that ends when nothing is left to
/// send there. So a node that takes nothing keeps nobody else waiting. No more than one for each
/// follower of each group waits: raft sends it nothing else meanwhile.
pub struct SnapshotSender(Arc<Dispatch>);

struct Dispatch {
    /// Sends one to its end.
    send: Box<Send>,
    inbox: Arc<Inbox<ReplyTo>>,
    /// What waits, by node; there is a thread for each of them.
    waiting: Mutex<BTreeMap<u64, VecDeque<OutgoingSnapshot>>>,
}

type Send = dyn Fn(&OutgoingSnapshot) -> Result<(), PeerError> + std::marker::Send + Sync;

impl SnapshotSender {
    /// Nothing to send yet.
    pub fn new(
        introductions: Arc<Introductions>,
        store: CheckpointStore,
        inbox: Arc<Inbox<ReplyTo>>,
    ) -> Self {
        let send = move |snapshot: &OutgoingSnapshot| send(&introductions, &store, snapshot);
        Self::sending(Box::new(send), inbox)
    }

    fn sending(send: Box<Send>, inbox: Arc<Inbox<ReplyTo>>) -> Self {
        Self(Arc::new(Dispatch {
            send,
            inbox,
            waiting: Mutex::default(),
        }))
    }

    /// Sends one: [`Event::SnapshotSent`].
    pub fn send(&self, snapshot: OutgoingSnapshot) {
        let node = snapshot.to.node();
        let mut waiting = self.0.waiting();
        if let Some(of_node) = waiting.get_mut(&node) {
            of_node.push_back(snapshot);
            return;
        }
        if waiting.len() >= TARGETS_MAX {
            drop(waiting);
            return self.0.is_sent(&snapshot, false);
        }
        waiting.insert(node, VecDeque::from([snapshot]));
        drop(waiting);
        let dispatch = Arc::clone(&self.0);
        let started = std::thread::Builder::new()
            .name("snapshots".to_owned())
            .spawn(move || dispatch.send_all(node));
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start a thread to send a snapshot");
            let of_node = self.0.waiting().remove(&node);
            for snapshot in of_node.into_iter().flatten() {
                self.0.is_sent(&snapshot, false);
            }
        }
    }
}

impl Dispatch {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, VecDeque<OutgoingSnapshot>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, node: u64) -> Option<OutgoingSnapshot> {
        let mut waiting = self.waiting();
        let next = waiting.get_mut(&node).and_then(VecDeque::pop_front);
        if next.is_none() {
            waiting.remove(&node);
        }
        next
    }

    fn send_all(&self, node: u64) {
        while let Some(snapshot) = self.next(node) {
            let sent = (self.send)(&snapshot);
            if let Err(error) = &sent {
                tracing::info!(
                    group = snapshot.group.0,
                    to = %snapshot.to,
                    %error,
                    "a snapshot did not arrive; it will be offered again"
                );
            }
            self.is_sent(&snapshot, sent.is_ok());
        }
    }

    fn is_sent(&self, snapshot: &OutgoingSnapshot, arrived: bool) {
        let (group, to) = (snapshot.group, snapshot.to);
        self.inbox.push(Event::SnapshotSent { group, to, arrived });
    }
}

fn send(
    introductions: &Introductions,
    store: &CheckpointStore,
    snapshot: &OutgoingSnapshot,
) -> Result<(), PeerError> {
    let group = u64::from(snapshot.group.0);
    let info = store
        .list(group)
        .into_iter()
        .find(|info| info.meta.index == snapshot.index)
        .ok_or_else(|| PeerError::Snapshot("its file is gone".to_owned()))?;
    let file = store.open_raw(&info).map_err(failed)?;
    let mut stream = blocking::connect(
        introductions,
        snapshot.to.node(),
        &snapshot.address,
        cluster::Purpose::Snapshot,
    )?;
    write_message(
        &mut stream,
        &cluster::SnapshotOffer {
            group: snapshot.group.0,
            replica_id: snapshot.to.0,
            index: info.meta.index,
            term: info.meta.term,
            length: file.bytes(),
            hash: info.hash.to_be_bytes().to_vec().into(),
            context: info.meta.context.clone().into(),
            incarnation: info.meta.incarnation.to_be_bytes().to_vec().into(),
            envelope: snapshot.envelope.clone(),
        },
    )?;
    let wanted = cluster::snapshot_answer::Verdict::Wanted;
    let mut offset = expect(&mut stream, wanted, WANTED_WITHIN)?;
    let mut pace = Pace::begin();
    let mut chunk = vec![0; CHUNK_BYTES];
    while offset < file.bytes() {
        let read = file.read_at(&mut chunk, offset).map_err(failed)?;
        if read == 0 {
            return Err(PeerError::Snapshot(
                "its file has become shorter".to_owned(),
            ));
        }
        let mut rest = &chunk[..read];
        while !rest.is_empty() {
            let written = stream.write(rest)?;
            pace.moved(written)?;
            rest = &rest[written..];
        }
        offset += read as u64;
        metrics::counter!("stockd_snapshot_sent_bytes_total").increment(read as u64);
    }
    let arrived = cluster::snapshot_answer::Verdict::Arrived;
    expect(&mut stream, arrived, checked_within(file.bytes()))?;
    Ok(())
}

fn checked_within(bytes: u64) -> Duration {
    CHECKED_WITHIN + Duration::from_secs(bytes / CHECKED_BYTES_PER_SECOND)
}

fn expect(
    stream: &mut TcpStream,
    verdict: cluster::snapshot_answer::Verdict,
    within: Duration,
) -> Result<u64, PeerError> {
    let answer: cluster::SnapshotAnswer = read_message(stream, MESSAGE_BYTES_MAX, within)?;
    match answer.verdict() == verdict {
        true => Ok(answer.offset),
        false => Err(PeerError::Snapshot(format!(
            "the receiver says {}: {}",
            answer.verdict().as_str_name(),
            answer.reason
        ))),
    }
}

/// Takes snapshots in.
pub struct SnapshotReceiver {
    store: CheckpointStore,
    incarnation: u128,
    inbox: Arc<Inbox<ReplyTo>>,
    receiving: Arc<Slots>,
    /// Groups of which one is being received: at most one of each.
    groups: Arc<Groups>,
}

type Groups = Mutex<BTreeSet<u32>>;

/// The right to receive a snapshot of a group, from the question whether an earlier one is there
/// until the loop has been told of this one. Without it two could pass that question at the same
/// time, and the file of the one that is being installed would be deleted for the other.
struct Claim {
    groups: Arc<Groups>,
    group: u32,
}

impl Claim {
    fn on(groups: &Arc<Groups>, group: u32) -> Option<Self> {
        let is_new = locked(groups).insert(group);
        is_new.then(|| Self {
            groups: Arc::clone(groups),
            group,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        locked(&self.groups).remove(&self.group);
    }
}

fn locked(groups: &Groups) -> MutexGuard<'_, BTreeSet<u32>> {
    groups.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SnapshotReceiver {
    /// Nothing received yet.
    pub fn new(store: CheckpointStore, incarnation: u128, inbox: Arc<Inbox<ReplyTo>>) -> Self {
        Self {
            store,
            incarnation,
            inbox,
            receiving: Slots::new(RECEIVING_MAX),
            groups: Arc::default(),
        }
    }

    /// Receives one over a connection on which both sides have introduced themselves, on a thread
    /// of its own. Who has not said what he brings takes neither thread nor place.
    pub(super) async fn receive(
        self: &Arc<Self>,
        mut accepted: Accepted,
        identity: &Identity,
    ) -> Result<(), PeerError> {
        let offer = wire::read_message(&mut accepted.stream, MESSAGE_BYTES_MAX);
        let offer = timeout(HELLO_WITHIN, offer);
        let offer: cluster::SnapshotOffer = offer.await.map_err(|_| PeerError::Silent)??;
        let admitted = match self.let_in(&offer, identity) {
            Ok(admitted) => admitted,
            Err(reason) => {
                let refused = cluster::SnapshotAnswer {
                    verdict: cluster::snapshot_answer::Verdict::Refused.into(),
                    offset: 0,
                    reason: reason.to_owned(),
                };
                let said = wire::write_message(&mut accepted.stream, &refused);
                return timeout(HELLO_WITHIN, said)
                    .await
                    .map_err(|_| PeerError::Silent)?;
            }
        };
        let receiver = Arc::clone(self);
        let Accepted { stream, guest, .. } = accepted;
        let stream = stream.into_std()?;
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || {
                if let Err(error) = receiver.converse(stream, &offer) {
                    tracing::info!(%error, "a snapshot did not arrive whole");
                }
                drop((admitted, guest));
            })?;
        Ok(())
    }

    fn let_in(
        &self,
        offer: &cluster::SnapshotOffer,
        identity: &Identity,
    ) -> Result<(Slot, Claim), &'static str> {
        let groups = identity.shards + 1;
        if offer.group >= groups || ReplicaId(offer.replica_id).node() != identity.node {
            return Err("there is no such replica here");
        }
        let claim = Claim::on(&self.groups, offer.group).ok_or("another one is on its way")?;
        if !self.store.incoming(u64::from(offer.group)).is_empty() {
            // Its file must stay until the loop has made up its mind.
            return Err("an earlier one is being installed");
        }
        let slot = self.receiving.take();
        let slot = slot.ok_or("enough snapshots are on their way already")?;
        Ok((slot, claim))
    }

    fn converse(
        &self,
        mut stream: TcpStream,
        offer: &cluster::SnapshotOffer,
    ) -> Result<(), PeerError> {
        use cluster::snapshot_answer::Verdict;
        blocking::prepare(&stream)?;
        match self.take_in(&mut stream, offer) {
            Ok(event) => {
                self.inbox.push(event);
                answer(&mut stream, Verdict::Arrived, offer.length, String::new())
            }
            Err(error) => {
                // Best effort: the sender also notices the end of the connection.
                let _ = answer(&mut stream, Verdict::Damaged, 0, error.to_string());
                let _ = stream.shutdown(Shutdown::Both);
                Err(error)
            }
        }
    }

    fn take_in(
        &self,
        stream: &mut TcpStream,
        offer: &cluster::SnapshotOffer,
    ) -> Result<Event<ReplyTo>, PeerError> {
        use cluster::snapshot_answer::Verdict;
        let meta = CheckpointMeta {
            group: u64::from(offer.group),
            index: offer.index,
            term: offer.term,
            // The two sides are of one life of the cluster; the file may be of an earlier one.
            incarnation: <[u8; 16]>::try_from(&offer.incarnation[..])
                .map_or(self.incarnation, u128::from_be_bytes),
            context: offer.context.to_vec(),
        };
        let hash = u128::from_be_bytes(offer.hash.as_ref().try_into().map_err(failed)?);
        let mut incoming = self
            .store
            .receive(meta, offer.length, hash)
            .map_err(failed)?;
        let mut offset = incoming.have();
        answer(stream, Verdict::Wanted, offset, String::new())?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut pace = Pace::begin();
        while offset < offer.length {
            let room = CHUNK_BYTES.min((offer.length - offset) as usize);
            let read = stream.read(&mut chunk[..room])?;
            if read == 0 {
                return Err(PeerError::Snapshot(format!(
                    "the sender hung up after {offset} of {} bytes",
                    offer.length
                )));
            }
            incoming.chunk(offset, &chunk[..read]).map_err(failed)?;
            offset += read as u64;
            if offset < offer.length {
                pace.moved(read)?;
            }
            metrics::counter!("stockd_snapshot_received_bytes_total").increment(read as u64);
        }
        let restored = checkpoint_files::take_in(&self.store, incoming).map_err(failed)?;
        Ok(Event::SnapshotArrived {
            group: GroupId(offer.group),
            envelope: offer.envelope.clone(),
            arrived: Box::new(Arrived::of(restored)),
        })
    }
}

fn failed(error: impl std::fmt::Display) -> PeerError {
    PeerError::Snapshot(error.to_string())
}

fn answer(
    stream: &mut TcpStream,
    verdict: cluster::snapshot_answer::Verdict,
    offset: u64,
    reason: String,
) -> Result<(), PeerError> {
    write_message(
        stream,
        &cluster::SnapshotAnswer {
            verdict: verdict.into(),
            offset,
            reason,
        },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::Notify;

    use super::*;
    use crate::inbox::Waker;

    /// The groups of the snapshots that the loop was told of by now.
    fn told(inbox: &Inbox<ReplyTo>) -> Vec<u32> {
        let mut events = Vec::new();
        inbox.drain(&mut events);
        let group = |event| match event {
            Event::SnapshotSent { group, .. } => group.0,
            _ => panic!("another event"),
        };
        events.into_iter().map(group).collect()
    }

    #[test]
    fn a_node_that_stalls_keeps_snapshots_for_other_nodes_waiting_no_longer() {
        let (done, is_done) = mpsc::channel::<()>();
        let is_done = Mutex::new(is_done);
        // Node 2 takes all of a snapshot and says nothing, until the test lets it.
        let send = move |snapshot: &OutgoingSnapshot| {
            if snapshot.to.node() == 2 {
                let _ = is_done.lock().unwrap().recv();
            }
            Ok(())
        };
        let inbox = Arc::new(Inbox::new(9, Waker::Task(Notify::new())));
        let snapshots = SnapshotSender::sending(Box::new(send), Arc::clone(&inbox));
        let send = |node, group| {
            snapshots.send(OutgoingSnapshot {
                to: ReplicaId::founding(node),
                address: String::new(),
                group: GroupId(group),
                index: 1,
                envelope: Bytes::new(),
            });
        };
        for (node, group) in [(2, 1), (2, 2), (3, 3), (3, 4)] {
            send(node, group);
        }
        let mut arrived = Vec::new();
        while arrived.len() < 2 {
            arrived.extend(told(&inbox));
            std::thread::yield_now();
        }
        assert_eq!(arrived, [3, 4]);
        drop(done);
        while arrived.len() < 4 {
            arrived.extend(told(&inbox));
            std::thread::yield_now();
        }
        assert_eq!(arrived, [3, 4, 1, 2]);
    }

    #[test]
    fn of_each_group_one_snapshot_is_received_at_a_time() {
        let groups = Arc::default();
        let first = Claim::on(&groups, 1);
        assert!(first.is_some() && Claim::on(&groups, 1).is_none());
        assert!(Claim::on(&groups, 2).is_some(), "another group");
        drop(first);
        assert!(Claim::on(&groups, 1).is_some(), "the first one is done");
    }
}
