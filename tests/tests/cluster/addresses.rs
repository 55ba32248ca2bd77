//! Machines move: a node that is started at other addresses is found there by the others, by
//! operators and by clients.

use std::time::Duration;

use stock_client::Client;
use tests::cluster::{Cluster, NODES, Options};
use tests::operator::Operator;
use tests::programs;
use tests::stock::{fresh_location, position, receive};
use tests::wait::until;

/// From its start until everybody knows where a node is.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// Where a node is after a move.
struct Moved {
    node: u64,
    grpc: String,
    peers: String,
}

/// Starts a node at other ports, as its command line says.
fn move_to_other_ports(cluster: &Cluster, node: u64) -> Moved {
    let ports = programs::free_ports(2);
    let (grpc, peers) = (
        format!("127.0.0.1:{}", ports[0]),
        format!("127.0.0.1:{}", ports[1]),
    );
    cluster.restart_with(node, &["--listen-grpc", &grpc, "--listen-peers", &peers]);
    Moved {
        node,
        grpc: format!("http://{grpc}"),
        peers,
    }
}

/// Waits until a node, asked at this address, can tell an operator where the moved ones are, which
/// is whatever node leads group 0.
async fn is_found(asked: &str, moved: &[Moved]) {
    until("a node that is found", FOUND_WITHIN, async || {
        let client = Client::builder().endpoint(asked).connect().await;
        let operator = Operator::new(client.map_err(|e| e.to_string())?);
        let nodes = operator.nodes().await?;
        let is_there = |moved: &Moved| {
            let mut found = nodes.iter();
            found.any(|node| {
                node.node_id == moved.node
                    && node.up
                    && node.endpoint == moved.grpc
                    && node.peers == moved.peers
            })
        };
        match moved.iter().all(is_there) {
            true => Ok(()),
            false => Err(format!("{asked} says {nodes:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_started_at_other_addresses_is_found_by_all() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    receive(&client, "MOVES", &location, 5).await;
    // The lowest id dials nobody and the highest everybody: each has to be found in its own way.
    for node in [1, 3] {
        cluster.terminate(node);
        until("a node that has stopped", FOUND_WITHIN, async || {
            cluster.ended(node).map(drop).ok_or("it runs".to_owned())
        })
        .await;
        cluster.reap(node);
        let moved = [move_to_other_ports(&cluster, node)];
        let asked = NODES.into_iter().filter(|asked| *asked != node);
        for asked in asked.filter(|asked| *asked == 2 || node == 1) {
            is_found(&cluster.endpoint(asked), &moved).await;
        }
        is_found(&moved[0].grpc, &moved).await;
        let client = Client::builder().endpoint(&moved[0].grpc).connect().await;
        let seen = position(&client.unwrap(), "MOVES", &location)
            .await
            .unwrap();
        assert_eq!(seen.on_hand, 5);
    }
}

#[tokio::test]
async fn a_cluster_whose_nodes_all_moved_finds_itself_by_its_configuration() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    receive(&client, "MOVES", &location, 5).await;
    drop(client);
    cluster.kill_all();
    let ports = programs::free_ports(6);
    let at = |port: u16| format!("127.0.0.1:{port}");
    let moved: Vec<Moved> = (0..3)
        .map(|number| Moved {
            node: NODES[number],
            grpc: format!("http://{}", at(ports[number])),
            peers: at(ports[number + 3]),
        })
        .collect();
    let lists: Vec<String> = moved
        .iter()
        .map(|moved| format!("{}={},{}", moved.node, moved.grpc, moved.peers))
        .collect();
    for moved in &moved {
        let grpc = moved.grpc.trim_start_matches("http://");
        let mut arguments = vec!["--listen-grpc", grpc, "--listen-peers", &moved.peers];
        for listed in &lists {
            arguments.extend(["--node", listed]);
        }
        cluster.restart_with(moved.node, &arguments);
    }
    for node in &moved {
        is_found(&node.grpc, &moved).await;
        let client = Client::builder().endpoint(&node.grpc).connect().await;
        let seen = position(&client.unwrap(), "MOVES", &location)
            .await
            .unwrap();
        assert_eq!(seen.on_hand, 5);
    }
}

#[tokio::test]
async fn a_node_that_moved_while_nobody_else_ran_is_found_once_the_others_are_back() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    cluster.kill_all();
    // It asks the others what they know of it while none of them runs, and dials nobody: its id is
    // the lowest.
    let moved = [move_to_other_ports(&cluster, 1)];
    until("a node that runs", FOUND_WITHIN, async || {
        let client = Client::builder().endpoint(&moved[0].grpc).connect().await;
        client.map(drop).map_err(|error| error.to_string())
    })
    .await;
    for node in [2, 3] {
        cluster.restart(node);
    }
    is_found(&cluster.endpoint(2), &moved).await;
    is_found(&moved[0].grpc, &moved).await;
}
