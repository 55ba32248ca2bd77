//! What a call can fail with.

use std::collections::HashMap;
use std::time::Duration;

use stock_proto::codec::ERROR_DOMAIN;
use stock_proto::stock::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, RpcStatusExt, StatusExt};

use crate::way::{Next, next};

/// Why a call gave no answer. What follows from it, its methods say: variants are for messages.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), stock_client::Error> {
/// # use stock_client::{CallOptions, fake::{Fake, Fault}, v1::{Line, ReserveRequest}};
/// # let fake = Fake::new();
/// # fake.receive("milk-1l", "store-7", 3);
/// # let client = fake.client()?;
/// # let lines = vec![Line::at("milk-1l", "store-7", 2)];
/// # let request = ReserveRequest { lines, ..ReserveRequest::default() };
/// // Every answer is lost, until the call's time is over.
/// fake.fail_all::<ReserveRequest>(Fault::LostAfter);
/// # let client = client.with(CallOptions::new().timeout(std::time::Duration::from_millis(300)));
/// let error = client.reserve(request.clone()).await.unwrap_err();
/// assert!(error.outcome_unknown());
/// // It had no id: the client has made one, and tells it.
/// let request_id = error.request_ids()[0].clone();
///
/// fake.mend();
/// client.reserve(ReserveRequest { request_id, ..request }).await?;
/// assert_eq!(fake.reservations().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node answered with an error that trying again would not change; or, where the caller has
    /// said how often the call may be sent, what the last attempt failed with.
    #[error(transparent)]
    Status(Box<StatusError>),

    /// The call's timeout passed while it was being retried, or would pass in the pause before the
    /// next attempt. A mutation may or may not have taken effect; repeating it with the same
    /// request ids settles that without doing it twice.
    #[error("no answer within \
        {}{}{}", Seconds(*.after), Last(.last.as_deref()), Under(.request_ids))]
    Timeout {
        /// The timeout of the whole call.
        after: Duration,
        /// How many times it was sent.
        attempts: u32,
        /// Whether any of these may have been carried out: the others were refused.
        may_be_done: bool,
        /// What the last attempt failed with.
        last: Option<Box<StatusError>>,
        /// As [`Error::request_ids`] has them.
        request_ids: Vec<String>,
    },

    /// No node answered when the client was opened.
    #[error("no node answers at {endpoints}{}", Last(.last.as_deref()))]
    Unreachable {
        /// The endpoints that were tried, separated by commas.
        endpoints: String,
        /// What the last attempt failed with.
        last: Option<Box<StatusError>>,
    },

    /// The endpoint is not a URL of the form `http://HOST:PORT`.
    #[error("`{endpoint}` is not an endpoint: {why}")]
    InvalidEndpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },

    /// A node's answer breaks the schema's rules, which means that client and server differ. What
    /// was asked for may be done.
    #[error("the node's answer breaks its own rules: {why}{}", Under(.request_ids))]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
        /// As [`Error::request_ids`] has them.
        request_ids: Vec<String>,
    },

    /// As many calls of this client as may be are under way, and it was told to fail rather than
    /// to wait, or none ended within this one's time. Nothing was sent.
    #[error("{max} calls are under way, as many as this client makes at once")]
    TooManyCalls {
        /// How many may be.
        max: usize,
    },
}

impl Error {
    /// The gRPC error behind this one: the node's own, or the last attempt's.
    pub fn status(&self) -> Option<&StatusError> {
        match self {
            Self::Status(status) => Some(status),
            Self::Timeout { last, .. } | Self::Unreachable { last, .. } => last.as_deref(),
            Self::InvalidEndpoint { .. } | Self::Malformed { .. } | Self::TooManyCalls { .. } => {
                None
            }
        }
    }

    /// The gRPC code that says what happened to the call as a whole.
    pub fn code(&self) -> Code {
        match self {
            Self::Status(status) => status.code,
            Self::Timeout { .. } => Code::DeadlineExceeded,
            Self::Unreachable { .. } => Code::Unavailable,
            Self::InvalidEndpoint { .. } => Code::InvalidArgument,
            Self::Malformed { .. } => Code::Internal,
            Self::TooManyCalls { .. } => Code::ResourceExhausted,
        }
    }

