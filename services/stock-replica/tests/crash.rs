//! Three replicas on memory disks and a network without sockets, driven as the crate's documentation
//! says, and crashed between any two steps of a turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use stock_replica::{
    Committed, ELECTION_TICKS_MAX, EntryReader, LogWrite, Origin, Outgoing, ProposeError,
    ReadError, Replica, Restored,
};

const NODES: [u64; 3] = [1, 2, 3];

/// Rounds in which three healthy replicas must have elected a leader: three full timeouts.
const ELECTION_ROUNDS_MAX: usize = 3 * ELECTION_TICKS_MAX;

/// Enough for every entry of a test.
const WINDOW_BYTES: u64 = 1 << 20;

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    state: Option<Bytes>,
    entries: BTreeMap<u64, Bytes>,
}

impl Disk {
    fn write(&self, write: LogWrite) {
        let mut stored = self.0.lock().unwrap();
        if !write.entries.is_empty() {
            stored.entries.split_off(&write.first_index);
            stored
                .entries
                .extend((write.first_index..).zip(write.entries));
        }
        if write.state.is_some() {
            stored.state = write.state;
        }
    }

    fn open(&self, node: u64) -> Replica {
        let origin = Origin::founding(NODES.to_vec());
        let stored = self.0.lock().unwrap();
        let restored = Restored {
            state: stored.state.clone(),
            last_index: stored
                .entries
                .keys()
                .next_back()
                .map_or(origin.index, |last| *last),
            origin,
            reader: Box::new(self.clone()),
        };
        drop(stored);
        Replica::open(node, WINDOW_BYTES, restored).unwrap()
    }
}

impl EntryReader for Disk {
    fn read(
        &self,
        low: u64,
        high: u64,
        bytes_max: u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        let stored = self.0.lock().unwrap();
        let mut bytes = 0;
        for (_, entry) in stored.entries.range(low..high) {
            bytes += entry.len() as u64;
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(())
    }
}

/// Where in its turn a node crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    BeforeWrite,
    AfterWrite,
    AfterSettle,
}

struct Node {
    id: u64,
    disk: Disk,
    replica: Replica,
    /// What this incarnation has applied.
    applied: Vec<Bytes>,
}

impl Node {
    fn restart(&mut self) {
        self.replica = self.disk.open(self.id);
        self.applied.clear();
    }

    fn apply(&mut self, committed: Vec<Committed>) {
        let filled = committed.into_iter().filter(|entry| !entry.data.is_empty());
        self.applied.extend(filled.map(|entry| entry.data));
    }

    /// One turn, or as much of it as the crash allows.
    fn turn(&mut self, network: &mut VecDeque<Outgoing>, crash: Option<Crash>) {
        while self.replica.has_effects() {
            let prepared = self.replica.prepare();
            network.extend(prepared.messages);
            if crash == Some(Crash::BeforeWrite) {
                return self.restart();
            }
            self.disk.write(prepared.write);
            if crash == Some(Crash::AfterWrite) {
                return self.restart();
            }
            let settled = self.replica.settle();
            if crash == Some(Crash::AfterSettle) {
                return self.restart();
            }
            network.extend(settled.messages);
            self.apply(prepared.committed);
            self.apply(settled.committed);
        }
    }
}

struct Cluster {
    nodes: Vec<Node>,
    network: VecDeque<Outgoing>,
}

impl Cluster {
    fn new() -> Self {
        let nodes = NODES.map(|id| {
            let disk = Disk::default();
            let replica = disk.open(id);
            let applied = Vec::new();
            Node {
                id,
                disk,
                replica,
                applied,
            }
        });
        Self {
            nodes: nodes.into(),
            network: VecDeque::new(),
        }
    }

    /// Delivers everything that is under way, and what that brings about.
    fn deliver(&mut self) {
        for node in &mut self.nodes {
            node.turn(&mut self.network, None);
        }
        while let Some(message) = self.network.pop_front() {
            let node = &mut self.nodes[message.to as usize - 1];
            // raft ignores what a restarted replica no longer knows about.
            let _ = node.replica.step(&message.payload);
            node.turn(&mut self.network, None);
        }
    }

    fn tick(&mut self) {
        for node in &mut self.nodes {
            node.replica.tick();
        }
        self.deliver();
    }

    /// Lets time pass until somebody leads, and tells who.
    fn leader(&mut self) -> usize {
        for _ in 0..ELECTION_ROUNDS_MAX {
            if let Some(at) = self
                .nodes
                .iter()
                .position(|node| node.replica.is_settled_leader())
            {
                return at;
            }
            self.tick();
        }
        panic!("no leader after {ELECTION_ROUNDS_MAX} ticks");
    }

