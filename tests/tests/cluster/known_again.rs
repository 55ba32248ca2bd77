//! What makes a request the same request, and a movement the same movement: what it asks for and
//! what it is about, not how it was written down.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use stock_client::{Client, Error};
use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{
    AdjustRequest, AmendRequest, BatchReserveRequest, ConfirmRequest, ExtendRequest,
    FulfillRequest, LineVerdict, MovementLine, PartialLine, RecordReceiptsRequest,
    RecordSaleRequest, ReleaseRequest, ReserveRequest,
};
use tests::cluster::Cluster;
use tests::names::{fresh, request_id, sku_in};
use tests::stock::{
    fresh_location, held, is_held, line, movement, only, position, receive, reservation, reserve,
    seconds, sell,
};
use tonic::Code;

/// A shop with some units of one SKU.
struct Shop {
    client: Client,
    sku: String,
    location: String,
}

impl Shop {
    async fn open(cluster: &Cluster, units: i64) -> Self {
        let client = cluster.client().await;
        let (sku, location) = (fresh("known"), fresh_location(&client).await);
        receive(&client, &sku, &location, units).await;
        Self {
            client,
            sku,
            location,
        }
    }

    async fn hold(&self, units: i64) -> String {
        let request = reserve(&self.sku, &self.location, units);
        held(self.client.reserve(request).await.unwrap()).reservation_id
    }

    async fn sale(
        &self,
        source: &str,
        document: &str,
        lines: Vec<MovementLine>,
    ) -> Vec<LineVerdict> {
        let request = RecordSaleRequest {
            document: document.to_owned(),
            lines,
            source: Some(source.to_owned()).filter(|source| !source.is_empty()),
        };
        self.client.record_sale(request).await.unwrap().verdicts
    }

    async fn on_hand(&self) -> i64 {
        let position = position(&self.client, &self.sku, &self.location).await;
        position.unwrap().on_hand
    }
}

fn ago(span: Duration) -> Option<Timestamp> {
    Some((SystemTime::now() - span).into())
}

#[track_caller]
fn assert_reused<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let error = answer.expect_err("an id was used twice");
    let Error::Status(status) = &error else {
        panic!("{error}");
    };
    assert_eq!(status.code, Code::AlreadyExists, "{error}");
    assert_eq!(status.reason, "REQUEST_REUSED", "{error}");
}

#[tokio::test]
async fn an_id_stands_for_one_kind_of_call() {
    let cluster = Cluster::shared().await;
    let shop = Shop::open(&cluster, 20).await;
    let (client, id) = (&shop.client, shop.hold(4).await);
    let part = || {
        vec![PartialLine {
            sku: shop.sku.clone(),
            location: Some(shop.location.clone()),
            quantity: 1,
        }]
    };

    let extended = request_id();
    let extend = ExtendRequest {
        request_id: extended.clone(),
        reservation_id: id.clone(),
        ttl: seconds(1_800),
    };
    client.extend(extend).await.unwrap();
    let confirm = |request_id: &str, pickup_within| ConfirmRequest {
        request_id: request_id.to_owned(),
        reservation_id: id.clone(),
        pickup_within,
    };
    assert_reused(client.confirm(confirm(&extended, seconds(1_800))).await);

    let confirmed = request_id();
    client.confirm(confirm(&confirmed, None)).await.unwrap();
    let release = |request_id: &str, lines| ReleaseRequest {
        request_id: request_id.to_owned(),
        reservation_id: id.clone(),
        lines,
    };
    assert_reused(client.release(release(&confirmed, Vec::new())).await);
    let fulfill = |request_id: &str, lines| FulfillRequest {
        request_id: request_id.to_owned(),
        reservation_id: id.clone(),
        lines,
    };
    assert_reused(client.fulfill(fulfill(&confirmed, Vec::new())).await);

    let released = request_id();
    client.release(release(&released, part())).await.unwrap();
    assert_reused(client.fulfill(fulfill(&released, part())).await);
    let amend = AmendRequest {
        request_id: released.clone(),
        reservation_id: id.clone(),
        lines: vec![line(&shop.sku, &shop.location, 1)],
        ttl: None,
    };
    assert_reused(client.amend(amend).await);

    let after = reservation(client, &id).await.unwrap();
    assert_eq!(after.state(), State::Confirmed);
    assert_eq!((after.lines[0].open, after.lines[0].released), (3, 1));
}

