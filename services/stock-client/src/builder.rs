//! How a client is opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use crate::client::Client;
use crate::connector::Connector;
use crate::error::Error;
use crate::link::parse;
#[cfg(doc)]
use crate::options::{ATTEMPT_TIMEOUT, BULK_ATTEMPT_TIMEOUT, CALL_TIMEOUT, CALLS_AT_ONCE};
use crate::options::{Interceptor, LONGEST, Options, START_TIMEOUT, WhenFull};
use crate::pool::Pool;

/// Opens a [`Client`] with other options than the usual ones. What is set twice counts as it was
/// set last, but for endpoints, which add up.
///
/// ```no_run
/// # async fn example() -> Result<(), stock_client::Error> {
/// use std::time::Duration;
/// use stock_client::Client;
///
/// let client = Client::builder()
///     .endpoint("http://10.0.0.1:7401")
///     .endpoint("http://10.0.0.2:7401")
///     .cluster("shop")
///     .call_timeout(Duration::from_secs(3))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    cluster: Option<String>,
    connector: Connector,
    start: Duration,
    options: Options,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            cluster: None,
            connector: Connector::default(),
            start: START_TIMEOUT,
            options: Options::usual(),
        }
    }
}

impl ClientBuilder {
    /// Adds a node, or an address in front of some, to learn the topology from: `http://HOST:PORT`,
    /// or `HOST:PORT`. One that answers is enough; at least one is needed.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// The cluster's name. Without it the client is of the first cluster that answers. Either way
    /// it stays of one cluster for as long as it lives, and nodes of another refuse its calls:
    /// addresses are used again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use stock_client::fake::Fake;
    /// use stock_client::v1::ErrorReason;
    ///
    /// // The one in memory has the name `fake`.
    /// let builder = Fake::new().builder().cluster("shop");
    /// let builder = builder.start_timeout(std::time::Duration::from_millis(200));
    /// assert_eq!(builder.connect().await.unwrap_err().reason(), ErrorReason::WrongCluster);
    /// # }
    /// ```
    #[must_use]
    pub fn cluster(mut self, id: impl Into<String>) -> Self {
        self.cluster = Some(id.into());
        self
    }

