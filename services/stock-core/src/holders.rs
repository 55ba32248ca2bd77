//! Who holds units of a SKU: what a shortage endangers.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::ids::{Location, ReservationId, Stamp};

/// Open reservations with open units, by position, and in the order in which they were held. Not
/// written down: they are found again from the reservations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holders {
    /// Sorted by location; only those where somebody holds something.
    positions: Vec<(Location, BTreeSet<Holder>)>,
}

/// A reservation, by when it was held.
pub(crate) type Holder = (Stamp, ReservationId);

impl Holders {
    pub(crate) fn add(&mut self, location: &Location, held_at: Stamp, id: ReservationId) {
        let at = match self.find(location) {
            Ok(at) => at,
            Err(at) => {
                self.positions
                    .insert(at, (location.clone(), BTreeSet::new()));
                at
            }
        };
        self.positions[at].1.insert((held_at, id));
    }

    pub(crate) fn remove(&mut self, location: &Location, held_at: Stamp, id: ReservationId) {
        let Ok(at) = self.find(location) else {
            return;
        };
        let holders = &mut self.positions[at].1;
        holders.remove(&(held_at, id));
        if holders.is_empty() {
            self.positions.remove(at);
        }
    }

    /// Those at a location who were held before this one, or all; whoever was held last first.
    pub(crate) fn newest_first(
        &self,
        location: &Location,
        before: Option<Holder>,
    ) -> impl Iterator<Item = Holder> {
        let here = self.find(location).ok().map(|at| &self.positions[at].1);
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let range = here.map(|holders| holders.range((Bound::Unbounded, end)).rev());
        range.into_iter().flatten().copied()
    }

    fn find(&self, location: &Location) -> Result<usize, usize> {
        self.positions
            .binary_search_by(|(other, _)| other.cmp(location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_named_by_position_and_by_when_they_were_held() {
        let location = |name| Location::new(name).unwrap();
        // The times inside their ids are their callers', and say nothing.
        let id = |made_at| ReservationId::compose(Stamp(made_at), 0, 1);
        let mut holders = Holders::default();
        holders.add(&location("B"), Stamp(2), id(10));
        holders.add(&location("B"), Stamp(1), id(99));
        holders.add(&location("A"), Stamp(3), id(50));
        let at = |holders: &Holders, name| -> Vec<_> {
            holders
                .newest_first(&location(name), None)
                .map(|(_, id)| id)
                .collect()
        };
        assert_eq!(at(&holders, "B"), [id(10), id(99)]);
        assert_eq!(at(&holders, "A"), [id(50)]);
        assert!(at(&holders, "C").is_empty());
        let older: Vec<_> = holders
            .newest_first(&location("B"), Some((Stamp(2), id(10))))
            .collect();
        assert_eq!(older, [(Stamp(1), id(99))]);
        holders.remove(&location("B"), Stamp(2), id(10));
        holders.remove(&location("A"), Stamp(3), id(50));
        holders.remove(&location("A"), Stamp(3), id(50));
        assert_eq!(at(&holders, "B"), [id(99)]);
        assert_eq!(holders.positions.len(), 1);
    }
}
