//! Every node answers every read, whether or not it has a replica of what is asked for.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use stock_client::Client;
use stock_proto::stock::admin::v1::ShardStatus;
use stock_proto::stock::admin::v1::replica_status::Role;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    Availability, Consistency, GetAvailabilityRequest, GetReservationRequest,
    ListReservationsRequest, MovementLine, PositionKey, ReadOptions, RecordReceiptsRequest,
    ResponseHeader,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, sku_in};
use tests::operator::{Operator, replica_on};
use tests::stock::{fresh_location, held, movement, receive, reserve};
use tests::wait::until;
use tonic::Status;

/// A node that joins.
const FOURTH: u64 = 4;

/// One SKU more than an answer has room for, if all its stores were asked for.
const SKUS: usize = 41;
const STORES: usize = 500;

/// Stores that are put at the same time.
const PUT_TOGETHER: usize = 64;

/// From a death until a node knows of it.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

async fn stores(client: &Client) -> Vec<String> {
    let put = (0..STORES).map(|_| fresh_location(client));
    stream::iter(put).buffered(PUT_TOGETHER).collect().await
}

async fn fill(client: &Client, skus: &[String], stores: &[String]) {
    for sku in skus.chunks(16) {
        let at_each = sku
            .iter()
            .flat_map(|sku| stores.iter().map(move |it| (sku, it)));
        let lines = at_each
            .enumerate()
            .map(|(number, (sku, store))| MovementLine {
                line: number.to_string(),
                ..movement(sku, store, 1 + (number % 7) as i64)
            });
        let receipt = RecordReceiptsRequest {
            source: None,
            document: fresh("note"),
            lines: lines.collect(),
        };
        client.record_receipts([receipt]).await.unwrap();
    }
}

fn key(sku: &str, location: &str) -> PositionKey {
    match location {
        "" => PositionKey::everywhere(sku),
        location => PositionKey::at(sku, location),
    }
}

async fn ask(
    cluster: &Cluster,
    node: u64,
    keys: &[PositionKey],
    consistency: Consistency,
    since: Option<&ResponseHeader>,
) -> Result<Vec<Availability>, Status> {
    let question = GetAvailabilityRequest {
        keys: keys.to_vec(),
        read: Some(read_since(consistency, since)),
    };
    let mut stub = AvailabilityServiceClient::new(cluster.channel(node));
    let answer = stub.get_availability(question).await?;
    Ok(answer.into_inner().items)
}

fn read_since(consistency: Consistency, since: Option<&ResponseHeader>) -> ReadOptions {
    let mut read = since.map_or_else(ReadOptions::default, ReadOptions::at_least);
    read.set_consistency(consistency);
    read
}

async fn get(
    cluster: &Cluster,
    node: u64,
    id: &str,
    consistency: Consistency,
    since: Option<&ResponseHeader>,
) -> Result<String, Status> {
    let question = GetReservationRequest {
        reservation_id: id.to_owned(),
        read: Some(read_since(consistency, since)),
    };
    let mut stub = ReservationServiceClient::new(cluster.channel(node));
    let answer = stub.get_reservation(question).await?.into_inner();
    Ok(answer
        .reservation
        .map(|it| it.reservation_id)
        .unwrap_or_default())
}

