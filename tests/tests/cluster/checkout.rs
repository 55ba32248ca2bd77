//! The checkout of `examples/rust`, killed again and again: every order is held once, and paid for
//! once.

use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{ListReservationsRequest, ReadOptions};
use tests::cluster::Cluster;
use tests::names::{fresh, sku_in};
use tests::programs;
use tests::settings;
use tests::stock::{fresh_location, position, receive};

const ORDERS: u64 = 12;
const SEED: u64 = 20_261_201;
/// A checkout takes some tens of milliseconds: it dies at any of its steps, or not at all.
const DIES_WITHIN_MS: u64 = 60;
const DEATHS_PER_ORDER_MAX: u64 = 3;

#[tokio::test]
async fn an_order_whose_checkout_dies_again_and_again_is_held_and_confirmed_once() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let sku = sku_in(1, cluster.shards(), "checkout");
    receive(&client, &sku, &location, 1_000).await;
    let journal = programs::data_dir();
    let checkout = |order: &str, more: &[&str]| {
        let mut command = Command::new(programs::checkout());
        command
            .args(["--endpoint", &cluster.endpoint(2)])
            .arg("--journal")
            .arg(journal.path())
            .args([order, &format!("{sku}@{location}=2")])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let orders = settings::number("STOCKD_CHECKOUTS", ORDERS);
    let mut random = StdRng::seed_from_u64(settings::seed(SEED));
    let mut deaths = 0;
    let (mut paid, mut declined) = (Vec::new(), Vec::new());
    for number in 0..orders {
        let order = fresh("O");
        let is_declined = number % 4 == 3;
        let more: &[&str] = if is_declined { &["--declined"] } else { &[] };
        for _ in 0..random.random_range(1..=DEATHS_PER_ORDER_MAX) {
            let mut child = checkout(&order, more).spawn().unwrap();
            let lives = Duration::from_millis(random.random_range(0..DIES_WITHIN_MS));
            tokio::time::sleep(lives).await;
            child.kill().unwrap();
            deaths += u64::from(child.wait().unwrap().code().is_none());
        }
        let output = checkout(&order, more).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), !is_declined, "{order}: {told}");
        if is_declined {
            declined.push(order);
        } else {
            paid.push(order);
        }
    }
    for (orders, state) in [(&paid, State::Confirmed), (&declined, State::Released)] {
        for order in orders {
            let request = ListReservationsRequest {
                order_reference: Some(order.clone()),
                read: Some(ReadOptions::linearizable()),
                ..ListReservationsRequest::default()
            };
            let found = client.list_reservations(request).await.unwrap();
            let states: Vec<State> = found.reservations.iter().map(|it| it.state()).collect();
            assert_eq!(states, [state], "{order}");
        }
    }
    let seen = position(&client, &sku, &location).await.unwrap();
    assert_eq!(seen.reserved, 2 * paid.len() as i64);
    eprintln!("{orders} orders, {deaths} checkouts killed before they were done");
}
