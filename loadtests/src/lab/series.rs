//! Windows of many kinds, round by round.

use super::call::Caller;
use super::load::{Load, WindowTimes};
use super::patience::Patience;
use super::usage::Processes;
use super::window::Window;

pub(crate) struct Series {
    pub(crate) times: WindowTimes,
    pub(crate) patience: Patience,
    /// Of the windows to come.
    pub(crate) round: u32,
    pub(crate) windows: Vec<Window>,
}

impl Series {
    pub(crate) fn new(times: WindowTimes, patience: Patience) -> Series {
        Series {
            times,
            patience,
            round: 0,
            windows: Vec::new(),
        }
    }

    /// See [`Window::run`].
    pub(crate) async fn calls<C: Caller>(
        &mut self,
        what: &str,
        calls: &[C],
        servers: &Processes,
        load: Load,
    ) -> anyhow::Result<()> {
        let patience = &mut self.patience;
        let windows = Window::run(what, calls, servers, load, self.times, patience).await?;
        self.add(windows);
        Ok(())
    }

    /// Windows of this round.
    pub(crate) fn add(&mut self, windows: Vec<Window>) {
        let round = self.round;
        self.windows
            .extend(windows.into_iter().map(|window| Window { round, ..window }));
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.windows.iter().any(|window| window.errors > 0)
    }
}
