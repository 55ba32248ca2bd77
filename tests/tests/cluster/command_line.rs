//! The contract for people and scripts: the spellings, the fields and the exit codes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stock_cluster::Speaks;
use stock_proto::stock::v1::ResponseHeader;
use tests::cluster::{Cluster, Shared};
use tests::names::{fresh, request_id, sku_in};
use tests::programs;

const DONE: i32 = 0;
const FAILED: i32 = 1;
const INVALID: i32 = 2;
const SHORT: i32 = 3;

/// `stockctl` against one endpoint.
struct Ctl {
    endpoint: String,
}

impl Ctl {
    fn run(&self, command: &[&str]) -> (i32, String, String) {
        let output = programs::run_stockctl()
            .args(["--endpoint", &self.endpoint, "-o", "json"])
            .args(command)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        (code, text(output.stdout), text(output.stderr))
    }

    /// Runs a command, checks its exit code, and returns the JSON it printed.
    fn json(&self, expected: i32, command: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(command);
        assert_eq!(code, expected, "{command:?}: {stdout}{stderr}");
        let text = if stdout.is_empty() { stderr } else { stdout };
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{command:?}: {e}: {text}"))
    }

    /// Runs a command that must be done.
    fn done(&self, command: &[&str]) -> Value {
        self.json(DONE, command)
    }

    /// Counts of the only position of a SKU: on hand, reserved, available.
    fn counts(&self, sku: &str) -> [i64; 3] {
        let answer = self.done(&["availability", sku, "--linearizable"]);
        let items = answer["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{answer}");
        ["on_hand", "reserved", "available"].map(|field| items[0][field].as_i64().unwrap())
    }
}

async fn shop() -> (Shared, Ctl, String, String) {
    let cluster = Cluster::shared().await;
    let endpoint = cluster.endpoint(1);
    let ctl = Ctl { endpoint };
    let (sku, location) = (sku_in(2, cluster.shards(), "ctl"), fresh("shop"));
    let put = ctl.done(&[
        "location",
        "put",
        &location,
        "--type",
        "store",
        "--name",
        "Main Street",
        "--lat",
        "52.5",
        "--lon",
        "-13.25",
    ]);
    assert_eq!(put["location"]["location_id"], location.as_str());
    assert_eq!(put["location"]["type"], "TYPE_STORE");
    assert!(put["header"].is_string(), "{put}");
    (cluster, ctl, sku, location)
}

#[tokio::test]
async fn a_reservation_from_receipt_to_fulfilment() {
    let (_cluster, ctl, sku, location) = shop().await;
    let units = |quantity: &str| format!("{sku}@{location}={quantity}");

    let received = ctl.done(&["receive", &units("10")]);
    assert_eq!(received["verdicts"][0]["verdict"], "VERDICT_RECORDED");
    assert_eq!(ctl.counts(&sku), [10, 0, 10]);

    let id = request_id();
    let reserve = ["reserve", &units("4"), "--ttl", "15m", "--request-id", &id];
    let reservation = ctl.done(&reserve);
    assert_eq!(reservation["state"], "STATE_HELD");
    let header = ResponseHeader::from_text(reservation["header"].as_str().unwrap()).unwrap();
    assert!(header.index_of(2) > 0, "{header:?}");
    assert!(reservation["expires_at"].is_string());
    assert_eq!(reservation["lines"][0]["open"], 4);
    let id = reservation["reservation_id"].as_str().unwrap();
    assert_eq!(ctl.done(&reserve)["reservation_id"], id, "a repeat");
    assert_eq!(ctl.counts(&sku), [10, 4, 6]);

    let before = reservation["expires_at"].as_str().unwrap();
    let extended = ctl.done(&["extend", id, "--ttl", "1h"]);
    assert!(extended["expires_at"].as_str().unwrap() > before);
    assert_eq!(ctl.done(&["confirm", id])["state"], "STATE_CONFIRMED");
    let released = ctl.done(&["release", id, &format!("{sku}=1")]);
    assert_eq!(released["lines"][0]["released"], 1);
    let fulfilled = ctl.done(&["fulfill", id, &format!("{sku}=2")]);
    assert_eq!(fulfilled["state"], "STATE_CONFIRMED");
    assert_eq!(ctl.done(&["fulfill", id])["state"], "STATE_FULFILLED");
    assert_eq!(ctl.done(&["get", id])["state"], "STATE_FULFILLED");
    assert_eq!(ctl.counts(&sku), [7, 0, 7]);

    ctl.done(&["sale", &units("1")]);
    ctl.done(&["adjust", &units("+3"), "--reason", "found in the back"]);
    ctl.done(&["adjust", &units("-2"), "--reason", "breakage"]);
    assert_eq!(ctl.counts(&sku), [7, 0, 7]);
}

