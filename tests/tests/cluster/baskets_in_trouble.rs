//! Baskets over several shards while nodes are killed, stopped and cut off in the middle of them:
//! each is held as a whole or not at all, and its caller is told the same whenever he asks.
//!
//! A long run: `STOCKD_BASKET_TROUBLES=100 cargo test --release -p tests --test cluster
//! baskets_in_trouble`.

use std::time::Duration;

use tests::buyers::Buyers;
use tests::cluster::{Cluster, Links, NODES, Options};
use tests::network::Network;
use tests::settings;
use tokio::time::sleep;

const SHARDS: u32 = 8;
/// Times that a node is killed, or stopped, while others buy.
const TROUBLES: u64 = 8;
/// Times that a node is cut off, or two do not hear each other.
const CUTS: u64 = 6;
const BETWEEN: Duration = Duration::from_millis(1_200);
/// Longer than a leader goes on that is not heard, and than home waits until it finds out.
const CUT_OFF_FOR: Duration = Duration::from_secs(3);
/// Baskets that are answered while some nodes do not hear each other, and afterwards.
const ANSWERS: u64 = 20;

#[tokio::test]
async fn whatever_dies_in_the_middle_a_basket_is_held_as_a_whole_or_not_at_all() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        ..Options::default()
    })
    .await;
    let buyers = Buyers::begin(&cluster.client().await, SHARDS).await;
    let troubles = settings::number("STOCKD_BASKET_TROUBLES", TROUBLES);
    for trouble in 0..troubles {
        sleep(BETWEEN).await;
        let node = NODES[trouble as usize % NODES.len()];
        if trouble % 3 == 2 {
            cluster.pause(node);
            sleep(BETWEEN).await;
            cluster.resume(node);
        } else {
            cluster.kill(node);
            sleep(BETWEEN / 2).await;
            cluster.restart(node);
        }
        cluster.wait_until_led().await;
    }
    buyers.account().await;
}

#[tokio::test]
async fn whoever_is_cut_off_in_the_middle_a_basket_is_held_as_a_whole_or_not_at_all() {
    if let Some(why) = Network::unavailable() {
        eprintln!("SKIPPED: no network was broken: {why}");
        return;
    }
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        links: Links::Breakable,
        ..Options::default()
    })
    .await;
    let buyers = Buyers::begin(&cluster.client().await, SHARDS).await;
    let cuts = settings::number("STOCKD_BASKET_TROUBLES", CUTS);
    for cut in 0..cuts {
        buyers.more_answers(ANSWERS).await;
        let node = NODES[cut as usize % NODES.len()];
        let next = NODES[(cut as usize + 1) % NODES.len()];
        match cut % 4 {
            // Leaders of shards of one basket, of which each is alive and hears the third.
            0 => {
                cluster.network().block(node, next);
                cluster.network().block(next, node);
            }
            1 => cluster.network().block(node, next),
            _ => cluster.network().isolate(node),
        }
        let cut_off = sleep(CUT_OFF_FOR);
        tokio::join!(cut_off, buyers.more_answers(ANSWERS));
        cluster.network().heal();
        cluster.wait_until_led().await;
    }
    buyers.account().await;
}
