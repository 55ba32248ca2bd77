//! The first nodes, where not all were given the same list of founders: they ask each other until
//! it is clear what to do, as `stockd/src/first_boot.rs` has it. Nobody may found with some of them
//! what another founds with others.

use std::collections::BTreeSet;

use stock_cluster::identity::{Acquaintances, Identity, founded_life};
use stock_wire::cluster::v1 as cluster;
use stockd::membership::first_boot::{Verdict, judge};

use super::checks::{Checked, broken};
use super::dice::Dice;
use super::faults::FaultKind;
use super::identities::identity;
use super::network::Way;
use super::plan::SECOND_US;
use super::world::{Happening, Heard, World};

/// Between two rounds of asking everybody, as in production.
const ASK_EVERY_US: u64 = 100_000;
/// A round takes so long at most: what was heard first may have changed by then.
const ROUND_US_MAX: u64 = 60_000;

impl World {
    /// Nobody has founded anything yet. One node was given the right list, and every wrong one has
    /// that node on it: nodes that agree may found, and those here do not.
    pub(crate) fn begin_unfounded(&mut self, seed: u64) {
        let mut dice = Dice::new(seed, "lists");
        let founders: Vec<u64> = (1..=self.plan.founders).collect();
        let right = dice.pick(&founders).copied().unwrap_or(1);
        for node in &founders {
            let is_wrong = *node != right && dice.chance(600);
            let stays = |listed: &u64| [*node, right].contains(listed) || dice.chance(500);
            let list: Vec<u64> = match is_wrong {
                true => founders.iter().copied().filter(stays).collect(),
                false => founders.clone(),
            };
            if list != founders {
                self.tally.add(FaultKind::Disagreement.name());
                let after_us = self.pace.between(SECOND_US, 7 * SECOND_US);
                self.after(after_us, Happening::PutListRight(*node));
            }
            if let Some(machine) = self.machines.get_mut(node) {
                machine.is_founder = false;
                machine.lists = Some(list);
            }
        }
    }

    /// Whether all that were to found the cluster have decided.
    pub(crate) fn is_founding_over(&self) -> bool {
        self.machines.values().all(|it| it.lists.is_none())
    }

