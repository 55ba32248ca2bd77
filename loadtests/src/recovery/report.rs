//! The figures of a recovery run.

use std::path::Path;

use anyhow::Context;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::reserves::Latency;
use crate::lab;

/// What was measured. "Each" is for one position.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) positions: u64,
    pub(crate) fill_seconds: f64,
    pub(crate) resident_bytes_each: f64,
    /// After a restart: without what filling left behind.
    pub(crate) restarted_bytes_each: f64,
    pub(crate) checkpoint_bytes_each: f64,
    /// While the node was filled, and since it was restarted.
    pub(crate) checkpoints_written: u64,
    /// One group's, on average.
    pub(crate) checkpoint_seconds_each: f64,
    pub(crate) log_bytes: u64,
    pub(crate) ledger_bytes: u64,
    pub(crate) restart_seconds: f64,
    pub(crate) join_seconds: f64,
    pub(crate) join_bytes_per_node: u64,
    pub(crate) joined_resident_bytes: u64,
    pub(crate) reserves: Vec<Latency>,
    pub(crate) reserves_failed: usize,
}

/// The figures, and under which conditions they were taken.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) shards: u32,
    pub(crate) joiners: u64,
    pub(crate) figures: Figures,
    /// Before and after.
    pub(crate) load_average: [f64; 2],
    pub(crate) stolen_percent: f64,
}

/// Targets for ten million positions.
const BYTES_EACH_TARGET: f64 = 200.0;
const RESTART_SECONDS_TARGET: f64 = 30.0;

impl Report {
    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn print(&self) {
        let Figures {
            positions,
            checkpoints_written,
            ..
        } = self.figures;
        let figures = &self.figures;
        let count = |count: f64| HumanCount(count as u64).to_string();
        let mut table = lab::table(1, ["what", "figure", "target"]);
        let mut row = |what: &str, figure: String, target: &str| {
            table.add_row([what.to_owned(), figure, target.to_owned()]);
        };
        row("positions on one node", count(positions as f64), "");
        row(
            "filled, positions/s",
            count(positions as f64 / figures.fill_seconds.max(1e-9)),
            "",
        );
        row(
            "resident bytes each, after filling",
            format!("{:.0}", figures.resident_bytes_each),
            &format!("<= {BYTES_EACH_TARGET:.0}"),
        );
        row(
            "resident bytes each, after a restart",
            format!("{:.0}", figures.restarted_bytes_each),
            &format!("<= {BYTES_EACH_TARGET:.0}"),
        );
        row(
            "checkpoint bytes each",
            format!("{:.1}", figures.checkpoint_bytes_each),
            "",
        );
        row(
            "checkpoint of one group, s",
            format!(
                "{:.2} ({checkpoints_written} written)",
                figures.checkpoint_seconds_each
            ),
            "",
        );
        row("log on disk", HumanBytes(figures.log_bytes).to_string(), "");
        row(
            "ledger on disk",
            HumanBytes(figures.ledger_bytes).to_string(),
            "",
        );
        row(
            "killed: start to serving, s",
            format!("{:.2}", figures.restart_seconds),
            &format!("< {RESTART_SECONDS_TARGET:.0}"),
        );
        if self.joiners > 0 {
            row(
                &format!("{} joined and caught up, s", self.joiners),
                format!("{:.1}", figures.join_seconds),
                "",
            );
            row(
                "snapshots received by one",
                HumanBytes(figures.join_bytes_per_node).to_string(),
                "",
            );
            row(
                "resident on one that joined",
                HumanBytes(figures.joined_resident_bytes).to_string(),
                "",
            );
        }
        for latency in &figures.reserves {
            row(
                &format!("reserve, {}: p50 / p99 / max us", latency.when),
                format!(
                    "{:.0} / {:.0} / {:.0} ({})",
                    latency.p50_us,
                    latency.p99_us,
                    latency.max_us,
                    HumanCount(latency.count)
                ),
                "",
            );
        }
        say!("{table}");
        say!("failed reserves: {}", figures.reserves_failed);
        say!(
            "{} shards; load average {:.1} before, {:.1} after; stolen by the host: {:.1} % of \
             the CPU",
            self.shards,
            self.load_average[0],
            self.load_average[1],
            self.stolen_percent
        );
    }
}
