//! What operators do: nodes are added and emptied, replicas and leadership moved.

use stock_cluster::{Change, GroupId, NodeState, Registry, RegistryCommand};
use stock_core::{Principal, Request, RequestId};

use super::calls::{Asker, Call, CallId};
use super::checks::history::AnyCommand;
use super::clock::EPOCH_MS;
use super::disk::Ending;
use super::faults::FaultKind;
use super::machine::Machine;
use super::plan::SECOND_US;
use super::workload::{Ask, Wish, encode};
use super::world::{Happening, World};

impl World {
    /// An operator does something.
    pub(crate) fn operate(&mut self, kind: FaultKind) {
        if kind == FaultKind::Join {
            return self.add_a_node();
        }
        let Some(change) = self.wanted(kind) else {
            return;
        };
        let did = match change {
            Change::Drain { .. } => FaultKind::Drain,
            _ => kind,
        };
        self.tally.add(did.name());
        let bits = u128::from(EPOCH_MS + self.true_us() / 1_000) << 80
            | 0x7 << 76
            | u128::from(self.fate.number() >> 2);
        let request = RequestId::new(bits.to_be_bytes()).ok().map(|id| Request {
            id,
            fingerprint: change.fingerprint(),
        });
        // Some are impatient, and ask a second node for the same.
        let times = self.fate.between(1, 2);
        for _ in 0..times {
            let nodes = self.nodes();
            if let Some(node) = self.fate.pick(&nodes).copied() {
                self.ask_group_0(node, change.clone(), request);
            }
        }
    }

    /// A group is to be led by a node that dies, and is slow when it comes back.
    pub(crate) fn have_a_slow_node_lead(&mut self, node: u64) {
        let Some(registry) = self.registry() else {
            return;
        };
        let held = registry.placements().filter(|(_, placement)| {
            let mut voters = placement.voters.iter();
            voters.any(|voter| voter.node() == node)
        });
        let held: Vec<GroupId> = held.map(|(group, _)| group).collect();
        let Some(group) = self.fate.pick(&held).copied() else {
            return;
        };
        self.tally.add(FaultKind::SlowReplay.name());
        let others: Vec<u64> = self.nodes().into_iter().filter(|it| *it != node).collect();
        if let Some(other) = self.fate.pick(&others).copied() {
            let node = Some(node);
            self.ask_group_0(other, Change::PreferLeader { group, node }, None);
        }
        self.die(node, Ending::Killed);
        let for_us = self.fate.between(4 * SECOND_US, 12 * SECOND_US);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.slow_turns_until_us = self.now_us + for_us;
        }
    }

    fn add_a_node(&mut self) {
        let mut machines = self.machines.iter_mut();
        let is_new = |machine: &Machine| machine.is_out && !machine.is_removed;
        let Some((node, machine)) = machines.find(|(_, machine)| is_new(machine)) else {
            return;
        };
        let node = *node;
        machine.is_out = false;
        machine.is_expected = true;
        self.tally.add(FaultKind::Join.name());
        self.dial_all(node);
        self.after(1_000, Happening::Boot(node));
    }

    /// Nodes that were taken out for good are stopped, and never come back.
    pub(crate) fn stop_the_removed(&mut self) {
        let Some(registry) = self.registry() else {
            return;
        };
        let removed = registry.nodes();
        let removed = removed.filter(|(_, record)| record.state == NodeState::Removed);
        let removed: Vec<u64> = removed.map(|(node, _)| node).collect();
        for node in removed {
            let Some(machine) = self.machines.get_mut(&node).filter(|it| !it.is_removed) else {
                continue;
            };
            machine.is_removed = true;
            machine.is_out = true;
            self.tally.add("nodes removed");
            self.die(node, Ending::Killed);
        }
    }

    /// Something that makes sense, as a rule: the registry has the last word.
    fn wanted(&mut self, kind: FaultKind) -> Option<Change> {
        let registry = self.registry()?;
        let in_state = |registry: &Registry, state: NodeState| -> Vec<u64> {
            let nodes = registry.nodes();
            let nodes = nodes.filter(|(_, record)| record.state == state);
            nodes.map(|(node, _)| node).collect()
        };
        let active = in_state(registry, NodeState::Active);
        let draining = in_state(registry, NodeState::Draining);
        let placed: Vec<(GroupId, Vec<u64>)> = registry
            .placements()
            .map(|(group, it)| (group, it.voters.iter().map(|it| it.node()).collect()))
            .collect();
        let (group, holders) = self.fate.pick(&placed).cloned()?;
        match kind {
            // Where a recovery has left too few replicas, nobody empties the node that the next is
            // to be on.
            FaultKind::Drain if !self.is_replicated() => None,
            FaultKind::Drain => {
                let node = *self.fate.pick(&active)?;
                Some(Change::Drain { node })
            }
            FaultKind::Undrain => {
                // Where nothing is being emptied, this begins with it.
                let Some(node) = self.fate.pick(&draining).copied() else {
                    return self.wanted(FaultKind::Drain);
                };
                Some(Change::Undrain { node })
            }
            FaultKind::Remove => {
                let Some(node) = self.fate.pick(&draining).copied() else {
                    return self.wanted(FaultKind::Drain);
                };
                Some(Change::Remove { node })
            }
            FaultKind::Move => {
                let free = active.iter().copied();
                let free: Vec<u64> = free.filter(|node| !holders.contains(node)).collect();
                let (from, to) = (*self.fate.pick(&holders)?, *self.fate.pick(&free)?);
                Some(Change::MoveReplica { group, from, to })
            }
            FaultKind::Transfer => {
                let to = *self.fate.pick(&holders)?;
                let node = self.fate.chance(800).then_some(to);
                Some(Change::PreferLeader { group, node })
            }
            _ => None,
        }
    }

    /// A node is asked to have group 0 carry a change out.
    pub(crate) fn ask_group_0(
        &mut self,
        node: u64,
        change: Change,
        request: Option<Request>,
    ) -> CallId {
        let id = self.next_call;
        self.next_call += 1;
        let principal = Principal::new("operator").unwrap_or_else(|_| unreachable!("a name"));
        let command = AnyCommand::Registry(RegistryCommand {
            principal,
            request,
            change,
        });
        let commands = vec![command];
        let encoded = encode(&commands);
        let wish = Wish {
            group: GroupId::META,
            ask: Ask::Commands(commands),
        };
        self.trace.note(self.now_us, "asks", &[id, node], || {
            format!("{id} at node {node}: {wish:?}")
        });
        self.calls.insert(
            id,
            Call {
                node,
                boot: None,
                wish,
                commands: Some(encoded),
                way: None,
                sent_on: None,
                asker: Asker::Client,
                over_shards: None,
                answered_before: self.answered[GroupId::META.index()],
            },
        );
        let after_us = self.pace.between(30, 300);
        self.after(after_us, Happening::Take(id));
        id
    }
}
