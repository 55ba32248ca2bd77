//! What a check is told: which rules there are, what is assumed, how far it goes; and what it has
//! counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rules of docs/identity.md. Each can be left out, to see what it is for.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A replica begins by an order that names the directory; otherwise by the first message for
    /// it.
    pub begun_by_order: bool,
    /// At a hello, and whenever one is heard of: the later admission is the node.
    pub admission_checked: bool,
    /// At a hello: who has an earlier pulse than was heard of its directory has forgotten.
    pub pulse_checked: bool,
    /// A pulse is told with the boot that wrote it, and who has not got that pulse of that boot has
    /// forgotten.
    pub pulse_names_its_boot: bool,
    /// At a hello: a directory of which another boot is heard is in use.
    pub boot_checked: bool,
    /// A pulse that is told by one of two twins is held against the other, too.
    pub later_pulse_ends_who_is_heard: bool,
    /// What a node has heard of others it passes on to whom it reaches.
    pub memory_passed_on: bool,
    /// A replica whose log ends before its checkpoint, or before what its leader knows it to have,
    /// fails.
    pub lost_end_fails: bool,
    /// A follower stops where its leader contradicts what is committed here.
    pub contradiction_stops: bool,
    /// A leader does not count what is acknowledged beyond the end of its log.
    pub ack_beyond_log_refused: bool,
    /// Nobody joins as a node that is heard.
    pub join_refused_while_heard: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        begun_by_order: true,
        admission_checked: true,
        pulse_checked: true,
        pulse_names_its_boot: true,
        boot_checked: true,
        later_pulse_ends_who_is_heard: true,
        memory_passed_on: true,
        lost_end_fails: true,
        contradiction_stops: true,
        ack_beyond_log_refused: true,
        join_refused_while_heard: true,
    };
}

/// Which forgetful directories the model lets promise something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgetting {
    /// Those of which somebody whom they reach, or their own checkpoints, could know.
    IsKnownInReach,
    /// Also those of which somebody could know whom only another reaches.
    IsKnownInReachOfOthers,
    /// Also those of which somebody could know who is up, and in nobody's reach.
    IsKnownToOneWhoIsUp,
    /// All.
    MayBeUnknown,
}

/// How often what multiplies states may happen.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The highest.
    pub terms: u8,
    /// Clients' values.
    pub values: u8,
    /// Processes that end without having been told to.
    pub crashes: u8,
    /// Copies of directories.
    pub copies: u8,
    /// Nodes that are started on an empty directory and let in.
    pub joins: u8,
    /// Cuts of a link between two nodes.
    pub cuts: u8,
    /// Writes that promise nothing.
    pub writes: u8,
    /// Checkpoint files.
    pub checkpoints: u8,
}

/// How often something came about, over all states.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Until now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often each rule was of use, so that a check that finds nothing is known to have looked.
#[derive(Debug, Default)]
pub struct Counts {
    /// Ended, since a later directory was let in.
    pub replaced: Count,
    /// Ended, since a later pulse was heard.
    pub forgetful: Count,
    /// Ended, since another boot was heard.
    pub twins: Count,
    /// Ended, since a twin told a later pulse.
    pub overtaken: Count,
    /// Replicas that failed.
    pub lost_ends: Count,
    /// Replicas that stopped.
    pub contradictions: Count,
    /// Acknowledgements that were not counted.
    pub acks_beyond_log: Count,
    /// Joins that were refused.
    pub joins: Count,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "replaced {}, forgetful {}, twins {}, overtaken {}, lost ends {}, contradictions {}, \
             acks beyond the log {}, joins refused {}",
            self.replaced.get(),
            self.forgetful.get(),
            self.twins.get(),
            self.overtaken.get(),
            self.lost_ends.get(),
            self.contradictions.get(),
            self.acks_beyond_log.get(),
            self.joins.get()
        )
    }
}
