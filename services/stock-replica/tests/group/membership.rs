//! Who is a member, and how one that lacks the log is brought up to date.

use stock_replica::{Change, ChangeError, Configuration, Point, StepError};

use crate::{Cluster, ELECTION_ROUNDS_MAX, Node, entry};

/// A later replica on node 3.
const NEW: u64 = 4 << 32 | 3;

fn entries(numbers: std::ops::Range<usize>) -> Vec<bytes::Bytes> {
    numbers.map(entry).collect()
}

/// Makes a change, and lets everybody hear of it.
fn change(cluster: &mut Cluster, change: Change) {
    let leader = cluster.leader();
    cluster.replica(leader).propose_change(change).unwrap();
    cluster.deliver();
    cluster.settle();
}

/// Moves leadership away from a replica.
fn lead_elsewhere(cluster: &mut Cluster, than: u64) -> u64 {
    let leader = cluster.leader();
    if leader != than {
        return leader;
    }
    cluster.tick();
    cluster.tick();
    assert!(cluster.replica(than).transfer_leadership(1 + than % 3));
    cluster.deliver();
    cluster.leader()
}

/// A cluster that has one entry, and its leader, which is not replica 3: that one gives way to the
/// new one, and has not left yet.
fn in_a_joint_change() -> (Cluster, u64) {
    let mut cluster = Cluster::new();
    cluster.propose(0);
    let leader = lead_elsewhere(&mut cluster, 3);
    change(&mut cluster, Change::AddLearner(NEW));
    cluster.nodes.insert(NEW, Node::new(NEW, Point::unknown()));
    cluster.settle();
    cluster.nodes.get_mut(&leader).unwrap().checkpoint();
    cluster.settle();
    let replace = Change::Replace {
        add: NEW,
        remove: 3,
    };
    change(&mut cluster, replace);
    (cluster, leader)
}

#[test]
fn a_follower_that_was_away_too_long_is_sent_a_snapshot() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader();
    let away = 1 + leader % 3;
    let node = cluster.nodes.remove(&away).unwrap();
    for number in 0..20 {
        cluster.propose(number);
    }
    cluster.nodes.get_mut(&leader).unwrap().checkpoint();
    cluster.propose(20);
    cluster.nodes.insert(away, node);
    cluster.settle();
    assert_eq!(cluster.nodes[&away].applied, entries(0..21));
    assert_eq!(cluster.nodes[&away].replica.origin().index, 22);

    // It is a member like any other, also after a restart.
    cluster.nodes.get_mut(&away).unwrap().restart();
    cluster.propose(21);
    cluster.settle();
    assert_eq!(cluster.nodes[&away].applied, entries(0..22));
}

#[test]
fn a_replica_is_replaced_by_one_with_an_empty_disk() {
    let mut cluster = Cluster::new();
    for number in 0..5 {
        cluster.propose(number);
    }
    let leader = lead_elsewhere(&mut cluster, 3);
    cluster.nodes.remove(&3);
    change(&mut cluster, Change::AddLearner(NEW));
    cluster.nodes.insert(NEW, Node::new(NEW, Point::unknown()));
    cluster.settle();
    assert!(
        cluster.replica(leader).wants_snapshot(),
        "the newcomer lacks the beginning of the log"
    );
    assert!(cluster.nodes[&NEW].applied.is_empty());

    cluster.nodes.get_mut(&leader).unwrap().checkpoint();
    assert!(!cluster.replica(leader).wants_snapshot());
    cluster.settle();
    cluster.propose(5);
    cluster.settle();
    assert_eq!(cluster.nodes[&NEW].applied, entries(0..6));

    let replace = Change::Replace {
        add: NEW,
        remove: 3,
    };
    change(&mut cluster, replace);
    let joint = cluster.replica(leader).configuration().clone();
    assert_eq!((joint.voters.len(), joint.outgoing), (3, vec![1, 2, 3]));
    change(&mut cluster, Change::LeaveJoint);
    for node in cluster.nodes.values() {
        let expected = Configuration::of_voters(vec![1, 2, NEW]);
        assert_eq!(*node.replica.configuration(), expected);
    }

    // The new one counts: with an old one gone, it and the leader are the majority.
    let gone = 3 - leader;
    cluster.nodes.remove(&gone);
    cluster.propose(6);
    assert_eq!(cluster.nodes[&leader].applied, entries(0..7));
}

