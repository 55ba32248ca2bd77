//! What can be asked of a shard. Everything in here was checked when it was made: names, quantities
//! and times are in range, and a basket has 1 to 256 lines.

use std::sync::Arc;

use crate::basket::{BasketCommand, Line, Over};
use crate::ids::{
    Document, Fingerprint, Location, Principal, Quantity, Reporter, RequestId, ReservationId, Stamp,
};
use crate::labels::Labels;
use crate::sku::Sku;
use crate::text::Reason;

/// One command of a log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who asked.
    pub principal: Principal,
    /// What for.
    pub action: Action,
}

/// Requests are known by their id, movements by their document, and what one shard tells another by
/// the reservation and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Somebody asks for something; it may be refused.
    Request(Request, Operation),
    /// Something has happened.
    Movements(Movements),
    /// Shards tell each other of a basket that they share.
    Basket(BasketCommand),
}

impl Action {
    /// What makes a reserve or an amendment reach over shards, if it does.
    pub fn over_mut(&mut self) -> Option<&mut Over> {
        match self {
            Self::Request(_, Operation::Reserve(it)) => it.over.as_deref_mut(),
            Self::Request(_, Operation::Amend(it)) => it.over.as_deref_mut(),
            Self::Request(..) | Self::Movements(_) | Self::Basket(_) => None,
        }
    }

    /// The reservation that a request changes, if it is for one that is there.
    pub fn reservation(&self) -> Option<ReservationId> {
        match self {
            Self::Request(_, operation) => match operation {
                Operation::Confirm(it) => Some(it.id),
                Operation::Release(it) => Some(it.id),
                Operation::Fulfill(it) => Some(it.id),
                Operation::Extend(it) => Some(it.id),
                Operation::Amend(it) => Some(it.id),
                Operation::Reserve(_) | Operation::SetPolicy(_) => None,
            },
            Self::Movements(_) | Self::Basket(_) => None,
        }
    }
}

/// What makes a request the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The caller's id for it.
    pub id: RequestId,
    /// Of what it asks for: [`Operation::fingerprint`].
    pub fingerprint: Fingerprint,
}

impl Request {
    /// A request under this id for this.
    pub fn of(id: RequestId, operation: &Operation) -> Self {
        let fingerprint = operation.fingerprint();
        Self { id, fingerprint }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's type says it")]
pub enum Operation {
    Reserve(Reserve),
    Confirm(Confirm),
    Release(Release),
    Fulfill(Fulfill),
    Extend(Extend),
    Amend(Amend),
    SetPolicy(SetPolicy),
}

/// Hold every line, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    /// The id it shall have.
    pub id: ReservationId,
    /// The basket.
    pub lines: Vec<Line>,
    /// How long the hold lasts.
    pub ttl_ms: u64,
    /// What its caller calls it.
    pub labels: Option<Arc<Labels>>,
    /// Given where lines are of other shards, too: this one is its home.
    pub over: Option<Box<Over>>,
}

/// Make a hold permanent, or at least until a pickup deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// Which.
    pub id: ReservationId,
    /// From the stamp on.
    pub pickup_within_ms: Option<u64>,
}

/// So many open units of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialLine {
    /// Of this SKU.
    pub sku: Sku,
    /// May be left out where the reservation has the SKU at one location only.
    pub location: Option<Location>,
    /// How many.
    pub quantity: Quantity,
}

/// Give units back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub id: ReservationId,
    /// Empty: all that is open.
    pub lines: Vec<PartialLine>,
    /// Why, where an operator does it in the holder's place.
    pub forced: Option<Reason>,
}

/// Hand units over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fulfill {
    /// Which.
    pub id: ReservationId,
    /// Empty: all that is open.
    pub lines: Vec<PartialLine>,
}

/// Let a hold end later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extend {
    /// Which.
    pub id: ReservationId,
    /// From the stamp on.
    pub ttl_ms: u64,
}

/// Replace a hold's basket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amend {
    /// Which.
    pub id: ReservationId,
    /// The basket as it shall be.
    pub lines: Vec<Line>,
    /// From the stamp on; left out: the expiry stays.
    pub ttl_ms: Option<u64>,
    /// Given where lines are of other shards than the reservation's home, too.
    pub over: Option<Box<Over>>,
}

/// Change what may be sold of a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPolicy {
    /// Of this SKU.
    pub sku: Sku,
    /// There.
    pub location: Location,
    /// Units that no channel may sell; left out: as it is.
    pub safety_stock: Option<i64>,
    /// How far available may go below zero; left out: as it is.
    pub backorder_limit: Option<i64>,
}

/// Lines of one document, all for one shard. Each line stands or falls by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movements {
    /// What they are.
    pub kind: MovementKind,
    /// Who reports them.
    pub source: Reporter,
    /// The document's name.
    pub document: Document,
    /// Given for adjustments.
    pub reason: Option<Reason>,
    /// 1 or more.
    pub lines: Vec<MovementLine>,
}

/// What kind of fact a movement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MovementKind {
    /// Units arrived.
    Receipt,
    /// Units were sold at a till.
    Sale,
    /// Units were found or lost.
    Adjustment,
}

/// One line of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovementLine {
    /// Its name inside the document.
    pub line: Document,
    /// Of this SKU.
    pub sku: Sku,
    /// There.
    pub location: Location,
    /// By how much on hand changes: positive for a receipt, negative for a sale, never 0.
    pub on_hand_delta: i64,
    /// When it happened, by the clock of whoever reports it.
    pub occurred_at: Stamp,
}
