//! The controller by transcripts: what a toy cluster is told to do, in order, each order once.

use std::collections::BTreeSet;

use stock_cluster::{
    Change, EndMove, GroupId, Order, Reason, ReplicaId, ReplicaState, Why, decide,
};

use super::toy::{POLICY, TICK_MS, Toy};

/// Runs the toy for a time, and says which orders came, leaving out repetitions.
pub(crate) fn orders(toy: &mut Toy, seconds: u64) -> Vec<String> {
    let mut said = Vec::new();
    for _ in 0..seconds * 1_000 / TICK_MS {
        for order in toy.tick().orders {
            let text = words(&order);
            if !said.contains(&text) {
                said.push(text);
            }
        }
    }
    said
}

#[track_caller]
pub(crate) fn check(toy: &mut Toy, seconds: u64, expected: &[&str]) {
    assert_eq!(orders(toy, seconds), expected);
}

fn words(order: &Order) -> String {
    match order {
        Order::Record(Change::Begin(begin)) => {
            let add = begin
                .add
                .map_or_else(String::new, |node| format!(" +{node}"));
            let remove = begin
                .remove
                .map_or_else(String::new, |replica| format!(" -{replica}"));
            format!("{}: begin{add}{remove} ({:?})", begin.group.0, begin.why)
        }
        Order::Record(Change::End(end)) => {
            let voters: Vec<String> = end.voters.iter().map(ToString::to_string).collect();
            format!("{}: end with {}", end.group.0, voters.join(" "))
        }
        Order::Record(Change::Park { group, parked, .. }) => {
            format!("{}: {}", group.0, if *parked { "park" } else { "resume" })
        }
        Order::Record(Change::Correct { group, voters, .. }) => {
            let voters: Vec<String> = voters.iter().map(ToString::to_string).collect();
            format!("{}: correct to {}", group.0, voters.join(" "))
        }
        Order::Record(Change::Heard {
            node, directory, ..
        }) => {
            format!("heard {node} on {:x}", directory.0)
        }
        Order::Record(other) => format!("{other:?}"),
        Order::BeginReplica {
            group,
            replica,
            directory,
        } => format!("{}: new {replica} in {:x}", group.0, directory.0),
        Order::AddLearner { group, replica } => format!("{}: learner {replica}", group.0),
        Order::Promote { group, add, remove } => {
            let remove = remove.map_or_else(String::new, |replica| format!(" for {replica}"));
            format!("{}: promote {add}{remove}", group.0)
        }
        Order::RemoveLearner { group, replica } => format!("{}: drop learner {replica}", group.0),
        Order::RemoveVoter { group, replica } => format!("{}: take out {replica}", group.0),
        Order::LeaveJoint { group } => format!("{}: leave joint", group.0),
        Order::Transfer { group, to } => format!("{}: transfer to {to}", group.0),
        Order::Destroy { group, replica } => format!("{}: destroy {replica}", group.0),
    }
}

pub(crate) fn waits(toy: &Toy) -> Vec<Reason> {
    toy.last
        .waiting
        .iter()
        .map(|waiting| waiting.reason.clone())
        .collect()
}

pub(crate) const META: GroupId = GroupId::META;

#[test]
fn a_whole_and_balanced_cluster_is_left_alone() {
    for (nodes, groups, replication) in [(3, 9, 3), (5, 9, 3), (5, 4, 5), (1, 3, 3), (2, 3, 3)] {
        let mut toy = Toy::new(nodes, groups, replication, 1);
        let observers = toy.registry.observers();
        let expected: Vec<String> = observers
            .flat_map(|o| {
                [
                    format!("0: new {o} in {:x}", o.node()),
                    format!("0: learner {o}"),
                ]
            })
            .collect();
        assert_eq!(orders(&mut toy, 5), expected);
        check(&mut toy, 60, &[]);
    }
}

#[test]
fn a_node_that_is_away_for_a_moment_keeps_its_replicas() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    toy.nodes.get_mut(&2).unwrap().is_up = false;
    check(&mut toy, 25, &[]);
    let reasons = waits(&toy);
    assert!(
        matches!(reasons[..], [Reason::NodeSilent { node: 2, .. }]),
        "{reasons:?}"
    );
    toy.nodes.get_mut(&2).unwrap().is_up = true;
    check(&mut toy, 60, &[]);
}

