//! When most nodes are lost for good: what the last one has is there, and the cluster grows again.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use stock_proto::stock::admin::v1::ListShardsRequest;
use stock_proto::stock::admin::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{Consistency, GetReservationRequest, ListReservationsRequest};
use tests::cluster::{Cluster, NODES, Options};
use tests::directories::cut_end_of_log;
use tests::inspection::inspect;
use tests::names::{fresh, sku_in};
use tests::operator::Operator;
use tests::programs;
use tests::receipts::Receipts;
use tests::stock::{
    fresh_location, held, position, position_at, reading, receive, reservation, reserve, sell,
};
use tests::visitor::{Addresses, Visitor};
use tests::wait::until;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// Six moves, one after the other, on a busy machine.
const REBUILT_WITHIN: Duration = Duration::from_secs(120);

/// From the start of two nodes of the old cluster until they have elected leaders.
const OLD_LEADERS_WITHIN: Duration = Duration::from_secs(30);

const SHARDS: u32 = 2;

pub(crate) fn stockd(arguments: &[&str], dirs: &[&Path]) -> Output {
    let mut command = programs::run_stockd();
    command.args(arguments).stdin(Stdio::null());
    for dir in dirs {
        command.arg("--data-dir").arg(dir);
    }
    command.output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Every file below a directory, with its content.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push((path.clone(), std::fs::read(&path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

/// A node that the cluster's configuration does not name.
fn join(cluster: &Cluster, cluster_id: &str, through: u64) -> Visitor {
    let addresses = Addresses::free(1);
    let through = cluster.peers_address(through);
    let arguments = ["--cluster-id", cluster_id, "--join", &through];
    Visitor::start(&cluster.dir().join("stranger"), &addresses[0], &arguments)
}

/// The voters of every group as group 0 knows them, group 0 first.
async fn voters(channel: Channel) -> Result<Vec<Vec<u64>>, String> {
    let mut stub = ClusterServiceClient::new(channel);
    let listed = stub.list_shards(ListShardsRequest::default()).await;
    let listed = listed.map_err(|e| e.to_string())?.into_inner();
    let groups = listed.meta.iter().chain(&listed.shards);
    let voters = groups.map(|group| {
        let voters = group.replicas.iter();
        let voters = voters.filter(|replica| replica.role() == Role::Voter && replica.active);
        let mut voters: Vec<u64> = voters.map(|replica| replica.node_id).collect();
        voters.sort_unstable();
        match group.r#move {
            None => Ok(voters),
            Some(_) => Err(format!("shard {}: a move is under way", group.shard)),
        }
    });
    voters.collect()
}

/// A read that wants what an answer showed, and the second page of a list: neither means anything
/// in another life of the cluster, of which the indexes are others.
async fn seen_in_this_life(
    cluster: &Cluster,
    hold: &str,
) -> (GetReservationRequest, ListReservationsRequest) {
    let mut client = ReservationServiceClient::new(cluster.channel(1));
    let read = GetReservationRequest {
        reservation_id: hold.to_owned(),
        ..GetReservationRequest::default()
    };
    let answer = client.get_reservation(read.clone()).await.unwrap();
    let header = answer.into_inner().header.unwrap();
    let read = GetReservationRequest {
        read: reading(
            Consistency::Linearizable,
            &header.indexes,
            &header.incarnation,
        ),
        ..read
    };
    client.get_reservation(read.clone()).await.unwrap();
    let list = ListReservationsRequest {
        page_size: 1,
        ..ListReservationsRequest::default()
    };
    let first = client.list_reservations(list.clone()).await.unwrap();
    let page_token = first.into_inner().next_page_token;
    assert!(!page_token.is_empty());
    (read, ListReservationsRequest { page_token, ..list })
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().map(|info| info.reason.clone());
    info.unwrap_or_default()
}

#[tokio::test]
async fn one_node_of_three_goes_on_alone_and_the_cluster_grows_again() {
    let options = Options {
        shards: SHARDS,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus = [0, 1].map(|shard| sku_in(shard, SHARDS, "left"));
    let mut holds = Vec::new();
    for (sku, quantity) in skus.iter().zip([100, 200]) {
        receive(&client, sku, &location, quantity).await;
        for _ in 0..20 {
            sell(&client, sku, &location, 1).await;
        }
        let hold = client.reserve(reserve(sku, &location, 7)).await.unwrap();
        holds.push(held(hold).reservation_id);
    }
    let stock = async |expected: [(i64, i64); 2]| {
        for (sku, expected) in skus.iter().zip(expected) {
            let now = position(&client, sku, &location).await.unwrap();
            assert_eq!((now.on_hand, now.reserved), expected, "{sku}");
        }
    };
    // What node 1 answers linearizably it has.
    for sku in &skus {
        position_at(&cluster.channel(1), sku, &location)
            .await
            .unwrap();
    }

    let seen = seen_in_this_life(&cluster, &holds[0]).await;

    // Looking is for nodes that do not run.
    let running = stockd(&["inspect"], &[&cluster.data_dir(1)]);
    let holder = format!("in use by process {}", cluster.process_id(1));
    assert!(text(&running).contains(&holder), "{}", text(&running));
    assert_eq!(running.status.code(), Some(1));

    // Alone, it tells an operator what to do.
    cluster.kill(2);
    cluster.kill(3);
    until("the last node to notice", OLD_LEADERS_WITHIN, async || {
        let advice = programs::run_stockctl()
            .args(["--endpoint", &cluster.endpoint(1), "unsafe", "recover"])
            .output()
            .unwrap();
        let all = "No leader: the meta group, shard 0, shard 1\nNodes that answer: 1\n";
        let is_told = text(&advice).starts_with(all) && advice.status.code() == Some(1);
        is_told.then_some(()).ok_or(text(&advice))
    })
    .await;
    cluster.kill(1);
    let survivor = cluster.data_dir(1);
    let others = [2, 3].map(|node| cluster.data_dir(node));
    let before = content(&survivor);
    let (is_well, report) = inspect(&survivor);
    assert!(is_well, "{report:#}");
    let cluster_id = report["cluster_id"].as_str().unwrap().to_owned();
    let recover = |arguments: &[&str]| {
        let arguments = [&["recover"], arguments].concat();
        stockd(&arguments, &[&survivor])
    };
    let shown = recover(&[]);
    assert!(shown.status.success(), "{}", text(&shown));
    assert!(
        text(&shown).contains("Nothing was changed"),
        "{}",
        text(&shown)
    );
    assert!(
        before == content(&survivor),
        "looking has changed the directory"
    );

    // Two of three are a majority: there is nothing to give up.
    let enough = stockd(&["recover"], &[&survivor, &others[0]]);
    assert!(
        text(&enough).contains("Nothing to recover"),
        "{}",
        text(&enough)
    );

    let wrong = recover(&["--lose-everything-else", "--confirm", "other"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    let done = recover(&["--lose-everything-else", "--confirm", &cluster_id]);
    assert!(done.status.success(), "{}", text(&done));
    let (is_well, report) = inspect(&survivor);
    assert!(is_well, "{report:#}");
    for group in report["groups"].as_array().unwrap() {
        assert_eq!(group["state"]["voters"], serde_json::json!(["1"]));
    }
    let again = recover(&["--lose-everything-else", "--confirm", &cluster_id]);
    assert!(
        text(&again).contains("Nothing to recover"),
        "{}",
        text(&again)
    );

    cluster.restart(1);
    cluster.wait_until_led().await;
    stock([(80, 7), (180, 7)]).await;
    for hold in &holds {
        reservation(&client, hold).await.unwrap();
    }
    sell(&client, &skus[0], &location, 5).await;
    let (read, list) = seen;
    let mut reservations = ReservationServiceClient::new(cluster.channel(1));
    let over = reservations.get_reservation(read).await.unwrap_err();
    assert_eq!(reason(&over), "INCARNATION_OVER", "{over}");
    let over = reservations.list_reservations(list).await.unwrap_err();
    assert_eq!(reason(&over), "FIELD_INVALID", "{over}");
    assert!(over.message().starts_with("page_token"), "{over}");

    // The lost nodes were not lost after all. They still are a majority of the cluster as they know
    // it, and end.
    for node in [2, 3] {
        let from = cluster.log(node).len();
        cluster.restart(node);
        let said = ends(&cluster, node, from).await;
        assert!(said.contains(RECOVERED), "{said}");
    }
    let alone = cluster.topology(1).await.unwrap();
    let leaders = alone.meta.iter().chain(&alone.shards);
    for group in leaders {
        assert_eq!(
            group.leader_node_id,
            Some(1),
            "an old node leads a new group"
        );
    }
    for node in [2, 3] {
        std::fs::remove_dir_all(cluster.data_dir(node)).unwrap();
    }
    sell(&client, &skus[1], &location, 5).await;
    stock([(75, 7), (175, 7)]).await;

    // One comes back empty under its id, one is new.
    cluster.restart(2);
    let stranger = join(&cluster, &cluster_id, 1);
    let channel = Endpoint::from_shared(stranger.endpoint())
        .unwrap()
        .connect_lazy();
    until("three replicas of everything", REBUILT_WITHIN, async || {
        // Only the leader of group 0 answers.
        let mut voters_seen = Err("nobody was asked".to_owned());
        for channel in [cluster.channel(1), cluster.channel(2), channel.clone()] {
            voters_seen = match voters_seen {
                Ok(seen) => Ok(seen),
                Err(_) => voters(channel).await,
            };
        }
        let voters = voters_seen?;
        let is_whole = voters.iter().all(|voters| *voters == [1, 2, 4]);
        let log = || std::fs::read_to_string(cluster.dir().join("stranger.log"));
        is_whole.then_some(()).ok_or_else(|| {
            let log = log().unwrap_or_default();
            format!("voters by group: {voters:?}\nthe new node:\n{log}")
        })
    })
    .await;

    // They are worth something: without the survivor of then, all is there.
    cluster.kill(1);
    for (sku, expected) in skus.iter().zip([(75, 7), (175, 7)]) {
        let counts = until("an answer of the new nodes", REBUILT_WITHIN, async || {
            let now = position_at(&channel, sku, &location).await;
            now.map(|now| (now.on_hand, now.reserved))
                .map_err(|status| status.to_string())
        })
        .await;
        assert_eq!(counts, expected);
    }
    cluster.kill(2);
    drop(stranger);
    for dir in [
        survivor,
        cluster.data_dir(2),
        cluster.dir().join("stranger"),
    ] {
        let (is_well, report) = inspect(&dir);
        assert!(is_well, "{report:#}");
    }
}

#[tokio::test]
async fn looking_into_the_directories_of_a_whole_cluster_finds_equal_states_and_any_damage() {
    let options = Options {
        shards: SHARDS,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    for _ in 0..30 {
        receive(&client, &fresh("seen"), &location, 3).await;
    }
    // What a node answers linearizably it has; a follower may otherwise stop before it hears of the
    // last commit.
    for node in NODES {
        for shard in 0..SHARDS {
            let sku = sku_in(shard, SHARDS, "any");
            position_at(&cluster.channel(node), &sku, &location)
                .await
                .unwrap();
        }
    }
    for node in NODES {
        cluster.terminate(node);
        until("the end of a node", REBUILT_WITHIN, async || {
            cluster.ended(node).ok_or("it runs".to_owned())
        })
        .await;
    }
    let mut hashes = std::collections::BTreeMap::new();
    let mut entries = 0;
    for node in NODES {
        let (is_well, report) = inspect(&cluster.data_dir(node));
        assert!(is_well, "{report:#}");
        assert_eq!(report["node_id"], node);
        for group in report["groups"].as_array().unwrap() {
            assert_eq!(group["presence"], "here");
            let state = &group["state"];
            let place = (group["group"].as_u64(), state["index"].as_u64());
            let hash = hashes.entry(place).or_insert_with(|| state["hash"].clone());
            assert_eq!(*hash, state["hash"], "node {node}, {place:?}");
            if group["group"] != 0 {
                assert_eq!(group["ledger"]["holes"], serde_json::json!([]));
                entries += group["ledger"]["entries"].as_u64().unwrap();
            }
        }
    }
    assert_eq!(entries, 90, "each receipt once, on each node");

    // A file that is a checkpoint by its name alone, and a byte in the middle of the log.
    let dir = cluster.data_dir(1);
    let bogus = dir.join("checkpoints/g1-i00000000000000000009-t1.checkpoint");
    std::fs::write(&bogus, b"no checkpoint").unwrap();
    let (is_well, report) = inspect(&dir);
    assert!(!is_well);
    let file = report["damage"][0]["file"].as_str().unwrap();
    assert_eq!(Path::new(file), bogus);
    std::fs::remove_file(&bogus).unwrap();
    let mut logs = std::fs::read_dir(dir.join("log")).unwrap();
    let log = logs.find_map(|entry| {
        let path = entry.unwrap().path();
        let is_log = path.extension().is_some_and(|end| end == "raftlog");
        is_log.then_some(path)
    });
    let log = log.unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written / 2] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let damaged = stockd(&["inspect", "--verify"], &[&dir]);
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged));
    assert!(
        text(&damaged).contains("cannot be read"),
        "{}",
        text(&damaged)
    );

    // The end of a log, without which its ledger knows of what it has not got.
    let dir = cluster.data_dir(2);
    cut_end_of_log(&dir, 3_000);
    let (is_well, report) = inspect(&dir);
    let damage = report["damage"].as_array().unwrap();
    let is_said = |said: &serde_json::Value| {
        let what = said["what"].as_str().unwrap_or_default();
        what.contains("the ledger reaches to index") && what.contains("its end is lost")
    };
    assert!(!is_well && damage.iter().any(is_said), "{report:#}");

    let nowhere = stockd(&["inspect"], &[&cluster.dir().join("nowhere")]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(!cluster.dir().join("nowhere").exists());
}

/// What a node says that has met a life which goes on from its own.
const RECOVERED: &str = "the cluster was recovered";

/// Waits until a node ends by itself, and returns what it has logged since `from`.
pub(crate) async fn ends(cluster: &Cluster, node: u64, from: usize) -> String {
    until("the end of a node", REBUILT_WITHIN, async || {
        let log = || cluster.log(node)[from..].to_owned();
        cluster.ended(node).map(drop).ok_or_else(log)
    })
    .await;
    cluster.reap(node);
    cluster.log(node)[from..].to_owned()
}

/// A recovery, with these directories.
pub(crate) fn recover(cluster: &Cluster, nodes: &[u64], more: &[&str]) -> Output {
    let id = cluster.cluster_id();
    let arguments = ["recover", "--lose-everything-else", "--confirm", &id];
    let dirs: Vec<_> = nodes.iter().map(|node| cluster.data_dir(*node)).collect();
    let dirs: Vec<&Path> = dirs.iter().map(|dir| &**dir).collect();
    stockd(&[&arguments[..], more].concat(), &dirs)
}

/// A cluster of which node 1 was recovered alone, and has acknowledged more since; the disks of the
/// others turn up.
pub(crate) async fn recovered_apart() -> (Cluster, Receipts) {
    let options = Options {
        shards: SHARDS,
        ..Options::default()
    };
    let cluster = Cluster::start(options).await;
    let receipts = Receipts::open(&cluster).await;
    receipts.add(5).await;
    receipts.check_everywhere(&cluster).await;
    cluster.kill_all();
    let recovered = recover(&cluster, &[1], &[]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    cluster.restart(1);
    receipts.add(20).await;
    cluster.kill(1);
    (cluster, receipts)
}

#[tokio::test]
async fn directories_of_different_lives_are_never_joined() {
    let (cluster, receipts) = recovered_apart().await;
    let refused = recover(&cluster, &NODES, &[]);
    let said = text(&refused);
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("are of different lives of the cluster"),
        "{said}"
    );
    // The one that went on from the other is said to have.
    let life = &latest_life(&cluster);
    let unknown = recover(&cluster, &NODES, &["--keep-life", "zz"]);
    assert!(!unknown.status.success() && text(&unknown).contains("--keep-life zz"));

    let kept = recover(&cluster, &NODES, &["--keep-life", life]);
    assert!(kept.status.success(), "{}", text(&kept));
    assert!(
        text(&kept).contains("of a life that is not kept"),
        "{}",
        text(&kept)
    );
    for node in NODES {
        cluster.restart(node);
    }
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
}

#[tokio::test]
async fn a_quorum_of_a_life_that_has_ended_stops_when_it_meets_the_one_that_goes_on() {
    let (cluster, receipts) = recovered_apart().await;
    // The disks of the others turn up, and they elect.
    for node in [2, 3] {
        cluster.restart(node);
    }
    cluster.wait_until_led().await;
    cluster.restart(1);
    for node in [2, 3] {
        let said = ends(&cluster, node, 0).await;
        assert!(said.contains(RECOVERED), "{said}");
        // Nor does it come back as it was.
        let from = cluster.log(node).len();
        cluster.restart(node);
        let said = ends(&cluster, node, from).await;
        assert!(said.contains(RECOVERED), "{said}");
    }
    receipts.add(1).await;
    for node in [2, 3] {
        cluster.empty(node);
        cluster.restart(node);
    }
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
}

/// The life of the last recovery, as a refusal to join directories of several names it.
pub(crate) fn latest_life(cluster: &Cluster) -> String {
    let said = text(&recover(cluster, &NODES, &[]));
    let line = said
        .lines()
        .find(|line| line.contains("recovered from life"));
    let life = line.and_then(|line| line.split_whitespace().nth(1));
    life.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[tokio::test]
async fn a_cluster_that_stopped_while_it_was_founded_is_recovered_from_any_founder() {
    let cluster = Cluster::prepared(Options {
        shards: SHARDS,
        ..Options::default()
    });
    for node in NODES {
        cluster.restart(node);
    }
    // Everybody has begun its replicas, and hardly anybody has been elected.
    until("a founding", OLD_LEADERS_WITHIN, async || {
        let has_begun = |node: &u64| cluster.log(*node).contains("stockd::node: serving");
        let all = NODES.iter().all(has_begun);
        all.then_some(()).ok_or("not all found".to_owned())
    })
    .await;
    cluster.kill_all();
    let recovered = recover(&cluster, &[2], &[]);
    assert!(recovered.status.success(), "{}", text(&recovered));
    cluster.restart(2);
    cluster.wait_until_led().await;
    for node in [1, 3] {
        cluster.empty(node);
        cluster.restart(node);
    }
    let receipts = Receipts::open(&cluster).await;
    receipts.add(5).await;
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    receipts.check_everywhere(&cluster).await;
}
