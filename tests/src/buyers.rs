//! Buyers of baskets over several shards, and what they were told: each basket is held as a whole
//! or not at all, and its buyer is told the same whenever he asks.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use stock_client::{CallOptions, Client};
use stock_proto::stock::v1::{ErrorReason, ReserveRequest};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::names::{request_id, sku_in};
use crate::stock::{fresh_location, line, outcome, position, receive};
use crate::wait::until;

const BUYERS: u64 = 6;
/// Of each SKU but the scarce one; nobody buys as many.
const PLENTY: i64 = 100_000;
const SCARCE: i64 = 40;
/// Every basket of so many has the scarce SKU in it.
const SCARCE_EVERY: u64 = 7;
/// Leaders are elected, what is undecided is found out, and everybody is told.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// A basket that meets no leader is given up long before, and asked for again in the end.
const PATIENCE: Duration = Duration::from_secs(3);
const ASKED_AT_ONCE: usize = 32;
const PATIENCE_IN_THE_END: Duration = Duration::from_secs(30);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What a buyer was told: held, or not; none if it was nothing.
type Told = Option<bool>;

/// They buy until they are asked what became of it.
pub struct Buyers {
    client: Client,
    location: String,
    /// One in each shard, and the scarce one.
    skus: Vec<String>,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    asked: JoinSet<Vec<(ReserveRequest, Told)>>,
}

impl Buyers {
    /// Six of them, at a location of their own, for baskets over two to all of these shards.
    pub async fn begin(client: &Client, shards: u32) -> Self {
        let location = fresh_location(client).await;
        let mut skus = Vec::new();
        for shard in 0..shards {
            let sku = sku_in(shard, shards, "plenty");
            receive(client, &sku, &location, PLENTY).await;
            skus.push(sku);
        }
        let scarce = sku_in(shards / 2, shards, "zz-scarce");
        receive(client, &scarce, &location, SCARCE).await;
        skus.push(scarce);
        let mut buyers = Self {
            client: client.clone(),
            location,
            skus,
            over: Arc::default(),
            answered: Arc::default(),
            asked: JoinSet::new(),
        };
        (0..BUYERS).for_each(|buyer| buyers.send_in(buyer));
        buyers
    }

    fn send_in(&mut self, buyer: u64) {
        let (client, location) = (self.client.clone(), self.location.clone());
        let (over, answered) = (Arc::clone(&self.over), Arc::clone(&self.answered));
        let skus = self.skus.clone();
        self.asked.spawn(async move {
            let mut asked = Vec::new();
            let mut number = buyer;
            while !over.load(Ordering::Relaxed) {
                let request = basket(number, &skus, &location);
                let told = ask(&client, &request, PATIENCE).await;
                answered.fetch_add(u64::from(told.is_some()), Ordering::Relaxed);
                asked.push((request, told));
                number += BUYERS;
            }
            asked
        });
    }

    /// Waits until so many more of them were answered.
    pub async fn more_answers(&self, count: u64) {
        let target = self.answered.load(Ordering::Relaxed) + count;
        until("answers to buyers", ANSWERED_WITHIN, async || {
            let answered = self.answered.load(Ordering::Relaxed);
            (answered >= target)
                .then_some(())
                .ok_or(format!("{answered} of {target}"))
        })
        .await;
    }

    /// They stop, and ask for everything once more: each is told what it was told before, and all
    /// shards soon have reserved what is held, and nothing else.
    pub async fn account(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let (mut held, mut short, mut unknown) = (0, 0, 0);
        let mut expected: BTreeMap<String, i64> =
            self.skus.iter().map(|sku| (sku.clone(), 0)).collect();
        let began = Instant::now();
        while let Some(asked) = self.asked.join_next().await {
            let client = &self.client;
            let asked = stream::iter(asked.unwrap()).map(async |(request, told)| {
                let again = ask(client, &request, PATIENCE_IN_THE_END).await;
                (request, told, again)
            });
            let mut again = pin!(asked.buffer_unordered(ASKED_AT_ONCE));
            while let Some((request, told, again)) = again.next().await {
                unknown += u32::from(told.is_none());
                assert!(again.is_some(), "nobody knows what became of {request:?}");
                if told.is_some() {
                    assert_eq!(again, told, "{request:?}");
                }
                match again {
                    Some(true) => {
                        held += 1;
                        for line in request.lines {
                            *expected.entry(line.sku).or_default() += line.quantity;
                        }
                    }
                    _ => short += 1,
                }
            }
        }
        until("everybody follows", SETTLED_WITHIN, || {
            self.reserved(&expected)
        })
        .await;
        assert!(held > 0 && short > 0, "{held} held, {short} not");
        let took = began.elapsed();
        eprintln!(
            "{held} baskets held, {short} not, {unknown} asked for again; settled in {took:?}"
        );
    }

    /// Whether so many units of each are reserved.
    async fn reserved(&self, expected: &BTreeMap<String, i64>) -> Result<(), String> {
        let mut differ = Vec::new();
        for (sku, units) in expected {
            let seen = position(&self.client, sku, &self.location).await;
            let reserved = seen.map_err(|error| error.to_string())?.reserved;
            if reserved != *units {
                differ.push(format!("{sku}: {reserved} instead of {units}"));
            }
        }
        match differ.is_empty() {
            true => Ok(()),
            false => Err(differ.join(", ")),
        }
    }
}

/// Over two to all shards, and now and then with the scarce SKU.
fn basket(number: u64, skus: &[String], location: &str) -> ReserveRequest {
    let (scarce, plenty) = skus.split_last().expect("there is a scarce one");
    let shards = 2 + number as usize % (plenty.len() - 1);
    let of_all = (0..shards).map(|it| &plenty[(number as usize + it) % plenty.len()]);
    let scarce = number.is_multiple_of(SCARCE_EVERY).then_some(scarce);
    let lines = of_all.chain(scarce);
    ReserveRequest {
        request_id: request_id(),
        lines: lines.map(|sku| line(sku, location, 1)).collect(),
        ..ReserveRequest::default()
    }
}

async fn ask(client: &Client, request: &ReserveRequest, patience: Duration) -> Told {
    let patient = client.clone().with(CallOptions::new().timeout(patience));
    match patient.reserve(request.clone()).await {
        Ok(answer) => Some(outcome(answer).is_ok()),
        Err(error) if error.reason() == ErrorReason::BasketNotHeld => Some(false),
        Err(_) => None,
    }
}
