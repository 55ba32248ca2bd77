//! What survives whatever crashes, and who may do what.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use stock_replica::ProposeError;

use crate::{Cluster, Crash, entry};

#[test]
fn a_majority_elects_a_leader_and_everybody_applies_the_same() {
    let mut cluster = Cluster::new();
    for number in 0..50 {
        let leader = cluster.leader();
        cluster
            .replica(leader)
            .propose(entry(number).to_vec())
            .unwrap();
        cluster.deliver();
        assert_eq!(
            cluster.nodes[&leader].applied.last(),
            Some(&entry(number)),
            "answered at once"
        );
    }
    cluster.settle();
    let expected: Vec<_> = (0..50).map(entry).collect();
    for node in cluster.nodes.values() {
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
            if cluster.replica(leader).propose(data.to_vec()).is_err() {
                cluster.tick();
                continue;
            }
            if random.random_bool(0.5) {
                let crash = [Crash::BeforeWrite, Crash::AfterWrite, Crash::AfterSettle]
                    [random.random_range(0..3)];
                let at = random.random_range(1..=3);
                let Cluster { nodes, network } = &mut cluster;
                nodes.get_mut(&at).unwrap().turn(network, Some(crash));
            }
            if random.random_bool(0.2) {
                cluster.network.clear();
            }
            cluster.deliver();
            if cluster.nodes[&leader].applied.contains(&data) {
                acknowledged.push(data);
            }
        }
        cluster.settle();
        let reference = cluster.nodes[&1].applied.clone();
        for node in cluster.nodes.values() {
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
    let follower = leader % 3 + 1;
    let refused = cluster.replica(follower).propose(b"x".to_vec());
    assert_eq!(refused, Err(ProposeError::NotLeader));
}

#[test]
fn a_read_is_ready_only_after_a_majority_has_answered() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    cluster.replica(leader).propose(entry(1).to_vec()).unwrap();
    cluster.deliver();
    let node = cluster.nodes.get_mut(&leader).unwrap();
    assert!(node.replica.read_index(b"ctx".to_vec()));
    let prepared = node.replica.prepare();
    assert!(
        prepared.reads.is_empty(),
        "nobody has confirmed the leader yet"
    );
    let sent = prepared
        .messages
        .into_iter()
        .map(|message| (leader, message));
    cluster.network.extend(sent);
    node.replica.settle();
    let commit = node.replica.commit();
    let mut ready = Vec::new();
    while let Some((_, message)) = cluster.network.pop_front() {
        let to = message.to;
        let node = cluster.nodes.get_mut(&to).unwrap();
        node.replica.step(&message.payload).unwrap();
        while node.replica.has_effects() {
            let prepared = node.replica.prepare();
            ready.extend(prepared.reads);
            let mut sent = prepared.messages;
            node.disk.write(prepared.write);
            sent.extend(node.replica.settle().messages);
            let sent = sent.into_iter().map(|message| (to, message));
            cluster.network.extend(sent);
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
    let heir = leader % 3 + 1;
    cluster.tick();
    assert!(cluster.replica(leader).transfer_leadership(heir));
    cluster.deliver();
    assert!(cluster.replica(heir).is_leader());
    assert!(!cluster.replica(leader).is_leader());
}

#[test]
fn a_leader_that_hands_over_takes_no_more_proposals() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    let heir = leader % 3 + 1;
    cluster.tick();
    let replica = &mut cluster.replica(leader);
    assert!(replica.transfer_leadership(heir));
    assert!(replica.is_leader(), "until the heir has been elected");
    // Not "too much is waiting": whoever asks should look for the next leader.
    assert_eq!(replica.propose(b"x".to_vec()), Err(ProposeError::NotLeader));
}
