//! What the nodes of a cluster are told before they start.

use stock_supervisor::{Beginning, Settings};

use super::{Cluster, NODES, Node};

impl Cluster {
    /// What a node's configuration file says.
    pub(super) fn config(&self, node: &Node) -> String {
        let founders = &self.nodes[..NODES.len()];
        let beginning = match NODES.contains(&node.id()) {
            true => Beginning::Founds {
                founders: founders.iter().map(|node| node.place.clone()).collect(),
                shards: self.options.shards,
            },
            false => Beginning::Joins {
                through: founders
                    .iter()
                    .map(|node| node.place.peers_address())
                    .collect(),
            },
        };
        let options = &self.options;
        let more = [
            ("replace_after_seconds", options.replace_after_seconds),
            ("memory_bytes", options.memory_bytes),
        ];
        let more = more.into_iter().filter_map(|(key, value)| {
            let value = i64::try_from(value?).ok()?;
            Some((key.to_owned(), value.into()))
        });
        let lab = options
            .serve_lab
            .then(|| ("serve_lab".to_owned(), true.into()));
        let settings = Settings {
            cluster_id: self.cluster_id(),
            data_dir: self.data_dir(node.id()),
            place: node.place.clone(),
            beginning,
            more: more.chain(lab).collect(),
        };
        let text = settings.to_toml();
        text.unwrap_or_else(|e| panic!("node {}: {e}", node.id()))
    }
}
