//! Nodes that die, and one that is replaced, while the orders are carried.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_client::Client;
use tokio::time::sleep;

use crate::nodes::Nodes;

/// A killed node stays away for this long.
const AWAY: Duration = Duration::from_secs(1);

/// How soon the end of the orders is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What nodes count of baskets that are not done with, and how often.
const UNSETTLED: [&str; 2] = ["stockd_baskets_undecided", "stockd_baskets_owed"];
const COUNTED_EVERY: Duration = Duration::from_secs(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// The node that is replaced, and the one that takes its place.
const LEAVES: u64 = 1;
const COMES: u64 = 4;

/// A cluster of this program's own, and what happens to it.
pub(crate) struct Trouble {
    /// Taken out while there is trouble, so that nothing is borrowed across a wait.
    nodes: RefCell<Option<Nodes>>,
    kill_every: Option<Duration>,
    replaces: bool,
    seed: u64,
    is_over: Cell<bool>,
    kills: Cell<u32>,
    replaced_in: Cell<Option<Duration>>,
}

impl Trouble {
    /// Nothing happens before [`Trouble::make`] is called.
    pub(crate) fn new(
        nodes: Nodes,
        kill_every: Option<Duration>,
        replaces: bool,
        seed: u64,
    ) -> Trouble {
        Trouble {
            nodes: RefCell::new(Some(nodes)),
            kill_every,
            replaces,
            seed,
            is_over: Cell::new(false),
            kills: Cell::new(0),
            replaced_in: Cell::new(None),
        }
    }

    /// Replaces a node, then kills random ones, until [`Trouble::end`] is called; then waits until
    /// every replica has caught up.
    pub(crate) async fn make(&self, client: &Client) -> anyhow::Result<()> {
        let Some(mut nodes) = self.nodes.take() else {
            return Ok(());
        };
        let made = self.make_to(&mut nodes, client).await;
        if made.is_err() {
            nodes.keep();
        }
        self.nodes.replace(Some(nodes));
        made
    }

    async fn make_to(&self, nodes: &mut Nodes, client: &Client) -> anyhow::Result<()> {
        let mut random = StdRng::seed_from_u64(self.seed);
        if self.replaces {
            let began = Instant::now();
            let replaced = nodes.replace(client, LEAVES, COMES).await;
            replaced.context("cannot replace a node")?;
            self.replaced_in.set(Some(began.elapsed()));
        }
        while let Some(kill_every) = self.kill_every.filter(|_| !self.is_over.get()) {
            self.pause(kill_every).await;
            if self.is_over.get() {
                break;
            }
            let running = nodes.running();
            let victim = running[random.random_range(0..running.len())];
            nodes.kill(victim);
            sleep(AWAY).await;
            nodes.start(victim)?;
            nodes.wait_until_led().await?;
            self.kills.set(self.kills.get() + 1);
        }
        nodes.wait_until_settled(client, 3).await
    }

    /// The orders are carried.
    pub(crate) fn end(&self) {
        self.is_over.set(true);
    }

    /// Baskets that are not decided, or of which some shard has yet to be told, as the nodes count
    /// them: none, after a while without trouble. Returns what is left when patience ends.
    pub(crate) async fn unsettled(&self) -> anyhow::Result<u64> {
        let Some(nodes) = self.nodes.take() else {
            return Ok(0);
        };
        let began = Instant::now();
        let left = loop {
            let mut left = 0.0;
            for node in nodes.running() {
                for name in UNSETTLED {
                    left += nodes.metric(node, name).await?;
                }
            }
            if left == 0.0 || began.elapsed() > SETTLED_WITHIN {
                break left as u64;
            }
            sleep(COUNTED_EVERY).await;
        };
        self.nodes.replace(Some(nodes));
        Ok(left)
    }

    /// What happened.
    pub(crate) fn print(&self) {
        say!("nodes killed and started again: {}", self.kills.get());
        if let Some(took) = self.replaced_in.get() {
            say!(
                "node {LEAVES} was replaced by node {COMES} in {:.1} s",
                took.as_secs_f64()
            );
        }
    }

    async fn pause(&self, length: Duration) {
        let began = Instant::now();
        while began.elapsed() < length && !self.is_over.get() {
            sleep(LOOK_EVERY).await;
        }
    }
}
