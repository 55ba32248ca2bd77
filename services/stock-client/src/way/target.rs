//! Where a call belongs. Every node applies the same rules, and sends on what came to the wrong
//! one.

use stock_proto::stock::v1::Line;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// A reservation id's twelve bits after the UUID's version hold the number of its shard.
const RESERVATION_SHARD_MASK: u128 = 0xfff;

/// Who answers a call without having to forward it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The leader of a stock shard.
    Shard(u32),
    /// The leader of the shard that SKUs of this hash live in.
    Hash(u64),
    /// The leader of the group that keeps locations.
    Meta,
    /// Every node as well as any other.
    Any,
}

/// The shard a SKU lives in: floor(h * `shard_count` / 2^64), where h is the XXH3 64-bit hash of
/// its bytes, seed 0. For the shards of a cluster that a client is of: `Client::shard_of`.
///
/// ```
/// // What has this hash in the lower half lives in the first of two shards.
/// assert_eq!(stock_client::shard_of_sku("abc", 2), 0);
/// assert_eq!(stock_client::shard_of_sku("abc", 256), 0x78);
/// ```
pub fn shard_of_sku(sku: &str, shard_count: u32) -> u32 {
    shard_of_hash(hash(sku), shard_count)
}

fn hash(sku: &str) -> u64 {
    xxh3_64(sku.as_bytes())
}

pub(super) fn shard_of_hash(hash: u64, shard_count: u32) -> u32 {
    // The product is below 2^96, and after the shift below `shard_count`.
    ((u128::from(hash) * u128::from(shard_count)) >> 64) as u32
}

/// The shard a basket's reservation lives in: the one of its smallest SKU, by bytes. `None` for an
/// empty basket. Programs that route reserves themselves send them to the leader of this one. The
/// other SKUs may live elsewhere.
///
/// ```
/// use stock_client::v1::Line;
/// use stock_client::{home_shard, shard_of_sku};
///
/// let basket = [Line::at("tea", "store-7", 1), Line::at("milk-1l", "store-7", 2)];
/// assert_eq!(home_shard(&basket, 64), Some(shard_of_sku("milk-1l", 64)));
/// ```
pub fn home_shard(lines: &[Line], shard_count: u32) -> Option<u32> {
    Some(shard_of_sku(smallest(lines)?, shard_count))
}

fn smallest(lines: &[Line]) -> Option<&str> {
    lines.iter().map(|line| line.sku.as_str()).min()
}

/// The shard that a reservation id carries. `None` if it is not a UUID; whether a cluster has such
/// a shard, and such a reservation, is not known from it.
///
/// ```
/// let id = "01a234c5-44e0-8004-a1a7-99e0347cec56";
/// assert_eq!(stock_client::shard_of_reservation(id), Some(4));
/// ```
pub fn shard_of_reservation(reservation_id: &str) -> Option<u32> {
    let id = Uuid::try_parse(reservation_id).ok()?.as_u128();
    Some(((id >> 64) & RESERVATION_SHARD_MASK) as u32)
}

/// The leader of a SKU's shard.
pub(crate) fn of_sku(sku: &str) -> Target {
    Target::Hash(hash(sku))
}

/// The leader of a basket's home shard. An empty basket may be refused by anyone.
pub(crate) fn of_basket(lines: &[Line]) -> Target {
    smallest(lines).map_or(Target::Any, of_sku)
}

/// The leader of a reservation's shard. An id that is no id may be refused by anyone.
pub(crate) fn of_reservation(reservation_id: &str) -> Target {
    shard_of_reservation(reservation_id).map_or(Target::Any, Target::Shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sku: &str) -> Line {
        Line::at(sku, "L", 1)
    }

    /// The hashes are the published test values of XXH3: 2d06800538d394c2 for nothing at all and
    /// 78af5f94892f3950 for `abc`.
    #[test]
    fn shards_follow_the_published_hash() {
        assert_eq!(shard_of_sku("", 8), 0x2d >> 5);
        assert_eq!(shard_of_sku("abc", 8), 0x78 >> 5);
        assert_eq!(shard_of_sku("abc", 256), 0x78);
        assert_eq!(shard_of_sku("abc", 4096), 0x78a);
        assert_eq!(shard_of_sku("abc", 1), 0);
        assert_eq!(shard_of_sku("abc", 0), 0);
    }

    #[test]
    fn every_shard_is_used_and_none_beyond() {
        for shard_count in [1, 2, 3, 7, 8, 64] {
            let mut seen = vec![false; shard_count as usize];
            for number in 0..20_000 {
                seen[shard_of_sku(&format!("sku-{number}"), shard_count) as usize] = true;
            }
            assert!(seen.iter().all(|shard| *shard), "{shard_count} shards");
        }
    }

    #[test]
    fn a_basket_lives_with_its_smallest_sku() {
        let basket = [line("pear"), line("apple"), line("Zucchini")];
        assert_eq!(home_shard(&basket, 64), Some(shard_of_sku("Zucchini", 64)));
        assert_eq!(home_shard(&[], 64), None);
    }

    #[test]
    fn a_reservation_id_carries_its_shard() {
        let id = |shard: u16| {
            let mut bytes = *Uuid::from_u128(0x0199_1234_5678_7000_8000_1234_5678_9abc).as_bytes();
            bytes[6] |= (shard >> 8) as u8;
            bytes[7] = shard as u8;
            Uuid::from_bytes(bytes).to_string()
        };
        for shard in [0, 1, 7, 255, 256, 4095] {
            assert_eq!(shard_of_reservation(&id(shard)), Some(u32::from(shard)));
        }
        assert_eq!(shard_of_reservation("not an id"), None);
    }
}
