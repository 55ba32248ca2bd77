//! Overload is refused early, with a hint when to come back; nothing queues without bound.

use std::time::Duration;

use futures_util::future::join_all;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{BatchReserveRequest, ReserveRequest, batch_reserve_result};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::sku_in;
use tests::stock::{fresh_location, held, position, receive, reserve};
use tests::wait::finish;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Commands of one shard that a node lets in at once.
const IN_FLIGHT_MAX: usize = 4_096;

/// Sent in batches, which are let in by the same rule as calls of one reserve.
const IN_BATCHES: usize = 4_000;
const BATCH: usize = 1_000;

/// Sent one by one, beside the batches.
const ONE_BY_ONE: usize = 1_000;

/// A call that was let in fails when the leader finds that its quorum is gone: after about a second.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// From the moment the others wake until a call is served.
const SERVES_AGAIN_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn beyond_its_bound_a_leader_without_quorum_refuses_at_once_and_serves_again_later() {
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let sku = sku_in(0, cluster.shards(), "flood");
    let location = fresh_location(&client).await;
    receive(&client, &sku, &location, 1_000_000).await;
    let leader = cluster.leader_of(0).await;
    let others = NODES.into_iter().filter(|node| *node != leader);
    let others: Vec<u64> = others.collect();

    let requests: Vec<ReserveRequest> = (0..IN_BATCHES + ONE_BY_ONE)
        .map(|_| reserve(&sku, &location, 1))
        .collect();
    let (batches, singles) = requests.split_at(IN_BATCHES);
    // Connections that stand before the flood.
    let stub = || async {
        let mut stub = ReservationServiceClient::new(cluster.channel(leader));
        let warm = stub.reserve(reserve(&sku, &location, 1)).await.unwrap();
        held(warm.into_inner());
        stub
    };
    let (mut for_batches, for_singles) = (stub().await, stub().await);
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
        Code::ResourceExhausted => {
            let details = status.get_error_details();
            let reason = details.error_info().map(|info| info.reason.as_str());
            assert_eq!(reason, Some("OVERLOADED"), "{status}");
            let hint = details.retry_info().and_then(|info| info.retry_delay);
            assert!(hint.is_some_and(|delay| !delay.is_zero()), "{status}");
            refused += 1;
        }
        Code::Unavailable => let_in += 1,
        _ => panic!("neither refused nor let in: {status}"),
    };
    for batch in batches {
        for result in batch.unwrap().into_inner().results {
            match result.result {
                Some(batch_reserve_result::Result::Error(error)) => judge(Status::with_details(
                    Code::from_i32(error.code),
                    error.message.clone(),
                    prost::Message::encode_to_vec(&error).into(),
                )),
                held => panic!("held without a quorum: {held:?}"),
            }
        }
    }
    for single in singles {
        judge(single.expect_err("held without a quorum"));
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
