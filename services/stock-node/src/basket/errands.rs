//! What the leader of a shard sees to at others: its participants are told what it has decided,
//! what it has not decided is found out, and homes that say nothing of a part are asked.
//!
//! All of it follows from the shard's state. What is here is only what is under way: another leader
//! begins anew, and whatever was said twice has no effect.

use std::collections::{BTreeMap, BTreeSet};

use stock_core::{
    Acknowledge, Action, Ask, BasketCommand, BasketOutcome, Command, NotHeld, Outcome, Principal,
    ReservationId, Shard, TellAnew, ToldAnew,
};

use super::parts::{ITSELF, ToShard};
use super::settling::Settling;
use crate::answer::Failure;

/// What is prepared so long, and not decided by whoever had it prepared, is found out.
pub(super) const UNDECIDED_FOR_MS: u64 = 1_000;

/// Commands that travel to one shard together. There is one such batch for each pair of shards.
const BATCH_MAX: usize = 128;

/// Reservations of a shard that are found out at once.
const SETTLING_MAX: usize = 256;

/// Reservations about which homes have been asked lately.
const ASKED_MAX: usize = 4_096;

/// Parts that were not there to follow.
const MISSING_MAX: usize = 4_096;

/// A home that knows a reservation is asked again after this, unless it has told by then.
const ASK_AGAIN_AFTER_MS: u64 = 5_000;

/// A shard that did not answer is left alone for this long...
const PATIENCE_MS: u64 = 100;
/// ...for twice as long after each further failure, and no longer than this.
const PATIENCE_MAX_MS: u64 = 5_000;

/// What has no answer after this has been lost, with the answer or before: it is said again.
pub const ANSWERED_WITHIN_MS: u64 = 10_000;

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
    /// By the shard that they went to, and when.
    batches: BTreeMap<u32, (u64, Vec<Sent>)>,
    settling: BTreeMap<ReservationId, Settling>,
    /// Parts that were not there to follow: they are made anew.
    missing: BTreeSet<(u32, ReservationId)>,
    /// About which reservations homes were asked, and when.
    asked: BTreeMap<ReservationId, u64>,
    /// Shards that did not answer: how often, and until when they are left alone.
    silent: BTreeMap<u32, (u32, u64)>,
}

/// What a command of a batch was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sent {
    Follow(ReservationId, u32, Principal),
    /// With the version, and whether the reservation has ended.
    Probe(ReservationId, u32, bool),
    TellAnew(TellAnew),
    Ask(Ask, Principal),
}

