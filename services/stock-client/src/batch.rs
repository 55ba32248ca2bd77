//! `BatchReserve`, split by leader.
//!
//! One node could forward all of it; sending each leader its own part saves a hop for most of the
//! requests and lets the leaders work side by side.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use prost::Message;
use stock_proto::codec::{ERROR_DOMAIN, MESSAGE_BYTES_MAX};
use stock_proto::stock::v1::batch_reserve_result::Result as Slot;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    BatchReserveRequest, BatchReserveResponse, BatchReserveResult, ErrorReason, ReserveRequest,
    ResponseHeader,
};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic_types::{ErrorDetails, RpcStatusExt, StatusExt};

use crate::client::Client;
use crate::error::{Error, StatusError};
use crate::way::{self, Backoff, Next, Target, Topology, next};

impl Client {
    /// The requests carry their ids already.
    pub(crate) async fn batch_reserve_by_leader(
        &self,
        request: BatchReserveRequest,
    ) -> Result<BatchReserveResponse, Error> {
        let requests = request.requests;
        let ids = |slots: &[usize]| -> Vec<String> {
            let ids = slots.iter().map(|slot| requests[*slot].request_id.clone());
            ids.collect()
        };
        let deadline = self.deadline();
        let mut backoff = Backoff::new();
        let mut results = vec![BatchReserveResult::default(); requests.len()];
        let mut header: Option<ResponseHeader> = None;
        let mut open: Vec<usize> = (0..requests.len()).collect();
        // Those that may have been done by an attempt that was not answered.
        let mut may_be_done = vec![false; requests.len()];
        loop {
            let parts = split(&requests, open, &self.topology());
            let whole = parts.len() == 1;
            let sent = parts.into_iter();
            let sent = sent.map(|part| self.send_part(deadline, part, &requests));
            let answers = join_all(sent).await.into_iter().flatten();

            let mut again = Vec::new();
            let mut at_least = None;
            for (slots, answer) in answers {
                match answer {
                    Ok(answer) => {
                        match &mut header {
                            Some(header) => header.join(answer.header.unwrap_or_default()),
                            None => header = answer.header,
                        }
                        for (slot, mut result) in slots.iter().copied().zip(answer.results) {
                            if let Some(Slot::Error(status)) = &mut result.result {
                                *status = as_numbered(status, &slots);
                            }
                            if let Some(failure) = retryable(&result) {
                                at_least = at_least.max(failure.retry_delay);
                                may_be_done[slot] |= failure.outcome_unknown();
                                again.push(slot);
                            }
                            results[slot] = result;
                        }
                    }
                    // Nobody else has an answer to keep, so that it is an error of the call.
                    Err(error) if whole && slots.len() == requests.len() => {
                        return Err(error.made_under(ids(&slots)));
                    }
                    Err(error) => {
                        let status = as_numbered(&as_slot(&error), &slots);
                        let result = Some(Slot::Error(status));
                        for slot in slots {
                            results[slot].result.clone_from(&result);
                        }
                    }
                }
            }

            let pause = backoff.pause(at_least, &mut rand::rng());
            if again.is_empty() || Instant::now() + pause >= deadline {
                let of_requests = requests.iter().zip(may_be_done);
                for (result, (request, may_be_done)) in results.iter_mut().zip(of_requests) {
                    if let Some(Slot::Error(status)) = &mut result.result {
                        *status = as_told(status, &request.request_id, may_be_done);
                    }
                }
                for result in &mut results {
                    if let Some(Slot::Response(response)) = &mut result.result {
                        let told = response.header.take();
                        response.header = told.or_else(|| header.clone());
                    }
                }
                return Ok(BatchReserveResponse { header, results });
            }
            self.pool().look_again();
            sleep(pause).await;
            again.sort_unstable();
            open = again;
        }
    }

    /// Sends a part; where its answers could be larger than a message may be, in halves, so that
    /// what is accepted does not depend on who leads.
    async fn send_part(
        &self,
        deadline: Instant,
        part: Part,
        requests: &[ReserveRequest],
    ) -> Vec<(Vec<usize>, Result<BatchReserveResponse, Error>)> {
        let mut unsent = vec![part.slots];
        let mut answers = Vec::new();
        while let Some(mut slots) = unsent.pop() {
            let message = BatchReserveRequest {
                requests: slots.iter().map(|slot| requests[*slot].clone()).collect(),
            };
            match self.send(deadline, part.target, message).await {
                Err(error) if error.reason() == ErrorReason::AnswerTooLarge && slots.len() > 1 => {
                    unsent.push(slots.split_off(slots.len() / 2));
                    unsent.push(slots);
                }
                answer => answers.push((slots, answer)),
            }
        }
        answers
    }

    async fn send(
        &self,
        deadline: Instant,
        target: Target,
        message: BatchReserveRequest,
    ) -> Result<BatchReserveResponse, Error> {
        let expected = message.requests.len();
        let answer = self
            .bulk_until(deadline, target, message, |channel, request| async {
                ReservationServiceClient::new(channel)
                    .batch_reserve(request)
                    .await
            })
            .await?;
        if answer.results.len() == expected {
            Ok(answer)
        } else {
            Err(Error::malformed("a batch has one result for each request"))
        }
    }
}

