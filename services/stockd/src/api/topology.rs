//! `TopologyService`: who is in the cluster and who leads what, as this node knows without asking
//! anybody: what clients route by.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use stock_cluster::{GroupId, NodeState, Registry};
use stock_node::standing::ClusterState;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::topology_service_server::TopologyService;
use tonic::{Request, Response, Status};

use super::edge::Edge;
use super::seen::{self, Seen};
use crate::config::Config;

/// The service.
pub(super) struct TopologyCalls {
    config: Arc<Config>,
    edge: Arc<Edge>,
}

impl TopologyCalls {
    /// Of this node.
    pub(super) fn new(config: &Arc<Config>, edge: &Arc<Edge>) -> Self {
        let (config, edge) = (Arc::clone(config), Arc::clone(edge));
        Self { config, edge }
    }
}

#[tonic::async_trait]
impl TopologyService for TopologyCalls {
    async fn get_topology(
        &self,
        _: Request<api::GetTopologyRequest>,
    ) -> Result<Response<api::GetTopologyResponse>, Status> {
        let (config, edge) = (&self.config, &self.edge);
        let (index, time) = edge.view.catalog_reached_at();
        let configured = config.nodes.iter();
        let configured: Vec<_> = configured.map(|it| (it.id, it.grpc.as_str())).collect();
        Ok(Response::new(api::GetTopologyResponse {
            header: Some(edge.header(Seen::read(GroupId::META, index, time))),
            time: time_now(&edge.cluster),
            ..topology(
                &config.cluster_id,
                config.node_id,
                &edge.cluster,
                &configured,
            )
        }))
    }
}

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
        header: None,
        cluster_id: cluster_id.to_owned(),
        node_id,
        nodes: view.nodes(),
        shards: shards.map(|group| view.shard(group)).collect(),
        shard_count: cluster.shards(),
        meta: Some(view.shard(GroupId::META)),
        time: None,
    }
}

fn time_now(cluster: &ClusterState) -> Option<Timestamp> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let time_ms = cluster.time_ms(wall.ok()?.as_millis() as u64)?;
    Some((UNIX_EPOCH + Duration::from_millis(time_ms)).into())
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
            shard: seen::shard_of(group),
            leader_node_id: status.leader,
            replica_node_ids: match placement {
                Some(placement) => placement.voters.iter().map(|voter| voter.node()).collect(),
                None => self.configured.iter().map(|(id, _)| *id).collect(),
            },
            term: status.term,
            applied_index: status.applied_index,
        }
    }
}
