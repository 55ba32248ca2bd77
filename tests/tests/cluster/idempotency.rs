//! A repeated call is carried out once, whoever takes it and whatever happened in between.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use stock_proto::stock::v1::inventory_service_client::InventoryServiceClient;
use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::topology_service_client::TopologyServiceClient;
use stock_proto::stock::v1::{
    AdjustRequest, AmendRequest, ConfirmRequest, ExtendRequest, FulfillRequest, GetTopologyRequest,
    RecordReceiptsRequest, RecordSaleRequest, ReleaseRequest, Reservation, ReserveRequest,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, request_id, request_id_made_at, sku_in};
use tests::stock::{
    fresh_location, held, line, movement, only, outcome, position, receive, reserve, seconds,
};
use tests::wait::finish;
use tonic::transport::Channel;

/// What of a reservation does not depend on when it is looked at.
fn lasting(reservation: &Reservation) -> Reservation {
    Reservation {
        expires_in: None,
        ..reservation.clone()
    }
}

/// Repeats one call at every node, and checks that all answers are the first one.
async fn check<Q: Clone>(
    nodes: &[Channel],
    request: Q,
    mut call: impl AsyncFnMut(ReservationServiceClient<Channel>, Q) -> Option<Reservation>,
) -> Reservation {
    let mut answers = Vec::new();
    for node in nodes.iter().chain(nodes) {
        let stub = ReservationServiceClient::new(node.clone());
        let reservation = call(stub, request.clone()).await.expect("a reservation");
        answers.push(lasting(&reservation));
    }
    for answer in &answers {
        assert_eq!(*answer, answers[0]);
    }
    answers.remove(0)
}

#[tokio::test]
async fn the_same_request_gets_the_stored_answer_at_every_node() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let nodes = NODES.map(|node| cluster.channel(node));
    let (sku, location) = (fresh("repeat"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;

    let held = check(
        &nodes,
        reserve(&sku, &location, 4),
        async |mut stub, request| {
            let answer = stub.reserve(request).await.unwrap().into_inner();
            outcome(answer).ok()
        },
    )
    .await;
    let id = held.reservation_id;

    let request = AmendRequest {
        request_id: request_id(),
        reservation_id: id.clone(),
        lines: vec![line(&sku, &location, 5)],
        ttl: None,
    };
    check(&nodes, request, async |mut stub, request| {
        let answer = stub.amend(request).await.unwrap().into_inner();
        match answer.outcome {
            Some(stock_proto::stock::v1::amend_response::Outcome::Reservation(held)) => Some(held),
            _ => None,
        }
    })
    .await;

    let request = ExtendRequest {
        request_id: request_id(),
        reservation_id: id.clone(),
        ttl: seconds(3_600),
    };
    check(&nodes, request, async |mut stub, request| {
        stub.extend(request).await.unwrap().into_inner().reservation
    })
    .await;

    let request = ConfirmRequest {
        request_id: request_id(),
        reservation_id: id.clone(),
        pickup_within: None,
    };
    check(&nodes, request, async |mut stub, request| {
        stub.confirm(request)
            .await
            .unwrap()
            .into_inner()
            .reservation
    })
    .await;

    let part = vec![stock_proto::stock::v1::PartialLine {
        sku: sku.clone(),
        location: None,
        quantity: 2,
    }];
    let request = FulfillRequest {
        request_id: request_id(),
        reservation_id: id.clone(),
        lines: part.clone(),
    };
    check(&nodes, request, async |mut stub, request| {
        stub.fulfill(request)
            .await
            .unwrap()
            .into_inner()
            .reservation
    })
    .await;

    let request = ReleaseRequest {
        request_id: request_id(),
        reservation_id: id.clone(),
        lines: part,
    };
    let last = check(&nodes, request, async |mut stub, request| {
        stub.release(request)
            .await
            .unwrap()
            .into_inner()
            .reservation
    })
    .await;

    let line = &last.lines[0];
    assert_eq!((line.open, line.fulfilled, line.released), (1, 2, 2));
    let left = position(&client, &sku, &location).await.unwrap();
    assert_eq!((left.on_hand, left.reserved, left.available), (8, 1, 7));
}

#[tokio::test]
async fn a_shortage_is_remembered_as_well() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("short"), fresh_location(&client).await);
    receive(&client, &sku, &location, 1).await;
    let request = reserve(&sku, &location, 2);

    let first = client.reserve(request.clone()).await.unwrap();
    assert_eq!(outcome(first).unwrap_err().lines[0].available, 1);
    // Enough by now: but this request has been answered.
    receive(&client, &sku, &location, 1).await;
    let again = client.reserve(request).await.unwrap();
    assert_eq!(outcome(again).unwrap_err().lines[0].available, 1);
    held(client.reserve(reserve(&sku, &location, 2)).await.unwrap());
}

