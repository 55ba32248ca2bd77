//! How a node with an empty directory joins a cluster that is there already, and how one that was
//! taken out learns of it.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use stock_cluster::identity::refusal;
use stock_cluster::{GroupId, Speaks, identity};
use stock_node::standing::ClusterState;
use stock_proto::stock::internal::v1 as api;
use stock_proto::stock::internal::v1::joining_service_client::JoiningServiceClient;
use stock_storage::{Ledger, LedgerError, LogError};
use stock_wire::cluster::v1 as cluster;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::config::{Config, Node};
use crate::directory::disk::Disk;
use crate::directory::node_record::NodeRecord;
use crate::peers::error::PeerError;
use crate::peers::wire;

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
    let mut client = connect(seed, &request.cluster_id, request.node_id).await?;
    let standing = api::GetStandingRequest {
        cluster_id: request.cluster_id.clone(),
        node_id: request.node_id,
    };
    let standing = client.get_standing(standing).await?.into_inner();
    if shards != 0 && standing.shard_count != shards {
        return Ok(Answer::Shards(standing.shard_count));
    }
    let mut leaderless = standing.leaderless_shards.iter();
    if let Some(shard) = leaderless.find(|shard| held.contains(&GroupId::of_shard(**shard).0)) {
        return Err(Status::unavailable(format!(
            "shard {shard} has no leader, and what is left of it may be here: it is not given up \
             before there is one"
        )));
    }
    Ok(Answer::LetIn(client.join_node(request).await?.into_inner()))
}

/// Connects to where a node takes connections of nodes, `host:port`, to become a member of the
/// cluster of this name.
///
/// # Errors
///
/// INVALID_ARGUMENT where it is of another cluster, UNAVAILABLE where it cannot be reached or does
/// not let anybody join now.
pub async fn connect(
    seed: &str,
    cluster_id: &str,
    node_id: u64,
) -> Result<JoiningServiceClient<Channel>, Status> {
    let stream = introduce(seed, cluster_id, node_id).await?;
    let mut stream = Some(TokioIo::new(stream));
    let once = move |_: Uri| {
        let stream = stream.take();
        let stream = stream.ok_or_else(|| io::Error::other("the connection is over"));
        std::future::ready(stream)
    };
    // Its name is only for the calls' heads.
    let channel = Endpoint::from_static("http://peer")
        .connect_with_connector(tower::service_fn(once))
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(JoiningServiceClient::new(channel))
}

/// Says to a node that another one would be a member, of a cluster of this name.
async fn introduce(seed: &str, cluster_id: &str, node_id: u64) -> Result<TcpStream, Status> {
    let lost = |error: PeerError| Status::unavailable(error.to_string());
    let mut stream = TcpStream::connect(seed)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    wire::tune(&stream).map_err(lost)?;
    let own = cluster::Hello {
        protocol: identity::PROTOCOL,
        oldest_version: Speaks::THIS.oldest,
        newest_version: Speaks::THIS.newest,
        cluster_id: cluster_id.to_owned(),
        node_id,
        purpose: cluster::Purpose::Joining.into(),
        ..cluster::Hello::default()
    };
    wire::write_message(&mut stream, &own).await.map_err(lost)?;
    let hello = wire::read_hello(&mut stream).await.map_err(lost)?;
    if hello.cluster_id != cluster_id {
        return Err(Status::invalid_argument(format!(
            "it is of the cluster {}, and not of {cluster_id}",
            hello.cluster_id
        )));
    }
    let verdict = wire::read_verdict(&mut stream).await.map_err(lost)?;
    if let Some(told) = refusal::told(seed, &verdict) {
        return Err(Status::unavailable(told.reason));
    }
    let accepted = cluster::Verdict::default();
    wire::write_message(&mut stream, &accepted)
        .await
        .map_err(lost)?;
    Ok(stream)
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
    let mut client = connect(other, &config.cluster_id, config.node_id).await?;
    let standing = api::GetStandingRequest {
        cluster_id: config.cluster_id.clone(),
        node_id: config.node_id,
    };
    Ok(client.get_standing(standing).await?.into_inner().is_removed)
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
