//! Most nodes are lost for good, and `stockd recover` goes on from the one that is left. Then the
//! others turn out not to be lost: they are started with what they had, all at once and so with a
//! quorum, or their directories are given to a second recovery. In neither case may anything come
//! of them.
//!
//! What is left has all that was ever acknowledged, or the run goes on without: what a recovery
//! loses is lost by intent.

use std::path::Path;

use stock_cluster::GroupId;
use stock_storage::{Durability, LogOptions, OnDamage, WriteBatch};
use stockd::directory::disk::Disk as LogDisk;
use stockd::offline::DataDir;
use stockd::offline::carry_out::carry_out;
use stockd::offline::error::RecoverError;
use stockd::offline::plan::{Fate, Plan, plan};

use super::checks::{Broken, Checked, broken};
use super::disk::Ending;
use super::faults::FaultKind;
use super::lives::{LIFE, Recovered};
use super::machine::Machine;
use super::network::Way;
use super::plan::{Plan as RunPlan, SECOND_US};
use super::world::{Chapter, Happening, World};

/// How often it is looked whether the lost may turn up, and how many times.
const LOOK_EVERY_US: u64 = SECOND_US / 2;
const LOOKS_MAX: u32 = 20;

impl World {
    /// Every node stops, and one is gone on from, if that is possible.
    pub(crate) fn lose_most(&mut self, node: u64) -> Checked {
        let nodes = self.nodes();
        if self.recovered.is_some() || nodes.len() < 2 || !self.is_founding_over() {
            return Ok(());
        }
        let is_itself = |machine: &Machine| {
            let is_other = machine.is_on_old || machine.is_copy || machine.is_gone;
            machine.running.is_some() && machine.is_member && !is_other
        };
        let are_themselves = nodes.iter().all(|node| {
            let machine = self.machines.get(node);
            machine.is_some_and(is_itself)
        });
        if !are_themselves || !nodes.iter().all(|node| self.is_trusted(*node)) {
            return Ok(());
        }
        for node in &nodes {
            self.die(*node, Ending::Killed);
        }
        let life = self.life + 2;
        let is_done = self.recover(&[node], life, |world, dirs| match plan(dirs, None) {
            Ok(plan) if world.has_all(&plan) => Ok(Some(plan)),
            // A node without a replica of every group, or one that is behind.
            _ => Ok(None),
        })?;
        if !is_done {
            return Ok(());
        }
        self.tally.add(FaultKind::Recovery.name());
        let lost: Vec<u64> = nodes.into_iter().filter(|other| *other != node).collect();
        for other in &lost {
            self.untrusted.insert(*other);
            if let Some(machine) = self.machines.get_mut(other) {
                machine.is_gone = true;
            }
        }
        let looks = 0;
        self.recovered = Some(Recovered {
            left: node,
            lost,
            looks,
        });
        self.after(LOOK_EVERY_US, Happening::TurnUp);
        Ok(())
    }

    /// Those that were lost turn up, if the node that was left runs and could tell them.
    pub(crate) fn turn_up(&mut self) -> Checked {
        let Some(recovered) = &mut self.recovered else {
            return Ok(());
        };
        recovered.looks += 1;
        let Recovered { left, lost, looks } = recovered.clone();
        if self.chapter != Chapter::Trouble || looks > LOOKS_MAX {
            return Ok(());
        }
        // Who was given another disk meanwhile has nothing that could turn up.
        let is_lost = |node: &u64| self.machines.get(node).is_some_and(|it| it.is_gone);
        if !lost.iter().all(is_lost) {
            return Ok(());
        }
        // Two halves that do not meet nobody could tell.
        let (now_us, life) = (self.now_us, self.life);
        let hears = |machine: &Machine| {
            let is_itself = !machine.is_on_old && machine.lives[0] == life;
            machine.running.is_some() && machine.paused_until_us <= now_us && is_itself
        };
        let is_heard = self.machines.get(&left).is_some_and(hears)
            && lost.iter().all(|other| {
                let way = Way {
                    from: *other,
                    to: left,
                };
                self.network.is_free(way) && self.network.is_free(way.back())
            });
        // It has acknowledged something since.
        if !is_heard || looks < 4 {
            self.after(LOOK_EVERY_US, Happening::TurnUp);
            return Ok(());
        }
        if self.fate.chance(500) {
            return self.recover_again(left, &lost);
        }
        for other in &lost {
            self.tally.add("lost nodes that turned up");
            if let Some(machine) = self.machines.get_mut(other) {
                machine.is_gone = false;
            }
            self.boot(*other)?;
        }
        // All of them first: they are a quorum of what was.
        for other in &lost {
            self.introduce(Way {
                from: *other,
                to: left,
            });
        }
        let goes_on = |node: &&u64| {
            let machine = self.machines.get(node);
            machine.is_some_and(|it| it.running.is_some() && it.lives[0] != self.life)
        };
        match lost.iter().find(goes_on) {
            Some(node) => {
                let seen =
                    format!("node {node} has met a life that goes on from its own, and goes on");
                broken("one life", seen)
            }
            None => Ok(()),
        }
    }

    /// A life of the cluster that another goes on from has ended, and whoever is of it ends.
    pub(crate) fn is_over(&mut self, node: u64) {
        if self.machines.get(&node).is_some_and(|it| it.is_on_old) {
            return self.put_back(node);
        }
        self.tally.add("nodes of a life that was over");
        self.die(node, Ending::Killed);
        self.put_empty_disk_in(node);
        self.expect_boot(node);
    }

