//! How far the ledger has come, as the loop knows it.

use std::collections::VecDeque;

/// Ledger entries of all groups that may wait to be durable. Past this new commands are refused,
/// until the ledger has caught up: at full rate, several seconds' worth.
pub(super) const ENTRIES_WAITING_MAX: usize = 256 * 1024;

/// The ledger of one group.
#[derive(Debug)]
pub(super) struct LedgerProgress {
    /// Handed over: up to which index, and how many entries it was.
    sent: VecDeque<(u64, usize)>,
    waiting: usize,
    /// Durable up to here.
    durable_index: u64,
    /// Handed over up to here.
    sent_index: u64,
}

impl LedgerProgress {
    /// Of a ledger that needs nothing up to this index.
    pub(super) fn new(index: u64) -> Self {
        Self {
            sent: VecDeque::new(),
            waiting: 0,
            durable_index: index,
            sent_index: index,
        }
    }

    /// Takes note of entries that were handed over. Returns the index after which they begin.
    pub(super) fn sent(&mut self, index: u64, entries: usize) -> u64 {
        self.waiting += entries;
        self.sent.push_back((index, entries));
        std::mem::replace(&mut self.sent_index, index)
    }

    /// Takes note that everything up to an index is durable. Returns how many entries that were.
    pub(super) fn durable(&mut self, index: u64) -> usize {
        self.durable_index = self.durable_index.max(index);
        let mut entries = 0;
        while let Some((sent, count)) = self.sent.front()
            && *sent <= index
        {
            entries += count;
            self.sent.pop_front();
        }
        self.waiting -= entries;
        entries
    }

    pub(super) fn durable_index(&self) -> u64 {
        self.durable_index
    }

    pub(super) fn sent_index(&self) -> u64 {
        self.sent_index
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_durable_waits_no_more() {
        let mut ledger = LedgerProgress::new(1);
        assert_eq!(ledger.sent(4, 10), 1);
        assert_eq!(ledger.sent(9, 5), 4);
        assert_eq!((ledger.waiting(), ledger.durable_index()), (15, 1));
        assert_eq!(ledger.durable(4), 10);
        assert_eq!((ledger.waiting(), ledger.durable_index()), (5, 4));
        assert_eq!(ledger.durable(3), 0);
        assert_eq!(ledger.durable_index(), 4);
        assert_eq!(ledger.durable(9), 5);
        assert_eq!(ledger.waiting(), 0);
    }
}
