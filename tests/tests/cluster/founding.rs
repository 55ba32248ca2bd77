//! How a cluster begins, and who is let in under which id: what is founded twice is two clusters,
//! founders who were told different things found nothing, no id is given twice, and what never ran
//! counts for nothing. `docs/identity.md` has the rules.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use stock_client::{Client, StatusError};
use stock_proto::stock::admin::v1::ShardStatus;
use stock_proto::stock::admin::v1::waiting::Reason;
use stock_proto::stock::internal::v1::{JoinNodeRequest, JoinNodeResponse};
use stockd::membership::join::connect;
use tests::cluster::{Cluster, NODES, Options};
use tests::directories::delete_log;
use tests::inspection::{inspect, verify_what_is_left};
use tests::operator::{Operator, SETTLED_WITHIN, replica_on};
use tests::programs;
use tests::receipts::Receipts;
use tests::stock::{position_at, receive_many};
use tests::visitor::{Addresses, Visitor};
use tests::wait::until;

const SHARDS: u32 = 2;

/// From a node's start until it has said what keeps it from serving.
const SAID_WITHIN: Duration = Duration::from_secs(30);

/// A node that is not let in, or not suffered, has ended by then.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// For how long nodes that are no majority are asked in vain.
const KNOCK_FOR: Duration = Duration::from_secs(2);

/// Why strangers do not talk to each other.
const ANOTHER_LIFE: &str =
    "the life of the cluster, which begins anew when it is founded or recovered, is";

const FOUNDING: &str = "founding the cluster";

async fn start() -> Cluster {
    Cluster::start(Options {
        shards: SHARDS,
        ..Options::default()
    })
    .await
}

