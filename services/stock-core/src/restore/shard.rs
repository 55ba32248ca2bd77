//! A shard from its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::apply::holds::Holds;
use crate::apply::shelves::Shelves;
use crate::buckets::Table;
use crate::codec::{Bucket, ShardHead};
use crate::documents::{self, DocumentPlace, LINE_BYTES};
use crate::error::{Flaw, Part, RestoreError};
use crate::ids::{Location, ReservationId, Stamp};
use crate::limits::BUCKETS;
use crate::memory::{Remembered, RequestKey};
use crate::names::Names;
use crate::order::Place;
use crate::reservation::Reservation;
use crate::restore::{Given, StateRestorer, broken_order, check_count, read_part, restored_order};
use crate::shard::Shard;
use crate::sku::Sku;
use crate::stock::Stock;
use crate::verdict::Verdict;

/// Makes a [`Shard`].
#[derive(Debug)]
pub struct ShardRestorer {
    head: ShardHead,
    given: Given,
    shard: Shard,
    /// What is reserved of each position by its own counter.
    claims: Vec<Claim>,
    ended: Vec<(Place, ReservationId)>,
    requests: Vec<(Place, RequestKey)>,
    documents: Vec<DocumentPlace>,
    /// Of principals, and of lines until these share the names on the shelves.
    names: Names,
}

#[derive(Debug)]
struct Claim {
    sku: Sku,
    location: Location,
    reserved: i64,
}

impl StateRestorer for ShardRestorer {
    type State = Shard;

    fn new(head: &[u8]) -> Result<Self, RestoreError> {
        let head = read_part(Part::Head, head, Stamp(u64::MAX), |reader| {
            ShardHead::read(reader, BUCKETS)
        })?;
        let mut shard = Shard::new(head.secret);
        shard.applied = head.applied;
        shard.requests.horizon = head.requests.horizon;
        shard.documents.horizon = head.documents.horizon;
        Ok(Self {
            head,
            given: Given::none_of(BUCKETS),
            shard,
            claims: Vec::new(),
            ended: Vec::new(),
            requests: Vec::new(),
            documents: Vec::new(),
            names: Names::default(),
        })
    }

    fn buckets(&self) -> usize {
        BUCKETS
    }

    fn bucket(&mut self, number: usize, bytes: &[u8]) -> Result<(), RestoreError> {
        self.given.take(number)?;
        let now = self.head.applied.stamp();
        let (shelf_names, names) = (&mut self.shard.names, &mut self.names);
        let place = Bucket {
            number,
            buckets: BUCKETS,
            secret: self.head.secret,
        };
        let (stocks, holds, requests, documents, amiss) =
            read_part(Part::Bucket(number), bytes, now, |reader| {
                let read = (
                    reader.stocks(place, shelf_names)?,
                    reader.holds(place, names)?,
                    reader.requests(place, names, |reader, names| reader.verdict(names))?,
                    reader.documents(place)?,
                    reader.amiss(place)?,
                );
                let (_, _, _, documents, amiss) = &read;
                match amiss.keys().all(|key| documents.contains_key(key)) {
                    true => Ok(read),
                    false => Err(Flaw::WithoutRecord {
                        what: "a discrepancy",
                    }),
                }
            })?;
        for (_, hold) in holds.iter() {
            let id = hold.reservation.id;
            self.ended
                .extend(hold.ended.iter().map(|place| (**place, id)));
        }
        let places = requests.iter().map(|(key, it)| (it.place, key.clone()));
        self.requests.extend(places);
        self.documents.extend(documents::places(&documents));
        let bytes = requests.iter().map(|(_, it)| Remembered::bytes(it));
        self.shard.requests.bytes += bytes.sum::<usize>();
        let amiss_bytes: usize = amiss.values().map(|amiss| amiss.bytes()).sum();
        self.shard.documents.bytes += LINE_BYTES * documents.len() + amiss_bytes;
        self.shard.documents.amiss_bytes += amiss_bytes;
        self.take_stocks(number, stocks);
        self.shard.holds.buckets.set(number, holds);
        self.shard.requests.buckets.set(number, requests);
        self.shard.documents.buckets.set(number, documents);
        self.shard.documents.amiss.set(number, amiss);
        Ok(())
    }