/// A cluster whose leader is asked for a snapshot by a learner that lacks the beginning of the log.
fn asked_for_a_snapshot() -> (Cluster, u64) {
    let mut cluster = Cluster::new();
    cluster.propose(0);
    let leader = lead_elsewhere(&mut cluster, 3);
    change(&mut cluster, Change::AddLearner(NEW));
    cluster.nodes.insert(NEW, Node::new(NEW, Point::unknown()));
    cluster.settle();
    assert!(cluster.replica(leader).wants_snapshot());
    (cluster, leader)
}

/// Time passes, and states are written down, for as long as the leader has to notice that nobody
/// asks any more.
fn write_states_down(cluster: &mut Cluster, leader: u64) {
    for number in 1..4 {
        cluster.propose(number);
        cluster.nodes.get_mut(&leader).unwrap().checkpoint();
        cluster.settle();
    }
}

#[test]
fn a_snapshot_is_wanted_for_as_long_as_somebody_asks_for_it() {
    let (mut cluster, leader) = asked_for_a_snapshot();
    for _ in 0..10 {
        cluster.settle();
        assert!(cluster.replica(leader).wants_snapshot(), "it asks again");
    }
    // No state that was written down since has it as a member.
    change(&mut cluster, Change::RemoveLearner(NEW));
    cluster.nodes.remove(&NEW);
    write_states_down(&mut cluster, leader);
    assert!(!cluster.replica(leader).wants_snapshot(), "it has left");
}

#[test]
fn nobody_is_written_a_snapshot_who_is_not_there_to_take_it() {
    let (mut cluster, leader) = asked_for_a_snapshot();
    let away = cluster.nodes.remove(&NEW).unwrap();
    cluster.settle();
    assert!(!cluster.replica(leader).wants_snapshot(), "it is away");
    cluster.nodes.insert(NEW, away);
    cluster.settle();
    assert!(cluster.replica(leader).wants_snapshot(), "it is back");
    cluster.nodes.get_mut(&leader).unwrap().checkpoint();
    cluster.settle();
    assert_eq!(cluster.nodes[&NEW].applied, entries(0..1));
    assert!(!cluster.replica(leader).wants_snapshot());
}

#[test]
fn a_leader_that_has_lost_its_vote_lets_others_lead() {
    let (mut cluster, leader) = in_a_joint_change();

    // It does not take its own vote away...
    assert!(cluster.replica(leader).transfer_leadership(3));
    cluster.deliver();
    assert_eq!(cluster.leader(), 3);
    let refused = cluster.replica(3).propose_change(Change::LeaveJoint);
    assert_eq!(refused, Err(ChangeError::RemovesLeader));
    cluster.settle();
    assert!(cluster.replica(3).transfer_leadership(leader));
    cluster.deliver();

    // ...but an earlier leader may have: only replica 3 has what it wrote last.
    assert_eq!(cluster.leader(), leader);
    let other = 3 - leader;
    let away = [other, NEW].map(|id| (id, cluster.nodes.remove(&id).unwrap()));
    let left = cluster.replica(leader).propose_change(Change::LeaveJoint);
    assert!(left.is_ok());
    cluster.deliver();
    cluster.nodes.remove(&leader);
    cluster.nodes.extend(away);
    // It is elected, finds out in the turn in which that is committed, and lets others lead.
    assert_ne!(cluster.leader(), 3);
    cluster.propose(1);
    // A follower hears that it is committed with what comes next.
    cluster.settle();
    assert_eq!(cluster.nodes[&other].applied, entries(0..2));
}

