//! Going on from what is left where most nodes of a cluster are lost for good.
//!
//! For each group that has lost its majority, the surviving replica with the longest log is made the only voter,
//! by entries that are written behind the end of its log. Group 0 is always among them: one more entry tells the
//! registry who is left. What a surviving log holds beyond the last known commit becomes committed with it.
//!
//! A new life of the cluster begins: nodes of the earlier one, should they come back, are turned away. All that
//! is written may be written again, so an interruption is no harm: run it once more with the same directories.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use stock_core::{At, Principal, Stamp};
use stock_replica::{Ending, Extent};
use stock_storage::{
    CheckpointError, Durability, LogError, OsVolume, ReadOnlyVolume, Volume, WriteBatch,
};
use thiserror::Error;

use super::lives::{Life, interrupted, of_lives, outdated};
use super::replay::bring_back;
use super::{DataDir, OfflineError};
use crate::log_codec::{self, CommandsBuilder};
use crate::node_record::{Membership, RecoveryRecord};
use crate::placement::{
    Change, NodeState, Recover, Registry, RegistryCommand, RegistryOutcome, RegistryRefusal,
    ReplicaId, Survivor, group_name,
};
use crate::state::State;
use crate::worker::event::GroupId;
use crate::worker::slot::{SlotRecord, Standing};

/// Who is said to have told the registry.
const PRINCIPAL: &str = "stockd-recover";

/// What is left, and whether to go on from it.
#[derive(Debug, Args)]
pub struct Options {
    /// The data directory of a surviving node, stopped; repeat the flag for every node that is left
    #[arg(long = "data-dir", value_name = "DIR", required = true)]
    pub data_dirs: Vec<PathBuf>,
    /// Do it: every other node of the cluster is lost for good, with its disk. Without this flag it is only
    /// shown what would be done, and nothing is changed
    #[arg(long)]
    pub lose_everything_else: bool,
    /// Instead of being asked: the cluster's id
    #[arg(long, value_name = "CLUSTER_ID", requires = "lose_everything_else")]
    pub confirm: Option<String>,
    /// Where the directories are of different lives of the cluster, as after two recoveries: the one to go on from, by the
    /// first digits of its number. What only the others have is lost
    #[arg(long, value_name = "LIFE")]
    pub keep_life: Option<String>,
    /// Go on though some shards have no replica on any node that is left; they stay unavailable
    #[arg(long)]
    pub leave_lost_shards: bool,
}

/// What is left of a cluster, and what would be made of it.
#[derive(Debug)]
pub struct Plan {
    /// The cluster's name.
    pub cluster_id: String,
    /// The nodes that are left.
    pub nodes: Vec<u64>,
    /// The nodes that are lost, as the registry knows them.
    pub lost_nodes: Vec<u64>,
    /// The directories that are not of the life that is gone on from: nothing of them is used, and their nodes have
    /// everything made anew.
    pub outdated: BTreeSet<usize>,
    /// A recovery that was interrupted, which this goes on with.
    pub resumed: Option<RecoveryRecord>,
    /// Every group, group 0 first.
    pub groups: Vec<GroupPlan>,
    /// What the surviving log of group 0 lacks of the beginning.
    founding: Option<RegistryCommand>,
    next_generation: u32,
    registry: Registry,
    stamp: Stamp,
}

/// What becomes of a group.
#[derive(Debug)]
pub struct GroupPlan {
    /// Which.
    pub group: GroupId,
    /// What becomes of it.
    pub fate: Fate,
    /// Its replicas that are left, the one with the longest log first.
    pub candidates: Vec<Candidate>,
    /// Replicas that are left and cannot be used: the node, and why.
    pub unusable: Vec<(u64, String)>,
}

/// What becomes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Most of its voters are left: it goes on by itself.
    Kept,
    /// The first of its candidates becomes the only voter.
    Recovered,
    /// Nothing of it is left.
    Lost,
}

/// A replica that is left.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Which of the directories it is in.
    pub dir: usize,
    /// Which.
    pub replica: ReplicaId,
    /// The end of its log.
    pub ending: Ending,
}

