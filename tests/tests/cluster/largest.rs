//! The largest request that each call takes: what it costs the node that is asked, and everybody
//! else who asks it.
//!
//! A call that is not in the table fails the test, so that whoever adds one says what is the most
//! that can be asked of it. `cargo test -p tests --test cluster largest -- --nocapture` shows the
//! figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use prost_types::FileDescriptorSet;
use stock_client::Client;
use stock_proto::PUBLIC_DESCRIPTORS;
use stock_proto::stock::admin::v1 as admin;
use stock_proto::stock::lab::v1 as lab;
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use stock_proto::stock::v1::{self as api, Line, MovementLine, PartialLine, PositionKey, location};
use tests::cluster::{Cluster, Options};
use tests::names::request_id;
use tests::programs::resident_bytes;
use tests::raw::{self, Connection};
use tests::stock::{
    held, incarnation, is_held, line, movement, reading, receive, reserve, seconds,
};
use tests::wait::finish;
use tonic::{Code, Status};

/// What clients take unless they are told otherwise.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the node takes more while it answers, and keeps: some times the largest message, read,
/// checked, written to the log and applied. Most is given back; an allocator keeps some of it for
/// the next call.
const MORE_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// Somebody else's reserve, meanwhile, in a build that is not optimised and beside other tests.
const OTHERS_WITHIN: Duration = Duration::from_secs(5);

const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Positions of the longest names: SKUs in all places, and all that one answer may hold.
const SKUS: usize = 100;
const PLACES: usize = 200;

/// What comes of a call.
type Expected = Result<(), Code>;

/// A name of the largest length.
fn longest(kind: &str, number: usize) -> String {
    format!("{kind}-{number:0>width$}", width = 63 - kind.len())
}

fn sku(number: usize) -> String {
    longest("sku", number % SKUS)
}

fn place(number: usize) -> String {
    longest("place", number % PLACES)
}

/// A basket of the largest size.
fn basket() -> Vec<Line> {
    (0..SKUS)
        .map(|number| line(&sku(number), &place(0), 1))
        .collect()
}

fn part() -> Vec<PartialLine> {
    (0..SKUS)
        .map(|number| PartialLine {
            sku: sku(number),
            location: Some(place(0)),
            quantity: 1,
        })
        .collect()
}

/// A document of the largest size: every position once, as far as they go.
fn document_lines(from: usize) -> Vec<MovementLine> {
    (from..from + 10_000)
        .map(|number| MovementLine {
            line: longest("line", number),
            ..movement(&sku(number / PLACES), &place(number), 1_000)
        })
        .collect()
}

fn receipts(from: usize) -> api::RecordReceiptsRequest {
    api::RecordReceiptsRequest {
        document: longest("receipt", from),
        lines: document_lines(from),
        source: Some(longest("dock", 1)),
    }
}

fn put(number: usize) -> api::PutLocationRequest {
    api::PutLocationRequest {
        request_id: request_id(),
        location: Some(api::Location {
            location_id: place(number),
            r#type: location::Type::Store.into(),
            name: "n".repeat(128),
            coordinates: Some(api::Coordinates {
                latitude: -89.123_456,
                longitude: -179.123_456,
            }),
            gln: Some("4".repeat(13)),
        }),
    }
}

fn a_reserve() -> api::ReserveRequest {
    api::ReserveRequest {
        request_id: request_id(),
        lines: basket(),
        ttl: seconds(604_800),
        order_reference: Some(longest("order", 1)),
        channel: Some(longest("channel", 1)),
    }
}

/// Ids of holds to be used up by the calls that need one.
async fn hold(client: &Client) -> String {
    held(client.reserve(a_reserve()).await.unwrap()).reservation_id
}

async fn confirmed(client: &Client) -> String {
    let reservation_id = hold(client).await;
    let confirm = api::ConfirmRequest {
        request_id: request_id(),
        reservation_id: reservation_id.clone(),
        pickup_within: None,
    };
    client.confirm(confirm).await.unwrap();
    reservation_id
}

fn one(message: &impl Message) -> Bytes {
    raw::frame(&message.encode_to_vec())
}

