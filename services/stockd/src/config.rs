//! A node's configuration: a TOML file, every key of which the environment and the command line can
//! override. It is resolved and checked once; the rest of the program sees only the result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use stock_cluster::registry::REPLICATIONS;
use stock_core::ReservationId;
use thiserror::Error;

/// A node's configuration, complete and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster's name; nodes of other clusters are turned away.
    pub cluster_id: String,
    /// This node's id; one of `nodes`. A node that joins may leave it out (0): the cluster allots
    /// one.
    #[serde(default)]
    pub node_id: u64,
    /// How many stock shards the cluster is born with. It can never be changed. A node that joins
    /// may leave it out (0): it is told.
    #[serde(default)]
    pub shards: u32,
    /// Where this node keeps its data.
    pub data_dir: PathBuf,
    /// What this node listens on.
    pub listen: Listen,
    /// Where the loop lives.
    #[serde(default)]
    pub hosting: Hosting,
    /// Every node that founds the cluster, this one included. Read once, by an empty directory;
    /// later the cluster itself knows its nodes.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Instead of `nodes`: nodes of a cluster that is there already, of which any lets this one in.
    /// Where they take connections of nodes, `host:port`.
    #[serde(default)]
    pub join: Vec<String>,
    /// Where others reach this node, if it joins: as it listens, unless said otherwise.
    #[serde(default)]
    pub advertise: Advertise,
    /// Voters of each group that the cluster is born with: 1, 3, 5 or 7.
    #[serde(default = "replicas_default")]
    pub replicas: u32,
    /// A node that has been away for so many seconds has its replicas replaced, where there is
    /// room.
    #[serde(default = "replace_after_default")]
    pub replace_after_seconds: u64,
    /// How many seconds of history each node keeps: changes older than the last one of their shard
    /// by so much are deleted. At least 10, or 0: all, so that the ledger grows for as long as
    /// there are changes.
    #[serde(default = "ledger_keep_default")]
    pub ledger_keep_seconds: u64,
    /// Bytes of memory that this node may use: near them it refuses what grows. As its control
    /// group allows, where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Whether clients may call `stock.lab.v1`, which measures and does nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serve_lab: bool,
}

/// Where others reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertise {
    /// For clients: a URL.
    pub grpc: Option<String>,
    /// For the other nodes: `host:port`.
    pub peers: Option<String>,
}

/// Less is no history: it is deleted in tenths of what is kept.
const LEDGER_KEEP_SECONDS_MIN: u64 = 10;

/// Thirty days, as long as documents are remembered.
fn ledger_keep_default() -> u64 {
    30 * 24 * 3_600
}

fn replicas_default() -> u32 {
    3
}

/// Long enough for a machine to be restarted: to copy its data costs more than to wait.
fn replace_after_default() -> u64 {
    600
}

/// Addresses a node listens on, each `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For clients.
    pub grpc: String,
    /// For the other nodes.
    pub peers: String,
    /// For Prometheus, over HTTP.
    pub metrics: String,
}

/// A node, as the others and the clients reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its id, from 1.
    pub id: u64,
    /// Where clients reach it: a URL.
    pub grpc: String,
    /// Where the other nodes reach it: `host:port`.
    pub peers: String,
}

/// Where the loop lives. docs/decisions.md says what each was measured to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hosting {
    /// Inside the single-threaded runtime that also serves the edge: no hand-over between threads.
    #[default]
    Runtime,
    /// On a thread of its own: a slow disk does not stall near reads.
    Thread,
}

