//! What group 0 replicates beside the catalog: the nodes, the replicas of every group, the moves
//! under way, and what operators wish. Every node applies the same commands to it and comes to the
//! same bytes.

mod address;
mod checks;
pub mod codec;
pub mod command;
mod memory;
mod places;
mod recovery;
pub mod refusal;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use stock_core::{At, Moment};

use crate::ids::{Directory, GroupId, ReplicaId};
use crate::limits::{FAILURE_BYTES_MAX, MOVES_MAX, NODES_MAX};
use crate::registry::command::{BeginMove, Change, EndMove, Founder, RegistryCommand, Why};
use crate::registry::memory::RequestMemory;
use crate::registry::refusal::RegistryRefusal as Refusal;

/// How many voters a group may have.
pub const REPLICATIONS: [u32; 4] = [1, 3, 5, 7];

/// Who is in the cluster, and what belongs where. Driven like a [`stock_core::Catalog`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// 0 before the cluster was founded.
    pub(super) replication: u32,
    pub(super) next_generation: u32,
    pub(super) next_move: u64,
    pub(super) nodes: BTreeMap<u64, NodeRecord>,
    pub(super) placements: BTreeMap<GroupId, Placement>,
    pub(super) moves: BTreeMap<GroupId, Move>,
    pub(super) wishes: BTreeMap<GroupId, Wish>,
    pub(super) preferred: BTreeMap<GroupId, u64>,
    pub(super) failed: BTreeMap<(GroupId, ReplicaId), String>,
    /// By node: replicas of group 0 that do not vote, so that every node knows the registry and the
    /// locations.
    pub(super) observers: BTreeMap<u64, ReplicaId>,
    requests: RequestMemory,
    /// 0 before the cluster was founded.
    pub(super) incarnation: u128,
    /// 0 before the cluster was founded.
    pub(super) version: u32,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// `None`: it was announced and has not joined yet.
    pub directory: Option<Directory>,
    /// Replicas of older generations on this node are lost: they were on a disk that is gone.
    pub generation_floor: u32,
    /// Where clients reach it: a URL.
    pub grpc: String,
    /// Where nodes reach it: `host:port`.
    pub peers: String,
    /// Whether it takes part.
    pub state: NodeState,
    /// The index of the entry that let the directory in: of two directories, the one with the later
    /// entry is the node's. 0 for a founder's.
    pub since: u64,
    /// Whether it has ever reported from its directory. One that has not counts for nothing: it may
    /// never have run.
    pub was_heard: bool,
    /// An operator has said that another directory may take its place, though it may be heard from.
    pub may_be_replaced: bool,
    /// The highest version of the cluster that it speaks, as it has reported; 0 if it has not.
    pub newest_version: u32,
}

impl NodeRecord {
    /// Whether replicas can be given to it, now or soon.
    pub fn counts(&self) -> bool {
        self.state == NodeState::Active && self.directory.is_some() && self.was_heard
    }
}

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It holds replicas.
    Active,
    /// Its replicas go elsewhere.
    Draining,
    /// It left for ever.
    Removed,
}

/// The replicas of a group, as they were when its last move ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The term of the leader who reported them; 0: as founded.
    pub term: u64,
    /// All of them vote.
    pub voters: BTreeSet<ReplicaId>,
}

/// A change of one group's voters that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Never the same for two moves.
    pub number: u64,
    /// The replica that comes.
    pub add: Option<ReplicaId>,
    /// The replica that goes.
    pub remove: Option<ReplicaId>,
    /// Why.
    pub why: Why,
    /// Laid aside, because the group has no leader that could carry it out.
    pub parked: bool,
}

/// A move that an operator asked for and that has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The node that holds a replica.
    pub from: u64,
    /// The node that shall hold it.
    pub to: u64,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryOutcome {
    /// It is as the command says.
    Done,
    /// The node is in the cluster, or announced.
    Joined {
        /// Its id.
        node: u64,
        /// Replicas of older generations on it are lost.
        generation_floor: u32,
        /// The index of the entry that let its directory in; 0 if it is only announced, or a
        /// founder.
        since: u64,
    },
    /// The move is written down.
    Begun {
        /// Its number.
        number: u64,
        /// The replica that comes, with an id that was never used.
        add: Option<ReplicaId>,
    },
    /// Nothing changed.
    Refused(Refusal),
}

impl Registry {
    /// A cluster that is not founded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Time passes. Called once for each entry, before its commands.
    pub fn advance(&mut self, moment: Moment) {
        self.requests.forget(moment);
    }