/// A cluster cannot be recovered from what was given.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// A directory cannot be looked into.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// Two directories do not belong together.
    #[error("{} and {}: {what}", one.display(), other.display())]
    Mixed {
        /// A directory.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// The directories went on from each other, or apart.
    #[error("{}", of_lives(lives))]
    Lives {
        /// The lives.
        lives: Vec<Life>,
    },
    /// No directory is of the life that is to be kept, or more than one life's number begins so.
    #[error("--keep-life {said}: {}", of_lives(lives))]
    UnknownLife {
        /// What was said.
        said: String,
        /// The lives there are.
        lives: Vec<Life>,
    },
    /// A recovery was interrupted, and other directories belong to it.
    #[error(
        "{}: a recovery of it together with others was interrupted: give the data directories of the nodes {nodes:?}, and \
         no other", path.display()
    )]
    Interrupted {
        /// A directory.
        path: PathBuf,
        /// Whose directories belong to it.
        nodes: Vec<u64>,
    },
    /// A node never became a member.
    #[error("{}: its node never became a member of a cluster; leave it out", path.display())]
    NoMember {
        /// The directory.
        path: PathBuf,
    },
    /// Without group 0 nobody knows what belongs where.
    #[error(
        "no replica of the meta group is left that can be used{}; restore the cluster from a backup",
        reasons(unusable)
    )]
    NoMeta {
        /// Those that cannot: the node, and why.
        unusable: Vec<(u64, String)>,
    },
    /// The surviving registry does not know a node that is left.
    #[error(
        "node {node} joined so late that what is left of the registry does not know it: leave its directory out, \
         empty it, and let the node join anew"
    )]
    UnknownNode {
        /// Which.
        node: u64,
    },
    /// The surviving log of group 0 ends before the cluster was founded, and none of the nodes was a founder.
    #[error(
        "what is left of the meta group ends before the cluster was founded: bring the directory of a node that founded it"
    )]
    NotFounded,
    /// Some shards have no replica left.
    #[error(
        "{} lost, with every replica: bring another node's directory, or go on without with --leave-lost-shards, and \
         have them restored from a backup",
        names(groups)
    )]
    LostShards {
        /// Which.
        groups: Vec<GroupId>,
    },
    /// The registry would not take what it is to be told.
    #[error("the registry refuses it: {0}")]
    Refused(RegistryRefusal),
    /// The operator does not say the cluster's id.
    #[error("not confirmed: expected the cluster's id, {expected}; nothing was changed")]
    NotConfirmed {
        /// The cluster's id.
        expected: String,
    },
    /// A disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A disk failed.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
}

/// Shows what is left and, where it is told to, goes on from it.
///
/// # Errors
///
/// [`RecoverError`]; after one of a disk, run it again with the same directories.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut dirs = open(options)?;
    let plan = plan(&dirs, options.keep_life.as_deref())?;
    println!("{}", super::recover_words::plan(&plan, &options.data_dirs));
    if plan.is_needless() {
        return Ok(ExitCode::SUCCESS);
    }
    let lost = plan.lost_groups();
    if !lost.is_empty() && !options.leave_lost_shards {
        return Err(RecoverError::LostShards { groups: lost }.into());
    }
    if !options.lose_everything_else {
        println!("\nNothing was changed. To do it, run this again with --lose-everything-else.");
        return Ok(ExitCode::SUCCESS);
    }
    let said = match &options.confirm {
        Some(said) => said.clone(),
        None => ask(&plan.cluster_id)?,
    };
    if said.trim() != plan.cluster_id {
        let expected = plan.cluster_id;
        return Err(RecoverError::NotConfirmed { expected }.into());
    }
    carry_out(&mut dirs, &plan)?;
    println!("{}", super::recover_words::done(&plan));
    Ok(ExitCode::SUCCESS)
}

/// Opens the directories. Unless it is meant, nothing in them is changed.
pub fn open(options: &Options) -> Result<Vec<DataDir>, RecoverError> {
    let open = |path: &PathBuf| {
        let volume: Arc<dyn Volume> = match options.lose_everything_else {
            true => Arc::new(OsVolume),
            false => Arc::new(ReadOnlyVolume::default()),
        };
        Ok(DataDir::open(volume, path)?)
    };
    options.data_dirs.iter().map(open).collect()
}

