//! Baskets over several shards once more, as plainly as the rest: what home and participants know
//! is in lists, and what is owed to whom is looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stock_core::limits::VERSIONS_PER_RECOVERY;
use stock_core::{
    BasketCommand, BasketOutcome, Decide, Decision, EntryKind, Follow, HeldBasket, HoldPart,
    InTheWay, Location, NotHeld, Outcome, Over, Prepared, Principal, Probe, Refusal, RequestId,
    Reservation, ReservationId, ReservationLine, Shortage, Sku, Stamp, State, ToBeTold,
};

use super::naive::{
    Known, Naive, Want, Who, all_open, own_units, reservation_bytes, sum_up_numbered, units_of,
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// How a reservation reaches over shards.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) shards: u32,
    pub(crate) version: u32,
    pub(crate) asked_at: u64,
    /// Each participant, and up to which version it has followed.
    pub(crate) participants: Vec<(u32, u32)>,
    pub(crate) undecided: Option<Undecided>,
}

#[derive(Clone)]
pub(crate) struct Undecided {
    principal: Principal,
    request: RequestId,
    asked: BTreeSet<u32>,
    /// Home itself tells what it decides.
    is_to_be_told: bool,
    /// The lines as they will be, and when they expire.
    amendment: Option<(Vec<ReservationLine>, Option<Stamp>)>,
    /// Whether home still holds what the amendment needs beyond what is open.
    has_extras: bool,
}

/// How often groups went on with losses.
#[derive(Default)]
pub(crate) struct Losses {
    pub(crate) own: u32,
    /// Who has yet to tell what he has here.
    pub(crate) awaited: BTreeSet<u32>,
    pub(crate) others: BTreeMap<u32, u32>,
}

/// The lines of a reservation that is at home elsewhere.
pub(crate) struct Part {
    pub(crate) id: ReservationId,
    pub(crate) created_at: u64,
    pub(crate) asked_at: u64,
    pub(crate) told: u32,
    pub(crate) held: u32,
    pub(crate) ask_at: u64,
    refused: Option<(u32, NotHeld)>,
    pub(crate) lines: Vec<ReservationLine>,
}

pub(crate) struct Tombstone {
    pub(crate) id: ReservationId,
    pub(crate) version: u32,
    pub(crate) until: u64,
    why: Option<NotHeld>,
}

impl Known {
    /// Whether a SKU's stock is at the reservation's home.
    pub(crate) fn is_own(&self, sku: &Sku) -> bool {
        let reach = self.reach.as_ref();
        reach.is_none_or(|reach| sku.shard(reach.shards) == self.what.id.shard())
    }

    /// What home holds of a position: while an amendment is not decided, the larger of what is open
    /// and what will be.
    pub(crate) fn units_here(&self, sku: &Sku, location: &Location) -> i64 {
        if self.ended_at.is_some() || !self.is_own(sku) {
            return 0;
        }
        let open = units_of(&self.what.lines, sku, location);
        let undecided = self
            .reach
            .as_ref()
            .and_then(|reach| reach.undecided.as_ref());
        let undecided = undecided.filter(|undecided| undecided.has_extras);
        let amendment = undecided.and_then(|undecided| undecided.amendment.as_ref());
        let will_be = amendment.map_or(0, |(lines, _)| units_of(lines, sku, location));
        open.max(will_be)
    }

    /// Home has decided something of units, unless something else is not decided yet.
    pub(crate) fn decided_anew(&mut self) {
        if let Some(reach) = &mut self.reach
            && reach.undecided.is_none()
        {
            reach.version += 1;
        }
    }

    fn owes(&self) -> bool {
        self.reach.as_ref().is_some_and(|reach| {
            let mut participants = reach.participants.iter();
            reach.undecided.is_some() || participants.any(|(_, at)| *at < reach.version)
        })
    }

