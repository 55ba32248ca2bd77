//! `ReserveStream`: one call to each leader, and everything that goes wrong with one is tried again
//! as single calls, under the same request ids.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_stream_result::Result as Slot;
use stock_proto::stock::v1::{
    ReserveRequest, ReserveResponse, ReserveStreamRequest, ReserveStreamResponse,
    ReserveStreamResult, ResponseHeader,
};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tonic::{Response, Status, Streaming};
use tracing::debug;

use crate::client::Client;
use crate::error::{Error, StatusError};
use crate::link::{Link, Way};
use crate::request_id::fill_request_id;
use crate::way::{self, Backoff, Chosen, Lesson, Next, Target, next};

/// Requests of one stream that may wait for their answers; past this no more are taken.
pub const UNANSWERED_MAX: usize = 4_096;

/// Requests in one message at most.
const REQUESTS_PER_MESSAGE_MAX: usize = 1_000;

/// How often the calls are looked at for ones that nobody answers any more.
const CHECK_EVERY: Duration = Duration::from_millis(50);

type Answered = (u64, Result<ReserveResponse, Error>);

/// The answers to many reserves: each with the number of its request, from 0 in the order in which
/// they were taken, and in the order in which they are decided. See [`Client::reserve_stream`].
pub struct ReserveStream<S> {
    client: Client,
    /// None when all of it is taken.
    requests: Option<Pin<Box<S>>>,
    next_number: u64,
    /// By endpoint.
    calls: BTreeMap<Arc<str>, Call>,
    again: FuturesUnordered<Pin<Box<dyn Future<Output = Answered> + Send>>>,
    answers: VecDeque<Answered>,
    check: Interval,
}

/// A call to one node.
struct Call {
    chosen: Chosen<Arc<Link>>,
    way: Way,
    sender: UnboundedSender<ReserveRequest>,
    answers: Answers,
    /// How many requests were sent.
    sent: u64,
    /// Those without an answer, by their number in this call.
    unanswered: BTreeMap<u64, (u64, ReserveRequest)>,
    /// When it last answered, or had nothing to answer.
    heard_at: Instant,
}

type Opening =
    dyn Future<Output = Result<Response<Streaming<ReserveStreamResponse>>, Status>> + Send;

enum Answers {
    Opening(Pin<Box<Opening>>),
    Open(Box<Streaming<ReserveStreamResponse>>),
}

impl Client {
    /// Reserves one basket after the other, [`UNANSWERED_MAX`] of them at once, over one call to
    /// each leader: several times as many a second as single calls can do. Every request ends with
    /// an answer, or with the error that [`Client::reserve`] would have given.
    ///
    /// Dropping it leaves open what became of the requests without an answer: repeat them with
    /// their ids. Who wants to be able to gives each of them one, as of
    /// [`new_request_id`](crate::new_request_id).
    pub fn reserve_stream<S>(&self, requests: S) -> ReserveStream<S>
    where
        S: Stream<Item = ReserveRequest>,
    {
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ReserveStream {
            client: self.clone(),
            requests: Some(Box::pin(requests)),
            next_number: 0,
            calls: BTreeMap::new(),
            again: FuturesUnordered::new(),
            answers: VecDeque::new(),
            check,
        }
    }
}