#[test]
fn a_node_that_stays_away_is_replaced_and_cleaned_up_when_it_returns() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    toy.nodes.get_mut(&2).unwrap().is_up = false;
    check(
        &mut toy,
        60,
        &[
            "0: begin +4 -2 (NodeAway)",
            "0: drop learner 4.1",
            "0: new 4.2 in 4",
            "0: learner 4.2",
            "0: promote 4.2 for 2",
            "0: end with 1 3 4.2",
        ],
    );
    toy.nodes.get_mut(&2).unwrap().is_up = true;
    check(
        &mut toy,
        20,
        &["0: new 2.3 in 2", "0: destroy 2", "0: learner 2.3"],
    );
}

#[test]
fn a_new_leader_of_group_0_gives_everybody_the_whole_time_again() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    toy.nodes.get_mut(&2).unwrap().is_up = false;
    for _ in 0..6 {
        check(&mut toy, 25, &[]);
        toy.reports = stock_cluster::Reports::new(toy.now_ms);
    }
}

#[test]
fn without_a_node_to_spare_nothing_moves_and_the_reason_is_told() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    toy.nodes.get_mut(&2).unwrap().is_up = false;
    check(&mut toy, 120, &[]);
    assert!(waits(&toy).contains(&Reason::NoRoom), "{:?}", waits(&toy));
}

#[test]
fn a_failed_replica_is_made_anew_at_once_where_it_is() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    toy.apply(Change::RebuildReplica {
        group: META,
        node: 2,
    });
    check(
        &mut toy,
        20,
        &[
            "0: begin +2 -2 (Failed)",
            "0: new 2.1 in 2",
            "0: learner 2.1",
            "0: promote 2.1 for 2",
            "0: end with 1 3 2.1",
        ],
    );
}

#[test]
fn a_replica_that_works_again_after_a_restart_is_not_deleted_for_its_replacement() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    let failed = (META, ReplicaId::founding(2));
    let had = toy.nodes.get_mut(&2).unwrap().data.insert(failed, None);
    while toy.registry.move_of(META).is_none() {
        toy.ticks(1);
    }
    toy.nodes
        .get_mut(&2)
        .unwrap()
        .data
        .insert(failed, had.unwrap());
    check(&mut toy, 40, &["0: end with 1 2 3"]);
}

#[test]
fn a_replica_whose_replacement_failed_is_made_anew_again() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    let old = ReplicaId::founding(2);
    toy.nodes
        .get_mut(&2)
        .unwrap()
        .data
        .insert((META, old), None);
    check(
        &mut toy,
        3,
        &[
            "0: begin +2 -2 (Failed)",
            "0: new 2.1 in 2",
            "0: learner 2.1",
        ],
    );
    // It took the old one's place, and fails as well before it votes.
    let new = ReplicaId::new(1, 2);
    let machine = toy.nodes.get_mut(&2).unwrap();
    machine.data.remove(&(META, old));
    machine.data.insert((META, new), None);
    check(
        &mut toy,
        30,
        &[
            "0: drop learner 2.1",
            "0: end with 1 2 3",
            "0: destroy 2.1",
            "0: begin +2 -2 (Failed)",
            "0: new 2.2 in 2",
            "0: learner 2.2",
            "0: promote 2.2 for 2",
            "0: end with 1 3 2.2",
        ],
    );
}

#[test]
fn a_failed_leader_hands_over_before_it_goes() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    toy.apply(Change::RebuildReplica {
        group: META,
        node: 1,
    });
    check(
        &mut toy,
        20,
        &[
            "0: begin +1 -1 (Failed)",
            "0: transfer to 2",
            "0: new 1.1 in 1",
            "0: learner 1.1",
            "0: promote 1.1 for 1",
            "0: end with 2 3 1.1",
        ],
    );
}

#[test]
fn a_replaced_disk_is_filled_again_where_it_is() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    toy.replace_disk(3);
    check(
        &mut toy,
        20,
        &[
            "heard 3 on 5",
            "0: begin +3 -3 (DiskReplaced)",
            "0: new 3.2 in 5",
            "0: learner 3.2",
            "0: promote 3.2 for 3",
            "0: end with 1 2 3.2",
        ],
    );
}

#[test]
fn a_draining_node_loses_its_leaderships_first_and_then_its_replicas() {
    let mut toy = Toy::new(4, 2, 3, 1);
    toy.ticks(10);
    toy.apply(Change::Drain { node: 1 });
    check(
        &mut toy,
        40,
        &[
            "0: begin +4 -1 (Draining)",
            "0: transfer to 3",
            "0: drop learner 4.1",
            "0: new 4.2 in 4",
            "0: learner 4.2",
            "0: promote 4.2 for 1",
            "0: end with 2 3 4.2",
            "0: new 1.3 in 1",
            "0: destroy 1",
            "0: learner 1.3",
        ],
    );
    assert_eq!(toy.registry.replicas_on(1), 0);
}

