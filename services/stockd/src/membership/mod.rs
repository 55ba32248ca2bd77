//! How a node with an empty directory becomes a member: as a founder, or let in by a cluster that
//! is there already.

pub mod first_boot;
pub mod join;
