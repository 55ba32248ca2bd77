//! The one place where refusals become gRPC. Reasons and their meaning are in
//! `stock/v1/errors.proto`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stock_cluster::RegistryRefusal;
use stock_core::{Refusal, State};
use stock_node::answer::Failure;
use stock_proto::codec::{ERROR_DOMAIN, too_large};
use stock_proto::stock::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::listeners::Fault;

/// Why a call fails. In every case but [`Failure::OutcomeUnknown`] and `DeadlineExceeded` nothing
/// was changed.
#[derive(Debug)]
pub enum ApiError {
    /// Fields hold what they must not.
    Invalid(Vec<FieldViolation>),
    /// A message inside a message cannot be read; the codec's words.
    Unreadable(Status),
    /// A location was never put.
    UnknownLocation {
        /// The field that names it.
        field: String,
        /// Its id.
        location: String,
    },
    /// A basket's lines live in several shards.
    SeveralShards,
    /// An answer would hold more than a message may.
    TooManyItems {
        /// How many there would be, at least.
        items: usize,
        /// How many there may be.
        items_max: usize,
    },
    /// The answers to the requests of a call could be larger than a client takes. Nothing was done.
    AnswerTooLarge {
        /// What they could take.
        bytes: usize,
        /// What they may.
        bytes_max: usize,
    },
    /// The caller's deadline leaves no time for a durable answer.
    DeadlineTooShort,
    /// The caller's deadline came before the answer. What was asked may or may not be done.
    DeadlineExceeded,
    /// The shard refused.
    Refused(Refusal),
    /// The shard refused one request of a batch.
    RefusedInBatch {
        /// Which request, from 0.
        number: usize,
        /// Why.
        refusal: Refusal,
    },
    /// The registry of nodes and replicas refused.
    Registry(RegistryRefusal),
    /// The caller wants another cluster than this node's.
    WrongCluster {
        /// This node's.
        own: Arc<str>,
    },
    /// The indexes that a read names are of an earlier life of the cluster.
    IncarnationOver,
    /// The node is about to stop: what is under way is answered, and nothing more is taken.
    Stopping,
    /// The node that was asked in this one's place says no; its words.
    Elsewhere(Status),
    /// The messages of a call do not come on; the transport's words.
    Stream(Status),
    /// No answer could be had.
    Failed(Failure),
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What a refusal is called.
pub(super) struct Refused {
    /// The gRPC code.
    pub code: Code,
    /// For programs.
    pub reason: Reason,
    /// The field at fault inside the line, or of the call; empty if none is.
    pub field: &'static str,
    /// Which line of the call is at fault, if one is.
    pub line: Option<u32>,
    /// For people.
    pub message: String,
    /// When to try again, if that may help.
    retry_after: Option<Duration>,
}

/// In the metadata of `NO_LEADER`: the node that leads as far as this one knows, which it does not
/// reach.
const LEADER: &str = "leader_node_id";

/// An overloaded group has worked off what waits well within this.
const RETRY_DISK_FULL_AFTER: Duration = Duration::from_secs(5);
const RETRY_OVERLOADED_AFTER: Duration = Duration::from_millis(50);
/// About the time an election takes at best.
const RETRY_LEADERLESS_AFTER: Duration = Duration::from_millis(100);
/// Ids are forgotten in seconds, not milliseconds.
const RETRY_MEMORY_AFTER: Duration = Duration::from_secs(1);

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Invalid(violations) => invalid(violations),
            ApiError::UnknownLocation { field, location } => {
                let why = format!("there is no location {location}; put it first");
                let message = format!("{field}: {why}");
                let mut details = ErrorDetails::with_bad_request_violation(&field, &why);
                details.set_error_info(
                    Reason::UnknownLocation.text(),
                    ERROR_DOMAIN,
                    HashMap::new(),
                );
                Self::with_error_details(Code::NotFound, message, details)
            }
            ApiError::SeveralShards => plain(
                Code::Unimplemented,
                Reason::BasketOverSeveralShards,
                "the lines live in several shards; a basket over several shards cannot be held \
                 yet: reserve the lines of each shard by themselves"
                    .to_owned(),
            ),
            ApiError::TooManyItems { items, items_max } => plain(
                Code::OutOfRange,
                Reason::TooManyItems,
                format!(
                    "the answer would hold {items} items or more; at most {items_max} fit: \
                     ask for fewer keys, or name locations"
                ),
            ),
            ApiError::AnswerTooLarge { bytes, bytes_max } => {
                let message = format!(
                    "the answers could take {bytes} bytes, and a client accepts {bytes_max}; \
                     nothing was done: send fewer requests in one call"
                );
                let mut details = ErrorDetails::with_bad_request_violation("requests", &message);
                details.set_error_info(Reason::AnswerTooLarge.text(), ERROR_DOMAIN, HashMap::new());
                let message = format!("requests: {message}");
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
            ApiError::IncarnationOver => plain(
                Code::FailedPrecondition,
                Reason::IncarnationOver,
                "read.incarnation: is not this cluster's, or was that of its life before a \
                 recovery: what those indexes tell is no more; read without them"
                    .to_owned(),
            ),
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
            ApiError::Refused(refusal) => status("", describe(&refusal), &refusal),
            ApiError::RefusedInBatch { number, refusal } => status(
                &format!("requests[{number}]."),
                describe(&refusal),
                &refusal,
            ),
            ApiError::Registry(RegistryRefusal::Request(refusal)) => {
                status("", describe(&refusal), &refusal)
            }
            ApiError::Registry(refusal) => registry(&refusal),
            ApiError::Stopping => {
                let mut details = ErrorDetails::with_error_info(
                    Reason::Stopping.text(),
                    ERROR_DOMAIN,
                    HashMap::new(),
                );
                details.set_retry_info(Some(RETRY_LEADERLESS_AFTER));
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
        details.set_retry_info(Some(RETRY_LEADERLESS_AFTER));
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

fn invalid(violations: Vec<FieldViolation>) -> Status {
    let first = violations.first();
    let more = violations.len().saturating_sub(1);
    let mut message = first.map_or_else(String::new, |v| format!("{} {}", v.field, v.description));
    if more > 0 {
        message.push_str(&format!(" (and {more} more)"));
    }
    let mut details = ErrorDetails::with_bad_request(violations);
    details.set_error_info(Reason::FieldInvalid.text(), ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn plain(code: Code, reason: Reason, message: String) -> Status {
    let details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// `prefix` is where the request stands in the call, if it is one of several.
fn status(prefix: &str, refused: Refused, refusal: &Refusal) -> Status {
    let mut metadata = HashMap::new();
    if let Refusal::WrongState { state } = refusal {
        metadata.insert("state".to_owned(), state_name(*state).to_owned());
    }
    let mut details = ErrorDetails::with_error_info(refused.reason.text(), ERROR_DOMAIN, metadata);
    let field = match (refused.line, refused.field) {
        (None, "") => String::new(),
        (None, field) => format!("{prefix}{field}"),
        (Some(line), "") => format!("{prefix}lines[{line}]"),
        (Some(line), field) => format!("{prefix}lines[{line}].{field}"),
    };
    if !field.is_empty() {
        details.add_bad_request_violation(&field, &refused.message);
    }
    if refused.retry_after.is_some() {
        details.set_retry_info(refused.retry_after);
    }
    let message = match field.as_str() {
        "" => refused.message,
        field => format!("{field}: {}", refused.message),
    };
    Status::with_error_details(refused.code, message, details)
}

fn failed(failure: Failure) -> Status {
    let mut metadata = HashMap::new();
    if let Failure::NotLeader {
        leader: Some(leader),
    } = failure
    {
        metadata.insert(LEADER.to_owned(), leader.to_string());
    }
    let (code, reason, message, retry_after) = match failure {
        Failure::NotLeader { .. } => (
            Code::Unavailable,
            Reason::NoLeader,
            "the shard has no leader at the moment; nothing was done: try again",
            RETRY_LEADERLESS_AFTER,
        ),
        Failure::Overloaded => (
            Code::ResourceExhausted,
            Reason::Overloaded,
            "too much is waiting for this shard; nothing was done: try again later",
            RETRY_OVERLOADED_AFTER,
        ),
        Failure::DiskFull => (
            Code::ResourceExhausted,
            Reason::DiskFull,
            "the disk of the shard's leader is nearly full: new holds and receipts are refused \
             until there is room; what keeps or ends holds, sales, adjustments and policies are \
             still taken; nothing was done",
            RETRY_DISK_FULL_AFTER,
        ),
        Failure::MemoryFull => (
            Code::ResourceExhausted,
            Reason::MemoryFull,
            "the memory of the shard's leader is nearly used up: new holds and receipts are \
             refused until there is room; what keeps or ends holds, sales, adjustments and \
             policies are still taken; nothing was done",
            RETRY_DISK_FULL_AFTER,
        ),
        Failure::OutcomeUnknown => (
            Code::Unavailable,
            Reason::OutcomeUnknown,
            "leadership changed, or the leader did not answer in time, while the call was on its \
             way; it may or may not have been done: repeat it with the same request id or document",
            RETRY_LEADERLESS_AFTER,
        ),
        Failure::TooFarBehind => (
            Code::Unavailable,
            Reason::TooFarBehind,
            "this node did not reach a state new enough in time: try again, or another node",
            RETRY_LEADERLESS_AFTER,
        ),
    };
    let mut details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, metadata);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(code, message, details)
}

/// The code, reason and words for a refusal.
pub(super) fn describe(refusal: &Refusal) -> Refused {
    let refused = |code, reason: Reason, message: &str| Refused {
        code,
        reason,
        field: "",
        line: None,
        message: message.to_owned(),
        retry_after: None,
    };
    let of_line = |line, field, refused: Refused| Refused {
        line: Some(line),
        field,
        ..refused
    };
    match *refusal {
        Refusal::RequestTooOld { .. } => Refused {
            field: "request_id",
            ..refused(
                Code::FailedPrecondition,
                Reason::RequestTooOld,
                "was made longer ago than request ids are remembered; it was not carried out now: \
                 look up what became of it, and use a new id",
            )
        },
        Refusal::RequestFromFuture => Refused {
            field: "request_id",
            ..refused(
                Code::InvalidArgument,
                Reason::RequestFromFuture,
                "carries a time more than a minute ahead of the cluster's: correct the clock of \
                 the machine that made it",
            )
        },
        Refusal::RequestReused => Refused {
            field: "request_id",
            ..refused(
                Code::AlreadyExists,
                Reason::RequestReused,
                "was used before, for another kind of call or with other content: use a new id",
            )
        },
        Refusal::RequestMemoryFull => Refused {
            retry_after: Some(RETRY_MEMORY_AFTER),
            ..refused(
                Code::ResourceExhausted,
                Reason::RequestMemoryFull,
                "the shard remembers as many request ids as it may: try again later; where that \
                 lasts, more shards are needed, each of which takes 70,000 new ids a second for \
                 long",
            )
        },
        Refusal::DocumentTooOld { .. } => Refused {
            field: "occurred_at",
            ..refused(
                Code::FailedPrecondition,
                Reason::DocumentTooOld,
                "is longer ago than documents are remembered, 30 days, so the line may have been \
                 recorded",
            )
        },
        Refusal::DocumentMemoryFull => Refused {
            retry_after: Some(RETRY_MEMORY_AFTER),
            ..refused(
                Code::ResourceExhausted,
                Reason::DocumentMemoryFull,
                "the shard remembers as many document lines as it may: keep the line and send it \
                 again later; where that lasts, more shards are needed",
            )
        },
        Refusal::DocumentReused => Refused {
            field: "line",
            ..refused(
                Code::AlreadyExists,
                Reason::DocumentReused,
                "was recorded before with another quantity, time or reason",
            )
        },
        Refusal::OccurredInFuture => Refused {
            field: "occurred_at",
            ..refused(
                Code::InvalidArgument,
                Reason::OccurredInFuture,
                "is more than a day ahead of the cluster's time: correct the clock that it was \
                 taken from",
            )
        },
        Refusal::UnknownSku { line } => of_line(
            line,
            "sku",
            refused(
                Code::NotFound,
                Reason::UnknownSku,
                "no receipt and no policy has ever named this SKU",
            ),
        ),
        Refusal::UnknownReservation => Refused {
            field: "reservation_id",
            ..refused(
                Code::NotFound,
                Reason::UnknownReservation,
                "there is no such reservation, or it ended too long ago",
            )
        },
        Refusal::WrongState { state } => Refused {
            message: format!(
                "the reservation is {}, which does not allow this",
                state_name(state)
            ),
            ..refused(Code::FailedPrecondition, Reason::WrongState, "")
        },
        Refusal::NothingToExtend => refused(
            Code::FailedPrecondition,
            Reason::NothingToExtend,
            "the reservation is confirmed without a pickup deadline: it does not expire",
        ),
        Refusal::LineNotInReservation { line } => of_line(
            line,
            "sku",
            refused(
                Code::NotFound,
                Reason::LineNotInReservation,
                "the reservation has no line of this SKU there",
            ),
        ),
        Refusal::LineAmbiguous { line } => of_line(
            line,
            "location",
            refused(
                Code::InvalidArgument,
                Reason::LineAmbiguous,
                "the reservation has this SKU at several locations: name one",
            ),
        ),
        Refusal::LineExceedsOpen { line, open } => Refused {
            message: format!("is more than what is open, {open}"),
            ..of_line(
                line,
                "quantity",
                refused(Code::FailedPrecondition, Reason::LineExceedsOpen, ""),
            )
        },
        Refusal::CounterOutOfRange { line } => of_line(
            line,
            "quantity",
            refused(
                Code::OutOfRange,
                Reason::CounterOutOfRange,
                "on hand would leave the range of +/- 10^15 units",
            ),
        ),
        Refusal::TooManyReservations => refused(
            Code::ResourceExhausted,
            Reason::TooManyReservations,
            "the shard has as many open reservations as it may",
        ),
        Refusal::TooManyPositions => refused(
            Code::ResourceExhausted,
            Reason::TooManyPositions,
            "the shard has as many positions as it may",
        ),
        Refusal::TooManyLocations => refused(
            Code::ResourceExhausted,
            Reason::TooManyLocations,
            "the cluster has as many locations as it may",
        ),
        Refusal::ReservationIdTaken => Refused {
            retry_after: Some(Duration::ZERO),
            ..refused(
                Code::Unavailable,
                Reason::ReservationIdTaken,
                "the id drawn for the reservation is taken: try again with the same request id",
            )
        },
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Held => "HELD",
        State::Confirmed => "CONFIRMED",
        State::Fulfilled => "FULFILLED",
        State::Released => "RELEASED",
        State::Expired => "EXPIRED",
    }
}

#[cfg(test)]
mod tests {
    use stock_core::limits::{REQUEST_BYTES, REQUEST_MEMORY_BYTES_MAX, REQUEST_MEMORY_MS_MIN};

    use super::*;

    #[test]
    fn a_shard_that_remembers_all_it_may_says_what_it_takes_for_long() {
        let requests = (REQUEST_MEMORY_BYTES_MAX / REQUEST_BYTES) as u64;
        let per_second = requests * 1_000 / REQUEST_MEMORY_MS_MIN;
        assert_eq!((per_second + 500) / 1_000, 70);
        let status = Status::from(ApiError::Refused(Refusal::RequestMemoryFull));
        let message = status.message();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(message.contains("more shards"), "{message}");
        assert!(message.contains("70,000 new ids a second"), "{message}");
    }
}
