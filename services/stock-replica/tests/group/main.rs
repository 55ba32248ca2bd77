//! Replicas on memory disks and a network without sockets, driven as the crate's documentation
//! says, and crashed between any two steps of a turn.

mod crash;
mod forgotten;
mod hostile;
mod lagging;
mod lost;
mod membership;
mod recovery;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use stock_replica::{
    Committed, ELECTION_TICKS_MAX, EntryReader, LogWrite, Outgoing, Point, ReadError, Replica,
    Restored, Settings,
};

/// Rounds in which healthy replicas must have elected a leader: three full timeouts.
const ELECTION_ROUNDS_MAX: usize = 3 * ELECTION_TICKS_MAX;

/// Enough for every entry of a test.
const WINDOW_BYTES: u64 = 1 << 20;

/// What survives a crash.
#[derive(Clone)]
struct Disk(Arc<Mutex<Stored>>);

#[derive(Clone)]
struct Stored {
    origin: Point,
    /// The state as it was written down last: everything applied until then.
    checkpoint: (Point, Vec<Bytes>),
    state: Option<Bytes>,
    entries: BTreeMap<u64, Bytes>,
}

impl Disk {
    fn new(origin: Point) -> Self {
        Self(Arc::new(Mutex::new(Stored {
            checkpoint: (origin.clone(), Vec::new()),
            origin,
            state: None,
            entries: BTreeMap::new(),
        })))
    }

