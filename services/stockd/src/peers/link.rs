//! The connection to one peer, while there is one, and the calls it has yet to answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use stock_node::answer::{Answer, Failure};
use stock_wire::cluster::v1 as cluster;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

use super::wire;
use crate::clocks;

/// Bytes that may wait for a peer's socket. Past this the peer is too slow to be worth the memory:
/// the connection is dropped, and Raft sends again what it missed.
pub(crate) const OUTGOING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Calls that one peer may owe an answer to.
const FORWARDS_WAITING_MAX: usize = 16_384;

/// A peer answers what was forwarded to it after so many rounds at most, or what came of it is not
/// known. It may have no end otherwise: a leader whose disk is full stands still until there is
/// room.
const ANSWERED_WITHIN_ROUNDS: u64 = 10;
/// From one round to the next.
pub(super) const ROUND: Duration = Duration::from_secs(1);

/// Who waits for an answer, and since which round: a timer for each call would cost more than a
/// look at all of them now and then.
struct Waiting {
    sender: oneshot::Sender<Answer>,
    since: u64,
}

/// A call that waits for the peer's answer. Dropped before, it waits no more.
pub(super) struct Forwarded {
    link: Arc<Link>,
    id: u64,
    receiver: oneshot::Receiver<Answer>,
    is_answered: bool,
}

impl Forwarded {
    /// What the peer says, or that nobody knows.
    pub(super) async fn answer(mut self) -> Answer {
        let answer = (&mut self.receiver).await;
        self.is_answered = true;
        answer.unwrap_or(Answer::Failed(Failure::OutcomeUnknown))
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if !self.is_answered {
            self.link.state().waiting.remove(&self.id);
        }
    }
}

/// Nodes tell each other something twice a second at least: one that has said nothing for so long
/// is not heard.
const HEARD_WITHIN_MS: u64 = 2_000;

/// One peer.
pub(super) struct Link {
    node: u64,
    /// When something came from it last, on the boot clock.
    heard_boot_ms: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Of the process at its other end.
    boot: u64,
    outgoing: BytesMut,
    waiting: HashMap<u64, Waiting>,
    round: u64,
}

impl State {
    fn give_up_all(&mut self) {
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.sender.send(Answer::Failed(Failure::OutcomeUnknown));
        }
    }
}

/// A connection; clones are the same one.
#[derive(Clone)]
pub(super) struct Connection {
    writer: Arc<OwnedWriteHalf>,
    has_outgoing: Arc<Notify>,
}

