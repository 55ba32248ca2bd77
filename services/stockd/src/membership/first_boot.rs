//! How a node with an empty directory becomes a member.
//!
//! The founders are a fixed list. A node founds only when every other one on the list has said that
//! it is empty, too, or has founded with just this directory: so nobody forms a second cluster, and
//! nobody who lost a disk votes as if he had not. Where one cannot be reached, the node waits and
//! says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use stock_cluster::identity::{
    Acquaintances, Founder, Identity, Listed, founded_life, number, refusal,
};
use stock_storage::LogError;
use stock_wire::cluster::v1 as cluster;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::directory::disk::Disk;
use crate::directory::node_record::NodeRecord;
use crate::listeners::{Accepted, Listener};
use crate::peers::{PeerError, wire};

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

/// A node cannot begin.
#[derive(Debug, Error)]
pub enum FirstBootError {
    /// Nobody has founded a cluster, and this directory has been used.
    #[error(
        "{} holds states or history of a cluster, but not its log, and no other node knows a \
         cluster that this one could join: no second one is founded over what is left of the \
         first. Bring the log back, or the directory of another node (see docs/recovery.md); for a \
         new cluster, give every node an empty directory",
        dir.display()
    )]
    Used {
        /// The data directory.
        dir: PathBuf,
    },
    /// The disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Asks the others on the list until it is clear what to do; founds, if that is it and the
/// directory is new. Meanwhile others who ask are answered.
pub async fn decide(
    config: &Config,
    disk: &Disk,
    record: &mut NodeRecord,
    listener: &Listener,
    is_new: bool,
) -> Result<Verdict, FirstBootError> {
    // Nobody remembers a directory that is no member.
    let identity = record.identity(config, 0);
    // With a directory that was used nobody founds a cluster, the others no more than this node.
    let mut told = identity.clone();
    if !is_new {
        told.listed.nodes.clear();
    }
    let answering = answer(listener, &told);
    tokio::pin!(answering);
    let asking = ask_until_clear(config, &identity, is_new);
    tokio::pin!(asking);
    let (verdict, version) = tokio::select! {
        () = &mut answering => unreachable!("answering never ends"),
        clear = &mut asking => clear,
    };
    if let Verdict::Found(founders) = &verdict {
        if !is_new {
            let dir = config.data_dir.clone();
            return Err(FirstBootError::Used { dir });
        }
        record.found(founders, config.replicas, version);
        record.write(disk)?;
        tracing::info!(
            node = config.node_id,
            founders = founders.len(),
            "founding the cluster"
        );
    }
    Ok(verdict)
}

/// What is to be done, and the version that those who were heard of all speak.
async fn ask_until_clear(config: &Config, identity: &Identity, is_new: bool) -> (Verdict, u32) {
    let mut said: Option<(Vec<String>, Instant)> = None;
    loop {
        let mut heard = BTreeMap::new();
        for node in config.nodes.iter().filter(|node| node.id != identity.node) {
            let asked = timeout(ANSWER_WITHIN, ask(&node.peers, identity)).await;
            let answer = asked.unwrap_or(Err(PeerError::Silent));
            heard.insert(node.id, answer.map_err(|error| error.to_string()));
        }
        let knows_none = |heard: &Result<cluster::Hello, String>| {
            let hello = heard.as_ref();
            hello.is_ok_and(|hello| hello.founders.is_empty() && !hello.has_joined)
        };
        if !is_new && heard.values().all(knows_none) {
            return (Verdict::Found(Vec::new()), spoken(identity, &heard));
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
            clear => return (clear, spoken(identity, &heard)),
        }
        sleep(ASK_EVERY).await;
    }
}

/// The highest version of the cluster that all who were heard of speak, and this node.
pub fn spoken(own: &Identity, heard: &BTreeMap<u64, Result<cluster::Hello, String>>) -> u32 {
    let answers = heard.values().filter_map(|answer| answer.as_ref().ok());
    let newest = answers.map(|hello| hello.newest_version.max(1));
    newest.fold(own.speaks.newest, u32::min)
}

/// What follows from what the others say, each by id.
pub fn judge(own: &Identity, heard: &BTreeMap<u64, Result<cluster::Hello, String>>) -> Verdict {
    let me = Founder {
        node: own.node,
        directory: own.directory,
    };
    let answers = heard.values().filter_map(|answer| answer.as_ref().ok());
    // Who founded knows whether this very directory was one of theirs; who joined later does not.
    let founded = answers.clone().find(|hello| !hello.founders.is_empty());
    if let Some(hello) = founded {
        let founders: Vec<Founder> = hello.founders.iter().filter_map(founder).collect();
        if !founders.contains(&me) {
            return Verdict::Join;
        }
        let Listed { replicas, .. } = own.listed;
        let life = founded_life(&own.cluster_id, own.shards, replicas, &founders);
        if number(&hello.incarnation) != Some(life) {
            let why = format!(
                "node {} has founded the cluster with other settings than those here: compare \
                 shards and replicas",
                hello.node_id
            );
            return Verdict::Wait(vec![why]);
        }
        return Verdict::Found(founders);
    }
    if answers.clone().any(|hello| hello.has_joined) {
        return Verdict::Join;
    }
    let missing: Vec<String> = heard
        .iter()
        .filter_map(|(node, answer)| match answer {
            Err(error) => Some(format!("node {node}: {error}")),
            Ok(hello) => differs(&own.listed, hello),
        })
        .collect();
    if !missing.is_empty() {
        return Verdict::Wait(missing);
    }
    let mut founders: Vec<Founder> = answers
        .filter_map(|hello| {
            Some(Founder {
                node: hello.node_id,
                directory: number(&hello.directory)?,
            })
        })
        .chain([me])
        .collect();
    founders.sort_unstable();
    Verdict::Found(founders)
}

