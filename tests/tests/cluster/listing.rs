//! Reservations are found again: by what their caller calls them, by what they hold, by how they
//! stand; a page at a time, while they come and go.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::{StreamExt, stream};
use prost::Message;
use stock_client::Client;
use stock_proto::stock::admin::v1::ForceReleaseRequest;
use stock_proto::stock::v1::catalog_service_client::CatalogServiceClient;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{
    ConfirmRequest, ListLocationsRequest, ListReservationsRequest, ReadOptions, ReleaseRequest,
    Reservation, ReserveRequest,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{fresh, request_id, sku_in};
use tests::programs;
use tests::raw::{self, Connection};
use tests::settings;
use tests::stock::{
    fresh_location, held, line, of_order, receive, reservation, reserve, seconds, warehouse,
};
use tests::wait::finish;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const LIST: &str = "/stock.v1.ReservationService/ListReservations";
const RESERVE: &str = "/stock.v1.ReservationService/Reserve";

fn labelled(sku: &str, location: &str, order: &str, channel: &str) -> ReserveRequest {
    ReserveRequest {
        order_reference: Some(order.to_owned()),
        channel: Some(channel.to_owned()),
        ..reserve(sku, location, 1)
    }
}

fn ids(reservations: &[Reservation]) -> BTreeSet<String> {
    let ids = reservations.iter().map(|it| it.reservation_id.clone());
    let all: BTreeSet<String> = ids.collect();
    assert_eq!(all.len(), reservations.len(), "listed twice");
    all
}

async fn find(client: &Client, question: ListReservationsRequest) -> BTreeSet<String> {
    let found = client.list_reservations(question).await;
    ids(&found.unwrap_or_else(|e| panic!("{e}")).reservations)
}

#[tokio::test]
async fn a_caller_whose_answer_was_lost_finds_its_hold_by_its_order_at_any_node() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("lost"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let order = format!("Bestellung \u{2116} {}", fresh("7"));
    // Nobody takes the answer.
    drop(
        client
            .reserve(labelled(&sku, &location, &order, "web"))
            .await,
    );
    for node in NODES {
        let mut stub = ReservationServiceClient::new(cluster.channel(node));
        let answer = stub.list_reservations(of_order(&order)).await.unwrap();
        let answer = answer.into_inner();
        let [found] = &answer.reservations[..] else {
            panic!("node {node}: {answer:?}");
        };
        assert_eq!(found.order_reference.as_deref(), Some(order.as_str()));
        assert_eq!(found.channel.as_deref(), Some("web"));
        assert_eq!(found.state(), State::Held);
        assert!(answer.next_page_token.is_empty());
        let indexes = answer.header.unwrap().indexes;
        assert_eq!(indexes.len() as u32, cluster.shards(), "{indexes:?}");
    }
    let found = find(&client, of_order(&order)).await;
    let id = found.into_iter().next().unwrap();
    let confirm = ConfirmRequest {
        request_id: request_id(),
        reservation_id: id.clone(),
        pickup_within: None,
    };
    let confirmed = client.confirm(confirm).await.unwrap().reservation.unwrap();
    assert_eq!(confirmed.order_reference.as_deref(), Some(order.as_str()));
    // It is another request if it is of another order.
    let first = labelled(&sku, &location, &order, "web");
    let again = ReserveRequest {
        order_reference: Some("another".to_owned()),
        ..first.clone()
    };
    held(client.reserve(first).await.unwrap());
    let error = client.reserve(again).await.unwrap_err();
    assert_eq!(error.reason_text(), "REQUEST_REUSED", "{error}");
}

#[tokio::test]
async fn all_that_is_asked_for_is_true_of_what_is_listed() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let skus = [0, 1].map(|shard| sku_in(shard, cluster.shards(), "wanted"));
    let places = [fresh_location(&client).await, fresh_location(&client).await];
    for sku in &skus {
        for place in &places {
            receive(&client, sku, place, 100).await;
        }
    }
    let channel = fresh("app");
    let mut made = Vec::new();
    for (number, sku) in skus.iter().cycle().take(8).enumerate() {
        let request = ReserveRequest {
            ttl: seconds(if number < 4 { 60 } else { 3_600 }),
            ..labelled(sku, &places[number / 2 % 2], &fresh("order"), &channel)
        };
        made.push(held(client.reserve(request).await.unwrap()));
    }
    let release = ReleaseRequest {
        request_id: request_id(),
        reservation_id: made[7].reservation_id.clone(),
        lines: Vec::new(),
    };
    client.release(release).await.unwrap();
    let ours = || ListReservationsRequest {
        channel: Some(channel.clone()),
        read: Some(ReadOptions::linearizable()),
        ..ListReservationsRequest::default()
    };
    let expected = |numbers: &[usize]| -> BTreeSet<String> {
        let ids = numbers
            .iter()
            .map(|number| made[*number].reservation_id.clone());
        ids.collect()
    };
    assert_eq!(
        find(&client, ours()).await,
        expected(&[0, 1, 2, 3, 4, 5, 6, 7])
    );
    let mut of_sku = ours();
    of_sku.sku = Some(skus[1].clone());
    assert_eq!(find(&client, of_sku.clone()).await, expected(&[1, 3, 5, 7]));
    of_sku.location = Some(places[1].clone());
    assert_eq!(find(&client, of_sku.clone()).await, expected(&[3, 7]));
    of_sku.states = vec![State::Held.into(), State::Confirmed.into()];
    assert_eq!(find(&client, of_sku).await, expected(&[3]));
    let mut ended = ours();
    ended.states = vec![State::Released.into()];
    assert_eq!(find(&client, ended).await, expected(&[7]));
    let mut due = ours();
    let last = made[0].expires_at.unwrap();
    due.due_before = Some(prost_types::Timestamp {
        seconds: last.seconds + 600,
        ..last
    });
    assert_eq!(find(&client, due).await, expected(&[0, 1, 2, 3]));
    // Several may be held in the same millisecond.
    let since = made[5].created_at.unwrap();
    let is_later = |it: &&Reservation| {
        let at = it.created_at.unwrap();
        (at.seconds, at.nanos) > (since.seconds, since.nanos)
    };
    let later = made.iter().filter(is_later);
    let later: BTreeSet<String> = later.map(|it| it.reservation_id.clone()).collect();
    let mut late = ours();
    late.created_after = Some(since);
    assert_eq!(find(&client, late).await, later);
    let mut none = ours();
    none.order_reference = Some(fresh("nobody's"));
    assert_eq!(find(&client, none).await, expected(&[]));
}

