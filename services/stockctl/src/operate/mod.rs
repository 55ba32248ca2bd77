//! What operators do: one call, and where asked for, the wait until the cluster has done it.

pub(crate) mod answer;
pub(crate) mod args;
mod last_resort;
mod status;
mod wait;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use stock_client::{CallOptions, Client};
use stock_proto::stock::admin::v1::{
    AddNodeRequest, DrainNodeRequest, GetAuditRequest, ListNodesRequest, ListShardsRequest,
    MoveReplicaRequest, RaiseVersionRequest, RebuildReplicaRequest, RemoveNodeRequest,
    ReplaceNodeRequest, SetReplicationRequest, TransferLeadershipRequest, UndrainNodeRequest,
    move_replica_request, rebuild_replica_request, transfer_leadership_request,
};
use stock_proto::stock::v1::topology_service_client::TopologyServiceClient;
use stock_proto::stock::v1::{GetTopologyRequest, GetTopologyResponse};
use tokio::task::JoinSet;

use self::answer::Operation;
use self::args::{
    LeaderCommand, NodeCommand, ReplicaCommand, ShardCommand, ShardName, UnsafeCommand,
    VersionCommand,
};
use self::status::ClusterStatus;
use self::wait::Goal;
use crate::answer::Answer;
use crate::failure::{Failure, by_request};
use crate::repeat::RequestId;

/// Shows how the nodes are, who leads which shard, and what the one means for the other.
pub(crate) async fn status(client: &Client, timeout: Duration) -> Result<Answer, Failure> {
    let topology = client.get_topology().await?;
    // Who asks how the cluster is may well have lost the group that knows.
    let hurried = client.with(CallOptions::new().timeout(timeout.min(TOLD_WITHIN)));
    let told = tokio::try_join!(
        hurried.list_nodes(ListNodesRequest::default()),
        hurried.list_shards(ListShardsRequest::default()),
    );
    let status = match told {
        Ok((nodes, shards)) => ClusterStatus::told(topology, nodes, &shards),
        Err(error) => ClusterStatus::asked(topology, &answers(client).await, error.to_string()),
    };
    Ok(Answer::Operation(Operation::Status(status)))
}

/// The leader of the meta group has so long to say how the nodes are: as long as it takes until
/// there is another one.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Says how many replicas of each shard there shall be.
pub(crate) async fn replication(
    client: &Client,
    replicas: u32,
    request: RequestId,
) -> Result<Answer, Failure> {
    let request_id = request.or_new(client);
    let asked = SetReplicationRequest {
        request_id: request_id.clone(),
        replicas,
    };
    let answer = client.set_replication(asked).await;
    let answer = answer.map_err(by_request(request_id))?;
    let count = replicas;
    Ok(Answer::Operation(Operation::Replicas { count, answer }))
}

/// Shows the version that the cluster speaks, or has it speak the next one.
pub(crate) async fn version(
    client: &Client,
    command: Option<VersionCommand>,
) -> Result<Answer, Failure> {
    let nodes = client.list_nodes(ListNodesRequest::default()).await?;
    let operation = match command {
        None => Operation::Versions(nodes),
        Some(VersionCommand::Raise(request)) => {
            let request_id = request.or_new(client);
            let version = nodes.version + 1;
            let asked = RaiseVersionRequest {
                request_id: request_id.clone(),
                version,
            };
            let answer = client.raise_version(asked).await;
            let answer = answer.map_err(by_request(request_id))?;
            Operation::Raised { version, answer }
        }
    };
    Ok(Answer::Operation(operation))
}

/// Does what a `stockctl node` command asks.
pub(crate) async fn node(client: &Client, command: NodeCommand) -> Result<Answer, Failure> {
    let operation = match command {
        NodeCommand::List { all } => {
            let include_removed = all;
            Operation::Nodes(
                client
                    .list_nodes(ListNodesRequest {
                        include_removed,
                        ..ListNodesRequest::default()
                    })
                    .await?,
            )
        }
        NodeCommand::Add(args) => {
            let request_id = args.request.or_new(client);
            let request = AddNodeRequest {
                request_id: request_id.clone(),
                node_id: args.id,
                endpoint: args.url,
                peers: args.peers,
            };
            let added = client.add_node(request).await;
            Operation::Added(added.map_err(by_request(request_id))?)
        }
        NodeCommand::Drain(args) => {
            let (node_id, request_id) = (args.node.node_id, args.node.request.or_new(client));
            let request = DrainNodeRequest {
                request_id: request_id.clone(),
                node_id,
            };
            let drained = client.drain_node(request).await;
            let answer = drained.map_err(by_request(request_id))?;
            let done = args.wait.until(client, Goal::Drained { node_id }).await?;
            Operation::Drained {
                node_id,
                done,
                answer,
            }
        }
        NodeCommand::Undrain(args) => {
            let (node_id, request_id) = (args.node_id, args.request.or_new(client));
            let request = UndrainNodeRequest {
                request_id: request_id.clone(),
                node_id,
            };
            let answer = client.undrain_node(request).await;
            let answer = answer.map_err(by_request(request_id))?;
            Operation::Undrained { node_id, answer }
        }
        NodeCommand::Replace(args) => {
            let (node_id, request_id) = (args.node_id, args.request.or_new(client));
            let request = ReplaceNodeRequest {
                request_id: request_id.clone(),
                node_id,
            };
            let answer = client.replace_node(request).await;
            let answer = answer.map_err(by_request(request_id))?;
            Operation::Replaceable { node_id, answer }
        }
        NodeCommand::Remove(args) => {
            let (node_id, request_id) = (args.node_id, args.request.or_new(client));
            let request = RemoveNodeRequest {
                request_id: request_id.clone(),
                node_id,
            };
            let answer = client.remove_node(request).await;
            let answer = answer.map_err(by_request(request_id))?;
            Operation::Removed { node_id, answer }
        }
    };
    Ok(Answer::Operation(operation))
}

