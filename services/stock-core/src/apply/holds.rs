//! Every reservation that is at home in a shard, when the open ones end, how long the ended ones
//! are kept, and who has yet to be told of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::buckets::Buckets;
use crate::home::Spread;
use crate::ids::{ReservationId, Secret, Stamp};
use crate::limits::{ENDED_RESERVATION_MS, FORGOTTEN_PER_ENTRY_MAX};
use crate::order::{Order, Place};
use crate::reservation::Reservation;
use crate::text::OrderReference;
use crate::timeline::Timeline;

#[derive(Debug, Clone)]
pub(crate) struct Holds {
    pub(crate) buckets: Buckets<ReservationId, Hold, Timeline<ReservationId, Hold>>,
    pub(crate) expiries: BTreeSet<(Stamp, ReservationId)>,
    /// Of those that have one: not part of the canonical state, since it follows from the rest.
    pub(crate) references: BTreeSet<(OrderReference, ReservationId)>,
    /// What is not decided yet, by when it was prepared: likewise.
    pub(crate) undecided: BTreeSet<(Stamp, ReservationId)>,
    /// Which participants have yet to be told of which: likewise.
    pub(crate) owed: BTreeSet<(u32, ReservationId)>,
    pub(crate) ended: Order<ReservationId>,
    /// Those that are open, or of which somebody has yet to be told.
    pub(crate) open: usize,
    pub(crate) open_bytes: usize,
    pub(crate) ended_bytes: usize,
    open_bytes_max: usize,
    pub(crate) ended_bytes_max: usize,
}

/// A reservation, and what the many that are open and of one shard have nothing of.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) reservation: Arc<Reservation>,
    pub(crate) more: Option<Box<More>>,
}

/// See [`Hold`].
#[derive(Debug, Clone, Default)]
pub(crate) struct More {
    /// Its place among the ended ones, if it is one of them.
    pub(crate) ended: Option<Place>,
    /// Given if it reaches over shards.
    pub(crate) spread: Option<Box<Spread>>,
}

impl Hold {
    pub(crate) fn new(reservation: Arc<Reservation>, spread: Option<Box<Spread>>) -> Self {
        let ended = None;
        let more = spread.map(|spread| {
            let spread = Some(spread);
            Box::new(More { ended, spread })
        });
        Self { reservation, more }
    }

    pub(crate) fn spread(&self) -> Option<&Spread> {
        self.more.as_ref()?.spread.as_deref()
    }

    pub(crate) fn ended(&self) -> Option<Place> {
        self.more.as_ref()?.ended
    }

    /// Whether it may be forgotten some day as it is.
    pub(crate) fn is_over(&self) -> bool {
        !self.reservation.state.is_open() && !self.spread().is_some_and(Spread::owes)
    }

    /// Of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let lines = self.reservation.lines.len();
        let spread = self.spread().map_or(0, |spread| spread.bytes(lines));
        self.reservation.bytes() + spread
    }
}

impl Holds {
    pub(crate) fn new(
        secret: Secret,
        buckets: usize,
        open_bytes_max: usize,
        ended_bytes_max: usize,
    ) -> Self {
        Self {
            buckets: Buckets::new(secret, buckets),
            expiries: BTreeSet::new(),
            references: BTreeSet::new(),
            undecided: BTreeSet::new(),
            owed: BTreeSet::new(),
            ended: Order::new(),
            open: 0,
            open_bytes: 0,
            ended_bytes: 0,
            open_bytes_max,
            ended_bytes_max,
        }
    }

    pub(crate) fn get(&self, id: &ReservationId) -> Option<&Arc<Reservation>> {
        self.hold(id).map(|hold| &hold.reservation)
    }

    pub(crate) fn hold(&self, id: &ReservationId) -> Option<&Hold> {
        self.buckets.get(id)
    }

    /// By how many shards its lines are divided, if it reaches over them.
    pub(crate) fn shards_of(&self, id: &ReservationId) -> Option<u32> {
        self.hold(id)?.spread().map(|spread| spread.shards)
    }

    /// For changes that need no more room.
    pub(crate) fn get_mut(&mut self, id: &ReservationId) -> Option<&mut Arc<Reservation>> {
        let hold = self.buckets.get_mut(id);
        hold.map(|hold| &mut hold.reservation)
    }

    /// Changes how a reservation reaches over shards, if it does and is not over, and sees to it
    /// that what follows from that stays true.
    pub(crate) fn change_spread(
        &mut self,
        id: &ReservationId,
        change: impl FnOnce(&mut Arc<Reservation>, &mut Spread),
    ) {
        let Some(hold) = self.buckets.get_mut(id).filter(|it| it.ended().is_none()) else {
            return;
        };
        let before = hold.bytes();
        let Hold { reservation, more } = hold;
        let spread = more.as_mut().and_then(|more| more.spread.as_mut());
        let Some(spread) = spread else {
            return;
        };
        let since = spread.undecided.as_ref().map(|it| it.since);
        let owed: SmallVec<[u32; 8]> = spread.owed().collect();
        change(reservation, spread);
        let since_now = spread.undecided.as_ref().map(|it| it.since);
        if since != since_now {
            since.map(|since| self.undecided.remove(&(since, *id)));
            since_now.map(|since| self.undecided.insert((since, *id)));
        }
        let owed_now: SmallVec<[u32; 8]> = spread.owed().collect();
        for shard in owed.iter().filter(|shard| !owed_now.contains(shard)) {
            self.owed.remove(&(*shard, *id));
        }
        for shard in owed_now.iter().filter(|shard| !owed.contains(shard)) {
            self.owed.insert((*shard, *id));
        }
        self.open_bytes = self.open_bytes - before + hold.bytes();
    }

