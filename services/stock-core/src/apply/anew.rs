//! After a group went on without what it had lost: the shards tell each other again what they have
//! of each other's baskets, before anything is held there for anybody else.

use crate::basket::{Recovered, TellAnew, ToldAnew};
use crate::home::Spread;
use crate::ids::{At, ReservationId};
use crate::outcome::{BasketOutcome, Outcome};
use crate::shard::Shard;

impl Shard {
    pub(crate) fn recovered(&mut self, at: At, recovered: &Recovered) -> Outcome {
        self.recoveries.own = self.recoveries.own.saturating_add(1);
        let others = (0..recovered.shards).filter(|shard| *shard != recovered.shard);
        self.recoveries.awaited = others.collect();
        self.tell_anew_of(|_| true);
        self.parts.ask_all(|_| true, at.stamp());
        Outcome::Basket(BasketOutcome::Done)
    }

    pub(crate) fn tell_anew(&mut self, at: At, tell: &TellAnew) -> Outcome {
        let heard = self.recoveries.others.get(&tell.shard);
        if tell.recovery > heard.copied().unwrap_or(0) {
            self.recoveries.others.insert(tell.shard, tell.recovery);
            self.tell_anew_of(|shard| shard == tell.shard);
            self.parts.ask_all(|home| home == tell.shard, at.stamp());
        }
        Outcome::Basket(match self.holds.owed_to(tell.shard).next() {
            Some(_) => BasketOutcome::Telling,
            None => BasketOutcome::Done,
        })
    }

    pub(crate) fn told_anew(&mut self, told: &ToldAnew) -> Outcome {
        if told.recovery == self.recoveries.own {
            self.recoveries.awaited.remove(&told.shard);
        }
        Outcome::Basket(BasketOutcome::Done)
    }

    /// Whether somebody has yet to tell of what he has here.
    pub(crate) fn is_reconciling(&self) -> bool {
        !self.recoveries.awaited.is_empty()
    }

    /// What home has decided is owed once more to those participants.
    fn tell_anew_of(&mut self, is_meant: impl Fn(u32) -> bool) {
        let floor = self.recoveries.version_floor();
        let holds = self.holds.buckets.iter().map(|(_, hold)| hold);
        let concerned = holds.filter(|hold| {
            let is_meant = |spread: &Spread| {
                let mut shards = spread.participants.iter().map(|it| it.shard);
                shards.any(&is_meant)
            };
            hold.ended().is_none() && hold.spread().is_some_and(is_meant)
        });
        let concerned: Vec<ReservationId> = concerned.map(|hold| hold.reservation.id).collect();
        for id in concerned {
            self.holds.change_spread(&id, |_, spread| {
                // What is not decided yet gets its version when it is.
                if spread.undecided.is_none() {
                    spread.version = spread.version.max(floor);
                }
                spread.tell_anew(&is_meant);
            });
        }
    }
}