#[tokio::test]
async fn a_node_without_a_replica_answers_as_those_that_have_one() {
    let cluster = Cluster::start(Options {
        shards: 1,
        spares: 1,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let held_sku = sku_in(0, 1, "held");
    receive(&client, &held_sku, &location, 10).await;
    let answer = client.reserve(reserve(&held_sku, &location, 1)).await;
    let answer = answer.unwrap();
    let written = answer.header.clone();
    let written = written.as_ref();
    let id = held(answer).reservation_id;

    for node in NODES {
        let found = get(&cluster, node, &id, Consistency::Near, written).await;
        assert_eq!(found.unwrap(), id);
    }

    // While replicas come and go, from the first moment on: one that waits for its first snapshot
    // knows nothing, and does not say that there is nothing.
    cluster.restart(FOURTH);
    let all = [NODES[0], NODES[1], NODES[2], FOURTH];
    let operator = Operator::new(client.clone());
    let mut asked = 0;
    let shard = until("a settled cluster", NOTICED_WITHIN * 3, async || {
        for node in all {
            match get(&cluster, node, &id, Consistency::Near, None).await {
                Ok(found) => assert_eq!(found, id, "at node {node}"),
                // It does not listen yet, or is a moment from knowing anybody.
                Err(status) if node == FOURTH && asked == 0 => return Err(status.to_string()),
                Err(status) => panic!("a live hold at node {node}: {status}"),
            }
        }
        asked += 1;
        let settled = operator.settled(&all).await?;
        // Until then balance has yet to begin.
        let votes = |group: &ShardStatus| {
            replica_on(group, FOURTH).is_some_and(|replica| replica.role() == Role::Voter)
        };
        match settled.iter().any(votes) {
            true => Ok(settled.into_iter().last().unwrap()),
            false => Err(format!("node {FOURTH} has no vote yet")),
        }
    })
    .await;
    let without = all
        .into_iter()
        .find(|node| replica_on(&shard, *node).is_none());
    let without = without.expect("three replicas on four nodes");
    let with = all.into_iter().find(|node| *node != without).unwrap();

    // What was asked for is asked for there, and nothing else.
    let skus: Vec<String> = (0..SKUS)
        .map(|n| sku_in(0, 1, &format!("wide-{n}")))
        .collect();
    let stores = stores(&client).await;
    fill(&client, &skus, &stores).await;
    let of_one_store: Vec<_> = skus.iter().map(|sku| key(sku, &stores[7])).collect();
    let mixed = [
        key(&skus[0], &stores[1]),
        key(&skus[0], ""),
        key("unheard-of", ""),
        key(&skus[0], &stores[0]),
        key(&skus[1], "nowhere"),
        key("unheard-of", &stores[0]),
        key(&skus[0], &stores[1]),
        key(&held_sku, ""),
        key(&skus[0], ""),
        key(&skus[1], ""),
    ];
    for (keys, items) in [(&of_one_store[..], SKUS), (&mixed[..], 3 * STORES + 7)] {
        for consistency in [Consistency::Near, Consistency::Linearizable] {
            let here = ask(&cluster, with, keys, Consistency::Linearizable, None).await;
            let there = ask(&cluster, without, keys, consistency, None).await;
            let here = here.unwrap_or_else(|e| panic!("at node {with}: {e}"));
            let there = there.unwrap_or_else(|e| panic!("{consistency:?}, node {without}: {e}"));
            assert_eq!(there.len(), items);
            assert_eq!(there, here, "{consistency:?}");
        }
    }
    let all_stores: Vec<_> = skus.iter().map(|sku| key(sku, "")).collect();
    for node in [with, without] {
        let status = ask(&cluster, node, &all_stores, Consistency::Near, None).await;
        let status = status.expect_err("more than an answer has room for");
        assert!(
            status.message().contains("at most 20000"),
            "{node}: {status}"
        );
    }
    for consistency in [Consistency::Near, Consistency::Linearizable] {
        let found = get(&cluster, without, &id, consistency, written).await;
        assert_eq!(found.unwrap(), id, "{consistency:?}");
        let found = ask(&cluster, without, &mixed[..1], consistency, written).await;
        assert_eq!(found.unwrap().len(), 1, "{consistency:?}");
    }

    // What is listed, too.
    let question = ListReservationsRequest {
        sku: Some(held_sku.clone()),
        read: Some(read_since(Consistency::Near, written)),
        ..ListReservationsRequest::default()
    };
    for node in [with, without] {
        let mut stub = ReservationServiceClient::new(cluster.channel(node));
        let listed = stub.list_reservations(question.clone()).await.unwrap();
        let listed = listed.into_inner().reservations;
        assert_eq!(listed.len(), 1, "node {node}");
        assert_eq!(listed[0].reservation_id, id, "node {node}");
    }

    // With nobody to lead the shard, whoever has it still knows what was.
    let voters = all.into_iter().filter(|node| *node != without);
    let leader = cluster.leader_of(0).await;
    let left = voters.clone().find(|voter| *voter != leader).unwrap();
    for voter in voters.filter(|voter| *voter != left) {
        cluster.kill(voter);
    }
    until("near reads of what is left", NOTICED_WITHIN, async || {
        let found = get(&cluster, without, &id, Consistency::Near, written).await;
        assert_eq!(found.map_err(|status| status.to_string())?, id);
        let found = ask(&cluster, without, &of_one_store, Consistency::Near, written).await;
        let found = found.map_err(|status| status.to_string())?;
        assert_eq!(found.len(), SKUS);
        Ok(())
    })
    .await;
}
