//! What must be true of a shard after every command, whatever the command was.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use stock_core::{
    LedgerEntry, Location, Reservation, ReservationId, ReservationLine, Shard, Sku, Source,
};

/// Follows the ledger of a shard and compares what it adds up to with what the shard says.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    sums: BTreeMap<(Sku, Location), Sums>,
    /// Open units by the ledger alone.
    open: BTreeMap<ReservationId, BTreeMap<(Sku, Location), i64>>,
    known: HashMap<ReservationId, Arc<Reservation>>,
    checks: usize,
}

/// What is set aside is compared this often: what is wrong with it stays so.
const CHECKS_A_COMPARISON: usize = 5;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sums {
    on_hand: i64,
    reserved: i64,
}

impl Audit {
    /// Takes note of what a command left behind.
    pub(crate) fn take(&mut self, ledger: &[LedgerEntry]) {
        for entry in ledger {
            let place = (entry.sku.clone(), entry.location.clone());
            let sums = self.sums.entry(place.clone()).or_default();
            sums.on_hand += entry.on_hand_delta;
            sums.reserved += entry.reserved_delta;
            if let Source::Reservation(id) = entry.source {
                let open = self.open.entry(id).or_default();
                *open.entry(place).or_default() += entry.reserved_delta;
            }
        }
    }

    /// Compares. `ids` are all reservations that may exist; `amended` are those whose
    /// lines were replaced since the last check, so that their ended units start from nothing.
    pub(crate) fn check(
        &mut self,
        shard: &Shard,
        ids: &[ReservationId],
        amended: &[ReservationId],
    ) -> Result<(), String> {
        self.checks += 1;
        if self.checks.is_multiple_of(CHECKS_A_COMPARISON) {
            self.compare(shard, ids)?;
        }
        let mut open_reservations = 0;
        for id in ids {
            let Some(now) = shard.reservation(id) else {
                if let Some(before) = self.known.remove(id)
                    && before.state.is_open()
                    && !amended.contains(id)
                {
                    return Err(format!("{id} was open and is gone"));
                }
                continue;
            };
            open_reservations += usize::from(!shard.is_over(id));
            // Whoever changes a reservation that is kept here changes a copy.
            if self
                .known
                .get(id)
                .is_some_and(|before| Arc::ptr_eq(before, now))
            {
                continue;
            }
            if let Some(before) = self.known.insert(*id, Arc::clone(now))
                && !amended.contains(id)
            {
                ends_once(&before, now)?;
            }
            for line in &now.lines {
                line_is_sound(now, line)?;
            }
        }
        if shard.counts().open_reservations != open_reservations {
            return Err(format!(
                "{:?}, but {open_reservations} open reservations are found",
                shard.counts()
            ));
        }
        for ((sku, location), sums) in &self.sums {
            let position = shard.stock(sku).and_then(|stock| stock.position(location));
            let Some(position) = position else {
                return Err(format!("{sku}@{location} has a ledger and no position"));
            };
            let counters = Sums {
                on_hand: position.on_hand,
                reserved: position.reserved,
            };
            if counters != *sums {
                return Err(format!(
                    "{sku}@{location} is {counters:?}, its ledger {sums:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether what is set aside for reservations is what the ledger says, and the counters.
    fn compare(&self, shard: &Shard, ids: &[ReservationId]) -> Result<(), String> {
        let mut reserved: BTreeMap<(&Sku, &Location), i64> = BTreeMap::new();
        for id in ids {
            let mut here: BTreeMap<(&Sku, &Location), i64> = BTreeMap::new();
            for (sku, location, units) in shard.set_aside(id) {
                *here.entry((sku, location)).or_default() += units;
                *reserved.entry((sku, location)).or_default() += units;
            }
            for ((sku, location), units) in self.open.get(id).into_iter().flatten() {
                let held = here.remove(&(sku, location)).unwrap_or_default();
                if held != *units {
                    return Err(format!(
                        "{sku}@{location} of {id}: {held} set aside, {units} by the ledger"
                    ));
                }
            }
            if let Some((sku, location)) = here.keys().next() {
                return Err(format!(
                    "{sku}@{location} of {id} is set aside without a ledger"
                ));
            }
        }
        for ((sku, location), sums) in &self.sums {
            let held = reserved.remove(&(sku, location)).unwrap_or_default();
            if held != sums.reserved {
                return Err(format!(
                    "{sku}@{location} has reserved {} and {held} open units",
                    sums.reserved
                ));
            }
        }
        match reserved.keys().next() {
            Some((sku, location)) => Err(format!("{sku}@{location} is held without a ledger")),
            None => Ok(()),
        }
    }
}

/// Units that have ended stay ended, the same way; a reservation that has ended never changes.
fn ends_once(before: &Reservation, now: &Reservation) -> Result<(), String> {
    let unchanged = before == now;
    let grown = before.state.is_open()
        && before.lines.len() == now.lines.len()
        && before.lines.iter().zip(&now.lines).all(|(before, now)| {
            before.quantity == now.quantity
                && before.open >= now.open
                && before.fulfilled <= now.fulfilled
                && before.released <= now.released
                && before.expired() <= now.expired()
        });
    if unchanged || grown {
        Ok(())
    } else {
        Err(format!("units came back: {before:?} became {now:?}"))
    }
}

fn line_is_sound(reservation: &Reservation, line: &ReservationLine) -> Result<(), String> {
    let parts = [line.open, line.fulfilled, line.released, line.expired()];
    let sound = parts.iter().all(|part| *part >= 0)
        && parts.iter().sum::<i64>() == line.quantity
        && (line.open == 0 || reservation.state.is_open());
    if sound {
        Ok(())
    } else {
        Err(format!("unsound line {line:?} of {reservation:?}"))
    }
}