    /// The ids under which a mutation was sent, those that the client made included, in the order
    /// of its requests: where its outcome is unknown, repeat it with them. Empty for what changes
    /// nothing, and for movements, which are known by their documents.
    pub fn request_ids(&self) -> &[String] {
        match self {
            Self::Status(status) => &status.request_ids,
            Self::Timeout { request_ids, .. } | Self::Malformed { request_ids, .. } => request_ids,
            Self::Unreachable { .. } | Self::InvalidEndpoint { .. } | Self::TooManyCalls { .. } => {
                &[]
            }
        }
    }

    /// Whether it is not known if what was asked for was done, and it may yet be. Repeating the
    /// call with the same request ids ([`Error::request_ids`]) settles it, as does finding the
    /// reservation by its order reference; not finding it does not.
    ///
    /// Of several attempts any may have been carried out: each counts, unless a shard has refused
    /// the request since, which it would not had it done it before.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Status(status) => status.outcome_unknown(),
            Self::Timeout { may_be_done, .. } => *may_be_done,
            Self::Malformed { .. } => true,
            Self::Unreachable { .. } | Self::InvalidEndpoint { .. } | Self::TooManyCalls { .. } => {
                false
            }
        }
    }

    /// Whether the same call may succeed later: the cluster, the network or the client's own limits
    /// were in the way, and nothing that was asked. Changes are to be repeated with the same
    /// request ids, while those are remembered: ten minutes, or one under great load.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Status(status) => !matches!(next(status), Next::GiveUp | Next::NoNode),
            Self::Timeout { .. } | Self::Unreachable { .. } | Self::TooManyCalls { .. } => true,
            Self::InvalidEndpoint { .. } | Self::Malformed { .. } => false,
        }
    }

    /// An answer that breaks the schema's rules: for programs that read answers further, and say so
    /// in the same way.
    pub fn malformed(why: &'static str) -> Self {
        Self::Malformed {
            why,
            request_ids: Vec::new(),
        }
    }

    /// The same, of a call whose requests had these ids.
    pub(crate) fn made_under(mut self, ids: Vec<String>) -> Self {
        match &mut self {
            Self::Status(status) => status.request_ids = ids,
            Self::Timeout { request_ids, .. } | Self::Malformed { request_ids, .. } => {
                *request_ids = ids;
            }
            Self::Unreachable { .. } | Self::InvalidEndpoint { .. } | Self::TooManyCalls { .. } => {
            }
        }
        self
    }

    /// Why, for programs: `stock/v1/errors.proto` tells what each means. Unspecified where no node
    /// has said, and where a later version has said what this one does not know
    /// ([`Error::reason_text`]). Of a timeout it is the most telling one of its attempts.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::{fake::Fake, v1::{Line, ReserveRequest}};
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// use stock_client::v1::ErrorReason;
    ///
    /// let lines = vec![Line::at("milk-1l", "store-7", 1), Line::at("milk-1l", "store-8", 1)];
    /// let request = ReserveRequest { lines, ..ReserveRequest::default() };
    /// let error = client.reserve(request).await.unwrap_err();
    /// assert_eq!(error.reason(), ErrorReason::UnknownLocation);
    /// let status = error.status().expect("a node's words");
    /// assert_eq!(status.field_violations[0].field, "lines[1].location");
    /// # Ok(())
    /// # }
    /// ```
    pub fn reason(&self) -> ErrorReason {
        self.status()
            .map_or(ErrorReason::Unspecified, StatusError::reason)
    }

    /// The same as it stands in `google.rpc.ErrorInfo`; empty where no node has said.
    pub fn reason_text(&self) -> &str {
        self.status().map_or("", |status| status.reason.as_str())
    }
}

impl From<StatusError> for Error {
    fn from(status: StatusError) -> Self {
        Self::Status(Box::new(status))
    }
}

