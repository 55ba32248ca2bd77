//! How a node with an empty directory becomes a member.
//!
//! The founders are a fixed list. A node founds only when every other one on the list has said that it
//! is empty, too, or has founded with just this directory: so nobody forms a second cluster, and nobody
//! who lost a disk votes as if he had not. Where one cannot be reached, the node waits and says so.

use std::collections::BTreeMap;
use std::time::Duration;

use stock_proto::cluster::v1 as cluster;
use stock_storage::LogError;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::disk::Disk;
use crate::node_record::NodeRecord;
use crate::peers::{Founder, Identity, PeerError, wire};

/// Between two rounds of asking everybody.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A node is given this long to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How often it is said again why the node waits.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What a node is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Found the cluster, with these.
    Found(Vec<Founder>),
    /// The cluster was founded without this directory: join it.
    Join,
    /// Ask again: these have not answered, each with the reason.
    Wait(Vec<String>),
}

/// Asks the others on the list until it is clear what to do; founds, if that is it. Meanwhile others
/// who ask are answered.
pub async fn decide(
    config: &Config,
    disk: &Disk,
    record: &mut NodeRecord,
    listener: &TcpListener,
) -> Result<Verdict, LogError> {
    let identity = record.identity();
    let answering = answer(listener, &identity);
    tokio::pin!(answering);
    let asking = ask_until_clear(config, &identity);
    tokio::pin!(asking);
    let verdict = tokio::select! {
        () = &mut answering => unreachable!("answering never ends"),
        verdict = &mut asking => verdict,
    };
    if let Verdict::Found(founders) = &verdict {
        record.found(founders);
        record.write(disk)?;
        tracing::info!(
            node = config.node_id,
            founders = founders.len(),
            "founding the cluster"
        );
    }
    Ok(verdict)
}

async fn ask_until_clear(config: &Config, identity: &Identity) -> Verdict {
    let mut said: Option<(Vec<String>, Instant)> = None;
    loop {
        let mut heard = BTreeMap::new();
        for node in config.nodes.iter().filter(|node| node.id != identity.node) {
            let asked = timeout(ANSWER_WITHIN, ask(&node.peers, identity)).await;
            let answer = asked.unwrap_or(Err(PeerError::Silent));
            heard.insert(node.id, answer.map_err(|error| error.to_string()));
        }
        match judge(identity, &heard) {
            Verdict::Wait(missing) => {
                let is_news = said
                    .as_ref()
                    .is_none_or(|(before, at)| *before != missing || at.elapsed() > SAY_EVERY);
                if is_news {
                    tracing::info!(
                        ?missing,
                        "a new cluster is founded once all its nodes have been heard of; waiting"
                    );
                    said = Some((missing, Instant::now()));
                }
            }
            clear => return clear,
        }
        sleep(ASK_EVERY).await;
    }
}

/// What follows from what the others say, each by id.
fn judge(own: &Identity, heard: &BTreeMap<u64, Result<cluster::Hello, String>>) -> Verdict {
    let me = Founder {
        node: own.node,
        directory: own.directory,
    };
    let answers = heard.values().filter_map(|answer| answer.as_ref().ok());
    // Who founded knows whether this very directory was one of theirs; who joined later does not.
    let founded = answers.clone().find(|hello| !hello.founders.is_empty());
    if let Some(hello) = founded {
        let founders: Vec<Founder> = hello.founders.iter().filter_map(founder).collect();
        return match founders.contains(&me) {
            true => Verdict::Found(founders),
            false => Verdict::Join,
        };
    }
    if answers.clone().any(|hello| hello.has_joined) {
        return Verdict::Join;
    }
    let missing: Vec<String> = heard
        .iter()
        .filter_map(|(node, answer)| Some(format!("node {node}: {}", answer.as_ref().err()?)))
        .collect();
    if !missing.is_empty() {
        return Verdict::Wait(missing);
    }
    let mut founders: Vec<Founder> = answers
        .filter_map(|hello| {
            Some(Founder {
                node: hello.node_id,
                directory: directory(&hello.directory)?,
            })
        })
        .chain([me])
        .collect();
    founders.sort_unstable();
    Verdict::Found(founders)
}

fn founder(founder: &cluster::Founder) -> Option<Founder> {
    Some(Founder {
        node: founder.node_id,
        directory: directory(&founder.directory)?,
    })
}

fn directory(bytes: &[u8]) -> Option<u128> {
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}

async fn ask(address: &str, identity: &Identity) -> Result<cluster::Hello, PeerError> {
    let mut stream = TcpStream::connect(address).await?;
    let own = identity.hello(cluster::Purpose::Acquaintance);
    wire::write_hello(&mut stream, &own).await?;
    let hello = wire::read_hello(&mut stream).await?;
    identity.check(&hello)?;
    Ok(hello)
}

/// Tells everybody who asks, one after the other, who this node is. Whoever wants more is disconnected
/// and tries again.
async fn answer(listener: &TcpListener, identity: &Identity) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            sleep(ASK_EVERY).await;
            continue;
        };
        let conversation = timeout(ANSWER_WITHIN, async {
            let hello = wire::read_hello(&mut stream).await?;
            let own = identity.hello(cluster::Purpose::Acquaintance);
            wire::write_hello(&mut stream, &own).await?;
            identity.check(&hello)
        });
        if let Ok(Err(error)) = conversation.await {
            tracing::debug!(%error, "a stranger asked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: u64, directory: u128) -> Identity {
        Identity {
            cluster_id: "shop".to_owned(),
            node,
            shards: 8,
            directory,
            founders: Vec::new(),
            has_joined: false,
            incarnation: None,
        }
    }

    fn empty(node: u64) -> Result<cluster::Hello, String> {
        Ok(identity(node, u128::from(node)).hello(cluster::Purpose::Acquaintance))
    }

    fn founded(node: u64, founders: &[(u64, u128)]) -> Result<cluster::Hello, String> {
        let founders = founders
            .iter()
            .map(|(node, directory)| Founder {
                node: *node,
                directory: *directory,
            })
            .collect();
        let identity = Identity {
            founders,
            ..identity(node, u128::from(node))
        };
        Ok(identity.hello(cluster::Purpose::Acquaintance))
    }

    fn down() -> Result<cluster::Hello, String> {
        Err("connection refused".to_owned())
    }

    fn check<const N: usize>(heard: [(u64, Result<cluster::Hello, String>); N], expected: &str) {
        let verdict = match judge(&identity(1, 1), &heard.into()) {
            Verdict::Found(founders) => {
                founders.iter().fold("found".to_owned(), |text, founder| {
                    format!("{text} {}:{}", founder.node, founder.directory)
                })
            }
            Verdict::Join => "join".to_owned(),
            Verdict::Wait(missing) => format!("wait for {}", missing.join(", ")),
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn a_cluster_is_founded_once_and_by_all() {
        let all = [(1, 1), (2, 2), (3, 3)];
        check([(2, empty(2)), (3, empty(3))], "found 1:1 2:2 3:3");
        check(
            [(2, empty(2)), (3, down())],
            "wait for node 3: connection refused",
        );
        // The others were faster: they know this directory, so it has not voted yet.
        check([(2, founded(2, &all)), (3, down())], "found 1:1 2:2 3:3");
        check([(2, founded(2, &all)), (3, empty(3))], "found 1:1 2:2 3:3");
        // They founded with another directory: this one is what came after it.
        let replaced = [(1, 9), (2, 2), (3, 3)];
        check([(2, founded(2, &replaced)), (3, empty(3))], "join");
        check([(2, down()), (3, founded(3, &replaced))], "join");
        check([], "found 1:1");
    }
}
