//! Replicas that have forgotten what they acknowledged: found, and not listened to.
//!
//! Raft has no answer to a voter that forgot: with two of three alive, one that forgot elects a
//! leader without what it acknowledged together with the third. So none must vote once it can be
//! known, and where two logs contradict each other, nobody answers from either.

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Message, MessageType, Snapshot};
use stock_replica::{
    Change, Contradiction, OpenError, Outgoing, Point, Replica, Restored, Settings, StepError,
};

use crate::{Cluster, Node, WINDOW_BYTES, entry};

impl Cluster {
    /// Led by replica 1, with these entries committed everywhere.
    fn with_entries(count: usize) -> Self {
        let mut cluster = Self::new();
        cluster.replica(1).campaign();
        cluster.deliver();
        for number in 0..count {
            cluster.propose(number);
        }
        cluster.settle();
        assert_eq!(cluster.leader(), 1);
        cluster
    }

    /// Messages of one replica to another, as they come from its next turns and ticks.
    fn messages(&mut self, from: u64, to: u64) -> Vec<Outgoing> {
        let node = self.nodes.get_mut(&from).unwrap();
        node.replica.tick();
        node.replica.tick();
        let mut network = Default::default();
        node.turn(&mut network, None);
        let network = network.into_iter().map(|(_, message)| message);
        network.filter(|message| message.to == to).collect()
    }
}

impl Node {
    fn last_index(&self) -> u64 {
        self.replica.last_index()
    }

    /// The end of the log is gone, as after a disk that lied or a file that was cut.
    fn lose_the_end(&mut self, entries: u64, with_state: bool) {
        let mut stored = self.disk.0.lock().unwrap();
        let last = *stored.entries.keys().next_back().unwrap();
        stored.entries.split_off(&(last + 1 - entries));
        if with_state {
            stored.state = None;
        }
    }
}

/// What a replica says to messages, the first refusal.
fn refusal(replica: &mut Replica, messages: &[Outgoing]) -> Option<StepError> {
    let mut messages = messages.iter();
    messages.find_map(|message| replica.step(&message.payload).err())
}

#[test]
fn who_is_told_of_commits_beyond_its_log_has_lost_its_end() {
    let mut cluster = Cluster::with_entries(5);
    let node = cluster.nodes.get_mut(&3).unwrap();
    let last = node.last_index();
    node.lose_the_end(2, true);
    node.restart();
    let heartbeats = cluster.messages(1, 3);
    let refused = refusal(cluster.replica(3), &heartbeats);
    let lost = Contradiction::LostEntries {
        commit: last,
        last_index: last - 2,
    };
    assert!(
        matches!(refused, Some(StepError::Contradiction(found)) if found == lost),
        "{refused:?}"
    );
}

/// raft says 0 for the term of an entry that was dropped from the log, as if there were another.
#[test]
fn an_append_that_was_held_up_contradicts_nothing_that_was_dropped_from_the_log() {
    let mut cluster = Cluster::with_entries(3);
    let proposed = cluster.replica(1).propose(entry(3).to_vec());
    proposed.unwrap();
    let held_up = cluster.messages(1, 3);
    assert!(refusal(cluster.replica(3), &held_up).is_none());
    cluster.settle();
    for number in 4..7 {
        cluster.propose(number);
    }
    cluster.settle();
    let node = cluster.nodes.get_mut(&3).unwrap();
    assert_eq!(node.applied.len(), 7);
    node.checkpoint();
    let refused = refusal(&mut node.replica, &held_up);
    assert!(refused.is_none(), "{refused:?}");
}

#[test]
fn a_log_that_ends_before_what_is_known_to_be_committed_is_not_opened() {
    let mut cluster = Cluster::with_entries(5);
    // Its vote is written together with what it knows of commits.
    cluster.replica(2).campaign();
    cluster.settle();
    cluster.replica(1).campaign();
    cluster.settle();
    let node = cluster.nodes.get_mut(&3).unwrap();
    node.lose_the_end(4, false);
    let stored = node.disk.0.lock().unwrap();
    let restored = Restored {
        state: stored.state.clone(),
        last_index: *stored.entries.keys().next_back().unwrap(),
        origin: stored.origin.clone(),
        applied: stored.checkpoint.0.clone(),
        reader: Box::new(node.disk.clone()),
    };
    let last = restored.last_index;
    drop(stored);
    let opened = Replica::open(&Settings::new(3, WINDOW_BYTES), restored);
    let lost = opened.err();
    assert!(
        matches!(
            lost,
            Some(OpenError::LostEntries { known, last_index })
                if known > last && last_index == last
        ),
        "{lost:?}"
    );
}

