//! What is true at one moment: the disks, what runs on them, the registry, and the checker's own
//! notes.
//!
//! Everything is a small array of small numbers, since a state is cloned and hashed for every step.

/// Nodes, and voters of the group.
pub(crate) const NODES: usize = 3;
/// The founders' disks, and what joins or is copied. Directories are numbered by their first disk.
pub(crate) const DISKS: usize = 5;
/// The founders' replicas, and those that are allotted.
pub(crate) const REPLICAS: usize = 5;
/// Entries of the longest log.
pub(crate) const LOG: usize = 5;
/// Writes of one directory, however many copies of it there are.
pub(crate) const WRITES: u8 = 16;
/// Of `Disk::replica`, when none was begun.
pub(crate) const NO_REPLICA: u8 = u8::MAX;

/// What an entry of the group says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Word {
    /// There is no entry.
    #[default]
    None,
    /// A client's value. Each is proposed once.
    Value(u8),
    /// From here on both the voters before and those after count.
    Joint { comes: u8, goes: u8 },
    /// From here on only those after count.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Entry {
    pub(crate) term: u8,
    pub(crate) word: Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Log {
    entries: [Entry; LOG],
    len: u8,
}

impl Log {
    pub(crate) fn len(&self) -> u8 {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        usize::from(self.len) == LOG
    }

    /// Of an index from 1 on; none beyond the end.
    pub(crate) fn get(&self, index: u8) -> Option<Entry> {
        let is_there = (1..=self.len).contains(&index);
        is_there.then(|| self.entries[usize::from(index) - 1])
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
    }

    pub(crate) fn truncate(&mut self, len: u8) {
        while self.len > len {
            self.len -= 1;
            self.entries[usize::from(self.len)] = Entry::default();
        }
    }

    /// What votes are decided by: the term of the last entry, then the length.
    pub(crate) fn end(&self) -> (u8, u8) {
        (self.get(self.len).map_or(0, |entry| entry.term), self.len)
    }

    /// The first index at which the two have entries that differ.
    pub(crate) fn differs_at(&self, other: &Self) -> Option<u8> {
        (1..=self.len.min(other.len)).find(|index| self.get(*index) != other.get(*index))
    }

    /// Who votes, by the latest entry that says so, up to an index.
    pub(crate) fn voters(&self, until: u8) -> Voters {
        let mut voters = Voters::founders();
        for entry in (1..=until).filter_map(|index| self.get(index)) {
            match entry.word {
                Word::Joint { comes, goes } => {
                    let after = (voters.before | bit(comes)) & !bit(goes);
                    voters.after = Some(after);
                }
                Word::Leave => {
                    voters.before = voters.after.take().unwrap_or(voters.before);
                }
                Word::None | Word::Value(_) => {}
            }
        }
        voters
    }

    /// Where the latest change of the voters is; 0 if there is none.
    pub(crate) fn changed_at(&self) -> u8 {
        let is_change = |index: &u8| {
            let word = self.get(*index).map(|entry| entry.word);
            matches!(word, Some(Word::Joint { .. } | Word::Leave))
        };
        (1..=self.len).rev().find(is_change).unwrap_or(0)
    }
}

/// Bits of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Voters {
    pub(crate) before: u8,
    pub(crate) after: Option<u8>,
}

impl Voters {
    fn founders() -> Self {
        let before = (1 << NODES) - 1;
        Self {
            before,
            after: None,
        }
    }

    pub(crate) fn all(self) -> u8 {
        self.before | self.after.unwrap_or(0)
    }

    pub(crate) fn is_quorum(self, replicas: u8) -> bool {
        let most = |of: u8| 2 * (replicas & of).count_ones() > of.count_ones();
        most(self.before) && self.after.is_none_or(most)
    }
}

pub(crate) fn bit(number: u8) -> u8 {
    1 << number
}

/// The bit of a disk.
pub(crate) fn bit_of(disk: usize) -> u8 {
    1 << disk
}

