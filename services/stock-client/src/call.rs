//! One call: attempts, one after the other, until one is answered or the time is over.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::client::Client;
use crate::error::{Error, StatusError};
use crate::link::{Link, Way};
use crate::options::WhenFull;
use crate::pool::Pool;
use crate::request_id::fill_request_id;
use crate::way::{Attempts, Chosen, Lesson, Target, Then};

/// The name under which a call tells which cluster it is for.
const CLUSTER: &str = "stockd-cluster";

type Route = Chosen<Arc<Link>>;

/// How much work a call is, and how long one node may take over one attempt.
#[derive(Debug, Clone, Copy)]
enum Weight {
    /// It is answered from memory or with one entry of the log.
    Small(Duration),
    /// It has many lines, which may queue behind others.
    Bulk(Duration),
}

/// So many times as long as a small call a bulk one waits before its node is doubted.
const BULK_PATIENCE: u32 = 4;

impl Weight {
    fn attempt_max(self) -> Duration {
        match self {
            Self::Small(attempt) | Self::Bulk(attempt) => attempt,
        }
    }
}

/// Calls.
impl Client {
    /// A call that is answered from memory or with one entry of the log.
    pub(crate) async fn small<Q, A, S, F>(
        &self,
        target: Target,
        request: Q,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (deadline, attempt) = (self.deadline(), self.options().attempt);
        let weight = Weight::Small(attempt);
        self.call(target, deadline, weight, request, send).await
    }

    /// A change that is done once, however often it is sent: its id is made before the first
    /// attempt, and every error tells it.
    pub(crate) async fn mutate<Q, A, S, F>(
        &self,
        target: Target,
        mut request: Q,
        request_id: fn(&mut Q) -> &mut String,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let id = request_id(&mut request);
        fill_request_id(id);
        let id = id.clone();
        let answer = self.small(target, request, send).await;
        answer.map_err(|error| error.made_under(vec![id]))
    }

    /// A call of many lines, which may queue behind others.
    pub(crate) async fn bulk<Q, A, S, F>(
        &self,
        target: Target,
        request: Q,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.bulk_until(self.deadline(), target, request, send)
            .await
    }

    pub(crate) async fn bulk_until<Q, A, S, F>(
        &self,
        deadline: Instant,
        target: Target,
        request: Q,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let weight = Weight::Bulk(self.options().bulk_attempt);
        self.call(target, deadline, weight, request, send).await
    }

