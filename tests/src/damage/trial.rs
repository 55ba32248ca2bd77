//! One trial: directories as they were, damage, and a look at what comes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use stock_client::Client;
use tokio::time::timeout;

use super::mend::{self, Mended};
use super::{Harm, Kind, Lost, Outcome};
use crate::cluster::{Cluster, NODES, Options};
use crate::directories::copy;
use crate::names::{fresh, sku_in};
use crate::operator::{Operator, replica_on};
use crate::stock::{
    fresh_location, held, position_at, receive, receive_many, reservation, reserve, seconds, sell,
};
use crate::wait::{until, within};

const SHARDS: u32 = 2;

/// Small, so that states are written down, files of the log closed, and old ones deleted, within
/// seconds.
const CHECKPOINT_AFTER_BYTES: u64 = 20_000;
const LOG_FILE_BYTES: u64 = 65_536;

/// Lines of one receipt, each of a new SKU.
const LINES: usize = 200;

/// Sales one by one: small entries, as a till makes them.
const SALES: u32 = 40;

/// Longer than all trials take.
const HELD_SECONDS: i64 = 7 * 24 * 60 * 60;

/// From the first call until every node keeps everything.
const LOADED_WITHIN: Duration = Duration::from_secs(120);

/// From the start of the nodes until the cluster is whole by itself. Ten seconds are usual.
pub(super) const HEALED_WITHIN: Duration = Duration::from_secs(30);

/// How often a node that ends is started again in one trial.
const RESTARTS_MAX: u32 = 3;

/// One node's answer; where there is no leader there is none.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// Damage to try.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Which kind of file.
    pub kind: Kind,
    /// What is done to it.
    pub harm: Harm,
    /// On which nodes.
    pub nodes: Vec<u64>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, harm, nodes } = self;
        write!(f, "{}, {}, nodes {nodes:?}", kind.name(), harm.name())
    }
}

/// A cluster that was loaded once, and whose directories are put back for each trial.
pub struct Sweep {
    cluster: Cluster,
    location: String,
    /// One for each shard.
    skus: Vec<String>,
    /// What is acknowledged of each: on hand, and held.
    expected: (i64, i64),
    holds: Vec<String>,
}

impl Sweep {
    /// Loads a cluster, keeps a copy of it, and goes on to load it.
    pub async fn prepare() -> Self {
        let cluster = Cluster::start(Options {
            shards: SHARDS,
            checkpoint_after_bytes: Some(CHECKPOINT_AFTER_BYTES),
            log_file_bytes: Some(LOG_FILE_BYTES),
            ..Options::default()
        })
        .await;
        let client = cluster.client().await;
        let location = fresh_location(&client).await;
        let mut sweep = Self {
            cluster,
            location,
            skus: (0..SHARDS)
                .map(|shard| sku_in(shard, SHARDS, "counted"))
                .collect(),
            expected: (0, 0),
            holds: Vec::new(),
        };
        sweep.load(&client).await;
        sweep.keep("yesterday");
        // Terms rise.
        sweep.cluster.kill(1);
        sweep.cluster.wait_until_led().await;
        sweep.cluster.restart(1);
        sweep.load(&client).await;
        sweep.cluster.kill_all();
        sweep.keep("today");
        sweep
    }

