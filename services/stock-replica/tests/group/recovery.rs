//! What is left of a group goes on alone when the others are lost for good.

use stock_replica::{Ballot, Change, Configuration, Ending, Extent, Replay, Restored};

use crate::{Cluster, Disk, Node, entry};

/// A later replica on node 4.
const NEW: u64 = 9 << 32 | 4;

fn replay(disk: &Disk, id: u64, extent: Extent) -> (Ending, usize) {
    let stored = disk.0.lock().unwrap();
    let (applied, state) = stored.checkpoint.clone();
    let last = stored.entries.keys().next_back();
    let restored = Restored {
        state: stored.state.clone(),
        last_index: last.map_or(stored.origin.index, |last| *last),
        origin: stored.origin.clone(),
        applied,
        reader: Box::new(disk.clone()),
    };
    drop(stored);
    let mut replay = Replay::open(id, restored, extent).unwrap();
    let mut entries = state.len();
    while let Some(committed) = replay.next_entries() {
        entries += committed.iter().filter(|one| !one.data.is_empty()).count();
    }
    (replay.ending(), entries)
}

/// Makes a node that does not run the only voter of its group.
fn force(disk: &Disk, id: u64) {
    let (ending, _) = replay(disk, id, Extent::Everything);
    let forced = ending.force_only_voter(id, vec![b"told".to_vec()]);
    let mut stored = disk.0.lock().unwrap();
    let places = (forced.first_index..).zip(forced.entries);
    stored.entries.extend(places);
    stored.state = Some(forced.state);
}

#[test]
fn the_last_replica_leads_alone_and_grows_a_group_again() {
    let mut cluster = Cluster::new();
    for number in 0..5 {
        cluster.propose(number);
    }
    cluster.settle();
    // Entries that nobody acknowledged: they are in one log only.
    let left = cluster.leader();
    for number in 5..7 {
        let data = entry(number).to_vec();
        cluster.replica(left).propose(data).unwrap();
    }
    let mut lost = Default::default();
    let node = cluster.nodes.get_mut(&left).unwrap();
    node.turn(&mut lost, None);
    let disk = node.disk.clone();
    cluster.nodes.retain(|id, _| *id == left);
    cluster.network.clear();

    let (ending, entries) = replay(&disk, left, Extent::Committed);
    assert_eq!(entries, 5, "as a start of the replica would go");
    assert_eq!(ending.committed.voters, [1, 2, 3]);
    let (ending, entries) = replay(&disk, left, Extent::Everything);
    assert_eq!(entries, 7);
    assert!(!ending.point.configuration.has_majority(|id| id == left));

    force(&disk, left);
    cluster.nodes.get_mut(&left).unwrap().restart();
    assert_eq!(cluster.leader(), left);
    let node = &cluster.nodes[&left];
    let alone = Configuration::of_voters(vec![left]);
    assert_eq!(*node.replica.configuration(), alone);
    let mut expected: Vec<_> = (0..7).map(entry).collect();
    expected.push(b"told"[..].into());
    assert_eq!(node.applied, expected);

    cluster.propose(7);
    expected.push(entry(7));
    cluster
        .replica(left)
        .propose_change(Change::AddLearner(NEW))
        .unwrap();
    cluster.deliver();
    cluster.nodes.get_mut(&left).unwrap().checkpoint();
    let unknown = stock_replica::Point::unknown();
    cluster.nodes.insert(NEW, Node::new(NEW, unknown));
    cluster.settle();
    cluster
        .replica(left)
        .propose_change(Change::Promote(NEW))
        .unwrap();
    cluster.deliver();
    cluster.settle();
    for node in cluster.nodes.values() {
        assert_eq!(node.applied, expected);
        assert_eq!(node.replica.configuration().voters, [left, NEW]);
    }
}

#[test]
fn a_half_done_change_of_members_is_left_before_the_others_go() {
    let mut cluster = Cluster::new();
    cluster.propose(0);
    cluster.settle();
    let left = cluster.leader();
    let learner = cluster
        .replica(left)
        .propose_change(Change::AddLearner(NEW));
    learner.unwrap();
    cluster.deliver();
    cluster.settle();
    let remove = 1 + left % 3;
    let replace = Change::Replace { add: NEW, remove };
    cluster.replica(left).propose_change(replace).unwrap();
    cluster.deliver();
    let disk = cluster.nodes[&left].disk.clone();
    let (ending, _) = replay(&disk, left, Extent::Everything);
    assert!(ending.point.configuration.is_joint());
    // A majority of the voters before and after is needed.
    let both = [left, remove];
    let is_left = |id: u64| both.contains(&id);
    assert!(!ending.point.configuration.has_majority(is_left));

    cluster.nodes.retain(|id, _| *id == left);
    cluster.network.clear();
    force(&disk, left);
    cluster.nodes.get_mut(&left).unwrap().restart();
    assert_eq!(cluster.leader(), left);
    let alone = Configuration::of_voters(vec![left]);
    assert_eq!(*cluster.nodes[&left].replica.configuration(), alone);
}

#[test]
fn a_replica_that_only_listened_can_be_what_is_left() {
    let mut cluster = Cluster::new();
    cluster.propose(0);
    let leader = cluster.leader();
    let learner = Change::AddLearner(NEW);
    cluster.replica(leader).propose_change(learner).unwrap();
    cluster.deliver();
    cluster.nodes.get_mut(&leader).unwrap().checkpoint();
    let unknown = stock_replica::Point::unknown();
    cluster.nodes.insert(NEW, Node::new(NEW, unknown));
    cluster.settle();
    cluster.propose(1);
    cluster.settle();
    let disk = cluster.nodes[&NEW].disk.clone();
    let stored = disk.0.lock().unwrap().state.clone().unwrap();
    let before = Ballot::from_bytes(&stored).unwrap();
    cluster.nodes.retain(|id, _| *id == NEW);
    cluster.network.clear();
    force(&disk, NEW);
    let stored = disk.0.lock().unwrap().state.clone().unwrap();
    let ballot = Ballot::from_bytes(&stored).unwrap();
    assert!(ballot.term > before.term, "whatever voted before is over");
    cluster.nodes.get_mut(&NEW).unwrap().restart();
    assert_eq!(cluster.leader(), NEW);
    let expected: Vec<bytes::Bytes> = vec![entry(0), entry(1), b"told"[..].into()];
    assert_eq!(cluster.nodes[&NEW].applied, expected);
}