    /// Sends `request`, the same every time, until a node answers it, refuses it for good, or the
    /// deadline comes.
    async fn call<Q, A, S, F>(
        &self,
        target: Target,
        deadline: Instant,
        weight: Weight,
        request: Q,
        send: S,
    ) -> Result<A, Error>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let _place = self.place(deadline).await?;
        let options = self.options();
        let attempt_max = weight.attempt_max();
        let mut attempts = Attempts::new(options.call, attempt_max, options.attempts_max);
        let left = || deadline.saturating_duration_since(Instant::now());
        // Where the last attempt was that nothing was heard of.
        let mut silent: Option<Route> = None;
        loop {
            let Some(mut chosen) = self.choose(target, &attempts, deadline).await else {
                return Err(self.timed_out(attempts, None));
            };
            if matches!(weight, Weight::Bulk(_)) {
                chosen.patience *= BULK_PATIENCE;
            }
            let allowed = attempts.begin(left());
            // What takes a node long is not asked of two; and whoever leads needs no help.
            let is_of_many = target == Target::Any || chosen.is_in_place();
            let hedges = matches!(weight, Weight::Small(_)) && is_of_many;
            let attempt = (target, hedges, allowed);
            let answer = self.attempt(attempt, &attempts, &chosen, &request, &send);
            let failure = match answer.await {
                Ok(answer) => {
                    if let Some(silent) = silent.filter(|it| it.endpoint != chosen.endpoint) {
                        self.pool().was_silent(&silent);
                    }
                    return Ok(answer.into_inner());
                }
                Err(failure) => failure,
            };
            let after = attempts.failed(&chosen.endpoint, &failure, left(), &mut rand::rng());
            debug!(
                endpoint = &*chosen.endpoint,
                attempts = attempts.made(),
                ?after,
                error = %failure,
                "an attempt failed"
            );
            // A node's last word is an answer, too.
            match (after.lesson, after.then) {
                (Lesson::Answers, Then::GiveUp) => self.pool().answered(&chosen),
                (lesson, _) => self.pool().note(&chosen, lesson),
            }
            if after.look_again {
                self.pool().look_again();
            }
            let pause = match after.then {
                Then::GiveUp => return Err(failure.into()),
                Then::TimedOut => return Err(self.timed_out(attempts, Some(failure))),
                Then::Again(pause) => pause,
            };
            let Some(turn) = self.pool().repeat_after(left()) else {
                return Err(self.timed_out(attempts, Some(failure)));
            };
            let pause = pause.max(turn);
            if !pause.is_zero() {
                sleep(pause).await;
            }
            if after.lesson == Lesson::Silent {
                silent = Some(chosen);
            }
        }
    }

    /// A place among the calls that are under way.
    async fn place(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Error> {
        let options = self.options();
        let full = || Error::TooManyCalls {
            max: options.places_max,
        };
        match (options.places.try_acquire(), options.when_full) {
            (Ok(place), _) => Ok(place),
            (Err(_), WhenFull::Fail) => Err(full()),
            (Err(_), WhenFull::Wait) => {
                match timeout_at(deadline, options.places.acquire()).await {
                    Ok(Ok(place)) => Ok(place),
                    Ok(Err(_)) | Err(_) => Err(full()),
                }
            }
        }
    }

    /// Where the next attempt goes; none where no node takes calls until the deadline.
    async fn choose(
        &self,
        target: Target,
        attempts: &Attempts,
        deadline: Instant,
    ) -> Option<Route> {
        let failures = |endpoint: &str| attempts.failures(endpoint);
        if let Some(chosen) = self.pool().choose(target, failures) {
            return Some(chosen);
        }
        loop {
            let mut news = self.pool().news();
            if let Some(chosen) = self.pool().choose(target, failures) {
                return Some(chosen);
            }
            if !news.come_until(deadline).await {
                return None;
            }
        }
    }

    /// Sends it once, and waits.
    async fn attempt<Q, A, S, F>(
        &self,
        (target, hedges, allowed): (Target, bool, Duration),
        attempts: &Attempts,
        chosen: &Route,
        request: &Q,
        send: &S,
    ) -> Result<Response<A>, StatusError>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let way = chosen.link.way();
        let message = self.message(request, allowed);
        let mut waiting = Waiting {
            pool: self.pool(),
            chosen,
            began: Instant::now(),
            is_over: false,
        };
        let until = waiting.began + allowed;
        let mut answer = pin!(send(way.channel.clone(), message));
        let patience = chosen.patience.min(allowed);
        let answer = match timeout(patience, answer.as_mut()).await {
            Ok(answer) => self.note_answer(chosen, answer),
            Err(_) => {
                self.pool().doubt(chosen);
                let beside = || {
                    let other = if hedges {
                        self.beside(target, attempts, chosen)
                    } else {
                        None
                    };
                    let route = other?;
                    let message = self.message(request, allowed);
                    let answer = send(route.link.channel(), message);
                    Some((route, answer))
                };
                // Seldom needed, and larger than all the rest of a call.
                Box::pin(self.wait(target, chosen, &way, until, answer, beside())).await
            }
        };
        waiting.is_over = true;
        answer
    }

    /// Waits on for an answer that is late: for as long as nothing speaks for asking another node,
    /// and beside another node that has been asked, if one has.
    async fn wait<A, F>(
        &self,
        target: Target,
        chosen: &Route,
        way: &Way,
        until: Instant,
        mut answer: Pin<&mut F>,
        beside: Option<(Route, F)>,
    ) -> Result<Response<A>, StatusError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let began = Instant::now();
        let silent = || StatusError::silent(chosen.patience + began.elapsed());
        let mut news = self.pool().news();
        let (other, second) = beside.unzip();
        let mut second = pin!(second);
        loop {
            let is_overtaken = self.pool().is_overtaken(target, chosen, way);
            if is_overtaken && second.is_none() {
                return Err(silent());
            }
            tokio::select! {
                biased;
                answer = answer.as_mut() => return self.note_answer(chosen, answer),
                answer = poll_some(second.as_mut()), if second.is_some() => {
                    if let (Ok(answer), Some(other)) = (answer, &other) {
                        self.pool().answered(other);
                        self.pool().was_slower(chosen);
                        return Ok(answer);
                    }
                    second.set(None);
                }
                () = news.come() => {}
                () = sleep_until(until) => return Err(silent()),
            }
        }
    }

    fn note_answer<A>(
        &self,
        chosen: &Route,
        answer: Result<Response<A>, Status>,
    ) -> Result<Response<A>, StatusError> {
        match answer {
            Ok(answer) => {
                self.pool().answered(chosen);
                Ok(answer)
            }
            Err(status) => Err(status.into()),
        }
    }

    /// Another node that may answer what any may, where the first one is late.
    fn beside(&self, target: Target, attempts: &Attempts, chosen: &Route) -> Option<Route> {
        if !self.pool().may_hedge() {
            return None;
        }
        let failures =
            |endpoint: &str| attempts.failures(endpoint) + u32::from(*endpoint == *chosen.endpoint);
        let other = self.pool().choose(target, failures)?;
        (other.endpoint != chosen.endpoint).then_some(other)
    }

    fn message<Q: Clone>(&self, request: &Q, allowed: Duration) -> Request<Q> {
        let mut message = self.addressed(request.clone());
        // The node is told, so that it does not work for a caller who has gone.
        message.set_timeout(allowed);
        message
    }

    /// With what the caller sends along, and the cluster that it is for.
    pub(crate) fn addressed<Q>(&self, request: Q) -> Request<Q> {
        let mut message = Request::new(request);
        if let Some(metadata) = &self.options().metadata {
            *message.metadata_mut() = metadata.as_ref().clone();
        }
        if let Some(cluster) = self.pool().cluster() {
            message.metadata_mut().insert(CLUSTER, cluster.clone());
        }
        message
    }

    fn timed_out(&self, attempts: Attempts, last: Option<StatusError>) -> Error {
        let made = attempts.made();
        let telling = attempts.into_telling().or(last);
        Error::Timeout {
            after: self.options().call,
            attempts: made,
            last: telling.or_else(|| self.pool().failure()).map(Box::new),
            request_ids: Vec::new(),
        }
    }
}

async fn poll_some<F: Future>(mut future: Pin<&mut Option<F>>) -> F::Output {
    std::future::poll_fn(|context| match future.as_mut().as_pin_mut() {
        Some(future) => future.poll(context),
        None => std::task::Poll::Pending,
    })
    .await
}

/// An attempt under way. One that its caller gives up before it was answered says something about
/// the node, too.
struct Waiting<'a> {
    pool: &'a Arc<Pool>,
    chosen: &'a Route,
    began: Instant,
    is_over: bool,
}

/// An attempt that was given up after less than this part of the patience says nothing.
const PATIENCE_PART: u32 = 4;

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.began.elapsed() >= self.chosen.patience / PATIENCE_PART {
            self.pool.doubt(self.chosen);
        }
    }
}
