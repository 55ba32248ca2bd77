//! What reads see: the positions of every SKU as last applied, and every location.
//!
//! The loop publishes, the edge reads. All positions of a SKU that one log entry changed appear at
//! once, under one guard, so a reader never sees half of it. Guards never live across an await:
//! every function here copies out.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use dashmap::DashMap;
use stock_core::{LedgerEntry, Location, Position, PutLocation, Shard, Sku, Stamp, Stock};

/// A SKU with no more positions than this is shared with the shard, which copies it when it next
/// changes: that costs less than keeping it twice. One with more is kept here too, and changed in
/// place: to copy thousands of positions for a change of one would cost more than the change.
const SHARED_POSITIONS_MAX: usize = 32;

/// Parts of the maps of all shards together. Each grows by itself: with a few thousand SKUs it
/// moves them in microseconds, where one map of millions would stand still for a tenth of a second.
const PARTS: usize = 1_024;

/// Parts of one shard's map at least, and of one that comes with a snapshot, which is of a large
/// shard as a rule.
const PARTS_MIN: usize = 8;
const PARTS_OF_SNAPSHOT: usize = 128;

/// The read view of one node.
#[derive(Debug)]
pub struct ReadView {
    shards: Vec<ShardView>,
    /// Shared with nobody: whoever reads a page copies pointers while it has the lock, and no more.
    locations: RwLock<BTreeMap<Location, Arc<PutLocation>>>,
    /// Of group 0, and cluster time there.
    catalog_index: AtomicU64,
    catalog_stamp_ms: AtomicU64,
}

/// One shard. Its map is exchanged as a whole where a snapshot comes or the replica goes: to look
/// through the positions of a node for those of a shard would keep the loop from everything else
/// for a quarter of a second, with ten million.
#[derive(Debug)]
struct ShardView {
    skus: RwLock<Skus>,
    applied_index: AtomicU64,
    /// Cluster time at that index.
    stamp_ms: AtomicU64,
}

type Skus = DashMap<Sku, Arc<[Position]>, BuildHasherDefault<SkuHasher>>;

/// A shard's positions as reads will see them, made beforehand: with a million SKUs it takes a
/// quarter of a second.
#[derive(Debug)]
pub struct Shown(Skus);

impl Shown {
    /// Of a shard as it is.
    pub fn of(shard: &Shard) -> Self {
        let skus = empty(PARTS_OF_SNAPSHOT);
        for (sku, stock) in shard.skus() {
            skus.insert(sku.clone(), published(stock));
        }
        Self(skus)
    }
}

fn empty(parts: usize) -> Skus {
    DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), parts)
}

impl ReadView {
    /// An empty view of this many shards.
    pub fn new(shards: u32) -> Self {
        let parts = (PARTS / shards.max(1) as usize).next_power_of_two();
        let shard = |_| ShardView {
            skus: RwLock::new(empty(parts.max(PARTS_MIN))),
            applied_index: AtomicU64::new(0),
            stamp_ms: AtomicU64::new(0),
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            locations: RwLock::default(),
            catalog_index: AtomicU64::new(0),
            catalog_stamp_ms: AtomicU64::new(0),
        }
    }

    /// Publishes the positions that the ledger names, as the shard has them now.
    pub fn publish(&self, shard: &Shard, ledger: &[LedgerEntry]) {
        let Some(first) = ledger.first() else {
            return;
        };
        let skus = self.shard_of(&first.sku);
        match ledger {
            [entry] => publish_sku(&skus, shard, &entry.sku, std::iter::once(&entry.location)),
            _ => {
                let mut changed: Vec<(&Sku, &Location)> = ledger
                    .iter()
                    .map(|entry| (&entry.sku, &entry.location))
                    .collect();
                changed.sort_unstable();
                changed.dedup();
                for of_sku in changed.chunk_by(|a, b| a.0 == b.0) {
                    let locations = of_sku.iter().map(|(_, location)| *location);
                    publish_sku(&skus, shard, of_sku[0].0, locations);
                }
            }
        }
    }

    /// Publishes a shard in place of all that was known of it, which is returned: to give it back
    /// takes long.
    pub fn replace(&self, number: u32, shown: Shown) -> Shown {
        let of_shard = &self.shards[number as usize];
        let mut skus = of_shard
            .skus
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Shown(std::mem::replace(&mut skus, shown.0))
    }