    async fn load(&mut self, client: &Client) {
        let operator = Operator::new(self.cluster.client().await);
        operator.wait_until_settled(&NODES).await;
        let before = self.states();
        until(
            "new states of every group on each node",
            LOADED_WITHIN,
            async || {
                receive_many(client, &self.location, LINES).await?;
                for _ in 0..LINES / 20 {
                    fresh_location(client).await;
                }
                let now = self.states();
                let is_new = before.iter().zip(&now).all(|(before, now)| {
                    now.len() == 2 && now.iter().all(|state| !before.contains(state))
                });
                let has_rewritten = NODES.iter().all(|node| self.has_rewritten(*node));
                (is_new && has_rewritten)
                    .then_some(())
                    .ok_or(format!("{now:?}"))
            },
        )
        .await;
        for sku in &self.skus {
            receive(client, sku, &self.location, i64::from(SALES) * 2).await;
            for _ in 0..SALES {
                sell(client, sku, &self.location, 1).await;
            }
            let mut hold = reserve(sku, &self.location, 7);
            hold.ttl = seconds(HELD_SECONDS);
            let hold = client.reserve(hold).await;
            let hold = hold.unwrap_or_else(|e| panic!("reserve {sku}: {e}"));
            self.holds.push(held(hold).reservation_id);
        }
        self.expected.0 += i64::from(SALES);
        self.expected.1 += 7;
        // What a node answers linearizably it has.
        for node in NODES {
            let there = self.there(node).await;
            assert_eq!(
                there,
                Ok(vec![self.expected; self.skus.len()]),
                "node {node}"
            );
        }
    }

    /// The names of every group's states on each node.
    fn states(&self) -> Vec<Vec<String>> {
        let of = |node| (0..=SHARDS).map(move |group| self.cluster.checkpoints(node, group));
        NODES.into_iter().flat_map(of).collect()
    }

    fn has_rewritten(&self, node: u64) -> bool {
        let files = std::fs::read_dir(self.cluster.data_dir(node).join("log"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|end| end == "rewrite"))
    }

    fn keep(&self, name: &str) {
        for node in NODES {
            self.cluster.copy_data(node, name);
        }
    }

    fn kept(&self, node: u64, name: &str) -> PathBuf {
        self.cluster.dir().join(format!("node-{node}-{name}"))
    }

    /// Puts the directories back, damages them, and looks on; where the cluster does not heal, does
    /// what the words of its nodes and of `stockd recover` tell an operator to do.
    pub async fn run(&self, trial: &Trial) -> Outcome {
        self.cluster.kill_all();
        for node in NODES {
            let dir = self.cluster.data_dir(node);
            if dir.exists() {
                self.cluster.empty(node);
            }
            copy(&self.kept(node, "today"), &dir);
        }
        for node in &trial.nodes {
            let (dir, yesterday) = (self.cluster.data_dir(*node), self.kept(*node, "yesterday"));
            trial
                .kind
                .suffers(trial.harm, &dir, &yesterday, &self.skus[0]);
        }
        let began = NODES.map(|node| self.cluster.log(node).len());
        NODES.iter().for_each(|node| self.cluster.restart(*node));
        let mut deeds = Vec::new();
        let mut restarts = BTreeMap::new();
        let is_healed = within(HEALED_WITHIN, async || self.is_whole(&mut restarts).await).await;
        if is_healed.is_ok() && !restarts.is_empty() {
            deeds.push("the node ends, and is started again by whoever supervises it".to_owned());
        }
        if is_healed.is_ok() {
            deeds.extend(self.healed(&trial.nodes, &began).await);
        }
        let words = self.words(&trial.nodes, &began);
        let mended = match is_healed {
            Ok(()) => Mended::Whole { is_told: false },
            Err(_) => mend::mend(&self.cluster, &mut deeds).await,
        };
        let lost = match mended {
            Mended::Not(why) => Lost::Everything(why),
            Mended::Whole { is_told } => match (self.lost().await, is_told) {
                (None, _) => Lost::Nothing,
                (Some(lost), true) => Lost::Told(lost),
                (Some(lost), false) => Lost::Untold(lost),
            },
        };
        Outcome {
            trial: trial.clone(),
            deeds,
            lost,
            words,
        }
    }

    /// Whether three sound voters of every group are there, or why not. A node that ends is started
    /// again, as systemd and Kubernetes do, a few times.
    async fn is_whole(&self, restarts: &mut BTreeMap<u64, u32>) -> Result<(), String> {
        let ended = |node: &u64| self.cluster.ended(*node).is_some();
        if let Some(node) = NODES.into_iter().find(ended) {
            let times = restarts.entry(node).or_default();
            if *times < RESTARTS_MAX {
                *times += 1;
                self.cluster.reap(node);
                self.cluster.restart(node);
            }
            return Err(format!("node {node} has ended"));
        }
        mend::is_whole(&self.cluster).await
    }