    /// Carries out one command, or refuses it.
    pub fn apply(&mut self, at: At, command: RegistryCommand) -> RegistryOutcome {
        if let Some(request) = command.request {
            match self.requests.recall(&command.principal, request, at.moment) {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(refusal) => return RegistryOutcome::Refused(Refusal::Request(refusal)),
            }
        }
        match self.change(at, command.change) {
            Ok(outcome) => {
                self.place_observers();
                // What the controller begins needs no memory: it looks before it asks again.
                let is_begun = matches!(outcome, RegistryOutcome::Begun { .. });
                if let Some(request) = command.request.filter(|_| !is_begun) {
                    let done = outcome.clone();
                    self.requests.remember(command.principal, request, at, done);
                }
                outcome
            }
            // Not remembered: nothing changed, and a retry may find things otherwise.
            Err(refusal) => RegistryOutcome::Refused(refusal),
        }
    }

    /// Whether the first leader has written down who founded the cluster.
    pub fn is_founded(&self) -> bool {
        self.replication > 0
    }

    /// How many voters a group should have; 0 before the cluster was founded.
    pub fn replication(&self) -> u32 {
        self.replication
    }

    /// Which life of the cluster this is: another one begins where most nodes were lost for good,
    /// and nobody of an earlier one is listened to. 0 before the cluster was founded.
    pub fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// Ids of replicas from this generation on were never allotted.
    pub fn next_generation(&self) -> u32 {
        self.next_generation
    }

    /// Every node that ever was, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (u64, &NodeRecord)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// One node.
    pub fn node(&self, node: u64) -> Option<&NodeRecord> {
        self.nodes.get(&node)
    }

    /// Every group and its replicas, group 0 first.
    pub fn placements(&self) -> impl Iterator<Item = (GroupId, &Placement)> {
        self.placements.iter().map(|(group, at)| (*group, at))
    }

    /// The replicas of a group.
    pub fn placement(&self, group: GroupId) -> Option<&Placement> {
        self.placements.get(&group)
    }

    /// Every move under way, parked ones included.
    pub fn moves(&self) -> impl Iterator<Item = (GroupId, &Move)> {
        self.moves
            .iter()
            .map(|(group, under_way)| (*group, under_way))
    }

    /// The move of a group.
    pub fn move_of(&self, group: GroupId) -> Option<&Move> {
        self.moves.get(&group)
    }

    /// Every move that an operator asked for and that has not begun.
    pub fn wishes(&self) -> impl Iterator<Item = (GroupId, Wish)> {
        self.wishes.iter().map(|(group, wish)| (*group, *wish))
    }

    /// The move of a group that an operator asked for.
    pub fn wish(&self, group: GroupId) -> Option<Wish> {
        self.wishes.get(&group).copied()
    }

    /// The node that an operator wants to lead a group.
    pub fn preferred_leader(&self, group: GroupId) -> Option<u64> {
        self.preferred.get(&group).copied()
    }

    /// Why a replica is called failed, if it is.
    pub fn failure(&self, group: GroupId, replica: ReplicaId) -> Option<&str> {
        self.failed.get(&(group, replica)).map(String::as_str)
    }

    /// Whether a replica is gone for ever: it is neither a voter nor about to be one. Since no id
    /// is allotted twice, what was retired once stays so, and its data may be destroyed.
    pub fn is_retired(&self, group: GroupId, replica: ReplicaId) -> bool {
        let placed = self.placements.get(&group);
        let is_voter = placed.is_none_or(|placed| placed.voters.contains(&replica));
        let comes = self.moves.get(&group).and_then(|m| m.add) == Some(replica);
        let is_observer =
            group == GroupId::META && self.observers.get(&replica.node()) == Some(&replica);
        !is_voter && !comes && !is_observer
    }

    /// The replicas of group 0 that do not vote, one on each node without one that does.
    pub fn observers(&self) -> impl Iterator<Item = ReplicaId> {
        self.observers.values().copied()
    }

    /// How many replicas a node holds, or will when the moves to it are done.
    pub fn replicas_on(&self, node: u64) -> usize {
        let voters = self.placements.values().flat_map(|at| &at.voters);
        let coming = self.moves.values().filter_map(|m| m.add.as_ref());
        voters
            .chain(coming)
            .filter(|replica| replica.node() == node)
            .count()
    }
}

