//! Overload is refused early, with a hint when to come back; nothing queues without bound.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream;
use stock_client::Client;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    BatchReserveRequest, ReserveRequest, ReserveStreamRequest, batch_reserve_result,
    reserve_stream_result,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::sku_in;
use tests::stock::{fresh_location, held, position, receive, reserve};
use tests::wait::finish;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Commands of one shard that a node lets in at once.
const IN_FLIGHT_MAX: usize = 4_096;

/// Sent in batches, which are let in by the same rule as calls of one reserve.
const IN_BATCHES: usize = 4_000;
const BATCH: usize = 1_000;

/// Sent on a stream to one shard.
const FLOOD: usize = 5_000;

/// Sent beside it to another shard, in each message.
const BESIDE: usize = 10;

/// A stream leaves so many of them to single calls.
const LEFT_FOR_CALLS: usize = 256;

/// Sent one by one, beside the batches.
const ONE_BY_ONE: usize = 1_000;

/// A call that was let in fails when the leader finds that its quorum is gone: after about a
/// second.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// From the moment the others wake until a call is served.
const SERVES_AGAIN_WITHIN: Duration = Duration::from_secs(15);

/// A cluster, with SKUs there is enough of in shards that one node leads.
struct Shop {
    cluster: Cluster,
    client: Client,
    sku: String,
    /// In another shard, if the node leads more than one.
    beside: Option<String>,
    location: String,
    leader: u64,
}

impl Shop {
    async fn open(shards: u32) -> Shop {
        let cluster = Cluster::start(Options {
            shards,
            ..Options::default()
        })
        .await;
        let client = cluster.client().await;
        let location = fresh_location(&client).await;
        let mut leaders = Vec::new();
        for shard in 0..shards {
            leaders.push(cluster.leader_of(shard).await);
        }
        let led_by = |node: u64| {
            let leaders = &leaders;
            (0..shards).filter(move |shard| leaders[*shard as usize] == node)
        };
        let leads = |node: &u64| led_by(*node).count();
        let leader = NODES
            .into_iter()
            .max_by_key(leads)
            .expect("there are nodes");
        let mut skus = Vec::new();
        for shard in led_by(leader).take(2) {
            let sku = sku_in(shard, shards, "flood");
            receive(&client, &sku, &location, 1_000_000).await;
            skus.push(sku);
        }
        let mut skus = skus.into_iter();
        Shop {
            cluster,
            client,
            sku: skus.next().expect("it leads a shard"),
            beside: skus.next(),
            location,
            leader,
        }
    }

    fn reserve(&self) -> ReserveRequest {
        reserve(&self.sku, &self.location, 1)
    }

    fn others(&self) -> impl Iterator<Item = u64> {
        NODES.into_iter().filter(|node| *node != self.leader)
    }

    /// A connection to the leader that stands before the flood.
    async fn stub(&self) -> ReservationServiceClient<Channel> {
        let mut stub = ReservationServiceClient::new(self.cluster.channel(self.leader));
        let warm = stub.reserve(self.reserve()).await;
        held(warm.unwrap().into_inner());
        stub
    }
}

/// Whether this says that there is too much: if so, it must say when to come back.
fn is_refused(status: &Status) -> bool {
    if status.code() != Code::ResourceExhausted {
        return false;
    }
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert_eq!(reason, Some("OVERLOADED"), "{status}");
    let hint = details.retry_info().and_then(|info| info.retry_delay);
    assert!(hint.is_some_and(|delay| !delay.is_zero()), "{status}");
    true
}

/// The error of a call that travelled inside an answer.
fn unpacked(error: &tonic_types::Status) -> Status {
    Status::with_details(
        Code::from_i32(error.code),
        error.message.clone(),
        prost::Message::encode_to_vec(error).into(),
    )
}

