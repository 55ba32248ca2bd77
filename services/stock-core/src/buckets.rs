//! A map in a fixed number of parts, each of which can be shared with somebody who writes it down.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What is kept in [`Buckets`].
pub(crate) trait Key: Ord + Clone {
    /// Which of so many buckets it belongs to: part of the replicated rules, never to change.
    fn bucket(&self, buckets: usize) -> usize;
}

/// One bucket.
pub(crate) type Bucket<K, V> = Arc<BTreeMap<K, V>>;

/// A map that can be frozen at the price of one count for each bucket. A bucket that is about to change
/// while somebody else still has it is copied first; otherwise a change costs an atomic check.
#[derive(Debug)]
pub(crate) struct Buckets<K, V> {
    maps: Box<[Bucket<K, V>]>,
}

impl<K: Key, V: Clone> Buckets<K, V> {
    pub(crate) fn new(buckets: usize) -> Self {
        // One empty map for all: each is made when it gets something.
        let empty = Arc::new(BTreeMap::new());
        Self {
            maps: vec![empty; buckets].into(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.maps[key.bucket(self.maps.len())].get(key)
    }

    pub(crate) fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        self.maps[key.bucket(self.maps.len())].get_key_value(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.of(key).get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.of(&key).insert(key, value)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.of(key).remove(key)
    }

    /// The bucket of a key.
    pub(crate) fn bucket_of(&self, key: &K) -> &BTreeMap<K, V> {
        &self.maps[key.bucket(self.maps.len())]
    }

    /// The bucket of a key, to be changed.
    pub(crate) fn of(&mut self, key: &K) -> &mut BTreeMap<K, V> {
        Arc::make_mut(&mut self.maps[key.bucket(self.maps.len())])
    }

    /// Shares every bucket as it is now.
    pub(crate) fn share(&self) -> impl Iterator<Item = Bucket<K, V>> {
        self.maps.iter().map(Arc::clone)
    }

    /// Everything, bucket by bucket.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.maps.iter().flat_map(|map| map.iter())
    }

    /// Every value, to be changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        // The empty ones may all be one, and need no copies.
        let maps = self.maps.iter_mut().filter(|map| !map.is_empty());
        maps.flat_map(|map| Arc::make_mut(map).values_mut())
    }

    /// Replaces a bucket; the keys are ones that belong there.
    pub(crate) fn set(&mut self, bucket: usize, map: BTreeMap<K, V>) {
        if !map.is_empty() {
            self.maps[bucket] = Arc::new(map);
        }
    }
}
