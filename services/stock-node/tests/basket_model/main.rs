//! Every way that a basket over several shards can take: a model checker has whatever may happen
//! happen in every order, with the shards, coordinators and errands that run in nodes.
//!
//! In every state that it comes to all promises hold, and from every one of them, if nothing more
//! goes wrong, a few seconds are enough for everybody to agree. It says how many states it saw;
//! `STOCKD_MODEL=full` goes further, for which a release build should be taken.

mod world;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};
use stock_core::{Filter, Reservation, State as Standing};
use world::{Budget, Edge, SHARDS, Sender, State, Told, Wish, here, sku};

/// As many at once as there are cores where this runs.
const THREADS: usize = 2;

/// What customers do, and what may go wrong meanwhile.
#[derive(Debug, Clone)]
struct Story {
    stock: [i64; SHARDS as usize],
    wishes: Vec<Wish>,
    budget: Budget,
    /// Whether the first wish was held, and all know it, before anything else.
    begins_held: bool,
    /// How long a step of time is.
    steps_ms: Vec<u64>,
    /// What comes about somewhere, or the check is worth nothing.
    comes_about: fn(&State) -> bool,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin(usize),
    Deliver(u128),
    GiveUp(u128),
    Double(u128),
    EdgeDies(usize),
    LeaderDies(u32),
    SeeTo(u32),
    Pass(u64),
}

impl Model for Story {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::new(self.stock, self.wishes.len(), Budget::default());
        if self.begins_held {
            state.begin(&self.wishes, 0);
            while let Some(key) = state.network.keys().next().copied() {
                state.deliver(&self.wishes, key);
            }
        }
        state.budget = self.budget;
        vec![state.sealed()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for number in 0..self.wishes.len() {
            let is_idle = state.edges[number] == Edge::Idle;
            if is_idle && state.may_begin(&self.wishes, number) {
                actions.push(Step::Begin(number));
            }
            if !is_idle && state.budget.crashes > 0 {
                actions.push(Step::EdgeDies(number));
            }
        }
        for (key, (message, _)) in &state.network {
            actions.push(Step::Deliver(*key));
            if state.budget.gave_up > 0 && message.from != Sender::Nobody {
                actions.push(Step::GiveUp(*key));
            }
            if state.budget.doubles > 0 {
                actions.push(Step::Double(*key));
            }
        }
        for shard in 0..SHARDS {
            if state.clone().see_to(shard) {
                actions.push(Step::SeeTo(shard));
            }
            if state.budget.crashes > 0 && state.has_leader_work(shard) {
                actions.push(Step::LeaderDies(shard));
            }
        }
        if state.budget.ticks > 0 {
            actions.extend(self.steps_ms.iter().map(|ms| Step::Pass(*ms)));
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        match step {
            Step::Begin(number) => state.begin(&self.wishes, number),
            Step::Deliver(key) => state.deliver(&self.wishes, key),
            Step::GiveUp(key) => state.give_up(&self.wishes, key),
            Step::Double(key) => state.doubles(key),
            Step::EdgeDies(number) => state.edge_dies(number),
            Step::LeaderDies(shard) => state.leader_dies(shard),
            Step::SeeTo(shard) => {
                state.see_to(shard);
            }
            Step::Pass(ms) => {
                state.budget.ticks -= 1;
                state.pass(ms);
            }
        }
        Some(state.sealed())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nothing is promised twice, or to nobody",
                |story: &Self, state| story.is_well(state).is_ok(),
            ),
            Property::always("all agree in the end", |story: &Self, state: &State| {
                story.all_agree(&state.settled()).is_ok()
            }),
            Property::sometimes("it gets as far as that", |story: &Self, state: &State| {
                (story.comes_about)(state)
            }),
        ]
    }
}

