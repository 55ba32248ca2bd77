//! What is left of a cluster, and what can be made of it.
//!
//! A replica may have lost the end of its log, or not be able to read it: as a voter it counts for
//! nothing then. But where it reaches further than any other that is left, it is gone on from all
//! the same, from the last place it can be brought back to.

use std::collections::{BTreeMap, BTreeSet};

use stock_cluster::{GroupId, NodeState, Registry, RegistryCommand, RegistryOutcome, ReplicaId};
use stock_core::{At, Principal, Stamp};
use stock_node::state::State;
use stock_node::worker::Standing;
use stock_replica::Ending;
use stock_storage::Ledger;

use super::error::RecoverError;
use super::lives::{interrupted, is_done, outdated};
use super::replay::{bring_back_what_is_left, known_to};
use super::{DataDir, OfflineError};
use crate::directory::node_record::{Membership, RecoveryRecord};

/// Who is said to have told the registry.
const PRINCIPAL: &str = "stockd-recover";

/// What is left of a cluster, and what would be made of it.
#[derive(Debug)]
pub struct Plan {
    /// The cluster's name.
    pub cluster_id: String,
    /// The nodes that are left.
    pub nodes: Vec<u64>,
    /// The nodes that are lost, as the registry knows them.
    pub lost_nodes: Vec<u64>,
    /// The directories that are not of the life that is gone on from: nothing of them is used, and
    /// their nodes have everything made anew.
    pub outdated: BTreeSet<usize>,
    /// A recovery that was interrupted, which this goes on with.
    pub resumed: Option<RecoveryRecord>,
    /// It was interrupted when all was done, and some of the directories may have been started
    /// since: only its marks are taken away.
    pub is_marked_only: bool,
    /// Every group, group 0 first.
    pub groups: Vec<GroupPlan>,
    /// What the surviving log of group 0 lacks of the beginning.
    pub(super) founding: Option<RegistryCommand>,
    pub(super) next_generation: u32,
    pub(super) registry: Registry,
    pub(super) stamp: Stamp,
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
    /// The last index that one of the directories knows to have been committed, whether or not it
    /// still has it.
    pub known_to: u64,
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
    /// The end of its log, or of what can be brought back of it.
    pub ending: Ending,
    /// Why it does not go on by itself, if it does not: as a voter it counts for nothing.
    pub lack: Option<String>,
}

impl GroupPlan {
    /// The replica that is gone on from.
    pub fn chosen(&self) -> Option<&Candidate> {
        self.candidates.first()
    }

    /// The indexes, first and last, of which it is known that something was committed there, and
    /// which are lost.
    pub fn lost(&self) -> Option<(u64, u64)> {
        let first = self.chosen()?.ending.point.index + 1;
        (self.fate == Fate::Recovered && first <= self.known_to).then_some((first, self.known_to))
    }
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
        let has_begun = |dir: &DataDir| {
            dir.record.is_founded || !matches!(dir.record.membership, Membership::Founder { .. })
        };
        if unusable.is_empty() && !dirs.iter().any(has_begun) {
            return Err(RecoverError::NeverBegun);
        }
        return Err(RecoverError::NoMeta { unusable });
    };
    // Nothing was acknowledged before the cluster was founded, but this log may end just before it
    // was.
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
        let mut plan = candidates(dirs, &outdated, group, registry, |_, _, _| {})?;
        let was_begun = |recovery: &RecoveryRecord| recovery.groups.contains(&group.0);
        if plan.fate == Fate::Kept && resumed.as_ref().is_some_and(was_begun) {
            plan.fate = Fate::Recovered;
        }
        groups.push(plan);
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
        is_marked_only: resumed
            .as_ref()
            .is_some_and(|recovery| is_done(dirs, recovery)),
        outdated,
        resumed,
        founding,
        next_generation: next_generation(dirs, &groups, &registry)?,
        groups,
        registry: *registry,
        stamp,
    })
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

    /// The groups that do not go on by themselves, and of which something is left.
    pub(super) fn recovered(&self) -> impl Iterator<Item = &GroupPlan> {
        let groups = self.groups.iter();
        groups.filter(|group| group.fate == Fate::Recovered)
    }
}

/// What group 0 is to be told of the beginning, as a founder remembers it, and has been told
/// afterwards.
fn founding(
    dirs: &[DataDir],
    registry: &mut Registry,
    stamp: Stamp,
) -> Result<RegistryCommand, RecoverError> {
    let founder = |dir: &DataDir| {
        let groups = dir.record.shards + 1;
        let change = dir.record.founding()?.to_change(groups);
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
        moment: stamp.into(),
    };
    match registry.apply(at, command.clone()) {
        RegistryOutcome::Refused(refusal) => Err(RecoverError::Refused(refusal)),
        _ => Ok(command),
    }
}

/// Who is said to have told it.
pub(super) fn principal() -> Principal {
    Principal::new(PRINCIPAL).unwrap_or_else(|_| unreachable!("a good name"))
}

/// Whether the directories are of different nodes of one cluster.
fn check_together(dirs: &[DataDir]) -> Result<(), RecoverError> {
    let mut seen: BTreeMap<u64, &DataDir> = BTreeMap::new();
    for dir in dirs {
        if dir.record.membership == Membership::None {
            let path = dir.path.clone();
            let was_used = !dir.checkpoints.groups().is_empty() || Ledger::is_in(&path);
            return Err(match was_used {
                true => OfflineError::NoRecord { path }.into(),
                false => RecoverError::NoMember { path },
            });
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
    let mut silent = BTreeSet::new();
    let mut known = 0;
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
                silent.insert(replica.0);
            }
        }
        if let Ok(record) = dir.replica(group) {
            known = known.max(known_to(dir, group, replica, &record).unwrap_or_default());
        }
        match bring_back_what_is_left(dir, group, replica) {
            Ok(back) => {
                if back.lack.is_some() {
                    silent.insert(replica.0);
                }
                candidates.push(Candidate {
                    dir: at,
                    replica,
                    ending: back.ending.clone(),
                    lack: back.lack,
                });
                each(back.ending, back.state, back.stamp);
            }
            Err(error) => unusable.push((node, error.to_string())),
        }
    }
    // Of equals one that lacks nothing, and of those the first, so that the choice can be foretold.
    candidates.sort_by_key(|one| (std::cmp::Reverse(length(&one.ending)), one.lack.is_some()));
    let is_left =
        |id: u64| !silent.contains(&id) && candidates.iter().any(|one| one.replica.0 == id);
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
        known_to: known,
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
