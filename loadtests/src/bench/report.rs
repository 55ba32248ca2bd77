//! What the windows add up to: medians over the rounds, and reserves and reads beside the echo.

use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use indicatif::HumanCount;
use serde::Serialize;

use super::{ALONE, BATCHES, LOADS, STREAMS};
use crate::lab::fsync::FsyncCost;
use crate::lab::{self, Figures, Load, Window, ratio};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    quick: bool,
    /// All at 1 in flight.
    echo_p50_us: f64,
    reserve_p50_us: f64,
    reserve_p50_over_echo: f64,
    read_p50_us: f64,
    read_p50_over_echo: f64,
    /// The best of the closed loops.
    echo_rate: f64,
    reserve_rate: f64,
    reserve_rate_over_echo: f64,
    /// Lines per second.
    batch_rate: f64,
    stream_rate: f64,
    stream_rate_over_reserve: f64,
    /// Of nodes and load for one call at the best rate; 0 where the nodes are not this program's
    /// own.
    reserve_cpu_over_echo: f64,
    /// Over the whole run.
    stolen_percent: f64,
    windows_thrown_away: usize,
    /// Absent where the directory is in memory.
    fsync: Option<FsyncCost>,
    rows: Vec<Row>,
    windows: Vec<Window>,
}

#[derive(Debug, Serialize)]
struct Row {
    what: String,
    load: Load,
    #[serde(flatten)]
    figures: Figures,
}

impl Report {
    pub(crate) fn new(
        windows: Vec<Window>,
        stolen_percent: f64,
        fsync: Option<FsyncCost>,
        quick: bool,
    ) -> Report {
        let compared = LOADS
            .iter()
            .flat_map(|load| [("echo", *load), ("reserve", *load)]);
        let all = compared.chain([
            ("read", ALONE),
            ("batch", BATCHES),
            ("echo stream", STREAMS),
            ("stream", STREAMS),
        ]);
        let rows: Vec<Row> = all
            .filter_map(|(what, load)| {
                Some(Row {
                    what: what.to_owned(),
                    load,
                    figures: Figures::of(&windows, what, load)?,
                })
            })
            .collect();
        let p50 = |what| find(&rows, what, ALONE).map_or(0.0, |figures| figures.p50_us);
        let best = |what| best(&rows, what);
        let rate = |what| best(what).map_or(0.0, |figures| figures.rate);
        let cpu = |what| best(what).map_or(0.0, Figures::cpu_us);
        let (echo_rate, reserve_rate, stream_rate) =
            (rate("echo"), rate("reserve"), rate("stream"));
        Report {
            quick,
            echo_p50_us: p50("echo"),
            reserve_p50_us: p50("reserve"),
            reserve_p50_over_echo: ratio(p50("reserve"), p50("echo")),
            read_p50_us: p50("read"),
            read_p50_over_echo: ratio(p50("read"), p50("echo")),
            echo_rate,
            reserve_rate,
            reserve_rate_over_echo: ratio(reserve_rate, echo_rate),
            batch_rate: rate("batch"),
            stream_rate,
            stream_rate_over_reserve: ratio(stream_rate, reserve_rate),
            reserve_cpu_over_echo: ratio(cpu("reserve"), cpu("echo")),
            stolen_percent,
            windows_thrown_away: windows.iter().filter(|w| !w.kept).count(),
            fsync,
            rows,
            windows,
        }
    }

    pub(crate) fn first_error(&self) -> Option<&str> {
        self.windows
            .iter()
            .find_map(|window| window.first_error.as_deref())
    }

    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn print(&self) {
        say!("{}", self.table());
        say!(
            "1 in flight, p50: echo {:.0} us, reserve {:.0} us: {:.2} x, read {:.0} us: {:.2} x",
            self.echo_p50_us,
            self.reserve_p50_us,
            self.reserve_p50_over_echo,
            self.read_p50_us,
            self.read_p50_over_echo,
        );
        say!(
            "most per second: reserve {}, echo {}: {:.2} x; processor time of one at that rate: \
             {:.2} x",
            HumanCount(self.reserve_rate as u64),
            HumanCount(self.echo_rate as u64),
            self.reserve_rate_over_echo,
            self.reserve_cpu_over_echo,
        );
        say!(
            "lines per second: streams {}, {:.1} x single calls; batches {}",
            HumanCount(self.stream_rate as u64),
            self.stream_rate_over_reserve,
            HumanCount(self.batch_rate as u64),
        );
        say!(
            "stolen by the host: {:.1} % of the CPU; windows thrown away: {} of {}",
            self.stolen_percent,
            self.windows_thrown_away,
            self.windows.len()
        );
        say!(
            "late: how long after they were due calls were sent, in us; their times include it. \
             CPU, disk and switches: of one line, over all nodes; disk in whole pages"
        );
        if self.rows.iter().any(|row| !row.figures.clean) {
            say!("* no window was free of stolen time: do not rely on this row");
        }
    }

