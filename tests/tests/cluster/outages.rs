//! Nodes that were away: what callers find when they are back, and what the nodes say of themselves
//! meanwhile.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use stock_proto::stock::admin::v1::NodeStatus;
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::v1::{MovementLine, RecordSaleRequest, ReserveRequest};
use tests::cluster::{Cluster, LED_WITHIN, NODES, Options, others};
use tests::names::{fresh, request_id};
use tests::operator::{Operator, SETTLED_WITHIN, replica_on};
use tests::stock::{
    fresh_location, held, movement, only, position, receive, receive_many, reservation, reserve,
};
use tests::wait::until;

/// Longer than a caller's clock may be ahead of the cluster's.
const OUTAGE: Duration = Duration::from_secs(65);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp {
        seconds: since.as_secs() as i64,
        nanos: 0,
    }
}

/// The time itself is what is tested here: nothing tells that an outage has been long enough.
#[tokio::test]
async fn after_an_outage_of_a_minute_calls_are_taken_though_one_node_is_still_away() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("outage"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let before = ReserveRequest {
        request_id: request_id(),
        ..reserve(&sku, &location, 3)
    };
    let was_held = held(client.reserve(before.clone()).await.unwrap());

    cluster.kill_all();
    tokio::time::sleep(OUTAGE).await;
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait_until_led().await;

    let client = cluster.client().await;
    let again = held(client.reserve(before).await.unwrap());
    assert_eq!(
        again.reservation_id, was_held.reservation_id,
        "the stored answer"
    );
    let answer = client.reserve(reserve(&sku, &location, 2)).await;
    held(answer.unwrap_or_else(|e| panic!("a reserve after the outage: {e}")));
    let sale = RecordSaleRequest {
        source: None,
        document: fresh("till"),
        lines: vec![MovementLine {
            occurred_at: Some(now()),
            ..movement(&sku, &location, 1)
        }],
    };
    let answer = client.record_sale(sale).await;
    only(
        answer
            .unwrap_or_else(|e| panic!("a sale after the outage: {e}"))
            .verdicts,
    );
    let position = position(&client, &sku, &location).await.unwrap();
    assert_eq!((position.on_hand, position.reserved), (9, 5));
    let still = reservation(&client, &was_held.reservation_id)
        .await
        .unwrap();
    assert_eq!(still.state, was_held.state);

    cluster.restart(3);
    cluster.wait_until_led().await;
    let answer = client.reserve(reserve(&sku, &location, 1)).await;
    held(answer.unwrap_or_else(|e| panic!("a reserve once all are back: {e}")));
}

async fn is_ready(cluster: &Cluster, node: u64) -> bool {
    cluster.counted(node, "stockd_ready", &[]).await == 1
}

fn is_needed(node: &NodeStatus) -> bool {
    node.needed_by_meta || !node.needed_by_shards.is_empty()
}

async fn wait_until_needed(operator: &Operator, expected: &[u64]) {
    until("which nodes are needed", SETTLED_WITHIN, async || {
        let nodes = operator.nodes().await?;
        let needed = nodes.iter().filter(|node| is_needed(node));
        let needed: Vec<u64> = needed.map(|node| node.node_id).collect();
        (needed == expected)
            .then_some(())
            .ok_or(format!("{needed:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_node_is_ready_once_its_replicas_are_back_and_stays_so() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let operator = Operator::new(cluster.client().await);
    let location = fresh_location(&client).await;
    receive(&client, &fresh("ready"), &location, 10).await;
    operator.wait_until_settled(&NODES).await;
    wait_until_needed(&operator, &[]).await;

    // The hardest case: everything that it had has to be made anew.
    cluster.kill(3);
    wait_until_needed(&operator, &[1, 2]).await;
    cluster.empty(3);
    cluster.restart(3);
    until("a node that is ready", SETTLED_WITHIN, async || {
        cluster.topology(3).await?;
        is_ready(&cluster, 3)
            .await
            .then_some(())
            .ok_or("not yet".to_owned())
    })
    .await;
    let (groups, _) = operator.groups().await.unwrap();
    assert_eq!(groups.len(), 3);
    for group in &groups {
        let replica = replica_on(group, 3).unwrap_or_else(|| panic!("{group:?}"));
        assert_eq!(replica.role(), Role::Voter, "{group:?}");
    }
    wait_until_needed(&operator, &[]).await;

    // Without a quorum it can do nothing, and starting it once more, or sending callers elsewhere,
    // would not help.
    others(3).into_iter().for_each(|node| cluster.kill(node));
    until("a node without leaders", LED_WITHIN, async || {
        let topology = cluster.topology(3).await?;
        let mut groups = topology.meta.iter().chain(&topology.shards);
        let is_led = groups.any(|group| group.leader_node_id.is_some());
        (!is_led).then_some(()).ok_or(format!("{topology:?}"))
    })
    .await;
    assert!(is_ready(&cluster, 3).await);
}

/// Little more than a node takes by itself, built without optimization.
const MEMORY_BYTES: u64 = 160 * 1024 * 1024;

/// Lines of one call: the largest there may be.
const LINES: usize = 10_000;

/// More calls than fill it.
const CALLS_MAX: usize = 200;

#[tokio::test]
async fn near_the_limit_of_its_memory_a_node_refuses_what_grows_and_starts_again_within_it() {
    let cluster = Cluster::start(Options {
        shards: 1,
        memory_bytes: Some(MEMORY_BYTES),
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("memory"), fresh_location(&client).await);
    receive(&client, &sku, &location, 1_000).await;
    let mine = held(client.reserve(reserve(&sku, &location, 5)).await.unwrap());

    let mut refused = None;
    for _ in 0..CALLS_MAX {
        if let Err(why) = receive_many(&client, &location, LINES).await {
            refused = Some(why);
            break;
        }
    }
    let refused = refused.expect("memory grows without end");
    assert!(
        refused.contains("MEMORY_FULL") || refused.contains("memory"),
        "{refused}"
    );
    let check = || {
        for node in NODES {
            let used = tests::programs::resident_bytes(cluster.process_id(node));
            assert!(used <= MEMORY_BYTES, "node {node} uses {used} bytes");
        }
    };
    check();
    // What a shopper holds is hers, and what leaves the shop has left it.
    let extend = stock_proto::stock::v1::ExtendRequest {
        request_id: request_id(),
        reservation_id: mine.reservation_id.clone(),
        ttl: tests::stock::seconds(3_600),
    };
    client.extend(extend).await.unwrap();
    tests::stock::sell(&client, &sku, &location, 1).await;

    cluster.kill_all();
    NODES.into_iter().for_each(|node| cluster.restart(node));
    cluster.wait_until_led().await;
    check();
    let client = cluster.client().await;
    let still = reservation(&client, &mine.reservation_id).await.unwrap();
    assert_eq!(still.state, mine.state);
    tests::stock::sell(&client, &sku, &location, 1).await;
}
