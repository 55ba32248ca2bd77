//! From one version to the next, with two builds: this one, and one that knows a command, a field
//! of a request, one of an answer and one of a state more (`tests/upgrade`). Nodes are stopped in
//! order and started with the other build, one after the other, while a shop trades: forwards and
//! back, and forwards for good. Not one call fails, and nothing of the next version is written
//! before the cluster speaks it.

use std::path::Path;

use futures_util::future::join_all;
use prost::Message;
use stock_client::Client;
use stock_proto::stock::admin::v1::{ListNodesRequest, RaiseVersionRequest};
use stock_proto::stock::v1::ExtendRequest;
use tests::cluster::{Cluster, NODES, Options, STOP_WITHIN};
use tests::inspection::verify_with;
use tests::names::{request_id, sku_in};
use tests::operator::Operator;
use tests::programs;
use tests::raw::{self, Connection};
use tests::shop::Shop;
use tests::stock::{fresh_location, held, receive, reserve, seconds};
use tests::wait::until;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What the build before says of data that the next one has written.
const OF_THE_NEXT: &str = "speaks version 2, and this build speaks version 1";

/// An answer of the next version: what this one does not know of a reservation.
#[derive(Clone, PartialEq, Message)]
struct NotedAnswer {
    #[prost(message, optional, tag = "2")]
    reservation: Option<Noted>,
}

#[derive(Clone, PartialEq, Message)]
struct Noted {
    #[prost(string, tag = "1")]
    reservation_id: String,
    #[prost(string, optional, tag = "20")]
    note: Option<String>,
}

/// A request of the next version: what this one knows of it, and a note behind it.
#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(string, optional, tag = "20")]
    note: Option<String>,
}

/// Extends a hold by way of one node, with a note.
async fn extend_noted(
    cluster: &Cluster,
    node: u64,
    hold: &str,
    note: &str,
) -> Result<NotedAnswer, Status> {
    let request = ExtendRequest {
        request_id: request_id(),
        reservation_id: hold.to_owned(),
        ttl: seconds(600),
    };
    let mut bytes = request.encode_to_vec();
    let note = Some(note.to_owned());
    bytes.extend(Note { note }.encode_to_vec());
    let connection = Connection::open(&cluster.address(node)).await;
    let path = "/stock.v1.ReservationService/Extend";
    let answer = connection.call(path, &[], raw::frame(&bytes)).await?;
    // Behind the head of its frame.
    Ok(NotedAnswer::decode(&answer[5..]).expect("an answer"))
}

/// What is said of a note while the cluster does not speak the next version.
fn check_refused(status: &Status, why: &str) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert_eq!(
        (status.code(), reason),
        (Code::Unimplemented, Some("FIELD_UNKNOWN")),
        "{status}"
    );
    assert!(status.message().contains(why), "{status}");
}

/// Stops nodes in order, one after the other, and starts each with this build.
async fn roll(cluster: &Cluster, operator: &Operator, nodes: &[u64], build: Option<&Path>) {
    for node in nodes {
        cluster.terminate(*node);
        until(
            "the end of a node that was asked to stop",
            STOP_WITHIN,
            async || {
                cluster
                    .ended(*node)
                    .ok_or_else(|| format!("node {node} runs"))
            },
        )
        .await;
        cluster.reap(*node);
        cluster.set_build(*node, build);
        cluster.restart(*node);
        cluster.wait_until_led().await;
        operator.wait_until_settled(&NODES).await;
    }
}

/// The version that the cluster speaks, and the highest that each node does.
async fn versions(client: &Client) -> (u32, Vec<u32>) {
    let told = client
        .list_nodes(ListNodesRequest::default())
        .await
        .expect("the nodes");
    let each = told
        .nodes
        .iter()
        .map(|node| node.newest_version.unwrap_or(0));
    (told.version, each.collect())
}

/// Waits until a node of each build is known as what it is.
async fn wait_for(client: &Client, expected: [u32; 3]) {
    until("what every node speaks", STOP_WITHIN, async || {
        let (_, each) = versions(client).await;
        match each == expected {
            true => Ok(()),
            false => Err(format!("{each:?}, not {expected:?}")),
        }
    })
    .await;
}

async fn raise(client: &Client) -> Result<(), stock_client::Error> {
    let request = RaiseVersionRequest {
        version: 2,
        ..Default::default()
    };
    client.raise_version(request).await.map(drop)
}