/// The requests that one leader answers.
struct Part {
    target: Target,
    slots: Vec<usize>,
}

/// What a node takes in one call: `stock/v1/reservation.proto`.
const REQUESTS_MAX: usize = 1_000;

/// By leader, each part in the order of the requests. A batch that no node would take whole is one
/// part, so that one says what is wrong with it, whoever leads what.
fn split(requests: &[ReserveRequest], open: Vec<usize>, topology: &Topology) -> Vec<Part> {
    let bytes: usize = requests.iter().map(Message::encoded_len).sum();
    if open.is_empty() || requests.len() > REQUESTS_MAX || bytes > MESSAGE_BYTES_MAX {
        return vec![Part {
            target: Target::Any,
            slots: open,
        }];
    }
    let mut parts: BTreeMap<Option<u64>, Part> = BTreeMap::new();
    for slot in open {
        let target = way::of_basket(&requests[slot].lines);
        let (leader, _) = topology.leadership_of(target);
        parts
            .entry(leader)
            .or_insert(Part {
                target,
                slots: Vec::new(),
            })
            .slots
            .push(slot);
    }
    parts.into_values().collect()
}

fn retryable(result: &BatchReserveResult) -> Option<StatusError> {
    let Some(Slot::Error(status)) = &result.result else {
        return None;
    };
    let failure = StatusError::from_slot(status);
    (next(&failure) != Next::GiveUp).then_some(failure)
}

/// The error of one request, with the id that the client may have made for it:
/// google.rpc.RequestInfo. What may have been done before says so, whatever the last attempt met.
fn as_told(
    status: &tonic_types::Status,
    request_id: &str,
    may_be_done: bool,
) -> tonic_types::Status {
    let mut details = status.get_error_details();
    details.set_request_info(request_id, "");
    if may_be_done && !StatusError::from_slot(status).settles() {
        let reason = ErrorReason::OutcomeUnknown.text();
        details.set_error_info(reason, ERROR_DOMAIN, HashMap::new());
    }
    as_status(Code::from_i32(status.code), status.message.clone(), details)
}

/// An error of a part, with the numbers that the caller's requests have.
fn as_numbered(status: &tonic_types::Status, slots: &[usize]) -> tonic_types::Status {
    let mut details = status.get_error_details();
    if let Some(bad) = details.bad_request() {
        let mut violations = bad.field_violations.clone();
        for violation in &mut violations {
            violation.field = numbered(&violation.field, slots);
            violation.description = numbered(&violation.description, slots);
        }
        details.set_bad_request(violations);
    }
    let code = Code::from_i32(status.code);
    as_status(code, numbered(&status.message, slots), details)
}

/// `requests[3]` of a part is another one of all of them.
fn numbered(text: &str, slots: &[usize]) -> String {
    const BEFORE: &str = "requests[";
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEFORE) {
        let (before, after) = rest.split_at(at + BEFORE.len());
        whole.push_str(before);
        let end = after.find(']').unwrap_or(0);
        let slot = after[..end]
            .parse()
            .ok()
            .and_then(|it: usize| slots.get(it));
        match slot {
            Some(slot) => whole.push_str(&slot.to_string()),
            None => whole.push_str(&after[..end]),
        }
        rest = &after[end..];
    }
    whole.push_str(rest);
    whole
}

/// What a part failed with, as each of its requests tells it.
fn as_slot(error: &Error) -> tonic_types::Status {
    let mut details = ErrorDetails::new();
    if let Some(status) = error.status() {
        let reason = match error.outcome_unknown() {
            true => ErrorReason::OutcomeUnknown.text(),
            false => &status.reason,
        };
        if !reason.is_empty() {
            details.set_error_info(reason, ERROR_DOMAIN, HashMap::new());
        }
        for violation in &status.field_violations {
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
        if status.retry_delay.is_some() {
            details.set_retry_info(status.retry_delay);
        }
    }
    as_status(error.code(), error.to_string(), details)
}

fn as_status(code: Code, message: String, details: ErrorDetails) -> tonic_types::Status {
    let whole = tonic::Status::with_error_details(code, message, details);
    // The details of a status are a google.rpc.Status with all three fields.
    Message::decode(whole.details()).unwrap_or_else(|_| tonic_types::Status {
        code: code.into(),
        message: whole.message().to_owned(),
        details: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_numbers_are_told() {
        let slots = [4, 7, 9];
        for (told, expected) in [
            (
                "requests[1].lines[0].sku: no",
                "requests[7].lines[0].sku: no",
            ),
            ("requests[0] and requests[2]", "requests[4] and requests[9]"),
            (
                "requests[3], requests[x], requests[",
                "requests[3], requests[x], requests[",
            ),
            ("nothing", "nothing"),
        ] {
            assert_eq!(numbered(told, &slots), expected);
        }
    }
}
