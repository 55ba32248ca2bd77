//! Power cuts in the middle of baskets over several shards: each is held as a whole or not at all,
//! and whoever was told so is told the same when the power is back.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::buyers::Buyers;
use tests::cluster::{Cluster, Disks, NODES, Options};
use tests::inspection::verify_what_is_left;
use tests::settings;

use crate::can_mount;

const SHARDS: u32 = 5;

/// Cuts in a short run.
const CUTS: u64 = 4;

const SEED: u64 = 20_261_203;

/// Baskets that are answered between a cut and whatever comes before it, at most.
const ANSWERS_BEFORE_MAX: u64 = 120;

/// Baskets that are answered while syncs take long, before a cut, and when the power is back.
const ANSWERS: u64 = 20;

/// How long a sync takes just before a cut.
const SYNC_DELAY: Duration = Duration::from_millis(8);

/// After so much log a state is written down, with baskets that are not decided in it.
const CHECKPOINT_AFTER_BYTES: u64 = 16 * 1024;

#[tokio::test]
async fn a_basket_of_which_its_buyer_heard_is_as_he_heard_when_the_power_is_back() {
    if !can_mount() {
        return;
    }
    let cuts = settings::number("STOCKD_POWER_CUTS", CUTS);
    let seed = settings::seed(SEED);
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        disks: Disks::Forgetful { seed },
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        ..Options::default()
    })
    .await;
    let buyers = Buyers::begin(&cluster.client().await, SHARDS).await;
    let mut random = StdRng::seed_from_u64(seed);
    for cut in 0..cuts {
        // All nodes every other time: then nobody remembers what the disks forgot.
        let victims = match cut % 2 {
            0 => NODES.to_vec(),
            _ => vec![NODES[random.random_range(0..NODES.len())]],
        };
        let before = random.random_range(1..=ANSWERS_BEFORE_MAX);
        let cut_seed: u64 = random.random();
        eprintln!("cut {cut}: nodes {victims:?} after {before} baskets, seed {cut_seed}");
        buyers.more_answers(before).await;
        for node in NODES {
            cluster.disk(node).delay_syncs(SYNC_DELAY);
        }
        buyers.more_answers(ANSWERS).await;
        cluster.cut_power(&victims, cut_seed);
        NODES.iter().for_each(|node| cluster.disk(*node).heal());
        if victims.len() < NODES.len() {
            buyers.more_answers(ANSWERS).await;
        }
        cluster.restore_power(&victims);
        cluster.wait_until_led().await;
        buyers.more_answers(ANSWERS).await;
    }
    buyers.account().await;
    verify_what_is_left(&cluster);
}