    pub(crate) fn file(&mut self, now: u64) {
        let is_open = [State::Held, State::Confirmed].contains(&self.what.state);
        if !is_open && !self.owes() && self.ended_at.is_none() {
            self.ended_at = Some(now);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let reach = self.reach.as_ref().map_or(0, |reach| {
            let undecided = reach.undecided.as_ref().map_or(0, |undecided| {
                let amendment = undecided.amendment.as_ref();
                let lines = amendment.map_or(0, |(lines, _)| {
                    let has_extra = |line: &&ReservationLine| {
                        let now = units_of(&self.what.lines, &line.sku, &line.location);
                        undecided.has_extras && self.is_own(&line.sku) && line.open > now
                    };
                    lines.len() + lines.iter().filter(has_extra).count()
                });
                160 + 96 * lines
            });
            96 + 64 * reach.participants.len() + undecided + 96 * self.what.lines.len()
        });
        reservation_bytes(&self.what) + reach
    }
}

impl Part {
    pub(crate) fn bytes(&self) -> usize {
        let refused = self.refused.as_ref();
        192 + 72 * self.lines.len() + refused.map_or(0, |(_, why)| 144 + not_held_bytes(why))
    }
}

fn not_held_bytes(why: &NotHeld) -> usize {
    match why {
        NotHeld::Short(shortage) => 64 * shortage.lines.len(),
        NotHeld::Refused(_) | NotHeld::Gone => 0,
    }
}

impl Naive {
    pub(crate) fn basket(&mut self, who: &Who<'_>, command: &BasketCommand) -> Outcome {
        match command {
            BasketCommand::HoldPart(hold) => match self.hold_part(who, hold) {
                Ok(()) => Outcome::Basket(BasketOutcome::Held),
                Err(outcome) => outcome,
            },
            BasketCommand::Probe(probe) => Outcome::Basket(self.probe(who, probe)),
            BasketCommand::Follow(follow) => Outcome::Basket(self.follow(who, follow)),
            BasketCommand::Decide(decide) => {
                let told = self.decide(who, decide);
                Outcome::Basket(told.unwrap_or(BasketOutcome::Done))
            }
            BasketCommand::AllHeld(all) => {
                for basket in &all.baskets {
                    let mut parts = self.parts.iter_mut();
                    if let Some(part) = parts.find(|part| part.id == basket.id)
                        && basket.version > part.told
                        && basket.version <= part.held
                        && part.lines.iter().any(|line| line.open > 0)
                    {
                        part.told = basket.version;
                        if part.held == basket.version {
                            part.ask_at = basket.ask_at.0;
                        }
                        part.refused = part.refused.take().filter(|it| it.0 > part.told);
                    }
                }
                Outcome::Basket(BasketOutcome::Done)
            }
            BasketCommand::Acknowledge(acknowledge) => {
                for (id, version) in &acknowledge.followed {
                    self.acknowledge(who, acknowledge.shard, *id, *version);
                }
                Outcome::Basket(BasketOutcome::Done)
            }
            BasketCommand::Ask(ask) => {
                let until = ask.asked_at.0 + MINUTE;
                let has_part = self.parts.iter().any(|part| part.id == ask.id);
                let floor = self.losses.own * VERSIONS_PER_RECOVERY;
                let gone = Follow::gone(ask.id, floor + VERSIONS_PER_RECOVERY - 1, ask.asked_at);
                let gone = Outcome::Basket(BasketOutcome::Ended(Box::new(gone)));
                let Some(known) = self.find(ask.id) else {
                    if !has_part {
                        self.bury(who, ask.id, u32::MAX, until, None);
                    }
                    return gone;
                };
                let is_filed = known.ended_at.is_some();
                let Some(reach) = &mut known.reach else {
                    return gone;
                };
                if is_filed {
                    let is_there = |l: &&ReservationLine| l.sku.shard(reach.shards) == ask.shard;
                    let lines = known.what.lines.iter().filter(is_there).cloned();
                    let ends = known.what.expires_at.map(|at| at.0 + 5 * SECOND);
                    return Outcome::Basket(BasketOutcome::Ended(Box::new(Follow {
                        id: ask.id,
                        version: reach.version.max(floor),
                        asked_at: Stamp(reach.asked_at),
                        lines: lines.collect(),
                        ask_at: Stamp(ends.unwrap_or(who.now + 24 * 60 * MINUTE)),
                        anew: false,
                    })));
                }
                let mut participants = reach.participants.iter_mut();
                match participants.find(|(shard, _)| *shard == ask.shard) {
                    Some((_, followed)) => {
                        *followed = 0;
                        if let Some(undecided) = &mut reach.undecided {
                            undecided.is_to_be_told = true;
                        }
                        Outcome::Basket(BasketOutcome::Known)
                    }
                    None => gone,
                }
            }
            BasketCommand::Recovered(recovered) => {
                self.losses.own += 1;
                let shards = 0..recovered.shards;
                self.losses.awaited = shards.filter(|it| *it != recovered.shard).collect();
                self.tell_anew_of(|_| true);
                for part in &mut self.parts {
                    part.ask_at = part.ask_at.min(who.now);
                }
                Outcome::Basket(BasketOutcome::Done)
            }
            BasketCommand::TellAnew(tell) => {
                if tell.recovery > self.losses.others.get(&tell.shard).copied().unwrap_or(0) {
                    self.losses.others.insert(tell.shard, tell.recovery);
                    self.tell_anew_of(|shard| shard == tell.shard);
                    for part in self
                        .parts
                        .iter_mut()
                        .filter(|it| it.id.shard() == tell.shard)
                    {
                        part.ask_at = part.ask_at.min(who.now);
                    }
                }
                let owes = self
                    .reservations
                    .iter()
                    .filter_map(|it| it.reach.as_ref())
                    .any(|it| {
                        let mut participants = it.participants.iter();
                        it.undecided.is_none()
                            && participants.any(|of| of.0 == tell.shard && of.1 < it.version)
                    });
                Outcome::Basket(match owes {
                    true => BasketOutcome::Telling,
                    false => BasketOutcome::Done,
                })
            }
            BasketCommand::ToldAnew(told) => {
                if told.recovery == self.losses.own {
                    self.losses.awaited.remove(&told.shard);
                }
                Outcome::Basket(BasketOutcome::Done)
            }
        }
    }