#[tokio::test]
async fn exit_codes_tell_a_shortage_from_a_mistake() {
    let (_cluster, ctl, sku, location) = shop().await;
    let units = |quantity: &str| format!("{sku}@{location}={quantity}");
    ctl.done(&["receive", &units("2")]);

    let short = ctl.json(SHORT, &["reserve", &units("3")]);
    let line = &short["shortage"]["lines"][0];
    assert_eq!(
        (&line["requested"], &line["available"]),
        (&3.into(), &2.into())
    );

    let unknown = "01997a3c-5f10-8002-9a54-2f0c9d6c1b11";
    let nowhere = format!("{sku}@nowhere=1");
    for (code, command, reason) in [
        (INVALID, &["reserve", &units("0")][..], "FIELD_INVALID"),
        (INVALID, &["receive", &units("-1")], "FIELD_INVALID"),
        (INVALID, &["reserve", "no-location=1"], "USAGE"),
        (INVALID, &["reserve"], "USAGE"),
        (INVALID, &["steal"], "USAGE"),
        (INVALID, &["confirm", "not-an-id"], "FIELD_INVALID"),
        (FAILED, &["confirm", unknown], "UNKNOWN_RESERVATION"),
        (FAILED, &["reserve", &nowhere], "UNKNOWN_LOCATION"),
    ] {
        let (found, stdout, stderr) = ctl.run(command);
        assert_eq!(found, code, "{command:?}: {stdout}{stderr}");
        let said = format!("{stdout}{stderr}");
        assert!(said.contains(reason), "{command:?}: {said}");
    }
    let nobody = Ctl {
        endpoint: format!("http://127.0.0.1:{}", programs::free_ports(1)[0]),
    };
    let silent = nobody.json(FAILED, &["cluster", "status"]);
    assert_eq!(silent["error"]["reason"], "UNREACHABLE");
    assert_eq!(ctl.counts(&sku), [2, 0, 2]);
}

