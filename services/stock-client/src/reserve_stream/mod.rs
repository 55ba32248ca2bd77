//! `ReserveStream`: one call to each leader. What one of them does not answer is sent again over
//! another, under the same request ids: a leader that dies has thousands of requests, and whoever
//! leads next shall not get each as a call of its own.

mod node_call;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::Stream;
use stock_proto::stock::v1::{ReserveRequest, ReserveResponse};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::debug;

use self::node_call::{Call, decided, results};
use crate::client::Client;
use crate::error::{Error, StatusError};
use crate::link::Link;
use crate::way::{self, Attempts, Chosen, Leadership, Lesson, Next, Overtaken, Target, Then, next};

/// Requests of one stream that may wait for their answers, or whose answers wait to be taken; past
/// this no more are taken.
pub const UNANSWERED_MAX: usize = 4_096;

/// How often the calls are looked at for ones that nobody answers any more, and the requests
/// without an answer for those that are to be sent again.
const CHECK_EVERY: Duration = Duration::from_millis(25);

type Route = Chosen<Arc<Link>>;

type Answered = (u64, Result<ReserveResponse, Error>);

/// The answers to many reserves: each with the number of its request, from 0 in the order in which
/// they were taken, and in the order in which they are decided. See [`Client::reserve_stream`], and
/// an example there.
///
/// It ends when the requests have ended and each has its answer or its error, and never before: no
/// error ends it, nor does a node that dies. Where the requests do not end, neither does it.
///
/// It does all of its work while it is polled, and none between: requests are sent, answers are
/// heard, and attempts are repeated then. Whoever takes no answers for ten seconds may lose its
/// calls to the nodes, and find requests whose time is over.
pub struct ReserveStream<S> {
    client: Client,
    /// None when all of it is taken.
    requests: Option<Pin<Box<S>>>,
    next_number: u64,
    /// By endpoint.
    calls: BTreeMap<Arc<str>, Call>,
    /// What is to be sent again, and when.
    again: Vec<Again>,
    /// Some of it at once, and not at the next check.
    hurries: bool,
    answers: VecDeque<Answered>,
    check: Interval,
}

/// A request that was taken and is not answered.
struct Unanswered {
    /// As the caller counts.
    number: u64,
    request: ReserveRequest,
    taken_at: Instant,
    /// Who led its shard when it was last sent.
    led: Option<Leadership>,
    /// Its attempts so far, where one has failed.
    attempts: Option<Box<Attempts>>,
}

/// One that is to be sent again.
struct Again {
    unanswered: Unanswered,
    due_at: Instant,
    /// It has taken a token of the budget, for a repeat in the dark.
    took_token: bool,
}

