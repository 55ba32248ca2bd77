//! What the leader of a shard has under way with other shards.

use stock_core::Shard;

use crate::answer::{Answer, Failure, Outcome};
use crate::basket::{Errand, Errands, ToShard};
use crate::event::ErrandId;

/// What a leader has under way, and in which term it is one.
#[derive(Debug, Default)]
pub(super) struct Leading {
    term: u64,
    errands: Errands,
}

impl Leading {
    /// What is due, of a shard that is led in this term.
    pub(super) fn due(&mut self, own: u32, shard: &Shard, term: u64, now_ms: u64) -> Vec<Errand> {
        // Whoever leads anew begins anew, whatever was under way.
        if self.term != term {
            *self = Self {
                term,
                errands: Errands::default(),
            };
        }
        self.errands.due(own, shard, now_ms)
    }

    /// What the own shard is told then, when another has answered an errand of this term.
    pub(super) fn answered(
        &mut self,
        own: u32,
        errand: ErrandId,
        said: Answer,
        now_ms: u64,
    ) -> Vec<ToShard> {
        let Some(to) = errand.to.shard().filter(|_| self.term == errand.term) else {
            return Vec::new();
        };
        let said = match said {
            Answer::Outcomes(applied) => {
                let outcomes = applied.outcomes.into_iter();
                outcomes.map(Outcome::of_stock).collect()
            }
            Answer::Failed(failure) => Err(failure),
            Answer::Reached { .. } | Answer::Reservation { .. } | Answer::Listed { .. } => {
                Err(Failure::OutcomeUnknown)
            }
        };
        self.errands
            .answered(own, (to, errand.sent_ms), said, now_ms)
    }
}