    fn tell_anew_of(&mut self, is_meant: impl Fn(u32) -> bool) {
        let floor = self.losses.own * VERSIONS_PER_RECOVERY;
        let open = self
            .reservations
            .iter_mut()
            .filter(|it| it.ended_at.is_none());
        for reach in open.filter_map(|known| known.reach.as_mut()) {
            let participants = reach.participants.iter_mut();
            let meant: Vec<_> = participants.filter(|(shard, _)| is_meant(*shard)).collect();
            if !meant.is_empty() && reach.undecided.is_none() {
                reach.version = reach.version.max(floor);
            }
            if !meant.is_empty()
                && let Some(undecided) = &mut reach.undecided
            {
                undecided.is_to_be_told = true;
            }
            meant.into_iter().for_each(|(_, followed)| *followed = 0);
        }
    }

    pub(crate) fn is_too_late(&self, who: &Who<'_>, id: ReservationId, asked_at: Stamp) -> bool {
        let is_known = self.parts.iter().any(|part| part.id == id)
            || self.tombstones.iter().any(|tombstone| tombstone.id == id);
        is_known || out_of_time(who, asked_at)
    }

    pub(crate) fn prepare(
        &mut self,
        who: &Who<'_>,
        id: ReservationId,
        request: RequestId,
        over: &Over,
        asked: BTreeSet<u32>,
        amendment: Option<(Vec<ReservationLine>, Option<Stamp>)>,
    ) -> Outcome {
        let known = self.find(id).unwrap();
        let reach = known.reach.get_or_insert_with(|| Reach {
            shards: over.shards,
            version: 0,
            asked_at: 0,
            participants: Vec::new(),
            undecided: None,
        });
        for shard in &asked {
            if !reach.participants.iter().any(|(other, _)| other == shard) {
                reach.participants.push((*shard, reach.version));
            }
        }
        reach.asked_at = reach.asked_at.max(over.asked_at.0);
        reach.undecided = Some(Undecided {
            principal: who.principal.clone(),
            request,
            asked,
            is_to_be_told: false,
            amendment,
            has_extras: true,
        });
        Outcome::Prepared(self.prepared(id).unwrap())
    }

    /// What is prepared of a reservation, as it will be if it is held.
    pub(crate) fn prepared(&self, id: ReservationId) -> Option<Arc<Prepared>> {
        let known = self.reservations.iter().find(|known| known.what.id == id)?;
        let reach = known.reach.as_ref()?;
        let undecided = reach.undecided.as_ref()?;
        let mut reservation: Reservation = known.what.clone();
        reservation.state = State::Held;
        match &undecided.amendment {
            None => {
                for line in &mut reservation.lines {
                    line.open = line.quantity;
                    (line.fulfilled, line.released) = (0, 0);
                }
            }
            Some((lines, expires_at)) => {
                reservation.lines = lines.iter().cloned().collect();
                reservation.expires_at = *expires_at;
            }
        }
        Some(Arc::new(Prepared {
            reservation: Arc::new(reservation),
            version: reach.version + 1,
            asked_at: Stamp(reach.asked_at),
            shards: reach.shards,
            asked: undecided.asked.iter().copied().collect(),
        }))
    }

