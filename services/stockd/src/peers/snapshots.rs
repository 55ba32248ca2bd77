//! Snapshots between nodes: checkpoint files, each on a connection of its own.
//!
//! The sender opens a connection and says what it has; the receiver says from which byte on it needs
//! it, having kept what came over an earlier connection; then the file's bytes follow, as fast as TCP
//! lets them.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use stock_proto::cluster::v1 as cluster;
use stock_storage::{CheckpointMeta, CheckpointStore};

use super::PeerError;
use super::blocking::{self, read_message, write_message};
use crate::checkpoint;
use crate::identity::{Identity, Introductions};
use crate::inbox::Inbox;
use crate::placement::ReplicaId;
use crate::reply::ReplyTo;
use crate::worker::event::{Event, GroupId};

/// Read from the file and written to the socket at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// The receiver checks the whole file and brings the state back before it says that all is well.
const CHECKED_WITHIN: Duration = Duration::from_secs(300);

/// Snapshots that one node receives at a time; others are refused and offered again.
const RECEIVING_MAX: usize = 2;

/// Longest message around a snapshot: an envelope has no entries in it.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A snapshot on its way to a peer.
#[derive(Debug)]
pub struct Parcel {
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

/// Sends snapshots, one after the other, on a thread of its own. No more than one for each follower of
/// each group waits: raft sends it nothing else meanwhile.
pub struct Courier(Sender<Parcel>);

impl Courier {
    /// Begins. The thread ends when this is dropped.
    pub fn start(
        introductions: Arc<Introductions>,
        store: CheckpointStore,
        inbox: Arc<Inbox<ReplyTo>>,
    ) -> io::Result<Self> {
        let (sender, receiver): (Sender<Parcel>, Receiver<Parcel>) = channel();
        std::thread::Builder::new()
            .name("courier".to_owned())
            .spawn(move || {
                for parcel in receiver {
                    let (group, to) = (parcel.group, parcel.to);
                    let arrived = match send(&introductions, &store, &parcel) {
                        Ok(()) => true,
                        Err(error) => {
                            tracing::info!(group = group.0, %to, %error, "a snapshot did not arrive; it will be offered again");
                            false
                        }
                    };
                    inbox.push(Event::SnapshotSent { group, to, arrived });
                }
            })?;
        Ok(Self(sender))
    }

    /// Sends one: [`Event::SnapshotSent`].
    pub fn send(&self, parcel: Parcel) {
        // The thread ends only after this does.
        let _ = self.0.send(parcel);
    }
}

fn send(
    introductions: &Introductions,
    store: &CheckpointStore,
    parcel: &Parcel,
) -> Result<(), PeerError> {
    let group = u64::from(parcel.group.0);
    let info = store
        .list(group)
        .into_iter()
        .find(|info| info.meta.index == parcel.index)
        .ok_or_else(|| PeerError::Snapshot("its file is gone".to_owned()))?;
    let file = store.open_raw(&info).map_err(snapshot)?;
    let mut stream = blocking::connect(
        introductions,
        parcel.to.node(),
        &parcel.address,
        cluster::Purpose::Snapshot,
    )?;
    write_message(
        &mut stream,
        &cluster::SnapshotOffer {
            group: parcel.group.0,
            replica_id: parcel.to.0,
            index: info.meta.index,
            term: info.meta.term,
            length: file.bytes(),
            hash: info.hash.to_be_bytes().to_vec().into(),
            context: info.meta.context.clone().into(),
            incarnation: info.meta.incarnation.to_be_bytes().to_vec().into(),
            envelope: parcel.envelope.clone(),
        },
    )?;
    let mut offset = expect(&mut stream, cluster::snapshot_answer::Verdict::Wanted)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    while offset < file.bytes() {
        let read = file.read_at(&mut chunk, offset).map_err(snapshot)?;
        if read == 0 {
            return Err(PeerError::Snapshot(
                "its file has become shorter".to_owned(),
            ));
        }
        stream.write_all(&chunk[..read])?;
        offset += read as u64;
        metrics::counter!("stockd_snapshot_sent_bytes_total").increment(read as u64);
    }
    stream.set_read_timeout(Some(CHECKED_WITHIN))?;
    expect(&mut stream, cluster::snapshot_answer::Verdict::Arrived)?;
    Ok(())
}

fn expect(
    stream: &mut TcpStream,
    verdict: cluster::snapshot_answer::Verdict,
) -> Result<u64, PeerError> {
    let answer: cluster::SnapshotAnswer = read_message(stream, MESSAGE_BYTES_MAX)?;
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
pub struct Reception {
    store: CheckpointStore,
    incarnation: u128,
    inbox: Arc<Inbox<ReplyTo>>,
    /// Connections over which a snapshot comes, or is offered.
    receiving: AtomicUsize,
    /// Groups of which one is being received: at most one of each.
    groups: Mutex<BTreeSet<u32>>,
}

/// The right to receive a snapshot of a group, from the question whether an earlier one is there until the loop has been
/// told of this one. Without it two could pass that question at the same time, and the file of the one that is being
/// installed would be deleted for the other.
struct Claim<'a> {
    reception: &'a Reception,
    group: u32,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.reception.groups().remove(&self.group);
    }
}

