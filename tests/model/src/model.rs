//! What can happen, and what must not.

use std::sync::Arc;

use stateright::{Model, Property};

use crate::rules::{Bounds, Counts, Forgetting, Rules};
use crate::state::{Broken, DISKS, NO_REPLICA, NODES, Standing, State, WRITES, Word, bit};

/// Names of properties.
pub mod property {
    /// No two replicas ever believed two entries of one index to be committed.
    pub const ONE_HISTORY: &str = "there is one history";
    /// They did, where what cannot be known is let act.
    pub const TWO_HISTORIES: &str = "there are two histories";
    /// Nobody commits anything in its term who lacks what was committed before.
    pub const NOTHING_LOST: &str = "nothing that was acknowledged is lost";
    /// No vote, no acknowledgement.
    pub const NO_FORGETFUL_PROMISE: &str = "what has forgotten promises nothing";
    /// Whoever else forgot.
    pub const COMMITTED_STAYS: &str = "what a replica knows to be committed stays in its log";
    /// An acknowledgement is of what was sent.
    pub const NOTHING_COUNTED_UNSENT: &str = "nothing counts as acknowledged before it was sent";
    /// Its id is (generation, node).
    pub const ONE_PLACE: &str = "a replica is in one directory";
    /// Admissions alone never cost a group its majority.
    pub const MAJORITY_STAYS: &str = "most voters are in directories that were not replaced";
    /// The check gets as far as that.
    pub const COMMITS_AFTER_REPLACEMENT: &str = "a value is committed after a voter was replaced";
}

/// The model.
#[derive(Debug, Clone)]
pub struct IdentityModel {
    /// What is checked.
    pub rules: Rules,
    /// What is assumed.
    pub forgetting: Forgetting,
    /// How far it goes.
    pub bounds: Bounds,
    /// What came about.
    pub counts: Arc<Counts>,
    /// What has happened before the check begins.
    pub before: &'static [Action],
}

/// What can happen. Numbers are those of disks, from 0 on; of a link, that of the node that it
/// passes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The candidate becomes leader by its own vote and those of the helpers, a bit for each.
    Elect {
        /// The disk of the candidate.
        candidate: usize,
        /// The term.
        term: u8,
        /// Bits of disks.
        helpers: u8,
    },
    /// A client's value at a leader.
    Propose(usize),
    /// The leader counts both the voters before and those after.
    BeginChange(usize),
    /// The leader counts only those after.
    EndChange(usize),
    /// Append, or heartbeat, and its answer.
    Append {
        /// The disk of the leader.
        leader: usize,
        /// The disk of the follower.
        follower: usize,
    },
    /// A process ends.
    Crash(usize),
    /// A process begins.
    Start {
        /// The disk.
        disk: usize,
        /// With the checkpoint files of another copy.
        later_files: bool,
        /// In which order the others are greeted.
        reversed: bool,
    },
    /// A disk is copied.
    Copy(usize),
    /// An empty directory is let in.
    Join {
        /// Under this node's id.
        node: u8,
        /// The disk of who leads group 0.
        by: usize,
    },
    /// A failed replica is allotted a successor.
    Rebuild(usize),
    /// A directory is ordered to begin the replica that comes.
    Order(usize),
    /// A node learns what group 0 has decided.
    Learn(usize),
    /// A link is cut.
    Cut(usize),
    /// A link is there again.
    Mend {
        /// The link.
        link: usize,
        /// In which order those on its ends greet.
        reversed: bool,
    },
    /// A checkpoint file.
    Checkpoint(usize),
    /// A write of another group, or of what promises nothing.
    Write(usize),
}

impl IdentityModel {
    /// With nothing counted yet.
    pub fn new(rules: Rules, forgetting: Forgetting, bounds: Bounds) -> Self {
        Self {
            rules,
            forgetting,
            bounds,
            counts: Arc::default(),
            before: &[],
        }
    }

    /// The check begins where this has happened, which counts for the bounds.
    #[must_use]
    pub fn after(self, before: &'static [Action]) -> Self {
        Self { before, ..self }
    }

