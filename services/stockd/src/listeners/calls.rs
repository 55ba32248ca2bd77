//! gRPC on one connection: HTTP/2 as hyper speaks it, and the limits that tonic's own server has no
//! words for. A connection must say what it speaks in time, answers pings, is ended when it is idle
//! for long or old, and by a flood of resets. Connections from other nodes are neither idle nor
//! old.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::Accepted;
use super::answering::Answering;
use super::asking::Asking;
pub(crate) use super::asking::Kind;
use super::budget::Budget;
use super::fault::Fault;
use super::frames::Watched;
use super::patience::{Over, Patience};
use super::time_allowed::time_allowed;
use super::under_way::{Hold, UnderWay};
use super::usage::{UNREAD_BYTES_MAX, Usage};

/// A client says what it speaks within this, or is disconnected.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);

/// A client is pinged so often...
const PING_EVERY: Duration = Duration::from_secs(30);
/// ...and is disconnected when it has not answered after this.
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A connection without calls for so many looks in a row, a quarter of an hour, is closed: the
/// client opens another one when it needs it.
const IDLE_LOOKS_MAX: u32 = 15;
/// What is left to say on it is said within this.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// A connection takes no new calls any more after this, so that clients spread over nodes that came
/// back. Up to a tenth more, so that those which came together do not leave together...
const AGE_MAX: Duration = Duration::from_secs(3_600);
/// ...and those under way, streams among them, have so long to end.
const OLD_CALLS_WITHIN: Duration = Duration::from_secs(3_600);

/// Calls of one connection that may be on their way at once.
const STREAMS_PER_CONNECTION_MAX: u32 = 4_096;

/// Calls that were reset before the transport had passed them on: as many as it reads in one go
/// (128 times 8 KiB) where each takes 128 bytes. Calls with less in them are no calls, and
/// [`Resets`] judges what comes over time.
const RESET_UNSEEN_MAX: usize = 8_192;

/// Bytes of one answer that the transport takes while the socket does not: less than whoever takes
/// an answer just fast enough takes within a look.
const UNWRITTEN_BYTES_MAX: usize = 128 * 1024;

/// What HTTP/2 counts for a header beside its name and its value.
const HEADER_BYTES: usize = 32;

/// Calls of one connection that the transport resets itself, over all its life: data for a call
/// that was refused before all of it was there, mostly.
const RESET_HERE_MAX: usize = 65_536;

/// After a stall a call and its reset are both there, but far from each other. So before a call is
/// begun, everything that has come is read, in as many turns at most; each reads a mebibyte, and a
/// socket's buffer has no more than some.
const WAITS_MAX: u8 = 8;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// Anybody.
    Client,
    /// A node, in clients' names.
    Node,
    /// A node that would be a member.
    Newcomer,
}

/// Why a connection was ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Silent,
    Resets,
    Crowded,
    Greedy,
    Untaken,
    Idle,
    Old,
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Resets => "resets",
            Self::Crowded => "crowded",
            Self::Greedy => "greedy",
            Self::Untaken => "untaken",
            Self::Idle => "idle",
            Self::Old => "old",
        }
    }
}

/// Serves a connection to its end. Told to stop, it takes no new calls and finishes those under
/// way.
pub async fn serve(
    accepted: Accepted,
    remote: Remote,
    routes: Routes,
    budget: Arc<Budget>,
    stop: CancellationToken,
) {
    let Accepted {
        stream,
        from,
        guest,
    } = accepted;
    let usage = Arc::new(Usage::new(guest, budget));
    let ended = converse(stream, &usage, remote, routes, stop).await;
    if let Some(ended) = ended {
        metrics::counter!("stockd_connections_ended_total", "why" => ended.as_str()).increment(1);
    }
    match ended {
        Some(Ended::Resets) => {
            tracing::warn!(%from, "ended a connection that resets calls without end");
        }
        Some(ended) => tracing::debug!(%from, why = ended.as_str(), "ended a connection"),
        None => {}
    }
}

