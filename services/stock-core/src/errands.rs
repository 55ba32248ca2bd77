//! What a shard has to see to at others: the leader of its group asks, and tells, until nothing of
//! this is left. All of it follows from the state, so that whoever leads next goes on.

use std::ops::Bound;

use crate::basket::{Ask, Follow, Question, TellAnew};
use crate::ids::{Principal, ReservationId, Stamp};
use crate::limits::{ASK_AGAIN_MS, ASK_OVERDUE_MS};
use crate::reservation::Reservation;
use crate::shard::Shard;

/// Since when something is due, and of which reservation.
pub type Due = (Stamp, ReservationId);

impl Shard {
    /// What home prepared no later than this, and has not decided: the oldest first, behind that
    /// one. Every participant that was asked is to be probed.
    pub fn undecided(
        &self,
        behind: Option<Due>,
        prepared_by: Stamp,
    ) -> impl Iterator<Item = Due> + '_ {
        let undecided = self.holds.undecided.range(from_behind(behind));
        undecided
            .take_while(move |(since, _)| *since <= prepared_by)
            .copied()
    }

    /// What participants are asked about a reservation, if home has yet to decide something of it.
    pub fn question(&self, id: &ReservationId) -> Option<Question> {
        let hold = self.holds.hold(id)?;
        let spread = hold.spread()?;
        let is_reserved = spread.undecided.as_ref()?.amendment.is_none();
        Some(Question {
            version: spread.version + 1,
            has_ended: is_reserved && !hold.reservation.state.is_open(),
        })
    }

    /// The participants that have yet to be told something, by their numbers.
    pub fn owes(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let mut owed = self.holds.owed.range((from, ReservationId::FIRST)..);
            let (shard, _) = *owed.next()?;
            from = shard + 1;
            Some(shard)
        })
    }

    /// What a participant has yet to be told.
    pub fn owed_to(&self, participant: u32) -> impl Iterator<Item = Follow> + '_ {
        let owed = self.holds.owed_to(participant);
        owed.filter_map(move |id| self.to_follow(id, participant))
    }

    /// What a participant is told of a reservation.
    pub fn to_follow(&self, id: &ReservationId, participant: u32) -> Option<Follow> {
        let hold = self.holds.hold(id)?;
        let spread = hold.spread().filter(|spread| spread.undecided.is_none())?;
        let reservation = &hold.reservation;
        let lines = reservation.lines.iter();
        let lines = lines.filter(|line| line.sku.shard(spread.shards) == participant);
        Some(Follow {
            id: *id,
            version: spread.version.max(self.recoveries.version_floor()),
            asked_at: spread.asked_at,
            lines: lines.cloned().collect(),
            ask_at: self.ask_at(reservation),
            anew: false,
        })
    }

    /// When participants ask next what became of a reservation.
    pub(crate) fn ask_at(&self, reservation: &Reservation) -> Stamp {
        match reservation.expires_at {
            Some(at) => at.plus_ms(ASK_OVERDUE_MS),
            None => self.stamp().plus_ms(ASK_AGAIN_MS),
        }
    }

    /// The shards that have yet to tell again what they have here, after this one, of that number,
    /// has lost something.
    pub fn awaits(&self, own: u32) -> impl Iterator<Item = (u32, TellAnew)> + '_ {
        let tell = TellAnew {
            recovery: self.recoveries.own,
            shard: own,
        };
        let awaited = self.recoveries.awaited.iter();
        awaited.map(move |shard| (*shard, tell))
    }

    /// The parts of which home should have been heard by now: what this shard, of that number,
    /// asks, for whom. The most overdue first, behind that one; the id says where.
    pub fn asks(
        &self,
        own: u32,
        behind: Option<Due>,
    ) -> impl Iterator<Item = (Due, Ask, &Principal)> + '_ {
        let now = self.stamp();
        let asks = self.parts.asks.range(from_behind(behind));
        let overdue = asks.take_while(move |(at, _)| *at <= now);
        overdue.filter_map(move |due| {
            let part = self.parts.part(&due.1)?;
            let ask = Ask {
                id: due.1,
                shard: own,
                asked_at: part.asked_at,
            };
            Some((*due, ask, &part.principal))
        })
    }
}

fn from_behind(due: Option<Due>) -> (Bound<Due>, Bound<Due>) {
    (
        due.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}
