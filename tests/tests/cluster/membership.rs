//! Who is in the cluster: it grows, shrinks, and makes lost replicas anew, and callers notice
//! nothing.

use std::time::{Duration, Instant};

use stock_client::Error;
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::admin::v1::{ReplicaStatus, ShardStatus};
use stock_proto::stock::v1::{MovementLine, RecordReceiptsRequest};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, sku_in};
use tests::operator::{Operator, replica_on};
use tests::settings;
use tests::shop::Shop;
use tests::stock::{
    fresh_location, held, movement, position_seen, position_since, receive, reserve,
};
use tests::wait::until;

/// Calls that are answered before, between and after what an operator does.
const CALLS_BETWEEN: u64 = 100;

/// From the start of a process until it has said what keeps it from serving.
const SAID_WITHIN: Duration = Duration::from_secs(20);

const SEED: u64 = 20_260_801;

/// Two shards and the meta group: five nodes hold two replicas each, or one.
const SHARDS: u32 = 2;

/// A long run: `STOCKD_GROWTHS=20 cargo test --release -p tests --test cluster membership`.
async fn grow_and_shrink(seed: u64, leave: [u64; 2]) {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        spares: 2,
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    let began = Instant::now();
    let change = async {
        shop.more_calls(CALLS_BETWEEN).await;
        cluster.restart(4);
        cluster.restart(5);
        operator.wait_until_settled(&[1, 2, 3, 4, 5]).await;
        eprintln!("five nodes after {:?}", began.elapsed());
        shop.more_calls(CALLS_BETWEEN).await;
        for node in leave {
            operator.retire(node).await;
            cluster.kill(node);
            eprintln!("without node {node} after {:?}", began.elapsed());
            shop.more_calls(CALLS_BETWEEN).await;
        }
        let mut stay = vec![1, 2, 3, 4, 5];
        stay.retain(|node| !leave.contains(node));
        operator.wait_until_settled(&stay).await;
        eprintln!("three nodes after {:?}", began.elapsed());
        shop.more_calls(CALLS_BETWEEN).await;
    };
    shop.trade_during(seed, change).await;
    shop.account_for_all(&cluster).await;
    eprintln!("{} calls", shop.calls());
    assert_eq!(shop.failures(), 0, "failed calls");
}

#[tokio::test]
async fn new_nodes_come_and_go_again_and_no_call_fails() {
    for round in 0..settings::number("STOCKD_GROWTHS", 1) {
        grow_and_shrink(settings::seed(SEED) + round, [5, 4]).await;
    }
}

#[tokio::test]
async fn a_cluster_ends_on_other_nodes_than_it_began_with_and_no_call_fails() {
    for round in 0..settings::number("STOCKD_GROWTHS", 1) {
        grow_and_shrink(settings::seed(SEED) + round, [1, 2]).await;
    }
}

#[tokio::test]
async fn each_shard_gets_more_replicas_and_fewer_again_by_a_call_and_no_call_fails() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        spares: 2,
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    let voters = async |count: usize| {
        let what = format!("{count} voters of each group");
        until(&what, tests::operator::SETTLED_WITHIN, async || {
            let (groups, waiting) = operator.groups().await?;
            let is_voter = |replica: &&ReplicaStatus| replica.role() == Role::Voter;
            let has_them = |it: &ShardStatus| it.replicas.iter().filter(is_voter).count() == count;
            let is_done = groups.iter().all(has_them);
            is_done
                .then_some(())
                .ok_or(format!("{groups:?} {waiting:?}"))
        })
        .await;
    };
    let change = async {
        cluster.restart(4);
        cluster.restart(5);
        operator.wait_until_settled(&[1, 2, 3, 4, 5]).await;
        for replicas in [5, 3] {
            operator.set_replication(replicas).await.unwrap();
            voters(replicas as usize).await;
            shop.more_calls(CALLS_BETWEEN).await;
        }
    };
    shop.trade_during(SEED, change).await;
    shop.account_for_all(&cluster).await;
    assert_eq!(shop.failures(), 0, "failed calls");
    let Err(Error::Status(refused)) = operator.set_replication(4).await else {
        panic!("four is no majority more than three");
    };
    assert_eq!(refused.reason, "FIELD_INVALID");
    assert_eq!(refused.field_violations[0].field, "replicas");
}

