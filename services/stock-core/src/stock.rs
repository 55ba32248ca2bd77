//! Everything a shard knows of one SKU.

use std::iter;
use std::sync::Arc;

use crate::holders::Holders;
use crate::ids::Location;
use crate::position::Position;

/// A SKU's positions, by location, and who holds units of them.
#[derive(Debug, Clone, Default)]
pub struct Stock {
    /// Shared with readers and with copies of the state; copied before a change if it is.
    positions: Arc<[Position]>,
    pub(crate) holders: Holders,
}

impl Stock {
    /// Of these, which are in the order of their locations, and held by nobody.
    pub(crate) fn new(positions: Vec<Position>) -> Self {
        Self {
            positions: positions.into(),
            holders: Holders::default(),
        }
    }

    /// In the order of the locations' names.
    pub fn positions(&self) -> &[Position] {
        &self.positions
    }

    /// As [`Self::positions`], to be kept: what changes here later does not change there.
    pub fn shared_positions(&self) -> &Arc<[Position]> {
        &self.positions
    }

    /// The position there, if there is one.
    pub fn position(&self, location: &Location) -> Option<&Position> {
        self.find(location).ok().map(|at| &self.positions[at])
    }

    pub(crate) fn position_mut(&mut self, location: &Location) -> Option<&mut Position> {
        let at = self.find(location).ok()?;
        Some(&mut self.positions_mut()[at])
    }

    pub(crate) fn positions_mut(&mut self) -> &mut [Position] {
        Arc::make_mut(&mut self.positions)
    }

    /// The position there, made if need be; `true` if it was made.
    pub(crate) fn position_or_new(&mut self, location: &Location) -> (&mut Position, bool) {
        let found = self.find(location);
        if let Err(at) = found {
            // Most SKUs are in few places: grow by one, not by doubling.
            let (before, after) = self.positions.split_at(at);
            let new = iter::once(Position::new(location.clone()));
            let all = before.iter().cloned().chain(new);
            self.positions = all.chain(after.iter().cloned()).collect();
        }
        let (Ok(at) | Err(at)) = found;
        (&mut self.positions_mut()[at], found.is_err())
    }

    fn find(&self, location: &Location) -> Result<usize, usize> {
        self.positions
            .binary_search_by(|position| position.location.cmp(location))
    }
}