/// What each command does.
impl Registry {
    fn change(&mut self, at: At, change: Change) -> Result<RegistryOutcome, Refusal> {
        if let Change::Found {
            incarnation,
            replication,
            nodes,
            groups,
            version,
        } = change
        {
            return self.found((incarnation, version), replication, nodes, &groups);
        }
        if !self.is_founded() {
            return Err(Refusal::NotFounded);
        }
        match change {
            Change::Found { .. } => return Err(Refusal::AlreadyFounded),
            Change::Announce { node, grpc, peers } => return self.announce(node, grpc, peers),
            Change::Join {
                node,
                directory,
                replaces,
                grpc,
                peers,
            } => return self.join(at, node, (directory, replaces), grpc, peers),
            Change::Begin(begin) => return self.begin(&begin),
            Change::Heard {
                node,
                directory,
                newest_version,
            } => self.heard(node, directory, newest_version)?,
            Change::RaiseVersion { version } => self.raise_version(version)?,
            Change::AllowReplacement { node } => {
                self.member(node)?.may_be_replaced = true;
            }
            Change::UpdateAddresses { node, grpc, peers } => {
                self.member(node)?;
                self.set_addresses(node, grpc, peers)?;
            }
            Change::Drain { node } => self.drain(node)?,
            Change::Undrain { node } => {
                self.member(node)?.state = NodeState::Active;
            }
            Change::Remove { node } => self.remove(node)?,
            Change::SetReplication { replicas } => {
                if !REPLICATIONS.contains(&replicas) {
                    return Err(Refusal::BadReplication { replicas });
                }
                self.replication = replicas;
            }
            Change::MoveReplica { group, from, to } => self.wish_move(group, from, to)?,
            Change::RebuildReplica { group, node } => {
                let replica = self.voter_on(group, node)?;
                self.fail(group, replica, "an operator asked for a rebuild".to_owned());
            }
            Change::ReportFailedReplica {
                group,
                replica,
                reason,
            } => {
                if group == GroupId::META && self.observers.get(&replica.node()) == Some(&replica) {
                    // Another is allotted at once.
                    self.observers.remove(&replica.node());
                    return Ok(RegistryOutcome::Done);
                }
                let known = self.placement_of(group)?.voters.contains(&replica);
                if !known && self.is_retired(group, replica) {
                    return Err(Refusal::UnknownReplica { group, replica });
                }
                self.fail(group, replica, reason);
            }
            Change::PreferLeader { group, node } => self.prefer_leader(group, node)?,
            Change::End(end) => self.end(&end)?,
            Change::Correct {
                group,
                term,
                voters,
            } => self.correct(group, term, voters)?,
            Change::Recover(recover) => self.recover(&recover)?,
            Change::Park {
                group,
                number,
                parked,
            } => self.park(group, number, parked)?,
        }
        Ok(RegistryOutcome::Done)
    }

    fn found(
        &mut self,
        (incarnation, version): (u128, u32),
        replication: u32,
        nodes: Vec<Founder>,
        groups: &[Vec<u64>],
    ) -> Result<RegistryOutcome, Refusal> {
        if self.is_founded() {
            return Err(Refusal::AlreadyFounded);
        }
        if !REPLICATIONS.contains(&replication) {
            let replicas = replication;
            return Err(Refusal::BadReplication { replicas });
        }
        let ids: BTreeSet<u64> = nodes.iter().map(|founder| founder.node).collect();
        let what = if ids.len() != nodes.len() {
            Some("names a node twice")
        } else if nodes.is_empty() || nodes.len() > NODES_MAX {
            Some("is empty or too long")
        } else if groups.is_empty() || groups.iter().any(Vec::is_empty) {
            Some("leaves a group without replicas")
        } else if groups.iter().flatten().any(|node| !ids.contains(node)) {
            Some("places a replica on a node that it does not name")
        } else if version == 0 {
            Some("names no version")
        } else {
            None
        };
        if let Some(what) = what {
            return Err(Refusal::BadFounding { what });
        }
        let mut founded = Self {
            incarnation,
            replication,
            next_generation: 1,
            next_move: 1,
            version,
            ..Self::default()
        };
        for founder in nodes {
            founded.check_new_id(founder.node)?;
            founded.check_directory(founder.directory, founder.node)?;
            founded.insert(founder.node, 0, founder.grpc, founder.peers)?;
            let record = founded.member(founder.node)?;
            record.directory = Some(founder.directory);
            // All of them have heard each other.
            record.was_heard = true;
            record.newest_version = version;
        }
        for (number, nodes) in (0..).zip(groups) {
            let voters = nodes.iter().map(|node| ReplicaId::founding(*node));
            let placement = Placement {
                term: 0,
                voters: voters.collect(),
            };
            founded.placements.insert(GroupId(number), placement);
        }
        *self = founded;
        Ok(RegistryOutcome::Done)
    }