    /// The directories of those that were lost are given to a second recovery, with that of the
    /// node that was left.
    fn recover_again(&mut self, left: u64, lost: &[u64]) -> Checked {
        self.die(left, Ending::Killed);
        let nodes: Vec<u64> = lost.iter().copied().chain([left]).collect();
        let life = self.life + 1;
        let kept = format!("{:032x}", self.life);
        let is_done = self.recover(&nodes, life, |_, dirs| {
            match plan(dirs, None) {
                Err(RecoverError::Lives { .. }) => {}
                joined => {
                    let seen = format!("directories of two lives are given: {joined:?}");
                    return broken("one life", seen);
                }
            }
            match plan(dirs, Some(&kept)) {
                Ok(plan) => Ok(Some(plan)),
                Err(error) => broken("recovery", error.to_string()),
            }
        })?;
        if is_done {
            self.tally.add("recoveries from several lives");
        }
        for other in lost {
            let Some(machine) = self.machines.get_mut(other) else {
                continue;
            };
            machine.is_gone = false;
            machine.renounce(*other);
            self.expect_boot(*other);
        }
        Ok(())
    }

    /// Runs the production code of a recovery on the disks of nodes that do not run; the first of
    /// the plan's directories that is used goes on into `life`. Whether there was a plan.
    fn recover(
        &mut self,
        nodes: &[u64],
        life: u128,
        choose: impl FnOnce(&Self, &[DataDir]) -> Result<Option<Plan>, Broken>,
    ) -> Result<bool, Broken> {
        let mut dirs = Vec::new();
        let mut roots = Vec::new();
        let mut records = Vec::new();
        for node in nodes {
            let root = self.scratch.join(format!("{node}-recovered-{life}"));
            let Some(machine) = self.machines.get(node) else {
                return Ok(false);
            };
            let opened = open(*node, machine, &root, &self.plan);
            let (dir, record) = opened.unwrap_or_else(|error| panic!("node {node}: {error}"));
            dirs.push(dir);
            records.push(record);
            roots.push(root);
        }
        let chosen = choose(self, &dirs)?;
        if let Some(plan) = &chosen {
            let done = carry_out(&mut dirs, plan, life);
            if let Err(error) = done {
                return broken("recovery", error.to_string());
            }
            self.life = life;
        }
        for ((node, dir), record) in nodes.iter().zip(dirs).zip(records) {
            let went_on = dir.record().lives();
            let mut batch = WriteBatch::new();
            batch.put_node_record(&record);
            let written = dir.disk().write(&mut batch, Durability::Sync);
            written.unwrap_or_else(|error| panic!("node {node}: {error}"));
            drop(dir);
            if let Some(machine) = self.machines.get_mut(node) {
                machine.disk.unmount(Ending::Killed);
                machine.lives = went_on;
            }
        }
        for root in roots {
            // The whole scratch directory goes when the run ends.
            let _ = std::fs::remove_dir_all(root);
        }
        Ok(chosen.is_some())
    }

    /// Whether what a plan goes on from has all that any node has applied.
    fn has_all(&self, plan: &Plan) -> bool {
        plan.groups.iter().all(|group| {
            let GroupId(number) = group.group;
            let history = &self.histories[number as usize];
            let known = history.last_index();
            let term = history.entry(known).map_or(0, |entry| entry.term);
            let chosen = group.chosen().filter(|_| group.fate == Fate::Recovered);
            chosen.is_some_and(|chosen| {
                let end = &chosen.ending.point;
                // A log that was written to in that term, or later, has all that was committed
                // before.
                chosen.lack.is_none() && end.index >= known && end.term >= term
            })
        })
    }
}

/// A directory as production has it: the record of its node is in production's words. Returns what
/// it was as well.
fn open(
    node: u64,
    machine: &Machine,
    root: &Path,
    plan: &RunPlan,
) -> Result<(DataDir, Vec<u8>), Box<dyn std::error::Error>> {
    let volume = machine.disk.mount(root)?;
    let data = root.join("data");
    std::fs::write(data.join("LOCK"), b"")?;
    let options = LogOptions {
        file_bytes: plan.log_file_bytes,
    };
    let disk = LogDisk::open(&volume, &data, &options, OnDamage::Salvage)?;
    let before = disk.node_record().unwrap_or_default();
    let hex = |number: &u128| format!("\"{number:032x}\"");
    let (life, earlier) = machine.lives.split_first().unwrap_or((&LIFE, &[]));
    let earlier: Vec<String> = earlier.iter().map(hex).collect();
    let record = format!(
        "cluster_id = \"sim\"\nnode_id = {node}\nshards = {}\ndirectory = {}\nis_founded = true\n\
         incarnation = {}\nearlier_incarnations = [{}]\n\
         [membership]\nkind = \"joined\"\ngeneration_floor = 0\nsince = 0\n",
        plan.shards,
        hex(&machine.directory),
        hex(life),
        earlier.join(", "),
    );
    let mut batch = WriteBatch::new();
    batch.put_node_record(record.as_bytes());
    disk.write(&mut batch, Durability::Sync)?;
    drop(disk);
    Ok((DataDir::open(volume, &data, OnDamage::Refuse)?, before))
}