/// A gRPC error with its `google.rpc` details taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", Violations(.message, .field_violations))]
pub struct StatusError {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason of `ErrorInfo`, for programs; empty if the node gave none.
    pub reason: String,
    /// What `ErrorInfo` tells beside it: `state` where a reservation's state is why, and
    /// `leader_node_id` where a leader is not reached.
    pub metadata: HashMap<String, String>,
    /// For people.
    pub message: String,
    /// Which fields of the request are at fault.
    pub field_violations: Vec<FieldViolation>,
    /// How long the node asks to wait before trying again.
    pub retry_delay: Option<Duration>,
    /// Whether this comes from the connection and not from a node: the request may never have
    /// arrived, or its answer may have been lost.
    pub transport: bool,
    /// Whether nothing at all came from the node for as long as was waited.
    pub is_silence: bool,
    /// Whether an earlier attempt at the same call may have been carried out, of which this one
    /// says nothing.
    pub may_be_done: bool,
    /// Whether these are words of stockd, and not those of another program at the address.
    pub is_of_stockd: bool,
    /// As [`Error::request_ids`] has them.
    pub request_ids: Vec<String>,
}

/// One field of a request, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// A path such as `lines[0].quantity`.
    pub field: String,
    /// For people.
    pub description: String,
}

impl StatusError {
    /// What an attempt that nobody answered within `after` failed with.
    pub fn silent(after: Duration) -> Self {
        Self {
            code: Code::DeadlineExceeded,
            reason: String::new(),
            metadata: HashMap::new(),
            message: format!("the node gave no answer within {}", Seconds(after)),
            field_violations: Vec::new(),
            retry_delay: None,
            transport: true,
            is_silence: true,
            may_be_done: false,
            is_of_stockd: false,
            request_ids: Vec::new(),
        }
    }

    /// Why, for programs.
    pub fn reason(&self) -> ErrorReason {
        ErrorReason::from_text(&self.reason)
    }

    /// Whether what was asked for may have been done all the same.
    pub fn outcome_unknown(&self) -> bool {
        let may_have = matches!(self.code, Code::DeadlineExceeded | Code::Cancelled);
        let may_be_done_by_this = match self.reason() {
            ErrorReason::OutcomeUnknown
            | ErrorReason::DeadlineExceeded
            | ErrorReason::AnswersFull => true,
            ErrorReason::Unspecified => self.transport || may_have,
            _ => false,
        };
        self.may_be_done || may_be_done_by_this
    }

    /// Whether a shard has refused the request, which it would not had it done it before: it then
    /// repeats its answer, for as long as it remembers the id.
    pub(crate) fn settles(&self) -> bool {
        let is_forgotten = self.reason() == ErrorReason::RequestTooOld;
        self.is_of_stockd && !is_forgotten && next(self) == Next::GiveUp
    }

    /// What an attempt at a node that takes no connection failed with.
    pub fn not_connected() -> Self {
        Self {
            code: Code::Unavailable,
            message: "the node takes no connection".to_owned(),
            is_silence: false,
            ..Self::silent(Duration::ZERO)
        }
    }

    /// What a look at a node of another cluster came to.
    pub(crate) fn of_another_cluster(whose: &str, own: &str) -> Self {
        Self {
            code: Code::FailedPrecondition,
            reason: ErrorReason::WrongCluster.text().to_owned(),
            message: format!("the node is of cluster {whose}, and not of {own}"),
            transport: false,
            is_silence: false,
            is_of_stockd: true,
            ..Self::silent(Duration::ZERO)
        }
    }

    /// Takes apart one slot of a batch's answer.
    ///
    /// ```
    /// # use stock_client::tonic_types;
    /// use stock_client::StatusError;
    /// use stock_client::v1::batch_reserve_result::Result as Slot;
    ///
    /// # let slot = Slot::Error(tonic_types::Status { code: 5, ..Default::default() });
    /// if let Slot::Error(status) = &slot {
    ///     let error = StatusError::from_slot(status);
    ///     assert_eq!(error.code, stock_client::tonic::Code::NotFound);
    /// }
    /// ```
    pub fn from_slot(slot: &tonic_types::Status) -> Self {
        Self::from_parts(
            Code::from_i32(slot.code),
            slot.message.clone(),
            &slot.get_error_details(),
            false,
        )
    }

