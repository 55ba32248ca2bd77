//! `docs/api.md` is true: it has every call, its requests are sent in their order to a cluster of
//! three nodes, and the answers are as it shows them. Where answers change on purpose,
//! `STOCKD_WRITE_ANSWERS=1 cargo test -p tests --test cluster documented` writes those that came.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::{Map, Value};
use stock_client::fake::Fake;
use stock_proto::stock::v1::ErrorReason;
use tests::cluster::{Cluster, NODES, Options};
use tests::names::request_id;
use tests::operator::Operator;
use tests::raw::{self, Connection};
use tonic::Status;
use tonic_types::StatusExt;

/// What differs from one run to the next.
const DIFFERS: [&str; 28] = [
    "active",
    "appliedIndex",
    "at",
    "audits",
    "clusterId",
    "clusterTime",
    "commitIndex",
    "createdAt",
    "endpoint",
    "expiresAt",
    "expiresIn",
    "freeBytes",
    "incarnation",
    "index",
    "lag",
    "lastIndex",
    "leaderNodeId",
    "leads",
    "neededByShards",
    "nextPageToken",
    "peers",
    "reservationId",
    "silentFor",
    "term",
    "time",
    "up",
    "writeP50Us",
    "writeP99Us",
];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md")
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(stock_proto::PUBLIC_DESCRIPTORS).expect("descriptors")
}

/// The page, cut where requests and answers stand.
enum Piece {
    /// Lines as they are.
    Text(String),
    /// What is sent to a call.
    Request(String, String),
    /// What came back: the kind of block and its text.
    Answer(String, String),
}

/// A page in pieces. Of two blocks with nothing but a blank line between them the second is the
/// answer to the first.
fn pieces(page: &str) -> Vec<Piece> {
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let (mut service, mut call) = (String::new(), String::new());
    let mut lines = page.lines();
    let mut after_request = false;
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("## ") {
            service = name.to_owned();
        }
        if let Some(name) = line.strip_prefix("### ") {
            call = format!("{service}.{name}");
        }
        let kind = line.strip_prefix("```").filter(|_| !call.is_empty());
        let Some(kind) = kind else {
            after_request &= line.is_empty();
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        pieces.push(Piece::Text(std::mem::take(&mut text)));
        after_request = match after_request {
            true => {
                pieces.push(Piece::Answer(kind.to_owned(), block.join("\n")));
                false
            }
            false => {
                pieces.push(Piece::Request(call.clone(), block.join("\n")));
                true
            }
        };
    }
    pieces.push(Piece::Text(text));
    pieces
}

/// Every call of the API, by its full name.
fn calls() -> Vec<MethodDescriptor> {
    let pool = pool();
    let services: Vec<_> = pool.services().collect();
    let calls = services.iter().flat_map(|service| service.methods());
    calls.collect()
}

/// The reasons that a part of the page names.
fn named(part: &str) -> BTreeSet<String> {
    let words = part.split('`').skip(1).step_by(2);
    let is_reason =
        |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    words.filter(is_reason).map(ToOwned::to_owned).collect()
}

/// Why a call may fail, as the page says it: for all calls, and for this one. `call` has no package
/// and no service.
pub(crate) fn reasons_of(call: &str) -> BTreeSet<String> {
    let page = std::fs::read_to_string(path()).unwrap();
    let (_, general) = page.split_once("## How calls fail").unwrap();
    let (general, _) = general.split_once("\n## ").unwrap();
    let (_, section) = page.split_once(&format!("\n### {call}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    named(general).union(&named(section)).cloned().collect()
}

#[test]
fn every_call_and_every_reason_has_its_place() {
    let page = std::fs::read_to_string(path()).unwrap();
    let shown: BTreeSet<String> = pieces(&page)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Request(call, _) => Some(call),
            Piece::Text(_) | Piece::Answer(..) => None,
        })
        .collect();
    let there: BTreeSet<String> = calls().iter().map(|it| it.full_name().to_owned()).collect();
    assert_eq!(shown, there);
    let (_, page) = page.split_once("## How calls fail").unwrap();
    let known: BTreeSet<String> = (1..1_000)
        .filter_map(|number| ErrorReason::try_from(number).ok())
        .map(|reason| reason.text().to_owned())
        .collect();
    let named = named(page);
    let never: Vec<_> = known.difference(&named).collect();
    let unknown: Vec<_> = named
        .difference(&known)
        .filter(|word| !word.starts_with("CONSISTENCY_") && !word.starts_with("STATE_"))
        .filter(|word| *word != "NOW")
        .collect();
    assert!(never.is_empty(), "not in the page: {never:?}");
    assert!(
        unknown.is_empty(),
        "in the page, and no reason: {unknown:?}"
    );
}

