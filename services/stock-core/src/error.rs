//! Why bytes are no state.

use std::fmt;

use thiserror::Error;

use crate::ids::{IdentifierError, Location, RequestIdError, ReservationId, ReservationIdError};
use crate::sku::Sku;

/// Why a state cannot be brought back. Nothing of it may be used then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A part cannot be read.
    #[error("{part}, byte {at}: {flaw}")]
    Unreadable {
        /// Which part.
        part: Part,
        /// How far it was read, in bytes from 0.
        at: usize,
        /// What is wrong.
        flaw: Flaw,
    },
    /// The state has fewer buckets.
    #[error("there is no bucket {bucket}")]
    NoSuchBucket {
        /// The bucket's number.
        bucket: usize,
    },
    /// The bucket was given before.
    #[error("bucket {bucket} comes twice")]
    BucketTwice {
        /// The bucket's number.
        bucket: usize,
    },
    /// The bucket was never given.
    #[error("bucket {bucket} is missing")]
    BucketMissing {
        /// The bucket's number.
        bucket: usize,
    },
    /// The head says another number than the buckets hold.
    #[error("the head counts {head} {what}, the buckets hold {buckets}")]
    CountDiffers {
        /// Of what.
        what: &'static str,
        /// How many by the head.
        head: u64,
        /// How many there are.
        buckets: u64,
    },
    /// An open reservation holds units of a position that does not exist.
    #[error("{reservation} holds {sku} at {location}, which does not exist")]
    PositionMissing {
        /// Which reservation.
        reservation: ReservationId,
        /// Of this SKU.
        sku: Sku,
        /// There.
        location: Location,
    },
    /// A position's reserved counter is not the sum of what is held there.
    #[error("reserved and held units of {sku} at {location} differ by {by} or more")]
    ReservedDiffers {
        /// Of this SKU.
        sku: Sku,
        /// There.
        location: Location,
        /// By so many of the SKU's base units at least.
        by: i64,
    },
    /// Records cannot stand in one order: a sequence number comes twice, is not below the next one,
    /// or goes against the stamps.
    #[error("sequence number {sequence} of the {what} is out of order")]
    OrderBroken {
        /// Of what.
        what: &'static str,
        /// The first number that does not fit.
        sequence: u64,
    },
}

/// A part of a written state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What belongs to no bucket.
    Head,
    /// The bucket of this number.
    Bucket(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::Bucket(number) => write!(f, "bucket {number}"),
        }
    }
}

/// What is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Flaw {
    /// It ends before it should.
    #[error("the bytes end too soon")]
    Cut,
    /// It goes on after its end.
    #[error("{bytes} bytes too many")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// It was written by another version.
    #[error("version {version} is not known")]
    UnknownVersion {
        /// The version.
        version: u8,
    },
    /// It was written with another number of buckets.
    #[error("has {found} buckets instead of {buckets}")]
    OtherBuckets {
        /// What it says.
        found: u64,
        /// What it should say.
        buckets: usize,
    },
    /// A choice that does not exist.
    #[error("{tag} is no {what}")]
    UnknownTag {
        /// Among what.
        what: &'static str,
        /// The tag found.
        tag: u8,
    },
    /// A number has more bytes than it needs, or than a number can have.
    #[error("a number is not written as numbers are")]
    BadNumber,
    /// A number is larger than it can be.
    #[error("a {what} cannot be {value}")]
    NumberOutOfRange {
        /// What it is.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A list has more items than bytes are left for.
    #[error("no room for {count} items")]
    CountTooLarge {
        /// How many it says.
        count: u64,
    },
    /// A counter or a quantity is out of its range.
    #[error("{what} cannot be {value}")]
    QuantityOutOfRange {
        /// Which one.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// A text is no identifier.
    #[error("a name {0}")]
    Identifier(#[from] IdentifierError),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// An id is not that of a request.
    #[error("a request id {0}")]
    RequestId(#[from] RequestIdError),
    /// An id is not that of a reservation.
    #[error("an id {0}")]
    ReservationId(#[from] ReservationIdError),
    /// Something stands behind what it should stand before, or twice.
    #[error("{what} are out of order")]
    OutOfOrder {
        /// What.
        what: &'static str,
    },
    /// Something belongs to another bucket.
    #[error("{what} belong to another bucket")]
    WrongBucket {
        /// What.
        what: &'static str,
    },
    /// Something is said of a record that is not there.
    #[error("{what} of a line that was never recorded")]
    WithoutRecord {
        /// What is said.
        what: &'static str,
    },
    /// A reservation is not as any can be.
    #[error("{reservation} {why}")]
    Unsound {
        /// Which.
        reservation: ReservationId,
        /// In what way.
        why: &'static str,
    },
    /// Something was stamped later than the head.
    #[error("the stamp {stamp} is later than the state")]
    StampTooLate {
        /// The stamp, in milliseconds since the Unix epoch.
        stamp: u64,
    },
}
