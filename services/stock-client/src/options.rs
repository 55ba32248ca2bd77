//! What callers choose: for a client, and for single calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// How long a call may take, retries and pauses included, unless the builder says otherwise.
/// Several elections fit in; a checkout that waits longer has lost its shopper.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one node may take over one attempt before another is asked, at most; and never longer
/// than a quarter of the call's time. Answers take a millisecond; this is longer than an election,
/// so that a call that waits for one is not sent twice.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The same for calls of many lines, which may queue behind each other on a busy disk.
pub const BULK_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long opening a client goes on trying to find one node that answers. Long enough for a
/// restarting pod, short enough for a person who mistyped the endpoint.
pub const START_TIMEOUT: Duration = Duration::from_secs(2);

/// Calls of one client that are under way at once, unless the builder says otherwise.
pub const CALLS_AT_ONCE: usize = 10_000;

/// Longer than any call: what is left of a time that would not end within a year.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What becomes of a call where as many as may be are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for another one to end; the wait counts towards its time. Where none ends within
    /// that, it fails as with [`WhenFull::Fail`].
    Wait,
    /// It fails with [`Error::TooManyCalls`](crate::Error::TooManyCalls), at once.
    Fail,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) call: Duration,
    pub(crate) attempt: Duration,
    pub(crate) bulk_attempt: Duration,
    pub(crate) attempts_max: u32,
    pub(crate) metadata: Option<Arc<MetadataMap>>,
    pub(crate) interceptor: Option<Interceptor>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) places_max: usize,
    pub(crate) when_full: WhenFull,
}

impl Options {
    pub(crate) fn usual() -> Self {
        Self {
            call: CALL_TIMEOUT,
            attempt: ATTEMPT_TIMEOUT,
            bulk_attempt: BULK_ATTEMPT_TIMEOUT,
            attempts_max: u32::MAX,
            metadata: None,
            interceptor: None,
            places: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
            places_max: CALLS_AT_ONCE,
            when_full: WhenFull::Wait,
        }
    }
}

type See = dyn Fn(&mut MetadataMap) -> Result<(), Status> + Send + Sync;

/// Sees the metadata of each attempt.
#[derive(Clone)]
pub(crate) struct Interceptor(Arc<See>);

impl Interceptor {
    pub(crate) fn of(
        see: impl Fn(&mut MetadataMap) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(see))
    }

    pub(crate) fn see(&self, metadata: &mut MetadataMap) -> Result<(), Status> {
        (self.0)(metadata)
    }
}

impl fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an interceptor")
    }
}

/// Options of single calls: see [`Client::with`](crate::Client::with).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), stock_client::Error> {
/// # use stock_client::{fake::{Fake, Fault}, v1::ReserveRequest};
/// # let fake = Fake::new();
/// # let client = fake.client()?;
/// use std::time::Duration;
/// use stock_client::CallOptions;
///
/// let options = CallOptions::new().timeout(Duration::from_secs(1)).attempts(1);
/// let impatient = client.with(options);
/// fake.fail_next::<ReserveRequest>(Fault::NoLeader);
/// let error = impatient.reserve(ReserveRequest::default()).await.unwrap_err();
/// assert!(error.is_retryable() && !error.outcome_unknown());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    timeout: Option<Duration>,
    attempts: Option<u32>,
    metadata: Option<MetadataMap>,
}

impl CallOptions {
    /// The client's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the call may take, retries included: of a list, each page; of a stream, each
    /// request. A change should have 100 ms or more.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout.min(LONGEST));
        self
    }

    /// How often the call may be sent, at most; once at least. What the last attempt failed with is
    /// then the call's error, as an [`Error::Status`](crate::Error::Status).
    #[must_use]
    pub fn attempts(mut self, max: u32) -> Self {
        self.attempts = Some(max.max(1));
        self
    }

    /// What goes with each attempt: a trace's context, a token. It takes the place of what was set
    /// before. What is made anew for each attempt is the
    /// [`interceptor`](crate::ClientBuilder::interceptor)'s.
    ///
    /// ```
    /// use stock_client::CallOptions;
    /// use stock_client::tonic::metadata::MetadataMap;
    ///
    /// let mut metadata = MetadataMap::new();
    /// let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    /// metadata.insert("traceparent", trace.parse().expect("it is ASCII"));
    /// let traced = CallOptions::new().metadata(metadata);
    /// # drop(traced);
    /// ```
    #[must_use]
    pub fn metadata(mut self, metadata: MetadataMap) -> Self {
        self.metadata = Some(metadata);
        self
    }

    pub(crate) fn over(self, options: &Options) -> Options {
        let metadata = self.metadata.map(Arc::new);
        Options {
            call: self.timeout.unwrap_or(options.call),
            attempts_max: self.attempts.unwrap_or(options.attempts_max),
            metadata: metadata.or_else(|| options.metadata.clone()),
            ..options.clone()
        }
    }
}