    fn elections(&self, s: &State, p: usize, actions: &mut Vec<Action>) {
        let disk = &s.disks[p];
        let voters = disk.log.voters(disk.log.len());
        if voters.all() & bit(disk.replica) == 0 {
            return;
        }
        let latest = s.numbers().map(|q| s.disks[q].term).max().unwrap_or(0);
        for term in disk.term + 1..=self.bounds.terms.min(latest + 1) {
            let granting = self.granting(s, p, term);
            let votes = |subset: u8| {
                let given = granting.iter().filter(|(q, _)| subset & (1 << q) != 0);
                given.fold(bit(disk.replica), |votes, (_, id)| votes | bit(*id))
            };
            let asked = granting.iter().fold(0, |mask, (q, _)| mask | (1 << q));
            for helpers in 0..1u8 << DISKS {
                let is_asked = helpers & !asked == 0 && voters.is_quorum(votes(helpers));
                // More votes than are needed only bind more.
                let mut fewer = (0..DISKS).filter(|q| helpers & (1 << q) != 0);
                let is_least = !fewer.any(|q| voters.is_quorum(votes(helpers & !(1 << q))));
                if is_asked && is_least {
                    actions.push(Action::Elect {
                        candidate: p,
                        term,
                        helpers,
                    });
                }
            }
        }
    }

    fn of_process(&self, s: &State, p: usize, actions: &mut Vec<Action>) {
        let disk = &s.disks[p];
        let (spent, bounds) = (&s.spent, &self.bounds);
        let acts =
            disk.replica != NO_REPLICA && disk.standing == Standing::Well && self.may_act(s, p);
        // A leader that is elected again is one that crashed, or has nothing new.
        if acts && !s.processes[p].leads {
            self.elections(s, p, actions);
        }
        if acts && s.processes[p].leads {
            if !disk.log.is_full() {
                if spent.values < bounds.values {
                    actions.push(Action::Propose(p));
                }
                if bounds.joins > 0 || bounds.checkpoints > 0 {
                    actions.push(Action::BeginChange(p));
                    actions.push(Action::EndChange(p));
                }
            }
            for q in s.peers(p).filter(|q| self.may_act(s, *q)) {
                actions.push(Action::Append {
                    leader: p,
                    follower: q,
                });
            }
        }
        if spent.crashes < bounds.crashes {
            actions.push(Action::Crash(p));
        }
        if spent.writes < bounds.writes {
            actions.push(Action::Write(p));
        }
        if spent.checkpoints < bounds.checkpoints && disk.commit > disk.checkpoint {
            actions.push(Action::Checkpoint(p));
        }
        if disk.admissions != s.registry.admissions && s.peers(p).next().is_some() {
            actions.push(Action::Learn(p));
        }
        if disk.standing == Standing::Failed {
            actions.push(Action::Rebuild(p));
        }
        if s.registry.under_way.is_some() {
            actions.push(Action::Order(p));
        }
        if spent.joins < bounds.joins && usize::from(s.used) < DISKS {
            for node in (0..3).filter(|node| *node != disk.node) {
                actions.push(Action::Join { node, by: p });
            }
        }
    }

    fn take(&self, s: &mut State, action: Action) -> bool {
        match action {
            Action::Elect {
                candidate,
                term,
                helpers,
            } => self.elect(s, candidate, term, helpers),
            Action::Propose(p) => self.propose(s, p),
            Action::BeginChange(p) => return self.begin_change(s, p),
            Action::EndChange(p) => return self.end_change(s, p),
            Action::Append { leader, follower } => return self.append(s, leader, follower),
            Action::Crash(p) => {
                s.spent.crashes += 1;
                s.end(p);
            }
            Action::Start {
                disk,
                later_files,
                reversed,
            } => self.start(s, disk, later_files, reversed),
            Action::Copy(p) => return self.copy(s, p),
            Action::Join { node, by } => return self.join(s, node, by),
            Action::Rebuild(p) => return self.rebuild(s, p),
            Action::Order(p) => return self.order(s, p),
            Action::Learn(p) => return self.learn(s, p),
            Action::Cut(link) => {
                s.spent.cuts += 1;
                s.cut[link] = true;
            }
            Action::Mend { link, reversed } => self.mend(s, link, reversed),
            Action::Checkpoint(p) => {
                s.spent.checkpoints += 1;
                s.disks[p].checkpoint = s.disks[p].commit;
            }
            Action::Write(p) => {
                s.spent.writes += 1;
                s.write(p, false);
            }
        }
        true
    }
}

impl Model for IdentityModel {
    type State = State;
    type Action = Action;

