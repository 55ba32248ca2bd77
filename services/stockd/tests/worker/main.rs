//! Loops of several nodes in one thread, each on a directory of its own: what a replica does that
//! must not go on, and what nobody can make it do.

mod coming_back;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stock_cluster::identity::Acquaintances;
use stock_cluster::{
    Directory, Founder, GroupId, Order, Policy, REPORT_EVERY_MS, ReplicaId, Speaks,
};
use stock_core::{Principal, Secret, Stamp};
use stock_node::answer::{Answer, Freshness, Question};
use stock_node::checkpoint::Image;
use stock_node::clock::Now;
use stock_node::event::{Effect, Event};
use stock_node::notice::Notice;
use stock_node::standing::ClusterState;
use stock_node::state::State;
use stock_node::view::ReadView;
use stock_node::worker::{
    Founding, TICK_MS, USUAL_AUDIT_EVERY_MS, USUAL_CHECKPOINT_PACE, USUAL_COMMITTED_BYTES, Worker,
    WorkerParts,
};
use stock_replica::{EntryReader, Point};
use stock_storage::{CheckpointStore, LogOptions, OnDamage, OsVolume, Volume};
use stockd::directory::disk::{Disk, GroupReader, LogWriter, Written};
use stockd::directory::{bring_back, checkpoint_files};
use tempfile::TempDir;

const NODES: [u64; 3] = [1, 2, 3];
const GROUPS: u32 = 2;
const LIFE: u128 = 7;
const SHARD: GroupId = GroupId(1);

/// Longest election timeout and what follows it, in ticks.
const ELECTION_TICKS: u64 = 60;

struct Node {
    worker: Worker<u64>,
    log: LogWriter,
    cluster: Arc<ClusterState>,
    store: CheckpointStore,
    answers: Vec<Answer>,
}