    /// What is prepared of a reservation that is still open.
    pub(crate) fn undecided(&mut self, id: ReservationId, now: u64) -> Option<Arc<Prepared>> {
        if self.find(id)?.is_due(now) {
            self.expire(id, now);
        }
        let state = self.find(id)?.what.state;
        let is_open = [State::Held, State::Confirmed].contains(&state);
        self.prepared(id).filter(|_| is_open)
    }

    /// Gives back what home holds for an amendment alone.
    pub(crate) fn drop_extras(&mut self, who: &Who<'_>, id: ReservationId) {
        let known = self.find(id).unwrap();
        let before = known.clone();
        let reach = known.reach.as_mut();
        let undecided = reach.and_then(|reach| reach.undecided.as_mut());
        let Some(undecided) = undecided.filter(|undecided| undecided.has_extras) else {
            return;
        };
        undecided.has_extras = false;
        let amendment = undecided.amendment.clone();
        for line in amendment.iter().flat_map(|(lines, _)| lines) {
            let open = units_of(&before.what.lines, &line.sku, &line.location);
            if before.is_own(&line.sku) && line.open > open {
                let (kind, delta) = (EntryKind::Released, (0, open - line.open));
                self.note(who, kind, &line.sku, &line.location, delta, id);
            }
        }
    }

    /// What participants are to be told by whoever had home decide, if anything.
    fn decide(&mut self, who: &Who<'_>, decide: &Decide) -> Option<BasketOutcome> {
        let prepared = self.prepared(decide.id)?;
        if prepared.version != decide.version {
            return None;
        }
        let known = self.find(decide.id).unwrap();
        let before = known.clone();
        let reach = known.reach.as_mut().unwrap();
        let undecided = reach.undecided.clone().unwrap();
        let floor = self.losses.own * VERSIONS_PER_RECOVERY;
        let is_held = decide.decision == Decision::Held;
        let is_open = [State::Held, State::Confirmed].contains(&before.what.state);
        let holder = Who::holder(&before.what.principal, who.now);
        match &undecided.amendment {
            None if is_held => {}
            None => {
                for line in before.what.lines.iter().filter(|line| line.open > 0) {
                    if before.is_own(&line.sku) {
                        let (kind, delta) = (EntryKind::Released, (0, -line.open));
                        self.note(&holder, kind, &line.sku, &line.location, delta, decide.id);
                    }
                }
                self.reservations.retain(|known| known.what.id != decide.id);
            }
            Some(_) if !is_open => {}
            Some(_) if !is_held => self.drop_extras(&holder, decide.id),
            Some((lines, expires_at)) => {
                for line in before.what.lines.iter().filter(|line| line.open > 0) {
                    let left = units_of(lines, &line.sku, &line.location);
                    if before.is_own(&line.sku) && left < line.open {
                        let (kind, delta) = (EntryKind::Released, (0, left - line.open));
                        self.note(&holder, kind, &line.sku, &line.location, delta, decide.id);
                    }
                }
                let known = self.find(decide.id).unwrap();
                known.what.lines = lines.iter().cloned().collect();
                known.what.expires_at = *expires_at;
            }
        }
        if let Some(known) = self.find(decide.id) {
            let reach = known.reach.as_mut().unwrap();
            reach.version = decide.version.max(floor);
            reach.undecided = None;
            known.file(who.now);
        }
        let is_reserved = undecided.amendment.is_none();
        let are_as_held = is_held && is_reserved && is_open && floor <= decide.version;
        let is_passed_on = are_as_held && !undecided.is_to_be_told;
        if is_passed_on && let Some(known) = self.find(decide.id) {
            let reach = known.reach.as_mut().unwrap();
            for (_, followed) in &mut reach.participants {
                *followed = decide.version;
            }
        }
        let answer = match &decide.decision {
            Decision::Held => Outcome::Reservation(Arc::clone(&prepared.reservation)),
            Decision::NotHeld(NotHeld::Short(shortage)) => {
                let short = |line: &ReservationLine| {
                    let mut short = shortage.lines.iter();
                    let mut short = short
                        .find(|it| it.sku == line.sku && it.location == line.location)?
                        .clone();
                    short.requested = line.quantity;
                    Some(short)
                };
                let lines = prepared.reservation.lines.iter().filter_map(short);
                Outcome::Shortage(Arc::new(Shortage {
                    lines: lines.collect(),
                    in_the_way: InTheWay::Stock,
                }))
            }
            Decision::NotHeld(NotHeld::Refused(refusal)) => Outcome::Refused(*refusal),
            Decision::NotHeld(NotHeld::Gone) => Outcome::Refused(Refusal::NotHeldInTime),
        };
        for known in &mut self.requests {
            let waits = matches!(&known.outcome, Outcome::Prepared(prepared)
                if prepared.reservation.id == decide.id);
            if waits && known.id == undecided.request && known.principal == undecided.principal {
                known.outcome = answer.clone();
            }
        }
        let ends = prepared.reservation.expires_at.map(|at| at.0 + 5 * SECOND);
        is_passed_on.then(|| {
            BasketOutcome::AllHeld(Box::new(ToBeTold {
                basket: HeldBasket {
                    id: decide.id,
                    version: decide.version,
                    ask_at: Stamp(ends.unwrap_or(who.now + 24 * 60 * MINUTE)),
                },
                participants: undecided.asked.iter().copied().collect(),
            }))
        })
    }

