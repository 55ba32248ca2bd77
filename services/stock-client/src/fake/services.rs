//! `stock.v1` of a fake.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt};
use prost::Name;
use stock_api::Rejection;
use stock_api::changes::Change;
use stock_api::documents::Whole;
use stock_core::MovementKind;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::availability_service_server::{
    AvailabilityService, AvailabilityServiceServer,
};
use stock_proto::stock::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use stock_proto::stock::v1::inventory_service_server::{InventoryService, InventoryServiceServer};
use stock_proto::stock::v1::reservation_service_server::{
    ReservationService, ReservationServiceServer,
};
use stock_proto::stock::v1::topology_service_server::{TopologyService, TopologyServiceServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::fault::Course;
use super::store::{Changed, Store};
use super::wire::Connection;
use super::{ENDPOINT, Shared};

/// The services, which are all the same state.
#[derive(Clone)]
pub(super) struct Services {
    shared: Arc<Shared>,
}

impl Services {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }

    pub(super) fn add_to(&self, routes: Routes) -> Routes {
        routes
            .add_service(ReservationServiceServer::new(self.clone()))
            .add_service(AvailabilityServiceServer::new(self.clone()))
            .add_service(InventoryServiceServer::new(self.clone()))
            .add_service(CatalogServiceServer::new(self.clone()))
            .add_service(TopologyServiceServer::new(self.clone()))
    }

    /// Carries a call out, unless something goes wrong.
    async fn run<M: Name, A>(
        &self,
        request: Request<M>,
        carry_out: impl FnOnce(&mut Store, M) -> Result<A, Rejection>,
    ) -> Result<Response<A>, Status> {
        let connection = connection_of(&request);
        let call = request.into_inner();
        let done = || carry_out(&mut self.shared.store(), call);
        self.under_course::<M, A>(&connection, done)
            .await
            .map(Response::new)
    }

    /// Carries out a change of a reservation.
    async fn change<M: Name + Change, A>(
        &self,
        request: Request<M>,
        id: impl FnOnce(&mut M) -> &mut String,
        answer: impl FnOnce(Changed) -> A,
    ) -> Result<Response<A>, Status> {
        let change = |store: &mut Store, mut call: M| {
            store.read_id(id(&mut call));
            store.change(&call).map(answer)
        };
        self.run(request, change).await
    }

    async fn under_course<M: Name, A>(
        &self,
        connection: &Connection,
        done: impl FnOnce() -> Result<A, Rejection>,
    ) -> Result<A, Status> {
        match self.shared.faults.take(M::NAME) {
            Course::Usual => Ok(done()?),
            Course::Refused(status) => Err(status),
            Course::Late(time) => {
                let answer = done();
                tokio::time::sleep(time).await;
                Ok(answer?)
            }
            Course::Lost { is_done } => {
                if is_done {
                    let _ = done();
                }
                connection.break_now();
                pending().await
            }
            Course::Silent => pending().await,
        }
    }
}

fn connection_of<M>(request: &Request<M>) -> Connection {
    let connection = request.extensions().get::<Connection>();
    connection.cloned().unwrap_or_default()
}

#[tonic::async_trait]
impl ReservationService for Services {
    async fn reserve(
        &self,
        request: Request<api::ReserveRequest>,
    ) -> Result<Response<api::ReserveResponse>, Status> {
        self.run(request, Store::reserve).await
    }

    async fn batch_reserve(
        &self,
        request: Request<api::BatchReserveRequest>,
    ) -> Result<Response<api::BatchReserveResponse>, Status> {
        self.run(request, Store::batch_reserve).await
    }

    type ReserveStreamStream =
        Pin<Box<dyn Stream<Item = Result<api::ReserveStreamResponse, Status>> + Send>>;