fn start_all(cluster: &Cluster) {
    NODES.into_iter().for_each(|node| cluster.restart(node));
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// The replicas of each group, each by node and generation.
fn replicas(groups: &[ShardStatus]) -> Vec<Vec<(u64, u32)>> {
    let of = |group: &ShardStatus| {
        let replicas = group.replicas.iter();
        replicas.map(|it| (it.node_id, it.generation)).collect()
    };
    groups.iter().map(of).collect()
}

#[tokio::test]
async fn a_cluster_founded_twice_is_two_clusters() {
    let cluster = start().await;
    let first = Receipts::open(&cluster).await;
    first.add(20).await;
    cluster.kill_all();
    let old = NODES.map(|node| cluster.put_aside(node, "first-life"));
    start_all(&cluster);
    cluster.wait_until_led().await;
    let second = Receipts::open(&cluster).await;
    second.add(5).await;

    cluster.kill(3);
    let own = cluster.put_aside(3, "second-life");
    cluster.put_in_place(3, &old[2]);
    let from = NODES.map(|node| cluster.log(node).len());
    cluster.restart(3);
    for (node, from) in NODES.into_iter().zip(from) {
        until("strangers who say so", SAID_WITHIN, async || {
            let log = cluster.log(node)[from..].to_owned();
            log.contains(ANOTHER_LIFE).then_some(()).ok_or(log)
        })
        .await;
    }
    let stranger = [(3, cluster.channel(3))];
    first.knock_in_vain(&stranger, KNOCK_FOR).await;
    second.add(5).await;
    let alone = cluster.topology(3).await.unwrap();
    for group in alone.meta.iter().chain(&alone.shards) {
        assert_eq!(group.leader_node_id, None, "node 3 follows somebody");
    }
    for node in [1, 2] {
        second
            .check_at(&format!("node {node}"), &cluster.channel(node))
            .await;
    }

    cluster.kill(3);
    cluster.put_aside(3, "first-life-again");
    cluster.put_in_place(3, &own);
    cluster.restart(3);
    let operator = Operator::new(cluster.client().await);
    let groups = operator.wait_until_settled(&NODES).await;
    let founded =
        |replicas: &Vec<(u64, u32)>| replicas.iter().all(|(_, generation)| *generation == 0);
    assert!(replicas(&groups).iter().all(founded), "{groups:?}");
    second.check_everywhere(&cluster).await;
}

const CHECKPOINT_AFTER_BYTES: u64 = 8_192;

/// Lines of one receipt: a checkpoint of each shard follows it.
const LINES: usize = 300;

const CHECKPOINTS_WITHIN: Duration = Duration::from_secs(60);

/// Of the second life; the first had more entries, so that its files are named further.
const RECEIPTS: u32 = 100;

#[tokio::test]
async fn checkpoints_of_an_earlier_life_are_not_taken_for_states() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        ..Options::default()
    })
    .await;
    let first = Receipts::open(&cluster).await;
    let client = cluster.client().await;
    first.add(RECEIPTS + RECEIPTS / 2).await;
    until("checkpoints everywhere", CHECKPOINTS_WITHIN, async || {
        receive_many(&client, first.location(), LINES).await?;
        for node in NODES {
            for group in 1..=SHARDS {
                let names = cluster.checkpoints(node, group);
                if names.len() < 2 {
                    return Err(format!("node {node}, group {group}: {names:?}"));
                }
            }
        }
        Ok(())
    })
    .await;
    cluster.kill_all();
    for node in NODES {
        delete_log(&cluster.data_dir(node));
    }

    // Over what is left of a life none is begun.
    start_all(&cluster);
    until("the end of a node", CHECKPOINTS_WITHIN, async || {
        let ended = NODES.iter().find(|node| cluster.ended(**node).is_some());
        let log = ended.map(|node| cluster.log(*node));
        match log.is_some_and(|log| log.contains("no second one is founded")) {
            true => Ok(()),
            false => Err(format!("{ended:?}")),
        }
    })
    .await;
    cluster.kill_all();

    // And what an earlier life has left is of no use to the next.
    let left = NODES.map(|node| (node, cluster.put_aside(node, "left")));
    start_all(&cluster);
    cluster.wait_until_led().await;
    cluster.kill_all();
    for (node, left) in &left {
        for file in std::fs::read_dir(left.join("checkpoints")).unwrap() {
            let file = file.unwrap();
            let to = cluster
                .data_dir(*node)
                .join("checkpoints")
                .join(file.file_name());
            std::fs::copy(file.path(), to).unwrap();
        }
    }
    start_all(&cluster);
    cluster.wait_until_led().await;
    let second = Receipts::open(&cluster).await;
    second.add(RECEIPTS).await;
    second.check_everywhere(&cluster).await;
    for node in NODES {
        cluster.kill(node);
        second.add(1).await;
        cluster.restart(node);
        cluster.wait_until_led().await;
        second.check_everywhere(&cluster).await;
    }
    let client = cluster.client().await;
    let locations = client.list_locations().await.unwrap().locations;
    let mut known = locations.iter().map(|location| &location.location_id);
    assert!(known.all(|id| id == second.location()), "{locations:?}");
    for node in NODES {
        for sku in first.skus() {
            let seen = position_at(&cluster.channel(node), sku, first.location()).await;
            let on_hand = seen.map_or(0, |seen| seen.on_hand);
            assert_eq!(on_hand, 0, "node {node} has {sku} of the first life");
        }
    }

    let begins = verify_what_is_left(&cluster);
    assert!(begins.iter().all(|of| *of == begins[0]), "{begins:?}");
    for node in NODES {
        let (_, report) = inspect(&cluster.data_dir(node));
        for group in &report["groups"].as_array().unwrap()[1..] {
            // Whoever is killed may not have written the last of them, or any; the next start takes
            // them from the log.
            let entries = group["ledger"]["entries"].as_i64().unwrap_or(0);
            let to = group["ledger"]["to"].as_u64().unwrap_or(0);
            assert!(
                entries <= second.acknowledged()
                    && to <= group["log"]["last_index"].as_u64().unwrap(),
                "node {node} has history of the first life: {group:#}"
            );
        }
    }
}

const LISTS_CLUSTER: &str = "lists";

/// Starts a founder that knows these as the founders.
fn found(dir: &Path, node: u64, list: &[String], own: &Addresses, more: &[&str]) -> Visitor {
    let id = node.to_string();
    let shards = SHARDS.to_string();
    let mut arguments = vec!["--cluster-id", LISTS_CLUSTER, "--shards", &shards];
    arguments.extend(["--node-id", &id]);
    arguments.extend(list.iter().flat_map(|listed| ["--node", listed]));
    arguments.extend(more);
    Visitor::start(&dir.join(format!("founder-{node}")), own, &arguments)
}

