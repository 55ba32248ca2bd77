//! Compares what should be with what is, and says what to do next. Pure: the leader of group 0 asks
//! it twice a second and carries the orders out; an order that is lost is given again, since what
//! it was to change has not changed.
//!
//! The rules:
//!
//! - **How many replicas.** As many as the registry says (3 or 5, as a rule). With fewer nodes, the
//!   largest odd number there are nodes for: an even group bears no more failures than the odd one
//!   below it and needs one more acknowledgement. A group that has lost nodes is never made smaller
//!   for that, save from four (or six) to three (or five): two copies are worth more than one, even
//!   where they bear no failure.
//! - **What is replaced.** A failed replica, at once and on its own node; a lost disk's, at once
//!   and on its own node; those of a node away for longer than [`Policy::replace_after_ms`],
//!   elsewhere; a draining node's, elsewhere.
//! - **When.** Only while every other voter of the group is active and caught up, or to be replaced
//!   itself; only while old and new voters keep a majority of those that work; and one replica at a
//!   time. What an operator wants made anew works until its turn comes, and a leader hands over
//!   before it gives way.
//! - **Group 0** has a replica on every node: where none votes, one observes.
//! - **Balance.** Nodes differ by at most [`REPLICA_DIFFERENCE_MAX`] replicas and
//!   [`LEADER_DIFFERENCE_MAX`] leaders. Where they differ by no more, nothing moves.
//! - **Slow disks.** A node whose disk is slow beside the others' leads nothing, whoever prefers
//!   it, as long as anybody else can: see [`crate::reports::slow_disks`]. Balance leaves it out
//!   until it has kept up for a while.
//! - **Nodes without room** lead nothing either, and rather leave it to a slow disk, or to a node
//!   that had no room a minute ago, than go on.

mod leaders;
mod moves;
mod needs;
pub mod overview;
mod situation;
mod stopping;

use std::collections::BTreeMap;
use std::fmt;

use self::situation::Situation;
use crate::ids::{Directory, GroupId, ReplicaId};
use crate::limits::{MOVES_MAX, REPORT_EVERY_MS};
use crate::registry::command::{BeginMove, Change, EndMove};
use crate::registry::{Move, Registry};
use crate::reports::slow_disks::FAST_AFTER_REPORTS;
use crate::reports::{Reports, Resource, SHORT_FOR_MS};

/// A replica that lacks fewer entries than this has caught up. Under load a leader's log is always
/// a few entries ahead of every follower; these are sent in one message.
pub const CATCH_UP_ENTRIES_MAX: u64 = 64;

/// A move to a node that has been silent for this long is given up.
pub const GIVE_UP_AFTER_MS: u64 = 60_000;

/// A move of a group whose leader has been silent for this long is laid aside, so that others can
/// go on.
pub const PARK_AFTER_MS: u64 = 60_000;

/// How many replicas two nodes may differ by.
pub const REPLICA_DIFFERENCE_MAX: usize = 1;

/// How many groups led two nodes may differ by.
pub const LEADER_DIFFERENCE_MAX: usize = 1;

/// Hand-overs ordered at a time.
pub const TRANSFERS_PER_DECISION_MAX: usize = 4;

/// Replicas ordered to be destroyed at a time.
pub const DESTROYS_PER_DECISION_MAX: usize = 16;

/// What an operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A node that has been silent for this long has its replicas replaced. Long enough for a
    /// machine to be restarted: to copy its data costs more than to wait.
    pub replace_after_ms: u64,
    /// A leader stays for at least this long before balance moves leadership on.
    pub leader_settle_ms: u64,
    /// A node with less room than this gets no further replica.
    pub free_bytes_min: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            replace_after_ms: 10 * 60 * 1_000,
            leader_settle_ms: 5_000,
            free_bytes_min: 1 << 30,
        }
    }
}