impl Call {
    fn open(client: &Client, chosen: Chosen<Arc<Link>>) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let messages = futures_util::stream::poll_fn(move |context| {
            let mut requests = Vec::new();
            match receiver.poll_recv_many(context, &mut requests, REQUESTS_PER_MESSAGE_MAX) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(0) => Poll::Ready(None),
                Poll::Ready(_) => Poll::Ready(Some(ReserveStreamRequest::of(&requests))),
            }
        });
        let way = chosen.link.way();
        let mut stub = ReservationServiceClient::new(way.channel.clone());
        let messages = client.addressed(messages);
        let opening = async move { stub.reserve_stream(messages).await };
        Self {
            chosen,
            way,
            sender,
            answers: Answers::Opening(Box::pin(opening)),
            sent: 0,
            unanswered: BTreeMap::new(),
            heard_at: Instant::now(),
        }
    }

    fn send(&mut self, number: u64, request: ReserveRequest) {
        if self.unanswered.is_empty() {
            self.heard_at = Instant::now();
        }
        // Where nobody receives any more, the answers end, too, and it is tried again.
        let _ = self.sender.send(request.clone());
        self.unanswered.insert(self.sent, (number, request));
        self.sent += 1;
    }

    /// The next answers; an error when there are no more.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ReserveStreamResponse, StatusError>> {
        loop {
            match &mut self.answers {
                Answers::Opening(opening) => match opening.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(status)) => return Poll::Ready(Err(status.into())),
                    Poll::Ready(Ok(answers)) => {
                        self.answers = Answers::Open(Box::new(answers.into_inner()));
                    }
                },
                Answers::Open(answers) => {
                    return answers.poll_next_unpin(context).map(|answer| match answer {
                        Some(Ok(answer)) => Ok(answer),
                        Some(Err(status)) => Err(status.into()),
                        None => Err(Status::unavailable("the call has ended").into()),
                    });
                }
            }
        }
    }
}

impl<S> ReserveStream<S>
where
    S: Stream<Item = ReserveRequest>,
{
    fn unanswered(&self) -> usize {
        let waiting = self.calls.values().map(|call| call.unanswered.len());
        waiting.sum::<usize>() + self.again.len()
    }

    /// Takes requests as long as there is room, and sends each to the leader of its shard.
    fn take(&mut self, context: &mut Context<'_>) {
        let mut room = UNANSWERED_MAX.saturating_sub(self.unanswered() + self.answers.len());
        while room > 0
            && let Some(requests) = &mut self.requests
        {
            let mut request = match requests.as_mut().poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(None) => {
                    self.requests = None;
                    return;
                }
                Poll::Ready(Some(request)) => request,
            };
            fill_request_id(&mut request.request_id);
            let number = self.next_number;
            self.next_number += 1;
            room -= 1;
            let target = way::of_basket(&request.lines);
            // A single call waits until a node takes calls again.
            let Some(chosen) = self.client.pool().choose(target, |_| 0) else {
                let now = Duration::ZERO;
                self.again.push(again(&self.client, number, request, now));
                continue;
            };
            let endpoint = Arc::clone(&chosen.endpoint);
            let call = self.calls.entry(endpoint);
            let call = call.or_insert_with(|| Call::open(&self.client, chosen));
            call.send(number, request);
        }
    }

    /// Hears what the nodes have decided.
    fn hear(&mut self, context: &mut Context<'_>) {
        let mut ended = Vec::new();
        for (endpoint, call) in &mut self.calls {
            loop {
                match call.poll(context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(answer)) => {
                        call.heard_at = Instant::now();
                        self.client.pool().answered(&call.chosen);
                        let header = answer.header.clone();
                        for result in results(answer) {
                            let Some((number, request)) = call.unanswered.remove(&result.number)
                            else {
                                continue;
                            };
                            match decided(result, header.as_ref()) {
                                Decided::Answer(answer) => {
                                    let id = request.request_id;
                                    let answer = answer.map_err(|e| e.made_under(vec![id]));
                                    self.answers.push_back((number, answer));
                                }
                                Decided::NotYet(pause) => {
                                    self.again.push(again(&self.client, number, request, pause));
                                }
                            }
                        }
                    }
                    Poll::Ready(Err(failure)) => {
                        ended.push((Arc::clone(endpoint), failure));
                        break;
                    }
                }
            }
        }
        for (endpoint, failure) in ended {
            self.end(&endpoint, &failure);
        }
    }

    /// Gives a call up, and tries what it has not answered again.
    fn end(&mut self, endpoint: &str, failure: &StatusError) {
        let Some(call) = self.calls.remove(endpoint) else {
            return;
        };
        debug!(endpoint, unanswered = call.unanswered.len(), error = %failure, "a stream of \
            reserves ended");
        let lesson = match next(failure) {
            Next::Lost => Lesson::Lost,
            Next::Silent => Lesson::Silent,
            Next::NoNode => Lesson::NoNode,
            Next::GiveUp | Next::Unavailable | Next::Overloaded(_) => Lesson::Answers,
        };
        self.client.pool().note(&call.chosen, lesson);
        self.client.pool().look_again();
        for (number, request) in call.unanswered.into_values() {
            let now = Duration::ZERO;
            self.again.push(again(&self.client, number, request, now));
        }
    }

    /// A call whose node is silent is doubted, and ended once its node is lost or somebody else
    /// leads; at the latest when it was silent for as long as an attempt may take.
    fn end_silent_calls(&mut self, context: &mut Context<'_>) {
        while self.check.poll_tick(context).is_ready() {
            let patience = self.client.options().attempt;
            let pool = self.client.pool();
            let mut ended = Vec::new();
            for (endpoint, call) in &self.calls {
                let silent = call.heard_at.elapsed();
                if call.unanswered.is_empty() || silent < call.chosen.patience {
                    continue;
                }
                pool.doubt(&call.chosen);
                let is_overtaken = pool.is_overtaken(Target::Any, &call.chosen, &call.way);
                if is_overtaken || silent > patience {
                    ended.push((Arc::clone(endpoint), StatusError::silent(silent)));
                }
            }
            for (endpoint, failure) in ended {
                self.end(&endpoint, &failure);
            }
        }
    }
}