    fn finish(mut self) -> Result<Shard, RestoreError> {
        self.given.check()?;
        let (head, shard) = (self.head, &mut self.shard);
        check_count("SKUs", head.skus, shard.shelves.skus)?;
        check_count("positions", head.positions, shard.shelves.positions)?;

        shard.names.adopt_callers(self.names);
        post_holds(&mut shard.holds, &mut shard.shelves)?;
        settle_claims(&mut shard.shelves, self.claims)?;
        check_count("open reservations", head.open, shard.holds.open)?;
        for (what, head, found) in [
            (
                "bytes of open reservations",
                head.open_bytes,
                shard.holds.open_bytes,
            ),
            (
                "bytes of ended reservations",
                head.ended_bytes,
                shard.holds.ended_bytes,
            ),
            (
                "bytes of requests",
                head.requests.bytes,
                shard.requests.bytes,
            ),
            (
                "bytes of documents",
                head.documents.bytes,
                shard.documents.bytes,
            ),
        ] {
            check_count(what, head, found)?;
        }
        for remembered in shard.requests.buckets.values_mut() {
            share_verdict(remembered, &shard.holds, &shard.shelves);
        }

        let ended = restored_order("ended reservations", head.ended, self.ended)?;
        shard.holds.ended = ended;
        let requests = restored_order("requests", head.requests.order, self.requests)?;
        shard.requests.order = requests;
        let (what, order) = ("documents", head.documents.order);
        check_count(what, order.len, self.documents.len())?;
        shard
            .documents
            .restore_order(self.documents, order.next)
            .map_err(|disorder| broken_order(what, disorder))?;
        Ok(self.shard)
    }
}

impl ShardRestorer {
    /// Puts stock on the shelves, with a debt where something shall be reserved.
    fn take_stocks(&mut self, number: usize, mut stocks: BTreeMap<Sku, Stock>) {
        let shelves = &mut self.shard.shelves;
        shelves.skus += stocks.len();
        for (sku, stock) in &mut stocks {
            shelves.positions += stock.positions().len();
            for position in stock.positions_mut() {
                let reserved = position.reserved;
                if reserved != 0 {
                    position.reserved = -reserved;
                    self.claims.push(Claim {
                        sku: sku.clone(),
                        location: position.location.clone(),
                        reserved,
                    });
                }
            }
        }
        shelves.buckets.set(number, stocks);
    }
}

/// Sets aside what open reservations hold, and finds what else follows from them.
fn post_holds(holds: &mut Holds, shelves: &mut Shelves) -> Result<(), RestoreError> {
    let (mut expiries, mut references) = (Vec::new(), Vec::new());
    for hold in holds.buckets.values_mut() {
        let reservation = Arc::make_mut(&mut hold.reservation);
        let id = reservation.id;
        references.extend(reservation.order_reference().map(|it| (it.clone(), id)));
        if reservation.state.is_open() {
            holds.open += 1;
            holds.open_bytes += reservation.bytes();
            expiries.extend(reservation.expires_at.map(|at| (at, id)));
        } else {
            holds.ended_bytes += reservation.bytes();
        }
        share_names(reservation, shelves);
        for line in reservation.lines.iter().filter(|line| line.open > 0) {
            let stock = shelves.stock_mut(&line.sku);
            let missing = || RestoreError::PositionMissing {
                reservation: id,
                sku: line.sku.clone(),
                location: line.location.clone(),
            };
            let stock = stock.ok_or_else(missing)?;
            let position = stock.position_mut(&line.location).ok_or_else(missing)?;
            position.reserved += line.open;
            // Past the debt, so more is held than is reserved.
            if position.reserved > 0 {
                return Err(RestoreError::ReservedDiffers {
                    sku: line.sku.clone(),
                    location: line.location.clone(),
                    by: position.reserved,
                });
            }
            stock
                .holders
                .add(&line.location, reservation.created_at, id);
        }
    }
    holds.expiries = expiries.into_iter().collect();
    holds.references = references.into_iter().collect();
    Ok(())
}

/// Sets every counter to what it was, if what is held there has come to that.
fn settle_claims(shelves: &mut Shelves, claims: Vec<Claim>) -> Result<(), RestoreError> {
    for claim in claims {
        let stock = shelves.stock_mut(&claim.sku);
        let position = stock.and_then(|stock| stock.position_mut(&claim.location));
        let Some(position) = position else {
            continue;
        };
        if position.reserved != 0 {
            return Err(RestoreError::ReservedDiffers {
                sku: claim.sku,
                location: claim.location,
                by: -position.reserved,
            });
        }
        position.reserved = claim.reserved;
    }
    Ok(())
}

/// Lets what is remembered of a request share what others keep as well.
fn share_verdict(remembered: &mut Remembered<Verdict>, holds: &Holds, shelves: &Shelves) {
    match &mut remembered.verdict {
        Verdict::Reservation(reservation) => match holds.get(&reservation.id) {
            Some(held) if held == reservation => *reservation = Arc::clone(held),
            _ => share_names(Arc::make_mut(reservation), shelves),
        },
        Verdict::Held { .. } | Verdict::Shortage(_) | Verdict::Policy(_) | Verdict::Refused(_) => {}
    }
}

fn share_names(reservation: &mut Reservation, shelves: &Shelves) {
    for line in &mut reservation.lines {
        if let Some((sku, stock)) = shelves.shared_sku(&line.sku) {
            line.sku = sku.clone();
            if let Some(position) = stock.position(&line.location) {
                line.location = position.location.clone();
            }
        }
    }
}
