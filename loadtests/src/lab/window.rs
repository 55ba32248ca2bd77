//! One measured stretch of one kind of call under one kind of load.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use super::call::{Caller, STOLEN_PERCENT_MAX};
use super::detail::{Detail, Point, Summary};
use super::load::{Load, WindowTimes};
use super::patience::Patience;
use super::recorder::Recorder;
use super::stolen::{CpuTime, stolen_percent};
use super::usage::{Processes, Usage};
use super::{closed_loop, open_loop};

/// How long after a window the last answers may take.
const DRAIN_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Window {
    /// What was called.
    pub(crate) what: String,
    pub(crate) load: Load,
    pub(crate) round: u32,
    /// How long it was measured.
    pub(crate) seconds: f64,
    /// False where too much CPU was stolen.
    pub(crate) kept: bool,
    pub(crate) calls: u64,
    /// A call may reserve several.
    pub(crate) lines: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Told that there is too much to do.
    pub(crate) refused: u64,
    /// Lines per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Open loop: how late calls were sent at p99; their times include it.
    pub(crate) late_p99_us: Option<f64>,
    /// Open loop: the system did not carry the rate, and the window was given up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_behind: bool,
    /// How long it took to be refused, at p99.
    pub(crate) refused_p99_us: Option<f64>,
    /// Processor time for one line: of the servers, and of this program.
    pub(crate) server_cpu_us: f64,
    pub(crate) client_cpu_us: f64,
    /// Bytes that the servers wrote for one line, in whole pages.
    pub(crate) written_bytes: f64,
    /// Context switches of the servers for one line.
    pub(crate) switches: f64,
    pub(crate) stolen_percent: f64,
    /// By kind of call, where it is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) kinds: BTreeMap<&'static str, Summary>,
    /// As it went on, where it is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) points: Vec<Point>,
}

/// What the machine and the processes had used at some moment.
#[derive(Clone, Copy)]
struct Reading {
    machine: Option<CpuTime>,
    servers: Usage,
    own: Usage,
}

impl Window {
    /// Runs one window of calls; once more while too much is stolen and patience is left. Returns
    /// those that were thrown away, too.
    pub(crate) async fn run<C: Caller>(
        what: &str,
        callers: &[C],
        servers: &Processes,
        load: Load,
        times: WindowTimes,
        patience: &mut Patience,
    ) -> anyhow::Result<Vec<Window>> {
        Window::repeat(what, load, patience, async || {
            Window::once(what, callers, servers, load, times).await
        })
        .await
    }

    /// Runs one window of calls, whatever is stolen from it.
    pub(crate) async fn once<C: Caller>(
        what: &str,
        callers: &[C],
        servers: &Processes,
        load: Load,
        times: WindowTimes,
    ) -> anyhow::Result<Window> {
        Window::measure(what, load, servers, times, async |recorder| match load {
            Load::ClosedLoop { in_flight } => {
                Ok(closed_loop::start(callers, in_flight as usize, recorder))
            }
            Load::OpenLoop { per_second } => open_loop::run(callers, per_second, recorder).await,
            Load::Stream { .. } | Load::OpenStream { .. } | Load::Planned { .. } => {
                bail!("{what}: {load} is no loop of calls")
            }
        })
        .await
    }

    /// Runs a window until it is one to keep, or one that failed, or patience is over.
    pub(crate) async fn repeat(
        what: &str,
        load: Load,
        patience: &mut Patience,
        mut run: impl AsyncFnMut() -> anyhow::Result<Window>,
    ) -> anyhow::Result<Vec<Window>> {
        let mut windows = Vec::new();
        loop {
            let began = Instant::now();
            let window = run().await?;
            let is_last = window.kept || window.errors > 0 || patience.is_over();
            if !window.kept {
                say!(
                    "thrown away: {what}, {load}: {:.1} % of the CPU was stolen; {}",
                    window.stolen_percent,
                    if is_last {
                        "patience is over"
                    } else {
                        "once more"
                    }
                );
            }
            windows.push(window);
            if is_last {
                return Ok(windows);
            }
            patience.spend(began.elapsed()).await;
        }
    }

