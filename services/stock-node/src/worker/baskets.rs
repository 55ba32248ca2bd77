//! Baskets over several shards: the leader of a shard sees to what its shard owes others, or has to
//! ask them.

use stock_cluster::GroupId;

use super::Worker;
use crate::answer::{Answer, Failure, Outcome};
use crate::basket::{Errand, Errands};
use crate::entry::CommandsBuilder;
use crate::event::Effect;
use crate::state::State;

/// What a leader has under way, and in which term it is one.
#[derive(Debug, Default)]
pub(super) struct Leading {
    term: u64,
    errands: Errands,
}

impl<R> Worker<R> {
    /// What is due, of all shards that are led here.
    pub(super) fn see_to_baskets(&mut self, effects: &mut Vec<Effect<R>>) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let from = GroupId(number as u32);
            let (Some(group), Some(own)) = (&mut slot.group, from.shard()) else {
                continue;
            };
            let State::Stock(shard) = &group.state else {
                continue;
            };
            let leads = group.leads_in_full();
            let (term, leading) = (group.replica.term(), &mut group.leading);
            if leading.term != term || !leads {
                // Whoever leads now begins anew.
                *leading = Leading {
                    term,
                    errands: Errands::default(),
                };
            }
            if !leads {
                continue;
            }
            let due = leading.errands.due(own, shard, self.now.boot_ms);
            effects.extend(due.into_iter().map(|Errand { to, commands }| {
                let mut builder = CommandsBuilder::default();
                commands.iter().for_each(|command| builder.push(command));
                Effect::Errand {
                    from,
                    term,
                    to: GroupId::of_shard(to),
                    commands: builder.take(),
                }
            }));
        }
    }

    /// What another shard has said to an errand of that term.
    pub(super) fn errand_answered(&mut self, from: GroupId, term: u64, to: GroupId, said: Answer) {
        let Some(group) = &mut self.slots[from.index()].group else {
            return;
        };
        let (Some(own), Some(shard)) = (from.shard(), to.shard()) else {
            return;
        };
        if group.leading.term != term || !group.leads_in_full() {
            return;
        }
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
        let errands = &mut group.leading.errands;
        let duties = errands.answered(own, shard, said, self.now.boot_ms);
        if duties.is_empty() {
            return;
        }
        let mut builder = CommandsBuilder::default();
        duties.iter().for_each(|duty| builder.push(&duty.command));
        group.propose_unasked(builder.take());
        self.touched.insert(from.index());
    }
}
