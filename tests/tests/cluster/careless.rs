//! Callers as they are: they drop calls, set deadlines of their own, leave streams, and end with
//! calls under way. They have kept their request ids, ask again, and no unit is held twice or lost.
//!
//! A long run: `STOCKD_CALLS=100000 cargo test --release -p tests --test cluster careless --
//! --nocapture`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_client::v1::ReserveRequest;
use stock_client::{CallOptions, Client};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::sku_in;
use tests::settings;
use tests::stock::{fresh_location, held, position, receive, reserve};
use tokio::runtime::Runtime;

const CALLS: u64 = 2_000;
const SEED: u64 = 20_261_202;
const SHARDS: u32 = 4;
/// Programs at once, each a thread with a runtime and a client of its own.
const PROGRAMS: u64 = 4;
/// Calls of one program at once.
const TASKS: usize = 16;
/// A call is dropped, or has its deadline, within this: about what one takes.
const GIVEN_UP_WITHIN_MS: u64 = 20;
/// Requests of a stream.
const STREAMED: usize = 40;
/// A program asks again until it has an answer, and has one within this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// What programs have kept: orders by their request id, with what each asks for.
type Kept = Vec<ReserveRequest>;

/// What all programs share.
struct Shop {
    endpoints: Vec<String>,
    /// One in each shard.
    skus: Vec<String>,
    location: String,
    calls: AtomicU64,
    calls_max: u64,
}

/// A program's life: it makes orders until it dies with some of them under way, and its next life
/// goes on with what was kept. Returns what is held, by request id.
fn live(shop: &Shop, seed: u64) -> BTreeMap<String, (String, i64)> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut settled = BTreeMap::new();
    let mut kept = Kept::new();
    while shop.calls.load(Ordering::Relaxed) < shop.calls_max {
        let runtime = runtime();
        runtime.block_on(async {
            let client = client(shop).await;
            settle(shop, &client, &mut kept, &mut settled).await;
            for _ in 0..random.random_range(1..4) {
                be_careless(shop, &client, &mut kept, &mut random).await;
                settle(shop, &client, &mut kept, &mut settled).await;
            }
            // And dies with these under way.
            be_careless(shop, &client, &mut kept, &mut random).await;
            for request in orders(shop, &mut kept, &mut random, TASKS) {
                let client = client.clone();
                tokio::spawn(async move { client.reserve(request).await });
            }
            shop.calls.fetch_add(TASKS as u64, Ordering::Relaxed);
            let dies_in = Duration::from_millis(random.random_range(0..GIVEN_UP_WITHIN_MS));
            tokio::time::sleep(dies_in).await;
        });
        runtime.shutdown_background();
    }
    runtime().block_on(async {
        let client = client(shop).await;
        settle(shop, &client, &mut kept, &mut settled).await;
    });
    settled
}

/// As a program of one thread has it.
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

async fn client(shop: &Shop) -> Client {
    let endpoints = shop.endpoints.iter();
    let builder = endpoints.fold(Client::builder(), |builder, it| {
        builder.endpoint(it.clone())
    });
    builder.connect_lazy().unwrap()
}

/// Orders that are kept before their calls.
fn orders(shop: &Shop, kept: &mut Kept, random: &mut StdRng, count: usize) -> Vec<ReserveRequest> {
    let made = (0..count).map(|_| {
        let sku = &shop.skus[random.random_range(0..shop.skus.len())];
        reserve(sku, &shop.location, random.random_range(1..4))
    });
    let made: Vec<_> = made.collect();
    kept.extend(made.iter().cloned());
    made
}

/// Makes calls that are not waited for as long as they may take.
async fn be_careless(shop: &Shop, client: &Client, kept: &mut Kept, random: &mut StdRng) {
    let made = orders(shop, kept, random, TASKS);
    let calls = made.into_iter().map(|request| {
        let within = Duration::from_millis(random.random_range(1..GIVEN_UP_WITHIN_MS));
        let is_dropped = random.random_bool(0.5);
        async move {
            if is_dropped {
                let _ = tokio::time::timeout(within, client.reserve(request)).await;
            } else {
                let hurried = client.with(CallOptions::new().timeout(within));
                let _ = hurried.reserve(request).await;
            }
        }
    });
    futures_util::future::join_all(calls).await;
    let streamed = orders(shop, kept, random, STREAMED);
    let taken = random.random_range(0..STREAMED);
    let answers = client.reserve_stream(stream::iter(streamed)).take(taken);
    let _: Vec<_> = answers.collect().await;
    shop.calls
        .fetch_add((TASKS + STREAMED) as u64, Ordering::Relaxed);
}