    /// Measures whatever `start` starts: it returns when the last call is sent, with the tasks that
    /// are still to end.
    pub(crate) async fn measure(
        what: &str,
        load: Load,
        servers: &Processes,
        times: WindowTimes,
        start: impl AsyncFnOnce(&Rc<Recorder>) -> anyhow::Result<JoinSet<()>>,
    ) -> anyhow::Result<Window> {
        let recorder = &Rc::new(Recorder::new(times));
        let until = recorder.until();
        let readings = read_between(servers.clone(), Rc::clone(recorder));
        let readings = tokio::task::spawn_local(readings);
        let mut calls = start(recorder).await?;
        let drained = async { while calls.join_next().await.is_some() {} };
        let patience = until.saturating_duration_since(Instant::now()) + DRAIN_MAX;
        if tokio::time::timeout(patience, drained).await.is_err() {
            bail!(
                "{what}, {load}: {} calls have no answer after {DRAIN_MAX:?}",
                calls.len()
            );
        }
        let (before, after) = readings.await?;
        let measured = recorder.until();
        let measured = measured.saturating_duration_since(recorder.from());
        Ok(recorder.with(|results| {
            let calls = results.took_ns.len();
            let lines = results.lines;
            let is_closed = matches!(load, Load::ClosedLoop { .. } | Load::Stream { .. });
            let detail = results.detail.as_mut().map(Detail::finish);
            let (kinds, points) = detail.unwrap_or_default();
            let stolen_percent = stolen_percent(before.machine, after.machine);
            let servers = after.servers.since(before.servers);
            let per_line = |total: f64| super::ratio(total, lines as f64);
            Window {
                what: what.to_owned(),
                load,
                round: 0,
                seconds: measured.as_secs_f64(),
                kept: stolen_percent <= STOLEN_PERCENT_MAX,
                calls,
                lines,
                errors: results.errors,
                first_error: results.first_error.take(),
                refused: results.refused_ns.len(),
                rate: super::ratio(lines as f64, measured.as_secs_f64()),
                p50_us: micros(&results.took_ns, 0.5),
                p99_us: micros(&results.took_ns, 0.99),
                p999_us: micros(&results.took_ns, 0.999),
                max_us: results.took_ns.max() as f64 / 1e3,
                late_p99_us: (!is_closed).then(|| micros(&results.late_ns, 0.99)),
                is_behind: results.is_behind,
                refused_p99_us: (!results.refused_ns.is_empty())
                    .then(|| micros(&results.refused_ns, 0.99)),
                server_cpu_us: per_line(servers.cpu.as_secs_f64() * 1e6),
                client_cpu_us: per_line(after.own.since(before.own).cpu.as_secs_f64() * 1e6),
                written_bytes: per_line(servers.written_bytes as f64),
                switches: per_line(servers.switches as f64),
                stolen_percent,
                kinds,
                points,
            }
        }))
    }
}

impl Reading {
    fn now(servers: &Processes) -> Reading {
        Reading {
            machine: CpuTime::now(),
            servers: servers.usage(),
            own: Usage::own(),
        }
    }
}

async fn read_between(servers: Processes, recorder: Rc<Recorder>) -> (Reading, Reading) {
    tokio::time::sleep_until(recorder.from().into()).await;
    let before = Reading::now(&servers);
    recorder.over().await;
    (before, Reading::now(&servers))
}

fn micros(took_ns: &Histogram<u64>, quantile: f64) -> f64 {
    took_ns.value_at_quantile(quantile) as f64 / 1e3
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Load::ClosedLoop { in_flight } => write!(f, "{in_flight} in flight"),
            Load::OpenLoop { per_second } => write!(f, "{per_second}/s scheduled"),
            Load::Stream { unanswered } => write!(f, "streams, {unanswered} unanswered"),
            Load::OpenStream { per_second } => write!(f, "streams, {per_second}/s scheduled"),
            Load::Planned { calls } => write!(f, "{calls} calls at their times"),
        }
    }
}
