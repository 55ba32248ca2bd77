//! Why there is no answer: in sentences for people, in one object for programs.

use prost_types::Timestamp;
use serde_json::json;
use stock_client::{Error, FieldViolation};
use tonic::Code;

use crate::advice;
use crate::exit_code::{FAILED, INVALID};
use crate::notation::moment;
use crate::port::Found;
use crate::repeat::Repeat;

#[derive(Debug)]
pub(crate) enum Failure {
    /// The cluster gave no answer, or refused.
    Call {
        error: Error,
        /// For a mutation: how to ask for the same thing again without doing it twice.
        repeat: Option<Repeat>,
    },
    /// No node answers, and this is what is at each of the addresses.
    Unanswered {
        error: Error,
        found: Vec<(String, Found)>,
    },
    /// The command line cannot be meant as it stands.
    Usage(String),
    /// It was asked for, and is not done yet.
    Unfinished(String),
    /// Somebody pressed Ctrl-C.
    Interrupted(Option<Repeat>),
    /// It was done, and what is to be said of it could not be written.
    Unwritten {
        /// Why not.
        error: std::io::Error,
        /// What is to be said.
        answer: String,
    },
    /// This process could not do its own part.
    Local(anyhow::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call {
            error,
            repeat: None,
        }
    }
}

/// The same request may be made again under this id.
pub(crate) fn by_request(request_id: String) -> impl FnOnce(Error) -> Failure {
    |error| Failure::Call {
        error,
        repeat: Some(Repeat::RequestId(request_id)),
    }
}

/// The same document may be sent again under this name.
pub(crate) fn by_document(document: &str, occurred_at: Timestamp) -> impl FnOnce(Error) -> Failure {
    let name = document.to_owned();
    let occurred_at = moment(occurred_at);
    |error| Failure::Call {
        error,
        repeat: Some(Repeat::Document { name, occurred_at }),
    }
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Call { error, .. } if error.code() == Code::InvalidArgument => INVALID,
            Self::Usage(_) => INVALID,
            Self::Call { .. }
            | Self::Unanswered { .. }
            | Self::Unfinished(_)
            | Self::Interrupted(_)
            | Self::Unwritten { .. }
            | Self::Local(_) => FAILED,
        }
    }

    /// What went wrong, and what to do about it.
    pub(crate) fn sentences(&self) -> String {
        match self {
            Self::Call { error, repeat } => {
                let mut text = format!("error: {}", sentence(&error.to_string()));
                if let Some(advice) = advice::for_call(error, repeat.as_ref()) {
                    text.push('\n');
                    text.push_str(&advice);
                }
                text
            }
            Self::Unanswered { error, found } => {
                let words = unanswered(error, found).join("\n");
                format!("error: {words}\n{}", advice::for_unanswered(found))
            }
            Self::Usage(message) | Self::Unfinished(message) => {
                format!("error: {}", sentence(message))
            }
            Self::Interrupted(Some(repeat)) => {
                format!("interrupted. {}", advice::repeat(repeat))
            }
            Self::Interrupted(None) => "interrupted".to_owned(),
            Self::Unwritten { error, answer } => {
                format!("error: this was done, and could not be written ({error}):\n{answer}")
            }
            Self::Local(error) => format!("error: {}", sentence(&format!("{error:#}"))),
        }
    }

    /// One line.
    pub(crate) fn json(&self) -> String {
        let (code, reason, message, fields) = match self {
            Self::Call { error, repeat } => {
                let status = error.status();
                let own_message = status.filter(|_| matches!(error, Error::Status(_)));
                let mut message =
                    own_message.map_or_else(|| error.to_string(), |status| status.message.clone());
                if let (Error::Timeout { .. }, Some(repeat)) = (error, repeat) {
                    message = format!("{message}. {}", advice::repeat(repeat));
                }
                let fields = status.map_or(&[][..], |status| &status.field_violations);
                (code_name(error.code()), reason(error), message, fields)
            }
            Self::Unanswered { error, found } => (
                code_name(error.code()),
                reason(error),
                unanswered(error, found).join(" "),
                &[][..],
            ),
            Self::Usage(message) => (
                code_name(Code::InvalidArgument),
                "USAGE",
                first_paragraph(message),
                &[][..],
            ),
            Self::Unfinished(message) => (
                code_name(Code::DeadlineExceeded),
                "UNFINISHED",
                message.clone(),
                &[][..],
            ),
            Self::Interrupted(repeat) => (
                code_name(Code::Cancelled),
                "INTERRUPTED",
                repeat.as_ref().map_or_else(String::new, advice::repeat),
                &[][..],
            ),
            Self::Unwritten { error, answer } => (
                code_name(Code::Internal),
                "UNWRITTEN",
                format!("this was done, and could not be written ({error}): {answer}"),
                &[][..],
            ),
            Self::Local(error) => (
                code_name(Code::Internal),
                "LOCAL",
                format!("{error:#}"),
                &[][..],
            ),
        };
        let field = |violation: &FieldViolation| {
            json!({
                "field": violation.field,
                "description": violation.description,
            })
        };
        json!({
            "error": {
                "code": code,
                "reason": reason,
                "message": message,
                "fields": fields.iter().map(field).collect::<Vec<_>>(),
            }
        })
        .to_string()
    }
}

