//! One SKU at one location.

use crate::ids::Location;
use crate::limits::COUNTER_MAX;

/// The counters of a position, in the SKU's base unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Where.
    pub location: Location,
    /// Units that are physically there. Below zero after facts that cannot all be true.
    pub on_hand: i64,
    /// Units of open reservations.
    pub reserved: i64,
    /// Units that no channel may sell.
    pub safety_stock: i64,
    /// How far available may go below zero.
    pub backorder_limit: i64,
}

impl Position {
    pub(crate) fn new(location: Location) -> Self {
        Self {
            location,
            on_hand: 0,
            reserved: 0,
            safety_stock: 0,
            backorder_limit: 0,
        }
    }

    /// On hand - reserved - safety stock. The counters are bounded, so this cannot overflow.
    pub fn available(&self) -> i64 {
        self.on_hand - self.reserved - self.safety_stock
    }

    /// What a reserve may take: available plus the backorder limit, at least 0.
    pub fn reservable(&self) -> i64 {
        (self.available() + self.backorder_limit).max(0)
    }

    /// How far available is below what the policy allows, at least 0.
    pub fn short_by(&self) -> i64 {
        (-self.backorder_limit - self.available()).max(0)
    }

    /// Whether on hand may change by this much without leaving its range.
    pub(crate) fn on_hand_fits(&self, delta: i64) -> bool {
        self.on_hand
            .checked_add(delta)
            .is_some_and(|on_hand| (-COUNTER_MAX..=COUNTER_MAX).contains(&on_hand))
    }
}
