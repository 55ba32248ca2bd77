//! Baskets over several shards: one reservation for whoever asks, whatever happens to its shards
//! meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream;
use stock_client::{Client, home_shard};
use stock_proto::stock::v1::batch_reserve_result::Result as Slot;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_stream_result::Result as StreamSlot;
use stock_proto::stock::v1::{
    AmendRequest, BatchReserveRequest, ConfirmRequest, ExtendRequest, FulfillRequest, Line,
    PartialLine, ReleaseRequest, ReserveRequest, ReserveStreamRequest, Shortage, amend_response,
};
use tests::cluster::{Cluster, NODES};
use tests::names::{fresh, request_id, sku_in};
use tests::stock::{
    fresh_location, held, line, listed, outcome, position, receive, reservation, reserve,
};
use tests::wait::until;
use tonic::{Code, Request};

/// Participants are told within milliseconds; what nobody has told is found out within seconds.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// A SKU in each of these shards, in their order and in that of their names, with stock.
async fn stocked(
    cluster: &Cluster,
    client: &Client,
    shards: &[u32],
    units: i64,
) -> (Vec<String>, String) {
    let location = fresh_location(client).await;
    let mut skus = Vec::new();
    for (number, shard) in shards.iter().enumerate() {
        let sku = sku_in(*shard, cluster.shards(), &format!("over-{number}"));
        receive(client, &sku, &location, units).await;
        skus.push(sku);
    }
    (skus, location)
}

fn basket(lines: impl IntoIterator<Item = Line>) -> ReserveRequest {
    ReserveRequest {
        lines: lines.into_iter().collect(),
        ..ReserveRequest::default()
    }
}