/// Those of a message, with what is said once for many.
fn results(answer: ReserveStreamResponse) -> impl Iterator<Item = ReserveStreamResult> {
    let overload = answer.overload.unwrap_or_default();
    let error = overload.error.map(Slot::Error);
    let numbers = overload.numbers.into_iter();
    let too_much = numbers.map(move |number| ReserveStreamResult {
        number,
        result: error.clone(),
    });
    answer.results.into_iter().chain(too_much)
}

/// What came of a request.
enum Decided {
    Answer(Box<Result<ReserveResponse, Error>>),
    /// Nothing, and trying again may help, after a pause.
    NotYet(Duration),
}

fn decided(result: ReserveStreamResult, header: Option<&ResponseHeader>) -> Decided {
    let status = match result.result {
        Some(Slot::Response(mut response)) => {
            response.header = response.header.or_else(|| header.cloned());
            return Decided::Answer(Box::new(Ok(response)));
        }
        Some(Slot::Error(status)) => status,
        None => {
            let malformed = Error::malformed("a result is neither an answer nor an error");
            return Decided::Answer(Box::new(Err(malformed)));
        }
    };
    let failure = StatusError::from_slot(&status);
    match next(&failure) {
        Next::GiveUp => Decided::Answer(Box::new(Err(failure.into()))),
        Next::Overloaded(asked) => {
            Decided::NotYet(Backoff::new().pause(Some(asked), &mut rand::rng()))
        }
        Next::Lost | Next::Silent | Next::NoNode | Next::Unavailable => {
            Decided::NotYet(Duration::ZERO)
        }
    }
}

fn again(
    client: &Client,
    number: u64,
    request: ReserveRequest,
    pause: Duration,
) -> Pin<Box<dyn Future<Output = Answered> + Send>> {
    let client = client.clone();
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        (number, client.reserve(request).await)
    })
}

impl<S> Stream for ReserveStream<S>
where
    S: Stream<Item = ReserveRequest>,
{
    type Item = Answered;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Nothing in here is pinned in place.
        let this = self.get_mut();
        if let Some(answer) = this.answers.pop_front() {
            return Poll::Ready(Some(answer));
        }
        this.take(context);
        this.hear(context);
        this.end_silent_calls(context);
        while let Poll::Ready(Some(answer)) = this.again.poll_next_unpin(context) {
            this.answers.push_back(answer);
        }
        match this.answers.pop_front() {
            Some(answer) => Poll::Ready(Some(answer)),
            None if this.requests.is_none() && this.unanswered() == 0 => {
                this.calls.clear();
                Poll::Ready(None)
            }
            None => Poll::Pending,
        }
    }
}
