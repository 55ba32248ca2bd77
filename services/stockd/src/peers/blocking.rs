//! Conversations between nodes that take long: each on a connection and a thread of its own, with
//! blocking sockets, so that nothing of it stops the loop or the calls beside it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use stock_wire::cluster::v1 as cluster;

use super::error::{HELLO_WITHIN, PeerError};
use super::wire::{HELLO_BYTES_MAX, verdict};
use crate::peers::introductions::Introductions;

/// A peer that takes or sends nothing for so long has gone.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// And one that takes or sends less than this in that time has stalled: whoever dribbles keeps no
/// place for himself.
const PROGRESS_BYTES_MIN: usize = 256 * 1024;

/// Opens a connection to a peer, and both sides introduce themselves.
pub(super) fn connect(
    introductions: &Introductions,
    node: u64,
    address: &str,
    purpose: cluster::Purpose,
) -> Result<TcpStream, PeerError> {
    let whom = format!("node {node} at {address}");
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, HELLO_WITHIN)?;
    stream.set_nodelay(true)?;
    prepare(&stream)?;
    write_message(&mut stream, &introductions.hello(purpose))?;
    let hello: cluster::Hello = read_message(&mut stream, HELLO_BYTES_MAX, HELLO_WITHIN)?;
    let told: cluster::Verdict = read_message(&mut stream, HELLO_BYTES_MAX, HELLO_WITHIN)?;
    introductions.heed_node(node, &whom, &hello, &told)?;
    let judged = introductions.look_at(&hello, None);
    write_message(&mut stream, &verdict(&judged))?;
    judged?;
    Ok(stream)
}

/// Makes a connection blocking, with an end to silence.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENT_FOR))?;
    stream.set_write_timeout(Some(SILENT_FOR))
}

/// Writes a message behind its length.
pub(super) fn write_message(
    stream: &mut TcpStream,
    message: &impl Message,
) -> Result<(), PeerError> {
    let mut bytes = (message.encoded_len() as u32).to_le_bytes().to_vec();
    message.encode_raw(&mut bytes);
    Ok(stream.write_all(&bytes)?)
}

/// Reads a message of so many bytes at most, all of it in time.
pub(super) fn read_message<M: Message + Default>(
    stream: &mut TcpStream,
    bytes_max: usize,
    within: Duration,
) -> Result<M, PeerError> {
    let until = Instant::now() + within;
    let mut length = [0; 4];
    read_until(stream, &mut length, until)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(PeerError::Malformed(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    read_until(stream, &mut bytes, until)?;
    M::decode(Bytes::from(bytes)).map_err(|error| PeerError::Malformed(error.to_string()))
}

fn read_until(stream: &mut TcpStream, mut bytes: &mut [u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(bytes)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
    }
    Ok(())
}

/// Sees to it that a long conversation goes on.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    bytes: usize,
}

impl Pace {
    pub(super) fn begin() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// So many bytes more.
    pub(super) fn moved(&mut self, bytes: usize) -> Result<(), PeerError> {
        self.bytes += bytes;
        if self.since.elapsed() < SILENT_FOR {
            return Ok(());
        }
        if self.bytes < PROGRESS_BYTES_MIN {
            return Err(PeerError::Stalled { bytes: self.bytes });
        }
        *self = Self::begin();
        Ok(())
    }
}
