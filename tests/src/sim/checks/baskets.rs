//! Baskets over several shards: one outcome for each, all of it or nothing, and no unit that is set
//! aside for nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stock_core::{
    Action, Command, Filter, Fingerprint, Location, Operation, Outcome, Principal, Refusal,
    RequestId, Reservation, ReservationId, Shard, Sku, limits::ENDED_RESERVATION_MS,
};

use super::super::clock::EPOCH_MS;
use super::history::History;
use super::{Checked, broken};

/// What callers were told.
#[derive(Default)]
pub(crate) struct Baskets {
    told: BTreeMap<(RequestId, Principal, Fingerprint), Told>,
    held: BTreeSet<ReservationId>,
}

/// What a request came to, once and for all.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Held(ReservationId, Vec<(Sku, Location, i64)>),
    Short(Vec<(Sku, Location)>),
    NotHeldInTime,
}

impl Told {
    /// Whether it is the same, said once more. Where a basket is short at home, that is remembered;
    /// what else is short is said as it is by then.
    fn is_as(&self, other: &Self, home: impl Fn(&Sku) -> bool) -> bool {
        let (one, other) = match (self, other) {
            (Self::Short(one), Self::Short(other)) => (one, other),
            // What was short is forgotten a minute after it was asked for, where home has not heard
            // of it by then: that nothing is held stays true.
            (Self::Short(_), Self::NotHeldInTime) => return true,
            _ => return self == other,
        };
        let at_home = |lines: &[(Sku, Location)]| {
            let at_home = lines.iter().filter(|(sku, _)| home(sku));
            at_home.cloned().collect::<Vec<_>>()
        };
        let remembered = at_home(one);
        remembered == at_home(other) && (!remembered.is_empty() || one == other)
    }
}

/// Whether a SKU's stock is in the home of what a command is for.
fn home(command: &Command) -> impl Fn(&Sku) -> bool {
    let home = match &command.action {
        Action::Request(_, Operation::Reserve(it)) => Some((it.id.shard(), it.over.as_ref())),
        Action::Request(_, Operation::Amend(it)) => Some((it.id.shard(), it.over.as_ref())),
        _ => None,
    };
    let home = home.and_then(|(home, over)| Some((home, over?.shards)));
    move |sku| home.is_none_or(|(home, shards)| sku.shard(shards) == home)
}

/// Units by position.
type Units = BTreeMap<(Sku, Location), i64>;

impl Baskets {
    /// A caller was told this of a basket over several shards.
    pub(crate) fn answered(&mut self, command: &Command, outcome: &Outcome) -> Checked {
        let Action::Request(request, operation) = &command.action else {
            return Ok(());
        };
        let told = match outcome {
            Outcome::Reservation(reservation) => {
                let lines = reservation.lines.iter();
                let lines = lines.map(|it| (it.sku.clone(), it.location.clone(), it.quantity));
                Told::Held(reservation.id, lines.collect())
            }
            Outcome::Shortage(shortage) => {
                let lines = shortage.lines.iter();
                Told::Short(
                    lines
                        .map(|it| (it.sku.clone(), it.location.clone()))
                        .collect(),
                )
            }
            Outcome::Refused(Refusal::NotHeldInTime) => Told::NotHeldInTime,
            _ => return Ok(()),
        };
        if let (Told::Held(id, _), Operation::Reserve(_)) = (&told, operation) {
            self.held.insert(*id);
        }
        let key = (request.id, command.principal.clone(), request.fingerprint);
        let known = self.told.entry(key).or_insert_with(|| told.clone());
        if !known.is_as(&told, home(command)) {
            let seen = format!("{command:?} has come to {known:?}, and now to {told:?}");
            return broken("one outcome", seen);
        }
        Ok(())
    }

    /// Whoever was told that a basket is held has it held, whatever home had written down by then;
    /// and of all that is open and decided the shards have set aside no less than home says.
    pub(crate) fn check(&self, histories: &[History]) -> Checked {
        for id in &self.held {
            let Some(home) = shard_of(histories, id.shard()) else {
                continue;
            };
            // Later it may be forgotten.
            let is_young = home.stamp().0 < EPOCH_MS + ENDED_RESERVATION_MS / 2;
            if is_young && home.reservation(id).is_none() {
                let seen = format!("{id} was told to be held, and home does not know it");
                return broken("held is held", seen);
            }
        }
        for home in shards(histories) {
            for reservation in reservations(home) {
                let is_new = home
                    .prepared(&reservation.id)
                    .is_some_and(|it| it.version == 1);
                if reservation.state.is_open() && !is_new {
                    all_or_nothing(histories, &reservation)?;
                }
            }
        }
        Ok(())
    }

    /// What the shards have yet to tell each other, or whatever is set aside and should not be.
    pub(crate) fn unsettled(histories: &[History]) -> Option<String> {
        let (mut held, mut reserved) = (Units::new(), Units::new());
        for (number, shard) in shards(histories).enumerate() {
            let counts = shard.counts();
            if counts.undecided > 0 || counts.owed > 0 || counts.awaited > 0 {
                return Some(format!(
                    "shard {number} has {} undecided, owes {}, and awaits {}",
                    counts.undecided, counts.owed, counts.awaited
                ));
            }
            for reservation in reservations(shard) {
                for line in reservation.lines.iter().filter(|line| line.open > 0) {
                    let position = (line.sku.clone(), line.location.clone());
                    *held.entry(position).or_default() += line.open;
                }
            }
            for (sku, stock) in shard.skus() {
                for position in stock.positions().iter().filter(|it| it.reserved > 0) {
                    let at = (sku.clone(), position.location.clone());
                    reserved.insert(at, position.reserved);
                }
            }
        }
        if held == reserved {
            return None;
        }
        let differs = |(at, units): (&(Sku, Location), &i64)| {
            let of_homes = held.get(at).copied().unwrap_or(0);
            (of_homes != *units).then(|| format!("{at:?}: {units} set aside, {of_homes} held"))
        };
        let missing = held.keys().filter(|at| !reserved.contains_key(*at));
        let missing = missing.map(|at| format!("{at:?} is held and not set aside"));
        let differ: Vec<String> = reserved.iter().filter_map(differs).chain(missing).collect();
        Some(differ.join(", "))
    }
}

fn all_or_nothing(histories: &[History], reservation: &Reservation) -> Checked {
    let shards = histories.len() as u32 - 1;
    for line in reservation.lines.iter().filter(|line| line.open > 0) {
        let Some(shard) = shard_of(histories, line.sku.shard(shards)) else {
            continue;
        };
        let here = shard
            .set_aside(&reservation.id)
            .filter(|(sku, location, _)| **sku == line.sku && **location == line.location);
        let set_aside: i64 = here.map(|(_, _, units)| units).sum();
        if set_aside < line.open {
            let seen = format!("{set_aside} of {line:?} are set aside for {reservation:?}");
            return broken("all or nothing", seen);
        }
    }
    Ok(())
}

fn shards(histories: &[History]) -> impl Iterator<Item = &Shard> {
    histories.iter().filter_map(History::shard)
}

fn shard_of(histories: &[History], shard: u32) -> Option<&Shard> {
    histories.get(shard as usize + 1)?.shard()
}

fn reservations(shard: &Shard) -> Vec<Arc<Reservation>> {
    let listed = shard.list(&Filter::default(), None, usize::MAX, usize::MAX);
    listed.found
}
