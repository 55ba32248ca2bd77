//! An answer is sent only after a quorum has made the entry durable, as the kernel saw it.

use std::time::{Duration, SystemTime};

use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use tests::cluster::{Cluster, NODES, Options};
use tests::names::fresh;
use tests::stock::{fresh_location, held, receive, reserve};
use tests::wait::finish;

use crate::strace::{Trace, microseconds};

/// A node that is being traced is slow, but not this slow.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Reserves, one after the other: each must be durable on its own.
const RESERVES: usize = 5;

#[tokio::test]
async fn a_reserve_is_answered_only_after_a_quorum_has_synced_it() {
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("synced"), fresh_location(&client).await);
    receive(&client, &sku, &location, 100).await;
    let leader = cluster.leader_of(0).await;
    // Straight to the leader, over a connection that stands.
    let mut stub = ReservationServiceClient::new(cluster.channel(leader));
    stub.reserve(reserve(&sku, &location, 1)).await.unwrap();

    let mut traces = Vec::new();
    for node in NODES {
        let path = cluster.dir().join(format!("node-{node}.strace"));
        match Trace::attach(cluster.process_id(node), "fdatasync,fsync", path).await {
            Ok(trace) => traces.push((node, trace)),
            Err(why) => {
                eprintln!("SKIPPED: whether a quorum syncs before an answer was not tested: {why}");
                return;
            }
        }
    }
    let mut calls = Vec::new();
    for _ in 0..RESERVES {
        let request = reserve(&sku, &location, 1);
        let sent_at_us = now_us();
        let answer = finish("a reserve", ANSWER_WITHIN, stub.reserve(request)).await;
        calls.push((sent_at_us, now_us()));
        held(answer.unwrap().into_inner());
    }
    let mut syncs = Vec::new();
    for (node, trace) in traces {
        let found = parse(&trace.detach().await);
        assert!(!found.is_empty(), "node {node} never synced");
        syncs.push((node, found));
    }

    for (sent_at_us, answered_at_us) in calls {
        let synced_in_between = syncs.iter().filter(|(_, syncs)| {
            let mut syncs = syncs.iter();
            syncs.any(|sync| sent_at_us <= sync.began_at_us && sync.ended_at_us <= answered_at_us)
        });
        let nodes: Vec<u64> = synced_in_between.map(|(node, _)| *node).collect();
        assert!(
            nodes.len() >= 2,
            "sent at {sent_at_us} us, answered at {answered_at_us} us, meanwhile only {nodes:?} \
             synced"
        );
    }
}

/// An fdatasync or fsync that succeeded, in microseconds since 1970.
#[derive(Debug, PartialEq)]
struct Sync {
    began_at_us: u64,
    ended_at_us: u64,
}

/// Lines of `strace -f -ttt -T`: thread, time, call, result, duration. A call that another thread's
/// interrupts is written as two lines.
fn parse(trace: &str) -> Vec<Sync> {
    let mut began: Vec<(&str, u64)> = Vec::new();
    let mut syncs = Vec::new();
    for line in trace.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(at_us)) = (words.next(), words.next().and_then(microseconds))
        else {
            continue;
        };
        if !line.contains("fdatasync") && !line.contains("fsync") {
            continue;
        }
        if line.contains("<unfinished") {
            began.push((thread, at_us));
            continue;
        }
        let began_at_us = match began.iter().position(|(other, _)| *other == thread) {
            Some(found) if line.contains("resumed") => began.swap_remove(found).1,
            _ => at_us,
        };
        let took = line
            .rsplit_once(" = 0 <")
            .and_then(|(_, took)| took.strip_suffix('>'));
        if let Some(took_us) = took.and_then(microseconds) {
            let ended_at_us = began_at_us + took_us;
            syncs.push(Sync {
                began_at_us,
                ended_at_us,
            });
        }
    }
    syncs
}

#[test]
fn traces_are_read_as_strace_writes_them() {
    let trace = "\
7 1700000000.100000 fdatasync(9)         = 0 <0.250000>
7 1700000001.000000 fdatasync(9 <unfinished ...>
8 1700000001.100000 fsync(3) = -1 EIO (Input/output error) <0.000100>
7 1700000001.500000 <... fdatasync resumed>) = 0 <0.500000>
8 1700000002.000000 +++ exited with 0 +++
";
    let sync = |began_at_us, ended_at_us| Sync {
        began_at_us,
        ended_at_us,
    };
    assert_eq!(
        parse(trace),
        [
            sync(1_700_000_000_100_000, 1_700_000_000_350_000),
            sync(1_700_000_001_000_000, 1_700_000_001_500_000)
        ]
    );
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_micros() as u64
}
