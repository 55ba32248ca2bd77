//! Bytes to state. Total: whatever the bytes are, they are a state that could have been written so,
//! or there is a [`Flaw`]; and nothing is allocated that the bytes have no room for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::HAS_LABELS;
use crate::apply::holds::Hold;
use crate::buckets::{Key, Table};
use crate::catalog::{CatalogOutcome, Coordinates, LocationType, PutLocation};
use crate::codec::bytes::{Read, Reader};
use crate::documents::{Amiss, DocumentKey, RecordedLine};
use crate::error::Flaw;
use crate::ids::{Fingerprint, Location, RequestId, ReservationId, Secret};
use crate::labels::Labels;
use crate::limits::COUNTER_MAX;
use crate::memory::{Remembered, RequestKey};
use crate::names::{Interning, Names};
use crate::outcome::{Discrepancy, Policy, Refusal};
use crate::parts::PartRecord;
use crate::position::Position;
use crate::reservation::{Reservation, State};
use crate::sku::Sku;
use crate::stock::Stock;
use crate::text::OrderReference;
use crate::timeline::Timeline;
use crate::verdict::{ShortNeeds, Verdict};

/// What can be held of a position at most, and so be reserved there: all that is on hand and all
/// that may be sold besides.
const HELD_MAX: i64 = 2 * COUNTER_MAX;

/// Which bucket is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    pub(crate) number: usize,
    pub(crate) buckets: usize,
    pub(crate) secret: Secret,
}

/// What a bucket is made of.
impl Reader<'_> {
    pub(crate) fn stocks(
        &mut self,
        place: Bucket,
        names: &mut Names,
    ) -> Read<BTreeMap<Sku, Stock>> {
        self.map("SKUs", place, 3, |reader| {
            Ok((reader.sku()?, reader.stock(names)?))
        })
    }

    pub(crate) fn holds(
        &mut self,
        place: Bucket,
        names: &mut Names,
    ) -> Read<Timeline<ReservationId, Hold>> {
        self.map("reservations", place, 22, |reader| {
            let hold = reader.hold(names)?;
            Ok((hold.reservation.id, hold))
        })
    }

    pub(crate) fn parts(
        &mut self,
        place: Bucket,
        names: &mut Names,
    ) -> Read<Timeline<ReservationId, PartRecord>> {
        if self.is_empty() {
            return Ok(Timeline::default());
        }
        let parts: Timeline<ReservationId, PartRecord> =
            self.map("parts", place, 20, |reader| reader.part(names))?;
        match parts.len() {
            0 => Err(Flaw::TooLong { bytes: 1 }),
            _ => Ok(parts),
        }
    }

    pub(crate) fn requests<V: Clone>(
        &mut self,
        place: Bucket,
        names: &mut Names,
        verdict: impl Fn(&mut Self, &mut Names) -> Read<V>,
    ) -> Read<Timeline<RequestKey, Remembered<V>>> {
        self.map("requests", place, 29, |reader| {
            reader.remembered(names, &verdict)
        })
    }

    pub(crate) fn documents(&mut self, place: Bucket) -> Read<BTreeMap<DocumentKey, RecordedLine>> {
        self.map("documents", place, 20, Self::recorded)
    }

    pub(crate) fn amiss(&mut self, place: Bucket) -> Read<BTreeMap<DocumentKey, Amiss>> {
        self.map("discrepancies", place, 19, |reader| {
            let key = DocumentKey::from_bytes(reader.fixed()?);
            let amiss = Amiss {
                available: reader.signed()?,
                short_by: reader.signed()?,
                endangered: reader.ids()?.into(),
            };
            Ok((key, amiss))
        })
    }

    pub(crate) fn locations(&mut self, place: Bucket) -> Read<BTreeMap<Location, PutLocation>> {
        self.map("locations", place, 6, |reader| {
            let put = reader.location()?;
            Ok((put.location.clone(), put))
        })
    }

    /// Keys come in order and belong to the bucket; a record has at least `bytes_min`.
    fn map<K: Key, V, M: Table<K, V>>(
        &mut self,
        what: &'static str,
        place: Bucket,
        bytes_min: usize,
        mut record: impl FnMut(&mut Self) -> Read<(K, V)>,
    ) -> Read<M> {
        let count = self.count(bytes_min)?;
        let mut records: Vec<(K, V)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, value) = record(self)?;
            if key.bucket(place.secret, place.buckets) != place.number {
                return Err(Flaw::WrongBucket { what });
            }
            if records.last().is_some_and(|(before, _)| *before >= key) {
                return Err(Flaw::OutOfOrder { what });
            }
            records.push((key, value));
        }
        Ok(M::from_sorted(records))
    }
}

