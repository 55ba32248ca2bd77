//! A node that was away for longer than the others keep their logs comes back by a snapshot.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stock_client::Client;
use stock_proto::stock::v1::ResponseHeader;
use tests::cluster::{Cluster, Options, others};
use tests::names::sku_in;
use tests::settings;
use tests::stock::{adjust, fresh_location, position_seen, position_since, receive};
use tests::wait::until;

/// One caller for each, who waits for each answer: so each of his calls is an entry of its own.
const SHARDS: u32 = 2;

/// Entries that a node misses in a short run.
const ENTRIES: u64 = 3_000;

/// Small enough that the others' logs begin after what it misses.
const CHECKPOINT_AFTER_BYTES: u64 = 16 * 1024;

const BACK_WITHIN: Duration = Duration::from_secs(60);

/// A long run: `STOCKD_ENTRIES_AWAY=1000000 cargo test --release -p tests --test cluster away`.
/// There, logs are cut as they are in earnest.
#[tokio::test]
async fn a_node_that_missed_more_than_the_others_logs_have_comes_back() {
    let entries = settings::number("STOCKD_ENTRIES_AWAY", ENTRIES);
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        checkpoint_after_bytes: (entries == ENTRIES).then_some(CHECKPOINT_AFTER_BYTES),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..SHARDS)
        .map(|shard| sku_in(shard, SHARDS, "missed"))
        .collect();
    for sku in &skus {
        receive(&client, sku, &location, 1).await;
    }
    let [away, _] = others(cluster.leader_of(0).await);
    cluster.kill(away);
    let began = Instant::now();
    let each = entries.div_ceil(u64::from(SHARDS));
    let callers = skus
        .iter()
        .map(|sku| add_one_at_a_time(&client, sku, &location, each));
    let reached = join_all(callers).await;
    eprintln!("{entries} entries in {:?}", began.elapsed());

    let began = Instant::now();
    cluster.restart(away);
    let node = cluster.channel(away);
    for (sku, reached) in skus.iter().zip(&reached) {
        let shard = client.shard_of(sku);
        until("the state that was missed", BACK_WITHIN, async || {
            let seen = cluster.topology(away).await?;
            let here = seen.shards.iter().find(|of| of.shard == shard);
            let index = here.map_or(0, |shard| shard.applied_index);
            (index >= reached.index_of(shard))
                .then_some(())
                .ok_or(format!("{index} of {reached:?}"))
        })
        .await;
        let seen = position_since(&node, sku, &location, reached).await;
        let seen = seen.unwrap_or_else(|status| panic!("{status}"));
        assert_eq!(seen.on_hand as u64, each + 1, "{sku}");
    }
    eprintln!("back after {:?}", began.elapsed());
    let log = cluster.log(away);
    let installed = log.matches("a snapshot was installed").count();
    assert!(installed as u32 >= SHARDS, "{log}");
}

/// Where the log of the SKU's shard then is: as many entries further at least.
async fn add_one_at_a_time(
    client: &Client,
    sku: &str,
    location: &str,
    count: u64,
) -> ResponseHeader {
    let shard = client.shard_of(sku);
    let seen = async || {
        let now = position_seen(client, sku, location).await;
        now.unwrap_or_else(|error| panic!("{error}")).1
    };
    let before = seen().await.index_of(shard);
    for _ in 0..count {
        adjust(client, sku, location, 1).await;
    }
    let after = seen().await;
    let index = after.index_of(shard);
    assert!(index >= before + count, "{before} to {index}");
    after
}
