//! What a shard or the catalog answers, as one node passes it on to another.
//!
//! ```text
//! 1 reservation
//! 2 shortage      lines of sku, location, requested, available, reservable; 1 if undecided baskets
//!                 alone are the cause
//! 3 policy
//! 4 movements     verdicts: 1 recorded, discrepancy, how far ahead its time was in ms;
//!                 2 recorded before, discrepancy; 3 refused
//! 5 refused
//! 6 prepared      reservation, version, asked at, shards, those who were asked
//! 7 undecided     likewise
//! 8 basket        what shards answer each other
//! ```
//!
//! Reservations, policies, discrepancies and refusals are written as they are in a state.

use std::sync::Arc;

use crate::codec::bytes::{Read, Reader, Writer};
use crate::error::Flaw;
use crate::names::NewNames;
use crate::outcome::{LineVerdict, Outcome};

const RESERVATION: u8 = 1;
const SHORTAGE: u8 = 2;
const POLICY: u8 = 3;
const MOVEMENTS: u8 = 4;
const REFUSED: u8 = 5;
const PREPARED: u8 = 6;
const UNDECIDED: u8 = 7;
const BASKET: u8 = 8;

const RECORDED: u8 = 1;
const RECORDED_BEFORE: u8 = 2;
const LINE_REFUSED: u8 = 3;

impl Writer {
    /// What a shard answers.
    pub fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Reservation(reservation) => {
                self.tag(RESERVATION);
                self.reservation(reservation);
            }
            Outcome::Shortage(shortage) => {
                self.tag(SHORTAGE);
                self.shortage(shortage);
            }
            Outcome::Prepared(prepared) => {
                self.tag(PREPARED);
                self.prepared(prepared);
            }
            Outcome::Undecided(prepared) => {
                self.tag(UNDECIDED);
                self.prepared(prepared);
            }
            Outcome::Basket(outcome) => {
                self.tag(BASKET);
                self.basket_outcome(outcome);
            }
            Outcome::Policy(policy) => {
                self.tag(POLICY);
                self.policy(policy);
            }
            Outcome::Movements(verdicts) => {
                self.tag(MOVEMENTS);
                self.count(verdicts.len());
                for verdict in verdicts {
                    self.line_verdict(verdict);
                }
            }
            Outcome::Refused(refusal) => {
                self.tag(REFUSED);
                self.refusal(refusal);
            }
        }
    }

    fn line_verdict(&mut self, verdict: &LineVerdict) {
        match verdict {
            LineVerdict::Recorded {
                discrepancy,
                ahead_ms,
            } => {
                self.tag(RECORDED);
                self.discrepancy(discrepancy.as_deref());
                self.number(*ahead_ms);
            }
            LineVerdict::AlreadyRecorded { discrepancy } => {
                self.tag(RECORDED_BEFORE);
                self.discrepancy(discrepancy.as_deref());
            }
            LineVerdict::Refused(refusal) => {
                self.tag(LINE_REFUSED);
                self.refusal(refusal);
            }
        }
    }
}

