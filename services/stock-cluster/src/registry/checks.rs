//! What the registry's commands look up, and what they check before they change anything.

use super::{Move, NodeRecord, NodeState, Placement, Refusal, Registry, RegistryOutcome, address};
use crate::ids::{Directory, GroupId, ReplicaId};
use crate::limits::{ADDRESS_BYTES_MAX, NODE_ID_MAX, NODES_EVER_MAX, NODES_MAX};

impl Registry {
    /// A node that was not removed.
    pub(super) fn member(&mut self, node: u64) -> Result<&mut NodeRecord, Refusal> {
        match self.nodes.get_mut(&node) {
            None => Err(Refusal::UnknownNode { node }),
            Some(record) if record.state == NodeState::Removed => {
                Err(Refusal::NodeRemoved { node })
            }
            Some(record) => Ok(record),
        }
    }

    pub(super) fn next_node(&self) -> u64 {
        self.nodes.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    pub(super) fn owner_of(&self, directory: Directory) -> Option<u64> {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|(_, record)| record.directory == Some(directory))?;
        Some(*found.0)
    }

    pub(super) fn joined(&self, node: u64) -> RegistryOutcome {
        let record = self.nodes.get(&node);
        RegistryOutcome::Joined {
            node,
            generation_floor: record.map_or(0, |record| record.generation_floor),
            since: record.map_or(0, |record| record.since),
        }
    }

    pub(super) fn check_new_id(&self, node: u64) -> Result<(), Refusal> {
        if node == 0 || node > NODE_ID_MAX {
            return Err(Refusal::BadNodeId { node });
        }
        match self.nodes.get(&node).map(|record| record.state) {
            Some(NodeState::Removed) => Err(Refusal::NodeRemoved { node }),
            Some(_) => Err(Refusal::NodeKnown { node }),
            None => Ok(()),
        }
    }

    pub(super) fn check_directory(&self, directory: Directory, node: u64) -> Result<(), Refusal> {
        match self.owner_of(directory) {
            Some(owner) if self.nodes[&owner].state == NodeState::Removed => {
                Err(Refusal::NodeRemoved { node: owner })
            }
            Some(owner) if owner != node => Err(Refusal::DirectoryTaken { directory, owner }),
            _ => Ok(()),
        }
    }

    pub(super) fn insert(
        &mut self,
        node: u64,
        generation_floor: u32,
        grpc: String,
        peers: String,
    ) -> Result<(), Refusal> {
        let members = self.nodes.values();
        let members = members.filter(|record| record.state != NodeState::Removed);
        if members.count() >= NODES_MAX || self.nodes.len() >= NODES_EVER_MAX {
            return Err(Refusal::TooManyNodes);
        }
        self.check_addresses(node, &grpc, &peers)?;
        let record = NodeRecord {
            directory: None,
            generation_floor,
            grpc,
            peers,
            state: NodeState::Active,
            since: 0,
            was_heard: false,
            may_be_replaced: false,
            newest_version: 0,
        };
        self.nodes.insert(node, record);
        Ok(())
    }

    pub(super) fn set_addresses(
        &mut self,
        node: u64,
        grpc: String,
        peers: String,
    ) -> Result<(), Refusal> {
        self.check_addresses(node, &grpc, &peers)?;
        let record = self.member(node)?;
        (record.grpc, record.peers) = (grpc, peers);
        Ok(())
    }

    /// Two nodes at one address are a mistake of the configuration that would be hard to find
    /// later.
    fn check_addresses(&self, node: u64, grpc: &str, peers: &str) -> Result<(), Refusal> {
        let is_good = |address: &str| !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
        if !is_good(grpc) || !is_good(peers) {
            return Err(Refusal::BadAddress);
        }
        let place = (address::place(grpc), address::place(peers));
        for (address, (host, _)) in [(grpc, &place.0), (peers, &place.1)] {
            if address::is_nowhere(host) {
                let address = address.to_owned();
                return Err(Refusal::NowhereAddress { address });
            }
        }
        let others = self
            .nodes
            .iter()
            .filter(|(id, record)| **id != node && record.state != NodeState::Removed);
        for (owner, record) in others {
            let taken = match () {
                () if address::place(&record.grpc) == place.0 => grpc,
                () if address::place(&record.peers) == place.1 => peers,
                () => continue,
            };
            return Err(Refusal::AddressTaken {
                address: taken.to_owned(),
                owner: *owner,
            });
        }
        Ok(())
    }

    pub(super) fn check_enough_without(&self, node: u64) -> Result<(), Refusal> {
        let others = self
            .nodes
            .iter()
            .filter(|(id, record)| **id != node && record.counts());
        let (remaining, needed) = (others.count(), self.replication as usize);
        if remaining < needed {
            return Err(Refusal::TooFewNodes {
                node,
                remaining,
                needed,
            });
        }
        Ok(())
    }

    pub(super) fn check_takes_replicas(&mut self, node: u64) -> Result<(), Refusal> {
        let record = self.member(node)?;
        if !record.counts() {
            return Err(Refusal::NotActive { node });
        }
        Ok(())
    }

    pub(super) fn placement_of(&self, group: GroupId) -> Result<&Placement, Refusal> {
        let placement = self.placements.get(&group);
        placement.ok_or(Refusal::UnknownGroup { group })
    }

    pub(super) fn voter_on(&self, group: GroupId, node: u64) -> Result<ReplicaId, Refusal> {
        let mut voters = self.placement_of(group)?.voters.iter();
        let there = voters.find(|voter| voter.node() == node);
        there
            .copied()
            .ok_or(Refusal::NoReplicaThere { group, node })
    }

    pub(super) fn running_moves(&self) -> usize {
        self.moves.values().filter(|m| !m.parked).count()
    }

    pub(super) fn numbered_move(
        &mut self,
        group: GroupId,
        number: u64,
    ) -> Result<&mut Move, Refusal> {
        self.moves
            .get_mut(&group)
            .filter(|under_way| under_way.number == number)
            .ok_or(Refusal::UnknownMove { group, number })
    }

    pub(super) fn allot_generation(&mut self) -> Result<u32, Refusal> {
        let generation = self.next_generation;
        let next = generation.checked_add(1);
        self.next_generation = next.ok_or(Refusal::GenerationsUsedUp)?;
        Ok(generation)
    }

    /// A node that is emptied, or came back empty, is not where an operator thought it was.
    pub(super) fn forget_wishes_of(&mut self, node: u64) {
        self.wishes.retain(|_, wish| wish.to != node);
        self.preferred.retain(|_, preferred| *preferred != node);
    }
}
