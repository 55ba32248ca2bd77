//! The registry's commands and state to log.v1 and back. Every field is checked on the way in: what
//! no edge of this version would have written is refused, since to guess would be to differ from
//! other nodes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use stock_core::{Fingerprint, Principal, Request, RequestId, Stamp};
use stock_wire::log::v1 as log;
use stock_wire::log::v1::registry_change::Change as Wire;
use thiserror::Error;

use crate::ids::{Directory, GroupId, ReplicaId};
use crate::registry::command::{
    BeginMove, Change, EndMove, Founder, Recover, RegistryCommand, Survivor, Why,
};
use crate::registry::memory::{Remembered, RequestMemory};
use crate::registry::{Move, NodeRecord, NodeState, Placement, Registry, RegistryOutcome, Wish};

/// A command that this version cannot read. The replica must stop: to skip it would be to differ.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a registry command is not understood: {what}")]
pub struct RegistryDecodeError {
    /// What is wrong.
    pub what: String,
}

/// Bytes that are no registry of this version.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// They are no `log.v1.RegistryState`.
    #[error("the registry is no log.v1.RegistryState: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field holds what no registry would have written.
    #[error("the registry does not restore: {what}")]
    Field {
        /// What is wrong.
        what: String,
    },
    /// They hold a registry, but not the bytes that it freezes to.
    #[error("the registry's bytes are not canonical")]
    NotCanonical,
}

type Read<T> = Result<T, String>;

/// A command as it stands in an entry of group 0.
pub fn encode_command(command: &RegistryCommand) -> log::Command {
    let (request_id, fingerprint) = match &command.request {
        Some(request) => (
            Bytes::copy_from_slice(request.id.as_bytes()),
            Bytes::copy_from_slice(&request.fingerprint.0),
        ),
        None => Default::default(),
    };
    let change = Some(encode_change(&command.change));
    log::Command {
        principal: command.principal.as_str().to_owned(),
        request_id,
        fingerprint,
        operation: Some(log::command::Operation::RegistryChange(
            log::RegistryChange { change },
        )),
    }
}

impl Change {
    /// The fingerprint of a request for it. Which change it is stands in its encoding by number,
    /// and a field that was left out does not stand there.
    pub fn fingerprint(&self) -> Fingerprint {
        let change = Some(encode_change(self));
        Fingerprint::of(&log::RegistryChange { change }.encode_to_vec())
    }
}

/// Whether a command of group 0 is for the registry, and not for the catalog.
pub fn is_registry_command(command: &log::Command) -> bool {
    let operation = command.operation.as_ref();
    matches!(operation, Some(log::command::Operation::RegistryChange(_)))
}

/// A command out of an entry of group 0.
pub fn decode_command(command: &log::Command) -> Result<RegistryCommand, RegistryDecodeError> {
    read_command(command).map_err(|what| RegistryDecodeError { what })
}

impl Registry {
    /// The canonical bytes of the state: equal registries have equal bytes, on every node.
    pub fn freeze(&self) -> Vec<u8> {
        encode_state(self).encode_to_vec()
    }

    /// The registry that froze to these bytes.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let state = log::RegistryState::decode(bytes)?;
        let registry = read_state(&state).map_err(|what| RestoreError::Field { what })?;
        // A list out of order or a key given twice would be lost here in silence.
        if registry.freeze() != bytes {
            return Err(RestoreError::NotCanonical);
        }
        Ok(registry)
    }
}

