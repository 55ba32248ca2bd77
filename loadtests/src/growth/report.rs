//! Cost beside size: a table, a plot for each axis, and everything as JSON.

use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use indicatif::HumanCount;
use serde::Serialize;

use super::axes::{Course, what};
use super::axis::{ALONE, Axis, BUSY};
use crate::lab::machine::Machine;
use crate::lab::{self, Figures, Window, ratio};
use crate::plot::{self, Plot, Series};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    /// Over everything.
    pub(super) stolen_percent: f64,
    axes: Vec<Measured>,
}

/// What one axis came to.
#[derive(Debug, Serialize)]
struct Measured {
    axis: Axis,
    rows: Vec<Row>,
    windows: Vec<Window>,
}

#[derive(Debug, Serialize)]
struct Row {
    size: u64,
    /// Lines of one call.
    lines: u64,
    alone: Figures,
    busy: Figures,
    /// Shards that each node led.
    leaders: Vec<u32>,
}

impl Row {
    /// Calls per second with many in flight.
    fn calls_per_second(&self) -> f64 {
        ratio(self.busy.rate, self.lines as f64)
    }

    fn p50_us_per_line(&self) -> f64 {
        ratio(self.alone.p50_us, self.lines as f64)
    }

    fn is_clean(&self) -> bool {
        self.alone.clean && self.busy.clean
    }
}

impl Report {
    pub(super) fn new(machine: Machine) -> Report {
        Report {
            machine,
            stolen_percent: 0.0,
            axes: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, course: Course, sizes: &[u64]) {
        let Course {
            axis,
            windows,
            leaders,
            ..
        } = course;
        let row = |size: &u64| {
            let what = what(axis, *size);
            let leaders = leaders.iter().find(|(of, _)| of == size);
            Some(Row {
                size: *size,
                lines: axis.lines(*size),
                alone: Figures::of(&windows, &what, ALONE)?,
                busy: Figures::of(&windows, &what, BUSY)?,
                leaders: leaders.map_or_else(Vec::new, |(_, leaders)| leaders.clone()),
            })
        };
        let rows = sizes.iter().filter_map(row).collect();
        self.axes.push(Measured {
            axis,
            rows,
            windows,
        });
    }

    pub(super) fn first_error(&self) -> Option<&str> {
        let mut windows = self.axes.iter().flat_map(|measured| &measured.windows);
        windows.find_map(|window| window.first_error.as_deref())
    }

    /// Everything, into a directory.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let put = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        put("growth.json", serde_json::to_string_pretty(self)? + "\n")?;
        put("growth.md", format!("{}\n", self.table()))?;
        for measured in &self.axes {
            put(&format!("{}.svg", measured.axis.name()), measured.svg()?)?;
        }
        Ok(())
    }

    pub(super) fn print(&self) {
        say!("{}", self.table());
        say!(
            "times x: of the first size of the axis; leaders: shards that each node led; stolen \
             by the host: {:.1} % of the CPU",
            self.stolen_percent
        );
        let mut rows = self.axes.iter().flat_map(|measured| &measured.rows);
        if rows.any(|row| !row.is_clean()) {
            say!("* no window was free of stolen time: do not rely on this row");
        }
    }

    fn table(&self) -> Table {
        let mut table = lab::table(
            1,
            [
                "axis",
                "size",
                "alone p50 us",
                "x",
                "us/line",
                "alone p99 us",
                "64 in flight, calls/s",
                "x",
                "lines/s",
                "nodes CPU us/line",
                "leaders",
            ],
        );
        for Measured { axis, rows, .. } in &self.axes {
            for row in rows {
                let times = |value: fn(&Row) -> f64| {
                    let first = rows.first().map_or(0.0, value);
                    format!("{:.2}", ratio(value(row), first))
                };
                let leaders: Vec<String> = row.leaders.iter().map(u32::to_string).collect();
                table.add_row([
                    format!("{}{}", axis.name(), if row.is_clean() { "" } else { " *" }),
                    axis.size(row.size),
                    format!("{:.0}", row.alone.p50_us),
                    times(|row| row.alone.p50_us),
                    format!("{:.0}", row.p50_us_per_line()),
                    format!("{:.0}", row.alone.p99_us),
                    HumanCount(row.calls_per_second() as u64).to_string(),
                    times(Row::calls_per_second),
                    HumanCount(row.busy.rate as u64).to_string(),
                    format!("{:.1}", row.busy.server_cpu_us),
                    leaders.join("/"),
                ]);
            }
        }
        table
    }
}

impl Measured {
    /// What a call takes alone, and beside it how many can be done.
    fn svg(&self) -> anyhow::Result<String> {
        let size = || {
            plot::Axis::logarithmic(match self.axis {
                Axis::Shards => "shards",
                Axis::Positions => "positions",
                Axis::Holds => "open holds",
                Axis::Lines => "lines of a basket",
                Axis::Reach => "1,000 x lines + shards",
            })
        };
        let series = |name: &str, value: fn(&Row) -> f64| Series {
            name: name.to_owned(),
            lines: vec![
                self.rows
                    .iter()
                    .map(|row| (row.size as f64, value(row)))
                    .collect(),
            ],
        };
        let is_lines = self.axis == Axis::Lines;
        // Baskets and their lines differ by two orders of magnitude.
        let scale = |label: &str| match is_lines {
            true => plot::Axis::logarithmic(label),
            false => plot::Axis::linear(label),
        };
        let mut alone = vec![series("p50 of a call", |row| row.alone.p50_us)];
        let mut busy = vec![series("calls", Row::calls_per_second)];
        if is_lines {
            alone.push(series("of it for one line", Row::p50_us_per_line));
            busy.push(series("lines", |row| row.busy.rate));
        }
        let alone = Plot::new("1 in flight", size(), scale("us"), alone);
        let busy = Plot::new("64 in flight", size(), scale("a second"), busy);
        plot::side_by_side(&[&alone, &busy])
    }
}
