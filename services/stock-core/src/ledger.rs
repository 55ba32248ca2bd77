//! What each applied change leaves behind: the deltas whose sums are the counters.

use crate::ids::{Document, Location, Principal, Reporter, ReservationId, Stamp};
use crate::outcome::Discrepancy;
use crate::sku::Sku;
use crate::text::Reason;

/// One change of one position. The driver adds (index, ordinal): the place in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// What happened.
    pub kind: EntryKind,
    /// To this SKU.
    pub sku: Sku,
    /// There.
    pub location: Location,
    /// By how much on hand changed.
    pub on_hand_delta: i64,
    /// By how much reserved changed.
    pub reserved_delta: i64,
    /// What it belongs to.
    pub source: Source,
    /// Who asked; for an expiry, who held.
    pub principal: Principal,
    /// When it was stamped.
    pub stamp: Stamp,
    /// When it happened, by the wall: no later than the stamp or, where they were ahead of it, the
    /// nodes' wall clocks.
    pub occurred_at: Stamp,
    /// Given for adjustments.
    pub reason: Option<Reason>,
    /// Set when the change took available too low.
    pub discrepancy: Option<Box<Discrepancy>>,
}

/// What happened to a position. The numbers are kept on disk: never change them, never use one
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum EntryKind {
    /// Units were set aside.
    Reserved = 1,
    /// Set-aside units became firm; no counter changed.
    Confirmed = 2,
    /// Set-aside units were given back.
    Released = 3,
    /// Set-aside units left the stock.
    Fulfilled = 4,
    /// Set-aside units came back by themselves.
    Expired = 5,
    /// A hold ends later; no counter changed.
    Extended = 6,
    /// Units arrived.
    Receipt = 7,
    /// Units were sold at a till.
    Sale = 8,
    /// Units were found or lost.
    Adjustment = 9,
    /// The position's policy changed; no counter changed.
    Policy = 10,
}

/// What a change belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A reservation.
    Reservation(ReservationId),
    /// A line of a document.
    Document {
        /// Who reported it.
        reporter: Reporter,
        /// The document.
        document: Document,
        /// Its line.
        line: Document,
    },
    /// A policy.
    Policy,
}
