//! A sorted map for keys that come almost in their order.

use std::collections::VecDeque;

use crate::buckets::Table;

/// Ids begin with the time at which they were made, so that a new one is nearly always the greatest: one look at
/// the last says that it is not there, and it is put behind it. The oldest are taken away in front. One that comes
/// out of order moves at most half of the others; bucket by bucket they are some hundreds.
#[derive(Debug, Clone)]
pub(crate) struct Timeline<K, V> {
    entries: VecDeque<(K, V)>,
}

impl<K: Ord, V> Timeline<K, V> {
    /// Where the key is, or where it belongs.
    fn find(&self, key: &K) -> Result<usize, usize> {
        match self.entries.back() {
            Some((last, _)) if last < key => Err(self.entries.len()),
            _ => self.entries.binary_search_by(|(other, _)| other.cmp(key)),
        }
    }
}

impl<K, V> Timeline<K, V> {
    /// The greatest key.
    pub(crate) fn last(&self) -> Option<&K> {
        self.entries.back().map(|(key, _)| key)
    }
}

impl<K, V> Default for Timeline<K, V> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> for Timeline<K, V> {
    fn from_sorted(entries: Vec<(K, V)>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        Self {
            entries: entries.into(),
        }
    }

    fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(key).ok()?;
        Some(&self.entries[at].1)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        Some(&mut self.entries[at].1)
    }

    fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.entries[at].1 = value,
            Err(at) if at == self.entries.len() => self.entries.push_back((key, value)),
            Err(at) => self.entries.insert(at, (key, value)),
        }
    }

    fn remove(&mut self, key: &K) {
        if let Ok(at) = self.find(key) {
            self.entries.remove(at);
        }
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn iter<'a>(&'a self) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: 'a,
        V: 'a,
    {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    fn values_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut V>
    where
        K: 'a,
        V: 'a,
    {
        self.entries.iter_mut().map(|(_, value)| value)
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
        let entries = model.clone().into_iter().collect();
        assert!(Timeline::from_sorted(entries).iter().eq(model.iter()));
    }
}
