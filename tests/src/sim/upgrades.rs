//! Builds that come and go: nodes are started with the build before or the one after, forwards and
//! back, and an operator has the cluster speak the later version whenever it will have it. Nobody
//! waits for anybody: a node whose build came to be too old stops, and is given the later one.

use std::collections::BTreeSet;

use stock_cluster::{Change, NodeState, Speaks};
use stock_node::event::Event;
use stock_node::worker::WorkerError;
use stockd::host::HostError;

use super::checks::{Checked, broken};
use super::disk::Ending;
use super::faults::FaultKind;
use super::machine::Stop;
use super::plan::{AFTER, BEFORE, SECOND_US};
use super::world::{Happening, World};

/// What is known of the cluster's version.
#[derive(Debug, Default)]
pub(crate) struct Upgrades {
    /// Nodes that have run with the build after.
    followed: BTreeSet<u64>,
    /// The entry of group 0 that raised the version.
    raised_at: Option<u64>,
}

impl World {
    /// An operator starts all nodes with another build, one after the other, or only this one, and
    /// asks for the later version: sooner than would be wise, at times.
    pub(crate) fn upgrade(&mut self, node: u64) {
        self.tally.add(FaultKind::Upgrade.name());
        let build = if self.fate.chance(700) { AFTER } else { BEFORE };
        let nodes = match self.fate.chance(700) {
            true => self.nodes(),
            false => vec![node],
        };
        let mut at_us = 0;
        for node in nodes {
            at_us += self.fate.between(50_000, SECOND_US);
            self.start_with(node, build, at_us);
        }
        if self.fate.chance(600) {
            let after_us = self.fate.between(0, at_us + 6 * SECOND_US);
            self.after(after_us, Happening::RaiseVersion);
        }
    }

    /// A node is stopped in order after a while, and started with this build.
    fn start_with(&mut self, node: u64, build: Speaks, after_us: u64) {
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        machine.speaks = build;
        if let Some(running) = &mut machine.running {
            running.inbox.push(Event::HandOver);
        }
        self.wake(node);
        self.after(after_us, Happening::Die(node, Ending::Killed));
    }

    /// An operator asks for the later version.
    pub(crate) fn ask_to_raise(&mut self) {
        let nodes = self.nodes();
        if let Some(node) = self.fate.pick(&nodes).copied() {
            self.tally.add("versions asked for");
            let version = AFTER.newest;
            self.ask_group_0(node, Change::RaiseVersion { version }, None);
        }
        // Somebody else goes back meanwhile.
        if self.fate.chance(400)
            && let Some(node) = self.fate.pick(&nodes).copied()
        {
            let after_us = self.fate.between(1_000, 200_000);
            self.start_with(node, BEFORE, after_us);
        }
    }

    /// A node has been started.
    pub(crate) fn note_build(&mut self, node: u64) {
        let machine = self.machines.get(&node);
        if machine.is_some_and(|machine| machine.speaks == AFTER) {
            self.upgrades.followed.insert(node);
        }
    }

    /// Whether a node stopped because its build is too old, which is then replaced.
    pub(crate) fn was_too_old(&mut self, node: u64, stop: &Stop) -> bool {
        let is_told = matches!(
            stop,
            Stop::Stopped(HostError::Worker(WorkerError::Version { .. }))
        );
        let is_true = self.upgrades.raised_at.is_some();
        let machine = self.machines.get_mut(&node);
        let Some(machine) = machine.filter(|it| is_told && is_true && it.build() == BEFORE) else {
            return false;
        };
        machine.speaks = AFTER;
        self.tally.add("builds that were too old");
        true
    }

    /// Another node does not talk to one whose build is too old, which somebody replaces after a
    /// while.
    pub(crate) fn is_too_old(&mut self, node: u64) {
        if let Some(machine) = self.machines.get_mut(&node)
            && machine.speaks == BEFORE
            && self.upgrades.raised_at.is_some()
        {
            machine.speaks = AFTER;
            self.tally.add("builds that were refused");
            let after_us = self.fate.between(SECOND_US / 5, 2 * SECOND_US);
            self.after(after_us, Happening::Die(node, Ending::Killed));
        }
    }

    /// Group 0's log has gone on. The version is raised only when every member has had the later
    /// build.
    pub(crate) fn see_version_raised(&mut self) -> Checked {
        let Some(registry) = self.registry() else {
            return Ok(());
        };
        if self.upgrades.raised_at.is_some() || registry.version() < AFTER.newest {
            return Ok(());
        }
        let index = self.histories[0].last_index();
        let joined = registry
            .nodes()
            .filter(|(_, record)| record.state != NodeState::Removed && record.directory.is_some());
        let left_out = joined
            .map(|(node, _)| node)
            .find(|node| !self.upgrades.followed.contains(node));
        if let Some(node) = left_out.filter(|_| self.plan.faults.contains(&FaultKind::Upgrade)) {
            let seen = format!(
                "raised by entry {index}, and node {node} never ran a build that speaks it"
            );
            return broken("versions", seen);
        }
        self.upgrades.raised_at = Some(index);
        self.tally.add("versions raised");
        Ok(())
    }

    /// Nobody goes on in a cluster whose version it does not speak, and nobody forgets the version.
    pub(crate) fn see_version(&self, node: u64) -> Checked {
        let (Some(raised_at), Some(machine)) = (self.upgrades.raised_at, self.machines.get(&node))
        else {
            return Ok(());
        };
        let Some(running) = &machine.running else {
            return Ok(());
        };
        let cluster = &running.cluster;
        let (index, version) = (cluster.registry_index(), cluster.registry().version());
        let seen = match version {
            _ if index < raised_at => return Ok(()),
            // What a recovery has lost, it has lost by intent.
            version if version < AFTER.newest && self.recovered.is_none() => {
                format!("node {node} has version {version} at {index}, raised at {raised_at}")
            }
            version if !running.speaks.includes(version) => {
                format!("node {node} goes on with version {version} and speaks another")
            }
            _ => return Ok(()),
        };
        broken("versions", seen)
    }

    /// A node of which the registry has it otherwise what it speaks, once all is quiet.
    pub(crate) fn is_misheard(&self) -> Option<String> {
        let registry = self.registry()?;
        let inside = self.machines.iter().filter(|(_, it)| !it.is_out);
        inside.into_iter().find_map(|(node, machine)| {
            let known = registry.node(*node)?.newest_version;
            let newest = machine.build().newest;
            (known != newest).then(|| format!("node {node} speaks {newest}, not {known}"))
        })
    }
}