#[tokio::test]
async fn what_is_too_much_on_a_stream_is_refused_while_the_rest_waits() {
    // With a shard more than nodes, one of them leads two.
    let shop = Shop::open(NODES.len() as u32 + 1).await;
    let beside = shop.beside.clone().expect("a second shard of the leader");
    let mut stub = shop.stub().await;
    let message = |size: usize| {
        let of_flood = (0..size).map(|_| shop.reserve());
        let of_other = (0..BESIDE).map(|_| reserve(&beside, &shop.location, 1));
        let requests: Vec<ReserveRequest> = of_flood.chain(of_other).collect();
        ReserveStreamRequest::of(&requests)
    };
    const MESSAGE: usize = 500;
    let messages: Vec<_> = (0..FLOOD / MESSAGE).map(|_| message(MESSAGE)).collect();
    let is_beside = |number: u64| number as usize % (MESSAGE + BESIDE) >= MESSAGE;
    shop.others().for_each(|node| shop.cluster.pause(node));

    let answers = stub.reserve_stream(stream::iter(messages)).await;
    let mut answers = answers.unwrap().into_inner();
    let (mut refused, mut let_in) = (Vec::new(), Vec::new());
    while let Some(answer) = finish("answers", ANSWERED_WITHIN, answers.message())
        .await
        .unwrap()
    {
        if let Some(overload) = answer.overload {
            let error = overload.error.expect("there is a reason");
            assert!(is_refused(&unpacked(&error)), "{error:?}");
            assert!(let_in.is_empty(), "refused after {} answers", let_in.len());
            refused.extend(overload.numbers);
        }
        for result in answer.results {
            match result.result {
                Some(reserve_stream_result::Result::Error(error)) => {
                    assert!(!is_refused(&unpacked(&error)), "refused one by one");
                }
                held => panic!("held without a quorum: {held:?}"),
            }
            let_in.push(result.number);
        }
    }
    assert!(!refused.iter().any(|number| is_beside(*number)));
    assert_eq!(refused.len(), FLOOD - (IN_FLIGHT_MAX - LEFT_FOR_CALLS));
    let mut all = [refused, let_in].concat();
    all.sort_unstable();
    let sent = FLOOD / MESSAGE * (MESSAGE + BESIDE);
    assert!(all.into_iter().eq(0..sent as u64), "each is answered once");
}

#[tokio::test]
async fn beyond_its_bound_a_leader_without_quorum_refuses_at_once_and_serves_again_later() {
    let shop = Shop::open(1).await;
    let (mut for_batches, for_singles) = (shop.stub().await, shop.stub().await);
    let others: Vec<u64> = shop.others().collect();
    let Shop {
        cluster,
        client,
        sku,
        location,
        ..
    } = shop;

    let requests: Vec<ReserveRequest> = (0..IN_BATCHES + ONE_BY_ONE)
        .map(|_| reserve(&sku, &location, 1))
        .collect();
    let (batches, singles) = requests.split_at(IN_BATCHES);
    let warm = position(&client, &sku, &location).await.unwrap().reserved;

    others.iter().for_each(|node| cluster.pause(*node));
    let batches = join_all(batches.chunks(BATCH).map(|requests| {
        let requests = requests.to_vec();
        let mut stub = for_batches.clone();
        async move { stub.batch_reserve(BatchReserveRequest { requests }).await }
    }));
    let singles = join_all(singles.iter().map(|request| {
        let mut stub = for_singles.clone();
        async move { stub.reserve(request.clone()).await }
    }));
    let flood = async { tokio::join!(batches, singles) };
    let (batches, singles) = finish("the flood", ANSWERED_WITHIN, flood).await;

    let mut refused = 0;
    let mut let_in = 0;
    let mut judge = |status: Status| match status.code() {
        _ if is_refused(&status) => refused += 1,
        Code::Unavailable => let_in += 1,
        _ => panic!("neither refused nor let in: {status}"),
    };
    for batch in batches {
        for result in batch.unwrap().into_inner().results {
            match result.result {
                Some(batch_reserve_result::Result::Error(error)) => judge(unpacked(&error)),
                held => panic!("held without a quorum: {held:?}"),
            }
        }
    }
    for single in singles {
        let status = single.expect_err("held without a quorum");
        // Retries of gRPC's own go by this one.
        let pushback = status.metadata().contains_key("grpc-retry-pushback-ms");
        assert_eq!(
            pushback,
            status.code() == Code::ResourceExhausted,
            "{status}"
        );
        judge(status);
    }
    eprintln!("{refused} refused at the door, {let_in} let in and not answered");
    assert!(refused >= requests.len() - IN_FLIGHT_MAX, "{refused}");
    assert!(let_in > 0, "nothing was let in");

    others.iter().for_each(|node| cluster.resume(*node));
    let served = finish("a call after the flood", SERVES_AGAIN_WITHIN, async {
        client.reserve(requests[0].clone()).await
    });
    held(served.await.unwrap());
    let warm_batch = BatchReserveRequest {
        requests: vec![requests[0].clone()],
    };
    for_batches.batch_reserve(warm_batch).await.unwrap();

    // Whatever became of those that were let in: repeated, each counts once.
    for requests in requests.chunks(BATCH) {
        let requests = requests.to_vec();
        let again = client.batch_reserve(BatchReserveRequest { requests }).await;
        for result in again.unwrap().results {
            match result.result {
                Some(batch_reserve_result::Result::Response(answer)) => drop(held(answer)),
                error => panic!("not held: {error:?}"),
            }
        }
    }
    let left = position(&client, &sku, &location).await.unwrap();
    assert_eq!(left.reserved, warm + requests.len() as i64);
}
