//! Receipts that were acknowledged, and whether they are there: for tests that care about nothing
//! else.

use std::cell::Cell;
use std::time::{Duration, Instant};

use stock_client::Client;
use stock_proto::stock::v1::inventory_service_client::InventoryServiceClient;
use stock_proto::stock::v1::{AdjustRequest, RecordReceiptsRequest};
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::names::{fresh, sku_in};
use crate::stock::{fresh_location, movement, position_at};
use crate::wait::until;

/// From the first time that a receipt is sent until it is acknowledged, elections included.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// From the time that a node is there until it answers linearizably.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// How long one question to one node may take: one without a majority may not answer at all.
const KNOCK_WITHIN: Duration = Duration::from_secs(1);

/// Between two knocks at the same door.
const KNOCK_EVERY: Duration = Duration::from_millis(50);

/// One unit of one SKU for each shard arrives at a time, so that what is on hand is how many were
/// acknowledged.
pub struct Receipts {
    client: Client,
    location: String,
    skus: Vec<String>,
    /// Of each shard.
    acknowledged: Cell<i64>,
    sent: Cell<i64>,
}

impl Receipts {
    /// None yet, at a location of their own.
    pub async fn open(cluster: &Cluster) -> Self {
        Self::through(cluster.client().await, cluster.shards()).await
    }

    /// As [`Self::open`], through any client of a cluster with so many shards.
    pub async fn through(client: Client, shards: u32) -> Self {
        let location = fresh_location(&client).await;
        let skus = (0..shards).map(|shard| sku_in(shard, shards, "counted"));
        Self {
            skus: skus.collect(),
            location,
            client,
            acknowledged: Cell::new(0),
            sent: Cell::new(0),
        }
    }

    /// Where they arrive.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Of what, one for each shard.
    pub fn skus(&self) -> &[String] {
        &self.skus
    }

    /// How many were acknowledged, of each shard.
    pub fn acknowledged(&self) -> i64 {
        self.acknowledged.get()
    }

    /// Sends so many for each shard, one after the other, and waits until each is acknowledged.
    pub async fn add(&self, count: u32) {
        for _ in 0..count {
            self.sent.set(self.sent.get() + 1);
            for sku in &self.skus {
                // The document makes that each counts once, however often it is sent.
                let receipt = RecordReceiptsRequest {
                    source: None,
                    document: fresh("note"),
                    lines: vec![movement(sku, &self.location, 1)],
                };
                until("a receipt", ACKNOWLEDGED_WITHIN, async || {
                    let answer = self.client.record_receipts([receipt.clone()]).await;
                    answer.map(drop).map_err(|error| error.to_string())
                })
                .await;
            }
            self.acknowledged.set(self.acknowledged.get() + 1);
        }
    }

    /// As [`Self::add`], for as long as that: at least so many times a second, and once in any
    /// case.
    pub async fn add_for(&self, time: Duration, every: Duration) {
        let began = Instant::now();
        loop {
            self.add(1).await;
            if began.elapsed() >= time {
                return;
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Waits until every node that runs answers linearizably, and panics unless each has all that
    /// was acknowledged and nothing else.
    pub async fn check_everywhere(&self, cluster: &Cluster) {
        for node in cluster.running() {
            let who = format!("node {node}");
            self.check_at(&who, &cluster.channel(node)).await;
        }
    }

    /// As [`Self::check_everywhere`], at one node.
    pub async fn check_at(&self, who: &str, channel: &Channel) {
        for sku in &self.skus {
            let seen = until("a linearizable answer", ANSWERED_WITHIN, async || {
                let read = position_at(channel, sku, &self.location).await;
                read.map_err(|status| format!("{who}: {status}"))
            })
            .await;
            assert_eq!(seen.on_hand, self.acknowledged.get(), "{sku} at {who}");
        }
    }

    /// Asks at these doors, again and again, for as long as `trouble` goes on: whoever answers
    /// linearizably has at least what had been acknowledged before he was asked.
    pub async fn watch_during<T>(
        &self,
        doors: &[(u64, Channel)],
        trouble: impl Future<Output = T>,
    ) -> T {
        let watching = async {
            loop {
                for (node, channel) in doors {
                    self.watch(*node, channel).await;
                }
                tokio::time::sleep(KNOCK_EVERY).await;
            }
        };
        tokio::select! {
            () = watching => unreachable!("watching never ends"),
            done = trouble => done,
        }
    }

    async fn watch(&self, node: u64, channel: &Channel) {
        for sku in &self.skus {
            let acknowledged = self.acknowledged.get();
            let read = position_at(channel, sku, &self.location);
            // That a node does not answer is all right.
            if let Ok(Ok(seen)) = tokio::time::timeout(KNOCK_WITHIN, read).await {
                let range = acknowledged..=self.sent.get();
                let on_hand = seen.on_hand;
                assert!(
                    range.contains(&on_hand),
                    "node {node} says {on_hand} of {sku}; {range:?} were acknowledged and sent"
                );
            }
        }
    }

    /// Asks these nodes, which are no majority, for so long to write and to read: none of them can.
    pub async fn knock_in_vain(&self, doors: &[(u64, Channel)], time: Duration) {
        let knocks = self.skus.iter().map(|sku| format!("{sku}-knocks"));
        let knocks: Vec<String> = knocks.collect();
        let began = Instant::now();
        while began.elapsed() < time {
            for (node, channel) in doors {
                for (sku, knock) in self.skus.iter().zip(&knocks) {
                    let write = AdjustRequest {
                        source: None,
                        document: fresh("knock"),
                        lines: vec![movement(knock, &self.location, 1)],
                        reason: "a knock".to_owned(),
                    };
                    let mut stub = InventoryServiceClient::new(channel.clone());
                    let write = tokio::time::timeout(KNOCK_WITHIN, stub.adjust(write)).await;
                    let is_answered = matches!(write, Ok(Ok(_)));
                    assert!(!is_answered, "node {node} acknowledged a write");
                    let read = position_at(channel, sku, &self.location);
                    let read = tokio::time::timeout(KNOCK_WITHIN, read).await;
                    let is_answered = matches!(read, Ok(Ok(_)));
                    assert!(!is_answered, "node {node} answered a linearizable read");
                }
            }
            tokio::time::sleep(KNOCK_EVERY).await;
        }
    }
}
