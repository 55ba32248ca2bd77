//! The figures of a run: for people on a terminal, and whole as JSON.

use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use indicatif::HumanCount;
use serde::Serialize;

use super::attendance::{Kill, Sample};
use super::comparison::Comparison;
use super::finding::Finding;
use super::profile::Profile;
use crate::lab::machine::Machine;
use crate::lab::{self, Load, Summary, Window, ratio};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) profile: Profile,
    pub(crate) machine: Machine,
    /// Over everything that was measured.
    pub(crate) stolen_percent: f64,
    pub(crate) nodes: usize,
    pub(crate) shards: u32,
    /// The closed loop of which steps are parts.
    pub(crate) best: Option<Window>,
    pub(crate) steps: Vec<Window>,
    pub(crate) kills: Vec<Kill>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) sold_out: u64,
    pub(crate) left_to_expire: u64,
    /// Absent where it was left out.
    pub(crate) comparison: Option<Comparison>,
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.holds)
    }

    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The best rate first, where it was looked for.
    pub(crate) fn windows(&self) -> impl Iterator<Item = &Window> {
        self.best.iter().chain(&self.steps)
    }

    /// What processes used is not known where they were killed.
    pub(crate) fn knows_usage(&self) -> bool {
        self.kills.is_empty()
    }

    pub(crate) fn print(&self) {
        say!("{}", self.steps_table());
        // One step is enough to see what each kind costs.
        if let Some(step) = self.steps.last() {
            say!("by kind of call, {}:\n{}", step.what, kinds_table(step));
        }
        for kill in &self.kills {
            say!(
                "at {:.1} s node {}, leader of shard {} and others, was killed; at {:.1} s it was \
                 back and all was led",
                kill.at_seconds,
                kill.node,
                kill.shard,
                kill.led_at_seconds
            );
        }
        say!(
            "stolen by the host: {:.1} % of the CPU; answers `sold out`: {}; holds left to \
             expire: {}",
            self.stolen_percent,
            HumanCount(self.sold_out),
            HumanCount(self.left_to_expire)
        );
        for line in self.comparison.iter().flat_map(|found| &found.listed) {
            say!("  {line}");
        }
        for finding in &self.findings {
            let verdict = if finding.holds {
                "holds"
            } else {
                "DOES NOT HOLD"
            };
            say!("{verdict}: {}", finding.what);
        }
    }

    fn steps_table(&self) -> Table {
        let mut table = lab::table(2, STEP_COLUMNS);
        for window in self.windows() {
            table.add_row(self.step_row(window));
        }
        table
    }

    /// One for each of [`STEP_COLUMNS`].
    pub(crate) fn step_row(&self, window: &Window) -> [String; STEP_COLUMNS.len()] {
        let us = |us: f64| format!("{us:.0}");
        let cpu = |us: f64| match self.knows_usage() {
            true => format!("{us:.1}"),
            false => String::new(),
        };
        [
            window.what.clone(),
            load(window),
            HumanCount(calls_per_second(window) as u64).to_string(),
            HumanCount(window.rate as u64).to_string(),
            us(window.p50_us),
            us(window.p99_us),
            us(window.p999_us),
            us(window.max_us),
            window.late_p99_us.map_or_else(String::new, us),
            window.errors.to_string(),
            cpu(window.server_cpu_us),
            cpu(window.client_cpu_us),
            format!("{:.1}", window.stolen_percent),
        ]
    }
}

pub(crate) const STEP_COLUMNS: [&str; 13] = [
    "step",
    "load",
    "calls/s",
    "lines/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "max us",
    "late p99",
    "errors",
    "nodes CPU us/line",
    "load CPU us/line",
    "stolen %",
];

pub(crate) const KIND_COLUMNS: [&str; 8] = [
    "call", "calls", "calls/s", "lines/s", "p50 us", "p99 us", "p99.9 us", "max us",
];

pub(crate) fn kind_row(
    kind: &str,
    summary: &Summary,
    seconds: f64,
) -> [String; KIND_COLUMNS.len()] {
    let us = |us: f64| format!("{us:.0}");
    [
        kind.to_owned(),
        HumanCount(summary.calls).to_string(),
        HumanCount(summary.rate as u64).to_string(),
        HumanCount((summary.lines as f64 / seconds) as u64).to_string(),
        us(summary.p50_us),
        us(summary.p99_us),
        us(summary.p999_us),
        us(summary.max_us),
    ]
}

pub(crate) fn calls_per_second(window: &Window) -> f64 {
    ratio(window.calls as f64, window.seconds)
}

fn load(window: &Window) -> String {
    match (window.is_behind, window.load) {
        (true, load) => format!("{load}, NOT KEPT"),
        (false, Load::Planned { .. }) => "as planned".to_owned(),
        (false, load) => load.to_string(),
    }
}

fn kinds_table(window: &Window) -> Table {
    let mut table = lab::table(1, KIND_COLUMNS);
    for (kind, summary) in &window.kinds {
        table.add_row(kind_row(kind, summary, window.seconds));
    }
    table
}
