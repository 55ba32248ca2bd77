//! The connection to one peer, while there is one, and the calls it has yet to answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use stock_proto::cluster::v1 as cluster;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

use super::wire;
use crate::clocks;
use crate::worker::event::{Answer, Failure};

/// Bytes that may wait for a peer's socket. Past this the peer is too slow to be worth the memory:
/// the connection is dropped, and Raft sends again what it missed.
pub(crate) const OUTGOING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Calls that one peer may owe an answer to.
const FORWARDS_WAITING_MAX: usize = 16_384;

type Waiting = oneshot::Sender<Answer>;

/// Nodes tell each other something twice a second at least: one that has said nothing for so long is not heard.
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
            for (_, waiting) in state.waiting.drain() {
                let _ = waiting.send(Answer::Failed(Failure::OutcomeUnknown));
            }
            if let Some(replaced) = state.connection.replace(connection.clone()) {
                // Its reader and writer end, and the peer sees that it is not listened to there.
                replaced.has_outgoing.notify_one();
                close(&replaced);
            }
        }
        tokio::spawn(Arc::clone(self).write_rest(connection.clone()));
        (connection, reader)
    }

    /// Stops using a connection. Returns the calls it leaves unanswered, or nothing if another
    /// connection has taken its place.
    pub(super) fn disconnect(&self, connection: &Connection) -> Option<Vec<Waiting>> {
        let mut state = self.state();
        if !is_current(&state, connection) {
            return None;
        }
        state.connection = None;
        state.outgoing.clear();
        connection.has_outgoing.notify_one();
        Some(state.waiting.drain().map(|(_, waiting)| waiting).collect())
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
        let mut state = self.state();
        let State {
            connection,
            outgoing,
            ..
        } = &mut *state;
        let Some(current) = connection else {
            return false;
        };
        let nothing_waits = outgoing.is_empty();
        wire::encode_frame(frame, outgoing);
        if nothing_waits && !write_some(&current.writer, outgoing) {
            current.has_outgoing.notify_one();
        }
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

    /// Takes note of a call that waits for the peer's answer; `false` if too many do.
    pub(super) fn expect(&self, forward_id: u64, waiting: Waiting) -> bool {
        let mut state = self.state();
        let has_room = state.waiting.len() < FORWARDS_WAITING_MAX;
        if has_room {
            state.waiting.insert(forward_id, waiting);
        }
        has_room
    }

    /// Whoever waits for this answer.
    pub(super) fn answered(&self, forward_id: u64) -> Option<Waiting> {
        self.state().waiting.remove(&forward_id)
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
