//! What a shard keeps of baskets over several shards, in its state.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::codec::bytes::{Read, Reader, Writer};
use crate::error::Flaw;
use crate::home::{Amendment, Participant, Spread, Undecided};
use crate::ids::{RequestId, ReservationId};
use crate::memory::RequestKey;
use crate::names::{Interning, Names};
use crate::outcome::NotHeld;
use crate::parts::{Part, PartRecord, Tombstone};
use crate::recoveries::Recoveries;

/// A shard, and the number of a recovery.
const OTHER_BYTES_MIN: usize = 2;
/// A participant in a spread.
const PARTICIPANT_BYTES_MIN: usize = 2;

impl Writer {
    pub(in crate::codec) fn recoveries(&mut self, recoveries: &Recoveries) {
        self.number(u64::from(recoveries.own));
        let awaited: SmallVec<[u32; 8]> = recoveries.awaited.iter().copied().collect();
        self.shard_list(&awaited);
        self.count(recoveries.others.len());
        for (shard, recovery) in &recoveries.others {
            self.number(u64::from(*shard));
            self.number(u64::from(*recovery));
        }
    }

    pub(in crate::codec) fn spread(&mut self, spread: &Spread) {
        self.number(u64::from(spread.shards));
        self.number(u64::from(spread.version));
        self.stamp(spread.asked_at);
        self.count(spread.participants.len());
        for participant in &spread.participants {
            self.number(u64::from(participant.shard));
            self.number(u64::from(participant.followed));
        }
        let Some(undecided) = &spread.undecided else {
            return self.tag(0);
        };
        self.tag(1);
        self.stamp(undecided.since);
        self.fixed(undecided.request.id.as_bytes());
        self.text(undecided.request.principal.as_str());
        self.shard_list(&undecided.asked);
        self.flag(undecided.is_to_be_told);
        let Some(amendment) = &undecided.amendment else {
            return self.tag(0);
        };
        self.tag(1);
        self.lines(&amendment.lines);
        self.optional_stamp(amendment.expires_at);
        self.lines(&amendment.extras);
    }

    pub(in crate::codec) fn part(&mut self, id: &ReservationId, record: &PartRecord) {
        self.fixed(id.as_bytes());
        match record {
            PartRecord::Held(part) => {
                self.tag(1);
                self.text(part.principal.as_str());
                self.stamp(part.created_at);
                self.stamp(part.asked_at);
                self.number(u64::from(part.told));
                self.number(u64::from(part.held));
                self.stamp(part.ask_at);
                match part.refused.as_deref() {
                    None => self.tag(0),
                    Some((version, why)) => {
                        self.tag(1);
                        self.number(u64::from(*version));
                        self.not_held(why);
                    }
                }
                self.lines(&part.lines);
            }
            PartRecord::Tombstone(tombstone) => {
                self.tag(2);
                self.number(u64::from(tombstone.version));
                self.stamp(tombstone.until);
                match &tombstone.why {
                    None => self.tag(0),
                    Some(why) => self.not_held(why),
                }
            }
        }
    }
}

impl Reader<'_> {
    pub(in crate::codec) fn recoveries(&mut self) -> Read<Recoveries> {
        let own = self.narrow("recovery")?;
        let awaited = self.shard_list()?.into_iter().collect();
        let count = self.count(OTHER_BYTES_MIN)?;
        let mut others: BTreeMap<u32, u32> = BTreeMap::new();
        for _ in 0..count {
            let (shard, recovery) = (self.a_shard()?, self.narrow("recovery")?);
            if others
                .last_key_value()
                .is_some_and(|(before, _)| *before >= shard)
            {
                let what = "shards";
                return Err(Flaw::OutOfOrder { what });
            }
            others.insert(shard, recovery);
        }
        Ok(Recoveries {
            own,
            awaited,
            others,
        })
    }

    pub(in crate::codec) fn spread(&mut self, names: &mut Names) -> Read<Spread> {
        let (shards, version, asked_at) = (self.shards()?, self.version()?, self.stamp()?);
        let count = self.count(PARTICIPANT_BYTES_MIN)?;
        let mut participants: SmallVec<[Participant; 4]> = SmallVec::new();
        for _ in 0..count {
            let participant = Participant {
                shard: self.narrow("shard")?,
                followed: self.version()?,
            };
            let before = participants.last().map(|before| before.shard);
            if before.is_some_and(|before| before >= participant.shard) {
                let what = "participants";
                return Err(Flaw::OutOfOrder { what });
            }
            if participant.followed > version {
                let (what, value) = ("version", u64::from(participant.followed));
                return Err(Flaw::NumberOutOfRange { what, value });
            }
            participants.push(participant);
        }
        let undecided = match self.flag()? {
            true => Some(Box::new(self.undecided(names)?)),
            false => None,
        };
        Ok(Spread {
            shards,
            version,
            asked_at,
            participants,
            undecided,
        })
    }

    fn undecided(&mut self, names: &mut Names) -> Read<Undecided> {
        Ok(Undecided {
            since: self.past()?,
            request: RequestKey {
                id: RequestId::new(self.fixed()?)?,
                principal: names.principal_named(self.text()?)?,
            },
            asked: self.shard_list()?,
            is_to_be_told: self.flag()?,
            amendment: match self.flag()? {
                false => None,
                true => Some(Amendment {
                    lines: self.lines(names)?,
                    expires_at: self.optional_stamp()?,
                    extras: self.lines(names)?,
                }),
            },
        })
    }

    pub(in crate::codec) fn part(
        &mut self,
        names: &mut Names,
    ) -> Read<(ReservationId, PartRecord)> {
        let id = self.reservation_id()?;
        let record = match self.tag()? {
            1 => PartRecord::Held(Arc::new(Part {
                id,
                principal: names.principal_named(self.text()?)?,
                created_at: self.past()?,
                asked_at: self.stamp()?,
                told: self.version()?,
                held: self.version()?,
                ask_at: self.stamp()?,
                refused: match self.flag()? {
                    false => None,
                    true => Some(Box::new((self.version()?, self.not_held()?))),
                },
                lines: self.lines(names)?,
            })),
            2 => PartRecord::Tombstone(Box::new(Tombstone {
                version: self.version()?,
                until: self.stamp()?,
                why: self.why_not_held()?,
            })),
            tag => {
                let what = "part of a reservation";
                return Err(Flaw::UnknownTag { what, tag });
            }
        };
        match why_unsound(&record) {
            None => Ok((id, record)),
            Some(why) => Err(Flaw::Unsound {
                reservation: id,
                why,
            }),
        }
    }

    fn why_not_held(&mut self) -> Read<Option<NotHeld>> {
        match self.peek() {
            Some(0) => self.tag().map(|_| None),
            _ => self.not_held().map(Some),
        }
    }
}

/// In what way what is known of a part contradicts itself.
fn why_unsound(record: &PartRecord) -> Option<&'static str> {
    let PartRecord::Held(part) = record else {
        return None;
    };
    let has_open = part.lines.iter().any(|line| line.open > 0);
    if part.lines.iter().any(|line| line.expired() < 0) {
        return Some("has a part with more units than were held");
    }
    if part.told > part.held {
        return Some("has a part that heard of more than it holds");
    }
    if !has_open && !part.is_undecided() {
        return Some("has a part of which nothing is left");
    }
    let refused = part.refused();
    refused
        .is_some_and(|(version, _)| version <= part.told)
        .then_some("has a part that was refused and decided")
}
