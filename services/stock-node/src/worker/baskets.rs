//! Baskets over several shards: the leader of a shard sees to what its shard owes others, or has to
//! ask them.

use stock_cluster::GroupId;
use stock_core::{Action, BasketCommand, Command};

use super::Worker;
use crate::answer::Answer;
use crate::basket::Errand;
use crate::entry::{Commands, CommandsBuilder};
use crate::event::{Effect, ErrandId};
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
            effects.extend(due.into_iter().map(|due: Errand| {
                count(&due.commands);
                let errand = ErrandId {
                    from,
                    term,
                    to: GroupId::of_shard(due.to),
                    sent_ms: due.sent_ms,
                };
                let commands = together(due.commands.iter());
                Effect::Errand { errand, commands }
            }));
        }
    }

    /// What another shard has said to an errand.
    pub(super) fn errand_answered(&mut self, errand: ErrandId, said: Answer) {
        let from = errand.from;
        let Some(group) = &mut self.slots[from.index()].group else {
            return;
        };
        let Some(own) = from.shard().filter(|_| group.leads_in_full()) else {
            return;
        };
        let now_ms = self.now.boot_ms;
        let duties = group.leading.answered(own, errand, said, now_ms);
        if !duties.is_empty() {
            group.propose_unasked(together(duties.iter().map(|it| &it.command)));
            self.touched.insert(from.index());
        }
    }
}

/// What leaders have to say to each other on account of baskets.
fn count(commands: &[Command]) {
    let (mut follow, mut probe, mut ask, mut tell_anew) = (0, 0, 0, 0);
    for command in commands {
        let Action::Basket(command) = &command.action else {
            continue;
        };
        match command {
            BasketCommand::Follow(_) => follow += 1,
            BasketCommand::Probe(_) => probe += 1,
            BasketCommand::Ask(_) => ask += 1,
            BasketCommand::TellAnew(_) => tell_anew += 1,
            // These are no errands.
            BasketCommand::HoldPart(_)
            | BasketCommand::AllHeld(_)
            | BasketCommand::Decide(_)
            | BasketCommand::Acknowledge(_)
            | BasketCommand::Recovered(_)
            | BasketCommand::ToldAnew(_) => {}
        }
    }
    let all = [
        ("follow", follow),
        ("probe", probe),
        ("ask", ask),
        ("tell_anew", tell_anew),
    ];
    for (what, count) in all.into_iter().filter(|(_, count)| *count > 0) {
        metrics::counter!("stockd_errand_commands_total", "what" => what).increment(count);
    }
}

fn together<'a>(commands: impl Iterator<Item = &'a Command>) -> Commands {
    let mut builder = CommandsBuilder::default();
    commands.for_each(|command| builder.push(command));
    builder.take()
}
