//! In which order things are forgotten.

use std::collections::VecDeque;

use crate::ids::Stamp;

/// Keys in the order of their stamps, and among equal stamps in the order in which they came. Each
/// has a sequence number, which its record keeps: by it the order is made again from the records
/// alone.
#[derive(Debug, Clone)]
pub(crate) struct Order<K> {
    keys: Queue<(Stamp, K)>,
    next: u64,
}

/// A record's place in an [`Order`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Each record has another, and a later one a greater.
    pub(crate) sequence: u64,
    pub(crate) stamp: Stamp,
}

/// The records with these sequence numbers cannot stand in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disorder {
    pub(crate) sequence: u64,
}

impl<K> Order<K> {
    pub(crate) fn new() -> Self {
        Self {
            keys: Queue::new(),
            next: 0,
        }
    }

    /// The order of these records, when the next one shall be number `next`.
    pub(crate) fn restore(mut records: Vec<(Place, K)>, next: u64) -> Result<Self, Disorder> {
        records.sort_unstable_by_key(|(place, _)| *place);
        let mut order = Self::new();
        let mut latest = Stamp(0);
        for (Place { sequence, stamp }, key) in records {
            // `order.next` is the least that this one may have.
            if sequence < order.next || sequence >= next || stamp < latest {
                return Err(Disorder { sequence });
            }
            order.next = sequence + 1;
            latest = stamp;
            order.keys.push((stamp, key));
        }
        order.next = next;
        Ok(order)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The sequence number of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn oldest(&self) -> Option<&(Stamp, K)> {
        self.keys.front()
    }

    /// Stamps come in order.
    pub(crate) fn push(&mut self, stamp: Stamp, key: K) -> Place {
        let sequence = self.next;
        self.next += 1;
        self.keys.push((stamp, key));
        Place { sequence, stamp }
    }

    pub(crate) fn pop(&mut self) -> Option<K> {
        self.keys.pop().map(|(_, key)| key)
    }
}

const BLOCK: usize = 1_024;

/// A first-in, first-out queue that grows by blocks, so that no push ever moves what is already in
/// it. A `VecDeque` of four million items stalls its owner for tens of milliseconds when it
/// doubles.
#[derive(Debug, Clone)]
pub(crate) struct Queue<T> {
    blocks: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            blocks: VecDeque::new(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.blocks.front()?.front()
    }

    pub(crate) fn push(&mut self, item: T) {
        self.len += 1;
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK => block.push_back(item),
            // The first may remain the only one, and small; those behind it become full.
            None => self.blocks.push_back(VecDeque::from([item])),
            Some(_) => {
                let mut block = VecDeque::with_capacity(BLOCK);
                block.push_back(item);
                self.blocks.push_back(block);
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let block = self.blocks.front_mut()?;
        let item = block.pop_front();
        if block.is_empty() {
            self.blocks.pop_front();
        }
        self.len -= usize::from(item.is_some());
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_leave_in_the_order_they_came() {
        let mut queue = Queue::new();
        let (mut pushed, mut popped) = (0, 0);
        for round in 0..10 {
            for _ in 0..700 * (round % 3 + 1) {
                queue.push(pushed);
                pushed += 1;
            }
            for _ in 0..600 * ((round + 1) % 3 + 1) {
                if let Some(item) = queue.pop() {
                    assert_eq!(item, popped);
                    popped += 1;
                }
            }
            assert_eq!(queue.len(), pushed - popped);
            assert_eq!(queue.front().copied(), (popped < pushed).then_some(popped));
        }
    }
}
