//! What comes in from outside: connections of clients, of other nodes, and of whoever collects
//! metrics.
//!
//! A [`Listener`] takes in as many as there is room for ([`Shares`]), all in all and from one
//! address. Who is in has a [`Guest`]; whoever has not introduced himself yet leaves for who comes
//! after him. What then is said on a connection is bounded by whoever serves it: `calls.rs` for
//! gRPC, `pages.rs` for metrics, `peers/` for nodes.

mod answering;
mod asking;
mod budget;
pub mod calls;
mod descriptors;
mod fault;
mod frames;
pub mod liveness;
pub mod pages;
mod patience;
mod prefixes;
mod resets;
mod room;
pub(crate) mod time_allowed;
mod under_way;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

pub use self::budget::Budget;
pub use self::descriptors::{Shares, raise};
pub use self::fault::Fault;
pub use self::room::Guest;
use self::room::{Full, Room};
pub use self::under_way::Hold;

/// Where a connection cannot be accepted, most likely for want of descriptors, the next attempt
/// comes after this.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Who is asked to leave has left within this, unless the node is busy; then whoever came is turned
/// away.
const LEAVES_WITHIN: Duration = Duration::from_millis(100);
/// So many are asked to leave for one who comes, one after the other: each may have said what he is
/// before he could go.
const ASKED_MAX: usize = 4;

/// A connection on which nothing came for so long is asked by the kernel whether the other side is
/// still there...
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// ...again after this...
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// ...and is over after so many times without an answer.
const KEEPALIVE_TIMES: u32 = 4;

/// Takes connections in, within bounds.
pub struct Listener {
    socket: TcpListener,
    room: Arc<Room>,
    /// For whom, as it is called in logs and metrics.
    what: &'static str,
}

/// A connection, its other end, and its place.
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Its other end.
    pub from: SocketAddr,
    /// Its place.
    pub guest: Guest,
}

impl Listener {
    /// Listens there, for so many connections at a time.
    pub async fn bind(what: &'static str, address: &str, places: usize) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(address).await?,
            room: Room::new(places),
            what,
        })
    }

    /// The next connection that there is room for.
    pub async fn accept(&self) -> Accepted {
        loop {
            let (stream, from) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    self.count_refused("accept");
                    tracing::warn!(what = self.what, %error, "cannot accept a connection");
                    sleep(ACCEPT_AGAIN_AFTER).await;
                    continue;
                }
            };
            let mut entered = self.room.enter(from.ip());
            for _ in 0..ASKED_MAX {
                if !matches!(entered, Err(Full { has_asked: true })) {
                    break;
                }
                let freed = timeout(LEAVES_WITHIN, self.room.freed.notified()).await;
                entered = self.room.enter(from.ip());
                if freed.is_err() {
                    break;
                }
            }
            match entered {
                // One that is broken already is noticed where it is read.
                Ok(guest) => {
                    let _ = tune(&stream);
                    return Accepted {
                        stream,
                        from,
                        guest,
                    };
                }
                Err(Full { .. }) => {
                    self.count_refused("full");
                    tracing::warn!(what = self.what, %from, "no room for another connection");
                }
            }
        }
    }

    fn count_refused(&self, why: &'static str) {
        metrics::counter!("stockd_connections_refused_total", "port" => self.what, "why" => why)
            .increment(1);
    }
}

/// Whether an error is of the connection that was to be accepted, and not of this process.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused
    )
}

/// Small answers go at once: without this the last percent of them waits 40 ms. And who has gone
/// without a word, as a till that lost its power, is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_TIMES)?;
    Ok(())
}