fn listed(addresses: &[Addresses]) -> Vec<String> {
    let listed = (1..).zip(addresses);
    listed.map(|(node, of)| of.listed_as(node)).collect()
}

/// Waits until each has said all of this, and panics if any founds.
async fn found_nothing_and_say(founders: &[Visitor], words: &[&str]) {
    until("founders who say why they wait", SAID_WITHIN, async || {
        for founder in founders {
            let log = founder.log();
            assert!(!log.contains(FOUNDING), "{log}");
            if let Some(missing) = words.iter().find(|words| !log.contains(**words)) {
                return Err(format!("not said: {missing}\n{log}"));
            }
        }
        Ok(())
    })
    .await;
}

/// Waits until they have founded a cluster that takes and keeps receipts.
async fn found_together(founders: &[Visitor]) {
    let builder = founders.iter().fold(Client::builder(), |builder, founder| {
        builder.endpoint(founder.endpoint())
    });
    let client = until("a cluster", SETTLED_WITHIN, async || {
        let client = builder.clone().connect().await.map_err(|e| e.to_string())?;
        let locations = client.list_locations().await;
        locations.map(|_| client).map_err(|e| e.to_string())
    })
    .await;
    let receipts = Receipts::through(client, SHARDS).await;
    receipts.add(3).await;
    for founder in founders {
        receipts
            .check_at(&founder.endpoint(), &founder.channel())
            .await;
    }
}

#[tokio::test]
async fn founders_with_different_lists_found_nothing_and_say_why() {
    let dir = programs::data_dir();
    let addresses = Addresses::free(5);
    let (three, five) = (listed(&addresses[..3]), listed(&addresses));
    let start = |lists: [&[String]; 5]| -> Vec<Visitor> {
        let founders = (1..).zip(lists).zip(&addresses);
        let founders = founders.map(|((node, list), own)| found(dir.path(), node, list, own, &[]));
        founders.collect()
    };
    // Two would be a majority of three, and three of five.
    let founders = start([&three, &three, &five, &five, &five]);
    let both = [
        "nodes [1, 2, 3] and 3 replicas",
        "nodes [1, 2, 3, 4, 5] and 3 replicas",
    ];
    found_nothing_and_say(&founders, &both).await;
    drop(founders);

    let founders = start([&five, &five, &five, &five, &five]);
    found_together(&founders).await;
}

#[tokio::test]
async fn founders_with_different_numbers_of_replicas_found_nothing_and_say_why() {
    let dir = programs::data_dir();
    let addresses = Addresses::free(3);
    let list = listed(&addresses);
    let start = |replicas: [&str; 3]| -> Vec<Visitor> {
        let founders = (1..).zip(replicas).zip(&addresses);
        let founders = founders.map(|((node, replicas), own)| {
            found(dir.path(), node, &list, own, &["--replicas", replicas])
        });
        founders.collect()
    };
    let founders = start(["1", "3", "3"]);
    let both = [
        "nodes [1, 2, 3] and 1 replicas",
        "nodes [1, 2, 3] and 3 replicas",
    ];
    found_nothing_and_say(&founders, &both).await;
    drop(founders);

    let founders = start(["3", "3", "3"]);
    found_together(&founders).await;
}

