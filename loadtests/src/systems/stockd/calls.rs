//! Single calls and batches.

use prost::Message;
use stock_proto::stock::lab::v1::EchoRequest;
use stock_proto::stock::lab::v1::echo_service_client::EchoServiceClient;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::batch_reserve_result::Result as BatchResult;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_response::Outcome as Decision;
use stock_proto::stock::v1::{
    BatchReserveRequest, GetAvailabilityRequest, Line, PositionKey, ReserveRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::lab::{Call, Caller, Outcome};

/// Holds some lines.
#[derive(Clone)]
pub(crate) struct ReserveCall {
    request: ReserveRequest,
    channel: Channel,
    stub: ReservationServiceClient<Channel>,
}

impl ReserveCall {
    pub(super) fn new(channel: &Channel, lines: Vec<Line>, ttl: prost_types::Duration) -> Self {
        ReserveCall {
            request: reserve(lines, ttl),
            channel: channel.clone(),
            stub: ReservationServiceClient::new(channel.clone()),
        }
    }

    /// A call of the same size to the same node that does nothing.
    pub(super) fn echo(&self) -> EchoCall {
        EchoCall {
            request: EchoRequest {
                payload: vec![0x5a; self.request.encoded_len()].into(),
            },
            stub: EchoServiceClient::new(self.channel.clone()),
        }
    }
}

impl Caller for ReserveCall {
    fn last(&self) -> Call {
        Call::of_lines(self.request.lines.len() as u64)
    }

    async fn call(&mut self) -> Result<Outcome, String> {
        let mut request = self.request.clone();
        request.request_id = Uuid::now_v7().to_string();
        let answer = match self.stub.reserve(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::ResourceExhausted => return Ok(Outcome::Refused),
            Err(status) => return Err(format!("reserve: {status}")),
        };
        match answer.outcome {
            Some(Decision::Reservation(_)) => Ok(Outcome::Done),
            other => Err(format!("reserve: expected a reservation, got {other:?}")),
        }
    }
}

/// What a call costs that does nothing.
#[derive(Clone)]
pub(crate) struct EchoCall {
    request: EchoRequest,
    stub: EchoServiceClient<Channel>,
}

impl Caller for EchoCall {
    async fn call(&mut self) -> Result<Outcome, String> {
        let sent = self.request.payload.len();
        let answer = self.stub.echo(self.request.clone()).await;
        let payload = answer
            .map_err(|status| not_echoed(&status))?
            .into_inner()
            .payload;
        match payload.len() == sent {
            true => Ok(Outcome::Done),
            false => Err(format!(
                "echo: sent {sent} bytes, {} came back",
                payload.len()
            )),
        }
    }
}

fn not_echoed(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "the cluster does not serve stock.lab.v1, which others are \
            measured against: start its nodes with --serve-lab"
            .to_owned(),
        _ => format!("echo: {status}"),
    }
}

/// Reads one position as the node knows it that is asked.
#[derive(Clone)]
pub(crate) struct ReadCall {
    request: GetAvailabilityRequest,
    stub: AvailabilityServiceClient<Channel>,
}

impl ReadCall {
    pub(super) fn new(channel: &Channel, key: PositionKey) -> Self {
        ReadCall {
            request: GetAvailabilityRequest {
                keys: vec![key],
                read: None,
            },
            stub: AvailabilityServiceClient::new(channel.clone()),
        }
    }
}

impl Caller for ReadCall {
    async fn call(&mut self) -> Result<Outcome, String> {
        let answer = self.stub.get_availability(self.request.clone()).await;
        let answer = answer.map_err(|status| format!("read: {status}"))?;
        match &answer.into_inner().items[..] {
            [item] if item.known => Ok(Outcome::Done),
            other => Err(format!("read: expected one known position, got {other:?}")),
        }
    }
}

/// Many requests of one line each, in one call.
#[derive(Clone)]
pub(crate) struct BatchCall {
    requests: Vec<ReserveRequest>,
    stub: ReservationServiceClient<Channel>,
}

impl BatchCall {
    pub(super) fn new(channel: &Channel, lines: Vec<Line>, ttl: prost_types::Duration) -> Self {
        let one_line = |line| reserve(vec![line], ttl);
        BatchCall {
            requests: lines.into_iter().map(one_line).collect(),
            stub: ReservationServiceClient::new(channel.clone()),
        }
    }
}

impl Caller for BatchCall {
    fn last(&self) -> Call {
        Call::of_lines(self.requests.len() as u64)
    }

    async fn call(&mut self) -> Result<Outcome, String> {
        let mut requests = self.requests.clone();
        for request in &mut requests {
            request.request_id = Uuid::now_v7().to_string();
        }
        let answer = self.stub.batch_reserve(BatchReserveRequest { requests });
        let results = answer
            .await
            .map_err(|status| format!("batch: {status}"))?
            .into_inner()
            .results;
        if results.len() != self.requests.len() {
            return Err(format!("batch: {} results", results.len()));
        }
        let is_held = |result: &BatchResult| match result {
            BatchResult::Response(response) => {
                matches!(response.outcome, Some(Decision::Reservation(_)))
            }
            BatchResult::Error(_) => false,
        };
        let other = |result: &&_| match result {
            Some(result) => !is_held(result),
            None => true,
        };
        match results.iter().map(|result| &result.result).find(other) {
            None => Ok(Outcome::Done),
            Some(other) => Err(format!("batch: expected a reservation, got {other:?}")),
        }
    }
}

/// A request without its id.
pub(super) fn reserve(lines: Vec<Line>, ttl: prost_types::Duration) -> ReserveRequest {
    ReserveRequest {
        request_id: String::new(),
        lines,
        ttl: Some(ttl),
        ..ReserveRequest::default()
    }
}
