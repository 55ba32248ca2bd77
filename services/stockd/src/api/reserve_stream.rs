//! `ReserveStream`: reserves without end over one call.
//!
//! Nothing runs beside the call: whoever sends its answers asks for the next message, and then whatever has
//! come from the caller is read, sorted by shard and proposed, and whatever is decided is answered. A caller
//! that does not take its answers is not read any further.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use stock_core::Command;
use stock_proto::stock::v1 as api;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use super::basket_sorter::{BasketSorter, Decided, embedded};
use super::edge::Edge;
use super::error::ApiError;
use super::meter::{Failures, Meter};
use super::reservations::check_size;
use super::reserve;
use crate::worker::event::{Failure, Freshness, GroupId};

/// Requests of one call that may wait for their answers. Past this the call is not read any further.
const UNANSWERED_MAX: usize = 32 * 1024;

/// Requests that are read before whatever is decided is answered, unless a message has more. So many that what is too
/// much is read, and refused at once, instead of waiting in the transport; so few that other calls wait some milliseconds
/// for them.
const READ_AT_ONCE_MAX: usize = 1_024;

/// Answers in one message, about.
const ANSWERS_PER_MESSAGE: usize = 1_000;

/// One call.
pub(super) struct ReserveStream {
    edge: Arc<Edge>,
    meter: Arc<Meter>,
    requests: Streaming<api::ReserveStreamRequest>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    reading: Reading,
    next_number: u64,
    unanswered: usize,
    sorter: BasketSorter,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send>>>,
    /// For the next message.
    results: Vec<api::ReserveStreamResult>,
    /// Those of them that are errors.
    failures: Failures,
}

/// Whether there is more to be read.
enum Reading {
    On,
    /// No: when everything is answered the call ends, with this error if there is one.
    Over(Option<Status>),
}

/// What has come of some requests.
enum Step {
    Decided(Decided, Instant),
    /// They name locations this node did not know; by now it knows all there are, unless it could not ask.
    CaughtUp(Vec<Checked>, Result<(), Failure>),
}

/// A request in which everything is good, but for the locations perhaps.
struct Checked {
    number: u64,
    shard: u32,
    command: Command,
}

impl ReserveStream {
    /// A call, which ends when the caller ends it, or the node stops.
    pub(super) fn new(
        edge: Arc<Edge>,
        requests: Streaming<api::ReserveStreamRequest>,
        meter: Arc<Meter>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            sorter: BasketSorter::new(edge.shards()),
            edge,
            meter,
            requests,
            stopped: Box::pin(stop.cancelled_owned()),
            reading: Reading::On,
            next_number: 0,
            unanswered: 0,
            under_way: FuturesUnordered::new(),
            results: Vec::new(),
            failures: Failures::default(),
        }
    }

    /// Reads what has come, within bounds, and proposes it.
    fn read(&mut self, context: &mut Context<'_>) {
        let before = self.next_number;
        if self.stopped.as_mut().poll(context).is_ready() && matches!(self.reading, Reading::On) {
            self.reading = Reading::Over(Some(ApiError::Stopping.into()));
        }
        let mut strangers = Vec::new();
        while matches!(self.reading, Reading::On) && self.unanswered < UNANSWERED_MAX {
            if self.next_number - before >= READ_AT_ONCE_MAX as u64 {
                context.waker().wake_by_ref();
                break;
            }
            match Pin::new(&mut self.requests).poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => self.take(&message, &mut strangers),
                Poll::Ready(Some(Err(status))) => self.reading = Reading::Over(Some(status)),
                Poll::Ready(None) => self.reading = Reading::Over(None),
            }
        }
        self.propose();
        if !strangers.is_empty() {
            let edge = Arc::clone(&self.edge);
            self.under_way.push(Box::pin(async move {
                let caught_up = edge.reach(GroupId::META, Freshness::Linearizable).await;
                Step::CaughtUp(strangers, caught_up.map(|_| ()))
            }));
        }
    }

    fn take(&mut self, message: &api::ReserveStreamRequest, strangers: &mut Vec<Checked>) {
        if let Err(error) = check_size(message.requests.len()) {
            self.reading = Reading::Over(Some(error.into()));
            return;
        }
        for request in &message.requests {
            let number = self.next_number;
            self.next_number += 1;
            self.unanswered += 1;
            match reserve::command(request, self.edge.shards(), &self.edge.principal) {
                Err(error) => self.answer(number, Err(error)),
                Ok((shard, command)) => {
                    let locations = reserve::locations(&command);
                    if self.edge.view.first_unknown(locations).is_none() {
                        self.sorter.add(number, shard, &command);
                    } else {
                        strangers.push(Checked {
                            number,
                            shard,
                            command,
                        });
                    }
                }
            }
        }
    }

    fn propose(&mut self) {
        for baskets in self.sorter.take() {
            let edge = Arc::clone(&self.edge);
            let began = Instant::now();
            self.under_way.push(Box::pin(async move {
                Step::Decided(baskets.decide(&edge).await, began)
            }));
        }
    }

    /// Answers what is decided, as much as fits into a message.
    fn collect(&mut self, context: &mut Context<'_>) {
        while self.results.len() < ANSWERS_PER_MESSAGE {
            match Pin::new(&mut self.under_way).poll_next(context) {
                Poll::Pending | Poll::Ready(None) => break,
                Poll::Ready(Some(Step::Decided(decided, began))) => {
                    self.meter.answered(decided.count(), began);
                    for (number, answer) in decided.answers() {
                        self.answer(number, answer);
                    }
                }
                Poll::Ready(Some(Step::CaughtUp(strangers, Err(failure)))) => {
                    for stranger in strangers {
                        self.answer(stranger.number, Err(failure.into()));
                    }
                }
                Poll::Ready(Some(Step::CaughtUp(strangers, Ok(())))) => {
                    for Checked {
                        number,
                        shard,
                        command,
                    } in strangers
                    {
                        match reserve::check_known(&self.edge, &command, String::new) {
                            Ok(()) => self.sorter.add(number, shard, &command),
                            Err(error) => self.answer(number, Err(error)),
                        }
                    }
                    self.propose();
                }
            }
        }
    }

    fn answer(&mut self, number: u64, answer: Result<api::ReserveResponse, ApiError>) {
        use api::reserve_stream_result::Result as Out;
        self.unanswered -= 1;
        let result = match answer {
            Ok(response) => Out::Response(response),
            Err(error) => {
                let status = embedded(error);
                self.failures.add(status.code);
                Out::Error(status)
            }
        };
        self.results.push(api::ReserveStreamResult {
            number,
            result: Some(result),
        });
    }
}

impl Stream for ReserveStream {
    type Item = Result<api::ReserveStreamResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.read(context);
        this.collect(context);
        if !this.results.is_empty() {
            this.meter.failed(&mem::take(&mut this.failures));
            let results = mem::take(&mut this.results);
            return Poll::Ready(Some(Ok(api::ReserveStreamResponse { results })));
        }
        match &mut this.reading {
            Reading::Over(error) if this.under_way.is_empty() => Poll::Ready(error.take().map(Err)),
            Reading::On | Reading::Over(_) => Poll::Pending,
        }
    }
}
