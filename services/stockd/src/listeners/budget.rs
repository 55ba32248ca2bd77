//! How many bytes calls may hold together: of messages that have yet to end, of what they are
//! carried out with, and of answers that nobody has taken yet.
//!
//! A connection may hold as much as all of them leave free, up to a limit of its own. So a lone one
//! has plenty, many greedy ones share what there is, and whoever comes after them finds as much as
//! each of them has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of all connections together.
const NODE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where a node's memory is limited, one part in so many of it at most: half of what is kept back
/// beside the state.
const PARTS_OF_MEMORY: u64 = 8;

/// With less than this a message of the largest size would find no room.
const NODE_BYTES_MIN: usize = 32 * 1024 * 1024;

/// Of one connection.
const CONNECTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A connection may always hold so much: a few calls like most are carried out however much others
/// hold. All places for clients together: 256 MiB.
const ALWAYS_BYTES: usize = 16 * 1024;

/// Calls begin only while so many hundredths of what a connection may hold are in use: the rest is
/// for the answers of those that have begun.
const BEGIN_PERCENT: usize = 75;

/// What all calls of a node hold.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    held: AtomicUsize,
}

impl Budget {
    /// Of a node that may use so much memory, if that is limited.
    pub fn new(memory_bytes: Option<u64>) -> Arc<Self> {
        let part = memory_bytes.map_or(u64::MAX, |bytes| bytes / PARTS_OF_MEMORY);
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        Arc::new(Self {
            bytes_max: part.clamp(NODE_BYTES_MIN, NODE_BYTES_MAX),
            held: AtomicUsize::new(0),
        })
    }
}

/// What the calls of one connection hold.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    held: AtomicUsize,
}

impl Share {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            held: AtomicUsize::new(0),
        }
    }

    /// For a call that begins. `false` if there is no room.
    pub(super) fn take_to_begin(&self, bytes: usize) -> bool {
        self.take_within(bytes, BEGIN_PERCENT)
    }

    /// For a call that has begun. `false` if there is no room.
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.take_within(bytes, 100)
    }

    /// For what is there already, whether there is room or not: nobody else gets it.
    pub(super) fn take_anyway(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a call that has begun would get any more.
    pub(super) fn has_room(&self) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        let all = self.budget.held.load(Ordering::Relaxed);
        self.is_within(held, all, 100)
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn take_within(&self, bytes: usize, percent: usize) -> bool {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.budget.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let is_within = self.is_within(held, all, percent);
        if !is_within {
            self.give_back(bytes);
        }
        is_within
    }

    fn is_within(&self, held: usize, all: usize, percent: usize) -> bool {
        let free = self.budget.bytes_max.saturating_sub(all);
        held <= ALWAYS_BYTES || held <= CONNECTION_BYTES_MAX.min(free) * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// As much as a connection gets, a mebibyte at a time.
    fn fill(share: &Share) -> usize {
        (0..).take_while(|_| share.take(MIB)).count()
    }

    #[test]
    fn who_comes_after_greedy_ones_finds_as_much_as_each_of_them_has() {
        let budget = Budget::new(None);
        let shares: Vec<Share> = (0..20).map(|_| Share::new(Arc::clone(&budget))).collect();
        assert_eq!(fill(&shares[0]), 64, "a lone one has its own limit");
        for share in &shares[1..] {
            fill(share);
        }
        let held = budget.held.load(Ordering::Relaxed);
        assert!(held <= NODE_BYTES_MAX, "{held}");
        let late = Share::new(Arc::clone(&budget));
        assert!(late.take(ALWAYS_BYTES), "what is always there");
        drop(shares);
    }

    #[test]
    fn what_is_given_back_is_free_again_and_a_refusal_takes_nothing() {
        let budget = Budget::new(Some(64 * MIB as u64));
        assert_eq!(budget.bytes_max, NODE_BYTES_MIN);
        let share = Share::new(Arc::clone(&budget));
        assert_eq!(fill(&share), 16, "as much as is left then");
        assert!(!share.take_to_begin(1));
        assert!(share.has_room());
        share.take_anyway(2 * MIB);
        assert!(!share.has_room());
        share.give_back(18 * MIB);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
        assert!(share.take_to_begin(MIB));
    }

    #[test]
    fn four_thousand_calls_of_one_connection_begin_beside_others() {
        let budget = Budget::new(None);
        let shares: Vec<Share> = (0..4).map(|_| Share::new(Arc::clone(&budget))).collect();
        for share in &shares {
            let begun =
                (0..4_096).filter(|_| share.take_to_begin(super::super::under_way::CALL_BYTES));
            assert_eq!(begun.count(), 4_096);
        }
    }
}
