//! Calls that another node must answer: reads of shards this one has no replica of, and what only the
//! leader of group 0 knows. They go on over the public API, once: who was asked by a node answers itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Request;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use crate::cluster_state::ClusterState;
use crate::config::Config;

/// Marks a call as sent on by a node.
const SENT_ON: &str = "stockd-sent-on";

/// Connections to the other nodes' gRPC, made when they are first needed.
pub struct Proxy {
    config: Arc<Config>,
    cluster: Arc<ClusterState>,
    channels: Mutex<BTreeMap<u64, (String, Channel)>>,
}

impl Proxy {
    /// Connected to nobody.
    pub fn new(config: Arc<Config>, cluster: Arc<ClusterState>) -> Self {
        Self {
            config,
            cluster,
            channels: Mutex::default(),
        }
    }

    /// A connection to a node, if it is known where it is.
    pub(super) fn channel(&self, node: u64) -> Option<Channel> {
        let registry = self.cluster.registry();
        let url = match registry.node(node) {
            Some(node) => node.grpc.clone(),
            None => {
                let listed = self.config.nodes.iter().find(|listed| listed.id == node)?;
                listed.grpc.clone()
            }
        };
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = channels.get(&node)
            && *known == url
        {
            return Some(channel.clone());
        }
        let channel = Endpoint::from_shared(url.clone())
            .ok()?
            .tcp_nodelay(true)
            .connect_lazy();
        channels.insert(node, (url, channel.clone()));
        Some(channel)
    }
}

/// The call as it is sent on: with its deadline, and marked.
pub(super) fn sent_on<T>(call: T, metadata: &MetadataMap) -> Request<T> {
    let mut request = Request::new(call);
    if let Some(timeout) = metadata.get("grpc-timeout") {
        request
            .metadata_mut()
            .insert("grpc-timeout", timeout.clone());
    }
    request
        .metadata_mut()
        .insert(SENT_ON, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// Whether a node has sent this call on: it is not sent on again.
pub(super) fn was_sent_on(metadata: &MetadataMap) -> bool {
    metadata.contains_key(SENT_ON)
}