/// Does what a `stockctl shard` command asks.
pub(crate) async fn shard(client: &Client, command: ShardCommand) -> Result<Answer, Failure> {
    let operation = match command {
        ShardCommand::List => {
            Operation::Shards(client.list_shards(ListShardsRequest::default()).await?)
        }
        ShardCommand::Move(args) => {
            use move_replica_request::Group;
            let (shard, request_id) = (args.shard, args.request.or_new(client));
            let request = MoveReplicaRequest {
                request_id: request_id.clone(),
                group: Some(match shard {
                    ShardName::Stock(shard) => Group::Shard(shard),
                    ShardName::Meta => Group::Meta(true),
                }),
                from_node_id: args.from,
                to_node_id: args.to,
            };
            let answer = client.move_replica(request).await;
            let answer = answer.map_err(by_request(request_id))?;
            let (from, to) = (args.from, args.to);
            let goal = Goal::Moved { shard, from, to };
            let done = args.wait.until(client, goal).await?;
            Operation::Moved {
                shard,
                done,
                answer,
            }
        }
    };
    Ok(Answer::Operation(operation))
}

/// Does what a `stockctl leader` command asks.
pub(crate) async fn leader(client: &Client, command: LeaderCommand) -> Result<Answer, Failure> {
    use transfer_leadership_request::Group;
    let LeaderCommand::Transfer(args) = command;
    let (shard, request_id) = (args.shard, args.request.or_new(client));
    let request = TransferLeadershipRequest {
        request_id: request_id.clone(),
        group: Some(match shard {
            ShardName::Stock(shard) => Group::Shard(shard),
            ShardName::Meta => Group::Meta(true),
        }),
        to_node_id: args.to,
    };
    let answer = client.transfer_leadership(request).await;
    let answer = answer.map_err(by_request(request_id))?;
    let done = match args.to {
        Some(node_id) => {
            args.wait
                .until(client, Goal::Led { shard, node_id })
                .await?
        }
        // Nothing in particular is to happen.
        None => true,
    };
    Ok(Answer::Operation(Operation::Transferred {
        shard,
        to: args.to,
        done,
        answer,
    }))
}

/// Does what a `stockctl replica` command asks.
pub(crate) async fn replica(client: &Client, command: ReplicaCommand) -> Result<Answer, Failure> {
    use rebuild_replica_request::Group;
    let ReplicaCommand::Rebuild(args) = command;
    let (shard, node_id, request_id) = (args.shard, args.node, args.request.or_new(client));
    let request = RebuildReplicaRequest {
        request_id: request_id.clone(),
        group: Some(match shard {
            ShardName::Stock(shard) => Group::Shard(shard),
            ShardName::Meta => Group::Meta(true),
        }),
        node_id,
    };
    let answer = client.rebuild_replica(request).await;
    let answer = answer.map_err(by_request(request_id))?;
    let goal = Goal::Rebuilt { shard, node_id };
    let done = args.wait.until(client, goal).await?;
    Ok(Answer::Operation(Operation::Rebuilt {
        shard,
        node_id,
        done,
        answer,
    }))
}

/// Asks every node, and shows whether the cluster has lost its quorum, and what to do then.
pub(crate) async fn last_resort(
    client: &Client,
    command: UnsafeCommand,
) -> Result<Answer, Failure> {
    let UnsafeCommand::Recover = command;
    let seen = client.get_topology().await?;
    let seen = last_resort::together(seen, &answers(client).await);
    Ok(Answer::Operation(Operation::LastResort(seen)))
}

/// What each node says that answers, all of them asked at the same time.
async fn answers(client: &Client) -> BTreeMap<u64, GetTopologyResponse> {
    let mut asked = JoinSet::new();
    for (node, channel) in client.node_channels() {
        asked.spawn(async move {
            let mut stub = TopologyServiceClient::new(channel);
            let answer = stub.get_topology(GetTopologyRequest {});
            let answer = tokio::time::timeout(PROBED_WITHIN, answer).await;
            Some((node, answer.ok()?.ok()?.into_inner()))
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// A node that does not answer a question from memory for so long is silent.
const PROBED_WITHIN: Duration = Duration::from_secs(3);

/// Shows the last audits.
pub(crate) async fn audit(client: &Client) -> Result<Answer, Failure> {
    let audits = client.get_audit(GetAuditRequest::default()).await?;
    Ok(Answer::Operation(Operation::Audited(audits)))
}