    /// The first leader is elected: which node it is, and by whom, makes no difference.
    fn init_states(&self) -> Vec<State> {
        let mut state = State::founded();
        self.elect(&mut state, 0, 1, 1 << 1);
        for action in self.before {
            assert!(self.take(&mut state, *action), "{action:?} is not possible");
            self.pass_on(&mut state);
        }
        vec![state]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        if s.is_broken(Broken::History) {
            return;
        }
        let (spent, bounds) = (&s.spent, &self.bounds);
        let is_split = |p: usize| s.copies(p).next().is_some();
        let has_copies = s.numbers().any(is_split);
        for p in s.numbers() {
            if spent.copies < bounds.copies && usize::from(s.used) < DISKS {
                actions.push(Action::Copy(p));
            }
            if s.processes[p].runs {
                self.of_process(s, p, actions);
                continue;
            }
            let mut others = s.copies(p);
            let is_later = others.any(|q| s.disks[q].checkpoint > s.disks[p].checkpoint);
            for later_files in [false, true] {
                for reversed in [false, true] {
                    if (later_files && !is_later) || (reversed && !has_copies) {
                        continue;
                    }
                    actions.push(Action::Start {
                        disk: p,
                        later_files,
                        reversed,
                    });
                }
            }
        }
        for link in 0..NODES {
            match s.cut[link] {
                false if spent.cuts < bounds.cuts => actions.push(Action::Cut(link)),
                false => {}
                true => {
                    for reversed in [false, true] {
                        if !reversed || has_copies {
                            actions.push(Action::Mend { link, reversed });
                        }
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        if !self.take(&mut state, action) {
            return None;
        }
        self.pass_on(&mut state);
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, s: &State) -> bool {
        // An action writes at most twice in one directory.
        s.notes.writes.iter().all(|writes| *writes + 2 <= WRITES)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(property::COMMITTED_STAYS, |_, s: &State| {
                !s.is_broken(Broken::CommittedHere)
            }),
            Property::always(property::NOTHING_COUNTED_UNSENT, |_, s: &State| {
                !s.is_broken(Broken::CountedUnsent)
            }),
            Property::always(property::ONE_PLACE, |_, s: &State| is_in_one_place(s)),
        ];
        let history = |_: &Self, s: &State| !s.is_broken(Broken::History);
        if self.forgetting == Forgetting::MayBeUnknown {
            let two = |_: &Self, s: &State| s.is_broken(Broken::History);
            properties.push(Property::sometimes(property::TWO_HISTORIES, two));
        } else {
            properties.push(Property::always(property::ONE_HISTORY, history));
            properties.push(Property::always(property::NOTHING_LOST, |_, s: &State| {
                !s.is_broken(Broken::Acknowledged)
            }));
            properties.push(Property::always(
                property::NO_FORGETFUL_PROMISE,
                |_, s: &State| !s.is_broken(Broken::Promise),
            ));
        }
        if self.bounds.copies == 0 {
            properties.push(Property::always(
                property::MAJORITY_STAYS,
                |_, s: &State| has_majority(s),
            ));
        }
        if self.bounds.joins > 0 {
            properties.push(Property::sometimes(
                property::COMMITS_AFTER_REPLACEMENT,
                |_, s: &State| commits_after_replacement(s),
            ));
        }
        properties
    }
}

fn is_in_one_place(s: &State) -> bool {
    s.numbers().all(|p| {
        let one = &s.disks[p];
        one.replica == NO_REPLICA
            || s.numbers().all(|q| {
                let other = &s.disks[q];
                other.replica != one.replica || other.directory == one.directory
            })
    })
}

fn has_majority(s: &State) -> bool {
    let committed = s.notes.committed;
    let stays = |p: &usize| {
        let disk = &s.disks[*p];
        disk.replica != NO_REPLICA
            && s.registry.directories[usize::from(disk.node)] == disk.directory
    };
    let replicas = s
        .numbers()
        .filter(stays)
        .fold(0, |replicas, p| replicas | bit(s.disks[p].replica));
    committed.voters(committed.len()).is_quorum(replicas)
}

fn commits_after_replacement(s: &State) -> bool {
    let committed = s.notes.committed;
    let words = (1..=committed.len()).filter_map(|index| committed.get(index));
    let mut after = words.skip_while(|entry| entry.word != Word::Leave);
    after.any(|entry| matches!(entry.word, Word::Value(_)))
}
