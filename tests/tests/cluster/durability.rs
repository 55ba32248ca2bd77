//! What was acknowledged is there, whatever dies.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_client::{Client, Error};
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{
    ConfirmRequest, FulfillRequest, PartialLine, ReleaseRequest, ReserveRequest,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, sku_in};
use tests::stock::{
    adjust, fresh_location, held, line, position, receive, reservation, reserve, sell, warehouse,
};
use tests::wait::until;

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
        location: location.clone(),
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

/// Nodes killed under load, one after the other.
const KILLS: usize = 6;

/// Calls that are answered while a node is down, and again when it is back.
const CALLS_BETWEEN: u64 = 150;

/// For so many calls, an election included.
const CALLS_WITHIN: Duration = Duration::from_secs(30);

const CALLERS: u64 = 12;
const SKUS: usize = 6;
const OPENING: i64 = 1_000_000;
const SEED: u64 = 20_260_301;

#[tokio::test]
async fn every_acknowledged_reservation_is_accounted_for_when_nodes_die_under_load() {
    let cluster = Cluster::start(Options {
        shards: 4,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..SKUS as u32)
        .map(|number| sku_in(number % cluster.shards(), cluster.shards(), "tally"))
        .collect();
    for sku in &skus {
        receive(&client, sku, &location, OPENING).await;
    }
    let tally = Tally::default();

    let callers = join_all((0..CALLERS).map(|caller| {
        let mut random = StdRng::seed_from_u64(SEED + caller);
        let (client, skus, location, tally) = (&client, &skus, &location, &tally);
        async move {
            while !tally.is_over.get() {
                let sku = &skus[random.random_range(0..SKUS)];
                let quantity = random.random_range(1..=3);
                let end = random.random_range(0..4);
                one_order(client, sku, location, quantity, end, tally).await;
            }
        }
    }));
    let chaos = async {
        let mut random = StdRng::seed_from_u64(SEED);
        for _ in 0..KILLS {
            tally.more_calls(CALLS_BETWEEN).await;
            let victim = NODES[random.random_range(0..NODES.len())];
            cluster.kill(victim);
            tally.more_calls(CALLS_BETWEEN).await;
            cluster.restart(victim);
            cluster.wait_until_led().await;
        }
        tally.more_calls(CALLS_BETWEEN).await;
        tally.is_over.set(true);
    };
    tokio::join!(callers, chaos);

    let mut reserved: BTreeMap<String, i64> = BTreeMap::new();
    let mut sold: BTreeMap<String, i64> = BTreeMap::new();
    let orders = tally.orders.take();
    assert!(orders.len() as u64 > KILLS as u64 * CALLS_BETWEEN / 4);
    for order in &orders {
        let found = reservation(&client, &order.id).await.unwrap();
        assert_eq!(found.state(), order.state, "{found:?}");
        assert_eq!(found.lines[0].quantity, order.quantity);
        *reserved.entry(order.sku.clone()).or_default() += found.lines[0].open;
        *sold.entry(order.sku.clone()).or_default() += found.lines[0].fulfilled;
    }
    for sku in &skus {
        let now = position(&client, sku, &location).await.unwrap();
        assert_eq!(now.reserved, reserved[sku], "{sku}");
        assert_eq!(now.on_hand, OPENING - sold[sku], "{sku}");
    }
}

/// What the callers were told.
#[derive(Default)]
struct Tally {
    orders: RefCell<Vec<Order>>,
    calls: Cell<u64>,
    is_over: Cell<bool>,
}

struct Order {
    id: String,
    sku: String,
    quantity: i64,
    state: State,
}

impl Tally {
    fn answered(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    async fn more_calls(&self, count: u64) {
        let target = self.calls.get() + count;
        until("calls under load", CALLS_WITHIN, async || {
            let done = self.calls.get();
            (done >= target)
                .then_some(())
                .ok_or(format!("{done} of {target}"))
        })
        .await;
    }
}

/// An order that ends in one of four ways. With two of three nodes up no call may fail.
async fn one_order(
    client: &Client,
    sku: &str,
    location: &str,
    quantity: i64,
    end: u32,
    tally: &Tally,
) {
    let request = ReserveRequest {
        lines: vec![line(sku, location, quantity)],
        ..Default::default()
    };
    let id = held(client.reserve(request).await.unwrap()).reservation_id;
    tally.answered();
    let mut state = State::Held;
    if end >= 1 {
        state = confirm(client, &id).await.unwrap();
        tally.answered();
    }
    if end >= 2 {
        state = match end {
            2 => fulfill(client, &id, Vec::new()).await.unwrap(),
            _ => release(client, &id).await.unwrap(),
        };
        tally.answered();
    }
    tally.orders.borrow_mut().push(Order {
        id,
        sku: sku.to_owned(),
        quantity,
        state,
    });
}
