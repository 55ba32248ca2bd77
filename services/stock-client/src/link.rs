//! A connection to one endpoint.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use stock_proto::stock::v1::topology_service_client::TopologyServiceClient;
use stock_proto::stock::v1::{GetTopologyRequest, GetTopologyResponse};
use tokio::sync::Notify;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::connector::Connector;
use crate::error::{Error, StatusError};
use crate::way::TOPOLOGY_TIMEOUT;

/// How long a TCP connection may take. It is not to be set. Nodes are in the same network; a host
/// that is gone answers nothing at all, and the call has others to ask.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection is checked this often, whether calls wait on it or not: a host that lost its power
/// closes nothing, and a firewall forgets a connection on which nothing is said.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a check may take before the connection counts as lost.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node may send on one call before it waits for the client: one answer of the largest size
/// fits. A fixed window, because measuring the best one costs ping frames beside every small call.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// What a node may send on all calls together before it waits for the client.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Answers of one connection that came after their calls were given up. The transport takes each
/// for a fault of the other side, and ends the connection after a thousand of them, and every call
/// on it: after a stall there are more.
const LATE_ANSWERS_MAX: usize = 1024 * 1024;

/// A node that is doubted has so long to answer over the connection that there is, and then twice
/// as long over a new one. Where the network is slow, a few times what it usually takes.
const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(50);

/// How finely it is measured whether this process had a processor meanwhile.
const AWAKE_STEP: Duration = Duration::from_millis(10);

/// One endpoint: a node's, or one that the caller gave and that is no node's own (a load balancer,
/// a forwarded port).
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    connector: Connector,
    channel: RwLock<Channel>,
    /// Counts the connections that were left for a new one.
    generation: AtomicU64,
    /// Counts what has come over it, calls' answers and not probes'.
    answers: AtomicU64,
    /// Whether the client has reason to doubt that calls are answered there.
    pub(crate) is_watched: AtomicBool,
    /// Whether somebody sees to its probes.
    pub(crate) is_minded: AtomicBool,
    /// Something has happened that may make a probe due earlier.
    pub(crate) hurry: Notify,
    /// What its last probe failed with.
    failure: Mutex<Option<StatusError>>,
}

/// A connection as an attempt uses it.
pub(crate) struct Way {
    pub(crate) channel: Channel,
    generation: u64,
}

impl Link {
    pub(crate) fn open(endpoint: &str, connector: &Connector) -> Result<Self, Error> {
        let endpoint = parse(endpoint, connector)?;
        Ok(Self {
            channel: RwLock::new(connector.channel(&endpoint)),
            connector: connector.clone(),
            endpoint,
            generation: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            is_watched: AtomicBool::new(true),
            is_minded: AtomicBool::new(false),
            hurry: Notify::new(),
            failure: Mutex::new(None),
        })
    }

    /// The connection that there is now.
    pub(crate) fn way(&self) -> Way {
        let channel = self.channel.read().unwrap_or_else(PoisonError::into_inner);
        Way {
            channel: channel.clone(),
            generation: self.generation.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.way().channel
    }

    /// Whether calls that go this way wait on a connection that was left.
    pub(crate) fn has_left(&self, way: &Way) -> bool {
        self.generation.load(Ordering::Relaxed) != way.generation
    }

    /// A call was answered.
    pub(crate) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the node who leads what, over the connection that there is.
    pub(crate) async fn look(&self) -> Result<GetTopologyResponse, StatusError> {
        ask(self.channel(), TOPOLOGY_TIMEOUT).await
    }

    /// The same, to find out whether the node answers at all. `usual` is how long it takes, zero
    /// where that is not known. A connection that does not answer, where a new one does, is left:
    /// calls that wait on it are told by its generation. One that answers other calls meanwhile has
    /// much to carry, and is kept.
    pub(crate) async fn probe(
        &self,
        is_connected: bool,
        usual: Duration,
    ) -> Result<GetTopologyResponse, StatusError> {
        let patience = match usual {
            Duration::ZERO => TOPOLOGY_TIMEOUT,
            usual => (usual * 4).max(PROBE_TIMEOUT_MIN),
        };
        let answers = self.answers.load(Ordering::Relaxed);
        if is_connected && let Ok(view) = ask(self.channel(), patience).await {
            return Ok(view);
        }
        let fresh = self.connector.channel(&self.endpoint);
        match ask(fresh.clone(), patience * 2).await {
            Ok(view) if self.answers.load(Ordering::Relaxed) != answers => Ok(view),
            Ok(view) => {
                *self.channel.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                self.generation.fetch_add(1, Ordering::Relaxed);
                *self.failure() = None;
                Ok(view)
            }
            Err(failure) => {
                *self.failure() = Some(failure.clone());
                Err(failure)
            }
        }
    }

    /// What its last probe failed with.
    pub(crate) fn failure(&self) -> MutexGuard<'_, Option<StatusError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What connects to an endpoint, as it is written.
pub(crate) fn parse(endpoint: &str, connector: &Connector) -> Result<Endpoint, Error> {
    let invalid = |why: &str| Error::InvalidEndpoint {
        endpoint: endpoint.to_owned(),
        why: why.to_owned(),
    };
    let url = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("http://{endpoint}")
    };
    let parsed = Endpoint::from_shared(url).map_err(|_| invalid("it does not parse as a URL"))?;
    let uri = parsed.uri();
    match uri.scheme_str() {
        Some(scheme) if connector.takes(scheme) => {}
        Some("https") => {
            return Err(invalid(
                "https:// needs a connector that speaks TLS: ClientBuilder::connector",
            ));
        }
        _ => return Err(invalid("it must begin with http://")),
    }
    let Some(authority) = uri.authority().filter(|it| !it.host().is_empty()) else {
        return Err(invalid("it names no host"));
    };
    if authority.as_str().contains('@') {
        return Err(invalid("a user or password has no meaning in it"));
    }
    let has_port = authority.as_str().len() > authority.host().len();
    if has_port && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(invalid("its port is no number from 1 to 65535"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(invalid(
            "it must end after the port: paths have no meaning in it",
        ));
    }
    Ok(parsed
        // Small messages must leave at once: with Nagle's algorithm p99 is 40 ms.
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_local_error_reset_streams(LATE_ANSWERS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

async fn ask(channel: Channel, within: Duration) -> Result<GetTopologyResponse, StatusError> {
    let mut stub = TopologyServiceClient::new(channel);
    let mut request = tonic::Request::new(GetTopologyRequest {});
    request.set_timeout(within * 2);
    match awake_for(within, stub.get_topology(request)).await {
        Some(Ok(response)) => Ok(response.into_inner()),
        Some(Err(status)) => Err(StatusError::from(status)),
        None => Err(StatusError::silent(within)),
    }
}

/// Waits for so long as this process runs: where it had no processor for a while, the other side's
/// answer was not late, nor does it count as silence.
async fn awake_for<F: Future>(within: Duration, answer: F) -> Option<F::Output> {
    let mut answer = pin!(answer);
    let mut left = within;
    while !left.is_zero() {
        let step = left.min(AWAKE_STEP);
        if let Ok(answer) = timeout(step, answer.as_mut()).await {
            return Some(answer);
        }
        left -= step;
    }
    None
}
