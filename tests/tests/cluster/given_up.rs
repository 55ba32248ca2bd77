//! Calls that their callers gave up: they cost nobody else anything, on the same connection or
//! another one. A client that resets calls for no reason is disconnected.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use stock_client::Client;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    BatchReserveRequest, ReserveRequest, ReserveStreamRequest, batch_reserve_result,
    reserve_stream_result,
};
use tests::cluster::{Cluster, Options};
use tests::raw::reset_at_once;
use tests::stock::{fresh_location, held, receive, reserve};
use tests::wait::finish;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// Calls that will not be waited for, and as many that will.
const CALLS: usize = 60;

/// The deadline of those...
const SHORT: Duration = Duration::from_millis(300);
/// ...and of these.
const LONG: Duration = Duration::from_secs(20);

/// Everything is over within this, deadlines included.
const OVER_WITHIN: Duration = Duration::from_secs(60);

/// Answers to calls that were given up before they came.
const LATE_ANSWERS_MAX: usize = 1024 * 1024;

struct Shop {
    cluster: Cluster,
    client: Client,
    location: String,
    node: u64,
    stub: ReservationServiceClient<Channel>,
}

const SKU: &str = "given-up";

impl Shop {
    /// With one connection to the node that leads the only shard.
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
        // As the client of a shop has it: an answer that comes after its call was given up is not
        // held against the node.
        let channel = Endpoint::from_shared(cluster.endpoint(node)).unwrap();
        let channel = channel
            .tcp_nodelay(true)
            .http2_max_local_error_reset_streams(LATE_ANSWERS_MAX)
            .connect_lazy();
        let mut stub = ReservationServiceClient::new(channel);
        let warm = stub.reserve(reserve(SKU, &location, 1)).await;
        held(warm.unwrap().into_inner());
        Self {
            cluster,
            client,
            location,
            node,
            stub,
        }
    }

    fn request(&self) -> ReserveRequest {
        reserve(SKU, &self.location, 1)
    }

    /// A call on the connection.
    async fn reserve(&self, within: Duration) -> Result<(), tonic::Status> {
        let mut stub = self.stub.clone();
        let mut request = Request::new(self.request());
        request.set_timeout(within);
        held(stub.reserve(request).await?.into_inner());
        Ok(())
    }

    /// So many calls at once whose deadline comes while the node stands still.
    async fn give_up(&self, calls: usize) {
        let ended = join_all((0..calls).map(|_| self.reserve(SHORT))).await;
        for ended in ended {
            let status = ended.expect_err("answered by a node that stands still");
            let is_late = matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded);
            assert!(is_late, "{status}");
        }
    }
}

#[tokio::test]
async fn calls_that_were_given_up_take_no_others_with_them() {
    let shop = Shop::open().await;
    shop.cluster.pause(shop.node);
    let waiting = join_all((0..CALLS).map(|_| shop.reserve(LONG)));
    let given_up = async {
        shop.give_up(CALLS).await;
        // Together with those before: a second in all.
        tokio::time::sleep(Duration::from_millis(700)).await;
        shop.cluster.resume(shop.node);
    };
    let both = async { tokio::join!(waiting, given_up) };
    let (waited, ()) = finish("the calls", OVER_WITHIN, both).await;
    for waited in waited {
        waited.expect("it had time left");
    }
}

