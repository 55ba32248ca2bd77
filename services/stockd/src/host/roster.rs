//! The other nodes, as this one remembers them: it must find them after a restart, before it has
//! heard from anybody.

use std::sync::Arc;

use stock_cluster::Speaks;
use stock_node::standing::{ClusterState, members};
use stock_proto::whole;

use crate::config::Node;
use crate::directory::disk::Disk;
use crate::directory::node_record::NodeRecord;
use crate::peers::Peers;

/// Keeps connections and the disk in line with the registry.
pub struct Roster {
    record: NodeRecord,
    disk: Disk,
    cluster: Arc<ClusterState>,
}

impl Roster {
    /// With what the disk remembers.
    pub fn new(record: NodeRecord, disk: Disk, cluster: Arc<ClusterState>) -> Self {
        whole::cluster_speaks(record.version.max(Speaks::THIS.oldest));
        Self {
            record,
            disk,
            cluster,
        }
    }

    /// Where every node is that should be connected to.
    pub fn addresses(&self) -> Vec<(u64, String)> {
        let nodes = self.record.nodes.iter();
        nodes.map(|node| (node.id, node.peers.clone())).collect()
    }

    /// The registry has changed.
    pub fn update(&mut self, peers: &Arc<Peers>) {
        let registry = self.cluster.registry();
        if !registry.is_founded() {
            return;
        }
        let nodes = members(&registry).filter_map(|(id, peers)| {
            Some(Node {
                id,
                grpc: registry.node(id)?.grpc.clone(),
                peers: peers.to_owned(),
            })
        });
        self.record.nodes = nodes.collect();
        self.record.is_founded = true;
        self.record.version = registry.version();
        peers.set_members(&self.addresses());
        if let Err(error) = self.record.write(&self.disk) {
            if error.is_fatal() {
                tracing::error!(%error, "stopping at once: the log cannot be trusted any more");
                std::process::abort();
            }
            tracing::warn!(%error, "the list of nodes is not on the disk yet");
        }
        // Only now that the directory remembers it, and no earlier build would be started on it.
        whole::cluster_speaks(self.record.version);
    }
}
