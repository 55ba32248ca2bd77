//! `BatchReserve`, split by leader.
//!
//! One node could forward all of it; sending each leader its own part saves a hop for most of the
//! requests and lets the leaders work side by side.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use stock_proto::stock::v1::batch_reserve_result::Result as Slot;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    BatchReserveRequest, BatchReserveResponse, BatchReserveResult, ReserveRequest, ResponseHeader,
};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic_types::{RpcStatusExt, StatusExt};

use crate::client::Client;
use crate::error::{Error, StatusError};
use crate::retry::{Backoff, Next, next};
use crate::route::{self, Target};
use crate::topology::Topology;

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
        loop {
            let parts = split(&requests, open, &self.topology());
            let whole = parts.len() == 1;
            let answers = join_all(parts.into_iter().map(|Part { target, slots }| {
                let message = BatchReserveRequest {
                    requests: slots.iter().map(|slot| requests[*slot].clone()).collect(),
                };
                async move { (slots, self.send_part(deadline, target, message).await) }
            }))
            .await;

            let mut again = Vec::new();
            let mut at_least = None;
            for (slots, answer) in answers {
                match answer {
                    Ok(answer) => {
                        match &mut header {
                            Some(header) => header.join(answer.header.unwrap_or_default()),
                            None => header = answer.header,
                        }
                        for (slot, result) in slots.into_iter().zip(answer.results) {
                            if let Some(failure) = retryable(&result) {
                                at_least = at_least.max(failure.retry_delay);
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
                        let result = Some(Slot::Error(as_slot(&error)));
                        for slot in slots {
                            results[slot].result.clone_from(&result);
                        }
                    }
                }
            }

            let pause = backoff.pause(at_least, &mut rand::rng());
            if again.is_empty() || Instant::now() + pause >= deadline {
                for (result, request) in results.iter_mut().zip(&requests) {
                    if let Some(Slot::Error(status)) = &mut result.result {
                        *status = with_request_id(status, &request.request_id);
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

    async fn send_part(
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

/// By leader, each part in the order of the requests. An empty batch is one part, so that a node
/// says what is wrong with it.
fn split(requests: &[ReserveRequest], open: Vec<usize>, topology: &Topology) -> Vec<Part> {
    let mut parts: BTreeMap<Option<u64>, Part> = BTreeMap::new();
    for slot in open {
        let target = route::of_basket(&requests[slot].lines, topology.shard_count());
        parts
            .entry(topology.leader_for(target))
            .or_insert(Part {
                target,
                slots: Vec::new(),
            })
            .slots
            .push(slot);
    }
    if parts.is_empty() {
        return vec![Part {
            target: Target::Any,
            slots: Vec::new(),
        }];
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
/// google.rpc.RequestInfo.
fn with_request_id(status: &tonic_types::Status, request_id: &str) -> tonic_types::Status {
    let mut details = status.get_error_details();
    details.set_request_info(request_id, "");
    let code = Code::from_i32(status.code);
    let whole = tonic::Status::with_error_details(code, status.message.clone(), details);
    // The details of a status are a google.rpc.Status with all three fields.
    prost::Message::decode(whole.details()).unwrap_or_else(|_| status.clone())
}

fn as_slot(error: &Error) -> tonic_types::Status {
    tonic_types::Status {
        code: error.code() as i32,
        message: error.to_string(),
        details: Vec::new(),
    }
}
