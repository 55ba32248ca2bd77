//! Who leads: spread over the nodes, replaced when one dies, handed over when one stops.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::cluster::{Cluster, NODES, Options, STOP_WITHIN};
use tests::names::{fresh, sku_in};
use tests::stock::{fresh_location, held, receive, reserve};
use tests::wait::{finish, until};

/// An election takes about a second; a busy machine and a debug build take their share.
const WRITES_RESUME_WITHIN: Duration = Duration::from_secs(8);

#[tokio::test]
async fn each_node_leads_about_a_third() {
    let cluster = Cluster::shared().await;
    cluster.wait_until_spread().await;
    let leaders = cluster.agreed_leaders().await.unwrap();
    for node in NODES {
        let led = leaders.iter().filter(|leader| **leader == node).count();
        assert!((2..=4).contains(&led), "node {node} of {leaders:?}");
    }
}

#[tokio::test]
async fn writes_resume_when_a_leader_is_killed_and_leaders_spread_again_when_it_is_back() {
    let cluster = Cluster::start(Options::default()).await;
    let client = cluster.client().await;
    cluster.wait_until_spread().await;
    let location = fresh_location(&client).await;
    let victim = cluster.leader_of(0).await;
    let skus: Vec<String> = (0..cluster.shards())
        .map(|shard| sku_in(shard, cluster.shards(), "resume"))
        .collect();
    for sku in &skus {
        receive(&client, sku, &location, 10).await;
    }

    cluster.kill(victim);
    let killed = Instant::now();
    for sku in &skus {
        let answer = finish("a write after a leader died", WRITES_RESUME_WITHIN, async {
            client.reserve(reserve(sku, &location, 1)).await
        })
        .await;
        held(answer.unwrap());
    }
    eprintln!("writes resumed in every shard after {:?}", killed.elapsed());
    cluster.wait_until_led().await;
    let leaders = cluster.agreed_leaders().await.unwrap();
    assert!(!leaders.contains(&victim), "{leaders:?}");

    cluster.restart(victim);
    cluster.wait_until_spread().await;
    let leaders = cluster.agreed_leaders().await.unwrap();
    assert!(leaders.contains(&victim), "{leaders:?}");
}

/// Calls that never pause, so that any moment without a leader is felt.
const CALLERS: usize = 8;

#[tokio::test]
async fn a_node_that_is_asked_to_stop_hands_over_first_and_no_call_fails() {
    let cluster = Cluster::start(Options::default()).await;
    let client = cluster.client().await;
    cluster.wait_until_spread().await;
    let location = fresh_location(&client).await;
    let stopping = cluster.leader_of(0).await;
    let watching = NODES.into_iter().find(|node| *node != stopping).unwrap();

    let is_over = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    let longest_us = AtomicU64::new(0);
    let callers = (0..CALLERS as u32).map(|caller| {
        let (client, location) = (&client, &location);
        let (is_over, calls, longest_us) = (&is_over, &calls, &longest_us);
        let sku = sku_in(caller % cluster.shards(), cluster.shards(), "graceful");
        async move {
            receive(client, &sku, location, 1_000_000).await;
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = client.reserve(reserve(&sku, location, 1)).await;
                held(answer.unwrap_or_else(|e| panic!("a call failed: {e}")));
                longest_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let more_calls = async |count: u64| {
        let target = calls.load(Ordering::Relaxed) + count;
        until("calls under way", STOP_WITHIN, async || {
            let done = calls.load(Ordering::Relaxed);
            (done >= target).then_some(()).ok_or(format!("{done}"))
        })
        .await;
    };
    let stop = async {
        more_calls(200).await;
        cluster.terminate(stopping);
        let mut seen = None;
        let status = until("the end of a node", STOP_WITHIN, async || {
            // In this order: what is seen was so before the process was found ended.
            let topology = cluster.topology(watching).await?;
            if let Some(status) = cluster.ended(stopping) {
                return Ok(status);
            }
            let groups = topology.meta.iter().chain(&topology.shards);
            let led = groups.filter(|group| group.leader_node_id == Some(stopping));
            let led = led.count();
            seen = Some(led);
            Err(format!("it runs, leading {led} groups"))
        })
        .await;
        assert!(status.success(), "{status}");
        assert_eq!(seen, Some(0), "groups it led when it ended");
        more_calls(200).await;
        cluster.reap(stopping);
        cluster.restart(stopping);
        cluster.wait_until_led().await;
        more_calls(200).await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(futures_util::future::join_all(callers), stop);
    let (calls, longest_us) = (calls.into_inner(), longest_us.into_inner());
    eprintln!("{calls} calls, the longest took {longest_us} us");
}

#[tokio::test]
async fn a_node_that_restarts_catches_up_and_serves() {
    let cluster = Cluster::start(Options {
        shards: 1,
        ..Options::default()
    })
    .await;
    let client = cluster.client().await;
    let (sku, location) = (fresh("catch-up"), fresh_location(&client).await);
    receive(&client, &sku, &location, 1_000).await;
    let leader = cluster.leader_of(0).await;
    let away = NODES.into_iter().find(|node| *node != leader).unwrap();

    cluster.kill(away);
    let mut last = None;
    for _ in 0..300 {
        let answer = client.reserve(reserve(&sku, &location, 1)).await.unwrap();
        last = answer.header;
    }
    cluster.restart(away);
    cluster.wait_until_led().await;

    let channel = cluster.channel(away);
    let seen = tests::stock::position_since(&channel, &sku, &location, &last.unwrap()).await;
    assert_eq!(seen.unwrap().reserved, 300);
}