#[tokio::test]
async fn an_id_is_the_same_in_every_spelling() {
    let cluster = Cluster::shared().await;
    let shop = Shop::open(&cluster, 20).await;
    let id = request_id();
    let bare = id.replace('-', "");
    let spellings = [
        id.clone(),
        id.to_uppercase(),
        bare.clone(),
        bare.to_uppercase(),
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
    ];
    let mut answers = Vec::new();
    for request_id in spellings {
        let request = ReserveRequest {
            request_id,
            ..reserve(&shop.sku, &shop.location, 1)
        };
        answers.push(held(shop.client.reserve(request).await.unwrap()).reservation_id);
    }
    // The default, left out and written out.
    let request = ReserveRequest {
        request_id: id,
        ttl: seconds(15 * 60),
        ..reserve(&shop.sku, &shop.location, 1)
    };
    answers.push(held(shop.client.reserve(request).await.unwrap()).reservation_id);
    let first = answers[0].clone();
    assert!(answers.iter().all(|answer| *answer == first), "{answers:?}");

    let released = request_id();
    for reservation_id in [first.clone(), first.to_uppercase(), first.replace('-', "")] {
        let request = ReleaseRequest {
            request_id: released.clone(),
            reservation_id,
            lines: Vec::new(),
        };
        let answer = shop.client.release(request).await.unwrap().reservation;
        assert_eq!(answer.unwrap().state(), State::Released);
    }
}

#[tokio::test]
async fn a_movement_is_known_by_what_it_is_about_wherever_its_sku_lives() {
    let cluster = Cluster::shared().await;
    let shop = Shop::open(&cluster, 20).await;
    let other_place = fresh_location(&shop.client).await;
    let document = fresh("receipt");
    for shard in 0..cluster.shards() {
        let sku = sku_in(shard, cluster.shards(), &fresh("about"));
        receive(&shop.client, &sku, &shop.location, 9).await;
        receive(&shop.client, &sku, &other_place, 9).await;
        for place in [&shop.location, &other_place] {
            let sold = movement(&sku, place, 1);
            let first = shop.sale("till-1", &document, vec![sold.clone()]).await;
            assert_eq!(only(first).verdict(), Verdict::Recorded, "shard {shard}");
            let again = shop.sale("till-1", &document, vec![sold.clone()]).await;
            assert_eq!(only(again).verdict(), Verdict::AlreadyRecorded);
            // Another till numbers its receipts alike.
            let other = shop.sale("till-2", &document, vec![sold.clone()]).await;
            assert_eq!(only(other).verdict(), Verdict::Recorded);
            let changed = MovementLine {
                quantity: 2,
                ..sold
            };
            let refused = only(shop.sale("till-1", &document, vec![changed]).await);
            assert_eq!(refused.error.unwrap().reason().text(), "DOCUMENT_REUSED");
            let left = position(&shop.client, &sku, place).await.unwrap();
            assert_eq!(left.on_hand, 7);
        }
    }
}

#[tokio::test]
async fn a_movement_says_when_it_happened_and_a_clock_that_runs_ahead_does_not_refuse_it() {
    let cluster = Cluster::shared().await;
    let shop = Shop::open(&cluster, 20).await;
    let sold = |occurred_at| MovementLine {
        occurred_at,
        ..movement(&shop.sku, &shop.location, 1)
    };
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let ahead = |span| Some(Timestamp::from(SystemTime::now() + span));

    let verdict = only(
        shop.sale("", &fresh("till"), vec![sold(ahead(minutes(5)))])
            .await,
    );
    assert_eq!(verdict.verdict(), Verdict::Recorded, "{verdict:?}");
    let remark = verdict.clock_ahead.expect("a remark on the clock");
    assert!((200..=400).contains(&remark.seconds), "{remark:?}");
    let verdict = only(
        shop.sale("", &fresh("till"), vec![sold(ago(minutes(5)))])
            .await,
    );
    assert_eq!(verdict.verdict(), Verdict::Recorded);
    assert_eq!(verdict.clock_ahead, None);
    let verdict = only(
        shop.sale("", &fresh("till"), vec![sold(ahead(minutes(26 * 60)))])
            .await,
    );
    assert_eq!(verdict.error.unwrap().reason().text(), "OCCURRED_IN_FUTURE");
    // Longer ago than anything is remembered: whether it was recorded then, nobody could tell.
    let verdict = only(
        shop.sale("", &fresh("till"), vec![sold(ago(minutes(31 * 24 * 60)))])
            .await,
    );
    assert_eq!(verdict.error.unwrap().reason().text(), "DOCUMENT_TOO_OLD");

    let timeless = RecordSaleRequest {
        document: fresh("till"),
        lines: vec![sold(None)],
        source: None,
    };
    let error = shop.client.record_sale(timeless).await.unwrap_err();
    assert!(error.to_string().contains("occurred_at"), "{error}");
    let timeless = RecordReceiptsRequest {
        document: fresh("note"),
        lines: vec![sold(None)],
        source: None,
    };
    let answer = shop.client.record_receipts([timeless]).await.unwrap();
    let error = only(answer.verdicts).error.unwrap();
    assert_eq!(
        (error.reason().text(), &*error.field),
        ("FIELD_INVALID", "occurred_at")
    );
    assert_eq!(shop.on_hand().await, 18);
}

