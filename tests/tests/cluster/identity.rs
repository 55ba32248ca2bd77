//! Data directories that are not what their node's peers take them for: older ones, copies, twins,
//! and those that lost their end. `docs/identity.md` says what becomes of each. None of them makes
//! anything acknowledged be lost where somebody who knows better can be asked.

use std::process::Stdio;
use std::time::Duration;

use stock_proto::stock::admin::v1::ShardStatus;
use stock_proto::stock::admin::v1::waiting::Reason;
use tests::cluster::{Cluster, NODES, Options};
use tests::directories::{cut_end_of_log, empty_end_of_log};
use tests::operator::{Operator, replica_on};
use tests::programs;
use tests::receipts::Receipts;
use tests::shop::Shop;
use tests::stock::receive_many;
use tests::visitor::{Addresses, Visitor};
use tests::wait::until;
use tonic::transport::Channel;

const SHARDS: u32 = 2;

/// Acknowledged by two nodes while the third stands still.
const RECEIPTS: u32 = 12;

/// From the time that a node can be told until it has ended.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// From a node's start until it has said something that keeps it from serving, or has been let in.
const SAID_WITHIN: Duration = Duration::from_secs(30);

/// For how long nodes that are no majority are asked in vain.
const KNOCK_FOR: Duration = Duration::from_secs(3);

/// Some pulses: a directory's is counted in seconds in which something was written.
const PULSES: Duration = Duration::from_millis(4_500);

/// Between two receipts meanwhile.
const RECEIPT_EVERY: Duration = Duration::from_millis(250);

const SEED: u64 = 20_261_129;

/// What a node says that has forgotten something.
const FORGOTTEN: &str = "has forgotten what it acknowledged";

/// What a node says that another directory has taken the place of.
const REPLACED: &str = "has another data directory since";

/// What a replica says whose leader does not have what is committed here.
const CONTRADICTION: &str = "one of them has forgotten what was acknowledged";

/// What a panic says, whoever catches it.
const PANICKED: &str = "panicked";

async fn start() -> Cluster {
    start_with(SHARDS).await
}

async fn start_with(shards: u32) -> Cluster {
    Cluster::start(Options {
        shards,
        ..Options::default()
    })
    .await
}

fn doors(cluster: &Cluster, nodes: &[u64]) -> Vec<(u64, Channel)> {
    let door = |node: &u64| (*node, cluster.channel(*node));
    nodes.iter().map(door).collect()
}

/// Waits until a node ends by itself, and returns what it has logged since `from`.
async fn ends(cluster: &Cluster, node: u64, from: usize) -> String {
    until("a node that ends by itself", ENDS_WITHIN, async || {
        let log = || cluster.log(node)[from..].to_owned();
        cluster
            .ended(node)
            .ok_or_else(|| format!("it runs:\n{}", log()))
    })
    .await;
    cluster.reap(node);
    cluster.log(node)[from..].to_owned()
}

/// Waits until a node has said this since `from`.
async fn says(cluster: &Cluster, node: u64, from: usize, words: &str) {
    until(words, SAID_WITHIN, async || {
        let log = cluster.log(node)[from..].to_owned();
        log.contains(words).then_some(()).ok_or(log)
    })
    .await;
}

fn no_node_panicked(cluster: &Cluster) {
    for node in NODES {
        let log = cluster.log(node);
        assert!(!log.contains(PANICKED), "node {node}:\n{log}");
    }
}

/// Whether every group has a replica on the node that is not the one it was founded with.
fn are_new(groups: &[ShardStatus], node: u64) -> bool {
    groups.iter().all(|group| {
        let replica = replica_on(group, node);
        replica.is_some_and(|replica| replica.generation > 0)
    })
}

/// Waits until all is well with the three nodes, and the replicas on this one were all made anew.
async fn made_anew(operator: &Operator, node: u64) {
    until(
        "new replicas",
        tests::operator::SETTLED_WITHIN,
        async || {
            let groups = operator.wait_until_settled(&NODES).await;
            let is_new = are_new(&groups, node);
            is_new.then_some(()).ok_or_else(|| format!("{groups:?}"))
        },
    )
    .await;
}