    /// What the cluster has done by itself.
    async fn healed(&self, damaged: &[u64], began: &[usize]) -> Vec<String> {
        let mut deeds = Vec::new();
        let operator = Operator::new(self.cluster.client().await);
        let groups = operator
            .groups()
            .await
            .map(|(groups, _)| groups)
            .unwrap_or_default();
        let rejoined = |node: &u64| self.said(*node, began).contains("joined the cluster");
        let joined: Vec<&u64> = damaged.iter().filter(|node| rejoined(node)).collect();
        if !joined.is_empty() {
            deeds.push(format!("{} joined anew", count(joined.len(), "node")));
        }
        let made_anew = groups.iter().flat_map(|group| {
            let nodes = damaged.iter().filter(|node| !rejoined(node));
            nodes.filter_map(|node| replica_on(group, *node))
        });
        let made_anew = made_anew.filter(|replica| replica.generation > 0).count();
        if made_anew > 0 {
            deeds.push(format!("{} made anew", count(made_anew, "replica")));
        }
        deeds
    }

    fn said(&self, node: u64, began: &[usize]) -> String {
        let log = self.cluster.log(node);
        log.get(began[(node - 1) as usize]..)
            .unwrap_or_default()
            .to_owned()
    }

    /// What damaged nodes said first that is more than information, each once.
    fn words(&self, damaged: &[u64], began: &[usize]) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for node in damaged {
            let said = self.said(*node, began);
            let mut lines = said.lines().filter(|line| {
                let is = |level: &str| line.contains(level);
                is(" ERROR ") || is(" WARN ") || line.starts_with("stockd: ")
            });
            words.extend(lines.next().map(str::to_owned));
            // Where it has ended, why.
            let is_last =
                |line: &&str| line.starts_with("stockd: ") || line.contains("stockd: cannot go on");
            let ended = said.lines().rfind(is_last);
            words.extend(ended.map(str::to_owned));
        }
        words
    }

    /// What each shard has on a node: on hand and reserved.
    async fn there(&self, node: u64) -> Result<Vec<(i64, i64)>, String> {
        let mut there = Vec::new();
        let channel = self.cluster.channel(node);
        for sku in &self.skus {
            let read =
                until_answered(async || position_at(&channel, sku, &self.location).await).await?;
            there.push((read.on_hand, read.reserved));
        }
        Ok(there)
    }

    /// What is missing of what was acknowledged, as every node says; and whether the cluster takes
    /// more.
    async fn lost(&self) -> Option<String> {
        let mut lost = Vec::new();
        for node in self.cluster.running() {
            match self.there(node).await {
                Ok(there) => {
                    for (sku, there) in self.skus.iter().zip(there) {
                        if there != self.expected {
                            lost.push(format!(
                                "node {node} has {there:?} of {sku}, not {:?}",
                                self.expected
                            ));
                        }
                    }
                }
                Err(why) => lost.push(why),
            }
        }
        if lost.is_empty() {
            let client = self.cluster.client().await;
            for hold in &self.holds {
                if let Err(error) = reservation(&client, hold).await {
                    lost.push(format!("reservation {hold}: {error}"));
                }
            }
            for sku in &self.skus {
                receive(
                    &client,
                    &format!("{sku}-{}", fresh("after")),
                    &self.location,
                    1,
                )
                .await;
            }
        }
        (!lost.is_empty()).then(|| lost.join("; "))
    }
}

async fn until_answered<T>(
    mut ask: impl AsyncFnMut() -> Result<T, tonic::Status>,
) -> Result<T, String> {
    within(HEALED_WITHIN, async || {
        match timeout(ANSWERED_WITHIN, ask()).await {
            Ok(answer) => answer.map_err(|status| status.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    })
    .await
}

/// So many of something, in words.
pub(super) fn count(number: usize, of: &str) -> String {
    match number {
        1 => format!("1 {of}"),
        _ => format!("{number} {of}s"),
    }
}
