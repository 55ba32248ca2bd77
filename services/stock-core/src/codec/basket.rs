//! Baskets over several shards: as commands, as answers, and in a state.
//!
//! ```text
//! over           shards, asked at, 1 on the last try
//! lines          of a reservation: how many, then sku, location, quantity, open, fulfilled,
//!                released
//! not held       1 short, lines as of a shortage, 1 if by undecided ones alone; 2 refused; 3 gone
//!
//! 14 hold part   id, version, asked at, 1 on the last try, lines of number, sku, location,
//!                quantity
//! 15 probe       id, version, asked at
//! 16 follow      id, version, asked at, ask at, 1 if it is made anew, lines
//! 17 decide      id, version, 1 held; 2 not held, why
//! 18 acknowledge shard, reservations of id, version
//! 19 ask         id, shard, asked at
//! 20 recovered   shard, shards
//! 21 tell anew   recovery, shard
//! 22 told anew   recovery, shard
//! 23 all held    reservations of id, version, ask at
//!
//! recoveries     how many of the own group, who is awaited, others with how many of theirs
//! ```

mod states;

use std::sync::Arc;

use smallvec::SmallVec;

use super::bytes::{Read, Reader, Writer};
use super::command::{read_line, write_line};
use crate::basket::{
    Acknowledge, AllHeld, Ask, BasketCommand, Decide, Decision, Follow, HeldBasket, HoldPart,
    NumberedLine, Over, Probe, Question, Recovered, TellAnew, ToldAnew,
};
use crate::error::Flaw;
use crate::ids::{Location, ReservationId, Stamp};
use crate::limits::LINES_MAX;
use crate::names::{Interning, Naming, NewNames};
use crate::outcome::{BasketOutcome, InTheWay, NotHeld, Prepared, ShortLine, Shortage, ToBeTold};
use crate::reservation::{ReservationLine, ReservationLines};

pub(super) const HOLD_PART: u8 = 14;
pub(super) const PROBE: u8 = 15;
pub(super) const FOLLOW: u8 = 16;
pub(super) const DECIDE: u8 = 17;
pub(super) const ACKNOWLEDGE: u8 = 18;
pub(super) const ASK: u8 = 19;
pub(super) const RECOVERED: u8 = 20;
pub(super) const TELL_ANEW: u8 = 21;
pub(super) const TOLD_ANEW: u8 = 22;
pub(super) const ALL_HELD: u8 = 23;

/// What is in the way.
const STOCK: u8 = 0;
const LATER: u8 = 1;
const EARLIER: u8 = 2;

/// A short line takes at least: two names of a letter, and three numbers.
const SHORT_LINE_BYTES_MIN: usize = 7;
/// A line of a reservation: two names of a letter, and four numbers.
const LINE_BYTES_MIN: usize = 8;
/// A line of a part that is asked for: a number, two names of a letter, a quantity.
const NUMBERED_BYTES_MIN: usize = 6;
/// A reservation and its version.
const FOLLOWED_BYTES_MIN: usize = 17;
/// A reservation, its version, and when is asked about it.
const HELD_BYTES_MIN: usize = 18;

/// Commands.
impl Writer {
    pub(super) fn over(&mut self, over: &Over) {
        self.number(u64::from(over.shards));
        self.stamp(over.asked_at);
        self.flag(over.is_last_try);
    }

