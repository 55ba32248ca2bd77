//! The last units go to as many as there are units, and what lapses comes back.

use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use stock_client::Client;
use stock_proto::stock::v1::ReserveRequest;
use stock_proto::stock::v1::reservation::State;
use tests::cluster::{Cluster, NODES};
use tests::names::fresh;
use tests::stock::{
    fresh_location, held, outcome, position, receive, reservation, reserve, seconds,
};
use tests::wait::{finish, until};

const CLIENTS: usize = 64;
const UNITS: i64 = 1_000;
const SEEDS: u64 = 20;

/// A thousand reservations take a second in a debug build on a busy machine.
const SEED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn sixty_four_clients_fighting_for_the_last_thousand_units_get_exactly_a_thousand() {
    let cluster = Cluster::shared().await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        // Some know every node and route, some send everything to one node that forwards.
        clients.push(match number % 4 {
            0 => cluster.client().await,
            node => Client::connect(&cluster.endpoint(NODES[node - 1]))
                .await
                .unwrap(),
        });
    }
    let location = fresh_location(&clients[0]).await;
    for seed in 0..SEEDS {
        let sku = fresh("last");
        receive(&clients[0], &sku, &location, UNITS).await;
        let mut order: Vec<(usize, &Client)> = clients.iter().enumerate().collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        let fights = order.into_iter().map(|(number, client)| {
            let random = StdRng::seed_from_u64(seed << 32 | number as u64);
            fight(client, &sku, &location, random)
        });
        let won = finish("the fight", SEED_WITHIN, join_all(fights)).await;

        let mut ids: Vec<String> = won.into_iter().flatten().collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len() as i64, UNITS, "seed {seed}");
        let left = position(&clients[0], &sku, &location).await.unwrap();
        assert_eq!(
            (left.on_hand, left.reserved, left.available),
            (UNITS, UNITS, 0),
            "seed {seed}"
        );
    }
}

/// Reserves one unit after the other until there is none, and returns the reservations.
async fn fight(client: &Client, sku: &str, location: &str, mut random: StdRng) -> Vec<String> {
    let mut won = Vec::new();
    loop {
        // Now and then a client hesitates, so that they meet in another order for each seed.
        if random.random_bool(0.1) {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..2_000))).await;
        }
        match outcome(client.reserve(reserve(sku, location, 1)).await.unwrap()) {
            Ok(reservation) => won.push(reservation.reservation_id),
            Err(shortage) => {
                assert_eq!(shortage.lines[0].reservable, 0);
                return won;
            }
        }
    }
}

const HOLDS: i64 = 600;
const CALLERS: usize = 8;

/// The longest hold is 2 s; cluster time may run 1 % slow.
const EXPIRED_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_unit_of_an_expired_hold_comes_back_under_load() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let (lapsing, busy) = (fresh("lapsing"), fresh("busy"));
    receive(&client, &lapsing, &location, HOLDS).await;
    receive(&client, &busy, &location, 1_000_000).await;

    let lapse = async {
        let hold = async |number: i64| {
            let request = ReserveRequest {
                ttl: seconds(1 + number % 2),
                ..reserve(&lapsing, &location, 1)
            };
            held(client.reserve(request).await.unwrap()).reservation_id
        };
        let ids = join_all((0..HOLDS).map(hold)).await;
        // The load goes on: nothing is told to expire, it does.
        until("all holds expired", EXPIRED_WITHIN, async || {
            let left = position(&client, &lapsing, &location).await;
            let left = left.map_err(|e| e.to_string())?;
            assert_eq!(left.on_hand, HOLDS);
            assert_eq!(left.available, HOLDS - left.reserved);
            (left.reserved == 0)
                .then_some(())
                .ok_or(format!("{} are reserved", left.reserved))
        })
        .await;
        ids
    };
    let load = join_all((0..CALLERS).map(|_| async {
        loop {
            client.reserve(reserve(&busy, &location, 1)).await.unwrap();
        }
    }));
    let ids = tokio::select! {
        ids = lapse => ids,
        _ = load => unreachable!("the load never ends"),
    };

    for id in &ids {
        let ended = reservation(&client, id).await.unwrap();
        assert_eq!(ended.state(), State::Expired);
        let line = &ended.lines[0];
        assert_eq!((line.open, line.expired), (0, 1));
    }
    // What came back can be had again.
    let all = reserve(&lapsing, &location, HOLDS);
    held(client.reserve(all).await.unwrap());
}
