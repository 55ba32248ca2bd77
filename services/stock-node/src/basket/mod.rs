//! Baskets over several shards, between the shards: whoever has one held, and what the leaders of
//! its shards see to afterwards. Decisions only: whoever carries the commands says what came of
//! them.
//!
//! ```text
//! coordinator   a reserve or an amendment, from the edge that was asked: home and parts at once
//! settling      what is not decided is found out, by whoever comes upon it
//! passing on    what home has decided is told to others, by whoever had it decide
//! finding out   what a shard's leader has settled
//! errands       what a shard's leader has to tell others, or to ask them
//! ```

mod coordinator;
mod errands;
mod finding_out;
mod others;
mod parts;
mod passing_on;
mod settling;

pub use self::coordinator::{Coordinator, Ended, Then};
pub use self::errands::{Errand, Errands};
pub use self::others::ANSWERED_WITHIN_MS;
pub use self::parts::{Said, ToShard};
pub use self::passing_on::passed_on;
pub use self::settling::Settling;
