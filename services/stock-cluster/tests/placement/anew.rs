//! Replicas that an operator wants made anew though they work.

use stock_cluster::{Change, Reason, ReplicaId};

use super::controller::{META, check, orders, waits};
use super::toy::Toy;

/// An operator may ask for more than one replica of a group to be made anew, though each of them
/// works: one after the other, as long as the others that work are a majority.
#[test]
fn replicas_that_work_are_made_anew_one_after_the_other() {
    for nodes in [vec![1, 3], vec![2, 3], vec![3, 2, 1]] {
        let mut toy = Toy::new(3, 1, 3, 1);
        toy.ticks(10);
        for node in &nodes {
            let node = *node;
            toy.apply(Change::RebuildReplica { group: META, node });
            // In the midst of the move that the first one asks for.
            toy.ticks(3);
        }
        toy.ticks(100);
        assert_eq!(waits(&toy), [], "{nodes:?}");
        let voters = &toy.registry.placement(META).unwrap().voters;
        for voter in voters {
            let is_asked = nodes.contains(&voter.node());
            assert_eq!(voter.generation() > 0, is_asked, "{nodes:?}: {voters:?}");
        }
        assert_eq!(voters.len(), 3);
    }
}

/// Where all are to be made anew, or are on nodes that are to be emptied, the leader still hands
/// over before it gives way.
#[test]
fn a_leader_gives_way_to_nobody_before_it_has_handed_over() {
    let mut toy = Toy::new(3, 1, 3, 1);
    toy.ticks(10);
    for node in [1, 2, 3] {
        toy.apply(Change::RebuildReplica { group: META, node });
    }
    let said = orders(&mut toy, 40);
    let first = said.iter().position(|order| order == "0: new 1.1 in 1");
    let handed = said
        .iter()
        .position(|order| order.starts_with("0: transfer"));
    assert!(handed.is_some() && handed < first, "{said:?}");
    assert_eq!(waits(&toy), []);
}

#[test]
fn a_copy_that_nobody_could_do_without_is_not_made_anew_and_the_reason_is_told() {
    for nodes in [1, 2] {
        let mut toy = Toy::new(nodes, 1, 3, 1);
        toy.ticks(10);
        toy.apply(Change::RebuildReplica {
            group: META,
            node: 1,
        });
        check(&mut toy, 60, &[]);
        let replica = ReplicaId::founding(1);
        assert_eq!(waits(&toy), [Reason::TooFewCopies { replica }]);
    }
}