/// What shall be done, and why nothing else is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// In the order in which they are to be carried out.
    pub orders: Vec<Order>,
    /// Moves under way, and where they are.
    pub moves: Vec<MoveProgress>,
    /// What waits, and for what.
    pub waiting: Vec<Waiting>,
    /// By node, the groups that would have no quorum without it.
    pub needed: BTreeMap<u64, Vec<GroupId>>,
}

/// Something to be done. Each may be given twice, and whoever carries it out then does nothing.
///
/// Orders go out with the term in which the leader of group 0 decided; a receiver that has heard
/// from a later one ignores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// To group 0: a command. It is [`Change::Begin`], [`Change::End`], [`Change::Park`],
    /// [`Change::Heard`] or [`Change::ReportFailedReplica`].
    Record(Change),
    /// To the replica's node: begin it, if this is its data directory. It waits for a leader to
    /// send it a snapshot.
    BeginReplica {
        /// Whose.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
        /// In this directory, and in no other that the node may run on.
        directory: Directory,
    },
    /// To the group's leader: send the log to a replica that does not vote.
    AddLearner {
        /// Whose.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// To the group's leader: make a learner a voter and, in the same joint change, `remove` none.
    Promote {
        /// Whose.
        group: GroupId,
        /// The learner.
        add: ReplicaId,
        /// The voter that goes.
        remove: Option<ReplicaId>,
    },
    /// To the group's leader: take a learner out. If it votes by now, it stays: the report that
    /// this was decided on is out of date, and the group would have one voter less than anybody
    /// meant it to have.
    RemoveLearner {
        /// Whose.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// To the group's leader: take a voter out.
    RemoveVoter {
        /// Whose.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// To the group's leader: finish a joint change that an earlier leader began.
    LeaveJoint {
        /// Whose.
        group: GroupId,
    },
    /// To the group's leader: hand over.
    Transfer {
        /// Whose.
        group: GroupId,
        /// To this voter.
        to: ReplicaId,
    },
    /// To the replica's node: its data is not needed any more, and never will be.
    Destroy {
        /// Whose.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
}

/// A move, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveProgress {
    /// Whose.
    pub group: GroupId,
    /// From the registry.
    pub under_way: Move,
    /// Where it is.
    pub step: Step,
}

/// Where a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Laid aside: the group has no leader.
    Parked,
    /// Nothing is known of the group.
    Unheard,
    /// The new replica is made known to the group.
    Adding,
    /// It receives the log, or a snapshot.
    CatchingUp {
        /// Entries it lacks.
        lag: u64,
        /// Bytes of a snapshot sent so far.
        snapshot_bytes: Option<u64>,
    },
    /// Leadership leaves the replica that goes.
    HandingOver,
    /// The voters change.
    Changing,
    /// The new replica is taken back: its node is gone.
    GivingUp,
    /// The registry writes down what came of it.
    Ending,
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Whose; `None`: the whole cluster.
    pub group: Option<GroupId>,
    /// For what.
    pub reason: Reason,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The first leader has not founded the cluster yet.
    NotFounded,
    /// The group has no leader, or none has reported.
    GroupSilent,
    /// The group's voters are not those that the registry knows.
    VotersDiffer,
    /// Another voter is not active or not caught up.
    Unsound {
        /// Which.
        replica: ReplicaId,
    },
    /// A replica is to be made anew where it is, and without it the group has no majority.
    TooFewCopies {
        /// Which.
        replica: ReplicaId,
    },
    /// A replica contradicts its leader about what was acknowledged, and has stopped.
    Disputed {
        /// Which.
        replica: ReplicaId,
    },
    /// No active node has room for another replica.
    NoRoom,
    /// The node has been silent, and not for long enough to be replaced.
    NodeSilent {
        /// Which.
        node: u64,
        /// For how long.
        for_ms: u64,
    },
    /// The node runs on a data directory that has not joined.
    WrongDirectory {
        /// Which.
        node: u64,
    },
    /// The node's disk is slow beside the others', so it leads nothing.
    SlowDisk {
        /// Which.
        node: u64,
        /// Half of its latest writes took this long at most, in microseconds; none where it has
        /// written too little lately to tell.
        write_us: Option<u64>,
    },
    /// The node has too little room to take more in, so it leads nothing where another can.
    Short {
        /// Which.
        node: u64,
        /// Of what.
        resource: Resource,
    },
    /// Another move is under way.
    MoveUnderWay,
    /// There is no other voter that could lead.
    NoOtherLeader,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "{}: {}", group, self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFounded => write!(f, "the cluster is not founded yet"),
            Self::GroupSilent => write!(f, "no leader has reported"),
            Self::VotersDiffer => write!(f, "its voters are not those that are written down"),
            Self::Unsound { replica } => write!(f, "replica {replica} is not caught up"),
            Self::TooFewCopies { replica } => write!(
                f,
                "replica {replica} is made anew once the group has a majority without it: bring \
                 in another node"
            ),
            Self::Disputed { replica } => write!(
                f,
                "replica {replica} contradicts its leader about what was acknowledged, and has \
                 stopped: one of them has forgotten something; look into both before you have it \
                 rebuilt"
            ),
            Self::NoRoom => write!(f, "no other active node has room for a replica"),
            Self::NodeSilent { node, for_ms } => {
                write!(f, "node {node} has been silent for {} s", for_ms / 1_000)
            }
            Self::WrongDirectory { node } => {
                write!(
                    f,
                    "node {node} runs on a data directory that has not joined"
                )
            }
            Self::SlowDisk { node, write_us } => {
                let seconds = u64::from(FAST_AFTER_REPORTS) * REPORT_EVERY_MS / 1_000;
                write!(
                    f,
                    "node {node} leads nothing until its disk has kept up with the others' for \
                     {seconds} s"
                )?;
                match write_us {
                    Some(write_us) => write!(f, ": a write takes {} ms", write_us.div_ceil(1_000)),
                    None => Ok(()),
                }
            }
            Self::Short { node, resource } => {
                let what = match resource {
                    Resource::Disk => "its disk is nearly full",
                    Resource::Memory => "its memory is nearly used up",
                };
                let seconds = SHORT_FOR_MS / 1_000;
                write!(
                    f,
                    "node {node} leads nothing that another can, until there has been room for \
                     {seconds} s: {what}"
                )
            }
            Self::MoveUnderWay => write!(f, "another replica is being moved"),
            Self::NoOtherLeader => write!(f, "no other replica could lead"),
        }
    }
}