#[tokio::test]
async fn an_old_directory_that_comes_back_is_told_that_it_was_replaced_and_loses_nothing() {
    let cluster = start().await;
    let receipts = Receipts::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    receipts.add(3).await;
    cluster.kill(3);
    let old = cluster.put_aside(3, "old");
    cluster.restart(3);
    made_anew(&operator, 3).await;

    // Acknowledged by nodes 2 and 3, so that of the three only these have it.
    cluster.pause(1);
    receipts.add(RECEIPTS).await;
    cluster.pause(2);
    cluster.kill(3);
    let own = cluster.put_aside(3, "own");
    cluster.put_in_place(3, &old);
    let from = cluster.log(3).len();
    cluster.restart(3);
    cluster.resume(1);
    let both = doors(&cluster, &[1, 3]);
    receipts.knock_in_vain(&both, KNOCK_FOR).await;

    cluster.resume(2);
    let said = receipts
        .watch_during(&doors(&cluster, &NODES), ends(&cluster, 3, from))
        .await;
    assert!(said.contains(REPLACED), "{said}");

    cluster.put_aside(3, "old-again");
    cluster.put_in_place(3, &own);
    cluster.restart(3);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
    receipts.add(1).await;
    receipts.check_everywhere(&cluster).await;
    no_node_panicked(&cluster);
}

#[tokio::test]
async fn a_directory_that_was_put_back_to_an_older_copy_joins_anew() {
    let cluster = start().await;
    let receipts = Receipts::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    receipts.add(3).await;
    let copy = cluster.copy_data(3, "copy");
    receipts.add_for(PULSES, RECEIPT_EVERY).await;
    cluster.kill(3);
    cluster.put_back(3, &copy);
    let from = cluster.log(3).len();
    receipts
        .watch_during(&doors(&cluster, &NODES), async {
            cluster.restart(3);
            says(&cluster, 3, from, FORGOTTEN).await;
            says(&cluster, 3, from, "joined the cluster").await;
            receipts.add(3).await;
            made_anew(&operator, 3).await;
        })
        .await;
    receipts.check_everywhere(&cluster).await;
    no_node_panicked(&cluster);
}

/// Nobody who is up knows better, so they elect, and answer without what was acknowledged. The
/// third comes, who does: they must not take him with them.
#[tokio::test]
async fn two_copies_that_elect_each_other_are_found_by_the_third() {
    // Two nodes are built again in the end, one replica after the other: one shard is enough.
    let cluster = start_with(1).await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(3).await;
    let copies = [2, 3].map(|node| (node, cluster.copy_data(node, "copy")));
    receipts.add_for(PULSES, RECEIPT_EVERY).await;
    // What a node answers linearizably, it has.
    receipts.check_everywhere(&cluster).await;
    cluster.kill_all();
    for (node, copy) in &copies {
        cluster.put_back(*node, copy);
        cluster.restart(*node);
    }
    cluster.wait_until_led().await;
    // Something for them to disagree about.
    let theirs = Receipts::open(&cluster).await;
    theirs.add(RECEIPTS).await;

    let from = [2, 3].map(|node| (node, cluster.log(node).len()));
    cluster.restart(1);
    receipts
        .watch_during(&doors(&cluster, &[1]), async {
            for (node, from) in from {
                let said = ends(&cluster, node, from).await;
                assert!(said.contains(FORGOTTEN), "node {node}: {said}");
            }
            receipts
                .knock_in_vain(&doors(&cluster, &[1]), KNOCK_FOR)
                .await;
        })
        .await;

    // Node 1 has it all. They join it, once an operator has said that it goes on alone.
    for node in [2, 3] {
        joins_anew(&cluster, node).await;
    }
    cluster.kill(1);
    recover(&cluster, 1);
    cluster.restart(1);
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
    no_node_panicked(&cluster);
}

/// Starts a node that was told that it has forgotten something, as a supervisor would: again where
/// it ends, which it does where nobody has told it in time. It never serves as what it was.
async fn joins_anew(cluster: &Cluster, node: u64) {
    let from = cluster.log(node).len();
    cluster.restart(node);
    until("a node that joins anew", SAID_WITHIN, async || {
        let said = cluster.log(node)[from..].to_owned();
        if cluster.ended(node).is_some() {
            assert!(said.contains(FORGOTTEN), "{said}");
            cluster.reap(node);
            cluster.restart(node);
        }
        said.contains("joining anew").then_some(()).ok_or(said)
    })
    .await;
}

