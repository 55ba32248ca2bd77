//! Disks that run full: who has room leads, and where nobody has, what keeps holds and states facts
//! is still taken.

use std::time::{Duration, Instant};

use stock_proto::stock::v1::{
    AmendRequest, ExtendRequest, PositionPolicy, ReservationLine, SetPositionPolicyRequest,
};
use tests::cluster::{Cluster, Disks, NODES, Options};
use tests::names::{fresh, request_id};
use tests::operator::Operator;
use tests::shop::Shop;
use tests::stock::{
    adjust, fresh_location, held, line, receive, reservation, reserve, seconds, sell,
};
use tests::wait::until;

use crate::can_mount;

const SEED: u64 = 20_261_130;

/// Too little to take anything in, and plenty for what frees room.
const HARDLY_ANY_BYTES: u64 = 200 * 1024 * 1024;

/// Room is looked at every second and told twice a second; hand-overs are ordered a few at a time;
/// and twice, if the leader of group 0 is the one to go.
const AWAY_WITHIN: Duration = Duration::from_secs(30);

/// Calls that are answered before, meanwhile and afterwards.
const CALLS: u64 = 100;

async fn forgetful() -> Cluster {
    Cluster::start(Options {
        shards: 3,
        disks: Disks::Forgetful { seed: SEED },
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn a_leader_whose_disk_is_nearly_full_hands_over_to_one_that_has_room() {
    if !can_mount() {
        return;
    }
    let cluster = forgetful().await;
    cluster.wait_until_spread().await;
    let shop = Shop::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    let full = cluster.agreed_leaders().await.unwrap()[0];
    let trouble = async {
        shop.more_calls(CALLS).await;
        cluster.disk(full).full(HARDLY_ANY_BYTES);
        let began = Instant::now();
        until("leaders on disks with room", AWAY_WITHIN, async || {
            let leaders = cluster.agreed_leaders().await?;
            let nodes = operator.nodes().await?;
            let said = nodes.iter().filter(|node| node.disk_full);
            let said: Vec<u64> = said.map(|node| node.node_id).collect();
            let is_away = !leaders.contains(&full) && said == [full];
            is_away
                .then_some(())
                .ok_or(format!("{leaders:?}, full: {said:?}"))
        })
        .await;
        eprintln!("node {full} leads nothing after {:?}", began.elapsed());
        let (_, waiting) = operator.groups().await.unwrap();
        assert!(
            waiting
                .iter()
                .any(|text| text.contains("its disk is nearly full")),
            "{waiting:?}"
        );
        shop.more_calls(CALLS).await;
    };
    shop.trade_during(SEED, trouble).await;
    cluster.disk(full).heal();
    shop.account_for_all(&cluster).await;
}

#[tokio::test]
async fn where_no_disk_has_room_what_keeps_holds_and_states_facts_is_taken() {
    if !can_mount() {
        return;
    }
    let cluster = forgetful().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("room"), fresh_location(&client).await);
    receive(&client, &sku, &location, 100).await;
    let mine = held(client.reserve(reserve(&sku, &location, 5)).await.unwrap());
    for node in NODES {
        cluster.disk(node).full(HARDLY_ANY_BYTES);
    }
    let wants = |quantity| AmendRequest {
        request_id: request_id(),
        reservation_id: mine.reservation_id.clone(),
        lines: vec![line(&sku, &location, quantity)],
        ttl: None,
    };
    // The client tries again for as long as it may, and then says what it was told last.
    let is_for_room = |error: &dyn std::fmt::Debug| format!("{error:?}").contains("DISK_FULL");
    until(
        "a refusal for want of room",
        AWAY_WITHIN,
        async || match client.reserve(reserve(&sku, &location, 1)).await {
            Err(error) if is_for_room(&error) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    let error = client.amend(wants(6)).await.unwrap_err();
    assert!(is_for_room(&error), "{error:?}");

    client.amend(wants(2)).await.unwrap();
    let kept = reservation(&client, &mine.reservation_id).await.unwrap();
    assert!(
        matches!(&kept.lines[..], [ReservationLine { open: 2, .. }]),
        "{kept:?}"
    );
    let extend = ExtendRequest {
        request_id: request_id(),
        reservation_id: mine.reservation_id.clone(),
        ttl: seconds(3_600),
    };
    client.extend(extend).await.unwrap();
    sell(&client, &sku, &location, 1).await;
    adjust(&client, &sku, &location, -1).await;
    let policy = SetPositionPolicyRequest {
        request_id: request_id(),
        sku: sku.clone(),
        location: location.clone(),
        policy: Some(PositionPolicy {
            safety_stock: 1,
            backorder_limit: 0,
        }),
        update_mask: None,
    };
    client.set_position_policy(policy).await.unwrap();

    for node in NODES {
        cluster.disk(node).heal();
    }
    until("a reserve once there is room", AWAY_WITHIN, async || {
        let answer = client.reserve(reserve(&sku, &location, 1)).await;
        answer.map(held).map_err(|error| error.to_string())
    })
    .await;
}

/// Full to the last byte: on the leader, on a follower, and on two at once, twice over.
#[tokio::test]
async fn disks_without_a_byte_left_lose_nothing_and_go_on_when_there_is_room() {
    if !can_mount() {
        return;
    }
    let cluster = forgetful().await;
    cluster.wait_until_spread().await;
    let shop = Shop::open(&cluster).await;
    let trouble = async {
        for round in 0..2 {
            let leader = cluster.leader_of(0).await;
            let mut rest = NODES.into_iter().filter(|node| *node != leader);
            let (follower, other) = (rest.next().unwrap(), rest.next().unwrap());
            for full in [vec![leader], vec![follower], vec![leader, other]] {
                shop.more_calls(CALLS).await;
                full.iter().for_each(|node| cluster.disk(*node).full(0));
                if full.len() == 1 {
                    // The others are a quorum.
                    shop.more_calls(CALLS).await;
                }
                full.iter().for_each(|node| cluster.disk(*node).heal());
                eprintln!("round {round}: {full:?} had no room");
                for node in full {
                    if cluster.ended(node).is_some() {
                        cluster.reap(node);
                        cluster.restart(node);
                    }
                }
                cluster.wait_until_led().await;
            }
        }
    };
    shop.trade_during(SEED, trouble).await;
    shop.account_for_all(&cluster).await;
}
