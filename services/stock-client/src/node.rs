//! The nodes the client knows, one connection each, and which of them to ask next.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use stock_proto::stock::v1::topology_service_client::TopologyServiceClient;
use stock_proto::stock::v1::{GetTopologyRequest, GetTopologyResponse};
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

use crate::choice::{Candidate, choose};
use crate::error::{Error, StatusError};
use crate::retry::Backoff;
use crate::route::Target;
use crate::topology::Topology;

/// How long a TCP connection may take. Nodes are in the same network; a host that is gone answers
/// nothing at all, and the call has others to ask.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long opening a client goes on trying to find one node that answers. Long enough for a
/// restarting pod, short enough for a person who mistyped the endpoint.
pub const START_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one node may take to say what it knows of the cluster: it answers from memory.
pub const TOPOLOGY_TIMEOUT: Duration = Duration::from_millis(500);

/// How old the topology of a client in use may get. A leader that handed over goes on forwarding,
/// so nothing fails that would tell; each call costs a hop until the client looks again.
pub const TOPOLOGY_AGE_MAX: Duration = Duration::from_secs(1);

/// The least time between two looks at the topology, however many calls fail: during an election
/// all of them do, and none learns more by asking more often.
pub const TOPOLOGY_AGE_MIN: Duration = Duration::from_millis(20);

/// How long a node that did not answer is tried last. After that one call finds out anew; if the
/// node is still down that call loses one failed attempt, which is a millisecond in most cases.
pub const SUSPECT_FOR: Duration = Duration::from_secs(1);

/// A connection on which calls wait is checked this often, because a host that lost its power
/// closes nothing.
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

/// One node, or an endpoint that the caller gave and that is no node's published one (a load
/// balancer, a forwarded port).
#[derive(Debug)]
pub(crate) struct Link {
    /// `None` for an endpoint that stands for no node in particular.
    node_id: Option<u64>,
    endpoint: String,
    channel: Channel,
    /// Milliseconds since the pool was opened; 0: not suspect.
    suspect_until_ms: Arc<AtomicU64>,
}

impl Link {
    fn open(endpoint: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::InvalidEndpoint {
            endpoint: endpoint.to_owned(),
            why: why.to_owned(),
        };
        let url = if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            format!("http://{endpoint}")
        };
        let parsed =
            Endpoint::from_shared(url).map_err(|_| invalid("it does not parse as a URL"))?;
        match parsed.uri().scheme_str() {
            Some("http") => {}
            _ => return Err(invalid("it must begin with http://")),
        }
        if parsed.uri().host().is_none_or(str::is_empty) {
            return Err(invalid("it names no host"));
        }
        let channel = parsed
            // Small messages must leave at once: with Nagle's algorithm p99 is 40 ms.
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .http2_max_local_error_reset_streams(LATE_ANSWERS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_lazy();
        Ok(Self {
            node_id: None,
            endpoint: endpoint.to_owned(),
            channel,
            suspect_until_ms: Arc::default(),
        })
    }

