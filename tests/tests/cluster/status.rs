//! `stockctl cluster status` says of the nodes what `stockctl node list` says, and what it means
//! for the shards.

use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Cluster, NODES, Options};
use tests::programs;
use tests::wait::until;

/// A node counts as silent after three seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

fn ctl(cluster: &Cluster, output: &str, command: [&str; 2]) -> String {
    let output = programs::run_stockctl()
        .args(["--endpoint", &cluster.endpoint(1), "-o", output])
        .args(command)
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

fn value(cluster: &Cluster, command: [&str; 2]) -> Value {
    serde_json::from_str(&ctl(cluster, "json", command)).unwrap()
}

/// Of each node its id, its state, and whether it is up and well.
fn nodes(answer: &Value) -> Vec<Value> {
    let names = ["node_id", "state", "up", "slow_disk", "disk_full"];
    let nodes = answer["nodes"].as_array().unwrap();
    let each = nodes.iter();
    each.map(|node| names.map(|name| node[name].clone()).into())
        .collect()
}

/// The first three columns of the table of nodes, without how long somebody has been silent.
fn words(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().skip_while(|line| !line.starts_with("NODE"));
    let lines = lines.take_while(|line| !line.is_empty());
    let words = lines.map(|line| line.split_whitespace().take(3).map(str::to_owned).collect());
    words.collect()
}

/// Waits until both commands say the same of each node, and one is silent or none.
async fn agreed(cluster: &Cluster, silent: &[u64]) -> Value {
    until("both to say the same", TOLD_WITHIN, async || {
        let (list, status) = (["node", "list"], ["cluster", "status"]);
        let (listed, told) = (value(cluster, list), value(cluster, status));
        let down = listed["nodes"].as_array().unwrap().iter();
        let down = down.filter(|node| node["up"] == false);
        let down: Vec<Value> = down.map(|node| node["node_id"].clone()).collect();
        let is_so = down == silent.iter().map(|id| json!(id)).collect::<Vec<_>>();
        let (in_words, told_in_words) = (
            words(&ctl(cluster, "table", list)),
            words(&ctl(cluster, "table", status)),
        );
        match is_so && nodes(&listed) == nodes(&told) && in_words == told_in_words {
            true => Ok(told),
            false => Err(format!(
                "{:?}, {:?}, {in_words:?}, {told_in_words:?}",
                nodes(&listed),
                nodes(&told)
            )),
        }
    })
    .await
}

/// Every group, the meta group included.
fn groups(status: &Value) -> Vec<Value> {
    let shards = status["shards"].as_array().unwrap().iter();
    shards.chain([&status["meta"]]).cloned().collect()
}

#[tokio::test]
async fn a_node_that_is_stopped_or_killed_is_told_of_as_in_the_list_of_nodes() {
    let cluster = Cluster::start(Options::default()).await;
    let well = agreed(&cluster, &[]).await;
    assert_eq!(well["unwell_node_ids"], json!([]));
    assert!(groups(&well).iter().all(|it| it["has_quorum"] == true));

    cluster.pause(3);
    agreed(&cluster, &[3]).await;
    // Its connections stay, and the others lead by now what it led.
    let stopped = until("new leaders", TOLD_WITHIN, async || {
        let status = value(&cluster, ["cluster", "status"]);
        let mut groups = groups(&status).into_iter();
        match groups.all(|it| it["leader_node_id"].is_u64() && it["leader_node_id"] != 3) {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(stopped["unwell_node_ids"], json!([3]));
    for group in groups(&stopped) {
        assert_eq!(group["has_quorum"], true, "{group}");
        assert_eq!(group["missing_replica_node_ids"], json!([3]), "{group}");
    }
    let table = ctl(&cluster, "table", ["cluster", "status"]);
    assert!(table.contains("Not well: node 3 (silent for "), "{table}");
    let short = "Short of a replica, and served by the others: meta, 8 shards.";
    assert!(table.contains(short), "{table}");

    cluster.resume(3);
    agreed(&cluster, &[]).await;
    cluster.kill(3);
    let killed = agreed(&cluster, &[3]).await;
    assert_eq!(killed["unwell_node_ids"], json!([3]));
    assert_eq!(killed["nodes"][2]["reachable"], false);
}

#[tokio::test]
async fn who_has_lost_most_nodes_is_told_which_answer_and_what_has_no_quorum() {
    let cluster = Cluster::start(Options::default()).await;
    cluster.pause(2);
    cluster.kill(3);
    let status = until("the loss to be told", TOLD_WITHIN, async || {
        let status = value(&cluster, ["cluster", "status"]);
        match status["meta_answers"] == false {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(status["unwell_node_ids"], json!([2, 3]));
    assert!(groups(&status).iter().all(|it| it["has_quorum"] == false));
    let up = status["nodes"].as_array().unwrap().iter();
    let up: Vec<bool> = up.map(|node| node["up"] == true).collect();
    assert_eq!(up, NODES.map(|node| node == 1));
    let table = ctl(&cluster, "table", ["cluster", "status"]);
    let none = "No quorum: meta, 8 shards.";
    assert!(table.contains(none), "{table}");
    let unwell = "Not well: node 2 (no answer), node 3 (no answer).";
    assert!(table.contains(unwell), "{table}");
}
