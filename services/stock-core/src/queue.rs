//! A first-in, first-out queue that grows by blocks, so that no push ever moves what is already in
//! it. A `VecDeque` of four million items stalls its owner for tens of milliseconds when it doubles.

use std::collections::VecDeque;

const BLOCK: usize = 1_024;

#[derive(Debug)]
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
            _ => self.blocks.push_back(VecDeque::from([item])),
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
