//! What each refusal of the state machine is called over gRPC. Reasons and their meaning are in
//! `stock/v1/errors.proto`.

use std::collections::HashMap;
use std::time::Duration;

use stock_core::{Refusal, State};
use stock_proto::codec::ERROR_DOMAIN;
use stock_proto::stock::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What a refusal is called.
pub struct Refused {
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

/// Ids are forgotten in seconds, not milliseconds.
const RETRY_MEMORY_AFTER: Duration = Duration::from_secs(1);

/// Shards tell each other hundreds of reservations in a turn of their loops.
const RECONCILED_AFTER: Duration = Duration::from_secs(1);

/// A refusal as a call ends with it. `prefix` is where the request stands in the call, if it is one
/// of several.
pub fn status(prefix: &str, refusal: &Refusal) -> Status {
    let refused = describe(refusal);
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

/// The code, reason and words for a refusal.
pub fn describe(refusal: &Refusal) -> Refused {
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
        Refusal::TooLate => Refused {
            retry_after: Some(Duration::ZERO),
            ..refused(
                Code::Unavailable,
                Reason::BasketTooLate,
                "the call was so long on its way to one of the basket's shards that nothing was \
                 held; nothing was done: try again with the same request id",
            )
        },
        Refusal::Reconciling => Refused {
            retry_after: Some(RECONCILED_AFTER),
            ..refused(
                Code::Unavailable,
                Reason::Reconciling,
                "the SKU's shard was recovered with losses, and has yet to hear what other shards' \
                 reservations hold there; nothing was done: try again with the same request id",
            )
        },
        Refusal::NotHeldInTime => Refused {
            field: "request_id",
            ..refused(
                Code::Aborted,
                Reason::BasketNotHeld,
                "one of the basket's shards could not be asked in time, so that nothing is held, \
                 and nothing will be under this id: try again with a new one",
            )
        },
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
    use crate::Rejection;

    #[test]
    fn a_shard_that_remembers_all_it_may_says_what_it_takes_for_long() {
        let requests = (REQUEST_MEMORY_BYTES_MAX / REQUEST_BYTES) as u64;
        let per_second = requests * 1_000 / REQUEST_MEMORY_MS_MIN;
        assert_eq!((per_second + 500) / 1_000, 70);
        let status = Status::from(Rejection::Refused(Refusal::RequestMemoryFull));
        let message = status.message();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(message.contains("more shards"), "{message}");
        assert!(message.contains("70,000 new ids a second"), "{message}");
    }
}
