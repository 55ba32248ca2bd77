//! Random commands, carried out by a shard and by a naive model of it, must end the same way; and
//! after each of them what was promised must hold.
//!
//! `MODEL_SEED=17 cargo test -p stock-core --test model` runs one world again, `MODEL_WORLDS=5000`
//! as many as one has time for. A failure names its seed and prints a log that was cut down to what
//! is needed for it.

#[path = "../audit/mod.rs"]
mod audit;
mod baskets;
mod coverage;
mod hostile;
mod naive;
mod naive_baskets;
mod restart;
mod shrink;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;

use audit::Audit;
use coverage::Coverage;
use naive::Naive;
use restart::Restarted;
use stock_core::{
    Action, At, BasketCommand, Command, Filter, Fingerprint, FrozenState, LedgerEntry, Location,
    Operation, Outcome, ReservationId, Secret, Shard, Sku, Stamp,
};
use world::{Step, World};

/// Of a cluster: none is better than another.
const SECRET: Secret = Secret(77);

const WORLDS: u64 = 450;
const STEPS: usize = 1_000;
/// Comparing all bytes of two states takes long, so it is done this often...
const STEPS_A_COMPARISON: usize = 500;
/// ...somebody looks for reservations this often...
const STEPS_A_LISTING: usize = 20;
/// ...and telling apart two logs in one world of so many.
const WORLDS_A_DIFFERENCE: u64 = 4;

#[test]
fn a_shard_does_what_the_model_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds: Range<u64> = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_WORLDS").unwrap_or(WORLDS),
    };
    let whole_run = seeds.end - seeds.start >= WORLDS;
    let mut seen = Coverage::default();
    thread::scope(|scope| {
        let half = |first: u64| {
            let seeds = seeds.clone().filter(move |seed| seed % 2 == first);
            scope.spawn(move || {
                let mut seen = Coverage::default();
                seeds.for_each(|seed| explore(seed, &mut seen));
                seen
            })
        };
        for half in [half(0), half(1)] {
            match half.join() {
                Ok(of_half) => seen.add_all(of_half),
                Err(panic) => resume_unwind(panic),
            }
        }
    });
    show(&seen);
    if whole_run {
        seen.assert_enough();
    }
}

#[expect(
    clippy::print_stdout,
    reason = "cargo shows it when asked to, or when the test fails"
)]
fn show(seen: &Coverage) {
    println!("{seen}");
}

/// Lives through one world.
fn explore(seed: u64, seen: &mut Coverage) {
    let mut world = World::new(seed);
    let mut trial = Trial::new();
    let mut log = Vec::new();
    let mut remembered = Vec::new();
    for _ in 0..STEPS {
        let step = world.next(&trial.naive, trial.shard.next_expiry());
        log.push(step.clone());
        let before = trial.naive.remembered();
        let outcome = match shrink::catching_panics(|| trial.step(&step)) {
            Ok(outcome) => outcome,
            Err(difference) => shrink::give_up(seed, &log, &difference),
        };
        seen.count(&step, &outcome);
        if trial.naive.remembered() > before {
            remembered.push(log.len());
        }
        if log.len().is_multiple_of(STEPS_A_LISTING)
            && let Err(difference) = trial.same_listing(&world.filter())
        {
            shrink::give_up(seed, &log, &difference);
        }
    }
    seen.count_entries(&trial.ledger);
    if let Err(difference) = trial.same_bytes() {
        shrink::give_up(seed, &log, &difference);
    }
    if seed.is_multiple_of(WORLDS_A_DIFFERENCE) {
        let len = remembered[world.below(remembered.len())];
        one_other_command_makes_another_hash(seed, &log[..len]);
    }
}

/// Changes the last command of the log a little.
fn one_other_command_makes_another_hash(seed: u64, log: &[Step]) {
    let mut other = log.to_vec();
    if let Some(last) = other.last_mut() {
        change(&mut last.command);
    }
    let (one, two) = (replay(log), replay(&other));
    assert_ne!(
        one.freeze().hash(),
        two.freeze().hash(),
        "seed {seed}: {:?}",
        log.last()
    );
    // And the hashes of the buckets say where to look: a command touches few.
    let (one, two) = (one.freeze(), two.freeze());
    let differs = |bucket: &usize| one.bucket_hash(*bucket) != two.bucket_hash(*bucket);
    let differing = (0..one.buckets()).filter(differs).count();
    assert!(
        (1..=6).contains(&differing),
        "seed {seed}: {differing} buckets differ"
    );
}

fn change(command: &mut Command) {
    let another = Fingerprint([7; 8]);
    match &mut command.action {
        Action::Request(request, operation) => {
            request.fingerprint = another;
            if let Operation::Reserve(reserve) = operation {
                reserve.ttl_ms += 1;
            }
        }
        Action::Movements(movements) => {
            for line in &mut movements.lines {
                line.occurred_at = Stamp(line.occurred_at.0 - 1);
            }
        }
        // Nothing is remembered because of these.
        Action::Basket(_) => {}
    }
}

