//! Reserves on a schedule, timed from when they were due, and sorted by what the node did
//! meanwhile.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use stock_client::Client;
use stock_proto::stock::v1::reserve_response::Outcome;
use stock_proto::stock::v1::{Line, ReserveRequest};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::stock::Assortment;

/// No hold outlasts a run by much.
const HOLD_SECONDS: i64 = 120;

/// Calls that may wait at the same time: 20 s at 1,000 a second. Past this, calls that are due
/// wait.
const IN_FLIGHT_MAX: u32 = 20_000;

const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Spreads numbers over all SKUs: a prime.
const STRIDE: u64 = 1_000_003;

/// What the node does when a reserve is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Nothing else.
    Quiet,
    /// It writes a checkpoint.
    Checkpoint,
    /// Nodes join: snapshots are sent, received and taken in.
    Joining,
}

/// How long reserves took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) when: &'static str,
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// Calls under way, and how long those took that were answered.
pub(crate) struct Reserves {
    log: Rc<Log>,
    sender: JoinHandle<()>,
}

struct Log {
    sort: Cell<Sort>,
    quiet: RefCell<Histogram<u64>>,
    checkpoint: RefCell<Histogram<u64>>,
    joining: RefCell<Histogram<u64>>,
    failures: RefCell<Vec<String>>,
    in_flight: Cell<u32>,
    is_over: Cell<bool>,
}

impl Reserves {
    /// Begins to reserve. Must run inside a `LocalSet`.
    pub(crate) fn begin(client: &Client, assortment: &Assortment, per_second: u32) -> Reserves {
        let log = Rc::new(Log {
            sort: Cell::new(Sort::Quiet),
            quiet: RefCell::new(crate::lab::histogram()),
            checkpoint: RefCell::new(crate::lab::histogram()),
            joining: RefCell::new(crate::lab::histogram()),
            failures: RefCell::default(),
            in_flight: Cell::new(0),
            is_over: Cell::new(false),
        });
        let lines: Vec<Line> = (0..1_024)
            .map(|number| {
                Line::at(
                    assortment.sku(number * STRIDE),
                    assortment.location(number),
                    1,
                )
            })
            .collect();
        let sender = spawn_local(send(client.clone(), lines, per_second, Rc::clone(&log)));
        Reserves { log, sender }
    }

    /// What the node does from now on.
    pub(crate) fn now_is(&self, sort: Sort) {
        self.log.sort.set(sort);
    }

    /// Sends no more, waits for what was sent, and returns how long all took and what failed.
    pub(crate) async fn end(self) -> (Vec<Latency>, Vec<String>) {
        self.log.is_over.set(true);
        // Its end is all there is to it.
        let _ = self.sender.await;
        while self.log.in_flight.get() > 0 {
            sleep(LOOK_EVERY).await;
        }
        let latencies = [
            ("alone", &self.log.quiet),
            ("while a checkpoint is written", &self.log.checkpoint),
            ("while nodes join", &self.log.joining),
        ];
        let latencies = latencies.map(|(when, took_ns)| latency(when, &took_ns.borrow()));
        (latencies.into(), self.log.failures.take())
    }
}

fn latency(when: &'static str, took_ns: &Histogram<u64>) -> Latency {
    let micros = |share| took_ns.value_at_quantile(share) as f64 / 1e3;
    Latency {
        when,
        count: took_ns.len(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        max_us: took_ns.max() as f64 / 1e3,
    }
}

async fn send(client: Client, lines: Vec<Line>, per_second: u32, log: Rc<Log>) {
    let mut schedule = interval(Duration::from_secs(1) / per_second);
    // What was delayed is sent at once and timed from when it was due.
    schedule.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut next = lines.iter().cycle();
    while !log.is_over.get() {
        let due: Instant = schedule.tick().await.into();
        while log.in_flight.get() >= IN_FLIGHT_MAX {
            sleep(LOOK_EVERY).await;
        }
        let Some(line) = next.next().cloned() else {
            return;
        };
        log.in_flight.set(log.in_flight.get() + 1);
        let (client, log, sort) = (client.clone(), Rc::clone(&log), log.sort.get());
        spawn_local(async move {
            match reserve(&client, line).await {
                Ok(()) => {
                    let took_ns = match sort {
                        Sort::Quiet => &log.quiet,
                        Sort::Checkpoint => &log.checkpoint,
                        Sort::Joining => &log.joining,
                    };
                    let nanos = due.elapsed().as_nanos() as u64;
                    took_ns.borrow_mut().saturating_record(nanos);
                }
                Err(error) => log.failures.borrow_mut().push(error),
            }
            log.in_flight.set(log.in_flight.get() - 1);
        });
    }
}

async fn reserve(client: &Client, line: Line) -> Result<(), String> {
    let request = ReserveRequest {
        lines: vec![line],
        ttl: Some(prost_types::Duration {
            seconds: HOLD_SECONDS,
            nanos: 0,
        }),
        ..Default::default()
    };
    match client.reserve(request).await {
        Ok(answer) => match answer.outcome {
            Some(Outcome::Reservation(_)) => Ok(()),
            other => Err(format!("expected a reservation, got {other:?}")),
        },
        Err(error) => Err(error.to_string()),
    }
}
