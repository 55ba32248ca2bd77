//! Who a directory is, and what it may have forgotten: what is checked at a start and at a hello.

use crate::IdentityModel;
use crate::rules::Forgetting;
use crate::state::{DISKS, Disk, Move, NO_REPLICA, REPLICAS, Standing, State, bit, bit_of, link};

impl IdentityModel {
    /// Whether the model lets the one on `p` promise something.
    ///
    /// One that has forgotten does harm where nobody who could know is there to be asked, and no
    /// rule can mend that. So it acts only where somebody could know; then a rule must have ended
    /// it before.
    pub(crate) fn may_act(&self, s: &State, p: usize) -> bool {
        if !s.has_forgotten(p) {
            return true;
        }
        match self.forgetting {
            Forgetting::MayBeUnknown => true,
            Forgetting::IsKnownInReach => self.is_known_to_have_forgotten(s, p, s.peers(p)),
            Forgetting::IsKnownInReachOfOthers => {
                let reached = s.component(p);
                let others = s.numbers().filter(|q| *q != p && reached & bit_of(*q) != 0);
                self.is_known_to_have_forgotten(s, p, others)
            }
            Forgetting::IsKnownToOneWhoIsUp => {
                let node = s.disks[p].node;
                let is_up = |q: &usize| s.processes[*q].runs && s.disks[*q].node != node;
                self.is_known_to_have_forgotten(s, p, s.numbers().filter(is_up))
            }
        }
    }

    fn is_known_to_have_forgotten(
        &self,
        s: &State,
        p: usize,
        mut peers: impl Iterator<Item = usize>,
    ) -> bool {
        let disk = &s.disks[p];
        let is_known_to = |q: usize| {
            let peer = &s.disks[q];
            peer.heard[usize::from(disk.directory)].history & !disk.history != 0
                || peer.admissions[usize::from(disk.node)] > disk.admission
        };
        disk.checkpoint > disk.log.len() || peers.any(is_known_to)
    }

    /// Whether `listener` knows of a later directory of the same node.
    fn is_replaced(&self, listener: &Disk, teller: &Disk) -> bool {
        self.rules.admission_checked
            && teller.admission < listener.admissions[usize::from(teller.node)]
    }

    /// Whether `listener` has heard a later pulse of the same directory.
    fn is_forgetful(&self, listener: &Disk, teller: &Disk) -> bool {
        let heard = &listener.heard[usize::from(teller.directory)];
        let is_later = heard.pulse > teller.pulse();
        let is_another = self.rules.pulse_names_its_boot && heard.history & !teller.history != 0;
        self.rules.pulse_checked && (is_later || is_another)
    }

    fn is_refused(&self, s: &State, listener: usize, teller: usize) -> bool {
        let (listener, teller) = (&s.disks[listener], &s.disks[teller]);
        if self.is_replaced(listener, teller) {
            self.counts.replaced.add();
            return true;
        }
        if self.is_forgetful(listener, teller) {
            self.counts.forgetful.add();
            return true;
        }
        false
    }

    /// A process starts on a disk. With later files, its checkpoints are those of the copy that has
    /// the most.
    pub(crate) fn start(&self, s: &mut State, p: usize, later_files: bool, reversed: bool) {
        if later_files {
            let others = s.copies(p).map(|q| s.disks[q].checkpoint);
            s.disks[p].checkpoint = others.max().unwrap_or(0);
        }
        s.processes[p].runs = true;
        let disk = &mut s.disks[p];
        let is_cut = disk.checkpoint > disk.log.len() && disk.replica != NO_REPLICA;
        if is_cut && self.rules.lost_end_fails && disk.standing == Standing::Well {
            self.counts.lost_ends.add();
            disk.standing = Standing::Failed;
        }
        self.greet_all(s, p, reversed);
    }

