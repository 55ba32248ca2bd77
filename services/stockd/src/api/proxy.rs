//! Calls that another node must answer: reads of shards this one has no replica of, and what only
//! the leader of group 0 knows. They go on as calls of the public API, once: a node that was asked
//! by a node answers itself. They take the way between peers, so that they need no other address
//! and come from nobody unknown.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use stock_proto::codec::MESSAGE_BYTES_MAX;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use super::deadline::Deadline;
use super::error::ApiError;
use crate::peers::Peers;

/// The other node answers within this, where the caller gave no deadline: it may stand still for as
/// long as its disk is full.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// The other node is pinged so often while it owes an answer...
const PING_EVERY: Duration = Duration::from_secs(10);
/// ...and taken for gone when it has not answered after this.
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// What another node answers in this one's place may be so large for the transport: over
/// [`MESSAGE_BYTES_MAX`] it is refused by name in the codec. What comes from callers is refused
/// there and then, in `listeners/`.
pub(super) const TRANSPORT_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

/// Connections to the other nodes' edges, made when they are first needed.
pub struct Proxy {
    peers: Arc<Peers>,
    channels: Mutex<BTreeMap<u64, Channel>>,
}

impl Proxy {
    /// Connected to nobody.
    pub fn new(peers: Arc<Peers>) -> Self {
        Self {
            peers,
            channels: Mutex::default(),
        }
    }

    /// A connection to a node. Where it is, is looked up whenever it is connected.
    pub(super) fn channel(&self, node: u64) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(node).or_insert_with(|| {
            let peers = Arc::clone(&self.peers);
            let connect = move |_: Uri| {
                let peers = Arc::clone(&peers);
                async move {
                    let connected = peers.connect_for_calls(node).await;
                    connected.map(TokioIo::new).map_err(io::Error::other)
                }
            };
            // Its name is only for the calls' heads.
            Endpoint::from_static("http://peer")
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PONG_WITHIN)
                .connect_with_connector_lazy(tower::service_fn(connect))
        });
        channel.clone()
    }
}

/// Waits for the node that was asked in this one's place, for as long as the caller does, and not
/// for ever.
pub(super) async fn answer<T>(
    deadline: Deadline,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, ApiError> {
    let call = async { call.await.map_err(ApiError::Elsewhere) };
    deadline.or(ANSWERED_WITHIN).limit(call).await
}

/// Whether a node that was asked failed in a way that is its own: it is gone, stops, or has no
/// replica any more. That a state was not new enough in time is none: that has been waited for.
pub(super) fn another_may_know(error: &ApiError) -> bool {
    let ApiError::Elsewhere(status) = error else {
        return false;
    };
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| &info.reason);
    status.code() == Code::Unavailable && reason != "TOO_FAR_BEHIND"
}
