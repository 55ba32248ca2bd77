//! Who asks the wrong port is told which one it is, as far as that can be seen from outside.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;
use tests::cluster::Cluster;
use tests::programs;

const FAILED: i32 = 1;

/// What `stockctl node list` says of these addresses: to people, and to programs.
fn said_of(endpoints: &str) -> (String, String) {
    let said = |output: &str| {
        let output = programs::run_stockctl()
            .args(["--timeout", "500ms", "-o", output, "--endpoint", endpoints])
            .args(["node", "list"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(FAILED), "{endpoints}");
        String::from_utf8(output.stderr).unwrap()
    };
    let json: Value = serde_json::from_str(&said("json")).unwrap();
    assert_eq!(json["error"]["reason"], "UNREACHABLE", "{json}");
    let message = json["error"]["message"].as_str().unwrap();
    (said("table"), message.to_owned())
}

fn check(endpoint: &str, words: &str, advice: &str) {
    let (people, programs) = said_of(endpoint);
    assert!(people.contains(&format!("{endpoint} {words}")), "{people}");
    assert!(people.contains(advice), "{people}");
    assert!(
        programs.contains(&format!("{endpoint} {words}")),
        "{programs}"
    );
}

const PORT: &str = "a node's port for clients (listen.grpc): 7401 unless";
const RUNNING: &str = "Is it running?";

#[tokio::test]
async fn a_nodes_other_ports_are_told_from_its_port_for_clients() {
    let cluster = Cluster::shared().await;
    let peers = format!("http://{}", cluster.peers_address(1));
    check(
        &peers,
        "answers, but not as a node's port for clients",
        PORT,
    );
    assert!(said_of(&peers).0.contains("for other nodes (listen.peers)"));
    let metrics = format!("http://{}", cluster.metrics_address(1));
    let words = "is a node's port for metrics (listen.metrics).";
    check(&metrics, words, PORT);
    // Each of several, in their order.
    let (people, _) = said_of(&format!("{metrics},{peers}"));
    assert!(people.find(&metrics) < people.find(&peers), "{people}");
    // One that is right is enough.
    let both = format!("{peers},{}", cluster.endpoint(1));
    let mut asked = programs::run_stockctl();
    asked.args(["--endpoint", &both, "node", "list"]);
    assert!(asked.output().unwrap().status.success());
}

/// Somebody who answers each connection like this; returns where.
fn stranger(answers: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the process.
    std::thread::spawn(move || listener.incoming().flatten().for_each(answers));
    endpoint
}

fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = vec![0; 1024];
    let count = stream.read(&mut heard).unwrap_or(0);
    heard.truncate(count);
    heard
}

#[test]
fn other_programs_are_told_from_nodes() {
    let closed = format!("http://127.0.0.1:{}", programs::free_ports(1)[0]);
    check(&closed, "is closed: nobody listens there.", RUNNING);

    check(&stranger(drop), "answers, but not as a node's", PORT);

    let web = stranger(|mut stream| {
        hear(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    check(&web, "answers as a web server does", PORT);

    let ssh = stranger(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n");
        hear(&mut stream);
    });
    check(&ssh, "answers, but not as a node of stockd does", PORT);

    let alert = [0x15, 3, 3, 0, 2, 2, 40];
    let tls = stranger(move |mut stream| {
        hear(&mut stream);
        let _ = stream.write_all(&alert);
    });
    check(&tls, "speaks TLS, and stockctl does not.", PORT);

    // As those do who tell nothing to who does not speak TLS.
    let strict = stranger(move |mut stream| {
        if hear(&mut stream).starts_with(&[0x16, 3]) {
            let _ = stream.write_all(&alert);
        }
    });
    check(&strict, "speaks TLS, and stockctl does not.", PORT);

    let (sender, held) = std::sync::mpsc::channel();
    let silent = stranger(move |stream| {
        let _ = sender.send(stream);
    });
    check(&silent, "takes connections and says nothing", RUNNING);
    drop(held);
}
