//! As much of Raft as there must be for promises to be made and relied on.
//!
//! An election is one action: a candidate, and just as many votes as it needs. So is an append with
//! its answer. Whatever happens between a question and its answer touches neither of the two, or
//! ends the exchange, so it may as well have happened before or after. An answer that is lost binds
//! nobody.

use crate::IdentityModel;
use crate::state::{Broken, Entry, NO_REPLICA, Standing, State, Word, bit};

impl IdentityModel {
    /// A leader appends a client's value to its own log.
    pub(crate) fn propose(&self, s: &mut State, p: usize) {
        s.spent.values += 1;
        let word = Word::Value(s.spent.values);
        self.append_own(s, p, word);
    }

    /// A leader begins to replace a voter by the replica that group 0 has allotted, once that has
    /// caught up.
    pub(crate) fn begin_change(&self, s: &mut State, p: usize) -> bool {
        let Some(under_way) = s.registry.under_way else {
            return false;
        };
        let disk = &s.disks[p];
        let voters = disk.log.voters(disk.log.len());
        let comes = under_way.comes;
        let has_caught_up = s.processes[p].acknowledged[usize::from(comes)] >= disk.commit;
        let is_settled = voters.after.is_none() && disk.log.changed_at() <= disk.commit;
        if !is_settled || !has_caught_up || voters.all() & bit(comes) != 0 || disk.commit == 0 {
            return false;
        }
        let node = s.registry.nodes[usize::from(comes)];
        let is_old =
            |id: &u8| voters.all() & bit(*id) != 0 && s.registry.nodes[usize::from(*id)] == node;
        let Some(goes) = (0..s.registry.allotted).find(is_old) else {
            return false;
        };
        self.append_own(s, p, Word::Joint { comes, goes });
        true
    }

    /// A leader lets the old voter go, once everyone who counts has agreed to count both.
    pub(crate) fn end_change(&self, s: &mut State, p: usize) -> bool {
        let disk = &s.disks[p];
        let voters = disk.log.voters(disk.log.len());
        if voters.after.is_none() || disk.log.changed_at() > disk.commit {
            return false;
        }
        self.append_own(s, p, Word::Leave);
        true
    }

    fn append_own(&self, s: &mut State, p: usize, word: Word) {
        self.act(s, p);
        let term = s.disks[p].term;
        s.disks[p].log.push(Entry { term, word });
        let index = s.disks[p].log.len();
        let own = usize::from(s.disks[p].replica);
        let mut others = (0..s.processes[p].acknowledged.len()).filter(|id| *id != own);
        if others.any(|id| s.processes[p].acknowledged[id] >= index) {
            s.note(Broken::CountedUnsent);
        }
        s.processes[p].acknowledged[own] = index;
        s.write(p, true);
    }

    /// As which replica the process on `q` takes what is meant for one of these.
    fn addressed(&self, s: &State, replicas: u8, q: usize) -> Option<u8> {
        let disk = &s.disks[q];
        let mut here = (0..s.registry.allotted).filter(|id| {
            replicas & bit(*id) != 0 && s.registry.nodes[usize::from(*id)] == disk.node
        });
        let is_well = disk.standing == Standing::Well;
        if is_well && here.clone().any(|id| id == disk.replica) {
            return Some(disk.replica);
        }
        // Without the rule, the first message for an id that is above all that were ever here
        // begins it.
        let is_new = |id: &u8| *id >= disk.floor && is_above(*id, disk.replica);
        match self.rules.begun_by_order {
            true => None,
            false => here.find(is_new),
        }
    }

    /// Which of these disks would vote for the one on `p` in a term, each with the replica it votes
    /// as.
    pub(crate) fn granting(&self, s: &State, p: usize, term: u8) -> Vec<(usize, u8)> {
        let candidate = &s.disks[p];
        let voters = candidate.log.voters(candidate.log.len()).all();
        let mut found = Vec::new();
        for q in s.peers(p) {
            let Some(id) = self.addressed(s, voters, q) else {
                continue;
            };
            let begins = s.disks[q].replica != id;
            let disk = &s.disks[q];
            let is_free = begins
                || term > disk.term
                || (term == disk.term && disk.vote.is_none_or(|vote| vote == candidate.replica));
            let is_behind = begins || candidate.log.end() >= disk.log.end();
            if is_free && is_behind && self.may_act(s, q) {
                found.push((q, id));
            }
        }
        found
    }

    /// The one on `p` is elected by these.
    pub(crate) fn elect(&self, s: &mut State, p: usize, term: u8, helpers: u8) {
        for (q, id) in self.granting(s, p, term) {
            if helpers & (1 << q) == 0 {
                continue;
            }
            if s.disks[q].replica != id {
                self.begin_replica(s, q, id);
            }
            self.act(s, q);
            s.disks[q].term = term;
            s.disks[q].vote = Some(s.disks[p].replica);
            s.processes[q].leads = false;
            s.write(q, true);
        }
        self.act(s, p);
        s.disks[p].term = term;
        let own = s.disks[p].replica;
        s.disks[p].vote = Some(own);
        s.processes[p].leads = true;
        s.processes[p].acknowledged = Default::default();
        s.processes[p].acknowledged[usize::from(own)] = s.disks[p].log.len();
        s.write(p, true);
    }

