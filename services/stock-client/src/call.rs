//! One call: attempts, one after the other, until one is answered or the time is over.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::{Instrument, debug};

use crate::client::Client;
use crate::error::{Error, StatusError};
use crate::link::{Link, Way};
use crate::options::WhenFull;
use crate::pool::Pool;
use crate::telemetry::{CallSeen, attempt_answered, attempt_failed, attempt_span};
use crate::way::{Attempts, Chosen, Consequence, Lesson, Overtaken, Target, Then};

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
        self.fill_request_id(id);
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

    /// As [`Self::attempts`], seen by who watches the program.
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
        let seen = CallSeen::begins::<Q>();
        let attempts = self.attempts(target, deadline, weight, request, send);
        let answer = attempts.instrument(seen.span.clone()).await;
        seen.ends(&answer);
        answer
    }

    /// Sends `request`, the same every time, until a node answers it, refuses it for good, or the
    /// deadline comes.
    async fn attempts<Q, A, S, F>(
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
            let answer = self.attempt(attempt, deadline, &attempts, &chosen, &request, &send);
            let span = attempt_span(&chosen.endpoint, chosen.node().unwrap_or_default());
            let failed = match answer.instrument(span.clone()).await {
                Ok(answer) => {
                    attempt_answered(&span);
                    if let Some(silent) = silent.filter(|it| it.endpoint != chosen.endpoint) {
                        self.pool().was_silent(&silent);
                    }
                    return Ok(answer.into_inner());
                }
                Err(failed) => failed,
            };
            let failure = failed.failure;
            if failed.is_of_program {
                return Err(failure.into());
            }
            attempt_failed(&span, &failure);
            let mut after = attempts.failed(&chosen.endpoint, &failure, left(), &mut rand::rng());
            debug!(
                endpoint = &*chosen.endpoint,
                attempts = attempts.made(),
                ?after,
                error = %failure,
                "an attempt failed"
            );
            after.takes_token &= !failed.may_repeat;
            // A node's last word is an answer, too.
            match (after.lesson, after.then) {
                (Lesson::Answers, Then::GiveUp) => self.pool().answered(&chosen),
                (lesson, _) => self.pool().note(&chosen, lesson),
            }
            if after.look_again {
                self.pool().look_again();
            }
            let pause = match after.then {
                Then::GiveUp => return Err(attempts.told(failure).into()),
                Then::TimedOut => return Err(self.timed_out(attempts, Some(failure))),
                Then::Again(pause) => pause,
            };
            if !self.waits(target, &chosen, after, pause, left()).await {
                return Err(self.timed_out(attempts, Some(failure)));
            }
            if after.lesson == Lesson::Silent {
                silent = Some(chosen);
            }
        }
    }

    /// Waits until the call is to be repeated; `false` where its time is over before. A repeat in
    /// the dark waits for its turn among all of them; none has to wait once somebody leads who did
    /// not: all calls together may have waited for that.
    async fn waits(
        &self,
        target: Target,
        failed: &Route,
        after: Consequence,
        pause: Duration,
        left: Duration,
    ) -> bool {
        let turn = match after.takes_token {
            true => self.pool().repeat_after(left),
            false => Some(Duration::ZERO),
        };
        let pause = turn.map_or(left, |turn| turn.max(pause));
        if pause.is_zero() {
            return true;
        }
        if after.lesson == Lesson::Answers && !after.look_again {
            // The leader itself has said when.
            sleep(pause).await;
            return true;
        }
        let is_led_anew = self.pool().is_led_anew_within(pause, target, failed.led);
        let is_led_anew = is_led_anew.await;
        if is_led_anew && after.takes_token && turn.is_some() {
            self.pool().repeated_without();
        }
        is_led_anew || turn.is_some()
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
        deadline: Instant,
        attempts: &Attempts,
        chosen: &Route,
        request: &Q,
        send: &S,
    ) -> Result<Response<A>, Box<Failed>>
    where
        Q: Clone,
        S: Fn(Channel, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let way = chosen.link.way();
        let message = self
            .message(request, deadline)
            .map_err(Failed::of_program)?;
        let mut waiting = Waiting {
            pool: self.pool(),
            chosen,
            began: Instant::now(),
            is_over: false,
        };
        let times = (waiting.began + allowed, deadline);
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
                    let message = self.message(request, deadline).ok()?;
                    let answer = send(route.link.channel(), message);
                    Some((route, answer))
                };
                // Seldom needed, and larger than all the rest of a call.
                Box::pin(self.wait(target, chosen, &way, times, answer, beside())).await
            }
        };
        waiting.is_over = true;
        answer
    }

    /// Waits on for an answer that is late: for as long as nothing speaks for asking another node,
    /// and beside another node that has been asked, if one has. An attempt is given up when it is
    /// its repeat's turn, and waits on until then: where a node is slow, giving up thousands makes
    /// it no quicker.
    async fn wait<A, F>(
        &self,
        target: Target,
        chosen: &Route,
        way: &Way,
        (mut until, deadline): (Instant, Instant),
        mut answer: Pin<&mut F>,
        beside: Option<(Route, F)>,
    ) -> Result<Response<A>, Box<Failed>>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let began = Instant::now();
        let silent = || StatusError::silent(chosen.patience + began.elapsed());
        let mut news = self.pool().news();
        let (other, second) = beside.unzip();
        let mut second = pin!(second);
        let mut turn: Option<Turn<'_>> = None;
        let _looks = self.pool().keep_looking();
        loop {
            let overtaken = self.pool().overtaken(target, chosen, way);
            match overtaken.filter(|_| second.is_none()) {
                Some(Overtaken::LedElsewhere | Overtaken::Left) => {
                    return Err(Failed::with_repeat(silent()));
                }
                Some(Overtaken::Lost) => until = until.min(Instant::now()),
                None => {}
            }
            let wake_at = match &turn {
                Some(turn) => turn.at,
                None => until,
            };
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
                () = sleep_until(wake_at) => match turn.take() {
                    Some(turn) => return Err(turn.come(silent())),
                    None => turn = Some(Turn::wait(self.pool(), deadline)),
                },
            }
        }
    }

    fn note_answer<A>(
        &self,
        chosen: &Route,
        answer: Result<Response<A>, Status>,
    ) -> Result<Response<A>, Box<Failed>> {
        match answer {
            Ok(answer) => {
                self.pool().answered(chosen);
                Ok(answer)
            }
            Err(status) => Err(StatusError::from(status).into()),
        }
    }

    /// Another node that may answer what any may, where the first one is late.
    fn beside(&self, target: Target, attempts: &Attempts, chosen: &Route) -> Option<Route> {
        if !self.pool().takes_repeat() {
            return None;
        }
        let failures =
            |endpoint: &str| attempts.failures(endpoint) + u32::from(*endpoint == *chosen.endpoint);
        let other = self.pool().choose(target, failures)?;
        (other.endpoint != chosen.endpoint).then_some(other)
    }

    fn message<Q: Clone>(&self, request: &Q, deadline: Instant) -> Result<Request<Q>, Status> {
        let mut message = self.addressed(request.clone())?;
        // The node is told, so that it does not work for a caller who has gone.
        message.set_timeout(deadline.saturating_duration_since(Instant::now()));
        Ok(message)
    }

    /// With what the caller sends along, and the cluster that it is for.
    pub(crate) fn addressed<Q>(&self, request: Q) -> Result<Request<Q>, Status> {
        let mut message = Request::new(request);
        if let Some(metadata) = &self.options().metadata {
            *message.metadata_mut() = metadata.as_ref().clone();
        }
        if let Some(cluster) = self.pool().cluster() {
            message.metadata_mut().insert(CLUSTER, cluster.clone());
        }
        if let Some(interceptor) = &self.options().interceptor {
            interceptor.see(message.metadata_mut())?;
        }
        Ok(message)
    }

    /// The error of a call that has no time left; without attempts, it was not sent more than once.
    pub(crate) fn timed_out(
        &self,
        attempts: impl Into<Option<Attempts>>,
        last: Option<StatusError>,
    ) -> Error {
        let attempts = attempts.into();
        let made = attempts.as_ref().map_or(1, Attempts::made);
        // Of one that was sent and has not failed nobody has said anything.
        let is_open = attempts.is_none() && last.is_none();
        let may_be_done = is_open
            || attempts.as_ref().is_some_and(Attempts::may_be_done)
            || last.as_ref().is_some_and(StatusError::outcome_unknown);
        let telling = attempts.and_then(Attempts::into_telling).or(last);
        Error::Timeout {
            after: self.options().call,
            attempts: made,
            may_be_done,
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

/// An attempt that has failed.
struct Failed {
    failure: StatusError,
    /// Its repeat has had its turn, or needs none: all that were under way there are given up, and
    /// each is repeated once.
    may_repeat: bool,
    /// The program's own interceptor has refused it.
    is_of_program: bool,
}

impl Failed {
    fn with_repeat(failure: StatusError) -> Box<Self> {
        Box::new(Self {
            failure,
            may_repeat: true,
            is_of_program: false,
        })
    }

    fn of_program(refusal: Status) -> Box<Self> {
        Box::new(Self {
            failure: refusal.into(),
            may_repeat: false,
            is_of_program: true,
        })
    }
}

impl From<StatusError> for Box<Failed> {
    fn from(failure: StatusError) -> Self {
        Self::new(Failed {
            failure,
            may_repeat: false,
            is_of_program: false,
        })
    }
}

/// A place among the repeats that wait for their turn, given back when it was not needed.
struct Turn<'a> {
    pool: &'a Pool,
    at: Instant,
    /// None comes before the call's time is over.
    is_none: bool,
}

impl<'a> Turn<'a> {
    fn wait(pool: &'a Pool, deadline: Instant) -> Self {
        let now = Instant::now();
        let turn = pool.repeat_after(deadline.saturating_duration_since(now));
        Self {
            pool,
            at: turn.map_or(deadline, |turn| now + turn),
            is_none: turn.is_none(),
        }
    }

    /// It has come: the attempt is given up.
    fn come(mut self, failure: StatusError) -> Box<Failed> {
        match std::mem::replace(&mut self.is_none, true) {
            true => failure.into(),
            false => Failed::with_repeat(failure),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_none {
            self.pool.repeated_without();
        }
    }
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