    /// As it is now, on another disk.
    fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    fn write(&self, write: LogWrite) {
        let mut stored = self.0.lock().unwrap();
        if let Some(point) = write.install {
            stored.entries.clear();
            stored.origin = point;
        }
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

    /// The replica, and what its state machine has applied.
    fn open(&self, id: u64) -> (Replica, Vec<Bytes>) {
        let stored = self.0.lock().unwrap();
        let (applied, state) = stored.checkpoint.clone();
        let last = stored.entries.keys().next_back();
        let restored = Restored {
            state: stored.state.clone(),
            last_index: last.map_or(stored.origin.index, |last| *last),
            origin: stored.origin.clone(),
            applied,
            reader: Box::new(self.clone()),
        };
        drop(stored);
        let replica = Replica::open(&Settings::new(id, WINDOW_BYTES), restored).unwrap();
        (replica, state)
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
    /// The state machine: everything applied since the group was founded.
    applied: Vec<Bytes>,
    /// The place of the last entry applied.
    at: (u64, u64),
    /// A snapshot that is here.
    arrived: Option<(Point, Vec<Bytes>)>,
    /// How often it turns when something happens to it: one that is held up has more to do
    /// afterwards.
    turns_max: usize,
}

impl Node {
    fn new(id: u64, origin: Point) -> Self {
        let disk = Disk::new(origin);
        let (replica, applied) = disk.open(id);
        Self {
            id,
            at: (replica.origin().index, replica.origin().term),
            disk,
            replica,
            applied,
            arrived: None,
            turns_max: usize::MAX,
        }
    }

    fn restart(&mut self) {
        (self.replica, self.applied) = self.disk.open(self.id);
        let stored = self.disk.0.lock().unwrap();
        self.at = (stored.checkpoint.0.index, stored.checkpoint.0.term);
        self.arrived = None;
    }

    fn apply(&mut self, committed: Vec<Committed>) {
        for entry in committed {
            self.at = (entry.index, entry.term);
            if !entry.data.is_empty() {
                self.applied.push(entry.data);
            }
        }
    }

    /// Writes the state down, offers it, and cuts the log.
    fn checkpoint(&mut self) {
        let point = Point {
            index: self.at.0,
            term: self.at.1,
            configuration: self.replica.configuration().clone(),
        };
        let mut stored = self.disk.0.lock().unwrap();
        stored.checkpoint = (point.clone(), self.applied.clone());
        stored.origin = point.clone();
        stored.entries = stored.entries.split_off(&(point.index + 1));
        drop(stored);
        self.replica.offer_snapshot(point.clone());
        self.replica.begin_at(point);
    }

    /// One turn, or as much of it as the crash allows.
    fn turn(&mut self, network: &mut VecDeque<(u64, Outgoing)>, crash: Option<Crash>) {
        let from = self.id;
        for _ in 0..self.turns_max {
            if !self.replica.has_effects() {
                return;
            }
            let prepared = self.replica.prepare();
            network.extend(prepared.messages.into_iter().map(|sent| (from, sent)));
            if crash == Some(Crash::BeforeWrite) {
                return self.restart();
            }
            let install = prepared.write.install.clone();
            if let Some(point) = &install {
                // The file is durable before the log begins at it.
                let (arrived, state) = self.arrived.take().expect("the snapshot came first");
                assert_eq!(arrived, *point);
                self.disk.0.lock().unwrap().checkpoint = (arrived, state);
            }
            self.disk.write(prepared.write);
            if crash == Some(Crash::AfterWrite) {
                return self.restart();
            }
            if let Some(point) = install {
                let stored = self.disk.0.lock().unwrap();
                self.applied = stored.checkpoint.1.clone();
                self.at = (point.index, point.term);
                drop(stored);
                self.replica.offer_snapshot(point);
            }
            let settled = self.replica.settle();
            if crash == Some(Crash::AfterSettle) {
                return self.restart();
            }
            network.extend(settled.messages.into_iter().map(|sent| (from, sent)));
            self.apply(prepared.committed);
            self.apply(settled.committed);
        }
    }
}

struct Cluster {
    nodes: BTreeMap<u64, Node>,
    network: VecDeque<(u64, Outgoing)>,
}

impl Cluster {
    /// Founded by replicas 1, 2 and 3.
    fn new() -> Self {
        let founded = |id| (id, Node::new(id, Point::founding(vec![1, 2, 3])));
        Self {
            nodes: [1, 2, 3].map(founded).into(),
            network: VecDeque::new(),
        }
    }

    fn replica(&mut self, id: u64) -> &mut Replica {
        &mut self.nodes.get_mut(&id).unwrap().replica
    }

    /// Delivers everything that is under way, and what that brings about.
    fn deliver(&mut self) {
        for node in self.nodes.values_mut() {
            node.turn(&mut self.network, None);
        }
        while let Some((from, message)) = self.network.pop_front() {
            let arrived = message.snapshot.map(|_| {
                let sender = self.nodes[&from].disk.0.lock().unwrap();
                sender.checkpoint.clone()
            });
            let Some(node) = self.nodes.get_mut(&message.to) else {
                continue;
            };
            if arrived.is_some() {
                node.arrived = arrived;
            }
            // raft ignores what a restarted replica no longer knows about.
            let _ = node.replica.step(&message.payload);
            node.turn(&mut self.network, None);
            if message.snapshot.is_some() {
                self.replica(from).report_snapshot(message.to, true);
            }
        }
    }

    /// Delivers what a replica sends, and what is answered, and nothing that it sends then.
    fn deliver_quietly(&mut self, from: u64) {
        for _ in 0..2 {
            for node in self.nodes.values_mut() {
                node.turn(&mut self.network, None);
            }
            for (_, message) in std::mem::take(&mut self.network) {
                if let Some(node) = self.nodes.get_mut(&message.to) {
                    let _ = node.replica.step(&message.payload);
                }
            }
        }
        self.nodes
            .get_mut(&from)
            .unwrap()
            .turn(&mut self.network, None);
        self.network.clear();
    }

    /// As [`Self::deliver`], while all others neither hear nor are heard.
    fn deliver_among(&mut self, heard: &[u64]) {
        let away: Vec<u64> = self.nodes.keys().copied().collect();
        let away = away.into_iter().filter(|id| !heard.contains(id));
        let away: Vec<Node> = away.filter_map(|id| self.nodes.remove(&id)).collect();
        self.network.retain(|(from, _)| heard.contains(from));
        self.deliver();
        self.nodes
            .extend(away.into_iter().map(|node| (node.id, node)));
    }

    fn tick(&mut self) {
        for node in self.nodes.values_mut() {
            node.replica.tick();
        }
        self.deliver();
    }

    /// Lets time pass until somebody leads, and tells who.
    fn leader(&mut self) -> u64 {
        for _ in 0..ELECTION_ROUNDS_MAX {
            let mut nodes = self.nodes.values();
            if let Some(node) = nodes.find(|node| node.replica.is_settled_leader()) {
                return node.id;
            }
            self.tick();
        }
        panic!("no leader after {ELECTION_ROUNDS_MAX} ticks");
    }

    fn settle(&mut self) {
        let leader = self.leader();
        self.replica(leader).ping();
        self.deliver();
        for _ in 0..ELECTION_ROUNDS_MAX {
            self.tick();
        }
    }

    fn propose(&mut self, number: usize) {
        let leader = self.leader();
        self.replica(leader)
            .propose(entry(number).to_vec())
            .unwrap();
        self.deliver();
    }
}

fn entry(number: usize) -> Bytes {
    Bytes::from(format!("entry {number}"))
}
