//! `ReserveStream`, and `EchoStream` as its floor: one to each leader.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use stock_proto::stock::lab::v1::echo_service_client::EchoServiceClient;
use stock_proto::stock::lab::v1::{EchoStreamRequest, EchoStreamResponse};
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_response::Outcome as Verdict;
use stock_proto::stock::v1::reserve_stream_result::Result as Slot;
use stock_proto::stock::v1::{Line, ReserveRequest, ReserveStreamRequest, ReserveStreamResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::calls;
use crate::lab::{Call, Outcome, Pacer, Recorder};

/// Requests in one message at most.
const PER_MESSAGE_MAX: usize = 256;

/// On a schedule: how often what has become due is sent.
const SEND_EVERY: Duration = Duration::from_millis(1);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Reserves.
    Reserves,
    /// As many bytes as a reserve has, which come back as they are.
    Echoes,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// While so many wait for their answers, over all streams.
    Unanswered(usize),
    /// So many a second, over all streams.
    PerSecond(u32),
}

/// Streams to all leaders.
pub(crate) struct Streams {
    leaders: Vec<(Channel, Rc<[Unnamed]>)>,
}

/// A request without an id, as it will be on the wire: what it takes to send one belongs to the
/// load.
struct Unnamed(Bytes);

impl Unnamed {
    /// The request under a new id. Two messages, one behind the other, are one that has the fields
    /// of both: see <https://protobuf.dev/programming-guides/encoding/#last-one-wins>.
    fn named(&self) -> Bytes {
        let id = Uuid::now_v7();
        let id = ReserveRequest {
            request_id: id.to_string(),
            ..ReserveRequest::default()
        };
        let mut request = BytesMut::with_capacity(id.encoded_len() + self.0.len());
        request.put(&id.encode_to_vec()[..]);
        request.put(&self.0[..]);
        request.freeze()
    }
}

/// What was sent on a stream.
#[derive(Default)]
struct Sent {
    /// When each request was due and when it was sent, from this number on; none where it is
    /// answered.
    times: VecDeque<Option<(Instant, Instant)>>,
    first: u64,
    unanswered: usize,
}

impl Streams {
    pub(super) fn new(leaders: Vec<(Channel, Vec<Line>)>, ttl: prost_types::Duration) -> Streams {
        let one_line = |line| Unnamed(calls::reserve(vec![line], ttl).encode_to_vec().into());
        let requests = |lines: Vec<Line>| lines.into_iter().map(one_line).collect();
        Streams {
            leaders: leaders
                .into_iter()
                .map(|(channel, lines)| (channel, requests(lines)))
                .collect(),
        }
    }

    /// Opens them, and sends until the window ends; returns what waits for the last answers.
    pub(crate) async fn run(
        &self,
        asked: Asked,
        pace: Pace,
        recorder: &Rc<Recorder>,
    ) -> anyhow::Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        let mut senders = Vec::new();
        for (channel, requests) in &self.leaders {
            let (way, answers) = open(asked, channel, requests).await?;
            let sent = Rc::new(RefCell::new(Sent::default()));
            let sender = Sender {
                requests: Rc::clone(requests),
                next: 0,
                way,
                sent,
            };
            senders.push((sender, answers));
        }
        match pace {
            Pace::Unanswered(unanswered) => {
                let each = unanswered.div_ceil(senders.len().max(1));
                for (mut sender, answers) in senders {
                    let recorder = Rc::clone(recorder);
                    tasks.spawn_local(async move {
                        let sent = Rc::clone(&sender.sent);
                        sender.send(each, Instant::now());
                        // With the sender the stream ends, and with it the answers.
                        let mut sender = Some(sender);
                        let again = || {
                            let is_over = Instant::now() >= recorder.until();
                            if is_over {
                                sender = None;
                            }
                            if let Some(sender) = &mut sender {
                                let room = each.saturating_sub(sender.sent.borrow().unanswered);
                                sender.send(room, Instant::now());
                            }
                        };
                        take_answers(answers, &sent, &recorder, Counted::WhenAnswered, again).await;
                    });
                }
            }
            Pace::PerSecond(per_second) => {
                let mut paced = Vec::new();
                for (sender, answers) in senders {
                    let sent = Rc::clone(&sender.sent);
                    let recorder = Rc::clone(recorder);
                    tasks.spawn_local(async move {
                        take_answers(answers, &sent, &recorder, Counted::WhenDue, || ()).await;
                    });
                    paced.push(sender);
                }
                send_on_schedule(paced, per_second, recorder.until()).await?;
            }
        }
        Ok(tasks)
    }
}

