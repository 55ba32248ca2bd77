//! Baskets over several shards, as an edge plays them with `stock_node::basket`: what it asks of
//! shards in a caller's name, and what the leaders of shards ask of each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use stock_cluster::GroupId;
use stock_core::{Command, NewNames, Outcome, Prepared, Stamp};
use stock_node::answer::{Answer, Failure, Outcome as GroupOutcome};
use stock_node::basket::{Coordinator, Ended, Said, Settling, Then, ToShard, passed_on};
use stock_node::entry::{self, Commands};
use stock_node::event::{Effect, Event};

use super::calls::{Asker, Call, CallId, ReplyTo, Told};
use super::checks::Checked;
use super::checks::history::AnyCommand;
use super::over_shards::{Doing, OverShards};
use super::workload::{Ask, Wish, encode};
use super::world::{Happening, World};

/// See `stockd/src/api/undecided.rs`.
const SETTLED_MAX: u32 = 3;

impl World {
    /// A call is for several shards: the node that was asked asks them. `false` if it is for one.
    pub(crate) fn begin_basket(&mut self, id: CallId) -> bool {
        let Some(call) = self.calls.get_mut(&id) else {
            return false;
        };
        let Ask::Commands(commands) = &call.wish.ask else {
            return false;
        };
        let [AnyCommand::Stock(command)] = &commands[..] else {
            return false;
        };
        let machine = self.machines.get(&call.node);
        let Some(running) = machine.and_then(|machine| machine.running.as_ref()) else {
            return false;
        };
        let wall_ms = running.now.wall_ms;
        let asked_at = Stamp(running.cluster.time_ms(wall_ms).unwrap_or(wall_ms));
        let Ok((coordinator, first)) = Coordinator::new(asked_at_time(command, asked_at)) else {
            return false;
        };
        let settled = call.over_shards.take().map_or(0, |before| before.settled);
        call.over_shards = Some(OverShards {
            doing: Doing::Coordinating(Box::new(coordinator)),
            seen: BTreeMap::new(),
            settled,
        });
        self.tally.add("baskets over shards begun");
        self.tell_shards(id, first);
        true
    }