#[test]
fn a_leader_that_has_lost_its_vote_answers_no_read_alone() {
    let mut cluster = Cluster::new();
    cluster.replica(1).campaign();
    cluster.deliver();
    cluster.settle();
    change(&mut cluster, Change::RemoveVoter(2));
    cluster.settle();
    cluster.nodes.remove(&2);
    // Replica 3 has written down that it goes, and its leader dies before it knows.
    cluster
        .replica(1)
        .propose_change(Change::RemoveVoter(3))
        .unwrap();
    cluster
        .nodes
        .get_mut(&1)
        .unwrap()
        .turn(&mut cluster.network, None);
    while let Some((_, message)) = cluster.network.pop_front() {
        let follower = cluster.nodes.get_mut(&message.to).unwrap();
        follower.replica.step(&message.payload).unwrap();
        follower.turn(&mut Default::default(), None);
    }
    cluster.nodes.get_mut(&1).unwrap().restart();
    cluster.replica(3).campaign();
    while cluster.replica(3).configuration().voters != [1] {
        let mut network = std::mem::take(&mut cluster.network);
        for node in cluster.nodes.values_mut() {
            node.turn(&mut network, None);
        }
        for (_, message) in network {
            let node = cluster.nodes.get_mut(&message.to).unwrap();
            let _ = node.replica.step(&message.payload);
            node.turn(&mut cluster.network, None);
        }
    }
    // Whatever replica 1 does from now on, replica 3 would not know.
    let has_asked = cluster.replica(3).read_index(b"read".to_vec());
    let answered = cluster.replica(3).prepare().reads;
    assert_eq!((has_asked, answered), (false, vec![]));
}

#[test]
fn a_restart_finds_the_members_of_its_own_index() {
    let mut cluster = Cluster::new();
    let leader = lead_elsewhere(&mut cluster, 3);
    cluster.propose(0);
    cluster.nodes.get_mut(&leader).unwrap().checkpoint();
    change(&mut cluster, Change::RemoveVoter(3));
    cluster.nodes.remove(&3);
    cluster.propose(1);
    for node in cluster.nodes.values_mut() {
        node.restart();
        assert_eq!(node.replica.configuration().voters, [1, 2, 3]);
    }
    cluster.settle();
    for node in cluster.nodes.values() {
        assert_eq!(node.replica.configuration().voters, [1, 2]);
        assert_eq!(node.applied, entries(0..2));
    }
}

#[test]
fn a_message_for_the_replica_before_is_not_taken() {
    let mut cluster = Cluster::new();
    let leader = lead_elsewhere(&mut cluster, 3);
    let data = entry(0).to_vec();
    cluster.replica(leader).propose(data).unwrap();
    let prepared = cluster.replica(leader).prepare();
    let to_old = prepared.messages.iter().find(|message| message.to == 3);
    let mut new = Node::new(NEW, Point::unknown());
    let refused = new.replica.step(&to_old.unwrap().payload);
    assert!(matches!(refused, Err(StepError::NotForThis { to: 3 })));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new();
    let leader = lead_elsewhere(&mut cluster, 3);
    let check = |cluster: &mut Cluster, change, expected| {
        assert_eq!(
            cluster.replica(leader).propose_change(change),
            Err(expected),
            "{change:?}"
        );
    };
    check(&mut cluster, Change::Promote(NEW), ChangeError::Members);
    check(&mut cluster, Change::Promote(3), ChangeError::Members);
    check(&mut cluster, Change::AddLearner(3), ChangeError::Members);
    check(
        &mut cluster,
        Change::RemoveLearner(NEW),
        ChangeError::Members,
    );
    check(&mut cluster, Change::RemoveVoter(NEW), ChangeError::Members);
    // It was one when somebody wanted it gone.
    check(&mut cluster, Change::RemoveLearner(3), ChangeError::Members);
    check(&mut cluster, Change::LeaveJoint, ChangeError::Joint);
    let own = Change::RemoveVoter(leader);
    check(&mut cluster, own, ChangeError::RemovesLeader);
    let follower = 3;
    assert_eq!(
        cluster
            .replica(follower)
            .propose_change(Change::AddLearner(NEW)),
        Err(ChangeError::NotLeader)
    );
    cluster
        .replica(leader)
        .propose_change(Change::AddLearner(NEW))
        .unwrap();
    check(&mut cluster, Change::RemoveVoter(3), ChangeError::Busy);
    cluster.deliver();
    cluster.settle();
    let learners = &cluster.replica(leader).configuration().learners;
    assert_eq!(*learners, [NEW]);
}

