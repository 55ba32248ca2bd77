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
//! # What a program sees of it
//!
//! Spans of [`tracing`](https://docs.rs/tracing) at DEBUG: `call` (`method`, `outcome`) and,
//! inside it, `attempt` (`endpoint`, `node`, `outcome`); a node that is lost is told at INFO.
//! Metrics of the [`metrics`](https://docs.rs/metrics) crate:
//!
//! - `stockd_client_calls_total` by `method` and `outcome`: `ok`, `timeout`, `cancelled`, or the
//!   gRPC code of a refusal;
//! - `stockd_client_call_duration_seconds` by `method`: how long answered calls took;
//! - `stockd_client_attempts_total` by `outcome`: `ok`, `refused`, `unavailable`, `overloaded`,
//!   `silent`, `lost`, `no_node`;
//! - `stockd_client_suspicions_total`: nodes that were doubted, since a call had waited long;
//! - `stockd_client_nodes_lost_total`: nodes that had calls and were lost;
//! - `stockd_client_connects_total`: connections begun by the client's own connector.
//!
//! Calls inside a [`ReserveStream`] are not counted one by one.
//!
//! # Tests of a program that uses it
//!
//! With the feature `fake` there is a cluster in memory, `stock_client::fake::Fake`: the real stock
//! rules, faults on demand, and a clock that the test moves.
//!
//! Deliberately absent: a cache of stock, and any call that is retried without an id.

mod batch;
mod builder;
mod call;
mod client;
mod cluster;
mod connector;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod link;
mod options;
mod pool;
mod request_id;
mod reserve_stream;
mod telemetry;
pub mod way;

pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{Error, FieldViolation, StatusError};
pub use link::CONNECT_TIMEOUT;
pub use options::{
    ATTEMPT_TIMEOUT, BULK_ATTEMPT_TIMEOUT, CALL_TIMEOUT, CALLS_AT_ONCE, CallOptions, START_TIMEOUT,
    WhenFull,
};
pub use prost;
pub use prost_types;
pub use request_id::new_request_id;
pub use reserve_stream::{ReserveStream, UNANSWERED_MAX};
pub use stock_proto::stock::{admin, v1};
pub use tonic;
pub use way::{Topology, home_shard, shard_of_reservation, shard_of_sku};

/// A span of time as messages have it: how long a hold lasts. What is longer than messages can say
/// is as long as they can.
///
/// ```
/// use std::time::Duration;
/// use stock_client::v1::ReserveRequest;
///
/// let request = ReserveRequest {
///     ttl: Some(stock_client::lasting(Duration::from_secs(900))),
///     ..ReserveRequest::default()
/// };
/// # assert_eq!(request.ttl.unwrap().seconds, 900);
/// ```
pub fn lasting(time: std::time::Duration) -> prost_types::Duration {
    const LONGEST: prost_types::Duration = prost_types::Duration {
        seconds: 315_576_000_000,
        nanos: 0,
    };
    prost_types::Duration::try_from(time).unwrap_or(LONGEST)
}

/// The time now, by this machine's clock: the `occurred_at` of a movement that has just happened.
pub fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}
