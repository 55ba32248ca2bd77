//! A sorted map for keys that come almost in their order.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::buckets::Table;

/// Entries of a part: some cache lines, and little that lies empty in the last one.
const PART: usize = 7;

/// Some entries that follow each other. More than [`PART`] only where keys came out of order.
type Part<K, V> = SmallVec<[(K, V); PART]>;

/// Ids begin with the time at which they were made, so that a new one is nearly always the
/// greatest: one look at the last says that it is not there, and it is put behind it. The oldest
/// are taken away in front.
///
/// Nothing is moved as the map grows: full parts stay as they are. And a copy shares them until one
/// of both changes a part: while a state is written down, a command that is the first to change a
/// bucket copies a part of it and the list of the others.
#[derive(Debug, Clone)]
pub(crate) struct Timeline<K, V> {
    /// None of them empty, and all before the newest.
    older: VecDeque<Arc<Part<K, V>>>,
    /// Empty only if there is nothing at all.
    newest: Arc<Part<K, V>>,
    len: usize,
}

/// A part, counted from the oldest, and a place in it.
struct Place {
    part: usize,
    at: usize,
}

impl<K: Ord, V> Timeline<K, V> {
    /// Where the key is, or where it belongs.
    fn find(&self, key: &K) -> Result<Place, Place> {
        let behind_all = |part: &Part<K, V>| part.last().is_none_or(|(last, _)| last < key);
        let begins_before = |part: &Part<K, V>| part.first().is_some_and(|(first, _)| first <= key);
        let newest = self.older.len();
        if behind_all(&self.newest) {
            let at = self.newest.len();
            return Err(Place { part: newest, at });
        }
        let part = match begins_before(&self.newest) {
            true => newest,
            false => self.older.partition_point(|part| behind_all(part)),
        };
        let found = self
            .part(part)
            .binary_search_by(|(other, _)| other.cmp(key));
        let place = |at| Place { part, at };
        found.map(place).map_err(place)
    }
}

impl<K, V> Timeline<K, V> {
    /// The greatest key.
    pub(crate) fn last(&self) -> Option<&K> {
        self.newest.last().map(|(key, _)| key)
    }

    fn part(&self, number: usize) -> &Part<K, V> {
        self.older.get(number).unwrap_or(&self.newest)
    }

    fn parts(&self) -> impl Iterator<Item = &Part<K, V>> {
        self.older.iter().chain([&self.newest]).map(|part| &**part)
    }
}

impl<K: Clone, V: Clone> Timeline<K, V> {
    fn part_mut(&mut self, number: usize) -> &mut Part<K, V> {
        Arc::make_mut(self.older.get_mut(number).unwrap_or(&mut self.newest))
    }

    /// Begins a new part behind all others.
    fn push_part(&mut self, part: Part<K, V>) {
        let before = mem::replace(&mut self.newest, Arc::new(part));
        if !before.is_empty() {
            self.older.push_back(before);
        }
    }

    /// Makes two of a part that has become too large.
    fn split(&mut self, number: usize) {
        let lower = self.part_mut(number);
        let upper: Part<K, V> = lower.drain(PART..).collect();
        lower.shrink_to_fit();
        if number == self.older.len() {
            self.push_part(upper);
        } else {
            self.older.insert(number + 1, Arc::new(upper));
        }
    }

    /// Puts a part that has become small together with one beside it, if both fit into one: those
    /// that stay for long among many that do not would otherwise keep a part each.
    fn merge(&mut self, number: usize) {
        let fit = |first: usize| self.part(first).len() + self.part(first + 1).len() <= PART;
        let first = match number {
            1.. if fit(number - 1) => number - 1,
            _ if number < self.older.len() && fit(number) => number,
            _ => return,
        };
        let Some(mut part) = self.older.remove(first) else {
            return;
        };
        let behind = mem::take(self.part_mut(first));
        Arc::make_mut(&mut part).extend(behind);
        match self.older.get_mut(first) {
            Some(place) => *place = part,
            None => self.newest = part,
        }
    }
}

