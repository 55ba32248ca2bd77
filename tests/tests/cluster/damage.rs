//! Bytes of a node's files that are not what was written: one damaged byte costs one replica, which
//! is built again from its peers, and nothing that was acknowledged.

use std::time::Duration;

use tests::cluster::{Cluster, NODES, Options};
use tests::directories::{damage_in_log, damage_newest_state};
use tests::names::{fresh, sku_in};
use tests::operator::{Operator, replica_on};
use tests::receipts::Receipts;
use tests::stock::{receive, receive_many};
use tests::wait::{until, within};

const SHARDS: u32 = 2;

/// Lines of one receipt.
const LINES: usize = 500;

/// Until every node has written two states down, or has ended.
const LOADED_WITHIN: Duration = Duration::from_secs(60);

/// Before what is damaged and behind it.
const RECEIPTS: u32 = 20;

#[tokio::test]
async fn a_damaged_entry_on_each_of_two_nodes_costs_a_replica_each_and_nothing_else() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(RECEIPTS).await;
    // Of each shard one on another node.
    let damaged = [(0, 3), (1, 2)].map(|(shard, node)| {
        let sku = sku_in(shard, SHARDS, &fresh("damaged"));
        (shard, node, sku)
    });
    for (_, _, sku) in &damaged {
        receive(&client, sku, receipts.location(), 1).await;
    }
    receipts.add(RECEIPTS).await;
    receipts.check_everywhere(&cluster).await;
    cluster.kill_all();
    for (_, node, sku) in &damaged {
        damage_in_log(&cluster.data_dir(*node), sku);
    }
    for node in NODES {
        cluster.restart(node);
    }
    receipts.check_everywhere(&cluster).await;

    let operator = Operator::new(cluster.client().await);
    until(
        "new replicas",
        tests::operator::SETTLED_WITHIN,
        async || {
            let groups = operator.wait_until_settled(&NODES).await;
            let is_new = |(shard, node, _): &(u32, u64, String)| {
                // The first is group 0.
                let group = groups[1..].iter().find(|group| group.shard == *shard);
                let replica = group.and_then(|group| replica_on(group, *node));
                replica.is_some_and(|replica| replica.generation > 0)
            };
            match damaged.iter().all(is_new) {
                true => Ok(()),
                false => Err(format!("{groups:?}")),
            }
        },
    )
    .await;
    for (_, node, _) in &damaged {
        let log = cluster.log(*node);
        assert!(log.contains("of its log cannot be read"), "{log}");
    }
    receipts.add(RECEIPTS).await;
    receipts.check_everywhere(&cluster).await;
    for node in NODES {
        assert!(
            cluster.ended(node).is_none(),
            "node {node}: {}",
            cluster.log(node)
        );
    }
}

/// A state of some ten thousand bytes is written down again and again, and the log has several
/// files.
const CHECKPOINT_AFTER_BYTES: u64 = 60_000;
const LOG_FILE_BYTES: u64 = 65_536;

/// The group of the first shard.
const GROUP: u32 = 1;

#[tokio::test]
async fn a_damaged_state_on_two_nodes_costs_no_replica_where_an_older_one_is_whole() {
    let cluster = Cluster::start(Options {
        shards: 1,
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        log_file_bytes: Some(LOG_FILE_BYTES),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let receipts = Receipts::open(&cluster).await;
    let loaded = async || {
        receive_many(&client, receipts.location(), LINES).await?;
        let of_all = NODES.map(|node| cluster.checkpoints(node, GROUP));
        let have_two = of_all.iter().all(|files| files.len() == 2);
        have_two.then_some(()).ok_or(format!("{of_all:?}"))
    };
    until("two states on each node", LOADED_WITHIN, loaded).await;
    receipts.add(RECEIPTS).await;
    receipts.check_everywhere(&cluster).await;
    for node in NODES {
        cluster.terminate(node);
        until("the end of a node", LOADED_WITHIN, async || {
            cluster.ended(node).map(drop).ok_or("it runs".to_owned())
        })
        .await;
        cluster.reap(node);
    }
    let operator = async || Operator::new(cluster.client().await);
    for node in [2, 3] {
        damage_newest_state(&cluster.data_dir(node), GROUP);
    }
    for node in NODES {
        cluster.restart(node);
    }
    receipts.check_everywhere(&cluster).await;
    let groups = operator().await.wait_until_settled(&NODES).await;
    for node in [2, 3] {
        let log = cluster.log(node);
        assert!(log.contains("goes on from an older one"), "{log}");
        let replica = replica_on(&groups[1], node).unwrap();
        assert_eq!(
            replica.generation, 0,
            "node {node} was built again: {groups:?}"
        );
    }
}

/// A node is killed when so many parts of a snapshot have come, of this many; then at the next.
const MOMENTS: u64 = 20;

/// Until a snapshot is under way to a node, or it needs none.
const SENT_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of a snapshot that have come to a node so far.
fn received(cluster: &Cluster, node: u64) -> Option<u64> {
    let files = std::fs::read_dir(cluster.data_dir(node).join("incoming"));
    let files = files.into_iter().flatten().flatten();
    files
        .map(|file| file.metadata().map_or(0, |it| it.len()))
        .max()
}

#[tokio::test]
async fn a_node_that_is_killed_at_any_moment_of_a_snapshot_comes_back_and_loses_nothing() {
    let cluster = Cluster::start(Options {
        shards: 1,
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        log_file_bytes: Some(LOG_FILE_BYTES),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let receipts = Receipts::open(&cluster).await;
    let mut killed_in_snapshots = 0;
    for moment in 0..MOMENTS {
        cluster.kill(3);
        // Until the others have dropped what it would need of their logs.
        let before = cluster.checkpoints(1, GROUP);
        let dropped = async || {
            receive_many(&client, receipts.location(), LINES).await?;
            let now = cluster.checkpoints(1, GROUP);
            let is_new = now.len() == 2 && now.iter().all(|file| !before.contains(file));
            is_new.then_some(()).ok_or(format!("{now:?}"))
        };
        until("two new states", LOADED_WITHIN, dropped).await;
        receipts.add(1).await;
        let states = cluster.data_dir(1).join("checkpoints");
        let newest = cluster.checkpoints(1, GROUP).pop().unwrap_or_default();
        let bytes = std::fs::metadata(states.join(newest)).map_or(0, |it| it.len());
        cluster.restart(3);
        let has_come = within(SENT_WITHIN, async || match received(&cluster, 3) {
            Some(so_far) if so_far >= bytes * moment / MOMENTS => Ok(()),
            so_far => Err(format!("{so_far:?}")),
        });
        killed_in_snapshots += u64::from(has_come.await.is_ok());
    }
    assert!(killed_in_snapshots > MOMENTS / 2, "{killed_in_snapshots}");
    cluster.kill(3);
    cluster.restart(3);
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
    assert!(cluster.ended(3).is_none(), "{}", cluster.log(3));
}
