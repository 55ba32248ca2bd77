//! Stock keeping units: their names, and where their stock is.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::buckets::Key;
use crate::ids::{IdentifierError, Secret, check_text};

/// A stock keeping unit: 1-64 bytes of text without control characters or blanks at its ends,
/// compared byte by byte, with the hash that places it. Real catalogues have blanks, `/`, `#`, `+`
/// and every script.
///
/// The order is by hash, then by name: finding a SKU compares numbers and touches the name once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sku {
    hash: u64,
    name: Arc<str>,
}

impl Sku {
    /// Checks the name and computes its hash (XXH3, 64 bits, seed 0; never to change, since it says
    /// where the SKU's stock is).
    pub fn new(name: &str) -> Result<Self, IdentifierError> {
        check_text(name)?;
        if name.trim().len() < name.len() {
            return Err(IdentifierError::BlankAtEnd);
        }
        Ok(Self {
            hash: xxh3_64(name.as_bytes()),
            name: name.into(),
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The shard this SKU lives in, of `shard_count`: shards divide the range of hashes evenly.
    pub fn shard(&self, shard_count: u32) -> u32 {
        shard_of_hash(self.hash, shard_count)
    }

    /// The shard that a SKU of this name would live in, whether it may be one or not.
    pub fn shard_of_name(name: &[u8], shard_count: u32) -> u32 {
        shard_of_hash(xxh3_64(name), shard_count)
    }
}

fn shard_of_hash(hash: u64, shard_count: u32) -> u32 {
    ((u128::from(hash) * u128::from(shard_count)) >> 64) as u32
}

/// The hash that the name already has.
impl Hash for Sku {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Key for Sku {
    fn bucket(&self, secret: Secret, buckets: usize) -> usize {
        secret.bucket(self.name.as_bytes(), buckets)
    }
}

/// A SKU's hash and name, whoever owns them: finds a SKU by a text.
pub(crate) trait Named {
    fn parts(&self) -> (u64, &str);
}

impl Named for Sku {
    fn parts(&self) -> (u64, &str) {
        (self.hash, &self.name)
    }
}

/// A text that may be the name of a SKU that is there.
pub(crate) struct SkuName<'a> {
    hash: u64,
    name: &'a str,
}

impl<'a> SkuName<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self {
            hash: xxh3_64(name.as_bytes()),
            name,
        }
    }

    pub(crate) fn bucket(&self, secret: Secret, buckets: usize) -> usize {
        secret.bucket(self.name.as_bytes(), buckets)
    }
}

impl Named for SkuName<'_> {
    fn parts(&self) -> (u64, &str) {
        (self.hash, self.name)
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Named + '_ {}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl<'a> Borrow<dyn Named + 'a> for Sku {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl fmt::Debug for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_catalogues_have() {
        let longest = "x".repeat(64);
        for good in [
            "SKU-1_a.b:c",
            "milk 1 l",
            "A/B #7+8@home=x",
            "\u{43c}\u{43e}\u{43b}\u{43e}\u{43a}\u{43e}",
            "\u{5d7}\u{5dc}\u{5d1}",
            "e\u{301}clair",
            "\u{725b}\u{4e73}",
            longest.as_str(),
        ] {
            assert_eq!(
                Sku::new(good).map(|sku| sku.to_string()),
                Ok(good.to_owned())
            );
        }
        // As they are spelled, and not as they look.
        assert_ne!(Sku::new("\u{e9}"), Sku::new("e\u{301}"));
        let at = |at, character| IdentifierError::ControlCharacter { at, character };
        for (bad, error) in [
            ("", IdentifierError::Empty),
            (&"x".repeat(65), IdentifierError::TooLong { bytes: 65 }),
            (
                &"\u{43c}".repeat(33),
                IdentifierError::TooLong { bytes: 66 },
            ),
            (" milk", IdentifierError::BlankAtEnd),
            ("milk\u{a0}", IdentifierError::BlankAtEnd),
            ("\u{3000}", IdentifierError::BlankAtEnd),
            ("mi\tlk", at(2, '\t')),
            ("milk\0", at(4, '\0')),
            ("mi\u{85}lk", at(2, '\u{85}')),
            ("mi\u{2028}lk", at(2, '\u{2028}')),
            ("milk\n", at(4, '\n')),
        ] {
            assert_eq!(Sku::new(bad), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn every_shard_gets_its_share_of_skus() {
        let mut counts = [0; 8];
        for n in 0..8_000 {
            counts[Sku::new(&format!("SKU-{n:06}")).unwrap().shard(8) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_placement_of_a_sku_never_changes() {
        // Published: clients compute it too.
        assert_eq!(Sku::new("MUG-BLUE").unwrap().hash, xxh3_64(b"MUG-BLUE"));
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
    }
}
