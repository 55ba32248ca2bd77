//! What the leader of group 0 knows of the cluster, as `stock.admin.v1`.

use std::collections::BTreeSet;

use prost_types::{Duration, Timestamp};
use stock_cluster::reports::SILENT_AFTER_MS;
use stock_cluster::{
    AuditReport, AuditVerdict, GroupId, GroupReport, MoveProgress, NodeRecord, NodeState, Overview,
    Reason, ReplicaId, Resource, Step, Waiting,
};
use stock_proto::stock::admin::v1 as api;
use stock_proto::stock::admin::v1::shard_audit::Group;

use super::seen;
use stock_api::page::{self, List, Page};

/// Nodes, by their ids.
pub(super) fn nodes(
    overview: &Overview,
    include_removed: bool,
    list: List,
    asked: Page<u64>,
) -> api::ListNodesResponse {
    let nodes = overview.registry.nodes();
    let listed = nodes
        .filter(|(_, node)| include_removed || node.state != NodeState::Removed)
        .filter(|(id, _)| asked.after.is_none_or(|after| *id > after))
        .map(|(id, node)| node_status(overview, id, node));
    let (nodes, has_more) = page::fill(asked.size, listed);
    let last = nodes.last().filter(|_| has_more);
    api::ListNodesResponse {
        header: None,
        next_page_token: page::token_of(list, last.map(|node| node.node_id)),
        nodes,
        replication: overview.registry.replication(),
        version: overview.registry.version(),
    }
}

fn node_status(overview: &Overview, id: u64, node: &NodeRecord) -> api::NodeStatus {
    let state = match (node.state, node.directory) {
        (NodeState::Active, None) => api::node_status::State::Expected,
        (NodeState::Active, Some(_)) => api::node_status::State::Active,
        (NodeState::Draining, _) => api::node_status::State::Draining,
        (NodeState::Removed, _) => api::node_status::State::Removed,
    };
    let report = overview.reports.node(id);
    let silent_ms = overview.reports.node_silent_ms(id, overview.now_ms);
    let is_itself = report.is_some_and(|report| Some(report.directory) == node.directory);
    let groups = overview.registry.placements();
    let reports = groups.filter_map(|(group, _)| fresh_report(overview, group));
    let leads = reports.filter(|report| report.leader.node() == id).count();
    let needed_by = overview.decision.needed.get(&id);
    let needed_by = needed_by.map_or(&[][..], Vec::as_slice);
    api::NodeStatus {
        node_id: id,
        state: state.into(),
        endpoint: node.grpc.clone(),
        peers: node.peers.clone(),
        up: is_itself && silent_ms <= SILENT_AFTER_MS,
        silent_for: Some(duration(silent_ms)),
        replicas: overview.registry.replicas_on(id) as u32,
        leads: leads as u32,
        free_bytes: report.map(|report| report.free_bytes),
        write_p50_us: report.map(|report| report.write_p50_us),
        write_p99_us: report.map(|report| report.write_p99_us),
        slow_disk: overview.reports.is_disk_slow(id),
        disk_full: report.is_some_and(|report| report.short_of == Some(Resource::Disk)),
        memory_full: report.is_some_and(|report| report.short_of == Some(Resource::Memory)),
        newest_version: Some(node.newest_version).filter(|version| *version != 0),
        needed_by_meta: needed_by.contains(&GroupId::META),
        needed_by_shards: needed_by.iter().filter_map(|group| group.shard()).collect(),
    }
}

/// Shards, by their numbers, and what waits.
pub(super) fn shards(overview: &Overview, list: List, asked: Page<u64>) -> api::ListShardsResponse {
    let groups = overview.registry.placements();
    let stock = groups
        .filter(|(group, _)| *group != GroupId::META)
        .filter(|(group, _)| is_behind(&asked, *group))
        .map(|(group, _)| shard(overview, group));
    let (shards, has_more) = page::fill(asked.size, stock);
    let last = shards.last().filter(|_| has_more);
    let waiting = overview.decision.waiting.iter();
    api::ListShardsResponse {
        header: None,
        next_page_token: page::token_of(
            list,
            last.map(|it| u64::from(GroupId::of_shard(it.shard).0)),
        ),
        shards,
        meta: Some(shard(overview, GroupId::META)),
        waiting: waiting
            .filter(|waiting| waiting.group.is_none())
            .map(self::waiting)
            .collect(),
    }
}

