//! What is known to be committed, led and handed in, seen from outside.

use bytes::Bytes;
use stock_core::{Action, NewNames};
use stockd::log_codec::{self, Commands};
use stockd::worker::event::GroupId;

use super::checks::Checked;
use super::checks::history::{AnyCommand, Sighting};
use super::world::World;

impl World {
    /// Follows the log through what a node knows to be committed.
    pub(crate) fn see_committed(&mut self, node: u64) -> Checked {
        let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
            return Ok(());
        };
        let seen: Vec<(GroupId, u64, u64, Bytes)> = running
            .worker
            .unapplied()
            .flat_map(|(group, entries)| {
                entries
                    .iter()
                    .map(move |entry| (group, entry.index, entry.term, entry.data.clone()))
            })
            .collect();
        let now_us = self.true_us();
        for (group, index, term, data) in seen {
            // A group of one voter forgets the time with each start, and what it wrote just before is seen only after it.
            let time_is_forgotten = self.plan.replication == 1
                || !self.machines.iter().any(|(node, machine)| {
                    let running = machine.running.as_ref();
                    running.is_some_and(|running| {
                        running.remembers_time[group.index()] && running.cluster.is_here(group)
                    }) && self.takes_part(*node, group)
                });
            let leader = self.leaders.of(group, term);
            let handed_in = |command: &AnyCommand| {
                let id = request_id(command)?;
                self.handed_in.get(&(leader?, group, id)).copied()
            };
            let sighting = Sighting {
                node,
                now_us,
                handed_in: &handed_in,
                time_is_forgotten,
            };
            let history = &mut self.histories[group.index()];
            if history.committed(index, term, &data, &sighting)? {
                let at_us = self.now_us;
                let numbers = [node, u64::from(group.0), index, term];
                let stamp = history.stamp();
                self.trace.note(at_us, "committed", &numbers, || {
                    format!("{group:?} {index} of term {term} and {stamp:?}, seen by node {node}")
                });
            }
            // An entry from before its boot, or from an earlier leader, tells a node nothing of what time it is.
            let known_since_us = self.histories[group.index()]
                .entry(index)
                .map_or(0, |entry| entry.known_since_us);
            let running = self
                .machines
                .get_mut(&node)
                .and_then(|m| m.running.as_mut());
            if let Some(running) = running
                && known_since_us >= running.booted_us
                && term == running.cluster.group(group).term
                && !data.is_empty()
            {
                running.remembers_time[group.index()] = true;
            }
        }
        Ok(())
    }

    /// Takes note of who leads, and of who has no replica that could know the time.
    pub(crate) fn see_leaders(&mut self, node: u64) -> Checked {
        let Some(running) = self
            .machines
            .get_mut(&node)
            .and_then(|m| m.running.as_mut())
        else {
            return Ok(());
        };
        for number in 0..running.cluster.groups() {
            let status = running.cluster.group(GroupId(number));
            if !running.cluster.is_here(GroupId(number)) {
                running.remembers_time[number as usize] = false;
            }
            if let Some(leader) = status.leader {
                self.leaders.saw(GroupId(number), status.term, leader)?;
            }
        }
        Ok(())
    }

    pub(crate) fn note_handed_in(&mut self, node: u64, group: GroupId, commands: &Commands) {
        if group == GroupId::META {
            return;
        }
        let entry = log_codec::encode_entry(stock_core::Stamp(0), [commands].into_iter());
        let Ok(log_codec::Entry { mut commands, .. }) = log_codec::decode_entry(&entry) else {
            return;
        };
        let true_us = self.true_us();
        while let Ok(Some(command)) = commands.next_stock(&NewNames) {
            if let Some(id) = request_id(&AnyCommand::Stock(command)) {
                self.handed_in.entry((node, group, id)).or_insert(true_us);
            }
        }
    }
}

fn request_id(command: &AnyCommand) -> Option<[u8; 16]> {
    match command {
        AnyCommand::Stock(command) => match &command.action {
            Action::Request(request, _) => Some(*request.id.as_bytes()),
            Action::Movements(_) => None,
        },
        AnyCommand::Catalog(_) | AnyCommand::Registry(_) => None,
    }
}
