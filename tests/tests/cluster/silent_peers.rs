//! Nodes that stand still, and connections to the peers' port on which nobody says what he came
//! for.

use std::time::Duration;

use stock_proto::stock::admin::v1::ListNodesRequest;
use stock_proto::stock::admin::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_wire::cluster::v1 as peer;
use tests::cluster::{Cluster, NODES, Options, others};
use tests::stock::{fresh_location, receive, receive_many, reserve};
use tests::wait::{finish, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt;

/// A node gives up a call that another one does not answer well within this.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_call_that_was_sent_on_to_a_node_that_stands_still_has_an_end() {
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    receive(&client, "sent-on", &location, 100).await;
    let leader = cluster.leader_of(0).await;
    let [asked, _] = others(leader);
    let mut stub = ReservationServiceClient::new(cluster.channel(asked));
    stub.reserve(reserve("sent-on", &location, 1))
        .await
        .unwrap();

    cluster.pause(leader);
    // No deadline: it is the node that must have one.
    let call = stub.reserve(reserve("sent-on", &location, 1));
    let status = finish("a forwarded call", GIVEN_UP_WITHIN, call).await;
    let status = status.expect_err("answered by a node that stands still");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    assert_eq!(reason.as_deref(), Some("OUTCOME_UNKNOWN"), "{status}");
}

#[tokio::test]
async fn a_question_that_was_sent_on_to_a_node_that_stands_still_has_an_end() {
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let leader = cluster.agreed_leaders().await.unwrap()[0];
    let [asked, _] = others(leader);
    let mut stub = ClusterServiceClient::new(cluster.channel(asked));
    until("an answer of the leader", GIVEN_UP_WITHIN, async || {
        let answer = stub.list_nodes(ListNodesRequest::default()).await;
        answer.map(drop).map_err(|status| status.to_string())
    })
    .await;

    cluster.pause(leader);
    let question = stub.list_nodes(ListNodesRequest::default());
    let answer = finish("a question sent on", GIVEN_UP_WITHIN, question).await;
    let status = answer.expect_err("answered by a node that stands still");
    let is_given_up = matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable);
    assert!(is_given_up, "{status}");
}

const CHECKPOINT_AFTER_BYTES: u64 = 64 * 1024;
const LINES: usize = 2_000;
/// From the start of a node that lacks the beginning of the log until it has everything.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(30);
/// As many as a node receives snapshots at a time, and more.
const SILENT: usize = 6;

#[tokio::test]
async fn who_says_who_he_is_and_nothing_more_keeps_no_snapshot_out() {
    let cluster = Cluster::start(Options {
        shards: 1,
        checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let behind = NODES[2];
    cluster.kill(behind);
    let [node, _] = others(behind);
    let mut first = cluster.checkpoints(node, 1);
    until("a log that was cut", CAUGHT_UP_WITHIN, async || {
        receive_many(&client, &location, LINES).await?;
        let here = cluster.checkpoints(node, 1);
        if first.is_empty() {
            first.clone_from(&here);
        }
        let is_cut = !first.is_empty() && !here.iter().any(|name| first.contains(name));
        is_cut.then_some(()).ok_or(format!("{here:?}"))
    })
    .await;
    let applied = cluster.topology(node).await.unwrap().shards[0].applied_index;

    let address = cluster.peers_address(behind);
    let hello = hello_of(&cluster.peers_address(node)).await;
    cluster.restart(behind);
    let silent = async {
        // Whoever is disconnected comes again at once, all the time.
        let knock = || async {
            loop {
                let _ = introduce(&address, &hello).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        futures_util::future::join_all((0..SILENT).map(|_| knock())).await;
    };
    let caught_up = until("a node that caught up", CAUGHT_UP_WITHIN, async || {
        let topology = cluster.topology(behind).await?;
        let here = topology.shards[0].applied_index;
        (here >= applied)
            .then_some(())
            .ok_or(format!("{here} of {applied}"))
    });
    tokio::select! {
        _ = silent => unreachable!("they never rest"),
        () = caught_up => {}
    }
}

/// How a node introduces itself to whoever asks, to be repeated in its name.
async fn hello_of(address: &str) -> peer::Hello {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = peer::Hello {
        cluster_id: String::new(),
        purpose: peer::Purpose::Acquaintance.into(),
        ..Default::default()
    };
    write(&mut stream, &ask).await.unwrap();
    let mut hello: peer::Hello = read(&mut stream).await.unwrap();
    hello.purpose = peer::Purpose::Snapshot.into();
    hello
}

/// Introduces itself well, and says no more until it is disconnected.
async fn introduce(address: &str, hello: &peer::Hello) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    write(&mut stream, hello).await?;
    let _: peer::Hello = read(&mut stream).await?;
    let _: peer::Verdict = read(&mut stream).await?;
    write(&mut stream, &peer::Verdict::default()).await?;
    let mut rest = [0; 1];
    stream.read(&mut rest).await.map(drop)
}

async fn write(stream: &mut TcpStream, message: &impl prost::Message) -> std::io::Result<()> {
    let mut bytes = (message.encoded_len() as u32).to_le_bytes().to_vec();
    bytes.extend(message.encode_to_vec());
    stream.write_all(&bytes).await
}

async fn read<M: prost::Message + Default>(stream: &mut TcpStream) -> std::io::Result<M> {
    let length = stream.read_u32_le().await? as usize;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    M::decode(bytes.as_slice()).map_err(std::io::Error::other)
}