    pub(super) fn basket(&mut self, command: &BasketCommand) {
        match command {
            BasketCommand::HoldPart(hold) => {
                self.tag(HOLD_PART);
                self.fixed(hold.id.as_bytes());
                self.number(u64::from(hold.version));
                self.stamp(hold.asked_at);
                self.flag(hold.is_last_try);
                self.count(hold.lines.len());
                for NumberedLine { number, line } in &hold.lines {
                    self.number(u64::from(*number));
                    write_line(self, line);
                }
            }
            BasketCommand::Probe(probe) => {
                self.tag(PROBE);
                self.fixed(probe.id.as_bytes());
                self.number(u64::from(probe.question.version));
                self.stamp(probe.asked_at);
                self.flag(probe.question.has_ended);
            }
            BasketCommand::Follow(follow) => {
                self.tag(FOLLOW);
                self.follow(follow);
            }
            BasketCommand::Decide(decide) => {
                self.tag(DECIDE);
                self.fixed(decide.id.as_bytes());
                self.number(u64::from(decide.version));
                match &decide.decision {
                    Decision::Held => self.tag(1),
                    Decision::NotHeld(why) => {
                        self.tag(2);
                        self.not_held(why);
                    }
                }
            }
            BasketCommand::Acknowledge(acknowledge) => {
                self.tag(ACKNOWLEDGE);
                self.number(u64::from(acknowledge.shard));
                self.count(acknowledge.followed.len());
                for (id, version) in &acknowledge.followed {
                    self.fixed(id.as_bytes());
                    self.number(u64::from(*version));
                }
            }
            BasketCommand::Ask(ask) => {
                self.tag(ASK);
                self.fixed(ask.id.as_bytes());
                self.number(u64::from(ask.shard));
                self.stamp(ask.asked_at);
            }
            BasketCommand::Recovered(recovered) => {
                self.tag(RECOVERED);
                self.number(u64::from(recovered.shard));
                self.number(u64::from(recovered.shards));
            }
            BasketCommand::TellAnew(TellAnew { recovery, shard }) => {
                self.tag(TELL_ANEW);
                self.number(u64::from(*recovery));
                self.number(u64::from(*shard));
            }
            BasketCommand::ToldAnew(ToldAnew { recovery, shard }) => {
                self.tag(TOLD_ANEW);
                self.number(u64::from(*recovery));
                self.number(u64::from(*shard));
            }
            BasketCommand::AllHeld(all) => {
                self.tag(ALL_HELD);
                self.count(all.baskets.len());
                for basket in &all.baskets {
                    self.held_basket(basket);
                }
            }
        }
    }

    fn held_basket(&mut self, basket: &HeldBasket) {
        self.fixed(basket.id.as_bytes());
        self.number(u64::from(basket.version));
        self.stamp(basket.ask_at);
    }

    fn follow(&mut self, follow: &Follow) {
        self.fixed(follow.id.as_bytes());
        self.number(u64::from(follow.version));
        self.stamp(follow.asked_at);
        self.stamp(follow.ask_at);
        self.flag(follow.anew);
        self.lines(&follow.lines);
    }

    fn flag(&mut self, flag: bool) {
        self.tag(u8::from(flag));
    }

    fn not_held(&mut self, why: &NotHeld) {
        match why {
            NotHeld::Short(shortage) => {
                self.tag(1);
                self.shortage(shortage);
            }
            NotHeld::Refused(refusal) => {
                self.tag(2);
                self.refusal(refusal);
            }
            NotHeld::Gone => self.tag(3),
        }
    }

    pub(super) fn shortage(&mut self, shortage: &Shortage) {
        self.count(shortage.lines.len());
        for line in &shortage.lines {
            self.text(line.sku.as_str());
            self.text(line.location.as_str());
            self.signed(line.requested);
            self.signed(line.available);
            self.signed(line.reservable);
        }
        self.tag(match shortage.in_the_way {
            InTheWay::Stock => STOCK,
            InTheWay::Later => LATER,
            InTheWay::Earlier => EARLIER,
        });
    }

    pub(super) fn lines(&mut self, lines: &[ReservationLine]) {
        self.count(lines.len());
        for line in lines {
            self.text(line.sku.as_str());
            self.text(line.location.as_str());
            self.signed(line.quantity);
            self.signed(line.open);
            self.signed(line.fulfilled);
            self.signed(line.released);
        }
    }
}

