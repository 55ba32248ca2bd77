//! The other shards, as the leader of one sees them: who has been told what and owes an answer, and
//! who is silent.

use std::collections::BTreeMap;

use stock_core::{Ask, Principal, Question, ReservationId, TellAnew};

/// A shard that did not answer is left alone for this long...
const PATIENCE_MS: u64 = 100;
/// ...for twice as long after each further failure, and no longer than this.
const PATIENCE_MAX_MS: u64 = 5_000;

/// What has no answer after this has been lost, with the answer or before: it is said again.
pub const ANSWERED_WITHIN_MS: u64 = 10_000;

/// What a command of a batch was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    Follow(ReservationId, u32, Principal),
    Probe(ReservationId, Question),
    TellAnew(TellAnew),
    Ask(Ask, Principal),
}

/// There is one batch at a time for each shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// When, and what.
    told: BTreeMap<u32, (u64, Vec<Sent>)>,
    /// How often a shard did not answer, and until when it is left alone.
    silent: BTreeMap<u32, (u32, u64)>,
}

impl Others {
    /// Whether a shard owes no answer, and is not left alone.
    pub(super) fn may_tell(&self, to: u32, now_ms: u64) -> bool {
        let silent_until = self.silent.get(&to).map_or(0, |(_, until)| *until);
        !self.told.contains_key(&to) && now_ms >= silent_until
    }

    /// Whether it did not answer what it was told last.
    pub(super) fn is_silent(&self, shard: u32) -> bool {
        self.silent.contains_key(&shard)
    }

    /// It is told this now.
    pub(super) fn tell(&mut self, to: u32, now_ms: u64, batch: Vec<Sent>) {
        self.told.insert(to, (now_ms, batch));
    }

    /// What it was told then, unless that was given up.
    pub(super) fn take(&mut self, from: u32, sent_ms: u64) -> Option<Vec<Sent>> {
        match self.told.get(&from) {
            Some((told_ms, _)) if *told_ms == sent_ms => {}
            _ => return None,
        }
        self.told.remove(&from).map(|(_, batch)| batch)
    }

    /// It answered. Whether it was silent before.
    pub(super) fn has_answered(&mut self, shard: u32) -> bool {
        self.silent.remove(&shard).is_some()
    }

    /// It did not answer, or could not.
    pub(super) fn has_not_answered(&mut self, shard: u32, now_ms: u64) {
        let (times, until) = self.silent.entry(shard).or_default();
        let wait_ms = (PATIENCE_MS << (*times).min(16)).min(PATIENCE_MAX_MS);
        (*times, *until) = (*times + 1, now_ms + wait_ms);
    }

    /// Whoever has not answered for long is asked anew, as whoever could not answer.
    pub(super) fn give_up_what_is_lost(&mut self, now_ms: u64) {
        let is_lost = |batch: &(u64, Vec<Sent>)| now_ms >= batch.0 + ANSWERED_WITHIN_MS;
        let lost = self.told.iter().filter(|(_, batch)| is_lost(batch));
        for to in lost.map(|(to, _)| *to).collect::<Vec<_>>() {
            self.told.remove(&to);
            self.has_not_answered(to, now_ms);
        }
    }
}