/// Records.
impl Reader<'_> {
    pub(super) fn stock(&mut self, names: &mut Names) -> Read<Stock> {
        let count = self.count(6)?;
        let mut positions: Vec<Position> = Vec::with_capacity(count);
        for _ in 0..count {
            let position = Position {
                location: names.location_named(self.text()?)?,
                on_hand: self.within("on hand", -COUNTER_MAX, COUNTER_MAX)?,
                reserved: self.within("reserved", 0, HELD_MAX)?,
                safety_stock: self.within("safety stock", 0, COUNTER_MAX)?,
                backorder_limit: self.within("backorder limit", 0, COUNTER_MAX)?,
            };
            let before = positions.last().map(|before| &before.location);
            if before.is_some_and(|before| *before >= position.location) {
                let what = "positions";
                return Err(Flaw::OutOfOrder { what });
            }
            positions.push(position);
        }
        Ok(Stock::new(positions))
    }

    pub(super) fn hold(&mut self, names: &mut Names) -> Read<Hold> {
        let (reservation, has_spread) = self.marked_reservation(names)?;
        let spread = match has_spread {
            false => None,
            true => Some(Box::new(self.spread(names)?)),
        };
        let mut hold = Hold::new(Arc::new(reservation), spread);
        if hold.is_over() {
            hold.more.get_or_insert_default().ended = Some(self.place()?);
        }
        Ok(hold)
    }

    pub(super) fn reservation(&mut self, names: &mut impl Interning) -> Read<Reservation> {
        match self.marked_reservation(names)? {
            (reservation, false) => Ok(reservation),
            (_, true) => {
                let (what, tag) = ("mark of a reservation", super::HAS_SPREAD);
                Err(Flaw::UnknownTag { what, tag })
            }
        }
    }

    /// And whether more of it stands behind it.
    fn marked_reservation(&mut self, names: &mut impl Interning) -> Read<(Reservation, bool)> {
        let id = ReservationId::new(self.fixed()?)?;
        let tag = self.tag()?;
        let state = state_of(tag & !(HAS_LABELS | super::HAS_SPREAD))?;
        let expires_at = self.optional_stamp()?;
        let created_at = self.past()?;
        let principal = names.principal_named(self.text()?)?;
        let labels = match tag & HAS_LABELS {
            0 => None,
            _ => Some(self.labels(names)?),
        };
        let lines = self.lines(names)?;
        let reservation = Reservation {
            id,
            state,
            expires_at,
            created_at,
            principal,
            labels,
            lines,
        };
        match why_unsound(&reservation) {
            None => Ok((reservation, tag & super::HAS_SPREAD != 0)),
            Some(why) => Err(Flaw::Unsound {
                reservation: id,
                why,
            }),
        }
    }

    /// So many units of a reservation's line.
    pub(super) fn held(&mut self, what: &'static str, min: i64) -> Read<i64> {
        self.within(what, min, HELD_MAX)
    }

    fn labels(&mut self, names: &mut impl Interning) -> Read<Arc<Labels>> {
        let order_reference = match self.text()? {
            "" => None,
            text => Some(OrderReference::new(text)?),
        };
        let channel = match self.text()? {
            "" => None,
            text => Some(names.channel_named(text)?),
        };
        let what = "labels of a reservation";
        Labels::new(order_reference, channel).ok_or(Flaw::WithoutRecord { what })
    }

    pub(super) fn remembered<V>(
        &mut self,
        names: &mut Names,
        verdict: impl Fn(&mut Self, &mut Names) -> Read<V>,
    ) -> Read<(RequestKey, Remembered<V>)> {
        let key = RequestKey {
            id: RequestId::new(self.fixed()?)?,
            principal: names.principal_named(self.text()?)?,
        };
        let remembered = Remembered {
            fingerprint: Fingerprint(self.fixed()?),
            place: self.place()?,
            verdict: verdict(self, names)?,
        };
        Ok((key, remembered))
    }

    pub(super) fn recorded(&mut self) -> Read<(DocumentKey, RecordedLine)> {
        let key = DocumentKey::from_bytes(self.fixed()?);
        let fingerprint = self.narrow("fingerprint")?;
        let sequence = self.narrow("sequence number")?;
        let stamp = self.past()?;
        let ahead_steps = self.narrow("time ahead")?;
        let recorded = RecordedLine::new(fingerprint, sequence, stamp, ahead_steps);
        match recorded.stamp() == stamp {
            true => Ok((key, recorded)),
            false => Err(Flaw::StampTooLate { stamp: stamp.0 }),
        }
    }

    pub(super) fn location(&mut self) -> Read<PutLocation> {
        Ok(PutLocation {
            location: Location::new(self.text()?)?,
            kind: match self.tag()? {
                1 => LocationType::Warehouse,
                2 => LocationType::Store,
                tag => {
                    let what = "type of location";
                    return Err(Flaw::UnknownTag { what, tag });
                }
            },
            name: self.text()?.to_owned(),
            coordinates: match self.tag()? {
                0 => None,
                1 => Some(Coordinates {
                    latitude_e6: self.degrees_e6("latitude")?,
                    longitude_e6: self.degrees_e6("longitude")?,
                }),
                tag => {
                    let what = "choice of coordinates";
                    return Err(Flaw::UnknownTag { what, tag });
                }
            },
            gln: self.text()?.to_owned(),
        })
    }

    fn degrees_e6(&mut self, what: &'static str) -> Read<i32> {
        let value = self.signed()?;
        i32::try_from(value).map_err(|_| Flaw::QuantityOutOfRange { what, value })
    }
}