#[tokio::test]
async fn an_emptied_directory_comes_back_under_its_old_id_as_new_replicas() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    let change = async {
        shop.more_calls(CALLS_BETWEEN).await;
        cluster.kill(2);
        cluster.empty(2);
        cluster.restart(2);
        let groups = until(
            "new replicas",
            tests::operator::SETTLED_WITHIN,
            async || {
                let groups = operator.wait_until_settled(&NODES).await;
                let is_new = |group: &ShardStatus| {
                    replica_on(group, 2).is_some_and(|replica| replica.generation > 0)
                };
                match groups.iter().all(is_new) {
                    true => Ok(groups),
                    false => Err(format!("{groups:?}")),
                }
            },
        )
        .await;
        for group in &groups {
            for node in [1, 3] {
                let stayed = replica_on(group, node).map(|replica| replica.generation);
                assert_eq!(stayed, Some(0), "node {node} lost nothing: {group:?}");
            }
        }
        shop.more_calls(CALLS_BETWEEN).await;
    };
    shop.trade_during(SEED, change).await;
    shop.account_for_all(&cluster).await;
    assert_eq!(shop.failures(), 0, "failed calls");
}

#[tokio::test]
async fn a_node_that_stays_away_is_replaced_where_there_is_room_and_is_welcome_again() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        spares: 1,
        replace_after_seconds: Some(4),
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    let change = async {
        cluster.restart(4);
        operator.wait_until_settled(&[1, 2, 3, 4]).await;
        cluster.kill(3);
        let away = Instant::now();
        until(
            "a replacement",
            tests::operator::SETTLED_WITHIN,
            async || {
                let (groups, _) = operator.groups().await?;
                let is_replaced = |group: &ShardStatus| {
                    let voters = group.replicas.iter().filter(|r| r.role() == Role::Voter);
                    let on: Vec<u64> = voters.map(|replica| replica.node_id).collect();
                    on == [1, 2, 4] && group.r#move.is_none()
                };
                let replaced = groups.iter().all(is_replaced);
                replaced.then_some(()).ok_or(format!("{groups:?}"))
            },
        )
        .await;
        eprintln!("replaced {:?} after it went away", away.elapsed());
        shop.more_calls(CALLS_BETWEEN).await;
        cluster.restart(3);
        operator.wait_until_settled(&[1, 2, 3, 4]).await;
        shop.more_calls(CALLS_BETWEEN).await;
    };
    shop.trade_during(SEED, change).await;
    shop.account_for_all(&cluster).await;
    assert_eq!(shop.failures(), 0, "failed calls");
}

/// An operator has a shard's replicas made anew, of which `which` takes those that are meant: the
/// leader's is the first.
async fn make_anew(which: std::ops::Range<usize>) {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let shop = Shop::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    cluster.wait_until_spread().await;
    let leader = cluster.leader_of(1).await;
    let [one, other] = tests::cluster::others(leader);
    let meant = &[leader, one, other][which];
    let change = async {
        shop.more_calls(CALLS_BETWEEN).await;
        for node in meant {
            operator.rebuild(1, *node).await.unwrap();
        }
        let within = tests::operator::SETTLED_WITHIN;
        let groups = until("new replicas", within, async || {
            let groups = operator.settled(&NODES).await?;
            let is_new = |node: &u64| {
                replica_on(&groups[2], *node).is_some_and(|replica| replica.generation > 0)
            };
            match meant.iter().all(is_new) {
                true => Ok(groups),
                false => Err(format!("{groups:?}")),
            }
        })
        .await;
        for node in meant {
            let new = replica_on(&groups[2], *node).expect("a replica");
            assert_eq!(new.role(), Role::Voter);
            let log = cluster.log(*node);
            assert!(log.contains("a new replica begins"), "{log}");
            assert!(!log.contains("a replica failed"), "it gave way: {log}");
        }
        shop.more_calls(CALLS_BETWEEN).await;
    };
    shop.trade_during(SEED, change).await;
    shop.account_for_all(&cluster).await;
    assert_eq!(shop.failures(), 0, "failed calls");
}