fn encode_change(change: &Change) -> Wire {
    match change.clone() {
        Change::Found {
            incarnation,
            replication,
            nodes,
            groups,
            version,
        } => Wire::Found(log::Found {
            incarnation: encode_incarnation(incarnation),
            replication,
            nodes: nodes.into_iter().map(encode_founder).collect(),
            groups: groups
                .into_iter()
                .map(|nodes| log::FoundingGroup { nodes })
                .collect(),
            version: encode_version(version),
        }),
        Change::Announce { node, grpc, peers } => {
            Wire::Announce(log::Announce { node, grpc, peers })
        }
        Change::Join {
            node,
            directory,
            replaces,
            grpc,
            peers,
        } => Wire::Join(log::Join {
            node,
            directory: encode_directory(directory),
            replaces: replaces.map_or_else(Bytes::new, encode_directory),
            grpc,
            peers,
        }),
        Change::RaiseVersion { version } => Wire::RaiseVersion(log::RaiseVersion { version }),
        Change::Heard {
            node,
            directory,
            newest_version,
        } => Wire::Heard(log::Heard {
            node,
            directory: encode_directory(directory),
            newest_version: encode_version(newest_version),
        }),
        Change::AllowReplacement { node } => Wire::AllowReplacement(log::AllowReplacement { node }),
        Change::UpdateAddresses { node, grpc, peers } => {
            Wire::UpdateAddresses(log::UpdateAddresses { node, grpc, peers })
        }
        Change::Drain { node } => Wire::Drain(log::Drain { node }),
        Change::Undrain { node } => Wire::Undrain(log::Undrain { node }),
        Change::Remove { node } => Wire::Remove(log::RemoveNode { node }),
        Change::SetReplication { replicas } => {
            Wire::SetReplication(log::SetReplication { replicas })
        }
        Change::MoveReplica { group, from, to } => Wire::MoveReplica(log::MoveReplica {
            group: group.0,
            from,
            to,
        }),
        Change::RebuildReplica { group, node } => Wire::RebuildReplica(log::RebuildReplica {
            group: group.0,
            node,
        }),
        Change::ReportFailedReplica {
            group,
            replica,
            reason,
        } => Wire::ReportFailedReplica(log::ReportFailedReplica {
            group: group.0,
            replica: replica.0,
            reason,
        }),
        Change::PreferLeader { group, node } => Wire::PreferLeader(log::PreferLeader {
            group: group.0,
            node: node.unwrap_or(0),
        }),
        Change::Begin(begin) => Wire::BeginMove(log::BeginMove {
            group: begin.group.0,
            add_node: begin.add.unwrap_or(0),
            remove: encode_replica(begin.remove),
            why: encode_why(begin.why).into(),
        }),
        Change::End(end) => Wire::EndMove(log::EndMove {
            group: end.group.0,
            number: end.number,
            term: end.term,
            voters: end.voters.iter().map(|voter| voter.0).collect(),
        }),
        Change::Park {
            group,
            number,
            parked,
        } => Wire::ParkMove(log::ParkMove {
            group: group.0,
            number,
            parked,
        }),
        Change::Correct {
            group,
            term,
            voters,
        } => Wire::CorrectVoters(log::CorrectVoters {
            group: group.0,
            term,
            voters: voters.iter().map(|voter| voter.0).collect(),
        }),
        Change::Recover(recover) => Wire::Recover(encode_recover(recover)),
    }
}

fn encode_recover(recover: Recover) -> log::Recover {
    let groups = recover.groups.into_iter().map(|survivor| log::Survivor {
        group: survivor.group.0,
        replica: survivor.replica.0,
        term: survivor.term,
    });
    log::Recover {
        incarnation: encode_incarnation(recover.incarnation),
        nodes: recover.nodes,
        groups: groups.collect(),
        next_generation: recover.next_generation,
    }
}

/// Left out before a cluster was founded.
fn encode_incarnation(incarnation: u128) -> Bytes {
    match incarnation {
        0 => Bytes::new(),
        drawn => Bytes::copy_from_slice(&drawn.to_be_bytes()),
    }
}

/// Before versions were told there was the first.
fn encode_version(version: u32) -> u32 {
    match version {
        1 => 0,
        version => version,
    }
}

fn read_version(version: u32) -> u32 {
    version.max(1)
}

fn encode_founder(founder: Founder) -> log::Founder {
    log::Founder {
        node: founder.node,
        directory: encode_directory(founder.directory),
        grpc: founder.grpc,
        peers: founder.peers,
    }
}

fn encode_directory(directory: Directory) -> Bytes {
    Bytes::copy_from_slice(&directory.0.to_be_bytes())
}

fn encode_replica(replica: Option<ReplicaId>) -> u64 {
    replica.map_or(0, |replica| replica.0)
}

fn encode_why(why: Why) -> log::MoveReason {
    match why {
        Why::Failed => log::MoveReason::Failed,
        Why::DiskReplaced => log::MoveReason::DiskReplaced,
        Why::NodeAway => log::MoveReason::NodeAway,
        Why::TooFew => log::MoveReason::TooFew,
        Why::Asked => log::MoveReason::Asked,
        Why::Draining => log::MoveReason::Draining,
        Why::TooMany => log::MoveReason::TooMany,
        Why::Balance => log::MoveReason::Balance,
    }
}

