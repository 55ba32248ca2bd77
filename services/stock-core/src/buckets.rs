//! A map in a fixed number of parts, each of which can be shared with somebody who writes it down.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::ids::Secret;

/// What is kept in [`Buckets`].
pub(crate) trait Key: Ord + Clone {
    /// Which of so many buckets it belongs to, by the cluster's secret: part of the replicated
    /// rules, never to change.
    fn bucket(&self, secret: Secret, buckets: usize) -> usize;
}

/// What a bucket is: a map in the order of its keys.
pub(crate) trait Table<K, V>: Clone + Default {
    /// Of these, which are in their order.
    fn from_sorted(entries: Vec<(K, V)>) -> Self;
    fn get(&self, key: &K) -> Option<&V>;
    fn get_mut(&mut self, key: &K) -> Option<&mut V>;
    fn insert(&mut self, key: K, value: V);
    fn remove(&mut self, key: &K);
    fn len(&self) -> usize;
    fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: 'a,
        V: 'a;
    fn values_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut V>
    where
        K: 'a,
        V: 'a;
}

impl<K: Ord + Clone, V: Clone> Table<K, V> for BTreeMap<K, V> {
    fn from_sorted(entries: Vec<(K, V)>) -> Self {
        entries.into_iter().collect()
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.get(key)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        self.insert(key, value);
    }

    fn remove(&mut self, key: &K) {
        self.remove(key);
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: 'a,
        V: 'a,
    {
        self.iter()
    }

    fn values_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut V>
    where
        K: 'a,
        V: 'a,
    {
        self.values_mut()
    }
}

/// A map that can be frozen at the price of one count for each bucket. A bucket that is about to
/// change while somebody else still has it is copied first; otherwise a change costs an atomic
/// check.
#[derive(Debug, Clone)]
pub(crate) struct Buckets<K, V, M = BTreeMap<K, V>> {
    maps: Box<[Arc<M>]>,
    secret: Secret,
    of: PhantomData<(K, V)>,
}

impl<K: Key, V, M: Table<K, V>> Buckets<K, V, M> {
    pub(crate) fn new(secret: Secret, buckets: usize) -> Self {
        // One empty map for all: each is made when it gets something.
        let empty = Arc::new(M::default());
        Self {
            maps: vec![empty; buckets].into(),
            secret,
            of: PhantomData,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.maps.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.bucket_of(key).get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.of(key).get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.of(&key).insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.of(key).remove(key);
    }

    /// The bucket of a key.
    pub(crate) fn bucket_of(&self, key: &K) -> &M {
        &self.maps[key.bucket(self.secret, self.maps.len())]
    }

    /// A bucket by what its keys say of so many.
    pub(crate) fn by(&self, number: impl FnOnce(Secret, usize) -> usize) -> &M {
        &self.maps[number(self.secret, self.maps.len())]
    }

    /// The bucket of a key, to be changed.
    pub(crate) fn of(&mut self, key: &K) -> &mut M {
        Arc::make_mut(&mut self.maps[key.bucket(self.secret, self.maps.len())])
    }

    /// Shares every bucket as it is now.
    pub(crate) fn share(&self) -> impl Iterator<Item = Arc<M>> {
        self.maps.iter().map(Arc::clone)
    }

    /// Everything, bucket by bucket.
    pub(crate) fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: 'a,
        V: 'a,
    {
        self.maps.iter().flat_map(|map| map.iter())
    }

    /// Everything behind a key, or from the first on: bucket by bucket, in the order of their keys.
    pub(crate) fn behind<'a>(&'a self, key: Option<&K>) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: 'a,
        V: 'a,
    {
        let first = key.map_or(0, |key| key.bucket(self.secret, self.maps.len()));
        let key = key.cloned();
        let maps = self.maps[first..].iter().enumerate();
        maps.flat_map(move |(number, map)| {
            let behind = key.clone().filter(|_| number == 0);
            let entries = map.iter();
            entries.skip_while(move |(at, _)| behind.as_ref().is_some_and(|key| *at <= key))
        })
    }

    /// Every value, to be changed.
    pub(crate) fn values_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut V>
    where
        K: 'a,
        V: 'a,
    {
        // The empty ones may all be one, and need no copies.
        let maps = self.maps.iter_mut().filter(|map| map.len() > 0);
        maps.flat_map(|map| Arc::make_mut(map).values_mut())
    }

    /// Replaces a bucket; the keys are ones that belong there.
    pub(crate) fn set(&mut self, bucket: usize, map: M) {
        if map.len() > 0 {
            self.maps[bucket] = Arc::new(map);
        }
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::ids::{RequestId, ReservationId, Stamp};
    use crate::limits::BUCKETS;
    use crate::sku::Sku;

    /// How many of them the fullest bucket has.
    fn fullest(of: impl Iterator<Item = usize>) -> usize {
        let mut counts = vec![0; BUCKETS];
        for bucket in of {
            counts[bucket] += 1;
        }
        counts.into_iter().max().unwrap_or(0)
    }

    /// Five in a bucket is what chance makes of these; thirty in one it never does.
    const MANY: usize = 5 * BUCKETS;
    const FULL: usize = 30;

    #[test]
    fn ids_and_names_that_somebody_made_to_be_alike_lie_in_different_buckets() {
        for secret in [1, 0x5eed, 0x7777_0000_0000_1234, u64::MAX - 6] {
            check_spread(Secret(secret));
        }
    }

    fn check_spread(secret: Secret) {
        let ids = (0..MANY as u128).map(|number| {
            // Equal but for the middle: neither the first bytes nor the last tell them apart.
            let bits = 1_790_000_000_000 << 80 | 0x7 << 76 | number << 40 | 0xffff;
            RequestId::new(bits.to_be_bytes()).unwrap()
        });
        assert!(fullest(ids.map(|id| id.bucket(secret, BUCKETS))) < FULL);
        let holds = (0..MANY as u64).map(|ms| ReservationId::compose(Stamp(ms), 0, 7));
        assert!(fullest(holds.map(|id| id.bucket(secret, BUCKETS))) < FULL);
        let names = (0..).map(|number: u32| format!("SKU-{number}"));
        let alike = names.filter(|name| xxh3_64(name.as_bytes()).is_multiple_of(64));
        let skus = alike.take(MANY).map(|name| Sku::new(&name).unwrap());
        assert!(fullest(skus.map(|sku| sku.bucket(secret, BUCKETS))) < FULL);
    }

    #[test]
    fn another_secret_makes_other_buckets() {
        let id = |ms| ReservationId::compose(Stamp(ms), 0, 7);
        let same =
            |ms: &u64| id(*ms).bucket(Secret(1), BUCKETS) == id(*ms).bucket(Secret(2), BUCKETS);
        assert!((0..10_000).filter(same).count() < 30);
    }
}
