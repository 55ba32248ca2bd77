//! How long a caller waits, and what that means for the call.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use tonic::metadata::MetadataMap;

use super::error::ApiError;
use crate::listeners::time_allowed::time_allowed;

/// A mutation with less time than this cannot be answered durably, as a rule. It is refused before
/// anything happens, so that the caller need not wonder.
const MUTATION_MIN: Duration = Duration::from_millis(2);

/// The caller's transport ends a call at its deadline, too, but cannot say what that means. This
/// much earlier, the call ends by itself and says it. One step of the runtime's timer.
const BEFORE_TRANSPORT: Duration = Duration::from_millis(1);

/// The time a caller allows, as its `grpc-timeout` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline(Option<Duration>);

impl Deadline {
    /// Of a caller who waits for as long as it takes.
    pub(super) const NONE: Self = Self(None);

    /// Of a call with this metadata.
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        Self(time_allowed(metadata.as_ref()))
    }

    /// The time from the call's arrival; none if it never comes.
    pub(super) fn time(self) -> Option<Duration> {
        self.0
    }

    /// The same, or this where the caller gave none.
    pub(super) fn or(self, usual: Duration) -> Self {
        Self(self.0.or(Some(usual)))
    }

    /// Refuses a mutation whose caller will not wait for its answer.
    pub(super) fn check_mutation(self) -> Result<(), ApiError> {
        match self.0 {
            Some(time) if time < MUTATION_MIN => Err(ApiError::DeadlineTooShort),
            _ => Ok(()),
        }
    }

    /// Until it comes, from now on; none if it never does.
    pub(super) fn sleep(self) -> Option<Pin<Box<Sleep>>> {
        self.0.map(|time| Box::pin(sleep(shortened(time))))
    }

    /// Runs a call for as long as its caller waits.
    pub(super) async fn limit<T>(
        self,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let Some(time) = self.0 else {
            return call.await;
        };
        match tokio::time::timeout(shortened(time), call).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::DeadlineExceeded),
        }
    }
}

/// A bit less than the caller's transport waits.
fn shortened(time: Duration) -> Duration {
    time.saturating_sub(BEFORE_TRANSPORT).max(BEFORE_TRANSPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_told_so() {
        let deadline = Deadline(Some(Duration::from_millis(5)));
        let result = deadline
            .limit(std::future::pending::<Result<(), ApiError>>())
            .await;
        assert!(matches!(result, Err(ApiError::DeadlineExceeded)));
    }
}
