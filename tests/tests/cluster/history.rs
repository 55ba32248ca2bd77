//! A node that has lost its history gets it back from the others.

use std::time::Duration;

use tests::cluster::{Cluster, NODES, Options};
use tests::inspection::verify_what_is_left;
use tests::stock::{fresh_location, receive_many};
use tests::wait::until;

/// So small that logs are cut while the test writes: what was in them is in the ledgers alone.
const CHECKPOINT_AFTER_BYTES: u64 = 64 * 1024;

/// Lines of one receipt.
const LINES: usize = 2_000;

/// Beside builds and other tests.
const CUT_WITHIN: Duration = Duration::from_secs(60);
const FILLED_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_ledger_that_was_lost_is_filled_from_another_node() {
    let cluster = Cluster::start(Options {
        shards: 1,
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let node = NODES[2];
    let mut first: Option<String> = None;
    until("a log that was cut", CUT_WITHIN, async || {
        receive_many(&client, &location, LINES).await?;
        let here = cluster.checkpoints(node, 1);
        let oldest = here.first().cloned();
        first = first.take().or_else(|| oldest.clone());
        (oldest != first).then_some(()).ok_or(format!("{here:?}"))
    })
    .await;

    cluster.kill(node);
    std::fs::remove_dir_all(cluster.data_dir(node).join("ledger")).unwrap();
    cluster.restart(node);
    until("history from another node", FILLED_WITHIN, async || {
        let log = cluster.log(node);
        let is_filled = log.contains("history that was missing came from another node");
        is_filled.then_some(()).ok_or("nothing came".to_owned())
    })
    .await;

    let begins = verify_what_is_left(&cluster);
    assert_eq!(begins[0].len(), 1);
    assert!(begins.iter().all(|it| *it == begins[0]), "{begins:?}");
}