fn encode_state(registry: &Registry) -> log::RegistryState {
    let nodes = registry.nodes.iter().map(|(node, record)| {
        let state = match record.state {
            NodeState::Active => log::registered_node::State::Active,
            NodeState::Draining => log::registered_node::State::Draining,
            NodeState::Removed => log::registered_node::State::Removed,
        };
        log::RegisteredNode {
            node: *node,
            directory: record.directory.map_or_else(Bytes::new, encode_directory),
            generation_floor: record.generation_floor,
            grpc: record.grpc.clone(),
            peers: record.peers.clone(),
            state: state.into(),
            since: record.since,
            was_heard: record.was_heard,
            may_be_replaced: record.may_be_replaced,
            newest_version: record.newest_version,
        }
    });
    let groups = registry.placements.iter().map(|(group, placement)| {
        let failed = registry
            .failed
            .range((*group, ReplicaId(0))..=(*group, ReplicaId(u64::MAX)));
        log::RegisteredGroup {
            group: group.0,
            term: placement.term,
            voters: placement.voters.iter().map(|voter| voter.0).collect(),
            r#move: registry.moves.get(group).map(encode_move),
            wish: registry.wishes.get(group).map(|wish| log::RegisteredWish {
                from: wish.from,
                to: wish.to,
            }),
            preferred_leader: registry.preferred.get(group).copied().unwrap_or(0),
            failed: failed
                .map(|((_, replica), reason)| log::FailedReplica {
                    replica: replica.0,
                    reason: reason.clone(),
                })
                .collect(),
        }
    });
    let requests = registry.requests.order.values();
    log::RegistryState {
        replication: registry.replication,
        next_generation: registry.next_generation,
        next_move: registry.next_move,
        nodes: nodes.collect(),
        groups: groups.collect(),
        observers: registry.observers().map(|observer| observer.0).collect(),
        requests: requests
            .map(|key| encode_remembered(key, &registry.requests.known[key]))
            .collect(),
        horizon_ms: registry.requests.horizon.0,
        incarnation: encode_incarnation(registry.incarnation),
        version: encode_version(registry.version),
    }
}

fn encode_move(under_way: &Move) -> log::RegisteredMove {
    log::RegisteredMove {
        number: under_way.number,
        add: encode_replica(under_way.add),
        remove: encode_replica(under_way.remove),
        why: encode_why(under_way.why).into(),
        parked: under_way.parked,
    }
}

fn encode_remembered(
    (principal, id): &(Principal, RequestId),
    remembered: &Remembered,
) -> log::RememberedRequest {
    let (stamp, index, ordinal) = remembered.place;
    let joined = match &remembered.outcome {
        RegistryOutcome::Joined {
            node,
            generation_floor,
            since,
        } => Some(log::JoinedNode {
            node: *node,
            generation_floor: *generation_floor,
            since: *since,
        }),
        // Moves are begun by the controller, which has no request ids, and a refusal is not
        // remembered.
        RegistryOutcome::Done | RegistryOutcome::Begun { .. } | RegistryOutcome::Refused(_) => None,
    };
    log::RememberedRequest {
        principal: principal.as_str().to_owned(),
        request_id: Bytes::copy_from_slice(id.as_bytes()),
        fingerprint: Bytes::copy_from_slice(&remembered.fingerprint.0),
        stamp_ms: stamp.0,
        index,
        ordinal,
        joined,
    }
}

fn read_command(command: &log::Command) -> Read<RegistryCommand> {
    let Some(log::command::Operation::RegistryChange(change)) = &command.operation else {
        return Err("it is not for the registry".to_owned());
    };
    let change = change.change.as_ref();
    let request = match (
        command.request_id.is_empty(),
        command.fingerprint.is_empty(),
    ) {
        (true, true) => None,
        _ => Some(read_request(&command.request_id, &command.fingerprint)?),
    };
    Ok(RegistryCommand {
        principal: read_principal(&command.principal)?,
        request,
        change: read_change(change.ok_or("a change this version does not know")?)?,
    })
}

