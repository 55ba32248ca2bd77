//! Waiting for the host to leave this machine alone, within bounds.

use std::time::{Duration, Instant};

use super::call::STOLEN_PERCENT_MAX;
use super::stolen::{CpuTime, stolen_percent};

/// A look keeps every core busy for so long: the host takes only from those who ask, and the kernel
/// counts what it takes in steps of 10 ms.
const LOOK: Duration = Duration::from_millis(400);
/// Between two looks that saw something stolen.
const PAUSE: Duration = Duration::from_secs(3);

/// How much longer a command may take because of what is stolen from it: for windows that are run
/// once more, and for waiting before that.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
}

impl Patience {
    pub(crate) fn none() -> Patience {
        Patience::of_seconds(0)
    }

    pub(crate) fn of_seconds(seconds: u64) -> Patience {
        Patience {
            left: Duration::from_secs(seconds),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left.is_zero()
    }

    /// A window that took so long is of no use. Waits until a look sees that nothing is stolen, or
    /// until this is over.
    pub(crate) async fn spend(&mut self, lost: Duration) {
        self.left = self.left.saturating_sub(lost);
        while !self.is_over() {
            let began = Instant::now();
            if look().await <= STOLEN_PERCENT_MAX {
                return;
            }
            tokio::time::sleep(PAUSE).await;
            self.left = self.left.saturating_sub(began.elapsed());
        }
    }
}

/// How much is stolen from whoever asks for everything, in percent.
async fn look() -> f64 {
    let before = CpuTime::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let spinning: Vec<_> = (0..cores)
        .map(|_| {
            tokio::task::spawn_blocking(|| {
                let until = Instant::now() + LOOK;
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    for core in spinning {
        // One that could not be started has seen nothing, and says nothing.
        let _ = core.await;
    }
    stolen_percent(before, CpuTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends() {
        let mut patience = Patience::of_seconds(1);
        patience.spend(Duration::from_secs(2)).await;
        assert!(patience.is_over());
        assert!(Patience::none().is_over());
    }
}