    fn acknowledge(&mut self, who: &Who<'_>, shard: u32, id: ReservationId, version: u32) {
        let Some(known) = self.find(id) else {
            return;
        };
        let lines = known.what.lines.clone();
        if let Some(reach) = &mut known.reach {
            for (_, followed) in reach.participants.iter_mut().filter(|it| it.0 == shard) {
                *followed = (*followed).max(version.min(reach.version));
            }
            let has_part = lines
                .iter()
                .any(|line| line.sku.shard(reach.shards) == shard);
            if !has_part && reach.undecided.is_none() {
                let latest = reach.version;
                let participants = &mut reach.participants;
                participants.retain(|(it, followed)| *it != shard || *followed < latest);
            }
        }
        known.file(who.now);
    }

    /// What is known of a version of a part without looking at any shelf.
    fn said(&self, id: ReservationId, version: u32) -> Option<BasketOutcome> {
        if let Some(it) = self.tombstones.iter().find(|it| it.id == id) {
            return match (version == it.version, version < it.version, &it.why) {
                (true, _, Some(why)) => Some(BasketOutcome::NotHeld(why.clone())),
                (true, ..) | (_, true, _) => Some(BasketOutcome::Over),
                _ => None,
            };
        }
        let part = self.parts.iter().find(|part| part.id == id)?;
        match &part.refused {
            Some((refused, why)) if *refused == version => {
                Some(BasketOutcome::NotHeld(why.clone()))
            }
            _ if version <= part.told => Some(BasketOutcome::Over),
            _ if version <= part.held => Some(BasketOutcome::Held),
            _ => None,
        }
    }

