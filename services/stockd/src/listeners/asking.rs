//! What a caller asks, as its bytes come: how much of it there may be, and how long it is waited
//! for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use stock_proto::codec::MESSAGE_BYTES_MAX;
use tokio::time::Instant;
use tonic::Status;

use super::fault::Fault;
use super::patience::{Over, Patience};
use super::prefixes::{Prefixes, TooLarge};
use super::under_way::UnderWay;

/// The last of many messages, where they are kept until then, has come within this: it takes
/// seconds.
const COLLECTED_WITHIN: Duration = Duration::from_secs(600);

/// The caller's own transport ends a call at its deadline. This one does so that much later: a
/// request that is just coming is judged by the API, which can say more.
const AFTER_CALLER: Duration = Duration::from_millis(100);

/// How many messages a call takes, and what it does with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One.
    Single,
    /// Many, which it keeps until the last has come.
    Collects,
    /// Many, which it answers as they come: nothing may come for long.
    Converses,
}

/// The body of a request.
pub(super) struct Asking {
    incoming: Incoming,
    call: Arc<UnderWay>,
    kind: Kind,
    prefixes: Prefixes,
    /// Bytes that have come.
    moved: u64,
    /// For messages that have not been read yet, of a call that answers them as they come.
    charged: usize,
    /// The end of a single message, kept until it is known that nothing more comes. Nothing is read
    /// before, since a message takes more room once it is read, and who does not end it could make
    /// it take that for long.
    kept: Option<Bytes>,
    end: Option<End>,
    patience: Patience,
    was_waited_for: bool,
    began: Instant,
}

/// What comes behind the last of the data.
enum End {
    Trailers(Frame<Bytes>),
    Nothing,
}

impl Asking {
    pub(super) fn new(incoming: Incoming, call: &Arc<UnderWay>, kind: Kind) -> Self {
        Self {
            incoming,
            call: Arc::clone(call),
            kind,
            prefixes: Prefixes::default(),
            moved: 0,
            charged: 0,
            kept: None,
            end: None,
            patience: Patience::default(),
            was_waited_for: false,
            began: Instant::now(),
        }
    }

    /// Takes note of what came. Says whether the reader may have it now.
    fn take(&mut self, data: &Bytes) -> Result<bool, Fault> {
        self.moved += data.len() as u64;
        self.call.usage.was_read(data.len());
        let announced = self.prefixes.read(data, MESSAGE_BYTES_MAX);
        let announced = announced.map_err(|TooLarge { bytes }| Fault::MessageTooLarge { bytes })?;
        let has_room = match self.kind {
            // Even if it has not come whole.
            Kind::Single if self.prefixes.begun() > 1 => return Err(Fault::SeveralMessages),
            Kind::Single => announced == 0 || self.call.hold_request(announced),
            Kind::Collects => self.call.hold(announced),
            Kind::Converses => {
                let is_held = self.call.hold(announced);
                if is_held {
                    self.charged += announced;
                }
                is_held
            }
        };
        if !has_room {
            return Err(Fault::NoRoom);
        }
        let is_last = self.kind == Kind::Single && !self.prefixes.is_inside();
        if is_last && self.was_waited_for {
            self.call.came_late.store(true, Ordering::Relaxed);
        }
        Ok(!is_last || self.incoming.is_end_stream())
    }

    /// Whether anything is owed: the rest of a message, or one that is waited for.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        if self.kind == Kind::Converses && !self.prefixes.is_inside() {
            return Poll::Pending;
        }
        self.was_waited_for = true;
        let callers = self.call.deadline.map(|deadline| deadline + AFTER_CALLER);
        let own = (self.kind == Kind::Collects).then(|| self.began + COLLECTED_WITHIN);
        let deadline = [callers, own].into_iter().flatten().min();
        let over = self.patience.poll(self.moved, deadline, cx);
        over.map(|over| match over {
            Over::Late if deadline == callers => Fault::LateRequest,
            Over::Late | Over::Silent => Fault::SenderSilent,
        })
    }

    /// What has come by now waits for nobody any more.
    fn throw_away(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) =
            Pin::new(&mut self.incoming).poll_frame(&mut nobody)
        {
            if let Some(data) = frame.data_ref() {
                self.call.usage.was_read(data.len());
            }
        }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.kept = None;
        self.patience.rest();
        self.throw_away();
        self.end = Some(End::Nothing);
        Poll::Ready(Some(Err(fault.tell())))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.end.is_none() {
            self.throw_away();
        }
    }
}

impl Body for Asking {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.charged > 0 && !this.prefixes.is_inside() {
            // Who asks for more has read all messages that were whole.
            this.call.give_back(std::mem::take(&mut this.charged));
        }
        loop {
            match this.end.take() {
                None => {}
                Some(end) => {
                    if let Some(kept) = this.kept.take() {
                        this.end = Some(end);
                        return Poll::Ready(Some(Ok(Frame::data(kept))));
                    }
                    this.end = Some(End::Nothing);
                    return Poll::Ready(match end {
                        End::Trailers(trailers) => Some(Ok(trailers)),
                        End::Nothing => None,
                    });
                }
            }
            match Pin::new(&mut this.incoming).poll_frame(cx) {
                Poll::Pending => {
                    return match this.poll_patience(cx) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(fault) => this.fail(fault),
                    };
                }
                Poll::Ready(None) => this.end = Some(End::Nothing),
                Poll::Ready(Some(Err(error))) => {
                    this.end = Some(End::Nothing);
                    this.kept = None;
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Err(trailers) => this.end = Some(End::Trailers(trailers)),
                    // An empty frame says nothing, but that there may be another one.
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => match this.take(&data) {
                        Err(fault) => return this.fail(fault),
                        Ok(true) => {
                            if !this.prefixes.is_inside() {
                                this.patience.rest();
                            }
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        Ok(false) => this.kept = Some(data),
                    },
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.end {
            Some(End::Nothing) => self.kept.is_none(),
            Some(End::Trailers(_)) => false,
            None => self.kept.is_none() && self.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.end, &self.kept) {
            (None, None) => self.incoming.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
