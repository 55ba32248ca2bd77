//! What a supervisor asks. Whether the loop turns: a process that has hung is started again. That
//! needs no quorum and no data: a node that waits for others, or for room on its disk, gains
//! nothing from a restart. And whether the node is ready: its replicas have caught up once since it
//! started, so that a rolling restart may go on to the next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A loop turns several times a second, also where there is nothing to do. The longest that a turn
/// was seen to take on a disk that hung was seconds; whoever takes longer than this has stopped.
const TURNS_WITHIN_MS: u64 = 30_000;

/// When the loop turned last, and whether the node is ready.
#[derive(Debug, Default)]
pub struct Liveness {
    /// On the boot clock; 0 before the first turn.
    turned_boot_ms: AtomicU64,
    is_ready: AtomicBool,
}

impl Liveness {
    /// The loop turns now.
    pub fn turned(&self, boot_ms: u64) {
        self.turned_boot_ms.store(boot_ms, Ordering::Relaxed);
    }

    /// The node is ready, or stops.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::Relaxed);
    }

    /// Whether the node is ready.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
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
