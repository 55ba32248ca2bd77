//! The figures of a failover run.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::lab;

/// One kind of event, and how long writes stopped each time.
#[derive(Debug, Serialize)]
pub(crate) struct Gap {
    what: &'static str,
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    target_p99_ms: f64,
    is_met: bool,
    /// In the order in which they happened.
    all_ms: Vec<f64>,
}

impl Gap {
    pub(crate) fn new(what: &'static str, target: Duration, gaps: Vec<Duration>) -> Gap {
        let all_ms: Vec<f64> = gaps.into_iter().map(ms).collect();
        let mut sorted = all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let p99_ms = quantile(&sorted, 0.99);
        Gap {
            what,
            count: all_ms.len(),
            p50_ms: quantile(&sorted, 0.5),
            p99_ms,
            max_ms: quantile(&sorted, 1.0),
            target_p99_ms: ms(target),
            is_met: p99_ms < ms(target),
            all_ms,
        }
    }
}

/// What a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    gaps: Vec<Gap>,
    calls_failed: usize,
    failures_listed: Vec<String>,
    /// Before and after.
    load_average: [f64; 2],
    stolen_percent: f64,
}

/// Failures that are listed; the rest is counted.
const FAILURES_LISTED_MAX: usize = 10;

impl Report {
    pub(crate) fn new(
        gaps: Vec<Gap>,
        mut failures: Vec<String>,
        load_average: [f64; 2],
        stolen_percent: f64,
    ) -> Report {
        let calls_failed = failures.len();
        failures.truncate(FAILURES_LISTED_MAX);
        Report {
            gaps: gaps.into_iter().filter(|gap| gap.count > 0).collect(),
            calls_failed,
            failures_listed: failures,
            load_average,
            stolen_percent,
        }
    }

    /// Whether no call failed and every target was met.
    pub(crate) fn is_met(&self) -> bool {
        self.calls_failed == 0 && self.gaps.iter().all(|gap| gap.is_met)
    }

    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn print(&self) {
        let mut table = lab::table(
            1,
            [
                "event",
                "count",
                "p50 ms",
                "p99 ms",
                "max ms",
                "target p99",
                "met",
            ],
        );
        for gap in &self.gaps {
            table.add_row([
                gap.what.to_owned(),
                gap.count.to_string(),
                format!("{:.1}", gap.p50_ms),
                format!("{:.1}", gap.p99_ms),
                format!("{:.1}", gap.max_ms),
                format!("< {:.0}", gap.target_p99_ms),
                if gap.is_met { "yes" } else { "no" }.to_owned(),
            ]);
        }
        say!("{table}");
        say!("failed calls: {}", self.calls_failed);
        for failure in &self.failures_listed {
            say!("  {failure}");
        }
        say!(
            "load average {:.1} before, {:.1} after; stolen by the host: {:.1} % of the CPU",
            self.load_average[0],
            self.load_average[1],
            self.stolen_percent
        );
    }
}

/// The smallest of the sorted values that so many are not above; 0 if there is none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_by_99_in_100() {
        let gaps = |slow: usize| {
            let times = (0..200).map(|at| Duration::from_millis(if at < slow { 500 } else { 20 }));
            Gap::new("test", Duration::from_millis(100), times.collect())
        };
        assert!(gaps(2).is_met);
        assert!(!gaps(3).is_met);
        assert_eq!(
            (gaps(2).p50_ms, gaps(2).p99_ms, gaps(2).max_ms),
            (20.0, 20.0, 500.0)
        );
    }

    #[test]
    fn a_failed_call_misses_every_target() {
        let gap = || Gap::new("test", Duration::from_millis(100), vec![Duration::ZERO]);
        assert!(Report::new(vec![gap()], Vec::new(), [0.0; 2], 0.0).is_met());
        let failed = vec!["a reserve".to_owned()];
        assert!(!Report::new(vec![gap()], failed, [0.0; 2], 0.0).is_met());
    }
}
