//! Work, answers and memory are bounded by a small multiple of what a caller sent.

use prost::Message;
use stock_client::v1::batch_reserve_result::Result as Decided;
use stock_proto::stock::v1::inventory_service_client::InventoryServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    BatchReserveRequest, Line, MovementLine, RecordReceiptsRequest, RecordSaleRequest,
    ReserveRequest, reserve_response,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, request_id, sku_in};
use tests::programs::resident_bytes;
use tests::stock::{fresh_location, is_held, movement, receive, reserve};
use tonic::Code;

/// What clients take unless they are told otherwise.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn a_message_that_is_no_document_is_refused_whole() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let sku = fresh("whole");
    let mut stub = InventoryServiceClient::new(cluster.channel(1));
    let good = RecordReceiptsRequest {
        document: fresh("note"),
        lines: vec![movement(&sku, &location, 1)],
        source: None,
    };
    let bad = [
        RecordReceiptsRequest {
            document: "no document".to_owned(),
            lines: Vec::new(),
            source: None,
        },
        RecordReceiptsRequest {
            lines: Vec::new(),
            ..good.clone()
        },
        RecordReceiptsRequest {
            source: Some("no source".to_owned()),
            ..good.clone()
        },
    ];
    for bad in bad {
        let messages = futures_util::stream::iter([good.clone(), bad]);
        let status = stub.record_receipts(messages).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().len() < 1_000);
    }
    let there = tests::stock::position(&client, &sku, &location).await;
    assert!(!there.unwrap().known, "a part of a refused call counts");
}

#[tokio::test]
async fn names_that_are_too_long_come_back_as_short_as_names_are() {
    let cluster = Cluster::shared().await;
    let mut stub = InventoryServiceClient::new(cluster.channel(1));
    let line = MovementLine {
        line: "é".repeat(1_000),
        ..movement("sku", "location", 1)
    };
    for (document, line, lines) in [
        (fresh("note"), line, 1_000),
        ("D".repeat(300_000), MovementLine::default(), 2_000),
    ] {
        let message = RecordReceiptsRequest {
            document,
            lines: vec![line; lines],
            source: None,
        };
        let sent = message.encoded_len();
        let messages = futures_util::stream::iter([message]);
        let answer = stub.record_receipts(messages).await.unwrap().into_inner();
        assert_eq!(answer.verdicts.len(), lines);
        assert!(answer.encoded_len() < 2 * sent, "{sent} bytes were sent");
    }
}

#[tokio::test]
async fn a_sale_that_endangers_many_over_and_over_names_each_once() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("named"), fresh_location(&client).await);
    receive(&client, &sku, &location, 200).await;
    let requests = (0..200).map(|_| reserve(&sku, &location, 1)).collect();
    let answer = client.batch_reserve(BatchReserveRequest { requests }).await;
    assert!(answer.unwrap().results.iter().all(is_held));
    let line = |number: usize| MovementLine {
        line: number.to_string(),
        ..movement(&sku, &location, 1)
    };
    let sale = RecordSaleRequest {
        document: fresh("till"),
        lines: (0..1_500).map(line).collect(),
        source: None,
    };
    let sent = sale.encoded_len();
    let answer = client.record_sale(sale).await.unwrap();
    assert!(answer.encoded_len() < 10 * sent, "{}", answer.encoded_len());
    assert!(answer.encoded_len() < ANSWER_BYTES_MAX);
    let found = answer
        .verdicts
        .iter()
        .filter_map(|it| it.discrepancy.as_ref());
    let named: Vec<&String> = found
        .flat_map(|found| &found.endangered_reservation_ids)
        .collect();
    let once: std::collections::BTreeSet<_> = named.iter().collect();
    // The hundred that were held last, each by the line that came to endanger it.
    assert_eq!((named.len(), once.len()), (100, 100));
    let last = answer
        .verdicts
        .last()
        .and_then(|it| it.discrepancy.as_ref());
    assert_eq!(last.unwrap().short_by, 1_500);
}

/// Baskets that are refused, 4,000 of 100 lines each: what is remembered of them is a few numbers
/// for each line.
#[tokio::test]
async fn refused_baskets_are_remembered_in_a_few_bytes() {
    const BASKETS: usize = 4_000;
    const BATCH: usize = 250;
    let cluster = Cluster::start(Options::default()).await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..100)
        .map(|_| sku_in(0, cluster.shards(), &fresh("short")))
        .collect();
    for sku in &skus {
        receive(&client, sku, &location, 1).await;
    }
    let line = |sku: &String| Line::at(sku.clone(), location.clone(), 2);
    let lines: Vec<Line> = skus.iter().map(line).collect();
    let batch = || BatchReserveRequest {
        requests: (0..BATCH)
            .map(|_| ReserveRequest {
                request_id: request_id(),
                lines: lines.clone(),
                ttl: None,
                ..Default::default()
            })
            .collect(),
    };
    let mut stub = ReservationServiceClient::new(cluster.channel(1));
    let mut refuse = async || {
        let answer = stub.batch_reserve(batch()).await.unwrap().into_inner();
        assert!(answer.encoded_len() < ANSWER_BYTES_MAX);
        let is_short = |decided: &Option<Decided>| {
            let Some(Decided::Response(response)) = decided else {
                return false;
            };
            matches!(
                response.outcome,
                Some(reserve_response::Outcome::Shortage(_))
            )
        };
        assert!(answer.results.iter().all(|result| is_short(&result.result)));
    };
    // What one batch takes while it is under way is taken once.
    refuse().await;
    refuse().await;
    let before: u64 = NODES
        .iter()
        .map(|node| resident_bytes(cluster.process_id(*node)))
        .sum();
    for _ in 2..BASKETS / BATCH {
        refuse().await;
    }
    let after: u64 = NODES
        .iter()
        .map(|node| resident_bytes(cluster.process_id(*node)))
        .sum();
    let grown = after.saturating_sub(before) / MIB;
    assert!(grown < 60, "three nodes have grown by {grown} MiB");
}