/// In what way the parts of a reservation contradict each other.
fn why_unsound(reservation: &Reservation) -> Option<&'static str> {
    let state = reservation.state;
    if state == State::Held && reservation.expires_at.is_none() {
        return Some("is held for ever");
    }
    for line in &reservation.lines {
        if line.expired() < 0 {
            return Some("has more units than were held");
        }
        if line.open > 0 && !state.is_open() {
            return Some("has ended with open units");
        }
        if line.expired() > 0 && state != State::Expired {
            return Some("has expired units and has not expired");
        }
    }
    None
}

/// Answers.
impl Reader<'_> {
    pub(crate) fn verdict(&mut self, names: &mut Names) -> Read<Verdict> {
        Ok(match self.tag()? {
            1 => Verdict::Held {
                id: ReservationId::new(self.fixed()?)?,
                created_at: self.past()?,
                expires_at: self.stamp()?,
            },
            2 => Verdict::Reservation(Arc::new(self.reservation(names)?)),
            3 => Verdict::Shortage(ShortNeeds::from_bytes(self.blob()?)?),
            4 => Verdict::Policy(Box::new(self.policy(names)?)),
            5 => Verdict::Refused(Box::new(self.refusal()?)),
            6 => Verdict::Prepared {
                id: ReservationId::new(self.fixed()?)?,
            },
            tag => {
                let what = "verdict";
                return Err(Flaw::UnknownTag { what, tag });
            }
        })
    }

    /// What the catalog answered.
    ///
    /// # Errors
    ///
    /// It is not as [`Writer::catalog_outcome`](super::Writer::catalog_outcome) would have written
    /// it.
    pub fn catalog_outcome(&mut self) -> Result<CatalogOutcome, Flaw> {
        match self.tag()? {
            1 => Ok(CatalogOutcome::Put),
            2 => Ok(CatalogOutcome::Refused(self.refusal()?)),
            tag => {
                let what = "outcome";
                Err(Flaw::UnknownTag { what, tag })
            }
        }
    }

    pub(super) fn policy(&mut self, names: &mut impl Interning) -> Read<Policy> {
        Ok(Policy {
            safety_stock: self.signed()?,
            backorder_limit: self.signed()?,
            available: self.signed()?,
            discrepancy: self.discrepancy(names)?,
        })
    }

    pub(super) fn discrepancy(
        &mut self,
        names: &mut impl Interning,
    ) -> Read<Option<Box<Discrepancy>>> {
        match self.tag()? {
            0 => Ok(None),
            1 => Ok(Some(Box::new(Discrepancy {
                sku: self.sku()?,
                location: names.location_named(self.text()?)?,
                available: self.signed()?,
                short_by: self.signed()?,
                endangered: self.ids()?,
            }))),
            tag => {
                let what = "discrepancy";
                Err(Flaw::UnknownTag { what, tag })
            }
        }
    }

    pub(super) fn refusal(&mut self) -> Read<Refusal> {
        Ok(match self.tag()? {
            1 => Refusal::RequestTooOld {
                horizon: self.stamp()?,
            },
            2 => Refusal::RequestFromFuture,
            3 => Refusal::RequestReused,
            4 => Refusal::RequestMemoryFull,
            5 => Refusal::DocumentTooOld {
                horizon: self.stamp()?,
            },
            6 => Refusal::DocumentReused,
            7 => Refusal::OccurredInFuture,
            8 => Refusal::UnknownSku { line: self.line()? },
            9 => Refusal::UnknownReservation,
            10 => Refusal::WrongState {
                state: self.state()?,
            },
            11 => Refusal::NothingToExtend,
            12 => Refusal::LineNotInReservation { line: self.line()? },
            13 => Refusal::LineAmbiguous { line: self.line()? },
            14 => Refusal::LineExceedsOpen {
                line: self.line()?,
                open: self.signed()?,
            },
            15 => Refusal::CounterOutOfRange { line: self.line()? },
            16 => Refusal::TooManyReservations,
            17 => Refusal::TooManyPositions,
            18 => Refusal::TooManyLocations,
            19 => Refusal::ReservationIdTaken,
            20 => Refusal::DocumentMemoryFull,
            21 => Refusal::TooLate,
            22 => Refusal::NotHeldInTime,
            23 => Refusal::Reconciling,
            tag => {
                let what = "refusal";
                return Err(Flaw::UnknownTag { what, tag });
            }
        })
    }

    fn state(&mut self) -> Read<State> {
        state_of(self.tag()?)
    }
}

/// The state of this number.
fn state_of(tag: u8) -> Read<State> {
    match tag {
        1 => Ok(State::Held),
        2 => Ok(State::Confirmed),
        3 => Ok(State::Fulfilled),
        4 => Ok(State::Released),
        5 => Ok(State::Expired),
        tag => {
            let what = "state";
            Err(Flaw::UnknownTag { what, tag })
        }
    }
}
