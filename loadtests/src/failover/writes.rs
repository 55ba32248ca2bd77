//! Reserves on a schedule, and when each was answered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use stock_client::Client;
use stock_proto::stock::v1::reserve_response::Outcome;
use stock_proto::stock::v1::{Line, ReserveRequest};
use stock_tally::stock;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep};

const LOCATION: &str = "failover";

/// Names tried until one is in the shard.
const NAMES_MAX: u32 = 100_000;

/// More than any run reserves.
const STOCK: i64 = 1_000_000_000;

/// Calls that may wait for answers at the same time: 20 s at 500 a second. Past this none is sent.
const IN_FLIGHT_MAX: u32 = 10_000;

/// No hold outlasts a test by much.
const HOLD_SECONDS: i64 = 60;

const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Calls under way, and those that were answered.
pub(crate) struct Writes {
    log: Rc<Log>,
    sender: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    /// When each was sent and answered, in the order of the answers.
    answered: RefCell<Vec<(Instant, Instant)>>,
    failures: RefCell<Vec<String>>,
    in_flight: Cell<u32>,
    is_over: Cell<bool>,
}

impl Writes {
    /// Begins to write to a shard. Must run inside a `LocalSet`.
    pub(crate) async fn begin(
        client: &Client,
        shard: u32,
        per_second: u32,
    ) -> anyhow::Result<Writes> {
        let sku = (0..NAMES_MAX)
            .map(|number| format!("failover-{number}"))
            .find(|sku| client.shard_of(sku) == shard)
            .context("no name is in the shard")?;
        stock_up(client, &sku).await?;
        let log = Rc::new(Log::default());
        let sender = spawn_local(send(client.clone(), sku, per_second, Rc::clone(&log)));
        Ok(Writes { log, sender })
    }

    /// From a moment until the answer of the first write that was sent after it.
    pub(crate) async fn first_answer_after(
        &self,
        moment: Instant,
        within: Duration,
    ) -> anyhow::Result<Duration> {
        loop {
            let first = {
                let answered = self.log.answered.borrow();
                let later = answered.iter().rev().take_while(|(_, at)| *at > moment);
                let sent_later = later.filter(|(sent, _)| *sent > moment);
                sent_later.map(|(_, at)| *at).min()
            };
            if let Some(at) = first {
                return Ok(at - moment);
            }
            ensure!(
                moment.elapsed() < within,
                "no write was answered in {within:?}"
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// The longest time between two answers, from the last one before a moment until now.
    pub(crate) fn longest_gap_since(&self, moment: Instant) -> Duration {
        let answered = self.log.answered.borrow();
        let from = answered.partition_point(|(_, at)| *at < moment);
        let window = &answered[from.saturating_sub(1)..];
        let gaps = window.windows(2).map(|pair| pair[1].1 - pair[0].1);
        let still = window.last().map_or(Duration::ZERO, |(_, at)| at.elapsed());
        gaps.chain([still]).max().unwrap_or_default()
    }

    /// Sends no more, waits for what was sent, and returns what failed.
    pub(crate) async fn end(self) -> Vec<String> {
        self.log.is_over.set(true);
        // Its end is all there is to it.
        let _ = self.sender.await;
        while self.log.in_flight.get() > 0 {
            sleep(LOOK_EVERY).await;
        }
        self.log.failures.take()
    }
}

async fn send(client: Client, sku: String, per_second: u32, log: Rc<Log>) {
    let mut schedule = interval(Duration::from_secs(1) / per_second);
    schedule.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !log.is_over.get() {
        schedule.tick().await;
        if log.in_flight.get() >= IN_FLIGHT_MAX {
            continue;
        }
        log.in_flight.set(log.in_flight.get() + 1);
        let (client, sku, log) = (client.clone(), sku.clone(), Rc::clone(&log));
        spawn_local(async move {
            let sent = Instant::now();
            match reserve(&client, sku).await {
                Ok(()) => log.answered.borrow_mut().push((sent, Instant::now())),
                Err(error) => log.failures.borrow_mut().push(format!("{error:#}")),
            }
            log.in_flight.set(log.in_flight.get() - 1);
        });
    }
}

async fn reserve(client: &Client, sku: String) -> anyhow::Result<()> {
    let request = ReserveRequest {
        lines: vec![Line::at(sku, LOCATION, 1)],
        ttl: Some(prost_types::Duration {
            seconds: HOLD_SECONDS,
            nanos: 0,
        }),
        ..Default::default()
    };
    match client.reserve(request).await?.outcome {
        Some(Outcome::Reservation(_)) => Ok(()),
        other => bail!("expected a reservation, got {other:?}"),
    }
}

async fn stock_up(client: &Client, sku: &str) -> anyhow::Result<()> {
    stock::put_stores(client, [&LOCATION.to_owned()]).await?;
    let line = stock::movement("1".to_owned(), sku, LOCATION, STOCK);
    stock::receive(client, "failover", &[line]).await?;
    Ok(())
}
