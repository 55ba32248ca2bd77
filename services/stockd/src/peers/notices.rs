//! Notices to `cluster.v1` and back. What is not understood is left out: it is said again, or comes
//! from a later version.

use std::collections::BTreeSet;

use stock_cluster::{
    AuditReport, AuditVerdict, Directory, GroupId, GroupReport, HostedReplica, NodeReport, Order,
    Progress, ReplicaId, ReplicaState, Resource, identity,
};
use stock_node::notice::{Notice, PulseNotice, StateHash};
use stock_wire::cluster::v1 as cluster;

/// Adds a notice to those of a frame.
pub fn add(notices: &mut cluster::Notices, notice: &Notice) {
    match notice {
        Notice::Leads(leads) => notices.leads.extend(leads.iter().map(|(group, term)| {
            let group = group.0;
            cluster::Lead { group, term: *term }
        })),
        Notice::Fit(groups) => {
            let groups = groups.iter().map(|group| group.0).collect();
            notices.fit = Some(cluster::Fit { groups });
        }
        Notice::Reports(reports) => {
            notices.node = Some(encode_node(&reports.0));
            notices.groups.extend(reports.1.iter().map(encode_group));
        }
        Notice::Hash(hash) => notices.hashes.push(cluster::StateHash {
            group: hash.group.0,
            replica_id: hash.replica.0,
            index: hash.index,
            hash: hash.hash.to_be_bytes().to_vec().into(),
            buckets: hash.buckets.clone(),
        }),
        Notice::Audited(report) => notices.audits.push(encode_audit(report)),
        Notice::Order { term, order } => notices.orders.extend(encode_order(*term, order)),
        Notice::Pulse(pulse) => {
            notices.own = Some(identity::wire::encode_known(0, &pulse.own));
            let memory = pulse.memory.iter();
            let memory = memory.map(|(node, known)| identity::wire::encode_known(*node, known));
            notices.memory = memory.collect();
        }
    }
}

/// Everything that a frame tells.
pub fn read(notices: cluster::Notices) -> Vec<Notice> {
    let mut read = Vec::new();
    if !notices.leads.is_empty() {
        let leads = notices.leads.iter();
        let leads = leads.map(|lead| (GroupId(lead.group), lead.term));
        read.push(Notice::Leads(leads.collect()));
    }
    if let Some(fit) = &notices.fit {
        read.push(Notice::Fit(
            fit.groups.iter().copied().map(GroupId).collect(),
        ));
    }
    if let Some(node) = notices.node.as_ref().and_then(decode_node) {
        let groups = notices.groups.iter().map(decode_group).collect();
        read.push(Notice::Reports(Box::new((node, groups))));
    }
    let own = notices.own.as_ref().and_then(identity::wire::decode_known);
    if let Some((_, own)) = own {
        let memory = notices.memory.iter();
        let memory = memory.filter_map(identity::wire::decode_known).collect();
        read.push(Notice::Pulse(Box::new(PulseNotice { own, memory })));
    }
    for hash in notices.hashes {
        let Ok(whole) = hash.hash.as_ref().try_into() else {
            continue;
        };
        read.push(Notice::Hash(Box::new(StateHash {
            group: GroupId(hash.group),
            replica: ReplicaId(hash.replica_id),
            index: hash.index,
            hash: u128::from_be_bytes(whole),
            buckets: hash.buckets,
        })));
    }
    for audit in &notices.audits {
        read.push(Notice::Audited(Box::new(decode_audit(audit))));
    }
    for order in &notices.orders {
        if let Some(decoded) = decode_order(order) {
            read.push(Notice::Order {
                term: order.term,
                order: Box::new(decoded),
            });
        }
    }
    read
}

fn encode_node(report: &NodeReport) -> cluster::NodeReport {
    use cluster::hosted_replica::State;
    let replicas = report.replicas.iter().map(|hosted| cluster::HostedReplica {
        group: hosted.group.0,
        replica_id: hosted.replica.0,
        state: match hosted.state {
            ReplicaState::Serving => State::Serving,
            ReplicaState::Failed => State::Failed,
            ReplicaState::Installing => State::Installing,
            ReplicaState::CatchingUp => State::CatchingUp,
            ReplicaState::Gone => State::Gone,
            ReplicaState::Disputed => State::Disputed,
        }
        .into(),
    });
    cluster::NodeReport {
        node_id: report.node,
        directory: report.directory.0.to_be_bytes().to_vec().into(),
        free_bytes: report.free_bytes,
        write_p50_us: report.write_p50_us,
        write_p99_us: report.write_p99_us,
        recent_write_us: report.recent_write_us,
        short_of: match report.short_of {
            None => cluster::Resource::Unspecified,
            Some(Resource::Disk) => cluster::Resource::Disk,
            Some(Resource::Memory) => cluster::Resource::Memory,
        }
        .into(),
        newest_version: report.newest_version,
        replicas: replicas.collect(),
    }
}

