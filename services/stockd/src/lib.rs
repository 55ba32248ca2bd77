//! stockd: the server.
//!
//! The way of a reserve, top to bottom: `api/reservations.rs` checks the call and makes a command,
//! `proposer.rs` finds the shard's leader, `stock_node::worker` puts it through the log together
//! with everything else that waits and applies it to `stock_core::Shard`, and answers.

pub mod api;
pub mod clocks;
pub mod config;
pub mod dev;
pub mod directory;
pub mod environment;
pub mod history;
pub mod host;
pub mod inbox;
pub mod listeners;
pub mod log_limit;
pub mod membership;
pub mod node;
pub mod offline;
pub mod peers;
pub mod proposer;
pub mod telemetry;