/// The largest request of each call, and what comes of it.
async fn table(client: &Client) -> BTreeMap<&'static str, (Bytes, Expected)> {
    let refused = Err(Code::FailedPrecondition);
    let life = incarnation(client).await;
    let batch = api::BatchReserveRequest {
        requests: (0..210).map(|_| a_reserve()).collect(),
    };
    let stream = api::ReserveStreamRequest::of(&(0..290).map(|_| a_reserve()).collect::<Vec<_>>());
    let whole = |document: &str| (longest(document, 1), longest("till", 1), document_lines(0));
    let (document, source, lines) = whole("sale");
    let sale = api::RecordSaleRequest {
        document,
        lines,
        source: Some(source),
    };
    let (document, source, lines) = whole("adjust");
    let adjust = api::AdjustRequest {
        document,
        lines,
        source: Some(source),
        reason: "r".repeat(64),
    };
    let everywhere = |number| PositionKey::everywhere(sku(number));
    let availability = api::GetAvailabilityRequest {
        keys: (0..SKUS).map(everywhere).collect(),
        read: reading(
            api::Consistency::Linearizable,
            &[api::ShardIndex { shard: 0, index: 1 }; 1_000],
            &life,
        ),
    };
    let changed = |node_id| (request_id(), node_id);
    let address = |kind: &str| format!("http://{}:1", longest(kind, 1));
    let (request_id_of_add, node_id) = changed(0);
    let add = admin::AddNodeRequest {
        request_id: request_id_of_add,
        node_id: Some(node_id).filter(|node| *node != 0),
        endpoint: address("grpc"),
        peers: format!("{}:1", longest("peers", 1)),
    };
    let list = api::ListReservationsRequest {
        order_reference: Some("o".repeat(64)),
        channel: Some(longest("channel", 1)),
        sku: Some(sku(1)),
        location: Some(place(3)),
        states: vec![1, 2, 3, 4, 5],
        page_size: 5_000,
        read: reading(
            api::Consistency::Linearizable,
            &[api::ShardIndex { shard: 0, index: 1 }; 1_000],
            &life,
        ),
        ..Default::default()
    };
    let force = admin::ForceReleaseRequest {
        request_id: request_id(),
        reservation_id: hold(client).await,
        lines: part(),
        reason: "r".repeat(64),
    };
    let pages = |page_size| api::ListLocationsRequest {
        page_size,
        ..Default::default()
    };
    let of_node = |node_id| admin::DrainNodeRequest {
        request_id: request_id(),
        node_id,
    };
    let replication = admin::SetReplicationRequest {
        request_id: request_id(),
        replicas: 3,
    };
    let raise = admin::RaiseVersionRequest {
        request_id: request_id(),
        version: u32::MAX,
    };
    let undrain = admin::UndrainNodeRequest {
        request_id: request_id(),
        node_id: 3,
    };
    let replace = admin::ReplaceNodeRequest {
        request_id: request_id(),
        node_id: 77,
    };
    let remove = admin::RemoveNodeRequest {
        request_id: request_id(),
        node_id: 3,
    };
    let shard = admin::move_replica_request::Group::Shard(0);
    let move_replica = admin::MoveReplicaRequest {
        request_id: request_id(),
        group: Some(shard),
        from_node_id: 1,
        to_node_id: 2,
    };
    let transfer = admin::TransferLeadershipRequest {
        request_id: request_id(),
        group: Some(admin::transfer_leadership_request::Group::Shard(0)),
        to_node_id: None,
    };
    let rebuild = admin::RebuildReplicaRequest {
        request_id: request_id(),
        group: Some(admin::rebuild_replica_request::Group::Shard(0)),
        node_id: 77,
    };
    let policy = api::SetPositionPolicyRequest {
        request_id: request_id(),
        sku: sku(1),
        location: place(3),
        policy: Some(api::PositionPolicy {
            safety_stock: 1_000_000_000,
            backorder_limit: 0,
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["safety_stock".to_owned(); 1_000],
        }),
    };
    let confirm = api::ConfirmRequest {
        request_id: request_id(),
        reservation_id: hold(client).await,
        pickup_within: seconds(604_800),
    };
    let release = api::ReleaseRequest {
        request_id: request_id(),
        reservation_id: hold(client).await,
        lines: part(),
    };
    let fulfill = api::FulfillRequest {
        request_id: request_id(),
        reservation_id: confirmed(client).await,
        lines: part(),
    };
    let extend = api::ExtendRequest {
        request_id: request_id(),
        reservation_id: hold(client).await,
        ttl: seconds(604_800),
    };
    let amend = api::AmendRequest {
        request_id: request_id(),
        reservation_id: hold(client).await,
        lines: basket(),
        ttl: seconds(604_800),
    };
    let get = api::GetReservationRequest {
        reservation_id: hold(client).await,
        read: reading(
            api::Consistency::Linearizable,
            &[api::ShardIndex { shard: 0, index: 1 }],
            &life,
        ),
    };
    let echo = lab::EchoRequest {
        payload: vec![0; ANSWER_BYTES_MAX - 64].into(),
    };
    let echoes = lab::EchoStreamRequest {
        payloads: vec![vec![0; 1_000].into(); 4_000],
    };
    let removed_too = admin::ListNodesRequest {
        include_removed: true,
        page_size: 1_000,
        page_token: String::new(),
    };
    let nothing = || raw::frame(&[]);
    BTreeMap::from([
        (
            "stock.v1.ReservationService/Reserve",
            (one(&a_reserve()), Ok(())),
        ),
        (
            "stock.v1.ReservationService/BatchReserve",
            (one(&batch), Ok(())),
        ),
        (
            "stock.v1.ReservationService/ReserveStream",
            (one(&stream), Ok(())),
        ),
        (
            "stock.v1.ReservationService/Confirm",
            (one(&confirm), Ok(())),
        ),
        (
            "stock.v1.ReservationService/Release",
            (one(&release), Ok(())),
        ),
        (
            "stock.v1.ReservationService/Fulfill",
            (one(&fulfill), Ok(())),
        ),
        ("stock.v1.ReservationService/Extend", (one(&extend), Ok(()))),
        ("stock.v1.ReservationService/Amend", (one(&amend), Ok(()))),
        (
            "stock.v1.ReservationService/ListReservations",
            (one(&list), Ok(())),
        ),
        (
            "stock.admin.v1.ReservationAdminService/ForceRelease",
            (one(&force), Ok(())),
        ),
        (
            "stock.v1.ReservationService/GetReservation",
            (one(&get), Ok(())),
        ),
        (
            "stock.v1.AvailabilityService/GetAvailability",
            (one(&availability), Ok(())),
        ),
        (
            "stock.v1.InventoryService/RecordReceipts",
            (one(&receipts(20_000)), Ok(())),
        ),
        ("stock.v1.InventoryService/RecordSale", (one(&sale), Ok(()))),
        ("stock.v1.InventoryService/Adjust", (one(&adjust), Ok(()))),
        (
            "stock.v1.CatalogService/PutLocation",
            (one(&put(0)), Ok(())),
        ),
        (
            "stock.v1.CatalogService/ListLocations",
            (one(&pages(5_000)), Ok(())),
        ),
        (
            "stock.v1.CatalogService/SetPositionPolicy",
            (one(&policy), Ok(())),
        ),
        ("stock.v1.TopologyService/GetTopology", (nothing(), Ok(()))),
        ("stock.lab.v1.EchoService/Echo", (one(&echo), Ok(()))),
        (
            "stock.lab.v1.EchoService/EchoStream",
            (one(&echoes), Ok(())),
        ),
        (
            "stock.admin.v1.ClusterService/ListNodes",
            (one(&removed_too), Ok(())),
        ),
        ("stock.admin.v1.ClusterService/AddNode", (one(&add), Ok(()))),
        (
            "stock.admin.v1.ClusterService/DrainNode",
            (one(&of_node(77)), Err(Code::NotFound)),
        ),
        (
            "stock.admin.v1.ClusterService/UndrainNode",
            (one(&undrain), Ok(())),
        ),
        (
            "stock.admin.v1.ClusterService/SetReplication",
            (one(&replication), Ok(())),
        ),
        (
            "stock.admin.v1.ClusterService/RaiseVersion",
            (one(&raise), refused),
        ),
        (
            "stock.admin.v1.ClusterService/ReplaceNode",
            (one(&replace), Err(Code::NotFound)),
        ),
        (
            "stock.admin.v1.ClusterService/RemoveNode",
            (one(&remove), refused),
        ),
        (
            "stock.admin.v1.ClusterService/ListShards",
            (nothing(), Ok(())),
        ),
        (
            "stock.admin.v1.ClusterService/MoveReplica",
            (one(&move_replica), refused),
        ),
        (
            "stock.admin.v1.ClusterService/TransferLeadership",
            (one(&transfer), Ok(())),
        ),
        (
            "stock.admin.v1.ClusterService/RebuildReplica",
            (one(&rebuild), refused),
        ),
        (
            "stock.admin.v1.ClusterService/GetAudit",
            (nothing(), Ok(())),
        ),
    ])
}