#[tokio::test]
async fn a_replica_is_made_anew_when_an_operator_says_so() {
    make_anew(1..2).await;
}

#[tokio::test]
async fn a_replica_that_leads_hands_over_and_is_made_anew_when_an_operator_says_so() {
    make_anew(0..1).await;
}

#[tokio::test]
async fn all_replicas_of_a_shard_are_made_anew_one_after_the_other() {
    make_anew(0..3).await;
}

fn reason(refused: Result<(), Error>) -> (String, String) {
    let error = refused.expect_err("a refusal");
    (error.reason_text().to_owned(), error.to_string())
}

#[tokio::test]
async fn nobody_takes_out_a_node_too_many_or_one_that_is_not_empty() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let operator = Operator::new(cluster.client().await);
    let before = operator.wait_until_settled(&NODES).await;

    let (reason_of_drain, words) = reason(operator.drain(2).await);
    assert_eq!(reason_of_drain, "TOO_FEW_NODES");
    assert!(
        words.contains("2 active nodes") && words.contains("3 replicas"),
        "{words}"
    );
    let (reason_of_removal, words) = reason(operator.remove(2).await);
    assert_eq!(reason_of_removal, "NODE_NOT_DRAINING", "{words}");
    let (reason_of_stranger, words) = reason(operator.drain(9).await);
    assert_eq!(reason_of_stranger, "UNKNOWN_NODE", "{words}");

    let after = operator.wait_until_settled(&NODES).await;
    let on = |groups: &[ShardStatus]| -> Vec<Vec<u64>> {
        let nodes = groups
            .iter()
            .map(|group| group.replicas.iter().map(|r| r.node_id).collect());
        nodes.collect()
    };
    assert_eq!(on(&before), on(&after));
}

/// Waits until a node has ended by itself, and returns what it said in this life.
async fn turned_away(cluster: &Cluster, node: u64, arguments: &[&str]) -> String {
    let before = cluster.log(node).len();
    cluster.restart_with(node, arguments);
    until("a node that is turned away", SAID_WITHIN, async || {
        let ended = cluster.ended(node);
        ended.ok_or_else(|| format!("it runs:\n{}", &cluster.log(node)[before..]))
    })
    .await;
    cluster.reap(node);
    cluster.log(node)[before..].to_owned()
}

#[tokio::test]
async fn a_removed_node_does_not_come_back_but_its_machine_may() {
    let cluster = Cluster::start(Options {
        shards: 2,
        spares: 1,
        ..Options::default()
    })
    .await;
    let operator = Operator::new(cluster.client().await);
    cluster.restart(4);
    operator.wait_until_settled(&[1, 2, 3, 4]).await;
    operator.retire(4).await;
    cluster.kill(4);

    let said = turned_away(&cluster, 4, &[]).await;
    assert!(said.contains("was removed"), "with its data: {said}");
    cluster.empty(4);
    let said = turned_away(&cluster, 4, &[]).await;
    assert!(
        said.contains("was removed"),
        "with an empty directory: {said}"
    );
    operator.wait_until_settled(&NODES).await;

    cluster.empty(4);
    cluster.restart_with(4, &["--node-id", "0"]);
    operator.wait_until_settled(&[1, 2, 3, 5]).await;
}

#[tokio::test]
async fn a_new_node_that_means_another_cluster_is_turned_away() {
    let cluster = Cluster::start(Options {
        shards: 2,
        spares: 1,
        ..Options::default()
    })
    .await;
    let operator = Operator::new(cluster.client().await);

    let said = turned_away(&cluster, 4, &["--cluster-id", "another"]).await;
    assert!(said.contains("and not of another"), "{said}");
    cluster.empty(4);
    let said = turned_away(&cluster, 4, &["--shards", "7"]).await;
    assert!(said.contains("2 shards") && said.contains('7'), "{said}");
    operator.wait_until_settled(&NODES).await;

    cluster.empty(4);
    cluster.restart(4);
    operator.wait_until_settled(&[1, 2, 3, 4]).await;
}

