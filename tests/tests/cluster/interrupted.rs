//! Recoveries that are interrupted at every step, and go on from what is damaged, or older than it
//! should be.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::cluster::{Cluster, NODES, Options};
use tests::directories::{copy, cut_end_of_log};
use tests::inspection::inspect;
use tests::operator::Operator;
use tests::programs;
use tests::receipts::Receipts;
use tests::stock::{position_at, receive};

use crate::recover::{ends, latest_life, recover, recovered_apart, stockd, text};

/// So long a node works on, until the others remember that of it which a copy from before lacks.
const WORKS_FOR: Duration = Duration::from_millis(4_500);
const RECEIPT_EVERY: Duration = Duration::from_millis(250);

/// Kills a recovery of these nodes' directories at its first step that is to last, then at its
/// second, and so on, and each time goes on with it. Returns how often it was killed; nothing where
/// that cannot be done.
fn kill_at_every_step(
    cluster: &Cluster,
    nodes: &[u64],
    more: &[&str],
    mut check: impl FnMut(u32),
) -> Option<u32> {
    let kept = nodes
        .iter()
        .map(|node| (*node, cluster.copy_data(*node, "kept")));
    let kept: Vec<_> = kept.collect();
    let mut interrupted = 0;
    let mut step = 1;
    while step < STEPS_MAX {
        for (node, kept) in &kept {
            cluster.empty(*node);
            copy(kept, &cluster.data_dir(*node));
        }
        let kill = format!("inject={STEPS}:signal=SIGKILL:when={step}");
        let mut killed = programs::without_settings(Command::new("strace"));
        killed.args(["-f", "-qq", "-o", "/dev/null", "-e", &kill]);
        killed.arg(programs::stockd());
        killed.args(["recover", "--lose-everything-else", "--confirm"]);
        killed.arg(cluster.cluster_id()).args(more);
        for node in nodes {
            killed.arg("--data-dir").arg(cluster.data_dir(*node));
        }
        let killed = killed.stdin(Stdio::null()).output();
        let killed = match killed {
            Ok(killed) if !text(&killed).contains("Operation not permitted") => killed,
            refused => {
                eprintln!("SKIPPED: recoveries were not killed: {refused:?}");
                return None;
            }
        };
        // Where a part is done, the whole is gone on with, and nothing else.
        let part = stockd(&["recover"], &[&cluster.data_dir(nodes[0])]);
        if text(&part).contains("was interrupted: give the data directories") {
            if interrupted == 0 && step > STRIDE {
                // Nothing was written before; from the first step that was passed over on, each is
                // tried.
                step -= STRIDE - 1;
            }
            interrupted += 1;
            let (is_well, report) = inspect(&cluster.data_dir(nodes[0]));
            let damage = report["damage"].to_string();
            assert!(!is_well && damage.contains("was interrupted"), "{report:#}");
        }
        let again = recover(cluster, nodes, more);
        // It may have been done before it was killed.
        let is_done = || text(&recover(cluster, &nodes[..1], &[])).contains("Nothing to recover");
        let said = text(&again);
        assert!(again.status.success() || is_done(), "{step}: {said}");
        for node in nodes {
            let (is_well, report) = inspect(&cluster.data_dir(*node));
            assert!(is_well, "{step}, node {node}: {report:#}");
            let recoveries = report["recoveries"].as_array().unwrap();
            assert!(!recoveries.is_empty(), "{step}, node {node}: {report:#}");
        }
        check(step);
        if killed.status.success() {
            return Some(interrupted);
        }
        step += match interrupted {
            0 => STRIDE,
            _ => 1,
        };
    }
    panic!("a recovery has more than {STEPS_MAX} steps");
}

/// System calls after which something is to last.
const STEPS: &str = "fdatasync,fsync,rename,unlink,ftruncate";
const STEPS_MAX: u32 = 400;
/// Before anything is written, the directories are opened, and every file is synced: of those steps
/// not each is tried.
const STRIDE: u32 = 4;

