//! Power cuts under load. In the end every byte of what the nodes have is read and is as it was
//! written; a ledger that a cut damaged has begun anew, and has no gap since.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use tests::cluster::{Cluster, Disks, NODES, Options};
use tests::inspection::verify_what_is_left;
use tests::names::fresh;
use tests::settings;
use tests::shop::Shop;
use tests::stock::{fresh_location, held, receive, reserve};

use crate::can_mount;

/// Cuts in a short run.
const CUTS: u64 = 4;

/// With so many cuts some meet a checkpoint.
const CUTS_FOR_SURE: u64 = 50;

const SEED: u64 = 20_260_701;

/// Calls that are answered between a cut and whatever comes before it, at most.
const CALLS_BEFORE_MAX: u64 = 400;

/// How long a sync takes just before a cut, more often than not.
const SYNC_DELAY: Duration = Duration::from_millis(8);

/// After so much log a state is written down: after every forty calls or so, that many cuts fall
/// into it.
const CHECKPOINT_AFTER_BYTES: u64 = 4 * 1024;

/// Calls that are answered at that pace.
const CALLS_SLOW: u64 = 40;

/// Calls that are answered while one node is without power, and when all are back.
const CALLS_AFTER: u64 = 100;

#[tokio::test]
async fn what_was_acknowledged_is_there_when_the_power_is_back() {
    if !can_mount() {
        return;
    }
    let (cuts, seed) = (
        settings::number("STOCKD_POWER_CUTS", CUTS),
        settings::seed(SEED),
    );
    let cluster = Cluster::start(Options {
        shards: 4,
        disks: Disks::Forgetful { seed },
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let mut random = StdRng::seed_from_u64(seed);
    let mut half_written = 0;
    for cut in 0..cuts {
        // All nodes every other time: then nobody remembers what the disks forgot.
        let victims = match cut % 2 {
            0 => NODES.to_vec(),
            _ => vec![NODES[random.random_range(0..NODES.len())]],
        };
        let before = random.random_range(1..=CALLS_BEFORE_MAX);
        let cut_seed: u64 = random.random();
        // What is said too early is said during a sync: then most cuts shall fall.
        let sync_delay = match random.random_bool(0.75) {
            true => SYNC_DELAY,
            false => Duration::ZERO,
        };
        eprintln!(
            "cut {cut}: nodes {victims:?} after {before} calls, seed {cut_seed}, syncs take \
             {sync_delay:?}"
        );
        let trouble = async {
            shop.more_calls(before).await;
            for node in NODES {
                cluster.disk(node).delay_syncs(sync_delay);
            }
            shop.more_calls(CALLS_SLOW).await;
            let writing = victims
                .iter()
                .filter(|node| cluster.writes_checkpoint(**node));
            half_written += writing.count();
            cluster.cut_power(&victims, cut_seed);
            NODES.iter().for_each(|node| cluster.disk(*node).heal());
            if victims.len() < NODES.len() {
                shop.more_calls(CALLS_AFTER).await;
            }
            cluster.restore_power(&victims);
            cluster.wait_until_led().await;
            shop.more_calls(CALLS_AFTER).await;
        };
        let failures = shop.failures();
        shop.trade_during(random.random(), trouble).await;
        let failures = shop.failures() - failures;
        let is_quorum_up = victims.len() < NODES.len();
        assert!(failures == 0 || !is_quorum_up, "{failures} calls failed");
        shop.account_for_new(&cluster).await;
    }
    shop.account_for_all(&cluster).await;
    let (calls, shortages) = (shop.calls(), shop.shortages());
    eprintln!(
        "{cuts} cuts, {half_written} checkpoints in the middle, {calls} calls, {shortages} \
         shortages"
    );
    assert!(
        half_written > 0 || cuts < CUTS_FOR_SURE,
        "no cut met a checkpoint"
    );
    verify_what_is_left(&cluster);
}

/// Far longer than a reserve takes on any disk here.
const SLOW: Duration = Duration::from_millis(150);

#[tokio::test]
async fn an_answer_waits_for_slow_syncs() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(Options {
        shards: 1,
        disks: Disks::Forgetful { seed: SEED },
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("slow"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let leader = cluster.leader_of(0).await;
    let mut stub = ReservationServiceClient::new(cluster.channel(leader));
    held(
        stub.reserve(reserve(&sku, &location, 1))
            .await
            .unwrap()
            .into_inner(),
    );

    // One slow disk holds nobody up: two others are a quorum.
    let slow: Vec<u64> = NODES.into_iter().filter(|node| *node != leader).collect();
    cluster.disk(slow[0]).delay_syncs(SLOW);
    let began = Instant::now();
    held(
        stub.reserve(reserve(&sku, &location, 1))
            .await
            .unwrap()
            .into_inner(),
    );
    let with_one = began.elapsed();
    // Two do.
    cluster.disk(slow[1]).delay_syncs(SLOW);
    let began = Instant::now();
    held(
        stub.reserve(reserve(&sku, &location, 1))
            .await
            .unwrap()
            .into_inner(),
    );
    let with_two = began.elapsed();
    assert!(with_two >= SLOW, "{with_two:?}");
    eprintln!("{with_one:?} with one slow disk, {with_two:?} with two");
}
