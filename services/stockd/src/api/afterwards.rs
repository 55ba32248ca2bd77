//! What shards are told when those who asked have their answers. It waits for a moment, so that
//! what is said to a shard is said together and in nobody's way. Nothing depends on it: what finds
//! no room, or has no answer in time, is found out by the shards' leaders.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stock_core::{Action, BasketCommand, ReservationId};
use stock_node::basket::{ANSWERED_WITHIN_MS, ToShard};
use tokio::sync::Semaphore;

/// Commands of a node that wait, or that shards have yet to answer.
const COMMANDS_MAX: usize = 16 * 1024;

/// So long they wait for others.
pub(super) const SAID_AFTER: Duration = Duration::from_millis(10);

/// And so long for an answer.
pub(super) const ANSWERED_WITHIN: Duration = Duration::from_millis(ANSWERED_WITHIN_MS);

/// What waits.
pub(super) struct Afterwards {
    room: Semaphore,
    waiting: Mutex<Vec<ToShard>>,
}

impl Default for Afterwards {
    fn default() -> Self {
        Self {
            room: Semaphore::new(COMMANDS_MAX),
            waiting: Mutex::default(),
        }
    }
}

impl Afterwards {
    /// Has these wait, if there is room. Whether they are the first: somebody has to say them.
    pub(super) fn add(&self, tell: Vec<ToShard>) -> bool {
        let Ok(room) = self.room.try_acquire_many(tell.len() as u32) else {
            metrics::counter!("stockd_baskets_left_to_leaders_total").increment(1);
            return false;
        };
        room.forget();
        let mut waiting = self.waiting();
        let is_first = waiting.is_empty() && !tell.is_empty();
        waiting.extend(tell);
        is_first
    }

    /// All that waits. Whoever takes it says so when it is said.
    pub(super) fn take(&self) -> Vec<ToShard> {
        std::mem::take(&mut self.waiting())
    }

    /// What waits for the home of a reservation, if something of that one does: a command to it is
    /// not to come before.
    pub(super) fn take_before(&self, id: &ReservationId) -> Vec<ToShard> {
        let mut waiting = self.waiting();
        match waiting.iter().any(|tell| is_of(tell, id)) {
            true => waiting
                .extract_if(.., |tell| tell.shard == id.shard())
                .collect(),
            false => Vec::new(),
        }
    }

    /// So many of them were said.
    pub(super) fn said(&self, commands: usize) {
        self.room.add_permits(commands);
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<ToShard>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_of(tell: &ToShard, id: &ReservationId) -> bool {
    match &tell.command.action {
        Action::Basket(BasketCommand::Decide(decide)) => decide.id == *id,
        _ => false,
    }
}
