//! What a node is told before it starts: its configuration file.

use std::path::PathBuf;

use serde::Serialize;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub node: u64,
    /// The host that it listens on, for everybody.
    pub host: String,
    /// The port of its API.
    pub grpc: u16,
    /// The port for the other nodes.
    pub peers: u16,
    /// The port of its metrics, and of the pages beside them.
    pub metrics: u16,
}

impl Place {
    /// Where clients reach it: a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{}", self.host, self.grpc)
    }

    /// Where it meets other nodes: `host:port`.
    pub fn peers_address(&self) -> String {
        format!("{}:{}", self.host, self.peers)
    }

    /// Where it shows its metrics: `host:port`.
    pub fn metrics_address(&self) -> String {
        format!("{}:{}", self.host, self.metrics)
    }
}

/// How a node comes to be in its cluster.
#[derive(Debug, Clone)]
pub enum Beginning {
    /// It founds the cluster, together with the others among these places.
    Founds {
        /// The founders, itself among them.
        founders: Vec<Place>,
        /// How many shards the cluster is born with.
        shards: u32,
    },
    /// It joins the cluster of these nodes.
    Joins {
        /// Where they meet other nodes: `host:port`.
        through: Vec<String>,
    },
}

/// What a node is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster's name.
    pub cluster_id: String,
    /// Where the node keeps its data.
    pub data_dir: PathBuf,
    /// Where it is.
    pub place: Place,
    /// How it comes to be in its cluster.
    pub beginning: Beginning,
    /// What else it is told: keys of the configuration, and their values.
    pub more: toml::Table,
}

#[derive(Serialize)]
struct File {
    cluster_id: String,
    node_id: u64,
    data_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    join: Vec<String>,
    #[serde(flatten)]
    more: toml::Table,
    listen: Listen,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Listen {
    grpc: String,
    peers: String,
    metrics: String,
}

#[derive(Serialize)]
struct Node {
    id: u64,
    grpc: String,
    peers: String,
}

impl Settings {
    /// The text of the configuration file.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let Place { host, .. } = &self.place;
        let (shards, join, founders) = match &self.beginning {
            Beginning::Founds { founders, shards } => (Some(*shards), &[][..], &founders[..]),
            Beginning::Joins { through } => (None, &through[..], &[][..]),
        };
        let node = |place: &Place| Node {
            id: place.node,
            grpc: place.endpoint(),
            peers: place.peers_address(),
        };
        toml::to_string(&File {
            cluster_id: self.cluster_id.clone(),
            node_id: self.place.node,
            data_dir: self.data_dir.clone(),
            shards,
            join: join.to_vec(),
            more: self.more.clone(),
            listen: Listen {
                grpc: format!("{host}:{}", self.place.grpc),
                peers: format!("{host}:{}", self.place.peers),
                metrics: self.place.metrics_address(),
            },
            nodes: founders.iter().map(node).collect(),
        })
    }
}
