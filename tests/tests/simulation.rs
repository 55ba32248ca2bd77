//! A few seeds of the simulator, on every change. `simulate --seeds 1000` lives through many more.

use std::collections::BTreeSet;
use std::thread;

use tests::sim::{self, FaultKind, Options, Run};

/// Seeds of this short run.
const SEEDS: u64 = 12;

/// Ends what goes wrong early, so that many seeds fit into a short time.
const SECONDS: u64 = 8;

/// A short run, as most of the tests want it.
fn short() -> Options {
    Options {
        seconds_max: Some(SECONDS),
        ..Options::new()
    }
}

/// The log's engine keeps a cache for each thread: a run must not see what another left in it.
fn run(seed: u64, options: &Options) -> Run {
    thread::scope(|scope| scope.spawn(|| sim::run(seed, options)).join().unwrap())
}

#[test]
fn whole_clusters_keep_what_is_promised() {
    let mut faults = 0;
    for seed in 0..SEEDS {
        let run = run(seed, &short());
        assert_eq!(
            run.broken, None,
            "simulate --seed {seed} --seconds {SECONDS} --trace"
        );
        assert!(run.tally.get("commands answered") > 0, "seed {seed}");
        assert!(run.tally.get("reads answered") > 0, "seed {seed}");
        assert!(run.tally.get("states compared") > 0, "seed {seed}");
        let kinds = FaultKind::ALL.iter();
        faults += kinds.map(|kind| run.tally.get(kind.name())).sum::<u64>();
    }
    assert!(
        faults > SEEDS,
        "{faults} faults are too few to prove anything"
    );
}

/// Seeds that found a fault once, `tests/sim/RECORD.md` says which, and what did not occur then.
const FOUND: &[(u64, &[FaultKind])] = &[
    (18, FaultKind::LATER),
    (24, FaultKind::LATER),
    (52, FaultKind::LATER),
    (30_012, FaultKind::LATER),
    (50_160, FaultKind::LATER),
    (60_128, &[]),
    (60_609, &[]),
    (61_591, &[]),
    (65_757, &[]),
    (71_174, &[]),
    (72_103, &[]),
    (76_329, &[]),
    (77_959, &[]),
    (79_037, &[]),
];

#[test]
fn seeds_that_found_a_fault_find_it_no_more() {
    for (seed, without) in FOUND {
        let as_it_was = Options {
            without: without.iter().chain(FaultKind::APART).copied().collect(),
            ..Options::new()
        };
        let run = run(*seed, &as_it_was);
        assert_eq!(run.broken, None, "simulate --seed {seed} --trace");
    }
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    for seed in [1, 2, 3] {
        let (once, again) = (run(seed, &short()), run(seed, &short()));
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert_eq!(once.tally, again.tally, "seed {seed}");
    }
}

#[test]
fn other_seeds_and_fewer_faults_are_other_runs() {
    let calm = Options {
        without: FaultKind::ALL.iter().copied().collect::<BTreeSet<_>>(),
        ..short()
    };
    let (one, other) = (run(1, &short()), run(2, &short()));
    assert_ne!(one.hash, other.hash);
    let calm = run(1, &calm);
    assert_ne!(one.hash, calm.hash);
    for kind in FaultKind::ALL {
        assert_eq!(calm.tally.get(kind.name()), 0, "{}", kind.name());
    }
}
