//! Directories that come and go: old ones that are started again, copies that take their originals'
//! place, ids that are given twice, and nodes that never were. What becomes of each is
//! `docs/identity.md`'s.

use stock_cluster::identity::Refusal;
use stock_cluster::{Change, Directory};

use super::checks::{Checked, broken};
use super::disk::Ending;
use super::faults::FaultKind;
use super::network::Way;
use super::plan::SECOND_US;
use super::world::{Chapter, Happening, World};

/// A copy is put back when everybody has heard so many pulses since it was made. With fewer it
/// might be that those who have heard them forget them, or die before they meet it: then nobody
/// could know.
const PULSES_SINCE_COPY: u64 = 4;

/// How often it is looked whether a copy may be put back.
const COPY_TRIES: u32 = 12;

/// Nobody's id.
const PHANTOM: u64 = 77;

impl World {
    /// A machine is started on the directory that it had before its present one.
    pub(crate) fn start_on_old(&mut self, node: u64) {
        let Some(machine) = self.machines.get(&node) else {
            return;
        };
        if machine.is_on_old || machine.is_gone || machine.disk.is_damaged() {
            return;
        }
        if machine.put_aside.is_none() {
            self.lose_disk(node);
            // By then it may have all again that it had.
            let after_us = self.fate.between(3 * SECOND_US, 8 * SECOND_US);
            return self.after(after_us, Happening::StartOnOld(node));
        }
        // What it has now is missed until it is put back: it must be something.
        let is_whole = machine.is_member && !machine.is_copy;
        if !is_whole || !self.is_trusted(node) {
            return;
        }
        self.tally.add(FaultKind::OldDirectory.name());
        self.die(node, Ending::Killed);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.swap_directories();
        }
        self.expect_boot(node);
        // Where nobody tells it, somebody notices.
        let after_us = self.fate.between(SECOND_US, 8 * SECOND_US);
        self.after(after_us, Happening::PutBack(node));
    }

    /// A founder is started on the directory with which it founded an earlier life of the cluster.
    pub(crate) fn start_in_an_earlier_life(&mut self, node: u64) {
        let is_trusted = self.is_trusted(node);
        let Some(machine) = self.machines.get(&node).filter(|_| is_trusted) else {
            return;
        };
        let is_whole = machine.is_member && !machine.is_copy && !machine.is_on_old;
        if !is_whole || machine.is_gone || machine.disk.is_damaged() || node > self.plan.founders {
            return;
        }
        self.tally.add(FaultKind::EarlierLife.name());
        self.die(node, Ending::Killed);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.go_back_to_an_earlier_life(node);
        }
        self.expect_boot(node);
        let after_us = self.fate.between(SECOND_US, 6 * SECOND_US);
        self.after(after_us, Happening::PutBack(node));
    }

    /// A machine gets its own directory back.
    pub(crate) fn put_back(&mut self, node: u64) {
        let is_on_old = self.machines.get(&node).is_some_and(|it| it.is_on_old);
        if !is_on_old {
            return;
        }
        self.die(node, Ending::Killed);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.swap_directories();
        }
        self.expect_boot(node);
    }

    /// A copy of a node's directory is made; it takes its place later.
    pub(crate) fn copy_directory(&mut self, kind: FaultKind, node: u64) {
        if !self.is_trusted(node) {
            return;
        }
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        if machine.copy.is_some() || !machine.has_its_own_directory() {
            return;
        }
        let Some(running) = &machine.running else {
            return;
        };
        let pulse = running.cluster.acquaintances(|known| known.pulse());
        machine.make_a_copy(pulse);
        let after_us = self.fate.between(5 * SECOND_US, 9 * SECOND_US);
        let tries = COPY_TRIES;
        self.after(after_us, Happening::CopyBack { node, kind, tries });
    }

    /// A copy takes the place of its original, if everybody can know that it is one; otherwise
    /// perhaps later.
    pub(crate) fn put_copy_back(&mut self, kind: FaultKind, node: u64, tries: u32) {
        if self.chapter != Chapter::Trouble {
            return;
        }
        if !self.may_put_copy_back(node) {
            if tries > 0 {
                let tries = tries - 1;
                let again = Happening::CopyBack { node, kind, tries };
                self.after(SECOND_US / 2, again);
            }
            return;
        }
        match kind {
            FaultKind::CopyWithLaggard => self.leave_one_behind(node),
            _ => self.exchange_for_copy(kind, node, kind == FaultKind::OlderCopy),
        }
    }

    fn exchange_for_copy(&mut self, kind: FaultKind, node: u64, is_whole: bool) {
        self.tally.add(kind.name());
        self.untrusted.insert(node);
        self.die(node, Ending::PowerCut);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.put_copy_back(is_whole);
        }
        self.expect_boot(node);
    }

    /// Another node hears nothing for a while, before the copy takes its place.
    fn leave_one_behind(&mut self, node: u64) {
        let others: Vec<u64> = self.nodes().into_iter().filter(|it| *it != node).collect();
        let Some(behind) = self.fate.pick(&others).copied() else {
            return;
        };
        let ways = self.ways_of(behind);
        for way in &ways {
            self.network.block(*way);
        }
        let after_us = self.fate.between(SECOND_US, 3 * SECOND_US);
        self.after(after_us, Happening::CopyAmongFew { node, behind });
    }

    /// The copy takes its place, and of the others only the one that is behind is in reach.
    pub(crate) fn put_copy_among_few(&mut self, node: u64, behind: u64) {
        let free = self.ways_of(behind);
        self.after(0, Happening::Free(free));
        let machine = self.machines.get(&node);
        let has_copy = machine.is_some_and(|it| it.copy.is_some() && it.has_its_own_directory());
        if self.chapter != Chapter::Trouble || !has_copy || !self.may_lose(node) {
            return;
        }
        let is_whole = self.fate.chance(500);
        self.exchange_for_copy(FaultKind::CopyWithLaggard, node, is_whole);
        let mut away = self.nodes();
        away.retain(|other| *other != node && *other != behind);
        let ways: Vec<Way> = away.iter().flat_map(|other| self.ways_of(*other)).collect();
        for way in &ways {
            self.network.block(*way);
        }
        let after_us = self.fate.between(2 * SECOND_US, 6 * SECOND_US);
        self.after(after_us, Happening::Free(ways));
    }

    fn may_put_copy_back(&mut self, node: u64) -> bool {
        let room = self.may_lose(node);
        let Some(machine) = self.machines.get(&node).filter(|_| room) else {
            return false;
        };
        let is_itself = machine.has_its_own_directory();
        let Some((_, copied)) = machine.copy.as_ref().filter(|_| is_itself) else {
            return false;
        };
        let (copied, directory) = (*copied, machine.directory);
        let nodes = self.nodes();
        let mut others = nodes.iter().filter(|other| **other != node);
        others.all(|other| {
            let running = self.machines.get(other).and_then(|it| it.running.as_ref());
            running.is_some_and(|running| {
                running.cluster.acquaintances(|acquaintances| {
                    let known = acquaintances.known(node);
                    known.is_some_and(|known| {
                        let latest = known.beats.latest().map_or(0, |beat| beat.pulse);
                        known.directory == directory && latest >= copied + PULSES_SINCE_COPY
                    })
                })
            })
        })
    }

    /// Somebody starts a process with an empty directory under the id of a node that runs.
    pub(crate) fn intrude(&mut self, node: u64) {
        let mut leaders = self.machines.iter().filter_map(|(leader, machine)| {
            let cluster = &machine.running.as_ref()?.cluster;
            Some((*leader, cluster.overview()?, cluster.is_reachable(node)))
        });
        let Some((leader, overview, is_connected)) = leaders.next() else {
            return;
        };
        let directory = Directory(u128::from(node) << 96 | u128::from(self.now_us));
        if overview.is_heard_with_another(node, directory, is_connected) {
            self.tally.add(FaultKind::Intruder.name());
            return;
        }
        // Who is neither connected nor heard may be replaced, and rightly: another fault plays
        // that.
        let way = Way {
            from: leader,
            to: node,
        };
        let is_there = self.machines.get(&node).is_some_and(|it| {
            let registered = overview.registry.node(node);
            !it.is_on_old && registered.and_then(|it| it.directory) == Some(Directory(it.directory))
        });
        if is_there && self.network.is_connected(way) {
            let change = Change::Join {
                node,
                directory,
                replaces: overview.registry.node(node).and_then(|it| it.directory),
                grpc: format!("http://intruder-{node}:1"),
                peers: format!("intruder-{node}:1"),
            };
            self.ask_group_0(leader, change, None);
        }
    }

    /// Somebody lets a node in that nobody ever starts.
    pub(crate) fn invent_a_node(&mut self) {
        self.tally.add(FaultKind::Phantom.name());
        let nodes = self.nodes();
        let Some(asked) = self.fate.pick(&nodes).copied() else {
            return;
        };
        let change = Change::Join {
            node: PHANTOM,
            directory: Directory(u128::from(PHANTOM)),
            replaces: None,
            grpc: format!("http://{PHANTOM}:1"),
            peers: format!("{PHANTOM}:1"),
        };
        self.ask_group_0(asked, change, None);
    }

    /// A node is told that another does not talk to it, and acts upon it.
    pub(crate) fn refused(&mut self, node: u64, by: u64, refusal: &Refusal) {
        self.trace.note(self.now_us, "refused", &[node, by], || {
            format!("node {node} by node {by}: {refusal}")
        });
        match refusal {
            Refusal::AnotherVersion { .. } => self.is_too_old(node),
            Refusal::Stranger { .. } | Refusal::Unknown { .. } | Refusal::Twin { .. } => {}
            Refusal::EarlierLife { .. } => self.is_over(node),
            Refusal::LaterLife { .. } => self.is_over(by),
            Refusal::Removed { .. } => self.tally.add("removed nodes refused"),
            Refusal::Replaced { .. } => {
                self.tally.add("old directories refused");
                let is_on_old = self.machines.get(&node).is_some_and(|it| it.is_on_old);
                match is_on_old {
                    true => self.put_back(node),
                    // A damage may have hit what said that it was let in anew.
                    false if self.untrusted.contains(&node) => {
                        self.die(node, Ending::Killed);
                        self.put_empty_disk_in(node);
                        self.expect_boot(node);
                    }
                    false => self.wronged.extend([(node, refusal.to_string())]),
                }
            }
            Refusal::Forgotten { .. } => {
                self.tally.add("forgotten directories refused");
                if !self.untrusted.contains(&node) {
                    self.wronged.extend([(node, refusal.to_string())]);
                }
                self.die(node, Ending::Killed);
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.renounce(node);
                }
            }
        }
    }

    /// Nobody is refused who is the node that it says to be, and has forgotten nothing.
    pub(crate) fn look_for_wronged(&self) -> Checked {
        match self.wronged.first() {
            Some((node, why)) => broken("who is who", format!("node {node} was told: {why}")),
            None => Ok(()),
        }
    }
}
