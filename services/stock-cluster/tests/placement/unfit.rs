//! A node without room leads nothing, a replica that has yet to catch up is no place to lead from,
//! and which nodes may be stopped.

use stock_cluster::reports::SHORT_FOR_MS;
use stock_cluster::{Change, GroupId, Order, Reason, Resource};

use super::toy::{SETTLED_TICKS, TICK_MS, Toy};

fn set_short(toy: &mut Toy, node: u64, short_of: Option<Resource>) {
    toy.nodes.get_mut(&node).unwrap().short_of = short_of;
}

fn said_short(toy: &Toy) -> Vec<(u64, Resource)> {
    let waiting = toy.last.waiting.iter();
    let short = waiting.filter_map(|waiting| match waiting.reason {
        Reason::Short { node, resource } => Some((node, resource)),
        _ => None,
    });
    short.collect()
}

fn needed_by(toy: &Toy, node: u64) -> Vec<u32> {
    toy.last.needed[&node].iter().map(|group| group.0).collect()
}

#[test]
fn a_node_without_room_loses_its_leaderships_and_has_its_share_again_after_a_minute_of_room() {
    for resource in [Resource::Disk, Resource::Memory] {
        let mut toy = Toy::settled();
        set_short(&mut toy, 2, Some(resource));
        toy.ticks(4);
        assert_eq!(toy.leads(), [3, 0, 3]);
        assert_eq!(said_short(&toy), [(2, resource)]);
        assert_eq!(toy.registry.replicas_on(2), 6, "its replicas stay");
        // Now and then there is room: leadership does not go to and fro.
        for _ in 0..5 {
            set_short(&mut toy, 2, None);
            toy.ticks(SHORT_FOR_MS / TICK_MS - 2);
            assert_eq!(toy.leads(), [3, 0, 3]);
            set_short(&mut toy, 2, Some(resource));
            toy.ticks(1);
        }
        set_short(&mut toy, 2, None);
        toy.ticks(SHORT_FOR_MS / TICK_MS + SETTLED_TICKS);
        assert_eq!(toy.leads(), [2, 2, 2]);
        assert!(said_short(&toy).is_empty());
    }
}

#[test]
fn where_no_node_has_room_leaders_stay() {
    let mut toy = Toy::settled();
    for node in 1..=3 {
        set_short(&mut toy, node, Some(Resource::Disk));
    }
    for _ in 0..100 {
        let orders = toy.tick().orders;
        assert!(orders.is_empty(), "{orders:?}");
    }
    assert_eq!(said_short(&toy).len(), 3);
}

#[test]
fn what_has_no_room_hands_over_to_what_had_none_a_minute_ago_if_there_is_nothing_better() {
    let mut toy = Toy::settled();
    for node in [1, 3] {
        set_short(&mut toy, node, Some(Resource::Disk));
    }
    toy.ticks(4);
    for node in [1, 3] {
        set_short(&mut toy, node, None);
    }
    assert_eq!(toy.leads(), [0, 6, 0]);
    set_short(&mut toy, 2, Some(Resource::Disk));
    toy.ticks(SETTLED_TICKS);
    assert_eq!(toy.leads()[1], 0);
    // It stays there, whoever has room for a while.
    let leads = toy.leads();
    set_short(&mut toy, 2, None);
    toy.ticks(10);
    assert_eq!(toy.leads(), leads);
}

#[test]
fn nobody_hands_over_to_a_replica_that_has_yet_to_catch_up() {
    let mut toy = Toy::settled();
    toy.nodes.get_mut(&3).unwrap().is_catching_up = true;
    let asked: Vec<GroupId> = (0..6).map(GroupId).collect();
    for group in asked.iter().copied() {
        let node = Some(3);
        toy.apply(Change::PreferLeader { group, node });
    }
    for _ in 0..100 {
        for order in toy.tick().orders {
            let is_there =
                |order: &Order| matches!(order, Order::Transfer { to, .. } if to.node() == 3);
            assert!(!is_there(&order), "{order:?}");
        }
    }
    toy.nodes.get_mut(&3).unwrap().is_catching_up = false;
    toy.ticks(SETTLED_TICKS);
    let is_led_there = |group| toy.groups[group].leader.unwrap().node() == 3;
    assert!(asked.iter().all(is_led_there));
}

#[test]
fn a_node_may_be_stopped_where_the_others_are_a_quorum_of_each_group() {
    let mut toy = Toy::settled();
    let all: Vec<u32> = (0..6).collect();
    for node in 1..=3 {
        assert!(needed_by(&toy, node).is_empty());
    }
    // One that was started again is not counted on before it has caught up.
    toy.nodes.get_mut(&3).unwrap().is_catching_up = true;
    toy.ticks(2);
    assert_eq!(needed_by(&toy, 1), all);
    assert_eq!(needed_by(&toy, 2), all);
    assert!(needed_by(&toy, 3).is_empty());
    toy.nodes.get_mut(&3).unwrap().is_catching_up = false;
    toy.ticks(2);
    assert!(needed_by(&toy, 1).is_empty());
    toy.nodes.get_mut(&3).unwrap().is_up = false;
    toy.ticks(40);
    assert_eq!(needed_by(&toy, 1), all);
}
