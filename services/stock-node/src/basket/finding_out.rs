//! What the leader of a shard finds out: what home has prepared, and whoever had it prepared has
//! not had it decided.

use std::collections::BTreeMap;

use stock_core::{BasketOutcome, Due, NotHeld, Outcome, Question, ReservationId, Shard};

use super::others::Others;
use super::parts::ToShard;
use super::settling::Settling;

/// What is prepared so long, and not decided by whoever had it prepared, is found out.
const UNDECIDED_FOR_MS: u64 = 1_000;

/// Reservations of a shard that are found out at once.
const SETTLING_MAX: usize = 256;

/// Reservations that are looked at in one turn of the loop.
const LOOKED_AT_MAX: usize = 1_024;

/// Reservations that wait for a shard to answer again. Of what is beyond, everybody is asked now
/// and then.
const WAITING_MAX: usize = 65_536;

/// What is under way. All are looked at in turn: while a shard is away, what only it knows of
/// stands in nobody's way, however much that is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FindingOut {
    settling: BTreeMap<ReservationId, Settling>,
    /// Everybody else has answered to that: who has not.
    waiting: BTreeMap<ReservationId, (Question, u32)>,
    /// Where it goes on, if it has not come to the end.
    behind: Option<Due>,
}

impl FindingOut {
    /// Who is to be asked now.
    pub(super) fn probes(&mut self, shard: &Shard, others: &Others, now_ms: u64) -> Vec<ToShard> {
        self.settling.retain(|id, settling| {
            let Some(question) = shard.question(id) else {
                return false;
            };
            if question.has_ended && !settling.question().has_ended {
                settling.end();
            }
            settling.question() == question
        });
        self.take_in(shard, others, now_ms);
        let unanswered = self.settling.values().flat_map(Settling::unanswered);
        let now = unanswered.filter(|probe| others.may_tell(probe.shard, now_ms));
        now.collect()
    }

    /// Begins with what it has not begun with yet, as far as there is room.
    fn take_in(&mut self, shard: &Shard, others: &Others, now_ms: u64) {
        let prepared_by = shard.stamp().minus_ms(UNDECIDED_FOR_MS);
        let mut behind = self.behind.take();
        let mut looked_at = 0;
        for due in shard.undecided(behind, prepared_by).take(LOOKED_AT_MAX) {
            looked_at += 1;
            let id = due.1;
            let question = shard.question(&id);
            let may_begin = |(asked, silent): &(Question, u32)| {
                Some(*asked) != question || others.may_tell(*silent, now_ms)
            };
            let is_new =
                !self.settling.contains_key(&id) && self.waiting.get(&id).is_none_or(may_begin);
            if is_new && let (Some(question), Some(prepared)) = (question, shard.prepared(&id)) {
                self.make_room(others);
                if self.settling.len() >= SETTLING_MAX {
                    self.behind = behind;
                    return;
                }
                self.waiting.remove(&id);
                let settling = Settling::to_answer(prepared, question);
                self.settling.insert(id, settling);
            }
            behind = Some(due);
        }
        self.behind = behind.filter(|_| looked_at == LOOKED_AT_MAX);
    }

    /// If there is none: what only waits for those that are silent is set aside.
    fn make_room(&mut self, others: &Others) {
        if self.settling.len() < SETTLING_MAX {
            return;
        }
        let waiting = &mut self.waiting;
        self.settling.retain(|id, settling| {
            let mut silent = None;
            for shard in settling.unanswered_by() {
                match others.is_silent(shard) {
                    true => silent = Some(shard),
                    false => return true,
                }
            }
            if let Some(silent) = silent.filter(|_| waiting.len() < WAITING_MAX) {
                waiting.insert(*id, (settling.question(), silent));
            }
            false
        });
    }

    /// It answers again.
    pub(super) fn is_back(&mut self, shard: u32) {
        self.waiting.retain(|_, (_, silent)| *silent != shard);
    }

    /// A participant has said this to that question; what home is told to decide, if that is clear.
    pub(super) fn answered(
        &mut self,
        (id, question): (ReservationId, Question),
        from: u32,
        said: Outcome,
    ) -> Option<ToShard> {
        let settling = self.settling.get_mut(&id)?;
        // It may be the answer about what was prepared before this, or before it ended.
        if settling.question() != question {
            return None;
        }
        // The participant was told what home had decided, and home has lost that: it decides once
        // more, so that nobody holds anything for it.
        let said = match said {
            Outcome::Basket(BasketOutcome::Over) => {
                Outcome::Basket(BasketOutcome::NotHeld(NotHeld::Gone))
            }
            said => said,
        };
        settling.answered(from, Ok(said));
        let decide = settling.decision();
        if decide.is_some() || settling.failure().is_some() {
            // If it stays undecided it is begun anew.
            self.settling.remove(&id);
        }
        decide
    }
}
