//! Which node is asked first.

use std::collections::BTreeSet;
use std::time::Duration;

use stock_client::v1::{ConfirmRequest, GetReservationRequest, ReadOptions};

use crate::stub::{SHARD_COUNT, StubCluster, answered_by, reserve_in};

/// A UUIDv7 that carries the shard.
fn reservation_in(shard: u32) -> String {
    format!("0199a1b2-c3d4-7{shard:03x}-8000-0123456789ab")
}

#[tokio::test]
async fn writes_go_straight_to_the_leader() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    for shard in 0..SHARD_COUNT {
        let leader = u64::from(shard % 3) + 1;
        let answer = client.reserve(reserve_in(shard)).await.expect("held");
        assert_eq!(
            answered_by(&answer.header),
            leader,
            "reserve, shard {shard}"
        );

        let confirm = ConfirmRequest {
            reservation_id: reservation_in(shard),
            ..ConfirmRequest::default()
        };
        let answer = client.confirm(confirm).await.expect("confirmed");
        assert_eq!(
            answered_by(&answer.header),
            leader,
            "confirm, shard {shard}"
        );
        assert!(client.leader_channel(shard).is_some());
    }
    assert!(client.leader_channel(SHARD_COUNT).is_none());
    let nodes: Vec<u64> = client.node_channels().iter().map(|(id, _)| *id).collect();
    assert_eq!(nodes, [1, 2, 3]);
}

#[tokio::test]
async fn near_reads_take_turns_and_linearizable_ones_ask_the_leader() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    let mut get = GetReservationRequest {
        reservation_id: reservation_in(4),
        ..GetReservationRequest::default()
    };
    let mut asked = BTreeSet::new();
    for _ in 0..3 {
        let answer = client.get_reservation(get.clone()).await.expect("found");
        asked.insert(answered_by(&answer.header));
    }
    assert_eq!(asked, BTreeSet::from([1, 2, 3]));

    get.read = Some(ReadOptions::linearizable());
    for _ in 0..3 {
        let answer = client.get_reservation(get.clone()).await.expect("found");
        assert_eq!(answered_by(&answer.header), 2);
    }
}

#[tokio::test]
async fn a_planned_hand_over_is_noticed_without_a_failure() {
    let cluster = StubCluster::start().await;
    let client = cluster.client().await;
    cluster.set_leaders(2, |_| 3);
    // Longer than the topology of a client in use may be old.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.reserve(reserve_in(0)).await.expect("forwarded");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = client.reserve(reserve_in(0)).await.expect("held");
    assert_eq!(answered_by(&answer.header), 3);
}

#[tokio::test]
async fn an_unknown_leader_is_reached_through_any_node() {
    let cluster = StubCluster::start().await;
    cluster.set_leaders(1, |_| 0);
    let client = cluster.client().await;
    assert!(client.leader_channel(0).is_none());
    client.reserve(reserve_in(0)).await.expect("forwarded");
}
