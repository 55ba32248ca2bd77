//! `ReserveStream`: reserves without end over one call.
//!
//! Nothing runs beside the call: whoever sends its answers asks for the next message, and then
//! whatever has come from the caller is read, sorted by shard and proposed, and whatever is decided
//! is answered. A caller that does not take its answers is not read any further.
//!
//! The call ends at its deadline, and what is waited for then may or may not be done.
//!
//! What is too much for its shard is refused as it came, without being read, and that is said once
//! for all of a message: so much more time is left for the others.

use std::collections::VecDeque;
use std::future::{self, Future};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use prost::Message;
use stock_api::basket::{self, check_size};
use stock_cluster::GroupId;
use stock_core::Command;
use stock_node::answer::{Failure, Freshness};
use stock_node::basket::Coordinator;
use stock_proto::codec;
use stock_proto::stock::v1 as api;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Request, Status, Streaming};

use super::deadline::Deadline;
use super::edge::Edge;
use super::error::ApiError;
use super::front::Front;
use super::meter::{Failures, Meter};
use super::over_shards::OverShards;
use super::seen::Seen;
use super::sorter::{self, Decided, Sorter};
use super::{first_sight, reserve};
use crate::listeners::Hold;

/// Requests of one call that may wait for their answers. Past this the call is not read any
/// further.
const UNANSWERED_MAX: usize = 32 * 1024;

/// And so many bytes of them: a quarter of what one shard takes from everybody. With the most
/// requests that may wait it is 256 bytes for each, twice what one of a single line takes.
const UNANSWERED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Requests that are taken before whatever is decided is answered, unless a message has more. So
/// many that what is too much is seen, and refused at once, instead of waiting in the transport; so
/// few that other calls wait some milliseconds for them.
const READ_AT_ONCE_MAX: usize = 1_024;

/// So many commands of a shard find room when a stream finds none: those of single calls, which
/// cannot wait for it as busily as a stream does.
const LEFT_FOR_CALLS: usize = 256;

/// Answers in one message...
const ANSWERS_PER_MESSAGE: usize = 1_000;
/// ...or so many bytes of them, and what is decided together with the last one...
const ANSWER_BYTES_PER_MESSAGE: usize = 1024 * 1024;
/// ...unless that comes to more than this: then the message is cut. Callers take twice as much,
/// whatever language they are written in.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One call.
pub(super) struct ReserveStream {
    edge: Arc<Edge>,
    front: Arc<Front>,
    requests: Streaming<api::ReserveStreamRequest>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
    reading: Reading,
    next_number: u64,
    unanswered: usize,
    /// Of those that wait for a decision.
    unanswered_bytes: usize,
    /// What the call may hold, where it came over a connection, and what it has taken of that.
    hold: Option<Hold>,
    held: usize,
    /// Enough was read for once.
    is_others_turn: bool,
    sorter: Sorter,
    over_shards: OverShards,
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Step> + Send>>>,
    answers: Answers,
}

/// What has yet to be told.
#[derive(Default)]
struct Answers {
    results: VecDeque<api::ReserveStreamResult>,
    /// Of all of them.
    bytes: usize,
    /// Requests that were too much.
    overload: Vec<u64>,
    /// Those of them all that are errors.
    failures: Failures,
    /// Where they are written.
    seen: Seen,
}

/// Whether there is more to be read.
enum Reading {
    On,
    /// No: when everything is answered the call ends, with this error if there is one.
    Over(Option<Status>),
}

/// What has come of some requests of so many bytes.
struct Step {
    bytes: usize,
    came: Came,
}

enum Came {
    Decided(Decided, Instant),
    /// They name locations this node did not know; by now it knows all there are, unless it could
    /// not ask.
    CaughtUp(Vec<Checked>, Result<(), Failure>),
}

/// A request in which everything is good, but for the locations perhaps.
struct Checked {
    number: u64,
    shard: u32,
    command: Command,
    /// Of its request.
    bytes: usize,
}