#[tokio::test]
async fn a_recovery_that_is_killed_at_any_step_is_gone_on_with() {
    let (cluster, receipts) = recovered_apart().await;
    let life = latest_life(&cluster);
    let killed = kill_at_every_step(&cluster, &NODES, &["--keep-life", &life], |_| {});
    assert!(killed.is_none_or(|times| times > 3), "{killed:?}");
    if killed.is_none() {
        recover(&cluster, &NODES, &["--keep-life", &life]);
    }
    let from = cluster.log(1).len();
    for node in NODES {
        cluster.restart(node);
    }
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
    assert!(!cluster.log(1)[from..].contains("was interrupted"));
}

/// The states of the shards in a directory: the same stock has the same hash.
fn states(dir: &Path) -> Vec<String> {
    let (_, report) = inspect(dir);
    let groups = report["groups"].as_array().unwrap()[1..].iter();
    groups
        .map(|group| group["state"]["hash"].to_string())
        .collect()
}

#[tokio::test]
async fn what_is_left_of_damaged_logs_is_gone_on_from_whenever_that_is_interrupted() {
    let options = Options {
        shards: 1,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(80).await;
    receipts.check_everywhere(&cluster).await;
    // History is written when they stop, so that it knows how far they were.
    for node in NODES {
        cluster.terminate(node);
        ends(&cluster, node, 0).await;
    }
    // Node 1 is lost; of the others one has lost the end of its log, and one more than that. What
    // a node writes as it stops, with votes and pulses, may be some hundred bytes.
    cut_end_of_log(&cluster.data_dir(2), 1_400);
    cut_end_of_log(&cluster.data_dir(3), 2_800);
    let shown = stockd(&["recover"], &[&cluster.data_dir(2), &cluster.data_dir(3)]);
    let said = text(&shown);
    assert!(said.contains("it would not go on by itself: "), "{said}");

    let mut found: Option<Vec<String>> = None;
    let killed = kill_at_every_step(&cluster, &[2, 3], &[], |step| {
        let now = states(&cluster.data_dir(2));
        let found = found.get_or_insert_with(|| now.clone());
        assert_eq!(now, *found, "{step}");
    });
    assert!(killed.is_none_or(|times| times > 3), "{killed:?}");
    if killed.is_none() {
        recover(&cluster, &[2, 3], &[]);
    }
    for node in [2, 3] {
        cluster.restart(node);
    }
    cluster.wait_until_led().await;
    let sku = &receipts.skus()[0];
    let left = position_at(&cluster.channel(3), sku, receipts.location()).await;
    let left = left.unwrap().on_hand;
    assert!((1..80).contains(&left), "{left} of 80");
    // And it goes on.
    let client = cluster.client().await;
    receive(&client, sku, receipts.location(), 5).await;
    let now = position_at(&cluster.channel(2), sku, receipts.location()).await;
    assert_eq!(now.unwrap().on_hand, left + 5);
}

#[tokio::test]
async fn an_older_copy_that_is_given_to_a_recovery_counts_for_nothing_where_somebody_has_more() {
    let options = Options {
        shards: 1,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(3).await;
    let older = cluster.copy_data(1, "older");
    receipts.add_for(WORKS_FOR, RECEIPT_EVERY).await;
    receipts.check_everywhere(&cluster).await;
    cluster.kill_all();
    cluster.put_back(1, &older);
    // Node 3 is lost; two of three would be a quorum, if one of them had not forgotten what it
    // acknowledged.
    let dirs = [cluster.data_dir(1), cluster.data_dir(2)];
    let shown = stockd(&["recover"], &[&dirs[0], &dirs[1]]);
    let said = text(&shown);
    assert!(said.contains("shard 0: goes on with replica 2"), "{said}");
    let done = recover(&cluster, &[1, 2], &[]);
    assert!(done.status.success(), "{}", text(&done));
    cluster.empty(3);
    for node in NODES {
        cluster.restart(node);
    }
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
}
