//! Where nodes are reached, which changes: they find each other by what they heard last, what the
//! registry says, and what they were configured with, as `stockd/src/peers/whereabouts.rs` has it.

use std::collections::BTreeMap;

use stock_cluster::identity::Addresses;
use stock_cluster::{Change, Directory, GroupId, NodeState, Registry};

use super::disk::Ending;
use super::faults::FaultKind;
use super::machine::{Machine, first_address};
use super::network::Way;
use super::plan::SECOND_US;
use super::world::{Happening, World};

/// How often a node looks whether the registry has it right, as in production.
const ANNOUNCE_EVERY_US: u64 = SECOND_US;

/// Addresses that no machine has at first.
const SPARE_ADDRESSES: u64 = 2;

impl Machine {
    /// What its disk and its loop are told of where the members are, when the registry has changed.
    pub(crate) fn note_nodes(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let registry = running.cluster.registry();
        if !registry.is_founded() {
            return;
        }
        self.roster = listed(&registry);
        running
            .whereabouts
            .retain(|node, _| self.roster.contains_key(node));
        for (node, address) in &self.roster {
            let whereabouts = running.whereabouts.entry(*node).or_default();
            whereabouts.listed.clone_from(address);
        }
    }
}

/// Where every member is, as the registry has it.
pub(crate) fn listed(registry: &Registry) -> BTreeMap<u64, String> {
    let members = registry.nodes();
    let members = members.filter(|(_, record)| record.state != NodeState::Removed);
    members
        .map(|(node, record)| (node, record.peers.clone()))
        .collect()
}

impl World {
    fn addresses_change(&self) -> bool {
        self.plan.faults.contains(&FaultKind::MovedMachine)
    }

    /// A machine is switched off, and started again somewhere else. The configuration of the others
    /// stays as it is, so that it takes one who knows where they are, and others who tell: only one
    /// is on its way at a time.
    pub(crate) fn move_machine(&mut self, node: u64) {
        let taken: Vec<&String> = self.machines.values().map(|it| &it.address).collect();
        let all = (1..=self.plan.machines + SPARE_ADDRESSES).map(first_address);
        let free: Vec<String> = all.filter(|address| !taken.contains(&address)).collect();
        let is_quiet = self.registry().is_some_and(|registry| {
            let known = listed(registry);
            let inside = self.machines.iter().filter(|(_, it)| !it.is_out);
            inside.clone().all(|(id, machine)| {
                machine.running.is_some()
                    && machine.roster == known
                    && known.get(id) == Some(&machine.address)
            })
        });
        let Some(address) = self.fate.pick(&free).cloned().filter(|_| is_quiet) else {
            return;
        };
        self.tally.add(FaultKind::MovedMachine.name());
        self.die(node, Ending::PowerCut);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.address = address;
        }
    }

    /// Whether one node knows where the other is.
    pub(crate) fn finds(&self, way: Way) -> bool {
        if !self.addresses_change() {
            return true;
        }
        let seeker = self.machines.get(&way.from);
        let seeker = seeker.and_then(|machine| machine.running.as_ref());
        let known = seeker.and_then(|running| running.whereabouts.get(&way.to));
        let there = self.machines.get(&way.to).map(|machine| &machine.address);
        known
            .zip(there)
            .is_some_and(|(known, there)| known.all().contains(there))
    }

    /// A node has heard from another where that one is.
    pub(crate) fn is_at(&mut self, node: u64, other: u64) {
        let there = self.machines.get(&other);
        let address = there.map(|machine| machine.address.clone());
        let machine = self.machines.get_mut(&node);
        let running = machine.and_then(|machine| machine.running.as_mut());
        let known = running.and_then(|running| running.whereabouts.get_mut(&other));
        if let (Some(known), Some(address)) = (known, address) {
            known.heard = address;
        }
    }

    /// A node that has started asks everybody whom it finds what they know of it; so they hear
    /// where it is.
    pub(crate) fn call_the_roll(&mut self, node: u64) {
        if !self.addresses_change() {
            return;
        }
        for other in self.nodes().into_iter().filter(|other| *other != node) {
            self.introduce_from_afar(Way {
                from: node,
                to: other,
            });
        }
        if let Some(boot) = self.boot_of(node) {
            self.after(ANNOUNCE_EVERY_US, Happening::Announce { node, boot });
        }
    }

    /// Tells another node, which dials this one, where that is.
    fn introduce_from_afar(&mut self, way: Way) {
        let runs = |node: u64| {
            let machine = self.machines.get(&node);
            machine.is_some_and(|it| it.running.is_some() && it.paused_until_us <= self.now_us)
        };
        let is_heard = runs(way.to)
            && self.network.is_free(way)
            && self.network.is_free(way.back())
            && self.finds(way);
        if is_heard {
            self.is_at(way.to, way.from);
        }
    }

    /// Once a second or so a node tells one that should have dialled it where it is.
    pub(crate) fn be_dialled(&mut self, way: Way) {
        if self.addresses_change() && self.pace.chance(100) {
            self.introduce_from_afar(way);
        }
    }

    fn boot_of(&self, node: u64) -> Option<u64> {
        Some(self.machines.get(&node)?.running.as_ref()?.boot)
    }

    /// A node that the registry has elsewhere has it written down where it is, as
    /// `stockd/src/api/announce.rs` does.
    pub(crate) fn announce(&mut self, node: u64, boot: u64) {
        if self.boot_of(node) != Some(boot) {
            return;
        }
        self.after(ANNOUNCE_EVERY_US, Happening::Announce { node, boot });
        let Some(machine) = self.machines.get(&node) else {
            return;
        };
        let Some(running) = &machine.running else {
            return;
        };
        let registry = running.cluster.registry();
        let Some(record) = registry.node(node) else {
            return;
        };
        let Addresses { grpc, peers } = running.introductions.identity.addresses.clone();
        let directory = Directory(machine.directory);
        let is_right = record.peers == peers && record.grpc == grpc;
        if record.directory != Some(directory) || is_right {
            return;
        }
        let change = match running.cluster.group(GroupId::META).leader {
            None => return,
            Some(leader) if leader == node => Change::UpdateAddresses { node, grpc, peers },
            // Another takes it for the join of a directory that is a member's already.
            Some(_) => Change::Join {
                node,
                directory,
                replaces: Some(directory),
                grpc,
                peers,
            },
        };
        self.tally.add("addresses announced");
        self.ask_group_0(node, change, None);
    }
}