impl ReserveStream {
    /// A call, which ends when the caller ends it, at its deadline, or when the node stops.
    pub(super) fn new(
        edge: Arc<Edge>,
        call: Request<Streaming<api::ReserveStreamRequest>>,
        front: Arc<Front>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            sorter: Sorter::default(),
            over_shards: OverShards::new(&edge),
            edge,
            front,
            deadline: Deadline::of(call.metadata()).sleep(),
            hold: Hold::of(call.extensions()),
            held: 0,
            requests: call.into_inner(),
            stopped: Box::pin(stop.cancelled_owned()),
            reading: Reading::On,
            next_number: 0,
            unanswered: 0,
            unanswered_bytes: 0,
            is_others_turn: false,
            under_way: FuturesUnordered::new(),
            answers: Answers::default(),
        }
    }

    fn meter(&self) -> &Meter {
        self.front.meter::<api::ReserveStreamRequest>()
    }

    /// Reads what has come, within bounds, and proposes it.
    fn read(&mut self, context: &mut Context<'_>) {
        let began = Instant::now();
        let first = self.next_number;
        if self.stopped.as_mut().poll(context).is_ready() && matches!(self.reading, Reading::On) {
            self.reading = Reading::Over(Some(ApiError::Stopping.into()));
        }
        let mut strangers = Vec::new();
        while matches!(self.reading, Reading::On) && self.has_room() {
            if self.next_number - first >= READ_AT_ONCE_MAX as u64 {
                self.is_others_turn = true;
                break;
            }
            match Pin::new(&mut self.requests).poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => self.take(&message, &mut strangers),
                Poll::Ready(Some(Err(status))) => self.reading = Reading::Over(Some(status)),
                Poll::Ready(None) => self.reading = Reading::Over(None),
            }
        }
        self.meter().answered(self.answers.overload.len(), began);
        self.propose();
        if !strangers.is_empty() {
            let edge = Arc::clone(&self.edge);
            let bytes = strangers.iter().map(|stranger| stranger.bytes).sum();
            self.unanswered_bytes += bytes;
            self.under_way.push(Box::pin(async move {
                let caught_up = edge.reach(GroupId::META, Freshness::LINEARIZABLE).await;
                let came = Came::CaughtUp(strangers, caught_up.map(|_| ()));
                Step { bytes, came }
            }));
        }
    }

    /// Whether more may be read. While nothing waits it is the listener who says so, to the caller
    /// as well.
    fn has_room(&self) -> bool {
        let is_idle = self.is_done() && self.answers.is_empty();
        self.unanswered < UNANSWERED_MAX
            && self.waiting_bytes() + self.sorter.bytes() < UNANSWERED_BYTES_MAX
            && (is_idle || self.hold.as_ref().is_none_or(Hold::has_room))
    }

    /// Whether nothing that was proposed waits for a decision.
    fn is_done(&self) -> bool {
        self.under_way.is_empty() && self.over_shards.is_empty()
    }

    /// Bytes of the requests that wait for a decision.
    fn waiting_bytes(&self) -> usize {
        self.unanswered_bytes + self.over_shards.bytes()
    }

    /// Has what waits count for the connection.
    fn count_what_waits(&mut self) {
        let waits = self.waiting_bytes() + self.answers.bytes;
        if let Some(hold) = &self.hold {
            match waits.checked_sub(self.held) {
                Some(more) => hold.take_anyway(more),
                None => hold.give_back(self.held - waits),
            }
            self.held = waits;
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
            if self.is_too_much(request) {
                self.answer(number, Err(Failure::Overloaded.into()));
                continue;
            }
            match self.command(request) {
                Err(error) => self.answer(number, Err(error)),
                Ok((shard, command)) => {
                    let locations = basket::locations(&command);
                    if self.edge.view.first_unknown(locations).is_none() {
                        self.sort(number, shard, command);
                    } else {
                        strangers.push(Checked {
                            number,
                            shard,
                            command,
                            bytes: request.len(),
                        });
                    }
                }
            }
        }
    }

    /// Whether its shard has no room left, beside those that are read already.
    fn is_too_much(&self, request: &[u8]) -> bool {
        let shard = first_sight::shard(request, self.edge.shards());
        shard.is_some_and(|shard| {
            let with_it = self.sorter.count_of(shard) + 1;
            let group = GroupId::of_shard(shard);
            self.edge.is_full(group, with_it + LEFT_FOR_CALLS)
        })
    }

    fn command(&self, request: &[u8]) -> Result<(u32, Command), ApiError> {
        let request: api::ReserveRequest = codec::read(request).map_err(ApiError::Unreadable)?;
        Ok(reserve::command(&request, self.edge.asker())?)
    }

    fn sort(&mut self, number: u64, shard: u32, command: Command) {
        match Coordinator::new(command) {
            Ok(begun) => self.over_shards.add(number, begun),
            Err(command) => self.sorter.add(number, shard, &command),
        }
    }

    fn propose(&mut self) {
        for batch in self.sorter.take() {
            let edge = Arc::clone(&self.edge);
            let began = Instant::now();
            let bytes = batch.bytes();
            self.unanswered_bytes += bytes;
            let mut decision: Pin<Box<dyn Future<Output = Step> + Send>> = Box::pin(async move {
                let came = Came::Decided(batch.decide(&edge).await, began);
                Step { bytes, came }
            });
            // They take their room now, so that it is not counted upon for what is read next.
            let mut unheard = Context::from_waker(Waker::noop());
            self.under_way
                .push(match decision.as_mut().poll(&mut unheard) {
                    Poll::Ready(step) => Box::pin(future::ready(step)),
                    Poll::Pending => decision,
                });
        }
    }

    /// Answers what is decided, as much as fits into a message, and what is decided together with
    /// it.
    fn collect(&mut self, context: &mut Context<'_>) {
        while !self.answers.fill_a_message() {
            if let Poll::Ready(Some((number, came_of))) = self.over_shards.poll_next_unpin(context)
            {
                self.meter().answered(1, came_of.began);
                self.answers.seen.wrote_all(&came_of.seen);
                self.answer(number, came_of.answer());
                continue;
            }
            let step = match Pin::new(&mut self.under_way).poll_next(context) {
                Poll::Pending | Poll::Ready(None) => break,
                Poll::Ready(Some(step)) => step,
            };
            self.unanswered_bytes -= step.bytes;
            match step.came {
                Came::Decided(decided, began) => {
                    self.meter().answered(decided.count(), began);
                    decided.note(&mut self.answers.seen);
                    for (number, answer) in decided.answers() {
                        self.answer(number, answer);
                    }
                }
                Came::CaughtUp(strangers, Err(failure)) => {
                    for stranger in strangers {
                        self.answer(stranger.number, Err(failure.into()));
                    }
                }
                Came::CaughtUp(strangers, Ok(())) => {
                    for Checked {
                        number,
                        shard,
                        command,
                        ..
                    } in strangers
                    {
                        match reserve::check_known(&self.edge, &command, String::new) {
                            Ok(()) => self.sort(number, shard, command),
                            Err(error) => self.answer(number, Err(error)),
                        }
                    }
                    self.propose();
                }
            }
        }
    }

    /// Its deadline has come: nobody waits for what is not answered yet.
    fn end_late(&mut self) -> Option<Result<api::ReserveStreamResponse, Status>> {
        self.deadline = None;
        self.under_way.clear();
        self.over_shards = OverShards::new(&self.edge);
        self.answers = Answers::default();
        self.unanswered_bytes = 0;
        self.reading = Reading::Over(None);
        self.count_what_waits();
        Some(Err(ApiError::DeadlineExceeded.into()))
    }

    fn answer(&mut self, number: u64, answer: Result<api::ReserveResponse, ApiError>) {
        self.unanswered -= 1;
        self.answers.add(number, answer);
    }
}

