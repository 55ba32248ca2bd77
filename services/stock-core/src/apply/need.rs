//! What a basket needs of each position.

use smallvec::SmallVec;

use crate::basket::Line;
use crate::ids::{At, Location, Principal, ReservationId};
use crate::ledger::{EntryKind, LedgerEntry, Source};
use crate::reservation::ReservationLine;
use crate::sku::Sku;

/// What a basket needs of one position: the sum over its lines.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    pub(crate) sku: Sku,
    pub(crate) location: Location,
    pub(crate) quantity: i64,
    /// The first line that names it.
    pub(crate) line: u32,
}

impl Need {
    /// What all these lines need.
    pub(crate) fn of_lines(lines: &[Line]) -> SmallVec<[Self; 1]> {
        Self::merge((0..).zip(lines), lines.len())
    }

    /// Sums lines of the same position, in the order in which positions first appear, of about so
    /// many, each with its number. A basket has at most 256 lines, and comparing two positions
    /// mostly compares two numbers.
    pub(crate) fn merge<'a>(
        numbered: impl Iterator<Item = (u32, &'a Line)>,
        count: usize,
    ) -> SmallVec<[Self; 1]> {
        let mut needs: SmallVec<[Self; 1]> = SmallVec::with_capacity(count);
        for (number, line) in numbered {
            let same = |need: &&mut Self| need.sku == line.sku && need.location == line.location;
            match needs.iter_mut().find(same) {
                Some(need) => need.quantity += line.quantity.get(),
                None => needs.push(Self {
                    sku: line.sku.clone(),
                    location: line.location.clone(),
                    quantity: line.quantity.get(),
                    line: number,
                }),
            }
        }
        needs
    }

    /// A line that holds it.
    pub(crate) fn into_line(self) -> ReservationLine {
        ReservationLine::new(self.sku, self.location, self.quantity)
    }

    /// Whether a line is of its position.
    pub(crate) fn is_of(&self, line: &ReservationLine) -> bool {
        self.sku == line.sku && self.location == line.location
    }

    pub(crate) fn entry(
        &self,
        kind: EntryKind,
        reserved_delta: i64,
        id: ReservationId,
        principal: &Principal,
        at: At,
    ) -> LedgerEntry {
        LedgerEntry {
            kind,
            sku: self.sku.clone(),
            location: self.location.clone(),
            on_hand_delta: 0,
            reserved_delta,
            source: Source::Reservation(id),
            principal: principal.clone(),
            stamp: at.stamp(),
            occurred_at: at.stamp(),
            reason: None,
            discrepancy: None,
        }
    }
}