/// How another's founders differ from this node's, if they do: two lists must not become two
/// clusters.
fn differs(own: &Listed, hello: &cluster::Hello) -> Option<String> {
    let theirs = Listed {
        nodes: hello.listed_nodes.clone(),
        replicas: hello.listed_replicas,
    };
    if theirs.nodes.is_empty() {
        let node = hello.node_id;
        return Some(format!(
            "node {node} has states or history of a cluster, and not its log: none is founded \
             with it (docs/recovery.md)"
        ));
    }
    (theirs != *own).then(|| {
        format!(
            "node {} would found the cluster with nodes {:?} and {} replicas, but the \
             configuration here says nodes {:?} and {} replicas",
            hello.node_id, theirs.nodes, theirs.replicas, own.nodes, own.replicas
        )
    })
}

fn founder(founder: &cluster::Founder) -> Option<Founder> {
    Some(Founder {
        node: founder.node_id,
        directory: number(&founder.directory)?,
    })
}

async fn ask(address: &str, identity: &Identity) -> Result<cluster::Hello, PeerError> {
    let mut stream = TcpStream::connect(address).await?;
    let own = identity.hello(cluster::Purpose::Acquaintance, &Acquaintances::default());
    wire::write_message(&mut stream, &own).await?;
    let hello = wire::read_hello(&mut stream).await?;
    if let Some(told) = refusal::told("it", &wire::read_verdict(&mut stream).await?) {
        return Err(told.into());
    }
    identity.check(&hello)?;
    Ok(hello)
}

/// Tells everybody who asks who this node is. Whoever wants more is disconnected and tries again.
async fn answer(listener: &Listener, identity: &Identity) {
    // As many as the listener has room for.
    let mut conversations = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => conversations.push(tell(accepted, identity)),
            Some(()) = conversations.next() => {}
        }
    }
}

