//! The pulse of this directory, written beside everything else. See `docs/identity.md`.

use stock_storage::WriteBatch;

use super::Worker;
use super::clock::Now;
use super::event::{Effect, Notice, PulseNotice};
use crate::cluster_state::ClusterState;
use crate::identity::Known;

/// A pulse. What a directory acknowledged since its last one, and before peers have heard of it, is what an older copy
/// of it may have forgotten unnoticed.
const BEAT_EVERY_MS: u64 = 1_000;

/// What was heard of others is written with the next write; where there is none, after so long.
const NEWS_WAIT_MS: u64 = 10_000;

/// When the next one is due.
#[derive(Debug)]
pub(super) struct Pulse {
    due_boot_ms: u64,
    written_boot_ms: u64,
    /// One is in the batch that is being written.
    is_under_way: bool,
    /// What was heard of others is in the batch.
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

    /// Something is about to be written: this, too, where it is due. What was heard of others, and nothing else, is no
    /// pulse.
    pub(super) fn beat(&mut self, now: Now, cluster: &ClusterState, batch: &mut WriteBatch) {
        let is_news_only = std::mem::take(&mut self.has_news) && batch.is_memory_only();
        if now.boot_ms < self.due_boot_ms || self.is_under_way || is_news_only {
            return;
        }
        batch.put_acquaintances(&cluster.acquaintances(|known| known.next_beat()));
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
    pub(super) fn keep_news(&mut self, now: Now, cluster: &ClusterState, batch: &mut WriteBatch) {
        let is_due = now.boot_ms >= self.written_boot_ms + NEWS_WAIT_MS && !self.is_under_way;
        if is_due && cluster.acquaintances(|known| known.has_news()) {
            self.has_news = true;
            batch.put_acquaintances(&cluster.acquaintances(|known| known.news()));
            self.written_boot_ms = now.boot_ms;
        }
    }
}

impl<R> Worker<R> {
    /// Tells everybody of this directory's pulse and of those that were heard, where they have gone on.
    pub(super) fn tell_pulses(&self, effects: &mut Vec<Effect<R>>) {
        let untold = self.cluster.acquaintances(|known| known.take_untold());
        let Some((beats, memory)) = untold else {
            return;
        };
        let own = Known {
            directory: self.parts.directory,
            since: self.parts.since,
            beats,
        };
        effects.push(Effect::Notify {
            to: None,
            notice: Notice::Pulse(Box::new(PulseNotice { own, memory })),
        });
    }

    /// Another node tells of pulses. Whoever is connected and turns out not to be the one has to introduce itself anew.
    pub(super) fn hear_pulses(&self, from: u64, told: PulseNotice, effects: &mut Vec<Effect<R>>) {
        let overtaken = self.cluster.acquaintances(|known| {
            if let Some(latest) = told.own.beats.latest() {
                known.heard(from, told.own.directory, told.own.since, latest);
            }
            known.passed_on(self.parts.node, told.memory.into_iter());
            known.overtaken()
        });
        let overtaken = overtaken.into_iter();
        effects.extend(overtaken.map(|node| Effect::Disconnect { node }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Acquaintances, Beat};

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
        let mut batch = WriteBatch::new();
        hear(1);
        pulse.keep_news(at(NEWS_WAIT_MS), &cluster, &mut batch);
        pulse.beat(at(NEWS_WAIT_MS), &cluster, &mut batch);
        assert!(batch.is_memory_only() && !pulse.is_under_way);

        hear(2);
        let later = at(2 * NEWS_WAIT_MS);
        let mut batch = WriteBatch::new();
        pulse.keep_news(later, &cluster, &mut batch);
        batch.put_state(1, b"a vote");
        pulse.beat(later, &cluster, &mut batch);
        assert!(pulse.is_under_way);
    }
}
