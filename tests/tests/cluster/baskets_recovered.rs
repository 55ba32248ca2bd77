//! Baskets over several shards, where the shards were recovered with losses.

use std::collections::BTreeMap;
use std::time::Duration;

use stock_client::Client;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{
    ConfirmRequest, FulfillRequest, ReleaseRequest, Reservation, ReserveRequest,
};
use tests::cluster::{Cluster, Options};
use tests::directories::damage_in_log;
use tests::names::{fresh, sku_in};
use tests::stock::{fresh_location, held, line, listed, position, receive};
use tests::wait::until;

use crate::recover::{recover, text};

const SHARDS: u32 = 5;
const BASKETS: usize = 40;
const UNITS: i64 = 1_000;

/// What is open in each shard, of these reservations.
fn open(reservations: &[Reservation]) -> BTreeMap<String, i64> {
    let mut open = BTreeMap::new();
    for line in reservations.iter().flat_map(|it| &it.lines) {
        *open.entry(line.sku.clone()).or_default() += line.open;
    }
    open
}

/// Holds baskets, confirms and fulfils some of them, and releases others, until the last moment.
async fn sell(client: &Client, skus: &[String], location: &str, order: &str) {
    for number in 0..BASKETS {
        let lines = skus.iter().zip(1..);
        let lines = lines.map(|(sku, units)| line(sku, location, units));
        let basket = ReserveRequest {
            lines: lines.collect(),
            order_reference: Some(order.to_owned()),
            ..ReserveRequest::default()
        };
        let id = held(client.reserve(basket).await.unwrap()).reservation_id;
        let reservation_id = id.clone();
        match number % 4 {
            0 => {
                let confirm = ConfirmRequest {
                    reservation_id,
                    ..ConfirmRequest::default()
                };
                client.confirm(confirm).await.unwrap();
                let fulfill = FulfillRequest {
                    reservation_id: id,
                    ..FulfillRequest::default()
                };
                client.fulfill(fulfill).await.unwrap();
            }
            1 => {
                let release = ReleaseRequest {
                    reservation_id,
                    ..ReleaseRequest::default()
                };
                client.release(release).await.unwrap();
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn shards_that_were_recovered_with_losses_agree_again_before_they_sell() {
    let options = Options {
        shards: SHARDS,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..SHARDS)
        .map(|shard| sku_in(shard, SHARDS, "lossy"))
        .collect();
    for sku in &skus {
        receive(&client, sku, &location, UNITS).await;
    }
    let order = fresh("order");
    sell(&client, &skus, &location, &order).await;
    let marker = sku_in(SHARDS - 1, SHARDS, "marker");
    receive(&client, &marker, &location, 1).await;
    sell(&client, &skus, &location, &order).await;
    cluster.kill_all();

    // Node 2 alone is left. The last shard has lost all from the middle on, the others hardly
    // anything.
    damage_in_log(&cluster.data_dir(2), &marker);
    let recovered = recover(&cluster, &[2], &[]);
    let said = text(&recovered);
    assert!(recovered.status.success(), "{said}");
    assert!(said.contains("it would not go on by itself"), "{said}");
    cluster.restart(2);
    cluster.wait_until_led().await;

    let client = cluster.client().await;
    let within = Duration::from_secs(60);
    let left = until("all shards agree", within, async || {
        let left = listed(&client, &order).await;
        let open = open(&left);
        for sku in &skus {
            let seen = position(&client, sku, &location).await;
            let seen = seen.map_err(|error| error.to_string())?;
            let of_homes = open.get(sku).copied().unwrap_or(0);
            if seen.reserved != of_homes {
                return Err(format!(
                    "{sku}: {} reserved, {of_homes} open",
                    seen.reserved
                ));
            }
        }
        Ok(left)
    })
    .await;
    // Where the last shard is their home, the second half is lost. Of the very last ones before
    // that node 2 may not have heard.
    assert!(left.len() > BASKETS / 2, "{} are left", left.len());

    // And it goes on, with those that are open as with new ones.
    for reservation in left.iter().filter(|it| it.state() == State::Held) {
        let release = ReleaseRequest {
            reservation_id: reservation.reservation_id.clone(),
            ..ReleaseRequest::default()
        };
        client.release(release).await.unwrap();
    }
    sell(&client, &skus, &location, &fresh("order")).await;
}
