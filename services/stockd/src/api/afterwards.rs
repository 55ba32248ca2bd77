//! What waits to be said to shards when those who asked have their answers, and how much of it
//! there may be.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stock_core::{Action, BasketCommand, Outcome, ReservationId};
use stock_node::basket::{ToShard, passed_on};
use tokio::sync::Semaphore;

/// Commands of a node that wait, or that shards have yet to answer, and answers to be passed on.
const COMMANDS_MAX: usize = 16 * 1024;

/// So long they wait for others.
pub(super) const SAID_AFTER: Duration = Duration::from_millis(10);

/// What waits.
pub(super) struct Afterwards {
    room: Semaphore,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    tell: Vec<ToShard>,
    /// That baskets are held: their participants have yet to be told.
    answers: Vec<Outcome>,
}

/// What is to be said. Its room is free once it is over, or given up.
pub(super) struct Saying<'a> {
    pub(super) tell: Vec<ToShard>,
    room: &'a Semaphore,
    count: usize,
}

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        self.room.add_permits(self.count);
    }
}

impl Saying<'_> {
    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        self.tell.is_empty()
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
    /// Takes these, to be said at once, if there is room.
    pub(super) fn at_once(&self, tell: Vec<ToShard>) -> Option<Saying<'_>> {
        let count = tell.len();
        self.has_room(count).then(|| self.saying(tell, count))
    }

    /// Has these wait, if there is room. Whether they are the first: somebody has to say them.
    pub(super) fn add(&self, tell: Vec<ToShard>, answers: Vec<Outcome>) -> bool {
        let count = tell.len() + answers.len();
        if count == 0 || !self.has_room(count) {
            return false;
        }
        let mut waiting = self.waiting();
        let is_first = waiting.tell.is_empty() && waiting.answers.is_empty();
        waiting.tell.extend(tell);
        waiting.answers.extend(answers);
        is_first
    }

    /// All that waits.
    pub(super) fn take(&self) -> Saying<'_> {
        let Waiting { mut tell, answers } = std::mem::take(&mut *self.waiting());
        let count = tell.len() + answers.len();
        tell.extend(passed_on(answers.iter()));
        self.saying(tell, count)
    }

    /// What waits for the home of a reservation, if something of that one does: a command to it is
    /// not to come before.
    pub(super) fn take_before(&self, id: &ReservationId) -> Saying<'_> {
        let waiting = &mut self.waiting().tell;
        let tell: Vec<ToShard> = match waiting.iter().any(|tell| is_of(tell, id)) {
            true => waiting
                .extract_if(.., |tell| tell.shard == id.shard())
                .collect(),
            false => Vec::new(),
        };
        let count = tell.len();
        self.saying(tell, count)
    }

    fn saying(&self, tell: Vec<ToShard>, count: usize) -> Saying<'_> {
        let room = &self.room;
        Saying { tell, room, count }
    }

    fn has_room(&self, count: usize) -> bool {
        match self.room.try_acquire_many(count as u32) {
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

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
    use stock_core::{
        BasketOutcome, Command, Decide, Decision, HeldBasket, Principal, Stamp, ToBeTold,
    };

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
        let add = |tell| afterwards.add(tell, Vec::new());
        assert!(add(vec![decide(id(3, 1)), decide(id(4, 2))]));
        assert!(!add(vec![decide(id(3, 5))]), "others say it");
        assert!(afterwards.take_before(&id(3, 9)).is_empty());
        let before = [decide(id(3, 1)), decide(id(3, 5))];
        assert_eq!(afterwards.take_before(&id(3, 5)).tell, before);
        assert_eq!(afterwards.take().tell, [decide(id(4, 2))]);
    }

    #[test]
    fn each_participant_is_told_of_all_its_baskets_at_once() {
        let afterwards = Afterwards::default();
        let held = |id, participants: [u32; 2]| {
            let (version, ask_at) = (1, Stamp(9));
            Outcome::Basket(BasketOutcome::AllHeld(Box::new(ToBeTold {
                basket: HeldBasket {
                    id,
                    version,
                    ask_at,
                },
                participants: participants.into_iter().collect(),
            })))
        };
        let answers = vec![held(id(3, 1), [1, 4]), held(id(5, 2), [1, 7])];
        assert!(afterwards.add(Vec::new(), answers));
        let told = afterwards.take();
        let told = told.tell.iter().map(|tell| match &tell.command.action {
            Action::Basket(BasketCommand::AllHeld(all)) => {
                let ids = all.baskets.iter().map(|basket| basket.id);
                (tell.shard, ids.collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        });
        let (first, second) = (id(3, 1), id(5, 2));
        let all = [
            (1, vec![first, second]),
            (4, vec![first]),
            (7, vec![second]),
        ];
        assert_eq!(told.collect::<Vec<_>>(), all);
    }

    #[test]
    fn what_is_given_up_gives_its_room_back() {
        let afterwards = Afterwards::default();
        let all = vec![decide(id(3, 1)); COMMANDS_MAX];
        let add = |tell| afterwards.add(tell, Vec::new());
        assert!(add(all));
        assert!(!add(vec![decide(id(3, 2))]), "there is no room");
        drop(afterwards.take());
        assert!(add(vec![decide(id(3, 2))]));
    }
}
