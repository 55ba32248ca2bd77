//! Conversations between nodes that take long: each on a connection and a thread of its own, with blocking
//! sockets, so that nothing of it stops the loop or the calls beside it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use stock_proto::cluster::v1 as cluster;

use super::wire::{HELLO_BYTES_MAX, verdict};
use super::{HELLO_WITHIN, PeerError};
use crate::identity::Introductions;

/// A peer that takes or sends nothing for so long has gone.
const SILENT_FOR: Duration = Duration::from_secs(10);

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
    let hello: cluster::Hello = read_message(&mut stream, HELLO_BYTES_MAX)?;
    let told: cluster::Verdict = read_message(&mut stream, HELLO_BYTES_MAX)?;
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

/// Reads a message of so many bytes at most.
pub(super) fn read_message<M: Message + Default>(
    stream: &mut TcpStream,
    bytes_max: usize,
) -> Result<M, PeerError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(PeerError::Malformed(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    M::decode(Bytes::from(bytes)).map_err(|error| PeerError::Malformed(error.to_string()))
}
