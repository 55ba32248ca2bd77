//! What shards are told when those who asked have their answers. That baskets are held waits for a
//! moment, so that it is said together and in nobody's way; what gives units back is said at once.
//! Nothing depends on it: what finds no room, or has no answer in time, is found out by the shards'
//! leaders.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stock_core::{Action, BasketCommand, Decision, ReservationId};
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

/// See [`Afterwards::saying`].
pub(super) struct Saying<'a> {
    room: &'a Semaphore,
    commands: usize,
}

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        self.room.add_permits(self.commands);
    }
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
    /// Whether there is room for so many: it is theirs then, until they are said.
    pub(super) fn has_room(&self, commands: usize) -> bool {
        match self.room.try_acquire_many(commands as u32) {
            Ok(room) => {
                room.forget();
                true
            }
            Err(_) => {
                metrics::counter!("stockd_baskets_left_to_leaders_total").increment(1);
                false
            }
        }
    }

    /// Has these wait, if there is room. Whether they are the first: somebody has to say them.
    pub(super) fn add(&self, tell: Vec<ToShard>) -> bool {
        if !self.has_room(tell.len()) {
            return false;
        }
        let mut waiting = self.waiting();
        let is_first = waiting.is_empty() && !tell.is_empty();
        waiting.extend(tell);
        is_first
    }

    /// All that waits, for [`Self::saying`].
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

    /// So many of them are being said: their room is free once that is over, or given up.
    pub(super) fn saying(&self, commands: usize) -> Saying<'_> {
        let room = &self.room;
        Saying { room, commands }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<ToShard>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it can wait: that a basket is held changes nothing for anybody else.
pub(super) fn can_wait(tell: &ToShard) -> bool {
    match &tell.command.action {
        Action::Basket(BasketCommand::Decide(decide)) => decide.decision == Decision::Held,
        _ => false,
    }
}

fn is_of(tell: &ToShard, id: &ReservationId) -> bool {
    match &tell.command.action {
        Action::Basket(BasketCommand::Decide(decide)) => decide.id == *id,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use stock_core::{Command, Decide, Principal, Stamp};

    use super::*;

    fn id(home: u32, number: u64) -> ReservationId {
        ReservationId::compose(Stamp(1_790_000_000_000), home, number)
    }

    fn decide(id: ReservationId) -> ToShard {
        let decision = Decision::Held;
        let version = 1;
        let decide = BasketCommand::Decide(Decide {
            id,
            version,
            decision,
        });
        let command = Command {
            principal: Principal::new("web").unwrap(),
            action: Action::Basket(decide),
        };
        let shard = id.shard();
        ToShard { shard, command }
    }

    #[test]
    fn a_command_takes_along_what_waits_for_its_home_and_nothing_else() {
        let afterwards = Afterwards::default();
        assert!(afterwards.add(vec![decide(id(3, 1)), decide(id(4, 2))]));
        assert!(!afterwards.add(vec![decide(id(3, 5))]), "others say it");
        assert!(afterwards.take_before(&id(3, 9)).is_empty());
        let before = [decide(id(3, 1)), decide(id(3, 5))];
        assert_eq!(afterwards.take_before(&id(3, 5)), before);
        assert_eq!(afterwards.take(), [decide(id(4, 2))]);
    }

    #[test]
    fn what_is_given_up_gives_its_room_back() {
        let afterwards = Afterwards::default();
        let all = vec![decide(id(3, 1)); COMMANDS_MAX];
        assert!(afterwards.add(all));
        assert!(!afterwards.add(vec![decide(id(3, 2))]), "there is no room");
        let taken = afterwards.take();
        drop(afterwards.saying(taken.len()));
        assert!(afterwards.add(vec![decide(id(3, 2))]));
    }
}
