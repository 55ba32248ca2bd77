//! Baskets over several shards of which one has no quorum: they are refused in time, what the
//! others hold of them goes back, and when the quorum is there again the repeated request decides.

use std::time::Duration;

use stock_client::Client;
use stock_proto::stock::admin::v1::ShardStatus;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{ErrorReason, ReserveRequest};
use tests::cluster::{Cluster, Options};
use tests::names::{request_id, sku_in};
use tests::operator::Operator;
use tests::stock::{fresh_location, held, line, position, receive, reservation, reserve, seconds};
use tests::wait::until;
use tokio::time::Instant;
use tonic::{Code, Request};

const SHARDS: u32 = 8;
const ALL: [u64; 5] = [1, 2, 3, 4, 5];
/// Not as short as the tests' patience, and not as long.
const TTL_SECONDS: i64 = 6;
const DEADLINE: Duration = Duration::from_secs(3);
/// On top of the hold's own time: a sweep, and what home tells the others.
const FREED_WITHIN: Duration = Duration::from_secs(TTL_SECONDS as u64 + 5);
const LED_WITHIN: Duration = Duration::from_secs(30);
const UNITS: i64 = 10;

/// Two nodes without which some shards have no quorum, and others do; and those shards.
struct Split {
    dead: [u64; 2],
    lost: Vec<u32>,
    alive: Vec<u32>,
}

impl Split {
    fn of(groups: &[ShardStatus]) -> Option<Self> {
        let pairs = ALL
            .iter()
            .flat_map(|a| ALL.iter().filter(move |b| a < *b).map(move |b| [*a, *b]));
        let is_lost = |group: &&ShardStatus, dead: [u64; 2]| {
            let replicas = &group.replicas;
            let left = replicas.iter().filter(|it| !dead.contains(&it.node_id));
            left.count() * 2 <= replicas.len()
        };
        pairs
            .filter_map(|dead| {
                let (lost, alive): (Vec<_>, Vec<_>) =
                    groups.iter().partition(|group| is_lost(group, dead));
                let shards = |groups: Vec<&ShardStatus>| {
                    let shards = groups.into_iter().map(|group| group.shard);
                    shards.filter(|shard| *shard < SHARDS).collect()
                };
                let has_catalog = alive.iter().any(|group| group.shard >= SHARDS);
                has_catalog.then(|| Self {
                    dead,
                    lost: shards(lost),
                    alive: shards(alive),
                })
            })
            .find(|split| !split.lost.is_empty() && split.alive.len() > 1)
    }
}

async fn until_free(client: &Client, skus: &[&String], location: &str, within: Duration) {
    until("units that are free again", within, async || {
        for sku in skus {
            let seen = position(client, sku, location).await;
            let reserved = seen.map_err(|error| error.to_string())?.reserved;
            if reserved != 0 {
                return Err(format!("{sku}: {reserved}"));
            }
        }
        Ok(())
    })
    .await;
}

/// The retry is told what has become of the basket. That is up to what its lost shard has in its
/// log: nothing if its leader was among the dead, and else what comes to be committed afterwards.
async fn decided(client: &Client, request: ReserveRequest) {
    match client.reserve(request).await.map(held) {
        Err(error) => assert_eq!(error.reason(), ErrorReason::BasketNotHeld, "{error}"),
        Ok(told) => {
            let is = reservation(client, &told.reservation_id).await.unwrap();
            let open: i64 = is.lines.iter().map(|line| line.open).sum();
            match is.state() {
                // Every shard held its part, and gave it back when its time was over.
                State::Expired => assert_eq!(open, 0, "{is:?}"),
                // Nothing of it was there: it is held now.
                State::Held => assert_eq!(open, 3, "{is:?}"),
                _ => panic!("neither held nor over: {is:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_basket_with_a_shard_without_quorum_is_refused_in_time_and_gives_everything_back() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        spares: 2,
        ..Options::default()
    })
    .await;
    cluster.restart(4);
    cluster.restart(5);
    let client = cluster.client().await;
    let groups = Operator::new(client.clone()).wait_until_settled(&ALL).await;
    let nodes =
        |group: &ShardStatus| -> Vec<u64> { group.replicas.iter().map(|it| it.node_id).collect() };
    let nodes: Vec<_> = groups.iter().map(|it| (it.shard, nodes(it))).collect();
    let split = Split::of(&groups).unwrap_or_else(|| panic!("no two nodes do it: {nodes:?}"));
    let (dead, lost) = (split.dead, split.lost[0]);
    let [one, two] = [split.alive[0], split.alive[1]];

    // Home is the shard of the SKU that is first by name.
    let location = fresh_location(&client).await;
    let [lost_home, first, second, lost_part] = [
        sku_in(lost, SHARDS, "a-lost"),
        sku_in(one, SHARDS, "b-first"),
        sku_in(two, SHARDS, "c-second"),
        sku_in(lost, SHARDS, "d-lost"),
    ];
    for sku in [&lost_home, &first, &second, &lost_part] {
        receive(&client, sku, &location, UNITS).await;
    }
    let basket = |skus: [&String; 3]| ReserveRequest {
        request_id: request_id(),
        lines: skus.iter().map(|sku| line(sku, &location, 1)).collect(),
        ttl: seconds(TTL_SECONDS),
        ..ReserveRequest::default()
    };

    dead.iter().for_each(|node| cluster.kill(*node));
    eprintln!(
        "nodes {dead:?} are dead, and shards {:?} with them",
        split.lost
    );
    for sku in [&first, &second] {
        until("shards with a quorum", LED_WITHIN, async || {
            let mut single = reserve(sku, &location, 1);
            single.ttl = seconds(1);
            let answer = client.reserve(single).await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    until_free(&client, &[&first, &second], &location, FREED_WITHIN).await;

    let edge = ALL.into_iter().find(|node| !dead.contains(node)).unwrap();
    let mut edge = ReservationServiceClient::new(cluster.channel(edge));
    let participant_lost = basket([&first, &second, &lost_part]);
    let home_lost = basket([&lost_home, &first, &second]);
    for request in [&participant_lost, &home_lost] {
        let mut asked = Request::new(request.clone());
        asked.set_timeout(DEADLINE);
        let began = Instant::now();
        let refused = edge
            .reserve(asked)
            .await
            .expect_err("one shard has no quorum");
        let took = began.elapsed();
        eprintln!("after {took:?}: {refused}");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        until_free(&client, &[&first, &second], &location, FREED_WITHIN).await;
    }

    dead.iter().for_each(|node| cluster.restart(*node));
    for request in [participant_lost, home_lost] {
        decided(&client, request).await;
    }
    let all = [&lost_home, &first, &second, &lost_part];
    until_free(&client, &all, &location, FREED_WITHIN).await;
    let anew = client.reserve(basket([&first, &second, &lost_part])).await;
    assert_eq!(held(anew.unwrap()).lines.len(), 3);
}