/// Where the copies are so new that nobody has heard of anything since, nobody can tell, and they
/// are the majority. But the third contradicts them, says so, and keeps what it has.
#[tokio::test]
async fn two_copies_that_nobody_can_tell_take_nothing_from_the_third() {
    let cluster = start().await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(3).await;
    let copies = [2, 3].map(|node| (node, cluster.copy_data(node, "copy")));
    receipts.add(RECEIPTS).await;
    receipts.check_everywhere(&cluster).await;
    cluster.kill_all();
    for (node, copy) in &copies {
        cluster.put_back(*node, copy);
        cluster.restart(*node);
    }
    cluster.wait_until_led().await;
    let theirs = Receipts::open(&cluster).await;
    theirs.add(RECEIPTS).await;

    let operator = Operator::new(cluster.client().await);
    let from = cluster.log(1).len();
    cluster.restart(1);
    until("a word about it", SAID_WITHIN, async || {
        found(&cluster, &operator, from).await
    })
    .await;
    cluster.kill_all();
    recover(&cluster, 1);
    cluster.restart(1);
    cluster.wait_until_led().await;
    receipts.check_everywhere(&cluster).await;
    no_node_panicked(&cluster);
}

/// Whether nodes 2 and 3 have ended because they have forgotten something, or all replicas of stock
/// on node 1 have stopped because they contradict their leaders, and operators are told so.
async fn found(cluster: &Cluster, operator: &Operator, from: usize) -> Result<(), String> {
    let has_ended = |node| cluster.ended(node).is_some() && cluster.log(node).contains(FORGOTTEN);
    if [2, 3].into_iter().all(has_ended) {
        return Ok(());
    }
    let log = cluster.log(1)[from..].to_owned();
    let (groups, _) = operator.groups().await?;
    for group in &groups[1..] {
        let shard = group.shard;
        let is_disputed = group
            .waiting
            .iter()
            .any(|it| it.reason() == Reason::ReplicaDisputed);
        let is_said = log.lines().any(|line| {
            line.contains(&format!("group={}", shard + 1)) && line.contains(CONTRADICTION)
        });
        if !is_disputed || !is_said {
            return Err(format!("{group:?}\n{log}"));
        }
    }
    Ok(())
}

/// More than the pulses that a copy has forgotten.
const STARTS: usize = 10;

/// Each start is a pulse: none may bring a copy up to what it has forgotten. Node 2, who was away
/// when the last receipts were acknowledged, knows that node 3 has seen more than its directory
/// has: the two must not elect each other.
#[tokio::test]
async fn a_copy_that_was_started_again_and_again_alone_still_has_forgotten() {
    let cluster = start_with(1).await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(3).await;
    let copy = cluster.copy_data(3, "copy");
    receipts.add_for(PULSES, RECEIPT_EVERY).await;
    cluster.pause(2);
    receipts.add(RECEIPTS).await;
    cluster.kill(1);
    cluster.kill(3);
    cluster.put_back(3, &copy);
    for _ in 0..STARTS {
        let from = cluster.log(3).len();
        cluster.restart(3);
        says(&cluster, 3, from, "serving").await;
        cluster.kill(3);
    }

    cluster.resume(2);
    let from = cluster.log(3).len();
    cluster.restart(3);
    let both = doors(&cluster, &[2, 3]);
    receipts.knock_in_vain(&both, KNOCK_FOR).await;
    says(&cluster, 3, from, FORGOTTEN).await;
    if cluster.ended(3).is_some() {
        cluster.reap(3);
        joins_anew(&cluster, 3).await;
    }
    cluster.restart(1);
    let operator = Operator::new(cluster.client().await);
    made_anew(&operator, 3).await;
    receipts.check_everywhere(&cluster).await;
    no_node_panicked(&cluster);
}

#[tokio::test]
async fn a_directory_of_another_node_does_not_start() {
    let cluster = start_with(1).await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(RECEIPTS).await;
    let third = cluster.copy_data(3, "copy");
    cluster.kill(2);
    let own = cluster.put_aside(2, "own");
    cluster.put_in_place(2, &third);
    let from = cluster.log(2).len();
    cluster.restart(2);
    let said = ends(&cluster, 2, from).await;
    assert!(
        said.contains("point data_dir to this node's own directory"),
        "{said}"
    );
    // Its own is as it was.
    cluster.put_back(2, &own);
    cluster.restart(2);
    receipts.check_everywhere(&cluster).await;
}

/// Has the cluster go on from one node's directory.
fn recover(cluster: &Cluster, node: u64) {
    let output = programs::run_stockd()
        .args(["recover", "--lose-everything-else", "--confirm"])
        .arg(cluster.cluster_id())
        .arg("--data-dir")
        .arg(cluster.data_dir(node))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// What happens to the end of a log.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// So many bytes of its newest file.
    Bytes(usize),
    /// All that is in its newest file.
    File,
    /// All that was written since a copy was made.
    Copy,
}

