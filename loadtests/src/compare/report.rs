//! The table: a row for each system.

use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use indicatif::HumanCount;
use serde::Serialize;

use super::{ECHO, TASKS, Task, Which};
use crate::lab::fsync::FsyncCost;
use crate::lab::{self, Figures, Load, Window, ratio};

/// Where fewer than this part of the calls on a schedule were answered in time, a system does not
/// carry it.
const CARRIED_MIN: f64 = 0.95;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    fsync: FsyncCost,
    /// Over the whole run.
    stolen_percent: f64,
    windows_thrown_away: usize,
    windows: Vec<Window>,
}

#[derive(Debug, Serialize)]
struct Row {
    system: String,
    survives: String,
    tasks: Vec<TaskFigures>,
}

#[derive(Debug, Serialize)]
struct TaskFigures {
    #[serde(skip)]
    task: Task,
    name: String,
    load: Load,
    /// Whether the rate that was asked for was reached.
    carried: bool,
    #[serde(flatten)]
    figures: Figures,
}

impl Report {
    pub(super) fn new(
        systems: &[Which],
        windows: Vec<Window>,
        fsync: FsyncCost,
        stolen_percent: f64,
    ) -> Report {
        let rows = systems.iter().flat_map(|which| {
            let echo = (*which == Which::Stockd).then_some((ECHO, ""));
            echo.into_iter().chain([(which.name(), which.survives())])
        });
        let rows = rows.map(|(system, survives)| Row {
            system: system.to_owned(),
            survives: survives.to_owned(),
            tasks: TASKS
                .iter()
                .filter_map(|(task, _, load)| TaskFigures::of(&windows, system, *task, *load))
                .collect(),
        });
        Report {
            rows: rows.collect(),
            fsync,
            stolen_percent,
            windows_thrown_away: windows.iter().filter(|w| !w.kept).count(),
            windows,
        }
    }

    pub(super) fn first_error(&self) -> Option<&str> {
        self.windows
            .iter()
            .find_map(|window| window.first_error.as_deref())
    }

    pub(super) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn print(&self) {
        say!("{}", self.table());
        say!(
            "p50 / p99 / p99.9 in us; -: the rate was not carried. Most: lines a second with 64 in \
             flight; hot: one SKU against many. Basket: p50 with 5 lines in one shard. CPU: \
             seconds of servers and load for 1,000 reserves, and bytes written to disk for one, \
             with 64 in flight."
        );
        say!(
            "fdatasync of 120 bytes: p50 {:.0} us, p99 {:.0} us; stolen by the host: {:.1} % of \
             the CPU; windows thrown away: {} of {}",
            self.fsync.p50_us,
            self.fsync.p99_us,
            self.stolen_percent,
            self.windows_thrown_away,
            self.windows.len()
        );
        if self
            .rows
            .iter()
            .any(|row| row.tasks.iter().any(|it| !it.figures.clean))
        {
            say!("* no window was free of stolen time: do not rely on this figure");
        }
    }

    fn table(&self) -> Table {
        let mut table = lab::table(
            2,
            [
                "system",
                "an answer is",
                "1 in flight",
                "1,000/s",
                "5,000/s",
                "most /s",
                "hot x",
                "basket",
                "CPU s",
                "disk bytes",
            ],
        );
        for row in &self.rows {
            let find = |task| row.tasks.iter().find(|figures| figures.task == task);
            let times = |task| find(task).map_or_else(String::new, TaskFigures::times);
            let busy = find(Task::Busy);
            let of_busy = |text: fn(&TaskFigures) -> String| busy.map_or_else(String::new, text);
            let hot = find(Task::Hot)
                .zip(busy)
                .map(|(hot, busy)| format!("{:.2}", ratio(hot.figures.rate, busy.figures.rate)));
            table.add_row([
                row.system.clone(),
                row.survives.clone(),
                times(Task::Alone),
                times(Task::Thousand),
                times(Task::FiveThousand),
                of_busy(|busy| HumanCount(busy.figures.rate as u64).to_string() + busy.mark()),
                hot.unwrap_or_default(),
                find(Task::Basket)
                    .map_or_else(String::new, |it| format!("{:.0}", it.figures.p50_us)),
                of_busy(|busy| format!("{:.3}", busy.figures.cpu_us() / 1e3)),
                of_busy(|busy| format!("{:.0}", busy.figures.written_bytes)),
            ]);
        }
        table
    }
}

impl TaskFigures {
    fn of(windows: &[Window], system: &str, task: Task, load: Load) -> Option<TaskFigures> {
        let what = format!("{system}: {}", task.name());
        let figures = Figures::of(windows, &what, load)?;
        let carried = match load {
            Load::OpenLoop { per_second } => {
                !figures.is_behind && figures.rate >= f64::from(per_second) * CARRIED_MIN
            }
            _ => true,
        };
        Some(TaskFigures {
            task,
            name: task.name().to_owned(),
            load,
            carried,
            figures,
        })
    }

    fn times(&self) -> String {
        if !self.carried {
            return "-".to_owned();
        }
        format!(
            "{:.0} / {:.0} / {:.0}{}",
            self.figures.p50_us,
            self.figures.p99_us,
            self.figures.p999_us,
            self.mark()
        )
    }

    fn mark(&self) -> &'static str {
        match self.figures.clean {
            true => "",
            false => " *",
        }
    }
}
