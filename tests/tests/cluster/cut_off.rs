//! Nodes that are cut off from the others, whole or in one direction, and nodes that stand still:
//! the rest goes on, and what is cut off neither acknowledges a write nor answers with the past.
//!
//! A long run: `STOCKD_CUT_OFF_ROUNDS=20 STOCKD_PAUSE_SECONDS=30 cargo test --release -p tests
//! --test cluster cut_off`.

use std::cell::Cell;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_client::Client;
use stock_proto::stock::v1::AdjustRequest;
use stock_proto::stock::v1::inventory_service_client::InventoryServiceClient;
use tests::cluster::{Cluster, Links, NODES, Options, others};
use tests::names::{fresh, sku_in};
use tests::network::Network;
use tests::settings;
use tests::shop::Shop;
use tests::stock::{fresh_location, movement, position, position_at, receive};
use tests::wait::until;
use tonic::transport::Channel;

const ROUNDS: u64 = 1;
const PAUSE_SECONDS: u64 = 3;
const SEED: u64 = 20_260_703;

/// From the moment that a node is cut off until its shard takes writes again. An election takes
/// about a second, and before it a client may wait for a node that says nothing.
const WRITES_RESUME_WITHIN: Duration = Duration::from_secs(10);

/// Calls that are answered before, during and after.
const CALLS: u64 = 60;

/// How long a node stays cut off after the others have gone on.
const CUT_OFF_FOR: Duration = Duration::from_secs(1);

/// How long one question to one node may take: one that is cut off may not answer at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Readers at each node: whenever a node wakes, some of them are at its door already.
const READERS: usize = 6;

/// Between two questions of one reader.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// From the end of the trouble until each node serves linearizable reads again.
const SERVES_AGAIN_WITHIN: Duration = Duration::from_secs(20);

/// The count's and the knocks' shard. Its leader is *the* leader here.
const SHARD: u32 = 0;

/// More than is ever added to it.
const KNOCKS_OPENING: i64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
enum Break {
    LeaderAlone,
    FollowerAlone,
    LeaderUnheard,
    LeaderDeaf,
    LeaderUnheardByOne,
    LeaderDeafToOne,
}

impl Break {
    const BOTH_WAYS: [Self; 2] = [Self::LeaderAlone, Self::FollowerAlone];
    const ONE_WAY: [Self; 4] = [
        Self::LeaderUnheard,
        Self::LeaderDeaf,
        Self::LeaderUnheardByOne,
        Self::LeaderDeafToOne,
    ];

    /// Breaks the network, and says which node is then alone, if one is.
    fn begin(self, network: &Network, leader: u64, followers: [u64; 2]) -> Option<u64> {
        let follower = followers[0];
        match self {
            Self::LeaderAlone => network.isolate(leader),
            Self::FollowerAlone => network.isolate(follower),
            Self::LeaderUnheard => followers.iter().for_each(|to| network.block(leader, *to)),
            Self::LeaderDeaf => followers
                .iter()
                .for_each(|from| network.block(*from, leader)),
            Self::LeaderUnheardByOne => network.block(leader, follower),
            Self::LeaderDeafToOne => network.block(follower, leader),
        }
        match self {
            Self::LeaderAlone | Self::LeaderUnheard | Self::LeaderDeaf => Some(leader),
            Self::FollowerAlone => Some(follower),
            Self::LeaderUnheardByOne | Self::LeaderDeafToOne => None,
        }
    }
}

#[tokio::test]
async fn a_node_alone_neither_loses_nor_doubles_nor_answers_with_the_past() {
    live_through(&Break::BOTH_WAYS).await;
}

#[tokio::test]
async fn a_link_that_is_dead_one_way_neither_loses_nor_doubles_nor_answers_with_the_past() {
    live_through(&Break::ONE_WAY).await;
}