impl<K, V> Default for Timeline<K, V> {
    fn default() -> Self {
        Self {
            older: VecDeque::new(),
            newest: Arc::new(Part::new()),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> for Timeline<K, V> {
    fn from_sorted(entries: Vec<(K, V)>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        let mut timeline = Self {
            len: entries.len(),
            ..Self::default()
        };
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            timeline.push_part(entries.by_ref().take(PART).collect());
        }
        timeline
    }

    fn get(&self, key: &K) -> Option<&V> {
        let Place { part, at } = self.find(key).ok()?;
        Some(&self.part(part)[at].1)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let Place { part, at } = self.find(key).ok()?;
        Some(&mut self.part_mut(part)[at].1)
    }

    fn insert(&mut self, key: K, value: V) {
        let Place { part, at } = match self.find(&key) {
            Ok(Place { part, at }) => {
                self.part_mut(part)[at].1 = value;
                return;
            }
            Err(place) => place,
        };
        self.len += 1;
        let is_behind_all = part == self.older.len() && at == self.newest.len();
        if is_behind_all && at >= PART {
            self.push_part(smallvec::smallvec![(key, value)]);
            return;
        }
        let entries = self.part_mut(part);
        entries.insert(at, (key, value));
        if entries.len() >= 2 * PART {
            self.split(part);
        }
    }

    fn remove(&mut self, key: &K) {
        let Ok(Place { part, at }) = self.find(key) else {
            return;
        };
        self.len -= 1;
        let entries = self.part_mut(part);
        entries.remove(at);
        if entries.len() == PART {
            entries.shrink_to_fit();
        }
        match entries.len() {
            0 if part < self.older.len() => drop(self.older.remove(part)),
            0 => {
                if let Some(before) = self.older.pop_back() {
                    self.newest = before;
                }
            }
            // Not with more: its neighbours lie elsewhere in memory, and two that are half full
            // stay two.
            left if left <= PART / 2 => self.merge(part),
            _ => {}
        }
    }

    fn len(&self) -> usize {
        self.len
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: 'a,
        V: 'a,
    {
        let entries = self.parts().flat_map(|part| part.iter());
        entries.map(|(key, value)| (key, value))
    }

    fn values_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut V>
    where
        K: 'a,
        V: 'a,
    {
        let parts = self.older.iter_mut().chain([&mut self.newest]);
        let entries = parts.flat_map(|part| Arc::make_mut(part).iter_mut());
        entries.map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_a_sorted_map() {
        // Numbers in no order that anybody would see: Knuth's multiplier, the upper bits.
        let mut state = 7_u32;
        let mut below = |bound: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % bound
        };
        let mut timeline = Timeline::default();
        let mut model = BTreeMap::new();
        for step in 0..20_000_u32 {
            // Mostly in order, some late; the oldest leave in front, some from elsewhere.
            let key = step.saturating_sub(below(40) * u32::from(step % 3 == 0));
            timeline.insert(key, step);
            model.insert(key, step);
            if below(10) < 6 {
                let leaves = match below(10) < 8 {
                    true => model.keys().next().copied(),
                    false => Some(step.saturating_sub(below(60))),
                };
                if let Some(key) = leaves {
                    timeline.remove(&key);
                    model.remove(&key);
                }
            }
            let asked = step.saturating_sub(below(50));
            assert_eq!(timeline.get(&asked), model.get(&asked));
            if let (Some(one), Some(other)) = (timeline.get_mut(&asked), model.get_mut(&asked)) {
                *one += 1;
                *other += 1;
            }
        }
        assert_eq!(timeline.len(), model.len());
        assert!(timeline.iter().eq(model.iter()));
        check_parts(&timeline);
        let entries = model.clone().into_iter().collect();
        assert!(Timeline::from_sorted(entries).iter().eq(model.iter()));
    }

    /// What the parts promise of themselves.
    fn check_parts(timeline: &Timeline<u32, u32>) {
        let parts: Vec<usize> = timeline.parts().map(|part| part.len()).collect();
        assert!(
            parts.iter().all(|len| (1..2 * PART).contains(len)),
            "{parts:?}"
        );
        assert!(timeline.iter().is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut timeline = Timeline::default();
        (0..100).for_each(|key| timeline.insert(key * 2, key));
        let copy = timeline.clone();
        for key in 0..100 {
            match key % 3 {
                0 => timeline.remove(&(key * 2)),
                1 => timeline.insert(key * 2 + 1, key),
                _ => *timeline.get_mut(&(key * 2)).unwrap() = 0,
            }
        }
        timeline.values_mut().for_each(|value| *value += 1);
        check_parts(&timeline);
        let first: Vec<(u32, u32)> = (0..100).map(|key| (key * 2, key)).collect();
        let left: Vec<(u32, u32)> = copy.iter().map(|(key, value)| (*key, *value)).collect();
        assert_eq!(left, first);
    }

    #[test]
    fn keys_in_the_wrong_order_make_no_part_large() {
        let mut timeline = Timeline::default();
        (0..1_000).rev().for_each(|key| timeline.insert(key, key));
        check_parts(&timeline);
        assert!(timeline.iter().map(|(key, _)| *key).eq(0..1_000));
    }

    #[test]
    fn the_few_that_stay_for_long_share_parts() {
        let mut timeline = Timeline::default();
        (0..5_000).for_each(|key| timeline.insert(key, key));
        let leave = (0..5_000).filter(|key| key % 50 != 0);
        leave.for_each(|key| timeline.remove(&key));
        check_parts(&timeline);
        assert_eq!(timeline.len(), 100);
        let parts = timeline.parts().count();
        assert!(parts <= 2 * 100_usize.div_ceil(PART), "{parts} parts");
    }
}
