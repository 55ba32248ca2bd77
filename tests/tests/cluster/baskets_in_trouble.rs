//! Baskets over several shards while nodes are killed and stopped in the middle of them: each is
//! held as a whole or not at all, and its caller is told the same whenever he asks.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use stock_client::{CallOptions, Client};
use stock_proto::stock::v1::{ErrorReason, ReserveRequest};
use tests::cluster::{Cluster, NODES, Options};
use tests::names::{request_id, sku_in};
use tests::settings;
use tests::stock::{fresh_location, line, outcome, position, receive};
use tests::wait::until;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SHARDS: u32 = 8;
const BUYERS: usize = 6;
/// Times that a node is killed, or stopped, while others buy.
const TROUBLES: u64 = 8;
const BETWEEN: Duration = Duration::from_millis(1_200);
/// Leaders are elected, what is undecided is found out, and everybody is told.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// One that meets no leader is given up long before, and asked again in the end.
const PATIENCE: Duration = Duration::from_secs(3);
const ASKED_AT_ONCE: usize = 32;
const PATIENCE_IN_THE_END: Duration = Duration::from_secs(30);

/// What a buyer was told: held, or not.
type Told = Option<bool>;

async fn ask(client: &Client, request: &ReserveRequest, patience: Duration) -> Told {
    let patient = client.clone().with(CallOptions::new().timeout(patience));
    match patient.reserve(request.clone()).await {
        Ok(answer) => Some(outcome(answer).is_ok()),
        Err(error) if error.reason() == ErrorReason::BasketNotHeld => Some(false),
        Err(_) => None,
    }
}

#[tokio::test]
async fn whatever_dies_in_the_middle_a_basket_is_held_as_a_whole_or_not_at_all() {
    let cluster = Cluster::start(Options {
        shards: SHARDS,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let location = fresh_location(&client).await;
    let mut skus = Vec::new();
    for shard in 0..SHARDS {
        let sku = sku_in(shard, SHARDS, "trouble");
        receive(&client, &sku, &location, 100_000).await;
        skus.push(sku);
    }
    // The last one is short in the end.
    let scarce = sku_in(3, SHARDS, "zz-scarce");
    receive(&client, &scarce, &location, 40).await;
    skus.push(scarce);

    let over = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for buyer in 0..BUYERS {
        let (client, over) = (client.clone(), Arc::clone(&over));
        let (skus, location) = (skus.clone(), location.clone());
        buyers.spawn(async move {
            let mut asked = Vec::new();
            let mut number = buyer;
            while !over.load(Ordering::Relaxed) {
                // Over two to all shards, and the scarce one in every seventh basket.
                let shards = 2 + number % (SHARDS as usize - 1);
                let of_all = (0..shards).map(|it| &skus[(number + it) % SHARDS as usize]);
                let scarce = (number % 7 == 0).then(|| &skus[SHARDS as usize]);
                let lines = of_all.chain(scarce);
                let request = ReserveRequest {
                    request_id: request_id(),
                    lines: lines.map(|sku| line(sku, &location, 1)).collect(),
                    ..ReserveRequest::default()
                };
                let told = ask(&client, &request, PATIENCE).await;
                asked.push((request, told));
                number += BUYERS;
            }
            asked
        });
    }

    let troubles = settings::number("STOCKD_BASKET_TROUBLES", TROUBLES);
    for trouble in 0..troubles {
        sleep(BETWEEN).await;
        let node = NODES[trouble as usize % NODES.len()];
        if trouble % 3 == 2 {
            cluster.pause(node);
            sleep(BETWEEN).await;
            cluster.resume(node);
        } else {
            cluster.kill(node);
            sleep(BETWEEN / 2).await;
            cluster.restart(node);
        }
        cluster.wait_until_led().await;
    }
    over.store(true, Ordering::Relaxed);

    let began = Instant::now();
    let (mut held, mut short, mut unknown) = (0, 0, 0);
    let mut expected: BTreeMap<String, i64> = skus.iter().map(|sku| (sku.clone(), 0)).collect();
    while let Some(asked) = buyers.join_next().await {
        let asked = stream::iter(asked.unwrap()).map(async |(request, told)| {
            let again = ask(&client, &request, PATIENCE_IN_THE_END).await;
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
    until("everybody follows", SETTLED_WITHIN, async || {
        let mut differ = Vec::new();
        for (sku, units) in &expected {
            let seen = position(&client, sku, &location).await;
            let reserved = seen.map_err(|error| error.to_string())?.reserved;
            if reserved != *units {
                differ.push(format!("{sku}: {reserved} instead of {units}"));
            }
        }
        match differ.is_empty() {
            true => Ok(()),
            false => Err(differ.join(", ")),
        }
    })
    .await;
    assert!(held > 0 && short > 0, "{held} held, {short} not");
    let took = began.elapsed();
    eprintln!("{held} baskets held, {short} not, {unknown} asked for again; settled in {took:?}");
}
