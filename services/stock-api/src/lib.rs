//! `stock.v1` and the stock state machine, each in the other's terms.
//!
//! A message of a caller is checked whole and becomes a command of `stock-core`; an outcome of that
//! becomes a message, and a refusal a gRPC status. Nothing in here decides about stock, waits, or
//! knows where a shard is: that is the edge's of a node, and of the client's fake server.
//!
//! Public messages stop here, and so do the shapes of the state machine.

pub mod answer_size;
pub mod basket;
pub mod catalog;
pub mod changes;
pub mod convert;
pub mod documents;
pub mod fields;
pub mod filter;
pub mod keys;
pub mod movement_lines;
pub mod page;
pub mod refusal;
pub mod rejection;
pub mod time;
pub mod unavailable;
pub mod verdicts;

pub use rejection::Rejection;
