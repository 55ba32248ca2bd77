//! What stock is as bytes: states as they are written down and sent, commands as they stand in the
//! log, outcomes as one node passes them on. What a new field or kind of any of them needs is in
//! this folder.
//!
//! ```text
//! bytes.rs               numbers, texts and ids
//! writer.rs, reader.rs   reservations, refusals and all else that a state is made of
//! head.rs                what belongs to no bucket
//! command.rs             commands
//! basket.rs              what baskets over several shards need of all of these
//! outcome.rs             outcomes
//! ```
//!
//! **States** are canonical: the same state has the same bytes, on every machine and in every
//! process, and no two states have the same. What has an order is written in it, and what follows
//! from the rest is left out.
//!
//! ```text
//! head      version, kind of state, number of buckets, then as in `head.rs`
//! bucket    of a shard: stock, reservations, requests, documents, discrepancies, and parts of
//!           reservations if there are any
//!           of a catalog: locations, requests
//! ```
//!
//! Numbers of kinds are kept on disk: none ever changes its meaning, and none is used again.

mod basket;
mod bytes;
mod command;
mod head;
mod outcome;
mod reader;
mod writer;

pub(crate) use bytes::Read;
pub use bytes::{Reader, Writer};
pub(crate) use head::{CatalogHead, MemoryHead, OrderHead, ShardHead};
pub(crate) use reader::Bucket;

/// The format of states that is written. Bytes of another version are refused until there is one to
/// be read, too.
pub(crate) const VERSION: u8 = 4;

#[cfg(test)]
mod tests;

/// Beside the number of a reservation's state: its order reference and its channel stand behind its
/// principal, the one that is not there as an empty text.
const HAS_LABELS: u8 = 0x80;

/// Beside it: how the reservation reaches over shards stands behind it.
const HAS_SPREAD: u8 = 0x20;