impl Answers {
    fn add(&mut self, number: u64, answer: Result<api::ReserveResponse, ApiError>) {
        use api::reserve_stream_result::Result as Out;
        let result = match answer {
            Ok(response) => Out::Response(response),
            Err(ApiError::Failed(Failure::Overloaded)) => {
                self.failures.add(Code::ResourceExhausted.into());
                self.overload.push(number);
                return;
            }
            Err(error) => {
                let status = sorter::embedded(error);
                self.failures.add(status.code);
                Out::Error(status)
            }
        };
        let result = api::ReserveStreamResult {
            number,
            result: Some(result),
        };
        self.bytes += result.encoded_len();
        self.results.push_back(result);
    }

    fn fill_a_message(&self) -> bool {
        self.results.len() >= ANSWERS_PER_MESSAGE || self.bytes >= ANSWER_BYTES_PER_MESSAGE
    }

    fn is_empty(&self) -> bool {
        self.results.is_empty() && self.overload.is_empty()
    }

    /// As much as one message takes: all of it, as a rule.
    fn next_message(&mut self) -> api::ReserveStreamResponse {
        let mut results = Vec::new();
        if self.bytes <= MESSAGE_BYTES_MAX {
            self.bytes = 0;
            results = mem::take(&mut self.results).into();
        } else {
            let rest = self.bytes - ANSWER_BYTES_PER_MESSAGE;
            while self.bytes > rest
                && let Some(result) = self.results.pop_front()
            {
                self.bytes -= result.encoded_len();
                results.push(result);
            }
        }
        let overload = mem::take(&mut self.overload);
        api::ReserveStreamResponse {
            header: None,
            results,
            overload: (!overload.is_empty()).then(|| api::ReserveStreamOverload {
                numbers: overload,
                error: Some(sorter::overloaded()),
            }),
        }
    }
}

impl Stream for ReserveStream {
    type Item = Result<api::ReserveStreamResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if mem::take(&mut this.is_others_turn) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(this.end_late());
        }
        this.read(context);
        this.collect(context);
        if !this.answers.is_empty() {
            let failures = mem::take(&mut this.answers.failures);
            this.meter().failed(&failures);
            let mut message = this.answers.next_message();
            let seen = mem::take(&mut this.answers.seen);
            message.header = Some(this.edge.header(seen));
            this.count_what_waits();
            return Poll::Ready(Some(Ok(message)));
        }
        this.count_what_waits();
        let is_done = this.is_done();
        match &mut this.reading {
            Reading::Over(error) if is_done => Poll::Ready(error.take().map(Err)),
            Reading::On | Reading::Over(_) => {
                if mem::take(&mut this.is_others_turn) {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}
