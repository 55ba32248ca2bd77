//! One call of a stream to one node: what was sent over it, and what it answers.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::StreamExt;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_stream_result::Result as Slot;
use stock_proto::stock::v1::{
    ReserveRequest, ReserveResponse, ReserveStreamRequest, ReserveStreamResponse,
    ReserveStreamResult, ResponseHeader,
};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

use super::{Route, Unanswered};
use crate::client::Client;
use crate::error::{Error, StatusError};
use crate::link::Way;
use crate::way::{Next, next};

/// Requests in one message at most.
const REQUESTS_PER_MESSAGE_MAX: usize = 1_000;

/// A call to one node.
pub(super) struct Call {
    pub(super) chosen: Route,
    pub(super) way: Way,
    sender: UnboundedSender<ReserveRequest>,
    answers: Answers,
    /// How many requests were sent.
    sent: u64,
    /// Those without an answer, by their number in this call.
    pub(super) unanswered: BTreeMap<u64, Unanswered>,
    /// When it last answered, or had nothing to answer.
    pub(super) heard_at: Instant,
}

type Opening =
    dyn Future<Output = Result<Response<Streaming<ReserveStreamResponse>>, Status>> + Send;

enum Answers {
    Opening(Pin<Box<Opening>>),
    Open(Box<Streaming<ReserveStreamResponse>>),
}

impl Call {
    /// Fails with what the program's interceptor refuses it with.
    pub(super) fn open(client: &Client, chosen: Route) -> Result<Self, Status> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let messages = futures_util::stream::poll_fn(move |context| {
            let mut requests = Vec::new();
            match receiver.poll_recv_many(context, &mut requests, REQUESTS_PER_MESSAGE_MAX) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(0) => Poll::Ready(None),
                Poll::Ready(_) => Poll::Ready(Some(ReserveStreamRequest::of(&requests))),
            }
        });
        let way = chosen.link.way();
        let mut stub = ReservationServiceClient::new(way.channel.clone());
        let messages = client.addressed(messages)?;
        let opening = async move { stub.reserve_stream(messages).await };
        Ok(Self {
            chosen,
            way,
            sender,
            answers: Answers::Opening(Box::pin(opening)),
            sent: 0,
            unanswered: BTreeMap::new(),
            heard_at: Instant::now(),
        })
    }

    pub(super) fn send(&mut self, unanswered: Unanswered) {
        if self.unanswered.is_empty() {
            self.heard_at = Instant::now();
        }
        // Where nobody receives any more, the answers end, too, and it is tried again.
        let _ = self.sender.send(unanswered.request.clone());
        self.unanswered.insert(self.sent, unanswered);
        self.sent += 1;
    }

    /// The numbers of the requests without an answer.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.unanswered.keys().copied().collect()
    }

    /// The next answers; an error when there are no more.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<ReserveStreamResponse, Status>> {
        loop {
            match &mut self.answers {
                Answers::Opening(opening) => match opening.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(status)) => return Poll::Ready(Err(status)),
                    Poll::Ready(Ok(answers)) => {
                        self.answers = Answers::Open(Box::new(answers.into_inner()));
                    }
                },
                Answers::Open(answers) => {
                    return answers.poll_next_unpin(context).map(|answer| {
                        answer.unwrap_or_else(|| Err(Status::unavailable("the call has ended")))
                    });
                }
            }
        }
    }
}

/// Those of a message, with what is said once for many.
pub(super) fn results(answer: ReserveStreamResponse) -> impl Iterator<Item = ReserveStreamResult> {
    let overload = answer.overload.unwrap_or_default();
    let error = overload.error.map(Slot::Error);
    let numbers = overload.numbers.into_iter();
    let too_much = numbers.map(move |number| ReserveStreamResult {
        number,
        result: error.clone(),
    });
    answer.results.into_iter().chain(too_much)
}

/// The answer to a request; else the failure after which trying again may help.
pub(super) fn decided(
    result: ReserveStreamResult,
    header: Option<&ResponseHeader>,
) -> Result<Result<ReserveResponse, Error>, Box<StatusError>> {
    let status = match result.result {
        Some(Slot::Response(mut response)) => {
            response.header = response.header.or_else(|| header.cloned());
            return Ok(Ok(response));
        }
        Some(Slot::Error(status)) => status,
        None => {
            let malformed = Error::malformed("a result is neither an answer nor an error");
            return Ok(Err(malformed));
        }
    };
    let failure = StatusError::from_slot(&status);
    match next(&failure) {
        Next::GiveUp => Ok(Err(failure.into())),
        _ => Err(Box::new(failure)),
    }
}