/// What is left, and what would be made of it. Changes nothing.
///
/// # Errors
///
/// All but those of a disk, [`RecoverError::NotConfirmed`] and [`RecoverError::LostShards`].
pub fn plan(dirs: &[DataDir], keep_life: Option<&str>) -> Result<Plan, RecoverError> {
    check_together(dirs)?;
    let resumed = interrupted(dirs)?;
    let outdated = match &resumed {
        Some(recovery) => {
            let dirs = dirs.iter().enumerate();
            let left_out = dirs.filter(|(_, dir)| recovery.left_out.contains(&dir.record.node_id));
            left_out.map(|(at, _)| at).collect()
        }
        None => outdated(dirs, keep_life)?,
    };
    let mut best: Option<(Ending, Box<Registry>, Stamp)> = None;
    let mut meta = candidates(
        dirs,
        &outdated,
        GroupId::META,
        None,
        |ending, state, stamp| {
            let is_longer = best
                .as_ref()
                .is_none_or(|(best, ..)| length(best) < length(&ending));
            if let (State::Meta(meta), true) = (state, is_longer) {
                best = Some((ending, Box::new(meta.registry), stamp));
            }
        },
    )?;
    let Some((_, mut registry, stamp)) = best else {
        let unusable = meta.unusable;
        return Err(RecoverError::NoMeta { unusable });
    };
    // Nothing was acknowledged before the cluster was founded, but this log may end just before it was.
    let founding = match registry.is_founded() {
        true => None,
        false => Some(founding(dirs, &mut registry, stamp)?),
    };
    let kept = dirs.iter().enumerate();
    let kept = kept.filter(|(at, _)| !outdated.contains(at));
    let nodes: BTreeSet<u64> = kept.map(|(_, dir)| dir.record.node_id).collect();
    let is_member = |node: &u64| {
        let record = registry.node(*node);
        record.is_some_and(|record| record.state != NodeState::Removed)
    };
    if let Some(node) = nodes.iter().find(|node| !is_member(node)) {
        return Err(RecoverError::UnknownNode { node: *node });
    }
    let mut groups = Vec::new();
    for group in dirs.iter().take(1).flat_map(DataDir::groups).skip(1) {
        let registry = Some(&*registry);
        groups.push(candidates(dirs, &outdated, group, registry, |_, _, _| {})?);
    }
    // Who is left must be told to the registry, so it is recovered wherever anything is.
    let is_any = |fate| groups.iter().any(|group: &GroupPlan| group.fate == fate);
    if is_any(Fate::Recovered) || is_any(Fate::Lost) || !outdated.is_empty() || resumed.is_some() {
        meta.fate = Fate::Recovered;
    }
    groups.insert(0, meta);
    let lost_nodes = registry.nodes().filter(|(node, record)| {
        record.state != NodeState::Removed && record.directory.is_some() && !nodes.contains(node)
    });
    Ok(Plan {
        cluster_id: dirs
            .first()
            .map_or_else(String::new, |dir| dir.record.cluster_id.clone()),
        lost_nodes: lost_nodes.map(|(node, _)| node).collect(),
        nodes: nodes.into_iter().collect(),
        outdated,
        resumed,
        founding,
        next_generation: next_generation(dirs, &groups, &registry)?,
        groups,
        registry: *registry,
        stamp,
    })
}