/// Nodes that founded a cluster together, and the messages between them.
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    dirs: BTreeMap<u64, TempDir>,
    boot_ms: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            dirs: NODES.map(|node| (node, TempDir::new().unwrap())).into(),
            boot_ms: 0,
        };
        NODES.into_iter().for_each(|node| cluster.start(node));
        cluster
    }

    fn start(&mut self, node: u64) {
        let node_opened = open(node, self.dirs[&node].path(), self.now());
        self.nodes.insert(node, node_opened);
    }

    fn stop(&mut self, node: u64) {
        self.nodes.remove(&node);
    }

    /// A copy of a node's directory, made while it does not run.
    fn copy(&mut self, node: u64) -> TempDir {
        self.stop(node);
        let copy = TempDir::new().unwrap();
        copy_files(self.dirs[&node].path(), copy.path());
        self.start(node);
        copy
    }

    fn now(&self) -> Now {
        Now {
            boot_ms: self.boot_ms,
            wall_ms: 1_790_000_000_000 + self.boot_ms,
        }
    }

    fn ticks(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.boot_ms += TICK_MS;
            let mut events: Vec<(u64, Event<u64>)> = Vec::new();
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for node in ids {
                events.extend(self.turn(node, Vec::new()));
            }
            // Each answer to a message is another one.
            for _ in 0..20 {
                let mut next = Vec::new();
                for (to, event) in std::mem::take(&mut events) {
                    next.extend(self.turn(to, vec![event]));
                }
                events = next;
            }
        }
    }

    /// What a node sends after these events.
    fn turn(&mut self, from: u64, events: Vec<Event<u64>>) -> Vec<(u64, Event<u64>)> {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&from) else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        node.worker.step(now, events, &mut effects);
        self.finish(from, effects)
    }

    /// What a node sends in the turn that it has begun with these effects, and in those that follow
    /// from it.
    fn finish(&mut self, from: u64, mut effects: Vec<Effect<u64>>) -> Vec<(u64, Event<u64>)> {
        let now = self.now();
        let node = self.nodes.get_mut(&from).unwrap();
        let (worker, log) = (&mut node.worker, &mut node.log);
        loop {
            worker.answer(&mut effects).unwrap();
            assert_eq!(log.write_turn(worker).unwrap(), Written::All);
            worker.settle(&mut effects);
            worker.catch_up(now, &mut effects).unwrap();
            if !worker.has_work() {
                break;
            }
            worker.step(now, Vec::new(), &mut effects);
        }
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send {
                    to,
                    group,
                    payload,
                    cluster_time,
                } => {
                    let event = Event::Message {
                        group,
                        payload,
                        cluster_time,
                        from,
                    };
                    sent.push((to, event));
                }
                Effect::Answer { answer, .. } => node.answers.push(answer),
                _ => {}
            }
        }
        sent
    }

    /// Up to where a node has applied group 0's log.
    fn meta_applied(&self, node: u64) -> u64 {
        let hash = self.nodes[&node].worker.state_hash(GroupId::META);
        hash.map_or(0, |(index, _)| index)
    }

    fn order(&mut self, node: u64, order: Order) {
        let notice = Notice::Order {
            term: 100,
            order: Box::new(order),
        };
        let event = Event::Notice { from: 3, notice };
        let sent = self.turn(node, vec![event]);
        for (to, event) in sent {
            self.turn(to, vec![event]);
        }
    }

    fn failure(&self, node: u64) -> Option<String> {
        let mut failures = self.nodes[&node].worker.failures();
        let found = failures.find(|(group, _)| *group == SHARD);
        found.map(|(_, why)| why.to_owned())
    }

    /// The index that a replica has applied, if there is one that works.
    fn applied(&self, node: u64) -> Option<u64> {
        let hash = self.nodes[&node].worker.state_hash(SHARD);
        hash.map(|(index, _)| index)
    }

    /// Whether a near read is answered from a state.
    fn answers(&mut self, node: u64) -> bool {
        let ask = Event::Read {
            group: SHARD,
            freshness: Freshness::Near,
            question: Question::Reached,
            reply: 0,
        };
        self.turn(node, vec![ask]);
        let answers = std::mem::take(&mut self.nodes.get_mut(&node).unwrap().answers);
        matches!(answers.last(), Some(Answer::Reached { .. }))
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => {
                std::fs::create_dir(&target).unwrap();
                copy_files(&entry.path(), &target);
            }
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn directory(node: u64) -> u128 {
    u128::from(node) << 64
}

fn open(node: u64, dir: &Path, now: Now) -> Node {
    open_of(&NODES, GROUPS, USUAL_COMMITTED_BYTES, node, dir, now)
}

/// A node of a cluster that these nodes found with so many groups, each of which applies so much in
/// a turn.
fn open_of(
    nodes: &[u64],
    groups: u32,
    committed_bytes_per_turn: u64,
    node: u64,
    dir: &Path,
    now: Now,
) -> Node {
    let volume: Arc<dyn Volume> = Arc::new(OsVolume);
    let founders = nodes.iter().map(|node| Founder {
        node: *node,
        directory: Directory(directory(*node)),
        grpc: format!("http://n{node}:1"),
        peers: format!("n{node}:2"),
    });
    let store = CheckpointStore::open(Arc::clone(&volume), dir).unwrap();
    let election = 14 + 4 * node as usize - 4;
    let cluster = Arc::new(ClusterState::new(node, groups, Acquaintances::default()));
    let disk = Disk::open(&volume, dir, &LogOptions::default(), OnDamage::Refuse).unwrap();
    let parts = WorkerParts {
        node,
        directory: directory(node),
        since: 0,
        lives: vec![LIFE],
        founding: Some(Founding {
            version: 1,
            incarnation: LIFE,
            replication: nodes.len() as u32,
            nodes: founders.collect(),
        }),
        is_founded: false,
        generation_floor: 0,
        policy: Policy::default(),
        principal: Principal::new("node").unwrap(),
        speaks: Speaks::THIS,
        groups,
        boot: node,
        entries: disk.entry_readers(),
        view: Arc::new(ReadView::new(groups - 1)),
        cluster: Arc::clone(&cluster),
        checkpoint_pace: USUAL_CHECKPOINT_PACE,
        audit_every_ms: USUAL_AUDIT_EVERY_MS,
        election_ticks: election..election + 1,
        committed_bytes_per_turn,
    };
    let ledger_indexes = vec![None; groups as usize];
    let (worker, log) = bring_back::open(parts, &disk, &store, &ledger_indexes, now).unwrap();
    Node {
        worker,
        log,
        cluster,
        store,
        answers: Vec::new(),
    }
}

#[test]
fn who_contradicts_its_leader_answers_nothing_and_a_restart_does_not_bring_it_back() {
    let mut cluster = Cluster::new();
    cluster.ticks(ELECTION_TICKS);
    let copies = [2, 3].map(|node| (node, cluster.copy(node)));
    // Long enough for entries that tell the time.
    cluster.ticks(1_000);
    let applied = cluster.applied(1).unwrap();
    assert!(applied > 4 && cluster.answers(1));
    cluster.stop(1);
    for (node, copy) in copies {
        cluster.stop(node);
        cluster.dirs.insert(node, copy);
        cluster.start(node);
    }
    cluster.ticks(ELECTION_TICKS);
    cluster.start(1);
    cluster.ticks(ELECTION_TICKS);
    let why = cluster.failure(1).expect("it contradicts its leader");
    assert!(why.contains("has forgotten what was acknowledged"), "{why}");
    assert!(!cluster.answers(1));

    cluster.stop(1);
    cluster.start(1);
    cluster.ticks(1);
    assert_eq!(cluster.failure(1).as_ref(), Some(&why));
    assert_eq!(cluster.applied(1), None);
    assert!(!cluster.answers(1));
    // Nor is it deleted, whoever orders it.
    let replica = ReplicaId::founding(1);
    let group = SHARD;
    cluster.order(1, Order::Destroy { group, replica });
    cluster.ticks(1);
    assert_eq!(cluster.failure(1), Some(why));
    // What it has is kept: with the log that knows more, an operator can go on.
    cluster.stop(1);
    let disk = open_disk(cluster.dirs[&1].path());
    let (_, last) = disk.bounds(u64::from(SHARD.0)).unwrap();
    assert!(last >= applied);
}

#[test]
fn a_state_that_a_replica_before_left_is_not_taken_and_deleted() {
    let mut cluster = Cluster::new();
    cluster.ticks(1_000);
    let applied = cluster.applied(1).unwrap();
    // The crash came between the batch of the new replica and the deletion of the old one's files.
    let label = |replica, index| Image {
        group: SHARD,
        replica,
        point: Point {
            index,
            ..Point::founding(NODES.to_vec())
        },
        stamp: Stamp(1),
        frozen: State::new(SHARD, Secret(1)).freeze(),
    };
    let store = cluster.nodes[&1].store.clone();
    let mut left = label(ReplicaId::new(3, 1), applied - 1);
    checkpoint_files::write(&store, LIFE, directory(1), &mut left).unwrap();
    let mut left = label(ReplicaId::founding(1), applied - 2);
    checkpoint_files::write(&store, LIFE + 1, directory(1), &mut left).unwrap();
    drop(store);
    cluster.stop(1);
    cluster.start(1);
    cluster.ticks(ELECTION_TICKS);
    let state = |node: u64| cluster.nodes[&node].worker.state_hash(SHARD);
    assert!(state(1).is_some() && state(1) == state(2));
    assert!(cluster.nodes[&1].store.list(u64::from(SHARD.0)).is_empty());
}

/// Its log was cut at a damage, so that it knows nothing of the replica that the snapshot was for;
/// and while one lies there no other is let in.
#[test]
fn a_snapshot_for_a_replica_that_was_forgotten_is_dropped_at_the_start() {
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let volume: Arc<dyn Volume> = Arc::new(OsVolume);
    let [sender, store] = [&dirs[0], &dirs[1]]
        .map(|dir| CheckpointStore::open(Arc::clone(&volume), dir.path()).unwrap());
    let mut image = Image {
        group: SHARD,
        replica: ReplicaId::founding(1),
        point: Point {
            index: 20,
            ..Point::founding(NODES.to_vec())
        },
        stamp: Stamp(1),
        frozen: State::new(SHARD, Secret(1)).freeze(),
    };
    let sent = checkpoint_files::write(&sender, LIFE, directory(1), &mut image).unwrap();
    let mut incoming = store
        .receive(sent.meta.clone(), sent.bytes, sent.hash)
        .unwrap();
    incoming
        .chunk(0, &std::fs::read(&sent.path).unwrap())
        .unwrap();
    incoming.finish().unwrap();
    assert_eq!(store.incoming(u64::from(SHARD.0)).len(), 1);
    drop(store);
    let now = Now {
        boot_ms: 0,
        wall_ms: 1_790_000_000_000,
    };
    let stranger = open(4, dirs[1].path(), now);
    assert!(stranger.store.incoming(u64::from(SHARD.0)).is_empty());
}

#[test]
fn a_state_that_is_newer_than_the_log_says_that_its_end_is_lost() {
    let mut cluster = Cluster::new();
    cluster.ticks(100);
    let applied = cluster.applied(1).unwrap();
    let mut newer = Image {
        group: SHARD,
        replica: ReplicaId::founding(1),
        point: Point {
            index: applied + 10,
            ..Point::founding(NODES.to_vec())
        },
        stamp: Stamp(1),
        frozen: State::new(SHARD, Secret(1)).freeze(),
    };
    let store = cluster.nodes[&1].store.clone();
    checkpoint_files::write(&store, LIFE, directory(1), &mut newer).unwrap();
    drop(store);
    cluster.stop(1);
    cluster.start(1);
    cluster.ticks(1);
    let why = cluster.failure(1).expect("the end of its log is lost");
    assert!(why.contains("it has lost what it acknowledged"), "{why}");
    // The other group goes on.
    assert!(cluster.nodes[&1].worker.state_hash(GroupId::META).is_some());
}

#[test]
fn a_voter_that_hears_its_leader_is_not_destroyed_by_what_a_deposed_one_said() {
    let mut cluster = Cluster::new();
    cluster.ticks(ELECTION_TICKS);
    let destroy = Order::Destroy {
        group: SHARD,
        replica: ReplicaId::founding(3),
    };
    cluster.order(3, destroy.clone());
    cluster.ticks(1);
    assert!(cluster.applied(3).is_some(), "it votes, and is led");
    // One that was taken out hears nobody.
    cluster.stop(1);
    cluster.stop(2);
    cluster.ticks(ELECTION_TICKS);
    cluster.order(3, destroy);
    cluster.ticks(1);
    assert_eq!((cluster.applied(3), cluster.failure(3)), (None, None));

    // Without a replica it knows a leader by what that one says, and for as long as it says so.
    let leader = |cluster: &Cluster| cluster.nodes[&3].cluster.group(SHARD).leader;
    let notice = Notice::Leads(vec![(SHARD, 100)]);
    cluster.turn(3, vec![Event::Notice { from: 1, notice }]);
    cluster.ticks(1);
    assert_eq!(leader(&cluster), Some(1));
    cluster.ticks(10 * REPORT_EVERY_MS / TICK_MS);
    assert_eq!(leader(&cluster), None);
}

#[test]
fn a_replica_begins_only_by_an_order_that_names_the_directory() {
    let mut cluster = Cluster::new();
    cluster.ticks(ELECTION_TICKS);
    let next = ReplicaId::new(5, 3);
    let begin = |directory: u128| Order::BeginReplica {
        group: SHARD,
        replica: next,
        directory: Directory(directory),
    };
    let before = cluster.applied(3);
    cluster.order(3, begin(directory(3) + 1));
    cluster.ticks(1);
    assert!(
        before.is_some() && cluster.applied(3) >= before,
        "another's"
    );
    // A founder's replica gives way to its successor, which has nothing yet.
    cluster.order(3, begin(directory(3)));
    cluster.ticks(1);
    assert_eq!(cluster.applied(3).map(|index| index == 0), Some(true));
    // It does not say that there is nothing.
    assert!(!cluster.answers(3) && cluster.answers(2));
}

/// What node 3 reports in the first step of a turn, before anything is durable.
fn reported(effects: &[Effect<u64>]) -> Option<Vec<ReplicaId>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Notify {
            notice: Notice::Reports(reports),
            ..
        } => {
            let replicas = reports.0.replicas.iter();
            let here = replicas.filter(|it| it.group == SHARD);
            Some(here.map(|it| it.replica).collect())
        }
        _ => None,
    })
}