    /// Who starts asks everyone in reach before it says anything else.
    fn greet_all(&self, s: &mut State, p: usize, reversed: bool) {
        let mut peers: Vec<usize> = s.peers(p).collect();
        if reversed {
            peers.reverse();
        }
        if peers.iter().any(|q| self.is_refused(s, *q, p)) {
            s.end(p);
            return;
        }
        let mut greeted = Vec::new();
        for q in peers {
            let by_q: Vec<usize> = s.peers(q).filter(|other| *other != p).collect();
            self.greet(s, (p, &greeted), (q, &by_q));
            greeted.push(q);
        }
        self.settle(s);
    }

    /// Hello, each way. Each hears some others already.
    fn greet(&self, s: &mut State, (p, by_p): (usize, &[usize]), (q, by_q): (usize, &[usize])) {
        if !s.hears(p, q) {
            return;
        }
        let (is_p_refused, is_q_refused) = (self.is_refused(s, q, p), self.is_refused(s, p, q));
        if is_p_refused {
            s.end(p);
        }
        if is_q_refused {
            s.end(q);
        }
        if is_p_refused || is_q_refused {
            return;
        }
        for (one, other) in [(p, q), (q, p)] {
            let node = usize::from(s.disks[other].node);
            let admission = s.disks[other].admission;
            let known = &mut s.disks[one].admissions[node];
            *known = admission.max(*known);
            s.hear(one, other);
        }
        // A twin has told its pulse before it is told that its directory is in use.
        let is_twin = |one: usize, other: usize, by_other: &[usize]| {
            let is_heard = |twin: usize| by_other.contains(&twin) && s.hears(twin, other);
            self.rules.boot_checked && s.copies(one).any(is_heard)
        };
        for (one, is_twin) in [(p, is_twin(p, q, by_q)), (q, is_twin(q, p, by_p))] {
            if is_twin {
                self.counts.twins.add();
                s.end(one);
            }
        }
    }

    /// The link between two nodes is there again.
    pub(crate) fn mend(&self, s: &mut State, cut: usize, reversed: bool) {
        s.cut[cut] = false;
        let mut pairs = Vec::new();
        for p in s.numbers() {
            let is_other = |q: &usize| *q > p && s.hears(p, *q);
            let joined = |q: &usize| link(s.disks[p].node, s.disks[*q].node) == cut;
            pairs.extend(s.numbers().filter(is_other).filter(joined).map(|q| (p, q)));
        }
        if reversed {
            pairs.reverse();
        }
        // Twins have the same links, so that nobody hears one by another way.
        let mut greeted = [const { Vec::new() }; DISKS];
        for (p, q) in pairs {
            self.greet(s, (p, &greeted[p]), (q, &greeted[q]));
            greeted[p].push(q);
            greeted[q].push(p);
        }
        self.settle(s);
    }

    /// Everybody tells whom he reaches what he has heard of others.
    pub(crate) fn pass_on(&self, s: &mut State) {
        if !self.rules.memory_passed_on {
            return;
        }
        // Two steps reach everyone: there are three nodes.
        for _ in 0..2 {
            for teller in s.numbers() {
                for listener in s.numbers() {
                    if s.hears(teller, listener) {
                        let memory = s.disks[teller].heard;
                        s.disks[listener].remember(&memory);
                    }
                }
            }
        }
    }

    /// What was heard is held against those who are heard already.
    pub(crate) fn settle(&self, s: &mut State) {
        self.pass_on(s);
        for listener in s.numbers() {
            for teller in s.numbers() {
                let is_own = listener == teller && s.processes[listener].runs;
                if !is_own && !s.hears(listener, teller) {
                    continue;
                }
                let (by, of) = (&s.disks[listener], &s.disks[teller]);
                let is_behind = self.rules.later_pulse_ends_who_is_heard
                    && !is_own
                    && self.is_forgetful(by, of);
                if self.is_replaced(by, of) {
                    self.counts.replaced.add();
                    s.end(teller);
                } else if is_behind {
                    self.counts.overtaken.add();
                    s.end(teller);
                }
            }
        }
    }

