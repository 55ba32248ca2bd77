//! A shard from its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::apply::holds::{Hold, Holds};
use crate::apply::shelves::Shelves;
use crate::buckets::Table;
use crate::codec::{Bucket, ShardHead};
use crate::documents::{self, DocumentPlace, LINE_BYTES};
use crate::error::{Flaw, Part, RestoreError};
use crate::home::own_lines;
use crate::ids::{Location, ReservationId, Stamp};
use crate::limits::BUCKETS;
use crate::memory::{Remembered, RequestKey};
use crate::names::Names;
use crate::order::Place;
use crate::parts::{PartRecord, Parts};
use crate::reservation::ReservationLine;
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
        shard.recoveries = head.recoveries.clone();
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
        let (stocks, holds, requests, documents, amiss, parts) =
            read_part(Part::Bucket(number), bytes, now, |reader| {
                let read = (
                    reader.stocks(place, shelf_names)?,
                    reader.holds(place, names)?,
                    reader.requests(place, names, |reader, names| reader.verdict(names))?,
                    reader.documents(place)?,
                    reader.amiss(place)?,
                    reader.parts(place, names)?,
                );
                let (_, _, _, documents, amiss, _) = &read;
                match amiss.keys().all(|key| documents.contains_key(key)) {
                    true => Ok(read),
                    false => Err(Flaw::WithoutRecord {
                        what: "a discrepancy",
                    }),
                }
            })?;
        for (_, hold) in holds.iter() {
            let id = hold.reservation.id;
            self.ended.extend(hold.ended().map(|place| (place, id)));
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
        self.shard.parts.buckets.set(number, parts);
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
        post_parts(&mut shard.parts, &mut shard.shelves)?;
        settle_claims(&mut shard.shelves, self.claims)?;
        check_count("open reservations", head.open, shard.holds.open)?;
        check_count("parts of reservations", head.parts, shard.parts.held)?;
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
            ("bytes of parts", head.part_bytes, shard.parts.held_bytes),
            (
                "bytes of tombstones",
                head.tombstone_bytes,
                shard.parts.tombstone_bytes,
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
    let (mut undecided, mut owed) = (Vec::new(), Vec::new());
    for hold in holds.buckets.values_mut() {
        let bytes = hold.bytes();
        match hold.ended() {
            None => {
                holds.open += 1;
                holds.open_bytes += bytes;
            }
            Some(_) => holds.ended_bytes += bytes,
        }
        let Hold { reservation, more } = hold;
        let reservation = Arc::make_mut(reservation);
        let id = reservation.id;
        references.extend(reservation.order_reference().map(|it| (it.clone(), id)));
        if reservation.state.is_open() {
            expiries.extend(reservation.expires_at.map(|at| (at, id)));
        }
        let held_at = reservation.created_at;
        let spread = more.as_mut().and_then(|more| more.spread.as_mut());
        let is_own = own_lines(&id, spread.as_ref().map(|spread| spread.shards));
        for line in &mut reservation.lines {
            shelves.share_names(line);
            if is_own(&line.sku) {
                post_line(shelves, line, id, held_at)?;
            }
        }
        let Some(spread) = spread else {
            continue;
        };
        owed.extend(spread.owed().map(|shard| (shard, id)));
        let Some(it) = &mut spread.undecided else {
            continue;
        };
        undecided.push((it.since, id));
        if let Some(amendment) = &mut it.amendment {
            amendment
                .lines
                .iter_mut()
                .for_each(|line| shelves.share_names(line));
            for line in &mut amendment.extras {
                shelves.share_names(line);
                post_line(shelves, line, id, held_at)?;
            }
        }
    }
    holds.expiries = expiries.into_iter().collect();
    holds.references = references.into_iter().collect();
    holds.undecided = undecided.into_iter().collect();
    holds.owed = owed.into_iter().collect();
    Ok(())
}

/// As [`post_holds`], of parts whose home is another shard.
fn post_parts(parts: &mut Parts, shelves: &mut Shelves) -> Result<(), RestoreError> {
    let (mut asks, mut ends) = (Vec::new(), Vec::new());
    for record in parts.buckets.values_mut() {
        match record {
            PartRecord::Held(part) => {
                parts.held += 1;
                parts.held_bytes += part.bytes();
                asks.push((part.ask_at, part.id));
                let part = Arc::make_mut(part);
                let (id, held_at) = (part.id, part.created_at);
                for line in &mut part.lines {
                    shelves.share_names(line);
                    post_line(shelves, line, id, held_at)?;
                }
            }
            PartRecord::Tombstone(tombstone) => parts.tombstone_bytes += tombstone.bytes(),
        }
    }
    let tombstones = parts
        .buckets
        .iter()
        .filter_map(|(id, record)| match record {
            PartRecord::Tombstone(tombstone) => Some((tombstone.until, *id)),
            PartRecord::Held(_) => None,
        });
    ends.extend(tombstones);
    parts.asks = asks.into_iter().collect();
    parts.ends = ends.into_iter().collect();
    Ok(())
}

/// Sets aside what a line has open.
fn post_line(
    shelves: &mut Shelves,
    line: &ReservationLine,
    id: ReservationId,
    held_at: Stamp,
) -> Result<(), RestoreError> {
    if line.open == 0 {
        return Ok(());
    }
    let missing = || RestoreError::PositionMissing {
        reservation: id,
        sku: line.sku.clone(),
        location: line.location.clone(),
    };
    let stock = shelves.stock_mut(&line.sku).ok_or_else(missing)?;
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
    stock.holders.add(&line.location, held_at, id);
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
            _ => {
                let lines = &mut Arc::make_mut(reservation).lines;
                lines.iter_mut().for_each(|line| shelves.share_names(line));
            }
        },
        Verdict::Held { .. }
        | Verdict::Prepared { .. }
        | Verdict::Shortage(_)
        | Verdict::Policy(_)
        | Verdict::Refused(_) => {}
    }
}