    fn announce(
        &mut self,
        node: u64,
        grpc: String,
        peers: String,
    ) -> Result<RegistryOutcome, Refusal> {
        let node = match node {
            0 => self.next_node(),
            node => node,
        };
        self.check_new_id(node)?;
        self.insert(node, self.next_generation, grpc, peers)?;
        Ok(self.joined(node))
    }

    fn join(
        &mut self,
        at: At,
        node: u64,
        (directory, replaces): (Directory, Option<Directory>),
        grpc: String,
        peers: String,
    ) -> Result<RegistryOutcome, Refusal> {
        // A known directory is a known node, whatever it calls itself: a join may be said twice.
        let owner = self.owner_of(directory);
        let node = match (owner, node) {
            (Some(owner), 0) => owner,
            (None, 0) => self.next_node(),
            (_, node) => node,
        };
        self.check_directory(directory, node)?;
        if !self.nodes.contains_key(&node) {
            self.check_new_id(node)?;
            self.insert(node, self.next_generation, grpc, peers)?;
        } else {
            let floor = self.next_generation;
            let known = self.member(node)?.directory;
            let is_replaced = known.is_some_and(|old| old != directory);
            if is_replaced && known != replaces {
                return Err(Refusal::JoinOvertaken { node });
            }
            self.set_addresses(node, grpc, peers)?;
            if is_replaced {
                self.member(node)?.generation_floor = floor;
                self.forget_wishes_of(node);
            }
        }
        let record = self.member(node)?;
        if record.directory != Some(directory) {
            record.directory = Some(directory);
            record.since = at.index;
            record.was_heard = false;
            record.may_be_replaced = false;
            record.newest_version = 0;
        }
        Ok(self.joined(node))
    }

    fn heard(
        &mut self,
        node: u64,
        directory: Directory,
        newest_version: u32,
    ) -> Result<(), Refusal> {
        let record = self.member(node)?;
        if record.directory != Some(directory) {
            return Err(Refusal::AnotherDirectory { node, directory });
        }
        record.was_heard = true;
        record.newest_version = newest_version;
        Ok(())
    }

    fn drain(&mut self, node: u64) -> Result<(), Refusal> {
        let record = self.member(node)?.clone();
        if record.state == NodeState::Draining {
            return Ok(());
        }
        // A node that never ran holds nothing and is missed by nobody; one whose disk was lost may
        // not have been heard again yet.
        if record.counts() || self.replicas_on(node) > 0 {
            self.check_enough_without(node)?;
        }
        self.member(node)?.state = NodeState::Draining;
        self.forget_wishes_of(node);
        Ok(())
    }

    fn remove(&mut self, node: u64) -> Result<(), Refusal> {
        let record = match self.member(node) {
            Ok(record) => record.clone(),
            // Said twice.
            Err(Refusal::NodeRemoved { .. }) => return Ok(()),
            Err(refusal) => return Err(refusal),
        };
        if record.state != NodeState::Draining {
            return Err(Refusal::NotDraining { node });
        }
        let replicas = self.replicas_on(node);
        if replicas > 0 {
            return Err(Refusal::HoldsReplicas { node, replicas });
        }
        if record.was_heard {
            self.check_enough_without(node)?;
        }
        self.member(node)?.state = NodeState::Removed;
        Ok(())
    }

    fn wish_move(&mut self, group: GroupId, from: u64, to: u64) -> Result<(), Refusal> {
        self.voter_on(group, from)?;
        if self.moves.contains_key(&group) {
            return Err(Refusal::MoveUnderWay { group });
        }
        self.check_takes_replicas(to)?;
        if self.voter_on(group, to).is_ok() {
            return Err(Refusal::ReplicaThere { group, node: to });
        }
        // The latest wish counts: one for each group is bound enough.
        self.wishes.insert(group, Wish { from, to });
        Ok(())
    }

    fn prefer_leader(&mut self, group: GroupId, node: Option<u64>) -> Result<(), Refusal> {
        self.placement_of(group)?;
        let Some(node) = node else {
            self.preferred.remove(&group);
            return Ok(());
        };
        self.check_takes_replicas(node)?;
        self.voter_on(group, node)?;
        self.preferred.insert(group, node);
        Ok(())
    }

