//! Whole clusters in one thread: the production loop, state machine, replica and log on a virtual
//! network, virtual disks and virtual clocks.
//!
//! One seed reproduces a run to the byte: it decides the cluster, the faults, the clients and every
//! delay ([`plan`]), and nothing else has a say. What is promised is checked all the way
//! ([`checks`]).
//!
//! | file | plays |
//! |---|---|
//! | `world.rs` | time: what happens next, and when a run is over |
//! | `machine.rs`, `boot.rs` | a node: its disk and clocks; how it starts, or is let in first |
//! | `turn.rs`, `deaths.rs` | turns of the loop; deaths between any two of its steps |
//! | `directories.rs` | old directories and copies that are started, ids given twice |
//! | `founding.rs` | the first nodes, which were not all given the same list |
//! | `addresses.rs` | where nodes are reached, which changes |
//! | `members.rs` | nodes that join, whose data can be trusted, and whether all groups are whole |
//! | `operators.rs` | nodes added and emptied, replicas and leadership moved |
//! | `overtaken.rs` | a replica that is elected though its vote is being taken away |
//! | `follow.rs` | what nodes know to be committed, for the checks |
//! | `helpers.rs` | whoever works beside the loop: files, snapshots, the ledger |
//! | `edge.rs` | calls on their way, by `stock_node::way`, over the virtual network |
//! | `clients.rs`, `workload.rs` | who asks, retries and gives up; what is asked |
//! | `router.rs`, `routing.rs` | clients that find their way as the Rust client does, by its code |
//! | `network.rs`, `links.rs`, `disk.rs`, `clock.rs` | the world around a node |
//! | `trouble.rs`, `faults.rs`, `plan.rs` | what goes wrong, and how often |
//!
//! Smaller ones: `calls.rs`, `client.rs` (what is said and known of a call and its caller),
//! `dice.rs` (chance), `identities.rs`, `lives.rs` (who is who), `beside.rs` (what a node's helpers
//! have in hand), `overtaking.rs`, `recovery.rs`, `standing.rs` (further things that go wrong),
//! `trace.rs`, `shrink.rs` (what is shown of a run, and the least of it that fails).
//!
//! To add a fault: name it in `faults.rs`, let it happen in `trouble.rs`. To add a promise: a
//! line in the table of `checks/`, and a file there where it needs a memory of its own.

mod addresses;
mod baskets;
mod beside;
mod boot;
mod calls;
mod checks;
mod client;
mod clients;
mod clock;
mod deaths;
mod dice;
mod directories;
mod disk;
mod edge;
mod faults;
mod follow;
mod founding;
mod helpers;
mod identities;
mod links;
mod lives;
mod machine;
mod members;
mod network;
mod operators;
mod over_shards;
mod overtaken;
mod overtaking;
mod plan;
mod recovery;
mod router;
mod routing;
mod shrink;
mod standing;
mod trace;
mod trouble;
mod turn;
mod upgrades;
mod workload;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

pub use checks::Broken;
pub use faults::{FaultKind, Occurrences};
pub use shrink::shrink;
pub use trace::Verbosity;
use world::World;

/// How a seed is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What becomes of the text of events.
    pub verbosity: Verbosity,
    /// Kinds of faults that do not occur, whatever the seed says.
    pub without: BTreeSet<FaultKind>,
    /// Faults and new operations end after so many seconds at the latest, whatever the seed says.
    pub seconds_max: Option<u64>,
}

impl Options {
    /// As the seed says, without text.
    pub fn new() -> Self {
        Self {
            verbosity: Verbosity::Silent,
            without: BTreeSet::new(),
            seconds_max: None,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// What came of a seed.
#[derive(Debug)]
pub struct Run {
    /// Which.
    pub seed: u64,
    /// Of everything that happened, in its order.
    pub hash: u64,
    /// How long it lasted, in microseconds of virtual time.
    pub simulated_us: u64,
    /// Faults that occurred, and what was done and checked.
    pub tally: Occurrences,
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
    /// The last events, if their text was kept.
    pub lines: Vec<String>,
}

/// Lives through one seed.
pub fn run(seed: u64, options: &Options) -> Run {
    keep_panics_quiet();
    let scratch = Scratch::new(seed);
    let mut world = World::new(seed, options, &scratch.0);
    let ended = catch(|| world.live());
    let broken = match ended {
        Ok(ended) => ended.err(),
        Err(panic) => Some(Broken {
            check: "the simulator itself",
            seen: panic,
        }),
    };
    let broken = broken.or_else(|| {
        let seen = OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone().map(|seen| Broken {
            check: "no panic in this seed or one beside it",
            seen,
        })
    });
    world.into_run(seed, broken)
}

/// Runs `act`; a panic comes back as its text.
fn catch<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    let was_inside = INSIDE.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(act));
    INSIDE.set(was_inside);
    result.map_err(|_| LAST_PANIC.take())
}

thread_local! {
    static INSIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The first panic in code of this project that whoever opens or writes files took for damage:
/// files are read by threads that all simulations of a process share.
static OWN_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// A node that panics is part of the play: the text is kept for the report instead of printed.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.get() {
                LAST_PANIC.set(info.to_string());
            } else {
                loud(info);
            }
            let file = info.location().map_or("", |location| location.file());
            if file.starts_with("services/stock-storage/src") {
                let mut own = OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
                own.get_or_insert_with(|| info.to_string());
            }
        }));
    });
}

/// A directory for the files that stand for names, gone with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new(seed: u64) -> Self {
        let memory = Path::new("/dev/shm");
        let base = match memory.is_dir() {
            true => memory.to_path_buf(),
            false => std::env::temp_dir(),
        };
        // The same seed may run twice at once.
        static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(base.join(format!("stock-sim-{}-{seed}-{run}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is in memory or in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
