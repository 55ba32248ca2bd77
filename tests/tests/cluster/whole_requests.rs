//! No part of a request is ignored: neither a second message, nor an index beside a consistency,
//! nor one of several.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use prost::Message;
use prost_types::FileDescriptorSet;
use stock_proto::PUBLIC_DESCRIPTORS;
use stock_proto::stock::v1::availability_service_client::AvailabilityServiceClient;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::reserve_stream_result::Result as Slot;
use stock_proto::stock::v1::{
    Consistency, GetAvailabilityRequest, GetReservationRequest, PositionKey, ReserveStreamRequest,
    ShardIndex,
};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{request_id, sku_in};
use tests::raw::{self, Connection};
use tests::stock::{
    at, fresh_location, held, incarnation, line, position, position_seen, reading, receive, reserve,
};
use tests::wait::finish;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// No log of a test is so long.
const FAR: u64 = 1_000_000_000;

/// An index that never comes is waited for, for 5 s.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);

/// What need not be waited for.
const AT_ONCE: Duration = Duration::from_secs(4);

fn refusal(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    (status.code(), reason.unwrap_or_default())
}

/// The paths of all calls that take one message.
fn calls_of_one_message() -> Vec<String> {
    let sets = [PUBLIC_DESCRIPTORS, stock_proto::OTHER_DESCRIPTORS];
    let sets = sets.map(|set| FileDescriptorSet::decode(set).unwrap());
    let mut paths = Vec::new();
    // Those between nodes come over connections of nodes.
    let files = sets.iter().flat_map(|set| &set.file);
    for file in files.filter(|file| file.package() != "stock.internal.v1") {
        for service in &file.service {
            let unary = service.method.iter().filter(|it| !it.client_streaming());
            let package = file.package();
            paths.extend(unary.map(|it| format!("/{package}.{}/{}", service.name(), it.name())));
        }
    }
    paths
}

#[tokio::test]
async fn a_second_message_of_a_call_that_takes_one_is_refused_whatever_the_call() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let connection = Connection::open(&cluster.address(NODES[0])).await;
    let paths = calls_of_one_message();
    assert!(paths.len() > 25, "{paths:?}");
    let twice = [raw::frame(&[]), raw::frame(&[])].concat();
    for path in paths {
        let answer = connection.call(&path, &[], twice.clone().into()).await;
        let status = answer.expect_err(&format!("{path}: two messages are taken for one"));
        let expected = (Code::InvalidArgument, "SEVERAL_MESSAGES".to_owned());
        assert_eq!(refusal(&status), expected, "{path}: {status}");
    }

    // Each by itself is good: neither is carried out.
    let (sku, location) = (
        sku_in(0, cluster.shards(), "twice"),
        fresh_location(&client).await,
    );
    receive(&client, &sku, &location, 10).await;
    let one = || raw::frame(&reserve(&sku, &location, 1).encode_to_vec());
    let mut both = BytesMut::from(&one()[..]);
    both.extend_from_slice(&one());
    let path = "/stock.v1.ReservationService/Reserve";
    let status = connection.call(path, &[], both.freeze()).await.unwrap_err();
    assert_eq!(refusal(&status).1, "SEVERAL_MESSAGES", "{status}");
    let seen = position(&client, &sku, &location).await.unwrap();
    assert_eq!(seen.reserved, 0, "a part of a refused call was carried out");
    let answer: Bytes = connection.call(path, &[], one()).await.unwrap();
    assert!(!answer.is_empty());
}

/// A field with a length, as no version of this schema has one.
fn stranger() -> Vec<u8> {
    // Field 3,000, length-delimited, three bytes.
    vec![0xc2, 0xbb, 0x01, 3, b'n', b'e', b'w']
}