fn shard(overview: &Overview, group: GroupId) -> api::ShardStatus {
    let registry = &overview.registry;
    let report = fresh_report(overview, group);
    let moves = &overview.decision.moves;
    let waiting = overview.decision.waiting.iter();
    api::ShardStatus {
        shard: seen::shard_of(group),
        leader_node_id: report.map(|report| report.leader.node()),
        term: report.map(|report| report.term),
        last_index: report.map(|report| report.last_index),
        commit_index: report.map(|report| report.commit),
        replicas: replicas(overview, group, report),
        r#move: moves.iter().find(|m| m.group == group).map(replica_move),
        waiting: waiting
            .filter(|waiting| waiting.group == Some(group))
            .map(self::waiting)
            .collect(),
        preferred_leader_node_id: registry.preferred_leader(group),
        requested: registry.wish(group).map(|wish| api::RequestedMove {
            from_node_id: wish.from,
            to_node_id: wish.to,
        }),
    }
}

/// As the leader says or, while none does, as the registry has them.
fn replicas(
    overview: &Overview,
    group: GroupId,
    report: Option<&GroupReport>,
) -> Vec<api::ReplicaStatus> {
    use api::replica_status::Role;
    let nobody = BTreeSet::new();
    let placed = overview.registry.placement(group);
    let placed = placed.map_or(&nobody, |placement| &placement.voters);
    let voters = report.map_or(placed, |report| &report.voters);
    let learners = report.map_or(&nobody, |report| &report.learners);
    let outgoing = report.map_or(&nobody, |report| &report.outgoing);
    let leaving = outgoing
        .difference(voters)
        .map(|replica| (*replica, Role::Leaving));
    let mut all: Vec<(ReplicaId, Role)> = voters
        .iter()
        .map(|replica| (*replica, Role::Voter))
        .chain(learners.iter().map(|replica| (*replica, Role::Learner)))
        .chain(leaving)
        .collect();
    all.sort_by_key(|(replica, _)| (replica.node(), replica.generation()));
    let status = |(replica, role): (ReplicaId, Role)| {
        let progress = report.and_then(|report| report.progress.get(&replica));
        let last_index = report.map_or(0, |report| report.last_index);
        let failure = overview.registry.failure(group, replica);
        api::ReplicaStatus {
            node_id: replica.node(),
            generation: replica.generation(),
            role: role.into(),
            active: progress.is_some_and(|progress| progress.recently_active)
                || report.is_some_and(|report| report.leader == replica),
            lag: progress.map_or(0, |progress| last_index.saturating_sub(progress.matched)),
            snapshot_bytes: progress.and_then(|progress| progress.snapshot_bytes),
            failure: failure.unwrap_or_default().to_owned(),
        }
    };
    all.into_iter().map(status).collect()
}

fn replica_move(progress: &MoveProgress) -> api::ReplicaMove {
    use api::replica_move::Step as Out;
    let (step, lag) = match progress.step {
        Step::Parked => (Out::Parked, 0),
        Step::Unheard => (Out::Unheard, 0),
        Step::Adding => (Out::Adding, 0),
        Step::CatchingUp { lag, .. } => (Out::CatchingUp, lag),
        Step::HandingOver => (Out::HandingOver, 0),
        Step::Changing => (Out::Changing, 0),
        Step::GivingUp => (Out::GivingUp, 0),
        Step::Ending => (Out::Ending, 0),
    };
    let node = |replica: Option<ReplicaId>| replica.map(ReplicaId::node);
    api::ReplicaMove {
        number: progress.under_way.number,
        from_node_id: node(progress.under_way.remove),
        to_node_id: node(progress.under_way.add),
        because: progress.under_way.why.words().to_owned(),
        step: step.into(),
        lag,
    }
}