    fn from_parts(code: Code, message: String, details: &ErrorDetails, transport: bool) -> Self {
        let field_violations = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|violation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect()
        });
        Self {
            code,
            reason: details
                .error_info()
                .map_or_else(String::new, |info| info.reason.clone()),
            metadata: details
                .error_info()
                .map_or_else(HashMap::new, |info| info.metadata.clone()),
            message,
            field_violations,
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
            transport,
            is_silence: false,
            may_be_done: false,
            is_of_stockd: details
                .error_info()
                .is_some_and(|info| info.domain == ERROR_DOMAIN),
            request_ids: details
                .request_info()
                .map_or_else(Vec::new, |info| vec![info.request_id.clone()]),
        }
    }
}

impl From<Status> for StatusError {
    fn from(status: Status) -> Self {
        // A status that was read from the wire has no source; one that tonic made of a broken or
        // refused connection, or of an attempt that ran out of time, carries what caused it.
        let mut message = status.message().to_owned();
        let cause = std::error::Error::source(&status);
        if let Some(root) = cause.map(root_cause) {
            let root = root.to_string();
            if !message.contains(&root) {
                message = format!("{message}: {root}");
            }
        }
        // A stub's words for a channel that takes no calls: its connection, or its runtime, ended.
        let is_closed = message.starts_with("Service was not ready");
        // The transport's words for the time that the node was told.
        let is_silence = message.starts_with("Timeout expired") && cause.is_some();
        let details = if status.details().is_empty() {
            ErrorDetails::new()
        } else {
            status.get_error_details()
        };
        let is_transport = cause.is_some() || is_closed;
        Self {
            is_silence,
            ..Self::from_parts(status.code(), message, &details, is_transport)
        }
    }
}

fn root_cause<'a>(
    mut error: &'a (dyn std::error::Error + 'static),
) -> &'a (dyn std::error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// A duration the way people say it.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{} s", self.0.as_millis() as f64 / 1e3)
        }
    }
}

struct Last<'a>(Option<&'a StatusError>);

impl std::fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |last| write!(f, ": {last}"))
    }
}

/// Of several ids none is told: there may be a thousand.
struct Under<'a>(&'a [String]);

impl std::fmt::Display for Under<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [id] => write!(f, " (request id {id})"),
            _ => Ok(()),
        }
    }
}

/// The violations that the message does not already tell of.
struct Violations<'a>(&'a str, &'a [FieldViolation]);

impl std::fmt::Display for Violations<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(message, violations) = self;
        for violation in *violations {
            if message.contains(&violation.field) && message.contains(&violation.description) {
                continue;
            }
            write!(f, "; {}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_taken_apart() {
        let mut details = ErrorDetails::with_error_info("QUANTITY_INVALID", "stockd", []);
        details.add_bad_request_violation("lines[0].quantity", "must be at least 1");
        details.set_retry_info(Some(Duration::from_millis(70)));
        let status = Status::with_error_details(Code::InvalidArgument, "refused", details);

        let error = StatusError::from(status);

        assert_eq!(error.code, Code::InvalidArgument);
        assert_eq!(error.reason, "QUANTITY_INVALID");
        assert_eq!(error.retry_delay, Some(Duration::from_millis(70)));
        assert!(!error.transport);
        assert_eq!(
            error.to_string(),
            "refused; lines[0].quantity: must be at least 1"
        );
    }

    #[test]
    fn a_message_that_names_the_field_is_not_repeated() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("ttl", "at most 7 days");
        let status =
            Status::with_error_details(Code::InvalidArgument, "ttl: at most 7 days", details);
        assert_eq!(StatusError::from(status).to_string(), "ttl: at most 7 days");
    }

    #[test]
    fn a_timeout_says_what_came_last() {
        let error = Error::Timeout {
            after: Duration::from_millis(1500),
            attempts: 4,
            may_be_done: true,
            last: Some(Box::new(StatusError::silent(Duration::from_millis(200)))),
            request_ids: Vec::new(),
        };
        assert_eq!(
            error.to_string(),
            "no answer within 1.5 s: the node gave no answer within 200 ms"
        );
        let error = error.made_under(vec!["an-id".to_owned()]);
        assert_eq!(
            error.to_string(),
            "no answer within 1.5 s: the node gave no answer within 200 ms (request id an-id)"
        );
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
}