impl Reader<'_> {
    pub(super) fn over(&mut self) -> Read<Over> {
        Ok(Over {
            shards: self.shards()?,
            asked_at: self.stamp()?,
            is_last_try: self.flag()?,
        })
    }

    pub(super) fn basket(&mut self, kind: u8, names: &impl Naming) -> Read<BasketCommand> {
        Ok(match kind {
            HOLD_PART => BasketCommand::HoldPart(HoldPart {
                id: self.reservation_id()?,
                version: self.version()?,
                asked_at: self.stamp()?,
                is_last_try: self.flag()?,
                lines: {
                    let count = self.count(NUMBERED_BYTES_MIN)?;
                    let line = |_| {
                        Ok(NumberedLine {
                            number: self.line()?,
                            line: read_line(self, names)?,
                        })
                    };
                    (0..count).map(line).collect::<Read<_>>()?
                },
            }),
            PROBE => {
                let (id, version, asked_at) =
                    (self.reservation_id()?, self.version()?, self.stamp()?);
                let has_ended = self.flag()?;
                BasketCommand::Probe(Probe {
                    id,
                    question: Question { version, has_ended },
                    asked_at,
                })
            }
            FOLLOW => BasketCommand::Follow(self.follow()?),
            DECIDE => BasketCommand::Decide(Decide {
                id: self.reservation_id()?,
                version: self.version()?,
                decision: match self.tag()? {
                    1 => Decision::Held,
                    2 => Decision::NotHeld(self.not_held()?),
                    tag => {
                        let what = "decision";
                        return Err(Flaw::UnknownTag { what, tag });
                    }
                },
            }),
            ACKNOWLEDGE => BasketCommand::Acknowledge(Acknowledge {
                shard: self.narrow("shard")?,
                followed: {
                    let count = self.count(FOLLOWED_BYTES_MIN)?;
                    let followed = |_| Ok((self.reservation_id()?, self.version()?));
                    (0..count).map(followed).collect::<Read<_>>()?
                },
            }),
            ASK => BasketCommand::Ask(Ask {
                id: self.reservation_id()?,
                shard: self.narrow("shard")?,
                asked_at: self.stamp()?,
            }),
            RECOVERED => BasketCommand::Recovered(Recovered {
                shard: self.a_shard()?,
                shards: self.shards()?,
            }),
            TELL_ANEW => BasketCommand::TellAnew(TellAnew {
                recovery: self.narrow("recovery")?,
                shard: self.a_shard()?,
            }),
            TOLD_ANEW => BasketCommand::ToldAnew(ToldAnew {
                recovery: self.narrow("recovery")?,
                shard: self.a_shard()?,
            }),
            ALL_HELD => BasketCommand::AllHeld(AllHeld {
                baskets: {
                    let count = self.count(HELD_BYTES_MIN)?;
                    let baskets = (0..count).map(|_| self.held_basket());
                    baskets.collect::<Read<_>>()?
                },
            }),
            tag => {
                let what = "command between shards";
                return Err(Flaw::UnknownTag { what, tag });
            }
        })
    }

    fn held_basket(&mut self) -> Read<HeldBasket> {
        Ok(HeldBasket {
            id: self.reservation_id()?,
            version: self.version()?,
            ask_at: self.stamp()?,
        })
    }

    fn follow(&mut self) -> Read<Follow> {
        Ok(Follow {
            id: self.reservation_id()?,
            version: self.version()?,
            asked_at: self.stamp()?,
            ask_at: self.stamp()?,
            anew: self.flag()?,
            lines: self.lines(&mut NewNames)?.into_vec(),
        })
    }

    /// The number of a shard.
    fn a_shard(&mut self) -> Read<u32> {
        match self.number()? {
            value if value < u64::from(ReservationId::SHARDS_MAX) => Ok(value as u32),
            value => {
                let what = "shard";
                Err(Flaw::NumberOutOfRange { what, value })
            }
        }
    }

    fn reservation_id(&mut self) -> Read<ReservationId> {
        Ok(ReservationId::new(self.fixed()?)?)
    }

    fn version(&mut self) -> Read<u32> {
        self.narrow("version")
    }

    fn shards(&mut self) -> Read<u32> {
        match self.number()? {
            value @ 1.. if value <= u64::from(ReservationId::SHARDS_MAX) => Ok(value as u32),
            value => {
                let what = "number of shards";
                Err(Flaw::NumberOutOfRange { what, value })
            }
        }
    }

    fn flag(&mut self) -> Read<bool> {
        match self.tag()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => {
                let what = "yes or no";
                Err(Flaw::UnknownTag { what, tag })
            }
        }
    }

    fn not_held(&mut self) -> Read<NotHeld> {
        Ok(match self.tag()? {
            1 => NotHeld::Short(Arc::new(self.shortage()?)),
            2 => NotHeld::Refused(self.refusal()?),
            3 => NotHeld::Gone,
            tag => {
                let what = "reason why a part is not held";
                return Err(Flaw::UnknownTag { what, tag });
            }
        })
    }

    pub(super) fn shortage(&mut self) -> Read<Shortage> {
        let count = self.count(SHORT_LINE_BYTES_MIN)?;
        let line = |_| {
            Ok(ShortLine {
                sku: self.sku()?,
                location: Location::new(self.text()?)?,
                requested: self.signed()?,
                available: self.signed()?,
                reservable: self.signed()?,
            })
        };
        Ok(Shortage {
            lines: (0..count).map(line).collect::<Read<_>>()?,
            in_the_way: match self.tag()? {
                STOCK => InTheWay::Stock,
                LATER => InTheWay::Later,
                EARLIER => InTheWay::Earlier,
                tag => {
                    let what = "what is in the way";
                    return Err(Flaw::UnknownTag { what, tag });
                }
            },
        })
    }

    pub(super) fn lines(&mut self, names: &mut impl Interning) -> Read<ReservationLines> {
        let count = self.count(LINE_BYTES_MIN)?;
        let line = |_| {
            Ok(ReservationLine {
                sku: self.sku()?,
                location: names.location_named(self.text()?)?,
                quantity: self.held("quantity", 1)?,
                open: self.held("open", 0)?,
                fulfilled: self.held("fulfilled", 0)?,
                released: self.held("released", 0)?,
            })
        };
        (0..count).map(line).collect()
    }
}

