//! Frames on a TCP stream: four bytes of length, little-endian, then protobuf.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use rustix::net::sockopt;
use stock_cluster::identity::Refusal;
use stock_wire::cluster::v1 as cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;

use super::error::PeerError;

/// Larger than everything one turn can send to one peer: a full window of appends.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest introduction or verdict: of 256 nodes that are remembered each takes up to 750 bytes.
pub(super) const HELLO_BYTES_MAX: usize = 256 * 1024;

/// What a read asks the socket for.
const READ_BYTES: usize = 64 * 1024;

/// Room that is made for a frame of which little has come.
const AHEAD_BYTES: usize = 1024 * 1024;

/// A frame that has begun goes on within this. Nodes say something twice a second, and who sends a
/// large frame has all of it in memory.
const FRAME_GOES_ON_WITHIN: Duration = Duration::from_secs(10);

/// A peer whose machine is gone is noticed after this, though it never said goodbye.
const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(5);

/// Small messages go at once, and dead connections are noticed.
pub(crate) fn tune(stream: &TcpStream) -> Result<(), PeerError> {
    stream.set_nodelay(true)?;
    let milliseconds = UNACKNOWLEDGED_FOR.as_millis() as u32;
    sockopt::set_tcp_user_timeout(stream, milliseconds).map_err(std::io::Error::from)?;
    Ok(())
}

pub(super) fn encode_frame(frame: &cluster::Frame, out: &mut BytesMut) {
    let length = frame.encoded_len();
    out.reserve(4 + length);
    out.put_u32_le(length as u32);
    frame.encode_raw(out);
}

/// Writes a message behind its length.
pub(crate) async fn write_message(
    stream: &mut TcpStream,
    message: &impl Message,
) -> Result<(), PeerError> {
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(message.encoded_len() as u32);
    message.encode_raw(&mut bytes);
    stream.write_all(&bytes).await?;
    Ok(())
}

/// Says what was made of the other's introduction.
pub(crate) async fn write_verdict<T>(
    stream: &mut TcpStream,
    judged: &Result<T, Refusal>,
) -> Result<(), PeerError> {
    write_message(stream, &verdict(judged)).await
}

/// What is said of the other's introduction.
pub(crate) fn verdict<T>(judged: &Result<T, Refusal>) -> cluster::Verdict {
    match judged {
        Ok(_) => cluster::Verdict::default(),
        Err(refusal) => refusal.verdict(),
    }
}

pub(crate) async fn read_hello(stream: &mut TcpStream) -> Result<cluster::Hello, PeerError> {
    read_message(stream, HELLO_BYTES_MAX).await
}

pub(crate) async fn read_verdict(stream: &mut TcpStream) -> Result<cluster::Verdict, PeerError> {
    read_message(stream, HELLO_BYTES_MAX).await
}

/// Reads a message of so many bytes at most.
pub(super) async fn read_message<M: Message + Default>(
    stream: &mut TcpStream,
    bytes_max: usize,
) -> Result<M, PeerError> {
    let length = stream.read_u32_le().await? as usize;
    if length > bytes_max {
        return Err(PeerError::Malformed(format!("a message of {length} bytes")));
    }
    // Who only announces bytes takes no memory for them.
    let mut bytes = Vec::new();
    let mut announced = (&mut *stream).take(length as u64);
    if announced.read_to_end(&mut bytes).await? < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    M::decode(bytes.as_slice()).map_err(|e| PeerError::Malformed(e.to_string()))
}

/// Cuts a stream into frames.
///
/// A frame is copied out of the buffer it was read into, into memory of just its size, which its
/// byte fields share. They live long (an entry stays in the log's cache), and a slice of the read
/// buffer would keep all of it alive.
#[derive(Default)]
pub(super) struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Reads what has come, at least a byte; 0 at the end of the stream.
    pub(super) async fn fill(&mut self, stream: &mut OwnedReadHalf) -> Result<usize, PeerError> {
        let is_inside = !self.buffer.is_empty();
        self.buffer.reserve(READ_BYTES);
        let read = stream.read_buf(&mut self.buffer);
        match is_inside {
            false => Ok(read.await?),
            true => match timeout(FRAME_GOES_ON_WITHIN, read).await {
                Ok(read) => Ok(read?),
                Err(_) => Err(PeerError::Silent),
            },
        }
    }

    /// The next whole frame, and its length in bytes.
    pub(super) fn next(&mut self) -> Result<Option<(cluster::Frame, usize)>, PeerError> {
        let Some(header) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(PeerError::Malformed(format!("a frame of {length} bytes")));
        }
        let Some(frame) = self.buffer.get(4..4 + length) else {
            // As much as has come already, at most: who only announces a frame takes no memory for
            // it.
            let missing = 4 + length - self.buffer.len();
            self.buffer
                .reserve(missing.min(self.buffer.len().max(AHEAD_BYTES)));
            return Ok(None);
        };
        let frame = Bytes::copy_from_slice(frame);
        self.buffer.advance(4 + length);
        cluster::Frame::decode(frame)
            .map(|frame| Some((frame, length)))
            .map_err(|error| PeerError::Malformed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_announces_a_frame_takes_no_memory_for_it() {
        let mut reader = FrameReader::default();
        reader.buffer.put_u32_le(FRAME_BYTES_MAX as u32);
        for come in [1, 100_000, 8_000_000] {
            reader.buffer.put_bytes(7, come);
            assert!(matches!(reader.next(), Ok(None)));
            let (length, capacity) = (reader.buffer.len(), reader.buffer.capacity());
            assert!(
                capacity <= 4 * length + 2 * AHEAD_BYTES,
                "{capacity} for {length}"
            );
        }
        reader.buffer.clear();
        reader.buffer.put_u32_le(FRAME_BYTES_MAX as u32 + 1);
        assert!(reader.next().is_err());
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let frame = |wall_clock_ms, payload: &'static [u8]| cluster::Frame {
            wall_clock_ms,
            messages: vec![cluster::GroupMessage {
                group: 3,
                payload: Bytes::from_static(payload),
                cluster_time_ms: 5,
                cluster_time_term: 6,
            }],
            ..Default::default()
        };
        let frames = [frame(1, b""), frame(2, &[7; 300]), frame(3, b"x")];
        let mut stream = BytesMut::new();
        frames
            .iter()
            .for_each(|frame| encode_frame(frame, &mut stream));
        for step in [1, 2, 3, 5, 64, stream.len()] {
            let mut reader = FrameReader::default();
            let (mut taken, mut bytes) = (Vec::new(), 0);
            for chunk in stream.chunks(step) {
                reader.buffer.extend_from_slice(chunk);
                while let Some((frame, length)) = reader.next().unwrap() {
                    taken.push(frame);
                    bytes += 4 + length;
                }
            }
            assert_eq!(taken, frames, "cut every {step} bytes");
            assert_eq!(bytes, stream.len());
        }
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_before_it_is_read() {
        let mut reader = FrameReader::default();
        reader.buffer.put_u32_le(FRAME_BYTES_MAX as u32 + 1);
        assert!(matches!(reader.next(), Err(PeerError::Malformed(_))));
    }
}
