//! Doing what a plan says. Every step can be done again, and no node starts on a directory of which
//! only a part is done.

use stock_cluster::{
    Change, GroupId, Recover, RegistryCommand, RegistryOutcome, ReplicaId, Survivor,
};
use stock_core::{Action, At, BasketCommand, Command, Moment, Recovered};
use stock_node::checkpoint::Image;
use stock_node::entry::{self, CommandsBuilder};
use stock_node::worker::{SlotRecord, Standing};
use stock_storage::{CheckpointInfo, Durability, Ledger, WriteBatch};

use super::DataDir;
use super::account::Account;
use super::error::RecoverError;
use super::plan::{Candidate, Fate, Plan, principal};
use super::replay::{ReplayError, bring_back_what_is_left};
use crate::directory::node_record::RecoveryRecord;
use crate::directory::{checkpoint_files, forgotten};

/// Does what the plan says, and begins this life of the cluster. May be done again after an
/// interruption, and then goes on into the life that was begun.
///
/// # Errors
///
/// Those of a disk, and [`RecoverError::Refused`], before anything is changed.
pub fn carry_out(dirs: &mut [DataDir], plan: &Plan, life: u128) -> Result<(), RecoverError> {
    let drawn = || {
        let node = |at: usize| dirs[at].record.node_id;
        let mut nodes: Vec<u64> = (0..dirs.len()).map(node).collect();
        nodes.sort_unstable();
        let left_out = plan.outdated.iter().copied().map(node);
        let mut recovery = RecoveryRecord::into_life(life);
        recovery.left_out = left_out.collect();
        recovery.groups = plan.recovered().map(|group| group.group.0).collect();
        recovery.nodes = nodes;
        recovery
    };
    let recovery = plan.resumed.clone().unwrap_or_else(drawn);
    if plan.is_marked_only {
        return unmark(dirs, plan);
    }
    let incarnation = recovery.life();
    let tell = plan.tell(incarnation)?;
    // No node starts on a directory of which only a part is done.
    for dir in dirs.iter_mut() {
        dir.record.recovery = Some(recovery.clone());
        dir.record.write(&dir.disk)?;
    }
    // What is given up can be read afterwards, whatever happens to what the operator has seen of
    // it.
    let account = Account::of(plan, dirs, incarnation);
    for dir in dirs.iter() {
        account.write(&*dir.volume, &dir.path)?;
    }
    let mut batches: Vec<WriteBatch> = dirs.iter().map(|_| WriteBatch::new()).collect();
    for plan in plan.recovered() {
        let Some(chosen) = plan.candidates.first() else {
            continue;
        };
        let record = &dirs[chosen.dir].record;
        let data = match plan.group.shard() {
            None => vec![tell.clone()],
            // It was told before this was interrupted: states do not depend on how often that was.
            Some(_) if record.incarnation() == incarnation => Vec::new(),
            Some(shard) => vec![tell_shard(shard, record.shards)],
        };
        let forced = chosen.ending.force_only_voter(chosen.replica.0, data);
        let number = u64::from(plan.group.0);
        let record = SlotRecord {
            newest: chosen.replica,
            standing: Standing::Begun,
        };
        let batch = &mut batches[chosen.dir];
        if chosen.lack.is_some() {
            begin_log_at(&dirs[chosen.dir], plan.group, chosen, batch)?;
        }
        batch.put_replica(number, &record.to_bytes());
        batch.append(number, forced.first_index, &forced.entries);
        batch.put_state(number, &forced.state);
    }
    // Where the others go on by themselves, what has forgotten something must not vote with them.
    for plan in plan.groups.iter().filter(|group| group.fate == Fate::Kept) {
        let lacking = plan.candidates.iter();
        for (candidate, lack) in lacking.filter_map(|one| Some((one, one.lack.clone()?))) {
            let record = SlotRecord {
                newest: candidate.replica,
                standing: Standing::Failed(lack),
            };
            batches[candidate.dir].put_replica(u64::from(plan.group.0), &record.to_bytes());
        }
    }
    for (at, (dir, batch)) in dirs.iter().zip(&mut batches).enumerate() {
        bar(dir, at, plan, batch)?;
    }
    // What is made comes before what is taken away.
    for (at, (dir, batch)) in dirs.iter_mut().zip(&mut batches).enumerate() {
        match plan.outdated.contains(&at) {
            // What it acknowledged counts for nothing: its node joins anew.
            true => dir.record.renounce(),
            false => dir.record.go_on_as(incarnation),
        }
        batch.put_node_record(dir.record.to_text().as_bytes());
        // What is remembered of others is of the life before.
        batch.put_acquaintances(&[]);
        dir.disk.write(batch, Durability::Sync)?;
    }
    for (at, dir) in dirs.iter().enumerate() {
        take_away(dir, at, plan)?;
    }
    unmark(dirs, plan)
}

/// All is done: nodes may start on the directories. From the first of them on nothing else is done
/// any more, since it may have been started.
fn unmark(dirs: &mut [DataDir], plan: &Plan) -> Result<(), RecoverError> {
    for (at, dir) in dirs.iter_mut().enumerate() {
        // Without the mark, and with that, it would join anew, and what it has would be deleted.
        forgotten::settle(&*dir.volume, &dir.path)?;
        dir.record.recovery = None;
        if !plan.outdated.contains(&at) {
            dir.record.reinstate();
        }
        dir.record.write(&dir.disk)?;
    }
    Ok(())
}

