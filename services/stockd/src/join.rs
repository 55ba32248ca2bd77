//! How a node with an empty directory joins a cluster that is there already.

use std::time::Duration;

use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::cluster_service_client::ClusterServiceClient;
use stock_storage::LogError;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::config::{Config, Node};
use crate::disk::Disk;
use crate::node_record::{Membership, NodeRecord};

/// Between two rounds of asking everybody.
const ASK_EVERY: Duration = Duration::from_millis(500);

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
    /// The disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Asks one node after the other to be let in, until one does. What it is told is written down.
pub async fn join(
    config: &Config,
    seeds: &[String],
    disk: &Disk,
    record: &mut NodeRecord,
) -> Result<(), JoinError> {
    let own = config.addresses();
    let request = api::JoinNodeRequest {
        cluster_id: config.cluster_id.clone(),
        node_id: config.node_id,
        directory: record.directory().to_be_bytes().to_vec(),
        endpoint: own.grpc,
        peers: own.peers,
    };
    let mut last_said = String::new();
    loop {
        for seed in seeds {
            let asked = timeout(ANSWER_WITHIN, ask(seed, request.clone())).await;
            let status = match asked {
                Ok(Ok(let_in)) => {
                    note(&let_in, record);
                    record.write(disk)?;
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
            if is_final {
                return Err(JoinError::Refused {
                    seed: seed.clone(),
                    status: Box::new(status),
                });
            }
            let said = format!("{seed}: {}", status.message());
            if said != last_said {
                tracing::info!(%seed, why = status.message(), "cannot join yet; trying again");
                last_said = said;
            }
        }
        sleep(ASK_EVERY).await;
    }
}

async fn ask(seed: &str, request: api::JoinNodeRequest) -> Result<api::JoinNodeResponse, Status> {
    let mut client = ClusterServiceClient::connect(seed.to_owned())
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(client.join_node(request).await?.into_inner())
}

fn note(let_in: &api::JoinNodeResponse, record: &mut NodeRecord) {
    record.node_id = let_in.node_id;
    record.shards = let_in.shard_count;
    record.membership = Membership::Joined {
        generation_floor: let_in.generation_floor,
    };
    let nodes = let_in.members.iter().map(|member| Node {
        id: member.node_id,
        // Told by group 0, as soon as it is here.
        grpc: String::new(),
        peers: member.peers.clone(),
    });
    record.nodes = nodes.collect();
}
