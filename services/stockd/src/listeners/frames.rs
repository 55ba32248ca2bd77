//! What is read of an HTTP/2 connection, watched as it goes by: whether the client has introduced
//! itself, and how many calls it resets, and how much data has come. The transport tells none of
//! it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::has_budget_remaining;

/// A client begins with so many bytes, always the same: the transport checks them.
const PREFACE_BYTES: usize = 24;
/// Length, type, flags and stream.
const HEAD_BYTES: usize = 9;
/// The type of a frame with data for a stream...
const DATA: u8 = 0;
/// ...and of one that resets it.
const RST_STREAM: u8 = 3;

/// Counts frames, however what is read is cut.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes up to the next head.
    skip: usize,
    is_before_preface_ends: bool,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
}

/// What went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// The client has just said what it speaks.
    pub(super) preface: bool,
    /// Calls that it reset.
    pub(super) resets: u64,
    /// Bytes of data, counted where their frame begins.
    pub(super) data: usize,
    /// There is more to be read.
    pub(super) has_more: bool,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            is_before_preface_ends: true,
            head: [0; HEAD_BYTES],
            head_bytes: 0,
        }
    }

    /// Takes note of what was read.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                if self.skip == 0 && self.is_before_preface_ends {
                    self.is_before_preface_ends = false;
                    seen.preface = true;
                }
                continue;
            }
            let taken = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            self.head[self.head_bytes..][..taken].copy_from_slice(head);
            self.head_bytes += taken;
            bytes = rest;
            if self.head_bytes == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.head_bytes = 0;
                match kind {
                    DATA => seen.data += self.skip,
                    RST_STREAM => seen.resets += 1,
                    _ => {}
                }
            }
        }
        seen
    }
}

/// A connection that says what is read of it.
pub(super) struct Watched<F> {
    stream: TcpStream,
    frames: Frames,
    has_more: bool,
    on_seen: F,
}

impl<F: Fn(Seen)> Watched<F> {
    /// Tells `on_seen` of everything that is of note.
    pub(super) fn new(stream: TcpStream, on_seen: F) -> Self {
        Self {
            stream,
            frames: Frames::new(),
            has_more: false,
            on_seen,
        }
    }
}

impl<F: Fn(Seen) + Unpin> AsyncRead for Watched<F> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let bytes = &buffer.filled()[before..];
        let mut seen = this.frames.read(bytes);
        seen.has_more = match &read {
            // Less than there was room for is all that there is.
            Poll::Ready(_) => room > 0 && bytes.len() == room,
            // It is empty, unless the runtime wants others to have their turn first.
            Poll::Pending => this.has_more && !has_budget_remaining(),
        };
        let is_of_note = seen.preface || seen.resets > 0 || seen.data > 0;
        if is_of_note || seen.has_more != this.has_more {
            this.has_more = seen.has_more;
            (this.on_seen)(seen);
        }
        read
    }
}

impl<F: Unpin> AsyncWrite for Watched<F> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn resets_are_counted_however_the_stream_is_cut() {
        let mut bytes = vec![b'P'; PREFACE_BYTES];
        bytes.extend(frame(4, &[]));
        // What is inside a frame is no head, whatever it looks like.
        bytes.extend(frame(0, &frame(RST_STREAM, &[0; 4])));
        for _ in 0..3 {
            bytes.extend(frame(1, &[7; 300]));
            bytes.extend(frame(RST_STREAM, &[0, 0, 0, 8]));
        }
        for step in [1, 2, 5, 9, 24, 100, bytes.len()] {
            let mut frames = Frames::new();
            let (mut prefaces, mut resets, mut data) = (0, 0, 0);
            for chunk in bytes.chunks(step) {
                let seen = frames.read(chunk);
                prefaces += u64::from(seen.preface);
                resets += seen.resets;
                data += seen.data;
            }
            let seen = (prefaces, resets, data);
            assert_eq!(seen, (1, 3, HEAD_BYTES + 4), "cut every {step} bytes");
        }
    }

    #[test]
    fn half_a_preface_is_no_introduction() {
        let mut frames = Frames::new();
        assert!(!frames.read(&[b'P'; PREFACE_BYTES - 1]).preface);
        assert!(frames.read(b"P").preface);
    }
}
