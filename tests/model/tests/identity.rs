//! That the rules of docs/identity.md suffice, and that each of them is needed.
//!
//! Each check says how many states it saw, and how often each rule was of use; `--nocapture` shows it.
//! `STOCKD_MODEL=full` goes further, for which a release build should be taken.

use std::time::Instant;

use identity_model::Action::{
    BeginChange, Checkpoint, Copy, Crash, Cut, EndChange, Join, Order, Propose,
};
use identity_model::{Action, Bounds, Forgetting, IdentityModel, Rules, property};
use stateright::{Checker, HasDiscoveries, Model};

/// As many at once as there are cores where this runs.
const THREADS: usize = 2;

/// Nothing but one election after the first, and one value.
const LEAST: Bounds = Bounds {
    terms: 2,
    values: 1,
    crashes: 0,
    copies: 0,
    joins: 0,
    cuts: 0,
    writes: 0,
    checkpoints: 0,
};

const fn append(leader: usize, follower: usize) -> Action {
    Action::Append { leader, follower }
}

const fn start(disk: usize) -> Action {
    Action::Start {
        disk,
        later_files: false,
        reversed: false,
    }
}

/// Node 0's disk is copied to disk 3, then 0 and 1 commit a value while 2 is down. All end; 2 begins.
const COPIED_BEFORE_A_COMMIT: &[Action] = &[
    Crash(2),
    Copy(0),
    Propose(0),
    append(0, 1),
    append(0, 1),
    Checkpoint(0),
    Crash(0),
    Crash(1),
    start(2),
];

/// As before, and nobody who is up knows of the value when the copy begins, which lacks it.
const COPY_STARTED_AMONG_THOSE_WHO_DO_NOT_KNOW: &[Action] = &[
    Crash(2),
    Copy(0),
    Propose(0),
    append(0, 1),
    append(0, 1),
    Crash(0),
    Crash(1),
    start(2),
    start(3),
];

/// As before, but 1 is up and knows; 0 and 2 are down.
const ONE_WHO_KNOWS_IS_UP: &[Action] = &[
    Crash(2),
    Copy(0),
    Propose(0),
    append(0, 1),
    append(0, 1),
    Crash(0),
];

/// Node 1 was replaced: disk 3 holds its directory. All know it.
const REPLACED: &[Action] = &[
    Crash(1),
    Propose(0),
    append(0, 2),
    Join { node: 1, by: 0 },
    Order(3),
    append(0, 3),
    BeginChange(0),
    append(0, 2),
    append(0, 3),
    EndChange(0),
    append(0, 2),
    append(0, 3),
];

/// Node 1 was replaced while it did not reach node 2, which has heard of it from the log only.
const REPLACED_BEHIND_A_CUT: &[Action] = &[
    Cut(0),
    Propose(0),
    append(0, 2),
    Crash(1),
    Join { node: 1, by: 0 },
    Order(3),
    append(0, 3),
    BeginChange(0),
    append(0, 2),
    append(0, 3),
    EndChange(0),
    append(0, 2),
];

fn is_full() -> bool {
    std::env::var("STOCKD_MODEL").is_ok_and(|bounds| bounds == "full")
}

fn report(
    what: &str,
    model: &IdentityModel,
    checker: &impl Checker<IdentityModel>,
    since: Instant,
) {
    eprintln!(
        "{what}: {} states ({} with repetitions), {} steps deep, in {:.1?}; {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        since.elapsed(),
        model.counts
    );
}

/// Sees every state within the bounds.
fn check(what: &str, model: IdentityModel) {
    let since = Instant::now();
    let model_before = model.clone();
    let checker = model
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    report(what, &model_before, &checker, since);
    for (name, path) in checker.discoveries() {
        eprintln!("  {name}: {:?}", path.into_actions());
    }
    checker.assert_properties();
}

/// Looks for a way to break one property, and tells it.
fn find(model: IdentityModel, broken: &'static str) {
    let since = Instant::now();
    let model_before = model.clone();
    let checker = model.checker().threads(THREADS);
    let checker = checker.finish_when(HasDiscoveries::AllOf([broken].into()));
    let checker = checker.spawn_bfs().join();
    report(broken, &model_before, &checker, since);
    let path = checker.discovery(broken);
    let path = path.unwrap_or_else(|| panic!("nothing breaks it: {broken}"));
    let after = model_before.before.iter().copied();
    for action in after.chain(path.into_actions()) {
        eprintln!("  {action:?}");
    }
}

fn all(bounds: Bounds) -> IdentityModel {
    IdentityModel::new(Rules::ALL, Forgetting::IsKnownInReach, bounds)
}

#[test]
fn with_all_rules_nothing_is_lost() {
    let copies = Bounds {
        copies: 1,
        crashes: 2,
        ..LEAST
    };
    check("copies", all(copies));
    let cuts = Bounds {
        copies: 1,
        crashes: if is_full() { 2 } else { 1 },
        cuts: 1,
        ..LEAST
    };
    check("copies and cuts", all(cuts));
    if is_full() {
        let terms = Bounds { terms: 3, ..copies };
        check("copies, three terms", all(terms));
        let values = Bounds {
            values: 2,
            ..copies
        };
        check("copies, two values", all(values));
    }
}

#[test]
fn with_all_rules_nothing_is_lost_where_files_are_later_than_their_log() {
    let bounds = Bounds {
        copies: 1,
        crashes: 1,
        checkpoints: 1,
        ..LEAST
    };
    check("checkpoints", all(bounds));
    let bounds = Bounds {
        crashes: 3,
        values: 2,
        terms: if is_full() { 3 } else { 2 },
        ..bounds
    };
    let model = all(bounds).after(COPIED_BEFORE_A_COMMIT);
    check("checkpoints, after a commit", model);
}