#[tokio::test]
async fn a_cluster_goes_to_the_next_version_under_load_and_back_before_it_is_raised() {
    let _works = programs::MUCH_WORK.lock().await;
    let Some(next) = programs::next_stockd() else {
        eprintln!("SKIPPED: there is no `patch` to make the next version with");
        return;
    };
    let cluster = Cluster::start(Options {
        shards: 4,
        checkpoint_after_bytes: Some(200_000),
        spares: 1,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let operator = Operator::new(cluster.client().await);
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..4).map(|shard| sku_in(shard, 4, "noted")).collect();
    let mut holds = Vec::new();
    for sku in &skus {
        receive(&client, sku, &location, 100).await;
        holds.push(held(client.reserve(reserve(sku, &location, 1)).await.unwrap()).reservation_id);
    }
    let shop = Shop::open(&cluster).await;
    let all_refuse = async |of_next: &[u64]| {
        let asked = NODES
            .into_iter()
            .flat_map(|node| holds.iter().map(move |it| (node, it)));
        let answers = asked.map(async |(node, hold)| {
            let why = match of_next.contains(&node) {
                true => "note came with version 2 of the cluster",
                false => "field 20 is not known",
            };
            let refused = extend_noted(&cluster, node, hold, "too early").await;
            check_refused(&refused.unwrap_err(), why);
        });
        join_all(answers).await;
    };

    // The first node alone, and back again: a directory that the next build has written is read by
    // this one.
    shop.trade_during(1, async {
        assert_eq!(versions(&client).await, (1, vec![1, 1, 1]));
        roll(&cluster, &operator, &[1], Some(next)).await;
        wait_for(&client, [2, 1, 1]).await;
        all_refuse(&[1]).await;
        let refused = raise(&client).await.unwrap_err();
        assert_eq!(refused.reason_text(), "NODE_TOO_OLD", "{refused}");
        shop.more_calls(300).await;
        roll(&cluster, &operator, &[1], None).await;
        wait_for(&client, [1, 1, 1]).await;
        // All of them, and back once more.
        roll(&cluster, &operator, &NODES, Some(next)).await;
        wait_for(&client, [2, 2, 2]).await;
        all_refuse(&NODES).await;
        shop.more_calls(300).await;
        roll(&cluster, &operator, &NODES, None).await;
        wait_for(&client, [1, 1, 1]).await;
        shop.more_calls(300).await;
    })
    .await;
    shop.account_for_new(&cluster).await;
    assert_eq!(shop.failures(), 0, "failed calls on the way there and back");

    // For good: from now on every node takes the note, tells it, and keeps it.
    shop.trade_during(2, async {
        roll(&cluster, &operator, &NODES, Some(next)).await;
        wait_for(&client, [2, 2, 2]).await;
        raise(&client).await.unwrap();
        let noted = NODES
            .into_iter()
            .flat_map(|node| holds.iter().map(move |it| (node, it)));
        for (node, hold) in noted {
            let note = format!("asked at node {node}");
            let answer = until("a note that is taken", STOP_WITHIN, async || {
                // A node that has not heard of it yet says that it will not.
                let answer = extend_noted(&cluster, node, hold, &note).await;
                answer.map_err(|status| status.to_string())
            })
            .await;
            let reservation = answer.reservation.unwrap();
            assert_eq!(
                (&reservation.reservation_id, reservation.note),
                (hold, Some(note))
            );
        }
        shop.more_calls(300).await;
        roll(&cluster, &operator, &NODES, Some(next)).await;
        shop.more_calls(300).await;
    })
    .await;
    shop.account_for_all(&cluster).await;
    assert_eq!(
        shop.failures(),
        0,
        "failed calls after the version was raised"
    );

    // The build before neither starts on what is there, nor is it let in with an empty directory.
    cluster.terminate(2);
    let from = cluster.log(2).len();
    until("the end of node 2", STOP_WITHIN, async || {
        cluster.ended(2).ok_or("it runs".to_owned())
    })
    .await;
    cluster.reap(2);
    cluster.set_build(2, None);
    cluster.restart(2);
    let ended = until("the end of an older build", STOP_WITHIN, async || {
        cluster.ended(2).ok_or("it runs".to_owned())
    })
    .await;
    let said = cluster.log(2)[from..].to_owned();
    assert!(!ended.success() && said.contains(OF_THE_NEXT), "{said}");
    cluster.reap(2);
    cluster.restart(4);
    until(
        "an older build that is turned away",
        STOP_WITHIN,
        async || {
            let log = cluster.log(4);
            let is_told = log.contains("the cluster speaks version 2, and that build version 1");
            is_told.then_some(()).ok_or(log)
        },
    )
    .await;
    cluster.kill(4);
    cluster.set_build(2, Some(next));
    cluster.restart(2);
    operator.wait_until_settled(&NODES).await;

    // What they leave is whole, and equal; the build before does not take it for damaged.
    verify_with(next, &cluster);
    let output = programs::run_stockd()
        .args(["inspect", "--data-dir"])
        .arg(cluster.data_dir(1))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(OF_THE_NEXT),
        "{said}"
    );
}