#[tokio::test]
async fn an_id_from_a_clock_far_behind_is_carried_out_once() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("behind"), fresh_location(&client).await);
    receive(&client, &sku, &location, 5).await;
    let request = ReserveRequest {
        request_id: request_id_made_at(1),
        ..reserve(&sku, &location, 2)
    };

    // Nothing has been forgotten yet, so that the id is known to be new.
    let first = held(client.reserve(request.clone()).await.unwrap());
    let again = held(client.reserve(request).await.unwrap());
    assert_eq!(lasting(&first), lasting(&again));
    assert_eq!(
        position(&client, &sku, &location).await.unwrap().reserved,
        2
    );
}

#[tokio::test]
async fn documents_sent_again_are_already_recorded_at_every_node() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("document"), fresh_location(&client).await);
    let document = fresh("file");
    let lines = vec![movement(&sku, &location, 10)];
    let receipt = RecordReceiptsRequest {
        source: None,
        document: document.clone(),
        lines: lines.clone(),
    };
    // The same document and line of another kind is another movement.
    let sale = RecordSaleRequest {
        source: None,
        document: document.clone(),
        lines: lines.clone(),
    };
    let adjustment = AdjustRequest {
        source: None,
        document,
        lines,
        reason: "counted".to_owned(),
    };

    let mut verdicts = Vec::new();
    for node in NODES {
        let mut stub = InventoryServiceClient::new(cluster.channel(node));
        let stream = futures_util::stream::iter([receipt.clone()]);
        let answers = [
            stub.record_receipts(stream)
                .await
                .unwrap()
                .into_inner()
                .verdicts,
            stub.record_sale(sale.clone())
                .await
                .unwrap()
                .into_inner()
                .verdicts,
            stub.adjust(adjustment.clone())
                .await
                .unwrap()
                .into_inner()
                .verdicts,
        ];
        verdicts.push(answers.map(|verdicts| only(verdicts).verdict()));
    }

    assert_eq!(verdicts[0], [Verdict::Recorded; 3]);
    assert_eq!(verdicts[1], [Verdict::AlreadyRecorded; 3]);
    assert_eq!(verdicts[2], [Verdict::AlreadyRecorded; 3]);
    assert_eq!(
        position(&client, &sku, &location).await.unwrap().on_hand,
        10
    );
}

/// Calls under way when a leader dies.
const CALLS: usize = 64;

const KILLS: usize = 3;

/// A call that loses its leader waits for the next one.
const CALLS_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn calls_repeated_after_their_leader_was_killed_are_carried_out_once() {
    let cluster = Cluster::start(Options {
        shards: 2,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let sku = sku_in(1, cluster.shards(), "once");
    let location = fresh_location(&client).await;
    receive(&client, &sku, &location, 10_000).await;

    let mut sent = 0;
    for _ in 0..KILLS {
        let leader = cluster.leader_of(1).await;
        let requests: Vec<_> = (0..CALLS).map(|_| reserve(&sku, &location, 1)).collect();
        let receipts: Vec<_> = (0..CALLS / 8)
            .map(|_| RecordReceiptsRequest {
                source: None,
                document: fresh("racing"),
                lines: vec![movement(&sku, &location, 1)],
            })
            .collect();
        let reserves = join_all(
            requests
                .iter()
                .map(|request| client.reserve(request.clone())),
        );
        let records = join_all(
            receipts
                .iter()
                .map(|receipt| client.record_receipts([receipt.clone()])),
        );
        let kill = async {
            // Some have been answered and some have not: the first answer says that they flow.
            client.reserve(requests[0].clone()).await.unwrap();
            cluster.kill(leader);
        };
        let (reserved, recorded, ()) = finish("calls while a leader dies", CALLS_WITHIN, async {
            tokio::join!(reserves, records, kill)
        })
        .await;
        sent += CALLS as i64;

        let again = join_all(
            requests
                .iter()
                .map(|request| client.reserve(request.clone())),
        )
        .await;
        for (first, again) in reserved.into_iter().zip(again) {
            let (first, again) = (held(first.unwrap()), held(again.unwrap()));
            assert_eq!(first.reservation_id, again.reservation_id);
        }
        for recorded in recorded {
            assert_ne!(only(recorded.unwrap().verdicts).verdict(), Verdict::Refused);
        }
        for receipt in &receipts {
            let again = client.record_receipts([receipt.clone()]).await.unwrap();
            assert_eq!(only(again.verdicts).verdict(), Verdict::AlreadyRecorded);
        }
        cluster.restart(leader);
        cluster.wait_until_led().await;
    }

    let left = position(&client, &sku, &location).await.unwrap();
    assert_eq!(left.reserved, sent);
    assert_eq!(left.on_hand, 10_000 + sent / 8);
}

#[tokio::test]
async fn every_node_tells_the_time_by_which_it_judges_ids() {
    let cluster = Cluster::shared().await;
    for node in NODES {
        let mut stub = TopologyServiceClient::new(cluster.channel(node));
        let answer = stub.get_topology(GetTopologyRequest {}).await.unwrap();
        let time = answer.into_inner().time.expect("the cluster is founded");
        let time = SystemTime::try_from(time).unwrap();
        let now = SystemTime::now();
        let distance = now.duration_since(time).unwrap_or_else(|it| it.duration());
        assert!(
            distance < Duration::from_secs(5),
            "node {node}: {distance:?}"
        );
    }
}