/// Does what the plan says. May be done again after an interruption.
///
/// # Errors
///
/// Those of a disk, and [`RecoverError::Refused`], before anything is changed.
pub fn carry_out(dirs: &mut [DataDir], plan: &Plan) -> Result<(), RecoverError> {
    let drawn = || {
        let node = |at: usize| dirs[at].record.node_id;
        let mut nodes: Vec<u64> = (0..dirs.len()).map(node).collect();
        nodes.sort_unstable();
        let left_out = plan.outdated.iter().copied().map(node);
        RecoveryRecord::new(rand::random::<u128>().max(2), nodes, left_out.collect())
    };
    let recovery = plan.resumed.clone().unwrap_or_else(drawn);
    let incarnation = recovery.life();
    let tell = plan.tell(incarnation)?;
    // No node starts on a directory of which only a part is done.
    for dir in dirs.iter_mut() {
        dir.record.recovery = Some(recovery.clone());
        dir.record.write(&dir.disk)?;
    }
    let mut batches: Vec<WriteBatch> = dirs.iter().map(|_| WriteBatch::new()).collect();
    for plan in plan.recovered() {
        let Some(chosen) = plan.candidates.first() else {
            continue;
        };
        let data = match plan.group {
            GroupId::META => vec![tell.clone()],
            _ => Vec::new(),
        };
        let forced = chosen.ending.force_only_voter(chosen.replica.0, data);
        let number = u64::from(plan.group.0);
        let record = SlotRecord {
            newest: chosen.replica,
            standing: Standing::Begun,
        };
        batches[chosen.dir].put_replica(number, &record.to_bytes());
        batches[chosen.dir].append(number, forced.first_index, &forced.entries);
        batches[chosen.dir].put_state(number, &forced.state);
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
    for dir in dirs.iter_mut() {
        dir.record.recovery = None;
        dir.record.write(&dir.disk)?;
    }
    Ok(())
}

impl Plan {
    /// Whether every group goes on by itself.
    pub fn is_needless(&self) -> bool {
        self.groups.iter().all(|group| group.fate == Fate::Kept)
    }

    /// The groups of which nothing is left.
    pub fn lost_groups(&self) -> Vec<GroupId> {
        let lost = self.groups.iter().filter(|group| group.fate == Fate::Lost);
        lost.map(|group| group.group).collect()
    }

    fn recovered(&self) -> impl Iterator<Item = &GroupPlan> {
        let groups = self.groups.iter();
        groups.filter(|group| group.fate == Fate::Recovered)
    }

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
            stamp: self.stamp,
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
        Ok(log_codec::encode_entry(
            self.stamp,
            [commands.take()].iter(),
        ))
    }
}

/// What group 0 is to be told of the beginning, as a founder remembers it, and has been told afterwards.
fn founding(
    dirs: &[DataDir],
    registry: &mut Registry,
    stamp: Stamp,
) -> Result<RegistryCommand, RecoverError> {
    let founder = |dir: &DataDir| {
        let change = dir.record.founding()?.to_change(dir.record.shards + 1);
        Some(RegistryCommand {
            principal: principal(),
            request: None,
            change,
        })
    };
    let command = dirs
        .iter()
        .find_map(founder)
        .ok_or(RecoverError::NotFounded)?;
    let at = At {
        index: u64::MAX,
        ordinal: 0,
        stamp,
    };
    match registry.apply(at, command.clone()) {
        RegistryOutcome::Refused(refusal) => Err(RecoverError::Refused(refusal)),
        _ => Ok(command),
    }
}

fn principal() -> Principal {
    Principal::new(PRINCIPAL).unwrap_or_else(|_| unreachable!("a good name"))
}

/// Whether the directories are of different nodes of one cluster.
fn check_together(dirs: &[DataDir]) -> Result<(), RecoverError> {
    let mut seen: BTreeMap<u64, &DataDir> = BTreeMap::new();
    for dir in dirs {
        if dir.record.membership == Membership::None {
            let path = dir.path.clone();
            return Err(RecoverError::NoMember { path });
        }
        let mixed = |other: &DataDir, what| RecoverError::Mixed {
            one: other.path.clone(),
            other: dir.path.clone(),
            what,
        };
        let first = &dirs[0];
        let of = |dir: &DataDir| (dir.record.cluster_id.clone(), dir.record.shards);
        if of(first) != of(dir) {
            return Err(mixed(first, "they are of different clusters"));
        }
        if let Some(other) = seen.insert(dir.record.node_id, dir) {
            return Err(mixed(
                other,
                "they are of the same node: give the newer one only",
            ));
        }
    }
    Ok(())
}

