//! A node whose disk is slow beside the others' leads nothing, and has its share again when it
//! keeps up.

use stock_cluster::reports::slow_disks::{
    FAST_AFTER_REPORTS, SLOW_AFTER_REPORTS, SLOW_TIMES_THE_OTHERS, SLOW_WRITE_US_MIN,
};
use stock_cluster::{Change, GroupId, Order, Reason, Reports};

use super::toy::{FAST_US, SETTLED_TICKS, TICK_MS, Toy};

const SLOW_US: u64 = 200_000;

fn set(toy: &mut Toy, node: u64, write_us: impl Into<Option<u64>>) {
    toy.nodes.get_mut(&node).unwrap().write_us = write_us.into();
}

/// Nodes that are said to have a slow disk.
fn said_slow(toy: &Toy) -> Vec<u64> {
    let waiting = toy.last.waiting.iter();
    waiting
        .filter_map(|waiting| match waiting.reason {
            Reason::SlowDisk { node, .. } => Some(node),
            _ => None,
        })
        .collect()
}

/// Lets time pass in which nothing may be handed over.
fn stay(toy: &mut Toy, ticks: u64) {
    for _ in 0..ticks {
        let orders = toy.tick().orders;
        assert!(orders.is_empty(), "{orders:?}");
    }
}

#[test]
fn a_slow_disk_loses_its_leaderships_within_seconds_and_keeps_its_replicas() {
    let mut toy = Toy::settled();
    set(&mut toy, 2, SLOW_US);
    stay(&mut toy, u64::from(SLOW_AFTER_REPORTS) - 1);
    toy.ticks(2);
    assert_eq!(toy.leads(), [3, 0, 3]);
    assert_eq!(said_slow(&toy), [2]);
    assert!(toy.reports.is_disk_slow(2));
    let waiting = toy.last.waiting[0].to_string();
    assert_eq!(
        waiting,
        "node 2 leads nothing until its disk has kept up with the others' for 60 s: a write takes \
         200 ms"
    );
    assert_eq!(toy.registry.replicas_on(2), 6);
    stay(&mut toy, 1_000);
}

#[test]
fn a_disk_that_has_kept_up_for_a_minute_leads_its_share_again() {
    let mut toy = Toy::settled();
    set(&mut toy, 2, SLOW_US);
    toy.ticks(SETTLED_TICKS);
    set(&mut toy, 2, FAST_US);
    stay(&mut toy, u64::from(FAST_AFTER_REPORTS) - 1);
    assert_eq!(said_slow(&toy), [2]);
    toy.ticks(SETTLED_TICKS);
    assert_eq!(toy.leads(), [2, 2, 2]);
    assert!(said_slow(&toy).is_empty());
}

#[test]
fn a_disk_that_is_slow_now_and_then_does_not_have_leadership_go_to_and_fro() {
    let mut toy = Toy::settled();
    set(&mut toy, 2, SLOW_US);
    toy.ticks(SETTLED_TICKS);
    for _ in 0..10 {
        set(&mut toy, 2, FAST_US);
        stay(&mut toy, 60_000 / TICK_MS - 1);
        set(&mut toy, 2, SLOW_US);
        stay(&mut toy, 1);
    }
}

#[test]
fn a_pause_is_not_a_slow_disk() {
    let mut toy = Toy::settled();
    for _ in 0..10 {
        set(&mut toy, 2, SLOW_US);
        stay(&mut toy, u64::from(SLOW_AFTER_REPORTS) - 1);
        set(&mut toy, 2, FAST_US);
        stay(&mut toy, 1);
    }
}

#[test]
fn a_disk_is_slow_only_for_callers_and_only_beside_the_others() {
    for (slow_us, others_us) in [
        // Many times the others, and nobody would feel it.
        (SLOW_WRITE_US_MIN - 1, FAST_US),
        // Felt, and hardly better elsewhere.
        (SLOW_US, SLOW_US / SLOW_TIMES_THE_OTHERS + 1),
    ] {
        let mut toy = Toy::settled();
        set(&mut toy, 1, others_us);
        set(&mut toy, 2, slow_us);
        set(&mut toy, 3, others_us);
        stay(&mut toy, 100);
    }
}

#[test]
fn where_most_disks_are_slow_nothing_is_done() {
    for slow in [&[1, 2][..], &[1, 2, 3]] {
        let mut toy = Toy::settled();
        for node in slow {
            set(&mut toy, *node, SLOW_US);
        }
        stay(&mut toy, 100);
        assert!(said_slow(&toy).is_empty());
    }
}

#[test]
fn when_most_others_become_slow_too_the_slow_disk_has_its_share_again() {
    let mut toy = Toy::settled();
    set(&mut toy, 2, SLOW_US);
    toy.ticks(SETTLED_TICKS);
    set(&mut toy, 1, SLOW_US);
    toy.ticks(u64::from(FAST_AFTER_REPORTS) + SETTLED_TICKS);
    assert_eq!(toy.leads(), [2, 2, 2]);
}

