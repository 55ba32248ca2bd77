//! What the nodes of a cluster are told before they start.

use super::{Cluster, NODES, Node};

impl Cluster {
    /// What a node's configuration file says.
    pub(super) fn config(&self, node: &Node) -> String {
        let mut text = format!(
            "cluster_id = \"{}\"\n\
             node_id = {}\n\
             data_dir = {:?}\n\
             {}\
             [listen]\n\
             grpc = \"{host}:{}\"\n\
             peers = \"{host}:{}\"\n\
             metrics = \"{host}:{}\"\n",
            self.cluster_id(),
            node.id,
            self.data_dir(node.id),
            self.config_of_kind(node),
            node.grpc_port,
            node.peers_port,
            node.metrics_port,
            host = self.host(node.id),
        );
        if !NODES.contains(&node.id) {
            return text;
        }
        for node in &self.nodes[..NODES.len()] {
            text.push_str(&format!(
                "[[nodes]]\nid = {}\ngrpc = \"{}\"\npeers = \"{}:{}\"\n",
                node.id,
                self.endpoint(node.id),
                self.host(node.id),
                node.peers_port,
            ));
        }
        text
    }

    /// What a founder and a node that joins do not have in common.
    fn config_of_kind(&self, node: &Node) -> String {
        let mut text = match NODES.contains(&node.id) {
            true => format!("shards = {}\n", self.options.shards),
            false => format!("join = {:?}\n", NODES.map(|node| self.endpoint(node))),
        };
        if let Some(seconds) = self.options.replace_after_seconds {
            text.push_str(&format!("replace_after_seconds = {seconds}\n"));
        }
        if let Some(bytes) = self.options.memory_bytes {
            text.push_str(&format!("memory_bytes = {bytes}\n"));
        }
        text
    }
}
