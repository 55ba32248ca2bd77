//! gRPC on one connection: HTTP/2 as hyper speaks it, and the limits that tonic's own server has no words for. A
//! connection must say what it speaks in time, answers pings, is ended when it is idle for long or old, and by a flood
//! of resets. Connections from other nodes are neither idle nor old.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::frames::{Seen, Watched};
use super::resets::{Resets, WAITED};
use super::{Accepted, Guest};

/// A client says what it speaks within this, or is disconnected.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);

/// A client is pinged so often...
const PING_EVERY: Duration = Duration::from_secs(30);
/// ...and is disconnected when it has not answered after this.
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A connection without calls for so many looks in a row, a quarter of an hour, is closed: the client opens another one
/// when it needs it.
const IDLE_LOOKS_MAX: u32 = 15;
/// What is left to say on it is said within this.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// A connection takes no new calls any more after this, so that clients spread over nodes that came back. Up to a tenth
/// more, so that those which came together do not leave together...
const AGE_MAX: Duration = Duration::from_secs(3_600);
/// ...and those under way, streams among them, have so long to end.
const OLD_CALLS_WITHIN: Duration = Duration::from_secs(3_600);

/// Calls of one connection that may be on their way at once.
const STREAMS_PER_CONNECTION_MAX: u32 = 4_096;

/// Calls that were reset before the transport had passed them on: as many as it reads in one go (128 times 8 KiB) where
/// each takes 128 bytes. Calls with less in them are no calls, and [`Resets`] judges what comes over time.
const RESET_UNSEEN_MAX: usize = 8_192;

/// Bytes of requests of one connection that may be unread. The transport ends a connection whose unread frames are many
/// and small, and lets them cost half of this together: with less, four thousand calls that wait at once, as after a
/// stall, would be too many.
const UNREAD_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// Calls of one connection that the transport resets itself, over all its life: data for a call that was refused before
/// all of it was there, mostly.
const RESET_HERE_MAX: usize = 65_536;

/// After a stall a call and its reset are both there, but far from each other. So before a call is begun, everything
/// that has come is read, in as many turns at most; each reads a mebibyte, and a socket's buffer has no more than some.
const WAITS_MAX: u8 = 8;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Anybody.
    Client,
    /// A node, in clients' names.
    Node,
}

/// Why a connection was ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Silent,
    Resets,
    Crowded,
    Idle,
    Old,
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Resets => "resets",
            Self::Crowded => "crowded",
            Self::Idle => "idle",
            Self::Old => "old",
        }
    }
}

/// Serves a connection to its end. Told to stop, it takes no new calls and finishes those under way.
pub async fn serve(accepted: Accepted, caller: Caller, routes: Routes, stop: CancellationToken) {
    let Accepted {
        stream,
        from,
        guest,
    } = accepted;
    let ended = converse(stream, guest, caller, routes, stop).await;
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
    guest: Guest,
    caller: Caller,
    routes: Routes,
    stop: CancellationToken,
) -> Option<Ended> {
    let usage = Arc::new(Usage::new(guest));
    let watched = {
        let usage = Arc::clone(&usage);
        Watched::new(stream, move |seen| usage.take_note(seen))
    };
    let calls = Calls {
        routes,
        usage: Arc::clone(&usage),
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_connection_window_size(UNREAD_BYTES_MAX)
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
                match watch.look(&usage, caller, Instant::now()) {
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

    fn look(&mut self, usage: &Usage, caller: Caller, now: Instant) -> Verdict {
        self.look_at = now + LOOK_EVERY;
        if !usage.guest.is_introduced() {
            return Verdict::End(Ended::Silent);
        }
        if caller == Caller::Node {
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

/// What is known of a connection while it is served.
struct Usage {
    guest: Guest,
    under_way: AtomicUsize,
    begun: AtomicU64,
    /// There is more to be read of it.
    has_more: AtomicBool,
    resets: Mutex<Resets>,
}

impl Usage {
    fn new(guest: Guest) -> Self {
        Self {
            guest,
            under_way: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            has_more: AtomicBool::new(false),
            resets: Mutex::new(Resets::new(std::time::Instant::now())),
        }
    }

    fn take_note(&self, seen: Seen) {
        self.has_more.store(seen.has_more, Ordering::Relaxed);
        if seen.preface {
            self.guest.introduced();
        }
        if seen.resets > 0 {
            let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
            if !resets.take(seen.resets, std::time::Instant::now()) {
                self.guest.ask_to_leave();
            }
        }
    }

    fn was_given_up(&self, began: std::time::Instant) {
        if began.elapsed() >= WAITED {
            let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
            resets.give_back();
        }
    }
}

/// The calls of one connection.
struct Calls {
    routes: Routes,
    usage: Arc<Usage>,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, request: Request<Incoming>) -> Call {
        // Routes are always ready: they are a table, and what they lead to takes what comes.
        let future = tower::Service::call(&mut self.routes.clone(), request);
        Call {
            future,
            waits_max: WAITS_MAX,
            under_way: Some(UnderWay::begin(&self.usage)),
        }
    }
}

type RoutesFuture = <Routes as tower::Service<Request<Incoming>>>::Future;

/// A call up to the head of its answer.
struct Call {
    future: RoutesFuture,
    /// How often it yet waits for more to be read.
    waits_max: u8,
    under_way: Option<UnderWay>,
}

impl Future for Call {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.waits_max > 0 {
            let under_way = this.under_way.as_ref();
            if under_way.is_some_and(|it| it.usage.has_more.load(Ordering::Relaxed)) {
                // The transport looks meanwhile whether it was reset.
                this.waits_max -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.waits_max = 0;
        }
        let Ok(response) = ready!(Pin::new(&mut this.future).poll(cx));
        let under_way = this.under_way.take();
        Poll::Ready(Ok(response.map(|body| Answer { body, under_way })))
    }
}

/// An answer up to its end.
struct Answer {
    body: tonic::body::Body,
    under_way: Option<UnderWay>,
}

impl Answer {
    fn is_over(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            under_way.is_over = true;
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            this.is_over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts a call for as long as it lasts, and whether it was given up.
struct UnderWay {
    usage: Arc<Usage>,
    began: std::time::Instant,
    is_over: bool,
}

impl UnderWay {
    fn begin(usage: &Arc<Usage>) -> Self {
        usage.begun.fetch_add(1, Ordering::Relaxed);
        usage.under_way.fetch_add(1, Ordering::Relaxed);
        Self {
            usage: Arc::clone(usage),
            began: std::time::Instant::now(),
            is_over: false,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.usage.under_way.fetch_sub(1, Ordering::Relaxed);
        if !self.is_over {
            self.usage.was_given_up(self.began);
        }
    }
}
