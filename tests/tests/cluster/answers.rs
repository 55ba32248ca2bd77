//! An answer is one that its caller can receive: gRPC's clients take 4 MiB.

use std::time::Duration;

use stock_proto::stock::admin::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::admin::v1::{GetAuditRequest, ListNodesRequest, ListShardsRequest};
use stock_proto::stock::v1::batch_reserve_result::Result as Slot;
use stock_proto::stock::v1::catalog_service_client::CatalogServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    BatchReserveRequest, ListLocationsRequest, ListLocationsResponse, ReserveRequest, ShardIndex,
};
use tests::cluster::{Cluster, NODES};
use tests::names::{request_id, sku_in};
use tests::stock::{fresh_location, line, position, receive};
use tests::wait::{finish, until};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Thousands of baskets on a debug build, beside other tests.
const DECIDED_WITHIN: Duration = Duration::from_secs(60);

fn refusal(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    (status.code(), reason.unwrap_or_default())
}

fn batch(baskets: usize, skus: &[String], location: &str) -> BatchReserveRequest {
    let basket = |_| ReserveRequest {
        request_id: request_id(),
        lines: skus.iter().map(|sku| line(sku, location, 1)).collect(),
        ttl: None,
        ..Default::default()
    };
    BatchReserveRequest {
        requests: (0..baskets).map(basket).collect(),
    }
}

#[tokio::test]
async fn a_batch_whose_answers_nobody_could_receive_holds_nothing_and_a_usual_one_is_held() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    // Names as shops have them, so that the request is just below what a node takes.
    let sku = |_| sku_in(1, cluster.shards(), "a-product-of-a-shop");
    let skus: Vec<String> = (0..100).map(sku).collect();
    let location = fresh_location(&client).await;
    for sku in &skus {
        receive(&client, sku, &location, 1_000_000).await;
    }
    for node in NODES {
        let mut stub = ReservationServiceClient::new(cluster.channel(node));
        let too_much = stub.batch_reserve(batch(960, &skus, &location));
        let status = finish("a batch", DECIDED_WITHIN, too_much).await;
        let status = status.expect_err("an answer that nobody can receive was made");
        let expected = (Code::InvalidArgument, "ANSWER_TOO_LARGE".to_owned());
        assert_eq!(refusal(&status), expected, "{status}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "requests");
        let seen = position(&client, &skus[0], &location).await.unwrap();
        assert_eq!(seen.reserved, 0, "at node {node}");
    }
    let mut stub = ReservationServiceClient::new(cluster.channel(NODES[0]));
    let usual = stub.batch_reserve(batch(1_000, &skus[..5], &location));
    let answer = finish("a batch", DECIDED_WITHIN, usual).await.unwrap();
    let results = answer.into_inner().results;
    assert_eq!(results.len(), 1_000);
    let is_held = |slot: &Option<Slot>| matches!(slot, Some(Slot::Response(_)));
    assert!(results.iter().all(|result| is_held(&result.result)));
    let seen = position(&client, &skus[0], &location).await.unwrap();
    assert_eq!(seen.reserved, 1_000);
}

async fn page(
    node: &Channel,
    page_size: i32,
    page_token: &str,
) -> Result<ListLocationsResponse, Status> {
    let question = ListLocationsRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let mut stub = CatalogServiceClient::new(node.clone());
    Ok(stub.list_locations(question).await?.into_inner())
}

#[tokio::test]
async fn locations_come_in_pages_each_of_which_is_as_new_as_it_can_be() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let mut ours = Vec::new();
    for _ in 0..5 {
        ours.push(fresh_location(&client).await);
    }
    let node = cluster.channel(NODES[2]);
    let mut listed: Vec<String> = Vec::new();
    let mut token = String::new();
    loop {
        let answer = page(&node, 2, &token).await.unwrap();
        let header = answer.header.unwrap();
        assert!(header.index_of(ShardIndex::META) > 0, "{header:?}");
        assert!(answer.locations.len() <= 2, "{}", answer.locations.len());
        assert!(answer.locations.iter().all(|it| it.name == "A warehouse"));
        listed.extend(answer.locations.into_iter().map(|it| it.location_id));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
        // What is put while somebody reads is on the pages to come, if it belongs there.
        if listed.len() == 4 {
            ours.push(fresh_location(&client).await);
        }
    }
    assert!(listed.is_sorted(), "{listed:?}");
    assert!(ours[..5].iter().all(|it| listed.contains(it)), "{listed:?}");
    let all = client.list_locations().await.unwrap().locations;
    assert!(
        ours.iter()
            .all(|it| all.iter().any(|one| one.location_id == *it))
    );

    // Whoever was told that a location is there finds it, at any node.
    for node in NODES {
        let put = fresh_location(&client).await;
        let found = page(&cluster.channel(node), 0, "").await.unwrap();
        assert!(found.locations.iter().any(|it| it.location_id == put));
    }
    for (page_size, page_token, field) in [
        (0, "no token", "page_token"),
        (0, &listed[0][..], "page_token"),
        (-1, "", "page_size"),
    ] {
        let status = page(&node, page_size, page_token).await.unwrap_err();
        let invalid = (Code::InvalidArgument, "FIELD_INVALID".to_owned());
        assert_eq!(refusal(&status), invalid, "{status}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, field);
    }
}

#[tokio::test]
async fn shards_and_nodes_come_in_pages_too() {
    let cluster = Cluster::shared().await;
    let mut stub = ClusterServiceClient::new(cluster.channel(NODES[1]));
    // A leader that was just elected has decided nothing yet.
    until("a list of shards", DECIDED_WITHIN, async || {
        let mut stub = stub.clone();
        let listed = stub.list_shards(ListShardsRequest::default()).await;
        listed.map_err(|status| status.to_string())
    })
    .await;
    let (mut shards, mut nodes) = (Vec::new(), Vec::new());
    let mut question = ListShardsRequest {
        page_size: 3,
        ..ListShardsRequest::default()
    };
    loop {
        let page = stub
            .list_shards(question.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.shards.len() <= 3 && page.meta.is_some());
        shards.extend(page.shards.into_iter().map(|it| it.shard));
        question.page_token = page.next_page_token;
        if question.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(shards, (0..cluster.shards()).collect::<Vec<_>>());
    let mut question = ListNodesRequest {
        page_size: 2,
        ..ListNodesRequest::default()
    };
    loop {
        let page = stub
            .list_nodes(question.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.nodes.len() <= 2);
        nodes.extend(page.nodes.into_iter().map(|it| it.node_id));
        question.page_token = page.next_page_token;
        if question.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(nodes, NODES);
    let question = GetAuditRequest {
        page_token: "no token".to_owned(),
        ..GetAuditRequest::default()
    };
    let status = stub.get_audit(question).await.unwrap_err();
    assert_eq!(refusal(&status).1, "FIELD_INVALID", "{status}");
}
