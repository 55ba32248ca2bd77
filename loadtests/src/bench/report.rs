//! What the windows add up to: medians over the rounds, and the reserve beside the echo.

use std::path::Path;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use serde::Serialize;

use super::call::CallKind;
use super::window::{Shape, Window};
use crate::fsync::FsyncCost;

/// The shape whose p50 is compared.
const ALONE: Shape = Shape::ClosedLoop { in_flight: 1 };

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    quick: bool,
    /// Both at 1 in flight.
    echo_p50_us: f64,
    reserve_p50_us: f64,
    reserve_p50_over_echo: f64,
    /// The best of the closed loops.
    echo_rate: f64,
    reserve_rate: f64,
    reserve_rate_over_echo: f64,
    /// Over the whole run.
    stolen_percent: f64,
    windows_thrown_away: usize,
    /// Absent where the directory is in memory.
    fsync: Option<FsyncCost>,
    shapes: Vec<ShapeFigures>,
    windows: Vec<Window>,
}

#[derive(Debug, Serialize)]
struct ShapeFigures {
    shape: Shape,
    echo: Option<Figures>,
    reserve: Option<Figures>,
}

/// Medians over the windows of one kind and shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figures {
    windows: usize,
    /// False where no window was free of stolen time; the figures then are those of the thrown away.
    clean: bool,
    count: u64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// The largest of all, not a median.
    max_us: f64,
    late_p99_us: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        shapes: &[Shape],
        windows: Vec<Window>,
        stolen_percent: f64,
        fsync: Option<FsyncCost>,
        quick: bool,
    ) -> Report {
        let shapes: Vec<ShapeFigures> = shapes
            .iter()
            .map(|shape| ShapeFigures {
                shape: *shape,
                echo: Figures::of(&windows, CallKind::Echo, *shape),
                reserve: Figures::of(&windows, CallKind::Reserve, *shape),
            })
            .collect();
        let alone = shapes.iter().find(|s| s.shape == ALONE);
        let p50 = |figures: Option<&Figures>| figures.map_or(0.0, |f| f.p50_us);
        let echo_p50_us = p50(alone.and_then(|s| s.echo.as_ref()));
        let reserve_p50_us = p50(alone.and_then(|s| s.reserve.as_ref()));
        let echo_rate = best_rate(&shapes, |s| s.echo.as_ref());
        let reserve_rate = best_rate(&shapes, |s| s.reserve.as_ref());
        Report {
            quick,
            echo_p50_us,
            reserve_p50_us,
            reserve_p50_over_echo: ratio(reserve_p50_us, echo_p50_us),
            echo_rate,
            reserve_rate,
            reserve_rate_over_echo: ratio(reserve_rate, echo_rate),
            stolen_percent,
            windows_thrown_away: windows.iter().filter(|w| !w.kept).count(),
            fsync,
            shapes,
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
        println!("{}", self.table());
        println!(
            "1 in flight, p50: reserve {:.0} us, echo {:.0} us: {:.2} x",
            self.reserve_p50_us, self.echo_p50_us, self.reserve_p50_over_echo
        );
        println!(
            "best closed loop: reserve {}/s, echo {}/s: {:.2} x",
            HumanCount(self.reserve_rate as u64),
            HumanCount(self.echo_rate as u64),
            self.reserve_rate_over_echo
        );
        println!(
            "stolen by the host: {:.1} % of the CPU; windows thrown away: {} of {}",
            self.stolen_percent,
            self.windows_thrown_away,
            self.windows.len()
        );
        println!(
            "late: how long after they were due calls were sent, in us; their times include it"
        );
        let unclean = |s: &ShapeFigures| {
            [&s.echo, &s.reserve]
                .into_iter()
                .flatten()
                .any(|figures| !figures.clean)
        };
        if self.shapes.iter().any(unclean) {
            println!("* no window was free of stolen time: do not rely on this row");
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header([
            "load", "call", "count", "rate/s", "p50 us", "p99 us", "p99.9 us", "max us",
            "late p99", "p50 x", "p99 x", "rate x",
        ]);
        for shape in &self.shapes {
            for (kind, figures) in [
                (CallKind::Echo, &shape.echo),
                (CallKind::Reserve, &shape.reserve),
            ] {
                let Some(figures) = figures else { continue };
                // A reserve's row says how it compares with the echo of the same shape.
                let base = shape.echo.as_ref().filter(|_| kind == CallKind::Reserve);
                let times = |of: fn(&Figures) -> f64| {
                    base.map_or_else(String::new, |base| {
                        format!("{:.2}", ratio(of(figures), of(base)))
                    })
                };
                table.add_row([
                    format!("{}{}", shape.shape, if figures.clean { "" } else { " *" }),
                    kind.to_string(),
                    HumanCount(figures.count).to_string(),
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
                ]);
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl Figures {
    fn of(windows: &[Window], kind: CallKind, shape: Shape) -> Option<Figures> {
        let all = || {
            windows
                .iter()
                .filter(|w| w.kind == kind && w.shape == shape && w.count > 0)
        };
        let clean = all().any(|w| w.kept);
        let used: Vec<&Window> = all().filter(|w| w.kept || !clean).collect();
        let median_of = |value: fn(&Window) -> f64| median(used.iter().map(|w| value(w)).collect());
        Some(Figures {
            windows: used.len(),
            clean,
            count: used.iter().map(|w| w.count).sum(),
            rate: median_of(|w| w.rate)?,
            p50_us: median_of(|w| w.p50_us)?,
            p99_us: median_of(|w| w.p99_us)?,
            p999_us: median_of(|w| w.p999_us)?,
            max_us: used.iter().map(|w| w.max_us).fold(0.0, f64::max),
            late_p99_us: median(used.iter().filter_map(|w| w.late_p99_us).collect()),
        })
    }
}

/// The median rate of the closed loop that has the best one; an open loop's rate is what was asked
/// for.
fn best_rate(shapes: &[ShapeFigures], of: impl Fn(&ShapeFigures) -> Option<&Figures>) -> f64 {
    shapes
        .iter()
        .filter(|s| matches!(s.shape, Shape::ClosedLoop { .. }))
        .filter_map(|s| Some(of(s)?.rate))
        .fold(0.0, f64::max)
}

/// The mean of the middle two where there is no middle one.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// 0 where there is nothing to compare with.
fn ratio(value: f64, base: f64) -> f64 {
    if base > 0.0 { value / base } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Shape = Shape::ClosedLoop { in_flight: 64 };
    const PACED: Shape = Shape::OpenLoop { per_second: 1_000 };

    fn window(kind: CallKind, shape: Shape, p50_us: f64, rate: f64, kept: bool) -> Window {
        Window {
            kind,
            shape,
            round: 1,
            kept,
            count: 100,
            errors: 0,
            first_error: None,
            rate,
            p50_us,
            p99_us: p50_us * 3.0,
            p999_us: p50_us * 5.0,
            max_us: p50_us * 9.0,
            late_p99_us: None,
            stolen_percent: if kept { 0.5 } else { 9.0 },
        }
    }

    #[test]
    fn the_ratios_are_of_medians_without_what_was_thrown_away() {
        use CallKind::{Echo, Reserve};
        let windows = vec![
            window(Echo, ALONE, 100.0, 9_000.0, true),
            window(Echo, ALONE, 120.0, 8_000.0, true),
            window(Echo, ALONE, 110.0, 8_500.0, true),
            window(Reserve, ALONE, 900.0, 1_000.0, false),
            window(Reserve, ALONE, 330.0, 3_000.0, true),
            window(Echo, BUSY, 1_000.0, 60_000.0, true),
            window(Reserve, BUSY, 2_000.0, 30_000.0, true),
            window(Reserve, PACED, 2_000.0, 99_000.0, true),
        ];
        let report = Report::new(&[ALONE, BUSY, PACED], windows, 1.0, None, true);
        assert_eq!(report.echo_p50_us, 110.0);
        assert_eq!(report.reserve_p50_us, 330.0);
        assert_eq!(report.reserve_p50_over_echo, 3.0);
        assert_eq!(report.echo_rate, 60_000.0);
        assert_eq!(report.reserve_rate, 30_000.0);
        assert_eq!(report.reserve_rate_over_echo, 0.5);
        assert_eq!(report.windows_thrown_away, 1);
    }

    #[test]
    fn a_shape_without_a_clean_window_says_so() {
        let windows = vec![window(CallKind::Echo, ALONE, 100.0, 9_000.0, false)];
        let report = Report::new(&[ALONE], windows, 9.0, None, true);
        assert_eq!(report.echo_p50_us, 100.0);
        assert!(
            report.table().to_string().contains("1 in flight *"),
            "{}",
            report.table()
        );
    }

    #[test]
    fn the_json_has_the_promised_keys() {
        let report = Report::new(&[ALONE], Vec::new(), 0.0, None, true);
        let json = serde_json::to_value(&report).expect("serialises");
        for key in [
            "echo_p50_us",
            "reserve_p50_us",
            "reserve_p50_over_echo",
            "echo_rate",
            "reserve_rate",
            "reserve_rate_over_echo",
            "stolen_percent",
        ] {
            assert!(json[key].is_number(), "{key} is missing");
        }
        assert!(json["windows"].is_array());
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