#[test]
fn a_replica_that_begins_is_reported_once_its_disk_has_it() {
    let mut cluster = Cluster::new();
    cluster.ticks(ELECTION_TICKS);
    let next = ReplicaId::new(5, 3);
    let begin = Order::BeginReplica {
        group: SHARD,
        replica: next,
        directory: Directory(directory(3)),
    };
    // Reports go out every so many ticks: the order comes in the turn of one.
    for _ in 0..2 * REPORT_EVERY_MS / TICK_MS {
        cluster.boot_ms += TICK_MS;
        let now = cluster.now();
        let notice = Notice::Order {
            term: 100,
            order: Box::new(begin.clone()),
        };
        let is_turn_of_a_report =
            (cluster.boot_ms / TICK_MS).is_multiple_of(REPORT_EVERY_MS / TICK_MS);
        let events = match is_turn_of_a_report {
            true => vec![Event::Notice { from: 3, notice }],
            false => Vec::new(),
        };
        let mut effects = Vec::new();
        let Node { worker, log, .. } = cluster.nodes.get_mut(&3).unwrap();
        worker.step(now, events, &mut effects);
        if let Some(told) = reported(&effects) {
            assert!(is_turn_of_a_report && told.is_empty(), "{told:?}");
            break;
        }
        worker.answer(&mut effects).unwrap();
        assert_eq!(log.write_turn(worker).unwrap(), Written::All);
        worker.settle(&mut effects);
        worker.catch_up(now, &mut effects).unwrap();
    }
    let Node { worker, log, .. } = cluster.nodes.get_mut(&3).unwrap();
    let mut effects = Vec::new();
    worker.answer(&mut effects).unwrap();
    assert_eq!(log.write_turn(worker).unwrap(), Written::All);
    worker.settle(&mut effects);
    for _ in 0..REPORT_EVERY_MS / TICK_MS {
        cluster.boot_ms += TICK_MS;
        let now = cluster.now();
        let Node { worker, log, .. } = cluster.nodes.get_mut(&3).unwrap();
        worker.catch_up(now, &mut effects).unwrap();
        worker.step(now, Vec::new(), &mut effects);
        worker.answer(&mut effects).unwrap();
        assert_eq!(log.write_turn(worker).unwrap(), Written::All);
        worker.settle(&mut effects);
    }
    assert_eq!(reported(&effects), Some(vec![next]));
}

