//! A state as it was at one moment, to be written down while the state itself goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::apply::holds::Hold;
use crate::catalog::{CatalogOutcome, PutLocation};
use crate::codec::Writer;
use crate::documents::{Amiss, DocumentKey, RecordedLine};
use crate::ids::{Location, ReservationId};
use crate::memory::{Remembered, RequestKey};
use crate::parts::PartRecord;
use crate::sku::Sku;
use crate::stock::Stock;
use crate::timeline::Timeline;
use crate::verdict::Verdict;

/// A [`Shard`](crate::Shard) or a [`Catalog`](crate::Catalog) as it was when it was frozen.
///
/// Its canonical bytes are a head and so many buckets; a [`StateRestorer`](crate::StateRestorer)
/// makes the state from them again. It shares its buckets with the state: one that changes
/// meanwhile is copied there first, so a bucket should be taken as soon as it is written and the
/// rest dropped when it is not needed any more. It may be sent to another thread.
#[derive(Debug)]
pub struct FrozenState {
    head: Vec<u8>,
    slots: Box<[Slot]>,
}

impl FrozenState {
    /// The canonical bytes of what belongs to no bucket: how far the state is, its horizons and
    /// counts.
    pub fn head_bytes(&self) -> &[u8] {
        &self.head
    }

    /// How many buckets there are, numbered from 0. The same for every shard, and for every
    /// catalog.
    pub fn buckets(&self) -> usize {
        self.slots.len()
    }

    /// The canonical bytes of a bucket; none if it was taken, or does not exist.
    pub fn bucket_bytes(&self, bucket: usize) -> Option<Vec<u8>> {
        self.slots.get(bucket)?.bytes()
    }

    /// As [`Self::bucket_bytes`]; afterwards the bucket is no longer shared, and only its hash is
    /// kept.
    pub fn take_bucket(&mut self, bucket: usize) -> Option<Vec<u8>> {
        let slot = self.slots.get_mut(bucket)?;
        let bytes = slot.bytes()?;
        *slot = Slot::Taken {
            hash: xxh3_128(&bytes),
        };
        Some(bytes)
    }

    /// XXH3-128 of a bucket's canonical bytes, also when it was taken; none if it does not exist.
    pub fn bucket_hash(&self, bucket: usize) -> Option<u128> {
        self.slots.get(bucket).map(Slot::hash)
    }

    /// One hash over the head and every bucket's hash, each as 16 bytes, little-endian: equal on
    /// all replicas that have applied the same log. Writes whatever was not taken yet, so it takes
    /// as long as that.
    pub fn hash(&self) -> u128 {
        let mut bytes = self.head.clone();
        for slot in &self.slots {
            bytes.extend_from_slice(&slot.hash().to_le_bytes());
        }
        xxh3_128(&bytes)
    }

    pub(crate) fn new(head: Writer, slots: impl Iterator<Item = Slot>) -> Self {
        Self {
            head: head.into_bytes(),
            slots: slots.collect(),
        }
    }
}

/// A bucket, or what is left of it.
#[derive(Debug)]
pub(crate) enum Slot {
    Shard {
        stocks: Arc<BTreeMap<Sku, Stock>>,
        holds: Arc<Timeline<ReservationId, Hold>>,
        parts: Arc<Timeline<ReservationId, PartRecord>>,
        requests: Arc<Timeline<RequestKey, Remembered<Verdict>>>,
        documents: Arc<BTreeMap<DocumentKey, RecordedLine>>,
        amiss: Arc<BTreeMap<DocumentKey, Amiss>>,
    },
    Catalog {
        locations: Arc<BTreeMap<Location, PutLocation>>,
        requests: Arc<Timeline<RequestKey, Remembered<CatalogOutcome>>>,
    },
    Taken {
        hash: u128,
    },
}

impl Slot {
    fn bytes(&self) -> Option<Vec<u8>> {
        let mut writer = Writer::default();
        match self {
            Self::Shard {
                stocks,
                holds,
                parts,
                requests,
                documents,
                amiss,
            } => {
                writer.stocks(stocks);
                writer.holds(holds);
                writer.requests(requests, Writer::verdict);
                writer.documents(documents);
                writer.amiss(amiss);
                writer.parts(parts);
            }
            Self::Catalog {
                locations,
                requests,
            } => {
                writer.locations(locations);
                writer.requests(requests, Writer::catalog_outcome);
            }
            Self::Taken { .. } => return None,
        }
        Some(writer.into_bytes())
    }

    fn hash(&self) -> u128 {
        match self {
            Self::Taken { hash } => *hash,
            kept => kept.bytes().map_or(0, |bytes| xxh3_128(&bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_state_can_be_written_by_another_thread() {
        fn goes_anywhere<T: Send + 'static>() {}
        goes_anywhere::<FrozenState>();
    }
}