#[tokio::test]
async fn a_first_boot_waits_for_every_founder_and_says_for_whom() {
    let cluster = Cluster::prepared(Options {
        shards: 2,
        ..Options::default()
    });
    cluster.restart(1);
    cluster.restart(2);
    for node in [1, 2] {
        until("a word about who is missing", SAID_WITHIN, async || {
            let log = cluster.log(node);
            let says_so = log.lines().any(|line| {
                line.contains("waiting")
                    && line.contains("node 3")
                    && !line.contains("node 2")
                    && !line.contains("node 1")
            });
            says_so.then_some(()).ok_or(log)
        })
        .await;
        assert!(
            cluster.topology(node).await.is_err(),
            "it serves nobody yet"
        );
    }
    cluster.restart(3);
    cluster.wait_until_led().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("first"), fresh_location(&client).await);
    receive(&client, &sku, &location, 1).await;
    held(client.reserve(reserve(&sku, &location, 1)).await.unwrap());
}

/// What a group writes while one of its replicas is away: with names as long as they may be, two
/// checkpoints and the end of the log between them. A long run writes more than the usual one can.
const DOCUMENTS_MAX: u32 = 200;
const LINES_PER_DOCUMENT: u32 = 10_000;
const DOCUMENTS_AT_ONCE: usize = 2;

/// A debug build is slow at lines by the ten thousand.
const LARGE_CALL_WITHIN: Duration = Duration::from_secs(60);

/// `STOCKD_LONG_ABSENCE=1 cargo test --release -p tests --test cluster membership`: the log of a
/// group is not cut before it has 32 MiB, which takes a debug build a minute.
#[tokio::test]
async fn a_follower_that_missed_more_than_the_log_holds_comes_back_through_a_snapshot() {
    if settings::number("STOCKD_LONG_ABSENCE", 0) == 0 {
        eprintln!("left out: STOCKD_LONG_ABSENCE is not set");
        return;
    }
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let builder = cluster.client_builder().call_timeout(LARGE_CALL_WITHIN);
    let builder = builder.bulk_attempt_timeout(LARGE_CALL_WITHIN);
    let client = builder.connect().await.unwrap();
    let location = fresh_location(&client).await;
    let sku = format!("{:x>64}", sku_in(0, 1, "missed"));
    let leader = cluster.leader_of(0).await;
    let away = tests::cluster::others(leader)[0];
    cluster.kill(away);
    let mut received = 0;
    // The older of two files that are kept is where the log begins.
    while checkpoint_indexes(&cluster, leader).len() < 2 {
        assert!(received < DOCUMENTS_MAX, "no second checkpoint");
        let documents = (0..DOCUMENTS_AT_ONCE).map(|_| {
            let request = large_receipt(&sku, &location);
            client.record_receipts([request])
        });
        for answer in futures_util::future::join_all(documents).await {
            let verdicts = answer.unwrap().verdicts;
            assert_eq!(verdicts.len(), LINES_PER_DOCUMENT as usize);
            received += 1;
        }
    }
    cluster.restart(away);
    let on_hand = i64::from(received * LINES_PER_DOCUMENT);
    let channel = cluster.channel(away);
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    let (_, since) = position_seen(&client, &sku, &location).await.unwrap();
    let seen = position_since(&channel, &sku, &location, &since)
        .await
        .unwrap();
    assert_eq!(seen.on_hand, on_hand);
    let log = cluster.log(away);
    let installed = log
        .lines()
        .filter(|line| line.contains("a snapshot was installed"));
    assert_eq!(
        installed.filter(|line| line.contains("group=1")).count(),
        1,
        "{log}"
    );
}

/// The whole checkpoints of group 1 on a node, by index.
fn checkpoint_indexes(cluster: &Cluster, node: u64) -> Vec<String> {
    let files = std::fs::read_dir(cluster.data_dir(node).join("checkpoints"));
    let files = files.into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let whole = names.filter(|name| name.starts_with("g1-") && name.ends_with(".checkpoint"));
    whole.collect()
}

fn large_receipt(sku: &str, location: &str) -> RecordReceiptsRequest {
    let line = |number: u32| MovementLine {
        line: format!("{number:0>64}"),
        ..movement(sku, location, 1)
    };
    RecordReceiptsRequest {
        source: None,
        document: format!("{:0>64}", fresh("note")),
        lines: (0..LINES_PER_DOCUMENT).map(line).collect(),
    }
}