#[test]
fn the_only_voter_leaves_its_node_though_the_one_it_goes_to_is_to_be_emptied_by_now() {
    let mut toy = Toy::new(3, 1, 1, 1);
    toy.ticks(10);
    toy.apply(Change::Drain { node: 1 });
    while toy.groups[&META].voters.len() < 2 {
        toy.ticks(1);
    }
    let comes = toy.registry.move_of(META).and_then(|it| it.add).unwrap();
    toy.apply(Change::Drain { node: comes.node() });
    toy.ticks(400);
    let voters = &toy.groups[&META].voters;
    let nodes: Vec<u64> = voters.iter().map(|voter| voter.node()).collect();
    let free = (1..=3).find(|node| ![1, comes.node()].contains(node));
    assert_eq!(nodes, Vec::from_iter(free));
}

#[test]
fn groups_grow_to_an_odd_number_only() {
    let mut toy = Toy::new(1, 1, 3, 1);
    toy.add_machine(2);
    toy.join(2);
    check(
        &mut toy,
        60,
        &["heard 2 on 2", "0: new 2.1 in 2", "0: learner 2.1"],
    );
    toy.add_machine(3);
    toy.join(3);
    check(
        &mut toy,
        60,
        &[
            "heard 3 on 3",
            "0: new 3.2 in 3",
            "0: begin +2 (TooFew)",
            "0: drop learner 2.1",
            "0: learner 3.2",
            "0: new 2.3 in 2",
            "0: learner 2.3",
            "0: promote 2.3",
            "0: end with 1 2.3",
            "0: begin +3 (TooFew)",
            "0: drop learner 3.2",
            "0: new 3.4 in 3",
            "0: learner 3.4",
            "0: promote 3.4",
            "0: end with 1 2.3 3.4",
        ],
    );
}

#[test]
fn a_group_with_too_many_replicas_gives_up_the_one_on_the_fullest_node() {
    let mut toy = Toy::new(5, 1, 5, 1);
    toy.ticks(10);
    toy.apply(Change::SetReplication { replicas: 3 });
    check(
        &mut toy,
        60,
        &[
            "0: begin -5 (TooMany)",
            "0: take out 5",
            "0: end with 1 2 3 4",
            "0: new 5.1 in 5",
            "0: destroy 5",
            "0: begin -4 (TooMany)",
            "0: learner 5.1",
            "0: take out 4",
            "0: end with 1 2 3",
            "0: new 4.2 in 4",
            "0: destroy 4",
            "0: learner 4.2",
        ],
    );
}

#[test]
fn a_new_node_takes_its_share_of_replicas_and_then_of_leaders() {
    let mut toy = Toy::new(3, 4, 3, 1);
    toy.ticks(20);
    toy.add_machine(4);
    toy.join(4);
    let said = orders(&mut toy, 120);
    let begun = said.iter().filter(|text| text.contains("begin")).count();
    assert_eq!(begun, 3, "{said:?}");
    let counts = [1, 2, 3, 4].map(|node| toy.registry.replicas_on(node));
    assert_eq!(counts, [3, 3, 3, 3]);
    let mut led: Vec<u64> = toy
        .groups
        .values()
        .map(|group| group.leader.unwrap().node())
        .collect();
    led.sort_unstable();
    assert_eq!(led, [1, 2, 3, 4]);
    check(&mut toy, 60, &[]);
}

#[test]
fn an_operators_move_is_done_before_balance_and_her_leader_is_kept() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(20);
    toy.apply(Change::MoveReplica {
        group: META,
        from: 3,
        to: 4,
    });
    toy.apply(Change::PreferLeader {
        group: META,
        node: Some(2),
    });
    check(
        &mut toy,
        60,
        &[
            "0: begin +4 -3 (Asked)",
            "0: transfer to 2",
            "0: drop learner 4.1",
            "0: new 4.2 in 4",
            "0: learner 4.2",
            "0: promote 4.2 for 3",
            "0: end with 1 2 4.2",
            "0: new 3.3 in 3",
            "0: destroy 3",
            "0: learner 3.3",
        ],
    );
    assert_eq!(toy.groups[&META].leader.unwrap().node(), 2);
}