/// A new leader of group 0 decides nothing before it has applied what leaders before it had
/// committed: by its older registry a voter may look like one that is gone.
#[test]
fn a_new_leader_of_group_0_decides_when_it_has_applied_all() {
    // The entry that tells it so may be committed in the very step in which it reports, or not.
    for offset in 0..REPORT_EVERY_MS / TICK_MS {
        let mut cluster = Cluster::new();
        cluster.ticks(ELECTION_TICKS + offset);
        let before = cluster.meta_applied(2);
        assert!(before > 0 && cluster.nodes[&1].cluster.overview().is_some());
        cluster.stop(1);
        // What it is sent is heard with a tick, the next one or that after it.
        let mut under_way = VecDeque::new();
        under_way.resize_with(1 + offset as usize % 2, Vec::new);
        let decided_at = (0..4 * ELECTION_TICKS).find_map(|_| {
            cluster.boot_ms += TICK_MS;
            let now = cluster.now();
            let events = under_way.pop_front().unwrap();
            let node = cluster.nodes.get_mut(&2).unwrap();
            let mut effects = Vec::new();
            node.worker.step(now, events, &mut effects);
            if node.cluster.overview().is_some() {
                return Some(cluster.meta_applied(2));
            }
            let mut sent = cluster.finish(2, effects);
            sent.extend(cluster.turn(3, Vec::new()));
            let mut answers = Vec::new();
            for (to, event) in sent {
                match to {
                    2 => answers.push(event),
                    3 => {
                        let told = cluster.turn(3, vec![event]).into_iter();
                        answers.extend(told.map(|(_, event)| event));
                    }
                    _ => {}
                }
            }
            under_way.push_back(answers);
            None
        });
        let decided_at = decided_at.expect("it leads");
        assert!(
            decided_at > before,
            "{decided_at} of {before} and more, offset {offset}"
        );
    }
}

