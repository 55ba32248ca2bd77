//! raft takes for granted that its log can be read, and panics where it cannot, in the middle of
//! whatever it does. That is the end of the replica, and of nothing else: it says why, and does
//! nothing any more.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::replica::Replica;

impl Replica {
    /// Why this replica is over, if it is: its log cannot be read, or raft has found in it what
    /// cannot be. It leads nothing, has no effects and takes nothing any more; the driver is to
    /// take it away.
    pub fn over(&self) -> Option<&str> {
        self.over.as_deref()
    }

    /// Has raft do something, unless this replica is over. `idle` is the answer of one that does
    /// nothing.
    pub(crate) fn guarded<T>(&mut self, idle: T, act: impl FnOnce(&mut Self) -> T) -> T {
        if self.over.is_some() {
            return idle;
        }
        match catch_unwind(AssertUnwindSafe(|| act(self))) {
            Ok(done) => done,
            Err(panic) => {
                let unread = self.node.store().unread();
                self.over = Some(unread.unwrap_or_else(|| said(panic.as_ref())));
                idle
            }
        }
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("raft gave up: {}", text.unwrap_or("without a word"))
}
