//! Reads say how new they are, and are.

use std::time::Duration;

use stock_proto::stock::admin::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::admin::v1::{GetAuditRequest, ListShardsRequest};
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{Consistency, GetReservationRequest, ReadOptions, ReserveRequest};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, sku_in};
use tests::stock::{
    adjust, fresh_location, held, position, position_at, position_since, receive, reserve, seconds,
};
use tests::wait::{finish, until};

/// Rounds of writing and reading back.
const ROUNDS: i64 = 100;

/// For all rounds together.
const ROUNDS_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_caller_reads_its_own_writes_at_every_node() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let nodes = NODES.map(|node| cluster.channel(node));
    let (sku, location) = (fresh("own-writes"), fresh_location(&client).await);
    receive(&client, &sku, &location, ROUNDS).await;

    finish("the rounds", ROUNDS_WITHIN, async {
        for round in 1..=ROUNDS {
            let answer = client.reserve(reserve(&sku, &location, 1)).await.unwrap();
            let written = answer.header.unwrap();
            for node in &nodes {
                let seen = position_since(node, &sku, &location, &written)
                    .await
                    .unwrap();
                assert_eq!(seen.reserved, round);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_linearizable_read_at_any_node_sees_every_write_answered_before() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let nodes = NODES.map(|node| cluster.channel(node));
    let (sku, location) = (fresh("linear"), fresh_location(&client).await);
    receive(&client, &sku, &location, ROUNDS).await;

    finish("the rounds", ROUNDS_WITHIN, async {
        for round in 1..=ROUNDS {
            client.reserve(reserve(&sku, &location, 1)).await.unwrap();
            for node in &nodes {
                let seen = position_at(node, &sku, &location).await.unwrap();
                assert_eq!(seen.reserved, round);
                assert_eq!(seen.available, ROUNDS - round);
            }
        }
    })
    .await;
}

/// Reads that wait at the old leader's door while it sleeps.
const READS_AT_THE_DOOR: usize = 20;

const SLEEPS: i64 = 3;

/// A node that comes back serves reads again after it has heard of the new leader.
const SERVES_AGAIN_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_leader_that_was_asleep_never_answers_a_linearizable_read_with_the_past() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let sku = sku_in(0, cluster.shards(), "asleep");
    let location = fresh_location(&client).await;
    receive(&client, &sku, &location, 1_000).await;

    let mut on_hand = 1_000;
    for _ in 0..SLEEPS {
        let leader = cluster.leader_of(0).await;
        let channel = cluster.channel(leader);
        let before = position_at(&channel, &sku, &location).await.unwrap();
        assert_eq!(before.on_hand, on_hand);

        cluster.pause(leader);
        // Each on a connection of its own that stands already on the kernel's side: they are the
        // first thing the leader sees when it wakes, before any peer has told it anything.
        let at_the_door = (0..READS_AT_THE_DOOR).map(|_| {
            let (channel, sku, location) = (channel.clone(), sku.clone(), location.clone());
            tokio::spawn(async move { position_at(&channel, &sku, &location).await })
        });
        let at_the_door: Vec<_> = at_the_door.collect();
        cluster.wait_until_led().await;
        adjust(&client, &sku, &location, -1).await;
        on_hand -= 1;
        cluster.resume(leader);

        for read in at_the_door {
            if let Ok(seen) = read.await.unwrap() {
                assert_eq!(seen.on_hand, on_hand, "the past, from node {leader}");
            }
        }
        until("reads at the old leader", SERVES_AGAIN_WITHIN, async || {
            let read = position_at(&channel, &sku, &location).await;
            let seen = read.map_err(|status| status.to_string())?;
            assert_eq!(seen.on_hand, on_hand, "the past, from node {leader}");
            Ok(())
        })
        .await;
        cluster.wait_until_led().await;
    }
    assert_eq!(
        position(&client, &sku, &location).await.unwrap().on_hand,
        on_hand
    );
}

#[tokio::test]
async fn every_node_tells_what_only_the_leader_of_group_0_knows() {
    let cluster = Cluster::shared().await;
    for node in NODES {
        let mut stub = ClusterServiceClient::new(cluster.channel(node));
        // A leader that was just elected has decided nothing yet.
        until("the node's list of shards", ROUNDS_WITHIN, async || {
            let listed = stub.list_shards(ListShardsRequest::default()).await;
            listed.map_err(|status| status.to_string())
        })
        .await;
        let audit = stub.get_audit(GetAuditRequest::default()).await;
        assert!(audit.is_ok(), "node {node}: {audit:?}");
    }
}

/// A hold's time, less than what passes between two entries of a shard in which nothing happens.
const HELD_FOR_SECONDS: i64 = 8;

/// So much of it is seen to pass for each node and way to ask.
const PASSES_MS: i64 = 250;

/// A message that tells a follower the time may take so much longer than the one before.
const TOLD_LATE_MS: i64 = 200;

#[tokio::test]
async fn the_time_that_a_hold_has_left_passes_at_every_node_while_nothing_happens() {
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("quiet"), fresh_location(&client).await);
    receive(&client, &sku, &location, 1).await;
    let answer = client.reserve(ReserveRequest {
        ttl: seconds(HELD_FOR_SECONDS),
        ..reserve(&sku, &location, 1)
    });
    let answer = answer.await.unwrap();
    let written = answer.header.clone().unwrap();
    let id = held(answer).reservation_id;

    let ask = async |node: u64, consistency: Consistency| {
        let mut stub = ReservationServiceClient::new(cluster.channel(node));
        let asked = stub.get_reservation(GetReservationRequest {
            reservation_id: id.clone(),
            read: Some(match consistency {
                Consistency::Linearizable => ReadOptions::linearizable(),
                _ => ReadOptions::at_least(&written),
            }),
        });
        asked.await.unwrap().into_inner().reservation.unwrap()
    };
    for consistency in [Consistency::Near, Consistency::Linearizable] {
        for node in NODES {
            let (mut first, mut last) = (None, HELD_FOR_SECONDS * 1_000);
            until("time to pass", ROUNDS_WITHIN, async || {
                let reservation = ask(node, consistency).await;
                assert_eq!(reservation.state(), State::Held, "node {node}");
                let left = reservation.expires_in.expect("it expires");
                let left_ms = left.seconds * 1_000 + i64::from(left.nanos) / 1_000_000;
                assert!(
                    (0..=last + TOLD_LATE_MS).contains(&left_ms),
                    "{left_ms} after {last}"
                );
                last = left_ms;
                let passed = *first.get_or_insert(left_ms) - left_ms;
                (passed >= PASSES_MS)
                    .then_some(())
                    .ok_or(format!("node {node} says {left_ms} ms"))
            })
            .await;
        }
    }
    until("the hold to end", ROUNDS_WITHIN, async || {
        let reservation = ask(NODES[0], Consistency::Near).await;
        (reservation.state() == State::Expired)
            .then_some(())
            .ok_or(format!("{:?}", reservation.expires_in))
    })
    .await;
}