#[tokio::test]
async fn an_operator_releases_what_its_holder_does_not() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("left"), fresh_location(&client).await);
    receive(&client, &sku, &location, 1).await;
    let id = held(client.reserve(reserve(&sku, &location, 1)).await.unwrap()).reservation_id;
    let mut force = ForceReleaseRequest {
        request_id: request_id(),
        reservation_id: id.clone(),
        lines: Vec::new(),
        reason: "two\nlines".to_owned(),
    };
    let error = client.force_release(force.clone()).await.unwrap_err();
    assert_eq!(error.reason_text(), "FIELD_INVALID", "{error}");
    assert!(error.to_string().contains("reason"), "{error}");
    assert_eq!(
        reservation(&client, &id).await.unwrap().state(),
        State::Held
    );
    force.reason = "the app is gone".to_owned();
    for _ in 0..2 {
        let released = client.force_release(force.clone()).await.unwrap();
        assert_eq!(released.reservation.unwrap().state(), State::Released);
    }
    force.reason = "another reason".to_owned();
    let error = client.force_release(force).await.unwrap_err();
    assert_eq!(error.reason_text(), "REQUEST_REUSED", "{error}");
}

fn refusal(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let field = details
        .bad_request()
        .and_then(|bad| Some(bad.field_violations.first()?.field.clone()));
    let (reason, field) = (reason.unwrap_or_default(), field.unwrap_or_default());
    (status.code(), reason, field)
}