    /// Shards are told something for a call, by the node that was asked.
    pub(crate) fn tell_shards(&mut self, id: CallId, tell: Vec<ToShard>) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        let (node, Some(boot)) = (call.node, call.boot) else {
            return;
        };
        for ToShard { shard, command } in tell {
            let commands = vec![AnyCommand::Stock(command)];
            self.ask_for(
                node,
                boot,
                Asker::Basket(id),
                GroupId::of_shard(shard),
                commands,
            );
        }
    }

    /// The leader of a shard has something carried out by another.
    pub(crate) fn run_errand(&mut self, node: u64, boot: u64, errand: Effect<ReplyTo>) {
        if let Effect::Errand { errand, commands } = errand {
            self.tally.add("errands");
            let commands = decoded(&commands);
            self.ask_for(node, boot, Asker::Errand(errand), errand.to, commands);
        }
    }

    /// A node has commands carried out, wherever their group is led.
    fn ask_for(
        &mut self,
        node: u64,
        boot: u64,
        asker: Asker,
        group: GroupId,
        commands: Vec<AnyCommand>,
    ) {
        let id = self.next_call;
        self.next_call += 1;
        let encoded = encode(&commands);
        self.trace.note(
            self.now_us,
            "asked",
            &[id, node, u64::from(group.0)],
            || format!("{id} by node {node}, for {asker:?}, of {group:?}: {commands:?}"),
        );
        let call = Call {
            node,
            boot: Some(boot),
            asker,
            answered_before: self.answered[group.index()],
            wish: Wish {
                group,
                ask: Ask::Commands(commands),
            },
            commands: Some(encoded),
            way: None,
            sent_on: None,
            over_shards: None,
        };
        self.calls.insert(id, call);
        self.after(1, Happening::Take(id));
    }

    /// A shard has answered a node that asked it in somebody's name.
    pub(crate) fn shard_answered(&mut self, call: &Call, told: Told) {
        let node = call.node;
        let (index, said) = match told {
            Told::Outcomes { index, outcomes } => (Some(index), Ok(outcomes)),
            Told::Failed(failure) => (None, Err(failure)),
            Told::Found { .. } | Told::Basket(_) | Told::NotConnected | Told::Nothing => {
                (None, Err(Failure::OutcomeUnknown))
            }
        };
        let machine = self.machines.get_mut(&node);
        let Some(running) = machine.and_then(|machine| machine.running.as_mut()) else {
            return;
        };
        if Some(running.boot) != call.boot {
            return;
        }
        match call.asker {
            Asker::Client => {}
            Asker::Nobody => {
                let outcomes = said.unwrap_or_default().into_iter();
                let outcomes: Vec<Outcome> = outcomes.filter_map(|it| it.of_stock().ok()).collect();
                let (node, boot) = (call.node, running.boot);
                self.say(node, boot, passed_on(outcomes.iter()));
            }
            Asker::Errand(errand) => {
                let answer = match said {
                    Ok(outcomes) => Answer::Outcomes(stock_node::answer::Applied {
                        applied_index: index.unwrap_or(0),
                        stamp: Stamp(0),
                        outcomes,
                    }),
                    Err(failure) => Answer::Failed(failure),
                };
                running.inbox.push(Event::ErrandAnswered { errand, answer });
                self.wake(node);
            }
            Asker::Basket(id) => {
                let first = said.map(|outcomes| outcomes.into_iter().next());
                let said = match first {
                    Ok(Some(outcome)) => outcome.of_stock(),
                    Ok(None) => Err(Failure::OutcomeUnknown),
                    Err(failure) => Err(failure),
                };
                self.basket_answered(id, call.wish.group, index, said);
            }
        }
    }

    fn basket_answered(&mut self, id: CallId, group: GroupId, index: Option<u64>, said: Said) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let (Some(over_shards), Some(shard)) = (&mut call.over_shards, group.shard()) else {
            return;
        };
        if let Some(index) = index {
            let seen = over_shards.seen.entry(group).or_default();
            *seen = index.max(*seen);
        }
        match &mut over_shards.doing {
            Doing::Coordinating(coordinator) => match coordinator.answered(shard, said) {
                Then::Wait => {}
                Then::Tell(tell) => self.tell_shards(id, tell),
                Then::TellLater(ms, tell) => {
                    self.tally.add("baskets that waited for another");
                    self.after(ms * 1_000, Happening::TellShards(id, tell));
                }
                Then::End(Ended { said, afterwards }) => self.basket_ended(id, said, afterwards),
            },
            Doing::Settling(settling) => {
                settling.answered(shard, said);
                if let Some(decide) = settling.decision() {
                    over_shards.doing = Doing::Deciding;
                    self.tell_shards(id, vec![decide]);
                } else if settling.is_over() {
                    self.ask_once_more(id);
                } else if let Some(failure) = settling.failure() {
                    self.tell(id, Told::Failed(failure));
                }
            }
            Doing::Deciding => match said {
                Ok(_) => self.ask_once_more(id),
                Err(failure) => self.tell(id, Told::Failed(failure)),
            },
        }
    }

    fn basket_ended(&mut self, id: CallId, said: Said, afterwards: Vec<ToShard>) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        if let (node, Some(boot)) = (call.node, call.boot) {
            self.say(node, boot, afterwards.into_iter());
        }
        match said {
            Ok(Outcome::Undecided(prepared)) => self.settle(id, prepared),
            Ok(outcome) => {
                self.tally.add("baskets over shards answered");
                self.tell(id, Told::Basket(outcome));
            }
            Err(failure) => self.tell(id, Told::Failed(failure)),
        }
    }

    /// A node says this to shards, and nobody waits for it.
    fn say(&mut self, node: u64, boot: u64, tell: impl Iterator<Item = ToShard>) {
        for ToShard { shard, command } in tell {
            let (group, commands) = (GroupId::of_shard(shard), vec![AnyCommand::Stock(command)]);
            self.ask_for(node, boot, Asker::Nobody, group, commands);
        }
    }

    /// What is not decided of a reservation is found out, before the command that came upon it is
    /// tried once more.
    pub(crate) fn settle(&mut self, id: CallId, prepared: Arc<Prepared>) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let before = call.over_shards.take();
        let (settled, seen) = before.map_or_else(Default::default, |it| (it.settled, it.seen));
        if settled >= SETTLED_MAX {
            self.tell(id, Told::Failed(Failure::OutcomeUnknown));
            return;
        }
        let settling = Settling::new(prepared);
        let probes = settling.unanswered().collect();
        call.over_shards = Some(OverShards {
            doing: Doing::Settling(Box::new(settling)),
            seen,
            settled: settled + 1,
        });
        self.tally.add("settled for somebody");
        self.tell_shards(id, probes);
    }

    fn ask_once_more(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.way = None;
            self.after(1, Happening::Take(id));
        }
    }

    /// A caller has hung up: the node does nothing more for it, now and then.
    pub(crate) fn hung_up(&mut self, id: CallId) {
        let is_noticed = self.fate.chance(500);
        if let Some(call) = self.calls.get_mut(&id)
            && is_noticed
            && call.over_shards.is_some()
        {
            self.tally.add("baskets over shards left");
            call.over_shards = None;
            call.boot = None;
            self.calls.remove(&id);
        }
    }

    /// A caller has the answer to a basket: whatever begins from now on sees all of it.
    pub(crate) fn basket_heard(&mut self, call: &Call, outcome: &Outcome) -> Checked {
        let seen = call.over_shards.iter().flat_map(|it| &it.seen);
        for (group, index) in seen {
            let answered = &mut self.answered[group.index()];
            *answered = (*answered).max(*index);
        }
        if let Ask::Commands(commands) = &call.wish.ask
            && let [AnyCommand::Stock(command)] = &commands[..]
        {
            self.baskets.answered(command, outcome)?;
        }
        Ok(())
    }
}

/// The command, as an edge asks it at this time.
fn asked_at_time(command: &Command, asked_at: Stamp) -> Command {
    let mut command = command.clone();
    if let Some(over) = command.action.over_mut() {
        over.asked_at = asked_at;
    }
    command
}

fn decoded(commands: &Commands) -> Vec<AnyCommand> {
    let entry = entry::encode_entry(stock_core::Moment::default(), [commands].into_iter());
    let mut all = Vec::new();
    if let Ok(entry::Entry { mut commands, .. }) = entry::decode_entry(&entry) {
        while let Ok(Some(command)) = commands.next_stock(&NewNames) {
            all.push(AnyCommand::Stock(command));
        }
    }
    all
}

/// What is prepared by another request, where that is all that a shard says.
pub(crate) fn undecided(outcomes: &[GroupOutcome]) -> Option<Arc<Prepared>> {
    match outcomes {
        [GroupOutcome::Stock(Outcome::Undecided(prepared))] => Some(Arc::clone(prepared)),
        _ => None,
    }
}
