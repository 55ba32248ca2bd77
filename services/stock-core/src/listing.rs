//! Finding reservations: by what their callers call them, by what they hold, by how they stand.

use std::ops::Bound;
use std::sync::Arc;

use crate::ids::{Channel, Location, ReservationId, Stamp};
use crate::reservation::{Reservation, ReservationLine, State};
use crate::shard::Shard;
use crate::sku::Sku;
use crate::text::OrderReference;

/// What reservations are looked for: those of which all of it is true.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this order.
    pub order_reference: Option<OrderReference>,
    /// From there.
    pub channel: Option<Channel>,
    /// With a line of this SKU...
    pub sku: Option<Sku>,
    /// ...at this location, or of any SKU there.
    pub location: Option<Location>,
    /// In one of these states; none: in any.
    pub states: Vec<State>,
    /// Open, and to end by themselves before this.
    pub due_before: Option<Stamp>,
    /// Held later than this.
    pub created_after: Option<Stamp>,
}

impl Filter {
    /// Whether a reservation is one of them.
    pub fn takes(&self, reservation: &Reservation) -> bool {
        let is_there = |line: &ReservationLine| {
            self.sku.as_ref().is_none_or(|sku| *sku == line.sku)
                && self.location.as_ref().is_none_or(|at| *at == line.location)
        };
        let due = reservation
            .expires_at
            .filter(|_| reservation.state.is_open());
        (self.states.is_empty() || self.states.contains(&reservation.state))
            && self
                .created_after
                .is_none_or(|after| reservation.created_at > after)
            && self
                .due_before
                .is_none_or(|before| due.is_some_and(|due| due < before))
            && (self.order_reference.is_none()
                || self.order_reference.as_ref() == reservation.order_reference())
            && (self.channel.is_none() || self.channel.as_ref() == reservation.channel())
            && reservation.lines.iter().any(is_there)
    }
}

/// Some of what was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// In the shard's order, which is the same on all of its replicas.
    pub found: Vec<Arc<Reservation>>,
    /// Those of them that home has prepared, anew or for the first time, and not decided yet.
    pub undecided: Vec<ReservationId>,
    /// Behind which there may be more; none: this was all.
    pub more_after: Option<ReservationId>,
}

impl Shard {
    /// Looks for reservations behind one, or from the first on: at `looked_at_max` at most, and
    /// until `found_max` are found. What is there from the first call to the last is found once,
    /// whatever comes and goes meanwhile.
    pub fn list(
        &self,
        filter: &Filter,
        after: Option<ReservationId>,
        found_max: usize,
        looked_at_max: usize,
    ) -> Listed {
        let mut listed = self.look_for(filter, after, found_max, looked_at_max);
        if !self.holds.undecided.is_empty() {
            let found = listed.found.iter().filter(|it| it.state.is_open());
            let undecided = found.filter(|it| self.is_undecided(&it.id));
            listed.undecided = undecided.map(|it| it.id).collect();
        }
        listed
    }

    fn look_for(
        &self,
        filter: &Filter,
        after: Option<ReservationId>,
        found_max: usize,
        looked_at_max: usize,
    ) -> Listed {
        match &filter.order_reference {
            Some(reference) => {
                let from = match after {
                    Some(after) => Bound::Excluded((reference.clone(), after)),
                    None => {
                        let first = ReservationId::FIRST;
                        Bound::Included((reference.clone(), first))
                    }
                };
                let behind = self.holds.references.range((from, Bound::Unbounded));
                let of_order = behind.take_while(|(of, _)| of == reference);
                let reservations = of_order.filter_map(|(_, id)| self.holds.get(id));
                look_through(reservations, filter, found_max, looked_at_max)
            }
            None => {
                let behind = self.holds.buckets.behind(after.as_ref());
                let reservations = behind.map(|(_, hold)| &hold.reservation);
                look_through(reservations, filter, found_max, looked_at_max)
            }
        }
    }
}

fn look_through<'a>(
    reservations: impl Iterator<Item = &'a Arc<Reservation>>,
    filter: &Filter,
    found_max: usize,
    looked_at_max: usize,
) -> Listed {
    let mut listed = Listed::default();
    let mut last = None;
    for (number, reservation) in reservations.enumerate() {
        if number >= looked_at_max || listed.found.len() >= found_max {
            listed.more_after = last;
            break;
        }
        last = Some(reservation.id);
        if filter.takes(reservation) {
            listed.found.push(Arc::clone(reservation));
        }
    }
    listed
}