    /// A node copies what group 0 has decided.
    pub(crate) fn learn(&self, s: &mut State, p: usize) -> bool {
        if s.disks[p].admissions == s.registry.admissions {
            return false;
        }
        s.disks[p].admissions = s.registry.admissions;
        self.settle(s);
        true
    }

    /// A node that was started on an empty directory is let in by group 0, which `by` leads.
    pub(crate) fn join(&self, s: &mut State, node: u8, by: usize) -> bool {
        self.learn(s, by);
        if !s.processes[by].runs {
            return false;
        }
        let mut there: Vec<usize> = s.peers(by).collect();
        if self.rules.join_refused_while_heard && there.iter().any(|q| s.disks[*q].node == node) {
            self.counts.joins.add();
            return false;
        }
        there.push(by);
        let votes = there.iter().map(|q| &s.disks[*q]);
        let votes = votes.filter(|disk| disk.standing == Standing::Well);
        let votes = votes
            .filter(|disk| disk.replica != NO_REPLICA)
            .fold(0, |votes, disk| votes | bit(disk.replica));
        let committed = s.notes.committed;
        let is_quorum = committed.voters(committed.len()).is_quorum(votes);
        if !is_quorum || there.iter().any(|q| s.has_forgotten(*q)) {
            return false;
        }
        let directory = s.used;
        let new = usize::from(directory);
        s.used += 1;
        s.spent.joins += 1;
        let registry = &mut s.registry;
        registry.latest_admission += 1;
        registry.directories[usize::from(node)] = directory;
        registry.admissions[usize::from(node)] = registry.latest_admission;
        s.disks[new] = Disk {
            admission: registry.latest_admission,
            floor: registry.allotted,
            admissions: registry.admissions,
            ..Disk::empty(node, directory)
        };
        s.disks[by].admissions = registry.admissions;
        s.processes[new].runs = true;
        self.allot(s, node);
        self.greet_all(s, new, false);
        true
    }

    /// Group 0 allots a replica to the directory of a node, if none is under way.
    fn allot(&self, s: &mut State, node: u8) -> bool {
        let registry = &mut s.registry;
        let comes = registry.allotted;
        if registry.under_way.is_some() || usize::from(comes) == REPLICAS {
            return false;
        }
        registry.nodes[usize::from(comes)] = node;
        registry.allotted += 1;
        let directory = registry.directories[usize::from(node)];
        registry.under_way = Some(Move { comes, directory });
        true
    }

    /// A replica that failed is built again under another id, in the same directory.
    pub(crate) fn rebuild(&self, s: &mut State, p: usize) -> bool {
        let disk = &s.disks[p];
        let node = disk.node;
        let is_node = s.registry.directories[usize::from(node)] == disk.directory;
        let voters = s.notes.committed.voters(s.notes.committed.len());
        let is_voter = disk.replica != NO_REPLICA && voters.all() & bit(disk.replica) != 0;
        disk.standing == Standing::Failed && is_node && is_voter && self.allot(s, node)
    }

    /// Group 0's leader orders a directory, by its number, to begin the replica that was allotted
    /// to it.
    pub(crate) fn order(&self, s: &mut State, p: usize) -> bool {
        let Some(under_way) = s.registry.under_way else {
            return false;
        };
        let disk = &s.disks[p];
        let is_free = disk.replica == NO_REPLICA || disk.standing == Standing::Failed;
        let is_named = disk.directory == under_way.directory;
        if !is_named || !is_free || disk.replica == under_way.comes || s.peers(p).next().is_none() {
            return false;
        }
        self.begin_replica(s, p, under_way.comes);
        true
    }

    /// A disk is copied as it is.
    pub(crate) fn copy(&self, s: &mut State, p: usize) -> bool {
        let copy = usize::from(s.used);
        if copy == DISKS {
            return false;
        }
        s.disks[copy] = s.disks[p];
        s.used += 1;
        s.spent.copies += 1;
        true
    }
}
