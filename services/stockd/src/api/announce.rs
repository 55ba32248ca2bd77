//! A node that is reached elsewhere than before says so: machines move, and pods get other
//! addresses with each start.

use std::sync::Arc;
use std::time::Duration;

use stock_cluster::identity::{Addresses, Identity};
use stock_cluster::{Change, Directory, GroupId, RegistryCommand, RegistryOutcome};
use stock_proto::stock::internal::v1 as api;
use stock_proto::stock::internal::v1::joining_service_client::JoiningServiceClient;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::caller::Caller;
use super::deadline::Deadline;
use super::{ApiError, Edge, proxy};

/// How often it is looked whether the registry has it right.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After the registry has refused an address, which takes a person to put right.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Has group 0 write down where this node is, whenever the registry has it otherwise, for as long
/// as the node runs.
pub async fn keep_announced(edge: Arc<Edge>, own: Identity) {
    loop {
        sleep(LOOK_EVERY).await;
        let registry = edge.cluster.registry();
        let Some(record) = registry.node(own.node) else {
            continue;
        };
        let listed = Addresses {
            grpc: record.grpc.clone(),
            peers: record.peers.clone(),
        };
        // Who was replaced has nothing to say.
        if record.directory != Some(Directory(own.directory)) || listed == own.addresses {
            continue;
        }
        let Addresses { grpc, peers } = own.addresses.clone();
        let (was_grpc, was_peers) = (&listed.grpc, &listed.peers);
        tracing::info!(%grpc, %peers, %was_grpc, %was_peers, "announcing where it is reached");
        let announced = announce(&edge, &own, grpc, peers).await;
        if let Err(status) = announced {
            let is_refused = matches!(
                status.code(),
                Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition
            );
            if is_refused {
                tracing::error!(
                    why = status.message(),
                    "the cluster does not take this node's addresses; put its configuration right"
                );
                sleep(AFTER_REFUSAL).await;
            }
        }
    }
}

/// Says it to the leader of group 0, as a join of a directory that is a member's already.
async fn announce(edge: &Edge, own: &Identity, grpc: String, peers: String) -> Result<(), Status> {
    let Some(leader) = edge.cluster.group(GroupId::META).leader else {
        return Err(Status::unavailable("group 0 has no leader"));
    };
    if leader == own.node {
        let changed = edge.operations.change(RegistryCommand {
            principal: edge.principal.clone(),
            request: None,
            change: Change::UpdateAddresses {
                node: own.node,
                grpc,
                peers,
            },
        });
        return match changed.await.map(|changed| changed.outcome) {
            Ok(RegistryOutcome::Refused(refusal)) => Err(ApiError::Registry(refusal).into()),
            Ok(_) => Ok(()),
            Err(failure) => Err(ApiError::Failed(failure).into()),
        };
    }
    let request = api::JoinNodeRequest {
        cluster_id: own.cluster_id.clone(),
        node_id: own.node,
        directory: own.directory.to_be_bytes().to_vec(),
        endpoint: grpc,
        peers,
    };
    let mut client = JoiningServiceClient::new(edge.proxy.channel(leader));
    let request = Caller::THIS_NODE.send_on(request);
    let joined = client.join_node(request);
    let joined = proxy::answer(Deadline::NONE, joined).await?;
    drop(joined);
    Ok(())
}
