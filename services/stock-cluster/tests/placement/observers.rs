//! Nodes without a voter of group 0 observe it, by transcripts of what a toy cluster is told to do.

use stock_cluster::{Change, ReplicaId};

use super::controller::{META, check};
use super::toy::Toy;

#[test]
fn a_node_that_joins_observes_group_0_until_it_is_removed() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    toy.add_machine(4);
    toy.join(4);
    check(
        &mut toy,
        20,
        &["heard 4 on 4", "0: new 4.1 in 4", "0: learner 4.1"],
    );
    toy.nodes.get_mut(&4).unwrap().is_up = false;
    check(&mut toy, 60, &[]);
    toy.nodes.get_mut(&4).unwrap().is_up = true;
    toy.apply(Change::Drain { node: 4 });
    check(&mut toy, 20, &[]);
    toy.apply(Change::Remove { node: 4 });
    check(&mut toy, 20, &["0: drop learner 4.1", "0: destroy 4.1"]);
}

#[test]
fn an_observer_on_a_replaced_disk_is_made_anew() {
    let mut toy = Toy::new(4, 1, 3, 1);
    toy.ticks(10);
    toy.replace_disk(4);
    check(
        &mut toy,
        20,
        &[
            "heard 4 on 5",
            "0: drop learner 4.1",
            "0: new 4.2 in 5",
            "0: learner 4.2",
        ],
    );
    let observer = toy.registry.observers().next().unwrap();
    let last_index = toy.groups[&META].last_index;
    assert_eq!(toy.has(META, observer), Some(last_index));
}

#[test]
fn a_node_that_is_not_there_does_not_observe() {
    let mut toy = Toy::new(5, 1, 3, 1);
    toy.nodes.get_mut(&4).unwrap().is_up = false;
    toy.nodes.get_mut(&5).unwrap().directory = stock_cluster::Directory(999);
    check(&mut toy, 20, &[]);
    toy.nodes.get_mut(&4).unwrap().is_up = true;
    check(&mut toy, 20, &["0: new 4.1 in 4", "0: learner 4.1"]);
}

#[test]
fn a_learner_that_its_node_has_forgotten_is_made_anew() {
    let mut toy = Toy::new(4, 2, 3, 1);
    toy.ticks(10);
    toy.groups.get_mut(&META).unwrap().last_index += 100_000;
    toy.ticks(600);
    toy.apply(Change::Drain { node: 3 });
    let (group, add) = loop {
        toy.ticks(1);
        let under_way = toy.registry.moves().next();
        if let Some((group, add)) = under_way.and_then(|(group, it)| Some((group, it.add?)))
            && toy.groups[&group].learners.contains(&add)
        {
            break (group, add);
        }
    };
    // The end of its log is gone, and with it that the replica was begun; the one before it is what
    // it knows of.
    let before = ReplicaId::new(0, add.node());
    let data = &mut toy.nodes.get_mut(&add.node()).unwrap().data;
    data.remove(&(group, add));
    data.insert((group, before), None);
    // It never had a say: nobody counts on what it had.
    check(
        &mut toy,
        20,
        &[
            "0: destroy 4",
            "0: drop learner 4.2",
            "0: new 4.2 in 4",
            "0: learner 4.2",
        ],
    );
}