    /// How connections are made, in place of plain TCP: the place for TLS, a proxy or a socket of
    /// another kind. It is given each endpoint with the client's limits and answers with a channel
    /// that connects when it is first used; the client makes a new one where an old one is silent.
    /// Endpoints may then be `https://`.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), stock_client::Error> {
    /// let client = stock_client::Client::builder()
    ///     .endpoint("http://10.0.0.1:7401")
    ///     .connector(|endpoint| endpoint.connect_lazy())
    ///     .connect_lazy()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn connector(mut self, make: impl Fn(Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        self.connector = Connector::of(make);
        self
    }

    /// Sees the metadata of each attempt before it is sent, and may add to it: a token that is made
    /// anew, a trace's context. What it fails with ends the call.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), stock_client::Error> {
    /// let client = stock_client::Client::builder()
    ///     .endpoint("http://10.0.0.1:7401")
    ///     .interceptor(|metadata| {
    ///         let token = stock_client::tonic::metadata::MetadataValue::from_static("Bearer ...");
    ///         metadata.insert("authorization", token);
    ///         Ok(())
    ///     })
    ///     .connect_lazy()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn interceptor(
        mut self,
        see: impl Fn(&mut MetadataMap) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        self.options.interceptor = Some(Interceptor::of(see));
        self
    }

    /// How long a call may take, retries included; [`CALL_TIMEOUT`] unless set. For single calls:
    /// [`CallOptions::timeout`](crate::CallOptions::timeout).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::{Error, fake::{Fake, Fault}, v1::GetTopologyRequest};
    /// # let fake = Fake::new();
    /// use std::time::Duration;
    ///
    /// let client = fake.builder().call_timeout(Duration::from_millis(300)).connect().await?;
    /// fake.fail_all::<GetTopologyRequest>(Fault::Silent);
    /// # let request = stock_client::v1::GetReservationRequest::default();
    /// # fake.fail_all::<stock_client::v1::GetReservationRequest>(Fault::Silent);
    /// match client.get_reservation(request).await {
    ///     Err(Error::Timeout { after, .. }) => assert_eq!(after, Duration::from_millis(300)),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.options.call = timeout.min(LONGEST);
        self
    }

    /// How long one node may take over one attempt, at most: [`ATTEMPT_TIMEOUT`] unless set. An
    /// attempt never takes longer than a quarter of its call's time, so that there is time for
    /// others.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt = timeout.min(LONGEST);
        self
    }

    /// How long one node may take over one attempt at a call of many lines, at most;
    /// [`BULK_ATTEMPT_TIMEOUT`] unless set.
    #[must_use]
    pub fn bulk_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.bulk_attempt = timeout.min(LONGEST);
        self
    }

    /// How long [`ClientBuilder::connect`] goes on trying; [`START_TIMEOUT`] unless set.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start = timeout.min(LONGEST);
        self
    }

    /// How many calls may be under way at once, and what becomes of further ones: [`CALLS_AT_ONCE`]
    /// and [`WhenFull::Wait`] unless set. At least one may. Either way a call that finds no place
    /// fails with [`Error::TooManyCalls`]. Those of a [`ReserveStream`](crate::ReserveStream) take
    /// no places; a batch takes one for each leader that it goes to.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::{Error, WhenFull, fake::{Fake, Fault}, v1::ReserveRequest};
    /// # let fake = Fake::new();
    /// let client = fake.builder().calls_at_once(1, WhenFull::Fail).connect().await?;
    /// # fake.fail_all::<ReserveRequest>(Fault::Silent);
    /// let reserve = || client.reserve(ReserveRequest::default());
    /// // The first one is under way, and has no answer yet.
    /// tokio::select! {
    ///     biased;
    ///     _ = reserve() => panic!("nobody answers"),
    ///     second = reserve() => assert!(matches!(second, Err(Error::TooManyCalls { max: 1 }))),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn calls_at_once(mut self, max: usize, when_full: WhenFull) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        self.options.places = Arc::new(Semaphore::new(max));
        self.options.places_max = max;
        self.options.when_full = when_full;
        self
    }

    /// Checks the endpoints as they are written: without a runtime, and without asking anybody.
    /// That there is one at all, only connecting checks.
    ///
    /// Fails with [`Error::InvalidEndpoint`].
    ///
    /// ```
    /// use stock_client::Client;
    ///
    /// let error = Client::builder().endpoint("http://10.0.0.1:7401/stock").check().unwrap_err();
    /// assert!(error.to_string().contains("it must end after the port"));
    /// ```
    pub fn check(&self) -> Result<(), Error> {
        let mut endpoints = self.endpoints.iter();
        endpoints.try_for_each(|endpoint| parse(endpoint, &self.connector).map(drop))
    }

    /// Learns the topology and opens the client.
    ///
    /// Fails with [`Error::InvalidEndpoint`], also where there is no endpoint, or with
    /// [`Error::Unreachable`] where none answers within the [`start_timeout`](Self::start_timeout):
    /// what the last one failed with is told, as that it is of another cluster.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let builder = stock_client::fake::Fake::new().builder();
    /// let client = builder.connect().await?;
    /// assert_eq!(client.topology().nodes().len(), 1, "it has learnt who is there");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<Client, Error> {
        let endpoints = self.endpoints.join(", ");
        let until = Instant::now() + self.start;
        let client = self.connect_lazy()?;
        match client.pool().has_learnt(until).await {
            true => Ok(client),
            false => Err(Error::Unreachable {
                endpoints,
                last: client.pool().failure().map(Box::new),
            }),
        }
    }

    /// Opens the client without waiting for any node: its first calls do, for as long as each may
    /// take. For programs that start beside the cluster.
    ///
    /// Fails with [`Error::InvalidEndpoint`], also where there is no endpoint.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let builder = stock_client::fake::Fake::new().builder();
    /// let client = builder.connect_lazy()?;
    /// assert!(client.topology().nodes().is_empty(), "nobody has been asked");
    /// client.get_topology().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_lazy(self) -> Result<Client, Error> {
        let pool = Pool::open(&self.endpoints, self.cluster, self.connector)?;
        Ok(Client::of(pool, self.options))
    }
}
