//! What home does for a basket over several shards, once it is prepared: it decides, learns who has
//! followed, and says what it knows of a part.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::apply::holds::Hold;
use crate::basket::{Acknowledge, Ask, Decide, Decision, Follow, HeldBasket, Over};
use crate::home::{Amendment, Participant, Undecided};
use crate::ids::{At, ReservationId, Stamp};
use crate::ledger::{EntryKind, LedgerEntry};
use crate::memory::RequestKey;
use crate::outcome::{BasketOutcome, NotHeld, Outcome, Prepared, Refusal, ToBeTold};
use crate::parts;
use crate::reservation::{Reservation, ReservationLine, ReservationLines};
use crate::shard::Shard;
use crate::verdict::Verdict;

impl Shard {
    /// Whether home may begin something over shards that was asked for then.
    pub(crate) fn check_in_time<'a>(
        &self,
        at: At,
        id: &ReservationId,
        over: &'a Over,
    ) -> Result<&'a Over, Refusal> {
        let asked_at = over.asked_at;
        let is_out = parts::is_too_late(asked_at, at.moment);
        match is_out || parts::is_too_soon(asked_at, at.moment) || self.parts.get(id).is_some() {
            true => Err(Refusal::TooLate),
            false => Ok(over),
        }
    }

    /// What home has prepared of a reservation, and not decided yet.
    pub fn prepared(&self, id: &ReservationId) -> Option<Arc<Prepared>> {
        let hold = self.holds.hold(id)?;
        hold.spread()?.prepared(&hold.reservation).map(Arc::new)
    }

    /// Whether there is any such thing.
    pub(crate) fn is_undecided(&self, id: &ReservationId) -> bool {
        let spread = self.holds.hold(id).and_then(Hold::spread);
        spread.is_some_and(|spread| spread.undecided.is_some())
    }

    /// Prepares the next version of a reservation, of which these shards have to hold something.
    pub(crate) fn prepare(
        &mut self,
        at: At,
        id: &ReservationId,
        request: RequestKey,
        over: &Over,
        asked: SmallVec<[u32; 4]>,
        amendment: Option<Amendment>,
    ) -> Outcome {
        self.holds.spread_out(id, over.shards);
        self.holds.change_spread(id, |_, spread| {
            spread.join(asked.iter().copied());
            spread.asked_at = spread.asked_at.max(over.asked_at);
            spread.undecided = Some(Box::new(Undecided {
                since: at.stamp(),
                request,
                asked,
                is_to_be_told: false,
                amendment,
            }));
        });
        match self.prepared(id) {
            Some(prepared) => Outcome::Prepared(prepared),
            None => Outcome::Refused(Refusal::UnknownReservation),
        }
    }

    pub(crate) fn decide(
        &mut self,
        at: At,
        decide: &Decide,
        ledger: &mut Vec<LedgerEntry>,
    ) -> Outcome {
        let done = Outcome::Basket(BasketOutcome::Done);
        let Some(prepared) = self.prepared(&decide.id) else {
            return done;
        };
        if prepared.version != decide.version {
            return done;
        }
        let is_held = decide.decision == Decision::Held;
        let mut undecided = None;
        let mut are_as_held = false;
        let floor = self.recoveries.version_floor();
        self.holds.change_spread(&decide.id, |reservation, spread| {
            undecided = spread.undecided.take();
            spread.version = decide.version.max(floor);
            let may_be_passed_on = undecided
                .as_ref()
                .is_some_and(|it| it.amendment.is_none() && !it.is_to_be_told);
            are_as_held = is_held
                && may_be_passed_on
                && reservation.state.is_open()
                && spread.version == decide.version;
            if are_as_held {
                spread.all_have_followed();
            }
        });
        let Some(undecided) = undecided else {
            return done;
        };
        let Undecided {
            request, amendment, ..
        } = *undecided;
        let is_reserve = amendment.is_none();
        match amendment {
            None if is_held => {}
            None => self.never_held(at, &decide.id, ledger),
            Some(amendment) => self.amended(at, &decide.id, &amendment, is_held, ledger),
        }
        self.holds.file(decide.id, at.stamp());
        let as_held = &prepared.reservation;
        let verdict = match &decide.decision {
            Decision::Held if is_reserve => Verdict::held(as_held),
            Decision::Held => Verdict::Reservation(Arc::clone(as_held)),
            Decision::NotHeld(NotHeld::Short(short)) => Verdict::short(short, &as_held.lines),
            Decision::NotHeld(NotHeld::Refused(refusal)) => Verdict::Refused(Box::new(*refusal)),
            Decision::NotHeld(NotHeld::Gone) => Verdict::Refused(Box::new(Refusal::NotHeldInTime)),
        };
        let is_prepared =
            |known: &Verdict| matches!(known, Verdict::Prepared { id } if *id == decide.id);
        self.requests.replace(&request, verdict, is_prepared);
        if !are_as_held {
            return done;
        }
        let ask_at = self.ask_at(as_held);
        Outcome::Basket(BasketOutcome::AllHeld(Box::new(ToBeTold {
            basket: HeldBasket {
                id: decide.id,
                version: decide.version,
                ask_at,
            },
            participants: SmallVec::from_slice(&prepared.asked),
        })))
    }

    /// Units that were set aside at home for what was not held elsewhere go back.
    fn never_held(&mut self, at: At, id: &ReservationId, ledger: &mut Vec<LedgerEntry>) {
        if let Some(hold) = self.holds.hold(id).cloned() {
            let reservation = &hold.reservation;
            let own = reservation.lines.iter().filter(|line| {
                line.open > 0 && hold.spread().is_some_and(|it| it.is_home(id, &line.sku))
            });
            for line in own {
                self.give_back(at.stamp(), reservation, line, line.open, ledger);
                let position = (&line.sku, &line.location);
                self.shelves
                    .remove_holder(position, reservation.created_at, *id);
            }
        }
        self.holds.withdraw(id);
    }

    /// An amendment is decided: home gives back what it need not hold any more.
    fn amended(
        &mut self,
        at: At,
        id: &ReservationId,
        amendment: &Amendment,
        is_held: bool,
        ledger: &mut Vec<LedgerEntry>,
    ) {
        let Some(hold) = self.holds.hold(id).cloned() else {
            return;
        };
        let (reservation, Some(spread)) = (&hold.reservation, hold.spread()) else {
            return;
        };
        // It ended meanwhile, and everything went back then.
        if !reservation.state.is_open() {
            return;
        }
        if !is_held {
            return self.drop_extras(at.stamp(), reservation, &amendment.extras, ledger);
        }
        let amended = amendment.made_of(reservation);
        for line in reservation.lines.iter().filter(|line| line.open > 0) {
            if !spread.is_home(id, &line.sku) {
                continue;
            }
            let left = amended.open_units_at(&line.sku, &line.location);
            if left < line.open {
                self.give_back(at.stamp(), reservation, line, line.open - left, ledger);
            }
            if left == 0 {
                let position = (&line.sku, &line.location);
                self.shelves
                    .remove_holder(position, reservation.created_at, *id);
            }
        }
        let (before, after) = (reservation.expires_at, amended.expires_at);
        self.holds.reschedule(*id, before, after);
        self.holds.change_spread(id, |reservation, _| {
            *reservation = Arc::new(amended);
        });
    }

    /// Units of a reservation over several shards have left it, or it is over: its participants
    /// have to be told, and home holds nothing more for an amendment that is not decided yet.
    pub(crate) fn settled_over_shards(
        &mut self,
        at: Stamp,
        id: &ReservationId,
        is_over: bool,
        ledger: &mut Vec<LedgerEntry>,
    ) {
        if is_over {
            let mut extras = ReservationLines::new();
            self.holds.change_spread(id, |_, spread| {
                let undecided = spread.undecided.as_mut();
                let amendment = undecided.and_then(|undecided| undecided.amendment.as_mut());
                extras = amendment.map_or(extras.clone(), |it| std::mem::take(&mut it.extras));
            });
            if let Some(reservation) = self.holds.get(id).map(Arc::clone) {
                self.drop_extras(at, &reservation, &extras, ledger);
            }
        }
        self.holds.decided_anew(id);
    }

    /// Gives back what home holds for an amendment alone.
    fn drop_extras(
        &mut self,
        at: Stamp,
        reservation: &Reservation,
        extras: &[ReservationLine],
        ledger: &mut Vec<LedgerEntry>,
    ) {
        for line in extras {
            self.give_back(at, reservation, line, line.open, ledger);
            if reservation.open_units_at(&line.sku, &line.location) == 0 {
                let position = (&line.sku, &line.location);
                self.shelves
                    .remove_holder(position, reservation.created_at, reservation.id);
            }
        }
    }

    fn give_back(
        &mut self,
        at: Stamp,
        reservation: &Reservation,
        line: &ReservationLine,
        units: i64,
        ledger: &mut Vec<LedgerEntry>,
    ) {
        let (id, principal) = (reservation.id, &reservation.principal);
        let kind = EntryKind::Released;
        let entry = line.entry(kind, 0, -units, id, principal, at);
        self.shelves.post(entry, ledger);
    }

    pub(crate) fn acknowledge(&mut self, at: At, acknowledge: &Acknowledge) -> Outcome {
        for (id, version) in &acknowledge.followed {
            self.holds.change_spread(id, |reservation, spread| {
                let is_here =
                    |line: &ReservationLine| line.sku.shard(spread.shards) == acknowledge.shard;
                let has_part = reservation.lines.iter().any(is_here);
                let may_leave = !has_part && spread.undecided.is_none();
                let version = (*version).min(spread.version);
                let known = spread.participants.iter_mut();
                if let Some(known) = known.into_iter().find(|it| it.shard == acknowledge.shard) {
                    known.followed = known.followed.max(version);
                }
                if may_leave {
                    let (shard, latest) = (acknowledge.shard, spread.version);
                    let stays = |it: &mut Participant| it.shard != shard || it.followed < latest;
                    spread.participants.retain(stays);
                }
            });
            self.holds.file(*id, at.stamp());
        }
        Outcome::Basket(BasketOutcome::Done)
    }

    pub(crate) fn ask(&mut self, at: At, ask: &Ask) -> Outcome {
        let hold = self.holds.hold(&ask.id);
        let is_filed = hold.is_some_and(|hold| hold.ended().is_some());
        if is_filed && let Some(follow) = self.to_follow(&ask.id, ask.shard) {
            return Outcome::Basket(BasketOutcome::Ended(Box::new(follow)));
        }
        let mut is_known = false;
        self.holds.change_spread(&ask.id, |_, spread| {
            is_known = spread.tell_anew(|shard| shard == ask.shard);
        });
        if is_known {
            return Outcome::Basket(BasketOutcome::Known);
        }
        // Whoever asks may have heard of it sooner than home, which then must not hold it any more.
        // (A part of it here would mean that the wrong shard was asked.)
        if self.holds.hold(&ask.id).is_none() && self.parts.part(&ask.id).is_none() {
            let until = parts::over_at(ask.asked_at);
            self.bury(at, ask.id, u32::MAX, until, None);
        }
        let gone = Follow::gone(ask.id, self.recoveries.last_version(), ask.asked_at);
        Outcome::Basket(BasketOutcome::Ended(Box::new(gone)))
    }
}