/// Says why the connection was ended, if not by the other side.
async fn converse(
    stream: tokio::net::TcpStream,
    usage: &Arc<Usage>,
    remote: Remote,
    routes: Routes,
    stop: CancellationToken,
) -> Option<Ended> {
    let watched = {
        let usage = Arc::clone(usage);
        Watched::new(stream, move |seen| usage.take_note(seen))
    };
    let calls = Calls {
        routes,
        usage: Arc::clone(usage),
    };
    let connection = http2::Builder::new(Tasks(Arc::clone(usage)))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_connection_window_size(UNREAD_BYTES_MAX)
        .max_send_buf_size(UNWRITTEN_BYTES_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .max_pending_accept_reset_streams(RESET_UNSEEN_MAX)
        .max_local_error_reset_streams(RESET_HERE_MAX)
        .serve_connection(TokioIo::new(watched), calls);
    let mut connection = pin!(connection);
    let mut leave = pin!(usage.guest.asked_to_leave());
    let mut stopping = pin!(stop.cancelled());
    let mut is_stopping = false;
    let mut watch = Watch::begin(Instant::now());
    let mut look = pin!(sleep_until(watch.look_at));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                // That is the other side's concern.
                if let Err(error) = ended {
                    tracing::debug!(?error, "a connection broke");
                }
                return None;
            }
            () = leave.as_mut() => return Some(match usage.guest.is_introduced() {
                true if usage.is_greedy.load(Ordering::Relaxed) => Ended::Greedy,
                true => Ended::Resets,
                false => Ended::Crowded,
            }),
            () = stopping.as_mut(), if !is_stopping => {
                if !usage.guest.is_introduced() {
                    return None;
                }
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => {
                match watch.look(usage, remote, Instant::now()) {
                    Verdict::Stay => {}
                    Verdict::Close => connection.as_mut().graceful_shutdown(),
                    Verdict::End(ended) => return Some(ended),
                }
                look.as_mut().reset(watch.look_at);
            }
        }
    }
}

/// What a look at a connection comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    /// It takes no new calls any more.
    Close,
    End(Ended),
}

/// Looks at a connection now and then.
#[derive(Debug)]
struct Watch {
    look_at: Instant,
    old_at: Instant,
    idle_looks: u32,
    /// Calls that had begun at the last look.
    calls: u64,
    /// When it is over, and why.
    closes: Option<(Instant, Ended)>,
}

impl Watch {
    fn begin(now: Instant) -> Self {
        let spread = rand::random_range(Duration::ZERO..AGE_MAX / 10);
        Self {
            look_at: now + PREFACE_WITHIN,
            old_at: now + AGE_MAX + spread,
            idle_looks: 0,
            calls: 0,
            closes: None,
        }
    }

    fn look(&mut self, usage: &Usage, remote: Remote, now: Instant) -> Verdict {
        self.look_at = now + LOOK_EVERY;
        if !usage.guest.is_introduced() {
            return Verdict::End(Ended::Silent);
        }
        if usage.untaken.is_stuck() {
            return Verdict::End(Ended::Untaken);
        }
        if remote == Remote::Node {
            return Verdict::Stay;
        }
        if let Some((over_at, ended)) = self.closes {
            if now >= over_at {
                return Verdict::End(ended);
            }
            self.look_at = self.look_at.min(over_at);
            return Verdict::Stay;
        }
        let calls = usage.begun.load(Ordering::Relaxed);
        let is_idle = usage.under_way.load(Ordering::Relaxed) == 0 && calls == self.calls;
        self.calls = calls;
        self.idle_looks = if is_idle { self.idle_looks + 1 } else { 0 };
        let closes = if self.idle_looks >= IDLE_LOOKS_MAX {
            (now + CLOSED_WITHIN, Ended::Idle)
        } else if now >= self.old_at {
            (now + OLD_CALLS_WITHIN, Ended::Old)
        } else {
            return Verdict::Stay;
        };
        self.look_at = self.look_at.min(closes.0);
        self.closes = Some(closes);
        Verdict::Close
    }
}

/// The calls of one connection.
struct Calls {
    routes: Routes,
    usage: Arc<Usage>,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Answering>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, request: Request<Incoming>) -> Call {
        let kind = kind_of(request.uri().path());
        let headers = request.headers();
        let under_way = UnderWay::begin(&self.usage, time_allowed(headers));
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
        let headers = headers.sum();
        let mut request = request.map(|incoming| Asking::new(incoming, &under_way, kind));
        if kind != Kind::Single {
            request.extensions_mut().insert(Hold::new(&under_way));
        }
        *self.usage.newest() = Some(Arc::clone(&under_way));
        // Routes are always ready: they are a table, and what they lead to takes what comes.
        let future = tower::Service::call(&mut self.routes.clone(), request);
        Call {
            future,
            headers,
            waits_max: WAITS_MAX,
            heavy: self.usage.heavy(),
            has_place: false,
            timer: None,
            under_way: Some(under_way),
        }
    }
}