impl Client {
    /// Reserves one basket after the other, [`UNANSWERED_MAX`] of them at once, over one call to
    /// each leader: several times as many a second as single calls can do. Every request ends with
    /// an answer, or with the error that [`Client::reserve`] would have given; each has the time of
    /// a call, from when it was taken. Requests are taken as they come: the program sets the pace
    /// with its own stream, and ends by ending it.
    ///
    /// Dropping it leaves open what became of the requests without an answer: repeat them with
    /// their ids. Who wants to be able to gives each of them one, as of
    /// [`Client::new_request_id`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::fake::Fake;
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// use futures_util::{StreamExt, stream};
    /// use stock_client::v1::{Line, ReserveRequest, reserve_response::Outcome};
    ///
    /// let request = |units| ReserveRequest {
    ///     request_id: client.new_request_id(),
    ///     lines: vec![Line::at("milk-1l", "store-7", units)],
    ///     ..ReserveRequest::default()
    /// };
    /// let requests = [request(2), request(2), request(1)];
    /// let mut answers = client.reserve_stream(stream::iter(requests.clone()));
    /// let mut held = Vec::new();
    /// while let Some((number, answer)) = answers.next().await {
    ///     if let Some(Outcome::Reservation(_)) = answer?.outcome {
    ///         held.push(requests[number as usize].lines[0].quantity);
    ///     }
    /// }
    /// assert_eq!(held.iter().sum::<i64>(), 3);
    /// # Ok(())
    /// # }
    /// ```
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
            again: Vec::new(),
            hurries: false,
            answers: VecDeque::new(),
            check,
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
        let taken_at = Instant::now();
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
            self.client.fill_request_id(&mut request.request_id);
            let number = self.next_number;
            self.next_number += 1;
            room -= 1;
            self.send(Unanswered {
                number,
                request,
                taken_at,
                led: None,
                attempts: None,
            });
        }
    }

    /// Sends a request to whoever answers it; where no node takes calls, it waits for one.
    fn send(&mut self, mut unanswered: Unanswered) {
        let target = unanswered.target();
        let attempts = &unanswered.attempts;
        let failures = |at: &str| attempts.as_ref().map_or(0, |it| it.failures(at));
        let Some(chosen) = self.client.pool().choose(target, failures) else {
            self.again.push(Again {
                unanswered,
                due_at: Instant::now() + CHECK_EVERY,
                took_token: false,
            });
            return;
        };
        if let Some(attempts) = &mut unanswered.attempts {
            attempts.begin(left(&self.client, unanswered.taken_at));
        }
        unanswered.led = Some(chosen.led);
        let call = match self.calls.entry(Arc::clone(&chosen.endpoint)) {
            Entry::Occupied(call) => call.into_mut(),
            Entry::Vacant(place) => match Call::open(&self.client, chosen) {
                Ok(call) => place.insert(call),
                Err(refusal) => {
                    let error = Error::from(StatusError::from(refusal));
                    self.answers.push_back((unanswered.number, Err(error)));
                    return;
                }
            },
        };
        call.send(unanswered);
    }

    /// Sends again what is due, and ends what has no time left. Where it `looks`, what waits for
    /// somebody else to lead is due if somebody does.
    fn send_again(&mut self, looks: bool) {
        let now = Instant::now();
        let pool = Arc::clone(self.client.pool());
        let is_due = |again: &mut Again| {
            if again.due_at <= now {
                return true;
            }
            let then = again.unanswered.led.filter(|_| looks);
            let is_led_anew =
                then.is_some_and(|then| pool.is_led_anew(again.unanswered.target(), then));
            if is_led_anew && again.took_token {
                pool.repeated_without();
            }
            is_led_anew
        };
        let due: Vec<Again> = self.again.extract_if(.., is_due).collect();
        for again in due {
            match left(&self.client, again.unanswered.taken_at).is_zero() {
                true => self.time_out(again.unanswered, None),
                false => self.send(again.unanswered),
            }
        }
        if looks && !self.again.is_empty() {
            self.client.pool().look_again();
        }
    }

    /// Hears what the nodes have decided.
    fn hear(&mut self, context: &mut Context<'_>) {
        let mut ended = Vec::new();
        let mut failed = Vec::new();
        for (endpoint, call) in &mut self.calls {
            loop {
                match call.poll(context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(answer)) => {
                        call.heard_at = Instant::now();
                        self.client.pool().answered(&call.chosen);
                        let header = answer.header.clone();
                        for result in results(answer) {
                            let Some(unanswered) = call.unanswered.remove(&result.number) else {
                                continue;
                            };
                            match decided(result, header.as_ref()) {
                                Ok(answer) => {
                                    let id = unanswered.request.request_id;
                                    let answer = answer.map_err(|e| e.made_under(vec![id]));
                                    self.answers.push_back((unanswered.number, answer));
                                }
                                Err(failure) => {
                                    failed.push((unanswered, Arc::clone(endpoint), failure));
                                }
                            }
                        }
                    }
                    Poll::Ready(Err(status)) => {
                        ended.push((Arc::clone(endpoint), StatusError::from(status)));
                        break;
                    }
                }
            }
        }
        for (unanswered, endpoint, failure) in failed {
            self.fail(unanswered, &endpoint, &failure, false);
        }
        for (endpoint, failure) in ended {
            self.end(&endpoint, &failure, false);
        }
    }

    /// Gives a call up, and sends what it has not answered again.
    fn end(&mut self, endpoint: &str, failure: &StatusError, may_repeat: bool) {
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
        for unanswered in call.unanswered.into_values() {
            self.fail(unanswered, &call.chosen.endpoint, failure, may_repeat);
        }
    }

    /// An attempt has failed: the request is sent again, or this is its answer.
    fn fail(
        &mut self,
        mut unanswered: Unanswered,
        endpoint: &Arc<str>,
        failure: &StatusError,
        may_repeat: bool,
    ) {
        let left = left(&self.client, unanswered.taken_at);
        let attempts = unanswered.attempts.get_or_insert_with(|| {
            let options = self.client.options();
            let mut attempts = Attempts::new(options.call, options.attempt, options.attempts_max);
            attempts.begin(left);
            Box::new(attempts)
        });
        let after = attempts.failed(endpoint, failure, left, &mut rand::rng());
        let pause = match after.then {
            Then::Again(pause) => pause,
            Then::TimedOut => return self.time_out(unanswered, Some(failure.clone())),
            Then::GiveUp => {
                let id = unanswered.request.request_id;
                let told = attempts.told(failure.clone());
                let error = Error::from(told).made_under(vec![id]);
                return self.answers.push_back((unanswered.number, Err(error)));
            }
        };
        let takes_token = after.takes_token && !may_repeat;
        let turn = match takes_token {
            true => self.client.pool().repeat_after(left),
            false => Some(Duration::ZERO),
        };
        self.hurries |= turn.is_some_and(|turn| turn.max(pause).is_zero());
        self.again.push(Again {
            unanswered,
            // Without a token only somebody else who leads helps.
            due_at: Instant::now() + turn.map_or(left, |turn| turn.max(pause)),
            took_token: takes_token && turn.is_some(),
        });
    }

    fn time_out(&mut self, unanswered: Unanswered, failure: Option<StatusError>) {
        let error = self
            .client
            .timed_out(unanswered.attempts.map(|it| *it), failure);
        let error = error.made_under(vec![unanswered.request.request_id]);
        self.answers.push_back((unanswered.number, Err(error)));
    }

    /// A call whose node is silent is doubted. What it has not answered is sent again: what others
    /// lead by now, at once; where the node is lost or was silent for as long as an attempt may
    /// take, as many requests as there are repeats for, while the others go on waiting. A call of
    /// a connection that was left is ended.
    fn leave_silent_calls(&mut self) {
        let attempt_max = self.client.options().attempt;
        let pool = Arc::clone(self.client.pool());
        let mut left = Vec::new();
        let mut again = Vec::new();
        for (endpoint, call) in &mut self.calls {
            let silent = call.heard_at.elapsed();
            let waits = !call.unanswered.is_empty() && silent >= call.chosen.patience;
            if waits {
                pool.doubt(&call.chosen);
            }
            let overtaken = pool.overtaken(Target::Any, &call.chosen, &call.way);
            let failure = StatusError::silent(silent);
            if overtaken == Some(Overtaken::Left) {
                left.push((Arc::clone(endpoint), failure));
                continue;
            }
            if !waits {
                continue;
            }
            let is_lost = overtaken.is_some() || silent > attempt_max;
            for number in call.numbers() {
                let Some(it) = call.unanswered.get(&number) else {
                    continue;
                };
                let is_led_elsewhere = it
                    .led
                    .is_some_and(|led| pool.is_led_elsewhere(it.target(), led, &call.chosen));
                let may_repeat = is_led_elsewhere || (is_lost && pool.takes_repeat());
                if may_repeat && let Some(it) = call.unanswered.remove(&number) {
                    again.push((it, Arc::clone(endpoint), failure.clone()));
                }
            }
        }
        for (unanswered, endpoint, failure) in again {
            self.fail(unanswered, &endpoint, &failure, true);
        }
        for (endpoint, failure) in left {
            self.end(&endpoint, &failure, true);
        }
    }

    /// A node that answers others has not answered these within their time.
    fn end_late_requests(&mut self) {
        let client = &self.client;
        let mut late = Vec::new();
        for call in self.calls.values_mut() {
            for number in call.numbers() {
                let unanswered = call.unanswered.get(&number);
                if unanswered.is_some_and(|it| left(client, it.taken_at).is_zero()) {
                    late.extend(call.unanswered.remove(&number));
                }
            }
        }
        for unanswered in late {
            self.time_out(unanswered, None);
        }
    }
}

impl Unanswered {
    fn target(&self) -> Target {
        way::of_basket(&self.request.lines)
    }
}

/// What is left of a request's time.
fn left(client: &Client, taken_at: Instant) -> Duration {
    client.options().call.saturating_sub(taken_at.elapsed())
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
        let mut looks = false;
        while this.check.poll_tick(context).is_ready() {
            looks = true;
        }
        if looks {
            this.leave_silent_calls();
            this.end_late_requests();
        }
        if looks || std::mem::take(&mut this.hurries) {
            this.send_again(looks);
        }
        this.take(context);
        this.hear(context);
        if this.hurries {
            context.waker().wake_by_ref();
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