    /// Lets a reservation reach over so many shards, if it does not yet.
    pub(crate) fn spread_out(&mut self, id: &ReservationId, shards: u32) {
        if let Some(hold) = self.buckets.get_mut(id) {
            let before = hold.bytes();
            let more = hold.more.get_or_insert_default();
            more.spread
                .get_or_insert_with(|| Box::new(Spread::new(shards)));
            self.open_bytes = self.open_bytes - before + hold.bytes();
        }
    }

    /// Home has decided something of units: whoever has a part of them is to be told. Nothing of
    /// it, if there is something else that is not decided yet.
    pub(crate) fn decided_anew(&mut self, id: &ReservationId) {
        self.change_spread(id, |_, spread| {
            spread.version += u32::from(spread.undecided.is_none());
        });
    }

    /// Of which reservations a participant has yet to be told.
    pub(crate) fn owed_to(&self, participant: u32) -> impl Iterator<Item = &ReservationId> {
        let from = (participant, ReservationId::FIRST);
        let to = (participant + 1, ReservationId::FIRST);
        self.owed.range(from..to).map(|(_, id)| id)
    }

    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Whether open reservations, and parts of so many bytes, leave no room.
    pub(crate) fn is_full(&self, part_bytes: usize) -> bool {
        self.open_bytes + part_bytes >= self.open_bytes_max
    }

    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }

    pub(crate) fn insert(&mut self, hold: Hold) {
        let id = hold.reservation.id;
        if let Some(at) = hold.reservation.expires_at {
            self.expiries.insert((at, id));
        }
        if let Some(reference) = hold.reservation.order_reference() {
            self.references.insert((reference.clone(), id));
        }
        if let Some(undecided) = hold.spread().and_then(|spread| spread.undecided.as_ref()) {
            self.undecided.insert((undecided.since, id));
        }
        self.open += 1;
        self.open_bytes += hold.bytes();
        self.buckets.insert(id, hold);
    }

    /// Takes away what was never held, as if it had never been there.
    pub(crate) fn withdraw(&mut self, id: &ReservationId) {
        let Some(hold) = self.buckets.get(id) else {
            return;
        };
        self.open -= 1;
        self.open_bytes -= hold.bytes();
        if let Some(at) = hold.reservation.expires_at {
            self.expiries.remove(&(at, *id));
        }
        if let Some(reference) = hold.reservation.order_reference() {
            self.references.remove(&(reference.clone(), *id));
        }
        if let Some(spread) = hold.spread() {
            if let Some(undecided) = &spread.undecided {
                self.undecided.remove(&(undecided.since, *id));
            }
            for participant in &spread.participants {
                self.owed.remove(&(participant.shard, *id));
            }
        }
        self.buckets.remove(id);
    }

    /// Keeps the order of expiries in step with a reservation whose expiry changed.
    pub(crate) fn reschedule(&mut self, id: ReservationId, from: Option<Stamp>, to: Option<Stamp>) {
        if let Some(at) = from {
            self.expiries.remove(&(at, id));
        }
        if let Some(at) = to {
            self.expiries.insert((at, id));
        }
    }

    /// Takes note that an open reservation has other lines.
    pub(crate) fn resized(&mut self, before: usize, after: usize) {
        self.open_bytes = self.open_bytes - before + after;
    }

    /// Takes note that a reservation has ended.
    pub(crate) fn close(&mut self, id: ReservationId, expires_at: Option<Stamp>, now: Stamp) {
        self.reschedule(id, expires_at, None);
        self.file(id, now);
    }

    /// A reservation that has ended, and of which nobody has to be told any more, is one of those
    /// that are forgotten.
    pub(crate) fn file(&mut self, id: ReservationId, now: Stamp) {
        let Some(hold) = self.buckets.get_mut(&id) else {
            return;
        };
        if !hold.is_over() || hold.ended().is_some() {
            return;
        }
        let bytes = hold.bytes();
        let place = self.ended.push(now, id);
        hold.more.get_or_insert_default().ended = Some(place);
        self.open -= 1;
        self.open_bytes -= bytes;
        self.ended_bytes += bytes;
    }

    pub(crate) fn next_expiry(&self) -> Option<Stamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    pub(crate) fn next_due(&self, now: Stamp) -> Option<ReservationId> {
        self.expiries
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, id)| *id)
    }

    pub(crate) fn forget_ended(&mut self, now: Stamp) {
        let keep_from = now.minus_ms(ENDED_RESERVATION_MS);
        for _ in 0..FORGOTTEN_PER_ENTRY_MAX {
            let Some((ended_at, id)) = self.ended.oldest().copied() else {
                break;
            };
            if ended_at >= keep_from && self.ended_bytes <= self.ended_bytes_max {
                break;
            }
            self.ended.pop();
            if let Some(hold) = self.buckets.get(&id) {
                self.ended_bytes -= hold.bytes();
                if let Some(reference) = hold.reservation.order_reference() {
                    self.references.remove(&(reference.clone(), id));
                }
            }
            self.buckets.remove(&id);
        }
    }
}