/// When a request belongs to the window.
#[derive(Clone, Copy)]
enum Counted {
    WhenAnswered,
    WhenDue,
}

struct Sender {
    requests: Rc<[Unnamed]>,
    next: usize,
    way: Way,
    sent: Rc<RefCell<Sent>>,
}

/// The way to a node.
enum Way {
    Reserves(mpsc::UnboundedSender<ReserveStreamRequest>),
    Echoes {
        payload: Bytes,
        sender: mpsc::UnboundedSender<EchoStreamRequest>,
    },
}

/// The way back.
enum Answers {
    Reserves(Streaming<ReserveStreamResponse>),
    Echoes {
        /// The number of the next one: they come in the order of the requests.
        next: u64,
        answers: Streaming<EchoStreamResponse>,
    },
}

async fn open(
    asked: Asked,
    channel: &Channel,
    requests: &[Unnamed],
) -> Result<(Way, Answers), Status> {
    match asked {
        Asked::Reserves => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut stub = ReservationServiceClient::new(channel.clone());
            let answers = stub.reserve_stream(UnboundedReceiverStream::new(receiver));
            let answers = answers.await?.into_inner();
            Ok((Way::Reserves(sender), Answers::Reserves(answers)))
        }
        Asked::Echoes => {
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut stub = EchoServiceClient::new(channel.clone());
            let answers = stub.echo_stream(UnboundedReceiverStream::new(receiver));
            let answers = answers.await?.into_inner();
            let bytes = requests.first().map_or(0, |request| request.named().len());
            let payload = vec![0x5a; bytes].into();
            let way = Way::Echoes { payload, sender };
            Ok((way, Answers::Echoes { next: 0, answers }))
        }
    }
}

impl Answers {
    /// Those of the next message, with the numbers of their requests; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<(u64, Result<Outcome, String>)>>, Status> {
        Ok(match self {
            Answers::Reserves(answers) => answers.message().await?.map(|message| {
                let results = message.results.iter();
                let results = results.map(|it| (it.number, outcome(it.result.as_ref())));
                // The same is said to many, once.
                let overload = message.overload.unwrap_or_default();
                let refusal = overload.error.map(Slot::Error);
                let too_much = overload.numbers.iter();
                let too_much = too_much.map(|number| (*number, outcome(refusal.as_ref())));
                results.chain(too_much).collect()
            }),
            Answers::Echoes { next, answers } => answers.message().await?.map(|message| {
                let first = *next;
                *next += message.payloads.len() as u64;
                (first..*next)
                    .map(|number| (number, Ok(Outcome::Done)))
                    .collect()
            }),
        })
    }
}

impl Sender {
    /// So many more, all due at the same time.
    fn send(&mut self, count: usize, due: Instant) {
        let now = Instant::now();
        let mut left = count;
        while left > 0 {
            let size = left.min(PER_MESSAGE_MAX);
            left -= size;
            {
                let mut sent = self.sent.borrow_mut();
                sent.times
                    .extend(std::iter::repeat_n(Some((due, now)), size));
                sent.unanswered += size;
            }
            self.send_message(size);
        }
    }
}

impl Sender {
    /// One message. Where nobody receives any more, the answers end, too, and that is seen there.
    fn send_message(&mut self, size: usize) {
        match &self.way {
            Way::Reserves(sender) => {
                let requests = (0..size).map(|_| {
                    let request = &self.requests[self.next % self.requests.len()];
                    self.next += 1;
                    request.named()
                });
                let requests = requests.collect();
                let _ = sender.send(ReserveStreamRequest { requests });
            }
            Way::Echoes { payload, sender } => {
                let payloads = vec![payload.clone(); size];
                let _ = sender.send(EchoStreamRequest { payloads });
            }
        }
    }
}