    /// The leader on `p` sends the one on `q` what it lacks and what is committed, and takes its
    /// answer.
    pub(crate) fn append(&self, s: &mut State, p: usize, q: usize) -> bool {
        let voters = s.disks[p].log.voters(s.disks[p].log.len()).all();
        let learner = s.registry.under_way.map_or(0, |m| bit(m.comes));
        let Some(id) = self.addressed(s, voters | learner, q) else {
            return false;
        };
        if s.disks[q].replica != id {
            self.begin_replica(s, q, id);
        }
        let (leader, follower) = (s.disks[p], s.disks[q]);
        let is_rival = s.processes[q].leads && follower.term == leader.term;
        if follower.term > leader.term || is_rival {
            return false;
        }
        // A heartbeat tells of commits as far as this replica has acknowledged.
        let acknowledged = s.processes[p].acknowledged[usize::from(id)];
        if self.rules.lost_end_fails && acknowledged.min(leader.commit) > follower.log.len() {
            self.counts.lost_ends.add();
            s.disks[q].standing = Standing::Failed;
            s.write(q, false);
            return true;
        }
        let differs_at = leader.log.differs_at(&follower.log);
        if differs_at.is_some_and(|index| index <= follower.commit) {
            if self.rules.contradiction_stops {
                self.counts.contradictions.add();
                s.disks[q].standing = Standing::Disputed;
                return true;
            }
            s.note(Broken::CommittedHere);
        }
        self.act(s, p);
        self.act(s, q);
        let mut log = follower.log;
        if let Some(index) = differs_at {
            log.truncate(index - 1);
        }
        while let Some(entry) = leader.log.get(log.len() + 1) {
            log.push(entry);
        }
        let is_written = log != follower.log || leader.term > follower.term;
        let disk = &mut s.disks[q];
        if leader.term > disk.term {
            disk.term = leader.term;
            disk.vote = None;
        }
        disk.log = log;
        disk.commit = disk.commit.min(log.len());
        s.processes[q].leads = false;
        if is_written {
            s.write(q, true);
        }
        self.commit(s, q, leader.commit.min(leader.log.len()));
        self.take_acknowledgement(s, p, id, follower.commit);
        true
    }

    /// An append that ends below the follower's commit is answered with that commit.
    fn take_acknowledgement(&self, s: &mut State, p: usize, id: u8, committed: u8) {
        let sent = s.disks[p].log.len();
        let index = sent.max(committed);
        if index > sent && self.rules.ack_beyond_log_refused {
            self.counts.acks_beyond_log.add();
            return;
        }
        s.processes[p].acknowledged[usize::from(id)] = index;
        let disk = s.disks[p];
        let acknowledged = s.processes[p].acknowledged;
        let voters = disk.log.voters(disk.log.len());
        let is_held = |index: &u8| {
            let ids =
                (0..s.registry.allotted).filter(|id| acknowledged[usize::from(*id)] >= *index);
            let is_own = disk.log.get(*index).map(|entry| entry.term) == Some(disk.term);
            is_own && voters.is_quorum(ids.map(bit).sum())
        };
        let Some(index) = (disk.commit + 1..=sent).rev().find(is_held) else {
            return;
        };
        // It commits in its term: everything that was ever acknowledged should be in its log.
        let known = s.notes.committed;
        let lacks = known.len() > disk.log.len() || known.differs_at(&disk.log).is_some();
        if lacks {
            s.note(Broken::Acknowledged);
        }
        self.commit(s, p, index);
    }

    fn commit(&self, s: &mut State, p: usize, index: u8) {
        let disk = &mut s.disks[p];
        disk.commit = disk.commit.max(index);
        let log = disk.log;
        for index in 1..=disk.commit {
            let Some(entry) = log.get(index) else {
                break;
            };
            match s.notes.committed.get(index) {
                Some(known) if known != entry => s.note(Broken::History),
                Some(_) => {}
                None => {
                    s.notes.committed.push(entry);
                    if entry.word == Word::Leave {
                        s.registry.under_way = None;
                    }
                }
            }
        }
    }

    pub(crate) fn begin_replica(&self, s: &mut State, p: usize, id: u8) {
        let disk = &mut s.disks[p];
        disk.replica = id;
        disk.standing = Standing::Well;
        disk.term = 0;
        disk.vote = None;
        disk.log = Default::default();
        disk.commit = 0;
        disk.checkpoint = 0;
        s.write(p, false);
    }

    /// Notes who takes part in something that others rely on.
    fn act(&self, s: &mut State, p: usize) {
        if s.has_forgotten(p) {
            s.note(Broken::Promise);
        }
    }
}

fn is_above(id: u8, replica: u8) -> bool {
    replica == NO_REPLICA || id > replica
}