#[tokio::test]
async fn a_delivery_note_is_received_from_a_file_and_faults_name_its_lines() {
    let (_cluster, ctl, sku, location) = shop().await;
    let dir = programs::data_dir();
    let path = dir.path().join("note.txt");
    let note = path.to_str().unwrap();
    let document = fresh("note");
    let at = "2026-11-30T09:15:00Z";
    let receive = [
        "receive",
        "--file",
        note,
        "--document",
        &document,
        "--occurred-at",
        at,
    ];

    // More than go into one message.
    let lines: String = (0..1_500)
        .map(|_| format!("{sku}@{location}=2\n"))
        .collect();
    std::fs::write(&path, format!("# by lorry\n\n{lines}")).unwrap();
    let received = ctl.done(&receive);
    assert_eq!(received["verdicts"].as_array().unwrap().len(), 1_500);
    assert_eq!(ctl.counts(&sku), [3_000, 0, 3_000]);
    let again = ctl.done(&receive);
    assert_eq!(again["verdicts"][0]["verdict"], "VERDICT_ALREADY_RECORDED");
    assert_eq!(ctl.counts(&sku), [3_000, 0, 3_000]);

    std::fs::write(&path, format!("{sku}@{location}=1\n{sku}=1\n")).unwrap();
    let wrong = ctl.json(INVALID, &receive).to_string();
    assert!(wrong.contains("note.txt, line 2: "), "{wrong}");
    assert_eq!(ctl.counts(&sku), [3_000, 0, 3_000], "it is refused whole");

    // What is piped in.
    let mut piped = programs::run_stockctl()
        .args(["--endpoint", &ctl.endpoint, "receive", "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = piped.stdin.take().unwrap();
    writeln!(stdin, "{sku}@{location}=5").unwrap();
    drop(stdin);
    assert!(piped.wait().unwrap().success());
    assert_eq!(ctl.counts(&sku), [3_005, 0, 3_005]);
}

#[test]
fn shells_complete_commands_and_manuals_are_written() {
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef"),
        ("fish", "complete -c"),
    ] {
        let output = programs::run_stockctl()
            .args(["completion", shell])
            .output();
        let script = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(script.contains(part), "{shell}");
        for word in ["transfer", "context", "cluster"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let dir = programs::data_dir();
    let written = programs::run_stockctl()
        .arg("manual")
        .arg(dir.path())
        .output();
    assert!(written.unwrap().status.success());
    for page in [
        "stockctl.1",
        "stockctl-reserve.1",
        "stockctl-node-drain.1",
        "stockctl-context-set.1",
    ] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
}

#[tokio::test]
async fn cluster_status_names_nodes_and_leaders() {
    let (cluster, ctl, ..) = shop().await;
    let status = ctl.done(&["cluster", "status"]);
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    let shards = status["shards"].as_array().unwrap();
    assert_eq!(shards.len() as u32, cluster.shards());
    assert!(
        shards.iter().all(|s| s["leader_node_id"].is_u64()),
        "{status}"
    );
}

#[tokio::test]
async fn the_version_is_shown_and_not_raised_beyond_what_every_node_speaks() {
    let (_cluster, ctl, ..) = shop().await;
    let Speaks { newest, .. } = Speaks::THIS;
    let versions = |ctl: &Ctl| {
        let shown = ctl.done(&["cluster", "version"]);
        let nodes = shown["nodes"].as_array().unwrap();
        let each: Vec<_> = nodes
            .iter()
            .map(|it| it["newest_version"].as_u64())
            .collect();
        (shown["version"].as_u64(), each)
    };
    let newest = Some(u64::from(newest));
    let before = versions(&ctl);
    assert_eq!(before, (newest, vec![newest; 3]));
    let refused = ctl.json(FAILED, &["cluster", "version", "raise"]);
    assert_eq!(refused["error"]["reason"], "NODE_TOO_OLD", "{refused}");
    assert_eq!(versions(&ctl), before);
}

#[tokio::test]
async fn a_configuration_is_checked_before_it_is_used() {
    let cluster = Cluster::shared().await;
    let check = |path: &Path, more: &[&str]| {
        let output = programs::run_stockd()
            .args(["config", "--check", "--config"])
            .arg(path)
            .args(more)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), output.stdout, stderr)
    };
    let good = cluster.config_path(1);
    assert_eq!(check(&good, &[]), (Some(0), Vec::new(), String::new()));
    let (code, _, said) = check(&good, &["--shards", "0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("shards is 0"), "{said}");

    let dir = programs::data_dir();
    let bad = dir.path().join("bad.toml");
    let text = std::fs::read_to_string(&good).unwrap();
    std::fs::write(&bad, text.replace("node_id", "nodeid")).unwrap();
    let (code, _, said) = check(&bad, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("nodeid"), "{said}");
}

/// What a program says on its standard error, and its exit code, with these variables in its
/// environment.
fn said(mut command: Command, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let command = command.envs(variables.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[tokio::test]
async fn a_misspelt_variable_is_refused_and_an_empty_one_is_not_set() {
    let cluster = Cluster::shared().await;
    let check = |variables: &[(&str, &str)]| {
        let mut command = programs::run_stockd();
        let path = cluster.config_path(1);
        command.args(["config", "--check", "--config"]).arg(path);
        said(command, variables)
    };
    let good = (Some(0), String::new());
    for set in [
        // Another program's, or Kubernetes' for a service called stockd.
        ("STOCKD_ENDPOINT", "http://127.0.0.1:1"),
        ("STOCKD_PORT_7401_TCP", "tcp://10.0.0.1:7401"),
        ("STOCKD_SHARDS", "16"),
        // Founders have no `join`, and each key its own type.
        ("STOCKD_JOIN", ""),
        ("STOCKD_SHARDS", ""),
        ("STOCKD_DATA_DIR", ""),
        ("STOCKD_SHARD", ""),
    ] {
        assert_eq!(check(&[set]), good, "{set:?}");
    }
    let (code, words) = check(&[("STOCKD_SHARD", "16")]);
    assert_eq!(code, Some(1), "{words}");
    let names = ["STOCKD_SHARD ", "the nearest is STOCKD_SHARDS"];
    assert!(names.iter().all(|name| words.contains(name)), "{words}");

    // Who only looks at a directory is told as well: what is set is meant for something.
    let mut inspect = programs::run_stockd();
    inspect.args(["inspect", "--data-dir", "nowhere"]);
    let (code, words) = said(inspect, &[("STOCKD_KILLS", "200")]);
    assert_eq!(code, Some(1));
    assert!(words.contains("STOCKD_KILLS"), "{words}");
}

#[tokio::test]
async fn stockctl_takes_no_misspelt_variable_for_none() {
    let cluster = Cluster::shared().await;
    let status = |variables: &[(&str, &str)]| {
        let mut command = programs::run_stockctl();
        command.args(["--timeout", "5s", "cluster", "status"]);
        said(command, variables)
    };
    let endpoint = cluster.endpoint(1);
    let here = ("STOCKD_ENDPOINT", endpoint.as_str());
    assert_eq!(status(&[here]).0, Some(DONE));
    // As in a container in which a node runs, too.
    assert_eq!(status(&[here, ("STOCKD_NODE_ID", "1")]).0, Some(DONE));
    let (code, words) = status(&[("STOCKD_ENDPOINTS", &endpoint)]);
    assert_eq!(code, Some(INVALID), "{words}");
    assert!(words.contains("the nearest is STOCKD_ENDPOINT"), "{words}");
    // It then asks where it asks if nothing is said.
    let (_, words) = status(&[("STOCKD_ENDPOINT", "")]);
    assert!(!words.contains("Give it as"), "{words}");
}

/// From its start until `stockd dev` prints that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// From the signal until `stockd dev` and its nodes have ended.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A `stockd dev` that runs.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(data_dir: &Path, base_port: u16) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(data_dir.join("dev.stderr"));
        let mut child = programs::run_stockd()
            .args(["dev", "--no-sample", "--shards", "2", "--base-port"])
            .arg(base_port.to_string())
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Read on when nobody listens any more, so that dev can go on printing.
                let _ = sender.send(line);
            }
        });
        let dev = Self { child, lines };
        dev.wait_until_ready(data_dir);
        dev
    }

    fn wait_until_ready(&self, data_dir: &Path) {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with("ready") => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("not ready within {READY_WITHIN:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    let said = std::fs::read_to_string(data_dir.join("dev.stderr"));
                    panic!("dev ended: {}", said.unwrap_or_default());
                }
            }
        }
    }

    fn stop(mut self) -> ExitStatus {
        let id = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(id, Signal::INT).unwrap();
        let until = Instant::now() + STOPPED_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "not stopped in {STOPPED_WITHIN:?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The error says that it has ended. Its nodes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that `stockd dev` listens on, from its base port.
const DEV_PORTS: [u16; 9] = [1, 2, 3, 11, 12, 13, 21, 22, 23];

#[test]
fn dev_reaches_ready_and_the_same_data_directory_brings_everything_back() {
    let dir = programs::data_dir();
    let base_port = programs::free_range(&DEV_PORTS);
    let ctl = Ctl {
        endpoint: format!("http://127.0.0.1:{}", base_port + 2),
    };

    let dev = Dev::start(dir.path(), base_port);
    ctl.done(&["location", "put", "WH-1", "--type", "warehouse"]);
    ctl.done(&["receive", "MUG@WH-1=10"]);
    let held = ctl.done(&["reserve", "MUG@WH-1=3"]);
    let id = held["reservation_id"].as_str().unwrap();
    assert!(dev.stop().success());
    ctl.json(FAILED, &["--timeout", "1s", "get", id]);

    let dev = Dev::start(dir.path(), base_port);
    let found = ctl.done(&["get", id]);
    assert_eq!(found["state"], "STATE_HELD");
    assert_eq!(found["expires_at"], held["expires_at"]);
    assert_eq!(ctl.counts("MUG"), [10, 3, 7]);
    let locations = ctl.done(&["location", "list"]);
    assert_eq!(locations["locations"][0]["location_id"], "WH-1");
    let status = ctl.done(&["cluster", "status"]);
    assert_eq!(status["shards"].as_array().unwrap().len(), 2);
    assert!(dev.stop().success());
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_told_all_the_same() {
    let (_cluster, ctl, sku, location) = shop().await;
    let line = format!("{sku}@{location}=1");
    ctl.done(&["receive", &line, "--document", &fresh("D")]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = programs::run_stockctl()
        .args(["--endpoint", &ctl.endpoint, "-o", "json", "reserve", &line])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(FAILED));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("reservation_id"), "{told}");
}

#[test]
fn whoever_interrupts_a_command_that_has_sent_nothing_is_told_no_id() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{},", silent.local_addr().unwrap());
    let id = request_id();
    let child = programs::run_stockctl()
        .args(["--endpoint", &endpoint, "--timeout", "60s"])
        .args(["reserve", "milk@store=1", "--request-id", &id])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It has come to where it waits for a node.
    let (_waiting, _) = silent.accept().unwrap();
    let process = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(process, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.trim(), "interrupted", "it waited for a node");
    assert_eq!(output.status.code(), Some(FAILED));
}