#[tokio::test]
async fn the_page_on_the_api_shows_what_happens() {
    let page = std::fs::read_to_string(path()).unwrap();
    let cluster = Cluster::start(Options::default()).await;
    cluster.wait_until_spread().await;
    // Who leads group 0 has heard from all, and decided.
    let operator = Operator::new(cluster.client().await);
    operator.wait_until_settled(&NODES).await;
    let node = Connection::open(&cluster.address(1)).await;
    let Shown { written, wrong } = show(&page, &node, |_| true, &DIFFERS).await;
    if std::env::var_os("STOCKD_WRITE_ANSWERS").is_some() {
        std::fs::write(path(), written).unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The client's fake, too, says what nodes say. Its one shard has other indexes than eight have.
#[tokio::test]
async fn a_fake_says_what_the_page_on_the_api_shows() {
    let page = std::fs::read_to_string(path()).unwrap();
    let fake = Connection::over(Fake::new().open(), u16::MAX.into()).await;
    let is_served = |call: &str| {
        call.starts_with("stock.v1.") && call != "stock.v1.TopologyService.GetTopology"
    };
    let differs: Vec<_> = DIFFERS.into_iter().chain(["header"]).collect();
    let Shown { wrong, .. } = show(&page, &fake, is_served, &differs).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What came of the page's requests.
struct Shown {
    /// The page with the answers that came.
    written: String,
    /// Where they are not those that it has.
    wrong: Vec<String>,
}

/// Sends the requests of some calls in the page's order.
async fn show(
    page: &str,
    node: &Connection,
    is_asked: impl Fn(&str) -> bool,
    differs: &[&str],
) -> Shown {
    let calls = calls();
    let (mut written, mut wrong) = (String::new(), Vec::new());
    let mut reservation = String::new();
    let mut answered: Option<(String, String, String)> = None;
    for piece in pieces(page) {
        match piece {
            Piece::Text(text) => {
                if text.trim().is_empty() {
                    continue;
                }
                if let Some((_, kind, came)) = answered.take() {
                    written.push_str(&format!("\n```{kind}\n{came}\n```\n"));
                }
                written.push_str(&text);
            }
            Piece::Request(name, _) if !is_asked(&name) => {}
            Piece::Request(name, request) => {
                let call = calls.iter().find(|it| it.full_name() == name);
                let call = call.unwrap_or_else(|| panic!("there is no call {name}"));
                let (kind, came) = match send(node, call, &request, &reservation).await {
                    Ok(answer) => {
                        if name.contains("Reserve") {
                            let id = find(&answer, "reservationId");
                            reservation = id.map_or(reservation, ToOwned::to_owned);
                        }
                        ("json", pretty(&answer, 0))
                    }
                    Err(status) => ("text", in_words(&status)),
                };
                written.push_str(&format!("```json\n{request}\n```\n"));
                answered = Some((name, kind.to_owned(), came));
            }
            Piece::Answer(kind, shown) => {
                let Some((name, of_kind, came)) = &answered else {
                    continue;
                };
                if kind != *of_kind || !is_alike(&shown, came, differs) {
                    wrong.push(format!(
                        "{name}: the page has\n{shown}\nand this came:\n{came}"
                    ));
                }
            }
        }
    }
    if let Some((_, kind, came)) = answered.take() {
        written.push_str(&format!("\n```{kind}\n{came}\n```\n"));
    }
    Shown { written, wrong }
}

/// Sends a request of the page. Its placeholders are filled in.
async fn send(
    node: &Connection,
    call: &MethodDescriptor,
    request: &str,
    reservation: &str,
) -> Result<Value, Status> {
    let now = prost_types::Timestamp::from(SystemTime::now()).to_string();
    let mut request = request
        .replace("RESERVATION-ID", reservation)
        .replace("NOW", &now);
    while request.contains("REQUEST-ID") {
        request = request.replacen("REQUEST-ID", &request_id(), 1);
    }
    let mut json = serde_json::Deserializer::from_str(&request);
    let message = DynamicMessage::deserialize(call.input(), &mut json)
        .unwrap_or_else(|error| panic!("{}: {error}: {request}", call.full_name()));
    let path = format!("/{}/{}", call.parent_service().full_name(), call.name());
    let body = raw::frame(&message.encode_to_vec());
    let answer = node.call(&path, &[], body).await?;
    Ok(serde_json::to_value(first(call, &answer)).unwrap())
}

/// The first message of an answer.
fn first(call: &MethodDescriptor, frames: &Bytes) -> DynamicMessage {
    let bytes = u32::from_be_bytes(frames[1..5].try_into().unwrap()) as usize;
    DynamicMessage::decode(call.output(), &frames[5..5 + bytes]).unwrap()
}

/// A status as the page shows it.
fn in_words(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| info.reason.as_str());
    format!("{:?}, {reason}\n{}", status.code(), status.message())
}

/// Whether an answer is as it is shown, but for what differs from run to run.
fn is_alike(shown: &str, came: &str, differs: &[&str]) -> bool {
    match (serde_json::from_str(shown), serde_json::from_str(came)) {
        (Ok(shown), Ok(came)) => lasting(&shown, differs) == lasting(&came, differs),
        _ => shown == came,
    }
}

/// A value without what differs.
fn lasting(value: &Value, differs: &[&str]) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(name, _)| !differs.contains(&name.as_str()));
            Value::Object(
                kept.map(|(name, it)| (name.clone(), lasting(it, differs)))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(|it| lasting(it, differs)).collect(),
        leaf => leaf.clone(),
    }
}