const LOSSES: [Loss; 3] = [Loss::Bytes(300), Loss::File, Loss::Copy];

/// Calls that are answered before and after.
const CALLS_BETWEEN: u64 = 150;

/// A state of some ten thousand bytes is written down again and again, and the log has several
/// files.
const CHECKPOINT_AFTER_BYTES: u64 = 60_000;
const LOG_FILE_BYTES: u64 = 65_536;

/// Lines of one receipt, and how many of them make some files of the log.
const LINES: usize = 500;
const LARGE_RECEIPTS: usize = 8;

#[tokio::test]
async fn a_node_that_lost_the_end_of_its_log_never_panics() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        log_file_bytes: Some(LOG_FILE_BYTES),
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let receipts = Receipts::open(&cluster).await;
    let client = cluster.client().await;
    let operator = Operator::new(cluster.client().await);
    for (seed, loss) in (SEED..).zip(LOSSES) {
        let trouble = async {
            let copy = cluster.copy_data(3, &format!("{loss:?}"));
            for _ in 0..LARGE_RECEIPTS {
                receive_many(&client, receipts.location(), LINES)
                    .await
                    .unwrap();
            }
            shop.more_calls(CALLS_BETWEEN).await;
            cluster.kill(3);
            match loss {
                Loss::Bytes(bytes) => cut_end_of_log(&cluster.data_dir(3), bytes),
                Loss::File => empty_end_of_log(&cluster.data_dir(3)),
                Loss::Copy => cluster.put_back(3, &copy),
            }
            let from = cluster.log(3).len();
            cluster.restart(3);
            comes_back(&cluster, &operator, from).await;
            shop.more_calls(CALLS_BETWEEN).await;
        };
        shop.trade_during(seed, trouble).await;
        shop.account_for_new(&cluster).await;
        eprintln!(
            "{loss:?}: {} calls, {} of them again",
            shop.calls(),
            shop.failures()
        );
        no_node_panicked(&cluster);
    }
    shop.account_for_all(&cluster).await;
}

/// Waits until all is well with node 3. It may end once, to join anew when it is started again.
async fn comes_back(cluster: &Cluster, operator: &Operator, from: usize) {
    let mut endings = 0;
    let within = tests::operator::SETTLED_WITHIN;
    until("all replicas whole again", within, async || {
        if cluster.ended(3).is_some() {
            cluster.reap(3);
            endings += 1;
            let said = cluster.log(3)[from..].to_owned();
            assert!(said.contains(FORGOTTEN) && endings == 1, "{said}");
            cluster.restart(3);
        }
        operator.settled(&NODES).await
    })
    .await;
}

/// A second process is suffered for some seconds: the first may just have died.
#[tokio::test]
async fn a_copy_of_a_directory_that_is_started_beside_its_original_ends() {
    let cluster = start().await;
    let receipts = Receipts::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    receipts.add(3).await;
    let before = operator.wait_until_settled(&NODES).await;
    let copy = cluster.copy_data(3, "copy");
    let config = cluster.config_path(3);
    let addresses = &Addresses::free(1)[0];
    let twin = Visitor::start(&copy, addresses, &["--config", config.to_str().unwrap()]);
    let ended = until("the end of a twin", ENDS_WITHIN, async || {
        receipts.add(1).await;
        twin.ended().ok_or_else(|| twin.log())
    });
    let all = doors(&cluster, &NODES);
    receipts.watch_during(&all, ended).await;
    let said = twin.log();
    // Where the original has written a pulse since, the copy has forgotten that, and may not take
    // its node's place.
    let ends = [
        "another process runs as node 3, with this data directory or a copy of it",
        "node 3 is heard from, with another data directory",
    ];
    assert!(ends.iter().any(|why| said.contains(why)), "{said}");

    assert_eq!(cluster.ended(3), None, "the original ended");
    let after = operator.wait_until_settled(&NODES).await;
    let on = |groups: &[ShardStatus]| -> Vec<Vec<(u64, u32)>> {
        let of = |group: &ShardStatus| {
            let replicas = group.replicas.iter();
            replicas.map(|it| (it.node_id, it.generation)).collect()
        };
        groups.iter().map(of).collect()
    };
    assert_eq!(on(&before), on(&after));
    receipts.add(3).await;
    receipts.check_everywhere(&cluster).await;
    no_node_panicked(&cluster);
}
