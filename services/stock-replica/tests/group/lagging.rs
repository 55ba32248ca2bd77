//! A follower that lags, and a leader that was held up and finds many of its messages at once.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Cluster;

/// Entries the follower lacks, and how large they are: several appends' worth.
const LACKS: usize = 40;
const ENTRY_BYTES: usize = 100 * 1024;

/// An append is of 256 KiB at most, and there are small messages beside it.
const ONE_APPEND_BYTES: usize = 300 * 1024;

impl Cluster {
    /// What a node wants to send.
    fn sent_by(&mut self, id: u64) -> VecDeque<(u64, Bytes)> {
        let mut sent = VecDeque::new();
        self.nodes.get_mut(&id).unwrap().turn(&mut sent, None);
        let sent = sent.into_iter();
        sent.map(|(_, message)| (message.to, message.payload))
            .collect()
    }

    /// The answers of a follower to the leader's heartbeat; nobody else hears it.
    fn answers_of(&mut self, follower: u64, leader: u64) -> Vec<Bytes> {
        self.replica(leader).ping();
        let heartbeats = self.sent_by(leader);
        for (_, heartbeat) in heartbeats.into_iter().filter(|(to, _)| *to == follower) {
            self.replica(follower).step(&heartbeat).unwrap();
        }
        let answers = self.sent_by(follower).into_iter();
        answers.map(|(_, answer)| answer).collect()
    }
}

#[test]
fn many_answered_heartbeats_at_once_bring_a_follower_one_append() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    let laggard = 1 + leader % 3;
    let away = cluster.nodes.remove(&laggard).unwrap();
    for _ in 0..LACKS {
        let entry = vec![7; ENTRY_BYTES];
        cluster.replica(leader).propose(entry).unwrap();
        cluster.deliver();
    }
    cluster.replica(leader).lost(laggard);
    cluster.deliver();
    cluster.nodes.insert(laggard, away);

    let answers: Vec<Bytes> = (0..50)
        .flat_map(|_| cluster.answers_of(laggard, leader))
        .collect();
    assert!(answers.len() >= 50);
    for answer in &answers {
        cluster.replica(leader).step(answer).unwrap();
    }
    let sent = cluster.sent_by(leader);
    let bytes: usize = sent.iter().map(|(_, payload)| payload.len()).sum();
    assert!(
        bytes > ENTRY_BYTES,
        "{bytes} bytes are nothing to go on with"
    );
    assert!(bytes < ONE_APPEND_BYTES, "{bytes} bytes in one turn");

    cluster.settle();
    assert_eq!(cluster.nodes[&laggard].applied.len(), LACKS);
}

#[test]
fn a_read_is_answered_though_more_heartbeats_are_answered_in_the_same_turn() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    let follower = 1 + leader % 3;
    cluster.settle();
    let before = cluster.answers_of(follower, leader);
    assert!(cluster.replica(leader).read_index(b"a read".to_vec()));
    let with_the_read = cluster.answers_of(follower, leader);
    for answer in before.iter().chain(&with_the_read).chain(&before) {
        cluster.replica(leader).step(answer).unwrap();
    }
    assert!(cluster.replica(leader).has_effects());
    let reads = cluster.replica(leader).prepare().reads;
    let contexts: Vec<&[u8]> = reads.iter().map(|read| read.context.as_slice()).collect();
    assert_eq!(contexts, [b"a read"]);
}