#[tokio::test]
async fn a_movement_that_is_sent_again_repeats_what_was_amiss() {
    let cluster = Cluster::shared().await;
    let shop = Shop::open(&cluster, 5).await;
    let id = shop.hold(5).await;
    let (document, sold) = (fresh("till"), vec![movement(&shop.sku, &shop.location, 2)]);
    let first = only(shop.sale("", &document, sold.clone()).await);
    let amiss = first.discrepancy.expect("a discrepancy");
    assert_eq!(amiss.short_by, 2);
    assert_eq!(amiss.endangered_reservation_ids, [id]);
    receive(&shop.client, &shop.sku, &shop.location, 9).await;
    let again = only(shop.sale("", &document, sold).await);
    assert_eq!(again.verdict(), Verdict::AlreadyRecorded);
    assert_eq!(again.discrepancy, Some(amiss));
}

#[tokio::test]
async fn the_endangered_are_found_however_many_hold_the_sku_elsewhere() {
    let cluster = Cluster::shared().await;
    let shop = Shop::open(&cluster, 5).await;
    let elsewhere = fresh_location(&shop.client).await;
    receive(&shop.client, &shop.sku, &elsewhere, 5_000).await;
    let id = shop.hold(5).await;
    let requests = (0..1_001).map(|_| reserve(&shop.sku, &elsewhere, 1));
    let mut newer: Vec<ReserveRequest> = requests.collect();
    let rest = newer.split_off(1_000);
    for requests in [newer, rest] {
        let answer = shop
            .client
            .batch_reserve(BatchReserveRequest { requests })
            .await;
        assert!(answer.unwrap().results.iter().all(is_held));
    }

    let fire = AdjustRequest {
        document: fresh("fire"),
        lines: vec![movement(&shop.sku, &shop.location, -5)],
        reason: "fire".to_owned(),
        source: None,
    };
    let verdict = only(shop.client.adjust(fire).await.unwrap().verdicts);
    let amiss = verdict.discrepancy.expect("a discrepancy");
    assert_eq!(amiss.short_by, 5);
    assert_eq!(amiss.endangered_reservation_ids, [id]);
}

#[tokio::test]
async fn a_policy_names_whom_it_endangers() {
    let cluster = Cluster::shared().await;
    let shop = Shop::open(&cluster, 5).await;
    let id = shop.hold(5).await;
    let request = stock_proto::stock::v1::SetPositionPolicyRequest {
        request_id: request_id(),
        sku: shop.sku.clone(),
        location: shop.location.clone(),
        policy: Some(stock_proto::stock::v1::PositionPolicy {
            safety_stock: 2,
            backorder_limit: 0,
        }),
        update_mask: None,
    };
    let answer = shop
        .client
        .set_position_policy(request.clone())
        .await
        .unwrap();
    let amiss = answer.discrepancy.clone().expect("a discrepancy");
    assert_eq!((amiss.available, amiss.short_by), (-2, 2));
    assert_eq!(amiss.endangered_reservation_ids, [id]);
    let again = shop.client.set_position_policy(request).await.unwrap();
    assert_eq!(again.discrepancy, answer.discrepancy);
    // What a sale endangers further is told by the sale.
    let sold = sell(&shop.client, &shop.sku, &shop.location, 1).await;
    assert_eq!(sold.discrepancy.unwrap().short_by, 3);
}
