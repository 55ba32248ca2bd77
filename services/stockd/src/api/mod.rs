//! The edge: `stock.v1` over gRPC. A call is checked whole, turned into a command, carried out by
//! the leader of its shard, and its outcome turned back. Nothing in here decides about stock.

pub mod announce;
mod answer_size;
mod availability;
mod basket_sorter;
mod caller;
mod catalog;
mod changes;
mod cluster;
mod cluster_view;
mod convert;
mod deadline;
mod edge;
mod error;
mod fields;
mod first_sight;
mod front;
mod inventory;
mod meter;
mod movement_lines;
mod operations;
pub(crate) mod page;
mod proxy;
mod reservations;
pub mod reserve;
mod reserve_stream;
mod topology;
mod verdicts;

use std::sync::Arc;

use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::availability_service_server::AvailabilityServiceServer;
use stock_proto::stock::v1::catalog_service_server::CatalogServiceServer;
use stock_proto::stock::v1::cluster_service_server::ClusterServiceServer;
use stock_proto::stock::v1::inventory_service_server::InventoryServiceServer;
use stock_proto::stock::v1::reservation_service_server::ReservationServiceServer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use self::availability::AvailabilityReads;
use self::catalog::CatalogCalls;
use self::cluster::ClusterCalls;
pub use self::edge::Edge;
pub use self::error::ApiError;
use self::front::Front;
use self::inventory::Inventory;
pub use self::proxy::Proxy;
use self::reservations::Reservations;
pub use self::topology::topology;
use crate::config::Config;
use crate::host::memory::MemoryGauge;
use crate::listeners::calls::{self, Caller};
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
    mut from_peers: mpsc::Receiver<Accepted>,
    stop: CancellationToken,
) {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let budget = Budget::new(MemoryGauge::new(config.memory_bytes).limit_bytes());
    let front = Arc::new(Front::new());
    let reservations = Reservations::new(Arc::clone(&edge), Arc::clone(&front), stop.clone());
    let availability = AvailabilityReads::new(Arc::clone(&edge), Arc::clone(&front));
    let inventory = Inventory::new(Arc::clone(&edge), Arc::clone(&front));
    let catalog = CatalogCalls::new(Arc::clone(&edge), Arc::clone(&front));
    let cluster = ClusterCalls::new(config, edge, front, stop.clone());
    let mut routes = Routes::default()
        .add_service(ReservationServiceServer::new(reservations))
        .add_service(AvailabilityServiceServer::new(availability))
        .add_service(InventoryServiceServer::new(inventory))
        .add_service(CatalogServiceServer::new(catalog))
        .add_service(ClusterServiceServer::new(cluster))
        .add_service(health_service);
    match reflection {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::error!(%error, "reflection is off: the descriptors are damaged"),
    }
    let routes = routes.prepare();
    let connections = TaskTracker::new();
    let serve = |accepted, caller| {
        let (routes, budget) = (routes.clone(), Arc::clone(&budget));
        connections.spawn(calls::serve(accepted, caller, routes, budget, stop.clone()));
    };
    // Apart from each other: a connection that is just being let in is not lost because another one
    // came.
    let clients = async {
        loop {
            serve(listener.accept().await, Caller::Client);
        }
    };
    let nodes = async {
        while let Some(accepted) = from_peers.recv().await {
            serve(accepted, Caller::Node);
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

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::listeners::calls::{Kind, kind_of};

    #[test]
    fn every_call_with_many_messages_is_known_to_have_them() {
        let served = [
            api::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
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