#[tokio::test]
async fn what_is_no_question_is_refused_with_its_field() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("asked"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let channel = fresh("app");
    for _ in 0..3 {
        let request = labelled(&sku, &location, &fresh("order"), &channel);
        held(client.reserve(request).await.unwrap());
    }
    let mut stub = ReservationServiceClient::new(cluster.channel(NODES[0]));
    let good = ListReservationsRequest {
        channel: Some(channel.clone()),
        sku: Some(sku.clone()),
        page_size: 2,
        read: Some(ReadOptions::linearizable()),
        ..ListReservationsRequest::default()
    };
    let page = stub.list_reservations(good.clone()).await.unwrap();
    let token = page.into_inner().next_page_token;
    assert!(!token.is_empty());
    let of_locations = client
        .list_locations_page(ListLocationsRequest {
            page_size: 1,
            page_token: String::new(),
        })
        .await
        .unwrap()
        .next_page_token;
    let with = |change: &dyn Fn(&mut ListReservationsRequest)| {
        let mut question = good.clone();
        change(&mut question);
        question
    };
    let cases = [
        (with(&|it| it.page_size = -1), "page_size"),
        (
            with(&|it| it.page_token = "no token".to_owned()),
            "page_token",
        ),
        (
            with(&|it| it.page_token.clone_from(&of_locations)),
            "page_token",
        ),
        (
            with(&|it| it.page_token = token[1..].to_owned()),
            "page_token",
        ),
        (
            with(&|it| it.page_token = format!("{token}0")),
            "page_token",
        ),
        (
            with(&|it| {
                it.page_token.clone_from(&token);
                it.channel = None;
            }),
            "page_token",
        ),
        (
            with(&|it| it.order_reference = Some(String::new())),
            "order_reference",
        ),
        (
            with(&|it| it.order_reference = Some("o".repeat(65))),
            "order_reference",
        ),
        (
            with(&|it| it.order_reference = Some("a\tb".to_owned())),
            "order_reference",
        ),
        (
            with(&|it| it.channel = Some("the web".to_owned())),
            "channel",
        ),
        (with(&|it| it.sku = Some(" milk".to_owned())), "sku"),
        (
            with(&|it| it.location = Some("store 7".to_owned())),
            "location",
        ),
        (with(&|it| it.states = vec![1, 0]), "states[1]"),
        (with(&|it| it.states = vec![9]), "states[0]"),
        (with(&|it| it.states = vec![1, 1]), "states[1]"),
        (
            with(&|it| {
                it.due_before = Some(prost_types::Timestamp {
                    seconds: 1,
                    nanos: -1,
                });
            }),
            "due_before",
        ),
    ];
    for (number, (question, field)) in cases.into_iter().enumerate() {
        let status = stub.list_reservations(question).await.unwrap_err();
        let expected = (
            Code::InvalidArgument,
            "FIELD_INVALID".to_owned(),
            field.to_owned(),
        );
        assert_eq!(refusal(&status), expected, "case {number}: {status}");
    }
    // As much as there may be is no mistake, and the rest follows.
    let rest = ListReservationsRequest {
        page_size: i32::MAX,
        page_token: token,
        ..good.clone()
    };
    let rest = stub.list_reservations(rest).await.unwrap().into_inner();
    assert_eq!(rest.reservations.len(), 1);

    let reserve = |order: &str, channel: &str| labelled(&sku, &location, order, channel);
    for (request, field) in [
        (reserve("", "web"), "order_reference"),
        (reserve(&"o".repeat(65), "web"), "order_reference"),
        (reserve("a\u{7}", "web"), "order_reference"),
        (reserve("A-1", ""), "channel"),
        (reserve("A-1", "the web"), "channel"),
    ] {
        let status = stub.reserve(request).await.unwrap_err();
        let expected = (
            Code::InvalidArgument,
            "FIELD_INVALID".to_owned(),
            field.to_owned(),
        );
        assert_eq!(refusal(&status), expected, "{status}");
    }
    // What is no text, no client sends.
    let connection = Connection::open(&cluster.address(NODES[0])).await;
    let mut broken = BytesMut::from(&reserve("A-1", "web").encode_to_vec()[..]);
    let at = broken.windows(3).position(|three| three == b"A-1").unwrap();
    broken[at] = 0xff;
    let status = connection.call(RESERVE, &[], raw::frame(&broken)).await;
    assert_eq!(refusal(&status.unwrap_err()).1, "MESSAGE_MALFORMED");
    let status = connection
        .call(LIST, &[], raw::frame(&[0x0a, 1, 0xff]))
        .await;
    assert_eq!(refusal(&status.unwrap_err()).1, "MESSAGE_MALFORMED");
    assert_eq!(find(&client, good).await.len(), 3);
}