fn waiting(waiting: &Waiting) -> api::Waiting {
    use api::waiting::Reason as Told;
    let reason = match waiting.reason {
        Reason::NotFounded => Told::NotFounded,
        Reason::GroupSilent => Told::ShardSilent,
        Reason::VotersDiffer => Told::VotersDiffer,
        Reason::Unsound { .. } => Told::ReplicaBehind,
        Reason::TooFewCopies { .. } => Told::TooFewCopies,
        Reason::Disputed { .. } => Told::ReplicaDisputed,
        Reason::NoRoom => Told::NoRoom,
        Reason::NodeSilent { .. } => Told::NodeSilent,
        Reason::WrongDirectory { .. } => Told::WrongDirectory,
        Reason::SlowDisk { .. } => Told::SlowDisk,
        Reason::Short { resource, .. } => match resource {
            Resource::Disk => Told::DiskFull,
            Resource::Memory => Told::MemoryFull,
        },
        Reason::MoveUnderWay => Told::MoveUnderWay,
        Reason::NoOtherLeader => Told::NoOtherLeader,
    };
    api::Waiting {
        reason: reason.into(),
        message: waiting.reason.to_string(),
    }
}

/// The last audits, by group.
pub(super) fn audits(overview: &Overview, list: List, asked: Page<u64>) -> api::GetAuditResponse {
    let listed = overview.reports.audits();
    let listed = listed
        .filter(|report| is_behind(&asked, report.group))
        .map(audit);
    let (audits, has_more) = page::fill(asked.size, listed);
    let last = audits.last().filter(|_| has_more);
    let group = |audit: &api::ShardAudit| match audit.group {
        Some(Group::Shard(shard)) => GroupId::of_shard(shard),
        Some(Group::Meta(_)) | None => GroupId::META,
    };
    api::GetAuditResponse {
        header: None,
        next_page_token: page::token_of(list, last.map(|audit| u64::from(group(audit).0))),
        audits,
    }
}

/// Whether a group belongs to a page or to those that follow it.
fn is_behind(asked: &Page<u64>, group: GroupId) -> bool {
    asked.after.is_none_or(|after| u64::from(group.0) > after)
}

fn audit(report: &AuditReport) -> api::ShardAudit {
    use api::replica_audit::Verdict;
    let replicas = report.replicas.iter().map(|(replica, verdict)| {
        let (verdict, buckets) = match verdict {
            AuditVerdict::Agrees => (Verdict::Agrees, Vec::new()),
            AuditVerdict::Differs { buckets } => (Verdict::Differs, buckets.clone()),
            AuditVerdict::Silent => (Verdict::Silent, Vec::new()),
        };
        api::ReplicaAudit {
            node_id: replica.node(),
            generation: replica.generation(),
            verdict: verdict.into(),
            buckets,
        }
    });
    api::ShardAudit {
        group: Some(match report.group.shard() {
            Some(shard) => Group::Shard(shard),
            None => Group::Meta(true),
        }),
        index: report.index,
        at: Some(Timestamp {
            seconds: (report.at_ms / 1_000) as i64,
            nanos: (report.at_ms % 1_000) as i32 * 1_000_000,
        }),
        replicas: replicas.collect(),
    }
}

fn fresh_report(overview: &Overview, group: GroupId) -> Option<&GroupReport> {
    let silent_ms = overview.reports.group_silent_ms(group, overview.now_ms);
    let report = overview.reports.group(group)?;
    (silent_ms <= SILENT_AFTER_MS).then_some(report)
}

fn duration(ms: u64) -> Duration {
    Duration {
        seconds: (ms / 1_000) as i64,
        nanos: (ms % 1_000) as i32 * 1_000_000,
    }
}