    /// The same connection under another name.
    fn known_as(&self, node_id: Option<u64>) -> Self {
        Self {
            node_id,
            endpoint: self.endpoint.clone(),
            channel: self.channel.clone(),
            suspect_until_ms: Arc::clone(&self.suspect_until_ms),
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The node answered, whatever it said.
    pub(crate) fn answered(&self) {
        if self.suspect_until_ms.load(Ordering::Relaxed) != 0 {
            self.suspect_until_ms.store(0, Ordering::Relaxed);
        }
    }
}

/// The topology and a connection to each of its nodes, replaced together.
#[derive(Debug)]
struct Routes {
    topology: Arc<Topology>,
    /// The nodes in the order of the topology, then the caller's endpoints that are no node's own.
    links: Vec<Arc<Link>>,
    /// When it was learnt, in milliseconds since the pool was opened.
    learnt_ms: u64,
}

/// Every node the client knows.
#[derive(Debug)]
pub(crate) struct Pool {
    opened_at: Instant,
    /// What the caller gave; kept, in case every known node moves away.
    seeds: Vec<Arc<Link>>,
    routes: RwLock<Arc<Routes>>,
    /// One look at the topology at a time, however many calls ask for it.
    looking: AtomicBool,
    looked_ms: AtomicU64,
    turn: AtomicUsize,
}

impl Pool {
    /// Learns the topology from the first endpoint that answers.
    pub(crate) async fn open(endpoints: &[String]) -> Result<Arc<Self>, Error> {
        let mut seeds = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            seeds.push(Arc::new(Link::open(endpoint)?));
        }
        let Some(count) = std::num::NonZeroUsize::new(seeds.len()) else {
            return Err(Error::InvalidEndpoint {
                endpoint: String::new(),
                why: "at least one endpoint is needed".into(),
            });
        };
        let opened_at = Instant::now();
        let mut backoff = Backoff::new();
        let mut attempt = 0;
        loop {
            let failure = match ask(&seeds[attempt % count]).await {
                Ok(view) => {
                    let topology = Topology::new(view);
                    let routes = Routes {
                        links: links(&topology, &[], &seeds),
                        topology: Arc::new(topology),
                        learnt_ms: 0,
                    };
                    return Ok(Arc::new(Self {
                        opened_at,
                        seeds,
                        routes: RwLock::new(Arc::new(routes)),
                        looking: AtomicBool::new(false),
                        looked_ms: AtomicU64::new(0),
                        // Clients that start together shall not all read from the same node.
                        turn: AtomicUsize::new(rand::random_range(0..1 << 16)),
                    }));
                }
                Err(failure) => failure,
            };
            attempt += 1;
            let round_done = attempt % count == 0;
            let pause = if round_done {
                backoff.pause(None, &mut rand::rng())
            } else {
                Duration::ZERO
            };
            if round_done && opened_at.elapsed() + pause > START_TIMEOUT {
                return Err(Error::Unreachable {
                    endpoints: endpoints.join(", "),
                    last: Some(Box::new(failure)),
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.routes().topology)
    }

    /// The connection to a node that the topology names.
    pub(crate) fn node_channel(&self, node_id: u64) -> Option<Channel> {
        let routes = self.routes();
        let link = routes.links.iter().find(|l| l.node_id == Some(node_id))?;
        Some(link.channel())
    }

    pub(crate) fn node_channels(&self) -> Vec<(u64, Channel)> {
        let routes = self.routes();
        let nodes = routes.links.iter();
        nodes
            .filter_map(|link| Some((link.node_id?, link.channel())))
            .collect()
    }

    /// Which node to ask next: the one that answers `target` itself, unless it has just failed this
    /// call (`avoid`) or is suspect; others take turns.
    pub(crate) fn choose(self: &Arc<Self>, target: Target, avoid: Option<&Link>) -> Arc<Link> {
        let routes = self.routes();
        let now_ms = self.now_ms();
        if now_ms.saturating_sub(routes.learnt_ms) > as_ms(TOPOLOGY_AGE_MAX) {
            self.look_again();
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let candidate = |index: usize| {
            let link = &routes.links[index];
            Candidate {
                node: link.node_id,
                is_suspect: link.suspect_until_ms.load(Ordering::Relaxed) > now_ms,
                is_avoided: avoid.is_some_and(|avoid| avoid.endpoint == link.endpoint),
            }
        };
        let count = routes.links.len();
        let best = choose(&routes.topology, target, count, candidate, turn);
        // There is always a link: `open` refuses to start without an endpoint, and `links` keeps
        // it.
        Arc::clone(&routes.links[best.unwrap_or(0)])
    }

    /// The node did not answer: for a while it is tried last.
    pub(crate) fn suspect(&self, link: &Link) {
        let until_ms = self.now_ms() + as_ms(SUSPECT_FOR);
        link.suspect_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Learns the topology anew, beside the calls: none of them waits for it, and however many ask,
    /// one look is under way at a time.
    pub(crate) fn look_again(self: &Arc<Self>) {
        let looked_ms = self.looked_ms.load(Ordering::Relaxed);
        let just_looked =
            looked_ms != 0 && self.now_ms().saturating_sub(looked_ms) < as_ms(TOPOLOGY_AGE_MIN);
        if just_looked || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            // Dropped with the task whatever happens to it, so that a runtime that shuts down in
            // the middle does not leave the client blind on the next one.
            let _done = Looking(&pool);
            pool.look().await;
        });
    }

    async fn look(self: &Arc<Self>) {
        let nodes = self.routes().links.len();
        let mut avoid: Option<Arc<Link>> = None;
        for _ in 0..nodes {
            let link = self.choose(Target::Any, avoid.as_deref());
            match ask(&link).await {
                Ok(view) => {
                    link.answered();
                    self.learn(view);
                    return;
                }
                Err(failure) => {
                    debug!(endpoint = link.endpoint(), error = %failure, "no topology from here");
                    self.suspect(&link);
                    avoid = Some(link);
                }
            }
        }
    }

    fn learn(&self, view: GetTopologyResponse) {
        let old = self.routes();
        let topology = old.topology.succeeded_by(view);
        let routes = Routes {
            links: links(&topology, &old.links, &self.seeds),
            topology: Arc::new(topology),
            learnt_ms: self.now_ms(),
        };
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn now_ms(&self) -> u64 {
        as_ms(self.opened_at.elapsed())
    }
}

/// Marks the look as over.
struct Looking<'a>(&'a Pool);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let now_ms = self.0.now_ms().max(1);
        self.0.looked_ms.store(now_ms, Ordering::Relaxed);
        self.0.looking.store(false, Ordering::Release);
    }
}

/// A connection for every node of the topology, in its order, then the seeds that are none of them.
/// Connections that exist are kept; a node whose published endpoint is no endpoint is reached
/// through the others.
fn links(topology: &Topology, known: &[Arc<Link>], seeds: &[Arc<Link>]) -> Vec<Arc<Link>> {
    let mut links: Vec<Arc<Link>> = Vec::with_capacity(topology.nodes().len() + seeds.len());
    for node in topology.nodes() {
        let same_node = |link: &&Arc<Link>| {
            link.endpoint == node.endpoint && link.node_id == Some(node.node_id)
        };
        let same_endpoint = |link: &&Arc<Link>| link.endpoint == node.endpoint;
        let link = if let Some(kept) = known.iter().find(same_node) {
            Arc::clone(kept)
        } else if let Some(shared) = known.iter().chain(seeds).find(same_endpoint) {
            Arc::new(shared.known_as(Some(node.node_id)))
        } else {
            match Link::open(&node.endpoint) {
                Ok(opened) => Arc::new(opened.known_as(Some(node.node_id))),
                Err(error) => {
                    debug!(node_id = node.node_id, %error, "a node that cannot be reached");
                    let Some(seed) = seeds.first() else { continue };
                    Arc::new(seed.known_as(Some(node.node_id)))
                }
            }
        };
        links.push(link);
    }
    for seed in seeds {
        if !links.iter().any(|link| link.endpoint == seed.endpoint) {
            links.push(Arc::clone(seed));
        }
    }
    links
}

async fn ask(link: &Link) -> Result<GetTopologyResponse, StatusError> {
    let mut stub = TopologyServiceClient::new(link.channel());
    let mut request = tonic::Request::new(GetTopologyRequest {});
    request.set_timeout(TOPOLOGY_TIMEOUT);
    match timeout(TOPOLOGY_TIMEOUT, stub.get_topology(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(StatusError::from(status)),
        Err(_) => Err(StatusError::silent(TOPOLOGY_TIMEOUT)),
    }
}

fn as_ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