fn replay(log: &[Step]) -> Shard {
    let mut shard = Shard::new(SECRET);
    let mut place = Place::default();
    for step in log {
        apply(&mut shard, place.next(step), step);
    }
    shard
}

fn apply(shard: &mut Shard, at: At, step: &Step) -> (Vec<LedgerEntry>, Outcome) {
    let mut ledger = Vec::new();
    if at.ordinal == 0 {
        shard.advance(at.moment, &mut ledger);
    }
    let outcome = shard.apply(at, step.command.clone(), &mut ledger);
    (ledger, outcome)
}

/// Where the next command stands in the log.
#[derive(Default)]
struct Place {
    index: u64,
    ordinal: u32,
}

impl Place {
    fn next(&mut self, step: &Step) -> At {
        if step.same_entry && self.index > 0 {
            self.ordinal += 1;
        } else {
            self.index += 1;
            self.ordinal = 0;
        }
        At {
            index: self.index,
            ordinal: self.ordinal,
            moment: step.moment,
        }
    }
}

/// A shard, the model, another replica of the shard, and one that is restarted now and then, side
/// by side.
struct Trial {
    shard: Shard,
    naive: Naive,
    replica: Shard,
    restarted: Restarted,
    audit: Audit,
    place: Place,
    ids: Vec<ReservationId>,
    positions: Vec<(Sku, Location)>,
    ledger: Vec<LedgerEntry>,
    steps: usize,
}

