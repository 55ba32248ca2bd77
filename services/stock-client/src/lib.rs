//! The Rust client of stockd.
//!
//! ```no_run
//! # async fn example() -> Result<(), stock_client::Error> {
//! use stock_client::v1::{Line, ReserveRequest, reserve_response::Outcome};
//! use stock_client::Client;
//!
//! let client = Client::connect("http://127.0.0.1:7401").await?;
//! // Store it with the order before the call: whatever happens to this program, the same call
//! // with the same id is done once.
//! let request_id = client.new_request_id();
//! let request = ReserveRequest {
//!     request_id,
//!     order_reference: Some("A-1042".to_owned()),
//!     lines: vec![Line::at("milk-1l", "store-7", 2)],
//!     ..ReserveRequest::default()
//! };
//! match client.reserve(request).await {
//!     Ok(answer) => match answer.outcome {
//!         Some(Outcome::Reservation(held)) => println!("held: {}", held.reservation_id),
//!         Some(Outcome::Shortage(short)) => println!("{} lines are short", short.lines.len()),
//!         None => {}
//!     },
//!     // It may be held: ask again with the same id, or find it by its order reference.
//!     Err(error) if error.outcome_unknown() => println!("not known yet: {error}"),
//!     Err(error) => return Err(error),
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
//!   An attempt takes a quarter of the call's time at most; all calls of a client share one budget
//!   of repeats.
//! - **Half of a network.** What the client has seen itself counts before what nodes say of each
//!   other. A node that is silent is probed, left, and asked again when it answers a probe; idle
//!   connections that a firewall forgot are replaced. That costs calls under way a fifth of a
//!   second, and later ones nothing.
//! - **One cluster.** It stays with the cluster that it was told ([`ClientBuilder::cluster`]), or
//!   that answered first; nodes of another refuse its calls.
//! - **Cancellation.** Any call may be dropped at any moment: repeated with its request id it is
//!   done once.
//!
//! A client takes part in the tokio runtime that it is used on, and outlives it: on another one it
//! connects anew.
//!
//! Deliberately absent: a cache of stock, and any call that is retried without an id.

mod batch;
mod builder;
mod call;
mod client;
mod cluster;
mod error;
mod link;
mod options;
mod pool;
mod request_id;
mod reserve_stream;
pub mod way;

pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{Error, FieldViolation, StatusError};
pub use link::CONNECT_TIMEOUT;
pub use options::{
    ATTEMPT_TIMEOUT, BULK_ATTEMPT_TIMEOUT, CALL_TIMEOUT, CALLS_AT_ONCE, CallOptions, START_TIMEOUT,
    WhenFull,
};
pub use request_id::new_request_id;
pub use reserve_stream::{ReserveStream, UNANSWERED_MAX};
pub use stock_proto::stock::{admin, v1};
pub use way::{Topology, home_shard, shard_of_reservation, shard_of_sku};

/// The time now, by this machine's clock: the `occurred_at` of a movement that has just happened.
pub fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}