/// Of every position, how much is reserved, once everybody has heard of everything.
async fn until_reserved(client: &Client, skus: &[String], location: &str, expected: &[i64]) {
    until("all shards follow", SETTLED_WITHIN, async || {
        let mut found = Vec::new();
        for sku in skus {
            let seen = position(client, sku, location).await;
            found.push(seen.map_err(|error| error.to_string())?.reserved);
        }
        match found == expected {
            true => Ok(()),
            false => Err(format!("{found:?} are reserved")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_basket_over_five_shards_is_one_reservation_for_its_whole_life() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, location) = stocked(&cluster, &client, &[6, 0, 4, 2, 7], 10).await;
    // In another order than that of their names.
    let order = [3, 1, 4, 0, 2];
    let lines = order.map(|at| line(&skus[at], &location, at as i64 + 1));
    let reference = fresh("O");
    let request = ReserveRequest {
        order_reference: Some(reference.clone()),
        request_id: request_id(),
        ..basket(lines.clone())
    };
    let answer = client.reserve(request.clone()).await.unwrap();
    let seen: Vec<u32> = answer
        .header
        .as_ref()
        .unwrap()
        .indexes
        .iter()
        .map(|it| it.shard)
        .collect();
    assert_eq!(seen, [0, 2, 4, 6, 7], "a read after it sees all of it");
    let found = held(answer.clone());
    let names: Vec<&str> = found.lines.iter().map(|line| line.sku.as_str()).collect();
    assert_eq!(names, order.map(|at| skus[at].as_str()));
    let id = found.reservation_id.clone();
    assert_eq!(stock_client::shard_of_reservation(&id), Some(6));
    assert_eq!(home_shard(&lines, cluster.shards()), Some(6));

    // Whoever looks finds it, at once and everywhere.
    assert_eq!(
        reservation(&client, &id).await.unwrap().state(),
        State::Held
    );
    for node in NODES {
        let mut stub = ReservationServiceClient::new(cluster.channel(node));
        let again = stub.reserve(request.clone()).await.unwrap().into_inner();
        assert_eq!(held(again).reservation_id, id, "by node {node}");
    }
    let states: Vec<State> = listed(&client, &reference)
        .await
        .iter()
        .map(|it| it.state())
        .collect();
    assert_eq!(states, [State::Held]);
    until_reserved(&client, &skus, &location, &[1, 2, 3, 4, 5]).await;

    let extend = ExtendRequest {
        reservation_id: id.clone(),
        ttl: tests::stock::seconds(3_600),
        ..ExtendRequest::default()
    };
    client.extend(extend).await.unwrap();
    // Lines move to other shards, and from others, in one step.
    let amend = AmendRequest {
        reservation_id: id.clone(),
        lines: vec![line(&skus[0], &location, 2), line(&skus[4], &location, 7)],
        ..AmendRequest::default()
    };
    let amended = client.amend(amend).await.unwrap();
    let Some(amend_response::Outcome::Reservation(amended)) = amended.outcome else {
        panic!("{amended:?}");
    };
    assert_eq!(amended.lines.len(), 2);
    until_reserved(&client, &skus, &location, &[2, 0, 0, 0, 7]).await;

    let confirm = ConfirmRequest {
        reservation_id: id.clone(),
        ..ConfirmRequest::default()
    };
    client.confirm(confirm).await.unwrap();
    let some = |at: usize, quantity| PartialLine {
        sku: skus[at].clone(),
        location: None,
        quantity,
    };
    let fulfill = FulfillRequest {
        reservation_id: id.clone(),
        lines: vec![some(4, 5), some(0, 1)],
        ..FulfillRequest::default()
    };
    client.fulfill(fulfill).await.unwrap();
    until_reserved(&client, &skus, &location, &[1, 0, 0, 0, 2]).await;
    let release = ReleaseRequest {
        reservation_id: id.clone(),
        ..ReleaseRequest::default()
    };
    client.release(release).await.unwrap();
    until_reserved(&client, &skus, &location, &[0; 5]).await;
    let ended = reservation(&client, &id).await.unwrap();
    assert_eq!(ended.state(), State::Released);
    let on_hand = async |at: usize| {
        position(&client, &skus[at], &location)
            .await
            .unwrap()
            .on_hand
    };
    assert_eq!((on_hand(0).await, on_hand(4).await), (9, 5));
}

/// A bundle is sold as often as its scarcest part is there, and whoever gets none is told which
/// part that is; no other part is kept back for those who got none.
#[tokio::test]
async fn ten_buyers_of_a_bundle_in_three_shards_get_two_and_hear_which_part_is_scarce() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, location) = stocked(&cluster, &client, &[1, 5, 3], 50).await;
    let scarce = sku_in(7, cluster.shards(), "scarce");
    receive(&client, &scarce, &location, 2).await;
    let parts = [&skus[0], &scarce, &skus[2]];
    let buy = async |node: u64| {
        let mut stub = ReservationServiceClient::new(cluster.channel(node));
        let mut call = Request::new(ReserveRequest {
            request_id: request_id(),
            ..basket(parts.map(|sku| line(sku, &location, 1)))
        });
        call.set_timeout(SETTLED_WITHIN);
        outcome(stub.reserve(call).await.unwrap().into_inner())
    };
    let buyers = (0..10).map(|number| buy(NODES[number % NODES.len()]));
    let bought = join_all(buyers).await;
    let (got, short): (Vec<_>, Vec<_>) = bought.into_iter().partition(Result::is_ok);
    assert_eq!((got.len(), short.len()), (2, 8));
    for shortage in short {
        let names = |it: Shortage| {
            it.lines
                .into_iter()
                .map(|line| line.sku)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(shortage.unwrap_err()), [scarce.as_str()]);
    }
    let parts = parts.map(Clone::clone);
    until_reserved(&client, &parts, &location, &[2, 2, 2]).await;
}

#[tokio::test]
async fn one_sku_on_two_lines_of_a_basket_over_shards_is_held_and_given_back_once_each() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, location) = stocked(&cluster, &client, &[2, 6], 5).await;
    let twice = |more| {
        let first = [line(&skus[1], &location, 2), line(&skus[0], &location, 1)];
        basket(first.into_iter().chain([line(&skus[1], &location, more)]))
    };
    let answer = client.reserve(twice(4)).await.unwrap();
    let short = outcome(answer).unwrap_err();
    assert_eq!(
        short.lines.len(),
        1,
        "one position, though two lines: {short:?}"
    );
    assert_eq!(
        (short.lines[0].requested, short.lines[0].reservable),
        (6, 5)
    );
    let found = held(client.reserve(twice(3)).await.unwrap());
    until_reserved(&client, &skus, &location, &[1, 5]).await;
    let release = ReleaseRequest {
        reservation_id: found.reservation_id,
        ..ReleaseRequest::default()
    };
    client.release(release).await.unwrap();
    until_reserved(&client, &skus, &location, &[0, 0]).await;
}

#[tokio::test]
async fn a_basket_has_as_many_lines_as_it_may_over_all_shards_and_no_more() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let shards: Vec<u32> = (0..256).map(|number| number % cluster.shards()).collect();
    let (skus, location) = stocked(&cluster, &client, &shards, 3).await;
    let lines = |skus: &[String]| basket(skus.iter().map(|sku| line(sku, &location, 2)));
    let mut too_many = skus.clone();
    too_many.push(sku_in(0, cluster.shards(), "over"));
    let refused = client.reserve(lines(&too_many)).await.unwrap_err();
    assert!(refused.to_string().contains("257 lines"), "{refused}");
    let found = held(client.reserve(lines(&skus)).await.unwrap());
    assert_eq!(found.lines.len(), 256);
    // All are short by then, and all are named, in their order.
    let short = outcome(client.reserve(lines(&skus)).await.unwrap()).unwrap_err();
    let names: Vec<&String> = short.lines.iter().map(|line| &line.sku).collect();
    assert_eq!(names, skus.iter().collect::<Vec<_>>());
    until_reserved(&client, &skus, &location, &[2; 256]).await;
}

