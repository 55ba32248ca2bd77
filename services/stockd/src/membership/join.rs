//! How a node with an empty directory joins a cluster that is there already, and how one that was
//! taken out learns of it.

use std::collections::HashMap;
use std::time::Duration;

use stock_cluster::identity;
use stock_node::standing::ClusterState;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::cluster_service_client::ClusterServiceClient;
use stock_storage::{Ledger, LedgerError, LogError};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::api::page;
use crate::config::{Config, Node};
use crate::directory::disk::Disk;
use crate::directory::node_record::NodeRecord;

/// Between two rounds of asking everybody.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// While the node whose id is asked for is heard from, it is asked again for so long: one that has
/// just died is heard no more in a few seconds.
const HEARD_FOR: Duration = Duration::from_secs(15);

/// A node that nobody talks to asks this often whether it is a member still.
const REMOVED_ASK_EVERY: Duration = Duration::from_secs(3);

/// A node is given this long to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The cluster does not let this node in, and asking again will not change that.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The cluster says no.
    #[error("{seed} does not let this node join: {}", .status.message())]
    Refused {
        /// Who said so.
        seed: String,
        /// What.
        status: Box<Status>,
    },
    /// The cluster was born with another number of shards than this node's configuration says.
    #[error(
        "{seed} is of a cluster of {there} shards, but the configuration says {configured}: \
         leave shards out, and this node is told"
    )]
    Shards {
        /// Who said so.
        seed: String,
        /// There.
        there: u32,
        /// Here.
        configured: u32,
    },
    /// The cluster took this node out.
    #[error(
        "node {node} was removed from the cluster, and its id and data are never used again: \
         empty the data directory and join under another id"
    )]
    Removed {
        /// This node.
        node: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The disk failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Asks one node after the other to be let in, until one does. What it is told is written down.
/// What the directory has of the groups `held` is given up with that: not before each of them has a
/// leader without it.
pub async fn join(
    config: &Config,
    seeds: &[String],
    disk: &Disk,
    record: &mut NodeRecord,
    held: &[u32],
) -> Result<(), JoinError> {
    let own = config.addresses();
    let request = api::JoinNodeRequest {
        cluster_id: config.cluster_id.clone(),
        node_id: config.node_id,
        directory: record.asks_as().to_be_bytes().to_vec(),
        endpoint: own.grpc,
        peers: own.peers,
    };
    // What each said last, so that the same is not said over and over.
    let mut said: HashMap<&str, String> = HashMap::new();
    let began = Instant::now();
    if seeds.is_empty() {
        tracing::error!("no other node is known to ask: give one with --join");
    }
    loop {
        for seed in seeds {
            let asked = timeout(
                ANSWER_WITHIN,
                ask(seed, config.shards, held, request.clone()),
            )
            .await;
            let status = match asked {
                Ok(Ok(Answer::Shards(there))) => {
                    return Err(JoinError::Shards {
                        seed: seed.clone(),
                        there,
                        configured: config.shards,
                    });
                }
                Ok(Ok(Answer::LetIn(let_in))) => {
                    // Of what lies in such a directory nothing is this member's: the history of an
                    // earlier life must not become its own.
                    if Ledger::delete(&config.data_dir)? {
                        tracing::warn!(data_dir = %config.data_dir.display(), "the history in a \
                            directory that is let in anew is deleted");
                    }
                    note(&let_in, record);
                    record.write_anew(disk)?;
                    tracing::info!(node = let_in.node_id, through = %seed, "joined the cluster");
                    return Ok(());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            let is_final = matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::Unimplemented
            );
            let is_heard = status
                .get_error_details()
                .error_info()
                .is_some_and(|info| info.reason == "NODE_HEARD" && began.elapsed() >= HEARD_FOR);
            if is_final || is_heard {
                return Err(JoinError::Refused {
                    seed: seed.clone(),
                    status: Box::new(status),
                });
            }
            if said
                .get(seed.as_str())
                .is_none_or(|last| last != status.message())
            {
                tracing::info!(%seed, why = status.message(), "cannot join yet; trying again");
                said.insert(seed, status.message().to_owned());
            }
        }
        sleep(ASK_EVERY).await;
    }
}

enum Answer {
    LetIn(api::JoinNodeResponse),
    /// The cluster has this many, and that is not what was meant.
    Shards(u32),
}

/// A node that means another number of shards is not let in first and told later.
async fn ask(
    seed: &str,
    shards: u32,
    held: &[u32],
    request: api::JoinNodeRequest,
) -> Result<Answer, Status> {
    let mut client = connect(seed).await?;
    let topology = client.get_topology(api::GetTopologyRequest {}).await?;
    let topology = topology.into_inner();
    let is_same_cluster = topology.cluster_id == request.cluster_id;
    if is_same_cluster && shards != 0 && topology.shard_count != shards {
        return Ok(Answer::Shards(topology.shard_count));
    }
    let mut leaderless = topology.shards.iter().filter(|it| it.leader_node_id == 0);
    if let Some(shard) = leaderless.find(|it| held.contains(&(it.shard + 1))) {
        return Err(Status::unavailable(format!(
            "shard {} has no leader, and what is left of it may be here: it is not given up \
             before there is one",
            shard.shard
        )));
    }
    Ok(Answer::LetIn(client.join_node(request).await?.into_inner()))
}

async fn connect(seed: &str) -> Result<ClusterServiceClient<Channel>, Status> {
    ClusterServiceClient::connect(seed.to_owned())
        .await
        .map_err(|error| Status::unavailable(error.to_string()))
}

/// Returns once the cluster says that this node was taken out; asks while nobody talks to it.
pub async fn removed(config: &Config, others: &[String], cluster: &ClusterState) -> JoinError {
    let node = config.node_id;
    loop {
        sleep(REMOVED_ASK_EVERY).await;
        if cluster.reaches_anybody() {
            continue;
        }
        for other in others {
            if let Ok(Ok(true)) = timeout(ANSWER_WITHIN, is_removed(config, other)).await {
                return JoinError::Removed { node };
            }
        }
    }
}

async fn is_removed(config: &Config, other: &str) -> Result<bool, Status> {
    let mut client = connect(other).await?;
    let topology = client.get_topology(api::GetTopologyRequest {}).await?;
    // An address may have become another cluster's.
    if topology.into_inner().cluster_id != config.cluster_id {
        return Ok(false);
    }
    // The page that begins with this node.
    let before = config.node_id.checked_sub(1).filter(|before| *before > 0);
    let request = api::ListNodesRequest {
        include_removed: true,
        page_size: 1,
        page_token: page::token_of(before),
    };
    let nodes = client.list_nodes(request).await?.into_inner().nodes;
    let removed = api::node_status::State::Removed;
    let mut nodes = nodes.iter();
    Ok(nodes.any(|status| status.node_id == config.node_id && status.state() == removed))
}

fn note(let_in: &api::JoinNodeResponse, record: &mut NodeRecord) {
    record.node_id = let_in.node_id;
    record.shards = let_in.shard_count;
    let incarnation = identity::number(&let_in.incarnation).unwrap_or_default();
    record.let_in(incarnation, let_in.generation_floor, let_in.since);
    let nodes = let_in.members.iter().map(|member| Node {
        id: member.node_id,
        // Told by group 0, as soon as it is here.
        grpc: String::new(),
        peers: member.peers.clone(),
    });
    record.nodes = nodes.collect();
}