impl Story {
    /// What holds whatever is under way.
    fn is_well(&self, state: &State) -> Result<(), String> {
        for shard in 0..SHARDS {
            let (on_hand, reserved) = counters(state, shard);
            if reserved < 0 || reserved > on_hand {
                return Err(format!(
                    "{reserved} of {on_hand} are reserved in shard {shard}"
                ));
            }
        }
        for told in &state.told {
            let final_ones = told.iter().filter(|told| **told != Told::Unknown);
            if final_ones.count() > 1 {
                return Err(format!("a request was told {told:?}"));
            }
        }
        // Whoever was told that a basket is held has all of it, for as long as home says so.
        for (id, reservation) in reservations(state) {
            let is_told = state
                .told
                .iter()
                .flatten()
                .any(|told| *told == Told::Held(id));
            if !is_told || !reservation.state.is_open() {
                continue;
            }
            for line in &reservation.lines {
                let shard = state.shard(line.sku.shard(SHARDS));
                let units = shard.set_aside(&id).map(|(_, _, units)| units).sum::<i64>();
                if units < line.open {
                    return Err(format!("{id} is held, and has {units} of {line:?}"));
                }
            }
        }
        Ok(())
    }

    /// What holds when nothing is under way any more.
    fn all_agree(&self, state: &State) -> Result<(), String> {
        self.is_well(state)?;
        let mut expected = [0; SHARDS as usize];
        for (id, reservation) in reservations(state) {
            for line in &reservation.lines {
                expected[line.sku.shard(SHARDS) as usize] += line.open;
            }
            let wish = (u128::from_be_bytes(*id.as_bytes()) as u64 & (u64::MAX >> 2)) / 100 - 1;
            let told = &state.told[wish as usize];
            if told.contains(&Told::Short) && reservation.state.is_open() {
                return Err(format!("{id} is held, and its customer was told otherwise"));
            }
        }
        for shard in 0..SHARDS {
            let counts = state.shard(shard).counts();
            if counts.undecided > 0 || counts.owed > 0 {
                return Err(format!("shard {shard} has yet to settle: {counts:?}"));
            }
            let (_, reserved) = counters(state, shard);
            if reserved != expected[shard as usize] {
                return Err(format!(
                    "{reserved} are reserved in shard {shard}, and somebody's are {expected:?}"
                ));
            }
        }
        for told in state.told.iter().flatten() {
            let Told::Held(id) = told else { continue };
            let found = reservations(state).into_iter().find(|(it, _)| it == id);
            let Some((_, reservation)) = found else {
                return Err(format!("{id} was held and is gone"));
            };
            let is_released = self.wishes.contains(&Wish::Release);
            let is_expired = reservation.state == Standing::Expired;
            if !reservation.state.is_open() && !is_released && !is_expired {
                return Err(format!("{reservation:?}"));
            }
        }
        Ok(())
    }
}

fn counters(state: &State, shard: u32) -> (i64, i64) {
    let stock = state.shard(shard).stock(&sku(shard)).unwrap();
    let position = stock.position(&here()).unwrap();
    (position.on_hand, position.reserved)
}

/// All that is known at any home.
fn reservations(state: &State) -> Vec<(stock_core::ReservationId, Reservation)> {
    let known = (0..SHARDS).flat_map(|shard| {
        let listed = state.shard(shard).list(&Filter::default(), None, 100, 100);
        listed.found
    });
    known.map(|it| (it.id, Reservation::clone(&it))).collect()
}

#[expect(
    clippy::print_stderr,
    reason = "cargo shows it when asked to, or when the test fails"
)]
fn check(what: &str, story: &Story) {
    let since = Instant::now();
    let checker = story.clone().checker().threads(THREADS);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    eprintln!(
        "{what}: {} states, {} of them different, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        since.elapsed().as_secs_f32()
    );
    for (name, path) in checker.discoveries() {
        if name == "it gets as far as that" {
            continue;
        }
        eprintln!("{name}:");
        for (state, step) in path.into_vec() {
            let next = match step {
                Some(Step::Deliver(key) | Step::GiveUp(key) | Step::Double(key)) => {
                    format!("{:?}", state.network.get(&key))
                }
                _ => String::new(),
            };
            eprintln!("  {step:?} {next}");
            if step.is_none() {
                eprintln!(
                    "{:?}\n{:?}",
                    story.is_well(&state),
                    story.all_agree(&state.settled())
                );
                eprintln!("{:?}", state.told);
            }
        }
    }
    checker.assert_properties();
}

fn is_full() -> bool {
    std::env::var("STOCKD_MODEL").is_ok_and(|how| how == "full")
}

