//! Who is in the cluster and who leads what, as this node knows without asking anybody: what
//! clients route by.

use stock_cluster::{GroupId, NodeState, Registry};
use stock_node::standing::ClusterState;
use stock_proto::stock::v1 as api;

/// The topology as a node sees it. Until the cluster is founded its nodes are those of the
/// configuration: their ids and the addresses of their edges.
pub fn topology(
    cluster_id: &str,
    node_id: u64,
    cluster: &ClusterState,
    configured: &[(u64, &str)],
) -> api::GetTopologyResponse {
    let registry = cluster.registry();
    let view = View {
        cluster,
        registry: Some(&*registry).filter(|registry| registry.is_founded()),
        configured,
    };
    let shards = (0..cluster.shards()).map(GroupId::of_shard);
    api::GetTopologyResponse {
        cluster_id: cluster_id.to_owned(),
        node_id,
        nodes: view.nodes(),
        shards: shards.map(|group| view.shard(group)).collect(),
        shard_count: cluster.shards(),
        meta: Some(view.shard(GroupId::META)),
    }
}

struct View<'a> {
    cluster: &'a ClusterState,
    registry: Option<&'a Registry>,
    configured: &'a [(u64, &'a str)],
}

impl View<'_> {
    fn nodes(&self) -> Vec<api::Node> {
        let node = |node_id, endpoint: &str| api::Node {
            node_id,
            endpoint: endpoint.to_owned(),
            reachable: self.cluster.is_reachable(node_id),
        };
        match self.registry {
            // One that was announced and has yet to join has nothing that anybody could call.
            Some(registry) => registry
                .nodes()
                .filter(|(_, known)| known.state != NodeState::Removed && known.directory.is_some())
                .map(|(id, known)| node(id, &known.grpc))
                .collect(),
            None => {
                let configured = self.configured.iter();
                configured.map(|(id, grpc)| node(*id, grpc)).collect()
            }
        }
    }

    fn shard(&self, group: GroupId) -> api::Shard {
        let status = self.cluster.group(group);
        // Learners answer nobody: voters are all that may be asked.
        let placement = self.registry.and_then(|registry| registry.placement(group));
        api::Shard {
            shard: group.shard().unwrap_or(0),
            leader_node_id: status.leader.unwrap_or(0),
            replica_node_ids: match placement {
                Some(placement) => placement.voters.iter().map(|voter| voter.node()).collect(),
                None => self.configured.iter().map(|(id, _)| *id).collect(),
            },
            term: status.term,
            applied_index: status.applied_index,
        }
    }
}
