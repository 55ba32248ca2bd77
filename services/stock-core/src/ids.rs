//! Identifiers, quantities and time, each checked once, where it is made.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::buckets::Key;
use crate::limits::{IDENTIFIER_BYTES_MAX, QUANTITY_MAX, WALL_AHEAD_MS_MAX};

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentifierError {
    /// It has no bytes.
    #[error("must not be empty")]
    Empty,
    /// It is longer than [`IDENTIFIER_BYTES_MAX`].
    #[error("has {bytes} bytes; at most {IDENTIFIER_BYTES_MAX} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It has a character outside the allowed set.
    #[error("has {character:?} at byte {at}; allowed are letters, digits and . _ : -")]
    BadCharacter {
        /// Where, in bytes from 0.
        at: usize,
        /// What stands there.
        character: char,
    },
    /// A text has a control character, or one that ends a line.
    #[error("has {character:?} at byte {at}; control characters are not allowed")]
    ControlCharacter {
        /// Where, in bytes from 0.
        at: usize,
        /// What stands there.
        character: char,
    },
    /// A name begins or ends with a blank, which nobody sees.
    #[error("begins or ends with a blank")]
    BlankAtEnd,
}

/// Checks a text of callers' own making: 1-64 bytes without control characters, or what breaks a
/// line.
pub(crate) fn check_text(text: &str) -> Result<(), IdentifierError> {
    if text.is_empty() {
        return Err(IdentifierError::Empty);
    }
    if text.len() > IDENTIFIER_BYTES_MAX {
        return Err(IdentifierError::TooLong { bytes: text.len() });
    }
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    let is_bad = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    match text.char_indices().find(|(_, c)| is_bad(*c)) {
        Some((at, character)) => Err(IdentifierError::ControlCharacter { at, character }),
        None => Ok(()),
    }
}

