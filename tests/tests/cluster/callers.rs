//! What callers do not end, do not take, and send too much of: it has bounds in bytes and in time,
//! and whoever else calls notices nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use stock_client::Client;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    GetAvailabilityRequest, Line, MovementLine, PositionKey, RecordReceiptsRequest, ReserveRequest,
    ReserveStreamRequest, reserve_stream_result,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, request_id};
use tests::programs::resident_bytes;
use tests::raw::{self, Connection, OpenCall};
use tests::stock::{fresh_location, held, movement, position, receive, reserve};
use tests::wait::{finish, until};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const RESERVE: &str = "/stock.v1.ReservationService/Reserve";
const RESERVE_STREAM: &str = "/stock.v1.ReservationService/ReserveStream";
const GET_AVAILABILITY: &str = "/stock.v1.AvailabilityService/GetAvailability";
const RECORD_RECEIPTS: &str = "/stock.v1.InventoryService/RecordReceipts";

const MIB: u64 = 1024 * 1024;

/// What one connection may hold...
const CONNECTION_BYTES_MAX: u64 = 64 * MIB;
/// ...and what else comes and goes meanwhile.
const ELSE_BYTES_MAX: u64 = 32 * MIB;

/// Calls that are refused are so at once.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Who is silent for ten seconds has lost his call by then.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

/// The calls of somebody else, beside.
const CALLS: usize = 20;
/// Each of them.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);

struct Shop {
    cluster: Cluster,
    client: Client,
    location: String,
    node: u64,
}

const SKU: &str = "beside";

impl Shop {
    async fn open() -> Self {
        let cluster = Cluster::start(Options {
            shards: 1,
            ..Options::default()
        })
        .await;
        let client = cluster.client().await;
        let location = fresh_location(&client).await;
        receive(&client, SKU, &location, 10_000_000).await;
        let node = cluster.leader_of(0).await;
        Self {
            cluster,
            client,
            location,
            node,
        }
    }

    async fn connect(&self) -> Connection {
        Connection::open(&self.cluster.address(self.node)).await
    }

    fn resident(&self) -> u64 {
        resident_bytes(self.cluster.process_id(self.node))
    }

    /// Somebody else reserves. Returns how long the slowest call took.
    async fn others_reserve(&self) -> Duration {
        let mut stub = ReservationServiceClient::new(self.cluster.channel(self.node));
        let mut slowest = Duration::ZERO;
        for _ in 0..CALLS {
            let began = Instant::now();
            let call = stub.reserve(reserve(SKU, &self.location, 1));
            let answer = finish("a call of somebody else", ANSWERED_WITHIN, call).await;
            held(answer.unwrap().into_inner());
            slowest = slowest.max(began.elapsed());
        }
        slowest
    }

    /// Panics where the node has taken more memory than so many connections may have it hold.
    fn check_memory(&self, connections: u64, before: u64) {
        let more = self.resident().saturating_sub(before);
        let more_max = connections * CONNECTION_BYTES_MAX + ELSE_BYTES_MAX;
        assert!(more < more_max, "{} MiB more", more / MIB);
    }
}

fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details.error_info();
    let reason = info.map_or_else(String::new, |info| info.reason.clone());
    (status.code(), reason)
}