impl Trial {
    fn new() -> Self {
        Self {
            shard: Shard::new(SECRET),
            naive: Naive::default(),
            replica: Shard::new(SECRET),
            restarted: Restarted::new(),
            audit: Audit::default(),
            place: Place::default(),
            ids: Vec::new(),
            positions: Vec::new(),
            ledger: Vec::new(),
            steps: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<Outcome, String> {
        let at = self.place.next(step);
        let ended = self.shard.counts().ended_reservations;
        let mut all = Vec::new();
        if at.ordinal == 0 {
            let mut ledger = Vec::new();
            self.shard.advance(at.moment, &mut ledger);
            self.naive.advance(at.moment);
            self.take(&ledger)?;
            all.append(&mut ledger);
            self.audit.check(&self.shard, &self.ids, &[])?;
        }
        let before = self.room();
        let mut ledger = Vec::new();
        let outcome = self.shard.apply(at, step.command.clone(), &mut ledger);
        let expected = self.naive.apply(at, &step.command);
        if outcome != expected {
            return Err(format!("answered {outcome:?}, the model {expected:?}"));
        }
        let held = match (&outcome, &step.command.action) {
            (Outcome::Reservation(reservation), _) => Some(reservation.id),
            (Outcome::Prepared(prepared), _) => Some(prepared.reservation.id),
            (Outcome::Basket(_), Action::Basket(BasketCommand::HoldPart(hold))) => Some(hold.id),
            (Outcome::Basket(_), Action::Basket(BasketCommand::Follow(follow))) => Some(follow.id),
            _ => None,
        };
        if let Some(id) = held {
            let is_fact = matches!(
                step.command.action,
                Action::Basket(BasketCommand::Follow(_))
            );
            if !is_fact {
                self.never_oversold(&before)?;
            }
            if !self.ids.contains(&id) {
                self.ids.push(id);
            }
        }
        self.take(&ledger)?;
        let amended: Vec<_> = amended(&step.command).into_iter().collect();
        self.audit.check(&self.shard, &self.ids, &amended)?;
        if self.shard.counts().ended_reservations < ended {
            let shard = &self.shard;
            let is_known = |id: &ReservationId| {
                shard.reservation(id).is_some() || shard.set_aside(id).next().is_some()
            };
            self.ids.retain(is_known);
        }
        self.same_counters()?;

        apply(&mut self.replica, at, step);
        if step.restart {
            self.restarted.restart()?;
        }
        let (same_ledger, same_outcome) = apply(&mut self.restarted.shard, at, step);
        all.append(&mut ledger);
        if same_outcome != outcome || same_ledger != all {
            return Err(format!(
                "after its restart a replica answered {same_outcome:?} and left {same_ledger:#?}"
            ));
        }
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_A_COMPARISON) {
            self.same_bytes()?;
        }
        Ok(outcome)
    }

    /// What a command left behind must be what the model says, entry for entry.
    fn take(&mut self, ledger: &[LedgerEntry]) -> Result<(), String> {
        let expected = std::mem::take(&mut self.naive.ledger);
        if ledger != expected {
            return Err(format!("left behind {ledger:#?}, the model {expected:#?}"));
        }
        self.audit.take(ledger);
        for entry in ledger {
            let place = (entry.sku.clone(), entry.location.clone());
            if !self.positions.contains(&place) {
                self.positions.push(place);
            }
        }
        self.ledger.extend_from_slice(ledger);
        Ok(())
    }

    /// For each position what is available, and how far below its limit it may not be.
    fn room(&self) -> Vec<(i64, i64)> {
        let room = |(sku, location): &(Sku, Location)| {
            let position = self
                .shard
                .stock(sku)
                .and_then(|stock| stock.position(location));
            position.map_or((0, 0), |position| {
                let available = position.on_hand - position.reserved - position.safety_stock;
                (available, -position.backorder_limit)
            })
        };
        self.positions.iter().map(room).collect()
    }

    fn never_oversold(&self, before: &[(i64, i64)]) -> Result<(), String> {
        for (place, (before, (after, limit))) in
            self.positions.iter().zip(before.iter().zip(self.room()))
        {
            if after < limit && after < before.0 {
                return Err(format!("{place:?} is oversold: {after} available"));
            }
        }
        Ok(())
    }

    fn same_counters(&self) -> Result<(), String> {
        let expected = self.naive.positions();
        for (sku, location, counters) in &expected {
            let stock = self.shard.stock(sku);
            let Some(position) = stock.and_then(|stock| stock.position(location)) else {
                return Err(format!("{sku}@{location} is missing"));
            };
            let actual = [
                position.on_hand,
                position.reserved,
                position.safety_stock,
                position.backorder_limit,
            ];
            if actual != *counters {
                return Err(format!(
                    "{sku}@{location}: {actual:?}, the model {counters:?}"
                ));
            }
        }
        let counts = self.shard.counts();
        let known = self.naive.reservations.len();
        let (open, documents) = (self.naive.open_bytes(), self.naive.document_bytes());
        if counts.open_reservation_bytes != open
            || counts.document_bytes != documents
            || counts.request_bytes > self.naive.request_bytes_max()
        {
            return Err(format!(
                "{counts:?}; the model counts {open} bytes of open reservations, {documents} of \
                 documents, and {} of requests at most",
                self.naive.request_bytes_max()
            ));
        }
        if counts.positions != expected.len()
            || counts.open_reservations + counts.ended_reservations != known
            || counts.requests_remembered != self.naive.requests_remembered()
            || counts.parts != self.naive.parts.len()
            || counts.tombstones != self.naive.tombstones.len()
            || counts.undecided != baskets::undecided(&self.naive)
            || counts.awaited != self.naive.losses.awaited.len()
            || counts.owed != baskets::owed(&self.naive).len()
        {
            return Err(format!("{counts:?}; the model knows {known} reservations"));
        }
        match self.shard.next_expiry() == self.naive.next_expiry() {
            true => Ok(()),
            false => Err(format!("the next expiry is {:?}", self.shard.next_expiry())),
        }
    }

    /// Whoever looks for reservations finds what the model has, each once, in however small steps;
    /// at a replica that was restarted in the same order.
    fn same_listing(&self, filter: &Filter) -> Result<(), String> {
        let all = |shard: &Shard, found_max: usize, looked_at_max: usize| {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let listed = shard.list(filter, after, found_max, looked_at_max);
                found.extend(listed.found);
                after = listed.more_after;
                if after.is_none() {
                    return found;
                }
            }
        };
        let found = all(&self.shard, 2, 5);
        let again = all(&self.restarted.shard, 100, 1_000);
        let ids: BTreeSet<ReservationId> = found.iter().map(|it| it.id).collect();
        let expected = self.naive.list(filter);
        match ids == expected && ids.len() == found.len() && found == again {
            true => Ok(()),
            false => Err(format!(
                "{filter:?}: found {found:?}, a restarted replica {again:?}; the model {expected:?}"
            )),
        }
    }

    fn same_bytes(&self) -> Result<(), String> {
        let expected = self.shard.freeze();
        same_state("replica", &expected, &self.replica.freeze())?;
        same_state(
            "restarted replica",
            &expected,
            &self.restarted.shard.freeze(),
        )?;
        match self.steps < STEPS || expected.hash() == self.restarted.shard.freeze().hash() {
            true => Ok(()),
            false => Err("the hash of a replica differs".to_string()),
        }
    }
}

fn same_state(who: &str, expected: &FrozenState, actual: &FrozenState) -> Result<(), String> {
    if expected.head_bytes() != actual.head_bytes() {
        return Err(format!("the head of a {who} differs"));
    }
    for bucket in 0..expected.buckets() {
        if expected.bucket_bytes(bucket) != actual.bucket_bytes(bucket) {
            return Err(format!("bucket {bucket} of a {who} differs"));
        }
    }
    Ok(())
}

fn amended(command: &Command) -> Option<ReservationId> {
    match &command.action {
        Action::Request(_, Operation::Amend(amend)) => Some(amend.id),
        // What is decided may be an amendment, or that a reservation never was one.
        Action::Basket(BasketCommand::Decide(decide)) => Some(decide.id),
        Action::Basket(BasketCommand::Follow(follow)) => Some(follow.id),
        _ => None,
    }
}
