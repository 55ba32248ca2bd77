//! How far a long step has come: a bar for people at a terminal, a line now and then for a log.

use std::cell::Cell;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    done: Cell<u64>,
    started: Instant,
    printed: Cell<Instant>,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: u64) -> Progress {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let now = Instant::now();
        Progress {
            bar: terminal.then(|| bar(what, total)),
            what,
            total,
            done: Cell::new(0),
            started: now,
            printed: Cell::new(now),
        }
    }

    pub(crate) fn add(&self, lines: usize) {
        self.done.set(self.done.get() + lines as u64);
        if let Some(bar) = &self.bar {
            bar.inc(lines as u64);
        } else if self.printed.get().elapsed() >= LINE_EVERY {
            self.printed.set(Instant::now());
            self.print();
        }
    }

    /// Takes the bar away, or prints the last line.
    pub(crate) fn finish(self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => self.print(),
        }
    }

    fn print(&self) {
        let rate = self.done.get() as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        say!(
            "{}: {} of {} lines, {} lines/s",
            self.what,
            HumanCount(self.done.get()),
            HumanCount(self.total),
            HumanCount(rate as u64)
        );
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:14} {wide_bar} {human_pos} of {human_len} lines, {rate}, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .with_key("rate", |state: &ProgressState, out: &mut dyn Write| {
        // The bar is drawn again in a moment; a line that could not be written is no loss.
        let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
    });
    let bar = ProgressBar::new(total).with_style(style).with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