async fn live_through(breaks: &[Break]) {
    if let Some(why) = Network::unavailable() {
        eprintln!("SKIPPED: no network was broken: {why}");
        return;
    }
    let rounds = settings::number("STOCKD_CUT_OFF_ROUNDS", ROUNDS);
    let cluster = start(Links::Breakable).await;
    let shop = Shop::open(&cluster).await;
    let count = Count::open(&cluster).await;
    let mut random = StdRng::seed_from_u64(settings::seed(SEED));
    for round in 0..rounds {
        for kind in breaks {
            let trouble = async {
                shop.more_calls(CALLS).await;
                let leader = cluster.leader_of(SHARD).await;
                let mut followers = others(leader);
                if random.random_bool(0.5) {
                    followers.reverse();
                }
                let alone = kind.begin(cluster.network(), leader, followers);
                let resumed = count.goes_on().await;
                eprintln!(
                    "round {round}: {kind:?}: {leader} led; writes resumed after {resumed:?}"
                );
                shop.more_calls(CALLS).await;
                match alone {
                    Some(node) => count.knock_in_vain(&cluster, node).await,
                    None => tokio::time::sleep(CUT_OFF_FOR).await,
                }
                cluster.network().heal();
                let healed = Instant::now();
                cluster.wait_until_led().await;
                eprintln!("healed; all groups were led after {:?}", healed.elapsed());
                shop.more_calls(CALLS).await;
            };
            let seed = random_seed(round, *kind as u64);
            shop.trade_during(seed, count.watch_during(&cluster, trouble))
                .await;
            count.check(&cluster).await;
            shop.account_for_new(&cluster).await;
        }
    }
    shop.account_for_all(&cluster).await;
    let (calls, reads, failures) = (shop.calls(), count.reads.get(), shop.failures());
    eprintln!("{calls} calls, {failures} of them made again, {reads} linearizable reads");
}

#[tokio::test]
async fn a_node_that_stands_still_neither_loses_nor_doubles_nor_answers_with_the_past() {
    let still = Duration::from_secs(settings::number("STOCKD_PAUSE_SECONDS", PAUSE_SECONDS));
    let rounds = settings::number("STOCKD_CUT_OFF_ROUNDS", ROUNDS);
    let cluster = start(Links::Loopback).await;
    let shop = Shop::open(&cluster).await;
    let count = Count::open(&cluster).await;
    for round in 0..rounds {
        for leads in [true, false] {
            let trouble = async {
                shop.more_calls(CALLS).await;
                let leader = cluster.leader_of(SHARD).await;
                let node = if leads { leader } else { others(leader)[0] };
                cluster.pause(node);
                let paused = Instant::now();
                let resumed = count.goes_on().await;
                eprintln!("round {round}: node {node} stood; writes resumed after {resumed:?}");
                shop.more_calls(CALLS).await;
                tokio::time::sleep(still.saturating_sub(paused.elapsed())).await;
                cluster.resume(node);
                cluster.wait_until_led().await;
                shop.more_calls(CALLS).await;
            };
            let seed = random_seed(round, u64::from(leads));
            shop.trade_during(seed, count.watch_during(&cluster, trouble))
                .await;
            count.check(&cluster).await;
            shop.account_for_new(&cluster).await;
        }
    }
    shop.account_for_all(&cluster).await;
    let (calls, reads, failures) = (shop.calls(), count.reads.get(), shop.failures());
    eprintln!("{calls} calls, {failures} of them made again, {reads} linearizable reads");
}

async fn start(links: Links) -> Cluster {
    Cluster::start(Options {
        shards: 4,
        links,
        ..Options::default()
    })
    .await
}

fn random_seed(round: u64, kind: u64) -> u64 {
    settings::seed(SEED) + round * 1_000 + kind * 100
}

/// A SKU of which one unit after the other arrives: each linearizable read must see at least what
/// had been acknowledged before it began, and at most what had been sent before it ended.
struct Count {
    client: Client,
    location: String,
    sku: String,
    /// Where nodes that are cut off are asked to add something.
    knocks: String,
    sent: Cell<i64>,
    acknowledged: Cell<i64>,
    knocked: Cell<i64>,
    reads: Cell<u64>,
}

impl Count {
    async fn open(cluster: &Cluster) -> Self {
        let client = cluster.client_builder().bulk_attempt_timeout(ANSWER_WITHIN);
        let client = client.connect().await.unwrap();
        let location = fresh_location(&client).await;
        let sku = |prefix| sku_in(SHARD, cluster.shards(), prefix);
        let (sku, knocks) = (sku("count"), sku("knocks"));
        receive(&client, &sku, &location, 1).await;
        receive(&client, &knocks, &location, KNOCKS_OPENING).await;
        Self {
            client,
            location,
            sku,
            knocks,
            sent: Cell::new(1),
            acknowledged: Cell::new(1),
            knocked: Cell::new(0),
            reads: Cell::new(0),
        }
    }