/// Reservations that are there all the while. A long run: `STOCKD_LISTED=1000000` and
/// `cargo test --profile dist -p tests --test cluster listing -- --nocapture`.
const LISTED: u64 = 20_000;

/// SKUs that they are spread over.
const SKUS: usize = 64;

#[tokio::test]
async fn what_is_there_all_the_while_is_listed_once_whatever_comes_and_goes() {
    let count = settings::number("STOCKD_LISTED", LISTED);
    let _works = programs::MUCH_WORK.lock().await;
    let cluster = Cluster::start(Options::default()).await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let skus: Vec<String> = (0..SKUS).map(|_| fresh("many")).collect();
    for sku in &skus {
        receive(&client, sku, &location, 1_000_000).await;
    }
    let request = |number: u64| ReserveRequest {
        ttl: seconds(604_800),
        channel: Some("stay".to_owned()),
        order_reference: Some(format!("order {number}")),
        ..reserve(&skus[number as usize % SKUS], &location, 1)
    };
    let resident = || NODES.map(|node| programs::resident_bytes(cluster.process_id(node)));
    let before = resident();
    let began = Instant::now();
    let stay = client.reserve_stream(stream::iter((0..count).map(request)));
    let stay: BTreeSet<String> = stay
        .map(|(_, answer)| held(answer.unwrap()).reservation_id)
        .collect()
        .await;
    eprintln!("{} reservations in {:?}", stay.len(), began.elapsed());
    for (before, after) in before.into_iter().zip(resident()) {
        let bytes = after.saturating_sub(before) / count;
        eprintln!("memory of a node for each of them, with all that comes along: {bytes} bytes");
    }

    let over = Cell::new(false);
    let coming_and_going = async {
        let mut kept = Vec::new();
        let mut number = 0;
        while !over.get() {
            number += 1;
            let sku = &skus[number % SKUS];
            let request = ReserveRequest {
                channel: Some("pass".to_owned()),
                lines: vec![line(sku, &location, 1)],
                ..reserve(sku, &location, 1)
            };
            kept.push(held(client.reserve(request).await.unwrap()).reservation_id);
            if kept.len() > 50 {
                let release = ReleaseRequest {
                    request_id: request_id(),
                    reservation_id: kept.swap_remove(number % 50),
                    lines: Vec::new(),
                };
                client.release(release).await.unwrap();
            }
        }
        number
    };
    let listing = async {
        let mut question = ListReservationsRequest {
            channel: Some("stay".to_owned()),
            page_size: 5_000,
            read: Some(ReadOptions::linearizable()),
            ..ListReservationsRequest::default()
        };
        let (mut found, mut pages, mut slowest) = (Vec::new(), 0, Duration::ZERO);
        loop {
            let began = Instant::now();
            let page = client.list_reservations_page(question.clone()).await;
            let page = page.unwrap_or_else(|e| panic!("page {pages}: {e}"));
            slowest = slowest.max(began.elapsed());
            pages += 1;
            found.extend(page.reservations);
            if page.next_page_token.is_empty() {
                break;
            }
            question.page_token = page.next_page_token;
        }
        eprintln!("{pages} pages of 5,000, the slowest in {slowest:?}");
        let mut finds = Vec::new();
        for number in 0..100 {
            let order = format!("order {}", number * 7_919 % count);
            let began = Instant::now();
            let of_order = client.list_reservations(of_order(&order)).await.unwrap();
            finds.push(began.elapsed());
            assert_eq!(of_order.reservations.len(), 1, "{order}");
        }
        finds.sort();
        eprintln!(
            "found by order: p50 {:?}, slowest {:?}",
            finds[50], finds[99]
        );
        over.set(true);
        found
    };
    let within = Duration::from_secs(600);
    let both = async { tokio::join!(listing, coming_and_going) };
    let (found, passed) = finish("all pages", within, both).await;
    eprintln!("{passed} came and went meanwhile");
    assert!(
        ids(&found) == stay,
        "{} of {} listed",
        found.len(),
        stay.len()
    );
}