#[tokio::test]
async fn a_field_that_is_not_known_is_refused_whatever_the_call_and_wherever_it_is() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let connection = Connection::open(&cluster.address(NODES[1])).await;
    let unknown = (Code::Unimplemented, "FIELD_UNKNOWN".to_owned());
    for path in calls_of_one_message() {
        let answer = connection.call(&path, &[], raw::frame(&stranger())).await;
        let status = answer.expect_err(&format!("{path}: a field is ignored"));
        assert_eq!(refusal(&status), unknown, "{path}: {status}");
        assert!(status.message().contains("field 3000"), "{path}: {status}");
    }

    // Inside a good request, at any depth: nothing of it is carried out.
    let (sku, location) = (
        sku_in(0, cluster.shards(), "new"),
        fresh_location(&client).await,
    );
    receive(&client, &sku, &location, 10).await;
    let good = reserve(&sku, &location, 1);
    let lines = [line(&sku, &location, 1).encode_to_vec(), stranger()].concat();
    let mut nested = good.encode_to_vec();
    nested.extend([0x12, lines.len() as u8]);
    nested.extend(&lines);
    let path = "/stock.v1.ReservationService/Reserve";
    let status = connection.call(path, &[], raw::frame(&nested)).await;
    let status = status.unwrap_err();
    assert_eq!(refusal(&status), unknown, "{status}");
    assert!(status.message().contains("lines[1].field 3000"), "{status}");
    // Twice is once too often: the second would count, and the first be ignored.
    let twice = [good.encode_to_vec(), good.encode_to_vec()].concat();
    let status = connection.call(path, &[], raw::frame(&twice)).await;
    let malformed = (Code::InvalidArgument, "MESSAGE_MALFORMED".to_owned());
    assert_eq!(refusal(&status.unwrap_err()), malformed);
    let seen = position(&client, &sku, &location).await.unwrap();
    assert_eq!(seen.reserved, 0, "a part of a refused call was carried out");
}

#[tokio::test]
async fn in_a_stream_a_field_that_is_not_known_refuses_its_request_alone() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let (sku, location) = (
        sku_in(0, cluster.shards(), "new"),
        fresh_location(&client).await,
    );
    receive(&client, &sku, &location, 10).await;
    let good = || reserve(&sku, &location, 1).encode_to_vec();
    let message = ReserveStreamRequest {
        requests: vec![
            good().into(),
            [good(), stranger()].concat().into(),
            good().into(),
        ],
    };
    let mut stub = ReservationServiceClient::new(cluster.channel(NODES[0]));
    let answers = stub.reserve_stream(futures_util::stream::iter([message]));
    let mut answers = answers.await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(message) = answers.message().await.unwrap() {
        assert!(message.header.unwrap().incarnation.len() == 16);
        told.extend(message.results.into_iter().map(|it| (it.number, it.result)));
    }
    told.sort_by_key(|(number, _)| *number);
    let [(_, first), (_, second), (_, third)] = &told[..] else {
        panic!("{told:?}");
    };
    for held in [first, third] {
        assert!(matches!(held, Some(Slot::Response(_))), "{held:?}");
    }
    match second {
        Some(Slot::Error(status)) => {
            assert_eq!(status.code, i32::from(Code::Unimplemented), "{status:?}");
        }
        other => panic!("{other:?}"),
    }
    let seen = position(&client, &sku, &location).await.unwrap();
    assert_eq!(seen.reserved, 2);
}

#[tokio::test]
async fn a_sku_may_be_whatever_a_catalogue_has() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    for name in [
        "milk 1 l / 3.5 % #7+8@home=x",
        "\u{43c}\u{43e}\u{43b}\u{43e}\u{43a}\u{43e}",
        "\u{5d7}\u{5dc}\u{5d1} \u{627}\u{644}",
        "e\u{301}clair",
        "\u{725b}\u{4e73} \u{1f95b}",
    ] {
        let sku = format!("{name} {}", request_id().split_off(28));
        receive(&client, &sku, &location, 3).await;
        let reservation = held(client.reserve(reserve(&sku, &location, 2)).await.unwrap());
        assert_eq!(reservation.lines[0].sku, sku);
        let seen = position(&client, &sku, &location).await.unwrap();
        assert_eq!((seen.sku.as_str(), seen.available), (sku.as_str(), 1));
    }
    // Another spelling of what looks the same is another SKU.
    let seen = position(&client, "\u{e9}clair", &location).await.unwrap();
    assert!(!seen.known);
}