/// What becomes of a call for which nobody does anything any more.
async fn told(call: OpenCall) -> (Code, String) {
    let answer = finish("a call that is ended", ENDED_WITHIN, call.answer()).await;
    reason(&answer.expect_err("it was never ended"))
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_by_its_prefix() {
    let cluster = Cluster::shared().await;
    let connection = Connection::open(&cluster.address(NODES[0])).await;
    for path in [RESERVE, RESERVE_STREAM, RECORD_RECEIPTS] {
        for bytes in [4 * 1024 * 1024 + 1, 16 * 1024 * 1024, u32::MAX] {
            let mut call = connection.begin(path, &[], false).await.unwrap();
            call.send(raw::prefix(bytes), false).await.unwrap();
            let answer = finish("a refusal", AT_ONCE, call.answer()).await;
            let status = answer.expect_err("it was taken");
            let expected = (Code::InvalidArgument, "MESSAGE_TOO_LARGE".to_owned());
            assert_eq!(reason(&status), expected, "{path}");
            assert!(status.message().contains(&bytes.to_string()), "{status}");
        }
    }
}

#[tokio::test]
async fn a_call_that_takes_one_message_is_not_carried_out_with_two() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("twice"), fresh_location(&client).await);
    receive(&client, &sku, &location, 2).await;
    let connection = Connection::open(&cluster.address(NODES[0])).await;
    let message = || raw::frame(&reserve(&sku, &location, 1).encode_to_vec());
    for more in [message(), Bytes::from_static(&[0])] {
        let body: Bytes = [message(), more].concat().into();
        let status = connection.call(RESERVE, &[], body).await;
        let status = status.expect_err("two messages were taken");
        let expected = (Code::InvalidArgument, "SEVERAL_MESSAGES".to_owned());
        assert_eq!(reason(&status), expected);
    }
    let position = position(&client, &sku, &location).await;
    assert_eq!(position.unwrap().reserved, 0);
}

/// Messages of the largest size that are begun, of which most comes, and the end never.
const UNENDED: usize = 40;
const COMES_BYTES: usize = 3 * 1024 * 1024;

/// Streams of receipts that never end, and the lines of each.
const STREAMS: usize = 40;
const LINES: usize = 6_000;

