//! The edge: `stock.v1` over gRPC. A call is checked whole, turned into a command, carried out by the
//! leader of its shard, and its outcome turned back. Nothing in here decides about stock.

pub mod announce;
mod availability;
mod basket_sorter;
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
mod inventory;
pub mod join;
mod meter;
mod proxy;
mod reservations;
pub mod reserve;
mod reserve_stream;

use std::sync::Arc;

use stock_core::Stamp;
use stock_proto::codec::MESSAGE_BYTES_MAX;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::availability_service_server::AvailabilityServiceServer;
use stock_proto::stock::v1::catalog_service_server::CatalogServiceServer;
use stock_proto::stock::v1::cluster_service_server::ClusterServiceServer;
use stock_proto::stock::v1::inventory_service_server::InventoryServiceServer;
use stock_proto::stock::v1::reservation_service_server::ReservationServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub use self::edge::Edge;
pub use self::error::ApiError;
use self::fields::Fields;
pub use self::proxy::Proxy;
use crate::config::Config;
use crate::worker::event::{Freshness, Outcomes};

/// What a proposal came to.
pub struct Applied {
    /// The index it was applied at.
    pub applied_index: u64,
    /// Cluster time then.
    pub stamp: Stamp,
    /// One for each command.
    pub outcomes: Outcomes,
}

/// A message over [`MESSAGE_BYTES_MAX`] is refused by name in the codec. Past this one it is refused
/// by the transport, before it is read.
const TRANSPORT_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

/// Calls of one connection that may be on their way at once.
const STREAMS_PER_CONNECTION_MAX: u32 = 4_096;

/// Serves until told to stop; then takes no new calls and finishes those under way.
pub async fn serve(
    listener: TcpListener,
    config: Arc<Config>,
    edge: Arc<Edge>,
    health_service: tonic_health::pb::health_server::HealthServer<
        impl tonic_health::pb::health_server::Health,
    >,
    from_peers: mpsc::Receiver<TcpStream>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let mut server = Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(
            ReservationServiceServer::new(reservations::Reservations::new(
                Arc::clone(&edge),
                stop.clone(),
            ))
            .max_decoding_message_size(TRANSPORT_BYTES_MAX),
        )
        .add_service(
            AvailabilityServiceServer::new(availability::AvailabilityReads::new(Arc::clone(&edge)))
                .max_decoding_message_size(TRANSPORT_BYTES_MAX),
        )
        .add_service(
            InventoryServiceServer::new(inventory::Inventory::new(Arc::clone(&edge)))
                .max_decoding_message_size(TRANSPORT_BYTES_MAX),
        )
        .add_service(
            CatalogServiceServer::new(catalog::CatalogCalls::new(Arc::clone(&edge)))
                .max_decoding_message_size(TRANSPORT_BYTES_MAX),
        )
        .add_service(
            ClusterServiceServer::new(cluster::ClusterCalls::new(config, edge, stop.clone()))
                .max_decoding_message_size(TRANSPORT_BYTES_MAX),
        )
        .add_service(health_service);
    match reflection {
        Ok(reflection) => server = server.add_service(reflection),
        Err(error) => tracing::error!(%error, "reflection is off: the descriptors are damaged"),
    }
    server
        .serve_with_incoming_shutdown(incoming(listener, from_peers), stop.cancelled_owned())
        .await
}

/// Connections of clients, and of other nodes that make calls in clients' names. Small answers go at once; without this
/// the last percent of them waits 40 ms.
fn incoming(
    listener: TcpListener,
    from_peers: mpsc::Receiver<TcpStream>,
) -> impl tokio_stream::Stream<Item = std::io::Result<TcpStream>> {
    use tokio_stream::StreamExt;
    let clients = TcpListenerStream::new(listener);
    let peers = ReceiverStream::new(from_peers).map(Ok);
    clients.merge(peers).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// How new an answer must be: what the call says, as one thing.
fn read_freshness(fields: &mut Fields, consistency: i32, at_least: u64) -> Option<Freshness> {
    match api::Consistency::try_from(consistency) {
        Ok(api::Consistency::Linearizable) => Some(Freshness::Linearizable),
        Ok(api::Consistency::Near) if at_least > 0 => Some(Freshness::AtLeast(at_least)),
        Ok(api::Consistency::Near) => Some(Freshness::Near),
        Err(_) => {
            fields.refuse("consistency", format!("{consistency} is not known"));
            None
        }
    }
}
