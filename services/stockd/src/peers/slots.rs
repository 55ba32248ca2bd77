//! Places for conversations that take a thread each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many places.
#[derive(Debug)]
pub(super) struct Slots {
    taken: AtomicUsize,
    slots_max: usize,
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub(super) fn new(slots_max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            slots_max,
        })
    }

    /// Takes one, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Slot> {
        let slot = Slot(Arc::clone(self));
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        (before < self.slots_max).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
