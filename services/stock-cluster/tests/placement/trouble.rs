//! Random trouble, then rest: whatever happened, the cluster becomes whole, balanced and quiet.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use stock_cluster::{Change, GroupId, NodeState, Reason, ReplicaId, Reports, Waiting};

use super::toy::{FAST_US, Toy};

#[derive(Debug, Clone)]
enum Trouble {
    Down(u64),
    Up(u64),
    ReplaceDisk(u64),
    Fail(u32, u64),
    Drain(u64),
    Undrain(u64),
    Remove(u64),
    JoinNew,
    Move(u32, u64, u64),
    Prefer(u32, u64),
    Replication(u32),
    NewMetaLeader,
    DeposedLeaderReports(usize),
    FillDisk(u64),
    Slow(u64, Option<u64>),
    Write(u32, u64),
    Wait(u64),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let node = 1..9u64;
    let group = 0..7u32;
    prop_oneof![
        3 => node.clone().prop_map(Trouble::Down),
        3 => node.clone().prop_map(Trouble::Up),
        2 => node.clone().prop_map(Trouble::ReplaceDisk),
        2 => (group.clone(), node.clone()).prop_map(|(g, n)| Trouble::Fail(g, n)),
        2 => node.clone().prop_map(Trouble::Drain),
        1 => node.clone().prop_map(Trouble::Undrain),
        2 => node.clone().prop_map(Trouble::Remove),
        2 => Just(Trouble::JoinNew),
        2 => (group.clone(), node.clone(), node.clone())
            .prop_map(|(g, a, b)| Trouble::Move(g, a, b)),
        1 => (group.clone(), 0..9u64).prop_map(|(g, n)| Trouble::Prefer(g, n)),
        1 => prop_oneof![Just(1u32), Just(3), Just(5)].prop_map(Trouble::Replication),
        2 => Just(Trouble::NewMetaLeader),
        2 => (0..50usize).prop_map(Trouble::DeposedLeaderReports),
        1 => node.clone().prop_map(Trouble::FillDisk),
        2 => (node, write_us()).prop_map(|(n, us)| Trouble::Slow(n, us)),
        3 => (group, 1..3_000u64).prop_map(|(g, n)| Trouble::Write(g, n)),
        9 => (1..140u64).prop_map(Trouble::Wait),
    ]
}

/// Fast, on either side of being slow, very slow, or too few writes to tell.
fn write_us() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(
        0.8,
        prop::sample::select(&[FAST_US, 40_000, 60_000, 500_000][..]),
    )
}

fn cause(toy: &mut Toy, trouble: &Trouble) {
    match *trouble {
        Trouble::Down(node) => set_up(toy, node, false),
        Trouble::Up(node) => set_up(toy, node, true),
        // Disks die one at a time; what a group loses with a majority of its disks nobody can bring
        // back.
        Trouble::ReplaceDisk(node) => {
            if toy.nodes.contains_key(&node) && toy.can_lose(node) {
                toy.replace_disk(node);
            }
        }
        Trouble::Fail(group, node) => {
            if !toy.can_lose(node) {
                return;
            }
            if let Some(machine) = toy.nodes.get_mut(&node) {
                let mut data = machine.data.iter_mut();
                let Some(((group, replica), has)) = data.find(|((of, _), _)| of.0 == group) else {
                    return;
                };
                *has = None;
                // The controller sees voters that failed; of an observer somebody must tell.
                let (group, replica) = (*group, *replica);
                if toy.registry.observers().any(|o| o == replica) {
                    let reason = "it stopped".to_owned();
                    drop(toy.apply(Change::ReportFailedReplica {
                        group,
                        replica,
                        reason,
                    }));
                }
            }
        }
        Trouble::Drain(node) => drop(toy.apply(Change::Drain { node })),
        Trouble::Undrain(node) => drop(toy.apply(Change::Undrain { node })),
        Trouble::Remove(node) => drop(toy.apply(Change::Remove { node })),
        Trouble::JoinNew => {
            let node = toy.nodes.last_key_value().map_or(1, |(last, _)| last + 1);
            if node <= 8 {
                toy.add_machine(node);
                toy.join(node);
            }
        }
        Trouble::Move(group, from, to) => {
            let group = GroupId(group);
            drop(toy.apply(Change::MoveReplica { group, from, to }));
        }
        Trouble::Prefer(group, node) => {
            let (group, node) = (GroupId(group), Some(node).filter(|node| *node > 0));
            drop(toy.apply(Change::PreferLeader { group, node }));
        }
        Trouble::Replication(replicas) => drop(toy.apply(Change::SetReplication { replicas })),
        Trouble::NewMetaLeader => toy.reports = Reports::new(toy.now_ms),
        Trouble::DeposedLeaderReports(number) => {
            if let Some(report) = toy.old_reports.get(number).cloned() {
                toy.reports.hear_group(toy.now_ms, report);
            }
        }
        Trouble::FillDisk(node) => {
            if let Some(machine) = toy.nodes.get_mut(&node) {
                machine.free_bytes = 10;
            }
        }
        Trouble::Slow(node, write_us) => {
            if let Some(machine) = toy.nodes.get_mut(&node) {
                machine.write_us = write_us;
            }
        }
        Trouble::Write(group, entries) => {
            if let Some(group) = toy.groups.get_mut(&GroupId(group))
                && group.leader.is_some()
            {
                group.last_index += entries;
            }
        }
        Trouble::Wait(ticks) => toy.ticks(ticks),
    }
}

