//! An answer is sent only after a quorum has made the entry durable, as the kernel saw it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use stock_proto::stock::v1::reservation_service_client::ReservationServiceClient;
use tests::cluster::{Cluster, NODES, Options};
use tests::names::fresh;
use tests::stock::{fresh_location, held, receive, reserve};
use tests::wait::{finish, until};

/// A node that is being traced is slow, but not this slow.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// strace has stopped every thread of a process once and says so.
const ATTACHED_WITHIN: Duration = Duration::from_secs(20);

/// strace lets the process go and writes what it has.
const DETACHED_WITHIN: Duration = Duration::from_secs(20);

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
        match Trace::attach(cluster.process_id(node), path).await {
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
        let found = trace.detach().await;
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
            "sent at {sent_at_us} us, answered at {answered_at_us} us, meanwhile only {nodes:?} synced"
        );
    }
}

/// strace at one process.
struct Trace {
    strace: Child,
    path: PathBuf,
}

/// An fdatasync or fsync that succeeded, in microseconds since 1970.
#[derive(Debug, PartialEq)]
struct Sync {
    began_at_us: u64,
    ended_at_us: u64,
}

impl Trace {
    /// `Err` where there is no strace, or where it may not look at other processes.
    async fn attach(process_id: u32, path: PathBuf) -> Result<Self, String> {
        let strace = Command::new("strace")
            .args(["-f", "-ttt", "-T", "-e", "trace=fdatasync,fsync", "-o"])
            .arg(&path)
            .args(["-p", &process_id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut strace = strace.map_err(|e| format!("strace cannot be run: {e}"))?;
        let errors = strace.stderr.take().unwrap();
        let trace = Self { strace, path };
        let attached = tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(errors).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            // Whatever else it says is read, so that it never waits to say it.
            std::thread::spawn(move || lines.for_each(drop));
            first
        });
        let said = finish("strace attaching", ATTACHED_WITHIN, attached).await;
        let said = said.unwrap();
        if said.contains("Operation not permitted") {
            return Err(said);
        }
        assert!(said.contains("attached"), "strace: {said}");
        Ok(trace)
    }

    async fn detach(mut self) -> Vec<Sync> {
        let id = Pid::from_raw(self.strace.id() as i32).unwrap();
        kill_process(id, Signal::INT).unwrap();
        until("strace detaching", DETACHED_WITHIN, async || {
            let status = self.strace.try_wait().map_err(|e| e.to_string())?;
            status.map(drop).ok_or("it runs".to_owned())
        })
        .await;
        parse(&std::fs::read_to_string(&self.path).unwrap())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // A traced process goes on when its tracer ends. The error says that it has ended.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
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

/// `SECONDS.MICROSECONDS`, as strace writes times and durations.
fn microseconds(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    let is_micros = micros.len() == 6;
    let seconds: u64 = seconds.parse().ok()?;
    let micros: u64 = micros.parse().ok().filter(|_| is_micros)?;
    Some(seconds * 1_000_000 + micros)
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