/// Answers.
impl Writer {
    pub(super) fn prepared(&mut self, prepared: &Prepared) {
        self.reservation(&prepared.reservation);
        self.number(u64::from(prepared.version));
        self.stamp(prepared.asked_at);
        self.number(u64::from(prepared.shards));
        self.shard_list(&prepared.asked);
    }

    pub(super) fn basket_outcome(&mut self, outcome: &BasketOutcome) {
        match outcome {
            BasketOutcome::Held => self.tag(1),
            BasketOutcome::NotHeld(why) => {
                self.tag(2);
                self.not_held(why);
            }
            BasketOutcome::Over => self.tag(3),
            BasketOutcome::Done => self.tag(4),
            BasketOutcome::Missing => self.tag(5),
            BasketOutcome::Known => self.tag(6),
            BasketOutcome::Ended(follow) => {
                self.tag(7);
                self.follow(follow);
            }
            BasketOutcome::Telling => self.tag(8),
            BasketOutcome::AllHeld(tell) => {
                self.tag(9);
                self.held_basket(&tell.basket);
                self.shard_list(&tell.participants);
            }
        }
    }

    fn shard_list(&mut self, shards: &[u32]) {
        self.count(shards.len());
        for shard in shards {
            self.number(u64::from(*shard));
        }
    }
}

impl Reader<'_> {
    pub(super) fn prepared(&mut self) -> Read<Prepared> {
        Ok(Prepared {
            reservation: Arc::new(self.reservation(&mut NewNames)?),
            version: self.version()?,
            asked_at: self.stamp()?,
            shards: self.shards()?,
            asked: self.shard_list()?.into_vec(),
        })
    }

    pub(super) fn basket_outcome(&mut self) -> Read<BasketOutcome> {
        Ok(match self.tag()? {
            1 => BasketOutcome::Held,
            2 => BasketOutcome::NotHeld(self.not_held()?),
            3 => BasketOutcome::Over,
            4 => BasketOutcome::Done,
            5 => BasketOutcome::Missing,
            6 => BasketOutcome::Known,
            7 => BasketOutcome::Ended(Box::new(self.follow()?)),
            8 => BasketOutcome::Telling,
            9 => BasketOutcome::AllHeld(Box::new(ToBeTold {
                basket: self.held_basket()?,
                participants: self.shard_list()?,
            })),
            tag => {
                let what = "answer between shards";
                return Err(Flaw::UnknownTag { what, tag });
            }
        })
    }

    /// By their numbers, each once.
    fn shard_list(&mut self) -> Read<SmallVec<[u32; 4]>> {
        let count = self.count(1)?;
        let mut shards: SmallVec<[u32; 4]> = SmallVec::with_capacity(count.min(LINES_MAX));
        for _ in 0..count {
            let shard = self.narrow("shard")?;
            if shards.last().is_some_and(|before| *before >= shard) {
                let what = "shards";
                return Err(Flaw::OutOfOrder { what });
            }
            shards.push(shard);
        }
        Ok(shards)
    }
}

/// What may be left out.
impl Writer {
    pub(super) fn optional_stamp(&mut self, at: Option<Stamp>) {
        match at {
            None => self.tag(0),
            Some(at) => {
                self.tag(1);
                self.stamp(at);
            }
        }
    }
}

impl Reader<'_> {
    pub(super) fn optional_stamp(&mut self) -> Read<Option<Stamp>> {
        match self.tag()? {
            0 => Ok(None),
            1 => Ok(Some(self.stamp()?)),
            tag => {
                let what = "expiry";
                Err(Flaw::UnknownTag { what, tag })
            }
        }
    }
}

#[cfg(test)]
mod tests;