impl Link {
    pub(super) fn new(node: u64) -> Self {
        Self {
            node,
            heard_boot_ms: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Something has come from the peer.
    pub(super) fn is_heard(&self) {
        self.heard_boot_ms
            .store(clocks::now().boot_ms, Ordering::Relaxed);
    }

    /// The process that is connected and has been heard lately.
    pub(super) fn heard_boot(&self) -> Option<u64> {
        let state = self.state();
        let heard_boot_ms = self.heard_boot_ms.load(Ordering::Relaxed);
        let is_heard = clocks::now().boot_ms.saturating_sub(heard_boot_ms) < HEARD_WITHIN_MS;
        (state.connection.is_some() && is_heard).then_some(state.boot)
    }

    /// Begins to use a connection to this process, instead of the one before if there was one.
    pub(super) fn connect(
        self: &Arc<Self>,
        stream: TcpStream,
        boot: u64,
    ) -> (Connection, OwnedReadHalf) {
        self.is_heard();
        let (reader, writer) = stream.into_split();
        let connection = Connection {
            writer: Arc::new(writer),
            has_outgoing: Arc::new(Notify::new()),
        };
        {
            let mut state = self.state();
            state.boot = boot;
            state.outgoing.clear();
            // Their answers would have come over the connection before.
            state.give_up_all();
            if let Some(replaced) = state.connection.replace(connection.clone()) {
                // Its reader and writer end, and the peer sees that it is not listened to there.
                replaced.has_outgoing.notify_one();
                close(&replaced);
            }
        }
        tokio::spawn(Arc::clone(self).write_rest(connection.clone()));
        (connection, reader)
    }

    /// Stops using a connection; what became of the calls that it leaves unanswered is not known.
    /// `false` if another connection has taken its place.
    pub(super) fn disconnect(&self, connection: &Connection) -> bool {
        let mut state = self.state();
        if !is_current(&state, connection) {
            return false;
        }
        state.connection = None;
        state.outgoing.clear();
        connection.has_outgoing.notify_one();
        state.give_up_all();
        true
    }

    /// Another round: what became of the calls that wait for too long is not known.
    pub(super) fn next_round(&self) {
        let mut state = self.state();
        state.round += 1;
        let round = state.round;
        let is_late = |waiting: &Waiting| round - waiting.since > ANSWERED_WITHIN_ROUNDS;
        for (_, late) in state.waiting.extract_if(|_, waiting| is_late(waiting)) {
            let _ = late.sender.send(Answer::Failed(Failure::OutcomeUnknown));
        }
    }

    /// Ends the connection, if there is one; its reader does the rest.
    pub(super) fn close(&self) {
        if let Some(connection) = &self.state().connection {
            close(connection);
        }
    }

    /// Writes a frame, as far as the socket takes it now; the rest follows. `false` if there is no
    /// connection.
    pub(super) fn send(&self, frame: &cluster::Frame) -> bool {
        self.put(frame, |current, outgoing| {
            if !write_some(&current.writer, outgoing) {
                current.has_outgoing.notify_one();
            }
        })
    }

    /// Likewise, together with what else is sent before other tasks have had their turn: callers'
    /// commands come many at a time.
    pub(super) fn send_soon(&self, frame: &cluster::Frame) -> bool {
        self.put(frame, |current, _| current.has_outgoing.notify_one())
    }

    fn put(&self, frame: &cluster::Frame, write: impl FnOnce(&Connection, &mut BytesMut)) -> bool {
        let mut state = self.state();
        let State {
            connection,
            outgoing,
            ..
        } = &mut *state;
        let Some(current) = connection else {
            return false;
        };
        wire::encode_frame(frame, outgoing);
        write(current, outgoing);
        if outgoing.len() > OUTGOING_BYTES_MAX {
            tracing::warn!(
                node = self.node,
                bytes = outgoing.len(),
                "the peer is too slow"
            );
            outgoing.clear();
            // The reader sees the end of the stream and takes the connection down.
            close(current);
            return false;
        }
        true
    }

    /// Writes what is to be sent soon, as far as the socket takes it.
    pub(super) fn flush(&self) {
        let mut state = self.state();
        let State {
            connection,
            outgoing,
            ..
        } = &mut *state;
        if let Some(current) = connection
            && !outgoing.is_empty()
        {
            write_some(&current.writer, outgoing);
        }
    }

    /// Takes note of a call that waits for the peer's answer; none if too many do.
    pub(super) fn expect(self: &Arc<Self>, id: u64) -> Option<Forwarded> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.waiting.len() >= FORWARDS_WAITING_MAX {
            return None;
        }
        let since = state.round;
        state.waiting.insert(id, Waiting { sender, since });
        drop(state);
        Some(Forwarded {
            link: Arc::clone(self),
            id,
            receiver,
            is_answered: false,
        })
    }

    /// The peer has answered.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        let waiting = self.state().waiting.remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.sender.send(answer);
        }
    }

    /// Writes what the socket did not take at once, until the connection is no longer used.
    async fn write_rest(self: Arc<Self>, connection: Connection) {
        loop {
            connection.has_outgoing.notified().await;
            loop {
                if connection.writer.writable().await.is_err() {
                    return;
                }
                let mut state = self.state();
                if !is_current(&state, &connection) {
                    return;
                }
                if write_some(&connection.writer, &mut state.outgoing) {
                    break;
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_current(state: &State, connection: &Connection) -> bool {
    state
        .connection
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(&current.writer, &connection.writer))
}

/// Ends a connection in both directions. One that is gone already cannot be ended; that is as well.
fn close(connection: &Connection) {
    let stream: &TcpStream = connection.writer.as_ref().as_ref();
    let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
}

/// Writes what the socket takes. `true` if nothing is left; a broken socket takes everything, since
/// its reader is about to notice.
fn write_some(writer: &OwnedWriteHalf, outgoing: &mut BytesMut) -> bool {
    while !outgoing.is_empty() {
        match writer.try_write(outgoing) {
            Ok(written) => outgoing.advance(written),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => outgoing.clear(),
        }
    }
    true
}