    fn hold_part(&mut self, who: &Who<'_>, hold: &HoldPart) -> Result<(), Outcome> {
        match self.said(hold.id, hold.version) {
            Some(BasketOutcome::Held) => return Ok(()),
            Some(outcome) => return Err(Outcome::Basket(outcome)),
            None => {}
        }
        if hold.asked_at.0 > who.latest + MINUTE {
            return Err(Outcome::Refused(Refusal::TooLate));
        }
        if !self.losses.awaited.is_empty() {
            return Err(Outcome::Refused(Refusal::Reconciling));
        }
        if who.latest > hold.asked_at.0 + MINUTE {
            let why = NotHeld::Gone;
            self.never(who, hold.id, hold.version, hold.asked_at, &why);
            return Err(Outcome::Basket(BasketOutcome::NotHeld(why)));
        }
        let wants = sum_up_numbered(hold.lines.iter().map(|it| (it.number, &it.line)));
        let known = self.parts.iter().find(|part| part.id == hold.id);
        let held = known.map_or(Vec::new(), |part| part.lines.clone());
        let wanted: Vec<&Want> = wants.iter().collect();
        let why = match self.shortage(&wanted, &held, Some((hold.id, who.now))) {
            Ok(None) => None,
            Ok(Some(shortage)) if shortage.in_the_way != InTheWay::Stock && !hold.is_last_try => {
                return Err(Outcome::Shortage(Arc::new(shortage)));
            }
            Ok(Some(shortage)) => Some(NotHeld::Short(Arc::new(shortage))),
            Err(refusal) => Some(NotHeld::Refused(refusal)),
        };
        if let Some(why) = why {
            self.never(who, hold.id, hold.version, hold.asked_at, &why);
            return Err(Outcome::Basket(BasketOutcome::NotHeld(why)));
        }
        let mut lines = held.clone();
        for want in &wants {
            let more = want.units - own_units(&held, want);
            if more <= 0 {
                continue;
            }
            let (kind, delta) = (EntryKind::Reserved, (0, more));
            self.note(who, kind, &want.sku, &want.location, delta, hold.id);
            let same = |l: &&mut ReservationLine| l.sku == want.sku && l.location == want.location;
            match lines.iter_mut().find(same) {
                Some(line) => {
                    line.open += more;
                    line.quantity += more;
                }
                None => lines.push(all_open(want)),
            }
        }
        let ask_at = who.now + 2 * SECOND;
        self.tombstones.retain(|tombstone| tombstone.id != hold.id);
        match self.parts.iter_mut().find(|part| part.id == hold.id) {
            Some(part) => {
                part.lines = lines;
                part.held = hold.version;
                part.asked_at = part.asked_at.max(hold.asked_at.0);
                part.ask_at = part.ask_at.min(ask_at);
            }
            None => self.parts.push(Part {
                id: hold.id,
                created_at: who.now,
                asked_at: hold.asked_at.0,
                told: 0,
                held: hold.version,
                ask_at,
                refused: None,
                lines,
            }),
        }
        Ok(())
    }

    fn probe(&mut self, who: &Who<'_>, probe: &Probe) -> BasketOutcome {
        let said = self.said(probe.id, probe.question.version);
        if said.is_none() {
            self.never(
                who,
                probe.id,
                probe.question.version,
                probe.asked_at,
                &NotHeld::Gone,
            );
        }
        if probe.question.has_ended {
            self.free(who, probe.id);
        }
        said.unwrap_or(BasketOutcome::NotHeld(NotHeld::Gone))
    }

    /// Nothing is held any more for a part of which home has told nothing. What was is still known.
    fn free(&mut self, who: &Who<'_>, id: ReservationId) {
        let mut untold = self.parts.iter_mut().filter(|part| part.told == 0);
        let Some(part) = untold.find(|part| part.id == id) else {
            return;
        };
        let held: Vec<ReservationLine> = part.lines.clone();
        part.lines.iter_mut().for_each(|line| line.open = 0);
        for line in held.iter().filter(|line| line.open > 0) {
            let (kind, delta) = (EntryKind::Expired, (0, -line.open));
            self.note(who, kind, &line.sku, &line.location, delta, id);
        }
    }

    /// A version of a part will never be held.
    fn never(
        &mut self,
        who: &Who<'_>,
        id: ReservationId,
        version: u32,
        asked_at: Stamp,
        why: &NotHeld,
    ) {
        match self.parts.iter_mut().find(|part| part.id == id) {
            Some(part) => part.refused = Some((version, why.clone())),
            None => self.bury(who, id, version, asked_at.0 + MINUTE, Some(why.clone())),
        }
    }

    fn bury(
        &mut self,
        who: &Who<'_>,
        id: ReservationId,
        version: u32,
        until: u64,
        why: Option<NotHeld>,
    ) {
        let mut tombstone = Tombstone {
            id,
            version,
            until,
            why,
        };
        if let Some(before) = self.tombstones.iter().find(|it| it.id == id) {
            tombstone.version = tombstone.version.max(before.version);
            tombstone.until = tombstone.until.max(before.until);
        }
        self.tombstones.retain(|it| it.id != id);
        self.parts.retain(|part| part.id != id);
        if tombstone.until >= who.now {
            self.tombstones.push(tombstone);
        }
    }

