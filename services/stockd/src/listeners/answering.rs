//! An answer, up to its last byte: cut into parts, so that the transport has only as much of it as
//! the other side takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::fault::Fault;
use super::under_way::{Part, UnderWay};

/// What the transport gets of an answer at a time: as much as one of its frames has. It asks for
/// more once the other side has taken some of it.
const PART_BYTES: usize = 16 * 1024;

/// The body of an answer.
pub(super) struct Answering {
    body: tonic::body::Body,
    call: Arc<UnderWay>,
    /// What is left of a message that was cut.
    rest: Bytes,
    /// What the whole of it holds.
    held: usize,
    is_over: bool,
}

impl Answering {
    pub(super) fn new(body: tonic::body::Body, call: Arc<UnderWay>) -> Self {
        if body.is_end_stream() {
            // Nobody asks for what is not there.
            call.is_over();
        }
        Self {
            body,
            call,
            rest: Bytes::new(),
            held: 0,
            is_over: false,
        }
    }

    fn next_part(&mut self) -> Frame<Part> {
        let part = self.rest.split_to(self.rest.len().min(PART_BYTES));
        let held = match self.rest.is_empty() {
            true => std::mem::take(&mut self.held),
            false => 0,
        };
        Frame::data(Part::new(part, held, &self.call))
    }

    fn end_with(&mut self, fault: Fault) -> Option<Result<Frame<Part>, Status>> {
        self.is_over = true;
        self.call.is_over();
        let mut trailers = HeaderMap::new();
        let status = fault.tell();
        Some(
            status
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
        )
    }
}

impl Body for Answering {
    type Data = Part;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, Status>>> {
        let this = self.get_mut();
        this.call.is_taken.store(false, Ordering::Relaxed);
        if this.is_over {
            return Poll::Ready(None);
        }
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.next_part())));
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(status)) => {
                this.call.is_over();
                return Poll::Ready(Some(Err(status)));
            }
            None => {
                this.call.is_over();
                return Poll::Ready(None);
            }
        };
        Poll::Ready(match frame.into_data() {
            Ok(data) => match this.call.hold_answer(data.len()) {
                Some(held) => {
                    (this.rest, this.held) = (data, held);
                    Some(Ok(this.next_part()))
                }
                None => this.end_with(Fault::NoRoomForAnswer),
            },
            Err(frame) => {
                this.call.is_over();
                // It is no data, so it is trailers.
                frame.into_trailers().ok().map(|it| Ok(Frame::trailers(it)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.rest.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.is_empty() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}