/// What the environment and the command line override.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Overrides of the configuration file")]
pub struct Overrides {
    /// The cluster's name
    #[arg(long, env = "STOCKD_CLUSTER_ID")]
    pub cluster_id: Option<String>,
    /// This node's id, one of the nodes
    #[arg(long, env = "STOCKD_NODE_ID")]
    pub node_id: Option<u64>,
    /// How many stock shards the cluster is born with; never to change
    #[arg(long, env = "STOCKD_SHARDS")]
    pub shards: Option<u32>,
    /// Where this node keeps its data
    #[arg(long, env = "STOCKD_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for clients, such as 0.0.0.0:7401
    #[arg(long, env = "STOCKD_LISTEN_GRPC", value_name = "HOST:PORT")]
    pub listen_grpc: Option<String>,
    /// Address for the other nodes
    #[arg(long, env = "STOCKD_LISTEN_PEERS", value_name = "HOST:PORT")]
    pub listen_peers: Option<String>,
    /// Address for Prometheus
    #[arg(long, env = "STOCKD_LISTEN_METRICS", value_name = "HOST:PORT")]
    pub listen_metrics: Option<String>,
    /// Where the loop lives
    #[arg(long, env = "STOCKD_HOSTING")]
    pub hosting: Option<Hosting>,
    /// Every node as ID=GRPC_URL,PEERS_HOST:PORT; repeat the flag, or separate with spaces in the
    /// environment
    #[arg(
        long = "node",
        env = "STOCKD_NODES",
        value_name = "ID=URL,HOST:PORT",
        value_delimiter = ' ',
        value_parser = parse_node
    )]
    pub nodes: Option<Vec<Node>>,
    /// Join a cluster that is there already, through the node whose address for nodes this is;
    /// repeat the flag to name several, of which any will do
    #[arg(
        long,
        env = "STOCKD_JOIN",
        value_name = "HOST:PORT",
        value_delimiter = ' '
    )]
    pub join: Option<Vec<String>>,
    /// Where clients reach this node, if it joins [default: where it listens]
    #[arg(long, env = "STOCKD_ADVERTISE_GRPC", value_name = "URL")]
    pub advertise_grpc: Option<String>,
    /// Where the other nodes reach this node, if it joins [default: where it listens]
    #[arg(long, env = "STOCKD_ADVERTISE_PEERS", value_name = "HOST:PORT")]
    pub advertise_peers: Option<String>,
    /// Voters of each group that the cluster is born with: 1, 3, 5 or 7 [default: 3]
    #[arg(long, env = "STOCKD_REPLICAS")]
    pub replicas: Option<u32>,
    /// Seconds after which the replicas of a node that is away are replaced [default: 600]
    #[arg(long, env = "STOCKD_REPLACE_AFTER_SECONDS")]
    pub replace_after_seconds: Option<u64>,
    /// Seconds of history that this node keeps; 0 keeps all [default: 2592000, thirty days]
    #[arg(long, env = "STOCKD_LEDGER_KEEP_SECONDS")]
    pub ledger_keep_seconds: Option<u64>,
    /// Bytes of memory that this node may use: near them it refuses what grows [default: as its
    /// cgroup allows]
    #[arg(long, env = "STOCKD_MEMORY_BYTES")]
    pub memory_bytes: Option<u64>,
    /// Also answer stock.lab.v1: echoes, to measure other calls against
    #[arg(
        long,
        env = "STOCKD_SERVE_LAB",
        value_name = "true|false",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub serve_lab: Option<bool>,
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key is neither in the file nor overridden.
    #[error("{key} is not set: give it in the file, as {flag}, or in {variable}")]
    Missing {
        /// As in the file.
        key: &'static str,
        /// On the command line.
        flag: &'static str,
        /// In the environment.
        variable: &'static str,
    },
    /// A key holds what it must not.
    #[error("{key} {why}")]
    Invalid {
        /// As in the file.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// The file, in which anything may be left to the overrides.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster_id: Option<String>,
    node_id: Option<u64>,
    shards: Option<u32>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    listen: FileListen,
    hosting: Option<Hosting>,
    nodes: Option<Vec<Node>>,
    join: Option<Vec<String>>,
    #[serde(default)]
    advertise: Advertise,
    replicas: Option<u32>,
    replace_after_seconds: Option<u64>,
    ledger_keep_seconds: Option<u64>,
    memory_bytes: Option<u64>,
    serve_lab: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileListen {
    grpc: Option<String>,
    peers: Option<String>,
    metrics: Option<String>,
}

impl Config {
    /// Reads the file, if there is one, applies the overrides and checks the result.
    pub fn resolve(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let missing = |key, flag, variable| ConfigError::Missing {
            key,
            flag,
            variable,
        };
        let join = overrides.join.or(file.join).unwrap_or_default();
        // Who joins is told what founders must agree on.
        let told = |joins: bool| joins.then_some(0);
        let config = Self {
            cluster_id: overrides.cluster_id.or(file.cluster_id).ok_or(missing(
                "cluster_id",
                "--cluster-id",
                "STOCKD_CLUSTER_ID",
            ))?,
            node_id: overrides
                .node_id
                .or(file.node_id)
                .or(told(!join.is_empty()).map(u64::from))
                .ok_or(missing("node_id", "--node-id", "STOCKD_NODE_ID"))?,
            shards: overrides
                .shards
                .or(file.shards)
                .or(told(!join.is_empty()))
                .ok_or(missing("shards", "--shards", "STOCKD_SHARDS"))?,
            data_dir: overrides.data_dir.or(file.data_dir).ok_or(missing(
                "data_dir",
                "--data-dir",
                "STOCKD_DATA_DIR",
            ))?,
            listen: Listen {
                grpc: overrides.listen_grpc.or(file.listen.grpc).ok_or(missing(
                    "listen.grpc",
                    "--listen-grpc",
                    "STOCKD_LISTEN_GRPC",
                ))?,
                peers: overrides.listen_peers.or(file.listen.peers).ok_or(missing(
                    "listen.peers",
                    "--listen-peers",
                    "STOCKD_LISTEN_PEERS",
                ))?,
                metrics: overrides
                    .listen_metrics
                    .or(file.listen.metrics)
                    .ok_or(missing(
                        "listen.metrics",
                        "--listen-metrics",
                        "STOCKD_LISTEN_METRICS",
                    ))?,
            },
            hosting: overrides.hosting.or(file.hosting).unwrap_or_default(),
            nodes: match overrides.nodes.or(file.nodes) {
                Some(nodes) => nodes,
                None if !join.is_empty() => Vec::new(),
                None => return Err(missing("nodes", "--node", "STOCKD_NODES")),
            },
            join,
            advertise: Advertise {
                grpc: overrides.advertise_grpc.or(file.advertise.grpc),
                peers: overrides.advertise_peers.or(file.advertise.peers),
            },
            replicas: overrides
                .replicas
                .or(file.replicas)
                .unwrap_or_else(replicas_default),
            replace_after_seconds: overrides
                .replace_after_seconds
                .or(file.replace_after_seconds)
                .unwrap_or_else(replace_after_default),
            ledger_keep_seconds: overrides
                .ledger_keep_seconds
                .or(file.ledger_keep_seconds)
                .unwrap_or_else(ledger_keep_default),
            memory_bytes: overrides.memory_bytes.or(file.memory_bytes),
            serve_lab: overrides.serve_lab.or(file.serve_lab).unwrap_or(false),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key, why: String| Err(ConfigError::Invalid { key, why });
        if self.cluster_id.is_empty() || self.cluster_id.len() > 64 {
            return invalid("cluster_id", "must have 1 to 64 bytes".to_owned());
        }
        let joins = !self.join.is_empty();
        if joins && !self.nodes.is_empty() {
            return invalid(
                "join",
                "and nodes are both set: a node either founds a cluster or joins one".to_owned(),
            );
        }
        if self.shards > ReservationId::SHARDS_MAX || (self.shards == 0 && !joins) {
            let most = ReservationId::SHARDS_MAX;
            return invalid(
                "shards",
                format!("is {}; it must be between 1 and {most}", self.shards),
            );
        }
        let mut ids: Vec<u64> = self.nodes.iter().map(|node| node.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.nodes.len() || ids.contains(&0) {
            return invalid("nodes", "must have ids of their own, from 1".to_owned());
        }
        if !REPLICATIONS.contains(&self.replicas) {
            return invalid(
                "replicas",
                format!("is {}; it must be 1, 3, 5 or 7", self.replicas),
            );
        }
        if !joins && !ids.contains(&self.node_id) {
            return invalid(
                "node_id",
                format!("is {}, which is none of the nodes {ids:?}", self.node_id),
            );
        }
        if (1..LEDGER_KEEP_SECONDS_MIN).contains(&self.ledger_keep_seconds) {
            return invalid(
                "ledger_keep_seconds",
                format!("must be {LEDGER_KEEP_SECONDS_MIN} at least, or 0 to keep all"),
            );
        }
        let urls = self.nodes.iter().map(|node| ("nodes.grpc", &node.grpc));
        let advertised = self.advertise.grpc.iter();
        let urls = urls.chain(advertised.map(|url| ("advertise.grpc", url)));
        for (key, url) in urls {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return invalid(key, format!("is {url}; it must be a URL"));
            }
        }
        for seed in &self.join {
            let address = seed.parse::<http::uri::Authority>();
            if !address.is_ok_and(|address| address.port().is_some()) {
                let why = format!("is {seed}; it must be host:port, where that node meets others");
                return invalid("join", why);
            }
        }
        let unspecified =
            |address: &str| address.starts_with("0.0.0.0:") || address.starts_with("[::]:");
        if joins && self.advertise.grpc.is_none() && unspecified(&self.listen.grpc) {
            return invalid(
                "advertise.grpc",
                "must be set: others cannot reach a node at 0.0.0.0".to_owned(),
            );
        }
        if joins && self.advertise.peers.is_none() && unspecified(&self.listen.peers) {
            return invalid(
                "advertise.peers",
                "must be set: others cannot reach a node at 0.0.0.0".to_owned(),
            );
        }
        Ok(())
    }

    /// How long history is kept; none: for ever.
    pub fn ledger_keep(&self) -> Option<Duration> {
        (self.ledger_keep_seconds > 0).then(|| Duration::from_secs(self.ledger_keep_seconds))
    }

    /// Where others reach this node: what it advertises, or its entry on the list of founders, or
    /// where it listens. An entry that names the host it listens on with another port is of before.
    pub fn addresses(&self) -> Node {
        let listed = self.nodes.iter().find(|node| node.id == self.node_id);
        let advertised = |advertised: &Option<String>, listed: Option<&str>, listens: &str| {
            let listed = listed.filter(|listed| !is_outdated(listed, listens));
            match (advertised, listed) {
                (Some(advertised), _) => Some(advertised.clone()),
                (None, listed) => listed.map(str::to_owned),
            }
        };
        let (grpc, peers) = (&self.listen.grpc, &self.listen.peers);
        let listed_grpc = listed.map(|node| node.grpc.as_str());
        let listed_peers = listed.map(|node| node.peers.as_str());
        Node {
            id: self.node_id,
            grpc: advertised(&self.advertise.grpc, listed_grpc, grpc)
                .unwrap_or_else(|| format!("http://{grpc}")),
            peers: advertised(&self.advertise.peers, listed_peers, peers)
                .unwrap_or_else(|| peers.clone()),
        }
    }
}

/// Whether an address names just the host that a node listens on, and another port.
fn is_outdated(address: &str, listens: &str) -> bool {
    let place = |address: &str| {
        let authority = address.rsplit("//").next().unwrap_or_default();
        let authority = authority.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':')?;
        Some((host.to_owned(), port.to_owned()))
    };
    match (place(address), place(listens)) {
        (Some((host, port)), Some((own, listens))) => host == own && port != listens,
        _ => false,
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn parse_node(text: &str) -> Result<Node, String> {
    let parts = text
        .split_once('=')
        .and_then(|(id, rest)| Some((id, rest.split_once(',')?)));
    let Some((id, (grpc, peers))) = parts else {
        return Err("a node is written ID=GRPC_URL,PEERS_HOST:PORT".to_owned());
    };
    Ok(Node {
        id: id
            .parse()
            .map_err(|error| format!("the id {id}: {error}"))?,
        grpc: grpc.to_owned(),
        peers: peers.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        cluster_id = "shop"
        node_id = 1
        shards = 8
        data_dir = "/var/lib/stockd"
        [listen]
        grpc = "127.0.0.1:7401"
        peers = "127.0.0.1:7421"
        metrics = "127.0.0.1:7411"
        [[nodes]]
        id = 1
        grpc = "http://127.0.0.1:7401"
        peers = "127.0.0.1:7421"
    "#;

    fn resolve(text: &str, overrides: Overrides) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stockd.toml");
        std::fs::write(&path, text).unwrap();
        Config::resolve(Some(&path), overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn overrides_win_over_the_file() {
        let overrides = Overrides {
            shards: Some(16),
            hosting: Some(Hosting::Thread),
            ..Default::default()
        };
        let config = resolve(FILE, overrides).unwrap();
        assert_eq!((config.shards, config.hosting), (16, Hosting::Thread));
        assert_eq!(config.cluster_id, "shop");
    }

    #[test]
    fn mistakes_are_named() {
        let check = |from: &str, to: &str, expected: &str| {
            let error = resolve(&FILE.replace(from, to), Overrides::default()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "shards = 8",
            "",
            "shards is not set: give it in the file, as --shards, or in STOCKD_SHARDS",
        );
        check("shards = 8", "shards = 0", "shards is 0");
        check("node_id = 1", "node_id = 4", "none of the nodes [1]");
        check("cluster_id", "clusterid", "unknown field `clusterid`");
    }

    #[test]
    fn a_node_can_be_written_on_the_command_line() {
        let node = parse_node("2=http://b:7401,b:7421").unwrap();
        assert_eq!(
            (node.id, node.grpc.as_str(), node.peers.as_str()),
            (2, "http://b:7401", "b:7421")
        );
        assert!(parse_node("2").is_err());
    }
}
