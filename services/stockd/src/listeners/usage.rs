//! What is known of a connection while it is served.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::budget::{Budget, Share};
use super::frames::Seen;
use super::resets::{Resets, WAITED};
use super::room::Guest;
use super::under_way::UnderWay;

/// Bytes of requests of one connection that may be unread. The transport ends a connection whose
/// unread frames are many and small, and lets them cost half of this together: with less, four
/// thousand calls that wait at once, as after a stall, would be too many.
pub(super) const UNREAD_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// So much of what has come on a connection may be unread although there is no room: what comes in
/// one go, when many calls begin at once. All places for clients together: a gibibyte, if somebody
/// pays for so many connections.
const UNREAD_ALWAYS_BYTES: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) guest: Guest,
    /// What its calls hold.
    pub(super) share: Share,
    pub(super) untaken: Untaken,
    /// Data that the transport has and that no call has read. It counts for what calls hold; what
    /// came for calls that were over by then is noticed when no call is left.
    unread: AtomicUsize,
    /// It has more than there is room for.
    pub(super) is_greedy: AtomicBool,
    pub(super) under_way: AtomicUsize,
    pub(super) begun: AtomicU64,
    /// There is more to be read of it.
    pub(super) has_more: AtomicBool,
    /// Calls and answers of it that kept the node busy.
    heavy: AtomicU64,
    newest: Mutex<Option<Arc<UnderWay>>>,
    resets: Mutex<Resets>,
}

impl Usage {
    pub(super) fn new(guest: Guest, budget: Arc<Budget>) -> Self {
        Self {
            guest,
            share: Share::new(budget),
            untaken: Untaken::default(),
            unread: AtomicUsize::new(0),
            is_greedy: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            has_more: AtomicBool::new(false),
            heavy: AtomicU64::new(0),
            newest: Mutex::default(),
            resets: Mutex::new(Resets::new(Instant::now())),
        }
    }

    pub(super) fn take_note(&self, seen: Seen) {
        self.has_more.store(seen.has_more, Ordering::Relaxed);
        if seen.preface {
            self.guest.introduced();
        }
        if seen.data > 0 {
            self.has_come(seen.data);
        }
        if seen.resets > 0 {
            let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
            if !resets.take(seen.resets, Instant::now()) {
                self.guest.ask_to_leave();
            }
        }
    }

    /// The transport never has more than it says it takes: what seems to be beyond has come for
    /// calls that were over, and was thrown away.
    fn has_come(&self, bytes: usize) {
        let unread = self.unread.load(Ordering::Relaxed);
        let bytes = bytes.min((UNREAD_BYTES_MAX as usize).saturating_sub(unread));
        self.unread.fetch_add(bytes, Ordering::Relaxed);
        self.share.take_anyway(bytes);
        if unread + bytes > UNREAD_ALWAYS_BYTES && !self.share.has_room() {
            self.is_greedy.store(true, Ordering::Relaxed);
            self.guest.ask_to_leave();
        }
    }

    /// So much data was read, or thrown away.
    pub(super) fn was_read(&self, bytes: usize) {
        let left = |unread: usize| Some(unread.saturating_sub(bytes));
        let unread = self
            .unread
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        self.share.give_back(unread.unwrap_or(0).min(bytes));
    }

    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// A call is over; if it was given up, it had begun then.
    pub(super) fn end(&self, given_up: Option<Instant>) {
        if self.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Whatever came is for nobody.
            let unread = self.unread.swap(0, Ordering::Relaxed);
            self.share.give_back(unread);
        }
        if given_up.is_some_and(|began| began.elapsed() >= WAITED) {
            let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
            resets.give_back();
        }
    }

    /// The call that has just begun, until its task does.
    pub(super) fn newest(&self) -> MutexGuard<'_, Option<Arc<UnderWay>>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of it keeps the node busy for a while.
    pub(super) fn is_heavy(&self) {
        self.heavy.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so.
    pub(super) fn heavy(&self) -> u64 {
        self.heavy.load(Ordering::Relaxed)
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.share.give_back(*self.unread.get_mut());
    }
}

/// Parts of answers that the transport has and that the other side does not take. The end of an
/// answer may be left there when its call is over, and no call is there any more to notice.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    look: AtomicUsize,
    /// Since this look, the one before it, and those before.
    since: [AtomicUsize; LOOKS],
}

const LOOKS: usize = 3;

impl Untaken {
    /// A part is handed over. Says since which look that is.
    pub(super) fn enter(&self) -> usize {
        let look = self.look.load(Ordering::Relaxed);
        self.since[look].fetch_add(1, Ordering::Relaxed);
        look
    }

    /// One has left that was handed over then.
    pub(super) fn leave(&self, look: usize) {
        self.since[look].fetch_sub(1, Ordering::Relaxed);
    }

    /// Another look: whether anything is still there since the one before the last.
    pub(super) fn is_stuck(&self) -> bool {
        let next = (self.look.load(Ordering::Relaxed) + 1) % LOOKS;
        let is_stuck = self.since[next].load(Ordering::Relaxed) > 0;
        if !is_stuck {
            self.look.store(next, Ordering::Relaxed);
        }
        is_stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_noticed_and_what_is_taken_is_not() {
        let untaken = Untaken::default();
        let left_behind = untaken.enter();
        for _ in 0..2 {
            let taken = untaken.enter();
            assert!(!untaken.is_stuck());
            untaken.leave(taken);
        }
        assert!(untaken.is_stuck());
        untaken.leave(left_behind);
        assert!(!untaken.is_stuck());
    }
}