    /// Forgets a shard, and returns it: this node has no replica of it any more.
    pub fn forget(&self, number: u32) -> Shown {
        // The index first: whoever reads meanwhile sees afterwards that it went back.
        self.reached(number, 0, Stamp(0));
        self.replace(number, Shown(empty(PARTS_MIN)))
    }

    fn shard_of(&self, sku: &Sku) -> RwLockReadGuard<'_, Skus> {
        let number = sku.shard(self.shards.len() as u32);
        let of_shard = &self.shards[number as usize];
        of_shard.skus.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that everything up to this index is published, and what cluster time is there.
    pub fn reached(&self, shard: u32, index: u64, stamp: Stamp) {
        let shard = &self.shards[shard as usize];
        shard.stamp_ms.store(stamp.0, Ordering::Relaxed);
        shard.applied_index.store(index, Ordering::Release);
    }

    /// As [`Self::applied_index`], with cluster time there, or a bit later.
    pub fn reached_at(&self, shard: u32) -> (u64, Stamp) {
        let index = self.applied_index(shard);
        let stamp_ms = &self.shards[shard as usize].stamp_ms;
        (index, Stamp(stamp_ms.load(Ordering::Relaxed)))
    }

    /// What is published. Asked before positions are read, it means "at least".
    pub fn applied_index(&self, shard: u32) -> u64 {
        self.shards[shard as usize]
            .applied_index
            .load(Ordering::Acquire)
    }

    /// Hands the positions of a SKU, by location, to `read`; nothing if it is unknown.
    pub fn with_positions<T>(&self, sku: &Sku, read: impl FnOnce(&[Position]) -> T) -> Option<T> {
        self.shard_of(sku).get(sku).map(|rows| read(&rows))
    }

    /// How many SKUs there are.
    pub fn skus(&self) -> usize {
        let counted = self.shards.iter().map(|of_shard| {
            let skus = of_shard.skus.read();
            skus.unwrap_or_else(PoisonError::into_inner).len()
        });
        counted.sum()
    }

    /// Publishes the locations as they are after an index of group 0, in place of all that were
    /// known.
    pub fn replace_locations<'a>(
        &self,
        all: impl Iterator<Item = &'a PutLocation>,
        index: u64,
        stamp: Stamp,
    ) {
        let all = all.map(|put| (put.location.clone(), Arc::new(put.clone())));
        let all = all.collect();
        // The index first: whoever reads meanwhile sees afterwards that it went back.
        self.catalog_reached(0, Stamp(0));
        *self
            .locations
            .write()
            .unwrap_or_else(PoisonError::into_inner) = all;
        self.catalog_reached(index, stamp);
    }

    /// Takes note of a location, as it is now.
    pub fn put_location(&self, put: PutLocation) {
        self.locations
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(put.location.clone(), Arc::new(put));
    }

    /// Says that every location up to this index of group 0 is published.
    pub fn catalog_reached(&self, index: u64, stamp: Stamp) {
        self.catalog_stamp_ms.store(stamp.0, Ordering::Relaxed);
        self.catalog_index.store(index, Ordering::Release);
    }

    /// As [`Self::reached_at`], for locations.
    pub fn catalog_reached_at(&self) -> (u64, Stamp) {
        let index = self.catalog_index();
        (index, Stamp(self.catalog_stamp_ms.load(Ordering::Relaxed)))
    }

    /// As [`Self::applied_index`], for locations.
    pub fn catalog_index(&self) -> u64 {
        self.catalog_index.load(Ordering::Acquire)
    }

    /// The next locations in the order of their ids: those behind one, or the first, and so many at
    /// most.
    pub fn locations(&self, after: Option<&Location>, count: usize) -> Vec<Arc<PutLocation>> {
        let known = self
            .locations
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = known.range::<Location, _>((from, Bound::Unbounded));
        behind.take(count).map(|(_, put)| Arc::clone(put)).collect()
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
            .position(|location| !known.contains_key(location))
    }
}

fn publish_sku<'a>(
    skus: &Skus,
    shard: &Shard,
    sku: &Sku,
    locations: impl Iterator<Item = &'a Location>,
) {
    let Some((sku, stock)) = shard.shared_sku(sku) else {
        return;
    };
    let Some(mut rows) = skus.get_mut(sku) else {
        skus.insert(sku.clone(), published(stock));
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
        // Of a node with few shards, all SKUs have the same high bits, by which the map tells keys
        // apart.
        self.0 = hash.rotate_left(20);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