impl Reception {
    /// Nothing received yet.
    pub fn new(store: CheckpointStore, incarnation: u128, inbox: Arc<Inbox<ReplyTo>>) -> Self {
        Self {
            store,
            incarnation,
            inbox,
            receiving: AtomicUsize::new(0),
            groups: Mutex::default(),
        }
    }

    fn claim(&self, group: u32) -> Option<Claim<'_>> {
        let is_new = self.groups().insert(group);
        is_new.then_some(Claim {
            reception: self,
            group,
        })
    }

    fn groups(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives one over a connection on which both sides have introduced themselves, on a thread of
    /// its own.
    pub fn receive(self: &Arc<Self>, stream: TcpStream, identity: &Identity) -> io::Result<()> {
        let reception = Arc::clone(self);
        let (node, groups) = (identity.node, identity.shards + 1);
        std::thread::Builder::new()
            .name("reception".to_owned())
            .spawn(move || {
                let is_free = reception.receiving.fetch_add(1, Ordering::Relaxed) < RECEIVING_MAX;
                if let Err(error) = reception.converse(stream, is_free, node, groups) {
                    tracing::info!(%error, "a snapshot did not arrive whole");
                }
                reception.receiving.fetch_sub(1, Ordering::Relaxed);
            })?;
        Ok(())
    }

    fn converse(
        &self,
        mut stream: TcpStream,
        is_free: bool,
        node: u64,
        groups: u32,
    ) -> Result<(), PeerError> {
        use cluster::snapshot_answer::Verdict;
        blocking::prepare(&stream)?;
        let offer: cluster::SnapshotOffer = read_message(&mut stream, MESSAGE_BYTES_MAX)?;
        let claim = self.claim(offer.group);
        let refusal = if offer.group >= groups || ReplicaId(offer.replica_id).node() != node {
            Some("there is no such replica here")
        } else if claim.is_none() {
            Some("another one is on its way")
        } else if !self.store.incoming(u64::from(offer.group)).is_empty() {
            // Its file must stay until the loop has made up its mind.
            Some("an earlier one is being installed")
        } else if !is_free {
            Some("enough snapshots are on their way already")
        } else {
            None
        };
        if let Some(reason) = refusal {
            return answer(&mut stream, Verdict::Refused, 0, reason.to_owned());
        }
        match self.take_in(&mut stream, &offer) {
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
        let hash = u128::from_be_bytes(offer.hash.as_ref().try_into().map_err(snapshot)?);
        let mut incoming = self
            .store
            .receive(meta, offer.length, hash)
            .map_err(snapshot)?;
        let mut offset = incoming.have();
        answer(stream, Verdict::Wanted, offset, String::new())?;
        let mut chunk = vec![0; CHUNK_BYTES];
        while offset < offer.length {
            let room = CHUNK_BYTES.min((offer.length - offset) as usize);
            let read = stream.read(&mut chunk[..room])?;
            if read == 0 {
                return Err(PeerError::Snapshot(format!(
                    "the sender hung up after {offset} of {} bytes",
                    offer.length
                )));
            }
            incoming.chunk(offset, &chunk[..read]).map_err(snapshot)?;
            offset += read as u64;
            metrics::counter!("stockd_snapshot_received_bytes_total").increment(read as u64);
        }
        let restored = checkpoint::take_in(&self.store, incoming).map_err(snapshot)?;
        Ok(Event::SnapshotArrived {
            group: GroupId(offer.group),
            envelope: offer.envelope.clone(),
            restored: Box::new(restored),
        })
    }
}

fn snapshot(error: impl std::fmt::Display) -> PeerError {
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
    use stock_storage::OsVolume;
    use tokio::sync::Notify;

    use super::*;
    use crate::inbox::Waker;

    #[test]
    fn of_each_group_one_snapshot_is_received_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(Arc::new(OsVolume), dir.path()).unwrap();
        let inbox = Arc::new(Inbox::new(3, Waker::Task(Notify::new())));
        let reception = Reception::new(store, 7, inbox);
        let first = reception.claim(1);
        assert!(first.is_some() && reception.claim(1).is_none());
        assert!(reception.claim(2).is_some(), "another group");
        drop(first);
        assert!(reception.claim(1).is_some(), "the first one is done");
    }
}
