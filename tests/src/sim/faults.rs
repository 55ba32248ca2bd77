//! What can go wrong, what operators do, and how often it happened.

use std::collections::BTreeMap;

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// As it is written in reports and on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

fault_kinds! {
    /// A process is killed between two steps of its loop; its operating system lives on.
    Kill = "kill",
    /// A machine loses its power: what was not synced is lost, whole or in part.
    PowerCut = "power-cut",
    /// A node dies at a chosen step of a turn that writes.
    DeathInTurn = "death-in-turn",
    /// A node dies with only some of its effects performed.
    DeathInEffects = "death-in-effects",
    /// The power fails inside a write or a sync.
    DeathInWrite = "death-in-write",
    /// Every node dies at once.
    DeathOfAll = "death-of-all",
    /// A node is stopped in order, leadership handed over, and started again.
    Restart = "restart",
    /// A sync fails.
    SyncFailure = "sync-failure",
    /// A disk is full.
    DiskFull = "disk-full",
    /// A bit of a log file turns over.
    BitFlip = "bit-flip",
    /// A bit of a checkpoint turns over: the replica is built again from its peers.
    DamagedCheckpoint = "damaged-checkpoint",
    /// A node dies, and comes back with an empty disk, as another member.
    ReplacedDisk = "replaced-disk",
    /// A disk takes long.
    SlowDisk = "slow-disk",
    /// Nothing reaches a node, and nothing leaves it.
    Isolation = "isolation",
    /// Two parts of the cluster do not hear each other.
    Partition = "partition",
    /// One node does not hear another, which hears it.
    OneWay = "one-way",
    /// A connection breaks.
    Disconnect = "disconnect",
    /// The way between two nodes takes long.
    SlowLink = "slow-link",
    /// A frame is lost while its connection stands. Production's connections do not do that; Raft
    /// must bear it.
    Loss = "loss",
    /// A frame arrives twice, as above.
    Duplicate = "duplicate",
    /// A frame overtakes another, as above.
    Reorder = "reorder",
    /// A process does not run for a while, and then sees that time has jumped.
    Pause = "pause",
    /// A leader is cut off and does not run for a while; it runs again before it hears anything.
    LeaderCutOff = "leader-cut-off",
    /// All machines sleep for many minutes.
    Sleep = "sleep",
    /// A wall clock is set wrong by up to five minutes.
    ClockStep = "clock-step",
    /// A further node joins.
    Join = "join",
    /// A node is to be emptied.
    Drain = "drain",
    /// It need not be, after all.
    Undrain = "undrain",
    /// A replica is to be on another node.
    Move = "move",
    /// A group is to be led by another node.
    Transfer = "transfer",
    /// A node that was emptied is taken out for good, and stopped a while later.
    Remove = "remove",
    /// A node's history is damaged, and given up.
    DamagedLedger = "damaged-ledger",
    /// A disk takes long for many seconds, and its node says so.
    AilingDisk = "ailing-disk",
    /// A machine is started on the directory that it had before its present one.
    OldDirectory = "old-directory",
    /// A node's directory is put back to a copy that was made before.
    OlderCopy = "older-copy",
    /// A node's log is put back to a copy that was made before, and what lies beside it stays.
    HalfCopy = "half-copy",
    /// Somebody lets a node in that nobody ever starts.
    Phantom = "phantom-node",
    /// An empty directory asks to be let in under the id of a node that runs.
    Intruder = "intruder",
    /// A founder is started on the directory with which it founded an earlier life of the cluster.
    EarlierLife = "earlier-life",
    /// The directories of founders hold checkpoints of an earlier life of the cluster.
    Leftovers = "leftovers",
    /// A replica is elected just after its vote was taken away, and is cut off, and does not run
    /// for a while, the moment that it knows.
    OvertakenRemoval = "overtaken-removal",
    /// The first nodes were given different lists of founders, which is put right after a while.
    Disagreement = "disagreeing-founders",
    /// A node is started with other addresses than before, and nobody is told.
    MovedMachine = "moved-machine",
    /// A bit of the newest checkpoint of a group turns over on several nodes, each of which has an
    /// older one that is whole.
    DamagedStates = "damaged-states",
    /// Most nodes are lost, one is gone on from, and the others turn up afterwards.
    Recovery = "recovery",
    /// All nodes end, or all but one, which is cut off, and come back after seconds to weeks.
    Outage = "outage",
    /// A disk is nearly full, and stays so for long.
    NearlyFull = "nearly-full",
    /// A node is to lead a group, dies, and takes long to replay its log.
    SlowReplay = "slow-replay",
    /// A node's directory is put back to a copy while another node is behind, and those that are
    /// not are out of reach.
    CopyWithLaggard = "copy-with-laggard",
    /// A client that finds its way itself does not reach a node for a while. Where this kind
    /// occurs, some clients do.
    ClientCutOff = "client-cut-off",
    /// A node is started with another build than before, or an operator raises the version that the
    /// cluster speaks.
    Upgrade = "upgrade",
}

impl FaultKind {
    /// Those that came after many seeds had been run. Whether a run meets them is drawn apart, so
    /// that a seed that is kept for what it found is still the same run without them.
    pub const LATER: &'static [Self] = &[
        Self::Remove,
        Self::DamagedLedger,
        Self::AilingDisk,
        Self::OldDirectory,
        Self::OlderCopy,
        Self::HalfCopy,
        Self::Phantom,
        Self::Intruder,
        Self::Leftovers,
        Self::EarlierLife,
    ];

    /// Those that came later still. Each is drawn on its own, so that a further one changes nothing
    /// of the runs that do not meet it.
    pub const APART: &'static [Self] = &[
        Self::OvertakenRemoval,
        Self::Disagreement,
        Self::MovedMachine,
        Self::DamagedStates,
        Self::Recovery,
        Self::Outage,
        Self::NearlyFull,
        Self::ClientCutOff,
        Self::SlowReplay,
        Self::CopyWithLaggard,
        Self::Upgrade,
    ];
}

/// How often each thing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occurrences(BTreeMap<&'static str, u64>);

impl Occurrences {
    /// It happened once more.
    pub fn add(&mut self, what: &'static str) {
        self.add_many(what, 1);
    }

    /// It happened so many times more.
    pub fn add_many(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    /// Takes in another tally.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add_many(what, *times);
        }
    }

    /// How often this happened.
    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(what, times)| (*what, *times))
    }
}
