//! What calls go through, in one place: their deadline, their meter, their log lines. `Echo`,
//! `EchoStream` and `GetTopology` ask nothing of the cluster and go past it; `ReserveStream` counts
//! each of its requests by itself.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use stock_proto::stock::admin::v1 as admin;
use stock_proto::stock::internal::v1 as internal;
use stock_proto::stock::v1 as api;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span};

use super::caller::Caller;
use super::error::{ApiError, push_back};
use super::meter::Meter;
use crate::listeners::Hold;

/// A message that asks for something.
pub(super) trait Call {
    /// Its place among the meters.
    const NUMBER: usize;
    /// Whether it may change anything, so that its caller must wait for as long as that takes.
    const CHANGES: bool;
    /// What log lines call it: a request id, a reservation or a document.
    fn id(&self) -> &str;
}

/// Shared by all services of one kind of caller.
pub(super) struct Front {
    meters: Vec<Meter>,
    serves_nodes: bool,
    cluster_id: Arc<str>,
}

/// In this header a caller may name the cluster that its call is for. Addresses are used again, and
/// a node that took the one of another cluster's takes no part in what was meant for that.
const CLUSTER: &str = "stockd-cluster";

impl Front {
    /// For calls of shops and operators.
    pub(super) fn for_clients(cluster_id: &str) -> Self {
        Self::new(cluster_id, false)
    }

    /// For calls that other nodes send on.
    pub(super) fn for_nodes(cluster_id: &str) -> Self {
        Self::new(cluster_id, true)
    }

    fn new(cluster_id: &str, serves_nodes: bool) -> Self {
        Self {
            serves_nodes,
            cluster_id: cluster_id.into(),
            meters: NAMES.map(Meter::new).into(),
        }
    }

    /// Counts and times calls of this kind.
    pub(super) fn meter<C: Call>(&self) -> &Meter {
        &self.meters[C::NUMBER]
    }

    /// Carries a call of one message out, for as long as its caller waits.
    pub(super) async fn run<C: Call, T, F>(
        &self,
        request: Request<C>,
        handle: impl FnOnce(C, Caller) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let caller = self.caller::<C, _>(&request)?;
        let call = request.into_inner();
        let meter = self.meter::<C>();
        let span = tracing::debug_span!("call", call = meter.call(), id = call.id());
        // In its place once: whoever takes a future by value keeps a copy of its whole size.
        let handled = pin!(handle(call, caller));
        measure(meter, span, caller.deadline.limit(handled)).await
    }

    /// Carries a call of many messages out, which are answered when the last has come.
    pub(super) async fn run_stream<C: Call, T, F>(
        &self,
        request: Request<Streaming<C>>,
        handle: impl FnOnce(Streaming<C>, Option<Hold>) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let caller = self.caller::<C, _>(&request)?;
        let hold = Hold::of(request.extensions());
        let meter = self.meter::<C>();
        let span = tracing::debug_span!("call", call = meter.call());
        let handled = pin!(handle(request.into_inner(), hold));
        measure(meter, span, caller.deadline.limit(handled)).await
    }

    /// The caller, who waits for long enough for what is asked.
    fn caller<C: Call, M>(&self, request: &Request<M>) -> Result<Caller, ApiError> {
        self.check_cluster(request.metadata())?;
        let caller = Caller::of(request.metadata(), self.serves_nodes);
        if C::CHANGES {
            caller.deadline.check_mutation()?;
        }
        Ok(caller)
    }

    /// Refuses a call that is for another cluster.
    pub(super) fn check_cluster(&self, metadata: &MetadataMap) -> Result<(), ApiError> {
        match metadata.get(CLUSTER) {
            Some(named) if named.as_bytes() != self.cluster_id.as_bytes() => {
                let own = Arc::clone(&self.cluster_id);
                Err(ApiError::WrongCluster { own })
            }
            _ => Ok(()),
        }
    }
}

