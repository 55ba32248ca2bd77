//! One measured stretch of one kind of call under one shape of load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::call::{CallKind, Recorder};
use super::targets::Targets;
use super::{closed_loop, open_loop};
use crate::stolen::{CpuTime, stolen_percent};

/// How long after a window the last answers may take.
const DRAIN_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    ClosedLoop { in_flight: u32 },
    OpenLoop { per_second: u32 },
}

/// The lead-in lets queues fill and caches warm; only what follows is counted.
#[derive(Clone, Copy)]
pub(crate) struct WindowTimes {
    pub(crate) lead_in: Duration,
    pub(crate) measured: Duration,
}

#[derive(Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) kind: CallKind,
    pub(crate) shape: Shape,
    pub(crate) round: u32,
    /// False where too much CPU was stolen.
    pub(crate) kept: bool,
    pub(crate) count: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Answers per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Open loop: how late calls were sent at p99; their times include it.
    pub(crate) late_p99_us: Option<f64>,
    pub(crate) stolen_percent: f64,
}

impl Window {
    pub(crate) async fn run(
        targets: &Targets,
        kind: CallKind,
        shape: Shape,
        round: u32,
        times: WindowTimes,
    ) -> anyhow::Result<Window> {
        let from = Instant::now() + times.lead_in;
        let until = from + times.measured;
        let recorder = &Arc::new(Recorder::new(from, until));
        let cpu = tokio::spawn(cpu_between(from, until));
        let mut calls = match shape {
            Shape::ClosedLoop { in_flight: 1 } => {
                closed_loop::start(targets.of_one_leader(), kind, 1, recorder)
            }
            Shape::ClosedLoop { in_flight } => {
                closed_loop::start(targets.all(), kind, in_flight as usize, recorder)
            }
            Shape::OpenLoop { per_second } => {
                open_loop::run(targets.all(), kind, per_second, recorder).await?
            }
        };
        let drained = async { while calls.join_next().await.is_some() {} };
        let patience = until.saturating_duration_since(Instant::now()) + DRAIN_MAX;
        if tokio::time::timeout(patience, drained).await.is_err() {
            bail!(
                "{kind}, {shape}: {} calls have no answer after {DRAIN_MAX:?}",
                calls.len()
            );
        }
        let (cpu_before, cpu_after) = cpu.await?;
        Ok(recorder.with(|results| Window {
            kind,
            shape,
            round,
            kept: true,
            count: results.took_ns.len(),
            errors: results.errors,
            first_error: results.first_error.take(),
            rate: results.took_ns.len() as f64 / times.measured.as_secs_f64(),
            p50_us: micros(&results.took_ns, 0.5),
            p99_us: micros(&results.took_ns, 0.99),
            p999_us: micros(&results.took_ns, 0.999),
            max_us: results.took_ns.max() as f64 / 1e3,
            late_p99_us: matches!(shape, Shape::OpenLoop { .. })
                .then(|| micros(&results.late_ns, 0.99)),
            stolen_percent: stolen_percent(cpu_before, cpu_after),
        }))
    }
}

async fn cpu_between(from: Instant, until: Instant) -> (Option<CpuTime>, Option<CpuTime>) {
    tokio::time::sleep_until(from.into()).await;
    let before = CpuTime::now();
    tokio::time::sleep_until(until.into()).await;
    (before, CpuTime::now())
}

fn micros(took_ns: &Histogram<u64>, quantile: f64) -> f64 {
    took_ns.value_at_quantile(quantile) as f64 / 1e3
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shape::ClosedLoop { in_flight } => write!(f, "{in_flight} in flight"),
            Shape::OpenLoop { per_second } => write!(f, "{per_second}/s scheduled"),
        }
    }
}