#[tokio::test]
async fn streams_and_batches_go_on_beside_calls_that_were_given_up() {
    let shop = Shop::open().await;
    let (more, messages) = tokio::sync::mpsc::channel::<ReserveStreamRequest>(1);
    let messages = stream::unfold(messages, async |mut messages| {
        Some((messages.recv().await?, messages))
    });
    let message = || ReserveStreamRequest::of(&[shop.request()]);
    more.send(message()).await.unwrap();
    let answers = shop.stub.clone().reserve_stream(Box::pin(messages)).await;
    let mut answers = answers.unwrap().into_inner();
    let mut answered = async || {
        let answer = finish("a stream's answer", OVER_WITHIN, answers.message()).await;
        let mut answer = answer.expect("the stream goes on").expect("an answer");
        let result = answer.results.pop().and_then(|result| result.result);
        let is_held = !matches!(result, None | Some(reserve_stream_result::Result::Error(_)));
        assert!(is_held, "{result:?}");
    };
    answered().await;

    shop.cluster.pause(shop.node);
    more.send(message()).await.unwrap();
    let mut stub = shop.stub.clone();
    let requests = (0..10).map(|_| shop.request()).collect();
    let batch = stub.batch_reserve(BatchReserveRequest { requests });
    let given_up = async {
        shop.give_up(CALLS).await;
        shop.cluster.resume(shop.node);
    };
    let both = async { tokio::join!(batch, given_up) };
    let (batch, ()) = finish("the batch", OVER_WITHIN, both).await;
    let batch = batch.expect("nobody gave it up").into_inner();
    for result in batch.results {
        let is_held = matches!(
            result.result,
            Some(batch_reserve_result::Result::Response(_))
        );
        assert!(is_held, "{result:?}");
    }
    answered().await;
    more.send(message()).await.unwrap();
    answered().await;
}

/// Five seconds at 5,000 a second.
const STALLED: usize = 25_000;
/// As many as one connection may have under way.
const AT_A_TIME: usize = 4_000;

#[tokio::test]
async fn a_stall_under_load_takes_no_calls_with_it_that_have_time_left() {
    let shop = Shop::open().await;
    shop.cluster.pause(shop.node);
    let waiting = join_all((0..CALLS).map(|_| shop.reserve(2 * LONG)));
    let given_up = async {
        for _ in 0..STALLED.div_ceil(AT_A_TIME) {
            shop.give_up(AT_A_TIME - CALLS).await;
        }
        shop.cluster.resume(shop.node);
    };
    let both = async { tokio::join!(waiting, given_up) };
    let (waited, ()) = finish("the calls", 2 * OVER_WITHIN, both).await;
    for waited in waited {
        waited.expect("it had time left");
    }
}

#[tokio::test]
async fn the_client_of_a_shop_rides_out_a_pause_on_the_connections_it_has() {
    let shop = Shop::open().await;
    let impatient = shop.cluster.client_builder().attempt_timeout(SHORT);
    let impatient = impatient.connect().await.unwrap();
    held(impatient.reserve(shop.request()).await.unwrap());
    let (more, requests) = tokio::sync::mpsc::channel::<ReserveRequest>(1);
    let requests = stream::unfold(requests, async |mut requests| {
        Some((requests.recv().await?, requests))
    });
    let mut stream = std::pin::pin!(shop.client.reserve_stream(Box::pin(requests)));
    more.send(shop.request()).await.unwrap();
    let answer = finish("the stream's answer", OVER_WITHIN, stream.next()).await;
    held(answer.expect("an answer").1.unwrap());

    shop.cluster.pause(shop.node);
    more.send(shop.request()).await.unwrap();
    let calls = join_all((0..CALLS).map(|_| impatient.reserve(shop.request())));
    let resumed = async {
        shop.give_up(CALLS).await;
        shop.cluster.resume(shop.node);
    };
    let both = async { tokio::join!(calls, resumed) };
    let (calls, ()) = finish("the calls", OVER_WITHIN, both).await;
    for call in calls {
        held(call.expect("tried again until it was answered"));
    }
    let answer = finish("the stream's answer", OVER_WITHIN, stream.next()).await;
    held(answer.expect("an answer").1.unwrap());
}

/// Far more than any stall leaves.
const RESETS_MAX: usize = 400_000;

#[tokio::test]
async fn a_flood_of_resets_is_ended_and_others_notice_nothing() {
    let shop = Shop::open().await;
    let address = shop.cluster.address(shop.node);
    let flood = reset_at_once(&address, RESETS_MAX);
    let calls = async {
        for _ in 0..CALLS {
            shop.reserve(LONG).await.expect("on another connection");
        }
    };
    let both = async { tokio::join!(flood, calls) };
    let (resets, ()) = finish("the flood", OVER_WITHIN, both).await;
    let resets = resets.expect("the flood was not ended");
    eprintln!("ended after {resets} resets");
    shop.reserve(LONG).await.unwrap();
}
