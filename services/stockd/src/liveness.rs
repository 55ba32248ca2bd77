//! Whether the loop turns: what a supervisor asks that starts a process again which has hung. It needs no quorum and no
//! data: a node that waits for others, or for room on its disk, gains nothing from a restart.

use std::sync::atomic::{AtomicU64, Ordering};

/// A loop turns several times a second, also where there is nothing to do. The longest that a turn was seen to take on
/// a disk that hung was seconds; whoever takes longer than this has stopped.
const TURNS_WITHIN_MS: u64 = 30_000;

/// When the loop turned last.
#[derive(Debug, Default)]
pub struct Liveness {
    /// On the boot clock; 0 before the first turn.
    turned_boot_ms: AtomicU64,
}

impl Liveness {
    /// The loop turns now.
    pub fn turned(&self, boot_ms: u64) {
        self.turned_boot_ms.store(boot_ms, Ordering::Relaxed);
    }

    /// Whether it has turned lately. A node that is still looking for the others has no loop yet.
    pub fn is_live(&self, boot_ms: u64) -> bool {
        match self.turned_boot_ms.load(Ordering::Relaxed) {
            0 => true,
            turned => boot_ms.saturating_sub(turned) < TURNS_WITHIN_MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_not_live() {
        let liveness = Liveness::default();
        assert!(liveness.is_live(1_000_000), "nothing turns yet");
        liveness.turned(1_000_000);
        assert!(liveness.is_live(1_000_000 + TURNS_WITHIN_MS - 1));
        assert!(!liveness.is_live(1_000_000 + TURNS_WITHIN_MS));
    }
}
