//! Everything a shard knows of one SKU.

use std::collections::BTreeSet;

use crate::ids::{Location, ReservationId};
use crate::position::Position;

/// A SKU's positions, by location, and who holds units of them.
#[derive(Debug, Clone, Default)]
pub struct Stock {
    positions: Vec<Position>,
    /// Open reservations with open units of this SKU: what a discrepancy endangers. Not written down: they
    /// are found again from the reservations.
    pub(crate) holders: BTreeSet<ReservationId>,
}

impl Stock {
    /// Of these, which are in the order of their locations, and held by nobody.
    pub(crate) fn new(positions: Vec<Position>) -> Self {
        Self {
            positions,
            holders: BTreeSet::new(),
        }
    }

    /// In the order of the locations' names.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// The position there, if there is one.
    pub fn position(&self, location: &Location) -> Option<&Position> {
        self.find(location).ok().map(|at| &self.positions[at])
    }

    pub(crate) fn position_mut(&mut self, location: &Location) -> Option<&mut Position> {
        self.find(location).ok().map(|at| &mut self.positions[at])
    }

    pub(crate) fn positions_mut(&mut self) -> &mut [Position] {
        &mut self.positions
    }

    /// The position there, made if need be; `true` if it was made.
    pub(crate) fn position_or_new(&mut self, location: &Location) -> (&mut Position, bool) {
        match self.find(location) {
            Ok(at) => (&mut self.positions[at], false),
            Err(at) => {
                // Most SKUs are in few places: grow by one, not by doubling.
                self.positions.reserve_exact(1);
                self.positions.insert(at, Position::new(location.clone()));
                (&mut self.positions[at], true)
            }
        }
    }

    fn find(&self, location: &Location) -> Result<usize, usize> {
        self.positions
            .binary_search_by(|position| position.location.cmp(location))
    }
}