/// Calls that take many messages, and keep them until the last has come...
const COLLECTS: [&str; 1] = ["/stock.v1.InventoryService/RecordReceipts"];
/// ...and those that answer them as they come.
const CONVERSES: [&str; 4] = [
    "/stock.v1.ReservationService/ReserveStream",
    "/stock.lab.v1.EchoService/EchoStream",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What a call does with its messages.
pub(crate) fn kind_of(path: &str) -> Kind {
    if COLLECTS.contains(&path) {
        Kind::Collects
    } else if CONVERSES.contains(&path) {
        Kind::Converses
    } else {
        Kind::Single
    }
}

type RoutesFuture = <Routes as tower::Service<Request<Asking>>>::Future;

/// A call up to the head of its answer.
struct Call {
    future: RoutesFuture,
    /// What those of the request take.
    headers: usize,
    /// How often it yet waits for more to be read.
    waits_max: u8,
    /// What kept the node busy on its connection and let everybody else have a turn since.
    heavy: u64,
    has_place: bool,
    /// Until its deadline. What carries it out has one, too, but does not know how long the request
    /// was waited for.
    timer: Option<Pin<Box<Sleep>>>,
    under_way: Option<Arc<UnderWay>>,
}

impl Call {
    fn answer(&mut self, response: Response<tonic::body::Body>) -> CallOver {
        match self.under_way.take() {
            Some(under_way) => {
                Poll::Ready(Ok(response.map(|body| Answering::new(body, under_way))))
            }
            // It has been answered; nobody asks for more.
            None => Poll::Pending,
        }
    }

    fn refuse(&mut self, fault: Fault) -> CallOver {
        self.answer(fault.tell().into_http())
    }
}

type CallOver = Poll<Result<Response<Answering>, Infallible>>;

impl Future for Call {
    type Output = Result<Response<Answering>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> CallOver {
        let this = self.get_mut();
        let Some(under_way) = &this.under_way else {
            return Poll::Pending;
        };
        let usage = &under_way.usage;
        if this.waits_max > 0 {
            if usage.has_more.load(Ordering::Relaxed) {
                // The transport looks meanwhile whether it was reset.
                this.waits_max -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.waits_max = 0;
        }
        let heavy = usage.heavy();
        if this.heavy != heavy {
            this.heavy = heavy;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !this.has_place {
            if !under_way.take_place(this.headers) {
                return this.refuse(Fault::NoRoom);
            }
            this.has_place = true;
        }
        if let Poll::Ready(Ok(response)) = Pin::new(&mut this.future).poll(cx) {
            return this.answer(response);
        }
        if under_way.came_late.load(Ordering::Relaxed)
            && let Some(deadline) = under_way.deadline
        {
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            ready!(timer.as_mut().poll(cx));
            return this.refuse(Fault::Late);
        }
        Poll::Pending
    }
}

/// Runs the calls of a connection, each as a task of its own, and ends those whose answers are not
/// taken.
#[derive(Clone)]
struct Tasks(Arc<Usage>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        // The transport has just made it of the call that has just begun.
        let call = self.0.newest().take();
        tokio::spawn(async move {
            match call {
                Some(call) => attend(task, &call).await,
                None => drop(task.await),
            }
        });
    }
}

async fn attend(task: impl Future, call: &UnderWay) {
    let mut task = pin!(task);
    let mut patience = Patience::default();
    poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !call.is_taken.load(Ordering::Relaxed) {
            patience.rest();
            return Poll::Pending;
        }
        let given = call.given.load(Ordering::Relaxed);
        match ready!(patience.poll(given, call.deadline, cx)) {
            Over::Silent => Fault::ReaderSilent.count(),
            Over::Late => Fault::Late.count(),
        }
        // Dropped, it is reset, and what the transport has of it is gone.
        Poll::Ready(())
    })
    .await;
}