/// Asks again with the ids that were kept, twice: the answer is the same.
async fn settle(
    shop: &Shop,
    client: &Client,
    kept: &mut Kept,
    settled: &mut BTreeMap<String, (String, i64)>,
) {
    let patient = client.with(CallOptions::new().timeout(ANSWERED_WITHIN));
    let calls = std::mem::take(kept).into_iter().map(|request| {
        let client = patient.clone();
        async move {
            let reservation = held(client.reserve(request.clone()).await.expect("answered"));
            let again = held(client.reserve(request.clone()).await.expect("answered"));
            assert_eq!(reservation.reservation_id, again.reservation_id);
            let units = request.lines.iter().map(|line| line.quantity).sum::<i64>();
            (request.request_id, (reservation.reservation_id, units))
        }
    });
    let answered: Vec<_> = stream::iter(calls).buffer_unordered(TASKS).collect().await;
    shop.calls
        .fetch_add(2 * answered.len() as u64, Ordering::Relaxed);
    settled.extend(answered);
}

/// Kills and stops nodes, one after the other, until told that it is over.
async fn trouble(cluster: &Cluster, is_over: &AtomicBool) -> u64 {
    let mut troubles = 0;
    for node in NODES.into_iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        match troubles % 2 {
            0 => {
                cluster.kill(node);
                tokio::time::sleep(Duration::from_millis(500)).await;
                cluster.restart(node);
            }
            _ => {
                cluster.pause(node);
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                cluster.resume(node);
            }
        }
        troubles += 1;
        if !is_over.load(Ordering::Relaxed) {
            cluster.wait_until_spread().await;
        }
    }
    troubles
}

#[tokio::test]
async fn whoever_gives_up_dies_and_asks_again_has_each_order_held_once() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        ..Options::default()
    })
    .await;
    cluster.wait_until_spread().await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus = (0..SHARDS).map(|shard| sku_in(shard, SHARDS, "careless"));
    let skus: Vec<_> = skus.collect();
    for sku in &skus {
        receive(&client, sku, &location, 100_000_000).await;
    }
    let shop = Arc::new(Shop {
        endpoints: NODES.iter().map(|node| cluster.endpoint(*node)).collect(),
        skus,
        location: location.clone(),
        calls: AtomicU64::new(0),
        calls_max: settings::number("STOCKD_CALLS", CALLS),
    });
    let seed = settings::seed(SEED);
    let is_over = AtomicBool::new(false);
    let programs = async {
        let programs = (0..PROGRAMS).map(|program| {
            let shop = Arc::clone(&shop);
            tokio::task::spawn_blocking(move || live(&shop, seed + program))
        });
        let lives = futures_util::future::join_all(programs.collect::<Vec<_>>()).await;
        is_over.store(true, Ordering::Relaxed);
        lives
    };
    let (lives, troubles) = tokio::join!(programs, trouble(&cluster, &is_over));

    let (mut orders, mut units) = (0, 0);
    let mut ids = std::collections::BTreeSet::new();
    for settled in lives {
        for (reservation_id, held) in settled.expect("a program").into_values() {
            orders += 1;
            units += held;
            assert!(ids.insert(reservation_id), "one hold for two orders");
        }
    }
    let mut reserved = 0;
    for sku in &shop.skus {
        reserved += position(&client, sku, &location).await.unwrap().reserved;
    }
    let calls = shop.calls.load(Ordering::Relaxed);
    eprintln!("{calls} calls, {orders} orders, {troubles} nodes killed or stopped");
    assert_eq!(
        reserved, units,
        "units held and units that somebody knows of"
    );
}