    fn settle(&mut self) {
        let leader = self.leader();
        self.nodes[leader].replica.ping();
        self.deliver();
        for _ in 0..ELECTION_ROUNDS_MAX {
            self.tick();
        }
    }
}

fn entry(number: usize) -> Bytes {
    Bytes::from(format!("entry {number}"))
}

#[test]
fn a_majority_elects_a_leader_and_everybody_applies_the_same() {
    let mut cluster = Cluster::new();
    for number in 0..50 {
        let leader = cluster.leader();
        cluster.nodes[leader]
            .replica
            .propose(entry(number).to_vec())
            .unwrap();
        cluster.deliver();
        assert_eq!(
            cluster.nodes[leader].applied.last(),
            Some(&entry(number)),
            "answered at once"
        );
    }
    cluster.settle();
    let expected: Vec<_> = (0..50).map(entry).collect();
    for node in &cluster.nodes {
        assert_eq!(node.applied, expected);
    }
}

#[test]
fn nothing_applied_by_a_leader_is_lost_whatever_crashes() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut cluster = Cluster::new();
        let mut acknowledged = Vec::new();
        for number in 0..40 {
            let leader = cluster.leader();
            let data = entry(number);
            if cluster.nodes[leader]
                .replica
                .propose(data.to_vec())
                .is_err()
            {
                cluster.tick();
                continue;
            }
            if random.random_bool(0.5) {
                let crash = [Crash::BeforeWrite, Crash::AfterWrite, Crash::AfterSettle]
                    [random.random_range(0..3)];
                let at = random.random_range(0..3);
                let Cluster { nodes, network } = &mut cluster;
                nodes[at].turn(network, Some(crash));
            }
            if random.random_bool(0.2) {
                cluster.network.clear();
            }
            cluster.deliver();
            if cluster.nodes[leader].applied.contains(&data) {
                acknowledged.push(data);
            }
        }
        cluster.settle();
        let reference = cluster.nodes[0].applied.clone();
        for node in &cluster.nodes {
            assert_eq!(
                node.applied, reference,
                "seed {seed}: node {} differs",
                node.id
            );
        }
        let mut kept = reference.iter();
        for data in &acknowledged {
            assert!(
                kept.any(|other| other == data),
                "seed {seed}: {data:?} is lost or out of order"
            );
        }
        assert!(
            acknowledged.len() > 10,
            "seed {seed}: only {} got through",
            acknowledged.len()
        );
    }
}

#[test]
fn a_follower_refuses_proposals_instead_of_forwarding_them() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let refused = cluster.nodes[follower].replica.propose(b"x".to_vec());
    assert_eq!(refused, Err(ProposeError::NotLeader));
}

#[test]
fn a_read_is_ready_only_after_a_majority_has_answered() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    cluster.nodes[leader]
        .replica
        .propose(entry(1).to_vec())
        .unwrap();
    cluster.deliver();
    let node = &mut cluster.nodes[leader];
    assert!(node.replica.read_index(b"ctx".to_vec()));
    let prepared = node.replica.prepare();
    assert!(
        prepared.reads.is_empty(),
        "nobody has confirmed the leader yet"
    );
    cluster.network.extend(prepared.messages);
    node.replica.settle();
    let commit = node.replica.commit();
    let mut ready = Vec::new();
    while let Some(message) = cluster.network.pop_front() {
        let node = &mut cluster.nodes[message.to as usize - 1];
        node.replica.step(&message.payload).unwrap();
        while node.replica.has_effects() {
            let prepared = node.replica.prepare();
            ready.extend(prepared.reads);
            cluster.network.extend(prepared.messages);
            node.disk.write(prepared.write);
            cluster.network.extend(node.replica.settle().messages);
        }
    }
    assert_eq!(ready.len(), 1);
    assert_eq!(
        (ready[0].context.as_slice(), ready[0].index),
        (b"ctx".as_slice(), commit)
    );
}

#[test]
fn leadership_moves_when_it_is_handed_over() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    let heir = (leader + 1) % 3;
    cluster.tick();
    assert!(
        cluster.nodes[leader]
            .replica
            .transfer_leadership(heir as u64 + 1)
    );
    cluster.deliver();
    assert!(cluster.nodes[heir].replica.is_leader());
    assert!(!cluster.nodes[leader].replica.is_leader());
}

#[test]
fn a_leader_that_hands_over_takes_no_more_proposals() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    let heir = (leader + 1) % 3;
    cluster.tick();
    let replica = &mut cluster.nodes[leader].replica;
    assert!(replica.transfer_leadership(heir as u64 + 1));
    assert!(replica.is_leader(), "until the heir has been elected");
    // Not "too much is waiting": whoever asks should look for the next leader.
    assert_eq!(replica.propose(b"x".to_vec()), Err(ProposeError::NotLeader));
}
