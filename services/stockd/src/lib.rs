//! stockd: the server.
//!
//! The way of a reserve, top to bottom: `api/reservations.rs` checks the call and makes a command,
//! `api/edge.rs` finds the shard's leader, `worker/mod.rs` puts it through the log together with
//! everything else that waits, `worker/group.rs` applies it to `stock_core::Shard` and answers.

pub mod api;
pub mod applying;
pub mod checkpoint;
pub mod chores;
pub mod clocks;
pub mod cluster_state;
pub mod config;
pub mod desk;
pub mod dev;
pub mod disk;
pub mod environment;
pub mod first_boot;
pub mod forgotten;
pub mod gauge;
pub mod history;
pub mod host;
pub mod identity;
pub mod inbox;
pub mod listeners;
pub mod liveness;
pub mod log_codec;
pub mod log_limit;
pub mod memory;
pub mod node;
pub mod node_record;
pub mod offline;
pub mod peers;
pub mod placement;
pub mod reply;
pub mod roster;
pub mod state;
pub mod telemetry;
pub mod view;
pub mod worker;