    /// Counts on, and asks every node where the count is, for as long as `trouble` goes on.
    async fn watch_during<T>(&self, cluster: &Cluster, trouble: impl Future<Output = T>) -> T {
        let is_over = Cell::new(false);
        let is_over = &is_over;
        let counting = async {
            while !is_over.get() {
                self.add_one().await;
            }
        };
        let readers = NODES.into_iter().flat_map(|node| [node; READERS]);
        let reading = join_all(readers.map(|node| async move {
            let channel = cluster.channel(node);
            while !is_over.get() {
                self.read(node, &channel).await;
                tokio::time::sleep(ASK_EVERY).await;
            }
        }));
        let trouble = async {
            let done = trouble.await;
            is_over.set(true);
            done
        };
        let ((), _, done) = tokio::join!(counting, reading, trouble);
        done
    }

    /// Waits until what was sent after this call has been acknowledged, and says how long that
    /// took.
    async fn goes_on(&self) -> Duration {
        let began = Instant::now();
        // One may be under way.
        let target = self.sent.get() + 1;
        until("writes that resume", WRITES_RESUME_WITHIN, async || {
            let done = self.acknowledged.get();
            (done >= target)
                .then_some(())
                .ok_or(format!("{done} of {target}"))
        })
        .await;
        began.elapsed()
    }

    async fn add_one(&self) {
        self.sent.set(self.sent.get() + 1);
        let request = addition(&self.sku, &self.location);
        // The document makes that each counts once.
        until("one more", SERVES_AGAIN_WITHIN, async || {
            let answer = self.client.adjust(request.clone()).await;
            answer.map_err(|e| e.to_string())
        })
        .await;
        self.acknowledged.set(self.acknowledged.get() + 1);
    }

    async fn read(&self, node: u64, channel: &Channel) {
        let at_least = self.acknowledged.get();
        let read = position_at(channel, &self.sku, &self.location);
        // That a node does not answer is all right.
        let Ok(Ok(seen)) = tokio::time::timeout(ANSWER_WITHIN, read).await else {
            return;
        };
        let (seen, at_most) = (seen.on_hand, self.sent.get());
        assert!(
            (at_least..=at_most).contains(&seen),
            "node {node} says {seen}; {at_least} were acknowledged before, {at_most} sent"
        );
        self.reads.set(self.reads.get() + 1);
    }

    /// Asks a node that is alone to write and to read, straight: it can do neither, and must say so
    /// or nothing.
    async fn knock_in_vain(&self, cluster: &Cluster, node: u64) {
        let channel = cluster.channel(node);
        let began = Instant::now();
        while began.elapsed() < CUT_OFF_FOR {
            self.knocked.set(self.knocked.get() + 1);
            let mut stub = InventoryServiceClient::new(channel.clone());
            let write = stub.adjust(addition(&self.knocks, &self.location));
            let write = tokio::time::timeout(ANSWER_WITHIN, write).await;
            let is_answered = matches!(write, Ok(Ok(_)));
            assert!(!is_answered, "node {node}, alone, acknowledged a write");
            let read = position_at(&channel, &self.knocks, &self.location);
            let read = tokio::time::timeout(ANSWER_WITHIN, read).await;
            let is_answered = matches!(read, Ok(Ok(_)));
            assert!(
                !is_answered,
                "node {node}, alone, answered a linearizable read"
            );
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// After the trouble: all nodes serve, and agree.
    async fn check(&self, cluster: &Cluster) {
        assert_eq!(self.sent.get(), self.acknowledged.get());
        for node in NODES {
            let channel = cluster.channel(node);
            let seen = until("every node serving", SERVES_AGAIN_WITHIN, async || {
                let read = position_at(&channel, &self.sku, &self.location).await;
                read.map_err(|status| format!("node {node}: {status}"))
            })
            .await;
            assert_eq!(seen.on_hand, self.acknowledged.get(), "node {node}");
        }
        // A knock may have been let in and carried out once the node was heard again, but only
        // once.
        let knocks = position(&self.client, &self.knocks, &self.location).await;
        let carried_out = knocks.unwrap().on_hand - KNOCKS_OPENING;
        assert!(
            (0..=self.knocked.get()).contains(&carried_out),
            "{carried_out}"
        );
    }
}

fn addition(sku: &str, location: &str) -> AdjustRequest {
    AdjustRequest {
        source: None,
        document: fresh("one"),
        lines: vec![movement(sku, location, 1)],
        reason: "one more".to_owned(),
    }
}
