//! A connection that ends tells of a leader's death sooner than silence does.

use stock_replica::{ELECTION_TICKS_MIN, LEADER_LOST_TICKS, Point};

use crate::{Cluster, Node, entry};

/// Both of the others have lost the leader: the first stands after this many ticks, the second two
/// later.
const SUCCEEDED_WITHIN: usize = LEADER_LOST_TICKS + 2;

impl Cluster {
    fn lose(&mut self, leader: u64) {
        for (_, node) in self.nodes.iter_mut().filter(|(id, _)| **id != leader) {
            node.replica.lost(leader);
        }
    }

    fn ticks(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.tick();
        }
    }

    fn leaders(&self) -> Vec<u64> {
        let leads = self
            .nodes
            .values()
            .filter(|node| node.replica.is_settled_leader());
        leads.map(|node| node.id).collect()
    }
}

#[test]
fn a_leader_whose_connections_end_is_succeeded_long_before_a_timeout() {
    const { assert!(SUCCEEDED_WITHIN < ELECTION_TICKS_MIN) };
    for first in 1..=3 {
        let mut cluster = Cluster::new();
        cluster.replica(first).campaign();
        cluster.deliver();
        cluster.settle();
        assert_eq!(cluster.leader(), first);
        cluster.nodes.remove(&first);
        cluster.lose(first);
        cluster.ticks(LEADER_LOST_TICKS - 1);
        assert_eq!(cluster.leaders(), []);
        cluster.ticks(1);
        // The one with the smallest id; the other has not stood.
        let second = if first == 1 { 2 } else { 1 };
        assert_eq!(cluster.leaders(), [second]);
    }
}

#[test]
fn where_the_first_to_stand_lacks_entries_the_other_succeeds() {
    let mut cluster = Cluster::new();
    cluster.replica(3).campaign();
    cluster.deliver();
    cluster.settle();
    let away = cluster.nodes.remove(&1).unwrap();
    cluster.propose(1);
    cluster.nodes.insert(1, away);
    cluster.nodes.remove(&3);
    cluster.lose(3);
    cluster.ticks(SUCCEEDED_WITHIN);
    assert_eq!(cluster.leaders(), [2]);
    assert_eq!(cluster.nodes[&2].applied, [entry(1)]);
}

#[test]
fn a_follower_that_alone_lost_the_leader_changes_nothing() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    cluster.settle();
    let term = cluster.replica(leader).term();
    let follower = 1 + leader % 3;
    // It cannot be heard by the leader either, for as long as it may stand several times.
    let mut alone = cluster.nodes.remove(&follower).unwrap();
    alone.replica.lost(leader);
    let others = std::mem::take(&mut cluster.nodes);
    cluster.nodes.insert(follower, alone);
    cluster.ticks(4 * ELECTION_TICKS_MIN);
    assert_eq!(cluster.leaders(), []);
    cluster.nodes.extend(others);
    cluster.ticks(ELECTION_TICKS_MIN);
    assert_eq!(cluster.leaders(), [leader]);
    assert_eq!(cluster.replica(leader).term(), term);
    assert_eq!(cluster.replica(follower).leader(), leader);
}

#[test]
fn who_does_not_know_the_members_yet_does_not_stand() {
    let mut cluster = Cluster::new();
    let newcomer = Node::new(4, Point::unknown());
    cluster.nodes = [(4, newcomer)].into();
    cluster.replica(4).campaign();
    cluster.ticks(2 * ELECTION_TICKS_MIN);
    assert_eq!(cluster.leaders(), []);
}
