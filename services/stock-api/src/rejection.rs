//! Why a call is turned down for what is in it, before anything was changed.

use std::collections::HashMap;

use stock_core::Refusal;
use stock_proto::codec::ERROR_DOMAIN;
use stock_proto::stock::v1::ErrorReason as Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::refusal;

/// Why a call is turned down. Nothing was changed.
#[derive(Debug)]
pub enum Rejection {
    /// Fields hold what they must not.
    Invalid(Vec<FieldViolation>),
    /// A location was never put.
    UnknownLocation {
        /// The field that names it.
        field: String,
        /// Its id.
        location: String,
    },
    /// An answer would hold more than a message may.
    TooManyItems {
        /// How many there would be, at least.
        items: usize,
        /// How many there may be.
        items_max: usize,
    },
    /// The answers to the requests of a call could be larger than a client takes.
    AnswerTooLarge {
        /// What they could take.
        bytes: usize,
        /// What they may.
        bytes_max: usize,
    },
    /// The indexes that a read names are of an earlier life of the cluster.
    IncarnationOver,
    /// The shard refused.
    Refused(Refusal),
    /// The shard refused one request of a batch.
    RefusedInBatch {
        /// Which request, from 0.
        number: usize,
        /// Why.
        refusal: Refusal,
    },
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Invalid(violations) => invalid(violations),
            Rejection::UnknownLocation { field, location } => {
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
            Rejection::TooManyItems { items, items_max } => plain(
                Code::OutOfRange,
                Reason::TooManyItems,
                format!(
                    "the answer would hold {items} items or more; at most {items_max} fit: \
                     ask for fewer keys, or name locations"
                ),
            ),
            Rejection::AnswerTooLarge { bytes, bytes_max } => {
                let message = format!(
                    "the answers could take {bytes} bytes, and a client accepts {bytes_max}; \
                     nothing was done: send fewer requests in one call"
                );
                let mut details = ErrorDetails::with_bad_request_violation("requests", &message);
                details.set_error_info(Reason::AnswerTooLarge.text(), ERROR_DOMAIN, HashMap::new());
                let message = format!("requests: {message}");
                Self::with_error_details(Code::InvalidArgument, message, details)
            }
            Rejection::IncarnationOver => plain(
                Code::FailedPrecondition,
                Reason::IncarnationOver,
                "read.incarnation: is not this cluster's, or was that of its life before a \
                 recovery: what those indexes tell is no more; read without them"
                    .to_owned(),
            ),
            Rejection::Refused(refusal) => refusal::status("", &refusal),
            Rejection::RefusedInBatch { number, refusal } => {
                refusal::status(&format!("requests[{number}]."), &refusal)
            }
        }
    }
}

/// A status with a reason, and no field at fault.
pub fn plain(code: Code, reason: Reason, message: String) -> Status {
    let details = ErrorDetails::with_error_info(reason.text(), ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// An error as a message inside an answer.
pub fn embedded(error: impl Into<Status>) -> tonic_types::Status {
    let status = error.into();
    // The details of a status are a google.rpc.Status with all three fields.
    let details: Option<tonic_types::Status> = prost::Message::decode(status.details()).ok();
    tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: details.map(|status| status.details).unwrap_or_default(),
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
