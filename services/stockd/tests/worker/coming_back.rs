//! A replica that was brought back: what it answers before it has replayed its log, and what others
//! think of it.

use stock_node::answer::{Answer, Freshness, Question};
use stock_node::event::Event;
use stock_node::worker::TICK_MS;

use super::{Cluster, ELECTION_TICKS, GROUPS, NODES, SHARD, open_of};

/// Ticks in which nobody writes, and the leaders stamp an entry now and then.
const QUIET_TICKS: u64 = 2_000;

impl Cluster {
    /// Starts a node that applies one entry in a turn, and so replays its log for long.
    fn start_slowly(&mut self, node: u64) {
        let dir = self.dirs[&node].path();
        let opened = open_of(&NODES, GROUPS, 1, node, dir, self.now());
        self.nodes.insert(node, opened);
    }

    fn near_read(&mut self, node: u64) -> Answer {
        let near = Event::Read {
            group: SHARD,
            freshness: Freshness::Near,
            question: Question::Reached,
            reply: 0,
        };
        let now = self.now();
        let asked = self.nodes.get_mut(&node).unwrap();
        let mut effects = Vec::new();
        // One step alone: what would be applied in the turns that follow is not there yet.
        asked.worker.step(now, [near], &mut effects);
        self.finish(node, effects);
        let asked = self.nodes.get_mut(&node).unwrap();
        asked.answers.pop().unwrap()
    }
}

#[test]
fn a_replica_takes_no_near_read_before_it_has_replayed_and_its_node_is_not_ready() {
    let mut cluster = Cluster::new();
    cluster.ticks(QUIET_TICKS);
    let applied = cluster.applied(1).unwrap();
    assert!(applied > 5, "there is a log to replay: {applied}");
    assert!(cluster.nodes[&1].cluster.has_come_back());

    cluster.stop(1);
    cluster.start_slowly(1);
    assert!(!cluster.nodes[&1].cluster.is_here(SHARD));
    assert!(!cluster.nodes[&1].cluster.has_come_back());
    let answer = cluster.near_read(1);
    assert!(
        matches!(answer, Answer::Failed(_)),
        "another node knows better: {answer:?}"
    );
    cluster.ticks(ELECTION_TICKS);
    assert!(cluster.nodes[&1].cluster.is_here(SHARD));
    assert!(matches!(cluster.near_read(1), Answer::Reached { .. }));
    assert!(cluster.nodes[&1].cluster.has_come_back());
}

#[test]
fn a_node_that_hears_nobody_answers_near_reads_and_is_not_ready() {
    let mut cluster = Cluster::new();
    cluster.ticks(QUIET_TICKS);
    NODES.into_iter().for_each(|node| cluster.stop(node));
    cluster.start(1);
    cluster.ticks(10_000 / TICK_MS);
    assert!(matches!(cluster.near_read(1), Answer::Reached { .. }));
    assert!(!cluster.nodes[&1].cluster.has_come_back());
    cluster.start(2);
    cluster.ticks(ELECTION_TICKS);
    assert!(
        cluster.nodes[&1].cluster.has_come_back(),
        "two are a quorum"
    );
    // What becomes of the quorum later changes that no more.
    cluster.stop(2);
    cluster.ticks(10 * ELECTION_TICKS);
    assert!(cluster.nodes[&1].cluster.has_come_back());
}
