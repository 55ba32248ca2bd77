//! Networks and nodes that are half broken, as a checkout sees them through the Rust client: its
//! calls go on, each soon, and no unit is held twice.
//!
//! `cargo test --release -p tests --test cluster half_broken -- --nocapture` prints how many calls
//! a second there were before and during, and the longest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stock_client::v1::{GetReservationRequest, Line, ReserveRequest, reserve_response};
use stock_client::{Client, new_request_id};
use tests::cluster::{Cluster, Links, Options, others};
use tests::holes::Holes;
use tests::names::sku_in;
use tests::network::Network;
use tests::stock::{fresh_location, position, receive};
use tokio::task::JoinHandle;

const TASKS: u32 = 8;
const SHARDS: u32 = 4;
const FOR: Duration = Duration::from_secs(4);

/// What a call may take where the silent node led its shard: until another one leads. The rest is
/// room for a machine with much to do; others are answered in tens of milliseconds, as is printed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);

/// Shoppers that reserve one unit after the other, and look at what they hold.
struct Checkout {
    client: Client,
    location: String,
    /// One of each shard.
    skus: Vec<String>,
    is_over: Arc<AtomicBool>,
    shoppers: Vec<JoinHandle<Vec<Call>>>,
}

/// When a call was answered, and how long it took.
struct Call {
    at: Instant,
    took: Duration,
    shard: u32,
}

impl Checkout {
    async fn open(client: Client) -> Self {
        let location = fresh_location(&client).await;
        let skus = (0..SHARDS).map(|shard| sku_in(shard, SHARDS, "half-broken"));
        let skus: Vec<String> = skus.collect();
        for sku in &skus {
            receive(&client, sku, &location, 1_000_000).await;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let shoppers = (0..TASKS).map(|number| {
            let shard = number % SHARDS;
            let line = Line::at(skus[shard as usize].clone(), location.clone(), 1);
            let client = client.clone();
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                let mut calls = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    calls.extend(shop(&client, &line, shard).await);
                }
                calls
            })
        });
        let shoppers = shoppers.collect();
        Self {
            client,
            location,
            skus,
            is_over,
            shoppers,
        }
    }

    /// Every call there was, when each shard holds what its shoppers were told, and no unit more.
    async fn close(self) -> Vec<Call> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        for shopper in self.shoppers {
            calls.extend(shopper.await.expect("no shopper is refused"));
        }
        let mut reserved: BTreeMap<u32, i64> = BTreeMap::new();
        for call in &calls {
            // Of each two calls one was a reserve.
            *reserved.entry(call.shard).or_default() += 1;
        }
        for (shard, twice) in reserved {
            let seen = position(&self.client, &self.skus[shard as usize], &self.location)
                .await
                .unwrap();
            assert_eq!(seen.reserved * 2, twice, "shard {shard}");
        }
        calls
    }
}

async fn shop(client: &Client, line: &Line, shard: u32) -> [Call; 2] {
    let began = Instant::now();
    let request = ReserveRequest {
        request_id: new_request_id(),
        lines: vec![line.clone()],
        ..ReserveRequest::default()
    };
    let answer = client.reserve(request).await.expect("held");
    let Some(reserve_response::Outcome::Reservation(held)) = answer.outcome else {
        panic!("there is enough");
    };
    let reserved = Instant::now();
    let get = GetReservationRequest {
        reservation_id: held.reservation_id,
        read: Some(stock_client::v1::ReadOptions::at_least(
            answer.header.as_ref().expect("each answer has one"),
        )),
    };
    client.get_reservation(get).await.expect("found");
    let call = |from: Instant, at: Instant| Call {
        at,
        took: at - from,
        shard,
    };
    [call(began, reserved), call(reserved, Instant::now())]
}

/// Calls a second, and the longest one, of those that began and were answered between.
fn between(calls: &[Call], from: Instant, to: Instant) -> (f64, Duration) {
    let is_between = |call: &&Call| call.at - call.took >= from && call.at <= to;
    let during = calls.iter().filter(is_between);
    let took: Vec<Duration> = during.map(|call| call.took).collect();
    let rate = took.len() as f64 / (to - from).as_secs_f64();
    (rate, took.into_iter().max().unwrap_or_default())
}

/// A checkout before and during trouble: how long calls took at most.
async fn lives_through(what: &str, client: Client, begin: impl FnOnce()) -> Duration {
    let checkout = Checkout::open(client).await;
    let opened = Instant::now();
    tokio::time::sleep(FOR).await;
    let broken = Instant::now();
    begin();
    tokio::time::sleep(FOR).await;
    let ended = Instant::now();
    let calls = checkout.close().await;
    let (before, longest_before) = between(&calls, opened, broken);
    let (during, longest) = between(&calls, broken, ended);
    let later = broken + FOR / 2;
    let (late, longest_late) = between(&calls, later, ended);
    eprintln!(
        "{what}: {before:.0} calls/s, longest {longest_before:?}; during {during:.0}, {longest:?}; \
         later {late:.0}, {longest_late:?}"
    );
    assert!(
        late > before / 10.0,
        "{late:.0} of {before:.0} calls a second"
    );
    let under_way = calls.iter().filter(|call| call.at >= broken);
    under_way.map(|call| call.took).max().unwrap_or_default()
}

fn options(links: Links) -> Options {
    Options {
        shards: SHARDS,
        links,
        ..Options::default()
    }
}

#[tokio::test]
async fn a_link_between_two_nodes_costs_a_checkout_nothing() {
    if let Some(why) = Network::unavailable() {
        eprintln!("SKIPPED: no network was broken: {why}");
        return;
    }
    let cluster = Cluster::start(options(Links::Breakable)).await;
    cluster.wait_until_spread().await;
    let leader = cluster.leader_of(0).await;
    let follower = others(leader)[0];
    let what = "a cut link from a follower to a leader";
    let longest = lives_through(what, cluster.client().await, || {
        cluster.network().block(follower, leader);
    })
    .await;
    cluster.network().heal();
    assert!(longest < ANSWERED_WITHIN, "{longest:?}");
}

#[tokio::test]
async fn a_leader_out_of_reach_and_a_link_between_nodes_cost_a_checkout_the_calls_under_way() {
    if let Some(why) = Network::unavailable() {
        eprintln!("SKIPPED: no network was broken: {why}");
        return;
    }
    let cluster = Cluster::start(options(Links::Breakable)).await;
    cluster.wait_until_spread().await;
    let leader = cluster.leader_of(0).await;
    let follower = others(leader)[0];
    let holes = Holes::default();
    let own = holes.clone();
    let client = cluster
        .client_builder()
        .connector(move |endpoint| own.channel(&endpoint))
        .connect()
        .await
        .unwrap();
    let what = "a leader out of the client's reach, and a cut link from a follower to it";
    let longest = lives_through(what, client, || {
        cluster.network().block(follower, leader);
        holes.swallow(&cluster.address(leader));
    })
    .await;
    cluster.network().heal();
    assert!(longest < ANSWERED_WITHIN, "{longest:?}");
}

#[tokio::test]
async fn a_node_that_stands_still_costs_a_checkout_the_calls_under_way() {
    let cluster = Cluster::start(options(Links::Loopback)).await;
    cluster.wait_until_spread().await;
    let leader = cluster.leader_of(0).await;
    let what = "a leader that stands still";
    let longest = lives_through(what, cluster.client().await, || cluster.pause(leader)).await;
    cluster.resume(leader);
    assert!(longest < ANSWERED_WITHIN, "{longest:?}");
}