/// All calls that there are: package, service and name.
fn calls() -> Vec<String> {
    let sets = [PUBLIC_DESCRIPTORS, stock_proto::OTHER_DESCRIPTORS];
    let sets = sets.map(|set| FileDescriptorSet::decode(set).unwrap());
    let mut calls = Vec::new();
    // Those between nodes come over connections of nodes.
    let files = sets.iter().flat_map(|set| &set.file);
    for file in files.filter(|file| file.package() != "stock.internal.v1") {
        for service in &file.service {
            let of_service = service.method.iter();
            let (package, name) = (file.package(), service.name());
            calls.extend(of_service.map(|it| format!("{package}.{name}/{}", it.name())));
        }
    }
    calls
}

/// Reserves one unit after the other until told to stop; how long the slowest took.
async fn reserve_on(
    mut stub: ReservationServiceClient<tonic::transport::Channel>,
    place: String,
    stop: Arc<AtomicBool>,
) -> Duration {
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let call = stub.reserve(reserve("beside", &place, 1));
        let answer = finish("somebody else's reserve", OTHERS_WITHIN, call).await;
        held(answer.unwrap().into_inner());
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

#[expect(clippy::print_stdout, reason = "figures for whoever asks for them")]
fn show(call: &str, sent: usize, more: u64, answer: usize, others: Duration) {
    println!(
        "{call:<40} {sent:>9} sent {more:>11} more {answer:>9} answered {others:>10.1?} others"
    );
}

#[tokio::test]
async fn the_largest_request_of_every_call_costs_no_more_than_it_may() {
    let cluster = Cluster::start(Options {
        shards: 1,
        serve_lab: true,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    for number in 0..PLACES {
        client.put_location(put(number)).await.unwrap();
    }
    for from in [0, 10_000] {
        let answer = client.record_receipts([receipts(from)]).await.unwrap();
        assert_eq!(answer.verdicts.len(), 10_000);
    }
    receive(&client, "beside", &place(1), 1_000_000_000).await;
    // A hundred who are named wherever somebody is endangered.
    let requests = (0..100).map(|_| reserve(&sku(1), &place(3), 1)).collect();
    let batch = client
        .batch_reserve(api::BatchReserveRequest { requests })
        .await;
    assert!(batch.unwrap().results.iter().all(is_held));

    let table = table(&client).await;
    let missing: Vec<_> = calls()
        .into_iter()
        .filter(|call| !table.contains_key(call.as_str()))
        .collect();
    assert!(missing.is_empty(), "say the largest request of {missing:?}");

    let leader = cluster.leader_of(0).await;
    let process = cluster.process_id(leader);
    for (call, (request, expected)) in table {
        let connection = Connection::open(&cluster.address(leader)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let stub = ReservationServiceClient::new(cluster.channel(leader));
        let others = tokio::spawn(reserve_on(stub, place(1), Arc::clone(&stop)));
        let (sent, before) = (request.len(), resident_bytes(process));
        let path = format!("/{call}");
        let answer = finish(call, ANSWERED_WITHIN, connection.call(&path, &[], request)).await;
        stop.store(true, Ordering::Relaxed);
        let others = others.await.unwrap();
        let more = resident_bytes(process).saturating_sub(before);
        let bytes = answer.as_ref().map_or(0, Bytes::len);
        show(call, sent, more, bytes, others);
        let told = answer.map(drop).map_err(|status: Status| {
            assert!(status.message().len() < 1_000, "{call}: {status}");
            status
        });
        let came_of_it = told.clone().map_err(|status| status.code());
        assert_eq!(came_of_it, expected, "{call}: {told:?}");
        let is_one_message = !call.ends_with("Stream");
        assert!(
            !is_one_message || bytes <= ANSWER_BYTES_MAX,
            "{call}: {bytes}"
        );
        assert!(more <= MORE_BYTES_MAX, "{call} took {} MiB", more >> 20);
    }
}