    async fn reserve_stream(
        &self,
        request: Request<Streaming<api::ReserveStreamRequest>>,
    ) -> Result<Response<Self::ReserveStreamStream>, Status> {
        let connection = connection_of(&request);
        let services = self.clone();
        let mut next_number = 0;
        let messages = request.into_inner().and_then(move |message| {
            let (services, connection) = (services.clone(), connection.clone());
            let first_number = next_number;
            next_number += message.requests.len() as u64;
            async move {
                let store = || {
                    services
                        .shared
                        .store()
                        .reserve_stream(first_number, &message)
                };
                let under_course =
                    services.under_course::<api::ReserveStreamRequest, _>(&connection, store);
                under_course.await
            }
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn confirm(
        &self,
        request: Request<api::ConfirmRequest>,
    ) -> Result<Response<api::ConfirmResponse>, Status> {
        let answer = |(header, reservation)| api::ConfirmResponse {
            header,
            reservation,
        };
        self.change(request, |call| &mut call.request_id, answer)
            .await
    }

    async fn release(
        &self,
        request: Request<api::ReleaseRequest>,
    ) -> Result<Response<api::ReleaseResponse>, Status> {
        let answer = |(header, reservation)| api::ReleaseResponse {
            header,
            reservation,
        };
        self.change(request, |call| &mut call.request_id, answer)
            .await
    }

    async fn fulfill(
        &self,
        request: Request<api::FulfillRequest>,
    ) -> Result<Response<api::FulfillResponse>, Status> {
        let answer = |(header, reservation)| api::FulfillResponse {
            header,
            reservation,
        };
        self.change(request, |call| &mut call.request_id, answer)
            .await
    }

    async fn extend(
        &self,
        request: Request<api::ExtendRequest>,
    ) -> Result<Response<api::ExtendResponse>, Status> {
        let answer = |(header, reservation)| api::ExtendResponse {
            header,
            reservation,
        };
        self.change(request, |call| &mut call.request_id, answer)
            .await
    }

    async fn amend(
        &self,
        request: Request<api::AmendRequest>,
    ) -> Result<Response<api::AmendResponse>, Status> {
        self.run(request, Store::amend).await
    }

    async fn list_reservations(
        &self,
        request: Request<api::ListReservationsRequest>,
    ) -> Result<Response<api::ListReservationsResponse>, Status> {
        self.run(request, |store, call| store.list_reservations(&call))
            .await
    }

    async fn get_reservation(
        &self,
        request: Request<api::GetReservationRequest>,
    ) -> Result<Response<api::GetReservationResponse>, Status> {
        self.run(request, |store, call| store.get_reservation(&call))
            .await
    }
}

#[tonic::async_trait]
impl AvailabilityService for Services {
    async fn get_availability(
        &self,
        request: Request<api::GetAvailabilityRequest>,
    ) -> Result<Response<api::GetAvailabilityResponse>, Status> {
        self.run(request, |store, call| store.get_availability(&call))
            .await
    }
}

#[tonic::async_trait]
impl InventoryService for Services {
    async fn record_receipts(
        &self,
        request: Request<Streaming<api::RecordReceiptsRequest>>,
    ) -> Result<Response<api::RecordReceiptsResponse>, Status> {
        let connection = connection_of(&request);
        let messages: Vec<_> = request.into_inner().try_collect().await?;
        let record = || self.shared.store().record_receipts(messages);
        self.under_course::<api::RecordReceiptsRequest, _>(&connection, record)
            .await
            .map(Response::new)
    }

    async fn record_sale(
        &self,
        request: Request<api::RecordSaleRequest>,
    ) -> Result<Response<api::RecordSaleResponse>, Status> {
        let record = |store: &mut Store, mut call: api::RecordSaleRequest| {
            store.read_times(&mut call.lines);
            let (header, verdicts) = store.record_whole(&Whole {
                kind: MovementKind::Sale,
                source: call.source.as_deref(),
                document: &call.document,
                reason: None,
                lines: &call.lines,
            })?;
            Ok(api::RecordSaleResponse { header, verdicts })
        };
        self.run(request, record).await
    }

    async fn adjust(
        &self,
        request: Request<api::AdjustRequest>,
    ) -> Result<Response<api::AdjustResponse>, Status> {
        let record = |store: &mut Store, mut call: api::AdjustRequest| {
            store.read_times(&mut call.lines);
            let (header, verdicts) = store.record_whole(&Whole {
                kind: MovementKind::Adjustment,
                source: call.source.as_deref(),
                document: &call.document,
                reason: Some(&call.reason),
                lines: &call.lines,
            })?;
            Ok(api::AdjustResponse { header, verdicts })
        };
        self.run(request, record).await
    }
}

#[tonic::async_trait]
impl CatalogService for Services {
    async fn put_location(
        &self,
        request: Request<api::PutLocationRequest>,
    ) -> Result<Response<api::PutLocationResponse>, Status> {
        self.run(request, Store::put_location).await
    }

    async fn list_locations(
        &self,
        request: Request<api::ListLocationsRequest>,
    ) -> Result<Response<api::ListLocationsResponse>, Status> {
        self.run(request, |store, call| store.list_locations(&call))
            .await
    }

    async fn set_position_policy(
        &self,
        request: Request<api::SetPositionPolicyRequest>,
    ) -> Result<Response<api::SetPositionPolicyResponse>, Status> {
        self.run(request, Store::set_position_policy).await
    }
}

#[tonic::async_trait]
impl TopologyService for Services {
    async fn get_topology(
        &self,
        _: Request<api::GetTopologyRequest>,
    ) -> Result<Response<api::GetTopologyResponse>, Status> {
        Ok(Response::new(self.shared.store().topology(ENDPOINT)))
    }
}
