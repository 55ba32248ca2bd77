//! The canonical bytes of state: the same state has the same bytes, on every machine and in every
//! process, and no two states have the same. They are kept on disk and sent to other nodes.
//!
//! A number takes 7 bits a byte, the low ones first, and no more bytes than it needs; a signed one is
//! folded first (0, -1, 1, -2, ...). Ids and keys are 16 bytes, fingerprints 8, texts and lists carry their
//! length, choices a tag, and what has an order is written in it. What follows from the rest is left out.
//!
//! ```text
//! head      version, kind of state, number of buckets, then as in `head.rs`
//! bucket    of a shard: stock, reservations, requests, documents
//!           of a catalog: locations, requests
//! ```

mod head;
mod reader;
mod writer;

pub(crate) use head::{CatalogHead, MemoryHead, OrderHead, ShardHead};
pub(crate) use reader::{Bucket, Read, Reader};
pub(crate) use writer::Writer;

/// The format that is written. Bytes of another version are refused until there is one to be read, too.
pub(crate) const VERSION: u8 = 4;

#[cfg(test)]
mod tests;