#[tokio::test]
async fn the_same_sku_at_forty_locations_and_another_one_are_held_together() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, home) = stocked(&cluster, &client, &[3, 4], 9).await;
    let mut lines = vec![line(&skus[1], &home, 1)];
    for _ in 0..40 {
        let location = fresh_location(&client).await;
        receive(&client, &skus[0], &location, 1).await;
        lines.push(line(&skus[0], &location, 1));
    }
    let found = held(client.reserve(basket(lines.clone())).await.unwrap());
    assert_eq!(found.lines.len(), 41);
    let short = outcome(client.reserve(basket(lines)).await.unwrap()).unwrap_err();
    assert_eq!(short.lines.len(), 40, "the other SKU is there");
}

#[tokio::test]
async fn batches_and_streams_carry_baskets_over_any_number_of_shards() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, location) = stocked(&cluster, &client, &[0, 1, 2, 3, 4, 5, 6, 7], 40).await;
    // Over one shard, two, ... eight, each ten times: the first SKU is in every one.
    let request = |number: usize| ReserveRequest {
        request_id: request_id(),
        ..basket(
            skus[..=number % 8]
                .iter()
                .map(|sku| line(sku, &location, 1)),
        )
    };
    let reserved = |times: i64| (0..8).map(|at| times * (8 - at)).collect::<Vec<i64>>();
    let batch: Vec<ReserveRequest> = (0..32).map(request).collect();
    let call = BatchReserveRequest {
        requests: batch.clone(),
    };
    let mut stub = ReservationServiceClient::new(cluster.channel(2));
    let answer = stub.batch_reserve(call).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().indexes.len(), 8);
    for (result, request) in answer.results.into_iter().zip(&batch) {
        let Some(Slot::Response(response)) = result.result else {
            panic!("{result:?}");
        };
        assert_eq!(held(response).lines.len(), request.lines.len());
    }
    until_reserved(&client, &skus, &location, &reserved(4)).await;

    // Of the first SKU 8 units are left: the ninth basket is short of it.
    let last: Vec<ReserveRequest> = (0..9).map(request).collect();
    let messages = stream::iter(
        last.chunks(3)
            .map(ReserveStreamRequest::of)
            .collect::<Vec<_>>(),
    );
    let mut answers = stub.reserve_stream(messages).await.unwrap().into_inner();
    let mut results = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        results.extend(answer.results);
    }
    let (mut got, mut short) = (0, Vec::new());
    for result in results {
        let Some(StreamSlot::Response(response)) = result.result else {
            panic!("{result:?}");
        };
        match outcome(response) {
            Ok(_) => got += 1,
            Err(shortage) => short.extend(shortage.lines.into_iter().map(|line| line.sku)),
        }
    }
    assert_eq!((got, short), (8, vec![skus[0].clone()]));
}

#[tokio::test]
async fn a_request_id_used_before_for_a_basket_with_other_lines_is_refused() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, location) = stocked(&cluster, &client, &[5, 2, 1], 9).await;
    let request_id = request_id();
    let with = |second: &str| ReserveRequest {
        request_id: request_id.clone(),
        ..basket([line(&skus[0], &location, 1), line(second, &location, 2)])
    };
    held(client.reserve(with(&skus[1])).await.unwrap());
    let mut stub = ReservationServiceClient::new(cluster.channel(1));
    let refused = stub.reserve(with(&skus[2])).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    until_reserved(&client, &skus, &location, &[1, 2, 0]).await;
}

/// Whoever hangs up, at any moment, has either a basket that is held as a whole, or none; and the
/// retry is told which.
#[tokio::test]
async fn a_basket_whose_caller_hangs_up_in_the_middle_is_held_as_a_whole_or_not_at_all() {
    const CALLS: u64 = 60;
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, location) = stocked(&cluster, &client, &[7, 3, 0, 4], 30).await;
    let calls = (0..CALLS).map(async |number| {
        let request = ReserveRequest {
            request_id: request_id(),
            ..basket(skus.iter().map(|sku| line(sku, &location, 1)))
        };
        let mut stub = ReservationServiceClient::new(cluster.channel(1 + number % 3));
        let call = stub.reserve(request.clone());
        let patience = Duration::from_micros(300 * number);
        drop(tokio::time::timeout(patience, call).await);
        request
    });
    let requests = join_all(calls).await;
    let mut got = 0;
    for request in requests {
        got += i64::from(outcome(client.reserve(request).await.unwrap()).is_ok());
    }
    until_reserved(&client, &skus, &location, &[got; 4]).await;
    assert_eq!(got, 30, "as many as there are");
}

#[tokio::test]
async fn a_sale_that_takes_what_a_basket_holds_elsewhere_names_the_basket() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (skus, location) = stocked(&cluster, &client, &[1, 6], 1).await;
    let lines = skus.iter().map(|sku| line(sku, &location, 1));
    let found = held(client.reserve(basket(lines)).await.unwrap());
    let verdict = tests::stock::sell(&client, &skus[1], &location, 1).await;
    let endangered = verdict.discrepancy.unwrap().endangered_reservation_ids;
    assert_eq!(endangered, [found.reservation_id]);
    // One that is in one shard alone can take nothing of it.
    let short = outcome(
        client
            .reserve(reserve(&skus[1], &location, 1))
            .await
            .unwrap(),
    );
    assert!(short.is_err());
}