fn read_change(change: &Wire) -> Read<Change> {
    Ok(match change.clone() {
        Wire::Found(found) => Change::Found {
            incarnation: read_incarnation(&found.incarnation)?,
            replication: found.replication,
            nodes: found
                .nodes
                .into_iter()
                .map(read_founder)
                .collect::<Read<_>>()?,
            groups: found.groups.into_iter().map(|group| group.nodes).collect(),
            version: read_version(found.version),
        },
        Wire::Announce(log::Announce { node, grpc, peers }) => {
            Change::Announce { node, grpc, peers }
        }
        Wire::Join(join) => Change::Join {
            node: join.node,
            directory: read_directory(&join.directory)?,
            replaces: match join.replaces.is_empty() {
                true => None,
                false => Some(read_directory(&join.replaces)?),
            },
            grpc: join.grpc,
            peers: join.peers,
        },
        Wire::Heard(heard) => Change::Heard {
            node: heard.node,
            directory: read_directory(&heard.directory)?,
            newest_version: read_version(heard.newest_version),
        },
        Wire::RaiseVersion(log::RaiseVersion { version }) => Change::RaiseVersion { version },
        Wire::AllowReplacement(log::AllowReplacement { node }) => Change::AllowReplacement { node },
        Wire::UpdateAddresses(log::UpdateAddresses { node, grpc, peers }) => {
            Change::UpdateAddresses { node, grpc, peers }
        }
        Wire::Drain(log::Drain { node }) => Change::Drain { node },
        Wire::Undrain(log::Undrain { node }) => Change::Undrain { node },
        Wire::Remove(log::RemoveNode { node }) => Change::Remove { node },
        Wire::SetReplication(log::SetReplication { replicas }) => {
            Change::SetReplication { replicas }
        }
        Wire::MoveReplica(wish) => Change::MoveReplica {
            group: GroupId(wish.group),
            from: wish.from,
            to: wish.to,
        },
        Wire::RebuildReplica(rebuild) => Change::RebuildReplica {
            group: GroupId(rebuild.group),
            node: rebuild.node,
        },
        Wire::ReportFailedReplica(failed) => Change::ReportFailedReplica {
            group: GroupId(failed.group),
            replica: ReplicaId(failed.replica),
            reason: failed.reason,
        },
        Wire::PreferLeader(prefer) => Change::PreferLeader {
            group: GroupId(prefer.group),
            node: some_node(prefer.node),
        },
        Wire::BeginMove(begin) => Change::Begin(BeginMove {
            group: GroupId(begin.group),
            add: some_node(begin.add_node),
            remove: some_replica(begin.remove),
            why: read_why(begin.why())?,
        }),
        Wire::EndMove(end) => Change::End(EndMove {
            group: GroupId(end.group),
            number: end.number,
            term: end.term,
            voters: end.voters.into_iter().map(ReplicaId).collect(),
        }),
        Wire::ParkMove(park) => Change::Park {
            group: GroupId(park.group),
            number: park.number,
            parked: park.parked,
        },
        Wire::CorrectVoters(correct) => Change::Correct {
            group: GroupId(correct.group),
            term: correct.term,
            voters: correct.voters.into_iter().map(ReplicaId).collect(),
        },
        Wire::Recover(recover) => Change::Recover(read_recover(recover)?),
    })
}

fn read_recover(recover: log::Recover) -> Read<Recover> {
    let groups = recover.groups.into_iter().map(|survivor| Survivor {
        group: GroupId(survivor.group),
        replica: ReplicaId(survivor.replica),
        term: survivor.term,
    });
    Ok(Recover {
        incarnation: read_incarnation(&recover.incarnation)?,
        nodes: recover.nodes,
        groups: groups.collect(),
        next_generation: recover.next_generation,
    })
}

fn read_incarnation(bytes: &[u8]) -> Read<u128> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| "an incarnation that has not 16 bytes")?;
    Ok(u128::from_be_bytes(bytes))
}

fn read_founder(founder: log::Founder) -> Read<Founder> {
    Ok(Founder {
        node: founder.node,
        directory: read_directory(&founder.directory)?,
        grpc: founder.grpc,
        peers: founder.peers,
    })
}

fn read_directory(bytes: &[u8]) -> Read<Directory> {
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| "a data directory that has not 16 bytes")?;
    Ok(Directory(u128::from_be_bytes(bytes)))
}

fn some_replica(id: u64) -> Option<ReplicaId> {
    (id != 0).then_some(ReplicaId(id))
}

fn some_node(node: u64) -> Option<u64> {
    (node != 0).then_some(node)
}

fn read_why(why: log::MoveReason) -> Read<Why> {
    Ok(match why {
        log::MoveReason::Failed => Why::Failed,
        log::MoveReason::DiskReplaced => Why::DiskReplaced,
        log::MoveReason::NodeAway => Why::NodeAway,
        log::MoveReason::TooFew => Why::TooFew,
        log::MoveReason::Asked => Why::Asked,
        log::MoveReason::Draining => Why::Draining,
        log::MoveReason::TooMany => Why::TooMany,
        log::MoveReason::Balance => Why::Balance,
        log::MoveReason::Unspecified => return Err("a move without a reason".to_owned()),
    })
}