    fn follow(&mut self, who: &Who<'_>, follow: &Follow) -> BasketOutcome {
        let nothing_open = follow.lines.iter().all(|line| line.open == 0);
        if !self.parts.iter().any(|part| part.id == follow.id) {
            let mut tombstones = self.tombstones.iter();
            let buried = tombstones.find(|it| it.id == follow.id);
            if buried.is_some_and(|it| follow.version <= it.version) {
                return BasketOutcome::Done;
            }
            if nothing_open {
                let until = follow.asked_at.0 + MINUTE;
                self.bury(who, follow.id, follow.version, until, None);
                return BasketOutcome::Done;
            }
            if !follow.anew {
                return BasketOutcome::Missing;
            }
            self.tombstones.retain(|it| it.id != follow.id);
            self.parts.push(Part {
                id: follow.id,
                created_at: who.now,
                asked_at: follow.asked_at.0,
                told: 0,
                held: 0,
                ask_at: follow.ask_at.0,
                refused: None,
                lines: Vec::new(),
            });
        }
        let at = self.parts.iter().position(|it| it.id == follow.id).unwrap();
        let part = &mut self.parts[at];
        if follow.version < part.told {
            return BasketOutcome::Done;
        }
        part.ask_at = follow.ask_at.0;
        let is_news = follow.version > part.told && follow.version >= part.held;
        part.told = follow.version;
        if part
            .refused
            .as_ref()
            .is_some_and(|it| it.0 <= follow.version)
        {
            part.refused = None;
        }
        let (asked_at, before) = (part.asked_at, part.lines.clone());
        if is_news {
            part.held = follow.version;
            part.lines = follow.lines.clone();
            self.post_differences(who, follow, &before);
        }
        let part = &self.parts[at];
        let is_undecided = part.told < part.held;
        if !is_undecided && part.lines.iter().all(|line| line.open == 0) {
            let until = follow.asked_at.0.max(asked_at) + MINUTE;
            self.bury(who, follow.id, follow.version, until, None);
        }
        BasketOutcome::Done
    }

    fn post_differences(&mut self, who: &Who<'_>, follow: &Follow, before: &[ReservationLine]) {
        let same =
            |a: &ReservationLine, b: &ReservationLine| a.sku == b.sku && a.location == b.location;
        let left = before.iter();
        let left = left.filter(|line| !follow.lines.iter().any(|other| same(line, other)));
        let left = left.map(|line| ReservationLine {
            open: 0,
            released: line.quantity - line.fulfilled,
            ..line.clone()
        });
        let all: Vec<ReservationLine> = left.chain(follow.lines.iter().cloned()).collect();
        for line in all {
            let was = before.iter().find(|other| same(&line, other));
            // Whoever lost something hears of its lines what they were, from the beginning.
            let lost = ReservationLine {
                open: line.open + line.fulfilled,
                fulfilled: 0,
                ..line.clone()
            };
            let is_lost = was.is_none() && self.losses.awaited.contains(&follow.id.shard());
            let was = if is_lost { Some(&lost) } else { was };
            let (open, fulfilled, expired) =
                was.map_or((0, 0, 0), |was| (was.open, was.fulfilled, was.expired()));
            let fulfilled = (line.fulfilled - fulfilled).max(0).min(open);
            let expired = (line.expired() - expired).max(0).min(open - fulfilled);
            let rest = line.open - (open - fulfilled - expired);
            // A counter stays in its range, whatever home says.
            let room = self.on_hand(&line.sku, &line.location) + 1_000_000_000_000_000;
            for (kind, on_hand, reserved) in [
                (EntryKind::Reserved, 0, if is_lost { lost.open } else { 0 }),
                (EntryKind::Fulfilled, -fulfilled.min(room), -fulfilled),
                (EntryKind::Expired, 0, -expired),
                (EntryKind::Released, 0, rest.min(0)),
                (EntryKind::Reserved, 0, rest.max(0)),
            ] {
                if reserved != 0 {
                    let delta = (on_hand, reserved);
                    self.note(who, kind, &line.sku, &line.location, delta, follow.id);
                }
            }
        }
    }
}

/// Whether something that was asked for then may not be held any more, or not yet.
fn out_of_time(who: &Who<'_>, asked_at: Stamp) -> bool {
    who.latest > asked_at.0 + MINUTE || asked_at.0 > who.latest + MINUTE
}
