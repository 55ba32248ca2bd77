//! Every reservation of a shard, when the open ones end, and how long the ended ones are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::buckets::Buckets;
use crate::ids::{ReservationId, Secret, Stamp};
use crate::limits::{ENDED_RESERVATION_MS, FORGOTTEN_PER_ENTRY_MAX};
use crate::order::{Order, Place};
use crate::reservation::Reservation;
use crate::text::OrderReference;
use crate::timeline::Timeline;

#[derive(Debug)]
pub(crate) struct Holds {
    pub(crate) buckets: Buckets<ReservationId, Hold, Timeline<ReservationId, Hold>>,
    pub(crate) expiries: BTreeSet<(Stamp, ReservationId)>,
    /// Of those that have one: not part of the canonical state, since it follows from the rest.
    pub(crate) references: BTreeSet<(OrderReference, ReservationId)>,
    pub(crate) ended: Order<ReservationId>,
    pub(crate) open: usize,
    pub(crate) open_bytes: usize,
    pub(crate) ended_bytes: usize,
    open_bytes_max: usize,
    pub(crate) ended_bytes_max: usize,
}

/// A reservation, and when it ended if it has.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) reservation: Arc<Reservation>,
    /// In a box because the many that are open have none.
    pub(crate) ended: Option<Box<Place>>,
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
            ended: Order::new(),
            open: 0,
            open_bytes: 0,
            ended_bytes: 0,
            open_bytes_max,
            ended_bytes_max,
        }
    }

    pub(crate) fn get(&self, id: &ReservationId) -> Option<&Arc<Reservation>> {
        self.buckets.get(id).map(|hold| &hold.reservation)
    }

    pub(crate) fn get_mut(&mut self, id: &ReservationId) -> Option<&mut Arc<Reservation>> {
        let hold = self.buckets.get_mut(id);
        hold.map(|hold| &mut hold.reservation)
    }

    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open_bytes >= self.open_bytes_max
    }

    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }

    pub(crate) fn insert(&mut self, reservation: Arc<Reservation>) {
        if let Some(at) = reservation.expires_at {
            self.expiries.insert((at, reservation.id));
        }
        if let Some(reference) = reservation.order_reference() {
            self.references.insert((reference.clone(), reservation.id));
        }
        self.open += 1;
        self.open_bytes += reservation.bytes();
        let hold = Hold {
            reservation,
            ended: None,
        };
        self.buckets.insert(hold.reservation.id, hold);
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
        self.open -= 1;
        let place = self.ended.push(now, id);
        if let Some(hold) = self.buckets.get_mut(&id) {
            hold.ended = Some(Box::new(place));
            let bytes = hold.reservation.bytes();
            self.open_bytes -= bytes;
            self.ended_bytes += bytes;
        }
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
            if let Some(forgotten) = self.get(&id).map(Arc::clone) {
                self.ended_bytes -= forgotten.bytes();
                if let Some(reference) = forgotten.order_reference() {
                    self.references.remove(&(reference.clone(), id));
                }
            }
            self.buckets.remove(&id);
        }
    }
}