/// How the replica of a directory fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Standing {
    #[default]
    Well,
    /// Its log has lost its end. It is built again, under another id.
    Failed,
    /// It was told what cannot be. It does nothing more.
    Disputed,
}

/// What a directory remembers of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Heard {
    /// The highest.
    pub(crate) pulse: u8,
    /// All writes that the other had when it was heard. A real node remembers the latest pulse of
    /// each boot, which says the same: who has that one has those before it.
    pub(crate) history: u16,
}

/// A volume. A copy is another, of the same directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) node: u8,
    pub(crate) directory: u8,
    pub(crate) admission: u8,
    /// No replica of a lower id belongs here.
    pub(crate) floor: u8,
    pub(crate) replica: u8,
    pub(crate) standing: Standing,
    pub(crate) term: u8,
    /// The replica, if it voted in this term.
    pub(crate) vote: Option<u8>,
    pub(crate) log: Log,
    pub(crate) commit: u8,
    /// What the newest checkpoint file covers.
    pub(crate) checkpoint: u8,
    /// The writes that are here, of all that any copy of this directory ever had. Its size is the
    /// pulse.
    pub(crate) history: u16,
    pub(crate) heard: [Heard; DISKS],
    /// By node: the latest admission that was heard of.
    pub(crate) admissions: [u8; NODES],
}

impl Disk {
    pub(crate) fn empty(node: u8, directory: u8) -> Self {
        Self {
            node,
            directory,
            admission: 0,
            floor: 0,
            replica: NO_REPLICA,
            standing: Standing::Well,
            term: 0,
            vote: None,
            log: Log::default(),
            commit: 0,
            checkpoint: 0,
            history: 0,
            heard: [Heard::default(); DISKS],
            admissions: [0; NODES],
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a number of bits")]
    pub(crate) fn pulse(&self) -> u8 {
        self.history.count_ones() as u8
    }

    /// Takes over what another remembers. A node never keeps in mind what it has forgotten itself.
    pub(crate) fn remember(&mut self, memory: &[Heard; DISKS]) {
        for (directory, (own, other)) in self.heard.iter_mut().zip(memory).enumerate() {
            if directory == usize::from(self.directory) {
                continue;
            }
            own.history |= other.history;
            own.pulse = own.pulse.max(other.pulse);
        }
    }
}

/// What ends with the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Process {
    pub(crate) runs: bool,
    pub(crate) leads: bool,
    /// As leader, by replica.
    pub(crate) acknowledged: [u8; REPLICAS],
}

/// A replica that group 0 has allotted and that does not vote alone yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Move {
    pub(crate) comes: u8,
    pub(crate) directory: u8,
}

/// What group 0 has decided. A node may know less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Registry {
    pub(crate) directories: [u8; NODES],
    pub(crate) admissions: [u8; NODES],
    pub(crate) latest_admission: u8,
    /// By replica: its node. Ids are allotted in order, so the id stands for the generation.
    pub(crate) nodes: [u8; REPLICAS],
    pub(crate) allotted: u8,
    pub(crate) under_way: Option<Move>,
}

/// What the checker writes down. No rule reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Notes {
    /// What was committed first at each index.
    pub(crate) committed: Log,
    /// By directory: how many writes there were, in all its copies.
    pub(crate) writes: [u8; DISKS],
    /// By directory: those that promised something.
    pub(crate) promises: [u16; DISKS],
    /// Bits of `Broken`.
    pub(crate) broken: u8,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    History = 1,
    Acknowledged = 2,
    Promise = 4,
    CommittedHere = 8,
    CountedUnsent = 16,
}

/// How often each thing happened that is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Spent {
    pub(crate) values: u8,
    pub(crate) crashes: u8,
    pub(crate) copies: u8,
    pub(crate) joins: u8,
    pub(crate) cuts: u8,
    pub(crate) writes: u8,
    pub(crate) checkpoints: u8,
}

/// A state of the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) disks: [Disk; DISKS],
    pub(crate) processes: [Process; DISKS],
    pub(crate) used: u8,
    /// By pair of nodes, `link`: whether it is cut.
    pub(crate) cut: [bool; NODES],
    pub(crate) registry: Registry,
    pub(crate) notes: Notes,
    pub(crate) spent: Spent,
}

