//! What the client tells programs that watch it: a span for each call and each attempt, and
//! metrics.

use tokio::time::Instant;
use tonic::Code;
use tracing::{Span, debug_span, field};

use crate::error::{Error, StatusError};
use crate::way::{Next, next};

/// Calls by method and outcome: `ok`, `timeout`, `cancelled`, or the gRPC code of a final refusal.
const CALLS: &str = "stockd_client_calls_total";
/// How long answered calls took, in seconds, by method.
const CALL_SECONDS: &str = "stockd_client_call_duration_seconds";
/// Attempts by outcome: `ok`, `refused`, `unavailable`, `overloaded`, `silent`, `lost`, `no_node`.
const ATTEMPTS: &str = "stockd_client_attempts_total";
/// How often a node was doubted, since a call had waited long.
const SUSPICIONS: &str = "stockd_client_suspicions_total";
/// How often a node that had calls was lost.
const LOSSES: &str = "stockd_client_nodes_lost_total";
/// Connections that were begun, whatever came of them.
const CONNECTS: &str = "stockd_client_connects_total";

/// A call under way.
pub(crate) struct CallSeen {
    method: &'static str,
    began: Instant,
    /// Its span: attempts are inside it.
    pub(crate) span: Span,
    is_over: bool,
}

impl CallSeen {
    /// It begins; `Q` is its request.
    pub(crate) fn begins<Q>() -> Self {
        let method = method::<Q>();
        Self {
            method,
            began: Instant::now(),
            span: debug_span!("call", method, outcome = field::Empty),
            is_over: false,
        }
    }

    /// It has ended.
    pub(crate) fn ends<A>(mut self, answer: &Result<A, Error>) {
        self.is_over = true;
        let outcome = match answer {
            Ok(_) => "ok",
            Err(Error::Timeout { .. }) => "timeout",
            Err(error) => text(error.code()),
        };
        self.note(outcome);
        if answer.is_ok() {
            let took = self.began.elapsed();
            metrics::histogram!(CALL_SECONDS, "method" => self.method).record(took);
        }
    }

    fn note(&self, outcome: &'static str) {
        self.span.record("outcome", outcome);
        metrics::counter!(CALLS, "method" => self.method, "outcome" => outcome).increment(1);
    }
}

impl Drop for CallSeen {
    fn drop(&mut self) {
        if !self.is_over {
            self.note("cancelled");
        }
    }
}

/// The span of an attempt; `node` is 0 for an endpoint that is no node's own.
pub(crate) fn attempt_span(endpoint: &str, node: u64) -> Span {
    debug_span!("attempt", endpoint, node, outcome = field::Empty)
}

/// An attempt was answered.
pub(crate) fn attempt_answered(span: &Span) {
    note_attempt(span, "ok");
}

/// An attempt has failed.
pub(crate) fn attempt_failed(span: &Span, failure: &StatusError) {
    let outcome = match next(failure) {
        Next::GiveUp => "refused",
        Next::Lost => "lost",
        Next::Silent => "silent",
        Next::NoNode => "no_node",
        Next::Unavailable => "unavailable",
        Next::Overloaded(_) => "overloaded",
    };
    note_attempt(span, outcome);
}

fn note_attempt(span: &Span, outcome: &'static str) {
    span.record("outcome", outcome);
    metrics::counter!(ATTEMPTS, "outcome" => outcome).increment(1);
}

/// A node is doubted.
pub(crate) fn node_doubted() {
    metrics::counter!(SUSPICIONS).increment(1);
}

/// A node is lost.
pub(crate) fn node_lost() {
    metrics::counter!(LOSSES).increment(1);
}

/// A connection is begun.
pub(crate) fn connects() {
    metrics::counter!(CONNECTS).increment(1);
}

/// The method whose request this is: each has a message of its own, which is named after it.
fn method<Q>() -> &'static str {
    // That of many messages is a stream of them.
    let path = std::any::type_name::<Q>().trim_end_matches('>');
    let name = path.rsplit("::").next().unwrap_or(path);
    name.strip_suffix("Request").unwrap_or(name)
}

fn text(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::{BatchReserveRequest, ReserveRequest};

    use super::*;

    #[test]
    fn a_call_is_named_after_its_request() {
        assert_eq!(method::<ReserveRequest>(), "Reserve");
        assert_eq!(method::<BatchReserveRequest>(), "BatchReserve");
    }
}
