//! What the leader of a shard sees to at others: its participants are told what it has decided,
//! what it has not decided is found out, and homes that say nothing of a part are asked.
//!
//! All of it follows from the shard's state. What is here is only what is under way: another leader
//! begins anew, and whatever was said twice has no effect.

use std::collections::{BTreeMap, BTreeSet};

use stock_core::{
    Acknowledge, Action, Ask, BasketCommand, BasketOutcome, Command, Due, Outcome, Principal,
    ReservationId, Shard, ToldAnew,
};

use super::finding_out::FindingOut;
use super::others::{Others, Sent};
use super::parts::{ITSELF, ToShard};
use crate::answer::Failure;

/// Commands that travel to one shard together. There is one such batch for each pair of shards.
const BATCH_MAX: usize = 128;

/// Reservations about which homes have been asked lately.
const ASKED_MAX: usize = 4_096;

/// Parts that are looked at in one turn of the loop.
const LOOKED_AT_MAX: usize = 1_024;

/// Parts that were not there to follow.
const MISSING_MAX: usize = 4_096;

/// A home that knows a reservation is asked again after this, unless it has told by then.
const ASK_AGAIN_AFTER_MS: u64 = 5_000;

/// Commands that go to another shard together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// To this one.
    pub to: u32,
    /// When, by the leader's clock: its answer says so, too.
    pub sent_ms: u64,
    /// In this order.
    pub commands: Vec<Command>,
}

/// What a leader has under way for its shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errands {
    others: Others,
    finding_out: FindingOut,
    /// Parts that were not there to follow: they are made anew.
    missing: BTreeSet<(u32, ReservationId)>,
    /// About which reservations homes were asked, and when.
    asked: BTreeMap<ReservationId, u64>,
    /// The part about which it has asked last, if there are more.
    asked_behind: Option<Due>,
}

impl Errands {
    /// What is to be said now, by the leader of this shard of that number.
    pub fn due(&mut self, own: u32, shard: &Shard, now_ms: u64) -> Vec<Errand> {
        self.others.give_up_what_is_lost(now_ms);
        let mut batches: BTreeMap<u32, Vec<(Sent, ToShard)>> = BTreeMap::new();
        // Nothing is held here before others have told: that stands behind nothing else.
        for (to, anew) in shard.awaits(own) {
            if self.others.may_tell(to, now_ms) {
                let tell = ToShard::new(to, &ITSELF, BasketCommand::TellAnew(anew));
                let sent = Sent::TellAnew(anew);
                batches.entry(to).or_default().push((sent, tell));
            }
        }
        for to in shard.owes().filter(|to| self.others.may_tell(*to, now_ms)) {
            for mut follow in shard.owed_to(to).take(BATCH_MAX) {
                follow.anew = self.missing.contains(&(to, follow.id));
                let Some(principal) = shard.reservation(&follow.id).map(|it| &it.principal) else {
                    continue;
                };
                let sent = Sent::Follow(follow.id, follow.version, principal.clone());
                let tell = ToShard::new(to, principal, BasketCommand::Follow(follow));
                batches.entry(to).or_default().push((sent, tell));
            }
        }
        for (ask, principal) in self.asks(own, shard, now_ms) {
            let to = ask.id.shard();
            let tell = ToShard::new(to, principal, BasketCommand::Ask(ask));
            let sent = Sent::Ask(ask, principal.clone());
            batches.entry(to).or_default().push((sent, tell));
        }
        for tell in self.finding_out.probes(shard, &self.others, now_ms) {
            let Action::Basket(BasketCommand::Probe(probe)) = &tell.command.action else {
                continue;
            };
            let sent = Sent::Probe(probe.id, probe.question);
            batches.entry(tell.shard).or_default().push((sent, tell));
        }
        let errands = batches.into_iter().map(|(to, mut batch)| {
            batch.truncate(BATCH_MAX);
            let (sent, tell): (Vec<Sent>, Vec<ToShard>) = batch.into_iter().unzip();
            self.others.tell(to, now_ms, sent);
            Errand {
                to,
                sent_ms: now_ms,
                commands: tell.into_iter().map(|tell| tell.command).collect(),
            }
        });
        errands.collect()
    }

