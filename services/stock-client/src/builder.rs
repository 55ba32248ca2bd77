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

/// Opens a [`Client`] with other options than the usual ones.
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
    /// Adds a node, or an address in front of some, to learn the topology from: `http://HOST:PORT`.
    /// One that answers is enough.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// The cluster's name. Without it the client is of the first cluster that answers. Either way
    /// it stays of one cluster for as long as it lives, and nodes of another refuse its calls:
    /// addresses are used again.
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

    /// How long a call may take, retries included; [`CALL_TIMEOUT`] unless set.
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
    /// and [`WhenFull::Wait`] unless set. At least one may.
    #[must_use]
    pub fn calls_at_once(mut self, max: usize, when_full: WhenFull) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        self.options.places = Arc::new(Semaphore::new(max));
        self.options.places_max = max;
        self.options.when_full = when_full;
        self
    }

    /// Checks the endpoints as they are written: without a runtime, and without asking anybody.
    ///
    /// Fails with [`Error::InvalidEndpoint`].
    pub fn check(&self) -> Result<(), Error> {
        let mut endpoints = self.endpoints.iter();
        endpoints.try_for_each(|endpoint| parse(endpoint, &self.connector).map(drop))
    }

    /// Learns the topology and opens the client.
    ///
    /// Fails with [`Error::InvalidEndpoint`], or with [`Error::Unreachable`] where no endpoint
    /// answers within the [`start_timeout`](Self::start_timeout).
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
    /// Fails with [`Error::InvalidEndpoint`].
    pub fn connect_lazy(self) -> Result<Client, Error> {
        let pool = Pool::open(&self.endpoints, self.cluster, self.connector)?;
        Ok(Client::of(pool, self.options))
    }
}