fn read_principal(name: &str) -> Read<Principal> {
    Principal::new(name).map_err(|error| format!("principal {error}"))
}

fn read_request(id: &[u8], fingerprint: &[u8]) -> Read<Request> {
    let id = id.try_into();
    let id = id.map_err(|_| "a request id that has not 16 bytes")?;
    let fingerprint = fingerprint.try_into();
    let fingerprint = fingerprint.map_err(|_| "a fingerprint that has not 8 bytes")?;
    Ok(Request {
        id: RequestId::new(id).map_err(|error| format!("request_id {error}"))?,
        fingerprint: Fingerprint(fingerprint),
    })
}

fn read_state(state: &log::RegistryState) -> Read<Registry> {
    let nodes = state.nodes.iter().map(|node| {
        let record = NodeRecord {
            directory: match node.directory.is_empty() {
                true => None,
                false => Some(read_directory(&node.directory)?),
            },
            generation_floor: node.generation_floor,
            grpc: node.grpc.clone(),
            peers: node.peers.clone(),
            state: match node.state() {
                log::registered_node::State::Active => NodeState::Active,
                log::registered_node::State::Draining => NodeState::Draining,
                log::registered_node::State::Removed => NodeState::Removed,
                log::registered_node::State::Unspecified => {
                    return Err(format!("node {} in no state", node.node));
                }
            },
            since: node.since,
            was_heard: node.was_heard,
            may_be_replaced: node.may_be_replaced,
            newest_version: node.newest_version,
        };
        Ok((node.node, record))
    });
    let mut registry = Registry {
        replication: state.replication,
        next_generation: state.next_generation,
        next_move: state.next_move,
        nodes: nodes.collect::<Read<BTreeMap<_, _>>>()?,
        observers: state
            .observers
            .iter()
            .map(|observer| (ReplicaId(*observer).node(), ReplicaId(*observer)))
            .collect(),
        requests: read_requests(state)?,
        incarnation: read_incarnation(&state.incarnation)?,
        version: match state.replication {
            0 => state.version,
            _ => read_version(state.version),
        },
        ..Registry::default()
    };
    for group in &state.groups {
        read_group(&mut registry, group)?;
    }
    Ok(registry)
}

fn read_group(registry: &mut Registry, state: &log::RegisteredGroup) -> Read<()> {
    let group = GroupId(state.group);
    let voters: BTreeSet<ReplicaId> = state.voters.iter().copied().map(ReplicaId).collect();
    let term = state.term;
    let placement = Placement { term, voters };
    registry.placements.insert(group, placement);
    if let Some(under_way) = &state.r#move {
        let under_way = Move {
            number: under_way.number,
            add: some_replica(under_way.add),
            remove: some_replica(under_way.remove),
            why: read_why(under_way.why())?,
            parked: under_way.parked,
        };
        registry.moves.insert(group, under_way);
    }
    if let Some(log::RegisteredWish { from, to }) = state.wish {
        registry.wishes.insert(group, Wish { from, to });
    }
    if let Some(node) = some_node(state.preferred_leader) {
        registry.preferred.insert(group, node);
    }
    for failed in &state.failed {
        let replica = ReplicaId(failed.replica);
        registry
            .failed
            .insert((group, replica), failed.reason.clone());
    }
    Ok(())
}

fn read_requests(state: &log::RegistryState) -> Read<RequestMemory> {
    let mut memory = RequestMemory {
        horizon: Stamp(state.horizon_ms),
        ..RequestMemory::default()
    };
    for known in &state.requests {
        let request = read_request(&known.request_id, &known.fingerprint)?;
        let key = (read_principal(&known.principal)?, request.id);
        let place = (Stamp(known.stamp_ms), known.index, known.ordinal);
        let outcome = match &known.joined {
            Some(joined) => RegistryOutcome::Joined {
                node: joined.node,
                generation_floor: joined.generation_floor,
                since: joined.since,
            },
            None => RegistryOutcome::Done,
        };
        memory.order.insert(place, key.clone());
        let remembered = Remembered {
            place,
            fingerprint: request.fingerprint,
            outcome,
        };
        memory.known.insert(key, remembered);
    }
    Ok(memory)
}