#[test]
fn the_leader_knows_how_far_everybody_is() {
    let mut cluster = Cluster::new();
    let leader = lead_elsewhere(&mut cluster, 3);
    cluster.nodes.remove(&3);
    cluster.propose(0);
    cluster.propose(1);
    for _ in 0..60 {
        cluster.tick();
    }
    let last = cluster.replica(leader).last_index();
    let followers = cluster.replica(leader).followers();
    let active: Vec<_> = followers
        .iter()
        .map(|follower| {
            (
                follower.replica,
                follower.is_active,
                follower.matched == last,
            )
        })
        .collect();
    assert_eq!(active, [(3 - leader, true, true), (3, false, false)]);
}

#[test]
fn who_is_left_alone_elects_itself_after_a_restart_though_those_who_left_are_gone() {
    let mut cluster = Cluster::new();
    cluster.propose(0);
    let leader = lead_elsewhere(&mut cluster, 3);
    let other = 3 - leader;
    change(&mut cluster, Change::RemoveVoter(3));
    cluster.nodes.remove(&3);
    let removed = cluster
        .replica(leader)
        .propose_change(Change::RemoveVoter(other));
    assert!(removed.is_ok());
    cluster.deliver();
    // As soon as this is reported, the one that left is destroyed.
    assert!(cluster.replica(leader).quorum_knows_members());
    assert_eq!(cluster.replica(leader).configuration().voters, [leader]);
    cluster.nodes.remove(&other);
    cluster.nodes.get_mut(&leader).unwrap().restart();
    assert_eq!(cluster.leader(), leader);
    cluster.propose(1);
    assert_eq!(cluster.nodes[&leader].applied, entries(0..2));
}

#[test]
fn a_change_that_only_the_leader_knows_to_be_committed_is_not_reported() {
    let (mut cluster, leader) = in_a_joint_change();
    assert!(cluster.replica(leader).quorum_knows_members());

    // The others have the entry that ends it, and nobody tells them that it is committed.
    let left = cluster.replica(leader).propose_change(Change::LeaveJoint);
    assert!(left.is_ok());
    cluster.deliver_quietly(leader);
    assert!(!cluster.replica(leader).configuration().is_joint());
    assert!(!cluster.replica(leader).quorum_knows_members());
    let other = 3 - leader;
    assert!(cluster.replica(other).configuration().is_joint());

    // Were the one that left destroyed now, these two would have no leader without this one.
    let gone = cluster.nodes.remove(&3).unwrap();
    let lost = cluster.nodes.remove(&leader).unwrap();
    for _ in 0..ELECTION_ROUNDS_MAX {
        cluster.tick();
    }
    assert!(
        [other, NEW]
            .iter()
            .all(|id| !cluster.nodes[id].replica.is_leader())
    );

    // Once they know, they have one.
    cluster.nodes.insert(leader, lost);
    cluster.nodes.insert(3, gone);
    cluster.settle();
    let leads = cluster.leader();
    assert!(cluster.replica(leads).quorum_knows_members());
    cluster.nodes.remove(&3);
    cluster.nodes.remove(&leads);
    cluster.leader();
}