impl Errands {
    /// What is to be said now, by the leader of this shard of that number.
    pub fn due(&mut self, own: u32, shard: &Shard, now_ms: u64) -> Vec<Errand> {
        self.give_up_what_is_lost(now_ms);
        let mut batches: BTreeMap<u32, Vec<(Sent, ToShard)>> = BTreeMap::new();
        // Nothing is held here before others have told: that stands behind nothing else.
        for (to, anew) in shard.awaits(own) {
            if self.may_tell(to, now_ms) {
                let tell = ToShard::new(to, &ITSELF, BasketCommand::TellAnew(anew));
                let sent = Sent::TellAnew(anew);
                batches.entry(to).or_default().push((sent, tell));
            }
        }
        for to in shard.owes().filter(|to| self.may_tell(*to, now_ms)) {
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
        let may_ask = |(ask, _): &(Ask, _)| {
            let asked = self.asked.get(&ask.id);
            let is_new = asked.is_none_or(|at| now_ms >= at + ASK_AGAIN_AFTER_MS);
            is_new && self.may_tell(ask.id.shard(), now_ms)
        };
        // Those that cannot be asked about now stand in nobody's way.
        let asks = shard.asks(own).take(ASKED_MAX).filter(may_ask);
        for (ask, principal) in asks.take(BATCH_MAX) {
            let to = ask.id.shard();
            let tell = ToShard::new(to, principal, BasketCommand::Ask(ask));
            let sent = Sent::Ask(ask, principal.clone());
            batches.entry(to).or_default().push((sent, tell));
        }
        for tell in self.probes(shard, now_ms) {
            let Action::Basket(BasketCommand::Probe(probe)) = &tell.command.action else {
                continue;
            };
            let sent = Sent::Probe(probe.id, probe.version, probe.has_ended);
            batches.entry(tell.shard).or_default().push((sent, tell));
        }
        let errands = batches.into_iter().map(|(to, mut batch)| {
            batch.truncate(BATCH_MAX);
            let (sent, tell): (Vec<Sent>, Vec<ToShard>) = batch.into_iter().unzip();
            self.batches.insert(to, (now_ms, sent));
            Errand {
                to,
                sent_ms: now_ms,
                commands: tell.into_iter().map(|tell| tell.command).collect(),
            }
        });
        errands.collect()
    }

    /// Finds out what has been undecided for too long: the participants that have yet to say
    /// whether they hold their part.
    fn probes(&mut self, shard: &Shard, now_ms: u64) -> Vec<ToShard> {
        let prepared_by = shard.stamp().minus_ms(UNDECIDED_FOR_MS);
        let undecided: Vec<_> = shard.undecided(prepared_by).take(SETTLING_MAX).collect();
        let has_ended = |id: &ReservationId| shard.has_ended_undecided(id);
        // Once it has ended, everybody is told so, whether or not he has answered before.
        let is_the_same = |id: &ReservationId, settling: &Settling| {
            let mut undecided = undecided.iter();
            settling.has_ended() == has_ended(id)
                && undecided.any(|it| it.reservation.id == *id && it.version == settling.version())
        };
        self.settling
            .retain(|id, settling| is_the_same(id, settling));
        let mut probes = Vec::new();
        for prepared in undecided {
            let id = prepared.reservation.id;
            let settling = self.settling.entry(id);
            let settling = settling.or_insert_with(|| Settling::of_ended(prepared, has_ended(&id)));
            probes.extend(settling.unanswered());
        }
        probes.retain(|probe| self.may_tell(probe.shard, now_ms));
        probes
    }

    /// Whoever has not answered for long is asked anew, as whoever could not answer.
    fn give_up_what_is_lost(&mut self, now_ms: u64) {
        let is_lost = |batch: &(u64, Vec<Sent>)| now_ms >= batch.0 + ANSWERED_WITHIN_MS;
        let lost = self.batches.iter().filter(|(_, batch)| is_lost(batch));
        for to in lost.map(|(to, _)| *to).collect::<Vec<_>>() {
            self.batches.remove(&to);
            self.leave_alone(to, now_ms);
        }
    }

    /// A shard has not answered, or could not.
    fn leave_alone(&mut self, shard: u32, now_ms: u64) {
        let (times, until) = self.silent.entry(shard).or_default();
        let wait_ms = (PATIENCE_MS << (*times).min(16)).min(PATIENCE_MAX_MS);
        (*times, *until) = (*times + 1, now_ms + wait_ms);
    }

    /// Whether a shard owes no answer, and is not left alone.
    fn may_tell(&self, to: u32, now_ms: u64) -> bool {
        let silent_until = self.silent.get(&to).map_or(0, |(_, until)| *until);
        !self.batches.contains_key(&to) && now_ms >= silent_until
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
        // It may be the answer to what was given up.
        let is_this = |it: &(u64, Vec<Sent>)| it.0 == sent_ms;
        if !self.batches.get(&from).is_some_and(is_this) {
            return Vec::new();
        }
        let Some((_, batch)) = self.batches.remove(&from) else {
            return Vec::new();
        };
        let Ok(outcomes) = said else {
            self.leave_alone(from, now_ms);
            return Vec::new();
        };
        self.silent.remove(&from);
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
                (Sent::Probe(id, version, has_ended), outcome) => {
                    tell.extend(self.probed((id, version, has_ended), from, outcome));
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
                    if self.asked.len() >= ASKED_MAX {
                        self.asked.retain(|_, at| now_ms < *at + ASK_AGAIN_AFTER_MS);
                    }
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

    fn probed(
        &mut self,
        (id, version, has_ended): (ReservationId, u32, bool),
        from: u32,
        said: Outcome,
    ) -> Option<ToShard> {
        let settling = self.settling.get_mut(&id)?;
        // It may be the answer about what was prepared before this, or before it ended.
        if (settling.version(), settling.has_ended()) != (version, has_ended) {
            return None;
        }
        // The participant was told what home had decided, and home has lost that: it decides once
        // more, so that nobody holds anything for it.
        let said = match said {
            Outcome::Basket(BasketOutcome::Over) => {
                Outcome::Basket(BasketOutcome::NotHeld(NotHeld::Gone))
            }
            said => said,
        };
        settling.answered(from, Ok(said));
        let decide = settling.decision();
        if decide.is_some() || settling.failure().is_some() {
            // If it stays undecided it is begun anew.
            self.settling.remove(&id);
        }
        decide
    }
}
