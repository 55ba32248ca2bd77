//! The Rust client of stockd.
//!
//! ```no_run
//! # async fn example() -> Result<(), stock_client::Error> {
//! use stock_client::Client;
//! use stock_client::v1::{Line, ReserveRequest, reserve_response::Outcome};
//!
//! let client = Client::connect("http://127.0.0.1:7401").await?;
//! let answer = client
//!     .reserve(ReserveRequest {
//!         lines: vec![Line::at("milk-1l", "store-7", 2)],
//!         ..ReserveRequest::default()
//!     })
//!     .await?;
//! match answer.outcome {
//!     Some(Outcome::Reservation(reservation)) => println!("{}", reservation.reservation_id),
//!     Some(Outcome::Shortage(shortage)) => println!("{} lines are short", shortage.lines.len()),
//!     None => {}
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What a [`Client`] does beyond the generated stubs:
//!
//! - **Routing.** It learns the topology from any node and sends each call to the leader that
//!   answers it. Every node forwards, so an outdated route costs a hop and never a wrong answer.
//! - **Idempotency.** A mutation without a request id gets a UUIDv7 before its first attempt, and
//!   every retry repeats that id. Movements are known by their source, document, line, SKU
//!   and location instead, and say when they happened ([`now`]).
//! - **Repeating.** Where a call has no answer in the end, the error tells the ids of its requests
//!   ([`Error::request_ids`]): made again with them, at any time within ten minutes, it is done
//!   once.
//! - **Retries.** Lost connections, UNAVAILABLE, silence and overload with a retry hint are tried
//!   again, with back-off, until the call's timeout; everything else is the caller's to decide.
//!
//! Deliberately absent: a queue of its own, a cache of stock, and any call that is retried without
//! an id.

mod attempts;
mod batch;
mod choice;
mod client;
mod cluster;
mod error;
mod node;
mod reserve_stream;
mod retry;
mod route;
mod topology;

/// The way of a call without its transport: for callers that have one of their own, and for tests
/// that play it.
pub mod way {
    pub use crate::attempts::{Attempts, Consequence, Then};
    pub use crate::choice::{Candidate, choose};
    pub use crate::node::{SUSPECT_FOR, TOPOLOGY_AGE_MAX, TOPOLOGY_AGE_MIN, TOPOLOGY_TIMEOUT};
    pub use crate::route::Target;
}

pub use client::{
    ATTEMPT_TIMEOUT, BULK_ATTEMPT_TIMEOUT, CALL_TIMEOUT, Client, ClientBuilder, new_request_id,
};
pub use error::{Error, FieldViolation, StatusError};
pub use node::{CONNECT_TIMEOUT, START_TIMEOUT};
pub use reserve_stream::{ReserveStream, UNANSWERED_MAX};
pub use route::{home_shard, shard_of_reservation, shard_of_sku};
pub use stock_proto::stock::{admin, v1};
pub use topology::Topology;

/// The time now, by this machine's clock: the `occurred_at` of a movement that has just happened.
pub fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}
