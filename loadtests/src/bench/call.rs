//! The two calls that are compared.

use std::sync::Mutex;
use std::time::Instant;

use hdrhistogram::Histogram;
use prost::Message;
use serde::Serialize;
use stock_proto::stock::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_response::Outcome;
use stock_proto::stock::v1::{EchoRequest, Line, ReserveRequest};
use tonic::transport::Channel;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallKind {
    Echo,
    Reserve,
}

impl std::fmt::Display for CallKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            CallKind::Echo => "echo",
            CallKind::Reserve => "reserve",
        })
    }
}

/// A SKU, and the generated stubs over the connection to the node that leads its shard. Stubs and not
/// the Rust client, so that both kinds of call cost the same on this side of the wire.
#[derive(Clone)]
pub(crate) struct Target {
    reserve: ReserveRequest,
    echo: EchoRequest,
    reservations: ReservationServiceClient<Channel>,
    cluster: ClusterServiceClient<Channel>,
}

impl Target {
    pub(crate) fn new(channel: &Channel, line: Line, ttl: prost_types::Duration) -> Target {
        let reserve = ReserveRequest {
            request_id: Uuid::now_v7().to_string(),
            lines: vec![line],
            ttl: Some(ttl),
        };
        Target {
            echo: EchoRequest {
                payload: vec![0x5a; reserve.encoded_len()].into(),
            },
            reserve,
            reservations: ReservationServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel.clone()),
        }
    }

    /// One call; an answer that is not the expected one is an error.
    pub(crate) async fn call(&mut self, kind: CallKind) -> Result<(), String> {
        match kind {
            CallKind::Echo => {
                let sent = self.echo.payload.len();
                let answer = self.cluster.echo(self.echo.clone()).await;
                let payload = answer
                    .map_err(|status| format!("echo: {status}"))?
                    .into_inner()
                    .payload;
                match payload.len() == sent {
                    true => Ok(()),
                    false => Err(format!(
                        "echo: sent {sent} bytes, {} came back",
                        payload.len()
                    )),
                }
            }
            CallKind::Reserve => {
                let mut request = self.reserve.clone();
                request.request_id = Uuid::now_v7().to_string();
                let answer = self.reservations.reserve(request).await;
                match answer
                    .map_err(|status| format!("reserve: {status}"))?
                    .into_inner()
                    .outcome
                {
                    Some(Outcome::Reservation(_)) => Ok(()),
                    other => Err(format!("reserve: expected a reservation, got {other:?}")),
                }
            }
        }
    }
}

/// What the calls of one window came to. Shared by its tasks; all of them run on one thread and none
/// holds the lock across a call, so it is never waited for.
pub(crate) struct Recorder {
    from: Instant,
    until: Instant,
    results: Mutex<Results>,
}

pub(crate) struct Results {
    pub(crate) took_ns: Histogram<u64>,
    /// Open loop: how late calls were sent, which the times include.
    pub(crate) late_ns: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Recorder {
    pub(crate) fn new(from: Instant, until: Instant) -> Recorder {
        let results = Results {
            took_ns: super::histogram(),
            late_ns: super::histogram(),
            errors: 0,
            first_error: None,
        };
        Recorder {
            from,
            until,
            results: Mutex::new(results),
        }
    }

    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// A closed loop's call counts when it is answered inside the window.
    pub(crate) fn answered(&self, started: Instant) {
        let now = Instant::now();
        if (self.from..self.until).contains(&now) {
            self.with(|results| results.took_ns.saturating_record(nanos(started, now)));
        }
    }

    /// An open loop's call counts when it is due inside the window, however late the answer: a stall
    /// that outlasts the window must not hide the calls it delayed.
    pub(crate) fn answered_due(&self, due: Instant, sent: Instant) {
        let now = Instant::now();
        if (self.from..self.until).contains(&due) {
            self.with(|results| {
                results.took_ns.saturating_record(nanos(due, now));
                results.late_ns.saturating_record(nanos(due, sent));
            });
        }
    }

    pub(crate) fn failed(&self, error: String) {
        self.with(|results| {
            results.errors += 1;
            results.first_error.get_or_insert(error);
        });
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Results) -> T) -> T {
        // A panic in another task ends the window anyway; what was counted until then is still right.
        change(
            &mut self
                .results
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}

fn nanos(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_nanos() as u64
}
