//! The edge: `stock.v1` over gRPC. A call is checked whole, turned into a command, carried out by
//! the leader of its shard, and its outcome turned back. Nothing in here decides about stock.

mod afterwards;
pub mod announce;
mod availability;
mod caller;
mod catalog;
mod cluster;
mod cluster_view;
mod deadline;
mod edge;
mod error;
mod first_sight;
mod forced;
mod front;
mod inventory;
mod joining;
mod lab;
mod listing;
mod meta_leader;
mod meter;
mod operations;
mod over_shards;
mod proxy;
mod reservations;
pub mod reserve;
mod reserve_stream;
mod saying;
mod seen;
mod sorter;
mod topology;
mod undecided;
mod wanted;

use std::sync::Arc;

use stock_proto::PUBLIC_DESCRIPTORS;
use stock_proto::stock::admin::v1::cluster_service_server::ClusterServiceServer;
use stock_proto::stock::admin::v1::reservation_admin_service_server::ReservationAdminServiceServer;
use stock_proto::stock::internal::v1::joining_service_server::JoiningServiceServer;
use stock_proto::stock::lab::v1::echo_service_server::EchoServiceServer;
use stock_proto::stock::v1::availability_service_server::AvailabilityServiceServer;
use stock_proto::stock::v1::catalog_service_server::CatalogServiceServer;
use stock_proto::stock::v1::inventory_service_server::InventoryServiceServer;
use stock_proto::stock::v1::reservation_service_server::ReservationServiceServer;
use stock_proto::stock::v1::topology_service_server::TopologyServiceServer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use self::availability::AvailabilityReads;
use self::catalog::CatalogCalls;
use self::cluster::ClusterCalls;
pub use self::edge::Edge;
pub use self::error::ApiError;
use self::forced::ForcedCalls;
use self::front::Front;
use self::inventory::Inventory;
use self::joining::JoiningCalls;
use self::lab::EchoCalls;
use self::reservations::Reservations;
use self::topology::TopologyCalls;
pub use self::topology::topology;
use crate::config::Config;
use crate::host::memory::MemoryGauge;
use crate::listeners::calls::{self, Remote};
use crate::listeners::{Accepted, Budget, Listener};

/// Serves clients, and other nodes that make calls in clients' names, until told to stop; then
/// takes no new calls and finishes those under way.
pub async fn serve(
    listener: Listener,
    config: Arc<Config>,
    edge: Arc<Edge>,
    health_service: tonic_health::pb::health_server::HealthServer<
        impl tonic_health::pb::health_server::Health,
    >,
    mut from_peers: mpsc::Receiver<(Accepted, Remote)>,
    stop: CancellationToken,
) {
    let budget = Budget::new(MemoryGauge::new(config.memory_bytes).limit_bytes());
    let services = Services { config, edge, stop };
    let for_clients = services.for_clients().add_service(health_service).prepare();
    let for_nodes = services.for_nodes().prepare();
    let for_newcomers = services.for_newcomers().prepare();
    let stop = services.stop;
    let connections = TaskTracker::new();
    let serve = |accepted, remote| {
        let routes = match remote {
            Remote::Client => for_clients.clone(),
            Remote::Node => for_nodes.clone(),
            Remote::Newcomer => for_newcomers.clone(),
        };
        let budget = Arc::clone(&budget);
        connections.spawn(calls::serve(accepted, remote, routes, budget, stop.clone()));
    };
    // Apart from each other: a connection that is just being let in is not lost because another one
    // came.
    let clients = async {
        loop {
            serve(listener.accept().await, Remote::Client);
        }
    };
    let nodes = async {
        while let Some((accepted, remote)) = from_peers.recv().await {
            serve(accepted, remote);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = clients => {}
        () = nodes => {}
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// What services are made of.
struct Services {
    config: Arc<Config>,
    edge: Arc<Edge>,
    stop: CancellationToken,
}

impl Services {
    /// What clients may call, but for health.
    fn for_clients(&self) -> Routes {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(PUBLIC_DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = self.public(&Arc::new(Front::for_clients(&self.config.cluster_id)));
        if self.config.serve_lab {
            let echoes = EchoCalls::new(self.stop.clone());
            routes = routes.add_service(EchoServiceServer::new(echoes));
        }
        // Some clients know the earlier one only.
        match reflection()
            .build_v1()
            .and_then(|it| Ok((it, reflection().build_v1alpha()?)))
        {
            Ok((now, earlier)) => routes.add_service(now).add_service(earlier),
            Err(error) => {
                tracing::error!(%error, "reflection is off: the descriptors are damaged");
                routes
            }
        }
    }

    /// What nodes may call.
    fn for_nodes(&self) -> Routes {
        let front = Arc::new(Front::for_nodes(&self.config.cluster_id));
        let joining = JoiningCalls::new(&self.config, &self.edge, &front);
        self.public(&front)
            .add_service(JoiningServiceServer::new(joining))
    }

    /// What nodes may call that are no members.
    fn for_newcomers(&self) -> Routes {
        let front = Arc::new(Front::for_clients(&self.config.cluster_id));
        let joining = JoiningCalls::new(&self.config, &self.edge, &front);
        Routes::default().add_service(JoiningServiceServer::new(joining))
    }

    /// `stock.v1` and `stock.admin.v1`.
    fn public(&self, front: &Arc<Front>) -> Routes {
        let Self { config, edge, stop } = self;
        let reservations = Reservations::new(edge, front, stop.clone());
        let availability = AvailabilityReads::new(edge, front);
        let inventory = Inventory::new(edge, front);
        let catalog = CatalogCalls::new(edge, front);
        let forced = ForcedCalls::new(edge, front);
        let topology = TopologyCalls::new(config, edge);
        let cluster = ClusterCalls::new(config, edge, front);
        Routes::default()
            .add_service(ReservationServiceServer::new(reservations))
            .add_service(AvailabilityServiceServer::new(availability))
            .add_service(InventoryServiceServer::new(inventory))
            .add_service(CatalogServiceServer::new(catalog))
            .add_service(TopologyServiceServer::new(topology))
            .add_service(ClusterServiceServer::new(cluster))
            .add_service(ReservationAdminServiceServer::new(forced))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::listeners::calls::{Kind, kind_of};

    #[test]
    fn every_call_with_many_messages_is_known_to_have_them() {
        let served = [
            PUBLIC_DESCRIPTORS,
            stock_proto::OTHER_DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let sets = served.map(|set| FileDescriptorSet::decode(set).unwrap());
        let mut calls = 0;
        for file in sets.iter().flat_map(|set| &set.file) {
            for service in &file.service {
                for method in &service.method {
                    let name = service.name();
                    let path = format!("/{}.{name}/{}", file.package(), method.name());
                    let expected = match (method.client_streaming(), method.server_streaming()) {
                        (false, _) => Kind::Single,
                        (true, false) => Kind::Collects,
                        (true, true) => Kind::Converses,
                    };
                    assert_eq!(kind_of(&path), expected, "{path}");
                    calls += 1;
                }
            }
        }
        assert!(calls > 20, "{calls}");
    }
}
