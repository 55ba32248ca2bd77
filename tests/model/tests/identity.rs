//! That the rules of docs/identity.md suffice, and that each of them is needed.
//!
//! Each check says how many states it saw, and how often each rule was of use; `--nocapture` shows
//! it. `STOCKD_MODEL=full` goes further, for which a release build should be taken.

use std::sync::Arc;
use std::time::Instant;

use identity_model::Action::{
    BeginChange, Checkpoint, Copy, Crash, Cut, EndChange, Join, Order, Propose, Write,
};
use identity_model::{Action, Bounds, Counts, Forgetting, IdentityModel, Rules, property};
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

/// Disk 0 is copied to disk 3. Then 0 and 1 commit a value while 2 is down; 1 is up and knows it.
const ONE_WHO_KNOWS_IS_UP: &[Action] = &[
    Crash(2),
    Copy(0),
    Propose(0),
    append(0, 1),
    append(0, 1),
    Crash(0),
];

/// As before, but 1 is down when the copy starts, and 2 is up.
const NOBODY_KNOWS: &[Action] = &[
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

/// As before, and there is a checkpoint of what the copy lacks. It is not started yet.
const CHECKPOINT_AFTER_A_COPY: &[Action] = &[
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

/// All were down. The copy starts first, and writes something that promises nothing: now its pulse
/// is what 1 has heard of the original. 1 starts, and 2.
const WRITTEN_AS_OFTEN: &[Action] = &[
    Crash(2),
    Copy(0),
    Propose(0),
    append(0, 1),
    append(0, 1),
    Crash(0),
    Crash(1),
    start(3),
    Write(3),
    start(1),
    start(2),
];

/// 0 and 1 have committed a value, then 1 ended; a copy that lacks it starts beside 0. Nobody else
/// is up.
const TWINS_ALONE: &[Action] = &[
    Copy(0),
    Crash(2),
    Propose(0),
    append(0, 1),
    Crash(1),
    start(3),
];

/// A value is committed without node 1.
const ONE_IS_DOWN: &[Action] = &[Crash(1), Propose(0), append(0, 2), append(0, 2)];

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
fn check(what: &str, model: IdentityModel) -> Arc<Counts> {
    let since = Instant::now();
    let begun = model.clone();
    let checker = model
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    report(what, &begun, &checker, since);
    for (name, path) in checker.discoveries() {
        eprintln!("  {name}: {:?}", path.into_actions());
    }
    checker.assert_properties();
    begun.counts
}

/// Looks for a way to break one property, and tells it.
fn find(model: IdentityModel, broken: &'static str) {
    let since = Instant::now();
    let begun = model.clone();
    let checker = model.checker().threads(THREADS);
    let checker = checker.finish_when(HasDiscoveries::AllOf([broken].into()));
    let checker = checker.spawn_bfs().join();
    report(broken, &begun, &checker, since);
    let path = checker.discovery(broken);
    let path = path.unwrap_or_else(|| panic!("nothing breaks it: {broken}"));
    let after = begun.before.iter().copied();
    for action in after.chain(path.into_actions()) {
        eprintln!("  {action:?}");
    }
}

/// One rule, or more, left out.
fn without(leave_out: impl FnOnce(&mut Rules), bounds: Bounds) -> IdentityModel {
    let mut rules = Rules::ALL;
    leave_out(&mut rules);
    IdentityModel::new(rules, Forgetting::IsKnownInReachOfOthers, bounds)
}

fn all(bounds: Bounds) -> IdentityModel {
    without(|_| {}, bounds)
}

fn full_or(full: u8, usual: u8) -> u8 {
    if is_full() { full } else { usual }
}

/// Two more values, or one where one was committed, and three crashes, or as many as are left.
const AFTER_A_COMMIT: Bounds = Bounds {
    copies: 1,
    crashes: 3,
    values: 2,
    ..LEAST
};

#[test]
fn with_all_rules_nothing_is_lost() {
    let copies = Bounds {
        copies: 1,
        crashes: 2,
        ..LEAST
    };
    let counts = check("copies", all(copies));
    assert!(counts.forgetful.get() > 0 && counts.twins.get() > 0 && counts.overtaken.get() > 0);
    let cuts = Bounds {
        cuts: full_or(2, 1),
        ..AFTER_A_COMMIT
    };
    check("cuts after a commit", all(cuts).after(ONE_WHO_KNOWS_IS_UP));
    let writes = Bounds {
        writes: 1,
        ..AFTER_A_COMMIT
    };
    check(
        "writes after a commit",
        all(writes).after(ONE_WHO_KNOWS_IS_UP),
    );
    if is_full() {
        let terms = Bounds { terms: 3, ..copies };
        check("copies, three terms", all(terms));
        let values = Bounds {
            values: 2,
            ..copies
        };
        check("copies, two values", all(values));
        let cuts = Bounds { cuts: 1, ..copies };
        check("copies and cuts", all(cuts));
    }
}

#[test]
fn with_all_rules_nothing_is_lost_where_files_are_later_than_their_log() {
    let bounds = Bounds {
        checkpoints: 1,
        terms: full_or(3, 2),
        ..AFTER_A_COMMIT
    };
    let counts = check("checkpoints", all(bounds).after(ONE_WHO_KNOWS_IS_UP));
    assert!(counts.lost_ends.get() > 0);
}

#[test]
fn with_all_rules_nothing_is_lost_where_nodes_are_replaced() {
    let join = Bounds {
        joins: 1,
        crashes: 2,
        values: 2,
        ..LEAST
    };
    let model = match is_full() {
        true => all(join),
        false => all(join).after(ONE_IS_DOWN),
    };
    let counts = check("a join", model);
    assert!(counts.replaced.get() > 0 && counts.joins.get() > 0);
    let twice = Bounds { joins: 2, ..join };
    check("a join after another", all(twice).after(REPLACED));
    let copied = Bounds {
        copies: 1,
        crashes: full_or(3, 2),
        ..join
    };
    check("copies after a join", all(copied).after(REPLACED));
    let behind_a_cut = Bounds {
        cuts: 1,
        crashes: 3,
        ..join
    };
    let model = all(behind_a_cut).after(REPLACED_BEHIND_A_CUT);
    check("a join behind a cut", model);
}

/// An older copy that nobody who is there could know of does harm, so the assumption is needed. The
/// harm ends where somebody knows better.
#[test]
fn what_cannot_be_known_makes_two_histories_and_changes_neither() {
    let bounds = Bounds {
        terms: 3,
        values: full_or(3, 2),
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(Rules::ALL, Forgetting::MayBeUnknown, bounds);
    let counts = check("unknown copies", model.after(ONE_WHO_KNOWS_IS_UP));
    assert!(counts.contradictions.get() > 0 && counts.acks_beyond_log.get() > 0);
}

#[test]
fn without_orders_a_replica_begins_in_two_directories() {
    let bounds = Bounds {
        joins: 1,
        cuts: 1,
        crashes: 3,
        values: 3,
        ..LEAST
    };
    let model = without(|rules| rules.begun_by_order = false, bounds);
    let model = model.after(REPLACED_BEHIND_A_CUT);
    find(model.clone(), property::ONE_PLACE);
    find(model, property::NOTHING_LOST);
}

/// One whose latest writes were heard by nobody who is there: they only know that its node has
/// another. Where memory is passed on they would have heard, so that is left out, too.
#[test]
fn without_admissions_an_older_copy_of_a_replaced_directory_votes() {
    let bounds = Bounds {
        joins: 1,
        ..AFTER_A_COMMIT
    };
    let leave_out = |rules: &mut Rules| {
        rules.admission_checked = false;
        rules.memory_passed_on = false;
    };
    let model = without(leave_out, bounds);
    find(model.after(ONE_WHO_KNOWS_IS_UP), property::NOTHING_LOST);
}

#[test]
fn without_pulses_an_older_copy_votes() {
    let model = without(|rules| rules.pulse_checked = false, AFTER_A_COMMIT);
    find(model.after(ONE_WHO_KNOWS_IS_UP), property::NOTHING_LOST);
}

/// A copy that was written in as often as its original has the same pulse, and has forgotten.
#[test]
fn where_pulses_are_numbers_only_two_copies_are_taken_for_one() {
    let bounds = Bounds {
        writes: 1,
        ..AFTER_A_COMMIT
    };
    let model = without(|rules| rules.pulse_names_its_boot = false, bounds);
    find(model.after(WRITTEN_AS_OFTEN), property::NOTHING_LOST);
}

#[test]
fn without_boots_twins_vote_twice() {
    let bounds = Bounds {
        copies: 1,
        values: 2,
        ..LEAST
    };
    let model = without(|rules| rules.boot_checked = false, bounds);
    find(model, property::NOTHING_LOST);
}

/// The later of two twins is told that its directory is in use, and the older one goes on.
#[test]
fn where_a_twins_pulse_does_not_count_against_the_other_the_older_stays() {
    let model = without(
        |rules| rules.later_pulse_ends_who_is_heard = false,
        AFTER_A_COMMIT,
    );
    find(model.after(TWINS_ALONE), property::NOTHING_LOST);
}

/// The copy does not reach who knows, and who reaches both has not been told.
#[test]
fn where_memory_is_not_passed_on_a_cut_hides_it() {
    let bounds = Bounds {
        cuts: 1,
        ..AFTER_A_COMMIT
    };
    let model = without(|rules| rules.memory_passed_on = false, bounds);
    find(model.after(ONE_WHO_KNOWS_IS_UP), property::NOTHING_LOST);
}

/// To be up is not enough: who knows must be in reach, be it through others.
#[test]
fn who_knows_must_be_in_reach() {
    let bounds = Bounds {
        cuts: 2,
        ..AFTER_A_COMMIT
    };
    let model = IdentityModel::new(Rules::ALL, Forgetting::IsKnownToOneWhoIsUp, bounds);
    find(model.after(ONE_WHO_KNOWS_IS_UP), property::NOTHING_LOST);
}

#[test]
fn where_a_lost_end_does_not_fail_a_replica_it_votes() {
    let bounds = Bounds {
        checkpoints: 1,
        ..AFTER_A_COMMIT
    };
    let model = without(|rules| rules.lost_end_fails = false, bounds);
    find(model.after(CHECKPOINT_AFTER_A_COPY), property::NOTHING_LOST);
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
    find(model.after(NOBODY_KNOWS), property::COMMITTED_STAYS);
}

#[test]
fn where_acknowledgements_beyond_the_log_count_entries_are_counted_unsent() {
    let rules = Rules {
        ack_beyond_log_refused: false,
        ..Rules::ALL
    };
    let model = IdentityModel::new(rules, Forgetting::MayBeUnknown, AFTER_A_COMMIT);
    find(model.after(NOBODY_KNOWS), property::NOTHING_COUNTED_UNSENT);
}

#[test]
fn where_nodes_are_replaced_while_they_are_heard_a_majority_is_gone() {
    let bounds = Bounds { joins: 2, ..LEAST };
    let model = without(|rules| rules.join_refused_while_heard = false, bounds);
    find(model, property::MAJORITY_STAYS);
}
