//! The one place where a node's failures become gRPC; what is said of a call's content, and of what
//! its shard refuses, are stock-api's words. Reasons and their meaning are in
//! `stock/v1/errors.proto`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stock_api::rejection::{Rejection, plain};
use stock_api::{refusal, unavailable};
use stock_cluster::RegistryRefusal;
use stock_core::Refusal;
use stock_node::answer::Failure;
use stock_proto::codec::{ERROR_DOMAIN, too_large};
use stock_proto::stock::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::listeners::Fault;

/// Why a call fails. In every case but [`Failure::OutcomeUnknown`] and `DeadlineExceeded` nothing
/// was changed.
#[derive(Debug)]
pub enum ApiError {
    /// What is in the call is not right, or its shard says no.
    Rejected(Rejection),
    /// A message inside a message cannot be read; the codec's words.
    Unreadable(Status),
    /// The caller's deadline leaves no time for a durable answer.
    DeadlineTooShort,
    /// The caller's deadline came before the answer. What was asked may or may not be done.
    DeadlineExceeded,
    /// The registry of nodes and replicas refused.
    Registry(RegistryRefusal),
    /// The caller wants another cluster than this node's.
    WrongCluster {
        /// This node's.
        own: Arc<str>,
    },
    /// The node is about to stop: what is under way is answered, and nothing more is taken.
    Stopping,
    /// The node that was asked in this one's place says no; its words.
    Elsewhere(Status),
    /// The messages of a call do not come on; the transport's words.
    Stream(Status),
    /// No answer could be had.
    Failed(Failure),
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Rejected(Rejection::Refused(refusal))
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Rejected(rejection) => rejection.into(),
            ApiError::WrongCluster { own } => plain(
                Code::FailedPrecondition,
                Reason::WrongCluster,
                format!(
                    "this is a node of the cluster {own}, and not of the one that the header \
                     `stockd-cluster` names; nothing was done"
                ),
            ),
            ApiError::DeadlineTooShort => plain(
                Code::DeadlineExceeded,
                Reason::DeadlineTooShort,
                "the deadline leaves no time for a durable answer; nothing was done: \
                 allow 100 ms or more"
                    .to_owned(),
            ),
            ApiError::DeadlineExceeded => plain(
                Code::DeadlineExceeded,
                Reason::DeadlineExceeded,
                "the deadline came before the answer; what was asked may or may not be done: \
                 repeat it with the same request id"
                    .to_owned(),
            ),
            ApiError::Registry(RegistryRefusal::Request(refusal)) => refusal::status("", &refusal),
            ApiError::Registry(refusal) => registry(&refusal),
            ApiError::Stopping => {
                let mut details = ErrorDetails::with_error_info(
                    Reason::Stopping.text(),
                    ERROR_DOMAIN,
                    HashMap::new(),
                );
                details.set_retry_info(Some(unavailable::RETRY_LEADERLESS_AFTER));
                let message = "this node stops; requests without an answer were not carried out: \
                    go on \
                               with another node";
                Self::with_error_details(Code::Unavailable, message, details)
            }
            ApiError::Elsewhere(status)
            | ApiError::Stream(status)
            | ApiError::Unreadable(status) => status,
            ApiError::Failed(failure) => failed(failure),
        }
    }
}

/// The trailer by which a node tells gRPC's own retries when they may come: gRFC A6, server
/// pushback.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Has plain clients come back when there is room again, and not sooner. An election has no such
/// time: there a client's own back-off is the better guess, since after a pushback it has none.
pub(super) fn push_back(status: &mut Status) {
    if status.code() != Code::ResourceExhausted {
        return;
    }
    let delay = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
        let delay_ms = delay.as_millis() as u64;
        status.metadata_mut().insert(PUSHBACK, delay_ms.into());
    }
}