    /// About which parts homes are to be asked now. All are looked at in turn: those that cannot be
    /// asked about now stand in nobody's way.
    fn asks<'a>(&mut self, own: u32, shard: &'a Shard, now_ms: u64) -> Vec<(Ask, &'a Principal)> {
        let is_old = |at: &u64| now_ms >= at + ASK_AGAIN_AFTER_MS;
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, at| !is_old(at));
        }
        let room = ASKED_MAX.saturating_sub(self.asked.len()).min(BATCH_MAX);
        let (mut asks, mut looked_at) = (Vec::new(), 0);
        let mut behind = self.asked_behind.take();
        for (due, ask, principal) in shard.asks(own, behind).take(LOOKED_AT_MAX) {
            if asks.len() >= room {
                self.asked_behind = behind;
                return asks;
            }
            (behind, looked_at) = (Some(due), looked_at + 1);
            let is_new = self.asked.get(&ask.id).is_none_or(is_old);
            if is_new && self.others.may_tell(ask.id.shard(), now_ms) {
                asks.push((ask, principal));
            }
        }
        self.asked_behind = behind.filter(|_| looked_at == LOOKED_AT_MAX);
        asks
    }

    /// A shard has said this to what it was told then: an answer to each command, or none at all.
    /// What this leader's own shard is to be told.
    pub fn answered(
        &mut self,
        own: u32,
        (from, sent_ms): (u32, u64),
        said: Result<Vec<Outcome>, Failure>,
        now_ms: u64,
    ) -> Vec<ToShard> {
        let Some(batch) = self.others.take(from, sent_ms) else {
            return Vec::new();
        };
        let Ok(outcomes) = said else {
            self.others.has_not_answered(from, now_ms);
            return Vec::new();
        };
        if self.others.has_answered(from) {
            self.finding_out.is_back(from);
        }
        let mut tell = Vec::new();
        let (mut followed, mut for_whom) = (Vec::new(), None);
        for (sent, outcome) in batch.into_iter().zip(outcomes) {
            match (sent, outcome) {
                (Sent::Follow(id, version, principal), Outcome::Basket(BasketOutcome::Done)) => {
                    self.missing.remove(&(from, id));
                    followed.push((id, version));
                    for_whom = Some(principal);
                }
                (Sent::Follow(id, ..), Outcome::Basket(BasketOutcome::Missing)) => {
                    if self.missing.len() >= MISSING_MAX {
                        self.missing.clear();
                    }
                    self.missing.insert((from, id));
                }
                (Sent::Probe(id, question), outcome) => {
                    let decide = self.finding_out.answered((id, question), from, outcome);
                    tell.extend(decide);
                }
                (Sent::TellAnew(anew), Outcome::Basket(BasketOutcome::Done)) => {
                    let told = ToldAnew {
                        recovery: anew.recovery,
                        shard: from,
                    };
                    tell.push(ToShard::new(own, &ITSELF, BasketCommand::ToldAnew(told)));
                }
                // It is asked again with the next batch.
                (Sent::TellAnew(_), _) => {}
                (Sent::Ask(_, principal), Outcome::Basket(BasketOutcome::Ended(follow))) => {
                    tell.push(ToShard::new(
                        own,
                        &principal,
                        BasketCommand::Follow(*follow),
                    ));
                }
                (Sent::Ask(ask, _), _) => {
                    self.asked.insert(ask.id, now_ms);
                }
                (Sent::Follow(..), _) => {}
            }
        }
        if let Some(principal) = for_whom {
            let shard = from;
            let acknowledge = BasketCommand::Acknowledge(Acknowledge { shard, followed });
            tell.push(ToShard::new(own, &principal, acknowledge));
        }
        tell
    }
}
