//! What reads see: the positions of every SKU as last applied, and the locations that exist.
//!
//! The loop publishes, the edge reads. All positions of a SKU that one log entry changed appear at
//! once, under one guard, so a reader never sees half of it. Guards never live across an await: every
//! function here copies out.

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use stock_core::{LedgerEntry, Location, Position, Shard, Sku, Stock};

/// A SKU with no more positions than this is shared with the shard, which copies it when it next changes:
/// that costs less than keeping it twice. One with more is kept here too, and changed in place: to copy
/// thousands of positions for a change of one would cost more than the change.
const SHARED_POSITIONS_MAX: usize = 32;

/// Parts of the map. Each grows by itself: with a few thousand SKUs it moves them in microseconds, where
/// one map of millions would stand still for a tenth of a second.
const PARTS: usize = 1_024;

/// The read view of one node.
#[derive(Debug)]
pub struct ReadView {
    skus: DashMap<Sku, Arc<[Position]>, BuildHasherDefault<SkuHasher>>,
    applied_index: Vec<AtomicU64>,
    locations: RwLock<BTreeSet<Location>>,
}

impl ReadView {
    /// An empty view of this many shards.
    pub fn new(shards: u32) -> Self {
        Self {
            skus: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), PARTS),
            applied_index: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            locations: RwLock::default(),
        }
    }

    /// Publishes the positions that the ledger names, as the shard has them now.
    pub fn publish(&self, shard: &Shard, ledger: &[LedgerEntry]) {
        match ledger {
            [] => {}
            [entry] => self.publish_sku(shard, &entry.sku, std::iter::once(&entry.location)),
            _ => {
                let mut changed: Vec<(&Sku, &Location)> = ledger
                    .iter()
                    .map(|entry| (&entry.sku, &entry.location))
                    .collect();
                changed.sort_unstable();
                changed.dedup();
                for of_sku in changed.chunk_by(|a, b| a.0 == b.0) {
                    let locations = of_sku.iter().map(|(_, location)| *location);
                    self.publish_sku(shard, of_sku[0].0, locations);
                }
            }
        }
    }

    /// Publishes a shard as it is, in place of all that was known of it.
    pub fn replace(&self, number: u32, shard: &Shard) {
        let shards = self.applied_index.len() as u32;
        if self.applied_index(number) > 0 {
            self.skus
                .retain(|sku, _| sku.shard(shards) != number || shard.stock(sku).is_some());
        }
        for (sku, stock) in shard.skus() {
            self.skus.insert(sku.clone(), published(stock));
        }
    }

    /// Forgets a shard: this node has no replica of it any more.
    pub fn forget(&self, number: u32) {
        // The index first: whoever reads meanwhile sees afterwards that it went back.
        self.reached(number, 0);
        let shards = self.applied_index.len() as u32;
        self.skus.retain(|sku, _| sku.shard(shards) != number);
    }

    fn publish_sku<'a>(
        &self,
        shard: &Shard,
        sku: &Sku,
        locations: impl Iterator<Item = &'a Location>,
    ) {
        let Some((sku, stock)) = shard.shared_sku(sku) else {
            return;
        };
        let Some(mut rows) = self.skus.get_mut(sku) else {
            self.skus.insert(sku.clone(), published(stock));
            return;
        };
        let current = stock.positions();
        if current.len() > SHARED_POSITIONS_MAX
            && rows.len() == current.len()
            && let Some(own) = Arc::get_mut(&mut rows)
        {
            for location in locations {
                if let Ok(at) = own.binary_search_by(|row| row.location.cmp(location)) {
                    own[at].clone_from(&current[at]);
                }
            }
        } else {
            *rows = published(stock);
        }
    }

    /// Says that everything up to this index is published.
    pub fn reached(&self, shard: u32, index: u64) {
        self.applied_index[shard as usize].store(index, Ordering::Release);
    }

    /// What is published. Asked before positions are read, it means "at least".
    pub fn applied_index(&self, shard: u32) -> u64 {
        self.applied_index[shard as usize].load(Ordering::Acquire)
    }

    /// Hands the positions of a SKU, by location, to `read`; nothing if it is unknown.
    pub fn with_positions<T>(&self, sku: &Sku, read: impl FnOnce(&[Position]) -> T) -> Option<T> {
        self.skus.get(sku).map(|rows| read(&rows))
    }

    /// How many SKUs there are.
    pub fn skus(&self) -> usize {
        self.skus.len()
    }

    /// Takes note of a location.
    pub fn add_location(&self, location: Location) {
        self.locations
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(location);
    }

    /// The first of these locations that this node does not know.
    pub fn first_unknown<'a>(
        &self,
        locations: impl IntoIterator<Item = &'a Location>,
    ) -> Option<usize> {
        let known = self
            .locations
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        locations
            .into_iter()
            .position(|location| !known.contains(location))
    }
}

fn published(stock: &Stock) -> Arc<[Position]> {
    match stock.positions() {
        many if many.len() > SHARED_POSITIONS_MAX => many.into(),
        _ => Arc::clone(stock.shared_positions()),
    }
}

/// Passes on the hash that a SKU has anyway.
#[derive(Debug, Default)]
struct SkuHasher(u64);

impl Hasher for SkuHasher {
    fn write(&mut self, bytes: &[u8]) {
        // A SKU writes one number only; whatever else comes is taken in, if not well.
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        // Of a node with few shards, all SKUs have the same high bits, by which the map tells keys apart.
        self.0 = hash.rotate_left(20);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
