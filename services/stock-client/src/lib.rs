//! The Rust client of stockd.
//!
//! ```
//! # use stock_client::fake::Fake;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), stock_client::Error> {
//! use std::collections::HashMap;
//! use stock_client::v1::{Line, ReserveRequest, reserve_response::Outcome};
//!
//! # let fake = Fake::new();
//! # fake.receive("milk-1l", "store-7", 3);
//! // `fake` is a cluster in memory. A shop has Client::connect("http://127.0.0.1:7401").await?
//! let client = fake.client()?;
//! // The id is made first...
//! let request = ReserveRequest {
//!     request_id: client.new_request_id(),
//!     order_reference: Some("A-1042".to_owned()),
//!     lines: vec![Line::at("milk-1l", "store-7", 2)],
//!     ..ReserveRequest::default()
//! };
//! // ...then stored, with all of the request: this stands for the shop's database...
//! let mut orders = HashMap::new();
//! orders.insert("A-1042", request.clone());
//! // ...and then comes the call.
//! match client.reserve(request).await {
//!     Ok(answer) => match answer.outcome {
//!         Some(Outcome::Reservation(held)) => println!("held: {}", held.reservation_id),
//!         Some(Outcome::Shortage(short)) => println!("{} lines are short", short.lines.len()),
//!         None => {}
//!     },
//!     // Not settled: send the stored request again, soon or after a restart.
//!     Err(error) if error.outcome_unknown() || error.is_retryable() => println!("{error}"),
//!     Err(error) => return Err(error),
//! }
//!
//! // Whatever ended the program, what it stored can be sent again, and is done once.
//! client.reserve(orders["A-1042"].clone()).await?;
//! assert_eq!(fake.available("milk-1l", "store-7"), Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! # The life of a hold
//!
//! - [`reserve`](Client::reserve) makes it: `Held`, its units set aside for `ttl`, 15 minutes
//!   unless given.
//! - [`amend`](Client::amend) gives a `Held` one other lines.
//! - [`extend`](Client::extend) lets a `Held` one, or a pickup deadline, end later.
//! - [`confirm`](Client::confirm) makes a `Held` one `Confirmed`: paid, its units set aside for
//!   good, or for `pickup_within`.
//! - [`fulfill`](Client::fulfill) hands units of a `Confirmed` one over, which leave the stock:
//!   `Fulfilled` once none is open.
//! - [`release`](Client::release) gives units of a `Held` or `Confirmed` one back: `Released` once
//!   none is open.
//! - Nobody does anything, and its time is over: `Expired`, its units can be sold again.
//!
//! `ttl` and `pickup_within` are 1 s to 7 days ([`lasting`]), by the cluster's clock. A call that
//! finds a reservation in another state is refused with `WrongState`, and the metadata of its error
//! says in which. One that has ended is found for a day, and after that is `UnknownReservation`; a
//! shard with very many of them drops the oldest earlier.
//!
//! # What to store, and when
//!
//! - **Before a reserve:** all of its request, as above. A request is the same by its id and its
//!   content: an id that comes again with other content is refused with `RequestReused`. Sent again
//!   as it was it gives the first answer, whatever has happened since: a shortage stays one, and a
//!   hold is told as it was made, though it may have ended. [`get_reservation`] tells what it is
//!   now. So a new try after a shortage or a refusal, or with another basket, is a new request with
//!   a new id.
//! - **After it:** the reservation's id. Who has lost it finds it by the order reference
//!   ([`list_reservations`]).
//! - **Before a confirm:** that it is paid. Its id may be stored as well. Without it the confirm is
//!   simply made again: where the first one was done, the second is refused with `WrongState`, and
//!   the state is `CONFIRMED`.
//!
//! Ids are remembered for ten minutes; a shard that takes very many requests forgets them earlier,
//! after a minute at the earliest. One that is forgotten is refused with `RequestTooOld`, never
//! done a second time: what became of it is then to be looked up.
//!
//! [`get_reservation`]: Client::get_reservation
//! [`list_reservations`]: Client::list_reservations
//!
//! # When a call fails
//!
//! Too little stock is an answer, not an error. Of an [`Error`] three questions are to be asked, in
//! this order:
//!
//! 1. May it be done ([`Error::outcome_unknown`])? Then the same request is sent again, with the
//!    same id, until it is answered.
//! 2. May it succeed later ([`Error::is_retryable`])? Likewise, after a pause: the client has tried
//!    until the call's timeout.
//! 3. Else it is refused, and the [`reason`](Error::reason) says why. Sent again as it is it would
//!    be refused again: it is mended, and sent with a new id.
//!
//! Who must be sure may send the same request again whatever the error is: it is never done twice.
//!
//! The client itself repeats a call that met a lost connection, silence, or a refusal with the code
//! `UNAVAILABLE` or `RESOURCE_EXHAUSTED`, until the call's timeout. So a shard that is full
//! (`DiskFull`, `MemoryFull`, `TooManyReservations`, `RequestMemoryFull`) shows as an
//! [`Error::Timeout`] whose [`reason`](Error::reason) says so, and not as an [`Error::Status`].
//!
//! # Timeouts
//!
//! A call takes [`CALL_TIMEOUT`] at most, its repeats and their pauses included, or what
//! [`ClientBuilder::call_timeout`] and, for single calls, [`CallOptions::timeout`] say. Nodes are
//! told, so that none works for a caller who has gone. A change needs some milliseconds: give it
//! 100 ms or more, and a second where it is to outlast an election. [`Error::Timeout`] of a change
//! does not mean that nothing was done. It comes before the timeout where the pause that a node
//! asked for would last longer.
//!
//! # Reading what was written
//!
//! A read asks any node, which may lack what another one has answered a moment ago. Every answer
//! has a [header](v1::ResponseHeader) that says how far its shards had come; a read that is given
//! it ([`ReadOptions::at_least`](v1::ReadOptions::at_least)) waits for that, on whichever node. Who
//! has no header, as after a lost answer, asks for
//! [`ReadOptions::linearizable`](v1::ReadOptions::linearizable), which sees what anybody has been
//! answered. Headers of several calls are made one by `header.join(other)`, and a header is kept
//! between two requests of a browser as `header.to_text()`. [`Client::get_availability`] has an
//! example.
//!
//! # Baskets of several lines
//!
//! A reserve holds up to 256 lines, each of one SKU at one location, all or nothing; lines of the
//! same SKU and location count together. SKUs and locations may differ, and may live in any number
//! of shards: it is one reservation. One over several shards fails with `BasketNotHeld` where a
//! shard could not be asked in time: nothing is held then, and it is to be repeated with a new
//! request id.
//!
//! [`home_shard`] is for programs that route calls themselves: the shard whose leader is best asked
//! for a reserve.
//!
//! # Threads and runtimes
//!
//! A [`Client`] is `Send` and `Sync`, its methods take `&self`, and clones share everything: make
//! one for the program and clone it into tasks. Opening one and calling it needs a tokio runtime
//! with time and IO; without one, they panic. A client takes part in the runtime that it is used
//! on, and outlives it: on another one it connects anew. Any call may be dropped at any moment, as
//! by `tokio::time::timeout` or `select!`: what became of it is then unknown, and repeated with its
//! request id it is done once.
//!
//! # What a client does beyond the generated stubs
//!
//! - **Routing.** It learns the topology from any node and sends each call to the leader that
//!   answers it. Every node forwards, so an outdated route costs a hop and never a wrong answer.
//! - **Idempotency.** A mutation without a request id gets a UUIDv7 before its first attempt, and
//!   every retry repeats that id. Movements are known by their source, document, line, SKU
//!   and location instead, and say when they happened ([`now`]).
//! - **Repeating.** Where a call has no answer in the end, the error tells the ids of its requests
//!   ([`Error::request_ids`]): made again with them, while they are remembered, it is done once.
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
//!
//! Deliberately absent: a cache of stock, and any call that is retried without an id.
//!
//! # What a program sees of it
//!
//! Spans of [`tracing`](https://docs.rs/tracing) at DEBUG: `call` (`method`, `outcome`) and,
//! inside it, `attempt` (`endpoint`, `node`, `outcome`); a node that is lost is told at INFO.
//! Metrics of the [`metrics`](https://docs.rs/metrics) crate, which a program sees once it has
//! installed a recorder:
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
//! Calls inside a [`ReserveStream`] are not counted one by one; a batch counts once for each leader
//! that it goes to, and a list once for each page.
//!
//! ```
//! # use stock_client::{fake::Fake, v1::{Line, ReserveRequest}};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let fake = Fake::new();
//! # fake.receive("milk-1l", "store-7", 3);
//! # let lines = vec![Line::at("milk-1l", "store-7", 2)];
//! # let request = ReserveRequest { lines, ..ReserveRequest::default() };
//! let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
//! # let client = fake.client()?;
//! client.reserve(request).await?;
//! let counted = r#"stockd_client_calls_total{method="Reserve",outcome="ok"} 1"#;
//! assert!(metrics.render().contains(counted));
//! # Ok(())
//! # }
//! ```
//!
//! # Tests of a program that uses it
//!
//! With the feature `fake` there is a cluster in memory, `stock_client::fake::Fake`: the real stock
//! rules, faults on demand, and a clock that the test moves. Switched on in `[dev-dependencies]` it
//! is no part of what is shipped.
//!
//! # Examples
//!
//! Examples stand at what is called, run against such a cluster, and assert what they show; only
//! what one in memory does not have, as operators' calls and addresses of nodes, is not run.
//! Accessors, constants and variants have none: their one sentence says all. The messages of
//! [`v1`] and [`admin`] say units and bounds at each field, and [`way`] is for tests that play a
//! network, which are its examples.

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
#[doc(inline)]
pub use stock_proto::stock::{admin, v1};
pub use tonic;
pub use tonic_types;
pub use way::{Topology, home_shard, shard_of_reservation, shard_of_sku};