    /// Somebody puts an empty disk into a machine; its configuration is as it was. Where no founder
    /// is left, he has it join instead, as a recovery tells him: founders ask only each other.
    pub(crate) fn put_empty_disk_in(&mut self, node: u64) {
        let founders: Vec<u64> = (1..=self.plan.founders).collect();
        let recovered = self.recovered.as_ref();
        let is_one_left = recovered.is_none_or(|it| founders.contains(&it.left));
        let asks = self.plan.faults.contains(&FaultKind::Disagreement)
            && founders.contains(&node)
            && is_one_left;
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.replace_disk(node);
            machine.lists = asks.then_some(founders);
            machine.asks_as = None;
        }
    }

    /// Somebody notices that a node was given a wrong list.
    pub(crate) fn put_list_right(&mut self, node: u64) {
        let founders: Vec<u64> = (1..=self.plan.founders).collect();
        if let Some(machine) = self.machines.get_mut(&node)
            && let Some(list) = &mut machine.lists
        {
            *list = founders;
        }
    }

    /// A node that is no member begins to ask the others on its list.
    pub(crate) fn seek_founders(&mut self, node: u64) {
        let Some(machine) = self.machines.get_mut(&node) else {
            return;
        };
        let directory = machine.directory;
        if machine.asks_as.replace(directory) != Some(directory) {
            let after_us = self.pace.between(0, ASK_EVERY_US);
            self.after(after_us, Happening::AskFounders { node, directory });
        }
    }

    /// It has asked them all once.
    pub(crate) fn ask_founders(&mut self, node: u64, directory: u128) {
        let Some(own) = self.seeker(node, directory) else {
            return;
        };
        let mut heard = Heard::new();
        let list = own.listed.nodes.clone();
        for other in list.into_iter().filter(|other| *other != node) {
            let is_silent = self.fate.chance(200);
            let hello = match is_silent {
                true => Err("silent".to_owned()),
                false => self.asked_by(node, other),
            };
            let checked = hello.and_then(|hello| match own.check(&hello) {
                Ok(()) => Ok(hello),
                Err(refusal) => Err(refusal.to_string()),
            });
            heard.insert(other, checked);
        }
        let heard = Box::new(heard);
        let after_us = self.pace.between(0, ROUND_US_MAX);
        let round = Happening::HeardFounders {
            node,
            directory,
            heard,
        };
        self.after(after_us, round);
    }

    /// How a node introduces itself that asks whether to found.
    fn seeker(&self, node: u64, directory: u128) -> Option<Identity> {
        let machine = self.machines.get(&node)?;
        let asks = machine.asks_as == Some(directory)
            && machine.directory == directory
            && machine.lists.is_some()
            && !machine.is_gone;
        asks.then(|| Identity {
            has_joined: false,
            incarnation: None,
            ..identity(node, machine, &self.plan, 0)
        })
    }

    /// It acts upon what it has heard.
    pub(crate) fn heard_founders(&mut self, node: u64, directory: u128, heard: &Heard) -> Checked {
        let Some(own) = self.seeker(node, directory) else {
            return Ok(());
        };
        // Who was given another list meanwhile was started again, and asks anew.
        let asked = heard.keys().chain([&node]);
        if asked.collect::<BTreeSet<_>>() != own.listed.nodes.iter().collect() {
            self.ask_founders(node, directory);
            return Ok(());
        }
        let verdict = judge(&own, heard);
        self.trace.note(self.now_us, "founds", &[node], || {
            format!("node {node}, asking {:?}: {verdict:?}", own.listed.nodes)
        });
        match verdict {
            Verdict::Wait(_) => {
                self.after(ASK_EVERY_US, Happening::AskFounders { node, directory });
            }
            Verdict::Join => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    (machine.lists, machine.asks_as) = (None, None);
                }
                self.tally.add("founders that came too late");
                self.expect_boot(node);
            }
            Verdict::Found(founders) => {
                // It may die before its disk says so; then it asks again.
                let is_written = !self.fate.chance(200);
                let Some(machine) = self.machines.get_mut(&node) else {
                    return Ok(());
                };
                machine.asks_as = None;
                if is_written {
                    machine.lists = None;
                    machine.is_founder = true;
                    machine.founders.clone_from(&founders);
                }
                self.expect_boot(node);
                return self.is_founded_once(node);
            }
        }
        Ok(())
    }

    /// Whoever has founded, and has not lost the disk that says so, has founded the same.
    fn is_founded_once(&self, node: u64) -> Checked {
        let founders = |node: &u64| {
            let machine = self.machines.get(node)?;
            machine.is_founder.then_some(&machine.founders)
        };
        let Some(own) = founders(&node) else {
            return Ok(());
        };
        let mut others = self.machines.keys().filter_map(founders);
        match others.find(|theirs| *theirs != own) {
            Some(theirs) => broken(
                "one founding",
                format!("by node {node} with {own:?}, and by another with {theirs:?}"),
            ),
            None => Ok(()),
        }
    }

    /// What a node says of itself to one that asks whether to found.
    fn asked_by(&self, node: u64, other: u64) -> Result<cluster::Hello, String> {
        let silent = || Err("not heard".to_owned());
        let way = Way {
            from: node,
            to: other,
        };
        let Some(machine) = self.machines.get(&other) else {
            return silent();
        };
        let answers = machine.running.is_some() || machine.asks_as == Some(machine.directory);
        if !answers || machine.paused_until_us > self.now_us || !self.network.is_free(way) {
            return silent();
        }
        let mut identity = identity(other, machine, &self.plan, 0);
        identity.has_joined = machine.running.is_some() && !machine.is_founder;
        // What stands for the life that these founders begin.
        identity.incarnation = machine.is_founder.then(|| {
            let (shards, replicas) = (self.plan.shards, self.plan.replication);
            founded_life(&identity.cluster_id, shards, replicas, &machine.founders)
        });
        Ok(identity.hello(cluster::Purpose::Acquaintance, &Acquaintances::default()))
    }
}