/// The log of a directory that nobody uses.
fn open_disk(dir: &Path) -> Disk {
    let volume: Arc<dyn Volume> = Arc::new(OsVolume);
    Disk::open(&volume, dir, &LogOptions::default(), OnDamage::Refuse).unwrap()
}

/// Reads an entry of a directory that nobody uses.
fn read_entry(dir: &Path, group: GroupId, index: u64) -> Option<Bytes> {
    let disk = open_disk(dir);
    let mut read = Vec::new();
    let reader = GroupReader::new(disk, u64::from(group.0));
    reader.read(index, index + 1, 1, &mut read).ok()?;
    read.pop()
}

/// Turns a bit of an entry over; `false` if it is in no file as it is.
fn flip_a_bit(dir: &Path, entry: &Bytes, mask: u8) -> bool {
    for file in std::fs::read_dir(dir.join("log")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        // What is before the last byte stays, so that the same place is found again.
        let (kept, _) = entry.split_at(entry.len() - 1);
        if let Some(at) = bytes.windows(kept.len()).position(|it| *it == *kept) {
            bytes[at + kept.len()] ^= mask;
            std::fs::write(&path, bytes).unwrap();
            return true;
        }
    }
    false
}

/// Damages an entry of the shard that lies in no block with entries of group 0: a block has one
/// checksum.
fn damage_the_shard_alone(dir: &Path) -> u64 {
    let of_meta = |index: &u64| read_entry(dir, GroupId::META, *index).is_some();
    let meta: Vec<u64> = (2..100).filter(of_meta).collect();
    for index in 3..100 {
        let Some(entry) = read_entry(dir, SHARD, index) else {
            break;
        };
        if !flip_a_bit(dir, &entry, 1) {
            continue;
        }
        if meta.iter().all(of_meta) && read_entry(dir, SHARD, index).is_none() {
            return index;
        }
        flip_a_bit(dir, &entry, 1);
    }
    panic!("no entry of the shard lies alone");
}

#[test]
fn an_entry_that_cannot_be_read_ends_one_replica_and_no_node() {
    let mut cluster = Cluster::new();
    cluster.ticks(1_000);
    cluster.stop(1);
    let index = damage_the_shard_alone(cluster.dirs[&1].path());
    for _ in 0..2 {
        cluster.start(1);
        cluster.ticks(1);
        let why = cluster.failure(1).expect("it cannot replay its log");
        assert!(why.contains("of its log cannot be read"), "{why}");
        assert!(why.contains(&format!("entry {index}")), "{why}");
        cluster.ticks(ELECTION_TICKS);
        assert!(!cluster.answers(1) && cluster.answers(2));
        let meta = |node: u64| cluster.meta_applied(node);
        assert!(meta(1) > 0 && meta(1) == meta(2));
        cluster.stop(1);
    }
}