impl Reader<'_> {
    /// What a shard answered.
    ///
    /// # Errors
    ///
    /// It is not as [`Writer::outcome`] would have written it.
    pub fn outcome(&mut self) -> Result<Outcome, Flaw> {
        Ok(match self.tag()? {
            RESERVATION => Outcome::Reservation(Arc::new(self.reservation(&mut NewNames)?)),
            SHORTAGE => Outcome::Shortage(Arc::new(self.shortage()?)),
            PREPARED => Outcome::Prepared(Arc::new(self.prepared()?)),
            UNDECIDED => Outcome::Undecided(Arc::new(self.prepared()?)),
            BASKET => Outcome::Basket(self.basket_outcome()?),
            POLICY => Outcome::Policy(self.policy(&mut NewNames)?),
            MOVEMENTS => Outcome::Movements(self.list(2, Self::line_verdict)?.into()),
            REFUSED => Outcome::Refused(self.refusal()?),
            tag => {
                let what = "outcome";
                return Err(Flaw::UnknownTag { what, tag });
            }
        })
    }

    fn line_verdict(&mut self) -> Read<LineVerdict> {
        Ok(match self.tag()? {
            RECORDED => LineVerdict::Recorded {
                discrepancy: self.discrepancy(&mut NewNames)?,
                ahead_ms: self.number()?,
            },
            RECORDED_BEFORE => LineVerdict::AlreadyRecorded {
                discrepancy: self.discrepancy(&mut NewNames)?,
            },
            LINE_REFUSED => LineVerdict::Refused(self.refusal()?),
            tag => {
                let what = "verdict on a line";
                return Err(Flaw::UnknownTag { what, tag });
            }
        })
    }

    fn list<T>(
        &mut self,
        bytes_min: usize,
        mut item: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let count = self.count(bytes_min)?;
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basket::{Follow, HeldBasket};
    use crate::ids::{Location, Principal, ReservationId, Stamp};
    use crate::outcome::{
        BasketOutcome, Discrepancy, InTheWay, NotHeld, Policy, Prepared, Refusal, ShortLine,
        Shortage, ToBeTold,
    };
    use crate::reservation::{Reservation, ReservationLine, State};
    use crate::sku::Sku;

    fn reservation(state: State) -> Reservation {
        let open = if state.is_open() { 4 } else { 0 };
        Reservation {
            id: ReservationId::compose(Stamp(5), 2, 77),
            state,
            expires_at: (state == State::Held).then_some(Stamp(12)),
            created_at: Stamp(3),
            principal: Principal::new("web").unwrap(),
            labels: None,
            lines: [ReservationLine {
                sku: Sku::new("MUG").unwrap(),
                location: Location::new("A").unwrap(),
                quantity: 9,
                open,
                fulfilled: 3,
                released: if state == State::Expired { 1 } else { 6 - open },
            }]
            .into(),
        }
    }

    fn every_kind() -> Vec<Outcome> {
        let states = [
            State::Held,
            State::Confirmed,
            State::Fulfilled,
            State::Released,
            State::Expired,
        ];
        let mut outcomes: Vec<Outcome> = states
            .map(|state| Outcome::Reservation(Arc::new(reservation(state))))
            .into();
        let (sku, location) = (Sku::new("MUG").unwrap(), Location::new("A").unwrap());
        outcomes.push(Outcome::Shortage(Arc::new(Shortage {
            lines: vec![ShortLine {
                sku: sku.clone(),
                location: location.clone(),
                requested: 3,
                available: -2,
                reservable: 1,
            }],
            in_the_way: InTheWay::Earlier,
        })));
        let prepared = Arc::new(Prepared {
            reservation: Arc::new(reservation(State::Held)),
            version: 3,
            asked_at: Stamp(4),
            shards: 8,
            asked: vec![1, 7],
        });
        outcomes.push(Outcome::Prepared(Arc::clone(&prepared)));
        outcomes.push(Outcome::Undecided(prepared));
        let short = Arc::new(Shortage {
            lines: Vec::new(),
            in_the_way: InTheWay::Later,
        });
        let id = ReservationId::compose(Stamp(5), 2, 77);
        let baskets = [
            BasketOutcome::Held,
            BasketOutcome::NotHeld(NotHeld::Short(short)),
            BasketOutcome::NotHeld(NotHeld::Refused(Refusal::TooLate)),
            BasketOutcome::NotHeld(NotHeld::Gone),
            BasketOutcome::Over,
            BasketOutcome::Done,
            BasketOutcome::Missing,
            BasketOutcome::Known,
            BasketOutcome::Ended(Box::new(Follow::gone(id, 7, Stamp(9)))),
            BasketOutcome::Telling,
            BasketOutcome::AllHeld(Box::new(ToBeTold {
                basket: HeldBasket {
                    id,
                    version: 1,
                    ask_at: Stamp(6),
                },
                participants: [1, 7].into_iter().collect(),
            })),
        ];
        outcomes.extend(baskets.map(Outcome::Basket));
        let discrepancy = Some(Box::new(Discrepancy {
            sku,
            location,
            available: -3,
            short_by: 3,
            endangered: vec![ReservationId::compose(Stamp(5), 2, 77)],
        }));
        outcomes.push(Outcome::Policy(Policy {
            safety_stock: 1,
            backorder_limit: 2,
            available: 3,
            discrepancy: discrepancy.clone(),
        }));
        outcomes.push(Outcome::Movements(Box::new([
            LineVerdict::Recorded {
                discrepancy: None,
                ahead_ms: 0,
            },
            LineVerdict::Recorded {
                discrepancy: discrepancy.clone(),
                ahead_ms: 70_000,
            },
            LineVerdict::AlreadyRecorded { discrepancy: None },
            LineVerdict::AlreadyRecorded { discrepancy },
            LineVerdict::Refused(Refusal::DocumentReused),
        ])));
        outcomes.extend(every_refusal().map(Outcome::Refused));
        outcomes
    }

    fn every_refusal() -> [Refusal; 22] {
        [
            Refusal::RequestTooOld { horizon: Stamp(4) },
            Refusal::RequestFromFuture,
            Refusal::RequestReused,
            Refusal::RequestMemoryFull,
            Refusal::DocumentTooOld { horizon: Stamp(5) },
            Refusal::DocumentReused,
            Refusal::OccurredInFuture,
            Refusal::UnknownSku { line: 3 },
            Refusal::UnknownReservation,
            Refusal::WrongState {
                state: State::Released,
            },
            Refusal::NothingToExtend,
            Refusal::LineNotInReservation { line: 1 },
            Refusal::LineAmbiguous { line: 2 },
            Refusal::LineExceedsOpen { line: 2, open: 8 },
            Refusal::CounterOutOfRange { line: 1 },
            Refusal::TooManyReservations,
            Refusal::TooManyPositions,
            Refusal::TooManyLocations,
            Refusal::ReservationIdTaken,
            Refusal::DocumentMemoryFull,
            Refusal::TooLate,
            Refusal::NotHeldInTime,
        ]
    }

    #[test]
    fn outcomes_survive_the_way_between_nodes_and_what_is_cut_off_is_an_error() {
        for outcome in every_kind() {
            let mut writer = Writer::default();
            writer.outcome(&outcome);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.outcome().as_ref(), Ok(&outcome));
            assert_eq!(reader.end(), Ok(()));
            for at in 0..bytes.len() {
                let read = Reader::new(&bytes[..at]).outcome();
                assert!(read.is_err(), "{outcome:?} cut at {at}");
            }
        }
    }
}