    fn table(&self) -> Table {
        let mut table = lab::table(
            2,
            [
                "load",
                "call",
                "lines",
                "rate/s",
                "p50 us",
                "p99 us",
                "p99.9 us",
                "max us",
                "late p99",
                "p50 x",
                "p99 x",
                "rate x",
                "nodes CPU us",
                "load CPU us",
                "disk bytes",
                "switches",
            ],
        );
        for Row {
            what,
            load,
            figures,
        } in &self.rows
        {
            // Other rows say how they compare with the echo under the same load.
            let base = find(&self.rows, "echo", *load).filter(|_| what != "echo");
            let times = |of: fn(&Figures) -> f64| {
                base.map_or_else(String::new, |base| {
                    format!("{:.2}", ratio(of(figures), of(base)))
                })
            };
            table.add_row([
                format!("{load}{}", if figures.clean { "" } else { " *" }),
                what.clone(),
                HumanCount(figures.lines).to_string(),
                HumanCount(figures.rate as u64).to_string(),
                format!("{:.0}", figures.p50_us),
                format!("{:.0}", figures.p99_us),
                format!("{:.0}", figures.p999_us),
                format!("{:.0}", figures.max_us),
                figures
                    .late_p99_us
                    .map_or_else(String::new, |late| format!("{late:.0}")),
                times(|f| f.p50_us),
                times(|f| f.p99_us),
                times(|f| f.rate),
                format!("{:.1}", figures.server_cpu_us),
                format!("{:.1}", figures.client_cpu_us),
                format!("{:.0}", figures.written_bytes),
                format!("{:.2}", figures.switches),
            ]);
        }
        table
    }
}

fn find<'a>(rows: &'a [Row], what: &str, load: Load) -> Option<&'a Figures> {
    let row = rows.iter().find(|row| row.what == what && row.load == load);
    row.map(|row| &row.figures)
}

/// The loop with the best rate; of an open loop it is what was asked for.
fn best<'a>(rows: &'a [Row], what: &str) -> Option<&'a Figures> {
    let is_closed = |load| matches!(load, Load::ClosedLoop { .. } | Load::Stream { .. });
    let rows = rows.iter();
    let closed = rows.filter(|row| row.what == what && is_closed(row.load));
    let figures = closed.map(|row| &row.figures);
    figures.max_by(|a, b| a.rate.total_cmp(&b.rate))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const BUSY: Load = Load::ClosedLoop { in_flight: 64 };
    const PACED: Load = Load::OpenLoop { per_second: 1_000 };

    fn window(what: &str, load: Load, p50_us: f64, rate: f64, kept: bool) -> Window {
        Window {
            what: what.to_owned(),
            load,
            round: 1,
            seconds: 1.0,
            kept,
            calls: 100,
            lines: 100,
            errors: 0,
            first_error: None,
            refused: 0,
            rate,
            p50_us,
            p99_us: p50_us * 3.0,
            p999_us: p50_us * 5.0,
            max_us: p50_us * 9.0,
            late_p99_us: None,
            is_behind: false,
            refused_p99_us: None,
            server_cpu_us: p50_us / 10.0,
            client_cpu_us: p50_us / 10.0,
            written_bytes: 100.0,
            switches: 4.0,
            stolen_percent: if kept { 0.5 } else { 9.0 },
            kinds: BTreeMap::new(),
            points: Vec::new(),
        }
    }

    #[test]
    fn the_ratios_are_of_medians_without_what_was_thrown_away() {
        let windows = vec![
            window("echo", ALONE, 100.0, 9_000.0, true),
            window("echo", ALONE, 120.0, 8_000.0, true),
            window("echo", ALONE, 110.0, 8_500.0, true),
            window("reserve", ALONE, 900.0, 1_000.0, false),
            window("reserve", ALONE, 330.0, 3_000.0, true),
            window("read", ALONE, 121.0, 7_000.0, true),
            window("echo", BUSY, 1_000.0, 60_000.0, true),
            window("reserve", BUSY, 2_000.0, 30_000.0, true),
            window("reserve", PACED, 2_000.0, 99_000.0, true),
            window("stream", STREAMS, 9_000.0, 240_000.0, true),
        ];
        let report = Report::new(windows, 1.0, None, true);
        assert_eq!(report.echo_p50_us, 110.0);
        assert_eq!(report.reserve_p50_us, 330.0);
        assert_eq!(report.reserve_p50_over_echo, 3.0);
        assert_eq!(report.read_p50_over_echo, 1.1);
        assert_eq!(report.echo_rate, 60_000.0);
        assert_eq!(report.reserve_rate, 30_000.0);
        assert_eq!(report.reserve_rate_over_echo, 0.5);
        assert_eq!(report.reserve_cpu_over_echo, 2.0);
        assert_eq!(report.stream_rate_over_reserve, 8.0);
        assert_eq!(report.windows_thrown_away, 1);
    }

    #[test]
    fn a_row_without_a_clean_window_says_so() {
        let windows = vec![window("echo", ALONE, 100.0, 9_000.0, false)];
        let report = Report::new(windows, 9.0, None, true);
        assert_eq!(report.echo_p50_us, 100.0);
        let table = report.table().to_string();
        assert!(table.contains("1 in flight *"), "{table}");
    }

    #[test]
    fn the_json_has_the_promised_keys() {
        let report = Report::new(Vec::new(), 0.0, None, true);
        let json = serde_json::to_value(&report).expect("serialises");
        for key in [
            "echo_p50_us",
            "reserve_p50_us",
            "reserve_p50_over_echo",
            "read_p50_us",
            "read_p50_over_echo",
            "echo_rate",
            "reserve_rate",
            "reserve_rate_over_echo",
            "stream_rate",
            "batch_rate",
            "stolen_percent",
        ] {
            assert!(json[key].is_number(), "{key} is missing");
        }
        assert!(json["windows"].is_array());
    }
}