#[test]
fn with_all_rules_nothing_is_lost_where_nodes_are_replaced() {
    let bounds = Bounds {
        joins: 1,
        crashes: 2,
        values: if is_full() { 2 } else { 1 },
        ..LEAST
    };
    let committed = Bounds {
        crashes: 1,
        values: 2,
        ..bounds
    };
    check("a join", all(if is_full() { bounds } else { committed }));
    let twice = Bounds {
        joins: 2,
        values: 2,
        ..bounds
    };
    check("two joins", all(twice).after(REPLACED));
    let copied = Bounds {
        copies: 1,
        crashes: 3,
        values: 2,
        ..bounds
    };
    check("a join, then a copy", all(copied).after(REPLACED));
    let behind_a_cut = Bounds {
        cuts: 1,
        crashes: 3,
        values: 2,
        ..bounds
    };
    let model = all(behind_a_cut).after(REPLACED_BEHIND_A_CUT);
    check("a join behind a cut", model);
}

/// An older copy that nobody who is up could know of does harm, so the assumption is needed; the harm ends where
/// somebody knows better.
#[test]
fn what_cannot_be_known_makes_two_histories_and_changes_neither() {
    let bounds = Bounds {
        copies: 1,
        crashes: 3,
        terms: 3,
        values: if is_full() { 3 } else { 2 },
        ..LEAST
    };
    let model = IdentityModel::new(Rules::ALL, Forgetting::MayBeUnknown, bounds);
    let model = model.after(ONE_WHO_KNOWS_IS_UP);
    check("unknown copies", model);
}

const AFTER_A_COMMIT: Bounds = Bounds {
    copies: 1,
    crashes: 3,
    values: 2,
    ..LEAST
};

#[test]
fn without_orders_a_replica_begins_in_two_directories() {
    let rules = Rules {
        begun_by_order: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        joins: 1,
        cuts: 1,
        crashes: 3,
        values: 3,
        ..LEAST
    };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    let model = model.after(REPLACED_BEHIND_A_CUT);
    find(model.clone(), property::ONE_PLACE);
    find(model, property::NOTHING_LOST);
}

#[test]
fn without_admissions_an_older_copy_of_a_replaced_directory_votes() {
    let rules = Rules {
        admission_checked: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        joins: 1,
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    find(model.after(ONE_WHO_KNOWS_IS_UP), property::NOTHING_LOST);
}

#[test]
fn without_pulses_an_older_copy_votes() {
    let rules = Rules {
        pulse_checked: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        copies: 1,
        crashes: 2,
        values: 2,
        ..LEAST
    };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    find(model, property::NOTHING_LOST);
}

/// A copy that was written in as many seconds as its original has the same pulse, and has forgotten.
#[test]
fn where_pulses_are_numbers_only_two_copies_are_taken_for_one() {
    let rules = Rules {
        pulse_names_its_write: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        writes: 1,
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    find(model.after(ONE_WHO_KNOWS_IS_UP), property::NOTHING_LOST);
}

#[test]
fn without_boots_twins_vote_twice() {
    let rules = Rules {
        boot_checked: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        copies: 1,
        values: 2,
        ..LEAST
    };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    find(model, property::NOTHING_LOST);
}

/// The later of two twins is told that its directory is in use, and the older one goes on.
#[test]
fn where_a_twins_pulse_does_not_count_against_the_other_the_older_stays() {
    let rules = Rules {
        later_pulse_ends_who_is_heard: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        cuts: 1,
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    find(model, property::NO_FORGETFUL_PROMISE);
}

#[test]
fn where_a_lost_end_does_not_fail_a_replica_it_votes() {
    let rules = Rules {
        lost_end_fails: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        checkpoints: 1,
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    find(model.after(COPIED_BEFORE_A_COMMIT), property::NOTHING_LOST);
}

#[test]
fn where_a_contradiction_stops_nobody_committed_entries_are_dropped() {
    let rules = Rules {
        contradiction_stops: false,
        ..Rules::ALL
    };
    let bounds = Bounds {
        terms: 3,
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(rules, Forgetting::MayBeUnknown, bounds);
    let model = model.after(COPY_STARTED_AMONG_THOSE_WHO_DO_NOT_KNOW);
    find(model, property::COMMITTED_STAYS);
}

#[test]
fn where_acknowledgements_beyond_the_log_count_entries_are_counted_unsent() {
    let rules = Rules {
        ack_beyond_log_refused: false,
        ..Rules::ALL
    };
    let model = IdentityModel::new(rules, Forgetting::MayBeUnknown, AFTER_A_COMMIT);
    let model = model.after(COPY_STARTED_AMONG_THOSE_WHO_DO_NOT_KNOW);
    find(model, property::NOTHING_COUNTED_UNSENT);
}

#[test]
fn where_nodes_are_replaced_while_they_are_heard_a_majority_is_gone() {
    let rules = Rules {
        join_refused_while_heard: false,
        ..Rules::ALL
    };
    let bounds = Bounds { joins: 2, ..LEAST };
    let model = IdentityModel::new(rules, Forgetting::IsKnownInReach, bounds);
    find(model, property::MAJORITY_STAYS);
}

/// What one peer knows is not known to another: the copy must reach who knows.
#[test]
fn who_knows_and_is_up_must_be_in_reach() {
    let bounds = Bounds {
        cuts: 1,
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(Rules::ALL, Forgetting::IsKnownToOneWhoIsUp, bounds);
    find(model.after(ONE_WHO_KNOWS_IS_UP), property::NOTHING_LOST);
}