fn decode_node(report: &cluster::NodeReport) -> Option<NodeReport> {
    use cluster::hosted_replica::State;
    let replicas = report.replicas.iter().filter_map(|hosted| {
        Some(HostedReplica {
            group: GroupId(hosted.group),
            replica: ReplicaId(hosted.replica_id),
            state: match hosted.state() {
                State::Serving => ReplicaState::Serving,
                State::Failed => ReplicaState::Failed,
                State::Installing => ReplicaState::Installing,
                State::CatchingUp => ReplicaState::CatchingUp,
                State::Gone => ReplicaState::Gone,
                State::Disputed => ReplicaState::Disputed,
                State::Unspecified => return None,
            },
        })
    });
    Some(NodeReport {
        node: report.node_id,
        directory: Directory(u128::from_be_bytes(
            report.directory.as_ref().try_into().ok()?,
        )),
        free_bytes: report.free_bytes,
        write_p50_us: report.write_p50_us,
        write_p99_us: report.write_p99_us,
        recent_write_us: report.recent_write_us,
        short_of: match report.short_of() {
            cluster::Resource::Unspecified => None,
            cluster::Resource::Disk => Some(Resource::Disk),
            cluster::Resource::Memory => Some(Resource::Memory),
        },
        newest_version: report.newest_version.max(1),
        replicas: replicas.collect(),
    })
}

fn encode_audit(report: &AuditReport) -> cluster::Audit {
    let replicas = report.replicas.iter();
    let replicas = replicas.map(|(replica, verdict)| cluster::AuditedReplica {
        replica_id: replica.0,
        is_silent: *verdict == AuditVerdict::Silent,
        buckets: match verdict {
            AuditVerdict::Differs { buckets } => buckets.clone(),
            AuditVerdict::Agrees | AuditVerdict::Silent => Vec::new(),
        },
    });
    cluster::Audit {
        group: report.group.0,
        index: report.index,
        at_ms: report.at_ms,
        replicas: replicas.collect(),
    }
}

fn decode_audit(audit: &cluster::Audit) -> AuditReport {
    let replicas = audit.replicas.iter().map(|audited| {
        let verdict = match (audited.is_silent, audited.buckets.is_empty()) {
            (true, _) => AuditVerdict::Silent,
            (false, true) => AuditVerdict::Agrees,
            (false, false) => AuditVerdict::Differs {
                buckets: audited.buckets.clone(),
            },
        };
        (ReplicaId(audited.replica_id), verdict)
    });
    AuditReport {
        group: GroupId(audit.group),
        index: audit.index,
        at_ms: audit.at_ms,
        replicas: replicas.collect(),
    }
}

fn encode_group(report: &GroupReport) -> cluster::GroupReport {
    let ids = |ids: &BTreeSet<ReplicaId>| ids.iter().map(|id| id.0).collect();
    let progress = report.progress.iter();
    let progress = progress.map(|(replica, progress)| cluster::ReplicaProgress {
        replica_id: replica.0,
        matched: progress.matched,
        recently_active: progress.recently_active,
        snapshot_bytes: progress.snapshot_bytes,
    });
    cluster::GroupReport {
        group: report.group.0,
        term: report.term,
        leader: report.leader.0,
        voters: ids(&report.voters),
        outgoing: ids(&report.outgoing),
        learners: ids(&report.learners),
        last_index: report.last_index,
        commit: report.commit,
        progress: progress.collect(),
    }
}

fn decode_group(report: &cluster::GroupReport) -> GroupReport {
    let ids = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect();
    let progress = report.progress.iter().map(|progress| {
        let of = Progress {
            matched: progress.matched,
            recently_active: progress.recently_active,
            snapshot_bytes: progress.snapshot_bytes,
        };
        (ReplicaId(progress.replica_id), of)
    });
    GroupReport {
        group: GroupId(report.group),
        term: report.term,
        leader: ReplicaId(report.leader),
        voters: ids(&report.voters),
        outgoing: ids(&report.outgoing),
        learners: ids(&report.learners),
        last_index: report.last_index,
        commit: report.commit,
        progress: progress.collect(),
    }
}

