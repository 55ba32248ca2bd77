//! The stock state machine: what is on hand, what is reserved, and who holds it.
//!
//! A [`Shard`] is driven by a replicated log. For each entry the driver calls [`Shard::advance`]
//! once with what the entry says of time and [`Shard::apply`] for each command, in order, on every
//! replica:
//!
//! ```text
//! shard.advance(moment, &mut ledger);                 // time passes: due holds expire
//! for (ordinal, command) in entry {
//!     let outcome = shard.apply(at(index, ordinal, moment), command, &mut ledger);
//! }
//! ```
//!
//! What makes replicas equal is what this crate does not have: no clock (time is an
//! argument), no randomness, no floats, no hash maps, no IO, no threads, no async. It is total: a
//! refused command is an [`Outcome`], not an error, and no input makes it panic.
//!
//! At any time between two commands a state can be frozen, written down whole, and brought back:
//!
//! ```text
//! let mut frozen = shard.freeze();                    // cheap; the shard goes on
//! write(frozen.head_bytes());
//! for bucket in 0..frozen.buckets() {
//!     write(frozen.take_bucket(bucket));
//! }
//! ```
//!
//! and a [`ShardRestorer`] makes an equal shard from the bytes.
//!
//! Reading order: [`Command`] and [`Outcome`] are the contract; `shard.rs` is the dispatch;
//! `apply/` has one file for each family of commands.

mod apply;
mod basket;
mod buckets;
mod catalog;
pub mod codec;
mod command;
mod documents;
mod errands;
mod error;
mod fingerprint;
mod frozen;
mod holders;
mod home;
mod ids;
mod labels;
mod ledger;
pub mod limits;
mod listing;
mod memory;
mod names;
mod order;
mod outcome;
mod parts;
mod position;
mod recoveries;
mod reservation;
mod restore;
mod set_aside;
mod shard;
mod sku;
mod stock;
mod text;
mod timeline;
mod verdict;

pub use basket::{
    Acknowledge, AllHeld, Ask, BasketCommand, Decide, Decision, Follow, HeldBasket, HoldPart, Line,
    NumberedLine, Over, Probe, Question, Recovered, TellAnew, ToldAnew,
};
pub use catalog::{
    Catalog, CatalogCommand, CatalogOutcome, Coordinates, LocationType, PutLocation,
};
pub use command::{
    Action, Amend, Command, Confirm, Extend, Fulfill, MovementKind, MovementLine, Movements,
    Operation, PartialLine, Release, Request, Reserve, SetPolicy,
};
pub use errands::Due;
pub use error::{Flaw, Part, RestoreError};
pub use frozen::FrozenState;
pub use ids::{
    At, Channel, Document, Fingerprint, IdentifierError, Location, Moment, Principal, Quantity,
    QuantityError, Reporter, RequestId, RequestIdError, ReservationId, ReservationIdError, Secret,
    Stamp,
};
pub use labels::Labels;
pub use ledger::{EntryKind, LedgerEntry, Source};
pub use listing::{Filter, Listed};
pub use names::{Naming, NewNames};
pub use outcome::{
    BasketOutcome, Discrepancy, InTheWay, LineVerdict, NotHeld, Outcome, Policy, Prepared, Refusal,
    ShortLine, Shortage, ToBeTold,
};
pub use position::Position;
pub use reservation::{Reservation, ReservationLine, ReservationLines, State};
pub use restore::{CatalogRestorer, ShardRestorer, StateRestorer};
pub use shard::{Counts, Shard};
pub use sku::Sku;
pub use stock::Stock;
pub use text::{OrderReference, Reason};