/// What the registry's refusals are called. The field is the one of the call at fault, if one is.
fn registry(refusal: &RegistryRefusal) -> Status {
    use RegistryRefusal as R;
    let (code, reason, field) = match refusal {
        R::Request(_) => (Code::Internal, Reason::Internal, "request_id"),
        R::NotFounded => (Code::Unavailable, Reason::NotFounded, ""),
        R::AlreadyFounded => (Code::Internal, Reason::Internal, ""),
        R::BadFounding { .. } => (Code::Internal, Reason::Internal, ""),
        R::BadNodeId { .. } => (Code::InvalidArgument, Reason::FieldInvalid, "node_id"),
        R::BadAddress => (Code::InvalidArgument, Reason::FieldInvalid, "endpoint"),
        R::BadReplication { .. } => (Code::InvalidArgument, Reason::FieldInvalid, "replicas"),
        R::UnknownNode { .. } => (Code::NotFound, Reason::UnknownNode, "node_id"),
        R::NodeRemoved { .. } => (Code::FailedPrecondition, Reason::NodeRemoved, "node_id"),
        R::NodeKnown { .. } => (Code::AlreadyExists, Reason::NodeKnown, "node_id"),
        R::NowhereAddress { .. } => (Code::InvalidArgument, Reason::FieldInvalid, ""),
        R::NodeHeard { .. } => (Code::Aborted, Reason::NodeHeard, "node_id"),
        R::AnotherDirectory { .. } => (Code::FailedPrecondition, Reason::AnotherDirectory, ""),
        R::JoinOvertaken { .. } => (Code::Aborted, Reason::JoinOvertaken, "directory"),
        R::DirectoryTaken { .. } => (Code::AlreadyExists, Reason::DirectoryTaken, "directory"),
        R::AddressTaken { .. } => (Code::AlreadyExists, Reason::AddressTaken, ""),
        R::TooManyNodes => (Code::ResourceExhausted, Reason::TooManyNodes, ""),
        R::GenerationsUsedUp => (Code::ResourceExhausted, Reason::GenerationsUsedUp, ""),
        R::TooFewNodes { .. } => (Code::FailedPrecondition, Reason::TooFewNodes, ""),
        R::NotDraining { .. } => (Code::FailedPrecondition, Reason::NodeNotDraining, ""),
        R::HoldsReplicas { .. } => (Code::FailedPrecondition, Reason::NodeHoldsReplicas, ""),
        R::NotActive { .. } => (Code::FailedPrecondition, Reason::NodeNotActive, ""),
        R::NotNextVersion { .. } => (Code::FailedPrecondition, Reason::VersionNotNext, "version"),
        R::NodeTooOld { .. } => (Code::FailedPrecondition, Reason::NodeTooOld, ""),
        R::UnknownGroup { .. } => (Code::NotFound, Reason::UnknownShard, "shard"),
        R::NoReplicaThere { .. } => (Code::FailedPrecondition, Reason::NoReplicaThere, ""),
        R::ReplicaThere { .. } => (Code::FailedPrecondition, Reason::ReplicaThere, ""),
        R::UnknownReplica { .. } => (Code::Internal, Reason::Internal, ""),
        R::MoveUnderWay { .. } => (Code::FailedPrecondition, Reason::MoveUnderWay, ""),
        R::TooManyMoves => (Code::FailedPrecondition, Reason::TooManyMoves, ""),
        R::UnknownMove { .. } => (Code::Internal, Reason::Internal, ""),
        R::BadMove { .. } => (Code::Internal, Reason::Internal, ""),
        R::BadVoters { .. } => (Code::Internal, Reason::Internal, ""),
    };
    let message = refusal.to_string();
    let mut details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, HashMap::new());
    if !field.is_empty() {
        details.add_bad_request_violation(field, &message);
    }
    if code == Code::Unavailable {
        details.set_retry_info(Some(unavailable::RETRY_LEADERLESS_AFTER));
    }
    Status::with_error_details(code, message, details)
}

/// A caller holds more than he may for a second at most: what he does not take, or does not end, is
/// ended.
const RETRY_NO_ROOM_AFTER: Duration = Duration::from_secs(1);

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let (code, reason, message) = match fault {
            Fault::MessageTooLarge { bytes } => return too_large(bytes),
            Fault::SeveralMessages => (
                Code::InvalidArgument,
                Reason::SeveralMessages,
                "the call takes one message, and more has come; nothing was done",
            ),
            Fault::SenderSilent => (
                Code::DeadlineExceeded,
                Reason::RequestTooSlow,
                "the request did not come to its end, or too little of it came for ten seconds; \
                 nothing was done",
            ),
            Fault::LateRequest => (
                Code::DeadlineExceeded,
                Reason::DeadlineExceeded,
                "the deadline came before the whole request; nothing was done",
            ),
            Fault::Late => return ApiError::DeadlineExceeded.into(),
            Fault::NoRoom => (
                Code::ResourceExhausted,
                Reason::CallsFull,
                "the calls under way on this connection, or on all, hold as much memory as they \
                 may; nothing more was done: take the answers that wait, and try again later",
            ),
            Fault::NoRoomForAnswer | Fault::ReaderSilent => (
                Code::ResourceExhausted,
                Reason::AnswersFull,
                "there is no room for the answer beside those that wait to be taken; what was \
                 asked may be done: take the others, and repeat it with the same request id or \
                 document",
            ),
        };
        let mut details =
            ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, HashMap::new());
        if code == Code::ResourceExhausted {
            details.set_retry_info(Some(RETRY_NO_ROOM_AFTER));
        }
        let mut status = Self::with_error_details(code, message, details);
        push_back(&mut status);
        status
    }
}

fn failed(failure: Failure) -> Status {
    match failure {
        Failure::NotLeader { leader } => unavailable::no_leader(leader),
        Failure::Overloaded => unavailable::overloaded(),
        Failure::DiskFull => unavailable::disk_full(),
        Failure::MemoryFull => unavailable::memory_full(),
        Failure::OutcomeUnknown => unavailable::outcome_unknown(),
        Failure::TooFarBehind => unavailable::too_far_behind(),
    }
}