/// Locations that are there all the while. A long run: `STOCKD_LOCATIONS=99000`, of the 100,000
/// that a cluster may have.
const LOCATIONS: u64 = 6_000;

/// Puts under way at once.
const PUTS: usize = 64;

#[tokio::test]
async fn every_location_is_listed_once_by_a_plain_client_while_others_are_put() {
    let count = settings::number("STOCKD_LOCATIONS", LOCATIONS);
    let _works = programs::MUCH_WORK.lock().await;
    let cluster = Cluster::start(Options::default()).await;
    let client = cluster.client().await;
    let put = async |id: String| {
        let mut request = warehouse(&id);
        // As large as they may be: pages must fit into what a client takes.
        let location = request.location.as_mut().unwrap();
        location.name = "n".repeat(128);
        location.gln = Some("4012345000009".to_owned());
        client.put_location(request).await.unwrap();
        id
    };
    let all = (0..count).map(|number| put(format!("stay-{number:06}")));
    let stay: BTreeSet<String> = stream::iter(all).buffer_unordered(PUTS).collect().await;

    let over = Cell::new(false);
    let putting = async {
        let mut number = 0;
        while !over.get() {
            number += 1;
            put(format!("also-{number:06}")).await;
            put(format!("then-{number:06}")).await;
        }
        number
    };
    // With the limits that tonic has by itself.
    let mut stub = CatalogServiceClient::new(cluster.channel(NODES[2]));
    let listing = async {
        let (mut found, mut pages, mut slowest) = (Vec::new(), 0, Duration::ZERO);
        let mut question = ListLocationsRequest::default();
        loop {
            question.page_size = [0, 5_000, i32::MAX][pages % 3];
            let began = Instant::now();
            let page = stub.list_locations(question.clone()).await;
            let page = page.unwrap_or_else(|e| panic!("page {pages}: {e}"));
            let page = page.into_inner();
            slowest = slowest.max(began.elapsed());
            pages += 1;
            found.extend(page.locations.into_iter().map(|it| it.location_id));
            if page.next_page_token.is_empty() {
                break;
            }
            question.page_token = page.next_page_token;
        }
        eprintln!(
            "{} locations in {pages} pages, the slowest in {slowest:?}",
            found.len()
        );
        over.set(true);
        found
    };
    let within = Duration::from_secs(600);
    let both = async { tokio::join!(listing, putting) };
    let (found, _) = finish("all pages", within, both).await;
    assert!(
        found.is_sorted_by(|one, next| one < next),
        "twice, or not in order"
    );
    let staying = found.iter().filter(|id| id.starts_with("stay-"));
    assert!(staying.eq(stay.iter()));
}