async fn tell(mut accepted: Accepted, identity: &Identity) {
    let stream = &mut accepted.stream;
    let conversation = timeout(ANSWER_WITHIN, async {
        let hello = wire::read_hello(stream).await?;
        let own = identity.hello(cluster::Purpose::Acquaintance, &Acquaintances::default());
        wire::write_message(stream, &own).await?;
        let checked = identity.check(&hello);
        wire::write_verdict(stream, &checked).await?;
        Ok::<_, PeerError>(checked?)
    });
    tokio::select! {
        told = conversation => {
            if let Ok(Err(error)) = told {
                tracing::debug!(%error, "a stranger asked");
            }
        }
        () = accepted.guest.asked_to_leave() => {}
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use stock_cluster::Speaks;
    use stock_cluster::identity::Addresses;

    use super::*;

    fn identity(node: u64, directory: u128) -> Identity {
        Identity {
            cluster_id: "shop".to_owned(),
            node,
            shards: 8,
            directory,
            since: 0,
            boot: 0,
            founders: Vec::new(),
            listed: Listed {
                nodes: vec![1, 2, 3],
                replicas: 3,
            },
            has_joined: false,
            incarnation: None,
            earlier_lives: Vec::new(),
            addresses: Addresses::default(),
            speaks: Speaks::THIS,
        }
    }

    fn empty(node: u64) -> Result<cluster::Hello, String> {
        Ok(identity(node, u128::from(node))
            .hello(cluster::Purpose::Acquaintance, &Acquaintances::default()))
    }

    fn founded(node: u64, founders: &[(u64, u128)]) -> Result<cluster::Hello, String> {
        let founders: Vec<Founder> = founders
            .iter()
            .map(|(node, directory)| Founder {
                node: *node,
                directory: *directory,
            })
            .collect();
        let identity = Identity {
            incarnation: Some(founded_life("shop", 8, 3, &founders)),
            founders,
            ..identity(node, u128::from(node))
        };
        Ok(identity.hello(cluster::Purpose::Acquaintance, &Acquaintances::default()))
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

    #[test]
    fn a_new_cluster_speaks_what_all_its_founders_do() {
        let of_build = |node: u64, newest| {
            let mut identity = identity(node, u128::from(node));
            identity.speaks.newest = newest;
            identity
        };
        let hello = |identity: &Identity| {
            let hello = identity.hello(cluster::Purpose::Acquaintance, &Acquaintances::default());
            Ok(hello)
        };
        for (own, other, expected) in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 2)] {
            let heard = [
                (2, hello(&of_build(2, other))),
                (3, hello(&of_build(3, 2))),
                (4, down()),
            ];
            assert_eq!(spoken(&of_build(1, own), &heard.into()), expected);
        }
    }

    #[test]
    fn nobody_founds_a_cluster_with_a_directory_that_was_used() {
        let mut used = identity(2, 2);
        used.listed.nodes.clear();
        let hello = used.hello(cluster::Purpose::Acquaintance, &Acquaintances::default());
        check(
            [(2, Ok(hello)), (3, empty(3))],
            "wait for node 2 has states or history of a cluster, and not its log: none is founded \
             with it (docs/recovery.md)",
        );
    }

    #[test]
    fn founders_who_were_told_different_lists_found_nothing() {
        let mut other = identity(2, 2);
        other.listed.nodes = vec![1, 2, 3, 4, 5];
        let hello = other.hello(cluster::Purpose::Acquaintance, &Acquaintances::default());
        check(
            [(2, Ok(hello)), (3, empty(3))],
            "wait for node 2 would found the cluster with nodes [1, 2, 3, 4, 5] and 3 replicas, \
             but the configuration here says nodes [1, 2, 3] and 3 replicas",
        );
        let mut other = identity(2, 2);
        other.listed.replicas = 1;
        let hello = other.hello(cluster::Purpose::Acquaintance, &Acquaintances::default());
        let heard = [(2, Ok(hello)), (3, empty(3))].into();
        assert!(matches!(judge(&identity(1, 1), &heard), Verdict::Wait(_)));
        // Who has founded with other settings is not followed in silence.
        let mut odd = identity(1, 1);
        odd.listed.replicas = 1;
        let heard = [(2, founded(2, &[(1, 1), (2, 2), (3, 3)])), (3, down())].into();
        assert!(matches!(judge(&odd, &heard), Verdict::Wait(_)));
    }

    /// What became of a node.
    enum Fate {
        Asks,
        Founded(Vec<Founder>),
        Joins,
    }

    /// Nodes with these lists ask each other in any order, each as often as it likes, until all
    /// have decided or have asked in vain for long.
    fn found_at_random(
        lists: &BTreeMap<u64, Vec<u64>>,
        dice: &mut SmallRng,
    ) -> BTreeMap<u64, Fate> {
        let own = |node: u64, fate: &Fate| {
            let mut own = identity(node, u128::from(node));
            own.listed.nodes.clone_from(&lists[&node]);
            if let Fate::Founded(founders) = fate {
                own.founders.clone_from(founders);
                own.incarnation = Some(founded_life("shop", 8, 3, founders));
            }
            own
        };
        let mut fates: BTreeMap<u64, Fate> = lists.keys().map(|node| (*node, Fate::Asks)).collect();
        let nodes: Vec<u64> = lists.keys().copied().collect();
        for _ in 0..60 {
            let node = nodes[dice.random_range(0..nodes.len())];
            if !matches!(fates[&node], Fate::Asks) {
                continue;
            }
            let others = lists[&node].iter().filter(|other| **other != node);
            let heard = others.map(|other| {
                let is_heard = dice.random_bool(0.8) && fates.contains_key(other);
                let hello = is_heard.then(|| {
                    let other = own(*other, &fates[other]);
                    other.hello(cluster::Purpose::Acquaintance, &Acquaintances::default())
                });
                (*other, hello.ok_or_else(|| "not heard".to_owned()))
            });
            let heard = heard.collect();
            match judge(&own(node, &fates[&node]), &heard) {
                Verdict::Found(founders) => drop(fates.insert(node, Fate::Founded(founders))),
                Verdict::Join => drop(fates.insert(node, Fate::Joins)),
                Verdict::Wait(_) => {}
            }
        }
        fates
    }

    #[test]
    fn whatever_lists_nodes_were_given_no_two_clusters_share_a_founder() {
        let mut dice = SmallRng::seed_from_u64(1);
        let mut clusters = 0;
        for _ in 0..3_000 {
            let whole: Vec<u64> = (1..=5).collect();
            let lists: BTreeMap<u64, Vec<u64>> = (1..=5)
                .map(|node| {
                    let is_right = dice.random_bool(0.7);
                    let part = |listed: &u64| *listed == node || is_right || dice.random_bool(0.5);
                    (node, whole.iter().copied().filter(part).collect())
                })
                .collect();
            let fates = found_at_random(&lists, &mut dice);
            let mut founded: Vec<Vec<u64>> = Vec::new();
            for (node, fate) in &fates {
                let Fate::Founded(founders) = fate else {
                    continue;
                };
                let founders: Vec<u64> = founders.iter().map(|founder| founder.node).collect();
                assert_eq!(founders, lists[node], "{lists:?}");
                if !founded.contains(&founders) {
                    founded.push(founders);
                }
            }
            clusters += founded.len();
            for (at, one) in founded.iter().enumerate() {
                for other in &founded[at + 1..] {
                    assert!(one.iter().all(|node| !other.contains(node)), "{lists:?}");
                }
            }
        }
        assert!(clusters > 500, "{clusters}");
    }
}