fn told(state: &State, number: usize, wanted: impl Fn(&Told) -> bool) -> bool {
    state.told[number].iter().any(wanted)
}

fn is_held(told: &Told) -> bool {
    matches!(told, Told::Held(_))
}

/// Some of everything that may go wrong.
const TROUBLE: Budget = Budget {
    crashes: 1,
    gave_up: 1,
    doubles: 0,
    retries: 1,
    ticks: 1,
};

/// Hardly anything.
const LATE: Budget = Budget {
    crashes: 0,
    gave_up: 1,
    doubles: 0,
    retries: 0,
    ticks: 1,
};

#[test]
fn one_basket_whoever_dies_and_whatever_is_late_or_comes_twice() {
    let basket = |basket: &[(u32, i64)], budget| Story {
        stock: [1, 1, 1],
        wishes: vec![Wish::Reserve(basket.to_vec())],
        budget,
        begins_held: false,
        steps_ms: vec![1_100, 61_000],
        comes_about: |state| told(state, 0, is_held),
    };
    let crash = Budget {
        gave_up: 0,
        ..TROUBLE
    };
    check(
        "one basket over two shards",
        &basket(&[(0, 1), (1, 1)], crash),
    );
    let twice = Budget { doubles: 1, ..LATE };
    check("and twice", &basket(&[(0, 1), (1, 1)], twice));
    if is_full() {
        check("and everything", &basket(&[(0, 1), (1, 1)], TROUBLE));
        let three = [(0, 1), (1, 1), (2, 1)];
        check("one basket over three shards", &basket(&three, crash));
        check("and twice", &basket(&three, twice));
        check("and everything", &basket(&three, TROUBLE));
    }
}

#[test]
fn two_baskets_for_the_last_unit_in_both_orders() {
    let story = |budget| Story {
        stock: [1, 1, 1],
        wishes: vec![
            Wish::Reserve(vec![(0, 1), (1, 1)]),
            Wish::Reserve(vec![(1, 1), (0, 1)]),
        ],
        budget,
        begins_held: false,
        steps_ms: vec![1_100],
        comes_about: |state| told(state, 1, is_held) && told(state, 0, |told| *told == Told::Short),
    };
    check("two baskets", &story(Budget::default()));
    if is_full() {
        check("and something is late", &story(LATE));
        let crash = Budget {
            crashes: 1,
            ..Budget::default()
        };
        check("and somebody dies", &story(crash));
    }
}

#[test]
fn an_amendment_races_with_the_end_of_its_hold() {
    let story = |budget, steps_ms: &[u64]| Story {
        stock: [3, 3, 3],
        wishes: vec![
            Wish::Reserve(vec![(0, 1), (1, 2)]),
            Wish::Amend(vec![(0, 2), (1, 1), (2, 1)]),
        ],
        budget,
        begins_held: true,
        steps_ms: steps_ms.to_vec(),
        comes_about: |state| told(state, 1, |told| *told == Told::Changed(true)),
    };
    let to_its_end = 10_000;
    let in_time = Budget { gave_up: 0, ..LATE };
    check("an amendment", &story(in_time, &[to_its_end]));
    if is_full() {
        // And past the time in which something may still be held.
        check(
            "and something is late",
            &story(LATE, &[1_100, to_its_end, 61_000]),
        );
        check(
            "and somebody dies",
            &story(
                Budget {
                    crashes: 1,
                    ..in_time
                },
                &[to_its_end],
            ),
        );
    }
}

#[test]
fn a_confirmed_basket_is_released_and_nothing_of_it_comes_back() {
    let story = |budget| Story {
        stock: [1, 1, 1],
        wishes: vec![
            Wish::Reserve(vec![(0, 1), (1, 1)]),
            Wish::Confirm,
            Wish::Release,
        ],
        budget,
        begins_held: true,
        steps_ms: vec![1_100, 61_000],
        comes_about: |state| {
            told(state, 1, |told| *told == Told::Changed(true))
                && told(state, 2, |told| *told == Told::Changed(true))
        },
    };
    check("a life", &story(LATE));
    if is_full() {
        check("and everything", &story(TROUBLE));
    }
}