async fn measure<T>(
    meter: &Meter,
    span: Span,
    handled: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response<T>, Status> {
    let began = Instant::now();
    let result = handled.instrument(span.clone()).await;
    meter.took(began);
    match result {
        Ok(answer) => {
            tracing::debug!(parent: &span, "answered");
            Ok(Response::new(answer))
        }
        Err(error) => {
            let mut status = Status::from(error);
            push_back(&mut status);
            meter.refused(&status);
            let (code, message) = (status.code(), status.message());
            tracing::debug!(parent: &span, ?code, message, "refused");
            Err(status)
        }
    }
}

/// Every call: its number, its name, its message, whether it changes anything, and its id.
macro_rules! calls {
    ($($number:literal $name:ident $package:ident $message:ident $changes:literal
        |$it:ident| $id:expr;)*) => {
        const NAMES: [&str; [$($number),*].len()] = [$(stringify!($name)),*];

        $(impl Call for $package::$message {
            const NUMBER: usize = $number;
            const CHANGES: bool = $changes;

            fn id(&self) -> &str {
                let $it = self;
                $id
            }
        })*

        #[test]
        fn each_call_has_the_meter_of_its_name() {
            $(assert_eq!(NAMES[<$package::$message as Call>::NUMBER], stringify!($name));)*
        }
    };
}

calls! {
    0 Reserve api ReserveRequest true |it| &it.request_id;
    1 BatchReserve api BatchReserveRequest true
        |it| it.requests.first().map_or("", |first| &first.request_id);
    2 ReserveStream api ReserveStreamRequest true |_it| "";
    3 Confirm api ConfirmRequest true |it| &it.request_id;
    4 Release api ReleaseRequest true |it| &it.request_id;
    5 Fulfill api FulfillRequest true |it| &it.request_id;
    6 Extend api ExtendRequest true |it| &it.request_id;
    7 Amend api AmendRequest true |it| &it.request_id;
    8 GetReservation api GetReservationRequest false |it| &it.reservation_id;
    9 GetAvailability api GetAvailabilityRequest false |_it| "";
    10 RecordReceipts api RecordReceiptsRequest true |it| &it.document;
    11 RecordSale api RecordSaleRequest true |it| &it.document;
    12 Adjust api AdjustRequest true |it| &it.document;
    13 PutLocation api PutLocationRequest true |it| &it.request_id;
    14 ListLocations api ListLocationsRequest false |_it| "";
    15 SetPositionPolicy api SetPositionPolicyRequest true |it| &it.request_id;
    16 ListNodes admin ListNodesRequest false |_it| "";
    17 AddNode admin AddNodeRequest true |it| &it.request_id;
    18 JoinNode internal JoinNodeRequest true |it| &it.endpoint;
    19 DrainNode admin DrainNodeRequest true |it| &it.request_id;
    20 UndrainNode admin UndrainNodeRequest true |it| &it.request_id;
    21 ReplaceNode admin ReplaceNodeRequest true |it| &it.request_id;
    22 RemoveNode admin RemoveNodeRequest true |it| &it.request_id;
    23 SetReplication admin SetReplicationRequest true |it| &it.request_id;
    24 ListShards admin ListShardsRequest false |_it| "";
    25 MoveReplica admin MoveReplicaRequest true |it| &it.request_id;
    26 TransferLeadership admin TransferLeadershipRequest true |it| &it.request_id;
    27 RebuildReplica admin RebuildReplicaRequest true |it| &it.request_id;
    28 GetAudit admin GetAuditRequest false |_it| "";
    29 ListReservations api ListReservationsRequest false
        |it| it.order_reference.as_deref().unwrap_or_default();
    30 ForceRelease admin ForceReleaseRequest true |it| &it.request_id;
    31 RaiseVersion admin RaiseVersionRequest true |it| &it.request_id;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_call_carries_what_its_handler_needs_once() {
        const NEEDED: usize = 4_096;
        let handle = async |_, _| {
            let needed = [1u8; NEEDED];
            tokio::task::yield_now().await;
            Ok(needed.map(u64::from).iter().sum::<u64>())
        };
        let front = Front::for_clients("shop");
        let call = front.run(Request::new(api::ReserveRequest::default()), handle);
        let size = size_of_val(&call);
        assert!(size < NEEDED * 3 / 2, "{size} bytes");
    }
}