fn encode_order(term: u64, order: &Order) -> Option<cluster::Order> {
    use cluster::order::Kind;
    let mut directory = bytes::Bytes::new();
    let (kind, group, replica, remove) = match *order {
        // What group 0 is to write down is proposed where it is led.
        Order::Record(_) => return None,
        Order::AddLearner { group, replica } => (Kind::AddLearner, group, replica.0, 0),
        Order::Promote { group, add, remove } => {
            let remove = remove.map_or(0, |remove| remove.0);
            (Kind::Promote, group, add.0, remove)
        }
        Order::RemoveLearner { group, replica } => (Kind::RemoveLearner, group, replica.0, 0),
        Order::RemoveVoter { group, replica } => (Kind::RemoveVoter, group, replica.0, 0),
        Order::LeaveJoint { group } => (Kind::LeaveJoint, group, 0, 0),
        Order::Transfer { group, to } => (Kind::Transfer, group, to.0, 0),
        Order::Destroy { group, replica } => (Kind::Destroy, group, replica.0, 0),
        Order::BeginReplica {
            group,
            replica,
            directory: of,
        } => {
            directory = of.0.to_be_bytes().to_vec().into();
            (Kind::BeginReplica, group, replica.0, 0)
        }
    };
    Some(cluster::Order {
        term,
        kind: kind.into(),
        group: group.0,
        replica_id: replica,
        remove,
        directory,
    })
}

fn decode_order(order: &cluster::Order) -> Option<Order> {
    use cluster::order::Kind;
    let group = GroupId(order.group);
    let replica = ReplicaId(order.replica_id);
    Some(match order.kind() {
        Kind::Unspecified => return None,
        Kind::AddLearner => Order::AddLearner { group, replica },
        Kind::Promote => Order::Promote {
            group,
            add: replica,
            remove: Some(ReplicaId(order.remove)).filter(|remove| remove.0 != 0),
        },
        Kind::RemoveLearner => Order::RemoveLearner { group, replica },
        Kind::RemoveVoter => Order::RemoveVoter { group, replica },
        Kind::LeaveJoint => Order::LeaveJoint { group },
        Kind::Transfer => Order::Transfer { group, to: replica },
        Kind::Destroy => Order::Destroy { group, replica },
        Kind::BeginReplica => Order::BeginReplica {
            group,
            replica,
            directory: Directory(identity::number(&order.directory)?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_survive_the_way() {
        let group = GroupId(3);
        let (a, b) = (ReplicaId(1), ReplicaId::new(9, 2));
        let node = NodeReport {
            node: 2,
            directory: Directory(u128::MAX - 5),
            free_bytes: 7,
            write_p50_us: 90,
            write_p99_us: 400,
            recent_write_us: Some(0),
            short_of: Some(Resource::Memory),
            newest_version: 2,
            replicas: vec![HostedReplica {
                group,
                replica: b,
                state: ReplicaState::Installing,
            }],
        };
        let report = GroupReport {
            group,
            term: 4,
            leader: a,
            voters: [a, b].into(),
            outgoing: [a].into(),
            learners: [ReplicaId(5)].into(),
            last_index: 10,
            commit: 9,
            progress: [(
                b,
                Progress {
                    matched: 8,
                    recently_active: true,
                    snapshot_bytes: Some(0),
                },
            )]
            .into(),
        };
        let orders = [
            Order::AddLearner { group, replica: b },
            Order::Promote {
                group,
                add: b,
                remove: Some(a),
            },
            Order::Promote {
                group,
                add: b,
                remove: None,
            },
            Order::RemoveLearner { group, replica: b },
            Order::RemoveVoter { group, replica: a },
            Order::LeaveJoint { group },
            Order::Transfer { group, to: b },
            Order::Destroy { group, replica: a },
        ];
        let order = |order| Notice::Order {
            term: 6,
            order: Box::new(order),
        };
        let sent: Vec<Notice> = [
            Notice::Leads(vec![(group, 4), (GroupId(0), 2)]),
            Notice::Fit(vec![group]),
            Notice::Reports(Box::new((node, vec![report]))),
            Notice::Hash(Box::new(StateHash {
                group,
                replica: b,
                index: 70,
                hash: u128::MAX - 3,
                buckets: vec![1, u64::MAX],
            })),
            Notice::Audited(Box::new(AuditReport {
                group,
                index: 70,
                at_ms: 5,
                replicas: [
                    (a, AuditVerdict::Agrees),
                    (b, AuditVerdict::Differs { buckets: vec![3] }),
                    (ReplicaId(5), AuditVerdict::Silent),
                ]
                .into(),
            })),
        ]
        .into_iter()
        .chain(orders.map(order))
        .collect();
        let mut notices = cluster::Notices::default();
        sent.iter().for_each(|notice| add(&mut notices, notice));
        assert_eq!(read(notices), sent);
    }
}