/// A span of time as messages have it: how long a hold lasts. What is longer than messages can say
/// is as long as they can. Whether it is too long or too short for a hold (1 s to 7 days), the node
/// says (`FieldInvalid`).
///
/// ```
/// use std::time::Duration;
/// use stock_client::v1::ReserveRequest;
///
/// let request = ReserveRequest {
///     ttl: Some(stock_client::lasting(Duration::from_millis(900_500))),
///     ..ReserveRequest::default()
/// };
/// let ttl = request.ttl.unwrap();
/// assert_eq!((ttl.seconds, ttl.nanos), (900, 500_000_000));
/// ```
pub fn lasting(time: std::time::Duration) -> prost_types::Duration {
    const LONGEST: prost_types::Duration = prost_types::Duration {
        seconds: 315_576_000_000,
        nanos: 0,
    };
    prost_types::Duration::try_from(time).unwrap_or(LONGEST)
}

/// The time now, by this machine's clock: the `occurred_at` of a movement that has just happened.
/// It is stored with the movement: a line that is sent again with another time is refused
/// (`DocumentReused`).
///
/// ```
/// use stock_client::v1::MovementLine;
///
/// let line = MovementLine {
///     line: "1".to_owned(),
///     sku: "milk-1l".to_owned(),
///     location: "store-7".to_owned(),
///     quantity: 1,
///     occurred_at: Some(stock_client::now()),
/// };
/// assert!(line.occurred_at.unwrap().seconds > 1_700_000_000);
/// ```
pub fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}
