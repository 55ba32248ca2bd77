//! What an operator does who follows the words of the nodes and the pages about recovery, and
//! nothing else.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use super::trial::HEALED_WITHIN;
use crate::cluster::{Cluster, NODES};
use crate::operator::Operator;
use crate::programs;
use crate::wait::{until, within};

/// From the signal to the end of a process.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// A new replica of each group, one after the other.
const MENDED_WITHIN: Duration = Duration::from_secs(60);

/// One answer of the cluster.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// What came of it.
pub(super) enum Mended {
    Whole {
        /// `stockd recover` has said that something is lost.
        is_told: bool,
    },
    /// What `stockd recover` says.
    Not(String),
}

/// Whether three sound voters of every group are there, or why not.
pub(super) async fn is_whole(cluster: &Cluster) -> Result<(), String> {
    cluster.agreed_leaders().await?;
    let ask = async {
        let client = cluster.client_builder().connect().await;
        let client = client.map_err(|error| error.to_string())?;
        Operator::new(client).settled(&NODES).await.map(drop)
    };
    let asked = tokio::time::timeout(ANSWERED_WITHIN, ask).await;
    asked.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Does what is to be done.
pub(super) async fn mend(cluster: &Cluster, deeds: &mut Vec<String>) -> Mended {
    let ended: Vec<u64> = NODES
        .into_iter()
        .filter(|node| cluster.ended(*node).is_some())
        .collect();
    for node in &ended {
        cluster.reap(*node);
    }
    // While the others serve, an empty directory takes the place of the damaged one.
    if !ended.is_empty() && cluster.agreed_leaders().await.is_ok() {
        for node in &ended {
            cluster.empty(*node);
            cluster.restart(*node);
        }
        deeds.push(format!(
            "the operator empties the directory of nodes {ended:?}"
        ));
        if within(MENDED_WITHIN, || is_whole(cluster)).await.is_ok() {
            return Mended::Whole { is_told: false };
        }
    }
    recover(cluster, deeds).await
}

async fn recover(cluster: &Cluster, deeds: &mut Vec<String>) -> Mended {
    for node in cluster.running() {
        cluster.terminate(node);
    }
    for node in NODES {
        if cluster.ended(node).is_some() {
            cluster.reap(node);
        }
    }
    for node in cluster.running() {
        until("the end of a node", STOPPED_WITHIN, async || {
            cluster.ended(node).map(drop).ok_or("it runs".to_owned())
        })
        .await;
        cluster.reap(node);
    }
    // All that are left; those that it refuses are left out, one after the other.
    let mut nodes: Vec<u64> = NODES.to_vec();
    let mut words = String::new();
    while !nodes.is_empty() {
        let dirs: Vec<PathBuf> = nodes.iter().map(|node| cluster.data_dir(*node)).collect();
        let done = stockd_recover(cluster, &dirs);
        words = String::from_utf8_lossy(&done.stderr).into_owned()
            + &String::from_utf8_lossy(&done.stdout);
        if done.status.success() {
            return start(cluster, deeds, &nodes, &words).await;
        }
        let named = nodes.iter().position(|node| {
            let dir = cluster.data_dir(*node).display().to_string();
            let error = words
                .lines()
                .find(|line| line.starts_with("stockd: "))
                .unwrap_or_default();
            error.contains(&dir)
        });
        match named {
            Some(at) => drop(nodes.remove(at)),
            None => break,
        }
    }
    let error = words.lines().find(|line| line.starts_with("stockd: "));
    Mended::Not(format!(
        "`stockd recover` says: {}",
        error.unwrap_or(&words)
    ))
}

async fn start(cluster: &Cluster, deeds: &mut Vec<String>, nodes: &[u64], words: &str) -> Mended {
    let is_needless = words.contains("Nothing to recover");
    let what = match is_needless {
        true => "`stockd recover` finds nothing to do with the directories of nodes",
        false => "the operator runs `stockd recover` on",
    };
    deeds.push(format!("{what} {nodes:?}"));
    let others = NODES.into_iter().filter(|node| !nodes.contains(node));
    for node in others.clone() {
        cluster.empty(node);
    }
    for node in nodes.iter().copied() {
        cluster.restart(node);
    }
    let led = within(HEALED_WITHIN, || async {
        cluster.agreed_leaders().await.map(drop)
    })
    .await;
    if let Err(why) = led {
        return Mended::Not(format!("after that: {why}"));
    }
    for node in others {
        cluster.restart(node);
    }
    match within(MENDED_WITHIN, || is_whole(cluster)).await {
        Ok(()) => Mended::Whole {
            is_told: words.contains("LOST: ") || words.contains("would not go on by itself"),
        },
        Err(why) => Mended::Not(format!("after that: {why}")),
    }
}

fn stockd_recover(cluster: &Cluster, dirs: &[PathBuf]) -> Output {
    let mut command = programs::run_stockd();
    command.args([
        "recover",
        "--lose-everything-else",
        "--confirm",
        &cluster.cluster_id(),
    ]);
    for dir in dirs {
        command.arg("--data-dir").arg(dir);
    }
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|e| panic!("stockd: {e}"))
}