#[test]
fn an_operators_wish_outlasts_the_lack_of_room() {
    let mut toy = Toy::new(4, 4, 3, 1);
    toy.ticks(20);
    // Each group that node 1 has shall go where it is not yet, and there is no room.
    let mut wishes = Vec::new();
    for (group, of) in &toy.groups {
        let voters: Vec<u64> = of.voters.iter().map(|voter| voter.node()).collect();
        if voters.contains(&1) {
            let to = (1..=4).find(|node| !voters.contains(node)).unwrap();
            wishes.push((*group, to));
        }
    }
    for node in 2..=4 {
        toy.nodes.get_mut(&node).unwrap().free_bytes = 10;
    }
    for (group, to) in &wishes {
        let (group, to) = (*group, *to);
        toy.apply(Change::MoveReplica { group, from: 1, to });
    }
    // Balance would take what node 1 has there.
    toy.add_machine(5);
    toy.join(5);
    toy.ticks(200);
    for (group, _) in &wishes {
        assert!(toy.registry.wish(*group).is_some(), "{group:?}");
    }
    for node in 2..=4 {
        toy.nodes.get_mut(&node).unwrap().free_bytes = 1_000;
    }
    let mut granted = BTreeSet::new();
    for _ in 0..600 {
        toy.tick();
        for (group, to) in &wishes {
            let voters = &toy.groups[group].voters;
            if voters.iter().any(|voter| voter.node() == *to) {
                granted.insert(*group);
            }
        }
    }
    assert_eq!(granted.len(), wishes.len());
}

#[test]
fn a_joint_change_that_a_fallen_leader_left_is_finished() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    toy.apply(Change::MoveReplica {
        group: META,
        from: 3,
        to: 4,
    });
    while toy.groups[&META].outgoing.is_empty() {
        toy.tick();
    }
    toy.nodes.get_mut(&1).unwrap().is_up = false;
    let said = orders(&mut toy, 10);
    assert!(said.contains(&"0: leave joint".to_owned()), "{said:?}");
    assert!(said.contains(&"0: end with 1 2 4.2".to_owned()), "{said:?}");
}

#[test]
fn a_change_that_outlives_its_move_is_written_down_and_cleared_up() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    // As where an order was still on its way when the move was given up.
    let stray = ReplicaId::new(2, 4);
    toy.apply(Change::MoveReplica {
        group: META,
        from: 3,
        to: 4,
    });
    while toy.registry.move_of(META).is_none() {
        toy.tick();
    }
    let given_up = toy.registry.move_of(META).unwrap();
    assert_eq!(given_up.add, Some(stray));
    let number = given_up.number;
    toy.apply(Change::End(EndMove {
        group: META,
        number,
        term: toy.groups[&META].term,
        voters: [1, 2, 3].map(ReplicaId).into(),
    }));
    let group = toy.groups.get_mut(&META).unwrap();
    group.learners.clear();
    group.voters = [ReplicaId(1), ReplicaId(2), stray].into();
    let said = orders(&mut toy, 100);
    assert!(
        said.contains(&"0: correct to 1 2 4.2".to_owned()),
        "{said:?}"
    );
    assert_eq!(waits(&toy), [], "{said:?}");
    let placed = toy.registry.placement(META).unwrap();
    assert_eq!(placed.voters, toy.groups[&META].voters);
    assert!(
        placed
            .voters
            .iter()
            .all(|voter| toy.has(META, *voter).is_some())
    );
}

#[test]
fn a_replica_that_votes_by_now_is_not_taken_back_for_what_an_older_report_says() {
    let mut toy = Toy::new(5, 1, 3, 1);
    toy.ticks(10);
    toy.apply(Change::MoveReplica {
        group: META,
        from: 3,
        to: 4,
    });
    while toy.groups[&META].voters.contains(&ReplicaId(3)) {
        toy.tick();
    }
    toy.groups.get_mut(&META).unwrap().outgoing.clear();
    // What was reported last is from before the change; then its node is drained.
    let (now, reports) = (toy.now_ms, toy.reports.clone());
    assert!(reports.group(META).unwrap().voters.contains(&ReplicaId(3)));
    toy.apply(Change::Drain { node: 4 });
    let decision = decide(&toy.registry, &reports, now, &POLICY);
    for order in &decision.orders {
        toy.carry_out(order);
    }
    assert_eq!(toy.groups[&META].voters.len(), 3, "{decision:?}");
    let said = orders(&mut toy, 100);
    assert!(
        said.iter().any(|order| order.contains("begin +")),
        "{said:?}"
    );
    assert_eq!(toy.groups[&META].voters.len(), 3);
    assert_eq!(toy.registry.replicas_on(4), 0);
}