#[test]
fn an_acknowledgement_beyond_the_leaders_log_counts_for_nothing() {
    let mut cluster = Cluster::with_entries(2);
    let copies = [1, 2].map(|id| (id, cluster.nodes[&id].disk.copy()));
    for number in 2..6 {
        cluster.propose(number);
    }
    cluster.settle();
    // Two of three are put back to an older copy, and elect one of them.
    for (id, copy) in copies {
        let node = cluster.nodes.get_mut(&id).unwrap();
        node.disk = copy;
        node.restart();
    }
    let third = cluster.nodes.remove(&3).unwrap();
    cluster.replica(1).campaign();
    cluster.deliver();
    assert_eq!(cluster.leader(), 1);
    cluster.nodes.insert(3, third);
    cluster.nodes.remove(&2);

    let mut told = Vec::new();
    for _ in 0..3 {
        for message in cluster.messages(1, 3) {
            told.extend(cluster.replica(3).step(&message.payload).err());
        }
        let answers = cluster.messages(3, 1);
        told.extend(refusal(cluster.replica(1), &answers));
    }
    // The third sees that its leader contradicts it; whatever it has said before was not counted.
    let contradicts = |error: &StepError| {
        matches!(
            error,
            StepError::Contradiction(Contradiction::CommittedDiffers { .. })
        )
    };
    assert!(told.iter().any(contradicts), "{told:?}");
    let leader = cluster.replica(1);
    let commit = leader.commit();
    leader.propose(entry(9).to_vec()).unwrap();
    cluster.deliver();
    let leader = cluster.replica(1);
    assert_eq!(leader.commit(), commit, "nobody but itself has the entry");
    let followers = leader.followers();
    let third = followers.iter().find(|follower| follower.replica == 3);
    assert!(third.is_some_and(|third| third.matched <= leader.last_index()));
}

/// More of them than a turn applies.
fn large_entry() -> Vec<u8> {
    vec![1; 400 * 1024]
}

#[test]
fn who_replays_does_not_stand_with_members_of_yesterday() {
    const NEW: u64 = 4 | 1 << 32;
    let mut cluster = Cluster::with_entries(1);
    for _ in 0..40 {
        cluster.replica(1).propose(large_entry()).unwrap();
        cluster.deliver();
    }
    cluster.settle();
    cluster.nodes.get_mut(&1).unwrap().checkpoint();
    // Replica 2 restarts, and has most of its log still to apply while the members change.
    let node = cluster.nodes.get_mut(&2).unwrap();
    node.restart();
    node.turns_max = 1;
    cluster.nodes.insert(NEW, Node::new(NEW, Point::unknown()));
    let replace = Change::Replace {
        add: NEW,
        remove: 3,
    };
    let removed = cluster.nodes[&3].applied.len();
    for change in [Change::AddLearner(NEW), replace, Change::LeaveJoint] {
        cluster.replica(1).propose_change(change).unwrap();
        cluster.deliver_among(&[1, 2, NEW]);
        if cluster.replica(1).wants_snapshot() {
            cluster.nodes.get_mut(&1).unwrap().checkpoint();
        }
        cluster.replica(1).ping();
        cluster.deliver_among(&[1, 2, NEW]);
    }
    assert!(
        cluster.nodes[&2].applied.len() < removed,
        "it still replays"
    );
    assert_eq!(cluster.replica(1).configuration().voters, [1, 2, NEW]);
    assert!(cluster.replica(2).configuration().voters == [1, 2, 3]);

    // The leader hands over; then replica 2 hears only the one that was removed.
    assert!(cluster.replica(1).transfer_leadership(2));
    for message in cluster.messages(1, 2) {
        let node = cluster.nodes.get_mut(&2).unwrap();
        let _ = node.replica.step(&message.payload);
        node.turn(&mut cluster.network, None);
    }
    cluster.deliver_among(&[2, 3]);
    assert!(
        !cluster.replica(2).is_leader(),
        "elected by a replica that has no vote"
    );
    // With the leader back, it goes on.
    let node = cluster.nodes.get_mut(&2).unwrap();
    node.turns_max = usize::MAX;
    cluster.nodes.remove(&3);
    cluster.settle();
    let data = Bytes::from_static(b"after it");
    let leader = cluster.leader();
    cluster.replica(leader).propose(data.to_vec()).unwrap();
    cluster.deliver();
    cluster.settle();
    for node in cluster.nodes.values() {
        assert_eq!(node.applied.last(), Some(&data));
    }
}

#[test]
fn a_snapshot_of_an_earlier_term_than_what_is_committed_is_of_another_history() {
    let mut cluster = Cluster::with_entries(3);
    let follower = cluster.replica(2);
    let (own, term, commit) = (follower.replica_id(), follower.term(), follower.commit());
    let snapshot = |index: u64, of_term: u64| {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        (message.from, message.to, message.term) = (1, own, term);
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, of_term);
        metadata.set_conf_state(ConfState::from((vec![1, 2, 3], Vec::new())));
        message.set_snapshot(snapshot);
        Bytes::from(message.write_to_bytes().unwrap())
    };
    // Terms never fall along a log.
    let refused = follower.step(&snapshot(commit + 5, term - 1));
    let contradicts = matches!(
        refused,
        Err(StepError::Contradiction(Contradiction::CommittedDiffers { index, .. }))
            if index == commit
    );
    assert!(contradicts, "{refused:?}");
    assert!(follower.step(&snapshot(commit + 5, term)).is_ok());
}