/// A directory that has forgotten something is its node's again; but of it nothing votes that is
/// not gone on from. Of some replicas not even the record may be left: a founder would begin those
/// once more.
fn bar(dir: &DataDir, at: usize, plan: &Plan, batch: &mut WriteBatch) -> Result<(), RecoverError> {
    if !dir.has_forgotten || plan.outdated.contains(&at) {
        return Ok(());
    }
    for plan in &plan.groups {
        let is_gone_on_from = plan.chosen().is_some_and(|one| one.dir == at);
        if plan.fate == Fate::Recovered && is_gone_on_from {
            continue;
        }
        let record = match dir.slot(plan.group)? {
            Some(slot) if slot.standing == Standing::Gone => continue,
            Some(slot) => SlotRecord {
                newest: slot.newest,
                standing: Standing::Failed("its directory has forgotten something".to_owned()),
            },
            None => SlotRecord {
                newest: ReplicaId::founding(dir.record.node_id),
                standing: Standing::Gone,
            },
        };
        batch.put_replica(u64::from(plan.group.0), &record.to_bytes());
    }
    Ok(())
}

/// Writes down what can be brought back of a replica, and lets its log begin there: what it lacks
/// is not looked for again.
fn begin_log_at(
    dir: &DataDir,
    group: GroupId,
    chosen: &Candidate,
    batch: &mut WriteBatch,
) -> Result<(), RecoverError> {
    let number = u64::from(group.0);
    let gone = |source: ReplayError| RecoverError::Gone {
        path: dir.path.clone(),
        group,
        source,
    };
    let back = bring_back_what_is_left(dir, group, chosen.replica).map_err(gone)?;
    let point = back.ending.point;
    let mut image = Image {
        group,
        replica: chosen.replica,
        point: point.clone(),
        stamp: back.stamp,
        frozen: back.state.freeze(),
    };
    // One that is there already may not be readable.
    let life = dir.record.incarnation();
    let written =
        checkpoint_files::write(&dir.checkpoints, life, dir.record.directory(), &mut image);
    let written = written.map_err(|source| gone(source.into()))?;
    // What cannot be read any more, or lies further on than what is gone on from, would be taken
    // for more than that.
    let is_it = |info: &CheckpointInfo| info.path == written.path;
    dir.checkpoints.retain(number, is_it)?;
    dir.checkpoints.discard_incoming(number)?;
    batch.reset(number);
    batch.put_origin(number, &point.to_bytes());
    // History of what is lost has happened in no life that goes on.
    if group.shard().is_some() && Ledger::is_in(&dir.path) {
        let ledger = Ledger::open(&dir.path)?.ledger;
        if ledger
            .coverage(number)
            .is_some_and(|it| it.to > point.index)
        {
            ledger.begin(number, point.index)?;
            ledger.sync()?;
        }
    }
    Ok(())
}

impl Plan {
    /// The entry of group 0 that tells the registry.
    fn tell(&self, incarnation: u128) -> Result<Vec<u8>, RecoverError> {
        let survivors = self.recovered().filter_map(|plan| {
            let chosen = plan.candidates.first()?;
            Some(Survivor {
                group: plan.group,
                replica: chosen.replica,
                term: chosen.ending.forced_term(),
            })
        });
        let command = RegistryCommand {
            principal: principal(),
            request: None,
            change: Change::Recover(Recover {
                incarnation,
                nodes: self.nodes.clone(),
                groups: survivors.collect(),
                next_generation: self.next_generation,
            }),
        };
        // The registry says now whether it will take it.
        let at = At {
            index: u64::MAX,
            ordinal: 0,
            moment: self.stamp.into(),
        };
        if let RegistryOutcome::Refused(refusal) = self.registry.clone().apply(at, command.clone())
        {
            return Err(RecoverError::Refused(refusal));
        }
        let mut commands = CommandsBuilder::default();
        if let Some(founding) = &self.founding {
            commands.push_registry(founding);
        }
        commands.push_registry(&command);
        // Cluster time never goes back, and need not go on here.
        Ok(entry::encode_entry(
            self.stamp.into(),
            [commands.take()].iter(),
        ))
    }
}

/// A shard's replicas are told that the shard may have lost something: what it has of others'
/// reservations, and they of its own, has to be compared.
fn tell_shard(shard: u32, shards: u32) -> Vec<u8> {
    let recovered = BasketCommand::Recovered(Recovered { shard, shards });
    let mut commands = CommandsBuilder::default();
    commands.push(&Command {
        principal: principal(),
        action: Action::Basket(recovered),
    });
    // Nothing is said of the time, which is not known here: no hold may end early.
    entry::encode_entry(Moment::default(), [commands.take()].iter())
}

/// Replicas that were not chosen are gone for ever: they come back as new ones.
fn take_away(dir: &DataDir, at: usize, plan: &Plan) -> Result<(), RecoverError> {
    let mut batch = WriteBatch::new();
    let mut gone = Vec::new();
    let is_outdated = plan.outdated.contains(&at);
    let all = plan.groups.iter();
    for plan in all.filter(|group| group.fate == Fate::Recovered || is_outdated) {
        let is_chosen = !is_outdated && plan.candidates.first().is_some_and(|one| one.dir == at);
        let Some(slot) = dir
            .slot(plan.group)?
            .filter(|slot| slot.standing != Standing::Gone)
        else {
            continue;
        };
        if is_chosen {
            continue;
        }
        let number = u64::from(plan.group.0);
        batch.forget(number);
        let record = SlotRecord {
            newest: slot.newest,
            standing: Standing::Gone,
        };
        batch.put_replica(number, &record.to_bytes());
        gone.push(number);
    }
    dir.disk.write(&mut batch, Durability::Sync)?;
    for number in gone {
        dir.checkpoints.retain(number, |_| false)?;
        dir.checkpoints.discard_incoming(number)?;
    }
    Ok(())
}
