//! Nodes that say they are ready, and nodes that have hardly any room: whether they are where they
//! should be.

use stock_cluster::GroupId;
use stock_node::clock::Now;

use super::checks::{Checked, broken};
use super::faults::FaultKind;
use super::plan::SECOND_US;
use super::world::{Happening, World};

/// So much is left on a disk that is nearly full: too little to take anything in, and plenty for
/// what frees room.
pub(crate) const HARDLY_ANY_ROOM_BYTES: u64 = 200 * 1024 * 1024;

/// So long after the last fault a node without room leads nothing that another could lead:
/// hand-overs are ordered a few at a time, and replicas come back first.
const HANDED_OVER_WITHIN_US: u64 = 40 * SECOND_US;

impl World {
    /// How far each group's log is known to be committed.
    pub(crate) fn committed_so_far(&self) -> Vec<u64> {
        self.histories.iter().map(|it| it.last_index()).collect()
    }

    /// A node that says it is ready has come, in each group that has a voter there, as far as the
    /// group was when the node started.
    pub(crate) fn see_ready(&mut self, node: u64) -> Checked {
        let machine = self.machines.get_mut(&node);
        let Some(running) = machine.and_then(|machine| machine.running.as_mut()) else {
            return Ok(());
        };
        if running.was_ready || !running.cluster.has_come_back() {
            return Ok(());
        }
        running.was_ready = true;
        self.tally.add("nodes that were ready");
        let Some(running) = self.machines.get(&node).and_then(|m| m.running.as_ref()) else {
            return Ok(());
        };
        // Another life goes on from what one node had.
        if self.recovered.is_some() {
            return Ok(());
        }
        let registry = running.cluster.registry();
        for (group, placement) in registry.placements() {
            let votes = placement.voters.iter().any(|voter| voter.node() == node);
            let least = running.known_at_boot.get(group.index()).copied();
            let applied = running.cluster.group(group).applied_index;
            if votes && least.is_some_and(|least| applied < least) {
                return broken(
                    "ready",
                    format!(
                        "node {node} is ready with {applied} of {group:?} applied, of which \
                         {least:?} were known to be committed when it started"
                    ),
                );
            }
        }
        Ok(())
    }

    /// The disk of a node is nearly full, and stays so until nothing else has gone wrong for long.
    pub(crate) fn run_out_of_room(&mut self, node: u64) {
        if self.without_room.is_some() || self.plan.replication == 1 {
            return;
        }
        self.without_room = Some(node);
        self.tally.add(FaultKind::NearlyFull.name());
        self.gauge(node);
    }

    /// Nothing goes wrong any more but that a node has no room.
    pub(crate) fn expect_hand_over(&mut self) {
        if self.without_room.is_some() {
            self.after(HANDED_OVER_WITHIN_US, Happening::RoomAgain);
        }
    }

    /// There is room again. Until now the node has led nothing that another one could lead.
    pub(crate) fn make_room(&mut self) -> Checked {
        let Some(short) = self.without_room.take() else {
            return Ok(());
        };
        let registry = self.registry().cloned();
        let could_lead = |node: u64, group: GroupId| {
            let running = self.machines.get(&node).and_then(|m| m.running.as_ref());
            let is_back =
                running.is_some_and(|it| it.cluster.has_come_back() && it.cluster.is_here(group));
            node != short && is_back
        };
        let led = self.machines.get(&short).and_then(|m| m.running.as_ref());
        for (group, placement) in registry.iter().flat_map(|it| it.placements()) {
            let leads = led.is_some_and(|it| it.cluster.group(group).leader == Some(short));
            let mut others = placement.voters.iter().map(|voter| voter.node());
            let is_moving = registry.iter().any(|it| it.move_of(group).is_some());
            if leads && !is_moving && others.any(|node| could_lead(node, group)) {
                let seen = format!("node {short} has no room and leads {group:?}");
                return broken("room to lead", seen);
            }
        }
        self.gauge(short);
        Ok(())
    }
}

impl World {
    /// What a machine's clocks show.
    pub(crate) fn clock_of(&self, node: u64) -> Now {
        let true_us = self.true_us();
        self.machines.get(&node).map_or(
            Now {
                boot_ms: 0,
                wall_ms: 0,
            },
            |machine| machine.clock.now(true_us),
        )
    }

    /// The machines that are part of the cluster, or on their way.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        let inside = self.machines.iter().filter(|(_, machine)| !machine.is_out);
        inside.map(|(node, _)| *node).collect()
    }
}
