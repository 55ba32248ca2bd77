//! What reads see: the positions of every SKU as last applied, and the locations that exist.
//!
//! The loop publishes, the edge reads. All positions of a SKU that one log entry changed appear at
//! once, under one guard, so a reader never sees half of it. Guards never live across an await: every
//! function here copies out.

use std::collections::BTreeSet;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use dashmap::DashMap;
use stock_core::{LedgerEntry, Location, Position, Shard, Sku};
use xxhash_rust::xxh3::Xxh3Default;

/// The read view of one node.
#[derive(Debug)]
pub struct ReadView {
    skus: DashMap<Box<str>, Vec<Position>, BuildHasherDefault<Xxh3Default>>,
    applied_index: Vec<AtomicU64>,
    locations: RwLock<BTreeSet<Location>>,
}

impl ReadView {
    /// An empty view of this many shards.
    pub fn new(shards: u32) -> Self {
        Self {
            skus: DashMap::default(),
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
        self.skus.retain(|name, _| {
            Sku::new(name)
                .is_ok_and(|sku| sku.shard(shards) != number || shard.stock(&sku).is_some())
        });
        for (sku, stock) in shard.skus() {
            self.skus
                .insert(sku.as_str().into(), stock.positions().to_vec());
        }
    }

    /// Forgets a shard: this node has no replica of it any more.
    pub fn forget(&self, number: u32) {
        let shards = self.applied_index.len() as u32;
        self.skus
            .retain(|name, _| Sku::new(name).is_ok_and(|sku| sku.shard(shards) != number));
        self.reached(number, 0);
    }

    fn publish_sku<'a>(
        &self,
        shard: &Shard,
        sku: &Sku,
        locations: impl Iterator<Item = &'a Location>,
    ) {
        let Some(stock) = shard.stock(sku) else {
            return;
        };
        let Some(mut rows) = self.skus.get_mut(sku.as_str()) else {
            self.skus
                .insert(sku.as_str().into(), stock.positions().to_vec());
            return;
        };
        if rows.len() != stock.positions().len() {
            rows.clear();
            rows.extend_from_slice(stock.positions());
            return;
        }
        for location in locations {
            if let Ok(at) = rows.binary_search_by(|row| row.location.cmp(location)) {
                rows[at].clone_from(&stock.positions()[at]);
            }
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
    pub fn with_positions<T>(&self, sku: &str, read: impl FnOnce(&[Position]) -> T) -> Option<T> {
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