/// What to do next. `now_ms` is on the clock of the reports.
pub fn decide(registry: &Registry, reports: &Reports, now_ms: u64, policy: &Policy) -> Decision {
    let mut decision = Decision::default();
    if !registry.is_founded() {
        decision.wait(None, Reason::NotFounded);
        return decision;
    }
    let situation = Situation::new(registry, reports, now_ms, policy);
    let is_growing = situation.take_note_of_the_heard(&mut decision);
    situation.tidy(&mut decision);
    situation.add_observers(&mut decision);
    situation.destroy_retired(&mut decision);
    let running = situation.carry_on(&mut decision);
    // Where replicas go is decided once all who are there count.
    if running < MOVES_MAX && !is_growing {
        situation.begin_next(&mut decision);
    }
    situation.hand_over(&mut decision);
    situation.explain_disputes(&mut decision);
    situation.explain_nodes(&mut decision);
    situation.explain_stopping(&mut decision);
    decision
}

impl Decision {
    fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    fn begin(&mut self, begin: BeginMove) {
        self.order(Order::Record(Change::Begin(begin)));
    }

    fn end(&mut self, end: EndMove) {
        self.order(Order::Record(Change::End(end)));
    }

    fn wait(&mut self, group: Option<GroupId>, reason: Reason) {
        let waiting = Waiting { group, reason };
        if !self.waiting.contains(&waiting) {
            self.waiting.push(waiting);
        }
    }
}