fn set_up(toy: &mut Toy, node: u64, is_up: bool) {
    if let Some(machine) = toy.nodes.get_mut(&node) {
        machine.is_up = is_up;
    }
}

/// Ticks without an order after which the cluster is at rest: longer than leaders need to settle.
const REST_TICKS: u64 = 30;

/// Ticks in which it must come to rest.
const REST_WITHIN: u64 = 6_000;

fn come_to_rest(toy: &mut Toy) -> Result<(), String> {
    toy.loss = 0;
    for machine in toy.nodes.values_mut() {
        machine.is_up = true;
        machine.free_bytes = 1_000;
        machine.write_us = Some(FAST_US);
    }
    let mut quiet = 0;
    for _ in 0..REST_WITHIN {
        let decision = toy.tick();
        // A replica that receives a long log gives no orders either.
        let is_slow = |waiting: &Waiting| matches!(waiting.reason, Reason::SlowDisk { .. });
        // And nobody waits for an observer of a long log.
        let is_quiet = decision.orders.is_empty()
            && decision.moves.is_empty()
            && !decision.waiting.iter().any(is_slow)
            && observers_have_all(toy);
        quiet = if is_quiet { quiet + 1 } else { 0 };
        if quiet > REST_TICKS {
            return Ok(());
        }
    }
    Err(format!("no rest: {:#?}", toy.last))
}

fn observers_have_all(toy: &Toy) -> bool {
    toy.groups.iter().all(|(id, group)| {
        let has_all = |learner: &ReplicaId| toy.has(*id, *learner) == Some(group.last_index);
        group.learners.iter().all(has_all)
    })
}

fn check_whole(toy: &Toy) -> Result<(), String> {
    let wanted = toy.registry.replication() as usize;
    let active: Vec<u64> = toy
        .registry
        .nodes()
        .filter(|(_, record)| record.state == NodeState::Active)
        .map(|(node, _)| node)
        .collect();
    let most = active.len().min(wanted);
    let odd = most - usize::from(most.is_multiple_of(2) && most > 0);
    if let Some((group, under_way)) = toy.registry.moves().next() {
        return Err(format!("{group:?} still has {under_way:?}"));
    }
    for (id, group) in &toy.groups {
        let context = format!("{id:?} has {:?}", group.voters);
        let observers: BTreeSet<ReplicaId> = match *id {
            GroupId::META => toy.registry.observers().collect(),
            _ => BTreeSet::new(),
        };
        if !group.outgoing.is_empty() || group.learners != observers {
            return Err(format!("{context}, {observers:?} observe, and {group:?}"));
        }
        for observer in &observers {
            if toy.has(*id, *observer) != Some(group.last_index) {
                return Err(format!("{context}: observer {observer} is not caught up"));
            }
        }
        let placed = toy.registry.placement(*id).unwrap();
        if placed.voters != group.voters {
            return Err(format!("{context}, the registry {:?}", placed.voters));
        }
        if group.voters.len() < odd || group.voters.len() > wanted {
            return Err(format!("{context}, not {odd} to {wanted}"));
        }
        for voter in &group.voters {
            if toy.has(*id, *voter) != Some(group.last_index) {
                return Err(format!("{context}: {voter} is not caught up"));
            }
            let is_free = |node: &&u64| group.voters.iter().all(|voter| voter.node() != **node);
            if !active.contains(&voter.node()) && active.iter().any(|node| is_free(&node)) {
                return Err(format!(
                    "{context}: {voter} could go from its draining node"
                ));
            }
        }
    }
    let meta = &toy.groups[&GroupId::META];
    for (node, record) in toy.registry.nodes() {
        let members = meta.voters.union(&meta.learners);
        let count = members.filter(|member| member.node() == node).count();
        let expected = usize::from(record.state != NodeState::Removed);
        if count != expected {
            return Err(format!("node {node} has {count} replicas of group 0"));
        }
    }
    for (id, node) in &toy.nodes {
        for (group, replica) in node.data.keys() {
            let group_now = &toy.groups[group];
            if !group_now.voters.contains(replica) && !group_now.learners.contains(replica) {
                return Err(format!("node {id} still has {group:?} {replica}"));
            }
        }
    }
    let spread = |count: &dyn Fn(u64) -> usize| {
        let counts: Vec<usize> = active.iter().map(|node| count(*node)).collect();
        let least = counts.iter().min().copied().unwrap_or(0);
        counts.iter().max().map_or(0, |most| most - least)
    };
    if spread(&|node| toy.registry.replicas_on(node)) > 1 {
        return Err(format!("replicas are not balanced: {:?}", toy.groups));
    }
    let leads = |node| {
        let mut groups = toy.groups.values();
        let mut count = 0;
        while groups.any(|group| group.leader.map(|leader| leader.node()) == Some(node)) {
            count += 1;
        }
        count
    };
    let preferred = toy.groups.keys().filter_map(|id| {
        let node = toy.registry.preferred_leader(*id)?;
        Some((id, node))
    });
    let mut any_preferred = false;
    for (id, node) in preferred {
        any_preferred = true;
        if toy.groups[id].leader.map(|leader| leader.node()) != Some(node) {
            return Err(format!("{id:?} is not led by {node}"));
        }
    }
    if !any_preferred && spread(&leads) > 1 {
        return Err(format!("leaders are not balanced: {:?}", toy.groups));
    }
    Ok(())
}

