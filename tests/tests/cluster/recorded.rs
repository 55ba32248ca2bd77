//! Directories that earlier versions wrote are read by this one: every kind of command in the log,
//! states, history.
//!
//! `recorded/DATE.tar.gz` is the data directory of a node that was alone and stopped in order;
//! `recorded/DATE.json` is what `stockd inspect --verify -o json` of its own version said of it,
//! with `DIR` for the directory. What happened there: ten receipts, six holds of MUG at ST-7 (two
//! confirmed, one released, one confirmed and fulfilled in part, one extended, one amended), a
//! policy, a sale that endangers two of them, an adjustment, and sixty receipts more.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use stock_client::Client;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{
    GetAvailabilityRequest, GetReservationRequest, PositionKey, ReadOptions,
};
use tests::programs::{data_dir, run_stockd, workspace_dir};
use tests::wait::until;

const RECORDED: &str = "2026-12-01";

/// Its nodes: this one.
const CONFIGURATION: &str = r#"
cluster_id = "recorded"
node_id = 1
shards = 2

[[nodes]]
id = 1
grpc = "http://127.0.0.1:17401"
peers = "127.0.0.1:17421"
"#;

/// On hand, as all that happened leaves it: holds that have ended since change nothing of it.
const ON_HAND: [(&str, &str, i64); 10] = [
    ("MUG", "ST-7", 9),
    ("MUG", "WH-1", 20),
    ("PEN", "ST-7", 50),
    ("PEN", "WH-1", 16),
    ("INK", "ST-7", 50),
    ("INK", "WH-1", 20),
    ("CUP", "ST-7", 50),
    ("CUP", "WH-1", 80),
    ("LID", "ST-7", 50),
    ("LID", "WH-1", 80),
];

/// Those that never end by themselves: confirmed, and how much of each is open.
const CONFIRMED: [(&str, i64); 2] = [
    ("01a23009-fafd-8001-9446-e92e2974e037", 1),
    ("01a23009-fe46-8001-aad9-63a505e2e13c", 3),
];

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn recorded(name: &str) -> String {
    let dir = workspace_dir().join("tests/tests/cluster/recorded");
    dir.join(name).display().to_string()
}

fn inspected(dir: &Path) -> Value {
    let output = run_stockd()
        .args(["inspect", "--verify", "-o", "json", "--data-dir"])
        .arg(dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(&dir.display().to_string(), "DIR");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_directory_of_an_earlier_version_is_read() {
    let scratch = data_dir();
    let unpacked = Command::new("tar")
        .args(["-xzf", &recorded(&format!("{RECORDED}.tar.gz")), "-C"])
        .arg(scratch.path())
        .status();
    assert!(unpacked.unwrap().success());
    let dir = scratch.path().join("data");

    // Each state has the hash that it had, and history no hole.
    let before = std::fs::read_to_string(recorded(&format!("{RECORDED}.json"))).unwrap();
    let before: Value = serde_json::from_str(&before).unwrap();
    assert_eq!(inspected(&dir), before);

    // And its node goes on, wherever it is reached now.
    let file = scratch.path().join("node.toml");
    std::fs::write(&file, CONFIGURATION).unwrap();
    let [grpc, peers, metrics] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    let node = run_stockd()
        .args(["serve", "--config", &file.display().to_string()])
        .args(["--data-dir", &dir.display().to_string()])
        .args(["--listen-grpc", &grpc, "--listen-peers", &peers])
        .args(["--listen-metrics", &metrics])
        .stderr(Stdio::null())
        .spawn();
    let _node = Node(node.unwrap());
    let endpoint = format!("http://{grpc}");
    let connect = async || {
        let client = Client::builder().endpoint(&endpoint).connect().await;
        client.map_err(|error| error.to_string())
    };
    let client = until("the node", Duration::from_secs(30), connect).await;
    let asked = GetAvailabilityRequest {
        keys: ON_HAND
            .map(|(sku, location, _)| PositionKey::at(sku, location))
            .into(),
        read: Some(ReadOptions::linearizable()),
    };
    let known = client.get_availability(asked).await.unwrap();
    let on_hand: Vec<i64> = known.items.iter().map(|item| item.on_hand).collect();
    assert_eq!(on_hand, ON_HAND.map(|(.., on_hand)| on_hand));
    for (id, open) in CONFIRMED {
        let asked = GetReservationRequest {
            reservation_id: id.to_owned(),
            read: Some(ReadOptions::linearizable()),
        };
        let found = client.get_reservation(asked).await.unwrap();
        let found = found.reservation.unwrap();
        assert_eq!(
            (found.state(), found.lines[0].open),
            (State::Confirmed, open)
        );
    }
    assert_eq!(client.list_locations().await.unwrap().locations.len(), 2);
}