async fn send_on_schedule(
    mut senders: Vec<Sender>,
    per_second: u32,
    until: Instant,
) -> anyhow::Result<()> {
    let pacer = Pacer::new().context("cannot make a timer")?;
    let began = Instant::now();
    let mut sent = 0;
    for tick in 1u32.. {
        let due = began + SEND_EVERY * tick;
        if due >= until {
            break;
        }
        pacer
            .wait_until(due)
            .await
            .context("cannot wait for a timer")?;
        let all = (SEND_EVERY * tick).as_nanos() * u128::from(per_second) / 1_000_000_000;
        let now_due = all as usize - sent;
        sent += now_due;
        // What does not divide goes to each stream in turn.
        let streams = senders.len();
        for (number, sender) in senders.iter_mut().enumerate() {
            let more = (tick as usize + number) % streams < now_due % streams;
            sender.send(now_due / streams + usize::from(more), due);
        }
    }
    Ok(())
}

async fn take_answers(
    mut answers: Answers,
    sent: &RefCell<Sent>,
    recorder: &Recorder,
    counted: Counted,
    mut after_each: impl FnMut(),
) {
    loop {
        let results = match answers.next().await {
            Ok(Some(results)) => results,
            Ok(None) => break,
            Err(status) => return recorder.failed(format!("stream: {status}")),
        };
        let now = Instant::now();
        for (number, outcome) in results {
            let Some((due, sent)) = sent.borrow_mut().answered(number) else {
                recorder.failed(format!("stream: answer {number} was not expected"));
                continue;
            };
            match (outcome, counted) {
                (Ok(Outcome::Done), Counted::WhenAnswered) => {
                    recorder.answered(sent, now, Call::ONE_LINE);
                }
                (Ok(outcome), Counted::WhenDue) => {
                    recorder.answered_due(due, sent, outcome, Call::ONE_LINE);
                }
                (Ok(Outcome::Refused), Counted::WhenAnswered) => {
                    recorder.failed("stream: refused in a closed loop".to_owned());
                }
                (Err(error), _) => recorder.failed(error),
            }
        }
        after_each();
    }
    let unanswered = sent.borrow().unanswered;
    if unanswered > 0 {
        recorder.failed(format!("stream: ended with {unanswered} unanswered"));
    }
}

fn outcome(slot: Option<&Slot>) -> Result<Outcome, String> {
    match slot {
        Some(Slot::Response(response))
            if matches!(response.outcome, Some(Verdict::Reservation(_))) =>
        {
            Ok(Outcome::Done)
        }
        Some(Slot::Error(status)) if status.code == i32::from(Code::ResourceExhausted) => {
            match status.details.is_empty() {
                false => Ok(Outcome::Refused),
                true => Err("stream: refused without a hint when to try again".to_owned()),
            }
        }
        other => Err(format!("stream: expected a reservation, got {other:?}")),
    }
}

impl Sent {
    fn answered(&mut self, number: u64) -> Option<(Instant, Instant)> {
        let at = number.checked_sub(self.first)? as usize;
        let times = self.times.get_mut(at)?.take()?;
        self.unanswered -= 1;
        while let Some(None) = self.times.front() {
            self.times.pop_front();
            self.first += 1;
        }
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_the_request_under_an_id_of_its_own() {
        let line = Line::at("SKU", "here", 1);
        let ttl = prost_types::Duration::default();
        let request = calls::reserve(vec![line], ttl);
        let unnamed = Unnamed(request.encode_to_vec().into());
        let [first, second] = [(); 2].map(|()| ReserveRequest::decode(unnamed.named()));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_ne!(first.request_id, second.request_id);
        assert!(Uuid::parse_str(&first.request_id).is_ok());
        let request_id = first.request_id.clone();
        let named = ReserveRequest {
            request_id,
            ..request
        };
        assert_eq!(first, named);
    }
}
