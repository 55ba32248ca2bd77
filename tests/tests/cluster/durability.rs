//! What was acknowledged is there, whatever dies.
//!
//! After the last kill under load, what every node left on its disk is read to the last byte with
//! `stockd inspect --verify`: logs, checkpoints and the states that they make, which are equal at
//! equal indexes, and ledgers without a gap that begin where every other node's does.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_client::{Client, Error};
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{ConfirmRequest, FulfillRequest, PartialLine, ReleaseRequest};
use tests::cluster::{Cluster, NODES, Options};
use tests::inspection::verify_what_is_left;
use tests::names::{fresh, sku_in};
use tests::settings;
use tests::shop::Shop;
use tests::stock::{
    adjust, fresh_location, held, position, receive, reservation, reserve, sell, warehouse,
};

async fn confirm(client: &Client, id: &str) -> Result<State, Error> {
    let request = ConfirmRequest {
        reservation_id: id.to_owned(),
        ..Default::default()
    };
    Ok(state(client.confirm(request).await?.reservation))
}

async fn fulfill(client: &Client, id: &str, lines: Vec<PartialLine>) -> Result<State, Error> {
    let request = FulfillRequest {
        reservation_id: id.to_owned(),
        lines,
        ..Default::default()
    };
    Ok(state(client.fulfill(request).await?.reservation))
}

async fn release(client: &Client, id: &str) -> Result<State, Error> {
    let request = ReleaseRequest {
        reservation_id: id.to_owned(),
        ..Default::default()
    };
    Ok(state(client.release(request).await?.reservation))
}

fn state(reservation: Option<stock_proto::stock::v1::Reservation>) -> State {
    reservation.map_or(State::Unspecified, |reservation| reservation.state())
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_death_of_all_three_nodes() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let sku = sku_in(0, cluster.shards(), "survivor");
    let die = async || {
        cluster.kill_all();
        NODES.into_iter().for_each(|node| cluster.restart(node));
        cluster.wait_until_led().await;
    };
    let stock = async || {
        let now = position(&client, &sku, &location).await.unwrap();
        (now.on_hand, now.reserved)
    };
    let state_of = async |id: &str| reservation(&client, id).await.unwrap().state();

    // Each step is the last thing that was acknowledged before all three nodes die.
    receive(&client, &sku, &location, 100).await;
    die().await;
    assert_eq!(stock().await, (100, 0), "receipt");

    let first = held(client.reserve(reserve(&sku, &location, 10)).await.unwrap());
    let first = first.reservation_id;
    die().await;
    assert_eq!(state_of(&first).await, State::Held);
    assert_eq!(stock().await, (100, 10), "reserve");

    confirm(&client, &first).await.unwrap();
    die().await;
    assert_eq!(state_of(&first).await, State::Confirmed);

    let part = PartialLine {
        sku: sku.clone(),
        location: Some(location.clone()),
        quantity: 4,
    };
    fulfill(&client, &first, vec![part]).await.unwrap();
    die().await;
    assert_eq!(state_of(&first).await, State::Confirmed);
    assert_eq!(stock().await, (96, 6), "part of a fulfilment");

    fulfill(&client, &first, Vec::new()).await.unwrap();
    die().await;
    assert_eq!(state_of(&first).await, State::Fulfilled);
    assert_eq!(stock().await, (90, 0), "fulfilment");

    let request = reserve(&sku, &location, 5);
    let second = held(client.reserve(request.clone()).await.unwrap()).reservation_id;
    die().await;
    let again = held(client.reserve(request).await.unwrap()).reservation_id;
    assert_eq!(again, second, "the memory of requests");
    assert_eq!(stock().await, (90, 5));

    release(&client, &second).await.unwrap();
    die().await;
    assert_eq!(state_of(&second).await, State::Released);
    assert_eq!(stock().await, (90, 0), "release");

    sell(&client, &sku, &location, 1).await;
    die().await;
    assert_eq!(stock().await, (89, 0), "sale");

    adjust(&client, &sku, &location, 11).await;
    die().await;
    assert_eq!(stock().await, (100, 0), "adjustment");

    let new_location = fresh("wh");
    client.put_location(warehouse(&new_location)).await.unwrap();
    die().await;
    let known = client.list_locations().await.unwrap().locations;
    let mut known = known.iter().map(|location| location.location_id.as_str());
    assert!(known.any(|id| id == new_location), "location");
}

/// Nodes killed one after the other in a short run, and all at once.
const KILLS: u64 = 5;
const KILLS_OF_ALL: u64 = 2;

/// Calls that are answered while a node is down, and again when it is back.
const CALLS_BETWEEN: u64 = 80;

const SEED: u64 = 20_260_301;

/// A long run: `STOCKD_KILLS=200 STOCKD_KILLS_OF_ALL=50 cargo test --release -p tests --test
/// cluster when_nodes_die_under_load`.
#[tokio::test]
async fn every_acknowledged_reservation_is_accounted_for_when_nodes_die_under_load() {
    let kills = settings::number("STOCKD_KILLS", KILLS);
    let (cluster, shop, mut random) = trading().await;
    for kill in 0..kills {
        let trouble = async {
            shop.more_calls(random.random_range(1..=CALLS_BETWEEN))
                .await;
            let victim = NODES[random.random_range(0..NODES.len())];
            eprintln!("kill {kill}: node {victim}");
            cluster.kill(victim);
            shop.more_calls(CALLS_BETWEEN).await;
            cluster.restart(victim);
            cluster.wait_until_led().await;
            shop.more_calls(CALLS_BETWEEN).await;
        };
        shop.trade_during(SEED + kill, trouble).await;
        shop.account_for_new(&cluster).await;
    }
    shop.account_for_all(&cluster).await;
    eprintln!("{kills} kills, {} calls", shop.calls());
    verify_histories(&cluster);
    assert_eq!(shop.failures(), 0, "two nodes of three ran at any time");
}

#[tokio::test]
async fn every_acknowledged_reservation_is_accounted_for_when_all_nodes_die_under_load() {
    let kills = settings::number("STOCKD_KILLS_OF_ALL", KILLS_OF_ALL);
    let (cluster, shop, mut random) = trading().await;
    for kill in 0..kills {
        let trouble = async {
            shop.more_calls(random.random_range(1..=CALLS_BETWEEN))
                .await;
            eprintln!("kill {kill}: all nodes");
            cluster.kill_all();
            NODES.into_iter().for_each(|node| cluster.restart(node));
            cluster.wait_until_led().await;
            shop.more_calls(CALLS_BETWEEN).await;
        };
        shop.trade_during(SEED + kill, trouble).await;
        shop.account_for_new(&cluster).await;
    }
    shop.account_for_all(&cluster).await;
    eprintln!("{kills} kills of all, {} calls", shop.calls());
    verify_histories(&cluster);
}

/// No byte and no history is lost where processes die and disks stay.
fn verify_histories(cluster: &Cluster) {
    let begins = verify_what_is_left(cluster);
    assert_eq!(begins[0].len() as u32, cluster.shards());
    assert!(begins.iter().all(|of| *of == begins[0]), "{begins:?}");
}

async fn trading() -> (Cluster, Shop, StdRng) {
    let cluster = Cluster::start(Options {
        shards: 4,
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    (cluster, shop, StdRng::seed_from_u64(settings::seed(SEED)))
}