#[tokio::test]
async fn echoes_are_served_where_the_configuration_says_so() {
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let connection = Connection::open(&cluster.address(NODES[0])).await;
    for path in [
        "/stock.lab.v1.EchoService/Echo",
        "/stock.internal.v1.JoiningService/JoinNode",
    ] {
        let status = connection.call(path, &[], raw::frame(&[])).await;
        assert_eq!(status.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    let shared = Cluster::shared().await;
    let connection = Connection::open(&shared.address(NODES[0])).await;
    let path = "/stock.lab.v1.EchoService/Echo";
    assert!(connection.call(path, &[], raw::frame(&[])).await.is_ok());
    // What nodes say to each other is not for others, wherever it is asked for.
    let path = "/stock.internal.v1.JoiningService/JoinNode";
    let status = connection.call(path, &[], raw::frame(&[])).await;
    assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn every_index_of_a_read_is_waited_for_in_any_order_and_consistency() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let shards = cluster.shards();
    let (sku, location) = (sku_in(2, shards, "awaited"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let reservation = held(client.reserve(reserve(&sku, &location, 1)).await.unwrap());

    let life = &incarnation(&client).await;
    let far = (Code::Unavailable, "TOO_FAR_BEHIND".to_owned());
    let index = |shard: u32, index: u64| ShardIndex { shard, index };
    let lists = [
        vec![index(2, FAR)],
        vec![index(2, FAR), index(2, 1)],
        vec![index(2, 1), index(2, FAR)],
    ];
    let consistencies = [Consistency::Near, Consistency::Linearizable];
    let availability = NODES.iter().flat_map(|node| {
        let asked = lists
            .iter()
            .flat_map(|list| consistencies.map(|it| (list, it)));
        let (cluster, sku, location) = (&cluster, &sku, &location);
        asked.map(move |(list, consistency)| async move {
            let question = GetAvailabilityRequest {
                read: reading(consistency, list, life),
                ..at(sku, location, consistency)
            };
            let mut stub = AvailabilityServiceClient::new(cluster.channel(*node));
            let answer = stub.get_availability(question).await;
            let asked = format!("{list:?}, {consistency:?}, of node {node}");
            (
                asked,
                answer.map(|answer| format!("{:?}", answer.into_inner())),
            )
        })
    });
    let reservations = NODES.iter().flat_map(|node| {
        let (cluster, reservation) = (&cluster, &reservation);
        consistencies.map(|consistency| async move {
            let question = GetReservationRequest {
                reservation_id: reservation.reservation_id.clone(),
                read: reading(consistency, &[index(2, FAR)], life),
            };
            let mut stub = ReservationServiceClient::new(cluster.channel(*node));
            let answer = stub.get_reservation(question).await;
            let asked = format!("a reservation, {consistency:?}, of node {node}");
            (
                asked,
                answer.map(|answer| format!("{:?}", answer.into_inner())),
            )
        })
    });
    let all = async { tokio::join!(join_all(availability), join_all(reservations)) };
    let (availability, reservations) = finish("refusals", REFUSED_WITHIN, all).await;
    for (asked, answer) in availability.into_iter().chain(reservations) {
        let status = answer.expect_err(&format!("{asked} is answered"));
        assert_eq!(refusal(&status), far, "{asked}: {status}");
    }

    // What has been reached is no hindrance.
    let (_, seen) = position_seen(&client, &sku, &location).await.unwrap();
    let written = seen.index_of(2);
    for node in NODES {
        let question = GetAvailabilityRequest {
            read: reading(
                Consistency::Linearizable,
                &[index(2, written), index(2, 1)],
                life,
            ),
            ..at(&sku, &location, Consistency::Linearizable)
        };
        let mut stub = AvailabilityServiceClient::new(cluster.channel(node));
        let answer = stub.get_availability(question).await.unwrap().into_inner();
        assert!(answer.header.unwrap().index_of(2) >= written);
    }
}

#[tokio::test]
async fn an_index_of_an_unknown_shard_is_refused_and_one_that_is_not_asked_for_costs_nothing() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let shards = cluster.shards();
    let (sku, location) = (sku_in(2, shards, "beside"), fresh_location(&client).await);
    receive(&client, &sku, &location, 10).await;
    let (_, seen) = position_seen(&client, &sku, &location).await.unwrap();
    let written = ShardIndex {
        shard: 2,
        index: seen.index_of(2),
    };
    for node in NODES {
        for consistency in [Consistency::Near, Consistency::Linearizable] {
            let ask = async |shard: u32| {
                let beside = ShardIndex { shard, index: FAR };
                let question = GetAvailabilityRequest {
                    keys: vec![PositionKey::at(sku.clone(), location.clone())],
                    read: reading(consistency, &[written, beside], &seen.incarnation),
                };
                let mut stub = AvailabilityServiceClient::new(cluster.channel(node));
                let answer = finish("a read", AT_ONCE, stub.get_availability(question)).await;
                answer.map(tonic::Response::into_inner)
            };
            let asked = format!("{consistency:?} of node {node}");
            let status = ask(99).await.expect_err(&asked);
            let invalid = (Code::InvalidArgument, "FIELD_INVALID".to_owned());
            assert_eq!(refusal(&status), invalid, "{asked}: {status}");
            assert!(status.message().contains("at_least[1].shard"), "{status}");
            let answer = ask(3).await.unwrap_or_else(|e| panic!("{asked}: {e}"));
            assert_eq!(answer.items[0].on_hand, 10, "{asked}");
        }
    }
}