/// Runs of each property, and what they are drawn from, unless `PROPTEST_CASES` and
/// `PROPTEST_RNG_SEED` say otherwise; a thousand take some minutes.
const CASES: u32 = 32;
const SEED: u64 = 1;

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let is_set = |variable| std::env::var_os(variable).is_some();
    ProptestConfig {
        cases: if is_set("PROPTEST_CASES") {
            usual.cases
        } else {
            CASES
        },
        rng_seed: match is_set("PROPTEST_RNG_SEED") {
            true => usual.rng_seed,
            false => RngSeed::Fixed(SEED),
        },
        max_shrink_iters: 400,
        failure_persistence: None,
        ..usual
    }
}

/// Whether all is well after these, one a tick.
fn after(toy: &mut Toy, troubles: &[Trouble]) -> Result<(), String> {
    for trouble in troubles {
        cause(toy, trouble);
        toy.tick();
    }
    come_to_rest(toy)?;
    check_whole(toy)?;
    match toy.groups.keys().all(|group| toy.has_quorum(*group)) {
        true => Ok(()),
        false => Err("a group has no quorum".to_owned()),
    }
}

/// Found at random: reports were lost, and the replica that was to be taken out led by the time the
/// order came.
#[test]
fn a_replica_that_leads_by_now_is_not_taken_out_by_an_order_that_comes_late() {
    use Trouble::*;
    let mut toy = Toy::new(5, 5, 3, 5_307_049_305_821_807_434);
    toy.loss = 65;
    let troubles = [
        Write(0, 265),
        Wait(43),
        Wait(138),
        Prefer(0, 4),
        Fail(1, 1),
        Drain(1),
        Wait(110),
        Down(6),
        Move(0, 1, 1),
        Wait(3),
        Fail(0, 6),
        Down(6),
        Undrain(2),
        ReplaceDisk(2),
        Replication(1),
        Wait(9),
    ];
    after(&mut toy, &troubles).unwrap();
}

/// Found at random: a node was removed while it was down, and its machine came with a new disk
/// before group 0 had let go of its replica.
#[test]
fn a_machine_that_was_refused_is_given_nothing() {
    use Trouble::*;
    let mut toy = Toy::new(4, 1, 3, 0);
    let troubles = [
        Drain(1),
        JoinNew,
        Down(3),
        Down(3),
        Up(4),
        Wait(58),
        Down(2),
        Remove(1),
        Down(1),
        Down(1),
        ReplaceDisk(1),
    ];
    after(&mut toy, &troubles).unwrap();
}

/// Found at random: nobody could take the replica of a draining node, and so nothing was balanced
/// any more.
#[test]
fn a_need_that_nobody_can_meet_does_not_keep_the_rest_from_balance() {
    use Trouble::*;
    let mut toy = Toy::new(5, 4, 3, 0);
    let troubles = [
        Drain(1),
        Replication(5),
        Move(0, 1, 1),
        Down(2),
        Wait(34),
        Wait(25),
    ];
    after(&mut toy, &troubles).unwrap();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn after_any_trouble_the_cluster_becomes_whole_balanced_and_quiet(
        nodes in 1..6u64,
        groups in 1..7u32,
        replication in prop_oneof![3 => Just(3u32), 1 => Just(5)],
        seed in any::<u64>(),
        loss in 0..80u8,
        troubles in prop::collection::vec(trouble(), 0..60),
    ) {
        let mut toy = Toy::new(nodes, groups, replication, seed);
        toy.loss = loss;
        after(&mut toy, &troubles).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_machine_that_never_comes_back_is_replaced(
        nodes in 4..7u64,
        groups in 1..7u32,
        dead in 1..4u64,
        seed in any::<u64>(),
    ) {
        let mut toy = Toy::new(nodes, groups, 3, seed);
        toy.ticks(40);
        set_up(&mut toy, dead, false);
        toy.ticks(1_000);
        for (id, group) in &toy.groups {
            prop_assert_eq!(group.voters.len(), 3);
            let alive = group.voters.iter().all(|voter| toy.has(*id, *voter).is_some());
            prop_assert!(alive, "{:?} {:?}", id, group);
        }
        prop_assert!(toy.last.orders.is_empty(), "{:?}", toy.last);
    }
}