#[test]
fn a_node_that_writes_too_little_to_tell_stays_what_it_was() {
    let mut toy = Toy::settled();
    set(&mut toy, 2, None);
    stay(&mut toy, 200);
    set(&mut toy, 2, SLOW_US);
    toy.ticks(SETTLED_TICKS);
    set(&mut toy, 2, None);
    stay(&mut toy, 200);
    assert_eq!(toy.leads(), [3, 0, 3]);
    // Nothing to compare with.
    let mut toy = Toy::settled();
    set(&mut toy, 1, None);
    set(&mut toy, 2, SLOW_US);
    set(&mut toy, 3, None);
    stay(&mut toy, 200);
}

#[test]
fn a_node_that_died_with_fast_disks_is_not_compared_with() {
    let mut toy = Toy::settled();
    toy.nodes.get_mut(&3).unwrap().is_up = false;
    toy.ticks(20);
    set(&mut toy, 1, SLOW_US);
    set(&mut toy, 2, SLOW_US);
    stay(&mut toy, 35);
    assert!(said_slow(&toy).is_empty());
}

#[test]
fn an_operators_choice_waits_while_its_disk_is_slow() {
    let mut toy = Toy::settled();
    let group = GroupId(3);
    let node = Some(2);
    toy.apply(Change::PreferLeader { group, node });
    toy.ticks(SETTLED_TICKS);
    assert_eq!(toy.groups[&group].leader.unwrap().node(), 2);
    set(&mut toy, 2, SLOW_US);
    toy.ticks(SETTLED_TICKS);
    assert_eq!(toy.leads(), [3, 0, 3]);
    set(&mut toy, 2, FAST_US);
    toy.ticks(u64::from(FAST_AFTER_REPORTS) + SETTLED_TICKS);
    assert_eq!(toy.groups[&group].leader.unwrap().node(), 2);
}

#[test]
fn where_nobody_else_can_lead_the_slow_disk_does() {
    // With two nodes there is one voter of each group.
    let mut toy = Toy::new(2, 2, 1, 1);
    toy.ticks(SETTLED_TICKS);
    set(&mut toy, 2, SLOW_US);
    stay(&mut toy, 100);
    assert_eq!(toy.leads(), [1, 1]);
    let waiting = &toy.last.waiting;
    let said = waiting
        .iter()
        .any(|waiting| waiting.group.is_some() && waiting.reason == Reason::NoOtherLeader);
    assert!(said, "{waiting:?}");
}

#[test]
fn a_draining_node_hands_to_a_slow_one_before_it_keeps_what_it_leads() {
    let mut toy = Toy::new(4, 4, 3, 1);
    toy.ticks(SETTLED_TICKS);
    set(&mut toy, 2, SLOW_US);
    toy.ticks(20);
    assert!(toy.reports.is_disk_slow(2));
    for node in [3, 4] {
        toy.nodes.get_mut(&node).unwrap().is_up = false;
    }
    toy.ticks(20);
    toy.apply(Change::Drain { node: 1 });
    let mut handed = false;
    for _ in 0..10 {
        let orders = toy.tick().orders;
        let to_slow = |order: &Order| matches!(order, Order::Transfer { to, .. } if to.node() == 2);
        handed |= orders.iter().any(to_slow);
    }
    // Without a majority there is no leader and nothing to hand over: only where 1 and 2 are two of
    // three.
    let alone = |group: &super::toy::Group| {
        let up = group
            .voters
            .iter()
            .filter(|voter| voter.node() <= 2)
            .count();
        up == 2
    };
    assert_eq!(handed, toy.groups.values().any(alone), "{:?}", toy.last);
    assert!(handed);
}

#[test]
fn a_replaced_disk_is_judged_anew() {
    let mut toy = Toy::settled();
    set(&mut toy, 2, SLOW_US);
    toy.ticks(SETTLED_TICKS);
    toy.replace_disk(2);
    toy.tick();
    assert!(!toy.reports.is_disk_slow(2));
}

#[test]
fn a_new_leader_of_group_0_judges_anew_before_it_evens_out() {
    let mut toy = Toy::settled();
    set(&mut toy, 2, SLOW_US);
    toy.ticks(SETTLED_TICKS);
    // It reports as seldom as a node does that waits for its disk in every turn.
    toy.nodes.get_mut(&2).unwrap().reports_every = 4;
    for _ in 0..10 {
        toy.reports = Reports::new(toy.now_ms);
        stay(&mut toy, 11);
        toy.reports = Reports::new(toy.now_ms);
        stay(&mut toy, SETTLED_TICKS);
        assert_eq!(toy.leads(), [3, 0, 3]);
    }
}
