//! Counts and times every call, and ties its log lines together.

use std::future::Future;
use std::time::Instant;

use metrics::{Histogram, histogram};
use tonic::{Code, Response, Status};
use tracing::Instrument;

use super::deadline::Deadline;
use super::error::ApiError;

/// One kind of call. The handle is made once: looking it up by name costs as much as some calls.
pub(super) struct Meter {
    call: &'static str,
    seconds: Histogram,
}

/// How many requests inside a call failed, by code.
#[derive(Debug, Default)]
pub(super) struct Failures([u64; CODES]);

/// gRPC has codes from 0 to 16.
const CODES: usize = 17;

impl Failures {
    /// One more.
    pub(super) fn add(&mut self, code: i32) {
        let number = usize::try_from(code).ok();
        if let Some(count) = number.and_then(|number| self.0.get_mut(number)) {
            *count += 1;
        }
    }
}

impl Meter {
    /// For calls of this name.
    pub(super) fn new(call: &'static str) -> Self {
        Self {
            call,
            seconds: histogram!("stockd_call_seconds", "call" => call),
        }
    }

    /// Takes note of so many requests that were answered together.
    pub(super) fn answered(&self, requests: usize, began: Instant) {
        self.seconds.record_many(began.elapsed(), requests);
    }

    /// Takes note of requests that failed, each by itself, inside a call.
    pub(super) fn failed(&self, failures: &Failures) {
        for (code, count) in (0..).zip(failures.0) {
            if count > 0 {
                self.count_errors(Code::from_i32(code), count);
            }
        }
    }

    fn count_errors(&self, code: Code, count: u64) {
        let code = format!("{code:?}");
        metrics::counter!("stockd_call_errors_total", "call" => self.call, "code" => code)
            .increment(count);
    }

    /// Runs a call. Its log lines carry its name and `id`: a request id, reservation or document.
    pub(super) async fn run<T>(
        &self,
        deadline: Deadline,
        id: &str,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Response<T>, Status> {
        let span = tracing::debug_span!("call", call = self.call, id);
        let began = Instant::now();
        let result = deadline.limit(call).instrument(span.clone()).await;
        self.seconds.record(began.elapsed());
        match result {
            Ok(answer) => {
                tracing::debug!(parent: &span, "answered");
                Ok(Response::new(answer))
            }
            Err(error) => {
                let status = Status::from(error);
                self.count_errors(status.code(), 1);
                let (code, message) = (status.code(), status.message());
                tracing::debug!(parent: &span, ?code, message, "refused");
                Err(status)
            }
        }
    }
}