/// The number of the link between two nodes: that of the third.
pub(crate) fn link(a: u8, b: u8) -> usize {
    NODES - usize::from(a) - usize::from(b)
}

impl State {
    /// Three founders, all of them up.
    pub(crate) fn founded() -> Self {
        let mut disks = [Disk::empty(0, 0); DISKS];
        let mut processes = [Process::default(); DISKS];
        for node in 0..3 {
            let founder = usize::from(node);
            disks[founder] = Disk {
                replica: node,
                ..Disk::empty(node, node)
            };
            processes[founder].runs = true;
        }
        Self {
            disks,
            processes,
            used: 3,
            cut: [false; NODES],
            registry: Registry {
                directories: [0, 1, 2],
                admissions: [0; NODES],
                latest_admission: 0,
                nodes: [0, 1, 2, 0, 0],
                allotted: 3,
                under_way: None,
            },
            notes: Notes::default(),
            spent: Spent::default(),
        }
    }

    pub(crate) fn numbers(&self) -> std::ops::Range<usize> {
        0..usize::from(self.used)
    }

    /// Whether the processes on two disks reach each other.
    pub(crate) fn hears(&self, p: usize, q: usize) -> bool {
        let (one, other) = (self.disks[p].node, self.disks[q].node);
        let run = self.processes[p].runs && self.processes[q].runs;
        run && one != other && !self.cut[link(one, other)]
    }

    /// Those that the process on a disk reaches.
    pub(crate) fn peers(&self, p: usize) -> impl Iterator<Item = usize> {
        self.numbers().filter(move |q| self.hears(p, *q))
    }

    /// Bits of those whom the process on a disk reaches, be it through others.
    pub(crate) fn component(&self, p: usize) -> u8 {
        let mut reached = bit_of(p);
        for _ in 0..NODES {
            for q in self.numbers() {
                if reached & bit_of(q) != 0 {
                    reached |= self.peers(q).map(bit_of).fold(0, |all, one| all | one);
                }
            }
        }
        reached
    }

    /// Other disks of the same directory.
    pub(crate) fn copies(&self, p: usize) -> impl Iterator<Item = usize> {
        let directory = self.disks[p].directory;
        self.numbers()
            .filter(move |q| *q != p && self.disks[*q].directory == directory)
    }

    pub(crate) fn end(&mut self, p: usize) {
        self.processes[p] = Process::default();
    }

    /// Writes something in a directory, and tells everyone in reach its pulse.
    pub(crate) fn write(&mut self, p: usize, is_promise: bool) {
        let directory = usize::from(self.disks[p].directory);
        let writes = &mut self.notes.writes[directory];
        let this = 1 << *writes;
        *writes += 1;
        if is_promise {
            self.notes.promises[directory] |= this;
        }
        self.disks[p].history |= this;
        for q in 0..usize::from(self.used) {
            if self.hears(p, q) {
                self.hear(q, p);
            }
        }
    }

    /// `listener` takes note of the pulse of `teller`.
    pub(crate) fn hear(&mut self, listener: usize, teller: usize) {
        let teller = &self.disks[teller];
        let (directory, history) = (teller.directory, teller.history);
        let pulse = teller.pulse();
        let heard = &mut self.disks[listener].heard[usize::from(directory)];
        heard.history |= history;
        heard.pulse = heard.pulse.max(pulse);
    }

    /// Whether a disk lacks something that was promised in its directory.
    pub(crate) fn has_forgotten(&self, p: usize) -> bool {
        let disk = &self.disks[p];
        self.notes.promises[usize::from(disk.directory)] & !disk.history != 0
    }

    pub(crate) fn note(&mut self, broken: Broken) {
        self.notes.broken |= broken as u8;
    }

    pub(crate) fn is_broken(&self, broken: Broken) -> bool {
        self.notes.broken & broken as u8 != 0
    }
}
