//! The pulse of this directory, written beside everything else. See `docs/identity.md`.

use crate::clock::Now;
use crate::standing::ClusterState;
use crate::writes::{Record, Writes};

/// A pulse. What a directory acknowledged since its last one, and before peers have heard of it, is
/// what an older copy of it may have forgotten unnoticed.
const BEAT_EVERY_MS: u64 = 1_000;

/// What was heard of others is written with the next write; where there is none, as without a
/// quorum, after so long. Until then nobody knows it who dies, so it waits no longer than a pulse.
const NEWS_WAIT_MS: u64 = BEAT_EVERY_MS;

/// When the next one is due.
#[derive(Debug)]
pub(super) struct Pulse {
    due_boot_ms: u64,
    written_boot_ms: u64,
    /// One is among what is being written.
    is_under_way: bool,
    /// What was heard of others is among it.
    has_news: bool,
}

impl Pulse {
    /// One was written as the process began.
    pub(super) fn new(now: Now) -> Self {
        Self {
            due_boot_ms: now.boot_ms + BEAT_EVERY_MS,
            written_boot_ms: now.boot_ms,
            is_under_way: false,
            has_news: false,
        }
    }

    /// Something is about to be written: this, too, where it is due. What was heard of others, and
    /// nothing else, is no pulse.
    pub(super) fn beat(&mut self, now: Now, cluster: &ClusterState, writes: &mut Writes) {
        let is_news_only = std::mem::take(&mut self.has_news) && writes.is_memory_only();
        if now.boot_ms < self.due_boot_ms || self.is_under_way || is_news_only {
            return;
        }
        writes.put(
            Record::Acquaintances,
            cluster.acquaintances(|known| known.next_beat()),
        );
        self.is_under_way = true;
        self.due_boot_ms = now.boot_ms + BEAT_EVERY_MS;
        self.written_boot_ms = now.boot_ms;
    }

    /// It is durable.
    pub(super) fn beaten(&mut self, cluster: &ClusterState) {
        if std::mem::take(&mut self.is_under_way) {
            cluster.acquaintances(|known| known.beaten());
        }
    }

    /// Nothing else may be written for long: what was heard of others must not wait for ever.
    pub(super) fn keep_news(&mut self, now: Now, cluster: &ClusterState, writes: &mut Writes) {
        let is_due = now.boot_ms >= self.written_boot_ms + NEWS_WAIT_MS && !self.is_under_way;
        if is_due && cluster.acquaintances(|known| known.has_news()) {
            self.has_news = true;
            writes.put(
                Record::Acquaintances,
                cluster.acquaintances(|known| known.news()),
            );
            self.written_boot_ms = now.boot_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_cluster::GroupId;
    use stock_cluster::identity::{Acquaintances, Beat};

    use super::*;

    #[test]
    fn what_is_written_beside_what_was_heard_of_others_is_a_pulse_as_ever() {
        let cluster = ClusterState::new(1, 2, Acquaintances::default());
        let at = |boot_ms| Now {
            boot_ms,
            wall_ms: 0,
        };
        let hear = |pulse| {
            cluster.acquaintances(|known| known.heard(2, 9, 0, Beat { boot: 5, pulse }));
        };
        let mut pulse = Pulse::new(at(0));
        let mut writes = Writes::default();
        hear(1);
        pulse.keep_news(at(NEWS_WAIT_MS), &cluster, &mut writes);
        pulse.beat(at(NEWS_WAIT_MS), &cluster, &mut writes);
        assert!(writes.is_memory_only() && !pulse.is_under_way);

        hear(2);
        let later = at(2 * NEWS_WAIT_MS);
        let mut writes = Writes::default();
        pulse.keep_news(later, &cluster, &mut writes);
        writes.put(Record::State(GroupId(1)), "a vote");
        pulse.beat(later, &cluster, &mut writes);
        assert!(pulse.is_under_way);
    }
}