    fn fail(&mut self, group: GroupId, replica: ReplicaId, mut reason: String) {
        while reason.len() > FAILURE_BYTES_MAX {
            reason.pop();
        }
        self.failed.insert((group, replica), reason);
    }

    fn begin(&mut self, begin: &BeginMove) -> Result<RegistryOutcome, Refusal> {
        let group = begin.group;
        let voters = &self.placement_of(group)?.voters;
        if let Some(replica) = begin.remove.filter(|gone| !voters.contains(gone)) {
            return Err(Refusal::UnknownReplica { group, replica });
        }
        let left = voters.len() - usize::from(begin.remove.is_some());
        if begin.add.is_none() && (begin.remove.is_none() || left == 0) {
            return Err(Refusal::BadMove { group });
        }
        if self.moves.contains_key(&group) {
            return Err(Refusal::MoveUnderWay { group });
        }
        if self.running_moves() >= MOVES_MAX {
            return Err(Refusal::TooManyMoves);
        }
        if let Some(node) = begin.add {
            self.check_takes_replicas(node)?;
            let there = self.voter_on(group, node).ok();
            if there.is_some() && there != begin.remove {
                return Err(Refusal::ReplicaThere { group, node });
            }
        }
        let add = match begin.add {
            Some(node) => Some(ReplicaId::new(self.allot_generation()?, node)),
            None => None,
        };
        let number = self.next_move;
        self.next_move += 1;
        let begun = Move {
            number,
            add,
            remove: begin.remove,
            why: begin.why,
            parked: false,
        };
        self.moves.insert(group, begun);
        if begin.add.is_some() && self.wish(group).map(|wish| wish.to) == begin.add {
            self.wishes.remove(&group);
        }
        Ok(RegistryOutcome::Begun { number, add })
    }

    fn end(&mut self, end: &EndMove) -> Result<(), Refusal> {
        let group = end.group;
        let under_way = self.numbered_move(group, end.number)?;
        let (add, remove) = (under_way.add, under_way.remove);
        let old = self.placement_of(group)?;
        let voters: BTreeSet<ReplicaId> = end.voters.iter().copied().collect();
        let came = voters.iter().filter(|voter| !old.voters.contains(*voter));
        let went = old.voters.iter().filter(|voter| !voters.contains(*voter));
        let is_possible = came.into_iter().all(|voter| Some(*voter) == add)
            && went.into_iter().all(|voter| Some(*voter) == remove);
        if voters.is_empty() || !is_possible || end.term < old.term {
            return Err(Refusal::BadVoters { group });
        }
        let placement = Placement {
            term: end.term,
            voters,
        };
        self.moves.remove(&group);
        self.place(group, placement);
        Ok(())
    }

    fn correct(
        &mut self,
        group: GroupId,
        term: u64,
        voters: Vec<ReplicaId>,
    ) -> Result<(), Refusal> {
        if self.moves.contains_key(&group) {
            return Err(Refusal::MoveUnderWay { group });
        }
        let is_possible = |voter: &ReplicaId| {
            let node = self.nodes.get(&voter.node());
            node.is_some_and(|node| node.state != NodeState::Removed)
                && voter.generation() < self.next_generation
        };
        let is_newer = term >= self.placement_of(group)?.term;
        if voters.is_empty() || !voters.iter().all(is_possible) || !is_newer {
            return Err(Refusal::BadVoters { group });
        }
        let voters = voters.into_iter().collect();
        self.place(group, Placement { term, voters });
        Ok(())
    }

    fn park(&mut self, group: GroupId, number: u64, parked: bool) -> Result<(), Refusal> {
        let running = self.running_moves();
        let under_way = self.numbered_move(group, number)?;
        if under_way.parked && !parked && running >= MOVES_MAX {
            return Err(Refusal::TooManyMoves);
        }
        under_way.parked = parked;
        Ok(())
    }
}

/// Where the replicas of a new cluster go: each group on `replication` nodes, in turn, so that
/// every node has as many as any other, or one less. The first of each is the one that should lead.
pub fn founding_placement(groups: u32, nodes: &[u64], replication: u32) -> Vec<Vec<u64>> {
    let count = nodes.len();
    let each = (replication as usize).min(count);
    let place = |group: usize| {
        let turn = (0..each).map(|step| nodes[(group + step) % count]);
        turn.collect()
    };
    (0..groups as usize).map(place).collect()
}
