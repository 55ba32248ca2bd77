//! Whatever a confused peer sends, a replica refuses it with a reason; it never panics.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, Message, MessageType, Snapshot};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use stock_replica::StepError;

use crate::Cluster;

const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

fn step(cluster: &mut Cluster, to: u64, message: &Message) -> Result<(), StepError> {
    let payload = Bytes::from(message.write_to_bytes().unwrap());
    cluster.replica(to).step(&payload)
}

/// A number near those that matter, or far beyond.
fn number(dice: &mut SmallRng, near: u64) -> u64 {
    match dice.random_range(0..10) {
        0 => 0,
        1 => u64::MAX - dice.random_range(0..3),
        2 => near.saturating_add(dice.random_range(0..1_000_000)),
        _ => near
            .saturating_add(dice.random_range(0..4))
            .saturating_sub(2),
    }
}

fn message(dice: &mut SmallRng, to: u64, term: u64, last: u64) -> Message {
    let mut message = Message::default();
    message.set_msg_type(KINDS[dice.random_range(0..KINDS.len())]);
    message.to = to;
    message.from = dice.random_range(0..6);
    message.term = number(dice, term);
    message.log_term = number(dice, term);
    message.index = number(dice, last);
    message.commit = number(dice, last);
    message.commit_term = number(dice, term);
    message.reject = dice.random_bool(0.3);
    message.reject_hint = number(dice, last);
    if dice.random_bool(0.1) {
        message.request_snapshot = number(dice, last);
    }
    let mut index = match dice.random_bool(0.8) {
        true => message.index.wrapping_add(1),
        false => number(dice, last),
    };
    for _ in 0..dice.random_range(0..3) {
        let entry = Entry {
            index,
            term: number(dice, term),
            ..Entry::default()
        };
        index = index.wrapping_add(1);
        message.mut_entries().push(entry);
    }
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = number(dice, last);
        metadata.term = number(dice, term);
        let ids = |dice: &mut SmallRng| -> Vec<u64> {
            (0..dice.random_range(0..4))
                .map(|_| dice.random_range(0..6))
                .collect()
        };
        let mut members = ConfState::from((ids(dice), ids(dice)));
        members.set_voters_outgoing(ids(dice));
        members.set_learners_next(ids(dice));
        metadata.set_conf_state(members);
        message.set_snapshot(snapshot);
    }
    message
}

#[test]
fn no_message_that_nobody_should_send_makes_a_replica_panic() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut dice = SmallRng::seed_from_u64(seed);
        let mut cluster = Cluster::new();
        for number in 0..3 {
            cluster.propose(number);
        }
        cluster.settle();
        for _ in 0..60 {
            let to = dice.random_range(1..=3);
            let replica = cluster.replica(to);
            let (term, last) = (replica.term(), replica.last_index());
            let hostile = message(&mut dice, to, term, last);
            // A snapshot without its state is for whoever takes states in to refuse.
            let is_snapshot = hostile.get_msg_type() == MessageType::MsgSnapshot;
            match step(&mut cluster, to, &hostile) {
                Ok(()) if is_snapshot => break,
                Ok(()) => taken += 1,
                // Such a replica goes on no more.
                Err(StepError::Contradiction(_)) => break,
                Err(_) => refused += 1,
            }
            if dice.random_bool(0.3) {
                cluster.replica(to).tick();
            }
            cluster
                .nodes
                .get_mut(&to)
                .unwrap()
                .turn(&mut Default::default(), None);
        }
    }
    assert!(taken > 1_000 && refused > 1_000, "{taken} {refused}");
}

#[test]
fn each_senseless_message_is_refused_with_its_reason() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    cluster.settle();
    let follower = 1 + leader % 3;
    let term = cluster.replica(leader).term();
    let last = cluster.replica(leader).last_index();
    let mut check = |to: u64, change: &dyn Fn(&mut Message), expected: &str| {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term) = (leader, to, term);
        if to == leader {
            message.from = follower;
        }
        (message.index, message.log_term) = (last, term);
        change(&mut message);
        let refused = step(&mut cluster, to, &message).err();
        let refused = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains(expected), "{expected:?} in {refused:?}");
    };
    let entry = |index, term| Entry {
        index,
        term,
        ..Entry::default()
    };
    check(follower, &|m| m.term = 0, "its term is missing");
    check(follower, &|m| m.term = u64::MAX, "no group reaches");
    check(follower, &|m| m.index = u64::MAX, "no log reaches");
    check(follower, &|m| m.from = 0, "from nobody else");
    check(follower, &|m| m.from = m.to, "from nobody else");
    check(
        follower,
        &|m| m.set_msg_type(MessageType::MsgPropose),
        "do not send such",
    );
    check(
        follower,
        &|m| m.request_snapshot = 9,
        "do not ask for snapshots",
    );
    let apart = |m: &mut Message| m.mut_entries().push(entry(last + 2, term));
    check(follower, &apart, "do not follow each other");
    let backwards = |m: &mut Message| m.mut_entries().push(entry(last + 1, term - 1));
    check(follower, &backwards, "do not follow each other");
    let later = |m: &mut Message| m.mut_entries().push(entry(last + 1, term + 1));
    check(follower, &later, "later term than their leader");
    check(
        follower,
        &|m| m.set_msg_type(MessageType::MsgReadIndexResp),
        "one context",
    );
    check(leader, &|_| {}, "leads in its term");
    let vote = |m: &mut Message| {
        m.set_msg_type(MessageType::MsgRequestPreVote);
        m.term = term + 1;
        (m.commit, m.commit_term) = (last, term + 1);
    };
    check(follower, &vote, "not what is committed here");
    let ahead = |m: &mut Message| {
        m.set_msg_type(MessageType::MsgAppendResponse);
        m.index = last + 1;
    };
    check(leader, &ahead, "it is not counted");
    let snapshot = |m: &mut Message| m.set_msg_type(MessageType::MsgSnapshot);
    check(follower, &snapshot, "of no place in the log");
    let members = |m: &mut Message| {
        m.set_msg_type(MessageType::MsgSnapshot);
        let metadata = m.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (last + 5, term);
        metadata.set_conf_state(ConfState::from((vec![1, 1], vec![2])));
    };
    check(follower, &members, "members that cannot be");
}
