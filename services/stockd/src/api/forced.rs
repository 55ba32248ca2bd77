//! `ReservationAdminService`: what an operator does in a holder's place.

use std::sync::Arc;

use stock_proto::stock::admin::v1 as api;
use stock_proto::stock::admin::v1::reservation_admin_service_server::ReservationAdminService;
use tonic::{Request, Response, Status};

use super::edge::Edge;
use super::front::Front;
use super::reservations::change;

/// The service.
pub(super) struct ForcedCalls {
    edge: Arc<Edge>,
    front: Arc<Front>,
}

impl ForcedCalls {
    /// On this edge.
    pub(super) fn new(edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let (edge, front) = (Arc::clone(edge), Arc::clone(front));
        Self { edge, front }
    }
}

#[tonic::async_trait]
impl ReservationAdminService for ForcedCalls {
    async fn force_release(
        &self,
        request: Request<api::ForceReleaseRequest>,
    ) -> Result<Response<api::ForceReleaseResponse>, Status> {
        let change = async |call, _| {
            let changed = change(&self.edge, &call).await?;
            Ok(api::ForceReleaseResponse {
                header: changed.header,
                reservation: changed.reservation,
            })
        };
        self.front.run(request, change).await
    }
}
