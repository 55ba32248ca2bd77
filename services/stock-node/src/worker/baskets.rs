//! Baskets over several shards: the leader of a shard sees to what its shard owes others, or has to
//! ask them.

use stock_cluster::GroupId;

use super::Worker;
use crate::answer::Answer;
use crate::basket::{Errand, ToShard};
use crate::entry::{Commands, CommandsBuilder};
use crate::event::Effect;
use crate::state::State;

impl<R> Worker<R> {
    /// What is due, of all shards that are led here.
    pub(super) fn see_to_baskets(&mut self, effects: &mut Vec<Effect<R>>) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let from = GroupId(number as u32);
            let (Some(group), Some(own)) = (&mut slot.group, from.shard()) else {
                continue;
            };
            if !group.leads_in_full() {
                continue;
            }
            let (State::Stock(shard), term) = (&group.state, group.replica.term()) else {
                continue;
            };
            let due = group.leading.due(own, shard, term, self.now.boot_ms);
            effects.extend(due.into_iter().map(|Errand { to, commands }| {
                let to = GroupId::of_shard(to);
                let mut builder = CommandsBuilder::default();
                commands.iter().for_each(|command| builder.push(command));
                let commands = builder.take();
                Effect::Errand {
                    from,
                    term,
                    to,
                    commands,
                }
            }));
        }
    }

    /// What another shard has said to an errand of that term.
    pub(super) fn errand_answered(&mut self, from: GroupId, term: u64, to: GroupId, said: Answer) {
        let Some(group) = &mut self.slots[from.index()].group else {
            return;
        };
        let Some(own) = from.shard().filter(|_| group.leads_in_full()) else {
            return;
        };
        let now_ms = self.now.boot_ms;
        let duties = group.leading.answered(own, (term, to), said, now_ms);
        if !duties.is_empty() {
            group.propose_unasked(together(&duties));
            self.touched.insert(from.index());
        }
    }
}

fn together(tell: &[ToShard]) -> Commands {
    let mut builder = CommandsBuilder::default();
    tell.iter().for_each(|it| builder.push(&it.command));
    builder.take()
}