#[tokio::test]
async fn nobody_takes_the_id_of_a_node_that_is_heard() {
    let cluster = start().await;
    let receipts = Receipts::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    receipts.add(3).await;
    let before = operator.wait_until_settled(&NODES).await;
    let (id, one, three) = (
        cluster.cluster_id(),
        cluster.peers_address(1),
        cluster.peers_address(3),
    );
    let arguments = [
        "--cluster-id",
        &id,
        "--node-id",
        "2",
        "--join",
        &one,
        "--join",
        &three,
    ];
    let newcomer_dir = cluster.dir().join("newcomer");
    let addresses = &Addresses::free(1)[0];

    let newcomer = Visitor::start(&newcomer_dir, addresses, &arguments);
    until("a newcomer that is turned away", ENDS_WITHIN, async || {
        receipts.add(1).await;
        newcomer.ended().ok_or_else(|| newcomer.log())
    })
    .await;
    let said = newcomer.log();
    assert!(
        said.contains("node 2 is heard from, with another data directory"),
        "{said}"
    );
    assert!(said.contains("stockctl node replace 2"), "{said}");
    let after = operator.wait_until_settled(&NODES).await;
    assert_eq!(replicas(&before), replicas(&after));
    receipts.check_everywhere(&cluster).await;
    drop(newcomer);

    let replace = programs::run_stockctl()
        .args(["--endpoint", &cluster.endpoint(1), "node", "replace", "2"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(replace.status.success(), "{}", text(&replace));
    let newcomer = Visitor::start(&newcomer_dir, addresses, &arguments);
    until(
        "the end of the node that is replaced",
        ENDS_WITHIN,
        async || {
            receipts.add(1).await;
            let ended = cluster.ended(2);
            ended.ok_or_else(|| format!("{}\n{}", cluster.log(2), newcomer.log()))
        },
    )
    .await;
    cluster.reap(2);
    let said = cluster.log(2);
    assert!(
        said.contains("node 2 has another data directory since"),
        "{said}"
    );
    until("new replicas", SETTLED_WITHIN, async || {
        let groups = operator.wait_until_settled(&NODES).await;
        let is_new = |group: &ShardStatus| replica_on(group, 2).is_some_and(|it| it.generation > 0);
        let are_new = groups.iter().all(is_new);
        are_new.then_some(()).ok_or_else(|| format!("{groups:?}"))
    })
    .await;
    receipts.add(1).await;
    receipts.check_at("the newcomer", &newcomer.channel()).await;
    receipts.check_everywhere(&cluster).await;
}

/// Nobody's id.
const PHANTOM: u64 = 77;

async fn join(cluster: &Cluster, addresses: (&str, &str)) -> Result<JoinNodeResponse, StatusError> {
    let request = JoinNodeRequest {
        cluster_id: cluster.cluster_id(),
        node_id: PHANTOM,
        directory: vec![9; 16],
        endpoint: format!("http://{}", addresses.0),
        peers: addresses.1.to_owned(),
    };
    let through = cluster.peers_address(NODES[0]);
    let mut stub = connect(&through, &cluster.cluster_id(), PHANTOM).await?;
    let joined = stub.join_node(request).await?;
    Ok(joined.into_inner())
}

#[tokio::test]
async fn nodes_that_never_ran_count_for_nothing() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        replace_after_seconds: Some(2),
        ..Options::default()
    })
    .await;
    let operator = Operator::new(cluster.client().await);
    let receipts = Receipts::open(&cluster).await;
    operator.wait_until_settled(&NODES).await;
    let free = &Addresses::free(1)[0];
    let respelt = |address: &str| address.replace("127.0.0.1", "localhost");

    for (addresses, reason) in [
        (("0.0.0.0:7401", free.peers.as_str()), "FIELD_INVALID"),
        ((free.grpc.as_str(), "0.0.0.0:7421"), "FIELD_INVALID"),
        (
            (&respelt(&cluster.address(2)), &free.peers),
            "ADDRESS_TAKEN",
        ),
        (
            (&free.grpc, &respelt(&cluster.peers_address(2))),
            "ADDRESS_TAKEN",
        ),
    ] {
        let refused = join(&cluster, addresses).await.expect_err("a refusal");
        assert_eq!(refused.reason, reason, "{addresses:?}: {refused}");
    }
    let let_in = join(&cluster, (&free.grpc, &free.peers)).await.unwrap();
    assert_eq!(let_in.node_id, PHANTOM);

    let refused = operator.drain(1).await.expect_err("a refusal");
    assert_eq!(refused.reason_text(), "TOO_FEW_NODES", "{refused}");
    // Node 3 is missed, and would be replaced if there were anybody to replace it.
    cluster.kill(3);
    until("no room for a replica", SETTLED_WITHIN, async || {
        let (groups, _) = operator.groups().await?;
        for group in &groups {
            assert!(replica_on(group, PHANTOM).is_none(), "{group:?}");
        }
        let has_no_room =
            |group: &ShardStatus| group.waiting.iter().any(|it| it.reason() == Reason::NoRoom);
        let is_over = groups.iter().all(has_no_room);
        is_over.then_some(()).ok_or_else(|| format!("{groups:?}"))
    })
    .await;
    receipts.add(3).await;
    cluster.restart(3);

    // It holds nothing and is missed by nobody.
    operator.drain(PHANTOM).await.unwrap();
    operator.remove(PHANTOM).await.unwrap();
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
}