/// The first text of this name, however deep.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    match value {
        Value::Object(fields) => {
            let here = fields.get(name).and_then(Value::as_str);
            here.or_else(|| fields.values().find_map(|it| find(it, name)))
        }
        Value::Array(items) => items.iter().find_map(|it| find(it, name)),
        _ => None,
    }
}

/// JSON in lines of a page: what fits into one stays in one.
fn pretty(value: &Value, indent: usize) -> String {
    let short = in_line(value);
    if short.len() + indent <= 100 {
        return short;
    }
    let (outer, inner) = (" ".repeat(indent), " ".repeat(indent + 2));
    let block = |open: char, items: Vec<String>, close: char| {
        let items = items.join(&format!(",\n{inner}"));
        format!("{open}\n{inner}{items}\n{outer}{close}")
    };
    match value {
        Value::Object(fields) => {
            let field =
                |(name, it): (&String, &Value)| format!("{name:?}: {}", pretty(it, indent + 2));
            block('{', fields.iter().map(field).collect(), '}')
        }
        Value::Array(items) => {
            let items = items.iter().map(|it| pretty(it, indent + 2)).collect();
            block('[', items, ']')
        }
        _ => short,
    }
}

fn in_line(value: &Value) -> String {
    let fields = |fields: &Map<String, Value>| {
        let field = |(name, it): (&String, &Value)| format!("{name:?}: {}", in_line(it));
        fields.iter().map(field).collect::<Vec<_>>().join(", ")
    };
    match value {
        Value::Object(it) => format!("{{{}}}", fields(it)),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(in_line).collect();
            format!("[{}]", items.join(", "))
        }
        leaf => leaf.to_string(),
    }
}
