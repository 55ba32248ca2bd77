//! What is known to be committed, led and handed in, seen from outside.

use bytes::Bytes;
use stock_cluster::GroupId;
use stock_core::{Action, NewNames};
use stock_node::entry::{self, Commands};

use super::checks::history::{AnyCommand, Observed};
use super::checks::{Checked, broken};
use super::faults::FaultKind;
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
            // One wrong clock among several is borne; a group of one voter has no other, and who
            // was recovered alone.
            let is_alone = self.plan.replication == 1 || self.recovered.is_some();
            let clocks_lie = is_alone && self.plan.faults.contains(&FaultKind::ClockStep);
            let leader = self.leaders.of(group, term);
            let handed_in = |command: &AnyCommand| {
                let id = request_id(command)?;
                self.handed_in.get(&(leader?, group, id)).copied()
            };
            let observed = Observed {
                node,
                now_us,
                handed_in: &handed_in,
                clocks_lie,
            };
            let history = &mut self.histories[group.index()];
            if history.committed(index, term, &data, &observed)? {
                let at_us = self.now_us;
                let numbers = [node, u64::from(group.0), index, term];
                let stamp = history.stamp();
                self.trace.note(at_us, "committed", &numbers, || {
                    format!("{group:?} {index} of term {term} and {stamp:?}, seen by node {node}")
                });
            }
            if group == GroupId::META {
                self.see_version_raised()?;
            }
        }
        Ok(())
    }

    /// Takes note of who leads.
    pub(crate) fn see_leaders(&mut self, node: u64) -> Checked {
        let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
            return Ok(());
        };
        for number in 0..running.cluster.groups() {
            let status = running.cluster.group(GroupId(number));
            if status.leader == Some(node) && running.worker.replays(GroupId(number)) {
                let seen =
                    format!("node {node} leads group {number} and has yet to replay its log");
                return broken("fit to lead", seen);
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
        let entry = entry::encode_entry(stock_core::Moment::default(), [commands].into_iter());
        let Ok(entry::Entry { mut commands, .. }) = entry::decode_entry(&entry) else {
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
            Action::Movements(_) | Action::Basket(_) => None,
        },
        AnyCommand::Catalog(_) | AnyCommand::Registry(_) => None,
    }
}