/// Brings back every replica of a group that is left, and judges what becomes of the group.
fn candidates(
    dirs: &[DataDir],
    outdated: &BTreeSet<usize>,
    group: GroupId,
    registry: Option<&Registry>,
    mut each: impl FnMut(Ending, State, Stamp),
) -> Result<GroupPlan, RecoverError> {
    let mut candidates = Vec::new();
    let mut unusable = Vec::new();
    let mut disputed = BTreeSet::new();
    for (at, dir) in dirs.iter().enumerate() {
        let Some(slot) = dir
            .slot(group)?
            .filter(|slot| slot.standing != Standing::Gone)
        else {
            continue;
        };
        let (node, replica) = (dir.record.node_id, slot.newest);
        if outdated.contains(&at) {
            unusable.push((node, "it is of a life that is not kept".to_owned()));
            continue;
        }
        // Ids that it has not allotted it cannot know.
        let is_retired = registry.is_some_and(|registry| {
            replica.generation() < registry.next_generation() && registry.is_retired(group, replica)
        });
        if is_retired {
            unusable.push((node, "it was moved away before".to_owned()));
            continue;
        }
        match slot.standing {
            Standing::Begun | Standing::Gone => {}
            Standing::Failed(why) => {
                unusable.push((node, why));
                continue;
            }
            // It may be the one that has forgotten nothing; but it takes part in nothing by itself.
            Standing::Disputed(_) => {
                disputed.insert(replica.0);
            }
        }
        match bring_back(dir, group, replica, Extent::Everything) {
            Ok(back) => {
                candidates.push(Candidate {
                    dir: at,
                    replica,
                    ending: back.ending.clone(),
                });
                each(back.ending, back.state, back.stamp);
            }
            Err(error) => unusable.push((node, error.to_string())),
        }
    }
    // The first of equals, so that the choice can be foretold.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(length(&candidate.ending)));
    let is_left =
        |id: u64| !disputed.contains(&id) && candidates.iter().any(|one| one.replica.0 == id);
    let fate = match candidates.first() {
        None => Fate::Lost,
        Some(Candidate { ending, .. }) => {
            let now = ending.committed.has_majority(is_left);
            let soon = ending.point.configuration.has_majority(is_left);
            match now && soon {
                true => Fate::Kept,
                false => Fate::Recovered,
            }
        }
    };
    Ok(GroupPlan {
        group,
        fate,
        candidates,
        unusable,
    })
}

/// By what raft calls a log longer: the term of its last entry, then its index.
fn length(ending: &Ending) -> (u64, u64) {
    (ending.point.term, ending.point.index)
}

/// The registry that is left may be older than what it once allotted.
fn next_generation(
    dirs: &[DataDir],
    groups: &[GroupPlan],
    registry: &Registry,
) -> Result<u32, RecoverError> {
    let mut next = registry.next_generation();
    for plan in groups {
        for dir in dirs {
            if let Some(slot) = dir.slot(plan.group)? {
                next = next.max(slot.newest.generation().saturating_add(1));
            }
        }
        let endings = plan.candidates.iter().map(|candidate| &candidate.ending);
        let members = endings.flat_map(|ending| ending.point.configuration.members());
        for member in members {
            next = next.max(ReplicaId(member).generation().saturating_add(1));
        }
    }
    Ok(next)
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

#[expect(clippy::print_stdout, reason = "it asks a person")]
fn ask(cluster_id: &str) -> Result<String, RecoverError> {
    let refused = || RecoverError::NotConfirmed {
        expected: cluster_id.to_owned(),
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    print!("\nType the cluster's id to go on: ");
    let mut said = String::new();
    let asked = std::io::stdout().flush();
    let heard = asked.and_then(|()| std::io::stdin().lock().read_line(&mut said));
    heard.map_err(|_| refused())?;
    Ok(said)
}

fn names(groups: &[GroupId]) -> String {
    let names: Vec<String> = groups.iter().map(|group| group_name(*group)).collect();
    match names.len() {
        1 => format!("{} is", names.concat()),
        _ => format!("{} are", names.join(", ")),
    }
}

fn reasons(unusable: &[(u64, String)]) -> String {
    let reasons = unusable
        .iter()
        .map(|(node, why)| format!(" (node {node}: {why})"));
    reasons.collect()
}
