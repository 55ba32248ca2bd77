//! Every reservation of a shard, when the open ones end, and how long the ended ones are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{ReservationId, Stamp};
use crate::limits::{ENDED_RESERVATION_MS, FORGOTTEN_PER_ENTRY_MAX};
use crate::queue::Queue;
use crate::reservation::Reservation;

#[derive(Debug)]
pub(crate) struct Holds {
    pub(crate) buckets: Box<[BTreeMap<ReservationId, Arc<Reservation>>]>,
    expiries: BTreeSet<(Stamp, ReservationId)>,
    ended: Queue<(Stamp, ReservationId)>,
    open: usize,
    open_max: usize,
    ended_max: usize,
}

impl Holds {
    pub(crate) fn new(buckets: usize, open_max: usize, ended_max: usize) -> Self {
        Self {
            buckets: (0..buckets).map(|_| BTreeMap::new()).collect(),
            expiries: BTreeSet::new(),
            ended: Queue::new(),
            open: 0,
            open_max,
            ended_max,
        }
    }

    pub(crate) fn get(&self, id: &ReservationId) -> Option<&Arc<Reservation>> {
        self.buckets[id.bucket(self.buckets.len())].get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &ReservationId) -> Option<&mut Arc<Reservation>> {
        self.buckets[id.bucket(self.buckets.len())].get_mut(id)
    }

    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open >= self.open_max
    }

    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }

    pub(crate) fn insert(&mut self, reservation: Arc<Reservation>) {
        if let Some(at) = reservation.expires_at {
            self.expiries.insert((at, reservation.id));
        }
        self.open += 1;
        self.buckets[reservation.id.bucket(self.buckets.len())].insert(reservation.id, reservation);
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

    /// Takes note that a reservation has ended.
    pub(crate) fn close(&mut self, id: ReservationId, expires_at: Option<Stamp>, now: Stamp) {
        self.reschedule(id, expires_at, None);
        self.open -= 1;
        self.ended.push((now, id));
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
            let Some((ended_at, id)) = self.ended.front().copied() else {
                break;
            };
            if ended_at >= keep_from && self.ended.len() <= self.ended_max {
                break;
            }
            self.ended.pop();
            self.buckets[id.bucket(self.buckets.len())].remove(&id);
        }
    }
}
