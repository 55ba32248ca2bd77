//! The way of a call to whoever can answer it, without a connection, a clock or a runtime: whoever
//! has those asks what is next, does it, and says what came of it. The client does, and so do tests
//! that play a network. A program that calls a cluster needs none of it but
//! [`Topology`], which a client shows it.
//!
//! ```text
//! Target     who answers a call without having to send it on
//! Router     what the client knows: the topology, and what it has seen of each node itself
//! Attempts   one call: how long an attempt may take, what follows from its failure
//! Budget     how often calls may be tried again, all together
//! ```

mod attempts;
mod budget;
mod life;
mod retry;
mod router;
mod standing;
mod target;
mod topology;

pub use attempts::{Attempts, Consequence, Lesson, Then};
pub use budget::Budget;
pub(crate) use retry::{Backoff, Next, next};
pub use router::{
    Chosen, Leadership, Learnt, Overtaken, Router, TOPOLOGY_AGE_MAX, TOPOLOGY_AGE_MIN,
};
pub use standing::{DOUBT_EVERY, PATIENCE_MIN, PROBE_AFTER_MAX, Standing};
pub use target::{Target, home_shard, shard_of_reservation, shard_of_sku};
pub(crate) use target::{of_basket, of_reservation, of_sku};
pub use topology::Topology;

use std::time::Duration;

/// How long one node may take to say what it knows of the cluster: it answers from memory.
pub const TOPOLOGY_TIMEOUT: Duration = Duration::from_millis(500);
