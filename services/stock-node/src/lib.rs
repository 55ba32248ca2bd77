//! What one node does with its groups: the loop that owns them, what it writes down, and what
//! others may know of it. Pure: there is no clock, runtime, socket or file in it, and none among
//! what it depends on.
//!
//! Reading order: [`event`] is everything that can wake the loop, and everything that it can do
//! about it; [`worker`] is the loop; [`applying`] is one entry applied.

pub mod answer;
pub mod applying;
pub mod basket;
pub mod checkpoint;
pub mod chore;
pub mod clock;
pub mod entry;
pub mod event;
pub mod ledger_rows;
pub mod notice;
pub mod standing;
pub mod state;
pub mod view;
pub mod way;
pub mod worker;
pub mod writes;