#[test]
fn a_move_whose_target_dies_is_given_up_and_another_found() {
    let mut toy = Toy::new(5, 1, 3, 1);
    toy.ticks(10);
    toy.groups.get_mut(&META).unwrap().last_index += 3_000;
    toy.ticks(20);
    toy.apply(Change::Drain { node: 3 });
    toy.ticks(3);
    let comes = toy.registry.move_of(META).and_then(|m| m.add).unwrap();
    assert_eq!(comes.node(), 4);
    assert!(toy.groups[&META].learners.contains(&comes));
    toy.nodes.get_mut(&4).unwrap().is_up = false;
    check(
        &mut toy,
        100,
        &[
            "0: drop learner 4.3",
            "0: end with 1 2 3",
            "0: begin +5 -3 (Draining)",
            "0: drop learner 5.2",
            "0: new 5.5 in 5",
            "0: learner 5.5",
            "0: promote 5.5 for 3",
            "0: end with 1 2 5.5",
            "0: new 3.6 in 3",
            "0: destroy 3",
            "0: learner 3.6",
        ],
    );
}

#[test]
fn a_move_of_a_group_without_leader_is_laid_aside_for_others() {
    let mut toy = Toy::new(6, 6, 3, 1);
    toy.ticks(20);
    toy.apply(Change::MoveReplica {
        group: META,
        from: 3,
        to: 5,
    });
    toy.ticks(2);
    // Nodes 1 and 2 fall: group 0 has no majority, group 1 keeps its own.
    for node in [1, 2] {
        toy.nodes.get_mut(&node).unwrap().is_up = false;
    }
    let said = orders(&mut toy, 120);
    let place = |prefix: &str| said.iter().position(|text| text.starts_with(prefix));
    assert!(place("0: park").is_some(), "{said:?}");
    assert!(place("0: park") < place("1: begin"), "{said:?}");
    for node in [1, 2] {
        toy.nodes.get_mut(&node).unwrap().is_up = true;
    }
    let said = orders(&mut toy, 240);
    assert!(said.contains(&"0: resume".to_owned()), "{said:?}");
    assert_eq!(toy.registry.moves().count(), 0, "{said:?}");
}

#[test]
fn a_full_disk_and_a_foreign_directory_take_no_replica() {
    let mut toy = Toy::new(5, 1, 3, 1);
    toy.nodes.get_mut(&4).unwrap().free_bytes = 1;
    toy.nodes.get_mut(&5).unwrap().directory = stock_cluster::Directory(999);
    toy.ticks(10);
    toy.apply(Change::Drain { node: 3 });
    check(&mut toy, 60, &[]);
    assert!(waits(&toy).contains(&Reason::NoRoom));
    assert!(waits(&toy).contains(&Reason::WrongDirectory { node: 5 }));
    toy.nodes.get_mut(&4).unwrap().free_bytes = 1_000;
    let said = orders(&mut toy, 20);
    assert_eq!(said[0], "0: begin +4 -3 (Draining)");
}

#[test]
fn nothing_moves_while_another_voter_lags() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    toy.nodes.get_mut(&2).unwrap().is_up = false;
    toy.ticks(2);
    toy.apply(Change::MoveReplica {
        group: META,
        from: 3,
        to: 4,
    });
    check(&mut toy, 10, &[]);
    let behind = waits(&toy)
        .iter()
        .any(|reason| matches!(reason, Reason::Unsound { replica } if replica.node() == 2));
    assert!(behind, "{:?}", waits(&toy));
    toy.nodes.get_mut(&2).unwrap().is_up = true;
    let said = orders(&mut toy, 20);
    assert_eq!(said[0], "0: begin +4 -3 (Asked)");
}

#[test]
fn the_most_urgent_need_comes_first() {
    let mut toy = Toy::new(5, 3, 3, 1);
    toy.ticks(20);
    toy.apply(Change::MoveReplica {
        group: META,
        from: 1,
        to: 4,
    });
    toy.apply(Change::RebuildReplica {
        group: GroupId(2),
        node: 3,
    });
    let begun = toy.tick().orders;
    let why = begun.iter().find_map(|order| match order {
        Order::Record(Change::Begin(begin)) => Some((begin.group, begin.why)),
        _ => None,
    });
    assert_eq!(why, Some((GroupId(2), Why::Failed)));
    assert!(waits(&toy).contains(&Reason::MoveUnderWay));
}

#[test]
fn a_node_that_says_its_replica_failed_is_believed() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    let node = toy.nodes.get_mut(&3).unwrap();
    *node.data.values_mut().next().unwrap() = None;
    let said = orders(&mut toy, 20);
    assert_eq!(said[0], "0: begin +3 -3 (Failed)");
    let report = toy.reports.node(3).unwrap();
    let failed = |state| state == ReplicaState::Failed;
    assert!(!report.replicas.iter().any(|hosted| failed(hosted.state)));
}
