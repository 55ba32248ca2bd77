//! What tests and load tests share: stocking a cluster up ([`stock`]), and the books beside its
//! own, so that the two can be compared ([`Tally`]).

pub mod stock;
mod tally;

pub use tally::{Count, Mismatch, OrderLine, Position, Tally};