#[tokio::test]
async fn what_never_ends_takes_little_memory_and_is_ended() {
    let shop = Shop::open().await;
    let (of_messages, of_streams) = (shop.connect().await, shop.connect().await);
    let before = shop.resident();

    let messages = async {
        let part = Bytes::from(vec![0xfa; COMES_BYTES]);
        let mut calls = Vec::new();
        for _ in 0..UNENDED {
            let call = of_messages.begin(RESERVE, &[], false).await;
            let mut call = call.unwrap();
            // It may be refused before all of it is sent.
            let _ = call.send(raw::prefix(4 * 1024 * 1024), false).await;
            let _ = finish("some of a message", AT_ONCE, call.send(part.clone(), false)).await;
            calls.push(call);
        }
        shop.check_memory(2, before);
        join_all(calls.into_iter().map(told)).await
    };
    let streams = async {
        let line = |number: usize| MovementLine {
            line: number.to_string(),
            ..movement(SKU, &shop.location, 1)
        };
        let message = RecordReceiptsRequest {
            source: None,
            document: fresh("note"),
            lines: (0..LINES).map(line).collect(),
        };
        let message = raw::frame(&message.encode_to_vec());
        let mut calls = Vec::new();
        for _ in 0..STREAMS {
            let call = of_streams.begin(RECORD_RECEIPTS, &[], false).await;
            let mut call = call.unwrap();
            let sent = call.send(message.clone(), false);
            finish("a message", AT_ONCE, sent).await.unwrap();
            calls.push(call);
        }
        shop.check_memory(2, before);
        join_all(calls.into_iter().map(told)).await
    };
    // A byte now and then does not keep a message alive.
    let trickle = async {
        let connection = shop.connect().await;
        let call = connection.begin(RESERVE, &[], false).await;
        let mut call = call.unwrap();
        call.send(raw::prefix(1_000), false).await.unwrap();
        let mut bytes = 0;
        let trickled = async {
            let byte = Bytes::from_static(&[0xfa]);
            while call.send(byte.clone(), false).await.is_ok_and(|all| all) {
                bytes += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        finish("a trickle", ENDED_WITHIN, trickled).await;
        assert!(bytes < 1_000, "it was whole");
        told(call).await
    };
    let (messages, streams, trickle, slowest) =
        tokio::join!(messages, streams, trickle, shop.others_reserve());
    shop.check_memory(2, before);
    let too_slow = (Code::DeadlineExceeded, "REQUEST_TOO_SLOW".to_owned());
    assert_eq!(trickle, too_slow);
    for (what, told) in [("messages", messages), ("streams", streams)] {
        let count = |code: Code, why: &str| {
            let expected = (code, why.to_owned());
            told.iter().filter(|told| **told == expected).count()
        };
        let refused = count(Code::ResourceExhausted, "CALLS_FULL");
        let ended = count(Code::DeadlineExceeded, "REQUEST_TOO_SLOW");
        assert_eq!(refused + ended, told.len(), "{what}: {told:?}");
        assert!(refused > 0 && ended > 0, "{what}: {refused}, {ended}");
        eprintln!("{what}: {refused} refused, {ended} ended");
    }
    eprintln!("others waited {slowest:?} at most");
    // There is room again.
    let request = raw::frame(&reserve(SKU, &shop.location, 1).encode_to_vec());
    for connection in [of_messages, of_streams] {
        let answer = connection.call(RESERVE, &[], request.clone()).await;
        assert!(!answer.unwrap().is_empty());
    }
}

/// Places of one SKU, and how often it is asked for at all of them: twenty thousand items, two
/// mebibytes.
const PLACES: usize = 40;
const KEYS: usize = 500;
/// Questions whose answers nobody takes.
const QUESTIONS: usize = 100;

#[tokio::test]
async fn answers_that_nobody_takes_take_little_memory_and_are_ended() {
    let shop = Shop::open().await;
    let locations = join_all((0..PLACES).map(|_| fresh_location(&shop.client))).await;
    let lines = locations
        .iter()
        .enumerate()
        .map(|(number, location)| MovementLine {
            line: number.to_string(),
            ..movement("everywhere", location, 1)
        });
    let receipt = RecordReceiptsRequest {
        source: None,
        document: fresh("note"),
        lines: lines.collect(),
    };
    shop.client.record_receipts([receipt]).await.unwrap();
    let key = PositionKey::everywhere("everywhere");
    let question = GetAvailabilityRequest {
        keys: vec![key; KEYS],
        ..Default::default()
    };
    let question = raw::frame(&question.encode_to_vec());
    let address = shop.cluster.address(shop.node);
    let before = shop.resident();
    let ask = async |connection: &Connection, headers: &[(&'static str, &str)]| {
        let call = connection.begin(GET_AVAILABILITY, headers, false).await;
        let mut call = call.unwrap();
        call.send(question.clone(), true).await.unwrap();
        // A connection that is ended ends its calls, too.
        let _ = finish("a call that is ended", ENDED_WITHIN, call.reset()).await;
    };
    let late = async |window: u32| {
        let connection = Connection::open_with_window(&address, window).await;
        let deadline = [("grpc-timeout", "2S")];
        join_all((0..QUESTIONS).map(|_| ask(&connection, &deadline))).await;
        shop.check_memory(2, before);
    };
    let silent = async {
        let connection = Connection::open_with_window(&address, 100_000).await;
        ask(&connection, &[]).await;
    };
    // With a window of 1 the transport has a part of each.
    let (.., slowest) = tokio::join!(late(0), late(1), silent, shop.others_reserve());
    eprintln!("others waited {slowest:?} at most");
}

#[tokio::test]
async fn a_stream_of_reserves_ends_at_its_deadline() {
    let shop = Shop::open().await;
    let connection = shop.connect().await;
    let message = ReserveStreamRequest::of(&[reserve(SKU, &shop.location, 1)]);
    let message = raw::frame(&message.encode_to_vec());
    let late = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned());
    for body in [Bytes::new(), message, raw::prefix(100)] {
        let deadline = [("grpc-timeout", "1S")];
        let call = connection.begin(RESERVE_STREAM, &deadline, false).await;
        let mut call = call.unwrap();
        call.send(body, false).await.unwrap();
        let answer = finish("a stream past its deadline", AT_ONCE, call.answer()).await;
        assert_eq!(reason(&answer.expect_err("it goes on")), late);
    }
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_while_its_request_is_waited_for() {
    let cluster = Cluster::shared().await;
    let connection = Connection::open(&cluster.address(NODES[0])).await;
    let late = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned());
    for path in [RESERVE, GET_AVAILABILITY, RECORD_RECEIPTS] {
        let deadline = [("grpc-timeout", "1S")];
        let mut call = connection.begin(path, &deadline, false).await.unwrap();
        call.send(raw::prefix(100), false).await.unwrap();
        let answer = finish("a call past its deadline", AT_ONCE, call.answer()).await;
        assert_eq!(reason(&answer.expect_err("it goes on")), late, "{path}");
    }
}

/// Large baskets that are all decided in one moment: eight kilobytes of answer each.
const BASKETS: usize = 2_000;
const BASKET_LINES: usize = 100;
/// Far more of them than the first two messages of answers have are held before any more is taken.
const DECIDED_MIN: i64 = 1_000;
/// In each message: less than its largest size.
const TOGETHER: usize = 250;
/// Less than an election takes.
const STANDS_STILL_FOR: Duration = Duration::from_millis(600);
const TAKEN_BYTES: u32 = 65_535;

#[tokio::test]
async fn what_is_decided_in_one_moment_comes_in_messages_that_every_caller_takes() {
    let shop = Shop::open().await;
    let skus: Vec<String> = (0..BASKET_LINES)
        .map(|_| fresh(&"basket".repeat(6)))
        .collect();
    let line = |(number, sku): (usize, &String)| MovementLine {
        line: number.to_string(),
        ..movement(sku, &shop.location, BASKETS as i64)
    };
    let receipt = RecordReceiptsRequest {
        source: None,
        document: fresh("note"),
        lines: skus.iter().enumerate().map(line).collect(),
    };
    shop.client.record_receipts([receipt]).await.unwrap();
    let line = |sku: &String| Line::at(sku.clone(), shop.location.clone(), 1);
    let basket = || ReserveRequest {
        request_id: request_id(),
        lines: skus.iter().map(line).collect(),
        ttl: None,
        ..Default::default()
    };
    let messages: Vec<_> = (0..BASKETS / TOGETHER)
        .map(|_| ReserveStreamRequest::of(&(0..TOGETHER).map(|_| basket()).collect::<Vec<_>>()))
        .collect();

    // Through a follower, while its leader stands still: all of it waits. Of the answers a little
    // is taken, until the rest is decided as well.
    let follower = NODES.into_iter().find(|node| *node != shop.node).unwrap();
    let channel = Endpoint::from_shared(shop.cluster.endpoint(follower)).unwrap();
    let channel = channel
        .initial_stream_window_size(TAKEN_BYTES)
        .connect_lazy();
    let mut stub = ReservationServiceClient::new(channel);
    shop.cluster.pause(shop.node);
    let call = stub.reserve_stream(futures_util::stream::iter(messages));
    let resumed = async {
        tokio::time::sleep(STANDS_STILL_FOR).await;
        shop.cluster.resume(shop.node);
        let mut last = (0, Instant::now());
        until(
            "what has been read to be decided",
            ENDED_WITHIN,
            async || {
                let position = position(&shop.client, &skus[0], &shop.location).await;
                let reserved = position.map_err(|error| error.to_string())?.reserved;
                if reserved != last.0 {
                    last = (reserved, Instant::now());
                }
                let is_decided = reserved >= DECIDED_MIN && last.1.elapsed() >= STANDS_STILL_FOR;
                is_decided
                    .then_some(())
                    .ok_or(format!("{reserved} are held"))
            },
        )
        .await;
    };
    let (call, ()) = tokio::join!(call, resumed);
    let mut answers = call.unwrap().into_inner();
    let mut results = 0;
    let all = async {
        while let Some(message) = answers.message().await.expect("a message that is taken") {
            assert!(message.encoded_len() < 3 * 1024 * 1024);
            for result in message.results {
                let is_answer = matches!(
                    result.result,
                    Some(reserve_stream_result::Result::Response(_))
                );
                results += usize::from(is_answer);
            }
        }
    };
    finish("the answers", ENDED_WITHIN, all).await;
    assert_eq!(results, BASKETS);
}