fn check_identifier(text: &str) -> Result<(), IdentifierError> {
    if text.is_empty() {
        return Err(IdentifierError::Empty);
    }
    if text.len() > IDENTIFIER_BYTES_MAX {
        return Err(IdentifierError::TooLong { bytes: text.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    match text.char_indices().find(|(_, c)| !allowed(*c)) {
        Some((at, character)) => Err(IdentifierError::BadCharacter { at, character }),
        None => Ok(()),
    }
}

/// 2^64 over the golden ratio: an odd number whose multiples lie far apart.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that only the nodes of a cluster know. Their states are cut into buckets by it, so that
/// nobody can make up names and ids that all come to lie in one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Secret(pub u64);

impl Secret {
    /// XXH3, 64 bits, with the secret as its seed: part of the replicated rules, never to change.
    pub(crate) fn bucket(self, name: &[u8], buckets: usize) -> usize {
        xxh3_64_with_seed(name, self.0) as usize % buckets
    }

    /// Of 16 bytes, for a fraction of what a hash of names of any length takes: both halves, each
    /// under its half of the secret, multiplied and folded, and stirred once more since ids of one
    /// maker differ in few bits. Never to change, either.
    pub(crate) fn bucket_of_id(self, id: &[u8; 16], buckets: usize) -> usize {
        let id = u128::from_be_bytes(*id);
        let (high, low) = (
            (id >> 64) as u64 ^ self.0,
            id as u64 ^ self.0.rotate_left(32),
        );
        let product = u128::from(high) * u128::from(low);
        let folded = (product >> 64) as u64 ^ product as u64;
        (folded.wrapping_mul(GOLDEN) >> 32) as usize % buckets
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            pub fn new(text: &str) -> Result<Self, IdentifierError> {
                check_identifier(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// A store or warehouse: 1-64 bytes of `[A-Za-z0-9._:-]`.
    Location
);
impl Key for Location {
    fn bucket(&self, secret: Secret, buckets: usize) -> usize {
        secret.bucket(self.0.as_bytes(), buckets)
    }
}

identifier!(
    /// Where a reservation comes from: 1-64 bytes of `[A-Za-z0-9._:-]`.
    Channel
);

identifier!(
    /// Who asked, as the edge authenticated it: 1-64 bytes of `[A-Za-z0-9._:-]`.
    Principal
);
identifier!(
    /// A delivery note, till receipt or the like, or a line's name inside one.
    Document
);
identifier!(
    /// Which till, warehouse or system reports a movement: two of them may name a document alike.
    Reporter
);

/// Cluster time in milliseconds since the Unix epoch, as the leader stamped it on an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// This many milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// This many milliseconds earlier.
    #[must_use]
    pub fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// What an entry says of time.
///
/// Cluster time may lag behind the clocks on the walls, as after an outage. Holds end by the one,
/// which nobody can set; what callers' clocks say is judged by whichever is later, so that a lag
/// refuses nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment {
    /// Cluster time.
    pub stamp: Stamp,
    /// The nodes' wall clocks, as the leader saw them when it stamped the entry.
    pub wall: Stamp,
}

impl Moment {
    /// What callers' clocks are judged by.
    pub fn latest(self) -> Stamp {
        let wall = self.wall.min(self.stamp.plus_ms(WALL_AHEAD_MS_MAX));
        self.stamp.max(wall)
    }

    /// What nothing is later than, whichever clock is right.
    pub fn earliest(self) -> Stamp {
        self.stamp.min(self.wall)
    }

    /// What an entry says of time, behind one that said `before`: time never goes back, and where
    /// it says nothing, no time has passed.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        match self == Self::default() {
            true => before,
            false => self.not_before(before.stamp),
        }
    }

    /// This moment, or the stamp before it, since time never goes back.
    #[must_use]
    pub fn not_before(self, stamp: Stamp) -> Self {
        Self {
            stamp: self.stamp.max(stamp),
            ..self
        }
    }
}

/// Cluster time and the clocks on the walls agree.
impl From<Stamp> for Moment {
    fn from(stamp: Stamp) -> Self {
        Self { stamp, wall: stamp }
    }
}

/// Where in a shard's history a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At {
    /// The entry's log index.
    pub index: u64,
    /// The command's place inside the entry, from 0.
    pub ordinal: u32,
    /// What the entry says of time.
    pub moment: Moment,
}

impl At {
    /// Cluster time.
    pub fn stamp(&self) -> Stamp {
        self.moment.stamp
    }
}

/// 1 to [`QUANTITY_MAX`] units of a SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i64);

/// Why a number is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("is {value}; it must be between 1 and {QUANTITY_MAX}")]
pub struct QuantityError {
    /// The number.
    pub value: i64,
}

impl Quantity {
    /// Checks the number.
    pub fn new(value: i64) -> Result<Self, QuantityError> {
        if (1..=QUANTITY_MAX).contains(&value) {
            Ok(Self(value))
        } else {
            Err(QuantityError { value })
        }
    }

    /// The number of units.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// A UUID of version 7 that the caller made: its first 48 bits are milliseconds since the Unix
/// epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId([u8; 16]);

/// Why 16 bytes are no request id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("is a UUID of version {version}; request ids are of version 7")]
pub struct RequestIdError {
    /// The version nibble found.
    pub version: u8,
}

impl RequestId {
    /// Checks the version, since the time inside the id decides how long it is remembered.
    pub fn new(bytes: [u8; 16]) -> Result<Self, RequestIdError> {
        match bytes[6] >> 4 {
            7 => Ok(Self(bytes)),
            version => Err(RequestIdError { version }),
        }
    }

    /// The bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// When the caller made it, by the caller's clock.
    pub fn made_at(&self) -> Stamp {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[..6]);
        Stamp(u64::from_be_bytes(ms))
    }

    pub(crate) fn bucket(&self, secret: Secret, buckets: usize) -> usize {
        secret.bucket_of_id(&self.0, buckets)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A UUID of version 8: 48 bits of milliseconds, 12 bits of shard, 62 random bits.
///
/// The edge makes it before the command is proposed, so that several shards can be told of one
/// reservation at once; the shard inside says where the reservation lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId([u8; 16]);

/// Why 16 bytes are no reservation id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("is not the id of a reservation, which is a UUID of version 8")]
pub struct ReservationIdError;

impl ReservationId {
    /// Shards that fit into an id.
    pub const SHARDS_MAX: u32 = 1 << 12;

    /// Before all of them.
    pub(crate) const FIRST: Self = Self([0; 16]);

    /// Lays out a new id. `random` should come from a good generator: ids made in the same
    /// millisecond for the same shard differ only in its lower 62 bits.
    pub fn compose(now: Stamp, shard: u32, random: u64) -> Self {
        let high = (now.0 << 16) | 0x8000 | u64::from(shard % Self::SHARDS_MAX);
        let low = (random & (u64::MAX >> 2)) | (0b10 << 62);
        Self(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
    }

    /// Checks the version.
    pub fn new(bytes: [u8; 16]) -> Result<Self, ReservationIdError> {
        if bytes[6] >> 4 == 8 {
            Ok(Self(bytes))
        } else {
            Err(ReservationIdError)
        }
    }

    /// The shard the reservation lives in.
    pub fn shard(&self) -> u32 {
        u32::from(self.0[6] & 0x0f) << 8 | u32::from(self.0[7])
    }

    /// The bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Key for ReservationId {
    fn bucket(&self, secret: Secret, buckets: usize) -> usize {
        secret.bucket_of_id(&self.0, buckets)
    }
}

impl fmt::Display for ReservationId {
    /// As every UUID: 8, 4, 4, 4 and 12 digits. By hand, since every answer has one: the formatting
    /// of numbers took half of the time an answer takes to be made.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Where the digits of each byte begin.
        const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
        const DIGITS: [[u8; 2]; 256] = digits();
        let mut text = [b'-'; 36];
        for (byte, at) in self.0.iter().zip(PLACES) {
            text[at..at + 2].copy_from_slice(&DIGITS[usize::from(*byte)]);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// The two hexadecimal digits of every byte.
const fn digits() -> [[u8; 2]; 256] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < all.len() {
        all[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    all
}

impl fmt::Debug for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// XXH3-64 of what a client sent: enough to tell a retry from another request that somebody sends
/// under the same id by mistake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 8]);

impl Fingerprint {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_64(bytes).to_be_bytes())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_checked() {
        let check = |text: &str, error: Option<IdentifierError>| {
            assert_eq!(Location::new(text).err(), error, "{text:?}");
        };
        check("SKU-1_a.b:c", None);
        check(&"x".repeat(64), None);
        check("", Some(IdentifierError::Empty));
        check(
            &"x".repeat(65),
            Some(IdentifierError::TooLong { bytes: 65 }),
        );
        check(
            "a b",
            Some(IdentifierError::BadCharacter {
                at: 1,
                character: ' ',
            }),
        );
        check(
            "ab\u{e9}",
            Some(IdentifierError::BadCharacter {
                at: 2,
                character: '\u{e9}',
            }),
        );
    }

    #[test]
    fn a_reservation_id_carries_its_shard() {
        for shard in [0, 1, 255, 256, 4095] {
            let id = ReservationId::compose(Stamp(1_790_000_000_000), shard, u64::MAX);
            assert_eq!(id.shard(), shard);
            assert_eq!(ReservationId::new(*id.as_bytes()), Ok(id));
            let text = id.to_string();
            assert_eq!((text.len(), &text[14..15]), (36, "8"), "{text}");
        }
        let id = ReservationId::new(
            *b"\x01\x23\x45\x67\x89\xab\x8d\xef\x01\x23\x45\x67\x89\xab\xcd\xef",
        );
        assert_eq!(
            id.unwrap().to_string(),
            "01234567-89ab-8def-0123-456789abcdef"
        );
    }
}