/// The node's reason, or ours where no node gave one.
fn reason(error: &Error) -> &str {
    match error {
        Error::Timeout { .. } => "TIMEOUT",
        Error::Unreachable { .. } => "UNREACHABLE",
        Error::InvalidEndpoint { .. } => "INVALID_ENDPOINT",
        Error::Malformed { .. } => "MALFORMED_ANSWER",
        _ => error.reason_text(),
    }
}

/// A sentence for each address.
fn unanswered(error: &Error, found: &[(String, Found)]) -> Vec<String> {
    let last = error.status();
    let found = found.iter();
    let of_each = found.map(|(endpoint, found)| format!("{endpoint} {}.", found.words(last)));
    ["No node answers.".to_owned()]
        .into_iter()
        .chain(of_each)
        .collect()
}

/// Ends with a full stop, as sentences do.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    let ended = text.ends_with(['.', '!', '?']);
    format!("{text}{}", if ended { "" } else { "." })
}

/// Without the hints for people that follow it.
fn first_paragraph(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// As the gRPC specification spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use stock_client::StatusError;

    use super::*;

    fn refused(code: Code, reason: &str) -> StatusError {
        StatusError {
            code,
            reason: reason.into(),
            metadata: HashMap::new(),
            message: "the request is invalid".into(),
            field_violations: vec![FieldViolation {
                field: "lines[0].quantity".into(),
                description: "must be at least 1".into(),
            }],
            retry_delay: None,
            transport: false,
            is_silence: false,
            may_be_done: false,
            is_of_stockd: true,
            request_ids: Vec::new(),
        }
    }

    #[test]
    fn invalid_input_names_the_field() {
        let failure = Failure::from(Error::from(refused(
            Code::InvalidArgument,
            "QUANTITY_INVALID",
        )));
        assert_eq!(failure.exit_code(), INVALID);
        let sentences = failure.sentences();
        assert!(
            sentences.contains("lines[0].quantity: must be at least 1."),
            "{sentences}"
        );
        assert_eq!(
            failure.json(),
            concat!(
                r#"{"error":{"code":"INVALID_ARGUMENT","reason":"QUANTITY_INVALID","#,
                r#""message":"the request is invalid","#,
                r#""fields":[{"field":"lines[0].quantity","description":"must be at least 1"}]}}"#,
            )
        );
    }

    #[test]
    fn an_unknown_outcome_says_how_to_repeat_it() {
        let failure = Failure::Call {
            error: Error::Timeout {
                after: Duration::from_secs(10),
                attempts: 9,
                may_be_done: true,
                last: None,
                request_ids: Vec::new(),
            },
            repeat: Some(Repeat::RequestId("some-id".into())),
        };
        assert_eq!(failure.exit_code(), FAILED);
        assert!(failure.sentences().contains("--request-id some-id"));
        assert!(failure.json().contains("--request-id some-id"));
    }

    #[test]
    fn who_took_one_port_for_another_is_told_which() {
        let (clients, metrics) = ("http://n1:7401".to_owned(), "http://n1:7411".to_owned());
        let failure = Failure::Unanswered {
            error: Error::Unreachable {
                endpoints: format!("{clients}, {metrics}"),
                last: None,
            },
            found: vec![(clients, Found::Nothing), (metrics, Found::Metrics)],
        };
        let sentences = failure.sentences();
        let begin = "error: No node answers.\nhttp://n1:7401 is closed: nobody listens there.\n\
                     http://n1:7411 is a node's port for metrics (listen.metrics).\n";
        assert!(sentences.starts_with(begin), "{sentences}");
        assert!(sentences.contains("7401 unless"), "{sentences}");
        let json = failure.json();
        assert!(json.contains(r#""reason":"UNREACHABLE""#), "{json}");
        assert!(json.contains("listen.metrics"), "{json}");
    }

    #[test]
    fn usage_is_one_line_for_programs() {
        let failure = Failure::Usage("error: no SKU\n  <X>\n\nUsage: stockctl".into());
        assert_eq!(failure.exit_code(), INVALID);
        assert!(failure.json().contains(r#""message":"no SKU <X>""#));
    }
}
