//! A reservation: units set aside, line by line, until they are fulfilled, released or expired.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::{Channel, Location, Principal, ReservationId, Stamp};
use crate::labels::Labels;
use crate::sku::Sku;
use crate::text::OrderReference;

/// Where a reservation is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Set aside until it expires.
    Held,
    /// Paid; set aside until fulfilled, released, or past a pickup deadline.
    Confirmed,
    /// Over: a fulfilment ended the last open unit.
    Fulfilled,
    /// Over: a release ended the last open unit.
    Released,
    /// Over: time ended the last open unit.
    Expired,
}

impl State {
    /// Whether units are still set aside.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Held | Self::Confirmed)
    }
}

/// A reservation, open or remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// Where it is in its life.
    pub state: State,
    /// When it ends by itself, if it does.
    pub expires_at: Option<Stamp>,
    /// When it was held.
    pub created_at: Stamp,
    /// Who holds it.
    pub principal: Principal,
    /// What its caller calls it.
    pub labels: Option<Arc<Labels>>,
    /// One for each SKU and location, in the order of the basket.
    pub lines: ReservationLines,
}

/// With its places among all reservations and among those that end by themselves. One of a single
/// line takes 256.
const BYTES: usize = 184;
/// With its place among the holders of its position.
const LINE_BYTES: usize = 72;

/// Most baskets have one line, which then needs no memory of its own.
pub type ReservationLines = SmallVec<[ReservationLine; 1]>;

/// Units of one SKU at one location. Always quantity = open + fulfilled + released + expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationLine {
    /// Of this SKU.
    pub sku: Sku,
    /// There.
    pub location: Location,
    /// What was held at first.
    pub quantity: i64,
    /// What is still set aside.
    pub open: i64,
    /// What was handed over.
    pub fulfilled: i64,
    /// What was given back.
    pub released: i64,
}

impl ReservationLine {
    pub(crate) fn new(sku: Sku, location: Location, quantity: i64) -> Self {
        Self {
            sku,
            location,
            quantity,
            open: quantity,
            fulfilled: 0,
            released: 0,
        }
    }

    /// What ended by itself.
    pub fn expired(&self) -> i64 {
        self.quantity - self.open - self.fulfilled - self.released
    }
}

impl Reservation {
    /// Whether it has an expiry that has come.
    pub fn is_due(&self, now: Stamp) -> bool {
        self.state.is_open() && self.expires_at.is_some_and(|at| at <= now)
    }

    pub(crate) fn has_open_units(&self) -> bool {
        self.lines.iter().any(|line| line.open > 0)
    }

    /// Bytes of memory that it takes, about: of replicated rules, so not what an allocator says.
    pub(crate) fn bytes(&self) -> usize {
        let labels = self.labels.as_ref().map_or(0, |labels| labels.bytes());
        BYTES + labels + LINE_BYTES * self.lines.len()
    }

    /// As it was when it was held.
    pub(crate) fn as_held(&self) -> Self {
        let line = |line: &ReservationLine| {
            ReservationLine::new(line.sku.clone(), line.location.clone(), line.quantity)
        };
        Self {
            state: State::Held,
            lines: self.lines.iter().map(line).collect(),
            ..self.clone()
        }
    }

    /// The caller's own name for it.
    pub fn order_reference(&self) -> Option<&OrderReference> {
        self.labels.as_ref()?.order_reference.as_ref()
    }

    /// Where it comes from.
    pub fn channel(&self) -> Option<&Channel> {
        self.labels.as_ref()?.channel.as_ref()
    }

    pub(crate) fn open_units_at(&self, sku: &Sku, location: &Location) -> i64 {
        open_at(&self.lines, sku, location)
    }
}

/// The line of a position.
pub(crate) fn line_at<'a>(
    lines: &'a [ReservationLine],
    sku: &Sku,
    location: &Location,
) -> Option<&'a ReservationLine> {
    let mut lines = lines.iter();
    lines.find(|line| line.sku == *sku && line.location == *location)
}

/// What of these lines is open at a position.
pub(crate) fn open_at(lines: &[ReservationLine], sku: &Sku, location: &Location) -> i64 {
    line_at(lines, sku, location).map_or(0, |line| line.open)
}
